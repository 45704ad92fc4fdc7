package state

import (
	"context"
	"database/sql"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ai-aas/api-router/internal/policy"
	"github.com/ai-aas/api-router/internal/policy/sourcetest"
)

// opened is a book at path that ends with the test.
func opened(t testing.TB, path string) *Book {
	t.Helper()
	book, err := Open(Options{URL: "sqlite:" + path, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := book.Close(); err != nil {
			t.Error(err)
		}
	})
	return book
}

// hang is how long a test waits for what takes a second at most: a bound against hanging, no measure of speed.
const hang = 2 * time.Minute

// waits gives the test's calls a deadline that finds what hangs.
func waits(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), hang)
	t.Cleanup(cancel)
	return ctx
}

// settled waits until a book is open, or has told why not. A new one is made and brought up to date first, which a busy disk may hold up
// for longer than a call is.
func settled(t testing.TB, book *Book) *Book {
	t.Helper()
	for deadline := time.Now().Add(hang); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if status := book.Status(); status.Open || status.Failure != "" {
			break
		}
	}
	return book
}

func TestSuite(t *testing.T) {
	sourcetest.Run(t, func(t *testing.T) sourcetest.Place {
		path := filepath.Join(t.TempDir(), "state.db")
		book := settled(t, opened(t, path))
		return sourcetest.Place{
			Source: book, Book: book,
			Second: func(testing.TB) (policy.Source, policy.Book) {
				second := opened(t, path)
				return second, second
			},
			Put: func(t testing.TB, kind policy.Kind, id string, content []byte) {
				t.Helper()
				_, err := book.Read(waits(t), policy.KindBackend, "") // Until it is open.
				must(t, err)
				byHand(t, path, kind, id, content)
			},
			Stop:  func(t testing.TB) { t.Helper(); must(t, os.Rename(path, path+".away")) },
			Start: func(t testing.TB) { t.Helper(); must(t, os.Rename(path+".away", path)) },
		}
	})
}

// byHand changes a document as the comment in the migration tells whoever writes past the program.
func byHand(t testing.TB, path string, kind policy.Kind, id string, content []byte) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path+"?_busy_timeout=10000&_txlock=immediate")
	must(t, err)
	defer db.Close()
	tx, err := db.BeginTx(waits(t), nil)
	must(t, err)
	run := func(statement string, args ...any) {
		t.Helper()
		_, err := tx.Exec(statement, args...)
		must(t, err)
	}
	run("UPDATE counter SET value = value + 1 WHERE name = 'revision'")
	var after any
	if content != nil {
		after = string(content)
	}
	const revision = "(SELECT value FROM counter WHERE name = 'revision')"
	run("INSERT INTO change (revision, action, kind, id, before_content, after_content, actor, reason, made_at) SELECT "+revision+", CASE WHEN $3 IS NULL THEN 'delete' WHEN max(id) IS NULL THEN 'create' ELSE 'update' END,"+
		" $1, $2, max(content), $3, '', '', unixepoch() * 1000000000 FROM document WHERE kind = $1 AND id = $2", kind, id, after)
	run("DELETE FROM document WHERE kind = $1 AND id = $2", kind, id)
	if content != nil {
		run("INSERT INTO document VALUES ($1, $2, "+revision+", $3)", kind, id, after)
	}
	must(t, tx.Commit())
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
