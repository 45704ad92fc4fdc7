package state

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/ai-aas/api-router/internal/auth"
	"github.com/ai-aas/api-router/internal/policy"
)

// known is what somebody who follows a ledger knows.
type known struct {
	mu            sync.Mutex
	organizations map[string]auth.Organization
	keys          map[string]auth.Key
	whole         int
	order         []string // faults in it
}

func (k *known) give(c auth.Change) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case c.Organization != nil && c.Organization.Revision == 0:
		if delete(k.organizations, c.Organization.ID); *c.Organization != (auth.Organization{ID: c.Organization.ID}) {
			k.order = append(k.order, fmt.Sprintf("something is left of %+v", c.Organization))
		}
	case c.Organization != nil:
		k.organizations[c.Organization.ID] = *c.Organization
	case c.Key != nil:
		if _, there := k.organizations[c.Key.Organization]; !there {
			k.order = append(k.order, "the key "+c.Key.ID+" came before its organization")
		}
		k.keys[c.Key.ID] = *c.Key
	default:
		delete(k.keys, c.Gone)
	}
}

// following follows a ledger as the hot path does, until the test ends.
func following(t testing.TB, ledger auth.Ledger) *known {
	t.Helper()
	k := &known{}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			k.mu.Lock()
			k.organizations, k.keys, k.whole = map[string]auth.Organization{}, map[string]auth.Key{}, 0
			k.mu.Unlock()
			if err := ledger.Follow(ctx, k.give, func() { k.mu.Lock(); k.whole++; k.mu.Unlock() }); err == nil {
				t.Error("Follow returned nil")
			}
			wait(ctx, 20*time.Millisecond)
		}
	}()
	t.Cleanup(func() { cancel(); <-ended })
	return k
}

// agrees waits until what is known is what the book holds.
func (k *known) agrees(t testing.TB, book *Book) {
	t.Helper()
	organizations, keys := map[string]auth.Organization{}, map[string]auth.Key{}
	all, err := book.Organizations(waits(t), "", maxPage)
	must(t, err)
	for _, o := range all {
		organizations[o.ID] = o
		for after := ""; ; {
			some, err := book.Keys(waits(t), o.ID, after, maxPage)
			must(t, err)
			if len(some) == 0 {
				break
			}
			for _, one := range some {
				one.LastUsedAt = time.Time{}
				keys[one.ID], after = one, one.ID
			}
		}
	}
	diff := "nothing was compared"
	for deadline := time.Now().Add(hang); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		k.mu.Lock()
		whole, order := k.whole, k.order
		diff = cmp.Diff(organizations, k.organizations, compare) + cmp.Diff(keys, k.keys, compare)
		k.mu.Unlock()
		if len(order) > 0 || whole > 1 {
			t.Fatalf("whole %d times; %s", whole, order)
		}
		if diff == "" && whole == 1 {
			return
		}
	}
	t.Fatal(diff)
}

// Any sequence of changes, made in two processes, ends in the same set for whoever followed from the beginning and whoever loads afresh.
func TestFollowingEndsAsAFreshLoad(t *testing.T) {
	onBoth(t, func(t *testing.T, place Options) {
		books := []*Book{withKeys(t, place), openedAt(t, place)}
		first := []*known{following(t, books[0]), following(t, books[1])}
		next := 0
		var ids []string
		rapid.Check(t, func(r *rapid.T) {
			for range rapid.IntRange(1, 12).Draw(r, "changes") {
				book := books[rapid.IntRange(0, 1).Draw(r, "process")]
				organization := rapid.SampledFrom([]string{"acme", "other"}).Draw(r, "organization")
				id := "k0000000"
				if len(ids) > 0 {
					id = rapid.SampledFrom(ids).Draw(r, "key")
				}
				fresh := func() auth.Key { next++; k := aKey(organization, next); ids = append(ids, k.ID); return k }
				var err error
				switch rapid.IntRange(0, 9).Draw(r, "change") {
				case 0:
					_, err = book.CreateKey(waits(t), fresh(), tester)
				case 1:
					name := rapid.StringMatching(`[a-z]{0,5}`).Draw(r, "name")
					_, err = book.ChangeKey(waits(t), organization, id, func(k *auth.Key) error { k.Name = name; return nil }, "update", tester)
				case 2:
					_, err = book.ChangeKey(waits(t), organization, id, func(k *auth.Key) error {
						if k.RevokedAt.IsZero() {
							k.RevokedAt = time.Now()
						}
						return nil
					}, "revoke", tester)
				case 3:
					_, err = book.Rotate(waits(t), organization, id, nil, fresh(), time.Now().Add(time.Hour), tester)
				case 4:
					err = book.DeleteKey(waits(t), organization, id, nil, tester)
				case 5:
					a, b := fresh(), fresh()
					a.Pepper, b.Pepper = 0, 0
					_, err = book.ImportKeys(waits(t), organization, []auth.Key{a, b}, tester)
				case 6:
					_, err = book.PutOrganization(waits(t), auth.Organization{ID: organization, Disabled: rapid.Bool().Draw(r, "disabled")}, nil, tester)
				case 7: // Of a document: what the two have in common must not bring one out of step.
					_, err = book.Write(waits(t), policy.Write{Kind: policy.KindBackend, ID: "b", Content: fmt.Appendf(nil, `{"url":"http://h:%d"}`, next), Actor: "tester"})
				case 8: // It is in the same audit, and none of the follower's business.
					err = book.Note(waits(t), auth.Entry{Actor: "test", Action: "update", Kind: "log-level", ID: "a"})
				case 9: // Who has not read what was deleted is not told of it any more.
					forgetful := retains(t, book, 0, time.Unix(0, 0))
					forgetful.maxGone = 0
					err = forgetful.pass(waits(t), time.Now())
				}
				if err != nil && !errors.Is(err, auth.ErrNotFound) && !errors.Is(err, auth.ErrConflict) {
					r.Fatal(err)
				}
			}
			for _, k := range first {
				k.agrees(t, books[0])
			}
		})
		following(t, books[0]).agrees(t, books[0])
		t.Logf("%d keys were made, %d are left", next, len(first[0].keys))
	})
}

// What is imported while somebody loads comes too, also where it is more than one page of changes.
func TestManyChangesAreFollowedInPages(t *testing.T) {
	onBoth(t, func(t *testing.T, place Options) {
		book := withKeys(t, place)
		book.page = 150
		before := following(t, book)
		before.agrees(t, book)
		keys := make([]auth.Key, 400)
		for round := range 3 {
			for i := range keys {
				keys[i] = aKey("", 1+round*len(keys)+i)
				keys[i].Pepper = 0
			}
			if n, err := book.ImportKeys(waits(t), "acme", keys, tester); err != nil || n != len(keys) {
				t.Fatal(n, err)
			}
			if round == 1 {
				following(t, book) // It loads while the next come.
			}
		}
		before.agrees(t, book)
		following(t, book).agrees(t, book)
	})
}

// Loading many keys takes a while, and a key may be revoked after it was read: that does not wait for the end.
func TestARevocationDoesNotWaitForTheRestOfTheKeys(t *testing.T) {
	onBoth(t, func(t *testing.T, place Options) {
		book := withKeys(t, place)
		const count = 5
		for i := range count {
			made(t, book, aKey("acme", 1+i))
		}
		book.page = 1
		ctx, cancel := context.WithCancel(waits(t))
		defer cancel()
		first, came, revoked := "", map[string]bool{}, -1
		_ = book.Follow(ctx, func(c auth.Change) {
			switch {
			case c.Key == nil:
			case first == "":
				first = c.Key.ID
				came[first] = true
				revoke(t, book, *c.Key)
			case c.Key.ID == first && !c.Key.RevokedAt.IsZero() && revoked < 0:
				revoked = len(came)
			default:
				came[c.Key.ID] = true
			}
		}, cancel)
		if revoked != 1 {
			t.Errorf("the revocation came after %d of %d keys, want 1", revoked, count)
		}
	})
}

// Who starts from an old snapshot, or was cut off, has keys that were taken away meanwhile: they do not wait for the rest either.
func TestWhatWasTakenAwayLastIsGivenFirst(t *testing.T) {
	onBoth(t, func(t *testing.T, place Options) {
		book := withKeys(t, place)
		const count = 9
		all := make([]auth.Key, count)
		for i := range all {
			all[i] = made(t, book, aKey("acme", 1+i))
		}
		book.page = 2
		revoke(t, book, all[2])
		for _, i := range []int{1, 3, 4} {
			must(t, book.DeleteKey(waits(t), "acme", revoke(t, book, all[i]).ID, nil, tester))
		}
		revoke(t, book, all[5])
		ctx, cancel := context.WithCancel(waits(t))
		defer cancel()
		var given []string
		_ = book.Follow(ctx, func(c auth.Change) {
			switch {
			case c.Key != nil:
				given = append(given, c.Key.ID)
			case c.Gone != "":
				given = append(given, "no "+c.Gone)
			}
		}, cancel)
		want := []string{"no " + all[3].ID, "no " + all[4].ID, all[5].ID, all[2].ID, all[8].ID, all[7].ID, all[6].ID, all[0].ID}
		if diff := cmp.Diff(want, given); diff != "" {
			t.Error(diff)
		}
	})
}

func TestARevocationReachesAnotherProcessInTime(t *testing.T) {
	onBoth(t, func(t *testing.T, place Options) {
		here, there := withKeys(t, place), openedAt(t, place)
		k := made(t, here, aKey("acme", 1))
		follower := following(t, there)
		follower.agrees(t, here)
		begun := time.Now()
		revoke(t, here, k)
		follower.agrees(t, here)
		t.Logf("it was seen after %s", time.Since(begun).Round(time.Millisecond))
	})
}

// Somebody wrote past the program: keys are spoilt, and everybody else's are followed all the same.
func TestAKeyThatCannotBeReadKeepsNoOtherBack(t *testing.T) {
	onBoth(t, func(t *testing.T, place Options) {
		book, good := withKeys(t, place), aKey("acme", 1)
		_, err := book.CreateKey(waits(t), good, tester)
		must(t, err)
		spoilt := map[string]auth.Key{"scopes = '{'": aKey("acme", 2), "digest = substr(digest, 1, 3)": aKey("acme", 3), "pepper_mark = -1": aKey("acme", 5)}
		for how, k := range spoilt {
			_, err := book.CreateKey(waits(t), k, tester)
			must(t, err)
			must(t, book.write(waits(t), clockIdentity, func(ctx context.Context, tx tx) error {
				return tx.exec(ctx, "UPDATE api_key SET "+how+" WHERE id = $1", k.ID)
			}))
		}
		var mu sync.Mutex
		seen, whole := map[string]string{}, make(chan struct{})
		ctx, cancel := context.WithCancel(waits(t))
		defer cancel()
		ended := make(chan error, 1)
		go func() {
			ended <- book.Follow(ctx, func(c auth.Change) {
				mu.Lock()
				defer mu.Unlock()
				if c.Key != nil {
					seen[c.Key.ID] = c.Key.Name + c.Key.Damage
				}
			}, func() { close(whole) })
		}()
		select {
		case <-whole:
		case err := <-ended:
			t.Fatal(err)
		}
		_, err = book.ChangeKey(waits(t), "acme", good.ID, func(k *auth.Key) error { k.Name = "later"; return nil }, "update", tester)
		must(t, err)
		for deadline := time.Now().Add(hang); time.Now().Before(deadline); wait(ctx, 5*time.Millisecond) {
			mu.Lock()
			reached := seen[good.ID] == "later"
			mu.Unlock()
			if reached {
				break
			}
		}
		cancel()
		<-ended
		if seen[good.ID] != "later" {
			t.Errorf("the key beside them: %q", seen[good.ID])
		}
		listed, err := book.Keys(waits(t), "acme", "", 0)
		if err != nil || len(listed) != 4 {
			t.Errorf("%d keys are listed, %v", len(listed), err)
		}
		for how, k := range spoilt {
			if !strings.Contains(seen[k.ID], "its ") {
				t.Errorf("with %s: %q, want what is wrong with it", how, seen[k.ID])
			}
			_, err := book.ChangeKey(waits(t), "acme", k.ID, func(k *auth.Key) error { k.RevokedAt = time.Now(); return nil }, "revoke", tester)
			if !errors.Is(err, auth.ErrConflict) || !strings.Contains(err.Error(), "delete it") {
				t.Errorf("with %s it is revoked: %v", how, err)
			}
			if _, err := book.Rotate(waits(t), "acme", k.ID, nil, aKey("acme", 4), time.Now().Add(time.Hour), tester); !errors.Is(err, auth.ErrConflict) {
				t.Errorf("with %s it is rotated: %v", how, err)
			}
			must(t, book.DeleteKey(waits(t), "acme", k.ID, nil, tester))
		}
	})
}

func TestFollowingEndsWhenTheBookIsLostOrClosed(t *testing.T) {
	onBoth(t, func(t *testing.T, place Options) {
		book := withKeys(t, place)
		whole, ended := make(chan struct{}), make(chan error, 1)
		go func() { ended <- book.Follow(waits(t), func(auth.Change) {}, func() { close(whole) }) }()
		<-whole
		must(t, book.Close())
		if err := <-ended; !errors.Is(err, errClosed) {
			t.Error(err)
		}
		if err := book.Used(waits(t), map[string]time.Time{"k0000001": time.Now()}); !errors.Is(err, errClosed) {
			t.Error(err)
		}
		if err := book.Follow(waits(t), func(auth.Change) {}, func() {}); !errors.Is(err, errClosed) {
			t.Error(err)
		}
	})
}

func TestIdentitiesOutOfBoundsAreRefused(t *testing.T) {
	onBoth(t, func(t *testing.T, place Options) {
		book := withKeys(t, place)
		long := strings.Repeat("x", 300)
		for what, change := range map[string]func(*auth.Key){
			"8 of the characters": func(k *auth.Key) { k.ID = "short" },
			"its digest":          func(k *auth.Key) { k.Digest = auth.Digest{} },
			"the name must be":    func(k *auth.Key) { k.Name = long },
			"one line":            func(k *auth.Key) { k.Name = "a\nb" },
			"2200":                func(k *auth.Key) { k.ExpiresAt = time.Date(2300, 1, 1, 0, 0, 0, 0, time.UTC) },
			"models":              func(k *auth.Key) { k.Scopes.Models = slices.Repeat([]string{"m"}, 201) },
			"at its end":          func(k *auth.Key) { k.Scopes.Models = []string{"a*b"} },
			"a path such as":      func(k *auth.Key) { k.Scopes.Endpoints = []string{"v1"} },
			"tags":                func(k *auth.Key) { k.Scopes.Tags = many(33) },
			"a tag's value":       func(k *auth.Key) { k.Scopes.Tags = map[string]string{"a": long} },
			"max_tokens":          func(k *auth.Key) { k.Scopes.MaxTokens = -1 },
			"signature":           func(k *auth.Key) { k.Scopes.Signature = "maybe" },
			"the sealed secret":   func(k *auth.Key) { k.Sealed = make([]byte, 2000) },
		} {
			k := aKey("acme", 1)
			change(&k)
			if _, err := book.CreateKey(waits(t), k, tester); err == nil || !strings.Contains(err.Error(), what) {
				t.Errorf("%v, want %q", err, what)
			}
			if _, err := book.ImportKeys(waits(t), "acme", []auth.Key{k}, tester); err == nil {
				t.Errorf("an import of a key without %q", what)
			}
		}
		_, err := book.CreateKey(waits(t), aKey("acme", 1), auth.By{Reason: strings.Repeat(long, 10)})
		if err == nil || !strings.Contains(err.Error(), "the reason") {
			t.Error(err)
		}
		for _, zone := range []string{"Local", "Europe/Atlantis", "../../etc/passwd"} {
			if _, err := book.PutOrganization(waits(t), auth.Organization{ID: "acme", TimeZone: zone}, nil, tester); err == nil || !strings.Contains(err.Error(), "IANA") {
				t.Errorf("%s: %v", zone, err)
			}
		}
		if _, err := book.ImportKeys(waits(t), "acme", make([]auth.Key, maxImport+1), tester); err == nil || !strings.Contains(err.Error(), "at once") {
			t.Error(err)
		}
		must(t, book.write(waits(t), clockIdentity, func(ctx context.Context, tx tx) error { _, err := tick(ctx, tx, countKeys, maxKeys); return err }))
		if _, err := book.CreateKey(waits(t), aKey("acme", 1), tester); err == nil || !strings.Contains(err.Error(), "no more can be created") {
			t.Errorf("one more than the book takes: %v", err)
		}
	})
}

func many(n int) map[string]string {
	return maps.Collect(func(yield func(string, string) bool) {
		for i := range n {
			if !yield(fmt.Sprint("t", i), "") {
				return
			}
		}
	})
}

// Processes that share a file compare by it who has heard more.
func TestWhoFollowsIsToldUpToWhereEverythingWasGiven(t *testing.T) {
	onBoth(t, func(t *testing.T, place Options) {
		book, other := withKeys(t, place), openedAt(t, place)
		book.page, other.page = 2, 2
		at := func() (clock int64) {
			must(t, book.read(waits(t), func(ctx context.Context, tx tx) error {
				return tx.one(ctx, "SELECT value FROM counter WHERE name = $1", clockIdentity).Scan(&clock)
			}))
			return clock
		}
		before := at()
		ctx, cancel := context.WithCancel(waits(t))
		var told int64
		var given []string
		whole := false
		err := other.Follow(ctx, func(c auth.Change) {
			switch {
			case c.Position > 0 && c.Position < told:
				t.Errorf("it goes back from %d to %d", told, c.Position)
			case c.Position > 0:
				if told = c.Position; whole && told == at() {
					cancel()
				}
			case c.Key != nil && whole:
				given = append(given, c.Key.ID)
				if c.Key.Revision <= told {
					t.Errorf("the key %s of revision %d comes after the position %d", c.Key.ID, c.Key.Revision, told)
				}
			}
		}, func() {
			if whole = true; told != before {
				t.Errorf("when all was given the position is %d, want %d", told, before)
			}
			for i := range 5 {
				made(t, book, aKey("acme", i))
			}
		})
		if told != before+5 || len(given) != 5 {
			t.Errorf("at %d %q were given, %v", told, given, err)
		}
	})
}
