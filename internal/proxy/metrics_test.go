package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/ai-aas/api-router/internal/fault"
	"github.com/ai-aas/api-router/internal/fleet"
	"github.com/ai-aas/api-router/internal/upstream"
	"github.com/ai-aas/api-router/internal/usage"
	"github.com/ai-aas/api-router/internal/wire"
)

func TestEveryEndOfAnAttemptHasItsName(t *testing.T) {
	for name, test := range map[string]struct {
		err  error
		stop string
		want ending
	}{
		"a whole answer":          {nil, usage.StopDone, endedOK},
		"the backend's own 4xx":   {nil, usage.StopRefused, endedRefused},
		"full":                    {fault.New(fault.BackendOverloaded, "x"), "", endedSaturated},
		"late":                    {fault.New(fault.BackendTimeout, "x"), "", endedTimeout},
		"broken":                  {fault.New(fault.BackendError, "x"), "", endedError},
		"not its protocol":        {fault.New(fault.BackendProtocolError, "x"), "", endedError},
		"the router's key":        {credentialsRejected(), "", endedError},
		"switched off":            {fault.New(fault.BackendError, "x").WithCause(fmt.Errorf("read: %w", upstream.ErrCut)), "", endedCut},
		"the router shuts down":   {fault.New(fault.Draining, "x"), "", endedCut},
		"the client left":         {fault.New(fault.ClientClosed, "x").WithCause(context.Canceled), "", endedClientGone},
		"a panic":                 {errUnfinished, "", endedError},
		"anything that is no one": {errors.New("x"), "", endedError},
	} {
		f := &flight{out: Outcome{Stop: test.stop}}
		if got := f.ended(&result{err: test.err}); got != test.want {
			t.Errorf("%s: %s, want %s", name, endings[got], endings[test.want])
		}
	}
}

// one gives a backend once.
type one struct{ *fleet.Picker }

func (one) Warning() string { return "" }

// asked is a proxy that has sent one request to a backend of a fleet.
func asked(t *testing.T, registry *prometheus.Registry) (*Proxy, *fleet.Fleet) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"usage":{"prompt_tokens":1,"completion_tokens":1}}`)
	}))
	t.Cleanup(server.Close)
	p := New(Options{UserAgent: "test", Metrics: registry})
	pool := fleet.New(fleet.Options{Gone: p.Forget})
	spec := fleet.Spec{ID: "b", URL: server.URL, Timeouts: fleet.Timeouts{Connect: time.Minute, FirstByte: time.Minute, BetweenBytes: time.Minute, Total: time.Minute}}
	if err := pool.Apply([]fleet.Spec{spec}); err != nil {
		t.Fatal(err)
	}
	send(t, p, pool)
	return p, pool
}

func send(t *testing.T, p *Proxy, pool *fleet.Fleet) {
	t.Helper()
	body := []byte(`{"model":"m","messages":[{"role":"user","content":"Hello!"}]}`)
	scanned, err := wire.Scan(body, wire.Chat)
	if err != nil {
		t.Fatal(err)
	}
	request := &Request{Path: "/v1/chat/completions", Kind: wire.Chat, Model: "m", Scanned: scanned, Body: body, Header: http.Header{}, Received: time.Now()}
	picker := one{pool.Picker(fleet.Ask{Model: "m", Candidates: []fleet.Candidate{{Backend: "b", Weight: 1}}})}
	if out := p.Forward(t.Context(), httptest.NewRecorder(), request, picker); out.Err != nil {
		t.Fatal(out.Err)
	}
}

func TestABackendIsCountedUntilItLeavesTheFleet(t *testing.T) {
	registry := prometheus.NewRegistry()
	p, pool := asked(t, registry)
	send(t, p, pool)
	if got := testutil.ToFloat64(p.metrics.attempts.WithLabelValues("b", "ok")); got != 2 {
		t.Errorf("%v attempts are counted", got)
	}
	for name, want := range map[string]int{
		"api_router_proxy_attempts_total": len(endings), "api_router_proxy_attempt_duration_seconds": 1, "api_router_proxy_first_byte_seconds": 1,
	} {
		if n, err := testutil.GatherAndCount(registry, name); err != nil || n != want {
			t.Errorf("%s: %d series, %v", name, n, err)
		}
	}

	backend, _ := pool.Backend("b")
	running := p.metrics.of(backend)
	if err := pool.Apply(nil); err != nil {
		t.Fatal(err)
	}
	running.attempts[endedOK].Inc() // What ran there ends late,
	p.metrics.of(backend).attempts[endedOK].Inc()
	if n, err := testutil.GatherAndCount(registry); err != nil || n != 0 { // and brings nothing back.
		t.Errorf("%d series are left, %v", n, err)
	}
}

func TestABackendThatChangesKeepsItsCounts(t *testing.T) {
	registry := prometheus.NewRegistry()
	p, pool := asked(t, registry)
	old, _ := pool.Backend("b")
	spec := old.Spec()
	spec.APIKey = "another"
	if err := pool.Apply([]fleet.Spec{spec}); err != nil {
		t.Fatal(err)
	}
	if !old.Retired() {
		t.Fatal("the backend was not replaced")
	}
	send(t, p, pool)
	err := testutil.GatherAndCompare(registry, strings.NewReader(`# HELP api_router_proxy_attempts_total `+attemptsHelp+`
# TYPE api_router_proxy_attempts_total counter
api_router_proxy_attempts_total{backend="b",result="cut"} 0
api_router_proxy_attempts_total{backend="b",result="client_gone"} 0
api_router_proxy_attempts_total{backend="b",result="error"} 0
api_router_proxy_attempts_total{backend="b",result="ok"} 2
api_router_proxy_attempts_total{backend="b",result="refused"} 0
api_router_proxy_attempts_total{backend="b",result="saturated"} 0
api_router_proxy_attempts_total{backend="b",result="timeout"} 0
`), "api_router_proxy_attempts_total")
	if err != nil {
		t.Error(err)
	}
}

// BenchmarkObserveAttempt measures what counting an attempt costs.
func BenchmarkObserveAttempt(b *testing.B) {
	m := newMetrics(prometheus.NewRegistry())
	pool := fleet.New(fleet.Options{})
	if err := pool.Apply([]fleet.Spec{{ID: "b", URL: "http://127.0.0.1:1"}}); err != nil {
		b.Fatal(err)
	}
	backend, _ := pool.Backend("b")
	begun := time.Now()
	f := &flight{out: Outcome{Sent: true, Status: http.StatusOK, FirstByte: begun.Add(time.Second), Trail: []Attempt{{Start: begun, End: begun.Add(2 * time.Second)}}}}
	res := &result{}
	b.ReportAllocs()
	for b.Loop() {
		m.of(backend).observe(f, res)
	}
}
