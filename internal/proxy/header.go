package proxy

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/ai-aas/api-router/internal/fleet"
	"github.com/ai-aas/api-router/internal/wire"
)

// Header values that never change. net/http reads them and changes none.
var (
	valueJSON     = []string{"application/json"}
	valueStream   = []string{"text/event-stream"}
	valueIdentity = []string{"identity"}
	valueNoCache  = []string{"no-cache"}
	valueNo       = []string{"no"}
	valueDecision = map[string][]string{DecisionPrimary: {DecisionPrimary}, DecisionFailover: {DecisionFailover}}
)

// The headers of a trace: the only ones of the client that a backend sees. Baggage, cookies and credentials are not among them.
const (
	headerParent = "Traceparent"
	headerState  = "Tracestate"
)

func (f *flight) outgoingHeader(backend *fleet.Backend) http.Header {
	h := make(http.Header, 8)
	h["Content-Type"] = valueJSON
	h["Accept-Encoding"] = valueIdentity
	h["User-Agent"] = f.value(valueAgent, f.opts.UserAgent)
	h["X-Request-Id"] = f.value(valueRequestID, f.req.RequestID)
	if f.req.Scanned.Stream {
		h["Accept"] = valueStream
	} else {
		h["Accept"] = valueJSON
	}
	f.traced(h)
	backend.Authorize(h)
	return h
}

// traced tells the backend where in a trace it is: below this attempt, or where the request has no trace of ours, where the client said.
func (f *flight) traced(h http.Header) {
	place := f.req.Trace
	if place.IsZero() {
		if parent := f.req.Header[headerParent]; len(parent) == 1 { // A state without a parent is the state of nothing.
			h[headerParent] = parent
			if state := f.req.Header[headerState]; len(state) > 0 {
				h[headerState] = state
			}
		}
		return
	}
	place.Span = f.current().Span
	h[headerParent] = []string{place.Parent()} // One of its own for each attempt: the transport of an earlier one may still be reading it.
	if place.State != "" {
		h[headerState] = []string{place.State}
	}
}

// The places of header values in flight.values: one piece of memory for all of them.
const (
	valueAgent = iota
	valueRequestID
	valueLength
	valueBackend
	valueAttempts
	valueTiming
	valueWarning
	valueCount
)

func (f *flight) value(at int, text string) []string {
	if f.values[at] != text { // The transport of an earlier attempt may still be reading it.
		f.values[at] = text
	}
	return f.values[at : at+1 : at+1]
}

// commit writes the head of the answer. After it, Sent is true and no other backend can be tried.
// length is the size of the body in bytes, -1 when it is not known.
func (f *flight) commit(resp *http.Response, length int64) {
	h := f.w.Header()
	for name, values := range resp.Header {
		if name == "Content-Type" || name == "Content-Encoding" || strings.HasPrefix(name, "Openai-") && name != "Openai-Organization" && name != "Openai-Project" {
			h[name] = values // The account at a public service is the operator's, and not the client's business.
		}
	}
	if length >= 0 {
		h["Content-Length"] = f.value(valueLength, strconv.FormatInt(length, 10))
	}
	if isEventStream(resp.Header) {
		h["Cache-Control"] = valueNoCache
		h["X-Accel-Buffering"] = valueNo // Reverse proxies in front of us must not hold events back.
	}
	if f.opts.ExposeBackend {
		h["X-Routing-Backend"] = f.value(valueBackend, f.out.Backend)
	}
	h["X-Routing-Decision"] = valueDecision[f.out.Decision]
	h["X-Routing-Attempts"] = f.value(valueAttempts, strconv.Itoa(f.out.Attempts))
	if f.out.Warning != "" {
		h["X-Routing-Warning"] = f.value(valueWarning, f.out.Warning)
	}
	now := time.Now()
	h["Server-Timing"] = f.value(valueTiming, timing(now.Sub(f.req.Received)-f.out.Waited, f.out.Waited))
	f.out.Sent, f.out.Status, f.out.FirstByte = true, resp.StatusCode, now
	f.w.WriteHeader(resp.StatusCode)
	f.lease.FirstByte()
}

// timing is the value of the Server-Timing header, in milliseconds.
func timing(own, waited time.Duration) string {
	b := make([]byte, 0, 64)
	b = append(b, "router;dur="...)
	b = strconv.AppendFloat(b, millis(own), 'f', 2, 64)
	b = append(b, ", queue;dur=0, backend;dur="...)
	b = strconv.AppendFloat(b, millis(waited), 'f', 2, 64)
	return string(b)
}

func millis(d time.Duration) float64 { return float64(max(d, 0)) / float64(time.Millisecond) }

// extend gives the client WriteTimeout to take what is written next. An eighth of that is near enough, and spares a call per event.
func (f *flight) extend(now time.Time) {
	if f.opts.WriteTimeout <= 0 || now.Sub(f.deadlineAt) < f.opts.WriteTimeout/8 {
		return
	}
	f.deadlineAt = now
	_ = f.client.SetWriteDeadline(now.Add(f.opts.WriteTimeout)) // Not every writer has deadlines; then there is none.
}

// relax lifts the client's deadline while the backend is what we wait for. Over HTTP/1 one that passes unused does no harm.
func (f *flight) relax() {
	if f.req.HTTP2 && !f.deadlineAt.IsZero() {
		f.deadlineAt = time.Time{}
		_ = f.client.SetWriteDeadline(time.Time{}) // As above.
	}
}

// write sends bytes to the client. An error means that the client is gone or does not read.
func (f *flight) write(p []byte) error {
	f.extend(time.Now())
	n, err := f.w.Write(p)
	f.out.BytesOut += int64(n)
	f.lost = f.lost || err != nil
	return err //nolint:wrapcheck // The caller names the case.
}

// giveBack releases a buffer that write was given parts of. After a write that failed it is left to the collector: over HTTP/2 net/http
// gives up on a frame as soon as the client resets the stream, and may still be sending it.
func (f *flight) giveBack(b *wire.Buffer) {
	if !f.lost {
		b.Release()
	}
}
