package gateway

import (
	"net/http"
	"slices"
	"strings"

	"github.com/ai-aas/api-router/internal/fault"
	"github.com/ai-aas/api-router/internal/wire"
)

// handler serves one route. An error is rendered, logged and recorded by serve alone.
type handler func(w http.ResponseWriter, r *http.Request, x *exchange) error

// route is one path of the public surface.
type route struct {
	method string
	handle handler
	// quiet keeps successes out of the access log: probes ask every few seconds.
	quiet bool
}

// modelPath is the one prefix: what follows is a model's name, which may contain slashes.
const modelPath = "/v1/models/"

// table is the whole public surface. A path that is not here is a 404; nothing is redirected.
func (g *Gateway) table() map[string]route {
	return map[string]route{
		"/v1/chat/completions": {method: http.MethodPost, handle: g.infer(wire.Chat)},
		"/v1/completions":      {method: http.MethodPost, handle: g.infer(wire.Completion)},
		"/v1/embeddings":       {method: http.MethodPost, handle: g.infer(wire.Embedding)},
		"/v1/models":           {method: http.MethodGet, handle: g.models},
		modelPath:              {method: http.MethodGet, handle: g.model},
		"/healthz":             {method: http.MethodGet, handle: g.healthz, quiet: true},
		"/readyz":              {method: http.MethodGet, handle: g.readyz, quiet: true},
		"/v1/status/healthz":   {method: http.MethodGet, handle: g.statusHealthz, quiet: true},
		"/v1/status/readyz":    {method: http.MethodGet, handle: g.statusReadyz, quiet: true},
	}
}

// find matches the path as it was sent, byte for byte.
func (g *Gateway) find(r *http.Request) (route, error) {
	path := r.URL.EscapedPath()
	if len(path) > len(modelPath) && strings.HasPrefix(path, modelPath) {
		path = modelPath
	} else if path == modelPath {
		path = ""
	}
	found, ok := g.routes[path]
	if !ok {
		return route{quiet: false}, fault.Newf(fault.NotFound, "nothing is served at this path; this router serves %s", g.paths())
	}
	if r.Method != found.method && (r.Method != http.MethodHead || found.method != http.MethodGet) {
		return route{method: found.method}, fault.Newf(fault.MethodNotAllowed, "%s is not allowed here; send a %s", printable(r.Method), found.method)
	}
	return found, nil
}

func (g *Gateway) paths() string {
	var paths []string
	for path, route := range g.routes {
		if !route.quiet && path != modelPath {
			paths = append(paths, path)
		}
	}
	slices.Sort(paths)
	return strings.Join(paths, ", ")
}
