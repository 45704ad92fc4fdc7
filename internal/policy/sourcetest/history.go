package sourcetest

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ai-aas/api-router/internal/policy"
)

// entries is the history of a document, or of all.
func entries(t testing.TB, book policy.Book, kind policy.Kind, id string) []policy.Change {
	t.Helper()
	found, err := book.History(t.Context(), kind, id, 0, 1000)
	if err != nil {
		t.Fatalf("history of %s %s: %v", kind, id, err)
	}
	return found
}

// chained checks the entries of one document: each began with what the one before it had left.
func chained(t testing.TB, newestFirst []policy.Change) {
	t.Helper()
	for i := range len(newestFirst) - 1 {
		newer, older := newestFirst[i], newestFirst[i+1]
		if newer.Revision <= older.Revision || newer.At.Before(older.At.Add(-time.Second)) || !sameContent(newer.Before, older.After) {
			t.Errorf("%+v does not follow %+v", newer, older)
		}
	}
}

// sameContent is sameJSON where there may be none.
func sameContent(a, b json.RawMessage) bool {
	none := func(m json.RawMessage) bool { return len(m) == 0 || string(m) == "null" }
	return none(a) && none(b) || !none(a) && !none(b) && sameJSON(a, b)
}

func history(t *testing.T, p Place) {
	begun := time.Now()
	created := write(t, p.Book, policy.Write{Kind: policy.KindBackend, ID: "a", Content: backend("a", 1), Actor: "ops", Reason: "a new machine"})
	updated := write(t, p.Book, policy.Write{Kind: policy.KindBackend, ID: "a", Content: backend("a", 2), Actor: "Zoë \"root\"", Reason: ""})
	write(t, p.Book, policy.Write{Kind: policy.KindBackend, ID: "b", Content: backend("b", 1), Actor: "ops"})
	write(t, p.Book, policy.Write{Kind: policy.KindBackend, ID: "a", Actor: "ops", Reason: "sold\nand gone"})
	again := write(t, p.Book, policy.Write{Kind: policy.KindBackend, ID: "a", Content: backend("a", 4), Actor: "seed"})

	want := []policy.Change{ // The newest first.
		{Revision: again.Revision, Action: policy.ActionCreate, After: backend("a", 4), Actor: "seed"},
		{Action: policy.ActionDelete, Before: backend("a", 2), Actor: "ops", Reason: "sold\nand gone"},
		{Revision: updated.Revision, Action: policy.ActionUpdate, Before: backend("a", 1), After: backend("a", 2), Actor: "Zoë \"root\""},
		{Revision: created.Revision, Action: policy.ActionCreate, After: backend("a", 1), Actor: "ops", Reason: "a new machine"},
	}
	got := entries(t, p.Book, policy.KindBackend, "a")
	if len(got) != len(want) {
		t.Fatalf("%d entries, want %d", len(got), len(want))
	}
	for i, c := range got {
		if want[i].Revision == 0 { // Only the history tells the revision of a deletion.
			want[i].Revision = c.Revision
		}
		if c.Kind != policy.KindBackend || c.ID != "a" || c.Revision != want[i].Revision || c.Action != want[i].Action ||
			c.Actor != want[i].Actor || c.Reason != want[i].Reason ||
			!sameContent(c.Before, want[i].Before) || !sameContent(c.After, want[i].After) {
			t.Errorf("entry %d is %+v, want %+v", i, c, want[i])
		}
		if c.At.Before(begun.Add(-time.Second)) || c.At.After(time.Now().Add(time.Second)) || c.At.Location() != time.UTC {
			t.Errorf("entry %d is of %s", i, c.At)
		}
	}
	chained(t, got)
	if first, err := p.Book.History(t.Context(), policy.KindBackend, "a", 0, 2); err != nil || len(first) != 2 || first[0].Revision != again.Revision {
		t.Errorf("the newest two are %+v, %v", first, err)
	}
	for _, id := range []string{"c", "A", "a.b"} {
		if none := entries(t, p.Book, policy.KindBackend, id); len(none) > 0 {
			t.Errorf("%s, which never was, has the history %+v", id, none)
		}
	}
}

// historyTellsTheRequest checks that an entry says in which role and in which request the change was made.
func historyTellsTheRequest(t *testing.T, p Place) {
	write(t, p.Book, policy.Write{Kind: policy.KindBackend, ID: "a", Content: backend("a", 1), Actor: "ada", Role: "admin", RequestID: "r-1"})
	write(t, p.Book, policy.Write{Kind: policy.KindBackend, ID: "a", Actor: "api-router"})
	for _, got := range [][]policy.Change{entries(t, p.Book, policy.KindBackend, "a"), entries(t, p.Book, "", "")} {
		if len(got) != 2 || got[1].Role != "admin" || got[1].RequestID != "r-1" || got[0].Role != "" || got[0].RequestID != "" {
			t.Errorf("%+v", got)
		}
	}
}

// historyInPages reads the history from its end on, two entries at a time.
func historyInPages(t *testing.T, p Place) {
	for version := range 5 {
		write(t, p.Book, policy.Write{Kind: policy.KindBackend, ID: "a", Content: backend("a", version+1), Reason: fmt.Sprint(version)})
		write(t, p.Book, policy.Write{Kind: policy.KindPrice, ID: "b", Content: fmt.Appendf(nil, `{"kind":"Price","id":"b","version":%d}`, version)})
	}
	for _, of := range []struct {
		kind policy.Kind
		id   string
	}{{policy.KindBackend, "a"}, {policy.KindBackend, ""}, {"", ""}} {
		whole := entries(t, p.Book, of.kind, of.id)
		var pages []int64
		for before := int64(0); len(pages) <= len(whole); {
			page, err := p.Book.History(t.Context(), of.kind, of.id, before, 2)
			if err != nil {
				t.Fatal(err)
			}
			if len(page) == 0 {
				break
			}
			for _, c := range page {
				pages = append(pages, c.Revision)
			}
			before = page[len(page)-1].Revision
		}
		if len(pages) != len(whole) {
			t.Errorf("%s %s: the pages have %v, and the whole %d entries", of.kind, of.id, pages, len(whole))
			continue
		}
		for i := range whole {
			if whole[i].Revision != pages[i] {
				t.Errorf("%s %s: entry %d of the pages has revision %d, want %d", of.kind, of.id, i, pages[i], whole[i].Revision)
			}
		}
	}
	if none, err := p.Book.History(t.Context(), "", "", 1, 2); err != nil || len(none) > 0 {
		t.Errorf("before the first: %+v, %v", none, err)
	}
}

// historyInBytes reads a history that is larger than a page may be. No entry is lost between pages, and none is told twice.
func historyInBytes(t *testing.T, p Place) {
	pads := map[string]string{"a": strings.Repeat("x", 200<<10), "b": "x"}
	var all, ofOne []string // What is written, the newest first.
	for version := range 14 {
		for _, id := range []string{"a", "b"} {
			content := fmt.Appendf(nil, `{"kind":"Price","id":%q,"version":%d,"pad":%q}`, id, version, pads[id])
			entry := fmt.Sprint(id, " ", version)
			write(t, p.Book, policy.Write{Kind: policy.KindPrice, ID: id, Content: content, Reason: entry})
			if all = append([]string{entry}, all...); id == "a" {
				ofOne = append([]string{entry}, ofOne...)
			}
		}
	}
	for _, of := range []struct {
		kind policy.Kind
		id   string
		want []string
	}{{policy.KindPrice, "a", ofOne}, {policy.KindPrice, "", all}, {"", "", all}} {
		var got []string
		pages := 0
		for before := int64(0); len(got) <= len(of.want); pages++ {
			page, err := p.Book.History(t.Context(), of.kind, of.id, before, 1000)
			if err != nil {
				t.Fatal(err)
			}
			if len(page) == 0 {
				break
			}
			size := 0
			for i := range page {
				if size >= policy.HistoryBytes {
					t.Errorf("%s %s: a page of %d entries goes on after %d bytes", of.kind, of.id, len(page), size)
				}
				size += page[i].Size()
				got = append(got, page[i].Reason)
			}
			before = page[len(page)-1].Revision
		}
		if !slices.Equal(got, of.want) || pages < 2 {
			t.Errorf("%s %s: %d pages have %q, want %q", of.kind, of.id, pages, got, of.want)
		}
	}
}

func historyOfAll(t *testing.T, p Place) {
	var order []string
	for i := range 12 {
		kind, id := policy.KindBackend, fmt.Sprintf("x%d", i%5)
		content := backend(id, i+1)
		if i%2 == 1 {
			kind, content = policy.KindRoutingPolicy, route(id, fmt.Sprintf("m%d", i), "x0")
		}
		write(t, p.Book, policy.Write{Kind: kind, ID: id, Content: content, Actor: fmt.Sprintf("actor %d", i)})
		order = append(order, fmt.Sprintf("actor %d", i))
	}
	all := entries(t, p.Book, "", "")
	if len(all) != len(order) {
		t.Fatalf("%d entries, want %d", len(all), len(order))
	}
	for i, c := range all {
		if want := order[len(order)-1-i]; c.Actor != want {
			t.Errorf("entry %d is by %s, want %s", i, c.Actor, want)
		}
		if i > 0 && all[i-1].Revision <= c.Revision {
			t.Errorf("revision %d comes before %d", all[i-1].Revision, c.Revision)
		}
	}
	if some, err := p.Book.History(t.Context(), "", "", 0, 3); err != nil || len(some) != 3 || some[0].Actor != order[len(order)-1] {
		t.Errorf("the newest three are %+v, %v", some, err)
	}
}

func rollback(t *testing.T, p Place) {
	f := follow(t, p.Source)
	for version := 1; version <= 3; version++ {
		write(t, p.Book, policy.Write{Kind: policy.KindBackend, ID: "a", Content: backend("a", version)})
	}
	write(t, p.Book, policy.Write{Kind: policy.KindBackend, ID: "a"})
	old := entries(t, p.Book, policy.KindBackend, "a")[2] // The deletion, the third version, the second.
	restored := write(t, p.Book, policy.Write{Kind: policy.KindBackend, ID: "a", Content: old.After, Actor: "ops", Reason: "rollback"})
	if !sameJSON(restored.Content, backend("a", 2)) || restored.Revision <= old.Revision {
		t.Errorf("restored: %+v", restored)
	}
	f.holds(t, "the old version", map[string]int{"a": 2})
	if made := entries(t, p.Book, policy.KindBackend, "a"); len(made) != 5 || made[0].Reason != "rollback" {
		t.Errorf("%d entries, the newest %+v", len(made), made[0])
	}
}

func historyPastTheRouter(t *testing.T, p Place) {
	f := follow(t, p.Source)
	p.Put(t, policy.KindBackend, "a", backend("a", 1))
	f.holds(t, "the document", map[string]int{"a": 1})
	seen := readOne(t, p.Book, policy.KindBackend, "a")
	write(t, p.Book, policy.Write{Kind: policy.KindBackend, ID: "a", Content: backend("a", 2), If: &seen.Revision, Actor: "ops"})
	made := entries(t, p.Book, policy.KindBackend, "a")
	if newest := made[0]; newest.Action != policy.ActionUpdate || newest.Actor != "ops" || !sameContent(newest.Before, backend("a", 1)) {
		t.Errorf("the newest entry is %+v", newest)
	}
	for _, c := range made[1:] { // A place that notices such a change when it happens may keep an entry of it.
		if c.Actor != "" {
			t.Errorf("%+v has an actor", c)
		}
	}
}
