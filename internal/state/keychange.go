package state

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/ai-aas/api-router/internal/auth"
)

// ChangeKey lets change work on a key as it stands, and keeps what comes of it under this action, update or revoke. Whatever change returns as an
// error is returned, and nothing is changed. It can set the project, the name, the scopes, the sealed secret, the end, which of a key that was
// rotated can only come earlier, and the time of revocation, after which nothing changes any more; the rest is put back. It may be called more
// than once.
func (b *Book) ChangeKey(ctx context.Context, organization, id string, change func(*auth.Key) error, action string, by auth.By) (auth.Key, error) {
	if err := checkBy(by); err != nil {
		return auth.Key{}, err
	}
	var after auth.Key
	err := b.write(ctx, clockIdentity, func(ctx context.Context, tx tx) error {
		before, err := key(ctx, tx, organization, id)
		if err != nil {
			return err
		}
		if before.Damage != "" {
			return refusal{errDamaged}
		}
		if after, err = key(ctx, tx, organization, id); err != nil { // One of its own: change may work on what a copy would share.
			return err
		}
		if err := change(&after); err != nil {
			return refusal{err}
		}
		fixed := before
		fixed.Project, fixed.Name, fixed.Scopes, fixed.Sealed = after.Project, after.Name, after.Scopes, after.Sealed
		fixed.ExpiresAt, fixed.RevokedAt = moment(nanos(after.ExpiresAt)), moment(nanos(after.RevokedAt))
		normal(&fixed.Scopes)
		after = fixed
		switch {
		case reflect.DeepEqual(before, after):
			return errUnchanged
		case !before.RevokedAt.IsZero():
			return refusal{auth.Hindrance("a key that was revoked stays so; create another")}
		case outlives(&after, &before):
			return refusal{auth.Hindrance(fmt.Sprintf("%s took its place in a rotation, so it ends at %s and can only end earlier: use %[1]s, or create another",
				before.RotatedTo, before.ExpiresAt.Format(time.RFC3339)))}
		case before.Project != after.Project:
			if err := inProject(ctx, tx, &after); err != nil {
				return err
			}
		}
		if err := checkKey(&after); err != nil {
			return refusal{err}
		}
		return update(ctx, tx, &before, &after, action, by)
	})
	if err != nil {
		return auth.Key{}, err
	}
	return after, nil
}

// outlives says whether a key that was rotated would work for longer after a change than before. Its end is that of its grace, or earlier.
func outlives(after, before *auth.Key) bool {
	if before.RotatedTo == "" || before.ExpiresAt.IsZero() {
		return false
	}
	return after.ExpiresAt.IsZero() || after.ExpiresAt.After(before.ExpiresAt)
}

// errDamaged refuses what needs to know the whole of a key or an admin.
const errDamaged = auth.Hindrance("what the book has of it cannot be read, so it lets nobody in: delete it, and make another")

// update keeps a key that was changed within tx.
func update(ctx context.Context, tx tx, before, after *auth.Key, action string, by auth.By) (err error) {
	if after.Revision, err = tick(ctx, tx, clockIdentity, 1); err != nil {
		return err
	}
	values, err := keyValues(after)
	if err != nil {
		return err
	}
	err = tx.exec(ctx, `UPDATE api_key SET organization = $2, project = $3, name = $4, scopes = $5, digest = $6, pepper = $7, pepper_mark = $8, sealed = $9,
		expires_at = $10, revoked_at = $11, rotated_to = $12, created_at = $13, created_by = $14, revision = $15 WHERE id = $1`, values...)
	if err != nil {
		return err
	}
	return audit(ctx, tx, by, action, kindKey, after.ID, after.Organization, before, after)
}

// Rotate keeps next, a new key of the organization, as the one that takes the place of another, which ends at graceUntil unless it ends earlier, and
// returns next. condition is as PutOrganization's, of the other. It fails as CreateKey does, and with auth.ErrConflict where the other was revoked, has
// expired, or was rotated before.
func (b *Book) Rotate(ctx context.Context, organization, id string, condition *int64, next auth.Key, graceUntil time.Time, by auth.By) (auth.Key, error) {
	if graceUntil.IsZero() || graceUntil.After(latest) {
		return auth.Key{}, errors.New("the grace needs an end, before the year 2200")
	}
	next.Organization = organization
	err := b.write(ctx, clockIdentity, func(ctx context.Context, tx tx) error {
		before, err := key(ctx, tx, organization, id)
		if err != nil {
			return err
		}
		if err := permits(condition, true, before.Revision); err != nil {
			return err
		}
		switch {
		case before.Damage != "":
			return refusal{errDamaged}
		case !before.RevokedAt.IsZero():
			return refusal{auth.Hindrance("it is revoked; create another")}
		case !before.ExpiresAt.IsZero() && !before.ExpiresAt.After(time.Now()):
			return refusal{auth.Hindrance("it has expired; create another")}
		case before.RotatedTo != "":
			return refusal{auth.Hindrance("it was rotated before, to " + before.RotatedTo + ": rotate that")}
		}
		if err := create(ctx, tx, &next, by); err != nil {
			return err
		}
		after := before
		after.RotatedTo = next.ID
		if after.ExpiresAt.IsZero() || graceUntil.Before(after.ExpiresAt) {
			after.ExpiresAt = moment(nanos(graceUntil))
		}
		return update(ctx, tx, &before, &after, actionRotate, by)
	})
	if err != nil {
		return auth.Key{}, err
	}
	return next, nil
}

// DeleteKey takes away a key that nobody can use: one that is revoked or expired. condition is as PutOrganization's. The audit keeps what it was. It
// fails with auth.ErrNotFound, and with auth.ErrConflict also where the key is in force.
func (b *Book) DeleteKey(ctx context.Context, organization, id string, condition *int64, by auth.By) error {
	if err := checkBy(by); err != nil {
		return err
	}
	return b.write(ctx, clockIdentity, func(ctx context.Context, tx tx) error {
		before, err := key(ctx, tx, organization, id)
		if err != nil {
			return err
		}
		if err := permits(condition, true, before.Revision); err != nil {
			return err
		}
		if before.Damage == "" && before.RevokedAt.IsZero() && (before.ExpiresAt.IsZero() || before.ExpiresAt.After(time.Now())) {
			return refusal{auth.Hindrance("it is in force: revoke it first")}
		}
		if err := bury(ctx, tx, kindKey, id); err != nil {
			return err
		}
		if _, err := tick(ctx, tx, countKeys, -1); err != nil {
			return err
		}
		for _, statement := range []string{"DELETE FROM api_key WHERE id = $1", "DELETE FROM api_key_use WHERE id = $1"} {
			if err := tx.exec(ctx, statement, id); err != nil {
				return err
			}
		}
		return audit(ctx, tx, by, actionDelete, kindKey, id, organization, &before, nil)
	})
}
