package ops

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ai-aas/api-router/internal/fault"
	"github.com/ai-aas/api-router/internal/simengine"
	"github.com/ai-aas/api-router/test/pki"
	"github.com/ai-aas/api-router/test/ports"
	"github.com/ai-aas/api-router/test/rig"
)

// hang is the end of every wait here.
const hang = time.Minute

// exposed is what a scrape shows: the labels of each series' name, with the values that they have.
type exposed map[string]map[string][]string

var sample = regexp.MustCompile(`^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{((?:[a-zA-Z_]\w*="(?:[^"\\]|\\.)*",?)*)\})? `)

// scrape reads Prometheus's text format.
func readScrape(text string) exposed {
	all := exposed{}
	pair := regexp.MustCompile(`([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"`)
	for line := range strings.Lines(text) {
		match := sample.FindStringSubmatch(line)
		if match == nil {
			continue
		}
		if all[match[1]] == nil {
			all[match[1]] = map[string][]string{}
		}
		for _, p := range pair.FindAllStringSubmatch(match[2], -1) {
			all[match[1]][p[1]] = append(all[match[1]][p[1]], p[2])
		}
	}
	return all
}

// prometheusOwn are series and labels that a scrape does not show because Prometheus makes them.
var prometheusOwn = struct{ series, labels []string }{[]string{"up", "ALERTS"}, []string{"job", "instance"}}

func TestEveryQueryNamesWhatARunningRouterExposes(t *testing.T) {
	got := live(t)
	recorded := map[string]bool{}
	for _, r := range readRules(t) {
		recorded[r.Record] = true
	}
	for _, q := range questions(t) {
		parsed := parse(q.expr)
		if len(parsed.selectors) == 0 {
			t.Errorf("%s: asks for nothing", q.where)
		}
		labels := slices.Clone(prometheusOwn.labels)
		for _, s := range parsed.selectors {
			switch {
			case slices.Contains(prometheusOwn.series, s.name):
				continue
			case strings.Contains(s.name, ":"):
				if !recorded[s.name] {
					t.Errorf("%s: no rule records %s", q.where, s.name)
				}
				labels = append(labels, "model", "backend", "endpoint")
				continue
			case got[s.name] == nil:
				t.Errorf("%s: the router does not expose %s", q.where, s.name)
				continue
			}
			labels = slices.AppendSeq(labels, maps.Keys(got[s.name]))
			for label, values := range s.matchers {
				if slices.Contains(prometheusOwn.labels, label) {
					continue
				}
				if got[s.name][label] == nil {
					t.Errorf("%s: %s has no label %s", q.where, s.name, label)
				}
				for _, v := range values {
					checkValues(t, q.where, label, v, got[s.name][label])
				}
			}
		}
		for _, label := range parsed.groups {
			if !slices.Contains(labels, label) {
				t.Errorf("%s: groups by %s, which nothing in it has", q.where, label)
			}
		}
	}
}

// checkValues wants each alternative of a matcher to be a value that the label can have, for labels whose values are few and known.
func checkValues(t *testing.T, where, label, pattern string, there []string) {
	t.Helper()
	switch label {
	case "code":
		there = []string{""}
		for _, e := range fault.Catalogue() {
			there = append(there, string(e.Code))
		}
	case "state", "type", "signal", "reason":
	case "result":
		there = []string{"ok", "refused", "saturated", "error", "timeout", "cut", "client_gone", "healthy", "unhealthy"}
	case "dependency":
		there = []string{"policy_source", "usage_sink", "otlp_.+", "certificate_.+"}
	default:
		return
	}
	for value := range strings.SplitSeq(pattern, "|") {
		if !slices.Contains(there, value) {
			t.Errorf("%s: the label %s is never %q, it is %q", where, label, value, there)
		}
	}
}

// TestThresholdsLieWithinTheirHistograms finds alerts that cannot fire: a quantile is never above the last bound of its histogram.
func TestThresholdsLieWithinTheirHistograms(t *testing.T) {
	got := live(t)
	judged := regexp.MustCompile(`\w+:(\w+):p95_10m > ([0-9.]+)`)
	found := 0
	for _, r := range readRules(t) {
		for _, match := range judged.FindAllStringSubmatch(r.Expr, -1) {
			found++
			threshold, err := strconv.ParseFloat(match[2], 64)
			if err != nil {
				t.Fatal(err)
			}
			last := 0.0
			for _, bound := range got[match[1]+"_bucket"]["le"] {
				if le, err := strconv.ParseFloat(bound, 64); err == nil && !math.IsInf(le, 1) {
					last = max(last, le)
				}
			}
			if threshold >= last {
				t.Errorf("%s: never above %g: the last bound of %s is %g", r.Alert, threshold, match[1], last)
			}
		}
	}
	if found < 3 {
		t.Errorf("only %d thresholds were found", found)
	}
}

func TestEveryQueryNamesWhatTheReferenceLists(t *testing.T) {
	there := map[string]bool{}
	for _, name := range regexp.MustCompile(`\bapi_router_[a-z0-9_]+`).FindAllString(read(t, filepath.Join(root, "docs/metrics.md")), -1) {
		there[name] = true
	}
	for _, q := range questions(t) {
		for _, s := range parse(q.expr).selectors {
			base := s.name
			if !strings.HasPrefix(base, "api_router_") || strings.Contains(base, ":") { // The scrape alone knows what Go's runtime shows.
				continue
			}
			for _, part := range []string{"_bucket", "_count", "_sum"} {
				base = strings.TrimSuffix(base, part)
			}
			if !there[s.name] && !there[base] {
				t.Errorf("%s: docs/metrics.md does not list %s", q.where, s.name)
			}
		}
	}
}

// scraped is the answer of the one router that all tests here ask.
var scraped string

// live is what the built binary exposes after requests that were served, streamed, failed over and refused.
func live(t *testing.T) exposed {
	t.Helper()
	if scraped != "" {
		return readScrape(scraped)
	}
	dir := t.TempDir()
	authority := pki.New(t, "servers")
	authority.Server(t, 90*24*time.Hour).Write(t, dir)
	r := router{t: t, public: ports.Free(t), admin: ports.Free(t), metrics: ports.Free(t), client: &http.Client{
		Timeout: hang, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: authority.Pool}},
	}}
	good := httptest.NewServer(simengine.New(simengine.Config{Models: []simengine.Model{{ID: "m"}}, Speed: math.Inf(1)}).Handler())
	t.Cleanup(good.Close)
	documents := fmt.Sprintf("kind: Backend\nid: dead\nurl: http://%s\n---\nkind: Backend\nid: good\nurl: %s\n---\n"+
		"kind: RoutingPolicy\nid: p\nmodel: m\nbackends: [{id: dead, tier: 0}, {id: good, tier: 1}]\n", ports.Free(t), good.URL)
	if err := os.WriteFile(filepath.Join(dir, "policies.yaml"), []byte(documents), 0o600); err != nil {
		t.Fatal(err)
	}
	r.start(dir)
	const ask = `{"model":"m","messages":[{"role":"user","content":"Say hello."}],"max_tokens":8`
	r.eventually("a request is served", func() error { return r.send("test-acme-1", ask+"}", http.StatusOK) })
	for _, c := range []struct {
		key, body string
		status    int
	}{
		{"test-acme-1", ask + `,"stream":true}`, http.StatusOK},
		{"", ask + "}", http.StatusUnauthorized},
		{"wrong", ask + "}", http.StatusUnauthorized},
		{"test-acme-1", strings.Replace(ask, `"m"`, `"other"`, 1) + "}", http.StatusNotFound},
	} {
		if err := r.send(c.key, c.body, c.status); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.get("https://" + r.admin + "/admin/v1/fleet"); err != nil {
		t.Fatal(err)
	}
	r.eventually("the metrics are there", func() error { // A request is counted when its answer is out.
		text, err := r.get("http://" + r.metrics + "/metrics")
		for _, last := range []string{`api_router_gateway_requests_total{code="model_not_found"`, "api_router_gateway_time_to_first_token_seconds_count", "api_router_admin_requests_total{"} {
			if err == nil && !strings.Contains(text, last) {
				err = fmt.Errorf("no %s yet", last)
			}
		}
		if err == nil {
			scraped = text
		}
		return err
	})
	t.Logf("%d series", strings.Count(scraped, "\n")-strings.Count(scraped, "\n#"))
	return readScrape(scraped)
}

// router is a running api-router, with everything configured that has metrics of its own.
type router struct {
	t                      *testing.T
	public, admin, metrics string
	client                 *http.Client
}

const viewerToken = "ops-viewer-token-0123456789"

func (r *router) start(dir string) {
	r.t.Helper()
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		r.t.Fatal(err)
	}
	p := exec.Command(binary, "serve")
	p.Stderr = log
	p.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	p.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + dir,
		"API_ROUTER_ENVIRONMENT=development", "API_ROUTER_IDENTITY_DEVELOPMENT_KEYS=true",
		"API_ROUTER_LISTEN_PUBLIC=" + r.public, "API_ROUTER_LISTEN_ADMIN=" + r.admin, "API_ROUTER_LISTEN_METRICS=" + r.metrics,
		"API_ROUTER_LISTEN_ADMIN_TLS_CERT=" + filepath.Join(dir, "tls.crt"), "API_ROUTER_LISTEN_ADMIN_TLS_KEY=" + filepath.Join(dir, "tls.key"),
		"API_ROUTER_IDENTITY_ADMIN_TOKENS=vera:viewer:env:VERA", "VERA=" + viewerToken,
		"API_ROUTER_POLICY_FILE_PATH=" + filepath.Join(dir, "policies.yaml"), "API_ROUTER_POLICY_LAST_GOOD=",
		"API_ROUTER_USAGE_SINKS=jsonl:" + filepath.Join(dir, "usage.jsonl"), "API_ROUTER_SERVER_DRAIN_GRACE=0s",
		"OTEL_EXPORTER_OTLP_ENDPOINT=" + ports.Free(r.t), // Nobody listens there: what is dropped is counted from the first scrape on.
	}
	if err := p.Start(); err != nil {
		r.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { _ = p.Wait(); close(done) }()
	r.t.Cleanup(func() {
		_ = p.Process.Signal(syscall.SIGTERM)
		select {
		case <-done:
		case <-time.After(hang):
			_ = p.Process.Kill()
			<-done
		}
		_ = log.Close()
		if r.t.Failed() {
			text, _ := os.ReadFile(log.Name())
			r.t.Logf("the router's log:\n%s", text[max(0, len(text)-4000):])
		}
	})
}

// get asks as a viewer, which only the admin listener looks at.
func (r *router) get(url string) (string, error) {
	request, err := http.NewRequestWithContext(context.Background(), http.MethodGet, url, http.NoBody)
	if err != nil {
		return "", err
	}
	request.Header.Set("Authorization", "Bearer "+viewerToken)
	return r.do(request, http.StatusOK)
}

// send sends a chat request and wants a status.
func (r *router) send(key, body string, status int) error {
	request, err := http.NewRequestWithContext(context.Background(), http.MethodPost, "http://"+r.public+"/v1/chat/completions", strings.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	if key != "" {
		request.Header.Set("Authorization", "Bearer "+key)
	}
	_, err = r.do(request, status)
	return err
}

func (r *router) do(request *http.Request, status int) (string, error) {
	response, err := r.client.Do(request)
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != status {
		err = fmt.Errorf("%s: got %s, want %d: %s", request.URL, response.Status, status, text)
	}
	return string(text), err
}

func (r *router) eventually(what string, check func() error) {
	r.t.Helper()
	rig.Eventually(r.t, what, hang, check)
}
