package state

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
)

const (
	// The pause before the file is opened again.
	firstPause, longestPause = 50 * time.Millisecond, 5 * time.Second
	// opening bounds one attempt to open the file, migrations included.
	opening = time.Minute
	// pollInterval is how often the book looks for changes of other processes.
	pollInterval = 200 * time.Millisecond
	versions     = "schema_version" // the table in which goose counts the migrations that were made
)

//go:embed migrations/*.sql
var migrations embed.FS

// database is one opening of the file. SQLite has one writer at a time, so there is one connection to write through, for which writers
// queue up in turn, and a few that only read: readers never wait for writers.
type database struct {
	write, read *sql.DB
	file        fs.FileInfo // what was opened, to notice that something else is at its path
}

func (d *database) close() error { return errors.Join(d.read.Close(), d.write.Close()) }

// run opens the file and looks after it until the book is closed.
func (b *Book) run() {
	defer close(b.ended)
	pause, opened, said := firstPause, false, ""
	for {
		db, err := b.open(opened)
		if err == nil {
			pause, opened, said = firstPause, true, ""
			b.logger.Info("the state book is open", "path", b.path)
			b.set(db, nil)
			err = b.lookAfter(db)
			b.set(nil, err)
			if failure := db.close(); failure != nil {
				b.logger.Warn("the state book was not closed cleanly; nothing that was written is lost", "path", b.path, "error", failure)
			}
		}
		if b.life.Err() != nil {
			b.set(nil, errClosed)
			return
		}
		if said != err.Error() {
			said = err.Error()
			b.logger.Warn("the state book cannot be used; it is tried again", "path", b.path, "error", err)
		}
		b.set(nil, err)
		wait(b.life, pause/2+rand.N(pause/2))
		pause = min(2*pause, longestPause)
	}
}

// open opens the file, or makes it unless it was there before: one that is gone must not become an empty book, by which nothing is routed.
func (b *Book) open(before bool) (db *database, err error) {
	ctx, cancel := context.WithTimeout(b.life, opening)
	defer cancel()
	file, err := b.touch(before)
	if err != nil {
		return nil, err
	}
	write, err := b.pool("&_txlock=immediate")
	if err != nil {
		return nil, err
	}
	db = &database{write: write, file: file}
	write.SetMaxOpenConns(1)
	defer func() {
		if err != nil {
			_ = write.Close() // What failed is told already.
		}
	}()
	if err := b.migrate(ctx, write); err != nil {
		return nil, b.explain(err)
	}
	if db.read, err = b.pool("&_query_only=1"); err != nil {
		return nil, err
	}
	db.read.SetMaxOpenConns(4)
	return db, nil
}

// touch makes the directory and the file, for this user alone: a book holds what only operators may see.
func (b *Book) touch(before bool) (fs.FileInfo, error) {
	found, err := os.Stat(b.path)
	if errors.Is(err, fs.ErrNotExist) && !before {
		if err := os.MkdirAll(filepath.Dir(b.path), 0o700); err != nil {
			return nil, fmt.Errorf("the directory of the state book cannot be made: %w", err)
		}
		file, err := os.OpenFile(b.path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if errors.Is(err, fs.ErrExist) { // Another process was faster.
			return os.Stat(b.path)
		}
		if err != nil {
			return nil, fmt.Errorf("the state book cannot be made: %w", err)
		}
		defer file.Close()
		return file.Stat()
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, final{fmt.Errorf("the state book %s is gone: put it back, or restart the router to begin a new one", b.path)}
	case err != nil:
		return nil, fmt.Errorf("the state book cannot be opened: %w", err)
	case !found.Mode().IsRegular():
		return nil, final{fmt.Errorf("the state book %s is not a file", b.path)}
	}
	return found, nil
}

// pool opens nothing yet. synchronous=FULL syncs the disk at each commit: an answered write outlasts a power failure, which NORMAL
// does not promise in WAL mode. Writes come from operators, a few a day; a sync is milliseconds. The busy handler waits longer than
// any call may take, so that deadlines alone decide.
func (b *Book) pool(more string) (*sql.DB, error) {
	name := url.URL{Scheme: "file", Path: b.path}
	const settings = "?mode=rw&_busy_timeout=60000&_synchronous=FULL&_foreign_keys=1&_defensive=1&_dqs=0&_error_rc=1&_pragma=journal_size_limit(16777216)"
	connector, err := sqlite.NewConnector(name.String() + settings + more)
	if err != nil {
		return nil, fmt.Errorf("the state book cannot be opened: %w", err)
	}
	return sql.OpenDB(connector), nil
}

// migrate brings the tables up to date. A file that is not a book, or one of a newer version, it leaves as it is.
func (b *Book) migrate(ctx context.Context, db *sql.DB) error {
	scripts, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	provider, err := goose.NewProvider(goose.DialectSQLite3, db, scripts,
		goose.WithTableName(versions), goose.WithDisableGlobalRegistry(true), goose.WithSlog(b.logger))
	if err != nil {
		return err
	}
	sources := provider.ListSources()
	known := sources[len(sources)-1].Version
	found, err := schema(ctx, db)
	switch {
	case err != nil:
		return err
	case found == foreign:
		return final{fmt.Errorf("%s is a database of another program: name another file in state.url", b.path)}
	case found > known:
		return final{fmt.Errorf("the state book %s was written by a newer version of this program (its tables have version %d, this one knows %d): "+
			"run that version or a later one; nothing was changed", b.path, found, known)}
	}
	// In WAL mode readers and the writer do not wait for each other. The file remembers it.
	if _, err := db.ExecContext(ctx, "PRAGMA journal_mode = WAL"); err != nil {
		return err
	}
	if found == known {
		return nil
	}
	done, err := provider.Up(ctx)
	if err != nil {
		// Another process may have done the same at the same time: then the tables are there.
		if now, again := schema(ctx, db); again == nil && now == known {
			return nil
		}
		return err
	}
	for _, step := range done {
		b.logger.Info("the state book was brought up to date", "path", b.path, "version", step.Source.Version, "took", step.Duration)
	}
	return nil
}

const foreign = -1

// schema is the version of the tables: 0 where there are none yet, foreign where there are others.
func schema(ctx context.Context, db *sql.DB) (int64, error) {
	var tables, ours int64
	err := db.QueryRowContext(ctx, "SELECT count(*), count(CASE WHEN name = ? THEN 1 END) FROM sqlite_schema WHERE type = 'table'", versions).Scan(&tables, &ours)
	switch {
	case err != nil:
		return 0, err
	case tables == 0:
		return 0, nil
	case ours == 0:
		return foreign, nil
	}
	var version int64
	err = db.QueryRowContext(ctx, "SELECT coalesce(max(version_id), 0) FROM "+versions).Scan(&version)
	return version, err
}

// lookAfter tells of the changes that other processes make, and returns when the book is closed, the file at the path is no longer
// the one that was opened, or it cannot be read.
func (b *Book) lookAfter(db *database) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	conn, err := db.read.Conn(b.life) // data_version tells of what changed through other connections than the one that asks.
	if err != nil {
		return b.explain(err)
	}
	defer conn.Close()
	for version := int64(0); ; {
		select {
		case <-b.life.Done():
			return errClosed
		case <-timer.C:
		}
		if found, err := os.Stat(b.path); err != nil || !os.SameFile(found, db.file) {
			return fmt.Errorf("what is at %s is no longer the state book that was opened", b.path)
		}
		now, err := b.dataVersion(conn)
		if err != nil {
			return b.explain(err)
		}
		if now != version {
			version = now
			b.notify()
		}
		timer.Reset(pollInterval)
	}
}

func (b *Book) dataVersion(conn *sql.Conn) (version int64, err error) {
	ctx, cancel := context.WithTimeout(b.life, patience)
	defer cancel()
	err = conn.QueryRowContext(ctx, "PRAGMA data_version").Scan(&version)
	return version, err
}
