package gateway

import (
	"sync/atomic"
	"time"
)

// floodShare of the access lines are written while there are too many: every hundredth.
const floodShare = 100

// pace bounds the access lines of one second, so that a flood of requests does not become one of log lines. Two requests that meet at
// the turn of a second may be counted in either.
type pace struct {
	limit int64 // lines in a second; 0: no bound

	second atomic.Int64 // Unix
	seen   atomic.Int64 // in that second
	left   atomic.Int64 // left out since the last line that was written
}

// admit reports whether a line is written now, and how many were left out since the one before.
func (p *pace) admit(now time.Time) (left int64, ok bool) {
	if p.limit <= 0 {
		return 0, true
	}
	second := now.Unix()
	if before := p.second.Load(); before != second && p.second.CompareAndSwap(before, second) {
		p.seen.Store(0)
	}
	if n := p.seen.Add(1) - p.limit; n > 0 && n%floodShare != 0 {
		p.left.Add(1)
		return 0, false
	}
	if p.left.Load() == 0 { // Spares a write to what every request shares.
		return 0, true
	}
	return p.left.Swap(0), true
}
