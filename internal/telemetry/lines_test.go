package telemetry_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ai-aas/api-router/internal/telemetry"
)

// masked is a secret as the rooms have them.
type masked string

func (masked) String() string       { return "***" }
func (masked) LogValue() slog.Value { return slog.StringValue("***") }

// shown is a value that shows itself as text only by String.
type shown struct{ hidden string }

func (shown) String() string { return "shown" }

type breaking struct{}

func (breaking) String() string { panic("no") }

func TestLinesKeepTheirAttributes(t *testing.T) {
	t.Parallel()
	r, address := grpcCollector(t, "127.0.0.1:0", nil, nil)
	s := build(t, quick("OTEL_EXPORTER_OTLP_ENDPOINT", address)).run(t)
	logger := s.Logger(io.Discard, telemetry.FormatJSON, slog.LevelInfo, about).With("component", "test").WithGroup("g").With("inner", 1)
	logger.WarnContext(context.WithValue(t.Context(), requestID{}, "r1"), "hello",
		"key", masked("sk-secret"), "list", []string{"a", "b"}, "error", errors.New("oops"), "took", time.Second, "ok", true, "share", 0.5,
		"shown", shown{"sk-secret"}, "breaking", breaking{}, "map", map[string]int{"n": 1}, slog.Group("sub", "x", uint64(7)), "nothing", nil)
	logger.Debug("unseen")
	s.end(t)
	r.mu.Lock()
	defer r.mu.Unlock()
	line := r.logs[0].GetResourceLogs()[0].GetScopeLogs()[0].GetLogRecords()[0]
	got := attributes(line.GetAttributes())
	got["g.list"] = strings.ReplaceAll(got["g.list"], "  ", " ") // The text form of protobuf is not stable.
	if !strings.Contains(got["g.list"], `"a"`) || !strings.Contains(got["g.list"], `"b"`) {
		t.Errorf("the list is %s", got["g.list"])
	}
	delete(got, "g.list")
	want := map[string]string{
		"component": "test", "g.inner": "1", "g.request_id": "r1", "g.key": "***", "g.error": "oops", "g.took": "1000000000", "g.ok": "true", "g.share": "0.5",
		"g.shown": "shown", "g.breaking": "not shown: its own method failed", "g.map": `{"n":1}`, "g.sub.x": "7", "g.nothing": "<nil>",
	}
	if got["g.nothing"] == "" {
		got["g.nothing"] = "<nil>"
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if line.GetSeverityNumber() != 13 || line.GetSeverityText() != "WARN" || line.GetBody().GetStringValue() != "hello" || line.GetTraceId() != nil {
		t.Errorf("got %v", line)
	}
	if got := s.signal(telemetry.Logs).Exported; got != 1 {
		t.Errorf("%d lines arrived", got)
	}
}

// failingWriter fails each write.
type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, errors.New("no room") }

func TestNeitherEndOfALineHoldsUpTheOther(t *testing.T) {
	t.Parallel()
	_, address := grpcCollector(t, "127.0.0.1:0", nil, nil)
	s := build(t, quick("OTEL_EXPORTER_OTLP_ENDPOINT", address)).run(t)
	s.Logger(failingWriter{}, telemetry.FormatJSON, slog.LevelInfo, nil).Info("line")
	await(t, "the line", func() bool { return s.signal(telemetry.Logs).Exported == 1 })
}

func TestWhereNoLinesAreSentTheLoggerIsThePlainOne(t *testing.T) {
	t.Parallel()
	s := build(t, nil)
	var out journal
	s.Logger(&out, telemetry.FormatText, slog.LevelInfo, nil).Info("line")
	if !strings.Contains(out.String(), "msg=line") {
		t.Errorf("got %q", &out)
	}
	for _, each := range s.Status() {
		if each.State != telemetry.Off || each.LastError == "" || each.Endpoint != "" {
			t.Errorf("got %+v", each)
		}
	}
	if s.Tracing() || s.Room() {
		t.Error("traces have room where none are sent")
	}
	s.Emit(sample())
	if got := s.dropped(t, "off", "traces"); got != 0 {
		t.Errorf("%v dropped of what nobody wanted", got)
	}
}
