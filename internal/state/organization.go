package state

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/ai-aas/api-router/internal/auth"
)

const organizationColumns = "id, name, time_zone, disabled, created_at, revision"

func scanOrganization(row row) (o auth.Organization, err error) {
	var created int64
	err = row.Scan(&o.ID, &o.Name, &o.TimeZone, &o.Disabled, &created, &o.Revision)
	o.CreatedAt = moment(created)
	return o, err
}

// Organizations gives them by id, those after the id, at most limit: 1,000 or less, 0 is 100.
func (b *Book) Organizations(ctx context.Context, after string, limit int) ([]auth.Organization, error) {
	var found []auth.Organization
	err := b.read(ctx, func(ctx context.Context, tx tx) error {
		return tx.each(ctx, func(row row) error {
			o, err := scanOrganization(row)
			found = append(found, o)
			return err
		}, "SELECT "+organizationColumns+" FROM organization WHERE id > $1 ORDER BY id LIMIT $2", after, page(limit))
	})
	if err != nil {
		return nil, err
	}
	return found, nil
}

// Organization gives one; it fails with auth.ErrNotFound where there is none.
func (b *Book) Organization(ctx context.Context, id string) (o auth.Organization, err error) {
	err = b.read(ctx, func(ctx context.Context, tx tx) error { o, err = organization(ctx, tx, id); return err })
	return o, err
}

func organization(ctx context.Context, tx tx, id string) (auth.Organization, error) {
	o, err := scanOrganization(tx.one(ctx, "SELECT "+organizationColumns+" FROM organization WHERE id = $1", id))
	return o, absent(err)
}

// absent is the error of a look-up that must find something.
func absent(err error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return refusal{auth.ErrNotFound}
	}
	return err
}

// PutOrganization makes or changes one. condition is the revision that it must have: 0, that there is none; nil, whatever it has. The book sets
// CreatedAt and Revision. It fails with auth.ErrExists, auth.ErrNotFound or auth.ErrConflict. What changes nothing is no change.
func (b *Book) PutOrganization(ctx context.Context, o auth.Organization, condition *int64, by auth.By) (auth.Organization, error) {
	if err := errors.Join(checkOrganization(o), checkBy(by)); err != nil {
		return auth.Organization{}, err
	}
	err := b.write(ctx, clockIdentity, func(ctx context.Context, tx tx) error {
		before, err := organization(ctx, tx, o.ID)
		there := !errors.Is(err, auth.ErrNotFound)
		if err != nil && there {
			return err
		}
		if err := permits(condition, there, before.Revision); err != nil {
			return err
		}
		o.CreatedAt, o.Revision = before.CreatedAt, before.Revision
		if there && o == before {
			return errUnchanged
		}
		if !there {
			if err := room(ctx, tx, "SELECT count(*) FROM organization", maxOrganizations, "organizations"); err != nil {
				return err
			}
			o.CreatedAt = now()
		}
		if o.Revision, err = tick(ctx, tx, clockIdentity, 1); err != nil {
			return err
		}
		err = tx.exec(ctx, "INSERT INTO organization ("+organizationColumns+`) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (id) DO UPDATE
			SET name = excluded.name, time_zone = excluded.time_zone, disabled = excluded.disabled, revision = excluded.revision`,
			o.ID, o.Name, o.TimeZone, o.Disabled, nanos(o.CreatedAt), o.Revision)
		if err != nil {
			return err
		}
		if !there {
			return audit(ctx, tx, by, actionCreate, kindOrganization, o.ID, o.ID, nil, &o)
		}
		return audit(ctx, tx, by, actionUpdate, kindOrganization, o.ID, o.ID, &before, &o)
	})
	if err != nil {
		return auth.Organization{}, err
	}
	return o, nil
}

// DeleteOrganization deletes one that has neither a key nor a project, and is not disabled: whoever is vouched for by others would be let in again.
// condition is as PutOrganization's. It fails with auth.ErrNotFound or auth.ErrConflict. The audit keeps what it was.
func (b *Book) DeleteOrganization(ctx context.Context, id string, condition *int64, by auth.By) error {
	if err := checkBy(by); err != nil {
		return err
	}
	return b.write(ctx, clockIdentity, func(ctx context.Context, tx tx) error {
		before, err := organization(ctx, tx, id)
		if err != nil {
			return err
		}
		if err := permits(condition, true, before.Revision); err != nil {
			return err
		}
		if before.Disabled {
			return refusal{auth.Hindrance("it is disabled, and would not be any more: whoever is vouched for by others would be let in; enable it first, or leave it as it is")}
		}
		for _, has := range []struct {
			table string
			so    auth.Hindrance
		}{
			{"api_key", "it has keys: revoke them, delete them, and then the organization; or disable it, which refuses all of them at once"},
			{"project", "it has projects: delete them first"},
		} {
			var some bool
			if err := tx.one(ctx, "SELECT EXISTS (SELECT 1 FROM "+has.table+" WHERE organization = $1)", id).Scan(&some); err != nil {
				return err
			}
			if some {
				return refusal{has.so}
			}
		}
		if err := bury(ctx, tx, kindOrganization, id); err != nil {
			return err
		}
		if err := tx.exec(ctx, "DELETE FROM organization WHERE id = $1", id); err != nil {
			return err
		}
		return audit(ctx, tx, by, actionDelete, kindOrganization, id, id, &before, nil)
	})
}

// permits holds a condition against what is there.
func permits(condition *int64, there bool, revision int64) error {
	switch {
	case condition == nil, there && *condition == revision, !there && *condition == 0:
		return nil
	case !there:
		return refusal{auth.ErrNotFound}
	case *condition == 0:
		return refusal{auth.ErrExists}
	}
	return refusal{auth.ErrConflict}
}

// room says whether there may be one more.
func room(ctx context.Context, tx tx, count string, limit int64, what string, args ...any) error {
	var there int64
	if err := tx.one(ctx, count, args...).Scan(&there); err != nil {
		return err
	}
	if there >= limit {
		return full(there, what, "delete what is needed no more")
	}
	return nil
}

// full is the refusal of a book that holds as much as it may.
func full(there int64, what, helps string) error {
	return refusal{auth.Hindrance(fmt.Sprintf("the state book holds %d %s, and no more can be created: %s", there, what, helps))}
}
