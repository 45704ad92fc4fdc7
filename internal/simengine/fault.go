package simengine

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// Fault is a way for an engine to misbehave. The zero value is none. Its parts add up: an engine can answer late and then
// hang. All but Unhealthy concern the inference endpoints alone.
type Fault struct {
	Times     int  // how many requests it hits; 0 means all, until the next SetFault
	Unhealthy bool // GET /health answers 503

	Delay time.Duration // pause before anything else happens, of the clock and not divided by Config.Speed

	Status     int           // refuse with this status
	RetryAfter time.Duration // goes with Status, in whole seconds, rounded up

	Ending Ending // how an answer ends
	After  int    // events of a stream that are sent before the Ending; -1: nothing at all, not even the response's head
}

// Ending is how an answer ends. The first event of a chat's stream has only the role. An answer that is no stream has no
// events: it hangs or closes before its first byte, and a truncated one is the first half of its body.
type Ending uint8

// The endings.
const (
	Complete Ending = iota // as it should
	Hang                   // the connection stays open and silent until the client leaves
	Close                  // the connection is closed in the middle of the response
	Truncate               // the response ends well-formed, without finish_reason and [DONE]
)

// errCut ends a handler whose answer a fault has ended.
var errCut = errors.New("answer cut off by a fault")

type activeFault struct {
	Fault
	left atomic.Int64
}

// SetFault replaces the fault that requests meet from now on. Requests that are under way keep theirs.
func (e *Engine) SetFault(f Fault) {
	active := &activeFault{Fault: f}
	active.left.Store(math.MaxInt64)
	if f.Times > 0 {
		active.left.Store(int64(f.Times))
	}
	e.fault.Store(active)
}

// takeFault returns the fault that this request meets.
func (e *Engine) takeFault() Fault {
	active := e.fault.Load()
	if active.left.Add(-1) < 0 {
		return Fault{}
	}
	return active.Fault
}

// strike is what the fault does before a request is looked at. The answer goes to the writer that it returns.
func (f Fault) strike(w http.ResponseWriter, r *http.Request) (http.ResponseWriter, error) {
	if f == (Fault{}) {
		return w, nil
	}
	// Only after the end of the body does net/http notice a client that leaves.
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return w, bodyError(err)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	if f.Delay > 0 && !sleep(r.Context(), f.Delay) {
		return w, r.Context().Err()
	}
	if f.Status != 0 {
		if f.RetryAfter > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(f.RetryAfter.Seconds()))))
		}
		kind := strings.ReplaceAll(http.StatusText(f.Status), " ", "") + "Error"
		return w, &apiError{status: f.Status, kind: kind, message: "The engine refuses by order."}
	}
	switch {
	case f.Ending == Complete:
		return w, nil
	case f.After < 0:
		return w, f.Ending.now(r.Context())
	}
	return &cutWriter{ResponseWriter: w, ctx: r.Context(), ending: f.Ending, left: f.After}, nil
}

// now ends the response at this point.
func (n Ending) now(ctx context.Context) error {
	switch n {
	case Hang:
		<-ctx.Done()
	case Close:
		panic(http.ErrAbortHandler)
	case Truncate, Complete:
	}
	return errCut
}

func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// cutWriter ends a response early. It relies on each event of a stream being one Write.
type cutWriter struct {
	http.ResponseWriter
	ctx    context.Context
	ending Ending
	left   int
}

func (c *cutWriter) Write(p []byte) (int, error) {
	stream := strings.HasPrefix(c.Header().Get("Content-Type"), streamType)
	if stream && c.left > 0 {
		c.left--
		return c.ResponseWriter.Write(p)
	}
	switch {
	case stream && c.left == 0:
		c.left = -1
		c.Flush() // what was sent before must arrive
	case c.ending == Truncate && !stream:
		c.Header().Del("Content-Length")
		_, _ = c.ResponseWriter.Write(p[:len(p)/2]) // the answer is spoilt either way
	}
	return 0, c.ending.now(c.ctx)
}

// Flush implements http.Flusher. A handler always finds it, whatever is behind.
func (c *cutWriter) Flush() { _ = http.NewResponseController(c.ResponseWriter).Flush() }
