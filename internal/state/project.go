package state

import (
	"context"
	"errors"

	"github.com/ai-aas/api-router/internal/auth"
)

const projectColumns = "organization, id, name, created_at, revision"

func scanProject(row row) (p auth.Project, err error) {
	var created int64
	err = row.Scan(&p.Organization, &p.ID, &p.Name, &created, &p.Revision)
	p.CreatedAt = moment(created)
	return p, err
}

func project(ctx context.Context, tx tx, organization, id string) (auth.Project, error) {
	p, err := scanProject(tx.one(ctx, "SELECT "+projectColumns+" FROM project WHERE organization = $1 AND id = $2", organization, id))
	return p, absent(err)
}

// Project gives one of an organization's projects; it fails with auth.ErrNotFound, also for another organization's.
func (b *Book) Project(ctx context.Context, organization, id string) (p auth.Project, err error) {
	err = b.read(ctx, func(ctx context.Context, tx tx) error { p, err = project(ctx, tx, organization, id); return err })
	return p, err
}

// Projects gives an organization's projects by id, those after the id, at most limit: 1,000 or less, 0 is 100. It fails with auth.ErrNotFound where
// there is no such organization.
func (b *Book) Projects(ctx context.Context, of, after string, limit int) ([]auth.Project, error) {
	var found []auth.Project
	err := b.read(ctx, func(ctx context.Context, tx tx) error {
		if _, err := organization(ctx, tx, of); err != nil {
			return err
		}
		return tx.each(ctx, func(row row) error {
			p, err := scanProject(row)
			found = append(found, p)
			return err
		}, "SELECT "+projectColumns+" FROM project WHERE organization = $1 AND id > $2 ORDER BY id LIMIT $3", of, after, page(limit))
	})
	if err != nil {
		return nil, err
	}
	return found, nil
}

// PutProject makes or changes one, as PutOrganization does with an organization.
func (b *Book) PutProject(ctx context.Context, p auth.Project, condition *int64, by auth.By) (auth.Project, error) {
	if err := errors.Join(checkProject(p), checkBy(by)); err != nil {
		return auth.Project{}, err
	}
	err := b.write(ctx, clockIdentity, func(ctx context.Context, tx tx) error {
		if _, err := organization(ctx, tx, p.Organization); err != nil {
			return err
		}
		before, err := project(ctx, tx, p.Organization, p.ID)
		there := !errors.Is(err, auth.ErrNotFound)
		if err != nil && there {
			return err
		}
		if err := permits(condition, there, before.Revision); err != nil {
			return err
		}
		p.CreatedAt, p.Revision = before.CreatedAt, before.Revision
		if there && p == before {
			return errUnchanged
		}
		if !there {
			err := room(ctx, tx, "SELECT count(*) FROM project WHERE organization = $1", maxProjects, "projects of this organization", p.Organization)
			if err != nil {
				return err
			}
			p.CreatedAt = now()
		}
		if p.Revision, err = tick(ctx, tx, clockIdentity, 1); err != nil {
			return err
		}
		err = tx.exec(ctx, "INSERT INTO project ("+projectColumns+`) VALUES ($1, $2, $3, $4, $5)
			ON CONFLICT (organization, id) DO UPDATE SET name = excluded.name, revision = excluded.revision`,
			p.Organization, p.ID, p.Name, nanos(p.CreatedAt), p.Revision)
		if err != nil {
			return err
		}
		if !there {
			return audit(ctx, tx, by, actionCreate, kindProject, p.ID, p.Organization, nil, &p)
		}
		return audit(ctx, tx, by, actionUpdate, kindProject, p.ID, p.Organization, &before, &p)
	})
	if err != nil {
		return auth.Project{}, err
	}
	return p, nil
}

// ErrInUse says that something cannot be deleted. It is an auth.ErrConflict.
const ErrInUse auth.Hindrance = "a key that is not revoked is in it: revoke it, or move it to another project, first"

// DeleteProject deletes one without keys that could be used. condition is as PutOrganization's. It fails with auth.ErrNotFound, auth.ErrConflict or ErrInUse.
func (b *Book) DeleteProject(ctx context.Context, organization, id string, condition *int64, by auth.By) error {
	if err := checkBy(by); err != nil {
		return err
	}
	return b.write(ctx, clockIdentity, func(ctx context.Context, tx tx) error {
		before, err := project(ctx, tx, organization, id)
		if err != nil {
			return err
		}
		if err := permits(condition, true, before.Revision); err != nil {
			return err
		}
		var keys int
		err = tx.one(ctx, "SELECT count(*) FROM api_key WHERE organization = $1 AND project = $2 AND revoked_at = 0", organization, id).Scan(&keys)
		switch {
		case err != nil:
			return err
		case keys > 0:
			return refusal{ErrInUse}
		}
		if _, err := tick(ctx, tx, clockIdentity, 1); err != nil {
			return err
		}
		if err := tx.exec(ctx, "DELETE FROM project WHERE organization = $1 AND id = $2", organization, id); err != nil {
			return err
		}
		return audit(ctx, tx, by, actionDelete, kindProject, id, organization, &before, nil)
	})
}
