package auth

import (
	"maps"
	"testing"

	"pgregory.net/rapid"
)

// TestShardsHoldWhatAMapWouldHold puts keys in and takes them out, with ids that meet in the same places.
func TestShardsHoldWhatAMapWouldHold(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, want := &shard{}, map[keyID]int64{}
		id := rapid.Custom(func(t *rapid.T) (id keyID) {
			id[0] = byte(rapid.IntRange(0, 200).Draw(t, "id"))
			return id
		})
		for range rapid.IntRange(0, 500).Draw(t, "steps") {
			id := id.Draw(t, "which")
			at, ok := s.find(id)
			if _, has := want[id]; has != ok || ok && s.at(at).expires != want[id] {
				t.Fatalf("%v is there: %v, and should be: %v", id, ok, has)
			}
			switch {
			case !ok:
				e := entry{id: id, expires: int64(len(want)) + 1}
				s.add(&e)
				want[id] = e.expires
			case rapid.Bool().Draw(t, "take out"):
				if gone := s.remove(at); gone.id != id {
					t.Fatalf("%v went in the place of %v", gone.id, id)
				}
				delete(want, id)
			}
		}
		got := map[keyID]int64{}
		for _, e := range s.all() {
			got[e.id] = e.expires
			if at, ok := s.find(e.id); !ok || s.at(at).id != e.id {
				t.Fatalf("%v is not found", e.id)
			}
		}
		if !maps.Equal(got, want) {
			t.Fatalf("got %v, want %v", got, want)
		}
	})
}

// TestGrantsAreSharedAndGivenBack follows the numbers of grants through changes.
func TestGrantsAreSharedAndGivenBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		table := newTable()
		want := map[keyID]string{}
		for range rapid.IntRange(0, 200).Draw(t, "steps") {
			id := keyID{byte(rapid.IntRange(0, 20).Draw(t, "key"))}
			if rapid.IntRange(0, 3).Draw(t, "what") == 0 {
				table.drop(id)
				delete(want, id)
			} else {
				project := rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(t, "project")
				table.put(entry{id: id, pepper: 1, grant: table.grant("o", project, &Scopes{Tags: map[string]string{"p": project}})}, nil)
				want[id] = project
			}
			live := map[string]bool{}
			for id, project := range want {
				_, g, ok := table.find(id)
				if !ok || g.project != project || g.scopes.Tags["p"] != project {
					t.Fatalf("the key %v has another's scopes", id)
				}
				live[project] = true
			}
			if len(table.grants) != len(live) || len(*table.list.Load()) > 5 || int(table.count.Load()) != len(want) {
				t.Fatalf("%d grants, %d numbers and %d keys for %d grants and %d keys", len(table.grants), len(*table.list.Load()), table.count.Load(), len(live), len(want))
			}
		}
	})
}
