package state

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
)

// pollInterval is how often the book looks for changes of other processes.
const pollInterval = 200 * time.Millisecond

// sqliteEngine is a book in a SQLite file of this machine.
type sqliteEngine struct{ path string }

func (e sqliteEngine) place() string { return e.path }

// sqliteFile is one opening of the file. SQLite has one writer at a time, so there is one connection to write through, for which writers
// queue up in turn, and a few that only read: readers never wait for writers.
type sqliteFile struct {
	engine        sqliteEngine
	writer, reads *sql.DB
	file          fs.FileInfo // what was opened, to notice that something else is at its path
}

func (d *sqliteFile) close() error { return errors.Join(d.reads.Close(), d.writer.Close()) }

// open opens the file, or makes it unless it was there before: one that is gone must not become an empty book, by which nothing is routed.
func (e sqliteEngine) open(ctx context.Context, before bool, migrate migration) (_ database, err error) {
	file, err := e.touch(before)
	if err != nil {
		return nil, err
	}
	writer, err := e.pool("&_txlock=immediate")
	if err != nil {
		return nil, err
	}
	db := &sqliteFile{engine: e, writer: writer, file: file}
	writer.SetMaxOpenConns(1)
	defer func() {
		if err != nil {
			_ = writer.Close() // What failed is told already.
		}
	}()
	if err := migrate(ctx, writer, sqliteSchema); err != nil {
		return nil, e.explain(err)
	}
	if db.reads, err = e.pool("&_query_only=1"); err != nil {
		return nil, err
	}
	db.reads.SetMaxOpenConns(4)
	return db, nil
}

var sqliteSchema = schema{
	dialect: goose.DialectSQLite3,
	folder:  "migrations/sqlite",
	tables:  "SELECT count(*), count(CASE WHEN name = $1 THEN 1 END) FROM sqlite_schema WHERE type = 'table'",
	// In WAL mode readers and the writer do not wait for each other. The file remembers it.
	ready: func(ctx context.Context, db *sql.DB) error {
		_, err := db.ExecContext(ctx, "PRAGMA journal_mode = WAL")
		return err
	},
}

// touch makes the directory and the file, for this user alone: a book holds what only operators may see.
func (e sqliteEngine) touch(before bool) (fs.FileInfo, error) {
	found, err := os.Stat(e.path)
	if errors.Is(err, fs.ErrNotExist) && !before {
		if err := os.MkdirAll(filepath.Dir(e.path), 0o700); err != nil {
			return nil, fmt.Errorf("the directory of the state book cannot be made: %w", err)
		}
		file, err := os.OpenFile(e.path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if errors.Is(err, fs.ErrExist) { // Another process was faster.
			return os.Stat(e.path)
		}
		if err != nil {
			return nil, fmt.Errorf("the state book cannot be made: %w", err)
		}
		defer file.Close()
		return file.Stat()
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, final{fmt.Errorf("the state book %s is gone: put it back, or restart the router to begin a new one", e.path)}
	case err != nil:
		return nil, fmt.Errorf("the state book cannot be opened: %w", err)
	case !found.Mode().IsRegular():
		return nil, final{fmt.Errorf("the state book %s is not a file", e.path)}
	}
	return found, nil
}

// pool opens nothing yet. synchronous=FULL syncs the disk at each commit: an answered write outlasts a power failure, which NORMAL
// does not promise in WAL mode. Writes come from operators, a few a day; a sync is milliseconds. The busy handler waits longer than
// any call may take, so that deadlines alone decide.
func (e sqliteEngine) pool(more string) (*sql.DB, error) {
	name := url.URL{Scheme: "file", Path: e.path}
	const settings = "?mode=rw&_busy_timeout=60000&_synchronous=FULL&_foreign_keys=1&_defensive=1&_dqs=0&_error_rc=1&_pragma=journal_size_limit(16777216)"
	connector, err := sqlite.NewConnector(name.String() + settings + more)
	if err != nil {
		return nil, fmt.Errorf("the state book cannot be opened: %w", err)
	}
	return sql.OpenDB(connector), nil
}

func (d *sqliteFile) read(ctx context.Context, ask func(tx) error) error {
	return transact(ctx, d.reads, &sql.TxOptions{ReadOnly: true}, ask)
}

func (d *sqliteFile) write(ctx context.Context, change func(tx) error) error {
	return transact(ctx, d.writer, nil, change)
}

func transact(ctx context.Context, db *sql.DB, options *sql.TxOptions, run func(tx) error) error {
	begun, err := db.BeginTx(ctx, options)
	if err != nil {
		return err
	}
	defer begun.Rollback()
	if err := run(sqliteTx{begun}); err != nil {
		return err
	}
	return begun.Commit()
}

type sqliteTx struct{ *sql.Tx }

func (t sqliteTx) exec(ctx context.Context, statement string, args ...any) error {
	_, err := t.ExecContext(ctx, statement, args...) //nolint:gosec // Statements are put together from constants and numbers of parameters.
	return err
}

func (t sqliteTx) one(ctx context.Context, query string, args ...any) row {
	return t.QueryRowContext(ctx, query, args...) //nolint:gosec // As above.
}

func (t sqliteTx) each(ctx context.Context, take func(row) error, query string, args ...any) error {
	rows, err := t.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := take(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// lookAfter also ends when the file at the path is no longer the one that was opened.
func (d *sqliteFile) lookAfter(ctx context.Context, changed func()) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	conn, err := d.reads.Conn(ctx) // data_version tells of what changed through other connections than the one that asks.
	if err != nil {
		return d.engine.explain(err)
	}
	defer conn.Close()
	for version := int64(0); ; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		}
		if found, err := os.Stat(d.engine.path); err != nil || !os.SameFile(found, d.file) {
			return fmt.Errorf("what is at %s is no longer the state book that was opened", d.engine.path)
		}
		now, err := dataVersion(ctx, conn)
		if err != nil {
			return d.engine.explain(err)
		}
		if now != version {
			version = now
			changed()
		}
		timer.Reset(pollInterval)
	}
}

func dataVersion(ctx context.Context, conn *sql.Conn) (version int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err = conn.QueryRowContext(ctx, "PRAGMA data_version").Scan(&version)
	return version, err
}
