package admin

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/ai-aas/api-router/internal/adminapi"
	"github.com/ai-aas/api-router/internal/fault"
	"github.com/ai-aas/api-router/internal/policy"
)

// handler serves one route. It writes nothing itself: serve renders what it returns.
type handler func(*call) (reply, error)

// route is one path of the admin API, or a page. In a path, {collection} is one of the collections of documents but marks, which
// have their own paths, and {id} is any one segment.
type route struct {
	method string
	path   string // below adminapi.Prefix; of a page the whole of it
	role   string // the least that may use it
	// query are the parameters that the route takes.
	query  []string
	handle handler
}

// table is the whole admin API. A path that is not here is a 404; nothing is redirected.
func (a *Admin) table() []route {
	const viewer, operator, admin = adminapi.RoleViewer, adminapi.RoleOperator, adminapi.RoleAdmin
	routes := []route{
		{http.MethodPost, "/marks", operator, nil, a.mark},
		{http.MethodPost, "/validate", viewer, nil, a.validate},
		{http.MethodPost, "/diff", viewer, nil, a.diff},
		{http.MethodPost, "/explain", viewer, nil, a.explain},
		{http.MethodGet, "/decisions", viewer, []string{"limit"}, a.decisions},
		{http.MethodGet, "/audit", viewer, []string{"limit"}, a.audit},
		{http.MethodGet, "/fleet", viewer, nil, a.fleet},
		{http.MethodGet, "/status", viewer, nil, a.status},
		{http.MethodGet, "/log-level", viewer, nil, a.logLevel},
		{http.MethodPut, "/log-level", operator, nil, a.setLogLevel},
		{http.MethodGet, "/openapi.yaml", viewer, nil, a.openAPI},
	}
	for path, writer := range map[string]string{"/{collection}": admin, "/marks": operator} {
		routes = append(routes,
			route{http.MethodGet, path, viewer, []string{"invalid"}, a.list},
			route{http.MethodGet, path + "/{id}", viewer, nil, a.get},
			route{http.MethodPut, path + "/{id}", writer, []string{"reason"}, a.put},
			route{http.MethodDelete, path + "/{id}", writer, []string{"reason"}, a.delete},
			route{http.MethodGet, path + "/{id}/history", viewer, []string{"limit"}, a.history},
			route{http.MethodPost, path + "/{id}/rollback", writer, nil, a.rollback})
	}
	return routes
}

// find matches a request's path, as it was sent, and its method. Where only the method does not fit, allow lists those that do.
func (a *Admin) find(r *http.Request, c *call) (found route, allow []string, err error) {
	if page, ok := a.page(r); ok {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			return route{}, []string{http.MethodGet, http.MethodHead}, fault.Newf(fault.MethodNotAllowed, "%s is not allowed here; use GET", printable(r.Method))
		}
		return page, nil, nil
	}
	below, ok := strings.CutPrefix(r.URL.EscapedPath(), adminapi.Prefix+"/")
	if !ok {
		return route{}, nil, fault.Newf(fault.NotFound, "nothing is served at this path; the admin API is below %s, the console at /", adminapi.Prefix)
	}
	segments := strings.Split(below, "/")
	for _, candidate := range a.routes {
		kind, id, fits := candidate.match(segments)
		switch {
		case !fits:
		case r.Method == candidate.method || r.Method == http.MethodHead && candidate.method == http.MethodGet:
			c.kind, c.id = kind, id
			return candidate, nil, nil
		default:
			allow = append(allow, candidate.method)
			if candidate.method == http.MethodGet {
				allow = append(allow, http.MethodHead)
			}
		}
	}
	if allow != nil {
		slices.Sort(allow)
		return route{}, allow, fault.Newf(fault.MethodNotAllowed, "%s is not allowed here; use %s", printable(r.Method), strings.Join(allow, ", "))
	}
	return route{}, nil, fault.Newf(fault.NotFound, "nothing is served at this path; %s/openapi.yaml describes what is", adminapi.Prefix)
}

// match takes the collection and the id out of a path that fits.
func (r route) match(segments []string) (kind policy.Kind, id string, fits bool) {
	wanted := strings.Split(r.path[1:], "/")
	if len(segments) != len(wanted) {
		return "", "", false
	}
	for i, want := range wanted {
		got, err := url.PathUnescape(segments[i])
		switch {
		case err != nil || got == "":
			return "", "", false
		case want == "{collection}":
			if kind = ofCollection(got); kind == "" || kind == policy.KindMark {
				return "", "", false
			}
		case want == "{id}":
			id = got
		case want != got:
			return "", "", false
		case want == adminapi.Marks:
			kind = policy.KindMark
		}
	}
	return kind, id, true
}

func ofCollection(name string) policy.Kind {
	for _, kind := range policy.Kinds() {
		if kind.Collection() == name {
			return kind
		}
	}
	return ""
}
