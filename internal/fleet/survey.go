package fleet

import "time"

// Preview is what a Picker would choose.
type Preview struct {
	Backend string
	Model   string // the backend's own name of the model
	// Among is how many backends the strategy had to choose from.
	Among int
	// Forced says that the backend is ejected, and would be tried because most of the route's backends are out.
	Forced   bool
	Degraded bool // as in Choice
	Avoided  bool // as in Choice
}

// Peek tells what Next would choose now, and counts it as chosen: calling it again tells what would be tried after a failure
// there. It takes no lease, moves no rotation and changes nothing of the fleet. Where a strategy draws by chance, so does Peek.
// The error is an *Exhausted when none is left.
func (p *Picker) Peek() (Preview, error) {
	now := p.fleet.now()
	t, ok := p.turn(now, true)
	if !ok {
		return Preview{}, p.exhausted(now)
	}
	b := t.entry.backend
	name, _ := b.ModelName(p.ask.Model)
	return Preview{Backend: b.id, Model: name, Among: t.among, Forced: t.forced, Degraded: t.entry.last, Avoided: t.avoided}, nil
}

// Standing is how a candidate stands, whether it can be chosen or not. It is for operators.
type Standing struct {
	ID       string `json:"id"`
	Weight   int    `json:"weight"`
	Tier     int    `json:"tier"`
	Degraded bool   `json:"degraded,omitempty"` // by the route or by a mark
	// State is available, unhealthy, ejected, resting, full, disabled, draining or missing.
	State    string `json:"state"`
	Mark     Mark   `json:"mark,omitzero"`
	InFlight int64  `json:"in_flight"`
	Capacity int    `json:"max_concurrency,omitempty"` // 0: no cap
	// LastError is what the latest probe found, or what the backend was ejected for; "" while all is well.
	LastError string `json:"last_error,omitempty"`
	// ModelName is the backend's own name for the asked model. Known says that the backend is known to serve it.
	ModelName string `json:"model,omitempty"`
	Known     bool   `json:"known"`
}

// stateMissing is the State of a candidate that the fleet does not have.
const stateMissing = "missing"

// Survey describes every candidate of the Ask in its order, also those that were chosen before.
func (p *Picker) Survey() []Standing {
	now := p.fleet.now()
	standings := make([]Standing, 0, len(p.ask.Candidates))
	at := 0
	for _, c := range p.ask.Candidates {
		s := Standing{ID: c.Backend, Weight: c.Weight, Tier: c.Tier, Degraded: c.Degraded, State: stateMissing}
		if at < len(p.entries) && p.entries[at].backend.id == c.Backend {
			e := &p.entries[at]
			at++
			p.follow(e)
			e.backend.survey(now, p.ask.Model, &s)
		}
		standings = append(standings, s)
	}
	return standings
}

func (b *Backend) survey(now time.Duration, model string, s *Standing) {
	standing, degraded := b.stand(now)
	if standing == gone {
		return
	}
	s.State = standing.String()
	s.Degraded = s.Degraded || degraded
	s.Mark = b.markNow(now)
	s.InFlight = b.inFlight.Load()
	s.Capacity = max(0, b.spec.Load().MaxConcurrency)
	s.LastError = b.lastError()
	s.ModelName, s.Known = b.ModelName(model)
}
