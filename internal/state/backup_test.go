package state

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ai-aas/api-router/internal/auth"
	"github.com/ai-aas/api-router/internal/fault"
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
	peppers, err := auth.NewPeppers("the pepper of these backups")
	must(t, err)
	mint := func() (auth.Key, auth.Secret) {
		k := auth.Key{Organization: "acme"}
		secret, _, err := peppers.Make(&k)
		must(t, err)
		return made(t, book, k), secret
	}
	_, good := mint()
	ended, gone := mint()
	revoke(t, book, ended)
	leaked, revived := mint()
	want := inventory(t, book)

	place = backup(t)
	writeVersion(t, book, "late", 1) // What comes after the backup is not in it.
	revoke(t, book, leaked)
	_, late := mint()
	restored, second := openedAt(t, place), openedAt(t, place)
	got := inventory(t, restored)
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
	// And its keys are those of the backup.
	door := authenticates(t, second, peppers)
	for _, test := range []struct {
		name   string
		secret auth.Secret
		want   fault.Code
	}{
		{"one of the backup", good, ""},
		{"one that was revoked before", gone, fault.RevokedAPIKey},
		{"one that was revoked after", revived, ""},
		{"one that was made after", late, fault.InvalidAPIKey},
	} {
		if p, err := door.Validate(t.Context(), test.secret.Reveal()); fault.CodeOf(err) != test.want || err == nil && p.Organization != "acme" {
			t.Errorf("%s: %+v, %v; want %q", test.name, p, err, test.want)
		}
	}
	revoke(t, restored, leaked)
	insist(t, func() error {
		if _, err := door.Validate(t.Context(), revived.Reveal()); fault.CodeOf(err) != fault.RevokedAPIKey {
			return fmt.Errorf("revoked once more: %w", err)
		}
		return nil
	})
}

// authenticates is the validator of a book's keys, with all of them loaded.
func authenticates(t *testing.T, book *Book, peppers auth.Peppers) *auth.Keys {
	t.Helper()
	keys := auth.NewKeys(auth.KeysOptions{Logger: slog.New(slog.DiscardHandler), Ledger: book, Peppers: peppers, TTL: time.Minute, StaleIfError: time.Hour})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = keys.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
	insist(t, func() error {
		if !keys.Status().Current {
			return errors.New("the keys are not loaded")
		}
		return nil
	})
	return keys
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
	if len(s.documents) == 0 || len(s.keys) != 5 || len(s.audit) < 9 {
		t.Fatalf("%+v", s)
	}
	return s
}
