package state

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ai-aas/api-router/internal/auth"
)

const (
	// atOnce is how many keys are read in one transaction: what a page costs is little, and none holds up anybody.
	atOnce = 5_000
	// usesAtOnce is how many uses one statement notes.
	usesAtOnce = 50
)

// Follow is auth.Ledger's. Changes made through this Book show at once, those of others as soon as Watch's. LastUsedAt is not followed: keys come
// without it. It ends when the database is lost, because what comes back under the same name may be older.
func (b *Book) Follow(ctx context.Context, give func(auth.Change), whole func()) error {
	f := follower{book: b, give: give, page: b.page}
	for {
		db, changed, failure := b.current()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case b.life.Err() != nil:
			return errClosed
		case failure != nil:
			return failure
		case f.db != nil && db != f.db:
			return fmt.Errorf("the state book %s was opened anew", b.engine.place())
		case db != nil && f.db == nil:
			f.db = db
			if err := f.load(ctx); err != nil {
				return b.failed(ctx, err)
			}
			if f.revision > 0 {
				give(auth.Change{Position: f.revision})
			}
			whole()
			continue // For what has changed meanwhile.
		case db != nil:
			if err := f.update(ctx); err != nil {
				return b.failed(ctx, err)
			}
		}
		select {
		case <-ctx.Done():
		case <-b.life.Done():
		case <-changed:
		}
	}
}

// follower is what one Follow knows.
type follower struct {
	book     *Book
	db       database
	give     func(auth.Change)
	page     int
	revision int64 // up to which everything was given
}

// look runs ask on one state of the book, and gives what it gathered afterwards: nobody waits for give in a transaction.
func (f *follower) look(ctx context.Context, ask func(ctx context.Context, tx tx, take func(auth.Change)) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var found []auth.Change
	err := f.db.read(ctx, func(tx tx) error { return ask(ctx, tx, func(c auth.Change) { found = append(found, c) }) })
	if err != nil {
		return err
	}
	for _, c := range found {
		f.give(c)
	}
	return nil
}

// load gives everything, in pages, and first what changed last: a million keys take longer than a revocation may. What changes meanwhile is given
// between two of them.
func (f *follower) load(ctx context.Context) error {
	err := f.look(ctx, func(ctx context.Context, tx tx, take func(auth.Change)) error {
		if err := clock(ctx, tx).Scan(&f.revision); err != nil {
			return err
		}
		if err := organizations(ctx, tx, take, "SELECT "+organizationColumns+" FROM organization"); err != nil {
			return err
		}
		var after int64 // As many of the deletions as a page has; of the others the end tells.
		err := tx.one(ctx, "SELECT revision FROM gone ORDER BY revision DESC LIMIT 1 OFFSET $1", f.page).Scan(&after)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		return gone(ctx, tx, take, after, f.revision)
	})
	for last, more := int64(math.MaxInt64), true; more && err == nil; {
		if err = f.update(ctx); err != nil {
			return err
		}
		more = false
		err = f.look(ctx, func(ctx context.Context, tx tx, take func(auth.Change)) error {
			return keys(ctx, tx, func(c auth.Change) {
				last, more = c.Key.Revision, true
				take(c)
			}, unusedKeys+"WHERE revision < $1 ORDER BY revision DESC LIMIT $2", last, f.page)
		})
	}
	return err
}

// unusedKeys selects keys without their last use, which the hot path does not need.
const unusedKeys = "SELECT " + keyColumns + ", 0 FROM api_key "

func clock(ctx context.Context, tx tx) row {
	return tx.one(ctx, "SELECT value FROM counter WHERE name = $1", clockIdentity)
}

func organizations(ctx context.Context, tx tx, take func(auth.Change), query string, args ...any) error {
	return tx.each(ctx, func(row row) error {
		o, err := scanOrganization(row)
		take(auth.Change{Organization: &o})
		return err
	}, query, args...)
}

func keys(ctx context.Context, tx tx, take func(auth.Change), query string, args ...any) error {
	return tx.each(ctx, func(row row) error {
		k, err := scanKey(row)
		if err == nil {
			take(auth.Change{Key: &k})
		}
		return err
	}, query, args...)
}

// update gives what has changed since the follower's revision: organizations first, so that whose a key is is known before the key.
func (f *follower) update(ctx context.Context) error {
	for reached, current := false, int64(0); !reached; {
		until := int64(0)
		err := f.look(ctx, func(ctx context.Context, tx tx, take func(auth.Change)) error {
			if err := clock(ctx, tx).Scan(&current); err != nil {
				return err
			}
			if current < f.revision {
				return fmt.Errorf("the state book %s is older than it was: a backup was put in its place", f.book.engine.place())
			}
			until = min(current, f.revision+int64(f.page))
			if until == f.revision {
				return nil
			}
			if err := f.missed(ctx, tx); err != nil {
				return err
			}
			err := organizations(ctx, tx, take, "SELECT "+organizationColumns+" FROM organization WHERE revision > $1 AND revision <= $2 ORDER BY revision", f.revision, until)
			if err != nil {
				return err
			}
			if err := keys(ctx, tx, take, unusedKeys+"WHERE revision > $1 AND revision <= $2 ORDER BY revision", f.revision, until); err != nil {
				return err
			}
			return gone(ctx, tx, take, f.revision, until)
		})
		if err != nil {
			return err
		}
		if until > f.revision {
			f.give(auth.Change{Position: until})
		}
		f.revision, reached = until, until == current
	}
	return nil
}

// missed fails where deletions that the follower has not read were taken out because they were old: then it has to read everything anew, as
// whoever follows does after a failure.
func (f *follower) missed(ctx context.Context, tx tx) error {
	var horizon int64
	err := tx.one(ctx, "SELECT value FROM counter WHERE name = $1", horizonGone).Scan(&horizon)
	if err == nil && f.revision < horizon {
		return refusal{fmt.Errorf("what was deleted from the state book %s since this process read it last is not in it any more: everything is read anew", f.book.engine.place())}
	}
	return err
}

// gone gives the organizations and the keys that were deleted, and have not been made again.
func gone(ctx context.Context, tx tx, take func(auth.Change), after, until int64) error {
	return tx.each(ctx, func(row row) error {
		var kind, id string
		err := row.Scan(&kind, &id)
		if kind == kindOrganization {
			take(auth.Change{Organization: &auth.Organization{ID: id}})
		} else {
			take(auth.Change{Gone: id})
		}
		return err
	}, `SELECT kind, id FROM gone WHERE revision > $1 AND revision <= $2 AND
		(kind = $3 AND NOT EXISTS (SELECT 1 FROM api_key WHERE api_key.id = gone.id) OR
		kind = $4 AND NOT EXISTS (SELECT 1 FROM organization WHERE organization.id = gone.id)) ORDER BY revision`,
		after, until, kindKey, kindOrganization)
}

// bury leaves a trace of what is deleted for those who follow the clock of identities, and moves it.
func bury(ctx context.Context, tx tx, kind, id string) error {
	revision, err := tick(ctx, tx, clockIdentity, 1)
	if err != nil {
		return err
	}
	return tx.exec(ctx, "INSERT INTO gone (revision, kind, id) VALUES ($1, $2, $3)", revision, kind, id)
}

// Used is auth.Ledger's. An earlier use than the one that is known, and one of a key that is not there, count for nothing. It is not one transaction: where
// it fails, some may be noted, and it can be called again with all.
func (b *Book) Used(ctx context.Context, at map[string]time.Time) error {
	ids := slices.Sorted(maps.Keys(at)) // In one order, as each statement takes its rows, so that two replicas do not wait for each other.
	for some := range slices.Chunk(ids, usesAtOnce) {
		values, args := make([]string, len(some)), make([]any, 0, 2*len(some))
		for i, id := range some {
			args = append(args, id, nanos(at[id]))
			values[i] = "(CAST($" + strconv.Itoa(2*i+1) + " AS TEXT), CAST($" + strconv.Itoa(2*i+2) + " AS BIGINT))"
		}
		err := b.write(ctx, "", func(ctx context.Context, tx tx) error {
			return tx.exec(ctx, "INSERT INTO api_key_use (id, used_at) SELECT v.column1, v.column2 FROM (VALUES "+strings.Join(values, ", ")+`) AS v
				WHERE EXISTS (SELECT 1 FROM api_key WHERE api_key.id = v.column1) ORDER BY v.column1
				ON CONFLICT (id) DO UPDATE SET used_at = excluded.used_at WHERE excluded.used_at > api_key_use.used_at`, args...)
		})
		if err != nil {
			return err
		}
	}
	return nil
}
