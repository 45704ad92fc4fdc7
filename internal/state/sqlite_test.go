package state

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ai-aas/api-router/internal/policy"
)

func TestURLsNameAFile(t *testing.T) {
	here, err := os.Getwd()
	must(t, err)
	for _, test := range []struct{ url, path, refusal string }{
		{"sqlite:///var/lib/api-router/state.db", "/var/lib/api-router/state.db", ""},
		{"sqlite:/var/lib/state.db", "/var/lib/state.db", ""},
		{"sqlite:state.db", here + "/state.db", ""},
		{"sqlite:../a/./state.db", filepath.Dir(here) + "/a/state.db", ""},
		{"sqlite:///with%20a%20space/100%25.db", "/with a space/100%.db", ""},
		{"sqlite://state.db", "", "three slashes"},
		{"sqlite:", "", "must name a file"},
		{"sqlite:///", "", "must name a file"},
		{"sqlite:///var/lib/", "", "must name a file"},
		{"sqlite::memory:", "", "must name a file"},
		{"sqlite:///a.db?mode=ro", "", "query"},
		{"sqlite:///a%zz.db", "", "%25"},
		{"sqlite:///a%00.db", "", "%25"},
		{"", "", "must begin with sqlite:"},
		{"state.db", "", "must begin with sqlite:"},
	} {
		path, err := pathOf(test.url)
		switch {
		case test.refusal == "" && (err != nil || path != test.path):
			t.Errorf("%s: %s, %v; want %s", test.url, path, err, test.path)
		case test.refusal != "" && (err == nil || !strings.Contains(err.Error(), test.refusal) || strings.Contains(err.Error(), "hunter2")):
			t.Errorf("%s: %s, %v; want a refusal with %q", test.url, path, err, test.refusal)
		}
	}
}

func TestABookIsForItsOwnUserAlone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "dir with a space & 100% #?")
	path := filepath.Join(dir, "state.db")
	book := opened(t, strings.NewReplacer("%", "%25", "#", "%23", "?", "%3F").Replace(path))
	writeVersion(t, book, "a", 1)
	for _, file := range []string{dir, path, path + "-wal", path + "-shm"} {
		info, err := os.Stat(file)
		must(t, err)
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %s", file, info.Mode())
		}
	}
	must(t, book.Close())
	if left, err := filepath.Glob(path + "-*"); err != nil || len(left) > 0 {
		t.Errorf("after the close there are %v", left)
	}
}

func TestCallsWaitUntilTheBookIsOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	holder, err := sql.Open("sqlite", path)
	must(t, err)
	defer holder.Close()
	conn, err := holder.Conn(waits(t))
	must(t, err)
	defer conn.Close()
	_, err = conn.ExecContext(waits(t), "BEGIN EXCLUSIVE")
	must(t, err)

	begun := time.Now()
	book := opened(t, path)
	if took := time.Since(begun); took > patience/2 { // It would wait for the holder for as long as that lives.
		t.Errorf("Open took %s", took)
	}
	short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := book.Read(short, policy.KindBackend, ""); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a call before the book is open: %v", err)
	}
	if status := book.Status(); status.Open || status.Place != path {
		t.Errorf("status %+v", status)
	}
	answered := make(chan error, 1)
	go func() {
		_, err := book.Write(waits(t), policy.Write{Kind: policy.KindBackend, ID: "a", Content: []byte(`{}`)})
		answered <- err
	}()
	_, err = conn.ExecContext(waits(t), "ROLLBACK")
	must(t, err)
	must(t, <-answered)
	if status := book.Status(); !status.Open || status.Failure != "" {
		t.Errorf("status %+v", status)
	}
}

// A file that is not a book of ours stays as it is, byte for byte, and the message says what to do.
func TestFilesThatAreNoBookAreLeftAlone(t *testing.T) {
	for _, test := range []struct {
		name, message string
		file          func(t *testing.T, path string)
	}{
		{"of a newer version", "newer version", func(t *testing.T, path string) {
			book := opened(t, path)
			writeVersion(t, book, "a", 1)
			must(t, book.Close())
			statement(t, path, "INSERT INTO schema_version (version_id, is_applied) VALUES (99, 1)")
		}},
		{"of another program", "another program", func(t *testing.T, path string) {
			statement(t, path, "CREATE TABLE guests (name TEXT)")
		}},
		{"no database", "damaged", func(t *testing.T, path string) {
			must(t, os.WriteFile(path, []byte(strings.Repeat("not a database ", 1000)), 0o600))
		}},
		{"a directory", "not a file", func(t *testing.T, path string) { must(t, os.Mkdir(path, 0o700)) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "state.db")
			test.file(t, path)
			before, _ := os.ReadFile(path)
			book := opened(t, path)
			_, err := book.Write(waits(t), policy.Write{Kind: policy.KindBackend, ID: "b", Content: []byte(`{}`)})
			if err == nil || !strings.Contains(err.Error(), test.message) || !strings.Contains(err.Error(), path) {
				t.Errorf("write: %v; want %q and the path", err, test.message)
			}
			if err := book.Watch(waits(t), func(policy.Snapshot) {}); err == nil || !strings.Contains(err.Error(), test.message) {
				t.Errorf("watch: %v; want %q", err, test.message)
			}
			if status := book.Status(); status.Open || !strings.Contains(status.Failure, test.message) {
				t.Errorf("status %+v", status)
			}
			must(t, book.Close())
			if after, _ := os.ReadFile(path); string(after) != string(before) {
				t.Error("the file was changed")
			}
		})
	}
}

// A router whose book is damaged serves from its last good file, and goes on with the book once somebody has put a good one in its place.
func TestADamagedBookLeavesTheLastGoodPoliciesInForce(t *testing.T) {
	dir := t.TempDir()
	path, lastGood := filepath.Join(dir, "state.db"), filepath.Join(dir, "policy.json")
	book := opened(t, path)
	for i := range 200 {
		writeVersion(t, book, fmt.Sprintf("b%03d", i), 1)
	}
	table, stop := serving(t, book, lastGood)
	if n := len(table(200).Backends()); n != 200 {
		t.Fatalf("%d backends", n)
	}
	stop()
	must(t, book.Close())
	backup, err := os.ReadFile(path)
	must(t, err)
	damaged := append([]byte{}, backup...)
	for i := 4096; i < len(damaged); i++ { // The first page is whole: the file can be opened.
		damaged[i] ^= 0x5a
	}
	must(t, os.WriteFile(path, damaged, 0o600))

	book = opened(t, path)
	if _, err := book.Read(waits(t), policy.KindBackend, ""); err == nil || !strings.Contains(err.Error(), "then put a backup in its place") {
		t.Errorf("read: %v", err)
	}
	table, _ = serving(t, book, lastGood)
	insist(t, func() error { // A start that is slow serves before it knows why the book cannot be read.
		if served := table(200); !strings.Contains(served.Origin(), "last good") || !strings.Contains(fmt.Sprint(served.Problems()), "damaged") {
			return fmt.Errorf("origin %s, problems %v", served.Origin(), served.Problems())
		}
		return nil
	})
	must(t, os.WriteFile(path+".new", backup, 0o600))
	must(t, os.Rename(path+".new", path))
	_, err = book.Read(waits(t), policy.KindBackend, "")
	for ; err != nil; _, err = book.Read(waits(t), policy.KindBackend, "") {
		time.Sleep(20 * time.Millisecond)
	}
	writeVersion(t, book, "new", 1)
	if served := table(201); !strings.Contains(served.Origin(), path) {
		t.Errorf("origin %s", served.Origin())
	}
}

// serving runs a policy store on the book. table waits until it has so many backends.
func serving(t *testing.T, book *Book, lastGood string) (table func(backends int) *policy.Table, stop func()) {
	t.Helper()
	store := policy.NewStore(policy.Options{Logger: slog.New(slog.DiscardHandler), Source: book, LastGood: lastGood})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { _ = store.Run(ctx); close(ended) }()
	stop = func() { cancel(); <-ended }
	t.Cleanup(stop)
	return func(backends int) *policy.Table {
		t.Helper()
		for deadline := time.Now().Add(hang); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
			if table := store.Table(); table != nil && len(table.Backends()) == backends {
				if _, err := os.Stat(lastGood); err == nil {
					return table
				}
			}
		}
		t.Fatalf("the table has not %d backends: %+v", backends, store.Status())
		return nil
	}, stop
}

func TestAFileThatIsGoneDoesNotBecomeAnEmptyBook(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	book := opened(t, path)
	writeVersion(t, book, "a", 1)
	must(t, os.Rename(path, path+".away"))
	failure := ""
	for deadline := time.Now().Add(hang); !strings.Contains(failure, "is gone"); time.Sleep(5 * time.Millisecond) {
		if failure = book.Status().Failure; time.Now().After(deadline) {
			t.Fatalf("status %+v", book.Status())
		}
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("there is a file again: %v", err)
	}
	if _, err := book.Read(waits(t), policy.KindBackend, ""); err == nil || !strings.Contains(err.Error(), "put it back") {
		t.Errorf("read: %v", err)
	}
}

func TestAClosedBookSaysSo(t *testing.T) {
	book := opened(t, filepath.Join(t.TempDir(), "state.db"))
	writeVersion(t, book, "a", 1)
	watching := make(chan error, 1)
	published := make(chan struct{}, 1)
	go func() { watching <- book.Watch(waits(t), func(policy.Snapshot) { published <- struct{}{} }) }()
	<-published
	must(t, book.Close())
	must(t, book.Close())
	_, readErr := book.Read(waits(t), policy.KindBackend, "")
	_, writeErr := book.Write(waits(t), policy.Write{Kind: policy.KindBackend, ID: "a"})
	_, historyErr := book.History(waits(t), "", "", 0, 1)
	for _, err := range []error{<-watching, readErr, writeErr, historyErr} {
		if !errors.Is(err, errClosed) {
			t.Errorf("after the close: %v", err)
		}
	}
	never := opened(t, filepath.Join(t.TempDir(), "state.db"))
	must(t, never.Close()) // Before or while it is opened.
}

// statement runs one statement on a file, past the book.
func statement(t testing.TB, path, text string) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	must(t, err)
	_, err = db.Exec(text)
	must(t, errors.Join(err, db.Close()))
}

// writeVersion writes a backend that tells its version.
func writeVersion(t testing.TB, book *Book, id string, version int) policy.Stored {
	t.Helper()
	stored, err := settled(t, book).Write(waits(t), policy.Write{Kind: policy.KindBackend, ID: id, Content: content(id, version), Actor: "test"})
	must(t, err)
	return stored
}

func content(id string, version int) []byte {
	return fmt.Appendf(nil, `{"kind":"Backend","id":%q,"url":"http://127.0.0.1:8000","max_concurrency":%d}`, id, version)
}
