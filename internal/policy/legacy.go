package policy

import (
	"cmp"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// Policies of the earlier service are read as they are.
//
// Their fields are PolicyID, OrganizationID, Model, Backends (each BackendID, Weight, AllowList, DenyList), FailoverThreshold and
// DegradedBackends, in CamelCase, snake_case or a mixture. UpdatedAt and Version are passed over: the book has a history of its own.
// So is any field that neither form knows. That service read its documents so, and they work: to refuse one for a word that never
// had a meaning would take a model away on the day of the change. What is read must be right, as in our own form.
//
// A document is of that form if it has a field that only that form has, and none that only ours has. One that mixes them is read
// as ours, and refused for the fields that are not: nobody can say what it means.
//
//   - No organization, an empty one and "*" mean everyone.
//   - Weights that are all 0 or left out mean equal shares. If only some are 0, those backends get nothing unless the others fail.
//   - A threshold of 0 means the default.
//   - A "*" on an AllowList means that the list narrows nothing.
//   - A degraded backend that the policy does not use is passed over.
//
// The key of such a policy is policies/<id> or policies/<organization or *>/<model>. The first gives the id, whatever PolicyID
// says. The second gives the organization and the model where the document has none, and must not contradict it. The id is then
// PolicyID if that has the form of our ids, and otherwise follows from organization and model, as that of a mark does.

// legacyFields are the fields of that form, folded, and whether they tell that a document has it.
var legacyFields = map[string]bool{
	"policyid": true, "organizationid": true, "model": true, "backends": true, "failoverthreshold": true, "degradedbackends": true,
	"updatedat": false, "version": false,
}

var legacyBackendFields = map[string]bool{"backendid": true, "allowlist": true, "denylist": true}

// ourFields are the names of a policy's fields in our form.
var ourFields = func() map[string]struct{} {
	names := []string{"kind"}
	for _, f := range reflect.VisibleFields(reflect.TypeFor[RoutingPolicy]()) {
		names = append(names, jsonName(f))
	}
	return set(names)
}()

// fold brings the spellings of a name together: PolicyID, policyId and policy_id.
func fold(name string) string { return strings.ToLower(strings.ReplaceAll(name, "_", "")) }

// isLegacyName says that only the earlier form has a field of this name.
func isLegacyName(name string) bool { return legacyFields[fold(name)] && !in(ourFields, name) }

func isLegacy(root *ast.MappingNode) bool {
	found := false
	for _, pair := range root.Values {
		name := textOf(pair.Key)
		folded := fold(name)
		if _, theirs := legacyFields[folded]; !theirs && in(ourFields, name) {
			return false
		}
		found = found || isLegacyName(name) || folded == "backends" && hasLegacyBackend(pair.Value)
	}
	return found
}

func hasLegacyBackend(node ast.Node) bool {
	list, ok := node.(*ast.SequenceNode)
	if !ok {
		return false
	}
	for _, element := range list.Values {
		m, ok := element.(*ast.MappingNode)
		if !ok {
			continue
		}
		for _, pair := range m.Values {
			if legacyBackendFields[fold(textOf(pair.Key))] {
				return true
			}
		}
	}
	return false
}

// legacyField finds a field under any spelling of its name.
func legacyField(m *ast.MappingNode, folded string) ast.Node {
	for _, pair := range m.Values {
		if fold(textOf(pair.Key)) == folded {
			return pair.Value
		}
	}
	return nil
}

// legacy reads a policy of the earlier service.
func (d *decoder) legacy(root *ast.MappingNode) (Document, []Problem) {
	policyID := textOf(legacyField(root, "policyid"))
	if d.key.id == "" && idForm.MatchString(policyID) {
		d.id = policyID
	}
	d.kind = KindRoutingPolicy
	p := new(RoutingPolicy)
	p.fill()
	p.Organization = ""
	threshold := p.FailoverThreshold
	var degraded []string
	d.folded(root, map[string]func(ast.Node){
		"policyid":          func(ast.Node) {},
		"organizationid":    d.into("organization", &p.Organization),
		"model":             d.into("model", &p.Model),
		"backends":          func(node ast.Node) { p.Backends = d.legacyBackends(node) },
		"failoverthreshold": d.into("failover_threshold", &p.FailoverThreshold),
		"degradedbackends":  d.into("degraded_backends", &degraded),
	})
	if p.FailoverThreshold == 0 {
		p.FailoverThreshold = threshold
	}
	if !slices.ContainsFunc(p.Backends, func(c Candidate) bool { return c.Weight != 0 }) {
		for i := range p.Backends {
			p.Backends[i].fill()
		}
	}
	for i, c := range p.Backends {
		p.Backends[i].Degraded = slices.Contains(degraded, c.Backend)
	}
	d.addressed(p)
	p.ID = d.legacyID(p, policyID)
	if len(p.Backends) == 0 && !d.unread("backends") {
		d.mistakef("backends", cmp.Or(legacyField(root, "backends"), ast.Node(root)), "is missing or empty: the policy names no backend")
	}
	return d.finish(Document{Policy: p, Legacy: true})
}

func (d *decoder) legacyBackends(node ast.Node) []Candidate {
	d.at["backends"] = start(node)
	if node.Type() == ast.NullType {
		return nil
	}
	list, ok := node.(*ast.SequenceNode)
	if !ok {
		d.mistakef("backends", node, "must be a list")
		return nil
	}
	candidates := make([]Candidate, len(list.Values))
	for i, element := range list.Values {
		c, path := &candidates[i], "backends["+strconv.Itoa(i)+"]"
		d.at[path] = start(element)
		m, ok := d.mapping(path, element)
		if !ok {
			continue
		}
		d.folded(m, map[string]func(ast.Node){
			"backendid": d.into(path+".id", &c.Backend),
			"weight":    d.into(path+".weight", &c.Weight),
			"allowlist": d.into(path+".callers.allow", &c.Callers.Allow),
			"denylist":  d.into(path+".callers.deny", &c.Callers.Deny),
		})
		if slices.Contains(c.Callers.Allow, Everyone) {
			c.Callers.Allow = nil
		}
	}
	return candidates
}

// folded visits the known fields of m, each under any spelling of its name, and refuses one that is there under two.
func (d *decoder) folded(m *ast.MappingNode, visit map[string]func(ast.Node)) {
	spelled := make(map[string]string, len(visit))
	d.each(m, func(name string, key, value ast.Node) {
		folded := fold(name)
		read, known := visit[folded]
		if !known {
			return
		}
		if other, twice := spelled[folded]; twice {
			d.addf(start(key), "%s and %s are the same field", quote(other), quote(name))
			return
		}
		spelled[folded] = name
		read(value)
	})
}

// into reads a field's value as our form's decoder does.
func (d *decoder) into(path string, v any) func(ast.Node) {
	return func(node ast.Node) { d.value(path, node, reflect.ValueOf(v).Elem()) }
}

// addressed takes organization and model from the key where that names them and the document does not.
func (d *decoder) addressed(p *RoutingPolicy) {
	organization, model, ok := strings.Cut(d.key.id, "/")
	if ok {
		organization = cmp.Or(organization, Everyone)
		if p.Organization = cmp.Or(p.Organization, organization); p.Organization != organization {
			d.addf(d.place("organization"), "the organization is %s here and %s in the key", quote(p.Organization), quote(organization))
		}
		if p.Model = cmp.Or(p.Model, model); p.Model != model && model != "" {
			d.addf(d.place("model"), "the model is %s here and %s in the key", quote(p.Model), quote(model))
		}
	}
	p.Organization = cmp.Or(p.Organization, Everyone)
}

// legacyID is the policy's id: the key's, PolicyID, or one that follows from what the policy routes.
func (d *decoder) legacyID(p *RoutingPolicy, policyID string) string {
	switch {
	case idForm.MatchString(d.key.id):
		return d.key.id
	case idForm.MatchString(policyID):
		return policyID
	case p.Organization == Everyone:
		return MarkID("", p.Model, "")
	}
	return MarkID("", p.Model, p.Organization)
}
