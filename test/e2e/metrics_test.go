package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/ai-aas/api-router/test/ports"
	"github.com/ai-aas/api-router/test/rig"
)

// page reads the metrics in the format that accept names.
func (r *router) page(accept string) (string, error) {
	request, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://"+r.metrics+"/metrics", http.NoBody)
	if err != nil {
		return "", err
	}
	request.Header.Set("Accept", accept)
	response, err := r.client.Do(request)
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	content, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = errors.New(response.Status)
	}
	return string(content), err
}

// sum adds up the series of a metric whose labels contain all of these words.
func sum(t *testing.T, page, name string, words ...string) float64 {
	t.Helper()
	total, line := 0.0, regexp.MustCompile(`(?m)^`+name+`(?:\{(.*)\})? (\S+)$`)
series:
	for _, found := range line.FindAllStringSubmatch(page, -1) {
		for _, word := range words {
			if !strings.Contains(found[1], word) {
				continue series
			}
		}
		n, err := strconv.ParseFloat(found[2], 64)
		if err != nil {
			t.Fatal(err)
		}
		total += n
	}
	return total
}

// busy is a router that has had every kind of request, n of each: streams and plain ones, to a model whose first backend is dead, to
// none that there is, and to paths that nobody serves.
func busy(t *testing.T, n int) *router {
	t.Helper()
	file := filepath.Join(t.TempDir(), "policies.yaml")
	documents := fmt.Sprintf("kind: Backend\nid: well\nurl: %s\n---\nkind: Backend\nid: dead\nurl: http://%s\nmax_concurrency: 3\n---\n", engine(t), ports.Dead(t)) +
		"kind: RoutingPolicy\nid: plain\nmodel: gpt-oss-20b\nbackends: [{ id: well }]\n---\n" +
		"kind: RoutingPolicy\nid: failing\nmodel: org/failing:1\nbackends: [{ id: dead }, { id: well, tier: 1 }]\n---\n" +
		"kind: Mark\nmodel: off\nstate: disabled\n"
	if err := os.WriteFile(file, []byte(documents), 0o600); err != nil {
		t.Fatal(err)
	}
	r := serve(t, "policy.source=file", "policy.file.path="+file)
	eventually(t, "it serves", func() error { return r.served("well") })
	var all sync.WaitGroup
	for _, ask := range [][2]string{
		{"/v1/chat/completions", `{"model":"gpt-oss-20b","messages":[{"role":"user","content":"Say hello."}],"max_tokens":8}`},
		{"/v1/chat/completions", `{"model":"gpt-oss-20b","stream":true,"messages":[{"role":"user","content":"Say hello."}],"max_tokens":8}`},
		{"/v1/chat/completions", `{"model":"org/failing:1","messages":[{"role":"user","content":"Say hello."}]}`},
		{"/v1/completions", `{"model":"a-client-made-this-up","prompt":"x"}`},
		{"/v1/embeddings", `{`},
		{"/made/up", `{}`},
	} {
		all.Go(func() {
			for range n {
				request, err := http.NewRequestWithContext(context.Background(), http.MethodPost, "http://"+r.public+ask[0], strings.NewReader(ask[1]))
				if err != nil {
					t.Error(err)
					return
				}
				request.Header.Set("Authorization", "Bearer "+key)
				response, err := r.client.Do(request)
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, response.Body)
				_ = response.Body.Close()
			}
		})
	}
	all.Wait()
	return r
}

func TestPrometheusReadsTheMetricsAndTheyAddUp(t *testing.T) {
	const n = 20
	r := busy(t, n)
	var page string
	eventually(t, "every request is counted", func() (err error) {
		if page, err = r.page("text/plain"); err != nil {
			return err
		}
		if got := sum(t, page, "api_router_gateway_requests_total", `endpoint="/v1`) + sum(t, page, "api_router_gateway_requests_total", `endpoint="other"`); got < 6*n+1 {
			return fmt.Errorf("%v requests are counted", got)
		}
		return nil
	})
	for _, test := range []struct {
		name  string
		words []string
		want  float64
	}{
		{"api_router_gateway_requests_total", []string{`endpoint="other"`, `model=""`, `status="404"`, `code="not_found"`}, n},
		{"api_router_gateway_requests_total", []string{`code="model_not_found"`, `model=""`}, n},
		{"api_router_gateway_requests_total", []string{`model="org/failing:1"`}, n},
		{"api_router_gateway_time_to_first_token_seconds_count", []string{`model="gpt-oss-20b"`}, n},
		{"api_router_gateway_requests_in_flight", nil, 0},
		{"api_router_policy_loaded", nil, 1},
		{"api_router_ready", nil, 1},
	} {
		if got := sum(t, page, test.name, test.words...); got != test.want {
			t.Errorf("%s%v is %v, want %v", test.name, test.words, got, test.want)
		}
	}
	if sum(t, page, "api_router_gateway_failovers_total") < 1 || sum(t, page, "api_router_proxy_attempts_total", `backend="dead"`, `result="error"`) < 1 {
		t.Error("no failover is counted")
	}
	if strings.Contains(page, "a-client-made-this-up") || strings.Contains(page, "made/up") {
		t.Error("a client's words have become a label")
	}
	if open, err := r.page("application/openmetrics-text; version=1.0.0"); err != nil || !strings.HasSuffix(open, "# EOF\n") {
		t.Errorf("OpenMetrics: %v", err)
	}
}

func TestPromtoolFindsNothingToSay(t *testing.T) {
	promtool := rig.Tool(t, "promtool")
	page, err := busy(t, 5).page("text/plain")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), hang)
	defer cancel()
	check := exec.CommandContext(ctx, promtool, "check", "metrics")
	check.Stdin = strings.NewReader(page)
	if out, err := check.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}
