package admin

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ai-aas/api-router/internal/adminapi"
	"github.com/ai-aas/api-router/internal/fault"
	"github.com/ai-aas/api-router/internal/policy"
)

// mark sets a mark: its id follows from its target, so that one target has one.
func (a *Admin) mark(c *call) (reply, error) {
	var ask adminapi.MarkRequest
	if err := c.decode(maxSmallBody, &ask); err != nil {
		return reply{}, err
	}
	mark, err := newMark(ask, c.actor.name, c.start.UTC().Truncate(time.Millisecond))
	if err != nil {
		return reply{}, err
	}
	s := storedOf(policy.Document{Mark: &mark})
	return a.write(c, policy.Write{Kind: s.Kind, ID: s.ID, Content: s.Content, Reason: mark.Reason})
}

func newMark(ask adminapi.MarkRequest, who string, now time.Time) (policy.Mark, error) {
	m := policy.Mark{
		Backend: ask.Backend, Model: ask.Model, Organization: ask.Organization,
		State: ask.State, Reason: ask.Reason, Actor: who, Since: now, Until: ask.Until,
	}
	states := []string{policy.Disabled, policy.Draining, policy.Degraded}
	switch {
	case (m.Backend == "") == (m.Model == "" && m.Organization == ""):
		return m, fault.New(fault.InvalidRequest, "a mark is on a backend, or on a model, an organization or both: name one of these").WithParam("backend")
	case !slices.Contains(states, m.State):
		return m, fault.Newf(fault.InvalidRequest, "state must be one of %s", strings.Join(states, ", ")).WithParam("state")
	case ask.For != 0 && !ask.Until.IsZero():
		return m, fault.New(fault.InvalidRequest, "for and until say the same in two ways: send one of them").WithParam("until")
	case !ask.Until.IsZero() && !ask.Until.After(now):
		return m, fault.New(fault.InvalidRequest, "until is over already").WithParam("until")
	}
	if ask.For > 0 {
		m.Until = now.Add(time.Duration(ask.For))
	}
	if err := checkReason(m.Reason); err != nil {
		return m, err
	}
	m.ID = policy.MarkID(m.Backend, m.Model, m.Organization)
	return m, nil
}

// checkMark makes sure that a mark says why it disables, that it has the id of its target, and that its target exists: a slip in a name would leave what was
// meant as it is. Which organizations there are, documents do not tell.
func (a *Admin) checkMark(ctx context.Context, m *policy.Mark) error {
	if id := policy.MarkID(m.Backend, m.Model, m.Organization); id != m.ID {
		return fault.Newf(fault.InvalidRequest, "the mark on this target has the id %s, not %s", id, m.ID).WithParam("id")
	}
	if strings.TrimSpace(m.Reason) == "" && m.State == policy.Disabled {
		return fault.New(fault.InvalidRequest, "reason is missing: whoever meets the mark will want to know why").WithParam("reason")
	}
	if m.Backend == "" && m.Model == "" {
		return nil
	}
	table := a.Table()
	var current []policy.Document
	if table != nil {
		current = table.Documents()
	}
	err := lookFor(m, current)
	if err == nil {
		return nil
	}
	written, unread := a.written(ctx, table)
	if unread != nil {
		return err
	}
	return lookFor(m, written)
}

func lookFor(m *policy.Mark, documents []policy.Document) error {
	what, want := "backend", m.Backend
	if want == "" {
		what, want = "model", m.Model
	}
	var known []string
	for _, d := range documents {
		switch {
		case what == "backend" && d.Backend != nil:
			known = append(known, d.Backend.ID)
		case what == "model" && d.Policy != nil:
			known = append(known, modelsOf(d.Policy)...)
		}
	}
	if slices.Contains(known, want) {
		return nil
	}
	return fault.Newf(fault.NotFound, "%s %s does not exist%s", what, strconv.Quote(printable(want)), policy.Suggest(want, known)).WithParam(what)
}
