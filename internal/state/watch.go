package state

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/ai-aas/api-router/internal/policy"
)

// rest is the time between two looks at a book that changes all the time.
const rest = 20 * time.Millisecond

// Watch is policy.Source's: changes made through this Book show at once, those of other processes
// within 0.2 s or so in a file, and as soon as the server tells of them, at the latest after 0.5 s, in PostgreSQL. It fails
// while the book cannot be opened.
func (b *Book) Watch(ctx context.Context, publish func(policy.Snapshot)) error {
	v := view{origin: "state book " + b.engine.place()}
	for {
		db, changed, failure := b.current()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case b.life.Err() != nil:
			return errClosed
		case failure != nil:
			return failure
		case db != nil:
			differs, err := v.look(ctx, db)
			if err != nil {
				return b.failed(ctx, err)
			}
			if differs {
				publish(v.snapshot())
				wait(ctx, rest)
			}
		}
		select {
		case <-ctx.Done():
		case <-b.life.Done():
		case <-changed:
		}
	}
}

func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

type name struct {
	kind policy.Kind
	id   string
}

func (n name) compare(other name) int {
	if order := strings.Compare(string(n.kind), string(other.kind)); order != 0 {
		return order
	}
	return strings.Compare(n.id, other.id)
}

// reading is a document as it was parsed: good, or with problems.
type reading struct {
	revision int64
	document policy.Document
	problems []policy.Problem
}

// view is what one watch knows of the book.
type view struct {
	origin   string
	db       database // nil before the first look
	revision int64    // of the book
	readings map[name]reading
	names    []name // of the readings, sorted; nil when they have to be sorted anew
}

// look brings the view up to date and says whether anything differs.
func (v *view) look(ctx context.Context, db database) (differs bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	revision, same := int64(0), db == v.db
	err = db.read(ctx, func(tx tx) error {
		if err := tx.one(ctx, "SELECT value FROM counter WHERE name = $1", clockDocuments).Scan(&revision); err != nil {
			return err
		}
		switch {
		case same && revision == v.revision:
			return nil
		case same && revision > v.revision && revision-v.revision < maxHistory:
			differs = true
			return v.update(ctx, tx)
		}
		differs = true
		return v.load(ctx, tx)
	})
	if err != nil {
		if differs {
			v.db = nil // It may be half of each.
		}
		return false, err
	}
	v.db, v.revision = db, revision
	return differs, nil
}

// load reads every document.
func (v *view) load(ctx context.Context, tx tx) error {
	v.readings, v.names = make(map[name]reading), nil
	return v.read(ctx, tx, "SELECT kind, id, revision, content FROM document")
}

// update reads those that the history since the view's revision names. The newest entry of a document is the last to go from the history.
func (v *view) update(ctx context.Context, tx tx) error {
	return v.read(ctx, tx, `SELECT touched.kind, touched.id, document.revision, document.content
		FROM (SELECT DISTINCT kind, id FROM change WHERE revision > $1) AS touched
		LEFT JOIN document ON document.kind = touched.kind AND document.id = touched.id`, v.revision)
}

func (v *view) read(ctx context.Context, tx tx, query string, args ...any) error {
	return tx.each(ctx, func(row row) error {
		var n name
		var revision *int64
		var content []byte
		if err := row.Scan(&n.kind, &n.id, &revision, &content); err != nil {
			return err
		}
		known, there := v.readings[n]
		switch {
		case revision == nil:
			delete(v.readings, n)
			v.names = nil
			return nil
		case there && known.revision == *revision:
			return nil
		case !there:
			v.names = nil
		}
		r := reading{revision: *revision}
		r.document, r.problems = parse(policy.Stored{Kind: n.kind, ID: n.id, Place: place(n.kind, n.id), Revision: *revision, Content: content})
		v.readings[n] = r
		return nil
	}, query, args...)
}

// parse reads a document as its content and its key say.
func parse(stored policy.Stored) (policy.Document, []policy.Problem) {
	document, problems := policy.ParseOne(stored.Place, stored.Kind, stored.ID, stored.Content)
	document.Revision = stored.Revision
	return document, problems
}

func (v *view) snapshot() policy.Snapshot {
	if v.names == nil {
		v.names = slices.SortedFunc(maps.Keys(v.readings), name.compare)
	}
	s := policy.Snapshot{Origin: v.origin, Documents: make([]policy.Document, 0, len(v.names))}
	for _, n := range v.names {
		r := v.readings[n]
		if len(r.problems) == 0 {
			s.Documents = append(s.Documents, r.document)
		}
		s.Problems = append(s.Problems, r.problems...)
	}
	return s
}
