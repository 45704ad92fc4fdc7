package state

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/ai-aas/api-router/internal/auth"
)

var (
	tester  = auth.By{Actor: "alex", Role: "admin", Reason: "a test", RequestID: "r-1"}
	compare = cmp.Options{cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }), cmpopts.EquateEmpty()}
)

func zero() *int64 { return new(int64) }

// withKeys is a book with the organizations acme and other, and a project of acme.
func withKeys(t testing.TB, place Options) *Book {
	t.Helper()
	book := settled(t, openedAt(t, place))
	for _, id := range []string{"acme", "other"} {
		_, err := book.PutOrganization(waits(t), auth.Organization{ID: id, Name: strings.ToUpper(id), TimeZone: "Europe/Berlin"}, zero(), tester)
		must(t, err)
	}
	_, err := book.PutProject(waits(t), auth.Project{Organization: "acme", ID: "search", Name: "Search"}, zero(), tester)
	must(t, err)
	return book
}

// aKey is one whose id and digest follow from n.
func aKey(organization string, n int) auth.Key {
	return auth.Key{ID: fmt.Sprintf("k%07d", n), Organization: organization, Name: fmt.Sprint("key ", n), Digest: sha256.Sum256(fmt.Append(nil, n)), Pepper: 1, PepperMark: uint32(1<<32 - n)}
}

func made(t testing.TB, book *Book, k auth.Key) auth.Key {
	t.Helper()
	k, err := book.CreateKey(waits(t), k, tester)
	must(t, err)
	return k
}

func TestOrganizationsAreKeptWithTheirRevisions(t *testing.T) {
	onBoth(t, func(t *testing.T, place Options) {
		book := withKeys(t, place)
		acme, err := book.Organization(waits(t), "acme")
		must(t, err)
		if acme.Name != "ACME" || acme.TimeZone != "Europe/Berlin" || acme.CreatedAt.IsZero() || acme.Revision == 0 {
			t.Errorf("%+v", acme)
		}
		changed := acme
		changed.Disabled = true
		after, err := book.PutOrganization(waits(t), changed, &acme.Revision, tester)
		must(t, err)
		if after.Revision <= acme.Revision || !after.Disabled || !after.CreatedAt.Equal(acme.CreatedAt) {
			t.Errorf("%+v became %+v", acme, after)
		}
		again, err := book.PutOrganization(waits(t), after, nil, tester)
		must(t, err)
		if again != after {
			t.Errorf("the same once more gives %+v, want %+v", again, after)
		}
		for _, test := range []struct {
			id        string
			condition int64
			want      error
		}{{"acme", 0, auth.ErrExists}, {"acme", acme.Revision, auth.ErrConflict}, {"nobody", 5, auth.ErrNotFound}} {
			if _, err := book.PutOrganization(waits(t), auth.Organization{ID: test.id}, &test.condition, tester); !errors.Is(err, test.want) {
				t.Errorf("%s if %d: %v, want %v", test.id, test.condition, err, test.want)
			}
		}
		all, err := book.Organizations(waits(t), "", 0)
		must(t, err)
		if len(all) != 2 || all[0] != after || all[1].ID != "other" {
			t.Errorf("all are %+v", all)
		}
		entries, err := book.Audit(waits(t), auth.AuditFilter{Kind: "organization", ID: "acme"})
		must(t, err)
		if len(entries) != 2 || entries[0].Action != "update" || entries[1].Action != "create" || entries[1].Before != nil || entries[0].Sequence != after.Revision {
			t.Errorf("the audit has %+v", entries)
		}
	})
}

func TestProjectsAreTheirOrganizations(t *testing.T) {
	onBoth(t, func(t *testing.T, place Options) {
		book := withKeys(t, place)
		if _, err := book.PutProject(waits(t), auth.Project{Organization: "nobody", ID: "search"}, nil, tester); !errors.Is(err, auth.ErrNotFound) {
			t.Errorf("a project of nobody: %v", err)
		}
		k := aKey("other", 1)
		k.Project = "search"
		if _, err := book.CreateKey(waits(t), k, tester); !errors.Is(err, auth.ErrNotFound) {
			t.Errorf("a key in another organization's project: %v", err)
		}
		k.Organization = "acme"
		made(t, book, k)
		if err := book.DeleteProject(waits(t), "acme", "search", nil, tester); !errors.Is(err, ErrInUse) {
			t.Errorf("a project with a key: %v", err)
		}
		revoke(t, book, k)
		if err := book.DeleteProject(waits(t), "other", "search", nil, tester); !errors.Is(err, auth.ErrNotFound) {
			t.Errorf("another organization's: %v", err)
		}
		must(t, book.DeleteProject(waits(t), "acme", "search", nil, tester))
		if left, err := book.Projects(waits(t), "acme", "", 0); err != nil || len(left) > 0 {
			t.Errorf("%+v, %v", left, err)
		}
		if _, err := book.Projects(waits(t), "nobody", "", 0); !errors.Is(err, auth.ErrNotFound) {
			t.Errorf("projects of nobody: %v", err)
		}
	})
}

func revoke(t testing.TB, book *Book, k auth.Key) auth.Key {
	t.Helper()
	k, err := book.ChangeKey(waits(t), k.Organization, k.ID, func(k *auth.Key) error { k.RevokedAt = time.Now(); return nil }, "revoke", tester)
	must(t, err)
	return k
}

func TestAKeyIsReadAsItWasMade(t *testing.T) {
	onBoth(t, func(t *testing.T, place Options) {
		book := withKeys(t, place)
		k := aKey("acme", 1)
		k.Project, k.Sealed, k.ExpiresAt = "search", []byte{0, 1, 255}, time.Now().Add(time.Hour)
		k.Scopes = auth.Scopes{
			Models: []string{"gpt-*", "qwen3-8b"}, Endpoints: []string{"/v1/embeddings"}, Networks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")},
			Priority: true, MaxTokens: 100, Tags: map[string]string{"team": "search é"}, Signature: auth.SignatureOptional,
		}
		kept := made(t, book, k)
		read, err := book.Key(waits(t), "acme", k.ID)
		must(t, err)
		if diff := cmp.Diff(kept, read, compare); diff != "" {
			t.Error(diff)
		}
		if kept.CreatedBy != "alex" || kept.CreatedAt.IsZero() || kept.Digest != k.Digest || !kept.ExpiresAt.Equal(k.ExpiresAt) {
			t.Errorf("%+v", kept)
		}
		used := time.Now().Add(time.Second)
		must(t, book.Used(waits(t), map[string]time.Time{k.ID: used, "nothing0": used}))
		must(t, book.Used(waits(t), map[string]time.Time{k.ID: used.Add(-time.Hour)}))
		again, err := book.Key(waits(t), "acme", k.ID)
		must(t, err)
		if !again.LastUsedAt.Equal(used) || again.Revision != kept.Revision {
			t.Errorf("used at %s, revision %d; want %s, %d", again.LastUsedAt, again.Revision, used, kept.Revision)
		}
	})
}

func TestAnotherOrganizationsKeyIsNotFound(t *testing.T) {
	onBoth(t, func(t *testing.T, place Options) {
		book := withKeys(t, place)
		k := made(t, book, aKey("acme", 1))
		change := func(*auth.Key) error { t.Error("another's key was given out"); return nil }
		calls := map[string]error{}
		_, calls["read"] = book.Key(waits(t), "other", k.ID)
		_, calls["change"] = book.ChangeKey(waits(t), "other", k.ID, change, "update", tester)
		_, calls["rotate"] = book.Rotate(waits(t), "other", k.ID, nil, aKey("other", 2), time.Now().Add(time.Hour), tester)
		calls["delete"] = book.DeleteKey(waits(t), "other", k.ID, nil, tester)
		_, calls["list"] = book.Keys(waits(t), "nobody", "", 10)
		_, calls["import"] = book.ImportKeys(waits(t), "nobody", []auth.Key{{ID: "i0000001", Digest: k.Digest}}, tester)
		for call, err := range calls {
			if !errors.Is(err, auth.ErrNotFound) {
				t.Errorf("%s: %v", call, err)
			}
		}
		if listed, err := book.Keys(waits(t), "other", "", 10); err != nil || len(listed) > 0 {
			t.Errorf("%+v, %v", listed, err)
		}
		taken := aKey("other", 1)
		if _, err := book.CreateKey(waits(t), taken, tester); !errors.Is(err, auth.ErrExists) {
			t.Errorf("its id: %v", err)
		}
		if taken.ID = "k9999999"; true {
			if _, err := book.CreateKey(waits(t), taken, tester); !errors.Is(err, auth.ErrExists) {
				t.Errorf("its digest: %v", err)
			}
		}
	})
}

func TestWhatMayChangeOfAKey(t *testing.T) {
	onBoth(t, func(t *testing.T, place Options) {
		book := withKeys(t, place)
		k := made(t, book, aKey("acme", 1))
		reason := errors.New("not today")
		if _, err := book.ChangeKey(waits(t), "acme", k.ID, func(*auth.Key) error { return reason }, "update", tester); !errors.Is(err, reason) {
			t.Errorf("a change that refuses: %v", err)
		}
		same, err := book.ChangeKey(waits(t), "acme", k.ID, func(*auth.Key) error { return nil }, "update", tester)
		must(t, err)
		if diff := cmp.Diff(k, same, compare); diff != "" {
			t.Error(diff)
		}
		after, err := book.ChangeKey(waits(t), "acme", k.ID, func(k *auth.Key) error {
			*k = auth.Key{Name: "new", Scopes: auth.Scopes{Models: []string{"m"}}}
			return nil
		}, "update", tester)
		must(t, err)
		want := k
		want.Name, want.Scopes.Models, want.Revision = "new", []string{"m"}, after.Revision
		if diff := cmp.Diff(want, after, compare); diff != "" || after.Revision <= k.Revision {
			t.Errorf("revision %d after %d: %s", after.Revision, k.Revision, diff)
		}
		revoked := revoke(t, book, k)
		if _, err := book.ChangeKey(waits(t), "acme", k.ID, func(k *auth.Key) error { k.RevokedAt = time.Time{}; return nil }, "update", tester); !errors.Is(err, auth.ErrConflict) {
			t.Errorf("a revocation taken back: %v", err)
		}
		for what, change := range map[string]func(*auth.Key){
			"another end":  func(k *auth.Key) { k.ExpiresAt = time.Now().Add(time.Hour) },
			"another name": func(k *auth.Key) { k.Name = "again" }, "every model": func(k *auth.Key) { k.Scopes.Models = nil },
		} {
			if _, err := book.ChangeKey(waits(t), "acme", k.ID, func(k *auth.Key) error { change(k); return nil }, "update", tester); !errors.Is(err, auth.ErrConflict) {
				t.Errorf("%s for a revoked key: %v", what, err)
			}
		}
		if read, err := book.Key(waits(t), "acme", k.ID); err != nil || !read.RevokedAt.Equal(revoked.RevokedAt) || read.RevokedAt.IsZero() || read.Revision != revoked.Revision {
			t.Errorf("%+v, %v", read, err)
		}
	})
}

func TestRotationLeavesTheOldKeyItsGrace(t *testing.T) {
	onBoth(t, func(t *testing.T, place Options) {
		book := withKeys(t, place)
		old := made(t, book, aKey("acme", 1))
		grace := time.Now().Add(time.Hour)
		next, err := book.Rotate(waits(t), "acme", old.ID, nil, aKey("", 2), grace, tester)
		must(t, err)
		read, err := book.Key(waits(t), "acme", old.ID)
		must(t, err)
		if read.RotatedTo != next.ID || !read.ExpiresAt.Equal(grace) || next.Organization != "acme" || next.Revision == 0 || read.Revision <= next.Revision {
			t.Errorf("old %+v, next %+v", read, next)
		}
		if _, err := book.Rotate(waits(t), "acme", old.ID, nil, aKey("", 3), grace, tester); !errors.Is(err, auth.ErrConflict) {
			t.Errorf("once more: %v", err)
		}
		soon := time.Now().Add(time.Minute)
		_, err = book.ChangeKey(waits(t), "acme", next.ID, func(k *auth.Key) error { k.ExpiresAt = soon; return nil }, "update", tester)
		must(t, err)
		_, err = book.Rotate(waits(t), "acme", next.ID, nil, aKey("", 4), grace, tester)
		must(t, err)
		if read, err := book.Key(waits(t), "acme", next.ID); err != nil || !read.ExpiresAt.Equal(soon) {
			t.Errorf("a rotation lengthens a life: %+v, %v", read, err)
		}
		revoke(t, book, aKey("acme", 4))
		if _, err := book.Rotate(waits(t), "acme", "k0000004", nil, aKey("", 5), grace, tester); !errors.Is(err, auth.ErrConflict) {
			t.Errorf("a revoked key: %v", err)
		}
		if err := book.DeleteKey(waits(t), "acme", old.ID, nil, tester); !errors.Is(err, auth.ErrConflict) {
			t.Errorf("a key in its grace: %v", err)
		}
		must(t, book.DeleteKey(waits(t), "acme", "k0000004", nil, tester))
		if _, err := book.Key(waits(t), "acme", "k0000004"); !errors.Is(err, auth.ErrNotFound) {
			t.Errorf("a deleted key: %v", err)
		}
		actions := []string{}
		entries, err := book.Audit(waits(t), auth.AuditFilter{Organization: "acme", Kind: "key"})
		must(t, err)
		for _, e := range entries {
			actions = append(actions, e.Action+" "+e.ID)
		}
		want := "delete k0000004, revoke k0000004, rotate k0000002, create k0000004, update k0000002, rotate k0000001, create k0000002, create k0000001"
		if got := strings.Join(actions, ", "); got != want {
			t.Errorf("the audit has\n%s, want\n%s", got, want)
		}
	})
}

// A key that was rotated ends with its grace at the latest, whatever is changed of it afterwards.
func TestNoChangeOutlivesTheGraceOfARotation(t *testing.T) {
	onBoth(t, func(t *testing.T, place Options) {
		book := withKeys(t, place)
		old := made(t, book, aKey("acme", 1))
		_, err := book.Rotate(waits(t), "acme", old.ID, nil, aKey("", 2), time.Now().Add(time.Hour), tester)
		must(t, err)
		ends := func(at time.Time) error {
			_, err := book.ChangeKey(waits(t), "acme", old.ID, func(k *auth.Key) error { k.ExpiresAt = at; return nil }, "update", tester)
			return err
		}
		earlier, earliest := time.Now().Add(30*time.Minute), time.Now().Add(-time.Minute)
		for _, step := range []struct {
			name   string
			to     time.Time
			refuse bool
		}{
			{"beyond the grace", time.Now().Add(2 * time.Hour), true},
			{"for ever", time.Time{}, true},
			{"within the grace", earlier, false},
			{"as it is", earlier, false},
			{"back to the grace", time.Now().Add(time.Hour), true},
			{"at once", earliest, false},
			{"to life again", time.Now().Add(time.Minute), true},
			{"to life for ever", time.Time{}, true},
		} {
			err := ends(step.to)
			hindrance, refused := errors.AsType[auth.Hindrance](err)
			if refused != step.refuse || !refused && err != nil || refused && !strings.Contains(hindrance.Error(), "k0000002") {
				t.Errorf("%s: %v", step.name, err)
			}
		}
		if read, err := book.Key(waits(t), "acme", old.ID); err != nil || !read.ExpiresAt.Equal(earliest) {
			t.Errorf("%+v, %v", read, err)
		}
		_, err = book.ChangeKey(waits(t), "acme", old.ID, func(k *auth.Key) error { k.Name = "the old one"; return nil }, "update", tester)
		must(t, err)
	})
}

func TestAnImportIsWholeAndCanBeDoneAgain(t *testing.T) {
	onBoth(t, func(t *testing.T, place Options) {
		book := withKeys(t, place)
		var keys []auth.Key
		for n := range 333 {
			k := aKey("", n)
			k.Pepper = 0
			keys = append(keys, k)
		}
		n, err := book.ImportKeys(waits(t), "acme", keys[:200], tester)
		if err != nil || n != 200 {
			t.Fatalf("%d, %v", n, err)
		}
		n, err = book.ImportKeys(waits(t), "acme", append(keys, keys[300]), tester)
		if err != nil || n != 133 {
			t.Errorf("the rest: %d, %v", n, err)
		}
		if n, err := book.ImportKeys(waits(t), "acme", keys, tester); err != nil || n != 0 {
			t.Errorf("once more: %d, %v", n, err)
		}
		foreign := aKey("", 1000)
		foreign.Pepper = 0
		if n, err := book.ImportKeys(waits(t), "other", []auth.Key{foreign, keys[7]}, tester); !errors.Is(err, auth.ErrExists) || n != 0 {
			t.Errorf("another's: %d, %v", n, err)
		}
		if _, err := book.Key(waits(t), "other", foreign.ID); !errors.Is(err, auth.ErrNotFound) {
			t.Errorf("half of a failed import is there: %v", err)
		}
		all, after := 0, ""
		for {
			listed, err := book.Keys(waits(t), "acme", after, 50)
			must(t, err)
			if len(listed) == 0 {
				break
			}
			all, after = all+len(listed), listed[len(listed)-1].ID
		}
		entries, err := book.Audit(waits(t), auth.AuditFilter{Organization: "acme", Kind: "key", Limit: 1000})
		must(t, err)
		if all != 333 || len(entries) != 333 || entries[0].Action != "import" {
			t.Errorf("%d keys, %d entries", all, len(entries))
		}
	})
}

// Every change has its entry, with what there was before and after, and the entries of a thing form a chain. None holds a digest or a sealed secret.
func TestTheAuditIsAChain(t *testing.T) {
	onBoth(t, func(t *testing.T, place Options) {
		book := withKeys(t, place)
		k := aKey("acme", 1)
		k.Sealed = []byte("sealed-canary")
		made(t, book, k)
		const writers = 12
		var group sync.WaitGroup
		for i := range writers {
			group.Go(func() {
				_, err := book.ChangeKey(waits(t), "acme", k.ID, func(k *auth.Key) error { k.Name += fmt.Sprint(" ", i); return nil }, "update", tester)
				if err != nil {
					t.Error(err)
				}
			})
		}
		group.Wait()
		entries, err := book.Audit(waits(t), auth.AuditFilter{Kind: "key", ID: k.ID})
		must(t, err)
		if len(entries) != writers+1 {
			t.Fatalf("%d entries", len(entries))
		}
		for i, e := range entries[:writers] {
			if string(e.Before) != string(entries[i+1].After) {
				t.Errorf("entry %d begins with %s, the one before ends with %s", i, e.Before, entries[i+1].After)
			}
			if e.Actor != tester.Actor || e.Role != tester.Role || e.Reason != tester.Reason || e.RequestID != tester.RequestID || e.Organization != "acme" || e.At.IsZero() {
				t.Errorf("%+v", e)
			}
		}
		all, err := json.Marshal(entries)
		must(t, err)
		text := string(all) + string(entries[0].After) + string(entries[0].Before)
		if strings.Contains(text, "canary") || strings.Contains(strings.ToLower(text), fmt.Sprintf("%x", k.Digest[:8])) {
			t.Errorf("a secret is in the audit: %s", text)
		}
		second, err := book.Audit(waits(t), auth.AuditFilter{Kind: "key", ID: k.ID, Before: entries[4].Sequence, Limit: 3})
		must(t, err)
		if len(second) != 3 || second[0].Sequence != entries[5].Sequence {
			t.Errorf("the second page: %+v", second)
		}
	})
}

func TestOneOfManyWritersOfAnOrganizationWins(t *testing.T) {
	onBoth(t, func(t *testing.T, place Options) {
		books := []*Book{withKeys(t, place), openedAt(t, place)}
		acme, err := books[0].Organization(waits(t), "acme")
		must(t, err)
		var group sync.WaitGroup
		var won, created atomic.Int64
		for i := range 12 {
			group.Go(func() {
				_, err := books[i%2].PutOrganization(waits(t), auth.Organization{ID: "acme", Name: fmt.Sprint(i)}, &acme.Revision, tester)
				if err == nil {
					won.Add(1)
				} else if !errors.Is(err, auth.ErrConflict) {
					t.Error(err)
				}
				if _, err = books[i%2].CreateKey(waits(t), aKey("acme", 1), tester); err == nil {
					created.Add(1)
				} else if !errors.Is(err, auth.ErrExists) {
					t.Error(err)
				}
			})
		}
		group.Wait()
		if won.Load() != 1 || created.Load() != 1 {
			t.Errorf("%d changed the organization, %d made the key", won.Load(), created.Load())
		}
	})
}
