package telemetry_test

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ai-aas/api-router/internal/telemetry"
)

// ask sends one request to a metrics listener with this registry.
func ask(t *testing.T, log *slog.Logger, registry *prometheus.Registry, method, path, accept string) (response *http.Response, body string) {
	t.Helper()
	server := httptest.NewServer(telemetry.MetricsHandler(log, registry))
	defer server.Close()
	r, err := http.NewRequestWithContext(t.Context(), method, server.URL+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept", accept)
	response, err = server.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response, string(content)
}

func TestTheRegistryKnowsTheProcessAndItsBuild(t *testing.T) {
	t.Parallel()
	response, body := ask(t, slog.New(slog.DiscardHandler), telemetry.NewRegistry("v1.2.3"), http.MethodGet, "/metrics", "")
	if response.StatusCode != http.StatusOK {
		t.Fatalf("got %d: %s", response.StatusCode, body)
	}
	for _, part := range []string{`api_router_build_info{goversion="go1.`, `version="v1.2.3"} 1`, "\ngo_goroutines ", "\nprocess_start_time_seconds "} {
		if !strings.Contains(body, part) {
			t.Errorf("%q is missing", part)
		}
	}
}

func TestNothingButTheMetricsIsServed(t *testing.T) {
	t.Parallel()
	for request, want := range map[string]int{
		"GET /metrics": 200, "HEAD /metrics": 200, "POST /metrics": 404, "DELETE /metrics": 404, "GET /": 404, "GET /metrics/": 404,
		"GET /healthz": 404, "GET /debug/pprof/": 404,
	} {
		method, path, _ := strings.Cut(request, " ")
		response, body := ask(t, slog.New(slog.DiscardHandler), telemetry.NewRegistry("test"), method, path, "")
		if response.StatusCode != want || want == 404 && strings.Contains(body, "goroutines") {
			t.Errorf("%s: got %d", request, response.StatusCode)
		}
	}
}

func TestExemplarsShowInOpenMetrics(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	seconds := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "x_seconds", Help: "A test.", Buckets: []float64{1}})
	registry.MustRegister(seconds)
	seconds.(prometheus.ExemplarObserver).ObserveWithExemplar(0.5, prometheus.Labels{"trace_id": "4bf92f3577b34da6a3ce929d0e0e4736"})
	for accept, want := range map[string]bool{"application/openmetrics-text; version=1.0.0": true, "text/plain": false} {
		_, body := ask(t, slog.New(slog.DiscardHandler), registry, http.MethodGet, "/metrics", accept)
		if strings.Contains(body, `trace_id="4bf92f3577b34da6a3ce929d0e0e4736"`) != want {
			t.Errorf("%s: got %s", accept, body)
		}
	}
}

// broken is a collector that fails.
type broken struct{ *prometheus.Desc }

func (b broken) Describe(to chan<- *prometheus.Desc) { to <- b.Desc }

func (b broken) Collect(to chan<- prometheus.Metric) {
	to <- prometheus.NewInvalidMetric(b.Desc, errors.New("a counter is on fire"))
}

func TestACollectorThatFailsIsLoggedAndTheOthersAreServed(t *testing.T) {
	t.Parallel()
	registry := telemetry.NewRegistry("test")
	registry.MustRegister(broken{prometheus.NewDesc("x_total", "A test.", nil, nil)})
	var log strings.Builder
	response, body := ask(t, slog.New(slog.NewTextHandler(&log, nil)), registry, http.MethodGet, "/metrics", "")
	if response.StatusCode != http.StatusOK || !strings.Contains(body, "go_goroutines") || !strings.Contains(log.String(), "a counter is on fire") {
		t.Errorf("got %d, and the log %q", response.StatusCode, log.String())
	}
}
