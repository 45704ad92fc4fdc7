package telemetry_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"

	"github.com/ai-aas/api-router/internal/telemetry"
)

type requestID struct{}

func about(ctx context.Context) []slog.Attr {
	if id, ok := ctx.Value(requestID{}).(string); ok {
		return []slog.Attr{slog.String("request_id", id)}
	}
	return nil
}

func TestLinesSayWhatTheContextKnows(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	logger := telemetry.NewLogger(&out, telemetry.FormatJSON, slog.LevelInfo, about).With("component", "test")
	logger.InfoContext(context.WithValue(t.Context(), requestID{}, "r1"), "hello", "n", 1)
	logger.InfoContext(t.Context(), "outside a request")
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 2 {
		t.Fatalf("got %d lines: %s", len(lines), out.String())
	}
	var line map[string]any
	if err := json.Unmarshal([]byte(lines[0]), &line); err != nil {
		t.Fatal(err)
	}
	if line["request_id"] != "r1" || line["component"] != "test" || line["n"] != 1.0 || line["msg"] != "hello" {
		t.Errorf("got %v", line)
	}
	if strings.Contains(lines[1], "request_id") {
		t.Errorf("a line outside a request names one: %s", lines[1])
	}
}

func TestTheLevelCanChangeAtRunTime(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	level := new(slog.LevelVar)
	logger := telemetry.NewLogger(&out, telemetry.FormatText, level, nil)
	logger.Debug("unseen")
	level.Set(slog.LevelDebug)
	logger.Debug("seen")
	if got := out.String(); strings.Contains(got, "unseen") || !strings.Contains(got, "msg=seen") {
		t.Errorf("got %q", got)
	}
}

func TestParseLevel(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]slog.Level{"debug": slog.LevelDebug, "INFO": slog.LevelInfo, "Warning": slog.LevelWarn, "error": slog.LevelError} {
		if got, err := telemetry.ParseLevel(name); err != nil || got != want {
			t.Errorf("%s: got %v, %v", name, got, err)
		}
	}
	if _, err := telemetry.ParseLevel("loud"); err == nil || !strings.Contains(err.Error(), "debug, info, warn, error") {
		t.Errorf("got %v; want an error that lists the levels", err)
	}
}
