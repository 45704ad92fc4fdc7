package fleet

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/ai-aas/api-router/internal/upstream"
	"github.com/ai-aas/api-router/test/leaks"
)

func TestMain(m *testing.M) { leaks.Main(m) }

// journal is a log that tests read.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) count(words string) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Count(j.text.String(), words)
}

func (j *journal) logger() *slog.Logger { return slog.New(slog.NewTextHandler(j, nil)) }

// pathStream is answered by an engine with a beginning and no end.
const pathStream = "/stream"

// engine is a real HTTP server on connections in memory, so that it can live in a synctest bubble with its clock.
type engine struct {
	conns   chan net.Conn
	closed  chan struct{}
	closing sync.Once
	server  *http.Server
	refuses atomic.Bool // connections fail
	silent  atomic.Bool // requests hang until they are cancelled
	health  atomic.Int32
	models  atomic.Value // string: the body of /v1/models

	mu    sync.Mutex
	calls []string
	head  http.Header
}

func newEngine(models string) *engine {
	e := &engine{}
	e.health.Store(http.StatusOK)
	e.models.Store(models)
	return e
}

// open makes a transport that reaches e under any name.
func (e *engine) open(spec Spec) (upstream.Transport, error) {
	u, err := spec.base()
	if err != nil {
		return nil, err
	}
	cfg := transportConfig(spec, u)
	cfg.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
		if e.refuses.Load() {
			return nil, fmt.Errorf("connection refused")
		}
		client, server := net.Pipe()
		select {
		case e.conns <- server:
			return client, nil
		case <-e.closed:
			return nil, net.ErrClosed
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return connect(cfg)
}

func (e *engine) Accept() (net.Conn, error) {
	select {
	case conn := <-e.conns:
		return conn, nil
	case <-e.closed:
		return nil, net.ErrClosed
	}
}

func (e *engine) Close() error   { e.closing.Do(func() { close(e.closed) }); return nil }
func (e *engine) Addr() net.Addr { return &net.TCPAddr{} }

// start serves until the returned function is called. Inside a bubble everything that waits must be made there.
func (e *engine) start() (stop func()) {
	e.conns, e.closed = make(chan net.Conn), make(chan struct{})
	e.server = &http.Server{Handler: e}
	var group sync.WaitGroup
	group.Go(func() { _ = e.server.Serve(e) })
	return func() {
		_ = e.server.Close() // Ends the connections that are open as well.
		group.Wait()
	}
}

func (e *engine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	e.calls = append(e.calls, r.URL.RequestURI())
	e.head = r.Header.Clone()
	e.mu.Unlock()
	if e.silent.Load() {
		<-r.Context().Done()
		return
	}
	switch {
	case r.URL.Path == pathStream:
		_, _ = io.WriteString(w, "begun")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	case e.health.Load() != http.StatusOK:
		w.WriteHeader(int(e.health.Load()))
	case strings.HasSuffix(r.URL.Path, pathModels):
		_, _ = io.WriteString(w, e.models.Load().(string))
	}
}

// asked counts the requests for a path since the last call with that path.
func (e *engine) asked(path string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := 0
	rest := e.calls[:0]
	for _, call := range e.calls {
		if call == path {
			n++
		} else {
			rest = append(rest, call)
		}
	}
	e.calls = rest
	return n
}

// fleetOf makes a fleet of backends a, b, c, … that nobody probes.
func fleetOf(t testing.TB, n int, change ...func(*Spec)) *Fleet {
	t.Helper()
	f := New(Options{})
	specs := make([]Spec, n)
	for i := range specs {
		specs[i] = Spec{ID: string(rune('a' + i)), URL: "http://127.0.0.1:9"}
		for _, c := range change {
			c(&specs[i])
		}
	}
	if err := f.Apply(specs); err != nil {
		t.Fatal(err)
	}
	return f
}

func backend(t testing.TB, f *Fleet, id string) *Backend {
	t.Helper()
	b, ok := f.Backend(id)
	if !ok {
		t.Fatalf("no backend %s", id)
	}
	return b
}

// candidates names backends of equal weight in tier 0.
func candidates(ids ...string) []Candidate {
	list := make([]Candidate, len(ids))
	for i, id := range ids {
		list[i] = Candidate{Backend: id, Weight: 100}
	}
	return list
}

// order takes every backend that a new picker gives and returns their ids and the last error. The leases are given back.
func order(f *Fleet, ask Ask) ([]string, error) {
	p := f.Picker(ask)
	var ids []string
	for {
		choice, err := p.Next()
		if err != nil {
			return ids, err
		}
		defer choice.Lease.Done(Result{})
		ids = append(ids, choice.Lease.Backend().ID())
	}
}

// finish takes a lease on the backend, as a picker would with nothing else to choose, and ends it.
func finish(t testing.TB, b *Backend, ejectAfter int, r Result) {
	t.Helper()
	lease, ok := b.acquire(b.now(), ejectAfter, true)
	if !ok {
		t.Fatal("no lease")
	}
	lease.Done(r)
}
