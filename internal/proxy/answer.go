package proxy

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"

	"github.com/ai-aas/api-router/internal/fault"
	"github.com/ai-aas/api-router/internal/fleet"
	"github.com/ai-aas/api-router/internal/usage"
	"github.com/ai-aas/api-router/internal/wire"
)

const (
	// holdAnswer is how much of a plain answer is held back, in bytes, so that one that breaks off can still fail over.
	holdAnswer = 1 << 20
	readChunk  = 16 << 10
)

// answer copies a plain JSON answer. Up to holdAnswer it is read whole before its first byte is sent.
func (f *flight) answer(ctx context.Context, resp *http.Response, body io.Reader) result {
	var tap wire.Answer
	held := make([]byte, 0, initialHold(resp.ContentLength))
	for {
		var err error
		if held, err = readMore(body, held); err != nil && !errors.Is(err, io.EOF) {
			return classify(ctx, err)
		} else if err != nil {
			return f.wholeAnswer(resp, held, &tap)
		}
		if len(held) >= holdAnswer {
			return f.longAnswer(ctx, resp, body, held, &tap)
		}
	}
}

func initialHold(length int64) int {
	if length >= 0 && length < holdAnswer {
		return int(length) + 1 // One more, so that the read that finds the end needs no growth.
	}
	return readChunk
}

func readMore(body io.Reader, held []byte) ([]byte, error) {
	if len(held) == cap(held) {
		held = slices.Grow(held, max(readChunk, cap(held)))
	}
	n, err := body.Read(held[len(held):cap(held)])
	return held[:len(held)+n], err //nolint:wrapcheck // io.EOF must stay io.EOF.
}

// wholeAnswer sends an answer that has arrived completely, if it is one.
func (f *flight) wholeAnswer(resp *http.Response, held []byte, tap *wire.Answer) result {
	_, _ = tap.Write(held)
	if !tap.Complete() {
		return protocolError("the backend's answer is not a JSON value; retry in a moment", nil)
	}
	if tap.Failed() {
		return result{
			health: fleet.Result{Kind: fleet.Failed}, next: true,
			err: fault.New(fault.BackendError, "the backend reported an error in place of an answer; retry in a moment").
				WithCause(errors.New(string(held[:min(len(held), 256)]))),
		}
	}
	f.out.Usage, _ = tap.Usage()
	f.commit(resp, int64(len(held)))
	if err := f.write(held); err != nil {
		return f.clientGone(err)
	}
	f.out.Stop = usage.StopDone
	return result{health: fleet.Result{Kind: fleet.Served}}
}

// longAnswer sends an answer that is too long to be held back. From here a break can only end in an aborted connection.
func (f *flight) longAnswer(ctx context.Context, resp *http.Response, body io.Reader, held []byte, tap *wire.Answer) result {
	f.commit(resp, resp.ContentLength)
	for {
		_, _ = tap.Write(held)
		if err := f.write(held); err != nil {
			return f.clientGone(err)
		}
		var err error
		if held, err = readMore(body, held[:0]); errors.Is(err, io.EOF) {
			_, _ = tap.Write(held)
			if werr := f.write(held); werr != nil {
				return f.clientGone(werr)
			}
			break
		} else if err != nil {
			return classify(ctx, err)
		}
	}
	f.out.Usage, _ = tap.Usage()
	if !tap.Complete() {
		return protocolError("the backend's answer is not a JSON value", nil)
	}
	f.out.Stop = usage.StopDone
	return result{health: fleet.Result{Kind: fleet.Served}}
}

// passRefusal hands a backend's own 4xx about the request to the client, as it is. It is not held against the backend.
func (f *flight) passRefusal(ctx context.Context, resp *http.Response, body io.Reader) result {
	content, err := io.ReadAll(io.LimitReader(body, maxRefusal))
	if err != nil && ctx.Err() != nil {
		return classify(ctx, err)
	} else if err != nil {
		return protocolError("the backend broke off in the middle of an error message; retry in a moment", err)
	}
	f.commit(resp, int64(len(content)))
	if err := f.write(content); err != nil {
		return f.clientGone(err)
	}
	f.out.Stop = usage.StopRefused
	return result{health: fleet.Result{Kind: fleet.Neutral}}
}

// clientGone is the result when the client cannot be written to. It says nothing about the backend.
func (f *flight) clientGone(cause error) result {
	return result{
		health: fleet.Result{Kind: fleet.ClientGone},
		err:    fault.New(fault.ClientClosed, "the client closed the connection before the answer was complete").WithCause(cause),
	}
}
