package admin

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/ai-aas/api-router/internal/adminapi"
	"github.com/ai-aas/api-router/internal/fleet"
	"github.com/ai-aas/api-router/internal/policy"
)

// sight is the router's state at one moment, as far as documents are shown with it.
type sight struct {
	table    *policy.Table
	problems map[subject][]policy.Problem
	backends map[string]fleet.Status
	now      time.Time
}

// subject is what a problem is about.
type subject struct {
	kind policy.Kind
	id   string
}

func (a *Admin) sight() sight {
	s := sight{table: a.Table(), problems: map[subject][]policy.Problem{}, backends: map[string]fleet.Status{}, now: time.Now()}
	if s.table != nil {
		for _, p := range s.table.Problems() {
			about := subject{p.Kind, p.ID}
			s.problems[about] = append(s.problems[about], p)
		}
	}
	for _, b := range a.Fleet() {
		s.backends[b.ID] = b
	}
	return s
}

// find is the document that is in force.
func (s sight) find(kind policy.Kind, id string) (policy.Document, bool) {
	if s.table == nil {
		return policy.Document{}, false
	}
	return s.table.Find(kind, id)
}

// about are the problems of one document.
func (s sight) about(kind policy.Kind, id string) []policy.Problem {
	return slices.Concat(s.problems[subject{kind, id}], s.problems[subject{"", id}])
}

// view is a stored document with what has become of it.
func (a *Admin) view(s sight, stored policy.Stored) adminapi.Document {
	problems := s.about(stored.Kind, stored.ID)
	d := adminapi.Document{
		Kind: string(stored.Kind), ID: stored.ID, Place: stored.Place, Revision: stored.Revision, Legacy: stored.Legacy,
		Status: s.status(stored, problems), Content: showable(stored.Masked()), Problems: showProblems(problems),
	}
	if status, ok := s.backends[stored.ID]; ok && stored.Kind == policy.KindBackend {
		d.Backend = new(s.backend(status))
	}
	return d
}

// status compares what is stored with what is in force.
func (s sight) status(stored policy.Stored, problems []policy.Problem) adminapi.Status {
	served, found := s.find(stored.Kind, stored.ID)
	switch {
	case !found && len(problems) > 0:
		return adminapi.Refused
	case !found:
		return adminapi.Pending
	case served.Mark != nil && !served.Mark.Active(s.now):
		return adminapi.Expired
	case s.whole(served) && asWritten(stored, served, problems):
		return adminapi.InForce
	case len(problems) > 0:
		return adminapi.LastGood
	}
	return adminapi.Pending
}

// whole says that a document in force has all that it names: one that lost a backend goes on without.
func (s sight) whole(served policy.Document) bool {
	return served.Policy == nil || !slices.ContainsFunc(served.Policy.Backends, func(c policy.Candidate) bool {
		_, found := s.find(policy.KindBackend, c.Backend)
		return !found
	})
}

// asWritten says whether the document in force is the stored one. Where the book keeps no revisions, only a problem can tell
// them apart: then the contents are compared.
func asWritten(stored policy.Stored, served policy.Document, problems []policy.Problem) bool {
	if stored.Revision != served.Revision {
		return false
	}
	if stored.Revision != 0 || len(problems) == 0 {
		return true
	}
	written, found := parseOne(stored)
	return len(found) == 0 && same(written, served)
}

// showable is content that can stand in JSON: what is none is shown as text.
func showable(content json.RawMessage) json.RawMessage {
	if json.Valid(content) {
		return content
	}
	text, err := json.Marshal(string(content))
	if err != nil { // A string: nothing in it can fail.
		panic("admin: " + err.Error())
	}
	return text
}

func showProblems(problems []policy.Problem) []adminapi.Problem {
	shown := make([]adminapi.Problem, 0, len(problems))
	for _, p := range problems {
		shown = append(shown, adminapi.Problem{
			Kind: string(p.Kind), ID: p.ID, Place: p.File, Line: p.Line, Column: p.Column, Message: p.Message, Serving: p.Serving,
		})
	}
	return shown
}

// backend is what the fleet says of a backend, with the whole mark: the fleet knows only what it has to heed.
func (s sight) backend(b fleet.Status) adminapi.Backend {
	shown := adminapi.Backend{
		ID: b.ID, URL: b.URL, Engine: b.Engine, State: b.State, Since: b.Since, Reason: b.Reason, LastError: b.LastError,
		EjectedUntil: b.EjectedUntil, Probe: b.Probe, Probed: b.Probed, InFlight: b.InFlight, MaxConcurrency: b.Limit, ConsecutiveFailures: b.Failures,
	}
	if b.Mark.State == "" {
		return shown
	}
	shown.Mark = &adminapi.Mark{Backend: b.ID, State: b.Mark.State, Reason: b.Mark.Reason, Until: b.Mark.Until}
	if d, ok := s.find(policy.KindMark, policy.MarkID(b.ID, "", "")); ok && d.Mark.State == b.Mark.State {
		shown.Mark = new(adminapi.Mark(*d.Mark))
	}
	return shown
}

func showChange(c *policy.Change) adminapi.Change {
	shown := func(content json.RawMessage) json.RawMessage {
		if content == nil {
			return json.RawMessage("null")
		}
		return showable(policy.Stored{Kind: c.Kind, ID: c.ID, Content: content}.Masked())
	}
	return adminapi.Change{
		Revision: c.Revision, Action: string(c.Action), Kind: string(c.Kind), ID: c.ID,
		Before: shown(c.Before), After: shown(c.After), Actor: c.Actor, Role: c.Role, Reason: c.Reason, RequestID: c.RequestID, At: c.At,
	}
}
