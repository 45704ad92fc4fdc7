package upstream

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

// answers are legal ones, as they stand on the wire.
var answers = []struct {
	name    string
	wire    string
	status  int
	body    string
	length  int64 // as the response says it
	close   bool  // the server has to close the connection to end the body
	reused  bool  // the connection serves the next request
	clipped int   // where the body may end early without anybody knowing: 0, or the length of the head
}{
	{name: "sized", wire: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", status: 200, body: "hello", length: 5, reused: true},
	{name: "empty", wire: "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", status: 200, reused: true},
	{name: "without a reason", wire: "HTTP/1.1 200\r\ncontent-length:2\r\n\r\nok", status: 200, body: "ok", length: 2, reused: true},
	{name: "the same length twice", wire: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\ncontent-length:\t2 \r\n\r\nok", status: 200, body: "ok", length: 2, reused: true},
	{
		name: "chunked", wire: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n00A\r\n, world!!\n\r\n0\r\n\r\n",
		status: 200, body: "hello, world!!\n", length: -1, reused: true,
	},
	{name: "chunked, empty", wire: "HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n0\r\n\r\n", status: 200, length: -1, reused: true},
	{name: "chunked, with extensions and trailers", wire: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Took, X-Sum\r\n\r\n" +
		"3;a=b;c=\"d\"\r\nabc\r\n0;last\r\nX-Took: 5\r\nX-Sum: 1\r\n\r\n", status: 200, body: "abc", length: -1, reused: true},
	{
		name: "to the end of the connection", wire: "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nhello", status: 200, body: "hello", length: -1,
		close: true, clipped: len("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n"),
	},
	{name: "HTTP/1.0", wire: "HTTP/1.0 200 OK\r\n\r\nhello", status: 200, body: "hello", length: -1, close: true, clipped: len("HTTP/1.0 200 OK\r\n\r\n")},
	{name: "HTTP/1.0 with a length", wire: "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", status: 200, body: "hello", length: 5},
	{name: "Connection: close", wire: "HTTP/1.1 200 OK\r\nConnection: X, Close\r\nContent-Length: 5\r\n\r\nhello", status: 200, body: "hello", length: 5},
	{name: "chunked, Connection: close", wire: "HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n", status: 200, body: "x", length: -1},
	{name: "204", wire: "HTTP/1.1 204 No Content\r\nX: y\r\n\r\n", status: 204, reused: true},
	{name: "304", wire: "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", status: 304, reused: true},
	{name: "an error with a body", wire: "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 3\r\nContent-Length: 4\r\n\r\nbusy", status: 429, body: "busy", length: 4, reused: true},
	{
		name: "after interim answers", wire: "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
		status: 200, body: "ok", length: 2, reused: true,
	},
	{name: "long head", wire: "HTTP/1.1 200 OK\r\nX-Long: " + strings.Repeat("x", 20<<10) + "\r\nContent-Length: 2\r\n\r\nok", status: 200, body: "ok", length: 2, reused: true},
}

func TestAnswersAreRead(t *testing.T) {
	each(t, func(t *testing.T, build builder) {
		for _, test := range answers {
			t.Run(test.name, func(t *testing.T) {
				b := play(t, func(v *visit) {
					for {
						if _, ok := v.read(); !ok {
							return
						}
						if v.say(test.wire); test.close {
							return
						}
					}
				})
				transport := open(t, build, Config{Address: b.address})
				const requests = 3
				for range requests {
					response, body, err := send(t, transport, http.MethodPost, b.url, "{}")
					if err != nil {
						t.Fatal(err)
					}
					if response.StatusCode != test.status || body != test.body || response.ContentLength != test.length {
						t.Errorf("got %d %q, length %d", response.StatusCode, body, response.ContentLength)
					}
				}
				want := int64(requests)
				if test.reused {
					want = 1
				}
				b.connected(t, want)
			})
		}
	})
}

func TestHeadersOfAnAnswer(t *testing.T) {
	each(t, func(t *testing.T, build builder) {
		b := play(t, always("HTTP/1.1 200 All  well \r\ncontent-TYPE:  text/plain; charset=utf-8\t\r\nx-a: 1\r\nX-B:\r\nX-A: 2\r\nx_odd!: \xc3\xa9\r\nContent-Length: 2\r\n\r\nok"))
		response, body, err := send(t, open(t, build, Config{Address: b.address}), http.MethodPost, b.url, "{}")
		if err != nil {
			t.Fatal(err)
		}
		want := http.Header{"Content-Type": {"text/plain; charset=utf-8"}, "X-A": {"1", "2"}, "X-B": {""}, "X_odd!": {"é"}, "Content-Length": {"2"}}
		if fmt.Sprint(response.Header) != fmt.Sprint(want) || response.Status != "200 All  well " || body != "ok" {
			t.Errorf("got %q %v %q", response.Status, response.Header, body)
		}
		if response.Proto != "HTTP/1.1" || response.ProtoMajor != 1 || response.ProtoMinor != 1 || response.Close || response.Request == nil {
			t.Errorf("got %+v", response)
		}
	})
}

// inPieces answers each request with wire, cut in two at k, and then waits or closes.
func inPieces(wire string, k int, closes bool) func(net.Conn, *bufio.Reader) {
	return func(conn net.Conn, in *bufio.Reader) {
		for discardRequest(in) {
			_, _ = io.WriteString(conn, wire[:k])
			_, _ = io.WriteString(conn, wire[k:])
			if closes {
				return
			}
		}
	}
}

func TestAnswersMayBeCutAnywhere(t *testing.T) {
	each(t, func(t *testing.T, build builder) {
		for _, test := range answers {
			step := 1 + len(test.wire)/500 // The long head is cut at some places only.
			for k := 1; k < len(test.wire); k += step {
				transport, err := build(Config{Address: "engine.example:80", Dial: inMemory(inPieces(test.wire, k, test.close))})
				if err != nil {
					t.Fatal(err)
				}
				for range 2 {
					response, body, err := send(t, transport, http.MethodPost, "http://engine.example:80/", "{}")
					if err != nil || response.StatusCode != test.status || body != test.body {
						t.Fatalf("%s, cut at %d: %v, %q, %v", test.name, k, response, body, err)
					}
				}
				transport.CloseIdleConnections()
			}
		}
	})
}

func TestByteByByte(t *testing.T) {
	each(t, func(t *testing.T, build builder) {
		for _, test := range answers {
			transport, err := build(Config{Address: "engine.example:80", Dial: inMemory(func(conn net.Conn, in *bufio.Reader) {
				for discardRequest(in) {
					for i := range len(test.wire) {
						_, _ = io.WriteString(conn, test.wire[i:i+1])
					}
					if test.close {
						return
					}
				}
			})})
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if _, body, err := send(t, transport, http.MethodPost, "http://engine.example:80/", "{}"); err != nil || body != test.body {
					t.Errorf("%s: %q, %v", test.name, body, err)
				}
			}
			transport.CloseIdleConnections()
		}
	})
}

// stream is a recorded answer of a vLLM engine, each event in a chunk of its own.
var stream = func() string {
	b := &strings.Builder{}
	b.WriteString("HTTP/1.1 200 OK\r\ndate: Mon, 01 Jan 2029 00:00:00 GMT\r\nserver: uvicorn\r\ncontent-type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n")
	for _, event := range []string{
		`{"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}`,
		`{"choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":null}]}`,
		`{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}`,
		`[DONE]`,
	} {
		fmt.Fprintf(b, "%x\r\ndata: %s\n\n\r\n", len("data: \n\n")+len(event), event)
	}
	b.WriteString("0\r\n\r\n")
	return b.String()
}()

// A backend that dies after any byte of its answer leaves an error, but where the answer is legally at its end.
func TestDeathAtEveryByte(t *testing.T) {
	type recording struct {
		name, wire string
		clipped    int
	}
	recordings := []recording{{name: "stream", wire: stream}}
	for _, a := range answers {
		if len(a.wire) < 1000 {
			recordings = append(recordings, recording{a.name, a.wire, a.clipped})
		}
	}
	each(t, func(t *testing.T, build builder) {
		for _, r := range recordings {
			for _, byReset := range []bool{false, true} {
				var dies atomic.Int64 // after so many bytes
				b := play(t, func(v *visit) {
					if _, ok := v.read(); !ok {
						return
					}
					if v.say(r.wire[:dies.Load()]); byReset {
						v.reset()
					}
				})
				transport := open(t, build, Config{Address: b.address})
				for k := range len(r.wire) {
					dies.Store(int64(k))
					_, body, err := send(t, transport, http.MethodPost, b.url, "{}")
					legal := r.clipped > 0 && k >= r.clipped && !byReset
					if (err == nil) != legal {
						t.Fatalf("%s, dead after byte %d of %d, reset %t: %q, %v", r.name, k, len(r.wire), byReset, body, err)
					}
				}
				if got := b.bodies.Load(); got != int64(len(r.wire)) {
					t.Errorf("%s, reset %t: %d requests arrived, want %d", r.name, byReset, got, len(r.wire))
				}
			}
		}
	})
}

// What follows an answer belongs to nobody: it must never be taken for the answer to the next request.
func TestBytesAfterAnAnswerEndTheConnection(t *testing.T) {
	each(t, func(t *testing.T, build builder) {
		for name, wire := range map[string]string{
			"sized":   "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
			"chunked": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
			"none":    "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
		} {
			synctest.Test(t, func(t *testing.T) {
				transport, err := build(Config{Address: "engine.example:80", Dial: inMemory(func(conn net.Conn, in *bufio.Reader) {
					for discardRequest(in) {
						_, _ = io.WriteString(conn, wire+"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")
					}
				})})
				if err != nil {
					t.Fatal(err)
				}
				for range 3 {
					if _, body, err := send(t, transport, http.MethodPost, "http://engine.example:80/", "{}"); err != nil || body == "poison" {
						t.Errorf("%s: %q, %v", name, body, err)
					}
					synctest.Wait()
				}
				transport.CloseIdleConnections()
			})
		}
	})
}

// Bytes that come later are seen before the connection is used. (http.Transport sees them only if its goroutine runs in time.)
func TestLateBytesAfterAnAnswerAreNoticed(t *testing.T) {
	said := make(chan struct{}, 100)
	b := play(t, func(v *visit) {
		for {
			if _, ok := v.read(); !ok {
				return
			}
			v.say(ok)
			v.say("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")
			said <- struct{}{}
		}
	})
	transport := open(t, Direct, Config{Address: b.address})
	for range 50 {
		if _, body, err := send(t, transport, http.MethodPost, b.url, "{}"); err != nil || body != "ok" {
			t.Fatalf("%q, %v", body, err)
		}
		<-said
	}
}

func TestAReadReturnsWhatIsThere(t *testing.T) {
	type step struct{ wire, want string }
	read := func(t *testing.T, build builder, steps ...step) {
		synctest.Test(t, func(t *testing.T) {
			next := make(chan string)
			transport, err := build(Config{Address: "engine.example:80", Dial: inMemory(func(conn net.Conn, in *bufio.Reader) {
				if discardRequest(in) {
					for text := range next {
						_, _ = io.WriteString(conn, text)
					}
				}
			})})
			if err != nil {
				t.Fatal(err)
			}
			r := request(context.Background(), t, http.MethodPost, "http://engine.example:80/", "{}")
			go func() { next <- "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" }()
			response, err := transport.RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			buffer := make([]byte, 1<<10)
			for _, s := range steps {
				go func() { next <- s.wire }()
				n, err := response.Body.Read(buffer)
				if err != nil || string(buffer[:n]) != s.want {
					t.Errorf("after %q: read %q, %v, want %q", s.wire, buffer[:n], err, s.want)
				}
			}
			close(next)
			if n, err := response.Body.Read(buffer); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("at the early end: %q, %v", buffer[:n], err)
			}
			_ = response.Body.Close()
			transport.CloseIdleConnections()
		})
	}
	each(t, func(t *testing.T, build builder) {
		read(t, build, step{"3\r\none\r\n", "one"}, step{"3\r\ntwo\r\n5\r\nthree\r\n", "twothree"}) // What is buffered needs no second read.
	})
	// net/http holds back what it has of a chunk until the rest is there.
	read(t, Direct, step{"6\r\nfo", "fo"}, step{"ur", "ur"}, step{"56\r\n3;x", "56"}, step{"=y\r\nsev", "sev"})
}
