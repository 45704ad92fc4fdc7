package etcdpolicy

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/ai-aas/api-router/internal/policy"
)

func fixture(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "legacy", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// The earlier service had its policies at a key of the id or at one of organization and model, which may contain "/".
func TestPoliciesOfTheEarlierServiceRoute(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		for _, id := range []string{"vllm", "spare"} {
			s.put(t, "/api-router/backends/"+id, backend(id, 1))
		}
		b := s.book(t)
		w := watch(t, b)
		w.until(t, "spare=1 vllm=1")
		for _, test := range []struct{ key, fixture, id, organization, model string }{
			{"policies/global-camel", "camel.json", "global-camel", "anyone", "unsloth/gpt-oss-20b"},
			{"policies/*/unsloth/gpt-oss-20b", "camel.json", "global-camel", "anyone", "unsloth/gpt-oss-20b"},
			{"policies/org-1-snake", "snake.json", "org-1-snake", "org-1", "llama/3.1/70b"},
			{"policies/org-1/llama/3.1/70b", "snake.json", "org-1-snake", "org-1", "llama/3.1/70b"},
		} {
			t.Run(test.key, func(t *testing.T) {
				key := "/api-router/" + test.key
				s.put(t, key, fixture(t, test.fixture))
				routed := func() bool {
					found, ok := w.Table().Lookup(test.organization, test.model, "key")
					return ok && found.Policy == test.id
				}
				eventually(t, "a route", func() (string, bool) { return "none", routed() })
				stored, err := b.Read(t.Context(), policy.KindRoutingPolicy, test.id)
				if err != nil || len(stored) != 1 || !stored[0].Legacy || stored[0].ID != test.id || stored[0].Place != key {
					t.Fatalf("read: %+v, %v", stored, err)
				}
				if all, err := b.Read(t.Context(), policy.KindRoutingPolicy, ""); err != nil || len(all) != 1 || all[0].ID != test.id {
					t.Errorf("read of all: %+v, %v", all, err)
				}
				s.remove(t, key)
				eventually(t, "no route", func() (string, bool) { return "one", !routed() })
			})
		}
	})
}

func TestAPolicyMovesToItsOwnKeyWhenItIsChanged(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		const older, own, id = "/api-router/policies/org-1/llama/3.1/70b", "/api-router/policies/org-1-snake", "org-1-snake"
		b := s.book(t)
		s.put(t, older, fixture(t, "snake.json"))
		s.put(t, "/api-router/policies/*/other", `{"policy_id":"other","backends":[{"backend_id":"vllm"}]}`)
		found, err := b.Read(t.Context(), policy.KindRoutingPolicy, id)
		if err != nil {
			t.Fatal(err)
		}
		content := `{"kind":"RoutingPolicy","id":"org-1-snake","organization":"org-1","model":"llama/3.1/70b","backends":[{"id":"vllm"}]}`
		change := policy.Write{Kind: policy.KindRoutingPolicy, ID: id, Content: []byte(content), If: new(int64), Actor: "ops"}
		if _, err := b.Write(t.Context(), change); !errors.Is(err, policy.ErrConflict) {
			t.Errorf("created although it is there: %v", err)
		}
		change.If = &found[0].Revision
		written, err := b.Write(t.Context(), change)
		if err != nil || written.Place != own || written.Legacy {
			t.Fatalf("written: %+v, %v", written, err)
		}
		if keys := s.keys(t, "/api-router/policies/"); !slices.Equal(keys, []string{"/api-router/policies/*/other", own}) {
			t.Errorf("the policies are at %q", keys)
		}
		made, err := b.History(t.Context(), policy.KindRoutingPolicy, id, 0, 10)
		if err != nil || len(made) != 1 || made[0].Action != policy.ActionUpdate || !same(made[0].Before, []byte(fixture(t, "snake.json"))) {
			t.Errorf("the history is %+v, %v", made, err)
		}
		if _, err := b.Write(t.Context(), policy.Write{Kind: policy.KindRoutingPolicy, ID: "other", Actor: "ops"}); err != nil {
			t.Error(err)
		}
		if keys := s.keys(t, "/api-router/policies/"); !slices.Equal(keys, []string{own}) {
			t.Errorf("after the deletion the policies are at %q", keys)
		}
	})
}

// What is broken has no id of its own, and can be deleted all the same.
func TestABrokenPolicyAtAnOlderKeyCanBeDeleted(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		b := s.book(t)
		for _, key := range []string{"/api-router/policies/org 1/m", "/api-router/backends/a/b", "/api-router/policies/"} {
			s.put(t, key, `{"broken`)
			kind, _ := b.name(key)
			all, err := b.Read(t.Context(), kind, "")
			if err != nil || len(all) != 1 {
				t.Fatalf("%s: %+v, %v", key, all, err)
			}
			if all[0].ID == "" { // Only etcdctl can take it away: no document can have that key.
				continue
			}
			if _, err := b.Write(t.Context(), policy.Write{Kind: kind, ID: all[0].ID}); err != nil {
				t.Errorf("%s as %q: %v", key, all[0].ID, err)
			}
			if made, err := b.History(t.Context(), kind, all[0].ID, 0, 10); err != nil || len(made) != 2 && len(made) != 1 {
				t.Errorf("%s: the history is %+v, %v", key, made, err)
			}
		}
	})
}

// Of two policies with one id, that is routed by which is shown and changed under it: the one at the key of the id.
func TestAPolicyAtItsOwnKeyComesBeforeOneAtAnOlderKey(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		s.put(t, "/api-router/backends/a", backend("a", 1))
		s.put(t, "/api-router/policies/acme/older", `{"PolicyID":"p","Backends":[{"BackendID":"a","Weight":1}]}`)
		s.put(t, "/api-router/policies/p", `{"model":"own","backends":[{"id":"a"}]}`)
		w := watch(t, s.book(t))
		routed := func(want string) {
			t.Helper()
			eventually(t, want, func() (string, bool) {
				if w.Table() == nil {
					return "no table", false
				}
				d, _ := w.Table().Find(policy.KindRoutingPolicy, "p")
				if d.Policy == nil {
					return "no policy", false
				}
				got := fmt.Sprintf("%s, %v", d.Policy.Model, w.Table().Problems())
				return got, got == want
			})
		}
		routed("own, [/api-router/policies/acme/older: RoutingPolicy p: this id is already used by the RoutingPolicy at /api-router/policies/p (a good version keeps serving)]")
		s.remove(t, "/api-router/policies/p")
		routed("older, []")
	})
}
