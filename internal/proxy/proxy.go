// Package proxy carries one request to a backend and its answer back to the client.
//
// Three sizes of thought, one file each: for each backend (proxy.go), one attempt (attempt.go), copy bytes (answer.go,
// stream.go). Until the first byte of an answer is on its way to the client, another backend may be tried; after it, the
// answer is finished or aborted, never restarted.
package proxy

import (
	"context"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ai-aas/api-router/internal/fault"
	"github.com/ai-aas/api-router/internal/fleet"
	"github.com/ai-aas/api-router/internal/trace"
	"github.com/ai-aas/api-router/internal/usage"
	"github.com/ai-aas/api-router/internal/wire"
)

// The decisions that the x-routing-decision header and the record name.
const (
	DecisionPrimary  = "PRIMARY"  // the first backend that was picked answered
	DecisionFailover = "FAILOVER" // a backend failed before the one that answered
)

// maxBackoff bounds the wait between two attempts.
const maxBackoff = 2 * time.Second

// Picker gives the backends to try, best first, and never one twice. Its error says why none is left, in words for the client.
type Picker interface {
	Next() (fleet.Choice, error)
	// Warning says what the client should know of the latest choice, as the x-routing-warning header has it; "": nothing.
	Warning() string
}

// Options are what every request has in common.
type Options struct {
	// UserAgent is what backends see in place of the client's.
	UserAgent string
	// ExposeBackend puts the backend's id on answers, as x-routing-backend.
	ExposeBackend bool
	// WriteTimeout is how long one write to a client may take before the client counts as gone; 0 means no limit.
	WriteTimeout time.Duration
	// Metrics is where the proxy's metrics are registered; nil: nowhere.
	Metrics prometheus.Registerer
}

// Proxy forwards requests. It holds nothing of one but what it counts, and is safe for concurrent use.
type Proxy struct {
	opts    Options
	metrics *metrics
}

// New returns a Proxy.
func New(opts Options) *Proxy { return &Proxy{opts: opts, metrics: newMetrics(opts.Metrics)} }

// Forget drops the metrics of a backend that has left the fleet.
func (p *Proxy) Forget(backend string) { p.metrics.forget(backend) }

// Request is one scanned request on its way to a backend.
type Request struct {
	// Path is the constant path that the backend gets, for example /v1/chat/completions.
	Path string
	Kind wire.Kind
	// Model is the public name that was planned for; a choice for another one is a fallback.
	Model string
	// Scanned is what the scanner read in Body.
	Scanned wire.Request
	Body    []byte
	// Header is the client's. Only what the proxy names is forwarded, never a credential.
	Header http.Header
	// HTTP2 says that the client's connection is shared: a deadline that passes resets the stream, even where nobody writes.
	HTTP2     bool
	RequestID string
	// Trace is the place of this request in its trace, which backends are told of. Zero: they get the client's own headers.
	Trace trace.Context
	// Received is when the request had come, with its body: from here on the time is the router's or the backends'.
	Received time.Time
	// Backoff is the wait before the third attempt; it doubles for each later one. The first failover is immediate.
	Backoff time.Duration
	// Meter hears of a stream's usage while it runs; nil: nobody does.
	Meter Meter
}

// Meter takes note of what a running stream has used so far.
type Meter interface {
	Checkpoint(used wire.Usage)
}

// Outcome says how a request ended.
type Outcome struct {
	// Err is why the client has no whole answer; nil when it has one, be that a backend's own 4xx.
	Err error
	// Sent says that the first byte of an answer was written: the status line is out and nothing can be restarted.
	Sent bool
	// Status is the HTTP status that was sent, 0 when nothing was.
	Status       int
	Stop         string // one of the usage.Stop constants
	Backend      string
	BackendModel string
	Decision     string
	Warning      string // of the last backend that was tried; "" when there is nothing to warn of
	Attempts     int
	Usage        wire.Usage
	FirstByte    time.Time     // zero when no byte was sent
	Waited       time.Duration // spent waiting for backends
	BytesOut     int64
	// Failures say why each backend that was tried before the last one did not answer.
	Failures []*fault.Error
	// Trail are the attempts in their order.
	Trail []Attempt
	// BodyFree says that no connection reads the request's body any more, so that its memory may be used again.
	BodyFree bool
}

// Forward tries backends from picker until one answers, and copies that answer to w.
//
// When the outcome has an error and nothing was sent, the caller writes the error. When something was sent already, the
// caller must abort the connection (http.ErrAbortHandler), so that no client takes the fragment for a whole answer.
func (p *Proxy) Forward(ctx context.Context, w http.ResponseWriter, req *Request, picker Picker) Outcome {
	f := &flight{
		opts: &p.opts, metrics: p.metrics, w: w, client: *http.NewResponseController(w), req: req,
		out: Outcome{Decision: DecisionPrimary, Stop: usage.StopBackendError},
	}
	f.run(ctx, picker)
	f.out.Failures, f.out.BodyFree = f.failures, f.bodyFree()
	return f.out
}

// flight is one request under way.
type flight struct {
	opts    *Options
	metrics *metrics
	w       http.ResponseWriter
	client  http.ResponseController
	req     *Request
	out     Outcome
	lease   *fleet.Lease // of the attempt under way

	failures   []*fault.Error          // why each earlier backend did not answer
	trail      [inlineAttempts]Attempt // memory for the first ones
	first      outgoingBody            // the body on its way to the first backend that was tried
	later      []*outgoingBody         // and to the others
	deadlineAt time.Time               // when the client's write deadline was last moved; zero while there is none
	lost       bool                    // a write to the client failed
	values     [valueCount]string
}

// run is the loop over the backends.
func (f *flight) run(ctx context.Context, picker Picker) {
	for {
		choice, err := picker.Next()
		if err != nil {
			f.exhausted(err)
			return
		}
		if choice.Public != f.req.Model { // A fallback model answers in place of the one that was asked for.
			f.out.Decision = DecisionFailover
		}
		if f.out.Attempts > 0 {
			f.out.Decision = DecisionFailover
			if err := f.pause(ctx); err != nil {
				choice.Lease.Done(fleet.Result{Kind: fleet.Neutral})
				f.fail(err)
				return
			}
		}
		f.out.Attempts++
		f.out.Backend, f.out.BackendModel, f.out.Warning = choice.Lease.Backend().ID(), choice.Model, picker.Warning()
		res := f.try(ctx, choice)
		if res.err == nil {
			return
		}
		if f.out.Sent || !res.next {
			f.fail(res.err)
			return
		}
		f.failures = append(f.failures, fault.From(res.err))
	}
}

// try makes one attempt and gives its lease back, also when the attempt panics: that says nothing about the backend.
func (f *flight) try(ctx context.Context, choice fleet.Choice) (res result) {
	f.embark(choice)
	counted := f.metrics.of(choice.Lease.Backend())
	res.err = errUnfinished // What stays when the attempt panics.
	defer func() {
		choice.Lease.Done(res.health)
		f.arrive(res)
		counted.observe(f, &res)
	}()
	return f.attempt(ctx, choice)
}

// result is how one attempt ended.
type result struct {
	health fleet.Result // what the attempt says about the backend
	err    error        // nil: the client has a whole answer
	next   bool         // another backend may be tried
}

// pause waits before the third and later attempts, with jitter, so that a failing pool is not hammered.
func (f *flight) pause(ctx context.Context) error {
	if f.out.Attempts < 2 || f.req.Backoff <= 0 {
		return left(ctx)
	}
	wait := min(f.req.Backoff<<min(f.out.Attempts-2, 10), maxBackoff)
	wait = wait/2 + rand.N(wait/2+1)
	start := time.Now()
	defer func() { f.out.Waited += time.Since(start) }()
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return left(ctx)
	}
}

// exhausted turns the failures of all attempts into the one error that the client gets.
func (f *flight) exhausted(none error) {
	if len(f.failures) == 0 || fault.CodeOf(none) == fault.ModelDisabled { // A backend that is switched off cuts what runs there.
		f.fail(none)
		return
	}
	last := f.failures[len(f.failures)-1]
	for _, e := range f.failures {
		if e.Code != fault.BackendOverloaded {
			// A full backend is the weakest reason: whatever else went wrong says more.
			if last.Code == fault.BackendOverloaded {
				last = e
			}
			continue
		}
		if last.Code == fault.BackendOverloaded && e.RetryAfter > 0 && (last.RetryAfter == 0 || e.RetryAfter < last.RetryAfter) {
			last = e
		}
	}
	f.fail(last)
}

func (f *flight) fail(err error) {
	f.out.Err = err
	switch fault.CodeOf(err) {
	case fault.ClientClosed:
		f.out.Stop = usage.StopClientGone
	case fault.Draining:
		f.out.Stop = usage.StopKilled
	case fault.BackendTimeout:
		f.out.Stop = usage.StopTimeout
	default:
		f.out.Stop = usage.StopBackendError
	}
}

// left says why the request itself is over: the client closed its connection, or the router is shutting down.
// It is nil while the request is wanted.
func left(ctx context.Context) error {
	if ctx.Err() == nil {
		return nil
	}
	cause := context.Cause(ctx)
	if fault.CodeOf(cause) == fault.Draining {
		return cause
	}
	return fault.New(fault.ClientClosed, "the client closed the connection before the answer was complete").WithCause(cause)
}
