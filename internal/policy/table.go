package policy

import (
	"cmp"
	"slices"
	"time"
)

// Route is how the requests for one model reach backends. It is shared by every request: read it, never change it.
type Route struct {
	// Policy is the id of the routing policy.
	Policy string
	// Organization is the policy's: an organization's id or Everyone.
	Organization string
	// Model is the canonical name; a request may have used an alias.
	Model          string
	FallbackModels []string
	// Candidates has at least one entry, and is sorted by tier; within a tier the order is the document's.
	Candidates        []Candidate
	Strategy          string
	Retry             Retry
	FailoverThreshold int
	Stream            StreamRules
	// Clamps and Fields hold for the request as a whole, also where a fallback model answers it.
	Clamps Clamps
	Fields Fields
	// Revision, Place and Legacy are those of the policy's document.
	Revision int64
	Place    string
	Legacy   bool

	allow, deny map[string]struct{}
	marks       []*Mark // on the model, for everybody or one organization; the strictest first
}

// open says whether the key may use the route.
func (r *Route) open(keyID string) bool {
	return !in(r.deny, keyID) && (len(r.allow) == 0 || in(r.allow, keyID))
}

type address struct{ organization, name string }

// Table is one complete, checked state of all documents. It never changes.
type Table struct {
	routes    map[address]*Route  // by every name: models and aliases
	listed    map[string][]*Route // by organization, each sorted by model
	marked    map[string][]*Mark  // by organization: on the whole of it, each the strictest first
	backends  []Backend           // sorted by id
	documents []Document          // in force, sorted by kind and id
	problems  []Problem
	revision  string
	origin    string
	loadedAt  time.Time
}

// Lookup finds the route for a model or an alias of one: the organization's own first, then everyone's. A route that the
// key may not use is not found, and the wider one does not take its place. It allocates nothing.
func (t *Table) Lookup(organization, model, keyID string) (*Route, bool) {
	route, allowed := t.Explain(organization, model, keyID)
	if !allowed {
		return nil, false
	}
	return route, true
}

// Explain is Lookup for those who ask why: it also gives the route that Lookup keeps from this key, and nil only where no
// policy routes the model.
func (t *Table) Explain(organization, model, keyID string) (route *Route, allowed bool) {
	route, ok := t.routes[address{organization, model}]
	if !ok {
		route, ok = t.routes[address{Everyone, model}]
	}
	return route, ok && route.open(keyID)
}

// Models lists the canonical names of the models that Lookup finds for this organization and key, sorted.
func (t *Table) Models(organization, keyID string) []string {
	var models []string
	for _, route := range t.listed[organization] {
		if route.open(keyID) {
			models = append(models, route.Model)
		}
	}
	if organization != Everyone {
		for _, route := range t.listed[Everyone] {
			_, narrower := t.routes[address{organization, route.Model}]
			if !narrower && route.open(keyID) {
				models = append(models, route.Model)
			}
		}
		slices.Sort(models)
	}
	return models
}

// Backends lists all backends, sorted by id, whether a policy names them or not.
func (t *Table) Backends() []Backend { return slices.Clone(t.backends) }

// Documents lists the documents in force, sorted by kind and id: of one that is bad now, the last good version.
func (t *Table) Documents() []Document { return slices.Clone(t.documents) }

// Find finds a document in force.
func (t *Table) Find(kind Kind, id string) (Document, bool) {
	i, found := slices.BinarySearchFunc(t.documents, key{kind, id}, func(d Document, k key) int {
		return cmp.Or(cmp.Compare(d.Kind(), k.kind), cmp.Compare(d.ID(), k.id))
	})
	if !found {
		return Document{}, false
	}
	return t.documents[i], true
}

func all[T any](t *Table, kind Kind, content func(Document) T) []T {
	var list []T
	for _, d := range t.documents {
		if d.Kind() == kind {
			list = append(list, content(d))
		}
	}
	return list
}

// Routes counts the routing policies that are in force.
func (t *Table) Routes() int {
	n := 0
	for _, routes := range t.listed {
		n += len(routes)
	}
	return n
}

// Problems lists what is wrong with the documents of the source, by file and line.
func (t *Table) Problems() []Problem { return slices.Clone(t.problems) }

// Revision is a short hash of the documents in force: the same for the same documents in any order.
func (t *Table) Revision() string { return t.revision }

// Origin says in words where the documents come from.
func (t *Table) Origin() string { return t.origin }

// LoadedAt is when this revision came into force.
func (t *Table) LoadedAt() time.Time { return t.loadedAt }
