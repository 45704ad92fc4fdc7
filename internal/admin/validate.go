package admin

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/ai-aas/api-router/internal/adminapi"
	"github.com/ai-aas/api-router/internal/fault"
	"github.com/ai-aas/api-router/internal/policy"
)

// validate says what is wrong with documents, alone and beside those in force.
func (a *Admin) validate(c *call) (reply, error) {
	written, problems, err := c.documents()
	if err != nil {
		return reply{}, err
	}
	documents := make([]policy.Document, 0, len(written))
	for _, w := range written {
		documents = append(documents, w.Document)
	}
	problems = append(problems, a.beside(c.Context(), documents)...)
	problems = append(problems, a.marks(c.Context(), documents)...)
	return reply{body: adminapi.Validation{
		Valid:     !slices.ContainsFunc(problems, func(p policy.Problem) bool { return !p.Serving }),
		Documents: len(documents),
		Problems:  showProblems(problems),
	}}, nil
}

// documents reads a body of many documents.
func (c *call) documents() ([]policy.Written, []policy.Problem, error) {
	body, err := c.read(policy.MaxFile, documentTypes)
	if err != nil {
		return nil, nil, err
	}
	written, problems := policy.ParseWritten(requestPlace, body)
	if len(written) == 0 && len(problems) == 0 {
		return nil, nil, fault.New(fault.InvalidRequest, "the body holds no document")
	}
	written, again := single(written)
	return written, append(problems, again...), nil
}

// single takes out the documents whose id is there more than once, and reports each of them: nobody can say which is meant.
func single(written []policy.Written) (once []policy.Written, problems []policy.Problem) {
	times := make(map[subject]int, len(written))
	for _, w := range written {
		times[subject{w.Kind(), w.ID()}]++
	}
	for _, w := range written {
		if n := times[subject{w.Kind(), w.ID()}]; n > 1 {
			problems = append(problems, policy.Problem{
				Kind: w.Kind(), ID: w.ID(), File: w.File, Line: w.Line, Message: fmt.Sprintf("%d documents have this id: leave one", n),
			})
			continue
		}
		once = append(once, w)
	}
	return once, problems
}

// diff says what writing documents would change in the book.
func (a *Admin) diff(c *call) (reply, error) {
	written, problems, err := c.documents()
	if err != nil {
		return reply{}, err
	}
	stored := map[subject]policy.Stored{}
	for _, kind := range policy.Kinds() {
		if !slices.ContainsFunc(written, func(w policy.Written) bool { return w.Kind() == kind }) {
			continue
		}
		found, err := a.read(c.Context(), kind, "")
		if err != nil && !errors.Is(err, policy.ErrNotFound) {
			return reply{}, unavailable(err)
		}
		for _, s := range found {
			stored[subject{kind, s.ID}] = s
		}
	}
	answer := adminapi.Diff{Items: make([]adminapi.Difference, 0, len(written)), Problems: showProblems(problems)}
	for _, w := range written {
		before, there := stored[subject{w.Kind(), w.ID()}]
		difference, err := compare(w, before, there)
		if err != nil {
			return reply{}, err
		}
		answer.Items = append(answer.Items, difference)
	}
	return reply{body: answer}, nil
}

// marks checks the marks among documents as a put would once the others are written.
func (a *Admin) marks(ctx context.Context, documents []policy.Document) []policy.Problem {
	var problems []policy.Problem
	for _, d := range documents {
		if d.Mark == nil {
			continue
		}
		err := a.checkMark(ctx, d.Mark)
		if fault.CodeOf(err) == fault.NotFound && lookFor(d.Mark, documents) == nil {
			continue
		}
		if err != nil {
			problems = append(problems, policy.Problem{Kind: d.Kind(), ID: d.ID(), File: d.File, Line: d.Line, Message: fault.From(err).Message})
		}
	}
	return problems
}

// beside checks documents against those in force and returns what is wrong with them. The table may be a moment behind the
// book: what it finds wrong is looked at again beside what the book holds.
func (a *Admin) beside(ctx context.Context, documents []policy.Document) []policy.Problem {
	if len(documents) == 0 {
		return nil
	}
	var current []policy.Document
	table := a.Table()
	if table != nil {
		current = table.Documents()
	}
	problems := clashes(current, documents)
	if !slices.ContainsFunc(problems, func(p policy.Problem) bool { return !p.Serving }) {
		return problems
	}
	written, err := a.written(ctx, table)
	if err != nil {
		return problems
	}
	return clashes(written, documents)
}

// written are the documents of the book, and with them those in force that come from elsewhere.
func (a *Admin) written(ctx context.Context, table *policy.Table) ([]policy.Document, error) {
	s := sight{table: table}
	var documents []policy.Document
	for _, kind := range []policy.Kind{policy.KindBackend, policy.KindRoutingPolicy} {
		stored, err := a.read(ctx, kind, "")
		if err != nil {
			return nil, err
		}
		for _, each := range s.with(kind, stored, false) {
			if served, ok := s.find(kind, each.ID); ok && served.Revision == each.Revision {
				documents = append(documents, served)
			} else if d, problems := parseOne(each); len(problems) == 0 {
				documents = append(documents, d)
			}
		}
	}
	return documents, nil
}

// clashes compiles documents together with those of now that they could have to do with, and returns what is wrong with them, and
// with others because of them: of two that claim one name, the one whose place comes first has it.
func clashes(now, documents []policy.Document) []policy.Problem {
	fresh := make(map[subject]bool, len(documents))
	names := map[name]bool{}
	for _, d := range documents {
		fresh[subject{d.Kind(), d.ID()}] = true
		if d.Policy != nil {
			for _, model := range modelsOf(d.Policy) {
				names[name{d.Policy.Organization, model}] = true
			}
			for _, model := range d.Policy.FallbackModels {
				names[name{"", model}] = true
			}
		}
	}
	now = slices.DeleteFunc(slices.Clone(now), func(d policy.Document) bool {
		return fresh[subject{d.Kind(), d.ID()}] || d.Mark != nil || d.Policy != nil && !meets(d.Policy, names)
	})
	problems := compile(append(slices.Clone(now), documents...))
	isFresh := func(p policy.Problem) bool { return fresh[subject{p.Kind, p.ID}] }
	if slices.ContainsFunc(problems, func(p policy.Problem) bool { return !isFresh(p) }) {
		before := compile(now)
		problems = slices.DeleteFunc(problems, func(p policy.Problem) bool {
			return !isFresh(p) && (p.Serving || slices.Contains(before, p))
		})
	}
	return problems
}

func compile(documents []policy.Document) []policy.Problem {
	return policy.Compile(policy.Snapshot{Documents: documents}, nil).Problems()
}

// name is a model's or an alias within an organization; with "" for the organization, within any.
type name struct{ organization, model string }

func modelsOf(p *policy.RoutingPolicy) []string { return append([]string{p.Model}, p.Aliases...) }

func meets(p *policy.RoutingPolicy, names map[name]bool) bool {
	return slices.ContainsFunc(modelsOf(p), func(model string) bool {
		return names[name{p.Organization, model}] || names[name{"", model}]
	})
}
