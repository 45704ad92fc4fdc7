package fleet

import (
	"cmp"
	"math/rand/v2"
	"time"

	"github.com/cespare/xxhash/v2"
)

// Candidate is a backend that a route names.
type Candidate struct {
	Backend string
	// Weight is the share within the tier. Zero or less: only when there is nothing else in any tier.
	Weight int
	// Tier orders the groups: a tier is used only when the lower ones have nobody available.
	Tier int
	// Degraded keeps the backend for when no other in any tier can be leased, as the mark of that name does.
	Degraded bool
}

// Ask is what a request wants from the fleet.
type Ask struct {
	Model      string // public name
	Route      string // key of the route's round for StrategyRoundRobin
	Candidates []Candidate
	// Strategy decides within a tier. "" and unknown names mean StrategyAdaptive: where weights differ, the weighted
	// share; among equal weights the fewest requests in flight, ties by chance.
	Strategy string
	// Session keeps requests of one session on one backend with StrategySession; without it that is StrategyAdaptive.
	Session string
	// EjectAfter consecutive failures eject. Zero or less: DefaultEjectAfter.
	EjectAfter int
}

// Choice is a lease and what to ask the backend for.
type Choice struct {
	Lease  *Lease
	Model  string // the backend's own name of the model
	Public string // the name that the client may see
	// Degraded says that the backend is degraded, and was taken because no other could be.
	Degraded bool
	// Avoided says that a degraded backend was available and was passed over.
	Avoided bool
	// Among and Forced are as in Preview.
	Among  int
	Forced bool
}

// Picker hands out the backends of one request, the best first. It is not safe for concurrent use.
type Picker struct {
	fleet   *Fleet
	ask     Ask
	entries []entry

	inline  [4]entry
	options []option
	scratch [4]option

	rehearsal *rotation // what Peek turns in place of the route's
}

type entry struct {
	backend  *Backend
	weight   int
	tier     int
	degraded bool // by the route
	last     bool // degraded by the route or by a mark, when it was looked at last
	tried    bool
	lost     bool // somebody else took the last place during this turn
}

// Picker begins the choice for one request. It takes no lease yet.
func (f *Fleet) Picker(ask Ask) *Picker {
	p := &Picker{fleet: f, ask: ask}
	p.entries = p.inline[:0]
	p.options = p.scratch[:0]
	if p.ask.EjectAfter <= 0 {
		p.ask.EjectAfter = DefaultEjectAfter
	}
	backends := *f.backends.Load()
	for _, c := range ask.Candidates {
		b := backends[c.Backend]
		if b != nil {
			p.entries = append(p.entries, entry{backend: b, weight: c.Weight, tier: c.Tier, degraded: c.Degraded})
		}
	}
	return p
}

// Next chooses a backend that this Picker has not chosen before and takes a lease on it. The error is an *Exhausted when
// none is left.
//
// A disabled or draining backend is never chosen, and a degraded one only when no other is available in any tier.
// Ejection alone cannot black a route out: when more than half of the candidates that no operator has taken out are
// ejected or unhealthy, the ejected ones are tried after all, behind everything that is available.
func (p *Picker) Next() (Choice, error) {
	now := p.fleet.now()
	t, ok := p.turn(now, false)
	if !ok {
		return Choice{}, p.exhausted(now)
	}
	name, _ := t.entry.backend.ModelName(p.ask.Model)
	return Choice{Lease: t.lease, Model: name, Public: p.ask.Model, Degraded: t.entry.last, Avoided: t.avoided, Among: t.among, Forced: t.forced}, nil
}

// turn is one choice and how it came about.
type turn struct {
	entry   *entry
	lease   *Lease // nil in a rehearsal
	among   int    // how many the strategy had to choose from
	forced  bool   // an ejected backend, because most are out
	avoided bool   // a degraded one was available
}

// turn makes the next choice, or reports false when nothing is left. A rehearsal takes no lease and moves no rotation.
func (p *Picker) turn(now time.Duration, rehearse bool) (turn, bool) {
	for i := range p.entries {
		p.entries[i].lost = false
		p.follow(&p.entries[i])
	}
	for _, force := range [...]bool{false, true} {
		if force && !p.mostlyOut(now) {
			break
		}
		for {
			chosen, avoided := p.choose(now, force, rehearse)
			if chosen == nil {
				break
			}
			var lease *Lease
			if !rehearse {
				var ok bool
				if lease, ok = chosen.backend.acquire(now, p.ask.EjectAfter, force); !ok {
					chosen.lost = !p.follow(chosen)
					continue
				}
			}
			p.markTried(chosen.backend)
			return turn{entry: chosen, lease: lease, among: len(p.options), forced: force, avoided: avoided}, true
		}
	}
	return turn{}, false
}

// choose finds the best entry, or nil, and reports whether it is preferred to a degraded one. With force an ejected backend
// may be taken.
func (p *Picker) choose(now time.Duration, force, rehearse bool) (chosen *entry, avoided bool) {
	options := p.options[:0]
	spare := false   // a degraded one is available
	var group *entry // the first of the group that options are of
	for i := range p.entries {
		e := &p.entries[i]
		if e.tried || e.lost {
			continue
		}
		s, degraded := e.backend.stand(now)
		if s != open && !(force && s == ejected && !e.backend.resting(now) && !e.backend.full()) {
			continue
		}
		e.last = e.degraded || degraded
		spare = spare || e.last && s == open
		switch order := e.compare(group); {
		case order > 0:
			continue
		case order < 0:
			group = e
			options = options[:0]
		}
		options = append(options, option{
			id: e.backend.id, entry: i, weight: max(e.weight, 1), load: e.backend.inFlight.Load(), place: e.backend.place,
		})
	}
	p.options = options
	switch len(options) {
	case 0:
		return nil, false
	case 1:
		chosen = group
	default:
		chosen = &p.entries[options[p.pick(options, rehearse)].entry]
	}
	return chosen, spare && !chosen.last
}

// compare orders entries by group: those that are not degraded first, of them those with a weight, then by tier. Any entry
// is before nil.
func (e *entry) compare(other *entry) int {
	switch {
	case other == nil:
		return -1
	case e.last != other.last:
		return before(other.last)
	case (e.weight > 0) != (other.weight > 0):
		return before(e.weight > 0)
	}
	return cmp.Compare(e.tier, other.tier)
}

// before is the order of two of which one comes first.
func before(first bool) int {
	if first {
		return -1
	}
	return 1
}

func (p *Picker) pick(options []option, rehearse bool) int {
	switch p.ask.Strategy {
	case StrategyWeighted:
		return pickWeighted(options, rand.Uint64N)
	case StrategyRoundRobin:
		return p.rotation(rehearse).pick(options, len(p.ask.Candidates))
	case StrategyLeastLoaded:
		return pickLeastLoaded(options, rand.Uint64N)
	case StrategySession:
		if p.ask.Session != "" {
			return pickSession(options, xxhash.Sum64String(p.ask.Session))
		}
	}
	return pickAdaptive(options, rand.Uint64N)
}

// rotation is the route's, or for a rehearsal this Picker's copy of it.
func (p *Picker) rotation(rehearse bool) *rotation {
	if !rehearse {
		return p.fleet.rotations.of(p.ask.Route)
	}
	if p.rehearsal == nil {
		p.rehearsal = p.fleet.rotations.rehearsal(p.ask.Route)
	}
	return p.rehearsal
}

// follow goes on to the backend that has replaced a retired one under its id. It reports false where there is none.
func (p *Picker) follow(e *entry) bool {
	if !e.backend.retired.Load() {
		return false
	}
	heir := (*p.fleet.backends.Load())[e.backend.id]
	if heir == nil || heir == e.backend {
		return false
	}
	e.backend = heir
	return true
}

func (p *Picker) markTried(b *Backend) {
	for i := range p.entries {
		if p.entries[i].backend.id == b.id {
			p.entries[i].tried = true
		}
	}
}

// mostlyOut reports whether more than half of the candidates are ejected or unhealthy. Those that an operator has taken out
// do not count at all: switching one backend off must not black out what is left of the route.
func (p *Picker) mostlyOut(now time.Duration) bool {
	out, in := 0, 0
	for i := range p.entries {
		switch p.entries[i].backend.standing(now) {
		case ejected, unhealthy:
			out++
		case disabled, draining:
		default:
			in++
		}
	}
	return out > in
}
