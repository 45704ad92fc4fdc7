package fleet

import (
	"time"
)

// Status is a backend as an operator sees it. It holds the URL, so it is not for clients; it holds no secret.
type Status struct {
	ID       string        `json:"id"`
	URL      string        `json:"url"`
	Engine   string        `json:"engine,omitempty"`
	State    string        `json:"state"`             // available, full, resting, ejected, unhealthy
	Reason   string        `json:"reason,omitempty"`  // why it is not available
	Probe    string        `json:"probe"`             // unknown, healthy, unhealthy
	Probed   time.Time     `json:"probed"`            // the latest sign of life or death; zero: none yet
	Listing  string        `json:"listing,omitempty"` // why its list of models could not be had
	InFlight int64         `json:"in_flight"`
	Limit    int           `json:"max_concurrency,omitempty"`
	Failures int           `json:"consecutive_failures"`
	Back     time.Duration `json:"-"` // how long until it may be tried again, 0 when available or not known
	Models   []Model       `json:"-"`
}

// Status describes the backend now.
func (b *Backend) Status() Status {
	now := b.now()
	standing := b.standing(now)
	spec := b.spec.Load()
	s := Status{
		ID:       b.id,
		URL:      b.base.String(),
		Engine:   spec.Engine,
		State:    standing.String(),
		InFlight: b.inFlight.Load(),
		Limit:    max(0, spec.MaxConcurrency),
		Failures: int(b.failures.Load()),
		Back:     b.back(standing, now),
		Models:   b.Models(),
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
	case open, gone:
	}
	return s
}

// back is how long until a backend in that standing may be tried again. Nobody knows when a full one has room.
func (b *Backend) back(s standing, now time.Duration) time.Duration {
	var until int64
	switch s {
	case resting:
		until = b.restingUntil.Load()
	case ejected:
		until = b.ejectedUntil.Load()
	case unhealthy:
		until = b.nextProbe.Load()
	case open, full, gone:
	}
	return max(0, time.Duration(until)-now)
}
