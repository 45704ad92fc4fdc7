package conformance

import (
	"context"
	"encoding/json"
	"log/slog"
	"math"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ai-aas/api-router/internal/app"
	"github.com/ai-aas/api-router/internal/policy"
	"github.com/ai-aas/api-router/internal/simengine"
	"github.com/ai-aas/api-router/test/rig"
)

// arena is a running router with a simulated engine behind it, which answers as engines do, and a stage, which answers as engines
// do on bad days.
type arena struct {
	base   string // the router
	direct string // the stage itself, past the router
	log    *rig.Journal
}

// enter starts an arena that lasts until the test ends.
func enter(t *testing.T) arena {
	t.Helper()
	var engine http.Server
	sim := serve(t, &engine, simengine.New(simengine.Config{Speed: math.Inf(1)}).Handler())
	s := newStage(t)
	documents := route(model, sim)
	for _, name := range s.models() {
		documents = append(documents, route(name, s.base)...)
	}

	c := app.Default()
	c.Environment = app.Development
	c.Identity.DevelopmentKeys = true
	c.Listen.Public, c.Listen.Metrics = "127.0.0.1:0", ""
	c.Policy.LastGood = ""
	c.Usage.Sinks = []app.Sink{{Type: "jsonl", Path: filepath.Join(t.TempDir(), "usage.jsonl")}}
	c.Server.DrainGrace, c.Server.DrainTimeout = 0, 5*time.Second

	log := &rig.Journal{}
	a, err := app.New(app.Options{
		Config: c, Version: "test", Logger: slog.New(slog.NewJSONHandler(log, nil)),
		Source: policy.StaticSource("arena", documents...),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the router ended with: %v", err)
		}
		if t.Failed() {
			t.Logf("the router's log:\n%s", log)
		}
	})
	select {
	case <-a.Ready():
	case <-time.After(clientDeadline):
		t.Fatal("the router has no policies")
	}
	return arena{base: "http://" + a.Addr().String(), direct: s.base, log: log}
}

// command makes a client's command. Its environment says where the router is, and holds nothing else that an SDK would read: no key of
// the person who runs this, no switch that sends traces somewhere.
func (a arena) command(t *testing.T, name string, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), clientDeadline)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = []string{
		"ROUTER_URL=" + a.base, "STAGE_URL=" + a.direct, "API_KEY=" + key, "MODEL=" + model,
		"OPENAI_BASE_URL=" + a.base + "/v1", "OPENAI_API_KEY=" + key, "PYTHONDONTWRITEBYTECODE=1", "PYTHONUTF8=1",
	}
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "SYSTEMROOT"} {
		if value, ok := os.LookupEnv(name); ok {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
	}
	return cmd
}

// route leads a model to a backend of its own, so that what breaks for one model is not held against another.
func route(model, url string) []policy.Document {
	backend := policy.NewBackend("at-"+model, url)
	if model == "breaks-silence" {
		backend.Timeouts.BetweenBytes = policy.Duration(silenceLimit)
	}
	p := policy.NewRoutingPolicy("to-"+model, model, backend.ID)
	p.FailoverThreshold = 1000 // Breaking again and again is what some of these backends are for.
	return []policy.Document{{Backend: &backend, File: "arena"}, {Policy: &p, File: "arena"}}
}

// requests counts the requests that the router logged by their own x-request-id, of those that begin with prefix.
func requests(t *testing.T, log *rig.Journal, prefix string) map[string]int {
	t.Helper()
	counts := map[string]int{}
	for line := range strings.Lines(log.String()) {
		var entry struct {
			Message string `json:"msg"`
			ID      string `json:"client_request_id"`
		}
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Fatalf("%v in the log line %s", err, line)
		}
		if name, ok := strings.CutPrefix(entry.ID, prefix); ok && entry.Message == "request" {
			counts[name]++
		}
	}
	return counts
}
