package gateway

import (
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/ai-aas/api-router/internal/usage"
)

// ended is a request that has ended well.
func ended(model string) *exchange {
	return &exchange{surface: "/v1/chat/completions", planned: model, Record: usage.Record{
		Status: http.StatusOK, Stream: true, Attempts: 1, PromptTokens: 7, CachedTokens: 1, CompletionTokens: 5, ReasoningTokens: 2,
		TTFTMillis: 120, LatencyMillis: 900, RouterMillis: 0.2,
	}}
}

func unused() float64 { return 0 }

// series counts those of a family.
func series(t *testing.T, registry *prometheus.Registry, name string) int {
	t.Helper()
	n, err := testutil.GatherAndCount(registry, name)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestLabelsAreBounded(t *testing.T) {
	registry := prometheus.NewRegistry()
	m := newMetrics(registry, unused)
	var all sync.WaitGroup
	for range 2 {
		all.Go(func() {
			for i := range 3 * maxModelLabels {
				m.observe(ended(fmt.Sprint("model-", i)))
			}
		})
	}
	all.Wait()
	for name, most := range map[string]int{
		"api_router_gateway_requests_total": maxModelLabels + 1, "api_router_gateway_request_duration_seconds": maxModelLabels + 1,
		"api_router_gateway_time_to_first_token_seconds": maxModelLabels + 1, "api_router_gateway_tokens_total": 4 * (maxModelLabels + 1),
		"api_router_gateway_overhead_seconds": 1,
	} {
		if n := series(t, registry, name); n != most {
			t.Errorf("%s: %d series, want %d", name, n, most)
		}
	}
	beyond := m.requests.WithLabelValues("/v1/chat/completions", otherLabel, "200", "")
	if got := testutil.ToFloat64(beyond); got != 2*2*maxModelLabels {
		t.Errorf("%v requests are beyond the bound, want %d", got, 2*2*maxModelLabels)
	}
	known := m.requests.WithLabelValues("/v1/chat/completions", "model-0", "200", "")
	if m.observe(ended("model-0")); testutil.ToFloat64(known) != 3 {
		t.Errorf("a model within the bound counts %v", testutil.ToFloat64(known))
	}
}

func TestStatusesThatABackendMakesUpAreBounded(t *testing.T) {
	registry := prometheus.NewRegistry()
	m := newMetrics(registry, unused)
	for status := 200; status < 500; status++ {
		x := ended("m")
		x.Status = status
		m.observe(x)
	}
	if n := series(t, registry, "api_router_gateway_requests_total"); n != maxAnswerLabels+1 {
		t.Errorf("%d series, want %d", n, maxAnswerLabels+1)
	}
	if got := testutil.ToFloat64(m.requests.WithLabelValues("/v1/chat/completions", "m", otherLabel, otherLabel)); got != 300-maxAnswerLabels {
		t.Errorf("%v are beyond the bound", got)
	}
}

func TestNoNameAndNoNumberBreaksAMetric(t *testing.T) {
	m := newMetrics(prometheus.NewRegistry(), unused)
	x := ended("bad \xff name")
	x.PromptTokens, x.CompletionTokens = -1, -5
	m.observe(x)
	m.observe(x)
	if got := testutil.ToFloat64(m.tokens.WithLabelValues("bad ? name", "input")); got != 0 {
		t.Errorf("tokens below zero count %v", got)
	}
}

func TestAnExemplarLeadsToATraceThatIsKept(t *testing.T) {
	const id = "4bf92f3577b34da6a3ce929d0e0e4736"
	for name, test := range map[string]struct {
		trace  string
		traced bool
		want   int
	}{
		"kept": {id, true, 2}, "not kept": {id, false, 0},
	} {
		registry := prometheus.NewRegistry()
		m := newMetrics(registry, unused)
		x := ended("m")
		x.TraceID, x.traced = test.trace, test.traced
		m.observe(x)
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		got := 0
		for _, f := range families {
			got += strings.Count(f.String(), id)
		}
		if got != test.want {
			t.Errorf("%s: %d exemplars, want %d", name, got, test.want)
		}
	}
}

func TestObservingAllocatesNothing(t *testing.T) {
	m, x := newMetrics(prometheus.NewRegistry(), unused), ended("m")
	if n := testing.AllocsPerRun(1000, func() { m.observe(x) }); n != 0 {
		t.Errorf("%.0f allocations", n)
	}
}

// BenchmarkObserve measures what counting a request costs, alone, with every processor at it, and with an exemplar.
func BenchmarkObserve(b *testing.B) {
	b.Run("one", func(b *testing.B) {
		m, x := newMetrics(prometheus.NewRegistry(), unused), ended("m")
		b.ReportAllocs()
		for b.Loop() {
			m.observe(x)
		}
	})
	b.Run("all", func(b *testing.B) {
		m := newMetrics(prometheus.NewRegistry(), unused)
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for x := ended("m"); pb.Next(); {
				m.observe(x)
			}
		})
	})
	b.Run("exemplar", func(b *testing.B) {
		m, x := newMetrics(prometheus.NewRegistry(), unused), ended("m")
		x.TraceID, x.traced = "4bf92f3577b34da6a3ce929d0e0e4736", true
		b.ReportAllocs()
		for b.Loop() {
			m.observe(x)
		}
	})
}

func TestWhatALineSaysOfARequestKeepsNoneOfItsMemory(t *testing.T) {
	head := "GET /v1/models?" + strings.Repeat("x", 1<<15)
	x := &exchange{surface: "/v1/models"}
	x.Endpoint = head[4:14]
	inHead := func(s string) bool {
		at, begin := uintptr(unsafe.Pointer(unsafe.StringData(s))), uintptr(unsafe.Pointer(unsafe.StringData(head)))
		return at >= begin && at < begin+uintptr(len(head))
	}
	for _, a := range x.attrs(head[:3]) {
		if a.Value.Kind() == slog.KindString && inHead(a.Value.String()) {
			t.Errorf("%s of a line", a.Key)
		}
	}
	span := x.span(head[:3], "")
	if span.Name != "GET /v1/models" || inHead(span.Name) {
		t.Errorf("the name %q", span.Name)
	}
	for _, a := range span.Attributes {
		if s, ok := a.Value.(string); ok && inHead(s) {
			t.Errorf("%s of a span", a.Key)
		}
	}
}
