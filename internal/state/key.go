package state

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/ai-aas/api-router/internal/auth"
)

const (
	keyColumns = "id, organization, project, name, scopes, digest, pepper, pepper_mark, sealed, expires_at, revoked_at, rotated_to, created_at, created_by, revision"
	// selectKeys is of keys with their last use.
	selectKeys = `SELECT k.id, k.organization, k.project, k.name, k.scopes, k.digest, k.pepper, k.pepper_mark, k.sealed, k.expires_at, k.revoked_at, k.rotated_to,
		k.created_at, k.created_by, k.revision, coalesce(u.used_at, 0) FROM api_key AS k LEFT JOIN api_key_use AS u ON u.id = k.id `
)

// scanKey reads a key. One that somebody spoilt must not keep the others from being read.
func scanKey(row row) (k auth.Key, err error) {
	var scopes, digest []byte
	var mark, expires, revoked, created, used int64
	err = row.Scan(&k.ID, &k.Organization, &k.Project, &k.Name, &scopes, &digest, &k.Pepper, &mark, &k.Sealed, &expires, &revoked, &k.RotatedTo,
		&created, &k.CreatedBy, &k.Revision, &used)
	if err != nil {
		return k, err
	}
	if copy(k.Digest[:], digest); len(digest) != len(k.Digest) {
		k.Damage = fmt.Sprintf("its digest has %d bytes", len(digest))
	}
	if k.PepperMark = uint32(mark); int64(k.PepperMark) != mark {
		k.Damage = "its mark of the pepper is out of bounds"
	}
	k.ExpiresAt, k.RevokedAt, k.CreatedAt, k.LastUsedAt = moment(expires), moment(revoked), moment(created), moment(used)
	if err := json.Unmarshal(scopes, &k.Scopes); err != nil {
		k.Scopes, k.Damage = auth.Scopes{}, "its scopes cannot be read: "+err.Error()
	}
	return k, nil
}

func keyValues(k *auth.Key) ([]any, error) {
	scopes, err := json.Marshal(k.Scopes)
	if err != nil {
		return nil, err
	}
	var sealed any
	if k.Sealed != nil {
		sealed = k.Sealed
	}
	return []any{
		k.ID, k.Organization, k.Project, k.Name, string(scopes), k.Digest[:], k.Pepper, int64(k.PepperMark), sealed, nanos(k.ExpiresAt), nanos(k.RevokedAt), k.RotatedTo,
		nanos(k.CreatedAt), k.CreatedBy, k.Revision,
	}, nil
}

// Keys gives an organization's keys by id, those after the id, at most limit: 1,000 or less, 0 is 100. It fails with auth.ErrNotFound where
// there is no such organization.
func (b *Book) Keys(ctx context.Context, of, after string, limit int) ([]auth.Key, error) {
	var found []auth.Key
	err := b.read(ctx, func(ctx context.Context, tx tx) error {
		if _, err := organization(ctx, tx, of); err != nil {
			return err
		}
		return tx.each(ctx, func(row row) error {
			k, err := scanKey(row)
			found = append(found, k)
			return err
		}, selectKeys+"WHERE k.organization = $1 AND k.id > $2 ORDER BY k.id LIMIT $3", of, after, page(limit))
	})
	if err != nil {
		return nil, err
	}
	return found, nil
}

// Key gives one of an organization's keys; it fails with auth.ErrNotFound, also for another organization's.
func (b *Book) Key(ctx context.Context, organization, id string) (k auth.Key, err error) {
	err = b.read(ctx, func(ctx context.Context, tx tx) error { k, err = key(ctx, tx, organization, id); return err })
	return k, err
}

func key(ctx context.Context, tx tx, organization, id string) (auth.Key, error) {
	k, err := scanKey(tx.one(ctx, selectKeys+"WHERE k.organization = $1 AND k.id = $2", organization, id))
	return k, absent(err)
}

// CreateKey keeps a new key. The book sets CreatedAt, CreatedBy and Revision. It fails with auth.ErrNotFound where there is no such
// organization or project, and with auth.ErrExists where its id or its digest is taken, by whomever.
func (b *Book) CreateKey(ctx context.Context, k auth.Key, by auth.By) (auth.Key, error) {
	err := b.write(ctx, clockIdentity, func(ctx context.Context, tx tx) error { return create(ctx, tx, &k, by) })
	if err != nil {
		return auth.Key{}, err
	}
	return k, nil
}

// create keeps a new key within tx.
func create(ctx context.Context, tx tx, k *auth.Key, by auth.By) error {
	begin(k, by)
	if err := errors.Join(checkKey(k), checkBy(by)); err != nil {
		return refusal{err}
	}
	if _, err := organization(ctx, tx, k.Organization); err != nil {
		return err
	}
	if err := inProject(ctx, tx, k); err != nil {
		return err
	}
	var same int
	if err := tx.one(ctx, "SELECT count(*) FROM api_key WHERE id = $1 OR digest = $2", k.ID, k.Digest[:]).Scan(&same); err != nil {
		return err
	}
	if same > 0 {
		return refusal{auth.ErrExists}
	}
	revision, err := tick(ctx, tx, clockIdentity, 1)
	if err != nil {
		return err
	}
	k.Revision = revision
	return keep(ctx, tx, []auth.Key{*k}, by, actionCreate)
}

// begin sets what is true of every new key.
func begin(k *auth.Key, by auth.By) {
	k.CreatedAt, k.CreatedBy, k.ExpiresAt = now(), by.Actor, moment(nanos(k.ExpiresAt))
	k.RevokedAt, k.LastUsedAt, k.RotatedTo = moment(0), moment(0), ""
	normal(&k.Scopes)
}

// inProject says whether the key's project is there.
func inProject(ctx context.Context, tx tx, k *auth.Key) error {
	if k.Project == "" {
		return nil
	}
	_, err := project(ctx, tx, k.Organization, k.Project)
	return err
}

// keep inserts new keys and their entries in the audit.
func keep(ctx context.Context, tx tx, keys []auth.Key, by auth.By, action string) error {
	if there, err := tick(ctx, tx, countKeys, len(keys)); err != nil {
		return err
	} else if there > maxKeys {
		return full(there-int64(len(keys)), "keys", "delete some that are revoked or expired")
	}
	rows, entries := make([][]any, len(keys)), make([]auth.Entry, len(keys))
	for i := range keys {
		k := &keys[i]
		var err error
		if rows[i], err = keyValues(k); err != nil {
			return err
		}
		if entries[i], err = note(by, action, kindKey, k.ID, k.Organization, nil, k); err != nil {
			return err
		}
	}
	if err := insert(ctx, tx, "api_key ("+keyColumns+")", rows...); err != nil {
		return err
	}
	return addEntries(ctx, tx, entries...)
}

// ImportKeys keeps keys that are known by the SHA-256 of their whole text alone, at most 1,000 at once: all, or none where it fails. Those whose
// digest the organization has already are left out; n counts the others. It fails with auth.ErrNotFound as CreateKey does, and with
// auth.ErrExists where an id is taken, or another organization has the digest.
func (b *Book) ImportKeys(ctx context.Context, of string, keys []auth.Key, by auth.By) (n int, err error) {
	if len(keys) > maxImport {
		return 0, fmt.Errorf("at most %d keys can be imported at once", maxImport)
	}
	if err := checkBy(by); err != nil {
		return 0, err
	}
	for i := range keys {
		k := keys[i]
		k.Organization = of
		if err := checkKey(&k); err != nil {
			return 0, fmt.Errorf("key %d: %w", i+1, err)
		}
		if k.Pepper != 0 || k.Sealed != nil {
			return 0, fmt.Errorf("key %d: what is imported is a SHA-256 without a pepper", i+1)
		}
	}
	err = b.write(ctx, clockIdentity, func(ctx context.Context, tx tx) error {
		fresh, err := newOnes(ctx, tx, of, keys, by)
		switch {
		case err != nil:
			return err
		case len(fresh) == 0:
			return errUnchanged
		}
		last, err := tick(ctx, tx, clockIdentity, len(fresh))
		if err != nil {
			return err
		}
		for i := range fresh {
			fresh[i].Revision = last - int64(len(fresh)-1-i)
		}
		n = len(fresh)
		return keep(ctx, tx, fresh, by, actionImport)
	})
	if err != nil {
		return 0, err
	}
	return n, nil
}

// newOnes are those of the keys that the organization does not have yet.
func newOnes(ctx context.Context, tx tx, of string, keys []auth.Key, by auth.By) ([]auth.Key, error) {
	if _, err := organization(ctx, tx, of); err != nil {
		return nil, err
	}
	taken, err := takenBy(ctx, tx, keys)
	if err != nil {
		return nil, err
	}
	fresh, projects := make([]auth.Key, 0, len(keys)), map[string]bool{"": true}
	for _, k := range keys {
		k.Organization = of
		begin(&k, by)
		if !projects[k.Project] {
			if err := inProject(ctx, tx, &k); err != nil {
				return nil, err
			}
			projects[k.Project] = true
		}
		owner, there := taken.digests[k.Digest]
		switch {
		case there && owner == of:
			continue
		case there || taken.ids[k.ID]:
			return nil, refusal{fmt.Errorf("key %s: %w", k.ID, auth.ErrExists)}
		}
		taken.digests[k.Digest], taken.ids[k.ID] = of, true
		fresh = append(fresh, k)
	}
	return fresh, nil
}

// taken are ids, and digests with the organization that has them.
type taken struct {
	ids     map[string]bool
	digests map[auth.Digest]string
}

// takenBy says which ids and digests of these keys are in the book.
func takenBy(ctx context.Context, tx tx, keys []auth.Key) (taken, error) {
	found := taken{map[string]bool{}, map[auth.Digest]string{}}
	for some := range slices.Chunk(keys, insertAtOnce) {
		ids, digests, args := make([]string, len(some)), make([]string, len(some)), make([]any, 0, 2*len(some))
		for i := range some {
			args = append(args, some[i].ID, some[i].Digest[:])
			ids[i], digests[i] = "$"+strconv.Itoa(2*i+1), "$"+strconv.Itoa(2*i+2)
		}
		err := tx.each(ctx, func(row row) error {
			var id, organization string
			var digest []byte
			err := row.Scan(&id, &organization, &digest)
			var d auth.Digest
			copy(d[:], digest)
			found.ids[id], found.digests[d] = true, organization
			return err
		}, "SELECT id, organization, digest FROM api_key WHERE id IN ("+strings.Join(ids, ", ")+") OR digest IN ("+strings.Join(digests, ", ")+")", args...)
		if err != nil {
			return found, err
		}
	}
	return found, nil
}
