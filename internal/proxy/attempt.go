package proxy

import (
	"context"
	"io"
	"net/http"
	"time"

	"github.com/ai-aas/api-router/internal/fleet"
	"github.com/ai-aas/api-router/internal/wire"
)

// attempt sends the request to one backend and, if that answers, the answer to the client.
func (f *flight) attempt(ctx context.Context, choice fleet.Choice) result {
	f.lease = choice.Lease
	backend := choice.Lease.Backend()
	limits := backend.Spec().Timeouts
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	clock := newClock(cancel, limits.Total)
	defer clock.rest()

	rewrite, strip := f.rewriting(choice, backend.Spec().Engine)
	out := f.outgoing(ctx, backend, f.req.Scanned.Rewrite(f.req.Body, rewrite))

	// A plain answer's first byte comes when the whole of it is ready, so only the total limit can judge it.
	first := limits.FirstByte
	if !f.req.Scanned.Stream {
		first = limits.Total
	}
	sent := time.Now()
	clock.arm(first, phaseFirstByte)
	resp, err := backend.RoundTrip(out)
	if err != nil {
		f.out.Waited += time.Since(sent)
		return classify(ctx, err)
	}
	defer func() { _ = resp.Body.Close() }() // Closing an unread body closes its connection; there is nothing to report.

	body := &timedBody{flight: f, body: resp.Body, clock: clock, gap: limits.BetweenBytes}
	f.out.Waited += time.Since(sent)
	if refused, over := refusal(resp, backend, body); over {
		return refused
	}
	if resp.StatusCode >= http.StatusBadRequest {
		return f.passRefusal(ctx, resp, body)
	}
	switch {
	case f.req.Scanned.Stream && isEventStream(resp.Header):
		// Engines send the head of a stream at once; the byte that first_byte means comes after the prefill.
		body.firstBy = sent.Add(first)
		return f.stream(ctx, resp, body, wire.NewTap(f.req.Kind, f.expected(backend.Spec().Engine), strip))
	default:
		if !f.req.Scanned.Stream {
			body.gap = limits.Total
		}
		return f.answer(ctx, resp, body)
	}
}

// rewriting decides what is spliced into the body, and so what must be spliced out of a stream again: a stream is always
// asked for its usage, with every event where the engine can, so that a client that hangs up is billed exactly.
func (f *flight) rewriting(choice fleet.Choice, engine string) (wire.Rewrite, wire.Strip) {
	rewrite := wire.Rewrite{
		MaxCompletionTokens: engine == fleet.EngineOpenAI, // Its newer models refuse max_tokens.
		Endless:             engine == fleet.EngineLlamaCPP || engine == fleet.EngineOllama,
	}
	if choice.Model != f.req.Scanned.Model {
		rewrite.Model = choice.Model
	}
	if !f.req.Scanned.Stream {
		return rewrite, wire.StripNone
	}
	rewrite.IncludeUsage = true
	rewrite.ContinuousUsage = engine == fleet.EngineVLLM || f.req.Scanned.ContinuousUsage
	switch {
	case !f.req.Scanned.IncludeUsage:
		return rewrite, wire.StripAll
	case rewrite.ContinuousUsage && !f.req.Scanned.ContinuousUsage:
		return rewrite, wire.StripContinuous
	default:
		return rewrite, wire.StripNone
	}
}

// expected is how many choices make a stream complete. Engines that take no heed of n end an answer of one choice properly:
// they must finish what they begin.
func (f *flight) expected(engine string) int {
	switch engine {
	case fleet.EngineVLLM, fleet.EngineSGLang, fleet.EngineOpenAI:
		return f.req.Scanned.Choices
	default:
		return 1
	}
}

func (f *flight) outgoing(ctx context.Context, backend *fleet.Backend, body wire.Body) *http.Request {
	target := backend.URL(f.req.Path)
	req := &http.Request{
		Method: http.MethodPost, URL: target, Host: target.Host,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header:        f.outgoingHeader(backend),
		Body:          body.Reader(),
		GetBody:       func() (io.ReadCloser, error) { return body.Reader(), nil },
		ContentLength: body.Len(),
	}
	return req.WithContext(ctx)
}

// timedBody reads a backend's answer under the gap limit and remembers how long it waited.
type timedBody struct {
	flight  *flight
	body    io.Reader
	clock   *clock
	gap     time.Duration
	firstBy time.Time // until then the limit of the first byte goes on; zero: the head was the first byte
}

func (b *timedBody) Read(p []byte) (int, error) {
	b.flight.relax()
	start := time.Now()
	if b.firstBy.Sub(start) < b.gap {
		b.clock.arm(b.gap, phaseBetweenBytes)
	}
	n, err := b.body.Read(p)
	b.clock.rest()
	b.firstBy = time.Time{}
	b.flight.out.Waited += time.Since(start)
	return n, err //nolint:wrapcheck // io.EOF must stay io.EOF.
}
