package usage_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ai-aas/api-router/internal/usage"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func readLines(t *testing.T, path string) []map[string]any {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var lines []map[string]any
	scan := bufio.NewScanner(f)
	for scan.Scan() {
		var line map[string]any
		if err := json.Unmarshal(scan.Bytes(), &line); err != nil {
			t.Fatalf("%v in %q", err, scan.Text())
		}
		lines = append(lines, line)
	}
	return lines
}

func TestARequestLeavesOpenCheckpointAndClose(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "folder", "usage.jsonl")
	r := usage.NewRecorder(quiet(), usage.NewLines(path))
	rec := &usage.Record{RequestID: "r1", Organization: "acme", Model: "m", Stream: true}
	r.Open(rec)
	r.Checkpoint("r1", usage.Progress{CompletionTokens: 7, UsageSource: "continuous"})
	rec.Status, rec.StopReason, rec.CompletionTokens = 200, usage.StopDone, 9
	r.Close(rec)

	// The lines are there before Stop: what was recorded survives the death of the process.
	lines := readLines(t, path)
	if len(lines) != 3 {
		t.Fatalf("%d lines", len(lines))
	}
	for i, want := range []string{"open", "checkpoint", "close"} {
		if lines[i]["type"] != want || lines[i]["request_id"] != "r1" {
			t.Errorf("line %d is %v", i, lines[i])
		}
	}
	if _, ok := lines[0]["status"]; ok || lines[0]["stop_reason"] != nil {
		t.Errorf("the open line claims an outcome: %v", lines[0])
	}
	if lines[1]["completion_tokens"] != 7.0 || lines[2]["completion_tokens"] != 9.0 || lines[2]["stop_reason"] != "done" {
		t.Errorf("%v", lines)
	}
	if err := r.Stop(); err != nil || r.Lost() != 0 {
		t.Errorf("stop: %v, lost %d", err, r.Lost())
	}
}

func TestParallelRequestsNeverMixTheirLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "usage.jsonl")
	r := usage.NewRecorder(quiet(), usage.NewLines(path))
	var wg sync.WaitGroup
	const workers, each = 16, 50
	for range workers {
		wg.Go(func() {
			for range each {
				r.Close(&usage.Record{RequestID: strings.Repeat("x", 300)})
			}
		})
	}
	wg.Wait()
	if n := len(readLines(t, path)); n != workers*each {
		t.Errorf("%d lines of %d", n, workers*each)
	}
	if err := r.Stop(); err != nil {
		t.Error(err)
	}
}

func TestReopenFollowsARotatedFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "usage.jsonl")
	r := usage.NewRecorder(quiet(), usage.NewLines(path))
	r.Close(&usage.Record{RequestID: "before"})
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	r.Reopen()
	r.Close(&usage.Record{RequestID: "after"})
	if old, current := readLines(t, path+".1"), readLines(t, path); len(old) != 1 || len(current) != 1 || current[0]["request_id"] != "after" {
		t.Errorf("old %v, current %v", old, current)
	}
	if err := r.Stop(); err != nil {
		t.Error(err)
	}
}

func TestAFileThatCannotBeOpenedIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		blocker := filepath.Join(dir, "folder")
		if err := os.WriteFile(blocker, nil, 0o600); err != nil { // A file where the folder should be.
			t.Fatal(err)
		}
		lines := usage.NewLines(filepath.Join(blocker, "usage.jsonl"))
		r := usage.NewRecorder(quiet(), lines)
		if lines.Probe() == nil {
			t.Fatal("opened below a file")
		}
		r.Close(&usage.Record{RequestID: "lost"})
		if r.Lost() != 1 {
			t.Errorf("lost %d, want 1", r.Lost())
		}
		if err := os.Remove(blocker); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		r.Close(&usage.Record{RequestID: "kept"})
		if got := readLines(t, filepath.Join(blocker, "usage.jsonl")); len(got) != 1 || got[0]["request_id"] != "kept" {
			t.Errorf("%v", got)
		}
		if err := r.Stop(); err != nil {
			t.Error(err)
		}
	})
}

// full is a disk that fills up: it takes some bytes and then fails.
type full struct{ left int }

func (f *full) Write(p []byte) (int, error) {
	if len(p) > f.left {
		return f.left, errors.New("no space left on device")
	}
	f.left -= len(p)
	return len(p), nil
}
func (*full) Reopen() error { return nil }
func (*full) Close() error  { return io.ErrClosedPipe }

func TestOneFailingSinkTakesNothingFromAnother(t *testing.T) {
	path := filepath.Join(t.TempDir(), "usage.jsonl")
	r := usage.NewRecorder(quiet(), &full{left: 10}, usage.NewLines(path))
	r.Close(&usage.Record{RequestID: "r"})
	if r.Lost() != 1 || len(readLines(t, path)) != 1 {
		t.Errorf("lost %d", r.Lost())
	}
	if err := r.Stop(); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("stop: %v", err)
	}
}
