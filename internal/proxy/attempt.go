package proxy

import (
	"context"
	"io"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
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

	f.current().Status = resp.StatusCode
	body := &timedBody{flight: f, body: resp.Body, clock: clock, gap: limits.BetweenBytes}
	f.out.Waited += time.Since(sent)
	if refused, over := refusal(resp); over {
		return refused
	}
	if resp.StatusCode >= http.StatusBadRequest {
		return f.passRefusal(ctx, resp, body, backend.Spec().APIKey != "")
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
	sending := &f.first
	if f.out.Attempts > 1 {
		sending = new(outgoingBody)
		f.later = append(f.later, sending)
	}
	sending.body, sending.reader = body, body.Reader()
	return (&http.Request{
		Method: http.MethodPost, URL: target, Host: target.Host,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header:        f.outgoingHeader(backend),
		Body:          sending,
		GetBody:       sending.again,
		ContentLength: body.Len(),
	}).WithContext(ctx)
}

// outgoingBody is the request's body on its way to one backend. It knows when the transport is done with it: http.Transport
// may go on reading after the answer has come.
type outgoingBody struct {
	body   wire.Body
	reader io.ReadCloser
	copies atomic.Bool // the transport began anew with another reader
	closed atomic.Bool
	// using is held by whoever reads. Over HTTP/2, http.Transport closes a body that it may still be reading, and may read it once more.
	using sync.Mutex
}

func (b *outgoingBody) Read(p []byte) (int, error) {
	b.using.Lock()
	defer b.using.Unlock()
	if b.closed.Load() {
		return 0, http.ErrBodyReadAfterClose
	}
	return b.reader.Read(p) //nolint:wrapcheck // io.EOF must stay io.EOF.
}

// WriteTo lets a transport write the pieces of the body without a copy.
func (b *outgoingBody) WriteTo(w io.Writer) (int64, error) {
	b.using.Lock()
	defer b.using.Unlock()
	if b.closed.Load() {
		return 0, http.ErrBodyReadAfterClose
	}
	if direct, ok := b.reader.(io.WriterTo); ok {
		return direct.WriteTo(w) //nolint:wrapcheck // As Read.
	}
	return io.Copy(w, b.reader) //nolint:wrapcheck // As Read.
}

// Close waits for a reader: when it returns, nobody reads the body's memory any more.
func (b *outgoingBody) Close() error {
	b.using.Lock()
	defer b.using.Unlock()
	b.closed.Store(true)
	return nil
}

// again is the request's GetBody. A reader that was given out so is not followed: the body's memory is left to the collector.
func (b *outgoingBody) again() (io.ReadCloser, error) {
	b.copies.Store(true)
	return b.body.Reader(), nil
}

// bodyFree reports whether every transport is done with the body.
func (f *flight) bodyFree() bool {
	free := func(b *outgoingBody) bool { return b.closed.Load() && !b.copies.Load() }
	if f.out.Attempts > 0 && !free(&f.first) {
		return false
	}
	return !slices.ContainsFunc(f.later, func(b *outgoingBody) bool { return !free(b) })
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
