package gateway

import (
	"context"
	"encoding/binary"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/ai-aas/api-router/internal/auth"
	"github.com/ai-aas/api-router/internal/fault"
	"github.com/ai-aas/api-router/internal/proxy"
	"github.com/ai-aas/api-router/internal/trace"
	"github.com/ai-aas/api-router/internal/usage"
	"github.com/ai-aas/api-router/internal/wire"
)

// maxClientRequestID bounds what is kept of a client's own x-request-id, in bytes.
const maxClientRequestID = 128

// exchange is one request and its answer, as the log and the record will tell it. It is the request's context, too: one piece
// of memory for what every request needs.
type exchange struct {
	context.Context //nolint:containedctx // It is a context itself.
	usage.Record

	recorder *usage.Recorder
	ids      [2]string // the values of the x-request-id and x-trace-id headers
	body     body
	outgoing proxy.Request

	err error
	// signature is what a signed request says of itself, and signer whose key it is; nil without a signature.
	signature *auth.Signature
	signer    *auth.Principal
	// place is the request's own span in its trace, and caller the span that it was called from; zero: the trace begins here.
	place, caller trace.Context
	milestones
	// trail are the attempts, and reasons why each backend was chosen, where somebody wants to know.
	trail   []proxy.Attempt
	reasons []string
	// failures say why each backend that was tried before the last one did not answer.
	failures []*fault.Error
	// surface is the endpoint and planned the model as the metrics name them: what the router serves, never what a client wrote.
	surface, planned string
	// recorded says that this request leaves a usage record: it asked for an inference.
	recorded bool
	// uploading is how long the client took to send its body.
	uploading time.Duration
	// shared says that the connection is HTTP/2's: a proxy may carry many clients' requests over it, and one of them must not end it.
	shared bool
	// traced says that the tracer has its trace.
	traced bool
	// sent says that an answer has begun. What fails afterwards can only abort the connection.
	sent bool
}

func (g *Gateway) begin(r *http.Request) *exchange {
	x := &exchange{Context: r.Context(), recorder: g.Recorder, shared: r.ProtoMajor == 2}
	g.metrics.inFlight.Inc()
	x.Start = time.Now()
	g.join(x, r)
	x.RequestID = newRequestID(x.Start)
	x.ClientRequestID = clientRequestID(r.Header.Get("X-Request-Id"))
	x.Endpoint = r.URL.Path
	x.Status = http.StatusOK
	x.StopReason = usage.StopDone
	return x
}

// newRequestID makes a UUIDv7 (RFC 9562, section 5.7): milliseconds, then the fraction of the millisecond in 12 bits (method 3 of its
// section 6.2, so that ids of one process sort by time), then 62 random bits. An id is a name, not a secret.
func newRequestID(now time.Time) string {
	const version, variant = 0x7000, 1 << 63
	nanos := now.UnixNano()
	millis, rest := uint64(nanos/1e6), uint64(nanos%1e6)
	var id uuid.UUID
	binary.BigEndian.PutUint64(id[:8], millis<<16|version|rest<<12/1_000_000)
	binary.BigEndian.PutUint64(id[8:], variant|rand.Uint64()>>2)
	return id.String()
}

// received is when the request had come, with its body.
func (x *exchange) received() time.Time { return x.Start.Add(x.uploading) }

// name puts the request's id and its trace's on the answer.
func (x *exchange) name(h http.Header) {
	x.ids = [...]string{x.RequestID, x.TraceID}
	h["X-Request-Id"], h["X-Trace-Id"] = x.ids[0:1:1], x.ids[1:2:2]
}

// Checkpoint implements proxy.Meter.
func (x *exchange) Checkpoint(used wire.Usage) {
	x.recorder.Checkpoint(x.RequestID, usage.Progress{CompletionTokens: used.Completion, UsageSource: used.Source})
}

type (
	exchangeKey struct{}
	placeKey    struct{}
)

// Value implements context.Context.
func (x *exchange) Value(key any) any {
	if key == (exchangeKey{}) || key == (placeKey{}) {
		return x
	}
	return x.Context.Value(key)
}

// line is the context of the access line, which says itself whose it is: it knows of the request no more than its place in a trace.
type line struct{ *exchange }

// Value implements context.Context.
func (l line) Value(key any) any {
	if key == (exchangeKey{}) {
		return nil
	}
	return l.exchange.Value(key)
}

// RequestID returns the id of the request that ctx belongs to, "" outside of one.
func RequestID(ctx context.Context) string {
	if x, ok := ctx.Value(exchangeKey{}).(*exchange); ok {
		return x.RequestID
	}
	return ""
}

// attrs are the fields of the access log line.
func (x *exchange) attrs(method string) []slog.Attr {
	attrs := make([]slog.Attr, 0, 26)
	attrs = append(attrs, slog.String("request_id", x.RequestID), slog.String("trace_id", x.TraceID), slog.String("method", verb(method)), slog.String("path", x.path()),
		slog.Int("status", x.Status), slog.Float64("latency_ms", x.LatencyMillis))
	text := func(key, value string) {
		if value != "" {
			attrs = append(attrs, slog.String(key, value))
		}
	}
	text("client_request_id", x.ClientRequestID)
	text("organization", x.Organization)
	text("key_id", x.KeyID)
	text("model", x.Model)
	text("backend", x.Backend)
	text("decision", x.Decision)
	text("warning", x.Warning)
	text("code", x.Code)
	if x.recorded {
		attrs = append(attrs, slog.Int("attempts", x.Attempts), slog.Bool("stream", x.Stream), slog.String("stop_reason", x.StopReason),
			slog.Int64("prompt_tokens", x.PromptTokens), slog.Int64("completion_tokens", x.CompletionTokens),
			slog.Float64("ttft_ms", x.TTFTMillis), slog.Float64("router_ms", x.RouterMillis))
	}
	for i, failure := range x.failures {
		text("failure_"+strconv.Itoa(i+1), failure.Error())
	}
	if x.err != nil {
		text("error", x.err.Error())
	}
	return attrs
}

// path is what was asked for, as lines and traces tell it.
func (x *exchange) path() string {
	if x.recorded {
		return x.Endpoint // It is our own text.
	}
	return printable(x.Endpoint)
}

// methods are those that everybody knows.
var methods = [...]string{
	http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodConnect, http.MethodOptions, http.MethodTrace,
}

// verb is a request's method as lines and traces tell it: our own text, or a stranger's made printable.
func verb(method string) string {
	if at := slices.Index(methods[:], method); at >= 0 {
		return methods[at]
	}
	return printable(method)
}

// clientRequestID keeps a client's own id if it is short and printable.
func clientRequestID(id string) string {
	if len(id) > maxClientRequestID || strings.ContainsFunc(id, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return ""
	}
	return id
}
