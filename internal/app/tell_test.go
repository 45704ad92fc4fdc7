package app_test

import (
	"compress/gzip"
	"context"
	"encoding/hex"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"path"
	"strings"
	"sync"
	"testing"
	"time"

	logspb "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	tracespb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/ai-aas/api-router/internal/app"
	"github.com/ai-aas/api-router/internal/simengine"
	"github.com/ai-aas/api-router/internal/telemetry"
	"github.com/ai-aas/api-router/test/ports"
)

// served runs Serve with one simulated backend and env, until end is called, which returns how long that took.
func served(t *testing.T, env map[string]string) (base string, log *syncBuffer, end func() time.Duration) {
	t.Helper()
	url, address := simulated(t, simengine.Config{Speed: 100}), ports.Free(t)
	all := map[string]string{
		"API_ROUTER_ENVIRONMENT": "development", "API_ROUTER_IDENTITY_DEVELOPMENT_KEYS": "true", "API_ROUTER_LISTEN_PUBLIC": address,
		"API_ROUTER_SERVER_DRAIN_GRACE": "0s", "BACKEND_ENDPOINTS": "b:" + url,
	}
	maps.Copy(all, env)
	log = new(syncBuffer)
	ctx, cancel := contextFor(t)
	done := make(chan error, 1)
	go func() {
		done <- app.Serve(ctx, app.Process{Version: "test", Stdout: io.Discard, Stderr: log}, app.Sources{
			Env: all, Flags: map[string]string{"policy.file.path": write(t, "p.yaml", "kind: RoutingPolicy\nid: p\nmodel: gpt-oss-20b\nbackends: [ { id: b } ]\n")},
		})
	}()
	base = "http://" + address
	began := time.Now()
	eventually(t, "readiness", func() bool {
		response, err := client(t).Get(base + "/readyz")
		if err != nil {
			return false
		}
		defer func() { _ = response.Body.Close() }()
		return response.StatusCode == http.StatusOK
	})
	t.Logf("ready after %s", time.Since(began))
	return base, log, func() time.Duration {
		began := time.Now()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("it ended with %v", err)
		}
		return time.Since(began)
	}
}

// TestAnEndpointWhereNobodyListensStopsNothing is the case that once kept the service from starting.
func TestAnEndpointWhereNobodyListensStopsNothing(t *testing.T) {
	if listener := closedPort(t, "localhost:4318"); !listener {
		t.Skip("something listens on localhost:4318 here")
	}
	for _, protocol := range []string{"", "grpc", "http/protobuf"} {
		t.Run("protocol "+protocol, func(t *testing.T) {
			base, log, end := served(t, map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "localhost:4318", "OTEL_EXPORTER_OTLP_PROTOCOL": protocol, "OTEL_BSP_SCHEDULE_DELAY": "10"})
			if response := chat(t, client(t), base, ""); response.StatusCode != http.StatusOK {
				t.Errorf("a request got %d", response.StatusCode)
			}
			eventually(t, "the warning", func() bool { return strings.Contains(log.String(), "telemetry is not delivered") })
			if status, body := get(t, client(t), base+"/v1/status/readyz"); status != http.StatusOK || !strings.Contains(body, `"otlp_traces"`) || strings.Contains(body, "4318") {
				t.Errorf("strangers are told %s", body)
			}
			took := end()
			t.Logf("ended in %s", took)
			if took > 10*3*time.Second {
				t.Errorf("the end took %s", took)
			}
		})
	}
}

// A signal that has nothing to send, and one that the collector has no pipeline for, are no reason to call anybody.
func TestACollectorIsDownWhenItDoesNotAnswerAndNotBefore(t *testing.T) {
	collector := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if path.Base(r.URL.Path) == "logs" {
			http.NotFound(w, r)
		}
	}))
	defer collector.Close()
	for name, tc := range map[string]struct {
		endpoint                      string
		traces, metrics, logs, public string
	}{
		"it answers":   {collector.URL, "1", "1", "1", `"refused"`},
		"it is absent": {"http://" + ports.Dead(t), "1", "0", "0", `"failing"`},
	} {
		t.Run(name, func(t *testing.T) {
			listener := ports.Free(t)
			base, _, end := served(t, map[string]string{
				"OTEL_EXPORTER_OTLP_ENDPOINT": tc.endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf", "OTEL_METRIC_EXPORT_INTERVAL": "50", "OTEL_BLRP_SCHEDULE_DELAY": "50",
				"API_ROUTER_LISTEN_METRICS": listener,
			})
			defer end()
			for signal, want := range map[string]string{"traces": tc.traces, "metrics": tc.metrics, "logs": tc.logs} {
				eventually(t, signal+" at "+want, func() bool {
					response, err := client(t).Get("http://" + listener + "/metrics")
					if err != nil {
						return false // Its listener opens in the background.
					}
					defer func() { _ = response.Body.Close() }()
					page, _ := io.ReadAll(response.Body)
					return strings.Contains(string(page), "\n"+`api_router_dependency_up{dependency="otlp_`+signal+`"} `+want+"\n")
				})
			}
			eventually(t, "the public status", func() bool {
				_, body := get(t, client(t), base+"/v1/status/readyz")
				return strings.Contains(body, `"otlp_traces","state":"idle"`) && strings.Contains(body, tc.public)
			})
		})
	}
}

func closedPort(t *testing.T, address string) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	response, err := client(t).Do(request)
	if err == nil {
		_ = response.Body.Close()
	}
	return err != nil && strings.Contains(err.Error(), "refused")
}

func TestARequestsSpansAndItsLineShareATrace(t *testing.T) {
	var mu sync.Mutex
	var spans []string // "name trace"
	lines := map[string]string{}
	asked := map[string]bool{}
	collector := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body := r.Body
		if r.Header.Get("Content-Encoding") == "gzip" {
			body, _ = gzip.NewReader(r.Body)
		}
		data, _ := io.ReadAll(body)
		mu.Lock()
		defer mu.Unlock()
		asked[path.Base(r.URL.Path)] = true
		switch path.Base(r.URL.Path) {
		case "traces":
			var request tracespb.ExportTraceServiceRequest
			if err := proto.Unmarshal(data, &request); err != nil {
				t.Error(err)
			}
			for _, s := range request.GetResourceSpans()[0].GetScopeSpans()[0].GetSpans() {
				spans = append(spans, s.GetName()+" "+hex.EncodeToString(s.GetTraceId()))
			}
		case "logs":
			var request logspb.ExportLogsServiceRequest
			if err := proto.Unmarshal(data, &request); err != nil {
				t.Error(err)
			}
			for _, l := range request.GetResourceLogs()[0].GetScopeLogs()[0].GetLogRecords() {
				lines[l.GetBody().GetStringValue()] = hex.EncodeToString(l.GetTraceId())
			}
		}
	}))
	defer collector.Close()
	base, log, end := served(t, map[string]string{
		"OTEL_EXPORTER_OTLP_ENDPOINT": collector.URL, "OTEL_TRACES_SAMPLER": "always_on", "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
	})
	response := chat(t, client(t), base, "")
	id := response.Header.Get("X-Trace-Id")
	end()
	mu.Lock()
	defer mu.Unlock()
	if len(spans) < 3 || id == "" {
		t.Errorf("got spans %v of %q", spans, id)
	}
	for _, s := range spans {
		if !strings.HasSuffix(s, " "+id) {
			t.Errorf("a span of another trace: %s; want %s", s, id)
		}
	}
	found := false
	for _, trace := range lines {
		found = found || trace == id
	}
	if _, last := lines["api-router ended"]; !found || !last || !asked["metrics"] {
		t.Errorf("got lines %v, metrics %v", lines, asked["metrics"])
	}
	if strings.Contains(log.String(), "level\":\"WARN\",\"msg\":\"telemetry") {
		t.Errorf("the log says:\n%s", log)
	}
}

func TestASecondSignalDoesNotWaitForASilentCollector(t *testing.T) {
	silent := silence(t)
	force := make(chan struct{})
	log := new(syncBuffer)
	ctx, cancel := contextFor(t)
	done := make(chan error, 1)
	go func() {
		done <- app.Serve(ctx, app.Process{Version: "test", Stdout: io.Discard, Stderr: log, Force: force}, app.Sources{Env: map[string]string{
			"API_ROUTER_LISTEN_PUBLIC": ports.Free(t), "API_ROUTER_LISTEN_METRICS": "127.0.0.1:0", "API_ROUTER_SERVER_DRAIN_GRACE": "0s", "OTEL_EXPORTER_OTLP_ENDPOINT": silent,
			"API_ROUTER_ENVIRONMENT": "development", "BACKEND_ENDPOINTS": "b:http://127.0.0.1:1",
		}})
	}()
	eventually(t, "the start", func() bool { return strings.Contains(log.String(), `"listening"`) })
	cancel()
	eventually(t, "the end of all but telemetry", func() bool { return strings.Contains(log.String(), "api-router ended") })
	began := time.Now()
	close(force)
	if err := <-done; err != nil {
		t.Errorf("it ended with %v", err)
	}
	t.Logf("ended in %s", time.Since(began))
	if !strings.Contains(log.String(), "the last telemetry was not sent in time") {
		t.Errorf("it waited for the collector; the log says:\n%s", log)
	}
}

// silence is the address of a listener that takes connections and says nothing.
func silence(t *testing.T) string {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	return listener.Addr().String() // The kernel takes them.
}

func TestARouterWithoutRequestsDependsOnNoTrace(t *testing.T) {
	o := options(t, routed("http://127.0.0.1:1"))
	o.Registry = telemetry.NewRegistry("test")
	o.Telemetry = telemetry.New(telemetry.Options{
		Env:    map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": ports.Dead(t), "OTEL_METRIC_EXPORT_INTERVAL": "10", "OTEL_METRIC_EXPORT_TIMEOUT": "10"},
		Logger: o.Logger, Version: "test", Gatherer: o.Registry, Metrics: o.Registry,
	})
	t.Cleanup(func() { _ = o.Telemetry.Stop(context.Background()) })
	shows(t, run(t, o), `api_router_dependency_up{dependency="otlp_metrics"} 0`, `api_router_dependency_up{dependency="otlp_traces"} 1`)
}
