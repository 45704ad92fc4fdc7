package userorg

import (
	"math/rand/v2"
	"sync"
	"time"
)

// How a service that does not answer is left in peace. The pauses are short: each of them is a time in which no new key is let in.
const (
	breakAfter = 5 // failures in a row
	breakFirst = 500 * time.Millisecond
	breakLast  = 10 * time.Second
)

// breaker keeps questions from a service that has failed breakAfter times in a row. After a pause, which doubles from breakFirst to breakLast
// with some chance in it, one question goes through as a probe (half open); its answer closes the breaker, its failure begins the next pause.
type breaker struct {
	mu       sync.Mutex
	failures int // in a row
	pause    time.Duration
	until    time.Time // when the next probe may be; zero while closed
	probing  bool
	failure  string // the latest, "" after an answer
	since    time.Time
}

// enter reports whether a question may be asked now. Who may must call leave with what came of it.
func (b *breaker) enter(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.until.IsZero() {
		return true
	}
	if b.probing || now.Before(b.until) {
		return false
	}
	b.probing = true
	return true
}

// result is what came of a question.
type result int

const (
	answered result = iota
	failed
	abandoned // by who asked: nothing is known
)

// leave takes note of what came of a question, and says whether the breaker opened or closed by it.
func (b *breaker) leave(now time.Time, r result, failure string) (opened, closed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	wasOpen := !b.until.IsZero()
	b.probing = false
	switch r {
	case answered:
		b.failures, b.pause, b.until, b.failure, b.since = 0, 0, time.Time{}, "", time.Time{}
		return false, wasOpen
	case failed:
		if b.failure == "" {
			b.since = now
		}
		b.failure = failure
		if b.failures++; b.failures < breakAfter {
			return false, false
		}
		if wasOpen && now.Before(b.until) {
			return false, false // One that was asked before it opened.
		}
		b.pause = min(max(2*b.pause, breakFirst), breakLast)
		b.until = now.Add(b.pause*3/4 + rand.N(b.pause/4+1))
		return !wasOpen, false
	}
	return false, false
}

// state gives what is wrong, since when, and whether the breaker is open.
func (b *breaker) state() (failure string, since time.Time, open bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.failure, b.since, !b.until.IsZero()
}
