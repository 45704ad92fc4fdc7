package app

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ai-aas/api-router/internal/adminapi"
	"github.com/ai-aas/api-router/internal/fleet"
	"github.com/ai-aas/api-router/internal/gateway"
	"github.com/ai-aas/api-router/internal/policy"
	"github.com/ai-aas/api-router/internal/usage"
)

// part is one thing that the process is made of or depends on. The same knowledge has two views: operators see all of it, on the admin
// listener; outsiders see neither an address nor a reason that could hold a name.
type part struct {
	// components are what operators see.
	components func() []adminapi.Component
	// public is what the status pages of the public listener show; nil: nothing.
	public func() []gateway.Component
}

// components is everything there is to say how the process is: /status, the public status pages, the console and the command line tell of
// these. What comes to exist gets its line here.
func (a *App) components() []part {
	return []part{
		{components: a.processHealth},
		{components: a.policyHealth, public: a.policyPublic},
		{components: a.backendHealth, public: a.backendsPublic},
		{components: a.markHealth},
		{components: a.sinkHealth, public: a.sinksPublic},
		{components: a.sourceHealth, public: a.place.public},
		{components: a.besideHealth, public: a.besidePublic},
		{components: a.identityHealth, public: a.identityPublic},
		{components: a.bodyHealth},
		{components: a.tokenHealth},
		{components: a.adminsHealth},
		{components: a.certificates.health},
		{components: a.metrics.health},
		{components: a.telemetryHealth, public: a.telemetryPublic},
	}
}

// health is the process for operators.
func (a *App) health() adminapi.Health {
	now := time.Now()
	h := adminapi.Health{
		Version: a.version, At: now, Since: a.began, UptimeSeconds: seconds(now.Sub(a.began)), Components: []adminapi.Component{},
	}
	h.State, _ = a.gateway.Readiness()
	for _, p := range a.components() {
		for _, c := range p.components() {
			if !c.DataAsOf.IsZero() {
				c.AgeSeconds = new(max(0, seconds(now.Sub(c.DataAsOf))))
			}
			if c.Action != "" {
				h.Attention++
			}
			h.Components = append(h.Components, c)
		}
	}
	return h
}

// publicHealth is the process for the status pages of the public listener: states and counts, no address.
func (a *App) publicHealth() []gateway.Component {
	var all []gateway.Component
	for _, p := range a.components() {
		if p.public != nil {
			all = append(all, p.public()...)
		}
	}
	return all
}

func seconds(d time.Duration) float64 {
	return float64(d.Round(time.Millisecond)) / float64(time.Second)
}

func (a *App) processHealth() []adminapi.Component {
	c := adminapi.Component{Name: adminapi.ComponentProcess, OK: true, Since: a.began}
	c.State, _ = a.gateway.Readiness()
	c.Detail = fmt.Sprintf("version %s, %d requests running", a.version, a.running.Load())
	switch c.State {
	case adminapi.StateDraining:
		c.Since = a.drainingSince()
	case adminapi.StateStarting:
		c.OK = false // Why, policy and policy_source say.
	}
	return []adminapi.Component{c}
}

func (a *App) drainingSince() time.Time {
	if nanos := a.drainBegan.Load(); nanos != 0 {
		return time.Unix(0, nanos)
	}
	return time.Time{}
}

func (a *App) policyHealth() []adminapi.Component {
	status, table := a.store.Status(), a.store.Table()
	c := adminapi.Component{Name: adminapi.ComponentPolicy, State: "loading", Since: a.began}
	if table == nil {
		if time.Since(a.began) > loadingFor {
			c.Action = "No policy was ever loaded and requests get 503: mend the policy source."
		}
		return []adminapi.Component{c}
	}
	c.State, c.OK, c.Since, c.DataAsOf = "loaded", true, table.LoadedAt(), confirmed(&status)
	c.Detail = fmt.Sprintf("revision %s, %d policies and %d backends in %s", table.Revision(), table.Routes(), len(table.Backends()), table.Origin())
	if status.LastGood {
		c.State = "last good"
	}
	problems := slices.DeleteFunc(table.Problems(), func(p policy.Problem) bool { return p.Message == status.Failure })
	switch {
	case len(problems) > 0:
		c.OK, c.State, c.LastError = false, fmt.Sprintf("%s, %d problems", c.State, len(problems)), problems[0].String()
		c.Action = "Correct the documents that \"api-router get policies --invalid\" shows; the others, and last good versions, serve."
	case table.Routes() == 0:
		c.OK, c.State = false, "empty"
		c.Action = "There are no policies, so every model is unknown: write some, as with \"api-router seed -f\"."
	}
	return []adminapi.Component{c}
}

// loadingFor is how long a start may take until its policies are missed.
const loadingFor = 10 * time.Second

// confirmed is when the source last stood behind what is in force.
func confirmed(s *policy.Status) time.Time {
	if s.Confirmed.IsZero() {
		return time.Now()
	}
	return s.Confirmed
}

func (a *App) policyPublic() []gateway.Component {
	c := gateway.Component{Name: "policy", State: "loading", Needed: true}
	if table := a.store.Table(); table != nil {
		c.State, c.OK, c.Since = "loaded", true, table.LoadedAt()
		if n := len(table.Problems()); n > 0 {
			c.State = fmt.Sprintf("loaded, %d problems", n)
		}
		if a.store.Status().Failure != "" {
			c.State += ", and the policy source cannot be read"
		}
	}
	return []gateway.Component{c}
}

// sourceHealth is the place of the documents: what the book knows of itself, or what the store has seen of a place without one.
func (a *App) sourceHealth() []adminapi.Component {
	status := a.store.Status()
	c := adminapi.Component{Name: adminapi.ComponentPolicySource, ID: a.config.Policy.Source}
	if a.place.health != nil {
		a.place.health(&c)
	}
	switch {
	case status.Failure != "":
		c.OK, c.Since, c.LastError = false, status.FailureSince, cmp.Or(c.LastError, status.Failure)
		c.State = "failing"
		meanwhile := "Requests get 503 until it can be read; "
		if status.Loaded {
			c.DataAsOf, meanwhile = confirmed(&status), "What is in force stays in force; "
		}
		c.Action = meanwhile + advice(a.config.Policy.Source, c.LastError) + "."
	case c.State != "":
	case status.Loaded:
		c.State, c.OK, c.Since, c.DataAsOf = "read", true, a.began, time.Now()
	default:
		c.State = "reading"
	}
	return []adminapi.Component{c}
}

func (a *App) backendHealth() []adminapi.Component {
	statuses, unread := a.fleet.Status(), a.roster.unread()
	all := make([]adminapi.Component, 0, len(statuses))
	for i := range statuses {
		c := backendComponent(&statuses[i])
		if p, ok := unread[c.ID]; ok {
			c.OK, c.LastError, c.Action = false, p.text, "Its last readable secret is in use: mend "+secretPlace+"."
			delete(unread, c.ID)
		}
		all = append(all, c)
	}
	for id, p := range unread {
		all = append(all, adminapi.Component{
			Name: adminapi.ComponentBackend, ID: id, State: "no secret", LastError: p.text, Since: p.since,
			Action: "It gets no request until its secret can be read: mend " + secretPlace + ".",
		})
	}
	slices.SortFunc(all, func(a, b adminapi.Component) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

const secretPlace = "the variable or file that its document names"

// backendComponent says how a backend is. A mark is an operator's wish, so a marked backend is as it should be.
func backendComponent(s *fleet.Status) adminapi.Component {
	c := adminapi.Component{
		Name: adminapi.ComponentBackend, ID: s.ID, State: s.State, OK: true, Since: s.Since, LastError: s.LastError, DataAsOf: s.Probed,
		Detail: fmt.Sprintf("%s at %s, %d in flight", s.Engine, s.URL, s.InFlight),
	}
	if s.Limit > 0 {
		c.Detail += fmt.Sprintf(" of %d", s.Limit)
	}
	if s.Mark.State != "" {
		c.Detail += ", marked " + s.Mark.State
	}
	switch {
	case s.State == "disabled", s.State == "draining":
		c.LastError = ""
	case s.State == "unhealthy":
		c.OK, c.LastError = false, cmp.Or(s.Reason, s.LastError)
		c.Action = "It gets no request: start it, or correct its url (" + s.URL + "). It is used again as soon as it answers."
	case s.State == "ejected":
		c.OK, c.LastError = false, cmp.Or(s.Reason, s.LastError)
		c.Action = "It failed several requests in a row and rests: look into its own log. It is tried again by itself."
	case strings.Contains(s.Listing, "API key"):
		c.OK, c.LastError, c.Action = false, s.Listing, "It refuses the router's key: correct api_key in its document."
	case s.Probe == "unknown":
		c.Detail += ", not asked yet"
	}
	return c
}

func (a *App) backendsPublic() []gateway.Component {
	statuses, available := a.fleet.Status(), 0
	for _, s := range statuses {
		if s.State == "available" {
			available++
		}
	}
	broken := a.roster.broken()
	c := gateway.Component{
		Name: "backends", State: fmt.Sprintf("%d of %d available", available, len(statuses)+broken), OK: available > 0 && broken == 0,
	}
	if broken > 0 {
		c.State += fmt.Sprintf(", %d without a readable secret", broken)
	}
	return []gateway.Component{c}
}

func (a *App) markHealth() []adminapi.Component {
	c := adminapi.Component{Name: adminapi.ComponentMarks, State: "none", OK: true}
	table := a.store.Table()
	if table == nil {
		return []adminapi.Component{c}
	}
	var holding []string
	for _, m := range table.Marks() {
		if !m.Active(time.Now()) {
			continue
		}
		holding = append(holding, describeMark(&m))
		if m.Since.After(c.Since) {
			c.Since = m.Since
		}
	}
	if n := len(holding); n > 0 {
		c.State = fmt.Sprintf("%d in force", n)
		c.Detail = strings.Join(holding[:min(n, maxShown)], "; ")
		if n > maxShown {
			c.Detail += fmt.Sprintf("; and %d more", n-maxShown)
		}
	}
	return []adminapi.Component{c}
}

// maxShown bounds how many marks one component tells of.
const maxShown = 10

// sink is a place of usage records that can say how it is.
type sink struct{ status func() usage.LinesStatus }

func (a *App) sinkHealth() []adminapi.Component {
	if len(a.sinks) == 0 {
		return []adminapi.Component{{Name: adminapi.ComponentUsageSink, State: "off", OK: true, Detail: "usage shows in the log alone"}}
	}
	all := make([]adminapi.Component, 0, len(a.sinks))
	for _, sink := range a.sinks {
		s := sink.status()
		c := adminapi.Component{Name: adminapi.ComponentUsageSink, ID: s.Path, State: "writing", OK: true, Since: s.Since, LastError: s.Failure, DataAsOf: s.Written}
		if lost := a.recorder.Lost(); lost > 0 {
			c.Detail = fmt.Sprintf("%d lines lost since the start, over all sinks", lost)
		}
		if s.Failure != "" {
			c.State, c.OK = "failing", false
			c.Action = "Usage records are being lost: make the file writable, or the disk larger."
		}
		all = append(all, c)
	}
	return all
}

func (a *App) sinksPublic() []gateway.Component {
	c := gateway.Component{Name: "usage", State: "recording", OK: true}
	switch lost := a.recorder.Lost(); {
	case len(a.config.Usage.Sinks) == 0:
		c.State = "off"
	case lost > 0:
		c.State, c.OK = fmt.Sprintf("%d lines lost", lost), false
	}
	return []gateway.Component{c}
}

func (a *App) bodyHealth() []adminapi.Component {
	used, limit := a.gateway.Bodies()
	c := adminapi.Component{
		Name: adminapi.ComponentBodyMemory, State: "free", OK: true, Detail: fmt.Sprintf("%d of %d MiB in use", used>>20, limit>>20),
	}
	if used > limit/10*9 {
		c.State, c.OK = "nearly full", false
		c.Action = "Requests are about to be refused with 429 queue_full: add replicas, or raise server.body_memory."
	}
	return []adminapi.Component{c}
}

// tokenHealth tells of the admin tokens, by name: of those that do not work, or of all in one line.
func (a *App) tokenHealth() []adminapi.Component {
	c := adminapi.Component{Name: adminapi.ComponentAdminToken, State: "closed", OK: true, Detail: "identity.admin_tokens is empty, and the admin listener closed"}
	if a.operators == nil {
		return []adminapi.Component{c}
	}
	list := a.operators.tokens.current.Load()
	if len(list.valid)+len(list.problems) == 0 {
		c.State, c.Detail = "open", "this machine is let in without a token"
		return []adminapi.Component{c}
	}
	c.State, c.DataAsOf, c.Detail = "read", list.at, fmt.Sprintf("%d of %d can be read", len(list.valid), len(list.valid)+len(list.problems))
	all := []adminapi.Component{c}
	for _, t := range a.operators.tokens.settings {
		if p, broken := list.problems[t.Name]; broken {
			all = append(all, adminapi.Component{
				Name: adminapi.ComponentAdminToken, ID: t.Name, State: "unreadable", LastError: p.text, Since: p.since, DataAsOf: list.at,
				Action: "Nobody gets in with it: mend its variable or file, or take it out of identity.admin_tokens.",
			})
		}
	}
	return all
}
