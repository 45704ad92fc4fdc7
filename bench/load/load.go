// Package load makes HTTP/1.1 load with as little CPU as it can, because it shares the machine with what it measures: requests are
// bytes made beforehand, one goroutine serves a connection, and a reply is read only as far as its status and its framing.
//
// Closed keeps a number of connections busy, Open sends at a constant rate and measures from the times at which requests were due,
// Streams holds event streams open and watches their events.
package load

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Window says when of a run counts. Everything before it warms up.
type Window struct {
	Warmup time.Duration // from the start of the load to the window
	Length time.Duration
	// Begin and End are called at the window's edges, while the load runs; nil for nothing.
	Begin, End func()
}

// edges waits for both edges of the window, counting from start, and calls mark within them: after Begin and before End. It gives up
// when ctx ends.
func (w *Window) edges(ctx context.Context, start time.Time, mark func(begin bool)) {
	if !sleep(ctx, time.Until(start.Add(w.Warmup))) {
		return
	}
	if w.Begin != nil {
		w.Begin()
	}
	mark(true)
	if !sleep(ctx, time.Until(start.Add(w.Warmup+w.Length))) {
		return
	}
	mark(false)
	if w.End != nil {
		w.End()
	}
}

// Target is what every kind of load sends, and what it expects.
type Target struct {
	Address string // host:port
	Request []byte // a whole request, head and body
	// Length is the length that every answer's body must have, in bytes; 0 for any. A stream is checked by its events instead.
	Length int64
}

// Result is what Closed and Open saw within their window.
type Result struct {
	Requests uint64 // answered well
	Elapsed  time.Duration
	Latency  Histogram
	// Late is by how much Open was late with its own sends: how far to trust its latencies.
	Late Histogram

	Failures
}

// Failures count what went wrong in the whole run, warm-up included.
type Failures struct {
	Failed uint64
	First  error // the first of them
}

// tally collects failures from many goroutines.
type tally struct {
	mu sync.Mutex
	Failures
}

// maxFailures ends a run that has become pointless.
const maxFailures = 1000

// add counts a failure and says whether the run should go on.
func (t *tally) add(err error) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.Failed++
	if t.First == nil {
		t.First = err
	}
	return t.Failed < maxFailures
}

// check is an error for an answer that is not what it should be.
func (t *Target) check(status int, length int64) error {
	if status != 200 {
		return fmt.Errorf("status %d", status)
	}
	if t.Length > 0 && length != t.Length {
		return fmt.Errorf("a body of %d bytes in place of %d", length, t.Length)
	}
	return nil
}

const (
	retryPause = 20 * time.Millisecond
	dialers    = 64
)

// dialAll opens n connections, some at a time.
func dialAll(ctx context.Context, address string, n int) ([]*Conn, error) {
	conns := make([]*Conn, n)
	errs := make([]error, min(n, dialers))
	var next atomic.Int64
	var wg sync.WaitGroup
	for d := range errs {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				if conns[i], errs[d] = Dial(ctx, address); errs[d] != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		closeAll(conns)
		return nil, err
	}
	return conns, nil
}

func closeAll(conns []*Conn) {
	for _, c := range conns {
		if c != nil {
			_ = c.Close() // Nothing is left to be written.
		}
	}
}

// sleep waits for d, or until ctx ends, and says whether it was d.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
