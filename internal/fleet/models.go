package fleet

import (
	"encoding/json"
	"fmt"
	"path"
	"slices"
)

// Model is one model as a backend lists it.
type Model struct {
	ID          string
	Root        string // what ID stands for: a repository or a path; "" where the engine does not say
	OwnedBy     string
	MaxModelLen int64 // tokens, 0 where the engine does not say
}

// maxName bounds a model's name in a backend's list. Longer ones cannot be asked for and are left out.
const maxName = 256

// catalog is what a backend listed, indexed. It is never changed once it is built.
type catalog struct {
	served []Model
	ids    map[string]struct{}
	roots  map[string]string // root, and its last element where that is unambiguous → id
}

func newCatalog(served []Model) *catalog {
	c := &catalog{served: served, ids: make(map[string]struct{}, len(served)), roots: make(map[string]string, len(served))}
	bases := make(map[string]string, len(served)) // last element → the one root that ends in it, "" when several do
	for _, s := range served {
		c.ids[s.ID] = struct{}{}
		root := s.Root
		if root == "" {
			root = s.ID
		}
		if _, ok := c.roots[root]; !ok {
			c.roots[root] = s.ID
		}
		base := path.Base(root)
		if other, ok := bases[base]; ok && other != root {
			root = ""
		}
		bases[base] = root
	}
	for base, root := range bases {
		if _, taken := c.roots[base]; !taken && root != "" {
			c.roots[base] = c.roots[root]
		}
	}
	return c
}

// ModelName is the backend's own name for a public one. The configured map comes first; then the public name itself, if
// the backend lists it; then the entry whose root is the public name or ends in it after a slash, if there is only one
// such root. Otherwise it is the public name with known false: nothing is listed yet, or the backend serves other models.
func (b *Backend) ModelName(public string) (name string, known bool) {
	if name, ok := b.spec.Load().Models[public]; ok {
		return name, true
	}
	c := b.catalog.Load()
	if _, ok := c.ids[public]; ok {
		return public, true
	}
	if id, ok := c.roots[public]; ok {
		return id, true
	}
	return public, false
}

// Models lists the models that the backend named last. Nil: none yet.
func (b *Backend) Models() []Model { return slices.Clone(b.catalog.Load().served) }

// listing is the body of GET /v1/models in every dialect: OpenAI's fields, and Type, which Anthropic has.
type listing struct {
	Data []struct {
		ID          string `json:"id"`
		Type        string `json:"type"`
		Root        string `json:"root"`
		OwnedBy     string `json:"owned_by"`
		MaxModelLen int64  `json:"max_model_len"`
	} `json:"data"`
}

func parseListing(body []byte) (listing, error) {
	var l listing
	if err := json.Unmarshal(body, &l); err != nil {
		return listing{}, fmt.Errorf("the list of models is not what OpenAI's looks like: %w", err)
	}
	return l, nil
}

func (l listing) served() []Model {
	served := make([]Model, 0, len(l.Data))
	for _, m := range l.Data {
		if m.ID == "" || len(m.ID) > maxName {
			continue
		}
		served = append(served, Model{ID: m.ID, Root: m.Root, OwnedBy: m.OwnedBy, MaxModelLen: max(0, m.MaxModelLen)})
	}
	return served
}
