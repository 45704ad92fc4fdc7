package fleet

import (
	"math"
	"time"
)

// The states of a Mark.
const (
	MarkDisabled = "disabled" // no request; what runs is cut off
	MarkDraining = "draining" // no new request; what runs may finish
	MarkDegraded = "degraded" // only when there is nothing else
)

// Mark is an operator's hand on a backend.
type Mark struct {
	// State is MarkDisabled, MarkDraining or MarkDegraded. Any other is no mark.
	State string `json:"state"`
	// Until is when the mark ends by itself; zero: when it is taken away.
	Until  time.Time `json:"until,omitzero"`
	Reason string    `json:"reason,omitempty"`
}

// mark is a Mark on the fleet's own clock. It is never changed.
type mark struct {
	Mark

	bars  state         // disabled or draining; open for a mark that keeps no request out
	since time.Duration // when the fleet was told
	until time.Duration // exclusive
}

// forever is the end of a mark that has none.
const forever = time.Duration(math.MaxInt64)

// newMark puts m on a clock that shows now. It returns nil for what is no mark, or one no more.
func newMark(m Mark, now time.Duration) *mark {
	made := &mark{Mark: m, since: now, until: forever}
	switch m.State {
	case MarkDisabled:
		made.bars = disabled
	case MarkDraining:
		made.bars = draining
	case MarkDegraded:
		made.bars = open
	default:
		return nil
	}
	if !m.Until.IsZero() {
		left := time.Until(m.Until)
		if left <= 0 {
			return nil
		}
		made.until = now + min(left, forever-now)
	}
	return made
}

func (k *mark) isDisabled() bool { return k != nil && k.bars == disabled }

// same reports whether a mark says what m says.
func (k *mark) same(m Mark) bool {
	return k != nil && k.State == m.State && k.Reason == m.Reason && k.Until.Equal(m.Until)
}

// SetMarks makes marks, by backend id, the whole set of marks. A mark whose backend the fleet does not have waits for it, and a
// mark stays when Apply replaces the backend under its id. Each ends by itself at its Until, which is put on the monotonic clock
// here: a wall clock that is set later moves it only when the mark is set anew with another Until.
//
// A backend that becomes disabled loses every connection at once, and so does what it was before Apply replaced or removed it:
// requests that run there fail as if the backend had hung up, which is not held against it.
func (f *Fleet) SetMarks(marks map[string]Mark) {
	f.applying.Lock()
	defer f.applying.Unlock()
	now := f.now()
	next := make(map[string]*mark, len(marks))
	for id, m := range marks {
		if known := f.marks[id]; known.same(m) {
			next[id] = known
		} else if made := newMark(m, now); made != nil {
			next[id] = made
		}
	}
	f.marks = next
	for _, b := range *f.backends.Load() {
		b.setMark(next[b.id], now)
	}
	for _, b := range *f.leaving.Load() {
		b.setMark(next[b.id], now)
	}
}

// setMark puts a mark on the backend, or takes the one it has off. One that has ended may stay until somebody deletes it: it changes nothing.
func (b *Backend) setMark(m *mark, now time.Duration) {
	before := b.marked(now)
	known := b.mark.Swap(m)
	if known != nil && known != m && known.bars != open {
		b.unmarked.Store(int64(min(now, known.until)))
	}
	holds := b.marked(now)
	if holds == before {
		return
	}
	if holds.isDisabled() && !before.isDisabled() {
		b.cut()
	}
	if holds == nil {
		b.log.Info("backend mark removed", "mark", before.State)
		return
	}
	b.log.Info("backend marked", "mark", holds.State, "reason", holds.Reason, "until", holds.Until)
}

// marked is the operator's voice: the mark that holds now, or nil.
func (b *Backend) marked(now time.Duration) *mark {
	m := b.mark.Load()
	if m == nil || now >= m.until {
		return nil
	}
	return m
}

// markNow is the mark that holds now; the zero Mark when none does.
func (b *Backend) markNow(now time.Duration) Mark {
	if m := b.marked(now); m != nil {
		return m.Mark
	}
	return Mark{}
}
