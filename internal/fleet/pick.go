package fleet

import (
	"maps"
	"math"
	"sync"
)

// The strategies of a policy.
const (
	StrategyAdaptive    = "adaptive"
	StrategyWeighted    = "weighted"
	StrategyRoundRobin  = "round_robin"
	StrategyLeastLoaded = "least_loaded"
	StrategySession     = "session"
)

// option is a candidate as the choice sees it: values only.
type option struct {
	id     string
	entry  int    // where it came from
	weight int    // above zero
	load   int64  // requests in flight
	place  uint64 // of the backend in a rendezvous
}

// chance returns a number below n, which is above zero.
type chance func(n uint64) uint64

// pickWeighted gives every option its exact share by weight.
func pickWeighted(options []option, random chance) int {
	var total uint64
	for i := range options {
		total += uint64(options[i].weight)
	}
	at := random(total)
	for i := range options {
		if at < uint64(options[i].weight) {
			return i
		}
		at -= uint64(options[i].weight)
	}
	return len(options) - 1
}

// pickLeastLoaded takes the fewest requests in flight per weight; among equals the weight decides by chance.
// It keeps the equals at the front of options, which it reorders.
func pickLeastLoaded(options []option, random chance) int {
	equals := 1
	for i := 1; i < len(options); i++ {
		o, best := &options[i], &options[0]
		switch a, b := o.load*int64(best.weight), best.load*int64(o.weight); {
		case a < b:
			options[0], options[i] = options[i], options[0]
			equals = 1
		case a == b:
			options[equals], options[i] = options[i], options[equals]
			equals++
		}
	}
	return pickWeighted(options[:equals], random)
}

// pickAdaptive follows the weights where they differ, and otherwise takes the fewest requests in flight, ties by chance.
func pickAdaptive(options []option, random chance) int {
	for i := range options {
		if options[i].weight != options[0].weight {
			return pickWeighted(options, random)
		}
	}
	return pickLeastLoaded(options, random)
}

// pickSession is weighted rendezvous hashing (Schindelhauer and Schomaker, 2005): each option draws a number from the
// session and its place, and the highest weight / -ln(number) wins. Every replica draws the same numbers; an option
// that comes or goes moves its own share of the sessions and no others.
func pickSession(options []option, session uint64) int {
	best, bestScore := 0, math.Inf(-1)
	for i := range options {
		// 53 bits and a half: above 0 and below 1, so that the logarithm is finite and not zero.
		number := (float64(mix(session^options[i].place)>>11) + 0.5) / (1 << 53)
		if score := float64(options[i].weight) / -math.Log(number); score > bestScore {
			best, bestScore = i, score
		}
	}
	return best
}

// mix spreads the bits of x. It is the finalizer of SplitMix64 (Steele, Lea and Flood, 2014).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// maxRotations bounds the routes whose round is remembered.
const maxRotations = 4096

// rotations holds the rounds of the routes that are served by turns.
type rotations struct {
	mu     sync.Mutex
	routes map[string]*rotation
}

// rotation is a smooth weighted round robin, as nginx has it: at each turn every option gains its weight, the richest is
// taken and pays the sum of all, so that in each round of that many turns everyone gets its share, spread evenly.
type rotation struct {
	mu     sync.Mutex
	credit map[string]int
	most   int // candidates that a request has had
}

// of returns the route's rotation. When there are too many, any one begins anew: fairness suffers for one round.
func (r *rotations) of(route string) *rotation {
	r.mu.Lock()
	defer r.mu.Unlock()
	if found := r.routes[route]; found != nil {
		return found
	}
	if r.routes == nil {
		r.routes = map[string]*rotation{}
	}
	if len(r.routes) >= maxRotations {
		for other := range r.routes {
			delete(r.routes, other)
			break
		}
	}
	fresh := &rotation{credit: map[string]int{}}
	r.routes[route] = fresh
	return fresh
}

// rehearsal returns a copy of the route's rotation, of which nobody else knows.
func (r *rotations) rehearsal(route string) *rotation {
	r.mu.Lock()
	found := r.routes[route]
	r.mu.Unlock()
	if found == nil {
		return &rotation{credit: map[string]int{}}
	}
	found.mu.Lock()
	defer found.mu.Unlock()
	return &rotation{credit: maps.Clone(found.credit), most: found.most}
}

// pick takes the next turn among options. candidates is how many this request has; another one of the route may have others. Where
// there are more credits than any request had candidates, some are of backends that the route has no more: the round begins anew.
func (r *rotation) pick(options []option, candidates int) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.most = max(r.most, candidates); len(r.credit) > r.most {
		clear(r.credit)
	}
	best, total := 0, 0
	for i := range options {
		total += options[i].weight
		r.credit[options[i].id] += options[i].weight
		if r.credit[options[i].id] > r.credit[options[best].id] {
			best = i
		}
	}
	r.credit[options[best].id] -= total
	return best
}
