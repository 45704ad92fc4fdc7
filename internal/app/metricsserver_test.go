package app_test

import (
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ai-aas/api-router/internal/app"
	"github.com/ai-aas/api-router/internal/simengine"
	"github.com/ai-aas/api-router/test/ports"
)

// metrics reads the page of a process, "" while its listener is not open.
func metrics(t *testing.T, p *process) string {
	t.Helper()
	addr := p.MetricsAddr()
	if addr == nil {
		return ""
	}
	status, body := get(t, client(t), "http://"+addr.String()+"/metrics")
	if status != http.StatusOK {
		t.Fatalf("/metrics gives %d: %s", status, body)
	}
	return body
}

// shows waits for lines of the page.
func shows(t *testing.T, p *process, lines ...string) {
	t.Helper()
	for _, line := range lines {
		eventually(t, "the line "+line, func() bool { return strings.Contains(metrics(t, p), "\n"+line+"\n") })
	}
}

func TestTheMetricsListenerShowsMetricsAndNothingElse(t *testing.T) {
	url := simulated(t, simengine.Config{Speed: 100})
	o := options(t, routed(url))
	o.Config.Usage.Sinks = []app.Sink{{Type: "jsonl", Path: filepath.Join(t.TempDir(), "usage.jsonl")}}
	p := run(t, o)
	if response := chat(t, client(t), p.base, ""); response.StatusCode != http.StatusOK {
		t.Fatalf("the request gives %d", response.StatusCode)
	}
	shows(t, p,
		`api_router_dependency_up{dependency="policy_source"} 1`, `api_router_dependency_up{dependency="usage_sink"} 1`, `api_router_ready 1`,
		`api_router_gateway_requests_total{code="",endpoint="/v1/chat/completions",model="gpt-oss-20b",status="200"} 1`,
		`api_router_proxy_attempts_total{backend="one",result="ok"} 1`, `api_router_policy_loaded 1`, `api_router_usage_records_total 1`,
		`api_router_fleet_backend_state{backend="one",state="available"} 1`,
	)
	if page := metrics(t, p); strings.Contains(page, strings.TrimPrefix(url, "http://")) || strings.Contains(page, "test-vllm-key") {
		t.Error("the page holds a backend's address or a client's key")
	}
	base := "http://" + p.MetricsAddr().String()
	for _, path := range []string{"/", "/healthz", "/v1/models", "/admin/v1/fleet"} {
		if status, _ := get(t, client(t), base+path); status != http.StatusNotFound {
			t.Errorf("the metrics listener answers %s with %d", path, status)
		}
	}
	if status, _ := get(t, client(t), p.base+"/metrics"); status != http.StatusNotFound {
		t.Errorf("the public listener answers /metrics with %d", status)
	}
}

func TestASinkThatTakesNothingIsDown(t *testing.T) {
	blocked := write(t, "file", "")
	o := options(t, routed("http://127.0.0.1:1"))
	o.Config.Usage.Sinks = []app.Sink{{Type: "jsonl", Path: filepath.Join(blocked, "usage.jsonl")}}
	p := run(t, o)
	shows(t, p, `api_router_dependency_up{dependency="usage_sink"} 0`)
	if err := os.Remove(blocked); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the sink to work", func() bool {
		_ = chat(t, client(t), p.base, "")
		return strings.Contains(metrics(t, p), `api_router_dependency_up{dependency="usage_sink"} 1`)
	})
}

func TestATakenMetricsPortKeepsNothingFromServingAndIsTriedAgain(t *testing.T) {
	holder, err := net.Listen("tcp", ports.Free(t)) // It stays the test's when the holder lets go of it.
	if err != nil {
		t.Fatal(err)
	}
	defer holder.Close()
	o := options(t, routed(simulated(t, simengine.Config{Speed: 100})))
	o.Config.Listen.Metrics = holder.Addr().String()
	log := new(syncBuffer)
	o.Logger = log.logger()
	p := run(t, o)
	eventually(t, "the warning", func() bool { return strings.Contains(log.String(), "the metrics listener is not open") })
	if response := chat(t, client(t), p.base, ""); response.StatusCode != http.StatusOK || p.MetricsAddr() != nil {
		t.Fatalf("without its metrics port the router answers %d; the metrics are at %v", response.StatusCode, p.MetricsAddr())
	}
	for _, part := range []string{o.Config.Listen.Metrics, "another process", "listen.metrics", "API_ROUTER_LISTEN_METRICS", "--metrics-listen"} {
		if !strings.Contains(log.String(), part) {
			t.Errorf("the log does not name %q: %s", part, log)
		}
	}
	time.Sleep(1500 * time.Millisecond) // Two tries more.
	if n := strings.Count(log.String(), "the metrics listener is not open"); n != 1 {
		t.Errorf("the same trouble is logged %d times", n)
	}
	_ = holder.Close()
	shows(t, p, "api_router_ready 1")
	if got := p.MetricsAddr().String(); got != o.Config.Listen.Metrics {
		t.Errorf("it opened %s", got)
	}
}

func TestIdleConnectionsKeepNobodyFromTheMetrics(t *testing.T) {
	p := run(t, options(t, routed("http://127.0.0.1:1")))
	eventually(t, "the metrics listener", func() bool { return p.MetricsAddr() != nil })
	for range 70 { // More than may be open at once.
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", p.MetricsAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		_ = conn.SetDeadline(time.Now().Add(hang))
		if _, err := io.WriteString(conn, "GET /metrics HTTP/1.1\r\nHost: m\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(make([]byte, 1)); err != nil {
			t.Fatalf("a connection after others that do nothing any more: %v", err)
		}
	}
}

func TestNoMetricsListenerWhereItIsOff(t *testing.T) {
	for _, address := range []string{"", "no-such-host.invalid:1"} {
		o := options(t, routed(simulated(t, simengine.Config{Speed: 100})))
		o.Config.Listen.Metrics = address
		p := run(t, o)
		if response := chat(t, client(t), p.base, ""); response.StatusCode != http.StatusOK || p.MetricsAddr() != nil {
			t.Errorf("%q: got %d, and metrics at %v", address, response.StatusCode, p.MetricsAddr())
		}
		p.end()
		if err := p.wait(t); err != nil {
			t.Errorf("%q: it ended with %v", address, err)
		}
	}
}

func TestMetricsCanBeReadWhileTheRouterDrains(t *testing.T) {
	o := options(t, routed(simulated(t, simengine.Config{Speed: 100})))
	force := graceful(&o)
	p := run(t, o)
	shows(t, p, "api_router_ready 1")
	addr := p.MetricsAddr().String()
	p.end()
	shows(t, p, "api_router_ready 0")
	force()
	if err := p.wait(t); err != nil {
		t.Error(err)
	}
	if conn, err := net.Dial("tcp", addr); err == nil {
		_ = conn.Close()
		t.Error("the metrics listener outlived the process")
	}
}

func TestDevTakesAFreePortForItsMetricsAndSaysWhich(t *testing.T) {
	stdout, _ := dev(t, app.DevOptions{MetricsListen: taken(t)})
	lastLine(t, stdout)
	_, rest, found := strings.Cut(stdout.String(), "  metrics   http://localhost:")
	url, _, _ := strings.Cut(rest, "\n")
	if !found {
		t.Fatalf("the banner is %s", stdout)
	}
	if status, body := get(t, client(t), "http://127.0.0.1:"+url); status != http.StatusOK || !strings.Contains(body, `dependency="usage_sink"`) {
		t.Errorf("%s gives %d: %s", url, status, body)
	}
}
