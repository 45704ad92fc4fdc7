package plan

import (
	"slices"

	"github.com/ai-aas/api-router/internal/policy"
)

// order is where a plan is in its models: the one that was asked for, then its fallback models, each as its policy names them. The
// degraded among them are passed over at first, and have their turn in the same order behind the others.
type order struct {
	next        int  // the next turn: 0 is the model itself, n its n-th fallback model
	last        bool // only the degraded models are left
	kept        bool // there are degraded models
	avoided     bool // one that could have answered was passed over
	substituted bool // a fallback model has had its turn
	walked      []string
}

// turn finds the route that is walked next, nil when all have been. Two names may lead to one model, which is walked once.
func (p *Plan) turn() *policy.Route {
	o := &p.order
	for {
		for o.next <= len(p.Route.FallbackModels) {
			n := o.next
			o.next++
			route, mark := p.model(n)
			is := state(mark)
			switch {
			case route == nil || slices.Contains(o.walked, route.Model):
			case is == policy.Disabled || is == policy.Draining:
			case (is == policy.Degraded) == o.last:
				if n > 0 {
					o.substituted = true
					o.walked = append(o.walked, route.Model)
				}
				return route
			case !o.last:
				o.kept = true
				o.avoided = o.avoided || p.works(route)
			}
		}
		if o.last || !o.kept {
			return nil
		}
		o.last, o.next = true, 0
	}
}

// model is what the n-th turn is about: its route, and the mark that holds for it, nil where none does. There is no route for a
// fallback model that is the model itself, that does not exist, or that this caller cannot use.
func (p *Plan) model(n int) (*policy.Route, *policy.Mark) {
	route := p.Route
	if n > 0 {
		var ok bool
		route, ok = p.table.Lookup(p.ask.Organization, p.Route.FallbackModels[n-1], p.ask.KeyID)
		if !ok || route.Model == p.Model || !p.ask.Scopes.Model(p.Route.FallbackModels[n-1], route.Model) ||
			!Serves(route, p.ask.Organization, p.ask.KeyID) {
			return nil, nil
		}
	}
	if mark, ok := p.table.Mark(route, p.ask.Organization, p.ask.At); ok {
		return route, new(mark) // A copy, so that only a mark that is there costs memory.
	}
	return route, nil
}

// state is what a mark puts its target in; "" for none.
func state(mark *policy.Mark) string {
	if mark == nil {
		return ""
	}
	return mark.State
}

// works reports whether a backend of route could take this request now.
func (p *Plan) works(route *policy.Route) bool {
	_, err := p.pick(route, nil).Peek()
	return err == nil
}
