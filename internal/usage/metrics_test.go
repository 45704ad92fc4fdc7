package usage_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/ai-aas/api-router/internal/usage"
)

func TestRecordsAndLostLinesAreCounted(t *testing.T) {
	dir := t.TempDir()
	lines := usage.NewLines(filepath.Join(dir, "usage.jsonl"))
	registry := prometheus.NewRegistry()
	r := usage.NewRecorder(quiet(), lines).Measure(registry)
	r.Open(&usage.Record{})
	r.Close(&usage.Record{})
	if lines.Failing() {
		t.Error("a sink that works is said to fail")
	}
	if err := lines.Close(); err != nil { // From here on it takes nothing.
		t.Fatal(err)
	}
	r.Close(&usage.Record{})
	err := testutil.GatherAndCompare(registry, strings.NewReader(`
# HELP api_router_usage_lines_lost_total Lines of usage records that a sink could not take.
# TYPE api_router_usage_lines_lost_total counter
api_router_usage_lines_lost_total 1
# HELP api_router_usage_records_total Requests whose usage record was closed, whether or not a sink could take it.
# TYPE api_router_usage_records_total counter
api_router_usage_records_total 2
`))
	if err != nil {
		t.Error(err)
	}
}

func TestASinkFailsUntilItTakesLinesAgain(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "blocked")
	if err := os.WriteFile(dir, nil, 0o600); err != nil { // A file where the folder should be.
		t.Fatal(err)
	}
	lines := usage.NewLines(filepath.Join(dir, "usage.jsonl"))
	if lines.Failing() {
		t.Error("nothing was tried, and it is said to fail")
	}
	if err := lines.Probe(); err == nil || !lines.Failing() {
		t.Errorf("got %v; failing %v", err, lines.Failing())
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if err := lines.Reopen(); err != nil || lines.Failing() {
		t.Errorf("got %v; failing %v", err, lines.Failing())
	}
	if err := lines.Close(); err != nil {
		t.Error(err)
	}
}
