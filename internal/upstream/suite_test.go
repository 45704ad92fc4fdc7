package upstream

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/ai-aas/api-router/test/leaks"
)

func TestMain(m *testing.M) { leaks.Main(m) }

type builder func(Config) (Transport, error)

// implementations are the two ways to a backend without TLS. One suite runs on both; where they differ on purpose, a test says so.
var implementations = map[string]builder{
	"direct":   Direct,
	"standard": Standard,
}

// each runs a test on every implementation.
func each(t *testing.T, test func(t *testing.T, build builder)) {
	t.Helper()
	for name, build := range implementations {
		t.Run(name, func(t *testing.T) { test(t, build) })
	}
}

// open builds a Transport and closes it with the test.
func open(t testing.TB, build builder, cfg Config) Transport {
	t.Helper()
	transport, err := build(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(transport.CloseIdleConnections)
	return transport
}

func serve(t testing.TB, handler http.HandlerFunc) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server
}

func address(server *httptest.Server) string { return server.Listener.Addr().String() }

func request(ctx context.Context, t testing.TB, method, url, body string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// send makes a request and reads the answer to its end.
func send(t testing.TB, transport Transport, method, url, body string) (*http.Response, string, error) {
	t.Helper()
	return receive(transport, request(t.Context(), t, method, url, body))
}

func receive(transport Transport, r *http.Request) (*http.Response, string, error) {
	response, err := transport.RoundTrip(r)
	if err != nil {
		return nil, "", err
	}
	content, err := io.ReadAll(response.Body)
	_ = response.Body.Close()
	return response, string(content), err
}

// backend is a server on TCP that does with each connection what its test says, and counts.
type backend struct {
	address, url string
	conns        atomic.Int64
	heads        atomic.Int64 // requests whose head was read
	bodies       atomic.Int64 // requests that were read whole

	done   chan struct{} // closed by finish
	finish func()
}

// connected checks how many connections several requests took. http.Transport does not keep one whose writing goroutine was not run within
// 50 ms of the answer, which happens on a busy machine: there it may be more.
func (b *backend) connected(t *testing.T, want int64) {
	t.Helper()
	if got := b.conns.Load(); got < want || got > want && !strings.Contains(t.Name(), "/standard") {
		t.Errorf("%d connections, want %d", got, want)
	}
}

// visit is one connection as a backend's script sees it.
type visit struct {
	*net.TCPConn

	number int64 // of the connection, from 1
	in     *bufio.Reader
	at     *backend
}

// play starts a backend. The script has the connection until it returns; then the connection is closed.
func play(t testing.TB, script func(v *visit)) *backend {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &backend{address: listener.Addr().String(), done: make(chan struct{})}
	b.finish = sync.OnceFunc(func() { close(b.done) })
	b.url = "http://" + b.address + "/v1/chat/completions"
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			v := &visit{TCPConn: conn.(*net.TCPConn), number: b.conns.Add(1), in: bufio.NewReader(conn), at: b}
			group.Go(func() {
				defer conn.Close()
				defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
				script(v)
			})
		}
	})
	t.Cleanup(func() {
		b.finish()
		cancel()
		_ = listener.Close()
		group.Wait()
	})
	return b
}

// readHead reads a request's head and returns the length of its body.
func (v *visit) readHead() (length int, ok bool) {
	reader := textproto.NewReader(v.in)
	if _, err := reader.ReadLine(); err != nil {
		return 0, false
	}
	header, err := reader.ReadMIMEHeader()
	if err != nil {
		return 0, false
	}
	v.at.heads.Add(1)
	length, _ = strconv.Atoi(header.Get("Content-Length"))
	return length, true
}

// read reads a whole request and returns its body.
func (v *visit) read() (string, bool) {
	length, ok := v.readHead()
	if !ok {
		return "", false
	}
	content := make([]byte, length)
	if _, err := io.ReadFull(v.in, content); err != nil {
		return "", false
	}
	v.at.bodies.Add(1)
	return string(content), true
}

func (v *visit) say(text string) { _, _ = io.WriteString(v, text) }

// reset closes the connection with a RST.
func (v *visit) reset() {
	_ = v.SetLinger(0)
	_ = v.Close()
}

// gone waits until the client has closed the connection.
func (v *visit) gone() { _, _ = io.Copy(io.Discard, v.in) }

// always answers every request with the same bytes.
func always(text string) func(*visit) {
	return func(v *visit) {
		for {
			if _, ok := v.read(); !ok {
				return
			}
			v.say(text)
		}
	}
}

// unseen hides the socket of a connection, so that a look at it finds nothing: what happens on it crosses the request.
type unseen struct{ net.Conn }

func dialUnseen(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return unseen{conn}, nil
}

// inMemory is a Dial for backends that live in memory: each write is seen as one read, and time may be virtual.
func inMemory(script func(conn net.Conn, in *bufio.Reader)) func(context.Context, string, string) (net.Conn, error) {
	return func(context.Context, string, string) (net.Conn, error) {
		client, server := net.Pipe()
		go func() {
			defer server.Close()
			script(server, bufio.NewReader(server))
		}()
		return client, nil
	}
}

// discardRequest reads a request that comes over a connection in memory.
func discardRequest(in *bufio.Reader) bool {
	r, err := http.ReadRequest(in)
	if err != nil {
		return false
	}
	_, err = io.Copy(io.Discard, r.Body)
	return err == nil
}

const ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
