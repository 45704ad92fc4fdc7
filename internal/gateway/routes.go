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
	// endpoint is the path as the metrics name it.
	endpoint string
	method   string
	handle   handler
	// quiet keeps successes out of the access log: probes ask every few seconds.
	quiet bool
}

// modelPath is the one prefix: what follows is a model's name, which may contain slashes.
const modelPath = "/v1/models/"

// endpoints are the paths of the inferences, for clients and backends.
var endpoints = [...]string{wire.Chat: "/v1/chat/completions", wire.Completion: "/v1/completions", wire.Embedding: "/v1/embeddings"}

// table is the whole public surface. A path that is not here is a 404; nothing is redirected.
func (g *Gateway) table() map[string]route {
	routes := map[string]route{
		endpoints[wire.Chat]:       {method: http.MethodPost, handle: g.infer(wire.Chat)},
		endpoints[wire.Completion]: {method: http.MethodPost, handle: g.infer(wire.Completion)},
		endpoints[wire.Embedding]:  {method: http.MethodPost, handle: g.infer(wire.Embedding)},
		"/v1/models":               {method: http.MethodGet, handle: g.models},
		modelPath:                  {method: http.MethodGet, handle: g.model},
		"/healthz":                 {method: http.MethodGet, handle: g.healthz, quiet: true},
		"/readyz":                  {method: http.MethodGet, handle: g.readyz, quiet: true},
		"/v1/status/healthz":       {method: http.MethodGet, handle: g.statusHealthz, quiet: true},
		"/v1/status/readyz":        {method: http.MethodGet, handle: g.statusReadyz, quiet: true},
	}
	for path, route := range routes {
		route.endpoint = path
		if path == modelPath {
			route.endpoint = modelPath + "{model}"
		}
		routes[path] = route
	}
	return routes
}

// admit finds the route of a request that the filter lets pass. Headers of the answer that follow from its form are set.
func (g *Gateway) admit(h http.Header, r *http.Request) (route, error) {
	if err := filter(r); err != nil {
		if r.Method == http.MethodConnect {
			h.Set("Allow", "GET, HEAD, POST")
		}
		if r.ProtoMajor == 1 {
			h.Set("Connection", "close")
		}
		return route{}, err
	}
	if unsureEnd(r) {
		h.Set("Connection", "close")
	}
	found, err := g.find(r)
	if err != nil && found.method != "" {
		h.Set("Allow", found.method)
	}
	return found, err
}

// rawPath is the path as it was sent, byte for byte. What follows a "?" belongs to no path and means nothing here.
func rawPath(r *http.Request) string {
	path, _, _ := strings.Cut(r.RequestURI, "?")
	return path
}

// modelName takes the model's name out of a path below modelPath. SDKs escape the slash in a name; people do not. No other
// escape is taken, no empty segment and no dot segment: they would make a second path to the same thing.
func modelName(path string) (name string, ok bool) {
	name, ok = strings.CutPrefix(path, modelPath)
	if !ok {
		return "", false
	}
	name = strings.ReplaceAll(strings.ReplaceAll(name, "%2F", "/"), "%2f", "/")
	for segment := range strings.SplitSeq(name, "/") {
		if segment == "" || segment == "." || segment == ".." || strings.Contains(segment, "%") {
			return "", false
		}
	}
	return name, true
}

// find matches the path exactly, as it was sent.
func (g *Gateway) find(r *http.Request) (route, error) {
	path := rawPath(r)
	if _, ok := modelName(path); ok {
		path = modelPath
	} else if path == modelPath {
		path = ""
	}
	found, ok := g.routes[path]
	if !ok {
		return route{quiet: false}, fault.Newf(fault.NotFound, "nothing is served at this path; this router serves %s", g.paths())
	}
	if r.Method != found.method && (r.Method != http.MethodHead || found.method != http.MethodGet) {
		return route{endpoint: found.endpoint, method: found.method}, fault.Newf(fault.MethodNotAllowed, "%s is not allowed here; send a %s", printable(r.Method), found.method)
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
