package state

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ai-aas/api-router/internal/auth"
	"github.com/ai-aas/api-router/internal/policy"
)

// whole is the audit, the newest entry first.
func whole(t testing.TB, book *Book, filter auth.AuditFilter) []auth.Entry {
	t.Helper()
	filter.Limit = maxPage
	entries, err := book.Audit(waits(t), filter)
	must(t, err)
	return entries
}

func TestEveryChangeOfADocumentIsInTheAudit(t *testing.T) {
	onBoth(t, func(t *testing.T, place Options) {
		book := openedAt(t, place)
		write := func(kind policy.Kind, id, content string, n int) policy.Stored {
			t.Helper()
			w := policy.Write{Kind: kind, ID: id, Actor: "ada", Role: "admin", Reason: fmt.Sprint("reason ", n), RequestID: fmt.Sprint("r-", n)}
			if content != "" {
				w.Content = json.RawMessage(content)
			}
			stored, err := book.Write(waits(t), w)
			must(t, err)
			return stored
		}
		const ours, theirs = `{"model":"m","organization":"acme","backends":[{"id":"a"}]}`, `{"model":"m","backends":[{"id":"a"}]}`
		const legacy = `{"OrganizationID":"acme","Model":"old","Backends":[{"BackendID":"a","Weight":1}]}`
		const mark = `{"model":"m","organization":"acme","state":"disabled","reason":"x"}`
		begun := time.Now()
		write(policy.KindBackend, "a", `{"url":"http://127.0.0.1:1"}`, 1)
		write(policy.KindRoutingPolicy, "p", ours, 2)
		write(policy.KindRoutingPolicy, "p", ours, 3) // That changes nothing.
		write(policy.KindRoutingPolicy, "p", theirs, 4)
		write(policy.KindRoutingPolicy, "old", legacy, 5)
		write(policy.KindMark, policy.MarkID("", "m", "acme"), mark, 6)
		write(policy.KindRoutingPolicy, "old", "", 7)
		write(policy.KindRoutingPolicy, "odd", `{"organization":"acme","colour":"red"}`, 8)
		write(policy.KindRoutingPolicy, "worse", `{"organization":"a b"}`, 9)
		want := []struct{ action, kind, id, organization, before, after, n string }{
			{"create", "RoutingPolicy", "worse", "", "", `{"organization":"a b"}`, "9"},
			{"create", "RoutingPolicy", "odd", "acme", "", `{"organization":"acme","colour":"red"}`, "8"},
			{"delete", "RoutingPolicy", "old", "acme", legacy, "", "7"},
			{"create", "Mark", policy.MarkID("", "m", "acme"), "acme", "", mark, "6"},
			{"create", "RoutingPolicy", "old", "acme", "", legacy, "5"},
			{"update", "RoutingPolicy", "p", "", ours, theirs, "4"},
			{"create", "RoutingPolicy", "p", "acme", "", ours, "2"},
			{"create", "Backend", "a", "", "", `{"url":"http://127.0.0.1:1"}`, "1"},
		}
		got := whole(t, book, auth.AuditFilter{})
		if len(got) != len(want) {
			t.Fatalf("%d entries, want %d: %+v", len(got), len(want), got)
		}
		for i, e := range got {
			w := want[i]
			if e.Action != w.action || e.Kind != w.kind || e.ID != w.id || e.Organization != w.organization || string(e.Before) != w.before || string(e.After) != w.after {
				t.Errorf("entry %d is %+v, want %+v", i, e, w)
			}
			if e.Actor != "ada" || e.Role != "admin" || e.Reason != "reason "+w.n || e.RequestID != "r-"+w.n || e.Sequence != int64(len(want)-i) {
				t.Errorf("entry %d is %+v", i, e)
			}
			if e.At.Before(begun) || e.At.After(time.Now()) {
				t.Errorf("entry %d is of %s", i, e.At)
			}
		}
		for name, filter := range map[string]auth.AuditFilter{
			"of an organization": {Organization: "acme"}, "of a kind": {Kind: "RoutingPolicy", ID: "old"},
		} {
			if some := whole(t, book, filter); len(some) != map[string]int{"of an organization": 5, "of a kind": 2}[name] {
				t.Errorf("%s there are %+v", name, some)
			}
		}
		if some := whole(t, book, auth.AuditFilter{Actor: "olga"}); len(some) > 0 {
			t.Errorf("by somebody else there are %+v", some)
		}
		if some := whole(t, book, auth.AuditFilter{Actor: "ada", Since: got[2].At}); len(some) != 3 {
			t.Errorf("since the deletion there are %+v", some)
		}
	})
}

func TestTheAuditKeepsNoSecretThatADocumentHeldByMistake(t *testing.T) {
	onBoth(t, func(t *testing.T, place Options) {
		book := openedAt(t, place)
		for _, content := range []string{`{"url":"http://127.0.0.1:1","api_key":"sk-0123456789"}`, `{"url":"http://127.0.0.1:1","api_key":"env:KEY"}`} {
			_, err := book.Write(waits(t), policy.Write{Kind: policy.KindBackend, ID: "a", Content: json.RawMessage(content)})
			must(t, err)
		}
		entries := whole(t, book, auth.AuditFilter{})
		if len(entries) != 2 {
			t.Fatalf("%+v", entries)
		}
		for i, text := range []string{string(entries[1].After), string(entries[0].Before)} {
			if strings.Contains(text, "0123456789") || !strings.Contains(text, policy.Hidden) {
				t.Errorf("%d: %s", i, text)
			}
		}
		if !strings.Contains(string(entries[0].After), "env:KEY") {
			t.Errorf("a reference is hidden: %s", entries[0].After)
		}
	})
}

func TestWhatIsChangedOutsideOfTheBookIsNoted(t *testing.T) {
	onBoth(t, func(t *testing.T, place Options) {
		book := openedAt(t, place)
		must(t, book.Note(waits(t), auth.Entry{
			Sequence: 99, Actor: "ada", Role: "operator", Action: "update", Kind: "log-level", ID: "router-0", Before: []byte(`{"level":"info"}`),
			After: []byte(`{"level":"debug"}`), RequestID: "r-1",
		}))
		got := whole(t, book, auth.AuditFilter{Kind: "log-level"})
		if len(got) != 1 || got[0].Sequence != 1 || got[0].At.IsZero() || string(got[0].Before) != `{"level":"info"}` || string(got[0].After) != `{"level":"debug"}` {
			t.Errorf("%+v", got)
		}
		if err := book.Note(waits(t), auth.Entry{Actor: "two\nlines"}); err == nil {
			t.Error("an actor of two lines is taken")
		}
	})
}

// Changes of documents, of identities and of neither meet at one clock alone, and each takes it last: none waits for another that waits for it.
func TestChangesOfEveryKindAtOnceLoseNoEntry(t *testing.T) {
	onBoth(t, func(t *testing.T, place Options) {
		book := withKeys(t, place)
		const each = 15
		before := len(whole(t, book, auth.AuditFilter{}))
		var all sync.WaitGroup
		for n, change := range []func(i int) error{
			func(i int) error {
				_, err := book.Write(waits(t), policy.Write{Kind: policy.KindBackend, ID: "a", Content: content("a", i+1)})
				return err
			},
			func(i int) error { _, err := book.CreateKey(waits(t), aKey("acme", i), tester); return err },
			func(i int) error {
				_, err := book.PutOrganization(waits(t), auth.Organization{ID: "acme", Name: fmt.Sprint(i)}, nil, tester)
				return err
			},
			func(int) error { return book.Note(waits(t), auth.Entry{Kind: "log-level", Action: "update"}) },
		} {
			all.Go(func() {
				for i := range each {
					if err := change(i); err != nil {
						t.Errorf("change %d of kind %d: %v", i, n, err)
					}
				}
			})
		}
		all.Wait()
		entries := whole(t, book, auth.AuditFilter{})
		if len(entries) != before+4*each {
			t.Errorf("%d entries, want %d", len(entries), before+4*each)
		}
		for i, e := range entries {
			if e.Sequence != int64(len(entries)-i) {
				t.Fatalf("entry %d has the sequence %d", i, e.Sequence)
			}
		}
	})
}

func TestAnOlderReplicaDoesNotStopTheAudit(t *testing.T) {
	onBoth(t, func(t *testing.T, place Options) {
		book := withKeys(t, place)
		must(t, asOlder(t, book))
		made(t, book, aKey("acme", 1))
		entries := whole(t, book, auth.AuditFilter{})
		if len(entries) != 5 || entries[0].Action != actionCreate || entries[1].Actor != "older" || entries[0].Sequence != entries[1].Sequence+1 {
			t.Errorf("%+v", entries)
		}
	})
}

func TestNoMomentIsTooFarAwayToAskTheAuditFor(t *testing.T) {
	onBoth(t, func(t *testing.T, place Options) {
		book := openedAt(t, place)
		must(t, book.Note(waits(t), auth.Entry{Actor: "a"}))
		for year, want := range map[int]int{0: 1, 1600: 1, 1677: 1, 1969: 1, 1970: 1, 2199: 0, 2262: 0, 2300: 0, 9999: 0} {
			if got := whole(t, book, auth.AuditFilter{Since: time.Date(year, 12, 31, 0, 0, 0, 0, time.UTC)}); len(got) != want {
				t.Errorf("since %d there are %d entries, want %d", year, len(got), want)
			}
		}
	})
}

func TestAnOlderReplicaIsNotStoppedByTheAudit(t *testing.T) {
	onBoth(t, func(t *testing.T, place Options) {
		older(t, place, 2, "UPDATE counter SET value = 2 WHERE name = 'identity'",
			"INSERT INTO audit VALUES (1, 1, 'ada', '', 'create', 'organization', 'a', 'a', NULL, '{}', '', '')",
			"INSERT INTO audit VALUES (2, 2, 'ada', '', 'create', 'organization', 'b', 'b', NULL, '{}', '', '')")
		book := openedAt(t, place)
		writeVersion(t, book, "b", 1)
		must(t, asOlder(t, book))
	})
}

// asOlder changes something as it was done before there was a clock of the audit.
func asOlder(t *testing.T, book *Book) error {
	t.Helper()
	return book.write(waits(t), clockIdentity, func(ctx context.Context, tx tx) error {
		sequence, err := tick(ctx, tx, clockIdentity, 1)
		if err != nil {
			return err
		}
		return insert(ctx, tx, auditColumns, entryValues(auth.Entry{Sequence: sequence, At: now(), Actor: "older", Action: actionUpdate, Kind: kindKey, ID: "k"}))
	})
}

func TestTheAuditOutlastsTheHistory(t *testing.T) {
	book := openedAt(t, Options{URL: "sqlite:" + t.TempDir() + "/state.db"})
	writeVersion(t, book, "a", 1)
	_, err := here(t, book).writer.Exec("UPDATE counter SET value = value + $1 WHERE name = 'revision'", maxHistory)
	must(t, err)
	writeVersion(t, book, "a", 2)
	history, err := book.History(waits(t), policy.KindBackend, "a", 0, 10)
	must(t, err)
	if entries := whole(t, book, auth.AuditFilter{}); len(history) != 1 || len(entries) != 2 {
		t.Errorf("%d in the history, %d in the audit", len(history), len(entries))
	}
}
