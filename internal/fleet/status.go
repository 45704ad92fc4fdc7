package fleet

import (
	"time"
)

// Status is a backend as an operator sees it. It holds the URL, so it is not for clients; it holds no secret.
type Status struct {
	ID           string        `json:"id"`
	URL          string        `json:"url"`
	Engine       string        `json:"engine,omitempty"`
	State        string        `json:"state"`             // available, full, resting, ejected, unhealthy, draining, disabled
	Since        time.Time     `json:"since,omitzero"`    // when it came into that state; being full does not count as one
	Reason       string        `json:"reason,omitempty"`  // why it is not available; of a mark what the operator gave
	Mark         Mark          `json:"mark,omitzero"`     // the operator's, as long as it holds
	Probe        string        `json:"probe"`             // unknown, healthy, unhealthy
	Probed       time.Time     `json:"probed"`            // the latest sign of life or death; zero: none yet
	Listing      string        `json:"listing,omitempty"` // why its list of models could not be had
	InFlight     int64         `json:"in_flight"`         // what runs; from Fleet.Status also on what Apply has replaced under the id
	Limit        int           `json:"max_concurrency,omitempty"`
	Failures     int           `json:"consecutive_failures"`
	EjectedUntil time.Time     `json:"ejected_until,omitzero"`
	LastError    string        `json:"last_error,omitempty"` // what the latest probe found, or what it was ejected for; whatever its state
	Back         time.Duration `json:"-"`                    // how long until it may be tried again, 0 when available or not known
	Models       []Model       `json:"-"`
}

// Status describes the backend now.
func (b *Backend) Status() Status {
	now := b.now()
	standing := b.standing(now)
	spec := b.spec.Load()
	s := Status{
		ID:        b.id,
		URL:       b.base.String(),
		Engine:    spec.Engine,
		State:     standing.String(),
		Since:     wall(b.since(standing, now), now),
		Mark:      b.markNow(now),
		InFlight:  b.inFlight.Load(),
		Limit:     max(0, spec.MaxConcurrency),
		Failures:  int(b.failures.Load()),
		LastError: b.lastError(),
		Back:      b.back(standing, now),
		Models:    b.Models(),
	}
	if until := time.Duration(b.ejectedUntil.Load()); until > now {
		s.EjectedUntil = wall(until, now)
	}
	b.probing.mu.Lock()
	s.Probe = probeState(b.probed.Load()).String()
	s.Probed = b.probing.last
	s.Listing = b.probing.listing
	problem := b.probing.problem
	b.probing.mu.Unlock()
	switch standing {
	case unhealthy:
		s.Reason = problem
	case ejected:
		b.ejection.mu.Lock()
		s.Reason = b.ejection.reason
		b.ejection.mu.Unlock()
	case resting:
		s.Reason = Saturated.String()
	case full:
		s.Reason = "max_concurrency is reached"
	case disabled, draining:
		s.Reason = s.Mark.Reason
	case open, gone:
	}
	return s
}

// wall is a moment of the fleet's clock, which shows now, on the wall's.
func wall(moment, now time.Duration) time.Time { return time.Now().Add(moment - now) }

// lastError is what is wrong with the backend, whatever keeps requests from it.
func (b *Backend) lastError() string {
	b.probing.mu.Lock()
	problem := b.probing.problem
	b.probing.mu.Unlock()
	if problem == "" && b.ejectedUntil.Load() != 0 {
		b.ejection.mu.Lock()
		defer b.ejection.mu.Unlock()
		return b.ejection.reason
	}
	return problem
}

// since is when the backend came into the state that it is in.
func (b *Backend) since(s state, now time.Duration) time.Duration {
	switch s {
	case disabled, draining:
		if m := b.marked(now); m != nil {
			return m.since
		}
	case unhealthy:
		b.probing.mu.Lock()
		defer b.probing.mu.Unlock()
		return b.probing.flipped
	case ejected:
		b.ejection.mu.Lock()
		defer b.ejection.mu.Unlock()
		return b.ejection.began
	case resting:
		return time.Duration(b.restingFrom.Load())
	case open, full, gone:
	}
	return b.openSince(now)
}

// openSince is the latest moment at which anything kept requests from the backend.
func (b *Backend) openSince(now time.Duration) time.Duration {
	latest := max(b.born, time.Duration(b.unmarked.Load()))
	if m := b.mark.Load(); m != nil && m.bars != open && m.until <= now {
		latest = max(latest, m.until)
	}
	if until := time.Duration(b.restingUntil.Load()); until <= now {
		latest = max(latest, until)
	}
	b.probing.mu.Lock()
	latest = max(latest, b.probing.returned)
	b.probing.mu.Unlock()
	b.ejection.mu.Lock()
	defer b.ejection.mu.Unlock()
	return max(latest, b.ejection.ended)
}

// back is how long until a backend in that standing may be tried again. Nobody knows when a full one has room.
func (b *Backend) back(s state, now time.Duration) time.Duration {
	var until int64
	switch s {
	case resting:
		until = b.restingUntil.Load()
	case ejected:
		until = b.ejectedUntil.Load()
	case unhealthy:
		until = b.nextProbe.Load()
	case disabled, draining:
		if m := b.marked(now); m != nil && m.until != forever {
			until = int64(m.until)
		}
	case open, full, gone:
	}
	return max(0, time.Duration(until)-now)
}
