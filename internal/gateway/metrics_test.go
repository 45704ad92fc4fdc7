package gateway_test

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/ai-aas/api-router/internal/usage"
)

const gatewayRequests = "api_router_gateway_requests_total"

// counts wants these series, and no others, of one family. The requests have been answered, but may not have been counted yet.
func counts(t *testing.T, registry *prometheus.Registry, name string, series ...string) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(hang); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if err = compare(registry, name, series); err == nil {
			return
		}
	}
	t.Error(err)
}

func compare(registry *prometheus.Registry, name string, series []string) error {
	families, err := registry.Gather()
	if err != nil {
		return err
	}
	head := ""
	for _, f := range families {
		if f.GetName() == name {
			head = "# HELP " + name + " " + f.GetHelp() + "\n# TYPE " + name + " " + strings.ToLower(f.GetType().String()) + "\n"
		}
	}
	return testutil.GatherAndCompare(registry, strings.NewReader(head+name+strings.Join(series, "\n"+name)+"\n"), name)
}

func TestEveryPathIsCountedAndNoClientMakesALabel(t *testing.T) {
	registry := prometheus.NewRegistry()
	h := build(t, setting{metrics: registry}, play(t, says(plain(http.StatusOK, "application/json", odd))).URL)
	h.post("/v1/chat/completions", chat)
	h.post("/v1/chat/completions", strings.Replace(chat, `"m"`, `"alias"`, 1))
	h.post("/v1/chat/completions", strings.Replace(chat, `"m"`, `"made-up-by-a-client"`, 1))
	h.post("/v1/chat/completions", "{")
	h.get("/v1/chat/completions")
	h.get("/v1/models")
	h.get("/v1/models/m")
	h.get("/v1/models/made-up-by-a-client")
	h.get("/healthz")
	h.get("/made-up-by-a-client")
	h.get("/another/one")
	counts(t, registry, gatewayRequests,
		`{code="",endpoint="/healthz",model="",status="200"} 1`,
		`{code="",endpoint="/v1/chat/completions",model="m",status="200"} 2`,
		`{code="",endpoint="/v1/models",model="",status="200"} 1`,
		`{code="",endpoint="/v1/models/{model}",model="",status="200"} 1`,
		`{code="invalid_json",endpoint="/v1/chat/completions",model="",status="400"} 1`,
		`{code="method_not_allowed",endpoint="/v1/chat/completions",model="",status="405"} 1`,
		`{code="model_not_found",endpoint="/v1/chat/completions",model="",status="404"} 1`,
		`{code="model_not_found",endpoint="/v1/models/{model}",model="",status="404"} 1`,
		`{code="not_found",endpoint="other",model="",status="404"} 2`,
	)
	counts(t, registry, "api_router_gateway_requests_in_flight", " 0")
	counts(t, registry, "api_router_gateway_body_memory_bytes", " 0")
}

func TestWhatARequestUsedIsCounted(t *testing.T) {
	registry := prometheus.NewRegistry()
	h := build(t, setting{metrics: registry}, play(t, says(plain(http.StatusInternalServerError, "text/plain", "no"))).URL,
		play(t, says(streamed(opening, delta("a"), finish, used, done)+lastChunk)).URL)
	body(t, h.post("/v1/chat/completions", streamChat))
	rec := h.closed(1)
	if rec.PromptTokens == 0 || rec.CompletionTokens == 0 {
		t.Fatalf("the record is %+v", rec)
	}
	counts(t, registry, "api_router_gateway_failovers_total", `{model="m"} 1`)
	counts(t, registry, "api_router_gateway_streams_truncated_total", `{model="m"} 0`)
	tokens := func(kind string, n int64) string {
		return `{model="m",type="` + kind + `"} ` + strconv.FormatInt(n, 10)
	}
	counts(t, registry, "api_router_gateway_tokens_total",
		tokens("cached_input", rec.CachedTokens), tokens("input", rec.PromptTokens), tokens("output", rec.CompletionTokens), tokens("reasoning", rec.ReasoningTokens))
	observed(t, registry, map[string]uint64{
		"api_router_gateway_request_duration_seconds": 1, "api_router_gateway_time_to_first_token_seconds": 1, "api_router_gateway_overhead_seconds": 1,
	})
}

func TestAStreamThatBreaksIsCountedAsTruncated(t *testing.T) {
	registry := prometheus.NewRegistry()
	h := build(t, setting{metrics: registry}, play(t, says(streamed(opening, delta("a"), finish)+lastChunk)).URL)
	resp := h.post("/v1/chat/completions", streamChat)
	_, _ = resp.Body.Read(make([]byte, 1<<16))
	h.closed(1)
	counts(t, registry, "api_router_gateway_streams_truncated_total", `{model="m"} 1`)
	counts(t, registry, gatewayRequests, `{code="backend_error",endpoint="/v1/chat/completions",model="m",status="200"} 1`)
}

func TestAClientThatLeavesIsNoTruncatedStream(t *testing.T) {
	registry := prometheus.NewRegistry()
	h := build(t, setting{metrics: registry}, play(t, says(streamed(opening, delta("a")))).URL)
	resp := h.post("/v1/chat/completions", streamChat)
	_, _ = resp.Body.Read(make([]byte, 1))
	_ = resp.Body.Close()
	if rec := h.closed(1); rec.StopReason != usage.StopClientGone {
		t.Fatalf("%+v", rec)
	}
	counts(t, registry, "api_router_gateway_streams_truncated_total", `{model="m"} 0`)
}

func TestAPanicIsCounted(t *testing.T) {
	registry := prometheus.NewRegistry()
	h := build(t, setting{metrics: registry, draining: func() bool { panic("a bug") }}, "http://127.0.0.1:1")
	if resp := h.get("/readyz"); resp.StatusCode != http.StatusInternalServerError {
		t.Errorf("got %d", resp.StatusCode)
	}
	counts(t, registry, "api_router_gateway_panics_total", " 1")
	counts(t, registry, gatewayRequests, `{code="internal_error",endpoint="/readyz",model="",status="500"} 1`)
}

// observed wants so many observations of these histograms, over all their series.
func observed(t *testing.T, registry *prometheus.Registry, want map[string]uint64) {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		n, wanted := want[f.GetName()]
		if !wanted {
			continue
		}
		delete(want, f.GetName())
		var got uint64
		for _, m := range f.GetMetric() {
			got += m.GetHistogram().GetSampleCount()
		}
		if got != n {
			t.Errorf("%s: %d observations, want %d", f.GetName(), got, n)
		}
	}
	if len(want) > 0 {
		t.Errorf("no observations of %v", want)
	}
}
