package state

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/pressly/goose/v3"
)

// versions is the table in which goose counts the migrations that were made.
const versions = "schema_version"

//go:embed migrations
var migrations embed.FS

// schema is how the tables of one database are made and counted.
type schema struct {
	dialect goose.Dialect
	folder  string
	// tables counts the tables that are there, and among them the one named versions.
	tables string
	// ready is called before anything is written. Nil: there is nothing to do.
	ready   func(ctx context.Context, db *sql.DB) error
	options []goose.ProviderOption
}

// Step is one migration that was made.
type Step struct {
	Version int64
	Name    string
	Took    time.Duration
}

// lockedWait is the longest pause before a book that another process keeps locked is tried again.
const lockedWait = 100 * time.Millisecond

// Migrate brings the tables of a book up to date and returns what it did, which is nothing where they are. Several may do so at once: a file
// that another process keeps locked is tried again for ten seconds. Everything else is tried once.
func Migrate(ctx context.Context, options Options) (place string, steps []Step, err error) {
	e, err := engineOf(options)
	if err != nil {
		return "", nil, err
	}
	for began := time.Now(); ; {
		db, err := e.open(ctx, false, func(ctx context.Context, db *sql.DB, s schema) error {
			made, err := migrate(ctx, db, s, e.place(), options.Logger, false)
			steps = append(steps, made...)
			return err
		})
		switch {
		case err == nil:
			return e.place(), steps, db.close()
		case !locked(err) || ctx.Err() != nil || time.Since(began) > patience:
			return e.place(), steps, err
		}
		wait(ctx, rand.N(lockedWait))
	}
}

// migrate brings the tables up to date. A database that is not a book, or one of a newer version, it leaves as it is.
func migrate(ctx context.Context, db *sql.DB, s schema, place string, logger *slog.Logger, manual bool) ([]Step, error) {
	scripts, err := fs.Sub(migrations, s.folder)
	if err != nil {
		return nil, err
	}
	provider, err := goose.NewProvider(s.dialect, db, scripts,
		append(s.options, goose.WithTableName(versions), goose.WithDisableGlobalRegistry(true), goose.WithSlog(logger))...)
	if err != nil {
		return nil, err
	}
	sources := provider.ListSources()
	known := sources[len(sources)-1].Version
	found, err := s.version(ctx, db)
	switch {
	case err != nil:
		return nil, err
	case found == foreign:
		return nil, final{fmt.Errorf("%s is a database of another program: name another one in state.url", place)}
	case found > known:
		return nil, final{fmt.Errorf("the state book %s was written by a newer version of this program (its tables have version %d, this one knows %d): "+
			"run that version or a later one; nothing was changed", place, found, known)}
	case found < known && manual:
		return nil, final{fmt.Errorf("the tables of the state book %s have version %d, this program needs %d: "+
			"run api-router migrate", place, found, known)}
	}
	if s.ready != nil {
		if err := s.ready(ctx, db); err != nil {
			return nil, err
		}
	}
	if found == known {
		return nil, nil
	}
	var steps []Step
	for {
		done, err := provider.Up(ctx)
		if partial, ok := errors.AsType[*goose.PartialError](err); ok {
			done = partial.Applied
		}
		for _, step := range done {
			steps = append(steps, Step{Version: step.Source.Version, Name: step.Source.Path, Took: step.Duration})
			logger.Info("the state book was brought up to date", "place", place, "version", step.Source.Version, "took", step.Duration)
		}
		if err == nil {
			return steps, nil
		}
		// Another process may do the same at the same time: as long as that gets on, so does this one, with what is left.
		now, again := s.version(ctx, db)
		switch {
		case errors.Is(ctx.Err(), context.DeadlineExceeded):
			return steps, final{fmt.Errorf("the tables of the state book %s could not be brought up to date in time; what was begun is taken back. There is much in them, or somebody "+
				"has them locked: run api-router migrate with a longer --wait: %w (%w)", place, flat{err}, ctx.Err())}
		case again != nil || now <= found:
			return steps, err
		}
		if found = now; found == known {
			return steps, nil
		}
	}
}

const foreign = -1

// version is that of the tables: 0 where there are none yet, foreign where there are others.
func (s schema) version(ctx context.Context, db *sql.DB) (int64, error) {
	var tables, ours int64
	err := db.QueryRowContext(ctx, s.tables, versions).Scan(&tables, &ours)
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
