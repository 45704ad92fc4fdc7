package admin

import (
	"context"
	"errors"

	"github.com/ai-aas/api-router/internal/adminapi"
	"github.com/ai-aas/api-router/internal/auth"
)

// Projects are parts of an organization. One of another organization is none, whatever its id.
type Projects interface {
	Projects(ctx context.Context, organization, after string, limit int) ([]auth.Project, error)
	Project(ctx context.Context, organization, id string) (auth.Project, error)
	PutProject(ctx context.Context, p auth.Project, condition *int64, by auth.By) (auth.Project, error)
	DeleteProject(ctx context.Context, organization, id string, condition *int64, by auth.By) error
}

func (*Admin) projects(ctx context.Context, book Identities, c *call) (reply, error) {
	found, next, err := turn(c, idForm, func(p *auth.Project) string { return p.ID }, func(after string, limit int) ([]auth.Project, error) {
		return book.Projects(ctx, c.organization, after, limit)
	})
	if err != nil {
		return reply{}, identityRefusal(err, "organization "+c.organization, nil)
	}
	answer := adminapi.Projects{Items: make([]adminapi.Project, 0, len(found)), Next: next}
	for _, p := range found {
		answer.Items = append(answer.Items, adminapi.Project(p))
	}
	return reply{body: answer}, nil
}

// theProject names the project of the path.
func (c *call) theProject() string { return "project " + c.item + " of organization " + c.organization }

func (*Admin) project(ctx context.Context, book Identities, c *call) (reply, error) {
	p, err := book.Project(ctx, c.organization, c.item)
	if err != nil {
		return reply{}, identityRefusal(err, c.theProject(), nil)
	}
	return reply{revision: p.Revision, body: adminapi.Project(p)}, nil
}

func (a *Admin) putProject(ctx context.Context, book Identities, c *call) (reply, error) {
	var ask adminapi.ProjectRequest
	when, by, err := c.written(&ask)
	if err != nil {
		return reply{}, err
	}
	var p problems
	p.id("id", c.item)
	p.name("name", ask.Name)
	if err := p.err("the project"); err != nil {
		return reply{}, err
	}
	if _, err := book.Organization(ctx, c.organization); err != nil {
		return reply{}, identityRefusal(err, "organization "+c.organization, nil)
	}
	before, err := book.Project(ctx, c.organization, c.item)
	if err != nil && !errors.Is(err, auth.ErrNotFound) {
		return reply{}, identityRefusal(err, c.theProject(), when)
	}
	after, err := book.PutProject(ctx, auth.Project{Organization: c.organization, ID: c.item, Name: ask.Name}, when, by)
	if err != nil {
		return reply{}, identityRefusal(err, c.theProject(), when)
	}
	status := a.putStatus(c, "a project", c.organization, c.item, before.Revision, after.Revision, by)
	return reply{status: status, revision: after.Revision, body: adminapi.Project(after)}, nil
}

func (a *Admin) deleteProject(ctx context.Context, book Identities, c *call) (reply, error) {
	return a.gone(c, c.theProject(), "a project was deleted", c.item, func(when *int64, by auth.By) error {
		return book.DeleteProject(ctx, c.organization, c.item, when, by)
	})
}
