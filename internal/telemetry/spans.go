package telemetry

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/ai-aas/api-router/internal/trace"
)

// scope names us as the maker of what we send.
const scope = "github.com/ai-aas/api-router"

// maxText is how much of one string is sent, in bytes.
const maxText = 16 << 10

// text makes a string fit for OTLP: valid UTF-8, without which a whole batch could not be encoded, and of bounded length.
func text(s string) string {
	if len(s) > maxText {
		s = s[:maxText]
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

func keyValue(key string, value *commonpb.AnyValue) *commonpb.KeyValue {
	return &commonpb.KeyValue{Key: text(key), Value: value}
}

func stringValue(s string) *commonpb.AnyValue {
	return &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: text(s)}}
}

func intValue(n int64) *commonpb.AnyValue {
	return &commonpb.AnyValue{Value: &commonpb.AnyValue_IntValue{IntValue: n}}
}

func floatValue(f float64) *commonpb.AnyValue {
	return &commonpb.AnyValue{Value: &commonpb.AnyValue_DoubleValue{DoubleValue: f}}
}

func boolValue(b bool) *commonpb.AnyValue {
	return &commonpb.AnyValue{Value: &commonpb.AnyValue_BoolValue{BoolValue: b}}
}

func stringsValue(list []string) *commonpb.AnyValue {
	values := make([]*commonpb.AnyValue, len(list))
	for i, s := range list {
		values[i] = stringValue(s)
	}
	return &commonpb.AnyValue{Value: &commonpb.AnyValue_ArrayValue{ArrayValue: &commonpb.ArrayValue{Values: values}}}
}

// anyValue says no more of v than a line of the JSON log would: errors and whatever shows itself as text do that, all else is JSON.
// A method of v that panics costs this value and not the line.
func anyValue(v any) (value *commonpb.AnyValue) {
	defer func() {
		if recover() != nil {
			value = stringValue("not shown: its own method failed")
		}
	}()
	switch v := v.(type) {
	case nil:
		return nil
	case string:
		return stringValue(v)
	case int64:
		return intValue(v)
	case int:
		return intValue(int64(v))
	case float64:
		return floatValue(v)
	case bool:
		return boolValue(v)
	case []string:
		return stringsValue(v)
	case error:
		return stringValue(v.Error())
	case fmt.Stringer:
		return stringValue(v.String())
	}
	encoded, err := json.Marshal(v)
	if err != nil {
		return stringValue("not shown: " + err.Error())
	}
	return stringValue(string(encoded))
}

// sendTraces turns the traces of a batch into OTLP, here and not on a request's time, and delivers them.
func (t *Telemetry) sendTraces(ctx context.Context, b *batcher[*trace.Trace], batch []*trace.Trace) {
	var spans []*tracepb.Span
	for _, each := range batch {
		for i := range each.Spans {
			spans = append(spans, span(each, &each.Spans[i]))
		}
	}
	b.deliver(ctx, b.budget, len(batch), &collectorpb.ExportTraceServiceRequest{ResourceSpans: []*tracepb.ResourceSpans{{
		Resource: t.resource, ScopeSpans: []*tracepb.ScopeSpans{{Scope: t.scope, Spans: spans}},
	}}})
}

var kinds = map[trace.Kind]tracepb.Span_SpanKind{
	trace.Internal: tracepb.Span_SPAN_KIND_INTERNAL,
	trace.Server:   tracepb.Span_SPAN_KIND_SERVER,
	trace.Client:   tracepb.Span_SPAN_KIND_CLIENT,
}

func span(t *trace.Trace, s *trace.Span) *tracepb.Span {
	// All of a trace's times are told by the clock of its beginning: one that is set meanwhile must not put a span before its parent.
	began := t.Spans[0].Start
	at := func(moment time.Time) uint64 { return nanos(began.Add(moment.Sub(began))) }
	out := &tracepb.Span{
		TraceId: t.ID[:], SpanId: s.ID[:], TraceState: text(t.State), Name: text(s.Name), Kind: kinds[s.Kind],
		StartTimeUnixNano: at(s.Start), EndTimeUnixNano: at(s.End),
		Flags: uint32(tracepb.SpanFlags_SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK),
	}
	if s.Parent != (trace.SpanID{}) {
		out.ParentSpanId = s.Parent[:]
	}
	if s.Remote {
		out.Flags |= uint32(tracepb.SpanFlags_SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK)
	}
	if t.Sampled {
		out.Flags |= 1 // W3C's flag.
	}
	for _, a := range s.Attributes {
		if value := anyValue(a.Value); value != nil {
			out.Attributes = append(out.Attributes, keyValue(a.Key, value))
		}
	}
	if s.Failure != "" {
		out.Status = &tracepb.Status{Code: tracepb.Status_STATUS_CODE_ERROR, Message: text(s.Failure)}
	}
	return out
}

// resource is who sends, from what the environment says over what we know.
func resource(pairs []pair, version, instance, host string) *resourcepb.Resource {
	all := []pair{{serviceName, "api-router"}, {"service.version", version}, {"service.instance.id", instance}, {"host.name", host}, {"telemetry.sdk.language", "go"}}
	var out resourcepb.Resource
	for i, known := range append(all, pairs...) {
		if known.value == "" || i < len(all) && hasKey(pairs, known.key) {
			continue
		}
		out.Attributes = append(out.Attributes, keyValue(known.key, stringValue(known.value)))
	}
	return &out
}

const serviceName = "service.name"

func hasKey(pairs []pair, key string) bool {
	for _, p := range pairs {
		if p.key == key {
			return true
		}
	}
	return false
}
