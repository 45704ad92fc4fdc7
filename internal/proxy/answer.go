package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/ai-aas/api-router/internal/fault"
	"github.com/ai-aas/api-router/internal/fleet"
	"github.com/ai-aas/api-router/internal/upstream"
	"github.com/ai-aas/api-router/internal/usage"
	"github.com/ai-aas/api-router/internal/wire"
)

const (
	// holdAnswer is how much of a plain answer is held back, in bytes, so that one that breaks off can still fail over.
	holdAnswer = 1 << 20
	readChunk  = 16 << 10
	// shortestKey is the fewest bytes that make a backend's key a secret. Servers without keys are often given a word, as none or EMPTY.
	shortestKey = 8
)

// answer copies a plain JSON answer. Up to holdAnswer it is read whole before its first byte is sent.
func (f *flight) answer(ctx context.Context, resp *http.Response, body io.Reader) result {
	var tap wire.Answer
	held := wire.Borrow(initialHold(resp.ContentLength))
	defer f.giveBack(held)
	for {
		if err := readMore(body, held); err != nil && !errors.Is(err, io.EOF) {
			return classify(ctx, err)
		} else if err != nil {
			return f.wholeAnswer(resp, held.B, &tap)
		}
		if len(held.B) >= holdAnswer {
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

func readMore(body io.Reader, held *wire.Buffer) error {
	if len(held.B) == cap(held.B) {
		held.Grow(2 * cap(held.B))
	}
	n, err := body.Read(held.B[len(held.B):cap(held.B)])
	held.B = held.B[:len(held.B)+n]
	return err //nolint:wrapcheck // io.EOF must stay io.EOF.
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
				WithCause(fmt.Errorf("an error object of %d bytes in an answer of status %d", len(held), resp.StatusCode)),
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
func (f *flight) longAnswer(ctx context.Context, resp *http.Response, body io.Reader, held *wire.Buffer, tap *wire.Answer) result {
	f.commit(resp, resp.ContentLength)
	for {
		_, _ = tap.Write(held.B)
		if err := f.write(held.B); err != nil {
			return f.clientGone(err)
		}
		held.B = held.B[:0]
		if err := readMore(body, held); errors.Is(err, io.EOF) {
			_, _ = tap.Write(held.B)
			if werr := f.write(held.B); werr != nil {
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

// passRefusal hands a backend's own 4xx about the request to the client, as it is but for the backend's key. It is not held against the backend, and
// no other backend is asked: it would say the same.
func (f *flight) passRefusal(ctx context.Context, resp *http.Response, body io.Reader, withKey bool) result {
	content, err := io.ReadAll(io.LimitReader(body, maxRefusal))
	gone := left(ctx) != nil && fault.CodeOf(context.Cause(ctx)) != fault.BackendTimeout
	if err != nil && (gone || errors.Is(err, upstream.ErrCut)) {
		return classify(ctx, err)
	} else if err != nil {
		broken := protocolError("the backend refused the request, and broke off in the middle of saying why", err)
		broken.health, broken.next = fleet.Result{Kind: fleet.Neutral}, false
		return broken
	}
	if withKey && resp.StatusCode == http.StatusForbidden && aboutCredential(content) {
		return result{health: fleet.Result{Kind: fleet.Neutral}, err: credentialsRejected(), next: true}
	}
	content = f.conceal(content)
	f.commit(resp, int64(len(content)))
	if err := f.write(content); err != nil {
		return f.clientGone(err)
	}
	f.out.Stop = usage.StopRefused
	return result{health: fleet.Result{Kind: fleet.Neutral}}
}

// conceal hides the key that the backend was shown: some servers repeat it where they say what is wrong.
func (f *flight) conceal(content []byte) []byte {
	key := f.lease.Backend().Spec().APIKey
	if len(key) < shortestKey {
		return content
	}
	return bytes.ReplaceAll(content, []byte(key), []byte(key.String()))
}

// clientGone is the result when the client cannot be written to. It says nothing about the backend.
func (f *flight) clientGone(cause error) result {
	return result{
		health: fleet.Result{Kind: fleet.ClientGone},
		err:    fault.New(fault.ClientClosed, "the client closed the connection before the answer was complete").WithCause(cause),
	}
}
