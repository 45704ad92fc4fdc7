package proxy

import (
	"time"

	"github.com/ai-aas/api-router/internal/fault"
	"github.com/ai-aas/api-router/internal/fleet"
	"github.com/ai-aas/api-router/internal/trace"
)

// Attempt is one request to one backend, as it went.
type Attempt struct {
	Backend string
	Model   string // the backend's own name
	Engine  string
	Address string // host and port
	// Span is what the backend was told to be called from; zero where the request has no trace.
	Span       trace.SpanID
	Start, End time.Time
	FirstByte  time.Time // of the answer to the client; zero: none came from here
	Status     int       // the backend's, 0 when there was no answer
	Result     fleet.Kind
	Failure    error // why the client has no whole answer from here; nil when it has
}

// inlineAttempts is how many attempts need no memory of their own.
const inlineAttempts = 2

// embark begins the note of an attempt.
func (f *flight) embark(choice fleet.Choice) {
	backend := choice.Lease.Backend()
	a := Attempt{Backend: backend.ID(), Model: choice.Model, Engine: backend.Spec().Engine, Address: backend.Host(), Start: time.Now()}
	if !f.req.Trace.IsZero() {
		a.Span = trace.NewSpanID()
	}
	if f.out.Trail == nil {
		f.out.Trail = f.trail[:0]
	}
	f.out.Trail = append(f.out.Trail, a)
}

// arrive ends it.
func (f *flight) arrive(res result) {
	a := f.current()
	a.End, a.Result, a.Failure = time.Now(), res.health.Kind, res.err
	if f.out.Sent {
		a.FirstByte = f.out.FirstByte
	}
}

// current is the note of the attempt under way.
func (f *flight) current() *Attempt { return &f.out.Trail[len(f.out.Trail)-1] }

// Code says of an attempt that failed why, as a code of the error catalogue; "" of one that did not.
func (a *Attempt) Code() string {
	if a.Failure == nil {
		return ""
	}
	return string(fault.CodeOf(a.Failure))
}
