package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/ai-aas/api-router/internal/fault"
	"github.com/ai-aas/api-router/internal/fleet"
	"github.com/ai-aas/api-router/internal/upstream"
	"github.com/ai-aas/api-router/internal/usage"
	"github.com/ai-aas/api-router/internal/wire"
)

// The first events of a stream are held back until one has content, so that a backend that fails before it produced
// anything can still be replaced. The bounds keep an endless preamble from being held for ever.
const (
	holdEvents = 64
	holdBytes  = 64 << 10
)

// streamBuffer is what an open stream holds for its events, in bytes. A larger event takes memory of its own while it passes.
const streamBuffer = 4 << 10

// A running stream is noted in the usage log this often.
const (
	checkpointEvery  = 2 * time.Second
	checkpointTokens = 256
)

// afterDone bounds the wait for the end of a body whose [DONE] was read: a backend that keeps the connection open must
// not keep the client waiting.
const afterDone = 100 * time.Millisecond

// relay copies one stream of events.
type relay struct {
	*flight
	tap    *wire.Tap
	events *wire.Events

	held       []byte // events without content, not sent yet
	heldEvents int

	noted       time.Time // of the last checkpoint
	notedTokens int64
}

// stream copies a backend's events to the client until [DONE].
func (f *flight) stream(ctx context.Context, resp *http.Response, body *timedBody, tap *wire.Tap) result {
	buffer := wire.Borrow(streamBuffer)
	defer f.giveBack(buffer)
	r := &relay{flight: f, tap: tap, events: wire.NewEvents(body, buffer.B), noted: time.Now()}
	defer r.settle()
	for {
		event, err := r.events.Next()
		if err != nil {
			return r.broken(ctx, err)
		}
		verdict := r.tap.Event(event)
		switch {
		case verdict.Malformed && !f.out.Sent:
			return protocolError("the backend's stream is not one of JSON events; retry in a moment", nil)
		case verdict.Err != nil && !f.out.Sent:
			return result{health: fleet.Result{Kind: fleet.Failed}, next: true, err: reported(verdict.Err)}
		case verdict.Err != nil && event.Partial: // Without its blank line no client would see it.
			return r.abort(fleet.Result{Kind: fleet.Failed}, reported(verdict.Err))
		case verdict.Err != nil:
			return r.relayError(verdict)
		case verdict.Done && !r.tap.Complete():
			return r.abort(fleet.Result{Kind: fleet.Broken}, fault.New(fault.BackendError,
				"the backend ended the stream before the answer was complete; what arrived is only its beginning"))
		case event.Partial && !verdict.Done:
			continue // A cut event must not be joined to our own; the next read says why it was cut.
		}
		if err := r.send(resp, verdict); err != nil {
			return r.clientGone(err)
		}
		if verdict.Done {
			body.clock.endIn(afterDone)
			// Reads to the end of the body, so that the connection can be used again. What follows [DONE] is dropped, but
			// for the line feed of a CR LF that arrived in two parts.
			partial := event.Partial
			if rest, err := r.events.Next(); len(rest.Raw) > 0 {
				_ = f.write(r.tap.Event(rest).Out) // The answer is complete; a client that has gone now has it.
			} else if partial && !errors.Is(err, io.EOF) { // Cut within its last line feeds, which a client waits for.
				_ = f.write([]byte("\n\n")) // As above.
			}
			f.out.Stop = usage.StopDone
			return result{health: fleet.Result{Kind: fleet.Served}}
		}
	}
}

// send passes an event on, or holds it back while there is nothing in it yet that a client would miss.
func (r *relay) send(resp *http.Response, verdict wire.Verdict) error {
	if !r.out.Sent {
		r.held = append(r.held, verdict.Out...)
		r.heldEvents++
		if !verdict.Content && !verdict.Done && r.heldEvents < holdEvents && len(r.held) < holdBytes {
			return nil
		}
		r.commit(resp, -1)
		verdict.Out = r.held
		r.held = nil
	}
	if len(verdict.Out) > 0 {
		if err := r.write(verdict.Out); err != nil {
			return err
		}
	}
	if r.events.Buffered() {
		return nil // A further complete event is at hand: both go out with one flush.
	}
	r.checkpoint(time.Now())
	return r.client.Flush() //nolint:wrapcheck // The caller names the case.
}

func (r *relay) checkpoint(now time.Time) {
	tokens := r.tap.Progress()
	if now.Sub(r.noted) < checkpointEvery && tokens-r.notedTokens < checkpointTokens {
		return
	}
	r.noted, r.notedTokens = now, tokens
	if r.req.Meter != nil {
		used, _ := r.tap.Usage()
		r.req.Meter.Checkpoint(used)
	}
}

// broken is the end of a stream whose body ended or failed before [DONE].
func (r *relay) broken(ctx context.Context, err error) result {
	res := classify(ctx, err)
	switch fault.CodeOf(res.err) {
	case fault.ClientClosed:
		return res
	case fault.BackendTimeout, fault.Draining:
		return r.abort(res.health, res.err)
	}
	if errors.Is(err, upstream.ErrCut) {
		return r.abort(res.health, fault.New(fault.BackendError,
			"the backend was switched off in the middle of the stream; what arrived is only the beginning of the answer").WithCause(err))
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		res.health.Kind = fleet.Broken
	}
	return r.abort(res.health, fault.New(fault.BackendError,
		"the backend broke off in the middle of the stream; what arrived is only the beginning of the answer").WithCause(err))
}

// abort ends a stream that cannot be completed. What was sent already is closed by an error event; the caller cuts the connection,
// the one end that every SDK takes for a failure. Where nothing was sent, the next backend may try.
func (r *relay) abort(health fleet.Result, err error) result {
	if r.out.Sent {
		if werr := r.write(fault.Event(r.w.Header(), err)); werr == nil {
			_ = r.client.Flush() // The connection is cut next in any case.
		}
	}
	return result{health: health, err: err, next: fault.CodeOf(err) != fault.Draining}
}

// relayError passes on an error event of the backend's own, without the backend's key, and then ends the stream as abort does.
func (r *relay) relayError(verdict wire.Verdict) result {
	if err := r.write(r.conceal(verdict.Out)); err == nil {
		_ = r.client.Flush() // The connection is cut next in any case.
	}
	return result{health: fleet.Result{Kind: fleet.Failed}, err: reported(verdict.Err)}
}

// settle notes what the stream used, however it ended.
func (r *relay) settle() {
	if r.out.Sent {
		r.out.Usage, _ = r.tap.Usage()
	}
}

func reported(e *wire.StreamError) error {
	return fault.New(fault.BackendError, "the backend reported an error in place of an answer; retry in a moment").
		WithCause(fmt.Errorf("an error event of type %.40q, code %.40q", e.Type, e.Code)) // Its message may repeat the prompt.
}
