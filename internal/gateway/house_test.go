package gateway_test

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ai-aas/api-router/internal/auth"
	"github.com/ai-aas/api-router/internal/fleet"
	"github.com/ai-aas/api-router/internal/gateway"
	"github.com/ai-aas/api-router/internal/limit"
	"github.com/ai-aas/api-router/internal/plan"
	"github.com/ai-aas/api-router/internal/policy"
	"github.com/ai-aas/api-router/internal/proxy"
	"github.com/ai-aas/api-router/internal/upstream"
	"github.com/ai-aas/api-router/internal/usage"
)

const key = "test-acme-1"

// house is a router with all its rooms, real ones, on a real listener.
type house struct {
	*httptest.Server
	t       *testing.T
	fleet   *fleet.Fleet
	records string // the file of usage records
	stop    context.CancelCauseFunc
	dial    func(ctx context.Context, network, address string) (net.Conn, error) // to the router

	documents []policy.Document
	table     atomic.Pointer[policy.Table]
}

// mark makes marks all the marks that hold, in the fleet first, as the router does with every change.
func (h *house) mark(marks ...policy.Mark) {
	h.t.Helper()
	documents := slices.Clip(h.documents)
	backends := map[string]fleet.Mark{}
	for i, m := range marks {
		m.ID, m.Actor = fmt.Sprintf("internal-mark-%d", i), "internal-actor"
		documents = append(documents, policy.Document{Mark: &m})
		if m.Backend != "" {
			backends[m.Backend] = fleet.Mark{State: m.State, Reason: m.Reason, Until: m.Until}
		}
	}
	table := policy.Compile(policy.Snapshot{Documents: documents}, nil)
	if problems := table.Problems(); len(problems) > 0 {
		h.t.Fatal(problems)
	}
	h.fleet.SetMarks(backends)
	h.table.Store(table)
}

// setting changes how a house is built.
type setting struct {
	transport  func(fleet.Spec) (upstream.Transport, error) // the way to backends; nil: the router's own choice
	specs      func(*fleet.Spec)                            // changes every backend
	documents  string                                       // policies; the default routes model "m" to all backends with equal weight
	hints      bool
	maxBody    int64
	bodyMemory int64 // 64 MiB when 0
	// How long clients may take; the default is 10 s for each.
	bodyTimeout, writeTimeout time.Duration
	log                       io.Writer // gets every line; nil: the test's own log gets what is a warning
	noTable                   bool
	components                func() []gateway.Component
	draining                  func() bool
	tracer                    gateway.Tracer
	slow                      time.Duration
	accessLines               int
	level                     slog.Level // of log
	metrics                   prometheus.Registerer
	keys                      auth.Validator // nil: development keys
	verifier                  gateway.Verifier
	trusted                   []netip.Prefix
	listener                  *pipes // nil: a real one
}

// with changes every backend's specification, too.
func (s setting) with(specs func(*fleet.Spec)) setting {
	s.specs = specs
	return s
}

// build starts a router in front of the given backends, named b0, b1, ….
func build(t *testing.T, set setting, backends ...string) *house {
	t.Helper()
	log := slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelWarn}))
	if set.log != nil {
		log = slog.New(slog.NewMultiHandler(log.Handler(), slog.NewTextHandler(set.log, &slog.HandlerOptions{Level: set.level})))
	}
	h := &house{t: t, dial: new(net.Dialer).DialContext, fleet: fleet.New(fleet.Options{Logger: log, Transport: set.transport}), records: filepath.Join(t.TempDir(), "usage.jsonl")}

	var specs []fleet.Spec
	documents := &strings.Builder{}
	var candidates []string
	for i, url := range backends {
		id := fmt.Sprintf("b%d", i)
		spec := fleet.Spec{ID: id, URL: url, Engine: fleet.EngineVLLM, Timeouts: fleet.Timeouts{
			Connect: 2 * time.Second, FirstByte: 20 * time.Second, BetweenBytes: 20 * time.Second, Total: time.Minute,
		}}
		if set.specs != nil {
			set.specs(&spec)
		}
		specs = append(specs, spec)
		fmt.Fprintf(documents, "kind: Backend\nid: %s\nurl: %s\n---\n", id, url)
		candidates = append(candidates, fmt.Sprintf("{ id: %s, tier: %d }", id, i))
	}
	if err := h.fleet.Apply(specs); err != nil {
		t.Fatal(err)
	}
	if set.documents == "" {
		set.documents = "kind: RoutingPolicy\nid: p\nmodel: m\naliases: [alias]\nretry: { attempts: 5, backoff: 1ms }\nbackends: [" + strings.Join(candidates, ", ") + "]\n"
	}
	documents.WriteString(set.documents)
	parsed, problems := policy.Parse("test.yaml", []byte(documents.String()))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	h.documents = parsed
	if !set.noTable {
		h.mark()
	}
	if set.maxBody == 0 {
		set.maxBody = 1 << 20
	}
	if set.bodyMemory == 0 {
		set.bodyMemory = 64 << 20
	}
	if set.components == nil {
		set.components = func() []gateway.Component {
			return []gateway.Component{{Name: "policy", State: "loaded", Needed: true, OK: true}}
		}
	}
	if set.draining == nil {
		set.draining = func() bool { return false }
	}
	recorder := usage.NewRecorder(log, usage.NewLines(h.records))
	keys := set.keys
	if keys == nil {
		keys = auth.Chain(auth.Development{Hint: set.hints})
	}
	door := gateway.New(gateway.Options{
		Logger: log, Keys: keys, Verifier: set.verifier, Trusted: set.trusted,
		Table:   h.table.Load,
		Decider: &plan.Decider{Fleet: h.fleet}, Limiter: limit.Unlimited{},
		Proxy:    proxy.New(proxy.Options{UserAgent: "api-router/test", ExposeBackend: true, WriteTimeout: cmp.Or(set.writeTimeout, 10*time.Second)}),
		Recorder: recorder, Tracer: set.tracer, Slow: set.slow, AccessLines: set.accessLines,
		Metrics:    set.metrics,
		Components: set.components, Draining: set.draining, Version: "test",
		MaxBody: set.maxBody, BodyMemory: set.bodyMemory, BodyTimeout: cmp.Or(set.bodyTimeout, 10*time.Second), Hints: set.hints,
	})
	base, stop := context.WithCancelCause(context.Background())
	h.stop = stop
	h.Server = httptest.NewUnstartedServer(door)
	h.Config.BaseContext = func(net.Listener) context.Context { return base }
	h.Config.ErrorLog = slog.NewLogLogger(log.Handler(), slog.LevelWarn)
	h.Config.Protocols = new(http.Protocols)
	h.Config.Protocols.SetHTTP1(true)
	h.Config.Protocols.SetUnencryptedHTTP2(true)
	if set.listener != nil {
		_ = h.Listener.Close()
		h.Listener, h.dial = set.listener, set.listener.dial
	}
	h.Start()
	h.Client().Transport.(*http.Transport).DialContext = h.dial
	t.Cleanup(func() {
		h.Close()
		stop(nil)
		if err := recorder.Stop(); err != nil {
			t.Error(err)
		}
	})
	return h
}

// testWriter sends the log to the test's own.
type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

// post sends a body to a path with the usual key.
func (h *house) post(path, body string) *http.Response {
	h.t.Helper()
	return h.send(h.request(path, body))
}

func (h *house) request(path, body string) *http.Request {
	h.t.Helper()
	req, err := http.NewRequestWithContext(h.t.Context(), http.MethodPost, h.URL+path, strings.NewReader(body))
	if err != nil {
		h.t.Fatal(err)
	}
	req.Header.Set("X-API-Key", key)
	req.Header.Set("Content-Type", "application/json")
	return req
}

func (h *house) get(path string) *http.Response {
	h.t.Helper()
	req, err := http.NewRequestWithContext(h.t.Context(), http.MethodGet, h.URL+path, nil)
	if err != nil {
		h.t.Fatal(err)
	}
	req.Header.Set("X-API-Key", key)
	return h.send(req)
}

func (h *house) send(req *http.Request) *http.Response {
	h.t.Helper()
	resp, err := h.Client().Do(req)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = resp.Body.Close() })
	return resp
}

// body reads an answer to its end, and fails the test if that end is not a clean one.
func body(t *testing.T, resp *http.Response) string {
	t.Helper()
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("the answer breaks off: %v, after %q", err, content)
	}
	return string(content)
}

// refusal reads an error envelope.
func refusal(t *testing.T, resp *http.Response) (code, param, message string) {
	t.Helper()
	var envelope struct {
		Error struct {
			Message, Type, Code string
			Param               *string
		}
	}
	content := body(t, resp)
	if err := json.Unmarshal([]byte(content), &envelope); err != nil {
		t.Fatalf("%v in %q", err, content)
	}
	if envelope.Error.Param != nil {
		param = *envelope.Error.Param
	}
	return envelope.Error.Code, param, envelope.Error.Message
}

// closed waits for the final record of the n-th request, counted from 1.
func (h *house) closed(n int) usage.Record {
	h.t.Helper()
	for deadline := time.Now().Add(hang); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if records := h.closes(); len(records) >= n {
			return records[n-1]
		}
	}
	h.t.Fatalf("no record %d", n)
	return usage.Record{}
}

func (h *house) closes() []usage.Record {
	content, err := os.ReadFile(h.records)
	if err != nil {
		return nil
	}
	var records []usage.Record
	for line := range strings.Lines(string(content)) {
		var rec struct {
			Type string
			usage.Record
		}
		if json.Unmarshal([]byte(line), &rec) == nil && rec.Type == "close" {
			records = append(records, rec.Record)
		}
	}
	return records
}

// script is a backend that says exact bytes: what a real engine says on its worst days.
type script struct {
	URL  string
	mu   sync.Mutex
	seen []string // request bodies
	gone chan struct{}
}

// play starts a backend that reads each request and then calls answer with its connection.
func play(t *testing.T, answer func(conn net.Conn, body string)) *script {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return playAt(t, listener, answer)
}

func playAt(t *testing.T, listener net.Listener, answer func(conn net.Conn, body string)) *script {
	t.Helper()
	s := &script{URL: "http://" + listener.Addr().String(), gone: make(chan struct{}, 16)}
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	wg.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
				s.serve(conn, answer)
			})
		}
	})
	t.Cleanup(func() { cancel(); _ = listener.Close(); wg.Wait() })
	return s
}

func (s *script) serve(conn net.Conn, answer func(net.Conn, string)) {
	reader := bufio.NewReader(conn)
	for {
		req, err := http.ReadRequest(reader)
		if err != nil {
			return
		}
		content, err := io.ReadAll(req.Body)
		if err != nil {
			return
		}
		s.mu.Lock()
		s.seen = append(s.seen, string(content))
		s.mu.Unlock()
		answer(conn, string(content))
	}
}

func (s *script) bodies() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.seen...)
}

// says answers every request with the same bytes and leaves the connection open.
func says(text string) func(net.Conn, string) {
	return func(conn net.Conn, _ string) { _, _ = io.WriteString(conn, text) }
}

// plain is a whole HTTP answer.
func plain(status int, contentType, content string) string {
	return fmt.Sprintf("HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s", status, http.StatusText(status), contentType, len(content), content)
}

// streamed is the head of an event stream and its events, one chunk each, without the end.
func streamed(events ...string) string {
	b := &strings.Builder{}
	b.WriteString("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n")
	for _, e := range events {
		fmt.Fprintf(b, "%x\r\n%s\r\n", len(e), e)
	}
	return b.String()
}

const lastChunk = "0\r\n\r\n"
