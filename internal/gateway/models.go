package gateway

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"

	"github.com/ai-aas/api-router/internal/auth"
	"github.com/ai-aas/api-router/internal/fault"
	"github.com/ai-aas/api-router/internal/plan"
	"github.com/ai-aas/api-router/internal/policy"
)

// modelObject is a model as OpenAI's API lists it.
type modelObject struct {
	ID      string `json:"id"`
	Object  string `json:"object"`
	Created int64  `json:"created"`
	OwnedBy string `json:"owned_by"`
}

type modelList struct {
	Object string        `json:"object"`
	Data   []modelObject `json:"data"`
}

// models serves GET /v1/models: the models that this key may use. One that an operator has switched off stays in the list: it exists,
// clients that read the list at their start find it when it is back, and the error of a request says what has become of it.
func (g *Gateway) models(w http.ResponseWriter, r *http.Request, x *exchange) error {
	_, principal, err := g.authenticate(r, x)
	if err != nil {
		return err
	}
	if err := g.verify(r, x, nil); err != nil {
		return err
	}
	table, err := g.current()
	if err != nil {
		return err
	}
	list := modelList{Object: "list", Data: []modelObject{}}
	for _, name := range allUsable(table, &principal) {
		list.Data = append(list.Data, describe(name, table))
	}
	return writeJSON(w, http.StatusOK, list)
}

// model serves GET /v1/models/{id}. A model that this key may not use looks like one that does not exist.
func (g *Gateway) model(w http.ResponseWriter, r *http.Request, x *exchange) error {
	_, principal, err := g.authenticate(r, x)
	if err != nil {
		return err
	}
	if err := g.verify(r, x, nil); err != nil {
		return err
	}
	table, err := g.current()
	if err != nil {
		return err
	}
	name, _ := modelName(rawPath(r))
	if !usable(table, &principal, name) {
		return g.hint(fault.Newf(fault.ModelNotFound, "no routing policy configured for model %q", printable(name)).WithParam("model"), table, principal)
	}
	x.Model = name
	return writeJSON(w, http.StatusOK, describe(name, table))
}

// usable reports whether a request of this principal can name the model: its key may, and its policy has a backend for it.
func usable(table *policy.Table, principal *auth.Principal, name string) bool {
	route, ok := table.Lookup(principal.Organization, name, principal.KeyID)
	return ok && principal.Scopes.Model(name, route.Model) && plan.Serves(route, principal.Organization, principal.KeyID)
}

// allUsable are the models that a request of this principal can name.
func allUsable(table *policy.Table, principal *auth.Principal) []string {
	return slices.DeleteFunc(table.Models(principal.Organization, principal.KeyID), func(name string) bool { return !usable(table, principal, name) })
}

func describe(name string, table *policy.Table) modelObject {
	return modelObject{ID: name, Object: "model", Created: table.LoadedAt().Unix(), OwnedBy: "api-router"}
}

// maxHinted bounds how many model names a hint lists.
const maxHinted = 20

// hint adds the models that would work to a model_not_found. Only where hints are on: names are nobody else's business.
func (g *Gateway) hint(err error, table *policy.Table, principal auth.Principal) error {
	if !g.Hints || fault.CodeOf(err) != fault.ModelNotFound {
		return err
	}
	names := allUsable(table, &principal)
	e := *fault.From(err)
	switch {
	case len(names) == 0:
		e.Message += "; there are no models yet"
	case len(names) > maxHinted:
		e.Message += "; models here: " + strings.Join(slices.Clip(names[:maxHinted]), ", ") + ", …"
	default:
		e.Message += "; models here: " + strings.Join(names, ", ")
	}
	return &e
}

func writeJSON(w http.ResponseWriter, status int, v any) error {
	content, err := json.Marshal(v)
	if err != nil {
		return err //nolint:wrapcheck // A bug of ours; serve turns it into internal_error.
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(content, '\n')) // The client may be gone; there is nobody else to tell.
	return nil
}
