package policy

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"
)

// Snapshot is what a source holds at one moment: every valid document, and what is wrong with the others.
type Snapshot struct {
	Documents []Document
	Problems  []Problem
	// Origin says in words where this comes from.
	Origin string
}

// Compile checks the documents, alone where Parse has not done it and against each other, and builds the table. Of two documents that claim the same id or the
// same model, or set the same price, the one whose place comes later is refused, whatever the order in the snapshot. last are the documents that were in force before (nil if none): a document that
// cannot be used now, but was good in last, stays in force as it was there, unless a good document has taken its place.
// One that is in last and simply gone from the snapshot goes.
//
// Which documents cannot be used is what the snapshot's problems tell: one with an ID is about that document, one without
// about all that last has from its File, one without both about everything.
func Compile(now Snapshot, last []Document) *Table {
	now = check(now)
	documents := inOrder(now.Documents)
	c := compiler{
		table: &Table{
			routes: make(map[address]*Route, len(now.Documents)),
			listed: make(map[string][]*Route),
			origin: now.Origin,
		},
		problems: now.Problems,
		live:     make(map[key]*Document, len(now.Documents)),
		served:   make(map[key]*Document, len(now.Documents)),
	}
	others := c.admit(documents)
	held := c.cover(last)
	for _, d := range held {
		if d.Backend != nil || d.Mark != nil {
			c.serve(d)
		}
	}
	for _, d := range others {
		if d.Policy != nil && !c.route(d) || d.Price != nil && !c.charge(d) {
			if before, ok := c.before(d, last); ok {
				held = append(held, before)
			}
		}
	}
	for _, d := range held {
		switch {
		case d.Policy != nil:
			c.hold(d)
		case d.Price != nil && c.prices[charge{d.Price.Model, d.Price.ValidFrom}] == nil: // Another is there now.
			c.serve(d)
		}
	}
	c.checkFallbacks()
	table := c.finish(held)
	table.attach()
	return table
}

// inOrder sorts documents by their places. Sources bring them so; then it is quick.
func inOrder(documents []Document) []Document {
	content := func(d Document) string { // Only of two that claim the same id at the same place is this asked.
		text, _ := JSON(d)
		return string(text)
	}
	order := func(a, b Document) int {
		order := cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line),
			cmp.Compare(a.Kind(), b.Kind()), cmp.Compare(a.ID(), b.ID()), cmp.Compare(a.Revision, b.Revision))
		if order == 0 {
			order = cmp.Compare(content(a), content(b))
		}
		return order
	}
	if !slices.IsSortedFunc(documents, order) {
		documents = slices.Clone(documents)
		slices.SortFunc(documents, order)
	}
	return documents
}

type compiler struct {
	table    *Table
	problems []Problem
	live     map[key]*Document // what the snapshot brings, each id once
	served   map[key]*Document // what is in force
	prices   map[charge]*Document
	previous map[key]*Document // last, indexed when it is first needed
	ids      []string          // of the backends in force, sorted, for suggestions
	hints    int
}

// serve puts d in force. No other document of its key is.
func (c *compiler) serve(d *Document) {
	c.served[d.key()] = d
	c.table.documents = append(c.table.documents, *d)
}

func (c *compiler) refusef(d *Document, format string, args ...any) {
	c.problems = append(c.problems, Problem{
		Kind: d.Kind(), ID: d.ID(), File: d.File, Line: d.Line, Message: fmt.Sprintf(format, args...),
	})
}

// charge is what only one price can be for.
type charge struct {
	model string
	from  time.Time
}

// charge puts a price of the snapshot in force, or refuses it and says why.
func (c *compiler) charge(d *Document) bool {
	at := charge{d.Price.Model, d.Price.ValidFrom}
	if other := c.prices[at]; other != nil {
		c.refusef(d, "model %q has a price from %s on already: price %s at %s",
			at.model, at.from.Format(time.RFC3339), other.ID(), other.place())
		return false
	}
	if c.prices == nil {
		c.prices = make(map[charge]*Document)
	}
	c.prices[at] = d
	c.serve(d)
	return true
}

// admit takes each id once, puts backends and marks in force, and returns the others in their order.
func (c *compiler) admit(documents []Document) []*Document {
	c.table.documents = make([]Document, 0, len(documents))
	var others []*Document
	for i := range documents {
		d := &documents[i]
		if first, twice := c.live[d.key()]; twice {
			c.refusef(d, "this id is already used by the %s at %s", first.Kind(), first.place())
			continue
		}
		c.live[d.key()] = d
		if d.Backend != nil || d.Mark != nil {
			c.serve(d)
		} else {
			others = append(others, d)
		}
	}
	return others
}

// cover returns the documents of last that the snapshot lacks because they cannot be read now, as its problems tell.
func (c *compiler) cover(last []Document) []*Document {
	if len(last) == 0 || len(c.problems) == 0 {
		return nil
	}
	unreadable := make(map[Problem]bool, len(c.problems))
	for _, p := range c.problems {
		unreadable[identity(p)] = true
	}
	var held []*Document
	for i := range last {
		d := &last[i]
		if _, there := c.live[d.key()]; there {
			continue
		}
		if about := identities(d); slices.ContainsFunc(about[:], func(p Problem) bool { return unreadable[p] }) {
			held = append(held, d)
		}
	}
	return held
}

// before finds the version of d that was in force.
func (c *compiler) before(d *Document, last []Document) (*Document, bool) {
	if c.previous == nil {
		c.previous = make(map[key]*Document, len(last))
		for i := range last {
			c.previous[last[i].key()] = &last[i]
		}
	}
	found, ok := c.previous[d.key()]
	return found, ok
}

// route puts a policy of the snapshot in force, or refuses it and says why.
func (c *compiler) route(d *Document) bool {
	known := true
	for _, candidate := range d.Policy.Backends {
		if _, ok := c.served[key{KindBackend, candidate.Backend}]; !ok {
			known = false
			c.refusef(d, "backend %q does not exist%s", candidate.Backend, c.suggestBackend(candidate.Backend))
		}
	}
	if !known {
		return false
	}
	if owner, name := c.clash(d.Policy); owner != nil {
		c.refusef(d, "model %q of organization %q is already routed by policy %s at %s",
			name, d.Policy.Organization, owner.ID(), owner.place())
		return false
	}
	c.take(d, d.Policy.Backends)
	return true
}

// hold keeps a policy in force as it was. It yields to whatever is there now: backends that are gone are left out, and
// a name that another policy took is not taken back.
func (c *compiler) hold(d *Document) {
	left := slices.DeleteFunc(slices.Clone(d.Policy.Backends), func(candidate Candidate) bool {
		_, ok := c.served[key{KindBackend, candidate.Backend}]
		return !ok
	})
	if owner, _ := c.clash(d.Policy); owner == nil && len(left) > 0 {
		c.take(d, left)
	}
}

// clash finds the policy that has one of p's names already.
func (c *compiler) clash(p *RoutingPolicy) (owner *Document, name string) {
	for name := range p.names() {
		if route, taken := c.table.routes[address{p.Organization, name}]; taken {
			return c.served[key{KindRoutingPolicy, route.Policy}], name
		}
	}
	return nil, ""
}

// names are the model and its aliases.
func (p *RoutingPolicy) names() iter.Seq[string] {
	return func(yield func(string) bool) {
		for i := -1; i < len(p.Aliases); i++ {
			name := p.Model
			if i >= 0 {
				name = p.Aliases[i]
			}
			if !yield(name) {
				return
			}
		}
	}
}

func (c *compiler) take(d *Document, candidates []Candidate) {
	p := d.Policy
	c.serve(d)
	route := &Route{
		Policy:            p.ID,
		Organization:      p.Organization,
		Model:             p.Model,
		FallbackModels:    p.FallbackModels,
		Candidates:        candidates,
		Strategy:          p.Strategy,
		Retry:             p.Retry,
		FailoverThreshold: p.FailoverThreshold,
		Stream:            p.Stream,
		Clamps:            p.Clamps,
		Fields:            p.Fields,
		Revision:          d.Revision,
		Place:             d.place(),
		Legacy:            d.Legacy,
		allow:             set(p.Keys.Allow),
		deny:              set(p.Keys.Deny),
	}
	route.resolve()
	if byTier := func(a, b Candidate) int { return a.Tier - b.Tier }; !slices.IsSortedFunc(route.Candidates, byTier) {
		route.Candidates = slices.Clone(route.Candidates) // The document's own stays as it was written.
		slices.SortStableFunc(route.Candidates, byTier)
	}
	for name := range p.names() {
		c.table.routes[address{p.Organization, name}] = route
	}
	c.table.listed[p.Organization] = append(c.table.listed[p.Organization], route)
}

// resolve makes sets of the callers, on a copy of what belongs to the document.
func (r *Route) resolve() {
	narrowed := func(c Candidate) bool { return len(c.Callers.Allow)+len(c.Callers.Deny) > 0 }
	if !slices.ContainsFunc(r.Candidates, narrowed) {
		return
	}
	r.Candidates = slices.Clone(r.Candidates)
	for i := range r.Candidates {
		c := &r.Candidates[i]
		c.allow, c.deny = set(c.Callers.Allow), set(c.Callers.Deny)
	}
}

func set(ids []string) map[string]struct{} {
	if len(ids) == 0 {
		return nil
	}
	s := make(map[string]struct{}, len(ids))
	for _, id := range ids {
		s[id] = struct{}{}
	}
	return s
}

// suggestBackend bounds the work: a file of nothing but mistakes must not cost the square of its size.
func (c *compiler) suggestBackend(id string) string {
	c.hints++
	if c.hints > 20 {
		return ""
	}
	if c.ids == nil {
		for k := range c.served {
			if k.kind == KindBackend {
				c.ids = append(c.ids, k.id)
			}
		}
		slices.Sort(c.ids)
	}
	return suggest(id, c.ids)
}

// checkFallbacks tells of fallback models that no policy routes. The policy itself is good: the model is passed over.
func (c *compiler) checkFallbacks() {
	var routed map[string]bool // Made when it is first needed.
	for _, d := range c.live {
		if d.Policy == nil || len(d.Policy.FallbackModels) == 0 {
			continue
		}
		if routed == nil {
			routed = make(map[string]bool, len(c.table.routes))
			for a := range c.table.routes {
				routed[a.name] = true
			}
		}
		for _, model := range d.Policy.FallbackModels {
			if !routed[model] {
				c.refusef(d, "fallback model %q has no routing policy: it is passed over", model)
			}
		}
	}
}

func (c *compiler) finish(held []*Document) *Table {
	t := c.table
	slices.SortFunc(t.documents, func(a, b Document) int {
		if order := strings.Compare(string(a.Kind()), string(b.Kind())); order != 0 {
			return order
		}
		return strings.Compare(a.ID(), b.ID())
	})
	for _, d := range t.documents {
		if d.Backend != nil {
			t.backends = append(t.backends, *d.Backend)
		}
	}
	for _, routes := range t.listed {
		slices.SortFunc(routes, func(a, b *Route) int { return strings.Compare(a.Model, b.Model) })
	}
	t.revision = revision(t.documents)
	c.tellServing(held)
	sortProblems(c.problems)
	t.problems = c.problems
	return t
}

// tellServing marks the problems whose documents are in force all the same. A problem that names no document is about those
// that are held because of it.
func (c *compiler) tellServing(held []*Document) {
	if len(c.problems) == 0 {
		return
	}
	heldFor := make(map[Problem]bool, len(held))
	for _, d := range held {
		if c.served[d.key()] == d {
			for _, about := range identities(d) {
				heldFor[about] = true
			}
		}
	}
	for i := range c.problems {
		p := &c.problems[i]
		p.Serving = heldFor[identity(*p)]
		for _, kind := range Kinds() {
			if p.ID != "" && (p.Kind == "" || p.Kind == kind) && c.served[key{kind, p.ID}] != nil {
				p.Serving = true
			}
		}
	}
}

// identity keeps of a problem only what says which documents it is about.
func identity(p Problem) Problem {
	if p.ID != "" {
		return Problem{Kind: p.Kind, ID: p.ID}
	}
	return Problem{Kind: p.Kind, File: p.File}
}

// identities are all identities of problems that can be about d.
func identities(d *Document) [6]Problem {
	return [...]Problem{
		{Kind: d.Kind(), ID: d.ID()},
		{ID: d.ID()},
		{Kind: d.Kind(), File: d.File},
		{File: d.File},
		{Kind: d.Kind()},
		{},
	}
}

// revision combines the hashes of the documents, which are sorted.
func revision(documents []Document) string {
	hash := sha256.New()
	for i := range documents {
		hash.Write(documents[i].sum[:])
	}
	return hex.EncodeToString(hash.Sum(nil)[:6])
}
