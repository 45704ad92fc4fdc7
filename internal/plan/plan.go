// Package plan decides which backends a request may use, and in which order: the policy's rules and the operators' marks meet the
// fleet's state.
//
// A decision has no side effects. Only Plan.Next has one: the lease that it takes. Decider.Explain shows a decision without any.
package plan

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/ai-aas/api-router/internal/auth"
	"github.com/ai-aas/api-router/internal/fault"
	"github.com/ai-aas/api-router/internal/fleet"
	"github.com/ai-aas/api-router/internal/policy"
)

// pause is when a client should come back where nobody knows how long it will take.
const pause = time.Second

// Decider makes Plans. It holds no state of its own.
type Decider struct {
	Fleet *fleet.Fleet
}

// Ask says who wants what.
type Ask struct {
	Organization string
	KeyID        string
	Model        string // as the client wrote it: a model or an alias
	// Scopes are what the key may do; nil: everything. Fallback models are held to them, too.
	Scopes  *auth.Scopes
	Session string // keeps requests together under the session strategy; may be ""
	// At is when it is asked: marks that have ended by then do not hold. Zero: now.
	At time.Time
}

// Plan is the decision on one request. It is not safe for concurrent use.
type Plan struct {
	Policy   string // id of the routing policy
	Revision string // of the table that decided
	Model    string // canonical public name
	Route    *policy.Route
	// Told hears of every choice that Next makes; nil: nobody does. Telling costs more than choosing.
	Told func(Chosen)

	fleet *fleet.Fleet
	table *policy.Table
	ask   Ask

	order      order
	walking    *policy.Route   // the route whose turn it is
	picker     *fleet.Picker   // of that route; nil when all have been walked
	left       int             // attempts that this route still has
	given      int             // attempts that it has had
	latest     fleet.Choice    // that Next gave
	why        fleet.Exhausted // how the walked routes ended, added up
	warning    string
	candidates [4]fleet.Candidate
}

// Chosen is a choice of Next, for operators.
type Chosen struct {
	Backend      string
	Model        string // public
	BackendModel string // the backend's own name
	Reason       string // why it was this backend, in words
}

// Decide finds the route for ask in the table, which stays the same for the whole request. Its error is model_not_found, with the
// same words for a model that does not exist and for one that this key may not use; model_disabled when an operator's mark keeps
// the model from being used and nothing may stand in for it; or no_backend_available while there is no table yet.
func (d *Decider) Decide(table *policy.Table, ask Ask) (*Plan, error) {
	p, err := d.find(table, ask)
	if err != nil {
		return nil, err
	}
	if err := p.begin(); err != nil {
		return nil, err
	}
	return p, nil
}

// find begins a plan with the route that ask leads to.
func (d *Decider) find(table *policy.Table, ask Ask) (*Plan, error) {
	if table == nil {
		return nil, fault.New(fault.NoBackendAvailable, "the router has not loaded its routing policies yet; retry in a moment").
			WithRetryAfter(pause)
	}
	if ask.At.IsZero() {
		ask.At = time.Now()
	}
	route, ok := table.Lookup(ask.Organization, ask.Model, ask.KeyID)
	if !ok || !ask.Scopes.Model(ask.Model, route.Model) || !Serves(route, ask.Organization, ask.KeyID) {
		return nil, fault.Newf(fault.ModelNotFound, "no routing policy configured for model %q", ask.Model).WithParam("model")
	}
	return &Plan{
		Policy:   route.Policy,
		Revision: table.Revision(),
		Model:    route.Model,
		Route:    route,
		fleet:    d.Fleet,
		table:    table,
		ask:      ask,
	}, nil
}

// begin takes the first route, or says which mark leaves none.
func (p *Plan) begin() error {
	_, mark := p.model(0)
	if state(mark) == policy.Disabled {
		return p.withdrawn(mark)
	}
	route := p.turn()
	if route == nil { // Only a mark keeps the model itself from having its turn.
		return p.withdrawn(mark)
	}
	p.walk(route)
	return nil
}

// Next takes a lease on the best backend that is left: those of the model's own route first, as many as its policy's
// attempts allow, then those of each fallback model, with that model's own policy and attempts; degraded models come behind the
// others. A backend is given at most once for each model. Fallback models that this key cannot use, or that an operator has
// disabled or is draining, are passed over, and have no fallback of their own. An attempt that an operator cut, by disabling its
// backend, does not count.
//
// The error is backend_overloaded when every backend is merely full, model_disabled when operators have taken out every one of
// them, otherwise no_backend_available. After a failed attempt, the reason of that failure tells the client more than this error,
// unless it is model_disabled.
func (p *Plan) Next() (fleet.Choice, error) {
	if p.latest.Lease != nil && p.latest.Lease.Cut() {
		p.left++
	}
	choice, err := choose(p, (*fleet.Picker).Next)
	p.latest = choice
	if err == nil {
		p.warn(choice.Degraded, choice.Avoided)
		if p.Told != nil {
			p.Told(Chosen{choice.Lease.Backend().ID(), choice.Public, choice.Model, p.because()})
		}
	}
	return choice, err
}

// choose lets take choose from the routes, one after the other, until there is a choice.
func choose[T any](p *Plan, take func(*fleet.Picker) (T, error)) (T, error) {
	var none T
	for p.picker != nil {
		if p.left > 0 {
			choice, err := take(p.picker)
			if err == nil {
				p.left--
				p.given++
				return choice, nil
			}
			why, ok := errors.AsType[*fleet.Exhausted](err)
			if !ok {
				return none, fmt.Errorf("pick a backend for policy %s: %w", p.Policy, err)
			}
			p.why.Add(*why)
		} else {
			p.why.Add(p.spent())
		}
		p.picker = nil
		if route := p.turn(); route != nil {
			p.walk(route)
		}
	}
	return none, p.exhausted()
}

// spent is how a route stands whose attempts are used up: what has become of its backends, or that they were tried, if more are left.
func (p *Plan) spent() fleet.Exhausted {
	_, err := p.picker.Peek()
	if why, ok := errors.AsType[*fleet.Exhausted](err); ok {
		return *why
	}
	return fleet.Exhausted{Candidates: p.given, Tried: p.given}
}

// Warning says what the client should know of the latest choice; "" when that is nothing.
func (p *Plan) Warning() string { return p.warning }

// because says why the latest choice was made. It looks at the fleet anew.
func (p *Plan) because() string {
	chosen := fleet.Preview{
		Backend: p.latest.Lease.Backend().ID(), Among: p.latest.Among, Forced: p.latest.Forced, Degraded: p.latest.Degraded,
	}
	standings := p.picker.Survey()
	at := slices.IndexFunc(standings, func(s fleet.Standing) bool { return s.ID == chosen.Backend })
	if at < 0 {
		return ""
	}
	like := standings[at]
	peers := slices.DeleteFunc(standings, func(s fleet.Standing) bool { return s.Tier != like.Tier || s.Degraded != like.Degraded })
	why, _ := reason(effective(p.walking.Strategy, p.ask.Session, peers), chosen, nil) // Their loads are those of after the choice.
	return fmt.Sprintf("%s, of tier %d, by policy %s", why, like.Tier, p.walking.Policy)
}

// walk makes route the one whose backends are given next.
func (p *Plan) walk(route *policy.Route) {
	p.walking = route
	p.left, p.given = max(1, route.Retry.Attempts), 0
	p.picker = p.pick(route, p.candidates[:0])
}

// pick begins the choice among the backends of route that serve this caller. room is memory for them.
func (p *Plan) pick(route *policy.Route, room []fleet.Candidate) *fleet.Picker {
	for i := range route.Candidates {
		c := &route.Candidates[i]
		if c.Serves(p.ask.KeyID, p.ask.Organization) {
			room = append(room, candidate(c))
		}
	}
	return p.fleet.Picker(p.asking(route, room))
}

func candidate(c *policy.Candidate) fleet.Candidate {
	return fleet.Candidate{Backend: c.Backend, Weight: c.Weight, Tier: c.Tier, Degraded: c.Degraded}
}

func (p *Plan) asking(route *policy.Route, candidates []fleet.Candidate) fleet.Ask {
	return fleet.Ask{
		Model:      route.Model,
		Route:      route.Policy,
		Candidates: candidates,
		Strategy:   route.Strategy,
		Session:    p.ask.Session,
		EjectAfter: route.FailoverThreshold,
	}
}

// Serves reports whether route has a backend for this caller. A model without one is not there for them, as one that their key may
// not use.
func Serves(route *policy.Route, organization, keyID string) bool {
	for i := range route.Candidates {
		if route.Candidates[i].Serves(keyID, organization) {
			return true
		}
	}
	return false
}

// exhausted says why nothing is left, in words for the client: how many backends and how they are, but not which.
func (p *Plan) exhausted() error {
	model := strconv.Quote(p.Model)
	if p.order.substituted {
		model += " or its fallback models"
	}
	if p.why.Candidates > 0 && p.why.Disabled+p.why.Draining == p.why.Candidates {
		e := fault.Newf(fault.ModelDisabled, "every backend of model %s is switched off or being drained; use another model", model).
			WithParam("model").WithCause(&p.why)
		return e.WithRetryAfter(soon(p.why.RetryAfter))
	}
	code, message := fault.NoBackendAvailable, "no backend can serve model "+model+" now"
	if p.why.AllSaturated() {
		code, message = fault.BackendOverloaded, "every backend of model "+model+" is at its limit"
	}
	return fault.Newf(code, "%s (%s); retry later", message, p.why.Reason()).
		WithRetryAfter(cmp.Or(p.why.RetryAfter, pause)).
		WithCause(&p.why)
}
