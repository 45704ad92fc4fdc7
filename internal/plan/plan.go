// Package plan decides which backends a request may use, and in which order: the policy's rules meet the fleet's state.
//
// A decision has no side effects. Only Plan.Next has one: the lease that it takes.
package plan

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

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
	Session      string // keeps requests together under the session strategy; may be ""
}

// Plan is the decision on one request. It is not safe for concurrent use.
type Plan struct {
	Policy   string // id of the routing policy
	Revision string // of the table that decided
	Model    string // canonical public name
	Route    *policy.Route

	fleet *fleet.Fleet
	table *policy.Table
	ask   Ask

	picker     *fleet.Picker   // of the route that is being walked; nil when all have been
	left       int             // attempts that this route still has
	given      int             // attempts that it has had
	fallback   int             // index of the next fallback model
	walked     []string        // fallback models that were used
	why        fleet.Exhausted // how the walked routes ended, added up
	warning    string
	candidates [4]fleet.Candidate
}

// Decide finds the route for ask in the table, which stays the same for the whole request. Its error is model_not_found,
// with the same words for a model that does not exist and for one that this key may not use; or no_backend_available
// while there is no table yet.
func (d *Decider) Decide(table *policy.Table, ask Ask) (*Plan, error) {
	if table == nil {
		return nil, fault.New(fault.NoBackendAvailable, "the router has not loaded its routing policies yet; retry in a moment").
			WithRetryAfter(pause)
	}
	route, ok := table.Lookup(ask.Organization, ask.Model, ask.KeyID)
	if !ok {
		return nil, fault.Newf(fault.ModelNotFound, "no routing policy configured for model %q", ask.Model).WithParam("model")
	}
	p := &Plan{
		Policy:   route.Policy,
		Revision: table.Revision(),
		Model:    route.Model,
		Route:    route,
		fleet:    d.Fleet,
		table:    table,
		ask:      ask,
	}
	p.walk(route)
	return p, nil
}

// Next takes a lease on the best backend that is left: those of the model's own route first, as many as its policy's
// attempts allow, then those of each fallback model, with that model's own policy and attempts. A backend is given at
// most once for each model. Fallback models that this key cannot use are passed over, and have no fallback of their own.
//
// The error is backend_overloaded when every backend is merely full, otherwise no_backend_available. After a failed
// attempt, the reason of that failure tells the client more than this error.
func (p *Plan) Next() (fleet.Choice, error) {
	for p.picker != nil {
		if p.left > 0 {
			choice, err := p.picker.Next()
			if err == nil {
				p.left--
				p.given++
				return choice, nil
			}
			why, ok := errors.AsType[*fleet.Exhausted](err)
			if !ok {
				return fleet.Choice{}, fmt.Errorf("pick a backend for policy %s: %w", p.Policy, err)
			}
			p.why.Add(*why)
		} else {
			p.why.Add(fleet.Exhausted{Candidates: p.given, Tried: p.given})
		}
		p.picker = nil
		if route := p.nextFallback(); route != nil {
			p.walk(route)
		}
	}
	return fleet.Choice{}, p.exhausted()
}

// Warning says what the client should know of the latest choice; "" when that is nothing.
func (p *Plan) Warning() string { return p.warning }

// walk makes route the one whose backends are given next.
func (p *Plan) walk(route *policy.Route) {
	candidates := p.candidates[:0]
	for _, c := range route.Candidates {
		candidates = append(candidates, fleet.Candidate{Backend: c.Backend, Weight: c.Weight, Tier: c.Tier})
	}
	p.left, p.given = max(1, route.Retry.Attempts), 0
	p.picker = p.fleet.Picker(fleet.Ask{
		Model:      route.Model,
		Route:      route.Policy,
		Candidates: candidates,
		Strategy:   route.Strategy,
		Session:    p.ask.Session,
		EjectAfter: route.FailoverThreshold,
	})
}

// nextFallback finds the route of the next fallback model that has one, nil when there is none. Two names may lead to
// one model, which is walked once.
func (p *Plan) nextFallback() *policy.Route {
	for p.fallback < len(p.Route.FallbackModels) {
		model := p.Route.FallbackModels[p.fallback]
		p.fallback++
		route, ok := p.table.Lookup(p.ask.Organization, model, p.ask.KeyID)
		if ok && route.Model != p.Model && !slices.Contains(p.walked, route.Model) {
			p.walked = append(p.walked, route.Model)
			return route
		}
	}
	return nil
}

// exhausted says why nothing is left, in words for the client: how many backends and how they are, but not which.
func (p *Plan) exhausted() error {
	model := strconv.Quote(p.Model)
	if len(p.walked) > 0 {
		model += " or its fallback models"
	}
	code, message := fault.NoBackendAvailable, "no backend can serve model "+model+" now"
	if p.why.AllSaturated() {
		code, message = fault.BackendOverloaded, "every backend of model "+model+" is at its limit"
	}
	return fault.Newf(code, "%s (%s); retry later", message, p.why.Reason()).
		WithRetryAfter(cmp.Or(p.why.RetryAfter, pause)).
		WithCause(&p.why)
}
