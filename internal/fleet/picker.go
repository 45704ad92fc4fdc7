package fleet

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"strings"
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
}

// Picker hands out the backends of one request, the best first. It is not safe for concurrent use.
type Picker struct {
	fleet   *Fleet
	ask     Ask
	entries []entry
	missing int // candidates that the fleet does not have

	inline  [4]entry
	options []option
	scratch [4]option
}

type entry struct {
	backend *Backend
	weight  int
	tier    int
	tried   bool
	lost    bool // somebody else took the last place during this Next
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
		if b == nil {
			p.missing++
			continue
		}
		p.entries = append(p.entries, entry{backend: b, weight: c.Weight, tier: c.Tier})
	}
	return p
}

// Next chooses a backend that this Picker has not chosen before and takes a lease on it. The error is an *Exhausted when
// none is left.
//
// Ejection alone cannot black a route out: when more than half of its candidates are ejected or unhealthy, the ejected
// ones are tried after all, behind everything that is available.
func (p *Picker) Next() (Choice, error) {
	now := p.fleet.now()
	for i := range p.entries {
		p.entries[i].lost = false
		p.follow(&p.entries[i])
	}
	for _, force := range [...]bool{false, true} {
		if force && !p.mostlyOut(now) {
			break
		}
		for {
			chosen := p.choose(now, force)
			if chosen == nil {
				break
			}
			lease, ok := chosen.backend.acquire(now, p.ask.EjectAfter, force)
			if !ok {
				chosen.lost = !p.follow(chosen)
				continue
			}
			p.markTried(chosen.backend)
			name, _ := chosen.backend.ModelName(p.ask.Model)
			return Choice{Lease: lease, Model: name, Public: p.ask.Model}, nil
		}
	}
	return Choice{}, p.exhausted(now)
}

// choose finds the best entry, or nil. With force an ejected backend may be taken.
func (p *Picker) choose(now time.Duration, force bool) *entry {
	options := p.options[:0]
	var group *entry // the first of the group that options are of
	for i := range p.entries {
		e := &p.entries[i]
		if e.tried || e.lost {
			continue
		}
		if s := e.backend.standing(now); s != open && !(force && s == ejected && !e.backend.resting(now) && !e.backend.full()) {
			continue
		}
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
		return nil
	case 1:
		return &p.entries[options[0].entry]
	}
	at := p.pick(options)
	return &p.entries[options[at].entry]
}

// compare orders entries by group: those with a weight first, then by tier. Any entry is before nil.
func (e *entry) compare(other *entry) int {
	switch {
	case other == nil:
		return -1
	case e.weight > 0 && other.weight <= 0:
		return -1
	case e.weight <= 0 && other.weight > 0:
		return 1
	}
	return cmp.Compare(e.tier, other.tier)
}

func (p *Picker) pick(options []option) int {
	switch p.ask.Strategy {
	case StrategyWeighted:
		return pickWeighted(options, rand.Uint64N)
	case StrategyRoundRobin:
		return p.fleet.rotations.of(p.ask.Route).pick(options, len(p.ask.Candidates))
	case StrategyLeastLoaded:
		return pickLeastLoaded(options, rand.Uint64N)
	case StrategySession:
		if p.ask.Session != "" {
			return pickSession(options, xxhash.Sum64String(p.ask.Session))
		}
	}
	return pickAdaptive(options, rand.Uint64N)
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

// mostlyOut reports whether more than half of the candidates are ejected or unhealthy.
func (p *Picker) mostlyOut(now time.Duration) bool {
	out := 0
	for i := range p.entries {
		if s := p.entries[i].backend.standing(now); s == ejected || s == unhealthy {
			out++
		}
	}
	return 2*out > len(p.entries)
}

// Exhausted says that no candidate is left for a request, and why. Each candidate counts once.
type Exhausted struct {
	Candidates int
	Missing    int // not known to the fleet, or retired
	Unhealthy  int
	Ejected    int
	Resting    int
	Full       int
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
	e.Tried += other.Tried
	if e.RetryAfter == 0 || other.RetryAfter > 0 && other.RetryAfter < e.RetryAfter {
		e.RetryAfter = other.RetryAfter
	}
}

// AllSaturated reports whether every candidate is there and well, and merely has no room.
func (e *Exhausted) AllSaturated() bool {
	return e.Candidates > 0 && e.Resting+e.Full == e.Candidates
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
	e := &Exhausted{Candidates: p.missing + len(p.entries), Missing: p.missing}
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
