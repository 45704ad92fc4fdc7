package admin

import (
	"errors"
	"slices"
	"strings"

	"github.com/ai-aas/api-router/internal/adminapi"
	"github.com/ai-aas/api-router/internal/fault"
	"github.com/ai-aas/api-router/internal/policy"
)

// list answers the documents of one collection: those of the book, and those in force that come from elsewhere. When the
// book cannot be read, those in force are what there is to see.
func (a *Admin) list(c *call) (reply, error) {
	invalid, err := c.flag("invalid")
	if err != nil {
		return reply{}, err
	}
	s := a.sight()
	answer := adminapi.List{Items: []adminapi.Document{}}
	stored, err := a.read(c.Context(), c.kind, "")
	if err != nil && !errors.Is(err, policy.ErrNotFound) {
		answer.Stale, answer.StaleReason = true, printable(err.Error())
	}
	for _, d := range s.with(c.kind, stored, answer.Stale) {
		if shown := a.view(s, d); !invalid || len(shown.Problems) > 0 {
			answer.Items = append(answer.Items, shown)
		}
	}
	answer.Problems = showProblems(s.homeless(c.kind, answer.Items))
	return reply{body: answer}, nil
}

// get answers one document.
func (a *Admin) get(c *call) (reply, error) {
	s := a.sight()
	stored, err := a.readOne(c.Context(), c.kind, c.id)
	if err != nil {
		// What is in force without the book's doing, or while it cannot be asked.
		lost := !errors.Is(err, policy.ErrNotFound)
		served, found := s.find(c.kind, c.id)
		switch {
		case found && (lost || served.Revision == 0):
			stored = storedOf(served)
		case lost && !errors.Is(err, errNoBook):
			return reply{}, unavailable(err)
		default:
			return reply{}, missing(c.kind, c.id)
		}
	}
	return reply{revision: stored.Revision, body: a.view(s, stored)}, nil
}

// with adds to stored what is in force and not there: documents that no book holds, such as those of the environment, or all of
// them. A document that has a revision and is not in the book was deleted a moment ago.
func (s sight) with(kind policy.Kind, stored []policy.Stored, all bool) []policy.Stored {
	if s.table == nil {
		return stored
	}
	there := make(map[string]bool, len(stored))
	for _, d := range stored {
		there[d.ID] = true
	}
	for _, d := range s.table.Documents() {
		if d.Kind() == kind && !there[d.ID()] && (all || d.Revision == 0) {
			stored = append(stored, storedOf(d))
		}
	}
	slices.SortFunc(stored, func(a, b policy.Stored) int { return strings.Compare(a.ID, b.ID) })
	return stored
}

// homeless are the problems of a kind, or of the source as a whole, that belong to none of the items.
func (s sight) homeless(kind policy.Kind, items []adminapi.Document) []policy.Problem {
	if s.table == nil {
		return nil
	}
	shown := make(map[string]bool, len(items))
	for _, d := range items {
		shown[d.ID] = true
	}
	return slices.DeleteFunc(s.table.Problems(), func(p policy.Problem) bool {
		return p.Kind != "" && p.Kind != kind || p.ID != "" && (p.Kind == "" || shown[p.ID])
	})
}

// put writes one document.
func (a *Admin) put(c *call) (reply, error) {
	when, err := c.condition()
	if err != nil {
		return reply{}, err
	}
	reason := c.query.Get("reason")
	if err := checkReason(reason); err != nil {
		return reply{}, err
	}
	body, err := c.read(maxDocumentBody, documentTypes)
	if err != nil {
		return reply{}, err
	}
	content, problems := parseBody(c.kind, c.id, body)
	if len(problems) > 0 {
		return reply{}, invalid(problems)
	}
	return a.write(c, policy.Write{Kind: c.kind, ID: c.id, Content: content, If: when, Reason: reason})
}

// write makes a change after a last look at what it would do.
func (a *Admin) write(c *call, w policy.Write) (reply, error) {
	d, problems := parseOne(policy.Stored{Kind: w.Kind, ID: w.ID, Place: requestPlace, Content: w.Content})
	if len(problems) == 0 {
		problems = slices.DeleteFunc(a.beside(c.Context(), []policy.Document{d}), func(p policy.Problem) bool { return p.Serving })
	}
	if len(problems) > 0 {
		return reply{}, invalid(problems)
	}
	if d.Mark != nil {
		if err := a.checkMark(c.Context(), d.Mark); err != nil {
			return reply{}, err
		}
	}
	return a.change(c, w)
}

// delete deletes one document.
func (a *Admin) delete(c *call) (reply, error) {
	when, err := c.condition()
	if err != nil {
		return reply{}, err
	}
	if when != nil && *when == 0 {
		return reply{}, fault.New(fault.InvalidRequest, "what is to be deleted has to exist: send If-Match, or no condition").WithParam("If-None-Match")
	}
	reason := c.query.Get("reason")
	if err := checkReason(reason); err != nil {
		return reply{}, err
	}
	return a.change(c, policy.Write{Kind: c.kind, ID: c.id, If: when, Reason: reason})
}
