package etcdpolicy

import (
	"context"
	"fmt"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/ai-aas/api-router/internal/policy"
)

// An etcd that was restored from a snapshot begins at an older revision. A watch that was opened on what there was before waits for
// changes that are far away, and misses all that come until then.
func TestARevisionThatGoesBackEndsTheWatch(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		head := s.put(t, "/api-router/backends/a", backend("a", 1))
		b := s.book(t)
		ctx, cancel := context.WithCancel(t.Context())
		w := b.subscribe(ctx, head+1000)
		defer func() { cancel(); <-w.ended }()
		for range policy.Kinds() {
			select {
			case answer := <-w.answers:
				if err := w.take(answer, &ledger{}); err != nil {
					t.Fatal(err)
				}
			case <-time.After(hang):
				t.Fatal("the watch was not opened")
			}
		}
		if err := w.check(ctx); err == nil {
			t.Error("a watch ahead of its etcd counts as alive")
		}
	})
}

// Documents that were copied into another etcd, by make-mirror for one, bring a history whose keys name revisions that etcd is far from.
func TestAHistoryFromAnotherEtcdDoesNotKeepAnybodyFromWriting(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		for i := range kept {
			s.put(t, fmt.Sprintf("/api-router/history/backends/a/%020d", 1_000_000+i), `{"action":"update","kind":"Backend","id":"a","before":null,"after":{},"actor":"old"}`)
		}
		b := s.book(t)
		for version := range kept + 2 {
			change := policy.Write{Kind: policy.KindBackend, ID: "a", Content: []byte(backend("a", version+1)), Actor: "ops"}
			if _, err := b.Write(t.Context(), change); err != nil {
				t.Fatal(err)
			}
			changes, err := b.History(t.Context(), policy.KindBackend, "a", 0, 1)
			if err != nil || len(changes) != 1 || changes[0].Actor != "ops" || !same(changes[0].After, change.Content) {
				t.Fatalf("after version %d the newest of the history is %+v, %v", version+1, changes, err)
			}
		}
		if keys := s.keys(t, "/api-router/history/backends/a/"); len(keys) != kept {
			t.Errorf("%d entries are kept, want %d", len(keys), kept)
		}
	})
}

// A kill switch has to work whatever else there is.
func TestMarksAreReadBeforeEverythingElse(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		s.fill(t, 0, policy.MaxDocuments+1, func(id string) clientv3.Op {
			return clientv3.OpPut("/api-router/prices/"+id, `{"model":"`+id+`","valid_from":"2026-01-01T00:00:00Z","usd_per_million":{"input":1,"output":1}}`)
		})
		s.put(t, "/api-router/marks/backend.a", `{"backend":"a","state":"disabled"}`)
		f := follow(t, s.book(t))
		holds := func(want string) {
			t.Helper()
			eventually(t, want, func() (string, bool) {
				n := 0
				for _, d := range f.last.Load().Documents {
					if d.Mark != nil {
						n++
					}
				}
				return fmt.Sprint(n), fmt.Sprint(n) == want
			})
		}
		holds("1")
		s.put(t, "/api-router/marks/backend.b", `{"backend":"b","state":"disabled"}`)
		holds("2")
	})
}

// Somebody may put YAML. It is read as a document, and has to be shown as one.
func TestADocumentInYAMLIsShownAsJSON(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		b := s.book(t)
		for text, want := range map[string]string{
			"backend: y\nstate: disabled\n": `{"backend":"y","state":"disabled"}`,
			"backend: [":                    `"backend: ["`,
			"two\nlines":                    `"two\nlines"`,
		} {
			s.put(t, "/api-router/marks/backend.y", text)
			stored, err := b.Read(t.Context(), policy.KindMark, "backend.y")
			if err != nil || len(stored) != 1 || string(stored[0].Content) != want {
				t.Errorf("%q is shown as %+v, %v; want %s", text, stored, err, want)
			}
		}
	})
}
