package etcdpolicy

import (
	"context"
	"fmt"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/ai-aas/api-router/internal/policy"
)

// keys lists those below a directory.
func (s *server) keys(t testing.TB, directory string) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), hang)
	defer cancel()
	answer, err := s.raw.Get(ctx, directory, clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for _, kv := range answer.Kvs {
		keys = append(keys, string(kv.Key))
	}
	return keys
}

// told is a history in short: action, version after, actor.
func told(changes []policy.Change) string {
	var lines []string
	for _, c := range changes {
		_, version, _ := strings.Cut(strings.TrimSuffix(string(c.After), "}"), `"max_concurrency":`)
		_, before, _ := strings.Cut(strings.TrimSuffix(string(c.Before), "}"), `"max_concurrency":`)
		lines = append(lines, fmt.Sprintf("%s %s>%s %s", c.Action, before, version, c.Actor))
	}
	return strings.Join(lines, ", ")
}

func TestChangesPastTheRouterAreInTheHistory(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		const key = "/api-router/backends/a"
		b := s.book(t)
		write := func(version int) {
			t.Helper()
			change := policy.Write{Kind: policy.KindBackend, ID: "a", Actor: "ops"}
			if version > 0 {
				change.Content = []byte(backend("a", version))
			}
			if _, err := b.Write(t.Context(), change); err != nil {
				t.Fatal(err)
			}
		}
		history := func(limit int) []policy.Change {
			t.Helper()
			changes, err := b.History(t.Context(), policy.KindBackend, "a", 0, limit)
			if err != nil {
				t.Fatal(err)
			}
			for i := range len(changes) - 1 {
				if changes[i].Revision <= changes[i+1].Revision {
					t.Errorf("revision %d comes before %d", changes[i].Revision, changes[i+1].Revision)
				}
			}
			return changes
		}
		var revisions []int64
		past := func(version int) { revisions = append(revisions, s.put(t, key, backend("a", version))) }
		past(1)
		past(2)
		write(3)
		past(4)
		write(0)
		write(5)
		s.put(t, "/elsewhere", "x")
		gone := s.remove(t, key)
		s.put(t, "/elsewhere", "y")
		past(6)
		write(7)
		past(8)
		want := "update 7>8 , update 6>7 ops, create >6 , delete 5> , create >5 ops, delete 4> ops, update 3>4 , update 2>3 ops, update 1>2 , create >1 "
		got := history(100)
		if told(got) != want {
			t.Errorf("the history is\n%s, want\n%s", told(got), want)
		}
		if got[3].Revision != gone || got[9].Revision != revisions[0] {
			t.Errorf("the deletion is at %d, want %d; the first at %d, want %d", got[3].Revision, gone, got[9].Revision, revisions[0])
		}
		if some := history(3); told(some) != "update 7>8 , update 6>7 ops, create >6 " {
			t.Errorf("the newest three are %s", told(some))
		}
		if one := history(1); told(one) != "update 7>8 " {
			t.Errorf("the newest is %s, though another page has what was before it", told(one))
		}
		s.compact(t, revisions[3]) // That of 6.
		want = "update 7>8 , update 6>7 ops, create >6 , create >5 ops, delete 4> ops, update 2>3 ops"
		if got := told(history(100)); got != want {
			t.Errorf("after a compaction the history is\n%s, want\n%s", got, want)
		}
	})
}

func TestEntriesOfAnEarlierVersionAreRead(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		b := s.book(t)
		for version := 1; version <= 2; version++ {
			_, err := b.Write(t.Context(), policy.Write{Kind: policy.KindBackend, ID: "a", Content: []byte(backend("a", version)), Actor: "ops", Role: "admin", RequestID: "r-1"})
			if err != nil {
				t.Fatal(err)
			}
		}
		s.put(t, "/api-router/history/backends/old/00000000000000000001",
			`{"action":"create","kind":"Backend","id":"old","before":null,"after":`+backend("old", 1)+`,"actor":"olga","reason":"new","at":"2026-01-02T03:04:05Z"}`)
		all, err := b.History(t.Context(), "", "", 0, 0)
		if err != nil || len(all) != 3 {
			t.Fatalf("%+v, %v", all, err)
		}
		if old := all[0]; old.ID != "old" || old.Actor != "olga" || old.Role != "" || old.RequestID != "" || old.Reason != "new" || old.At.IsZero() {
			t.Errorf("%+v", old)
		}
		if all[1].Role != "admin" || all[1].RequestID != "r-1" {
			t.Errorf("%+v", all[1])
		}
	})
}

func TestTheHistoryOfADocumentIsBounded(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		b := s.book(t)
		for _, id := range []string{"a", "a.b"} {
			for version := 1; version <= kept+5; version++ {
				_, err := b.Write(t.Context(), policy.Write{Kind: policy.KindBackend, ID: id, Content: []byte(backend(id, version)), Actor: "ops"})
				if err != nil {
					t.Fatal(err)
				}
			}
			if keys := s.keys(t, "/api-router/history/backends/"+id+"/"); len(keys) != kept {
				t.Errorf("%d entries of %s are kept, want %d", len(keys), id, kept)
			}
		}
		if all, err := b.History(t.Context(), "", "", 0, 0); err != nil || len(all) != 2*kept {
			t.Errorf("%d entries of all, %v; want %d", len(all), err, 2*kept)
		}
		if all, err := b.History(t.Context(), policy.KindMark, "", 0, 0); err != nil || len(all) != 0 {
			t.Errorf("%d entries of marks, %v; want none", len(all), err)
		}
		changes, err := b.History(t.Context(), policy.KindBackend, "a", 0, 0)
		if err != nil || len(changes) < kept || !same(changes[0].After, []byte(backend("a", kept+5))) {
			t.Errorf("%d entries, %v", len(changes), err)
		}
	})
}

// A document that is larger than the router takes can be put past it, and has to be mended through it.
func TestADocumentThatIsTooLargeCanBeMended(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		b := s.book(t)
		w := watch(t, b)
		large := strings.TrimSuffix(backend("a", 1), "}") + `,"pad":"` + strings.Repeat("<", 1<<20) + `"}`
		s.put(t, "/api-router/backends/a", large)
		eventually(t, "a problem", func() (string, bool) {
			if w.Table() == nil || len(w.Table().Problems()) == 0 {
				return "none", false
			}
			p := w.Table().Problems()[0]
			return p.String(), p.ID == "a" && p.File == "/api-router/backends/a" && strings.Contains(p.Message, "larger than 256 KiB")
		})
		if _, err := b.Write(t.Context(), policy.Write{Kind: policy.KindBackend, ID: "a", Content: []byte(large)}); err == nil {
			t.Error("it was written through the router")
		}
		for _, content := range []string{backend("a", 2), ""} {
			change := policy.Write{Kind: policy.KindBackend, ID: "a"}
			if content != "" {
				change.Content = []byte(content)
			}
			if _, err := b.Write(t.Context(), change); err != nil {
				t.Error(err)
			}
			s.put(t, "/api-router/backends/a", large)
		}
	})
}
