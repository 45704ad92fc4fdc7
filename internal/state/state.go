// Package state is the router's own book of state in an SQL database: in this version policy documents and the history of their
// changes, in one SQLite file. It is a policy.Source and a policy.Book.
//
// Several processes of one machine may use one file at once. The file must be on a local disk: the locks that keep
// processes apart do not work on network file systems.
//
// The history keeps the last 100,000 changes of the book, and of each document the last 1,000.
package state

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"time"

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
)

var (
	_ policy.Source = (*Book)(nil)
	_ policy.Book   = (*Book)(nil)
)

var errClosed = errors.New("the state book is closed")

// Options say where a book is. Both are required.
type Options struct {
	// URL is sqlite:///absolute/path or sqlite:relative/path.
	URL    string
	Logger *slog.Logger
}

// Status is how a book does.
type Status struct {
	// Path is the file's, absolute.
	Path string
	// Open says that the book can be used.
	Open bool
	// Failure is why it cannot; empty where it can, or where the first attempt still runs.
	Failure string
}

// Book is an open or opening book. Its methods may be called at once, and at any time: what needs the database waits until it is open,
// within the deadline of the context. Where opening it again cannot help (the file is damaged, or of a newer version), they fail at once.
type Book struct {
	path   string
	logger *slog.Logger
	life   context.Context
	end    context.CancelFunc
	ended  chan struct{} // closed when run has returned

	mu      sync.Mutex
	db      *database     // nil while it is not open
	failure error         // why it is not open
	changed chan struct{} // closed, and another put here, when one of the above or a document changes
}

// Open returns at once; the file is opened, made and brought up to date in the background, again and again until that succeeds.
// It fails only for a URL that it cannot read. Whoever opens a book closes it.
func Open(options Options) (*Book, error) {
	path, err := pathOf(options.URL)
	if err != nil {
		return nil, fmt.Errorf("state.url %w", err)
	}
	b := &Book{path: path, logger: options.Logger, ended: make(chan struct{}), changed: make(chan struct{})}
	b.life, b.end = context.WithCancel(context.Background())
	go b.run()
	return b, nil
}

// pathOf reads a URL. Its errors do not hold it: another database's may have a password.
func pathOf(text string) (string, error) {
	rest, ok := strings.CutPrefix(text, "sqlite:")
	switch {
	case strings.HasPrefix(text, "postgres:"), strings.HasPrefix(text, "postgresql:"):
		return "", errors.New("names a PostgreSQL database, which is not available in this version: write sqlite:///path/of/a/file")
	case !ok:
		return "", errors.New("must begin with sqlite:, as in sqlite:///var/lib/api-router/state.db")
	case strings.HasPrefix(rest, "//") && !strings.HasPrefix(rest, "///"):
		return "", errors.New("needs three slashes before an absolute path, as in sqlite:///var/lib/api-router/state.db, and none before a relative one")
	case strings.ContainsAny(rest, "?#"):
		return "", errors.New("must not have a query or a fragment")
	case rest == ":memory:":
		return "", errors.New("must name a file: a book that is gone with the process keeps nothing")
	}
	path, err := url.PathUnescape(strings.TrimPrefix(rest, "//"))
	if err != nil || strings.ContainsRune(path, 0) {
		return "", errors.New("has a % that is no escape: write %25 for the sign itself")
	}
	if path == "" || strings.HasSuffix(path, "/") {
		return "", errors.New("must name a file, as in sqlite:///var/lib/api-router/state.db")
	}
	return filepath.Abs(path)
}

// Status tells the state.
func (b *Book) Status() Status {
	b.mu.Lock()
	defer b.mu.Unlock()
	status := Status{Path: b.path, Open: b.db != nil}
	if b.failure != nil {
		status.Failure = b.failure.Error()
	}
	return status
}

// Close ends what runs on the book and closes the file, within 5 s.
func (b *Book) Close() error {
	b.end()
	select {
	case <-b.ended:
		return nil
	case <-time.After(closing):
		return fmt.Errorf("the state book %s did not close within %s", b.path, closing)
	}
}

// set makes one change to what mu guards, and tells everybody who waits.
func (b *Book) set(db *database, failure error) {
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
func (b *Book) current() (*database, <-chan struct{}, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.db, b.changed, b.failure
}

// enter waits for the database and gives a context that ends with the caller's, with the book, and after patience. leave goes with it.
func (b *Book) enter(ctx context.Context) (db *database, bounded context.Context, leave func(), err error) {
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
		case isFinal(failure):
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
		return fmt.Errorf("the state book %s is not open yet: %w", b.path, timeout)
	}
	return fmt.Errorf("%w: %w", timeout, failure)
}
