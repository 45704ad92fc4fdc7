package upstream

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// malformedAnswers break the protocol or a bound. The backend says them and then waits: the breach itself has to be seen.
var malformedAnswers = []struct {
	name, wire string
	lax        bool // net/http takes it
}{
	{"another protocol", "SSH-2.0-OpenSSH_9.9\r\n", false},
	{"no line at all", "garbage", false},
	{"HTTP/2", "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n", true},
	{"HTTP/1.2", "HTTP/1.2 200 OK\r\nContent-Length: 0\r\n\r\n", true},
	{"lower case protocol", "http/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false},
	{"empty line first", "\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false},
	{"two digits", "HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n", false},
	{"four digits", "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n", false},
	{"letters", "HTTP/1.1 2xx OK\r\nContent-Length: 0\r\n\r\n", false},
	{"status 099", "HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n", true},
	{"status 600", "HTTP/1.1 600 OK\r\nContent-Length: 0\r\n\r\n", true},
	{"two spaces", "HTTP/1.1  200 OK\r\nContent-Length: 0\r\n\r\n", true},
	{"control character in the reason", "HTTP/1.1 200 O\x00K\r\nContent-Length: 0\r\n\r\n", true},
	{"CR in the reason", "HTTP/1.1 200 O\rK\r\nContent-Length: 0\r\n\r\n", true},
	{"101", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", true},
	{"endless interim answers", strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 100), false},

	{"bare LF", "HTTP/1.1 200 OK\nContent-Length: 0\n\n", true},
	{"bare LF after a header", "HTTP/1.1 200 OK\r\nContent-Length: 0\n\r\n", true},
	{"no colon", "HTTP/1.1 200 OK\r\nContent-Length\r\n\r\n", false},
	{"no name", "HTTP/1.1 200 OK\r\n: x\r\nContent-Length: 0\r\n\r\n", false},
	{"space before the colon", "HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n", true},
	{"space in a name", "HTTP/1.1 200 OK\r\nX Y: 1\r\nContent-Length: 0\r\n\r\n", true},
	{"letter beyond ASCII in a name", "HTTP/1.1 200 OK\r\nX\xe9: 1\r\nContent-Length: 0\r\n\r\n", false},
	{"folded header", "HTTP/1.1 200 OK\r\nX: 1\r\n 2\r\nContent-Length: 0\r\n\r\n", true},
	{"folded first header", "HTTP/1.1 200 OK\r\n X: 1\r\nContent-Length: 0\r\n\r\n", false},
	{"NUL in a value", "HTTP/1.1 200 OK\r\nX: a\x00b\r\nContent-Length: 0\r\n\r\n", false},
	{"CR in a value", "HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 0\r\n\r\n", false},
	{"DEL in a value", "HTTP/1.1 200 OK\r\nX: a\x7fb\r\nContent-Length: 0\r\n\r\n", false},
	{"64 KiB of headers", "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 64<<10) + "\r\nContent-Length: 0\r\n\r\n", false},
	{"1 MiB of headers", "HTTP/1.1 200 OK\r\n" + strings.Repeat("X: "+strings.Repeat("x", 1000)+"\r\n", 1000) + "\r\n", false},
	{"1,000 headers", "HTTP/1.1 200 OK\r\n" + strings.Repeat("X: x\r\n", 1000) + "Content-Length: 0\r\n\r\n", true},

	{"lengths that differ", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nok", false},
	{"a list of lengths", "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok", false},
	{"signed length", "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok", false},
	{"negative length", "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok", false},
	{"hexadecimal length", "HTTP/1.1 200 OK\r\nContent-Length: 0x2\r\n\r\nok", false},
	{"empty length", "HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\n", false},
	{"length beyond 63 bits", "HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775808\r\n\r\nok", false},
	{"length and chunks", "HTTP/1.1 200 OK\r\nContent-Length: 12\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", true},
	{"two codings", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", false},
	{"chunked twice", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", false},
	{"coding identity", "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nok", false},
	{"coding in quotes", "HTTP/1.1 200 OK\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", false},
	{"chunks in HTTP/1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", true},
	{"204 with a length", "HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nok", true},
	{"204 with chunks", "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", true},
	{"a trailer that frames", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x, content-length\r\n\r\n0\r\n\r\n", false},

	{"chunk without a size", chunks("\r\nok\r\n0\r\n\r\n"), false},
	{"chunk size with a sign", chunks("+2\r\nok\r\n0\r\n\r\n"), false},
	{"chunk size with 0x", chunks("0x2\r\nok\r\n0\r\n\r\n"), false},
	{"chunk size with a space before", chunks(" 2\r\nok\r\n0\r\n\r\n"), false},
	{"chunk size with a space behind", chunks("2 \r\nok\r\n0\r\n\r\n"), true},
	{"chunk size with _", chunks("1_0\r\nok\r\n0\r\n\r\n"), false},
	{"chunk size of 17 digits", chunks("00000000000000002\r\nok\r\n0\r\n\r\n"), false},
	{"chunk size of 16 digits", chunks("FFFFFFFFFFFFFFFF\r\nok\r\n0\r\n\r\n"), true}, // and waits for it
	{"chunk size and bare LF", chunks("2\nok\r\n0\r\n\r\n"), false},
	{"chunk size and CR", chunks("2\rok\r\n0\r\n\r\n"), false},
	{"chunk longer than its size", chunks("2\r\noko\r\n0\r\n\r\n"), false},
	{"chunk shorter than its size", chunks("3\r\nok\r\n0\r\n\r\n"), false},
	{"chunk end with bare LF", chunks("2\r\nok\n0\r\n\r\n"), false},
	{"control character in an extension", chunks("2;a=\x00\r\nok\r\n0\r\n\r\n"), true},
	{"long extension", chunks("2;" + strings.Repeat("a", 2000) + "\r\nok\r\n0\r\n\r\n"), true},
	{"endless extension", chunks("2;" + strings.Repeat("a", 1<<20)), false},
	{"many extensions", chunks(strings.Repeat("1;"+strings.Repeat("a", 100)+"\r\nx\r\n", 100) + "0\r\n\r\n"), true},
	{"trailer without a colon", chunks("0\r\nx\r\n\r\n"), false},
	{"folded trailer", chunks("0\r\nx: 1\r\n y\r\n\r\n"), true},
	{"trailer with bare LF", chunks("0\r\nx: 1\n\r\n"), false},
	{"trailer with a Content-Length", chunks("0\r\ncontent-length: 1\r\n\r\n"), true},
	{"long trailer", chunks("0\r\nx: " + strings.Repeat("x", 8000) + "\r\n\r\n"), false},
	{"many trailers", chunks("0\r\n" + strings.Repeat("x: xxxxxxxxxxxxxxxxx\r\n", 500) + "\r\n"), false},
}

func chunks(body string) string {
	return "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body
}

func TestMalformedAnswersAreRefused(t *testing.T) {
	for _, test := range malformedAnswers {
		t.Run(test.name, func(t *testing.T) {
			left := make(chan struct{})
			b := play(t, func(v *visit) {
				if _, ok := v.read(); ok {
					v.say(test.wire)
					v.gone()
					close(left)
				}
			})
			_, body, err := send(t, open(t, Direct, Config{Address: b.address}), http.MethodPost, b.url, "{}")
			if _, ok := errors.AsType[*MalformedError](err); !ok {
				t.Fatalf("got %q, %v, want a MalformedError", body, err)
			}
			<-left // The connection was closed.
			if b.conns.Load() != 1 || b.bodies.Load() != 1 {
				t.Errorf("%d connections, %d requests, want one of each", b.conns.Load(), b.bodies.Load())
			}
			if lax := taken(test.wire); lax != test.lax {
				t.Errorf("net/http takes it: %t", lax)
			}
		})
	}
}

// taken reports whether http.Transport takes an answer after which the backend closes.
func taken(wire string) bool {
	transport, err := Standard(Config{Address: "engine.example:80", Dial: inMemory(func(conn net.Conn, in *bufio.Reader) {
		if discardRequest(in) {
			_, _ = io.WriteString(conn, wire)
		}
	})})
	if err != nil {
		return false
	}
	defer transport.CloseIdleConnections()
	r, err := http.NewRequest(http.MethodPost, "http://engine.example:80/", http.NoBody)
	if err != nil {
		return false
	}
	_, _, err = receive(transport, r)
	return err == nil || strings.Contains(wire, "FFFF") // Cannot be told from a body that is still to come.
}

// A head of exactly 64 KiB is the longest one.
func TestTheLongestHead(t *testing.T) {
	for _, test := range []struct {
		size int
		good bool
	}{{16 << 10, true}, {16<<10 + 1, true}, {64<<10 - 1, true}, {64 << 10, true}, {64<<10 + 1, false}} {
		wire := "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: "
		wire += strings.Repeat("x", test.size-len(wire)-4) + "\r\n\r\nok"
		b := play(t, always(wire))
		_, body, err := send(t, open(t, Direct, Config{Address: b.address}), http.MethodPost, b.url, "{}")
		if good := err == nil && body == "ok"; good != test.good {
			t.Errorf("%d bytes: %q, %v", test.size, body, err)
		}
	}
}

// canned is a connection on which everything has been said already.
type canned struct {
	net.Conn

	answer io.Reader
	piece  int // bytes that a read gives at most
}

func (c *canned) Read(p []byte) (int, error)       { return c.answer.Read(p[:min(len(p), c.piece)]) }
func (c *canned) Write(p []byte) (int, error)      { return len(p), nil }
func (c *canned) Close() error                     { return nil }
func (c *canned) SetReadDeadline(time.Time) error  { return nil }
func (c *canned) SetWriteDeadline(time.Time) error { return nil }

// parsed is what both readers have to agree on.
type parsed struct {
	status string
	code   int
	header string
	length int64
	body   string
	failed bool
}

// ours reads wire as Direct does, piece bytes at a time.
func ours(t testing.TB, wire []byte, piece int) (p parsed) {
	t.Helper()
	transport := open(t, Direct, Config{Address: "h:80", Dial: inMemory(nil)})
	r, err := http.NewRequest(http.MethodPost, "http://h:80/", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	d := transport.(*direct)
	out, err := d.head(r)
	if err != nil {
		t.Fatal(err)
	}
	c := newConn(&canned{answer: bytes.NewReader(wire), piece: piece}, d)
	response, err := c.exchange(r, nil, out)
	if err != nil {
		return parsed{failed: true}
	}
	content, err := io.ReadAll(response.Body)
	_ = response.Body.Close()
	return describe(response, content, err)
}

// theirs reads wire with http.ReadResponse, skipping interim answers.
func theirs(wire []byte) parsed {
	in := bufio.NewReaderSize(bytes.NewReader(wire), 128<<10) // net/http wants a trailer to fit in.
	for {
		response, err := http.ReadResponse(in, &http.Request{Method: http.MethodPost})
		if err != nil {
			return parsed{failed: true}
		}
		if response.StatusCode < 200 && response.StatusCode != 101 {
			continue
		}
		content, err := io.ReadAll(response.Body)
		return describe(response, content, err)
	}
}

// describe leaves out what only one side keeps: net/http leaves some fields of the connection in the headers, and adds
// a Cache-Control where there is a Pragma.
func describe(r *http.Response, content []byte, err error) parsed {
	h := r.Header.Clone()
	for _, name := range []string{"Connection", "Keep-Alive", "Trailer"} {
		delete(h, name)
	}
	if h.Get("Pragma") == "no-cache" {
		delete(h, "Cache-Control")
	}
	return parsed{r.Status, r.StatusCode, fmt.Sprintf("%q", h), r.ContentLength, string(content), err != nil}
}

// FuzzResponse holds our reader against net/http's: what we accept, net/http accepts with the same status, headers and
// body. Where we are stricter, we only refuse. How the bytes are cut must not matter.
func FuzzResponse(f *testing.F) {
	for _, a := range answers {
		f.Add([]byte(a.wire))
	}
	for _, m := range malformedAnswers {
		if len(m.wire) < 1000 {
			f.Add([]byte(m.wire))
		}
	}
	f.Add([]byte(stream))
	f.Add([]byte("HTTP/1.1 200 OK\r\nPragma: no-cache\r\nCache-Control: max-age=1\r\nKeep-Alive: timeout=5\r\n\r\nx"))
	f.Fuzz(func(t *testing.T, wire []byte) {
		got := ours(t, wire, 64<<10)
		if cut := ours(t, wire, 1); cut != got {
			t.Fatalf("whole: %+v\nbyte by byte: %+v", got, cut)
		}
		if got.failed {
			return
		}
		if want := theirs(wire); got != want {
			t.Fatalf("ours: %+v\nnet/http: %+v", got, want)
		}
	})
}
