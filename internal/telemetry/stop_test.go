package telemetry_test

import (
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/ai-aas/api-router/internal/telemetry"
)

func TestStoppingDoesNotWaitForASilentCollector(t *testing.T) {
	t.Parallel()
	for protocol, form := range map[string]string{telemetry.GRPC: "", telemetry.HTTP: "http://"} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			// An attempt may take ten minutes: nothing but the end of the process cuts it short.
			const long = "600000"
			s := build(t, map[string]string{
				"OTEL_EXPORTER_OTLP_ENDPOINT": form + broken["silent"](t), "OTEL_EXPORTER_OTLP_TIMEOUT": long,
				"OTEL_BSP_EXPORT_TIMEOUT": long, "OTEL_BLRP_EXPORT_TIMEOUT": long, "OTEL_METRIC_EXPORT_TIMEOUT": long,
			}).run(t)
			s.Emit(sample())
			s.Logger(io.Discard, telemetry.FormatText, slog.LevelInfo, nil).Info("line")
			took := s.end(t)
			t.Logf("stopped in %s", took)
			if took > 10*3*time.Second {
				t.Errorf("stopping took %s", took)
			}
			if got := s.signal(telemetry.Traces); got.Dropped != 1 || got.Queue != 0 {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func TestWhatWaitsIsSentAtTheEnd(t *testing.T) {
	t.Parallel()
	r, address := grpcCollector(t, "127.0.0.1:0", nil, nil)
	s := build(t, map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": address}).run(t) // Batches of five seconds, metrics of a minute.
	for range 1000 {
		s.Emit(sample())
	}
	s.Logger(io.Discard, telemetry.FormatText, slog.LevelInfo, nil).Info("the last line")
	s.end(t)
	if traces, metrics, logs := r.counts(); traces == 0 || metrics != 1 || logs != 1 {
		t.Errorf("got %d, %d, %d requests", traces, metrics, logs)
	}
	if got := s.signal(telemetry.Traces); got.Exported != 1000 || got.Dropped != 0 || got.Queue != 0 {
		t.Errorf("got %+v", got)
	}
}
