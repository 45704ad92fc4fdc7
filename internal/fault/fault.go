// Package fault holds the one error type that clients see, the catalogue of its codes, and the one writer that renders it.
//
// Inner rooms return ordinary errors. Where an error must tell the client something, they return a *Error (as error);
// everything else reaches the client as internal_error and keeps its detail for the log.
package fault

import (
	"errors"
	"fmt"
	"net/http"
	"time"
)

// Error is a failure that a client may see.
//
// Message says what happened and what to do; it never holds an internal address or a secret. Cause is for the log alone.
type Error struct {
	Code       Code
	Message    string
	Param      string        // the request field or header at fault, "" when there is none
	RetryAfter time.Duration // rendered as retry-after and retry-after-ms when above zero
	Cause      error
}

// New returns an error of the given code with a message for the client.
func New(code Code, message string) *Error {
	return &Error{Code: code, Message: message}
}

// Newf is New with a format.
func Newf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// WithParam names the request field at fault and returns e.
func (e *Error) WithParam(param string) *Error {
	e.Param = param
	return e
}

// WithCause attaches the inner error, for the log alone, and returns e.
func (e *Error) WithCause(err error) *Error {
	e.Cause = err
	return e
}

// WithRetryAfter tells the client how long to wait and returns e.
func (e *Error) WithRetryAfter(d time.Duration) *Error {
	e.RetryAfter = d
	return e
}

// Error gives the code, the message and the cause: the form for the log.
func (e *Error) Error() string {
	if e.Cause != nil {
		return string(e.Code) + ": " + e.Message + ": " + e.Cause.Error()
	}
	return string(e.Code) + ": " + e.Message
}

// Unwrap returns the inner error.
func (e *Error) Unwrap() error { return e.Cause }

// Is matches another *Error by its code, so that errors.Is(err, &Error{Code: c}) asks for a code.
func (e *Error) Is(target error) bool {
	other, ok := target.(*Error) // One link of the chain: errors.Is walks it.
	return ok && other.Code == e.Code
}

// Status is the HTTP status of e's code.
func (e *Error) Status() int { return e.Code.Status() }

// From finds the *Error in err's chain. Any other error is a bug of ours and becomes internal_error with err as its cause.
func From(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return New(InternalError, "the router failed on this request; it is not your request's fault. "+
		"Retry, and if it stays, give the operator the x-request-id of this answer").WithCause(err)
}

// CodeOf returns the code of err, internal_error for an error that is not of this package, and "" for nil.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return InternalError
}

// Status is the HTTP status that belongs to the code; 500 for a code that is not in the catalogue.
func (c Code) Status() int {
	if entry, ok := catalogue[c]; ok {
		return entry.Status
	}
	return http.StatusInternalServerError
}
