package telemetry_test

import (
	"io"
	"log/slog"
	"testing"

	"github.com/ai-aas/api-router/internal/telemetry"
)

// BenchmarkEmit is what a kept trace costs the request, once it is built.
func BenchmarkEmit(b *testing.B) {
	for name, run := range map[string]bool{"full": false, "silent": true} {
		b.Run(name, func(b *testing.B) {
			s := build(b, quick("OTEL_EXPORTER_OTLP_ENDPOINT", broken["silent"](b), "OTEL_METRICS_EXPORTER", "none"))
			if run {
				s.run(b)
			}
			each := sample()
			for range 4096 {
				s.Emit(each)
			}
			b.ReportAllocs()
			for b.Loop() {
				if s.Room() {
					s.Emit(each)
				}
			}
		})
	}
}

// BenchmarkLine is what one access line costs, without and with being sent on.
func BenchmarkLine(b *testing.B) {
	_, address := grpcCollector(b, "127.0.0.1:0", nil, nil)
	for name, env := range map[string]map[string]string{
		"off":    nil,
		"on":     {"OTEL_EXPORTER_OTLP_ENDPOINT": address, "OTEL_METRICS_EXPORTER": "none"},
		"silent": {"OTEL_EXPORTER_OTLP_ENDPOINT": broken["silent"](b), "OTEL_METRICS_EXPORTER": "none"},
	} {
		b.Run(name, func(b *testing.B) {
			s := build(b, env).run(b)
			logger := s.Logger(io.Discard, telemetry.FormatJSON, slog.LevelInfo, nil)
			ctx := b.Context()
			b.ReportAllocs()
			for b.Loop() {
				logger.LogAttrs(ctx, slog.LevelInfo, "request", slog.String("method", "POST"), slog.String("path", "/v1/chat/completions"), slog.Int("status", 200),
					slog.String("model", "gpt-oss-20b"), slog.String("backend", "vllm-a"), slog.Int64("input_tokens", 12), slog.Float64("latency_ms", 12.5))
			}
		})
	}
}
