package gateway

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ai-aas/api-router/internal/fault"
	"github.com/ai-aas/api-router/internal/plan"
	"github.com/ai-aas/api-router/internal/proxy"
	"github.com/ai-aas/api-router/internal/trace"
	"github.com/ai-aas/api-router/internal/wire"
)

// Tracer takes the traces of requests. None of its methods waits for anything.
type Tracer interface {
	// Sample decides at the door whether a request is traced whatever becomes of it. caller is the place that it was called from; zero: none.
	Sample(id trace.ID, caller trace.Context) bool
	// Room reports whether a trace would be taken now. One that would not is counted as dropped, and need not be built.
	Room() bool
	// Emit takes a trace.
	Emit(t *trace.Trace)
}

// milestones are the moments of a request that its spans begin and end at. Zero: it never came so far.
type milestones struct {
	deciding, decided time.Time
	answered          time.Time // the proxy was done
	ended             time.Time // the answer is out
}

// join finds the request's place in a trace: below the client's, if that named one, else in a new one.
func (g *Gateway) join(x *exchange, r *http.Request) {
	if parent := r.Header["Traceparent"]; len(parent) == 1 {
		x.caller, _ = trace.Parse(parent[0], strings.Join(r.Header["Tracestate"], ",")) // A list may come in several headers.
	}
	x.place = trace.Context{Trace: x.caller.Trace, Sampled: x.caller.Sampled, State: x.caller.State}
	if x.caller.IsZero() {
		x.place.Trace = trace.NewID()
	}
	if g.Tracer != nil {
		x.place.Span = trace.NewSpanID()
		x.place.Sampled = g.Tracer.Sample(x.place.Trace, trace.Context{})
	}
	x.TraceID = x.place.Trace.String()
}

// follow lets the caller's word decide whether the request is traced, once it is known who asks: a stranger's would fill the tracer's queue.
func (g *Gateway) follow(x *exchange) {
	if g.Tracer != nil && !x.caller.IsZero() {
		x.place.Sampled = g.Tracer.Sample(x.place.Trace, x.caller)
	}
}

// place is what backends are told of the request's trace; nothing where nobody takes traces.
func (g *Gateway) place(x *exchange) trace.Context {
	if g.Tracer == nil {
		return trace.Context{}
	}
	return x.place
}

// Place is the place in a trace of the request that ctx belongs to; zero outside of one.
func Place(ctx context.Context) trace.Context {
	if x, ok := ctx.Value(placeKey{}).(*exchange); ok {
		return x.place
	}
	return trace.Context{}
}

// watch notes why each backend is chosen, where a log line or a trace will tell.
func (g *Gateway) watch(ctx context.Context, x *exchange, decided *plan.Plan) {
	told := g.Logger.Enabled(ctx, slog.LevelDebug)
	if !told && (!x.place.Sampled || g.Tracer == nil) {
		return
	}
	decided.Told = func(c plan.Chosen) {
		x.reasons = append(x.reasons, c.Reason)
		if told {
			g.Logger.LogAttrs(ctx, slog.LevelDebug, "a backend was chosen", slog.String("backend", c.Backend),
				slog.String("model", c.Model), slog.String("backend_model", c.BackendModel), slog.String("reason", c.Reason))
		}
	}
}

// The reasons why a trace is kept that no sampler chose.
const (
	keptFailed = "failed"
	keptSlow   = "slow"
)

// trace hands the request's spans to the tracer, if the request was sampled at the door, failed or was slow.
func (g *Gateway) trace(r *http.Request, x *exchange) {
	kept := ""
	first := x.LatencyMillis
	if x.TTFTMillis > 0 {
		first = x.TTFTMillis
	}
	switch {
	case x.place.Sampled:
	case x.failed():
		kept = keptFailed
	case g.Slow > 0 && first >= millis(g.Slow):
		kept = keptSlow
	default:
		return
	}
	if !g.Tracer.Room() {
		return
	}
	t := &trace.Trace{ID: x.place.Trace, State: x.place.State, Sampled: x.place.Sampled, Spans: make([]trace.Span, 0, 3+len(x.trail))}
	t.Spans = append(t.Spans, x.span(r.Method, kept))
	if !x.decided.IsZero() {
		t.Spans = append(t.Spans, x.below("plan", x.deciding, x.decided,
			texts("api_router.policy", x.Policy, "api_router.policy_revision", x.PolicyRevision)...))
	}
	for i := range x.trail {
		reason := ""
		if i < len(x.reasons) {
			reason = x.reasons[i]
		}
		t.Spans = append(t.Spans, x.attempt(&x.trail[i], reason))
	}
	if !x.answered.IsZero() {
		t.Spans = append(t.Spans, x.below("settle", x.answered, x.ended, x.used()...))
	}
	g.Tracer.Emit(t)
	x.traced = true
}

// span is the request's own. Names and attributes are those of OpenTelemetry's semantic conventions for HTTP servers and for generative
// AI, and our own for what these have no word for.
func (x *exchange) span(method, kept string) trace.Span {
	name, known, original, route := verb(method), verb(method), "", x.surface
	if !slices.Contains(methods[:], method) { // What a stranger invents is no name for a span.
		name, known, original = "HTTP", "_OTHER", name
	}
	if route == otherEndpoint {
		route = ""
	} else {
		name += " " + route
	}
	s := trace.Span{ID: x.place.Span, Parent: x.caller.Span, Remote: !x.caller.IsZero(), Name: name, Kind: trace.Server, Start: x.Start, End: x.ended}
	s.Attributes = append(texts("http.request.method", known, "http.request.method_original", original, "http.route", route, "url.path", x.path(),
		"api_router.request_id", x.RequestID, "api_router.client_request_id", x.ClientRequestID, "api_router.organization", x.Organization,
		"api_router.key_id", x.KeyID, "error.type", x.Code, "api_router.kept", kept),
		trace.Attribute{Key: "http.response.status_code", Value: int64(x.Status)})
	if x.failed() {
		s.Failure = fault.From(x.err).Message
	}
	if !x.recorded {
		return s
	}
	s.Attributes = append(s.Attributes, texts("gen_ai.operation.name", x.operation(), "gen_ai.request.model", x.Model, "gen_ai.response.model", x.BackendModel,
		"api_router.backend", x.Backend, "api_router.decision", x.Decision, "api_router.warning", x.Warning, "api_router.stop_reason", x.StopReason)...)
	s.Attributes = append(s.Attributes, trace.Attribute{Key: "gen_ai.request.stream", Value: x.Stream}, trace.Attribute{Key: "api_router.attempts", Value: int64(x.Attempts)},
		trace.Attribute{Key: "api_router.truncated", Value: x.Truncated}, trace.Attribute{Key: "api_router.overhead_ms", Value: x.RouterMillis})
	if x.TTFTMillis > 0 {
		s.Attributes = append(s.Attributes, trace.Attribute{Key: "api_router.time_to_first_byte_ms", Value: x.TTFTMillis})
	}
	s.Attributes = append(s.Attributes, x.used()...)
	return s
}

// failed reports whether the request failed on our side. A client's mistake does not count, nor does one that leaves before its answer is whole.
func (x *exchange) failed() bool {
	return x.err != nil && fault.CodeOf(x.err) != fault.ClientClosed && (x.Status >= http.StatusInternalServerError || x.Truncated)
}

// below is a span of the router's own work for the request.
func (x *exchange) below(name string, start, end time.Time, attributes ...trace.Attribute) trace.Span {
	return trace.Span{ID: trace.NewSpanID(), Parent: x.place.Span, Name: name, Start: start, End: end, Attributes: attributes}
}

// attempt is the span of one request to a backend.
func (x *exchange) attempt(a *proxy.Attempt, reason string) trace.Span {
	s := trace.Span{ID: a.Span, Parent: x.place.Span, Name: x.operation() + " " + a.Model, Kind: trace.Client, Start: a.Start, End: a.End}
	host, port, err := net.SplitHostPort(a.Address)
	if err != nil {
		host = a.Address
	}
	s.Attributes = texts("gen_ai.operation.name", x.operation(), "gen_ai.provider.name", a.Engine, "gen_ai.request.model", a.Model,
		"server.address", host, "api_router.backend", a.Backend, "api_router.choice", reason, "api_router.result", a.Result.String(), "error.type", a.Code())
	if n, err := strconv.ParseInt(port, 10, 64); err == nil {
		s.Attributes = append(s.Attributes, trace.Attribute{Key: "server.port", Value: n})
	}
	if a.Status != 0 {
		s.Attributes = append(s.Attributes, trace.Attribute{Key: "http.response.status_code", Value: int64(a.Status)})
	}
	if !a.FirstByte.IsZero() {
		s.Attributes = append(s.Attributes, trace.Attribute{Key: "api_router.time_to_first_byte_ms", Value: millis(a.FirstByte.Sub(a.Start))})
	}
	if a.Failure != nil {
		s.Failure = a.Failure.Error()
	}
	return s
}

// used are the tokens of the request.
func (x *exchange) used() []trace.Attribute {
	if x.UsageSource == "" {
		return nil
	}
	return append(texts("api_router.usage_source", x.UsageSource),
		trace.Attribute{Key: "gen_ai.usage.input_tokens", Value: x.PromptTokens}, trace.Attribute{Key: "gen_ai.usage.output_tokens", Value: x.CompletionTokens},
		trace.Attribute{Key: "gen_ai.usage.cache_read.input_tokens", Value: x.CachedTokens}, trace.Attribute{Key: "gen_ai.usage.reasoning.output_tokens", Value: x.ReasoningTokens})
}

// operation is what the conventions call the endpoint.
func (x *exchange) operation() string {
	switch x.Endpoint {
	case endpoints[wire.Chat]:
		return "chat"
	case endpoints[wire.Completion]:
		return "text_completion"
	default:
		return "embeddings"
	}
}

// texts makes attributes of pairs, and leaves out those that say nothing.
func texts(pairs ...string) []trace.Attribute {
	attributes := make([]trace.Attribute, 0, len(pairs)/2+8)
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			attributes = append(attributes, trace.Attribute{Key: pairs[i], Value: pairs[i+1]})
		}
	}
	return attributes
}
