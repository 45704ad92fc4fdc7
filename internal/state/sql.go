package state

import (
	"context"
	"database/sql"
)

// engine is one of the two databases. What differs between them is in its file; everything else is the same SQL, with $1 for a parameter.
type engine interface {
	// place is where the book is, as messages name it. It holds no secret.
	place() string
	// open connects once, brings the tables up to date with migrate, and gives the database. before says that this process had it open
	// already, so that what is gone is not made anew.
	open(ctx context.Context, before bool, migrate migration) (database, error)
	// explain says what an error of the database means and what to do about it.
	explain(err error) error
}

// migration brings the tables up to date, or says why that is not to be.
type migration func(ctx context.Context, db *sql.DB, s schema) error

// database is one opening of a database. Its transactions end with their context.
type database interface {
	// read runs ask on one state of the book.
	read(ctx context.Context, ask func(tx) error) error
	// write runs change, and commits unless it fails.
	write(ctx context.Context, change func(tx) error) error
	// lookAfter calls changed whenever another process may have changed the book. It returns why the database is of no use any more,
	// or when ctx ends.
	lookAfter(ctx context.Context, changed func()) error
	// close ends what still runs, and releases everything.
	close() error
}

// tx is a transaction. Only one of its methods runs at a time.
type tx interface {
	exec(ctx context.Context, statement string, args ...any) error
	// one reads one row; Scan fails with sql.ErrNoRows where there is none.
	one(ctx context.Context, query string, args ...any) row
	// each calls take for every row.
	each(ctx context.Context, take func(row) error, query string, args ...any) error
}

type row interface{ Scan(into ...any) error }

// The counters of a book. A transaction that moves one has to end before another can, so revisions come in the order of commits.
const (
	clockDocuments = "revision"
	clockIdentity  = "identity"
	clockAdmins    = "admins"
	clockAudit     = "audit" // Every transaction has it move last, or alone: whoever waits for it holds nothing that its holder could wait for.
	countKeys      = "keys"

	// What was taken out because it was old: see the migration that makes them.
	clockRetention = "retention"
	horizonGone    = "gone"
	nextGone       = "gone_next"
	nextGoneAt     = "gone_next_at"
	auditSince     = "audit_since"
)

// refusal is an error that is the answer, and not a failure of the database.
type refusal struct{ error }

func (r refusal) Unwrap() error { return r.error }

// errUnchanged ends a write that has nothing to change.
var errUnchanged = refusal{errClosed}

// read runs ask on one state of the book, as soon as that is open.
func (b *Book) read(ctx context.Context, ask func(ctx context.Context, tx tx) error) error {
	db, ctx, leave, err := b.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	return b.failed(ctx, db.read(ctx, func(tx tx) error { return ask(ctx, tx) }))
}

// write runs change while nobody else can move the clock: what it reads is still true when it commits. Without a clock there is no such
// promise, and nobody is told.
func (b *Book) write(ctx context.Context, clock string, change func(ctx context.Context, tx tx) error) error {
	db, ctx, leave, err := b.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	err = db.write(ctx, func(tx tx) error {
		if clock != "" { // Nothing changes by it, but the row is ours until the end.
			if err := tx.exec(ctx, "UPDATE counter SET value = value WHERE name = $1", clock); err != nil {
				return err
			}
		}
		return change(ctx, tx)
	})
	switch {
	case err == errUnchanged: //nolint:errorlint // It is never wrapped.
		return nil
	case err != nil:
		return b.failed(ctx, err)
	case clock != "":
		b.notify()
	}
	return nil
}

// tick moves a counter by n and gives its new value.
func tick(ctx context.Context, tx tx, counter string, n int) (value int64, err error) {
	err = tx.one(ctx, "UPDATE counter SET value = value + $2 WHERE name = $1 RETURNING value", counter, n).Scan(&value)
	return value, err
}
