package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
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

// classify judges an error of the connection to a backend, in the order: the client left, a limit passed, an operator cut it, no
// connection, anything else.
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
	if errors.Is(err, upstream.ErrCut) {
		return result{
			health: fleet.Result{Kind: fleet.Neutral}, next: true,
			err: fault.New(fault.BackendError, "the backend was switched off before its answer was complete; retry in a moment").WithCause(err),
		}
	}
	if _, ok := errors.AsType[*upstream.ConnectError](err); ok {
		return result{
			health: fleet.Result{Kind: fleet.ConnectFailed}, next: true,
			err: fault.New(fault.BackendError, "no connection to the backend could be made; retry in a moment").WithCause(err),
		}
	}
	if _, ok := errors.AsType[*upstream.MalformedError](err); ok {
		return protocolError("the backend's answer is not valid HTTP; retry in a moment", err)
	}
	return result{
		health: fleet.Result{Kind: fleet.Failed}, next: true,
		err: fault.New(fault.BackendError, "the backend broke off before its answer was complete; retry in a moment").WithCause(err),
	}
}

// refusal judges the status of an answer. over is false when the answer is one for the client.
//
// The body of a refusal stays unread: engines repeat the prompt in it, which belongs into no log.
func refusal(resp *http.Response) (res result, over bool) {
	status := resp.StatusCode
	fail := func(kind fleet.Kind, e *fault.Error) (result, bool) {
		wait := retryAfter(resp.Header, time.Now())
		e.Cause = fmt.Errorf("status %d with %q of %d bytes", status, resp.Header.Get("Content-Type"), resp.ContentLength)
		return result{health: fleet.Result{Kind: kind, RetryAfter: wait}, err: e, next: true}, true
	}
	switch {
	case status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable:
		e := fault.New(fault.BackendOverloaded, "every backend of this model is full at the moment; retry after the time in retry-after")
		e.RetryAfter = max(retryAfter(resp.Header, time.Now()), time.Second)
		return fail(fleet.Saturated, e)
	case status >= http.StatusInternalServerError:
		return fail(fleet.Failed, fault.Newf(fault.BackendError, "the backend failed with status %d; retry in a moment", status))
	case status == http.StatusUnauthorized || status == http.StatusProxyAuthRequired:
		return fail(fleet.CredentialsRejected, credentialsRejected())
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
	value := h.Get("Content-Type")
	if value == "application/json" { // What nearly every answer says needs no parser.
		return false
	}
	mediaType, _, err := mime.ParseMediaType(value)
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

func credentialsRejected() *fault.Error {
	return fault.New(fault.BackendCredentialsRejected,
		"the backend refuses this router's own credential; your key is fine, the operator must mend the backend's api_key")
}

// credentialWords are what services write into a 403 that is about the key, and not about the request's content.
var credentialWords = [...]string{"api key", "api_key", "apikey", "credential", "authentication", "unauthorized", "permission"}

// aboutCredential reports whether the body of a 403 speaks of the key that it was sent with: the router's.
func aboutCredential(content []byte) bool {
	content = bytes.ToLower(content)
	for _, word := range credentialWords {
		if bytes.Contains(content, []byte(word)) {
			return true
		}
	}
	return false
}
