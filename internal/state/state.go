// Package state is the router's own book of state in an SQL database: policy documents with their history, organizations, projects, keys and
// admins, and the audit of every change. It is a policy.Source, a policy.Book, an auth.Ledger and an auth.AdminLedger.
//
// The database is a SQLite file of this machine, or a PostgreSQL database that replicas share. Several processes of one machine may use one
// file at once. The file must be on a local disk: the locks that keep processes apart do not work on network file systems.
//
// The history keeps the last 100,000 changes of documents, and of each document the last 1,000. The audit keeps everything, unless a Retention
// is told for how long.
package state

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/ai-aas/api-router/internal/auth"
	"github.com/ai-aas/api-router/internal/policy"
)

// The history is bounded, in entries.
const (
	maxHistory         = 100_000
	maxDocumentHistory = 1_000
)

const (
	// patience bounds every call, also one whose context has no deadline.
	patience = 10 * time.Second
	// closing bounds Close.
	closing = 5 * time.Second
	// The pause before the database is opened again. Who follows the keys pauses, too, and has five seconds from its return on.
	firstPause, longestPause = 50 * time.Millisecond, 2 * time.Second
	// opening bounds one attempt to open the database, migrations included.
	opening = time.Minute
)

var (
	_ policy.Source = (*Book)(nil)
	_ policy.Book   = (*Book)(nil)
	_ auth.Ledger   = (*Book)(nil)

	_ auth.AdminLedger = (*Book)(nil)
)

var errClosed = errors.New("the state book is closed")

// Options say where a book is. URL and Logger are required.
type Options struct {
	// URL is sqlite:///absolute/path, sqlite:relative/path or postgres://user@host:port/database?parameters. It holds no password.
	URL string
	// Password is where PostgreSQL's password is. Zero: in the standard places, PGPASSWORD and the password file, or there is none.
	Password policy.SecretRef
	// Manual leaves the tables as they are: a book whose tables are of an older version is not opened until Migrate was called.
	Manual bool
	Logger *slog.Logger
}

// final is a failure that does not go away by trying again: somebody has to do something first.
type final struct{ error }

func (f final) Unwrap() error { return f.error }

// IsFinal says that trying again does not help: somebody has to do something first.
func IsFinal(err error) bool {
	_, ok := errors.AsType[final](err)
	return ok
}

// Status is how a book does.
type Status struct {
	// Place is where it is: the file's absolute path, or the database's URL without parameters.
	Place string
	// Open says that the book can be used.
	Open bool
	// Failure is why it cannot; empty where it can, or where the first attempt still runs.
	Failure string
}

// Book is an open or opening book. Its methods may be called at once, and at any time: what needs the database waits until it is open,
// within the deadline of the context. Where opening it again cannot help (the file is damaged, or of a newer version), they fail at once.
type Book struct {
	engine engine
	manual bool
	page   int // of Follow
	logger *slog.Logger
	life   context.Context
	end    context.CancelFunc
	ended  chan struct{} // closed when run has returned

	mu      sync.Mutex
	db      database      // nil while it is not open
	failure error         // why it is not open
	changed chan struct{} // closed, and another put here, when one of the above or a document changes
}

// Open returns at once; the database is opened, made and brought up to date in the background, again and again until that succeeds.
// It fails only for a URL that it cannot read. Whoever opens a book closes it.
func Open(options Options) (*Book, error) {
	e, err := engineOf(options)
	if err != nil {
		return nil, fmt.Errorf("state.url %w", err)
	}
	b := &Book{engine: e, manual: options.Manual, page: atOnce, logger: options.Logger, ended: make(chan struct{}), changed: make(chan struct{})}
	b.life, b.end = context.WithCancel(context.Background())
	go b.run()
	return b, nil
}

// Status tells the state.
func (b *Book) Status() Status {
	b.mu.Lock()
	defer b.mu.Unlock()
	status := Status{Place: b.engine.place(), Open: b.db != nil}
	if b.failure != nil {
		status.Failure = b.failure.Error()
	}
	return status
}

// Close ends what runs on the book and closes the database, within 5 s.
func (b *Book) Close() error {
	b.end()
	select {
	case <-b.ended:
		return nil
	case <-time.After(closing):
		return fmt.Errorf("the state book %s did not close within %s", b.engine.place(), closing)
	}
}

// run opens the database and looks after it until the book is closed.
func (b *Book) run() {
	defer close(b.ended)
	pause, opened, said := firstPause, false, ""
	place := b.engine.place()
	for {
		db, err := b.open(opened)
		if err == nil {
			opened, said = true, ""
			since := time.Now()
			b.logger.Info("the state book is open", "place", place)
			b.set(db, nil)
			err = db.lookAfter(b.life, b.notify)
			b.set(nil, err)
			if time.Since(since) > longestPause { // One that is lost at once is not mended by being opened.
				pause = firstPause
			}
			if failure := db.close(); failure != nil {
				b.logger.Warn("the state book was not closed cleanly; nothing that was written is lost", "place", place, "error", failure)
			}
		}
		if b.life.Err() != nil {
			b.set(nil, errClosed)
			return
		}
		if said != err.Error() {
			said = err.Error()
			b.logger.Warn("the state book cannot be used; it is tried again", "place", place, "error", err)
		}
		b.set(nil, err)
		wait(b.life, pause/2+rand.N(pause/2))
		pause = min(2*pause, longestPause)
	}
}

func (b *Book) open(before bool) (database, error) {
	ctx, cancel := context.WithTimeout(b.life, opening)
	defer cancel()
	return b.engine.open(ctx, before, func(ctx context.Context, db *sql.DB, s schema) error {
		_, err := migrate(ctx, db, s, b.engine.place(), b.logger, b.manual)
		return err
	})
}

// set makes one change to what mu guards, and tells everybody who waits.
func (b *Book) set(db database, failure error) {
	b.mu.Lock()
	b.db, b.failure = db, failure
	b.mu.Unlock()
	b.notify()
}

func (b *Book) notify() {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.changed)
	b.changed = make(chan struct{})
}

// current is the database, or why there is none (perhaps neither yet), and what is closed when that or a document changes.
func (b *Book) current() (database, <-chan struct{}, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.db, b.changed, b.failure
}

// enter waits for the database and gives a context that ends with the caller's, with the book, and after patience. leave goes with it.
func (b *Book) enter(ctx context.Context) (db database, bounded context.Context, leave func(), err error) {
	bounded, cancel := context.WithTimeout(ctx, patience)
	stop := context.AfterFunc(b.life, cancel)
	leave = func() { stop(); cancel() }
	for {
		db, changed, failure := b.current()
		switch {
		case b.life.Err() != nil:
			leave()
			return nil, nil, nil, errClosed
		case bounded.Err() != nil:
			leave()
			return nil, nil, nil, b.late(bounded.Err(), failure)
		case db != nil:
			return db, bounded, leave, nil
		case IsFinal(failure):
			leave()
			return nil, nil, nil, failure
		}
		select {
		case <-bounded.Done():
		case <-changed:
		}
	}
}

// late is the error of a call whose time was over before the book was open.
func (b *Book) late(timeout, failure error) error {
	if failure == nil {
		return fmt.Errorf("the state book %s is not open yet: %w", b.engine.place(), timeout)
	}
	return fmt.Errorf("%w (%w)", failure, timeout) // Who reads it wants to know why, and then for how long.
}
