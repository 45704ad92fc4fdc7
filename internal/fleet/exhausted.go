package fleet

import (
	"fmt"
	"strings"
	"time"
)

// Exhausted says that no candidate is left for a request, and why. Each candidate counts once.
type Exhausted struct {
	Candidates int
	Missing    int // not known to the fleet, or retired
	Unhealthy  int
	Ejected    int
	Resting    int
	Full       int
	Disabled   int // by an operator's mark
	Draining   int // by an operator's mark
	Tried      int // available, but this request has had them
	// RetryAfter is how long until the first of them may come back; zero when nobody knows.
	RetryAfter time.Duration
}

// Add counts the candidates of another route in.
func (e *Exhausted) Add(other Exhausted) {
	e.Candidates += other.Candidates
	e.Missing += other.Missing
	e.Unhealthy += other.Unhealthy
	e.Ejected += other.Ejected
	e.Resting += other.Resting
	e.Full += other.Full
	e.Disabled += other.Disabled
	e.Draining += other.Draining
	e.Tried += other.Tried
	if e.RetryAfter == 0 || other.RetryAfter > 0 && other.RetryAfter < e.RetryAfter {
		e.RetryAfter = other.RetryAfter
	}
}

// AllSaturated reports whether every candidate that no operator has taken out is there and well, and merely has no room.
func (e *Exhausted) AllSaturated() bool {
	left := e.Candidates - e.Disabled - e.Draining
	return left > 0 && e.Resting+e.Full == left
}

// Reason says in plain words why nothing is left, such as "3 backends: 2 unhealthy, 1 full". It names no backend.
func (e *Exhausted) Reason() string {
	if e.Candidates == 0 {
		return "no backends"
	}
	var parts []string
	for _, part := range [...]struct {
		n    int
		what string
	}{
		{e.Unhealthy, "unhealthy"},
		{e.Ejected, "failing"},
		{e.Resting, "asking for a pause"},
		{e.Full, "full"},
		{e.Disabled, "switched off"},
		{e.Draining, "being drained"},
		{e.Tried, "tried"},
		{e.Missing, "not configured"},
	} {
		if part.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", part.n, part.what))
		}
	}
	noun := "backends"
	if e.Candidates == 1 {
		noun = "backend"
	}
	return fmt.Sprintf("%d %s: %s", e.Candidates, noun, strings.Join(parts, ", "))
}

func (e *Exhausted) Error() string { return "no backend is left: " + e.Reason() }

// exhausted counts why. It is the concrete type behind the error that Next returns.
func (p *Picker) exhausted(now time.Duration) error {
	e := &Exhausted{Candidates: len(p.ask.Candidates), Missing: len(p.ask.Candidates) - len(p.entries)}
	for i := range p.entries {
		b := p.entries[i].backend
		s := b.standing(now)
		switch s {
		case gone:
			e.Missing++
		case unhealthy:
			e.Unhealthy++
		case ejected:
			e.Ejected++
		case resting:
			e.Resting++
		case full:
			e.Full++
		case disabled:
			e.Disabled++
		case draining:
			e.Draining++
		case open:
			if p.entries[i].tried {
				e.Tried++
			} else {
				e.Full++ // It had room again only after somebody else had taken the last place.
			}
		}
		if back := b.back(s, now); back > 0 && (e.RetryAfter == 0 || back < e.RetryAfter) {
			e.RetryAfter = back
		}
	}
	return e
}
