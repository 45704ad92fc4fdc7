package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ai-aas/api-router/bench/report"
	"github.com/ai-aas/api-router/bench/subject"
)

// TestMain lets the harness under test start this test binary as its backend.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == backendCommand {
		main()
		return
	}
	os.Exit(m.Run())
}

// router builds the program.
func router(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "api-router")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", path, "../cmd/api-router").CombinedOutput(); err != nil {
		t.Fatalf("the router does not build: %v\n%s", err, out)
	}
	return path
}

// TestSmoke runs every scenario once, shortly, with whatever is installed here.
func TestSmoke(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPING the smoke run: -short")
	}
	page := filepath.Join(t.TempDir(), "page.md")
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	var out, said bytes.Buffer
	err := command(ctx, []string{"-quick", "-micro=false", "-router", router(t), "-out", page}, &out, &said)
	t.Logf("%s", said.String())
	if err != nil {
		t.Fatal(err)
	}
	written, err := os.ReadFile(page)
	if err != nil || !strings.Contains(string(written), strings.TrimSpace(out.String())) {
		t.Errorf("%v; the page does not hold what was printed:\n%s", err, written)
	}
	for _, want := range []string{
		"| **64**: requests/s |", "| **400 KB**: requests/s |", "| **1000/s**: p50 µs |", "| first event p50 µs |", "| first answer after start, ms |",
		"### Failed requests", "| telemetry off | traced | silent collector |", "| **64 connections**: requests/s |", "| p99 at 1000 requests/s with a silent collector, against telemetry off | ≤ 1.2 × |", "| memory idle | ≤ 30 MiB |", "- machine: ", "- api-router ",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in the result", want)
		}
	}
	if host, err := os.Hostname(); err == nil && strings.Contains(out.String(), host) || strings.Contains(out.String(), t.TempDir()) {
		t.Error("the result names this machine")
	}
	if strings.Contains(out.String(), "NaN") || strings.Contains(out.String(), "Inf") {
		t.Errorf("a figure is none:\n%s", out.String())
	}
}

func TestFlags(t *testing.T) {
	for line, out := range map[string]string{
		"": "bench/README.md", "-compare": "", "-quick": "", "-quick -out x.md": "x.md", "-only closed": "", "-only closed -out x.md": "x.md",
		"-quick -compare -out x.md": "", "-rounds 5": "bench/README.md",
	} {
		o, err := parse(strings.Fields(line), io.Discard)
		if err != nil || o.out != out {
			t.Errorf("%q: %v, %v", line, o, err)
		}
	}
	for _, line := range []string{"-rounds 0", "-only (", "extra", "-unknown"} {
		if _, err := parse(strings.Fields(line), io.Discard); err == nil {
			t.Errorf("%q was accepted", line)
		}
	}
	o, err := parse([]string{"-router", "/a/b", "-nginx", "/c", "-subjects", "direct,nginx", "-rounds", "2"}, io.Discard)
	if err != nil || o.programs[subject.Router] != "/a/b" || o.programs[subject.Nginx] != "/c" || len(o.subjects) != 2 || o.plan.rounds != 2 {
		t.Errorf("%+v %v", o, err)
	}
}

func TestNothingToMeasureIsAnError(t *testing.T) {
	var said bytes.Buffer
	err := command(t.Context(), []string{"-quick", "-subjects", "api-router", "-router", filepath.Join(t.TempDir(), "none")}, io.Discard, &said)
	if err == nil || !strings.Contains(said.String(), "SKIPPING api-router") {
		t.Errorf("%v: %s", err, said.String())
	}
}

func TestAnInterruptedRunEndsAndWritesNothing(t *testing.T) {
	page := filepath.Join(t.TempDir(), "page.md")
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	began := time.Now()
	err := command(ctx, []string{"-subjects", "direct", "-micro=false", "-out", page}, io.Discard, io.Discard)
	if err == nil || time.Since(began) > 20*time.Second {
		t.Errorf("%v after %s", err, time.Since(began))
	}
	if _, err := os.Stat(page); err == nil {
		t.Error("it wrote a page")
	}
}

func TestRequestsHaveTheirSize(t *testing.T) {
	for _, size := range []int{smallBody, 16 << 10, 400 << 10} {
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(request("whole", false, size))))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r.Body)
		var chat struct {
			Model  string
			Stream bool
		}
		if err != nil || len(body) != size || json.Unmarshal(body, &chat) != nil || chat.Model != "whole" || chat.Stream {
			t.Errorf("%d bytes, %v: %+v", len(body), err, chat)
		}
	}
}

func TestThePlansLeaveRoomForTheirWindows(t *testing.T) {
	for name, p := range map[string]plan{"full": fullPlan, "quick": quickPlan} {
		for kind, s := range map[string]streamPlan{"paced": p.paced, "held": p.held} {
			lasts := time.Duration(s.shape.Events-1) * s.shape.Interval
			if s.warmup < s.ramp || s.warmup+s.window > lasts {
				t.Errorf("%s, %s: a window from %s to %s, but streams begin until %s and last %s", name, kind, s.warmup, s.warmup+s.window, s.ramp, lasts)
			}
		}
	}
}

func TestBudgetsUseWhatWasMeasured(t *testing.T) {
	b := &run{plan: fullPlan, subjects: []*subject.Subject{{Name: subject.Router, Size: 30e6}}}
	b.results.Add(0, subject.Router, metric(closedName(cpuConnections), figCPU), 60)
	b.results.Add(0, subject.Nginx, metric(closedName(cpuConnections), figCPU), 40)
	b.results.Add(0, subject.Router, metIdle, 30)
	list := b.budgets([]report.Micro{{Name: scanSmall, Nanos: 1200, Allocs: 1}, {Name: authHeader, Nanos: 100}, {Name: walkSmall, Allocs: 19}})
	got := map[string]report.Budget{}
	for _, budget := range list {
		got[budget.What] = budget
	}
	for what, want := range map[string]float64{
		"CPU per request at 64 connections, against nginx": 1.5, "memory idle": 30, "scan of a 1 KB body": 1.2, "binary": 30,
		"allocations of a scan": 1, "allocations per request in our own code": 19,
	} {
		if v := got[what]; !v.Known || v.Measured != want {
			t.Errorf("%s: %+v, want %v", what, v, want)
		}
	}
	for _, what := range []string{"authentication", "pick", "memory per open stream"} {
		if v, ok := got[what]; !ok || v.Known {
			t.Errorf("%s: %+v", what, v)
		}
	}
}

func TestQuotedBenchmarksComeInThePagesOrder(t *testing.T) {
	labels, found := quoted([]report.Micro{{Name: "BenchmarkWalk/stream_300_events"}, {Name: "BenchmarkWalk/plain_1KB"}, {Name: scanLarge}, {Name: "BenchmarkOther"}, {Name: scanSmall}})
	if got := strings.Join(labels, "; "); len(found) != 4 || got !=
		"scan of a 1 KB body; scan of a 400 KB body; the whole walk of a request: stream 300 events; the whole walk of a request: plain 1KB" {
		t.Error(got)
	}
}
