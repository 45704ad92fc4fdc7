package gateway_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ai-aas/api-router/internal/trace"
)

// gathering keeps the traces that it is given.
type gathering struct {
	share float64
	full  bool

	mu     sync.Mutex
	traces []*trace.Trace
}

func (g *gathering) Sample(id trace.ID, caller trace.Context) bool {
	if !caller.IsZero() {
		return caller.Sampled
	}
	return id.Within(g.share)
}

func (g *gathering) Room() bool { return !g.full }

func (g *gathering) Emit(t *trace.Trace) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.traces = append(g.traces, t)
}

func (g *gathering) all() []*trace.Trace {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.traces)
}

// only waits for the one trace that there is: it is handed over after the client has its answer.
func (g *gathering) only(t *testing.T) *trace.Trace {
	t.Helper()
	for deadline := time.Now().Add(hang); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if all := g.all(); len(all) > 0 {
			if len(all) > 1 {
				t.Fatalf("%d traces", len(all))
			}
			return all[0]
		}
	}
	t.Fatal("no trace")
	return nil
}

func names(t *trace.Trace) string {
	var names []string
	for _, s := range t.Spans {
		names = append(names, s.Name)
	}
	return strings.Join(names, ", ")
}

// says which attribute a span has, as text; "" for none.
func attribute(s trace.Span, key string) string {
	for _, a := range s.Attributes {
		if a.Key == key {
			return fmt.Sprint(a.Value)
		}
	}
	return ""
}

const callers = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

func TestASampledRequestLeavesASpanForEachThingThatItDid(t *testing.T) {
	seen := make(chan http.Header, 4)
	dead := play(t, says("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"))
	good := engineThatKeeps(t, seen)
	taken := &gathering{}
	h := build(t, setting{tracer: taken}, dead.URL, good)
	req := h.request("/v1/chat/completions", chat)
	req.Header.Set("Traceparent", callers)
	req.Header.Set("Tracestate", "vendor=1")
	resp := h.send(req)
	_ = body(t, resp)
	if id := resp.Header.Get("X-Trace-Id"); id != callers[3:35] {
		t.Errorf("X-Trace-Id: %q", id)
	}
	if rec := h.closed(1); rec.TraceID != callers[3:35] {
		t.Errorf("the record has trace %q", rec.TraceID)
	}
	got := taken.only(t)
	if got.ID.String() != callers[3:35] || got.State != "vendor=1" || !got.Sampled || names(got) != "POST /v1/chat/completions, plan, chat m, chat m, settle" {
		t.Fatalf("%s %q %v: %s", got.ID, got.State, got.Sampled, names(got))
	}
	root := got.Spans[0]
	if root.Parent.String() != callers[36:52] || !root.Remote || root.Kind != trace.Server || root.Failure != "" {
		t.Errorf("the request's own span: %+v", root)
	}
	for i, s := range got.Spans {
		if i > 0 && (s.Parent != root.ID || s.Remote || s.ID == root.ID || s.ID == (trace.SpanID{})) {
			t.Errorf("%s is not below the request: %+v", s.Name, s)
		}
		if s.Start.Before(root.Start) || s.End.Before(s.Start) || s.End.After(root.End) {
			t.Errorf("%s lasts from %s to %s, the request from %s to %s", s.Name, s.Start, s.End, root.Start, root.End)
		}
	}
	failed, served := got.Spans[2], got.Spans[3]
	for _, want := range []struct{ of, key, value string }{
		{"root", "http.response.status_code", "200"},
		{"root", "gen_ai.operation.name", "chat"},
		{"root", "gen_ai.request.model", "m"},
		{"root", "gen_ai.usage.input_tokens", "11"},
		{"root", "gen_ai.usage.output_tokens", "3"},
		{"root", "api_router.decision", "FAILOVER"},
		{"root", "api_router.backend", "b1"},
		{"root", "api_router.attempts", "2"},
		{"root", "api_router.organization", "acme"},
		{"root", "error.type", ""},
		{"plan", "api_router.policy", "p"},
		{"failed", "api_router.backend", "b0"},
		{"failed", "error.type", "backend_error"},
		{"failed", "http.response.status_code", "500"},
		{"failed", "gen_ai.provider.name", "vllm"},
		{"failed", "server.address", "127.0.0.1"},
		{"failed", "api_router.choice", "the only one that can be chosen now, of tier 0, by policy p"},
		{"served", "api_router.backend", "b1"},
		{"served", "error.type", ""},
		{"served", "http.response.status_code", "200"},
	} {
		s := map[string]trace.Span{"root": root, "plan": got.Spans[1], "failed": failed, "served": served}[want.of]
		if value := attribute(s, want.key); value != want.value {
			t.Errorf("%s of %s: %q, want %q", want.key, want.of, value, want.value)
		}
	}
	if failed.Failure == "" || served.Failure != "" || failed.Kind != trace.Client {
		t.Errorf("failures: %q, %q", failed.Failure, served.Failure)
	}
	told := <-seen
	if want := "00-" + callers[3:35] + "-" + served.ID.String() + "-01"; told.Get("Traceparent") != want || told.Get("Tracestate") != "vendor=1" {
		t.Errorf("the backend was told %q %q, want %q", told.Get("Traceparent"), told.Get("Tracestate"), want)
	}
}

// engineThatKeeps answers with a usage, and passes on what headers it got.
func engineThatKeeps(t *testing.T, seen chan<- http.Header) string {
	t.Helper()
	const answer = `{"id":"x","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"Hi"},"finish_reason":"stop"}],` +
		`"usage":{"prompt_tokens":11,"completion_tokens":3,"total_tokens":14}}`
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{ReadHeaderTimeout: hang, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case seen <- r.Header.Clone():
		default: // Nobody looks.
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, answer)
	})}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
	return "http://" + listener.Addr().String()
}

func TestFailedAndSlowRequestsAreTracedWhateverTheSampler(t *testing.T) {
	fails := play(t, says("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n")).URL
	serves := func(t *testing.T) string { return engineThatKeeps(t, make(chan http.Header, 1)) }
	for name, tc := range map[string]struct {
		backend func(*testing.T) string
		body    string
		slow    time.Duration
		kept    string // "": there is no trace
	}{
		"failed":            {func(*testing.T) string { return fails }, chat, 0, "failed"},
		"slow":              {serves, chat, time.Nanosecond, "slow"},
		"served, and quick": {serves, chat, time.Hour, ""},
		"the client's own":  {serves, `{"model":"m"`, time.Hour, ""},
		"an unknown model":  {serves, `{"model":"none","messages":[]}`, time.Hour, ""},
	} {
		t.Run(name, func(t *testing.T) {
			taken := &gathering{}
			h := build(t, setting{tracer: taken, slow: tc.slow}, tc.backend(t))
			_ = body(t, h.post("/v1/chat/completions", tc.body))
			if tc.kept == "" {
				_ = body(t, h.post("/v1/chat/completions", tc.body)) // The first one has ended when the second one's connection is free.
				h.Close()
				if all := taken.all(); len(all) > 0 {
					t.Errorf("traced: %s", names(all[0]))
				}
				return
			}
			got := taken.only(t)
			if got.Sampled || attribute(got.Spans[0], "api_router.kept") != tc.kept || (got.Spans[0].Failure != "") != (tc.kept == "failed") {
				t.Errorf("%+v", got.Spans[0])
			}
		})
	}
}

func TestAStrangersWordDoesNotTraceARequest(t *testing.T) {
	taken := &gathering{}
	h := build(t, setting{tracer: taken}, engineThatKeeps(t, make(chan http.Header, 1)))
	for _, credential := range []string{"", "not-a-key", key} {
		req := h.request("/v1/chat/completions", chat)
		req.Header.Set("Traceparent", callers)
		req.Header.Set("X-API-Key", credential)
		_ = body(t, h.send(req))
	}
	h.Close() // Every trace has been handed over.
	if all := taken.all(); len(all) != 1 || attribute(all[0].Spans[0], "api_router.organization") != "acme" {
		t.Errorf("%d traces", len(all))
	}
}

func TestTracesCostNothingWhereNobodyTakesThem(t *testing.T) {
	seen := make(chan http.Header, 4)
	backend := engineThatKeeps(t, seen)
	full := &gathering{share: 1, full: true}
	for name, h := range map[string]*house{"no tracer": build(t, setting{}, backend), "no room": build(t, setting{tracer: full}, backend)} {
		resp := h.post("/v1/chat/completions", chat)
		_ = body(t, resp)
		told := <-seen
		if id := resp.Header.Get("X-Trace-Id"); len(id) != 32 || h.closed(1).TraceID != id {
			t.Errorf("%s: a request without a trace id: %q", name, id)
		}
		if has := told.Get("Traceparent") != ""; has != (name == "no room") {
			t.Errorf("%s: the backend was told %q", name, told.Get("Traceparent"))
		}
	}
	if len(full.all()) > 0 {
		t.Error("a trace was built for which there is no room")
	}
}

func TestAnErrorNamesItsTrace(t *testing.T) {
	h := build(t, setting{}, "http://127.0.0.1:1")
	resp := h.post("/v1/chat/completions", `{"model":"none","messages":[]}`)
	if got := body(t, resp); !strings.Contains(got, `"trace_id":"`+resp.Header.Get("X-Trace-Id")+`"`) {
		t.Errorf("%s, with X-Trace-Id %q", got, resp.Header.Get("X-Trace-Id"))
	}
	broken := play(t, says(streamed(opening, delta("word "))+lastChunk))
	h = build(t, setting{}, broken.URL)
	resp = h.post("/v1/chat/completions", streamChat)
	got, err := io.ReadAll(resp.Body)
	if err == nil || !strings.Contains(string(got), `"trace_id":"`+resp.Header.Get("X-Trace-Id")+`"`) {
		t.Errorf("%v: %s", err, got)
	}
}

func TestABrokenTraceparentBeginsANewTrace(t *testing.T) {
	seen := make(chan http.Header, 1)
	h := build(t, setting{tracer: &gathering{}}, engineThatKeeps(t, seen))
	for _, parent := range [][]string{{"00-0-0-0"}, {callers, callers}} {
		req := h.request("/v1/chat/completions", chat)
		req.Header["Traceparent"], req.Header["Tracestate"] = parent, []string{"vendor=1"}
		resp := h.send(req)
		_ = body(t, resp)
		told := <-seen
		id := resp.Header.Get("X-Trace-Id")
		if id == callers[3:35] || !strings.HasPrefix(told.Get("Traceparent"), "00-"+id+"-") || told.Get("Tracestate") != "" {
			t.Errorf("%q: X-Trace-Id %q, the backend was told %q %q", parent, id, told.Get("Traceparent"), told.Get("Tracestate"))
		}
	}
}

func TestWhatAStrangerInventsIsNoNameOfASpan(t *testing.T) {
	for name, tc := range map[string]struct{ method, path, span, sent, route, original string }{
		"a path":           {http.MethodGet, "/v1/models/none", "GET /v1/models/{model}", "GET", "/v1/models/{model}", ""},
		"an unknown path":  {http.MethodGet, "/wp-admin", "GET", "GET", "", ""},
		"a method":         {"BREW", "/v1/models", "HTTP /v1/models", "_OTHER", "/v1/models", "BREW"},
		"both":             {"BREW", "/pot", "HTTP", "_OTHER", "", "BREW"},
		"the wrong method": {http.MethodPut, "/v1/chat/completions", "PUT /v1/chat/completions", "PUT", "/v1/chat/completions", ""},
	} {
		t.Run(name, func(t *testing.T) {
			taken := &gathering{share: 1}
			h := build(t, setting{tracer: taken}, "http://127.0.0.1:1")
			req := h.request(tc.path, "")
			req.Method = tc.method
			_ = body(t, h.send(req))
			got := taken.only(t).Spans[0]
			if got.Name != tc.span || attribute(got, "http.request.method") != tc.sent || attribute(got, "http.route") != tc.route ||
				attribute(got, "http.request.method_original") != tc.original || attribute(got, "url.path") != tc.path {
				t.Errorf("%+v", got)
			}
		})
	}
}

func TestAClientThatLeavesIsNoFailure(t *testing.T) {
	backend := play(t, says(streamed(opening, delta("word "))))
	taken := &gathering{}
	h := build(t, setting{tracer: taken}, backend.URL)
	resp := h.post("/v1/chat/completions", streamChat)
	if _, err := io.ReadFull(resp.Body, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if rec := h.closed(1); rec.StopReason != "client_gone" {
		t.Errorf("%+v", rec)
	}
	h.Close()
	if all := taken.all(); len(all) > 0 {
		t.Errorf("traced: %+v", all[0].Spans[0])
	}
}

func TestAStateTravelsWithItsParentAlone(t *testing.T) {
	for name, tc := range map[string]struct {
		tracer *gathering
		parent []string
		state  []string
		want   string
	}{
		"no parent":                {nil, nil, []string{"a=1"}, ""},
		"two parents":              {nil, []string{callers, callers}, []string{"a=1"}, ""},
		"several headers":          {nil, []string{callers}, []string{"a=1", "b=2"}, "a=1,b=2"},
		"traced, several headers":  {&gathering{}, []string{callers}, []string{"a=1", "b=2"}, "a=1,b=2"},
		"traced, and no parent":    {&gathering{}, nil, []string{"a=1"}, ""},
		"traced, of no such state": {&gathering{}, []string{callers}, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			seen := make(chan http.Header, 1)
			s := setting{}
			if tc.tracer != nil {
				s.tracer = tc.tracer
			}
			h := build(t, s, engineThatKeeps(t, seen))
			req := h.request("/v1/chat/completions", chat)
			req.Header["Traceparent"], req.Header["Tracestate"] = tc.parent, tc.state
			_ = body(t, h.send(req))
			if told := strings.Join((<-seen)["Tracestate"], ","); told != tc.want {
				t.Errorf("the backend was told %q", told)
			}
		})
	}
}
