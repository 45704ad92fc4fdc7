package plan

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/ai-aas/api-router/internal/fleet"
	"github.com/ai-aas/api-router/internal/policy"
)

// matched describes the route that a name leads to.
func matched(route *policy.Route, name string) Route {
	r := Route{
		Model: route.Model, Policy: route.Policy, Revision: route.Revision, Place: route.Place, Legacy: route.Legacy,
		Organization: route.Organization, Strategy: route.Strategy, Attempts: max(1, route.Retry.Attempts),
	}
	if name != route.Model {
		r.Alias = name
	}
	if route.Organization == policy.Everyone {
		r.Why = "everyone's policy"
	} else {
		r.Why = fmt.Sprintf("the policy of organization %q", route.Organization)
	}
	r.Why += fmt.Sprintf(" for model %q", route.Model)
	if r.Alias != "" {
		r.Why += fmt.Sprintf(", by its alias %q", r.Alias)
	}
	return r
}

// routes describes the model and its fallback models: those that have a turn in its order, then the others.
func (x *explainer) routes(turns []*policy.Route) {
	p := x.plan
	for n := range len(p.Route.FallbackModels) + 1 {
		name := x.Model
		if n > 0 {
			name = p.Route.FallbackModels[n-1]
		}
		route, mark := p.model(n)
		if route == nil {
			x.Routes = append(x.Routes, x.absent(name))
			continue
		}
		r := matched(route, name)
		r.Fallback, r.Mark = n > 0, mark
		if !slices.ContainsFunc(x.Routes, func(other Route) bool { return other.Turn > 0 && other.Policy == r.Policy }) {
			r.Turn = 1 + slices.Index(turns, route)
		}
		x.place(&r)
		r.Candidates = x.candidates(route, r.Turn > 0)
		x.Routes = append(x.Routes, r)
	}
	slices.SortStableFunc(x.Routes, func(a, b Route) int {
		if (a.Turn > 0) != (b.Turn > 0) {
			return cmp.Compare(b.Turn, a.Turn)
		}
		return cmp.Compare(a.Turn, b.Turn)
	})
}

// absent describes a fallback model that is passed over because there is nothing for this caller under its name.
func (x *explainer) absent(name string) Route {
	route, allowed := x.plan.table.Explain(x.Organization, name, x.KeyID)
	if route == nil {
		return Route{Model: name, Fallback: true, Why: "passed over: no policy routes this model", Candidates: []Candidate{}}
	}
	r := matched(route, name)
	r.Fallback, r.Candidates = true, []Candidate{}
	switch {
	case route.Model == x.plan.Model:
		r.Why = "passed over: it is the model itself"
	case !allowed:
		r.Why += "; passed over: its key rules refuse this key"
	case !x.plan.ask.Scopes.Model(name, route.Model):
		r.Why += "; passed over: the scopes of this key do not name it"
	default:
		r.Why += "; passed over: none of its backends serves this caller"
	}
	return r
}

// place says why a route has its turn where it has it, or has none.
func (x *explainer) place(r *Route) {
	switch is := state(r.Mark); {
	case is == policy.Disabled:
		r.Why += "; an operator has switched it off"
	case is == policy.Draining:
		r.Why += "; an operator is draining it"
	case is == policy.Degraded:
		r.Why += "; it is degraded: behind all that are not"
	case r.Fallback && r.Turn == 0 && x.withdrawn():
		r.Why += "; no fallback model stands in for a model that is switched off"
	case r.Turn == 0:
		r.Why += "; it has its turn under another name"
	}
}

// withdrawn reports whether the model itself is switched off.
func (x *explainer) withdrawn() bool {
	_, mark := x.plan.model(0)
	return state(mark) == policy.Disabled
}

// candidates describes the backends of a route.
func (x *explainer) candidates(route *policy.Route, walked bool) []Candidate {
	standings := x.standings(route)
	candidates := make([]Candidate, len(standings))
	tries := 0
	for i := range standings {
		s := &standings[i]
		c := &candidates[i]
		*c = Candidate{
			Backend: s.ID, Model: s.ModelName, Known: s.Known, Tier: s.Tier, Weight: s.Weight, State: s.State, Reason: s.LastError,
			Degraded: s.Degraded, Mark: x.mark(s), InFlight: s.InFlight, MaxConcurrency: s.Capacity,
			Excluded: !x.serves(&route.Candidates[i]),
		}
		if walked && !c.Excluded {
			c.Order = x.tried(route.Model, s.ID)
		}
		if c.Order > 0 {
			tries++
		}
	}
	for i := range candidates {
		c := &candidates[i]
		c.Why = x.why(c, walked, tries >= max(1, route.Retry.Attempts))
	}
	if walked {
		x.share(route, candidates)
	}
	return candidates
}

// why says why a candidate is tried where it is, or not at all.
func (x *explainer) why(c *Candidate, walked, spent bool) string {
	switch {
	case c.Order > 0:
		return x.Tries[c.Order-1].Why
	case c.Excluded:
		return "the policy keeps it from this caller"
	case c.State == "missing":
		return "no such backend is there"
	case c.State == "disabled":
		return "an operator has switched it off"
	case c.State == "draining":
		return "an operator is draining it"
	case c.State == "unhealthy":
		return "its health probe fails"
	case c.State == "ejected":
		return "left out for a time after failures"
	case c.State == "resting":
		return "it has asked for a pause"
	case c.State == "full":
		return "it has as many requests as it may have"
	case walked && spent:
		return "behind as many attempts as the policy allows"
	}
	return ""
}

// mark is the mark on a backend: the document that says what the fleet was told, which need not have the id that such a mark usually
// has; what the fleet was told alone where the table is a moment ahead or behind.
func (x *explainer) mark(s *fleet.Standing) *policy.Mark {
	told := &s.Mark
	if told.State == "" {
		return nil
	}
	for _, m := range x.plan.table.Marks() {
		if m.Backend == s.ID && m.State == told.State && m.Reason == told.Reason && m.Until.Equal(told.Until) {
			return &m
		}
	}
	return &policy.Mark{Backend: s.ID, State: told.State, Reason: told.Reason, Until: told.Until}
}

// share fills in what part of the route's requests each backend has, where weights decide.
func (x *explainer) share(route *policy.Route, candidates []Candidate) {
	peers := x.firsts[route]
	if len(peers) > 1 && effective(route.Strategy, x.Session, peers) == policy.StrategyLeastLoaded {
		return
	}
	total := 0
	for _, s := range peers {
		total += max(s.Weight, 1)
	}
	for _, s := range peers {
		for i := range candidates {
			if c := &candidates[i]; c.Backend == s.ID {
				c.SharePercent = math.Round(1000*float64(max(s.Weight, 1))/float64(total)) / 10
			}
		}
	}
}
