package gateway

import (
	"cmp"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/ai-aas/api-router/internal/fault"
	"github.com/ai-aas/api-router/internal/usage"
)

// ServeHTTP implements http.Handler: request id, recovery, the handler, its error, the record, the access log; in this order for every path.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := g.begin(r)
	hasten(w, r, nil) // Until readBody asks for the body, nobody does.
	x.name(w.Header())
	found, err := g.admit(w.Header(), r)
	x.surface = cmp.Or(found.endpoint, otherEndpoint)
	defer g.end(r, x, found.quiet)
	defer g.rescue(w, r, x)
	if found.method != http.MethodPost {
		g.limitReading(w)
	}
	if err == nil {
		err = found.handle(w, r, x)
	}
	if err != nil {
		g.limitReading(w) // The time that went by until here was not the client's.
		g.fail(w, x, err)
	}
	if err != nil && x.sent {
		panic(http.ErrAbortHandler) // Cuts the connection, so that no client takes the fragment for a whole answer.
	}
}

// limitReading bounds the writing of an answer of our own: a client that asks and asks and never reads must not keep its connection.
// net/http lifts the limit when the answer is out. A backend's answer is the proxy's to limit.
func (g *Gateway) limitReading(w http.ResponseWriter) {
	if g.WriteTimeout > 0 {
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(unreadGrace + g.WriteTimeout)) // Not every writer has deadlines; then there is none.
	}
}

// fail renders err, unless an answer has begun or there is nobody left to read one.
func (g *Gateway) fail(w http.ResponseWriter, x *exchange, err error) {
	x.err = err
	x.Code = string(fault.CodeOf(err))
	switch {
	case x.StopReason != usage.StopDone:
	case fault.CodeOf(err) == fault.ClientClosed:
		x.StopReason = usage.StopClientGone
	default:
		x.StopReason = usage.StopRefused
	}
	if x.sent {
		x.Truncated = true
		return
	}
	x.Status = fault.From(err).Status()
	switch fault.CodeOf(err) {
	case fault.ClientClosed:
		x.sent = true // Nobody reads: cut the connection in place of an answer.
		return
	case fault.AmbiguousRequest:
		if !x.shared {
			w.Header().Set("Connection", "close") // Who says two things in one request gets no second one in on this connection.
		}
	}
	fault.Write(w, err)
}

// rescue turns a panic into a 500 and keeps the process alive. http.ErrAbortHandler is not a failure and passes.
func (g *Gateway) rescue(w http.ResponseWriter, r *http.Request, x *exchange) {
	v := recover()
	if v == nil {
		return
	}
	if v == http.ErrAbortHandler { //nolint:errorlint,err113 // net/http compares it so, too.
		panic(v)
	}
	g.Logger.LogAttrs(r.Context(), slog.LevelError, "a handler panicked: this is a bug",
		slog.String("request_id", x.RequestID), slog.String("panic", fmt.Sprint(v)), slog.String("stack", string(debug.Stack())))
	g.metrics.panics.Inc()
	x.StopReason = usage.StopCrash
	g.fail(w, x, fmt.Errorf("panic: %v", v))  //nolint:err113 // It has no caller that could ask for it.
	x.Status = http.StatusInternalServerError // Whatever was on its way, this is what it was.
	if x.sent {
		panic(http.ErrAbortHandler)
	}
}

// end writes the record, the trace and the access log line, and counts the request. It runs exactly once a request, also when the handler panicked.
func (g *Gateway) end(r *http.Request, x *exchange, quiet bool) {
	x.ended = time.Now()
	x.LatencyMillis = millis(x.ended.Sub(x.Start))
	g.metrics.inFlight.Dec()
	if x.recorded {
		g.Recorder.Close(&x.Record)
	}
	if g.Tracer != nil && !quiet {
		g.trace(r, x)
	}
	g.metrics.observe(x)
	g.tell(r, x, quiet)
}

// tell writes the access log line.
func (g *Gateway) tell(r *http.Request, x *exchange, quiet bool) {
	level := slog.LevelInfo
	switch {
	case quiet && x.err == nil:
		level = slog.LevelDebug
	case x.Code == string(fault.ModelDisabled):
		level = slog.LevelWarn // An operator wanted it so.
	case x.Status >= http.StatusInternalServerError:
		level = slog.LevelError
	case x.Truncated:
		level = slog.LevelWarn
	}
	if !g.Logger.Enabled(line{x}, level) {
		return
	}
	left := int64(0)
	if level < slog.LevelWarn {
		var ok bool
		if left, ok = g.access.admit(time.Now()); !ok {
			g.metrics.suppressed.Inc()
			return
		}
	}
	attrs := x.attrs(r.Method)
	if left > 0 {
		attrs = append(attrs, slog.Int64("lines_left_out", left))
	}
	g.Logger.LogAttrs(line{x}, level, "request", attrs...)
}

// printable makes a client's text safe for a log line or a message, and short. It is a copy: lines and traces wait in queues, and must not
// keep the whole head of the request there.
func printable(s string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c > '~' {
			return '?'
		}
		return c
	}, strings.Clone(s[:min(len(s), 200)]))
}

func millis(d time.Duration) float64 {
	return float64(d.Round(time.Microsecond)) / float64(time.Millisecond)
}
