package state

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ai-aas/api-router/internal/auth"
)

const adminColumns = "id, name, role, digest, expires_at, revoked_at, created_at, created_by, revision"

// scanAdmin reads an admin. One that somebody spoilt must not keep the others out.
func scanAdmin(row row) (a auth.Admin, err error) {
	var digest []byte
	var expires, revoked, created int64
	if err = row.Scan(&a.ID, &a.Name, &a.Role, &digest, &expires, &revoked, &created, &a.CreatedBy, &a.Revision); err != nil {
		return a, err
	}
	if copy(a.Digest[:], digest); len(digest) != len(a.Digest) {
		a.Damage = fmt.Sprintf("its digest has %d bytes", len(digest))
	}
	a.ExpiresAt, a.RevokedAt, a.CreatedAt = moment(expires), moment(revoked), moment(created)
	return a, nil
}

// Admins gives all of them by name, revoked and expired ones included.
func (b *Book) Admins(ctx context.Context) (found []auth.Admin, err error) {
	err = b.read(ctx, func(ctx context.Context, tx tx) error { found, err = admins(ctx, tx); return err })
	return found, err
}

func admins(ctx context.Context, tx tx) ([]auth.Admin, error) {
	var found []auth.Admin
	err := tx.each(ctx, func(row row) error {
		a, err := scanAdmin(row)
		found = append(found, a)
		return err
	}, "SELECT "+adminColumns+" FROM admin ORDER BY name")
	return found, err
}

// Admin gives one; it fails with auth.ErrNotFound where there is none.
func (b *Book) Admin(ctx context.Context, id string) (a auth.Admin, err error) {
	err = b.read(ctx, func(ctx context.Context, tx tx) error { a, err = admin(ctx, tx, id); return err })
	return a, err
}

func admin(ctx context.Context, tx tx, id string) (auth.Admin, error) {
	a, err := scanAdmin(tx.one(ctx, "SELECT "+adminColumns+" FROM admin WHERE id = $1", id))
	return a, absent(err)
}

// CreateAdmin keeps a new one. The book sets CreatedAt, CreatedBy and Revision. It fails with auth.ErrNameTaken, and with auth.ErrExists where
// the id or the digest is taken.
func (b *Book) CreateAdmin(ctx context.Context, a auth.Admin, by auth.By) (auth.Admin, error) {
	a.CreatedAt, a.CreatedBy, a.ExpiresAt, a.RevokedAt = now(), by.Actor, moment(nanos(a.ExpiresAt)), moment(0)
	if err := errors.Join(checkAdmin(&a), checkBy(by)); err != nil {
		return auth.Admin{}, err
	}
	err := b.write(ctx, clockAdmins, func(ctx context.Context, tx tx) error {
		var same, named int
		err := tx.one(ctx, "SELECT count(CASE WHEN id = $1 OR digest = $2 THEN 1 END), count(CASE WHEN lower(name) = lower($3) THEN 1 END) FROM admin",
			a.ID, a.Digest[:], a.Name).Scan(&same, &named)
		switch {
		case err != nil:
			return err
		case same > 0:
			return refusal{auth.ErrExists}
		case named > 0:
			return refusal{auth.ErrNameTaken}
		}
		if err := room(ctx, tx, "SELECT count(*) FROM admin", maxAdmins, "admins"); err != nil {
			return err
		}
		if a.Revision, err = tick(ctx, tx, clockAdmins, 1); err != nil {
			return err
		}
		err = insert(ctx, tx, "admin ("+adminColumns+")", []any{
			a.ID, a.Name, a.Role, a.Digest[:], nanos(a.ExpiresAt), nanos(a.RevokedAt), nanos(a.CreatedAt), a.CreatedBy, a.Revision,
		})
		if err != nil {
			return err
		}
		return audit(ctx, tx, by, actionCreate, kindAdmin, a.ID, "", nil, &a)
	})
	if err != nil {
		return auth.Admin{}, err
	}
	return a, nil
}

// ChangeAdmin lets change work on an admin as it stands, and keeps what comes of it under this action, update or revoke. Whatever change
// returns as an error is returned, and nothing is changed. It can set the role, the end, and the time of revocation, after which nothing changes
// any more; the rest is put back. It may be called more than once.
func (b *Book) ChangeAdmin(ctx context.Context, id string, change func(*auth.Admin) error, action string, by auth.By) (auth.Admin, error) {
	if err := checkBy(by); err != nil {
		return auth.Admin{}, err
	}
	var after auth.Admin
	err := b.write(ctx, clockAdmins, func(ctx context.Context, tx tx) error {
		before, err := admin(ctx, tx, id)
		if err != nil {
			return err
		}
		if before.Damage != "" {
			return refusal{errDamaged}
		}
		wanted := before
		if err := change(&wanted); err != nil {
			return refusal{err}
		}
		after = before
		after.Role, after.ExpiresAt, after.RevokedAt = wanted.Role, moment(nanos(wanted.ExpiresAt)), moment(nanos(wanted.RevokedAt))
		switch {
		case after == before:
			return errUnchanged
		case !before.RevokedAt.IsZero():
			return refusal{auth.Hindrance("who was revoked stays so; create another")}
		}
		if err := checkAdmin(&after); err != nil {
			return refusal{err}
		}
		if after.Revision, err = tick(ctx, tx, clockAdmins, 1); err != nil {
			return err
		}
		err = tx.exec(ctx, "UPDATE admin SET role = $2, expires_at = $3, revoked_at = $4, revision = $5 WHERE id = $1",
			id, after.Role, nanos(after.ExpiresAt), nanos(after.RevokedAt), after.Revision)
		if err != nil {
			return err
		}
		return audit(ctx, tx, by, action, kindAdmin, id, "", &before, &after)
	})
	if err != nil {
		return auth.Admin{}, err
	}
	return after, nil
}

// DeleteAdmin takes away one that nobody can use: one that is revoked, expired or damaged. Its name is free then; the audit keeps what it was. It fails
// with auth.ErrNotFound, and with auth.ErrConflict where the admin is in force, or has another revision than condition; nil: whatever it has.
func (b *Book) DeleteAdmin(ctx context.Context, id string, condition *int64, by auth.By) error {
	if err := checkBy(by); err != nil {
		return err
	}
	return b.write(ctx, clockAdmins, func(ctx context.Context, tx tx) error {
		before, err := admin(ctx, tx, id)
		if err != nil {
			return err
		}
		if err := permits(condition, true, before.Revision); err != nil {
			return err
		}
		if before.Damage == "" && before.RevokedAt.IsZero() && (before.ExpiresAt.IsZero() || before.ExpiresAt.After(time.Now())) {
			return refusal{auth.Hindrance("the token is in force; revoke it first")}
		}
		if _, err := tick(ctx, tx, clockAdmins, 1); err != nil {
			return err
		}
		if err := tx.exec(ctx, "DELETE FROM admin WHERE id = $1", id); err != nil {
			return err
		}
		return audit(ctx, tx, by, actionDelete, kindAdmin, id, "", &before, nil)
	})
}

// FollowAdmins is auth.AdminLedger's. Changes made through this Book show at once, those of others as soon as Watch's. It ends when the database is
// lost, because what comes back under the same name may be older.
func (b *Book) FollowAdmins(ctx context.Context, publish func([]auth.Admin)) error {
	var followed database
	for revision := int64(-1); ; {
		db, changed, failure := b.current()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case b.life.Err() != nil:
			return errClosed
		case failure != nil:
			return failure
		case followed != nil && db != followed:
			return fmt.Errorf("the state book %s was opened anew", b.engine.place())
		case db != nil:
			followed = db
			current, all, err := newAdmins(ctx, db, revision)
			switch {
			case err != nil:
				return b.failed(ctx, err)
			case current < revision:
				return fmt.Errorf("the state book %s is older than it was: a backup was put in its place", b.engine.place())
			case current != revision:
				revision = current
				publish(all)
			}
		}
		select {
		case <-ctx.Done():
		case <-b.life.Done():
		case <-changed:
		}
	}
}

// newAdmins reads the clock of the admins and, where it is not at known, all of them.
func newAdmins(ctx context.Context, db database, known int64) (current int64, all []auth.Admin, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err = db.read(ctx, func(tx tx) error {
		err := tx.one(ctx, "SELECT value FROM counter WHERE name = $1", clockAdmins).Scan(&current)
		if err != nil || current == known {
			return err
		}
		all, err = admins(ctx, tx)
		return err
	})
	return current, all, err
}
