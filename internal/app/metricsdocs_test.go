package app_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/ai-aas/api-router/internal/adminapi"
	"github.com/ai-aas/api-router/internal/app"
	"github.com/ai-aas/api-router/internal/auth"
	"github.com/ai-aas/api-router/internal/auth/oidc"
	"github.com/ai-aas/api-router/internal/policy"
	"github.com/ai-aas/api-router/internal/simengine"
	"github.com/ai-aas/api-router/internal/telemetry"
	"github.com/ai-aas/api-router/test/pki"
)

// family is one metric as the page shows it.
type family struct{ name, kind, labels, help string }

// rooms says what the metrics of a room are about, in the page's order. The process's own have no room in their name.
var rooms = []struct{ name, about string }{
	{"", "The process."},
	{"gateway", "The clients' door: requests, as clients see them."},
	{"auth", "Whose a credential is. What is about a place of keys is there where that is configured."},
	{"proxy", "Attempts: one request at one backend. A request that fails over has several."},
	{"fleet", "Backends. What is known of one that has left is gone."},
	{"policy", "The documents in force."},
	{"state", "The state book. They are there where one is."},
	{"usage", "Usage records."},
	{"listener", "Listeners with TLS."},
	{"admin", "The operators' door."},
	{"telemetry", "What is sent to a collector."},
}

// room is the one that a metric's name names, "" for the process.
func room(name string) string {
	first, _, _ := strings.Cut(strings.TrimPrefix(name, "api_router_"), "_")
	if slices.ContainsFunc(rooms, func(r struct{ name, about string }) bool { return r.name == first }) {
		return first
	}
	return ""
}

// families are the router's own metrics as its registry gives them, by name.
func families(t *testing.T, registry *prometheus.Registry) []family {
	t.Helper()
	gathered, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var list []family
	for _, f := range gathered {
		if !strings.HasPrefix(f.GetName(), "api_router_") {
			continue
		}
		var labels []string
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, "`"+l.GetName()+"`")
		}
		list = append(list, family{f.GetName(), strings.ToLower(f.GetType().String()), strings.Join(labels, ", "), f.GetHelp()})
	}
	slices.SortFunc(list, func(a, b family) int { return cmp.Compare(a.name, b.name) })
	return list
}

var descName = regexp.MustCompile(`fqName: "(api_router_[^"]*)"`)

// promised are the names that the collectors of a registry may ever show, whether or not there is anything to show yet.
func promised(t *testing.T, registry *prometheus.Registry) []string {
	t.Helper()
	descs := make(chan *prometheus.Desc)
	go func() {
		registry.Describe(descs)
		close(descs)
	}()
	var names []string
	for d := range descs {
		if found := descName.FindStringSubmatch(d.String()); found != nil {
			names = append(names, found[1])
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// metricsPage is docs/metrics.md.
func metricsPage(list []family) string {
	var b strings.Builder
	b.WriteString("# Metrics\n\n<!-- Written by \"make docs\" from the registry of a running router. -->\n\n" +
		"`GET /metrics` on the metrics listener (`listen.metrics`, port 9464) has these in Prometheus's text format, and in OpenMetrics where that is asked for. " +
		"There, buckets of the histograms of requests have exemplars: the `trace_id` of a request whose trace was kept.\n\n" +
		"Labels are the router's own words and names from the configuration, never what a client wrote. `model` is the name in a routing policy, and `_other` " +
		"for those beyond 1,000; `endpoint` is a path of the public surface, and `other` for all else. Durations are in seconds, sizes in bytes.\n\n" +
		"Beside them are `go_*` and `process_*`, which say how Go's runtime and the process are.\n")
	for _, r := range rooms {
		var rows strings.Builder
		for _, f := range list {
			if room(f.name) == r.name {
				fmt.Fprintf(&rows, "| `%s` | %s | %s | %s |\n", f.name, f.kind, f.labels, f.help)
			}
		}
		if rows.Len() > 0 {
			fmt.Fprintf(&b, "\n## %s\n\n%s\n\n| metric | type | labels | what it says |\n|---|---|---|---|\n%s", cmp.Or(r.name, "process"), r.about, rows.String())
		}
	}
	return b.String()
}

// everything is a router whose every metric has something to show.
func everything(t *testing.T) *process {
	t.Helper()
	o := administered(t, stateFlags(t), write(t, "token", token))
	o.Config.Usage.Sinks = []app.Sink{{Type: "jsonl", Path: filepath.Join(t.TempDir(), "usage.jsonl")}}
	authority, dir := pki.New(t, "servers"), t.TempDir()
	o.Config.Listen.TLS.Cert, o.Config.Listen.TLS.Key = authority.Server(t, 90*24*time.Hour).Write(t, dir)
	keyed, _, _ := keyed(t, newBooks(), auth.Key{})
	o.Ledger, o.Config.Identity.Peppers = keyed.Ledger, keyed.Config.Identity.Peppers
	o.Config.Identity.UserOrg.URL = "http://127.0.0.1:1"
	o.Config.Identity.Order = []string{app.ValidatorDevelopment, app.ValidatorState, app.ValidatorUserOrg, app.ValidatorJWT}
	o.Config.Identity.JWT = []app.TokenIssuer{{Issuer: oidc.Issuer{
		Issuer: "http://127.0.0.1:1", Audience: "router", Algorithms: []string{"RS256"}, Organization: "org",
	}}}
	asker, err := policy.ParseSecretRef("file:" + write(t, "asker", token))
	if err != nil {
		t.Fatal(err)
	}
	o.Config.Identity.ValidationTokens = []policy.SecretRef{asker}
	o.Registry = telemetry.NewRegistry("test")
	o.Telemetry = telemetry.New(telemetry.Options{
		Env: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "127.0.0.1:1"}, Logger: o.Logger, Gatherer: o.Registry, Metrics: o.Registry,
	})
	t.Cleanup(func() { _ = o.Telemetry.Stop(context.Background()) }) // What it could not send is of no interest.
	p := run(t, o)
	api := operator(t, p, token)
	for _, document := range [][2]string{{adminapi.Backends, "url: " + simulated(t, simengine.Config{Speed: 100})}, {adminapi.Policies, "model: gpt-oss-20b\nbackends: [ { id: one } ]"}} {
		if _, err := api.Put(t.Context(), document[0], "one", []byte(document[1]), adminapi.If{}); err != nil {
			t.Fatal(err)
		}
	}
	secure := trusting(t, authority.Pool)
	eventually(t, "the policy to be in force", func() bool {
		response := chat(t, secure, "https://"+p.Addr().String(), "")
		return read(t, response.Body) != "" && response.StatusCode == http.StatusOK
	})
	_ = read(t, chat(t, secure, "https://"+p.Addr().String(), `, "stream": true`).Body)
	return p
}

// TestDocsMetrics keeps docs/metrics.md true. UPDATE_DOCS=1 writes it.
func TestDocsMetrics(t *testing.T) {
	const page = "../../docs/metrics.md"
	registry := everything(t).Registry()
	var list []family
	eventually(t, "every metric to be there", func() bool {
		list = families(t, registry)
		return len(list) == len(promised(t, registry))
	})
	want := metricsPage(list)
	if os.Getenv("UPDATE_DOCS") != "" {
		if err := os.WriteFile(page, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(page)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	if diff := gocmp.Diff(want, string(got)); diff != "" {
		t.Errorf("docs/metrics.md is not what the registry says; write it with UPDATE_DOCS=1 go test ./internal/app -run TestDocsMetrics\n%s", diff)
	}
	for _, f := range list {
		if f.help == "" || strings.Contains(f.help, "|") || strings.Contains(f.help, "\n") {
			t.Errorf("%s says %q of itself", f.name, f.help)
		}
	}
}

func TestMetricsHaveTheirRoom(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range rooms {
		if seen[r.name] {
			t.Errorf("the page has the room %q twice", r.name)
		}
		seen[r.name] = true
	}
	for name, want := range map[string]string{
		"api_router_gateway_requests_total": "gateway", "api_router_ready": "", "api_router_build_info": "", "api_router_dependency_up": "",
		"api_router_policy_age_seconds": "policy",
	} {
		if got := room(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}
