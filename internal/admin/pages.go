package admin

import (
	"bytes"
	"net/http"
	"strings"
	"time"

	"github.com/ai-aas/api-router/internal/admin/console"
	"github.com/ai-aas/api-router/internal/adminapi"
	"github.com/ai-aas/api-router/internal/fault"
	"github.com/ai-aas/api-router/internal/policy"
)

// pagePolicy is the Content-Security-Policy of pages: what they need comes from here, in files of its own.
const pagePolicy = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

const htmlType = "text/html; charset=utf-8"

// pageTable is what is served beside the admin API, all of it for reading: by path.
func (a *Admin) pageTable() map[string]route {
	pages := map[string]route{}
	add := func(path string, who access, query []string, handle handler) {
		pages[path] = route{http.MethodGet, path, who, query, handle}
	}
	add("/", viewer, nil, a.home)
	add("/status", reviewer, nil, a.status)
	add(console.LivePath, viewer, nil, a.live)
	for path, asset := range console.Assets() {
		add(path, viewer, nil, func(*call) (reply, error) { return reply{text: asset.Content, kind: asset.Type}, nil })
	}
	add(profilePath, operator, nil, a.profiles)
	for _, p := range profiles {
		add(profilePath+p.name, operator, p.query, func(c *call) (reply, error) { return a.record(c, p) })
	}
	return pages
}

// page is the page at a request's path, as it was sent.
func (a *Admin) page(r *http.Request) (route, bool) {
	page, ok := a.pages[r.URL.EscapedPath()]
	return page, ok
}

// status answers how the process is, component by component.
func (a *Admin) status(*call) (reply, error) { return reply{body: a.Health()}, nil }

func (a *Admin) home(c *call) (reply, error) {
	view := a.look()
	view.Actor, view.Role = c.actor.name, c.actor.role
	return page(console.Page, view)
}

// live answers the parts of the page that change.
func (a *Admin) live(*call) (reply, error) { return page(console.Live, a.look()) }

func page[T any](render func(*bytes.Buffer, T) error, view T) (reply, error) {
	var text bytes.Buffer
	if err := render(&text, view); err != nil {
		return reply{}, err
	}
	return reply{text: text.Bytes(), kind: htmlType}, nil
}

// look gathers what the console shows.
func (a *Admin) look() console.View {
	now := time.Now()
	v := console.View{Now: now, Health: a.Health()}
	s := sight{table: a.Table(), now: now}
	for _, b := range a.Fleet() {
		v.Backends = append(v.Backends, s.backend(b))
	}
	for _, r := range a.Recent(console.Requests) {
		v.Requests = append(v.Requests, showDecision(r))
	}
	if s.table == nil {
		return v
	}
	v.Revision, v.Origin, v.Since = s.table.Revision(), s.table.Origin(), s.table.LoadedAt()
	for _, d := range s.table.Documents() {
		switch {
		case d.Policy != nil:
			v.Policies = append(v.Policies, showPolicy(d))
		case d.Mark != nil && d.Mark.Active(now):
			v.Marks = append(v.Marks, adminapi.Mark(*d.Mark))
		}
	}
	return v
}

func showPolicy(d policy.Document) console.Policy {
	p := d.Policy
	shown := console.Policy{
		ID: p.ID, Model: p.Model, Aliases: p.Aliases, Fallbacks: p.FallbackModels, Strategy: p.Strategy, Revision: d.Revision, Place: d.File,
	}
	if p.Organization != policy.Everyone {
		shown.Organization = p.Organization
	}
	for _, c := range p.Backends {
		shown.Backends = append(shown.Backends, console.Candidate{Backend: c.Backend, Tier: c.Tier, Weight: c.Weight, Degraded: c.Degraded})
	}
	return shown
}

// logLevel answers what is logged.
func (a *Admin) logLevel(*call) (reply, error) { return reply{body: a.Level.Get()}, nil }

// longestLevel bounds how long a log level may hold before it goes back.
const longestLevel = 7 * 24 * time.Hour

// setLogLevel changes what is logged.
func (a *Admin) setLogLevel(c *call) (reply, error) {
	var ask adminapi.LogLevelRequest
	if err := c.decode(maxSmallBody, &ask); err != nil {
		return reply{}, err
	}
	hold := time.Duration(ask.For)
	if hold > longestLevel {
		return reply{}, fault.Newf(fault.InvalidRequest, "for must be at most %s; leave it out to change the level for good", longestLevel).WithParam("for")
	}
	before, set, err := a.Level.Set(strings.ToLower(ask.Level), hold, c.actor.name)
	if err != nil {
		return reply{}, fault.New(fault.InvalidRequest, "level must be one of debug, info, warn, error").WithParam("level").WithCause(err)
	}
	a.note(c, "update", kindLogLevel, a.Name, before, set)
	return reply{body: set}, nil
}
