package plan

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/ai-aas/api-router/internal/fault"
	"github.com/ai-aas/api-router/internal/fleet"
	"github.com/ai-aas/api-router/internal/policy"
)

// Explain tells what Decide and Next would do with ask now: it is the same code, with a look in place of a lease. It takes
// nothing and changes nothing. A request that would be refused is explained, too; the error is for an ask that names no model.
//
// Where chance has a part in a choice, the explanation shows one draw. While requests run, the state of a backend and the choice
// may be a moment apart.
func (d *Decider) Explain(table *policy.Table, ask Ask) (*Explanation, error) {
	if ask.Model == "" {
		return nil, fault.New(fault.InvalidRequest, "which model? Name the one to explain").WithParam("model")
	}
	e := &Explanation{
		Model: ask.Model, Organization: ask.Organization, KeyID: ask.KeyID, Session: ask.Session,
		Routes: []Route{}, Tries: []Try{},
	}
	if table != nil {
		e.Revision, e.Origin, e.Since = table.Revision(), table.Origin(), table.LoadedAt()
	}
	p, err := d.find(table, ask)
	if err != nil {
		e.refuse(err)
		if table != nil {
			e.hidden(table, ask)
		}
		return e, nil
	}
	e.Clamps, e.Fields = new(p.Route.Clamps), new(p.Route.Fields)
	x := explainer{Explanation: e, plan: p, stood: map[*policy.Route][]fleet.Standing{}, firsts: map[*policy.Route][]fleet.Standing{}}
	if err := p.begin(); err != nil {
		e.refuse(err)
		x.routes(nil)
		return e, nil
	}
	turns := x.turns()
	x.rehearse()
	x.routes(turns)
	return e, nil
}

// hidden shows the policy that routes the model, but not for this caller. A client is not told that it is there.
func (e *Explanation) hidden(table *policy.Table, ask Ask) {
	route, allowed := table.Explain(ask.Organization, ask.Model, ask.KeyID)
	if route == nil {
		return
	}
	r := matched(route, ask.Model)
	r.Candidates = []Candidate{}
	switch {
	case !allowed:
		r.Why += "; its key rules refuse this key"
	case !ask.Scopes.Model(ask.Model, route.Model):
		r.Why += "; the scopes of this key do not name it"
	default:
		r.Why += "; none of its backends serves this caller"
	}
	if route.Organization != policy.Everyone {
		r.Why += ", and everyone's policy does not take its place"
	}
	e.Routes = append(e.Routes, r)
}

// refuse notes the error that the client would get.
func (e *Explanation) refuse(err error) {
	f := fault.From(err)
	e.Error = &Refusal{
		Status: f.Status(), Code: string(f.Code), Message: f.Message, Param: f.Param, RetryAfterMillis: f.RetryAfter.Milliseconds(),
	}
}

// explainer fills an Explanation from a plan.
type explainer struct {
	*Explanation

	plan   *Plan
	stood  map[*policy.Route][]fleet.Standing // how the candidates stood when they were looked at first
	firsts map[*policy.Route][]fleet.Standing // those that the first choice of the route was made from
}

// turns are the routes that the plan would walk, from the one whose turn it is on.
func (x *explainer) turns() []*policy.Route {
	rest := *x.plan
	rest.order.walked = slices.Clone(rest.order.walked)
	var turns []*policy.Route
	for route := rest.walking; route != nil; route = rest.turn() {
		turns = append(turns, route)
	}
	return turns
}

// rehearse makes every choice of the plan, as if each backend failed.
func (x *explainer) rehearse() {
	p := x.plan
	for {
		preview, err := choose(p, (*fleet.Picker).Peek)
		if err != nil && len(x.Tries) == 0 {
			x.refuse(err)
		}
		if err != nil {
			break
		}
		p.warn(preview.Degraded, preview.Avoided)
		try := Try{
			Backend: preview.Backend, Model: p.walking.Model, Policy: p.walking.Policy, Asked: preview.Model,
			Forced: preview.Forced, Warning: p.Warning(),
		}
		peers := x.peers(p.walking, preview)
		if p.given == 1 {
			x.firsts[p.walking] = peers
		}
		try.Why, try.Draw = reason(effective(p.walking.Strategy, x.Session, peers), preview, peers)
		x.Tries = append(x.Tries, try)
	}
	for i, try := range x.Tries {
		if i == 0 {
			x.Choice, x.Draw, x.Warning = try.Backend, try.Draw, try.Warning
		} else {
			x.Next = append(x.Next, try.Backend)
		}
	}
}

// tried is the place of a backend among the tries for a model, from 1; 0: it is not among them.
func (x *explainer) tried(model, backend string) int {
	return 1 + slices.IndexFunc(x.Tries, func(t Try) bool { return t.Model == model && t.Backend == backend })
}

// standings are how all candidates of a route stand, also those that do not serve this caller.
func (x *explainer) standings(route *policy.Route) []fleet.Standing {
	if found, ok := x.stood[route]; ok {
		return found
	}
	candidates := make([]fleet.Candidate, len(route.Candidates))
	for i := range route.Candidates {
		candidates[i] = candidate(&route.Candidates[i])
	}
	found := x.plan.fleet.Picker(x.plan.asking(route, candidates)).Survey()
	x.stood[route] = found
	return found
}

// open is the State of a backend that can be chosen.
const open = "available"

// peers are the candidates of a route that its strategy has to choose from where the choice is chosen: those that can be chosen, were
// not tried before, and are of one kind with it.
func (x *explainer) peers(route *policy.Route, chosen fleet.Preview) []fleet.Standing {
	standings := x.standings(route)
	at := slices.IndexFunc(standings, func(s fleet.Standing) bool { return s.ID == chosen.Backend })
	if at < 0 {
		return nil
	}
	like := standings[at]
	var peers []fleet.Standing
	for i, s := range standings {
		switch {
		case x.tried(route.Model, s.ID) > 0:
		case s.State != open && !(chosen.Forced && s.State == "ejected"):
		case s.Degraded != like.Degraded || (s.Weight > 0) != (like.Weight > 0) || s.Tier != like.Tier:
		case !x.serves(&route.Candidates[i]):
		default:
			peers = append(peers, s)
		}
	}
	if len(peers) != chosen.Among { // The fleet has moved on since it was looked at.
		return nil
	}
	return peers
}

func (x *explainer) serves(c *policy.Candidate) bool { return c.Serves(x.KeyID, x.Organization) }

// reason says how the strategy came to a choice, and whether by chance.
func reason(strategy string, chosen fleet.Preview, peers []fleet.Standing) (why string, draw bool) {
	among := fmt.Sprintf("among %d", chosen.Among)
	switch {
	case chosen.Among == 1:
		why = "the only one that can be chosen now"
	case strategy == policy.StrategyWeighted:
		why, draw = "one draw by weight "+among, true
	case strategy == policy.StrategyRoundRobin:
		why = "its turn in the rotation " + among
	case strategy == policy.StrategySession:
		why = "the place of its session " + among
	default:
		why = "the fewest requests in flight for its weight " + among
		if equals := idlest(peers); equals > 1 {
			why, draw = fmt.Sprintf("%s, drawn from %d that are equal", why, equals), true
		}
	}
	switch {
	case chosen.Forced:
		why += "; it is ejected, and tried because most of the policy's backends are out"
	case chosen.Degraded:
		why += "; it is degraded, and nothing else is left"
	}
	return why, draw
}

// effective is the strategy that decides among peers, as the fleet has it: the session strategy without a session is the adaptive one,
// and that is a draw by weight where weights differ, and the fewest requests in flight where they do not.
func effective(strategy, session string, peers []fleet.Standing) string {
	switch strategy {
	case policy.StrategyWeighted, policy.StrategyRoundRobin, policy.StrategyLeastLoaded:
		return strategy
	case policy.StrategySession:
		if session != "" {
			return strategy
		}
	}
	for _, s := range peers {
		if max(s.Weight, 1) != max(peers[0].Weight, 1) {
			return policy.StrategyWeighted
		}
	}
	return policy.StrategyLeastLoaded
}

// idlest counts the peers that have the fewest requests in flight for their weight.
func idlest(peers []fleet.Standing) int {
	load := func(a, b fleet.Standing) int {
		return cmp.Compare(a.InFlight*int64(max(b.Weight, 1)), b.InFlight*int64(max(a.Weight, 1)))
	}
	equals := 0
	for _, s := range peers {
		if load(s, slices.MinFunc(peers, load)) == 0 {
			equals++
		}
	}
	return equals
}
