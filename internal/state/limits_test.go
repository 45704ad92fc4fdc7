package state

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"modernc.org/sqlite"

	"github.com/ai-aas/api-router/internal/policy"
)

// here gives the database below an open book.
func here(t testing.TB, book *Book) *sqliteFile {
	t.Helper()
	_, err := book.Read(waits(t), policy.KindBackend, "")
	must(t, err)
	db, _, _ := book.current()
	return db.(*sqliteFile)
}

func TestTheHistoryOfADocumentIsBounded(t *testing.T) {
	book := opened(t, filepath.Join(t.TempDir(), "state.db"))
	writeVersion(t, book, "other", 1)
	writeVersion(t, book, "a", 1)
	// The entries that a thousand and more writes would have left.
	_, err := here(t, book).writer.Exec(`WITH RECURSIVE n(i) AS (SELECT 3 UNION ALL SELECT i + 1 FROM n WHERE i < 1200)
		INSERT INTO change (revision, action, kind, id, before_content, after_content, actor, reason, made_at) SELECT i, 'update', 'Backend', 'a', '{}', '{}', 'test', '', i FROM n`)
	must(t, err)
	_, err = here(t, book).writer.Exec("UPDATE counter SET value = 1200")
	must(t, err)
	last := writeVersion(t, book, "a", 2)
	entries, err := book.History(waits(t), policy.KindBackend, "a", 0, 5000)
	must(t, err)
	if len(entries) != maxDocumentHistory || entries[0].Revision != last.Revision || last.Revision != 1201 {
		t.Errorf("%d entries, the newest %+v", len(entries), entries[0])
	}
	var kept int
	must(t, here(t, book).reads.QueryRow("SELECT count(*) FROM change WHERE id = 'a'").Scan(&kept))
	others, err := book.History(waits(t), policy.KindBackend, "other", 0, 10)
	must(t, err)
	if kept != maxDocumentHistory || len(others) != 1 {
		t.Errorf("%d entries are kept of the one, %d of the other", kept, len(others))
	}
}

// A watch that missed more changes than the history keeps reads the whole book.
func TestTheHistoryOfTheBookIsBounded(t *testing.T) {
	book := opened(t, filepath.Join(t.TempDir(), "state.db"))
	writeVersion(t, book, "a", 1)
	v := view{}
	if differs, err := v.look(waits(t), here(t, book)); err != nil || !differs {
		t.Fatal(differs, err)
	}
	writeVersion(t, book, "b", 1)
	_, err := here(t, book).writer.Exec("UPDATE counter SET value = value + $1", maxHistory)
	must(t, err)
	last := writeVersion(t, book, "c", 1)
	all, err := book.History(waits(t), "", "", 0, 10)
	must(t, err)
	if len(all) != 1 || all[0].Revision != last.Revision {
		t.Errorf("%d entries are left: %+v", len(all), all)
	}
	if differs, err := v.look(waits(t), here(t, book)); err != nil || !differs || len(v.snapshot().Documents) != 3 {
		t.Errorf("%t, %v, %d documents", differs, err, len(v.snapshot().Documents))
	}
}

func TestABookTakesNoMoreThanCanBeRead(t *testing.T) {
	book := opened(t, filepath.Join(t.TempDir(), "state.db"))
	_, err := here(t, book).writer.Exec(`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < $1)
		INSERT INTO document SELECT 'Price', 'p' || i, i, '{}' FROM n`, policy.MaxDocuments)
	must(t, err)
	_, err = book.Write(waits(t), policy.Write{Kind: policy.KindBackend, ID: "a", Content: content("a", 1)})
	if err == nil || !strings.Contains(err.Error(), "20000 documents") {
		t.Errorf("one more: %v", err)
	}
	for _, content := range [][]byte{[]byte(`{"a":1}`), nil} {
		if _, err := book.Write(waits(t), policy.Write{Kind: policy.KindPrice, ID: "p7", Content: content}); err != nil {
			t.Errorf("a change of one that is there: %v", err)
		}
	}
	writeVersion(t, book, "a", 1)
	_, err = book.Write(waits(t), policy.Write{Kind: policy.KindMark, ID: "backend.a", Content: []byte(`{"backend":"a","state":"disabled"}`)})
	if err != nil {
		t.Errorf("a backend cannot be switched off: %v", err)
	}
}

func TestWritesThatMeanNothingAreRefused(t *testing.T) {
	book := opened(t, filepath.Join(t.TempDir(), "state.db"))
	for _, test := range []struct {
		change  policy.Write
		message string
	}{
		{policy.Write{Kind: "Budget", ID: "a", Content: []byte(`{}`)}, "no kind"},
		{policy.Write{Kind: policy.KindBackend, Content: []byte(`{}`)}, "an id"},
		{policy.Write{Kind: policy.KindBackend, ID: "a/b", Content: []byte(`{}`)}, "an id"},
		{policy.Write{Kind: policy.KindBackend, ID: "a\n", Content: []byte(`{}`)}, "an id"},
		{policy.Write{Kind: policy.KindBackend, ID: strings.Repeat("a", 129), Content: []byte(`{}`)}, "an id"},
		{policy.Write{Kind: policy.KindBackend, ID: "a", Content: []byte(`{`)}, "not JSON"},
		{policy.Write{Kind: policy.KindBackend, ID: "a", Content: []byte{}}, "not JSON"},
		{policy.Write{Kind: policy.KindBackend, ID: "a", Content: []byte("{\"a\":\"\xff\"}")}, "not UTF-8"},
		{policy.Write{Kind: policy.KindBackend, ID: "a", Content: fmt.Appendf(nil, "%q", strings.Repeat("a", maxContent))}, "larger than 1024 KiB"},
	} {
		if _, err := book.Write(waits(t), test.change); err == nil || !strings.Contains(err.Error(), test.message) {
			t.Errorf("%.80v: %v, want %q", test.change, err, test.message)
		}
	}
	if all, err := book.History(waits(t), "", "", 0, 10); err != nil || len(all) > 0 {
		t.Errorf("the history has %+v, %v", all, err)
	}
}

// A disk that is full refuses the change as a whole, says so, and the book goes on when there is space again.
func TestAFullDiskRefusesAChangeAsAWhole(t *testing.T) {
	book := opened(t, filepath.Join(t.TempDir(), "state.db"))
	writeVersion(t, book, "a", 1)
	db := here(t, book)
	var pages int
	must(t, db.writer.QueryRow("PRAGMA page_count").Scan(&pages))
	must(t, db.writer.QueryRow(fmt.Sprintf("PRAGMA max_page_count = %d", pages+2)).Scan(&pages)) // What ENOSPC gives as well: SQLITE_FULL.
	large := fmt.Appendf(nil, `{"kind":"Backend","id":"b","text":%q}`, strings.Repeat("x", 100_000))
	_, err := book.Write(waits(t), policy.Write{Kind: policy.KindBackend, ID: "b", Content: large})
	if err == nil || !strings.Contains(err.Error(), "no space left") {
		t.Fatalf("write: %v", err)
	}
	if _, err := book.Read(waits(t), policy.KindBackend, "b"); !errors.Is(err, policy.ErrNotFound) {
		t.Errorf("the document: %v", err)
	}
	if all, err := book.History(waits(t), "", "", 0, 10); err != nil || len(all) != 1 {
		t.Errorf("%d entries, %v", len(all), err)
	}
	must(t, db.writer.QueryRow("PRAGMA max_page_count = 1000000").Scan(&pages))
	if stored, err := book.Write(waits(t), policy.Write{Kind: policy.KindBackend, ID: "b", Content: large}); err != nil || stored.Revision != 2 {
		t.Errorf("with space again: revision %d, %v", stored.Revision, err)
	}
}

func TestABookThatCannotBeWrittenSaysWhatItNeeds(t *testing.T) {
	book := opened(t, filepath.Join(t.TempDir(), "state.db"))
	writeVersion(t, book, "a", 1)
	_, err := here(t, book).writer.Exec("PRAGMA query_only = 1") // The error of a file system that was made read-only.
	must(t, err)
	_, err = book.Write(waits(t), policy.Write{Kind: policy.KindBackend, ID: "a", Content: content("a", 2)})
	if err == nil || !strings.Contains(err.Error(), "needs to write the file and its directory") || errors.Is(err, policy.ErrReadOnly) {
		t.Errorf("write: %v", err)
	}
	if _, err := book.Read(waits(t), policy.KindBackend, "a"); err != nil {
		t.Errorf("read: %v", err)
	}
}

// A directory in which nothing can be made: a file stands where it should be. Permissions would not stop a test that runs as root.
func TestADirectoryThatCannotBeMadeIsTriedAgain(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dir")
	must(t, os.WriteFile(dir, nil, 0o600))
	book := opened(t, filepath.Join(dir, "state.db"))
	for deadline := time.Now().Add(hang); book.Status().Failure == ""; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no failure is told")
		}
	}
	if failure := book.Status().Failure; !strings.Contains(failure, dir) {
		t.Errorf("failure: %s", failure)
	}
	must(t, os.Remove(dir))
	writeVersion(t, book, "a", 1)
}

func TestAWriterThatNeverEndsCostsTheOthersTheirDeadlineAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	book := opened(t, path)
	writeVersion(t, book, "a", 1)
	holder, err := sql.Open("sqlite", path+"?_txlock=immediate")
	must(t, err)
	defer holder.Close()
	tx, err := holder.Begin()
	must(t, err)
	ctx, cancel := withDeadline(t, 200*time.Millisecond)
	defer cancel()
	begun := time.Now()
	_, err = book.Write(ctx, policy.Write{Kind: policy.KindBackend, ID: "a", Content: content("a", 2)})
	if err == nil || !strings.Contains(err.Error(), "in time") {
		t.Errorf("write: %v", err)
	}
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
	if _, err := book.Read(waits(t), policy.KindBackend, "a"); err != nil {
		t.Errorf("a read beside the writer: %v", err)
	}
	must(t, tx.Rollback())
	writeVersion(t, book, "a", 3)
}

func withDeadline(t testing.TB, d time.Duration) (context.Context, context.CancelFunc) {
	t.Helper()
	return context.WithTimeout(waits(t), d)
}

func TestErrorsOfTheDatabaseStayInTheChain(t *testing.T) {
	db, err := sql.Open("sqlite", ":memory:")
	must(t, err)
	defer db.Close()
	_, err = db.Exec("SELECT * FROM nothing")
	explained := sqliteEngine{"state.db"}.explain(err)
	if _, ok := errors.AsType[*sqlite.Error](explained); !ok || !strings.Contains(explained.Error(), "state.db") {
		t.Errorf("%v", explained)
	}
}
