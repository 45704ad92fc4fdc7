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
// have their own paths; {id}, {organization}, {project}, {key} and {admin} are any one segment.
type route struct {
	method string
	path   string // below adminapi.Prefix; of a page the whole of it
	access access
	// query are the parameters that the route takes.
	query  []string
	handle handler
}

// table is the whole admin API. A path that is not here is a 404; nothing is redirected.
func (a *Admin) table() []route {
	routes := []route{
		{http.MethodPost, "/marks", operator, nil, a.mark},
		{http.MethodPost, "/validate", viewer, nil, a.validate},
		{http.MethodPost, "/diff", viewer, nil, a.diff},
		{http.MethodPost, "/explain", viewer, nil, a.explain},
		{http.MethodGet, "/decisions", viewer, []string{"limit"}, a.decisions},
		{http.MethodGet, "/audit", reviewer, []string{"before", "limit"}, a.audit},
		{http.MethodGet, "/audit/entries", reviewer, []string{"actor", "before", "id", "kind", "limit", "organization", "since"}, a.entries},
		{http.MethodGet, "/fleet", viewer, nil, a.fleet},
		{http.MethodGet, "/status", reviewer, nil, a.status},
		{http.MethodGet, "/log-level", viewer, nil, a.logLevel},
		{http.MethodPut, "/log-level", operator, nil, a.setLogLevel},
		{http.MethodGet, "/openapi.yaml", reviewer, nil, a.openAPI},
	}
	for path, writer := range map[string]access{"/{collection}": admin, "/marks": operator} {
		routes = append(routes,
			route{http.MethodGet, path, viewer, []string{"invalid"}, a.list},
			route{http.MethodGet, path + "/{id}", viewer, nil, a.get},
			route{http.MethodPut, path + "/{id}", writer, []string{"reason"}, a.put},
			route{http.MethodDelete, path + "/{id}", writer, []string{"reason"}, a.delete},
			route{http.MethodGet, path + "/{id}/history", reviewer, []string{"before", "limit"}, a.history},
			route{http.MethodPost, path + "/{id}/rollback", writer, nil, a.rollback})
	}
	return append(routes, a.identityTable()...)
}

// identityTable is the part of the API for organizations, their projects and keys, and for admins. Whatever belongs to an organization is below it.
func (a *Admin) identityTable() []route {
	const organizations = "/organizations"
	const one, keys = organizations + "/{organization}", organizations + "/{organization}/keys"
	const admins = "/admins"
	of := a.identified
	return []route{
		{http.MethodGet, organizations, viewer, []string{"after", "limit"}, of(a.organizations)},
		{http.MethodGet, one, viewer, nil, of(a.organization)},
		{http.MethodPut, one, admin, []string{"reason"}, of(a.putOrganization)},
		{http.MethodDelete, one, admin, []string{"reason"}, of(a.deleteOrganization)},
		{http.MethodPost, one + "/disable", admin, nil, of(a.switchOrganization(true))},
		{http.MethodPost, one + "/enable", admin, nil, of(a.switchOrganization(false))},
		{http.MethodGet, one + "/projects", viewer, []string{"after", "limit"}, of(a.projects)},
		{http.MethodGet, one + "/projects/{project}", viewer, nil, of(a.project)},
		{http.MethodPut, one + "/projects/{project}", admin, []string{"reason"}, of(a.putProject)},
		{http.MethodDelete, one + "/projects/{project}", admin, []string{"reason"}, of(a.deleteProject)},
		{http.MethodGet, keys, viewer, []string{"after", "limit"}, of(a.keyPage)},
		{http.MethodPost, keys, admin, nil, of(a.createKey)},
		{http.MethodGet, keys + "/{key}", viewer, nil, of(a.key)},
		{http.MethodPatch, keys + "/{key}", admin, nil, of(a.changeKey)},
		{http.MethodDelete, keys + "/{key}", admin, []string{"reason"}, of(a.deleteKey)},
		{http.MethodPost, keys + "/{key}/rotate", admin, nil, of(a.rotateKey)},
		{http.MethodPost, keys + "/{key}/revoke", admin, nil, of(a.revokeKey)},
		{http.MethodPost, one + "/fingerprints", admin, nil, of(a.importKeys)},
		{http.MethodGet, admins, overseer, nil, of(a.admins)},
		{http.MethodPost, admins, admin, nil, of(a.createAdmin)},
		{http.MethodGet, admins + "/{admin}", overseer, nil, of(a.admin)},
		{http.MethodPut, admins + "/{admin}", admin, []string{"reason"}, of(a.putAdmin)},
		{http.MethodDelete, admins + "/{admin}", admin, []string{"reason"}, of(a.deleteAdmin)},
		{http.MethodPost, admins + "/{admin}/revoke", admin, nil, of(a.revokeAdmin)},
	}
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
		at, fits := candidate.match(segments)
		switch {
		case !fits:
		case r.Method == candidate.method || r.Method == http.MethodHead && candidate.method == http.MethodGet:
			c.spot = at
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

// spot is what the path of a request names.
type spot struct {
	kind policy.Kind
	id   string
	// organization is whom item, a project or a key, belongs to; item can be an admin, too.
	organization, item string
}

// ids are all that the path names.
func (s spot) ids() []string { return []string{s.id, s.organization, s.item} }

// match takes what a path names out of one that fits.
func (r route) match(segments []string) (at spot, fits bool) {
	wanted := strings.Split(r.path[1:], "/")
	if len(segments) != len(wanted) {
		return spot{}, false
	}
	for i, want := range wanted {
		got, err := url.PathUnescape(segments[i])
		switch {
		case err != nil || got == "":
			return spot{}, false
		case want == "{collection}":
			if at.kind = ofCollection(got); at.kind == "" || at.kind == policy.KindMark {
				return spot{}, false
			}
		case want == "{id}":
			at.id = got
		case want == "{organization}":
			at.organization = got
		case want == "{project}", want == "{key}", want == "{admin}":
			at.item = got
		case want != got:
			return spot{}, false
		case want == adminapi.Marks:
			at.kind = policy.KindMark
		}
	}
	return at, true
}

func ofCollection(name string) policy.Kind {
	for _, kind := range policy.Kinds() {
		if kind.Collection() == name {
			return kind
		}
	}
	return ""
}
