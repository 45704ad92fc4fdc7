package state

import (
	"context"
	"database/sql"
	"io/fs"
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/pressly/goose/v3"

	"github.com/ai-aas/api-router/internal/auth"
	"github.com/ai-aas/api-router/internal/policy"
)

// A book of the program's first version has documents and their history, and no identities.
func TestABookOfTheFirstVersionKeepsItsDocumentsAndTheirHistory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	older(t, path)
	book := openedAt(t, Options{URL: "sqlite://" + path})
	found, err := book.Read(waits(t), policy.KindBackend, "a")
	if err != nil || len(found) != 1 || found[0].Revision != 7 || string(found[0].Content) != `{"url":"http://127.0.0.1:1"}` {
		t.Errorf("%+v, %v", found, err)
	}
	writeVersion(t, book, "b", 1)
	history, err := book.History(waits(t), "", "", 10)
	if err != nil || len(history) != 2 || history[0].Revision != 8 || history[1].Revision != 7 || history[1].Actor != "olga" {
		t.Errorf("%+v, %v", history, err)
	}
	if _, err := book.PutOrganization(waits(t), auth.Organization{ID: "acme"}, nil, auth.By{Actor: "olga"}); err != nil {
		t.Error(err)
	}
}

// older makes a book as the first version left it.
func older(t *testing.T, path string) {
	t.Helper()
	logger := slog.New(slog.DiscardHandler)
	first := func(ctx context.Context, db *sql.DB, s schema) error {
		scripts, err := fs.Sub(migrations, s.folder)
		must(t, err)
		provider, err := goose.NewProvider(s.dialect, db, scripts, goose.WithTableName(versions), goose.WithDisableGlobalRegistry(true), goose.WithSlog(logger))
		must(t, err)
		_, err = provider.UpTo(ctx, 1)
		return err
	}
	db, err := sqliteEngine{path}.open(waits(t), false, first)
	must(t, err)
	must(t, db.write(waits(t), func(tx tx) error {
		for _, statement := range []string{
			`UPDATE counter SET value = 7`,
			`INSERT INTO document VALUES ('` + string(policy.KindBackend) + `', 'a', 7, '{"url":"http://127.0.0.1:1"}')`,
			`INSERT INTO change VALUES (7, 'create', '` + string(policy.KindBackend) + `', 'a', NULL, '{"url":"http://127.0.0.1:1"}', 'olga', '', 1)`,
		} {
			if err := tx.exec(waits(t), statement); err != nil {
				return err
			}
		}
		return nil
	}))
	must(t, db.close())
}
