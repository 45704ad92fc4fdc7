package upstream

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

func hex(n int) string     { return strconv.FormatInt(int64(n), 16) }
func decimal(n int) string { return strconv.Itoa(n) }

const tooLarge = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 4\r\n\r\nlong"

// large is more than the buffers of two sockets hold.
var largeBody = strings.Repeat("0123456789abcdef", 2<<20)

// A backend may refuse a body that it has not read. The reason must not be lost in the failure of the write.
func TestAnEarlyAnswerIsReturned(t *testing.T) {
	for _, test := range []struct {
		name   string
		answer func(v *visit)
		only   string // net/http loses the answer when its write fails before it has been read
	}{
		{"and the connection stays open", func(v *visit) { v.say(tooLarge); v.TCPConn.SetReadBuffer(0); <-v.at.done }, ""},
		{"after an interim one", func(v *visit) { v.say("HTTP/1.1 102 Processing\r\n\r\n" + tooLarge); <-v.at.done }, ""},
		{"and the connection is closed", func(v *visit) { v.say(tooLarge) }, "direct"},
		{"and the connection is half closed", func(v *visit) { v.say(tooLarge); _ = v.CloseWrite(); <-v.at.done }, "direct"},
	} {
		each(t, func(t *testing.T, build builder) {
			if test.only != "" && !strings.HasSuffix(t.Name(), test.only) {
				return // The implementation does not promise it, so there is nothing to hold it to.
			}
			b := play(t, func(v *visit) {
				v.readHead()
				test.answer(v)
			})
			transport := open(t, build, Config{Address: b.address})
			response, body, err := send(t, transport, http.MethodPost, b.url, largeBody)
			if err != nil || response.StatusCode != http.StatusRequestEntityTooLarge || body != "long" {
				t.Errorf("%s: got %v, %q, %v", test.name, response, body, err)
			}
			b.finish()
			if b.heads.Load() != 1 || b.conns.Load() != 1 {
				t.Errorf("%s: %d heads on %d connections", test.name, b.heads.Load(), b.conns.Load())
			}
		})
	}
}

// A backend that reads with long pauses gets the whole body, and an interim answer meanwhile does not end the writing.
func TestASlowReaderGetsTheWholeBody(t *testing.T) {
	each(t, func(t *testing.T, build builder) {
		for _, interim := range []string{"", "HTTP/1.1 102 Processing\r\n\r\n", "HTTP/1.1 102 Processing\r\nX: y"} {
			for _, dial := range []func(context.Context, string, string) (net.Conn, error){nil, dialUnseen} {
				b := play(t, func(v *visit) {
					length, _ := v.readHead()
					v.say(interim)
					content := make([]byte, length)
					for half := range 2 {
						time.Sleep(3 * writePatience)
						if half == 1 && strings.HasSuffix(interim, "y") {
							v.say("\r\n\r\n") // Only now the interim answer is complete.
						}
						if _, err := io.ReadFull(v.in, content[half*length/2:(half+1)*length/2]); err != nil {
							return
						}
					}
					if string(content) == largeBody {
						v.say(ok)
					}
				})
				transport := open(t, build, Config{Address: b.address, Dial: dial})
				if _, body, err := send(t, transport, http.MethodPost, b.url, largeBody); err != nil || body != "ok" {
					t.Errorf("%q: %q, %v", interim, body, err)
				}
			}
		}
	})
}

// A connection on which a request was not written whole does not serve another.
func TestAnUnfinishedRequestEndsTheConnection(t *testing.T) {
	each(t, func(t *testing.T, build builder) {
		b := play(t, func(v *visit) {
			if v.number == 1 {
				v.readHead()
				v.say("HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n")
				<-v.at.done
				return
			}
			always(ok)(v)
		})
		defer b.finish()
		transport := open(t, build, Config{Address: b.address})
		response, _, err := send(t, transport, http.MethodPost, b.url, largeBody)
		if err != nil || response.StatusCode != http.StatusRequestEntityTooLarge {
			t.Fatalf("%v, %v", response, err)
		}
		if _, body, err := send(t, transport, http.MethodPost, b.url, "{}"); err != nil || body != "ok" {
			t.Errorf("%q, %v", body, err)
		}
	})
}

// Bodies of every size around the buffers' arrive as they were, whatever way they are read.
func TestBodiesArriveWhole(t *testing.T) {
	each(t, func(t *testing.T, build builder) {
		b := play(t, func(v *visit) {
			for {
				content, ok := v.read()
				if !ok {
					return
				}
				v.say("HTTP/1.1 200 OK\r\nContent-Length: " + decimal(len(content)) + "\r\n\r\n" + content)
			}
		})
		transport := open(t, build, Config{Address: b.address})
		for _, size := range []int{1, 100, 3000, 4095, 4096, 4097, 16000, 16384, 16385, 100_000, 400_000, 3 << 20} {
			want := largeBody[:size]
			for name, reader := range map[string]io.Reader{
				"WriterTo": strings.NewReader(want),
				"pieces":   &pieces{rest: [][]byte{[]byte(want[:size/3]), []byte(want[size/3 : size/2]), []byte(want[size/2:])}},
				"Reader":   struct{ io.Reader }{strings.NewReader(want)},
				"halves":   io.MultiReader(strings.NewReader(want[:size/2]), strings.NewReader(want[size/2:])),
			} {
				r := request(t.Context(), t, http.MethodPost, b.url, "")
				r.Body, r.ContentLength = io.NopCloser(reader), int64(size)
				if p, ok := reader.(*pieces); ok {
					r.Body = p
				}
				if _, body, err := receive(transport, r); err != nil || body != want {
					t.Fatalf("%s of %d bytes: %v, %d bytes came back", name, size, err, len(body))
				}
			}
		}
		b.connected(t, 1)
	})
}

// pieces is a body in parts that writes each with one call and changes it afterwards: a writer must not keep it.
type pieces struct{ rest [][]byte }

func (p *pieces) Close() error { return nil }

func (p *pieces) Read(b []byte) (n int, err error) {
	for len(p.rest) > 0 && len(p.rest[0]) == 0 {
		p.rest = p.rest[1:]
	}
	if len(p.rest) == 0 {
		return 0, io.EOF
	}
	n = copy(b, p.rest[0])
	p.rest[0] = p.rest[0][n:]
	return n, nil
}

func (p *pieces) WriteTo(w io.Writer) (n int64, err error) {
	for _, piece := range p.rest {
		m, err := w.Write(piece)
		if n += int64(m); err != nil {
			return n, err
		}
		clear(piece)
	}
	return n, nil
}

// A body that is not as long as it says must not leave the connection to the next request.
func TestABodyOfAnotherLengthIsAnError(t *testing.T) {
	each(t, func(t *testing.T, build builder) {
		for name, body := range map[string]io.Reader{
			"shorter, WriterTo": bytes.NewReader(make([]byte, 9)),
			"shorter, Reader":   struct{ io.Reader }{bytes.NewReader(make([]byte, 9))},
			"longer, WriterTo":  bytes.NewReader(make([]byte, 11)),
			"longer, Reader":    struct{ io.Reader }{bytes.NewReader(make([]byte, 11))},
			"failing":           io.MultiReader(bytes.NewReader(make([]byte, 5)), failing{}),
		} {
			b := play(t, func(v *visit) { v.gone() })
			r := request(t.Context(), t, http.MethodPost, b.url, "")
			r.Body, r.ContentLength = io.NopCloser(body), 10
			if _, _, err := receive(open(t, build, Config{Address: b.address}), r); err == nil {
				t.Errorf("%s: no error", name)
			}
			if b.conns.Load() > 1 {
				t.Errorf("%s: %d connections", name, b.conns.Load())
			}
		}
	})
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("cannot be read") }

// The router's usual request leaves in one write, and a large body is not copied together with its head first.
func TestWritesPerRequest(t *testing.T) {
	for _, test := range []struct{ body, writes int }{{10, 1}, {3000, 1}, {15000, 1}, {100_000, 2}} {
		var writes int
		transport := open(t, Direct, Config{Address: "engine.example:80", Dial: inMemory(func(conn net.Conn, in *bufio.Reader) {
			buffer := make([]byte, 1<<20)
			for have, want := 0, test.body; ; {
				n, err := conn.Read(buffer)
				if err != nil {
					return
				}
				if writes++; writes == 1 {
					want += bytes.Index(buffer[:n], []byte("\r\n\r\n")) + 4
				}
				if have += n; have == want {
					_, _ = io.WriteString(conn, ok)
				}
			}
		})})
		if _, body, err := send(t, transport, http.MethodPost, "http://engine.example:80/", largeBody[:test.body]); err != nil || body != "ok" {
			t.Fatalf("%q, %v", body, err)
		}
		if writes != test.writes { // Two where there is no writev.
			t.Errorf("%d bytes took %d writes, want %d", test.body, writes, test.writes)
		}
	}
}
