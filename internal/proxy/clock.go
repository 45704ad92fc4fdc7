package proxy

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/ai-aas/api-router/internal/fault"
)

type phase int32

const (
	phaseFirstByte phase = iota
	phaseBetweenBytes
	phaseTotal
)

func (p phase) String() string {
	switch p {
	case phaseFirstByte:
		return "begin its answer"
	case phaseBetweenBytes:
		return "send the next part of its answer"
	default:
		return "finish its answer"
	}
}

// clock bounds the phases of one attempt with a single timer. When a limit passes, it cancels the attempt with the cause.
type clock struct {
	timer *time.Timer
	total time.Duration
	end   time.Time // of the whole attempt; it moves on while the clock rests
	since time.Time // when the clock was put to rest; zero while it runs

	phase atomic.Int32 // read by the timer's goroutine, as is limit
	limit atomic.Int64 // nanoseconds
}

func newClock(cancel context.CancelCauseFunc, total time.Duration) *clock {
	c := &clock{total: total, end: time.Now().Add(total)}
	c.phase.Store(int32(phaseTotal))
	c.limit.Store(int64(total))
	c.timer = time.AfterFunc(total, func() {
		cancel(fault.Newf(fault.BackendTimeout, "the backend did not %s within %v; retry, or ask for a shorter answer",
			phase(c.phase.Load()), time.Duration(c.limit.Load())))
	})
	return c
}

// arm starts the limit of a phase, or of the whole attempt if that ends sooner.
func (c *clock) arm(limit time.Duration, p phase) {
	if !c.since.IsZero() {
		c.end = c.end.Add(time.Since(c.since))
		c.since = time.Time{}
	}
	wait := limit
	if rest := time.Until(c.end); rest < limit {
		wait, limit, p = max(rest, 0), c.total, phaseTotal
	}
	c.phase.Store(int32(p))
	c.limit.Store(int64(limit))
	c.timer.Reset(wait)
}

// rest stops all limits, the total too: while we wait for the client, not for the backend, and at the end.
func (c *clock) rest() {
	c.timer.Stop()
	c.since = time.Now()
}

// endIn makes the whole attempt end within d from now.
func (c *clock) endIn(d time.Duration) { c.end, c.since = time.Now().Add(d), time.Time{} }
