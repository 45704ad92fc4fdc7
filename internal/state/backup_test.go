package state

import (
	"database/sql"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ai-aas/api-router/internal/auth"
	"github.com/ai-aas/api-router/internal/policy"
	"github.com/ai-aas/api-router/test/postgres"
)

// A backup is taken as docs/state.md tells, while the book is in use, and restored in a new place.
func TestABackupIsRestoredElsewhere(t *testing.T) {
	t.Run("SQLite", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "state.db")
		backedUp(t, Options{URL: "sqlite:" + path}, func(t *testing.T) Options {
			backup := filepath.Join(t.TempDir(), "backup.db")
			db, err := sql.Open("sqlite", "file:"+path+"?mode=ro")
			must(t, err)
			defer db.Close()
			_, err = db.Exec("VACUUM INTO $1", backup)
			must(t, err)
			return Options{URL: "sqlite:" + backup}
		})
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		server := postgres.Shared(t)
		name, password := server.Database(t), reference(t)
		backedUp(t, Options{URL: server.URL(name, ""), Password: password}, func(t *testing.T) Options {
			dump := server.Run(t, nil, "pg_dump", name, "--format=custom", "--no-owner")
			other := server.Database(t)
			server.Run(t, dump, "pg_restore", other, "--exit-on-error", "--no-owner", "--single-transaction")
			return Options{URL: server.URL(other, ""), Password: password}
		})
	})
}

func backedUp(t *testing.T, place Options, backup func(t *testing.T) Options) {
	t.Helper()
	book := withKeys(t, place)
	writeVersion(t, book, "a", 1)
	writeVersion(t, book, "a", 2)
	k := aKey("acme", 1)
	k.Sealed, k.Scopes.Models = []byte{1, 2, 3}, []string{"gpt-*"}
	k = made(t, book, k)
	must(t, book.Used(waits(t), map[string]time.Time{k.ID: time.Now()}))
	revoke(t, book, made(t, book, aKey("other", 2)))

	place = backup(t)
	writeVersion(t, book, "late", 1) // What comes after the backup is not in it.
	restored, second := openedAt(t, place), openedAt(t, place)
	want, got := inventory(t, book), inventory(t, restored)
	want.documents, want.history, want.audit = want.documents[:1], want.history[1:], want.audit[1:]
	if diff := cmp.Diff(want, got, compare, cmp.AllowUnexported(stock{})); diff != "" {
		t.Error(diff)
	}
	// It goes on: revisions after the last, and other processes are told.
	follower := following(t, second)
	follower.agrees(t, restored)
	revoke(t, restored, k)
	if stored := writeVersion(t, restored, "b", 1); stored.Revision <= got.history[0].Revision {
		t.Errorf("revision %d after %d", stored.Revision, got.history[0].Revision)
	}
	follower.agrees(t, restored)
}

// stock is everything in a book.
type stock struct {
	documents     []policy.Stored
	history       []policy.Change
	organizations []auth.Organization
	keys          []auth.Key
	audit         []auth.Entry
}

func inventory(t *testing.T, book *Book) (s stock) {
	t.Helper()
	var err error
	s.documents, err = book.Read(waits(t), policy.KindBackend, "")
	must(t, err)
	s.history, err = book.History(waits(t), "", "", 0, 100)
	must(t, err)
	s.organizations, err = book.Organizations(waits(t), "", maxPage)
	must(t, err)
	for _, o := range s.organizations {
		keys, err := book.Keys(waits(t), o.ID, "", 100)
		must(t, err)
		s.keys = append(s.keys, keys...)
	}
	s.audit, err = book.Audit(waits(t), auth.AuditFilter{Limit: 100})
	must(t, err)
	if len(s.documents) == 0 || len(s.keys) != 2 || len(s.audit) < 6 {
		t.Fatalf("%+v", s)
	}
	return s
}
