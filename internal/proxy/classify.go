package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/ai-aas/api-router/internal/fault"
	"github.com/ai-aas/api-router/internal/fleet"
	"github.com/ai-aas/api-router/internal/upstream"
)

// maxRefusal bounds how much of a backend's error body is read, in bytes.
const maxRefusal = 1 << 20

// excerptWait bounds the wait for the reason behind a backend's failure: the next backend is not kept waiting for a log line.
const excerptWait = 100 * time.Millisecond

// classify judges an error of the connection to a backend, in the order: the client left, a limit passed, no connection, anything else.
// ctx is the attempt's: its cause tells a limit of ours from the client's departure.
func classify(ctx context.Context, err error) result {
	if ctx.Err() != nil {
		cause := context.Cause(ctx)
		switch fault.CodeOf(cause) {
		case fault.BackendTimeout:
			return result{health: fleet.Result{Kind: fleet.TimedOut}, err: cause, next: true}
		case fault.Draining:
			return result{health: fleet.Result{Kind: fleet.ClientGone}, err: cause}
		}
		return result{health: fleet.Result{Kind: fleet.ClientGone}, err: left(ctx)}
	}
	if _, ok := errors.AsType[*upstream.ConnectError](err); ok {
		return result{
			health: fleet.Result{Kind: fleet.ConnectFailed}, next: true,
			err: fault.New(fault.BackendError, "no connection to the backend could be made; retry in a moment").WithCause(err),
		}
	}
	return result{
		health: fleet.Result{Kind: fleet.Failed}, next: true,
		err: fault.New(fault.BackendError, "the backend broke off before its answer was complete; retry in a moment").WithCause(err),
	}
}

// refusal judges the status of an answer. over is false when the answer is one for the client.
func refusal(resp *http.Response, backend *fleet.Backend, body *timedBody) (res result, over bool) {
	status := resp.StatusCode
	fail := func(kind fleet.Kind, e *fault.Error) (result, bool) {
		wait := retryAfter(resp.Header, time.Now())
		body.gap = min(body.gap, excerptWait)
		e.Cause = errors.New("the backend " + backend.ID() + " answered " + strconv.Itoa(status) + ": " + excerpt(body))
		return result{health: fleet.Result{Kind: kind, RetryAfter: wait}, err: e, next: true}, true
	}
	switch {
	case status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable:
		e := fault.New(fault.BackendOverloaded, "every backend of this model is full at the moment; retry after the time in retry-after")
		e.RetryAfter = max(retryAfter(resp.Header, time.Now()), time.Second)
		return fail(fleet.Saturated, e)
	case status >= http.StatusInternalServerError:
		return fail(fleet.Failed, fault.Newf(fault.BackendError, "the backend failed with status %d; retry in a moment", status))
	case status == http.StatusUnauthorized || status == http.StatusProxyAuthRequired,
		status == http.StatusForbidden && backend.Spec().APIKey != "":
		return fail(fleet.CredentialsRejected, fault.New(fault.BackendCredentialsRejected,
			"the backend refuses this router's own credential; your key is fine, the operator must mend the backend's api_key"))
	case status >= http.StatusBadRequest:
		return result{}, false
	case status < http.StatusOK || status >= http.StatusMultipleChoices:
		return fail(fleet.Broken, fault.Newf(fault.BackendProtocolError, "the backend answered with status %d, which is no answer to this request", status))
	case resp.Header.Get("Content-Encoding") != "" && resp.Header.Get("Content-Encoding") != "identity":
		return fail(fleet.Broken, fault.New(fault.BackendProtocolError, "the backend compressed its answer although it was asked not to"))
	}
	return result{}, false
}

// protocolError is the result of an answer that is not what the protocol says, before any byte of it was sent on.
func protocolError(what string, cause error) result {
	return result{
		health: fleet.Result{Kind: fleet.Broken}, next: true,
		err: fault.New(fault.BackendProtocolError, what).WithCause(cause),
	}
}

func isEventStream(h http.Header) bool {
	mediaType, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	return err == nil && mediaType == "text/event-stream"
}

// retryAfter reads seconds or a date; 0 when there is none or it has passed.
func retryAfter(h http.Header, now time.Time) time.Duration {
	value := strings.TrimSpace(h.Get("Retry-After"))
	if seconds, err := strconv.ParseFloat(value, 64); err == nil && seconds > 0 {
		return time.Duration(min(seconds, 3600) * float64(time.Second))
	}
	if at, err := http.ParseTime(value); err == nil {
		return min(max(at.Sub(now), 0), time.Hour)
	}
	return 0
}

// excerpt is the beginning of a backend's error body, on one line, for the log.
func excerpt(body io.Reader) string {
	head, _ := io.ReadAll(io.LimitReader(body, 256)) // What could be read is enough for a log line.
	return string(bytes.Join(bytes.Fields(head), []byte{' '}))
}
