package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/ai-aas/api-router/internal/adminapi"
	"github.com/ai-aas/api-router/internal/policy"
)

// bookWithin bounds how long dev waits for its state book, a file of its own, where something is wrong with it. One of which nothing is known yet is
// waited for until bookLongest: a busy machine opens a file slowly, and that is no reason to tell a person to move it away.
const bookWithin, bookLongest = 3 * time.Second, time.Minute

// home is the directory where dev keeps what outlasts it: the state book and the usage records.
type home struct {
	log  *slog.Logger
	dir  string
	lock *os.File // its lock is this process's right to the state book; nil where another dev has that
	own  string   // then: the directory of a book for this run alone
}

// openHome makes the directory. Two devs do not share a state book, because each writes the addresses of its own backends there:
// the second gets one that ends with it.
func openHome(dir string, log *slog.Logger) (*home, error) {
	if dir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			cache = os.TempDir()
		}
		dir = filepath.Join(cache, "api-router")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("--data: %w", err)
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("the directory for the state book and the usage records cannot be made: %w; choose another with --data", err)
	}
	h := &home{log: log, dir: dir}
	if h.lock, err = os.OpenFile(h.file("dev.lock"), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, fmt.Errorf("%s cannot be written: %w; choose another directory with --data", dir, err)
	}
	err = syscall.Flock(int(h.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		return h, nil
	}
	_ = h.lock.Close() // Nothing was written.
	h.lock = nil
	if !errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, fmt.Errorf("%s cannot be locked: %w; choose another directory with --data", h.file("dev.lock"), err)
	}
	if h.own, err = os.MkdirTemp("", "api-router-dev-*"); err != nil {
		return nil, fmt.Errorf("another api-router dev has the documents in %s, and there is no directory for those of this one: %w", dir, err)
	}
	log.Warn("another api-router dev has the documents in this directory: those of this one end with it; choose another directory with --data", "path", dir)
	return h, nil
}

// file is the path of a file in the directory.
func (h *home) file(name string) string { return filepath.Join(h.dir, name) }

// state is the path of the state book.
func (h *home) state() string {
	if h.own != "" {
		return filepath.Join(h.own, "state.db")
	}
	return h.file("state.db")
}

// says is where the documents are, for a person.
func (h *home) says() string {
	if h.own != "" {
		return "until this ends: another api-router dev has those in " + h.dir
	}
	return h.state() + ": what you apply stays there"
}

// opened waits until a state book is open, or has told why not.
func opened(ctx context.Context, p *place) error {
	ctx, cancel := context.WithTimeout(ctx, bookLongest)
	defer cancel()
	for {
		attempt, cancel := context.WithTimeout(ctx, bookWithin)
		err := p.wait(attempt)
		cancel()
		var told adminapi.Component
		if p.health(&told); err == nil || told.LastError != "" || ctx.Err() != nil {
			return err
		}
	}
}

// book opens the state book and brings dev's own documents in it up to date.
func (h *home) book(ctx context.Context, documents []policy.Document) (*place, error) {
	p, err := openState(State{URL: (&url.URL{Scheme: "sqlite", Path: h.state()}).String()}, h.log)
	if err != nil {
		return nil, err
	}
	if err = opened(ctx, p); err == nil {
		err = (&keeper{log: h.log, book: p.book}).keep(ctx, documents)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("dev keeps its documents in a state book, which cannot be used: %w; "+
			"move it away, or choose another directory with --data", err), p.close())
	}
	return p, nil
}

// close gives up the lock, and what was for this run alone.
func (h *home) close() {
	if h.own != "" {
		if err := os.RemoveAll(h.own); err != nil {
			h.log.Warn("a directory for this run alone is left behind", "path", h.own, "error", err)
		}
		return
	}
	_ = h.lock.Close() // That ends the lock; nothing was written.
}
