package state

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ai-aas/api-router/internal/auth"
	"github.com/ai-aas/api-router/test/postgres"
	"github.com/ai-aas/api-router/test/relay"
)

// anAdmin is a new one with its token.
func anAdmin(name, role string) (auth.Admin, auth.Secret) {
	a := auth.Admin{Name: name, Role: role}
	return a, a.Make()
}

func admitted(t testing.TB, book *Book, name, role string) auth.Admin {
	t.Helper()
	a, _ := anAdmin(name, role)
	a, err := book.CreateAdmin(waits(t), a, tester)
	must(t, err)
	return a
}

func dismiss(a *auth.Admin) error { a.RevokedAt = time.Now(); return nil }

func TestAnAdminIsReadAsItWasMadeAndNamedOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, place Options) {
		book := openedAt(t, place)
		a, _ := anAdmin("Olga", "operator")
		a.ExpiresAt, a.RevokedAt, a.CreatedBy = time.Now().Add(time.Hour), time.Now(), "somebody else"
		kept, err := book.CreateAdmin(waits(t), a, tester)
		must(t, err)
		if kept.CreatedBy != tester.Actor || !kept.RevokedAt.IsZero() || !kept.ExpiresAt.Equal(a.ExpiresAt) || kept.Revision == 0 || kept.Digest != a.Digest {
			t.Errorf("%+v", kept)
		}
		read, err := book.Admin(waits(t), a.ID)
		must(t, err)
		ada := admitted(t, book, "ada", "admin")
		all, err := book.Admins(waits(t))
		must(t, err)
		if diff := cmp.Diff([]auth.Admin{kept, kept, ada}, []auth.Admin{read, all[0], all[1]}); diff != "" {
			t.Error(diff)
		}
		namesake, _ := anAdmin("oLGA", "viewer")
		if _, err := book.CreateAdmin(waits(t), namesake, tester); !errors.Is(err, auth.ErrNameTaken) {
			t.Errorf("the same name: %v", err)
		}
		for what, change := range map[string]func(*auth.Admin){"id": func(b *auth.Admin) { b.ID = a.ID }, "digest": func(b *auth.Admin) { b.Digest = a.Digest }} {
			other, _ := anAdmin("other", "viewer")
			change(&other)
			if _, err := book.CreateAdmin(waits(t), other, tester); !errors.Is(err, auth.ErrExists) {
				t.Errorf("the same %s: %v", what, err)
			}
		}
		if _, err := book.Admin(waits(t), "nobody00"); !errors.Is(err, auth.ErrNotFound) {
			t.Error(err)
		}
	})
}

func TestAdminsOutOfBoundsAreRefused(t *testing.T) {
	onBoth(t, func(t *testing.T, place Options) {
		book := openedAt(t, place)
		for what, change := range map[string]func(*auth.Admin){
			"8 of the characters": func(a *auth.Admin) { a.ID = "short" },
			"the name of":         func(a *auth.Admin) { a.Name = "two words" },
			"needs a role":        func(a *auth.Admin) { a.Role = "" },
			"the digest":          func(a *auth.Admin) { a.Digest = auth.Digest{} },
			"2200":                func(a *auth.Admin) { a.ExpiresAt = time.Date(2300, 1, 1, 0, 0, 0, 0, time.UTC) },
		} {
			a, _ := anAdmin("olga", "operator")
			change(&a)
			if _, err := book.CreateAdmin(waits(t), a, tester); err == nil || !strings.Contains(err.Error(), what) {
				t.Errorf("%v, want %q", err, what)
			}
		}
		must(t, book.write(waits(t), clockAdmins, func(ctx context.Context, tx tx) error {
			rows := make([][]any, 0, maxAdmins)
			for i := range maxAdmins {
				a, _ := anAdmin(fmt.Sprint("n", i), "viewer")
				rows = append(rows, []any{a.ID, a.Name, a.Role, a.Digest[:], 0, 0, 1, "", i + 1})
			}
			return insert(ctx, tx, "admin ("+adminColumns+")", rows...)
		}))
		a, _ := anAdmin("olga", "operator")
		if _, err := book.CreateAdmin(waits(t), a, tester); err == nil || !strings.Contains(err.Error(), "holds 1000 admins") {
			t.Errorf("one more than the book takes: %v", err)
		}
	})
}

func TestWhatMayChangeOfAnAdmin(t *testing.T) {
	onBoth(t, func(t *testing.T, place Options) {
		book := openedAt(t, place)
		made := admitted(t, book, "olga", "operator")
		reason := errors.New("not today")
		if _, err := book.ChangeAdmin(waits(t), made.ID, func(*auth.Admin) error { return reason }, "update", tester); !errors.Is(err, reason) {
			t.Errorf("a change that refuses: %v", err)
		}
		if same, err := book.ChangeAdmin(waits(t), made.ID, func(*auth.Admin) error { return nil }, "update", tester); err != nil || same != made {
			t.Errorf("nothing changed: %+v, %v", same, err)
		}
		end := time.Now().Add(time.Hour)
		after, err := book.ChangeAdmin(waits(t), made.ID, func(a *auth.Admin) error {
			*a = auth.Admin{Role: "viewer", ExpiresAt: end}
			return nil
		}, "update", tester)
		must(t, err)
		want := made
		want.Role, want.ExpiresAt, want.Revision = "viewer", moment(end.UnixNano()), after.Revision
		if diff := cmp.Diff(want, after); diff != "" || after.Revision <= made.Revision {
			t.Errorf("revision %d after %d: %s", after.Revision, made.Revision, diff)
		}
		if err := book.DeleteAdmin(waits(t), made.ID, nil, tester); !errors.Is(err, auth.ErrConflict) {
			t.Errorf("one in force is deleted: %v", err)
		}
		revoked, err := book.ChangeAdmin(waits(t), made.ID, dismiss, "revoke", tester)
		must(t, err)
		for what, change := range map[string]func(*auth.Admin) error{
			"taken back": func(a *auth.Admin) error { a.RevokedAt = time.Time{}; return nil }, "made later": dismiss,
			"given a role": func(a *auth.Admin) error { a.Role = "admin"; return nil },
		} {
			if _, err := book.ChangeAdmin(waits(t), made.ID, change, "update", tester); !errors.Is(err, auth.ErrConflict) {
				t.Errorf("a revocation is %s: %v", what, err)
			}
		}
		if err := book.DeleteAdmin(waits(t), made.ID, &made.Revision, tester); !errors.Is(err, auth.ErrConflict) {
			t.Errorf("an old revision is deleted: %v", err)
		}
		must(t, book.DeleteAdmin(waits(t), made.ID, &revoked.Revision, tester))
		if err := book.DeleteAdmin(waits(t), made.ID, nil, tester); !errors.Is(err, auth.ErrNotFound) {
			t.Errorf("once more: %v", err)
		}
		admitted(t, book, "olga", "operator") // The name is free again.
	})
}

// Every change of an admin has its entry beside those of keys, and none holds a token or a digest.
// Somebody wrote past the program: an admin is spoilt, and the others are let in all the same.
func TestAnAdminWhoCannotBeReadKeepsNoOtherOut(t *testing.T) {
	onBoth(t, func(t *testing.T, place Options) {
		book := openedAt(t, place)
		good, spoilt := admitted(t, book, "olga", "operator"), admitted(t, book, "otto", "admin")
		must(t, book.write(waits(t), clockAdmins, func(ctx context.Context, tx tx) error {
			return tx.exec(ctx, "UPDATE admin SET digest = substr(digest, 1, 3) WHERE id = $1", spoilt.ID)
		}))
		all, err := book.Admins(waits(t))
		if err != nil || len(all) != 2 || all[0] != good || !strings.Contains(all[1].Damage, "3 bytes") {
			t.Errorf("%+v, %v", all, err)
		}
		if _, err := book.ChangeAdmin(waits(t), spoilt.ID, dismiss, "revoke", tester); !errors.Is(err, auth.ErrConflict) || !strings.Contains(err.Error(), "delete it") {
			t.Errorf("it is revoked: %v", err)
		}
		must(t, book.DeleteAdmin(waits(t), spoilt.ID, nil, tester))
	})
}

func TestTheAuditTellsOfAdmins(t *testing.T) {
	onBoth(t, func(t *testing.T, place Options) {
		book := withKeys(t, place)
		a, token := anAdmin("olga", "operator")
		_, err := book.CreateAdmin(waits(t), a, tester)
		must(t, err)
		key := made(t, book, aKey("acme", 1))
		_, err = book.ChangeAdmin(waits(t), a.ID, func(a *auth.Admin) error { a.Role = "admin"; return nil }, "update", tester)
		must(t, err)
		_, err = book.ChangeAdmin(waits(t), a.ID, dismiss, "revoke", tester)
		must(t, err)
		must(t, book.DeleteAdmin(waits(t), a.ID, nil, tester))
		entries, err := book.Audit(waits(t), auth.AuditFilter{})
		must(t, err)
		var told []string
		for _, e := range entries[:5] {
			told = append(told, e.Action+" "+e.ID)
			if e.Kind == kindAdmin && (e.Actor != tester.Actor || e.Role != tester.Role || e.Reason != tester.Reason || e.Organization != "") {
				t.Errorf("%+v", e)
			}
		}
		want := []string{"delete " + a.ID, "revoke " + a.ID, "update " + a.ID, "create " + key.ID, "create " + a.ID}
		if diff := cmp.Diff(want, told); diff != "" {
			t.Error(diff)
		}
		if change := entries[2]; !strings.Contains(string(change.Before), `"role":"operator"`) || !strings.Contains(string(change.After), `"role":"admin"`) {
			t.Errorf("before %s, after %s", change.Before, change.After)
		}
		text, err := json.Marshal(entries)
		must(t, err)
		for _, e := range entries {
			text = append(append(text, e.Before...), e.After...)
		}
		if strings.Contains(string(text), token.Reveal()[13:]) || strings.Contains(strings.ToLower(string(text)), fmt.Sprintf("%x", a.Digest[:8])) {
			t.Errorf("a secret is in the audit: %s", text)
		}
	})
}

// rollCall follows the admins of a book until the test ends; it gives the newest list.
func rollCall(t testing.TB, book *Book) func() []auth.Admin {
	t.Helper()
	var newest atomic.Pointer[[]auth.Admin]
	ctx, cancel := context.WithCancel(context.Background())
	var following sync.WaitGroup
	following.Go(func() {
		for ctx.Err() == nil {
			if err := book.FollowAdmins(ctx, func(all []auth.Admin) { newest.Store(&all) }); err == nil {
				t.Error("FollowAdmins returned nil")
			}
			wait(ctx, 20*time.Millisecond)
		}
	})
	t.Cleanup(func() { cancel(); following.Wait() })
	return func() []auth.Admin {
		if all := newest.Load(); all != nil {
			return *all
		}
		return []auth.Admin{{Name: "nothing was published"}}
	}
}

func TestAdminsAreFollowedInEveryProcess(t *testing.T) {
	onBoth(t, func(t *testing.T, place Options) {
		here, there := openedAt(t, place), openedAt(t, place)
		calls := []func() []auth.Admin{rollCall(t, here), rollCall(t, there)}
		agree := func(what string) {
			t.Helper()
			want, err := here.Admins(waits(t))
			must(t, err)
			begun := time.Now()
			for diff := "?"; diff != ""; time.Sleep(2 * time.Millisecond) {
				if diff = cmp.Diff(want, calls[0]()) + cmp.Diff(want, calls[1]()); diff != "" && time.Since(begun) > hang {
					t.Fatalf("%s: %s", what, diff)
				}
			}
			t.Logf("%s was seen after %s", what, time.Since(begun).Round(time.Millisecond))
		}
		agree("nobody")
		olga := admitted(t, here, "olga", "operator")
		admitted(t, there, "ada", "admin")
		agree("two")
		_, err := here.ChangeAdmin(waits(t), olga.ID, func(a *auth.Admin) error { a.Role = "viewer"; return nil }, "update", tester)
		must(t, err)
		agree("another role")
		_, err = there.ChangeAdmin(waits(t), olga.ID, dismiss, "revoke", tester)
		must(t, err)
		agree("a revocation")
		must(t, here.DeleteAdmin(waits(t), olga.ID, nil, tester))
		agree("a deletion")
	})
}

func TestFollowingAdminsEndsWithTheBook(t *testing.T) {
	onBoth(t, func(t *testing.T, place Options) {
		book := openedAt(t, place)
		read, ended := make(chan struct{}), make(chan error, 1)
		go func() { ended <- book.FollowAdmins(waits(t), func([]auth.Admin) { close(read) }) }()
		<-read
		must(t, book.Close())
		if err := <-ended; !errors.Is(err, errClosed) {
			t.Error(err)
		}
		if err := book.FollowAdmins(waits(t), func([]auth.Admin) {}); !errors.Is(err, errClosed) {
			t.Error(err)
		}
	})
}

// A book in whose place an older one was put does not go on as if nothing had happened.
func TestFollowingAdminsEndsWhereTheBookIsOlder(t *testing.T) {
	onBoth(t, func(t *testing.T, place Options) {
		book := openedAt(t, place)
		admitted(t, book, "olga", "operator")
		read, ended := make(chan struct{}), make(chan error, 1)
		go func() { ended <- book.FollowAdmins(waits(t), func([]auth.Admin) { close(read) }) }()
		<-read
		must(t, book.write(waits(t), clockAdmins, func(ctx context.Context, tx tx) error { _, err := tick(ctx, tx, clockAdmins, -1); return err }))
		if err := <-ended; err == nil || !strings.Contains(err.Error(), "older than it was") {
			t.Error(err)
		}
	})
}

func TestOneOfManyWritersOfAnAdminWins(t *testing.T) {
	onBoth(t, func(t *testing.T, place Options) {
		books := []*Book{openedAt(t, place), openedAt(t, place)}
		var group sync.WaitGroup
		var won atomic.Int64
		for i := range 12 {
			group.Go(func() {
				a, _ := anAdmin("olga", "operator")
				_, err := books[i%2].CreateAdmin(waits(t), a, tester)
				if err == nil {
					won.Add(1)
				} else if !errors.Is(err, auth.ErrNameTaken) {
					t.Error(err)
				}
			})
		}
		group.Wait()
		if won.Load() != 1 {
			t.Errorf("%d made the admin", won.Load())
		}
	})
}

// A server that says nothing more is noticed, and whoever was revoked meanwhile is known as such soon after it speaks again.
func TestAdminsAreFollowedAgainAfterASilence(t *testing.T) {
	server := postgres.Shared(t)
	name, password := server.Database(t), reference(t)
	between := relay.New(t, server.Address)
	here, there := openedAt(t, Options{URL: server.URL(name, ""), Password: password}), openedAt(t, Options{URL: server.URL(name, between.Address()), Password: password})
	olga := admitted(t, here, "olga", "operator")
	read, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- there.FollowAdmins(waits(t), func([]auth.Admin) { close(read) }) }()
	<-read
	between.Stall()
	if err := <-ended; err == nil {
		t.Error("FollowAdmins returned nil")
	}
	_, err := here.ChangeAdmin(waits(t), olga.ID, dismiss, "revoke", tester)
	must(t, err)
	between.Pass()
	call := rollCall(t, there)
	begun := time.Now()
	for all := call(); len(all) != 1 || all[0].RevokedAt.IsZero(); all = call() {
		if time.Since(begun) > hang {
			t.Fatalf("%+v", all)
		}
		time.Sleep(2 * time.Millisecond)
	}
	t.Logf("the revocation was seen %s after the end of the silence", time.Since(begun).Round(time.Millisecond))
}
