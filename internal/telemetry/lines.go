package telemetry

import (
	"context"
	"log/slog"
	"math"
	"slices"
	"strconv"
	"time"

	collectorpb "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	logspb "go.opentelemetry.io/proto/otlp/logs/v1"

	"github.com/ai-aas/api-router/internal/trace"
)

// fanout writes each record to the first handler and hands it to the second. The second can neither fail nor hold up the first.
type fanout struct {
	first  slog.Handler
	second *lineHandler
}

func (f fanout) Enabled(ctx context.Context, level slog.Level) bool {
	return f.first.Enabled(ctx, level)
}

func (f fanout) Handle(ctx context.Context, r slog.Record) error {
	err := f.first.Handle(ctx, r)
	f.second.handle(ctx, r)
	return err
}

func (f fanout) WithAttrs(attrs []slog.Attr) slog.Handler {
	return fanout{f.first.WithAttrs(attrs), f.second.withAttrs(attrs)}
}

func (f fanout) WithGroup(name string) slog.Handler {
	return fanout{f.first.WithGroup(name), f.second.withGroup(name)}
}

// lineHandler makes log records of OTLP. A group is a prefix of its attributes' keys, with a dot between.
type lineHandler struct {
	to     *batcher[*logspb.LogRecord]
	within func(context.Context) trace.Context
	prefix string
	attrs  []*commonpb.KeyValue // of WithAttrs, made once; shared by all records and not changed
}

func (h *lineHandler) withAttrs(attrs []slog.Attr) *lineHandler {
	next := *h
	next.attrs = slices.Clip(slices.Clone(h.attrs))
	for _, a := range attrs {
		next.attrs = appendAttr(next.attrs, h.prefix, a)
	}
	return &next
}

func (h *lineHandler) withGroup(name string) *lineHandler {
	next := *h
	if name != "" {
		next.prefix += name + "."
	}
	return &next
}

// handle makes the record at once, because what a value shows may change later, and the one who logs never waits for its delivery.
func (h *lineHandler) handle(ctx context.Context, r slog.Record) {
	if h.to.room() {
		h.to.offer(h.record(ctx, r))
	}
}

func (h *lineHandler) record(ctx context.Context, r slog.Record) *logspb.LogRecord {
	out := &logspb.LogRecord{
		ObservedTimeUnixNano: uint64(time.Now().UnixNano()),
		SeverityNumber:       severity(r.Level),
		SeverityText:         r.Level.String(),
		Body:                 stringValue(r.Message),
	}
	if !r.Time.IsZero() {
		out.TimeUnixNano = uint64(r.Time.UnixNano())
	}
	out.Attributes = make([]*commonpb.KeyValue, len(h.attrs), len(h.attrs)+r.NumAttrs())
	copy(out.Attributes, h.attrs)
	for a := range r.Attrs {
		out.Attributes = appendAttr(out.Attributes, h.prefix, a)
	}
	if h.within != nil {
		if c := h.within(ctx); !c.IsZero() {
			out.TraceId, out.SpanId = c.Trace[:], nil
			if c.Span != (trace.SpanID{}) {
				out.SpanId = c.Span[:]
			}
			if c.Sampled {
				out.Flags = 1
			}
		}
	}
	return out
}

// severity maps Debug, Info, Warn and Error onto OpenTelemetry's 5, 9, 13 and 17.
func severity(level slog.Level) logspb.SeverityNumber {
	return logspb.SeverityNumber(min(max(int64(level)+9, 1), 24))
}

func appendAttr(to []*commonpb.KeyValue, prefix string, a slog.Attr) []*commonpb.KeyValue {
	v := a.Value.Resolve()
	switch v.Kind() {
	case slog.KindGroup:
		if a.Key != "" {
			prefix += a.Key + "."
		}
		for _, each := range v.Group() {
			to = appendAttr(to, prefix, each)
		}
		return to
	default:
		if a.Key == "" && v.Kind() == slog.KindAny && v.Any() == nil {
			return to
		}
		return append(to, keyValue(prefix+a.Key, slogValue(v)))
	}
}

func slogValue(v slog.Value) *commonpb.AnyValue {
	switch v.Kind() {
	case slog.KindString:
		return stringValue(v.String())
	case slog.KindInt64:
		return intValue(v.Int64())
	case slog.KindUint64:
		if n := v.Uint64(); n <= math.MaxInt64 {
			return intValue(int64(n))
		}
		return stringValue(strconv.FormatUint(v.Uint64(), 10))
	case slog.KindFloat64:
		return floatValue(v.Float64())
	case slog.KindBool:
		return boolValue(v.Bool())
	case slog.KindDuration:
		return intValue(int64(v.Duration())) // Nanoseconds, as in the JSON line.
	case slog.KindTime:
		return stringValue(v.Time().Format(time.RFC3339Nano))
	default:
		return anyValue(v.Any())
	}
}

// sendLines delivers a batch of log records.
func (t *Telemetry) sendLines(ctx context.Context, b *batcher[*logspb.LogRecord], batch []*logspb.LogRecord) {
	b.deliver(ctx, b.budget, len(batch), &collectorpb.ExportLogsServiceRequest{ResourceLogs: []*logspb.ResourceLogs{{
		Resource: t.resource, ScopeLogs: []*logspb.ScopeLogs{{Scope: t.scope, LogRecords: batch}},
	}}})
}
