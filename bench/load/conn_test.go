package load

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ai-aas/api-router/test/leaks"
)

func TestMain(m *testing.M) { leaks.Main(m) }

// script is a net.Conn whose other side has said everything already: reads hand it out in the given pieces, then end.
type script struct {
	net.Conn

	pieces [][]byte
}

func (s *script) Read(p []byte) (int, error) {
	if len(s.pieces) == 0 {
		return 0, io.EOF
	}
	n := copy(p, s.pieces[0])
	if s.pieces[0] = s.pieces[0][n:]; len(s.pieces[0]) == 0 {
		s.pieces = s.pieces[1:]
	}
	return n, nil
}

func (s *script) SetReadDeadline(time.Time) error { return nil }

func scripted(pieces ...[]byte) *Conn {
	return &Conn{conn: &script{pieces: pieces}, buf: make([]byte, bufferSize), free: func() bool { return true }}
}

// read reads one reply.
func read(c *Conn) (status int, body []byte, err error) {
	if status, err = c.Head(); err != nil {
		return status, nil, err
	}
	for {
		piece, err := c.Next()
		body = append(body, piece...)
		if errors.Is(err, io.EOF) {
			return status, body, nil
		}
		if err != nil {
			return status, body, err
		}
	}
}

var replies = []struct {
	name, text, body string
	status           int
	closing          bool
}{
	{"length", "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello", "hello", 200, false},
	{"length in small letters", "HTTP/1.1 200 OK\r\ncontent-length:5\r\n\r\nhello", "hello", 200, false},
	{"no body", "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", "", 503, false},
	{"no content", "HTTP/1.1 204 No Content\r\n\r\n", "", 204, false},
	{"no reason", "HTTP/1.1 404 \r\nContent-Length: 1\r\n\r\nx", "x", 404, false},
	{"chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;a=b\r\n world\r\n0\r\n\r\n", "hello world", 200, false},
	{"chunks with a trailer", "HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\nTrailer: X\r\n\r\n00A\r\n0123456789\r\n0\r\nX: 1\r\n\r\n", "0123456789", 200, false},
	{"line ends in data", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n\r\n\r\n\r\n0\r\n\r\n", "\r\n\r\n", 200, false},
	{"after an interim reply", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "ok", 200, false},
	{"closing", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", "ok", 200, true},
}

func TestRepliesAreReadHoweverTheyAreCut(t *testing.T) {
	for _, test := range replies {
		text := []byte(test.text + "HTTP/1.1 299 Next\r\nContent-Length: 4\r\n\r\nnext")
		for cut := range text {
			c := scripted(bytes.Clone(text[:cut]), bytes.Clone(text[cut:]))
			if cut == 0 {
				c = scripted(text)
			}
			status, body, err := read(c)
			if status != test.status || string(body) != test.body || err != nil || c.Closing() != test.closing {
				t.Fatalf("%s, cut at %d: %d %q %v", test.name, cut, status, body, err)
			}
			if status, body, err = read(c); status != 299 || string(body) != "next" || err != nil {
				t.Fatalf("%s, cut at %d, the next reply: %d %q %v", test.name, cut, status, body, err)
			}
		}
	}
}

func TestAReplyWithoutALengthEndsWithTheConnection(t *testing.T) {
	c := scripted([]byte("HTTP/1.0 200 OK\r\n\r\nall"), []byte(" of it"))
	if status, body, err := read(c); status != 200 || string(body) != "all of it" || err != nil || !c.Closing() {
		t.Errorf("%d %q %v", status, body, err)
	}
}

func TestBrokenRepliesAreErrors(t *testing.T) {
	for _, test := range replies {
		for cut := range len(test.text) {
			_, _, err := read(scripted([]byte(test.text[:cut])))
			if err == nil {
				t.Fatalf("%s, ended after %d bytes: no error", test.name, cut)
			}
		}
	}
	for name, text := range map[string]string{
		"not HTTP":        "SSH-2.0\r\n\r\n",
		"a letter":        "HTTP/1.1 2x0 OK\r\n\r\n",
		"a bad length":    "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
		"a bad header":    "HTTP/1.1 200 OK\r\nfoo\r\n\r\n",
		"a coding":        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
		"a bad size":      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
		"a long chunk":    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
		"an endless line": "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 1<<20),
		"an upgrade":      "HTTP/1.1 101 Switching Protocols\r\n\r\n",
	} {
		if _, _, err := read(scripted([]byte(text))); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// FuzzReply compares with net/http on whatever both accept.
func FuzzReply(f *testing.F) {
	for _, test := range replies {
		f.Add([]byte(test.text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		status, body, err := read(scripted(bytes.Clone(text)))
		if err != nil {
			return
		}
		resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(text)), nil)
		if err != nil || resp.StatusCode < 200 {
			return // net/http is stricter, and hands out interim replies
		}
		want, err := io.ReadAll(resp.Body)
		if err == nil && (status != resp.StatusCode || !bytes.Equal(body, want)) {
			t.Errorf("%d %q, net/http reads %d %q", status, body, resp.StatusCode, want)
		}
	})
}

func TestEventsAreCountedHoweverTheyAreCut(t *testing.T) {
	text := []byte("data: {\"a\":1}\n\ndata: {\"b\":2}\n\ndata: [DONE]\n\n")
	for first := range text {
		for second := first; second < len(text); second++ {
			var tail tail
			n := tail.count(text[:first]) + tail.count(text[first:second]) + tail.count(text[second:])
			if n != 3 || !bytes.Equal(tail.bytes(), lastEvent) {
				t.Fatalf("cut at %d and %d: %d events, tail %q", first, second, n, tail.bytes())
			}
		}
	}
}

func TestAConnectionEndsWithItsContext(t *testing.T) {
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	c, err := Dial(ctx, l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(10*time.Millisecond, cancel)
	if _, err := c.Head(); err == nil {
		t.Error("a read from a silent server succeeded")
	}
}
