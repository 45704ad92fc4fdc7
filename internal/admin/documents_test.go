package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/ai-aas/api-router/internal/adminapi"
	"github.com/ai-aas/api-router/internal/policy"
)

// refusal takes the error of the admin API out of err.
func refusal(t *testing.T, err error) *adminapi.Error {
	t.Helper()
	e, ok := errors.AsType[*adminapi.Error](err)
	if !ok {
		t.Fatalf("%v is not the answer of an admin API", err)
	}
	return e
}

func TestTheLifeOfADocument(t *testing.T) {
	h, ctx := newHouse(t), t.Context()
	c := h.client(adminapi.RoleAdmin)

	made, err := c.Put(ctx, adminapi.Backends, "a", []byte("url: http://127.0.0.1:9001 # the first\n"), adminapi.If{Revision: new(int64), Reason: "first"})
	must(t, err)
	if made.Outcome != adminapi.Created || made.Revision == 0 || string(made.Content) != `{"kind":"Backend","id":"a","url":"http://127.0.0.1:9001"}` {
		t.Errorf("created: %+v, %s", made, made.Content)
	}
	same, err := c.Put(ctx, adminapi.Backends, "a", []byte(backendA), adminapi.If{})
	must(t, err)
	if same.Outcome != adminapi.Unchanged || same.Revision != made.Revision {
		t.Errorf("the same again: %+v", same)
	}
	changed, err := c.Put(ctx, adminapi.Backends, "a", []byte(`{"url":"http://127.0.0.1:9009"}`), adminapi.If{Revision: &made.Revision, Reason: "moved"})
	must(t, err)
	if changed.Outcome != adminapi.Changed || changed.Revision <= made.Revision {
		t.Errorf("changed: %+v", changed)
	}
	h.settle()
	got, err := c.Get(ctx, adminapi.Backends, "a")
	must(t, err)
	if got.Status != adminapi.InForce || got.Revision != changed.Revision || got.Backend == nil || got.Backend.URL != "http://127.0.0.1:9009" {
		t.Errorf("read: %+v, %+v", got, got.Backend)
	}
	gone, err := c.Delete(ctx, adminapi.Backends, "a", adminapi.If{Revision: &changed.Revision, Reason: "sold"})
	must(t, err)
	if gone.Outcome != adminapi.Deleted || gone.ID != "a" {
		t.Errorf("deleted: %+v", gone)
	}
	if _, err := c.Get(ctx, adminapi.Backends, "a"); refusal(t, err).Code != "not_found" {
		t.Errorf("after the deletion: %v", err)
	}
	back, err := c.Rollback(ctx, adminapi.Backends, "a", adminapi.Rollback{Revision: made.Revision})
	must(t, err)
	if back.Outcome != adminapi.Created || !strings.Contains(string(back.Content), ":9001") {
		t.Errorf("rolled back: %+v", back)
	}

	history, err := c.History(ctx, adminapi.Backends, "a", adminapi.HistoryPage{})
	must(t, err)
	var told []string
	for _, change := range history.Items {
		told = append(told, fmt.Sprint(change.Action, " by ", change.Actor, ": ", change.Reason))
		if change.At.IsZero() || change.Kind != "Backend" || change.ID != "a" {
			t.Errorf("%+v", change)
		}
	}
	want := fmt.Sprintf("[create by the-admin: rollback to revision %d delete by the-admin: sold update by the-admin: moved create by the-admin: first]", made.Revision)
	if fmt.Sprint(told) != want {
		t.Errorf("history:\n%s\nwant\n%s", told, want)
	}
	audit, err := h.client(adminapi.RoleViewer).Audit(ctx, adminapi.HistoryPage{Limit: 2})
	must(t, err)
	if len(audit.Items) != 2 || audit.Items[0].Revision != history.Items[0].Revision {
		t.Errorf("audit: %+v", audit)
	}
	if log := h.log.String(); strings.Count(log, `"a document was `) != 4 || !strings.Contains(log, `"actor":"the-admin"`) || !strings.Contains(log, `"reason":"sold"`) {
		t.Errorf("log:\n%s", log)
	}
}

func TestConditionsThatDoNotHoldChangeNothing(t *testing.T) {
	h := newHouse(t)
	h.furnish()
	for name, tc := range map[string]struct {
		method, path, body string
		headers            []string
		status             int
		code, says         string
	}{
		"an old revision":      {"PUT", "/backends/a", backendA, []string{"If-Match", `"9999"`}, 412, "precondition_failed", "backend a is at revision "},
		"to be new, and is":    {"PUT", "/policies/p", policyP, []string{"If-None-Match", "*"}, 412, "precondition_failed", "policy p exists already, at revision "},
		"one that is not":      {"PUT", "/backends/c", `{"url":"http://127.0.0.1:1"}`, []string{"If-Match", `"1"`}, 412, "precondition_failed", "does not exist any more"},
		"deleting an old one":  {"DELETE", "/backends/a", "", []string{"If-Match", `"9999"`}, 412, "precondition_failed", "read it again"},
		"deleting what is not": {"DELETE", "/backends/c", "", nil, 404, "not_found", "there is no backend c"},
		"deleting the absent":  {"DELETE", "/backends/a", "", []string{"If-None-Match", "*"}, 400, "invalid_request", "has to exist"},
		"no quotes":            {"PUT", "/backends/a", backendA, []string{"If-Match", "17"}, 400, "invalid_request", "in quotes"},
		"a weak tag":           {"PUT", "/backends/a", backendA, []string{"If-Match", `W/"17"`}, 400, "invalid_request", "in quotes"},
		"any revision":         {"PUT", "/backends/a", backendA, []string{"If-Match", "*"}, 400, "invalid_request", "in quotes"},
		"a list":               {"PUT", "/backends/a", backendA, []string{"If-Match", `"1", "2"`}, 400, "invalid_request", "in quotes"},
		"revision nought":      {"PUT", "/backends/a", backendA, []string{"If-Match", `"0"`}, 400, "invalid_request", "in quotes"},
		"a sign":               {"PUT", "/backends/a", backendA, []string{"If-Match", `"+1"`}, 400, "invalid_request", "in quotes"},
		"a tag to be absent":   {"PUT", "/backends/a", backendA, []string{"If-None-Match", `"1"`}, 400, "invalid_request", "takes * alone"},
		"both":                 {"PUT", "/backends/a", backendA, []string{"If-Match", `"1"`, "If-None-Match", "*"}, 400, "ambiguous_request", "one condition"},
	} {
		t.Run(name, func(t *testing.T) {
			got := h.send(adminapi.RoleAdmin, tc.method, adminapi.Prefix+tc.path, tc.body, tc.headers...)
			if got.StatusCode != tc.status || got.code() != tc.code || !strings.Contains(string(got.body), tc.says) {
				t.Errorf("%d %s", got.StatusCode, got.body)
			}
		})
	}
}

func TestTwoWritersWithOneRevisionAreNotBothHeard(t *testing.T) {
	h := newHouse(t)
	h.furnish()
	const writers, rounds = 8, 5
	for round := range rounds {
		got, err := h.client(adminapi.RoleViewer).Get(t.Context(), adminapi.Backends, "a")
		must(t, err)
		outcomes := make([]string, writers)
		var all sync.WaitGroup
		for i := range writers {
			all.Go(func() {
				document := fmt.Appendf(nil, `{"url":"http://127.0.0.1:%d"}`, 10_000+round*writers+i)
				_, err := h.client(adminapi.RoleAdmin).Put(t.Context(), adminapi.Backends, "a", document, adminapi.If{Revision: &got.Revision})
				outcomes[i] = "written"
				if e, ok := errors.AsType[*adminapi.Error](err); ok {
					outcomes[i] = e.Code
				} else if err != nil {
					outcomes[i] = err.Error()
				}
			})
		}
		all.Wait()
		written := 0
		for _, outcome := range outcomes {
			if outcome == "written" {
				written++
			} else if outcome != "precondition_failed" {
				t.Errorf("%s", outcome)
			}
		}
		if written != 1 {
			t.Fatalf("%d of %d were heard: %v", written, writers, outcomes)
		}
	}
	history, err := h.client(adminapi.RoleViewer).History(t.Context(), adminapi.Backends, "a", adminapi.HistoryPage{})
	must(t, err)
	if len(history.Items) != 1+rounds {
		t.Errorf("%d changes are in the history", len(history.Items))
	}
}

func TestWhatCannotBeUsedIsRefusedWithEveryProblem(t *testing.T) {
	h := newHouse(t)
	h.furnish()
	for name, tc := range map[string]struct {
		path, body string
		says       []string
	}{
		"two mistakes": {"/backends/c", "url: ftp://x\nengine: vlm\n", []string{
			"2 things are wrong", "request:1:6: Backend c: url must begin with http", "request:2:9: Backend c: engine must be one of", "did you mean vllm?",
		}},
		"not YAML":      {"/backends/c", "{", []string{"request:1"}},
		"another id":    {"/backends/c", backendA, []string{`id`}},
		"another kind":  {"/policies/a", backendA, []string{`kind`}},
		"two documents": {"/backends/c", "url: http://127.0.0.1:1\n---\nurl: http://127.0.0.1:2\n", []string{"second document"}},
		"an unknown backend": {"/policies/q", `{"model":"other","backends":[{"id":"from-the-environmentt"}]}`, []string{
			`backend "from-the-environmentt" does not exist; did you mean from-the-environment?`,
		}},
		"a model that is routed": {"/policies/q", `{"model":"alias","backends":[{"id":"a"}]}`, []string{
			`RoutingPolicy`, `model "alias" of organization "*" is already routed`,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			got := h.send(adminapi.RoleAdmin, http.MethodPut, adminapi.Prefix+tc.path, tc.body)
			if got.StatusCode != http.StatusBadRequest || got.code() != "invalid_request" {
				t.Fatalf("%d %s", got.StatusCode, got.body)
			}
			for _, says := range tc.says {
				if !strings.Contains(strings.ReplaceAll(string(got.body), `\"`, `"`), says) {
					t.Errorf("%s\ndoes not say %s", got.body, says)
				}
			}
		})
	}
	list, err := h.client(adminapi.RoleViewer).Audit(t.Context(), adminapi.HistoryPage{})
	must(t, err)
	if len(list.Items) != 3 {
		t.Errorf("%d changes: something was written", len(list.Items))
	}
}

// A policy may follow its backend at once: that the table has not seen the backend yet is no reason to refuse it.
func TestADocumentIsCheckedBesideWhatWasJustWritten(t *testing.T) {
	h := newHouse(t)
	c := h.client(adminapi.RoleAdmin)
	for i := range 20 {
		id := fmt.Sprintf("new-%d", i)
		_, err := c.Put(t.Context(), adminapi.Backends, id, []byte(`{"url":"http://127.0.0.1:1"}`), adminapi.If{})
		must(t, err)
		_, err = c.Put(t.Context(), adminapi.Policies, id, fmt.Appendf(nil, `{"model":%q,"backends":[{"id":%q}]}`, id, id), adminapi.If{})
		must(t, err)
		_, err = c.Delete(t.Context(), adminapi.Policies, id, adminapi.If{})
		must(t, err)
		_, err = c.Put(t.Context(), adminapi.Policies, id+"-again", fmt.Appendf(nil, `{"model":%q,"backends":[{"id":%q}]}`, id, id), adminapi.If{})
		must(t, err)
	}
}

func TestWhatIsWrongInTheBookIsShownWithItsPlace(t *testing.T) {
	h := newHouse(t)
	h.furnish()
	// Past the checks of the API, as another writer of the same book could.
	for _, w := range []policy.Write{
		{Kind: policy.KindRoutingPolicy, ID: "p", Content: []byte(`{"model":"m","backends":[{"id":"gone"}]}`)},
		{Kind: policy.KindRoutingPolicy, ID: "q", Content: []byte(`{"model":"other","wieght":1,"backends":[{"id":"a"}]}`)},
		{Kind: policy.KindRoutingPolicy, ID: "r", Content: []byte(`{"model":"third","fallback_models":["nothing"],"backends":[{"id":"a"}]}`)},
	} {
		_, err := h.Book.Write(t.Context(), w)
		must(t, err)
	}
	h.settle()
	c := h.client(adminapi.RoleViewer)
	list, err := c.List(t.Context(), adminapi.Policies, true)
	must(t, err)
	want := map[string]struct {
		status adminapi.Status
		says   string
	}{
		"p": {adminapi.LastGood, `backend "gone" does not exist`},
		"q": {adminapi.Refused, `unknown field "wieght"`},
		"r": {adminapi.InForce, `fallback model "nothing" has no routing policy`},
	}
	if len(list.Items) != len(want) {
		t.Errorf("%+v", list.Items)
	}
	for _, d := range list.Items {
		if d.Status != want[d.ID].status || len(d.Problems) != 1 || !strings.Contains(d.Problems[0].Message, want[d.ID].says) || d.Problems[0].Place == "" {
			t.Errorf("%s is %s: %+v", d.ID, d.Status, d.Problems)
		}
	}
	if backends, err := c.List(t.Context(), adminapi.Backends, true); err != nil || len(backends.Items)+len(backends.Problems) > 0 {
		t.Errorf("backends: %+v, %v", backends, err)
	}
}

func TestAPolicyThatLostABackendIsNotInForceAsWritten(t *testing.T) {
	h := newHouse(t)
	h.furnish()
	_, err := h.client(adminapi.RoleAdmin).Delete(t.Context(), adminapi.Backends, "b", adminapi.If{})
	must(t, err)
	eventually(t, "the policy goes on without it", func() bool {
		p, err := h.client(adminapi.RoleViewer).Get(t.Context(), adminapi.Policies, "p")
		must(t, err)
		return p.Status == adminapi.LastGood && len(p.Problems) == 1 && strings.Contains(p.Problems[0].Message, `backend "b" does not exist`)
	})
}

func TestPricesAndPoliciesOfTheEarlierServiceAreDocumentsLikeOthers(t *testing.T) {
	h, ctx := newHouse(t), t.Context()
	h.furnish()
	c := h.client(adminapi.RoleAdmin)
	price := "model: m\nvalid_from: 2026-01-01T00:00:00Z\nusd_per_million: {input: 0.10, output: 0.40}\n"
	_, err := c.Put(ctx, adminapi.Prices, "m-2026", []byte(price), adminapi.If{})
	must(t, err)
	earlier := `{"PolicyID":"old","OrganizationID":"acme","Model":"m","Backends":[{"BackendID":"a","Weight":100}]}`
	_, err = c.Put(ctx, adminapi.Policies, "old", []byte(earlier), adminapi.If{})
	must(t, err)
	h.settle()
	got, err := c.Get(ctx, adminapi.Prices, "m-2026")
	must(t, err)
	if want := `{"kind":"Price","id":"m-2026","model":"m","valid_from":"2026-01-01T00:00:00Z","usd_per_million":{"input":0.10,"output":0.40}}`; string(got.Content) != want || got.Status != adminapi.InForce {
		t.Errorf("%s is %s", got.Content, got.Status)
	}
	got, err = c.Get(ctx, adminapi.Policies, "old")
	must(t, err)
	if string(got.Content) != earlier || !got.Legacy || got.Status != adminapi.InForce {
		t.Errorf("%s is %s, legacy %v", got.Content, got.Status, got.Legacy)
	}
}

func TestDocumentsOfTheEnvironmentAreListedToo(t *testing.T) {
	h := newHouse(t)
	h.furnish()
	c := h.client(adminapi.RoleViewer)
	list, err := c.List(t.Context(), adminapi.Backends, false)
	must(t, err)
	var ids []string
	for _, d := range list.Items {
		ids = append(ids, d.ID)
	}
	if fmt.Sprint(ids) != "[a b from-the-environment]" || list.Items[2].Place != "environment" || list.Items[2].Status != adminapi.InForce {
		t.Errorf("%+v", list.Items)
	}
	if one, err := c.Get(t.Context(), adminapi.Backends, "from-the-environment"); err != nil || one.Revision != 0 || one.Backend == nil {
		t.Errorf("%+v, %v", one, err)
	}
}

func TestFilesAreReadAndNotWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "policies.yaml")
	must(t, os.WriteFile(path, []byte(backendA+"\n---\n"+`{"kind":"RoutingPolicy","id":"p","model":"m","fallback_models":["x"],"backends":[{"id":"a"}]}`+"\n"), 0o600))
	h := openHouse(t, policy.FileSource(path), policy.FileBook(path))
	c := h.client(adminapi.RoleAdmin)
	list, err := c.List(t.Context(), adminapi.Policies, false)
	must(t, err)
	if len(list.Items) != 1 || list.Items[0].Status != adminapi.InForce || len(list.Items[0].Problems) != 1 || list.Items[0].Revision != 0 {
		t.Errorf("%+v", list.Items)
	}
	for method, body := range map[string]string{http.MethodPut: backendA, http.MethodDelete: ""} {
		got := h.send(adminapi.RoleAdmin, method, adminapi.Prefix+"/backends/a", body)
		if got.StatusCode != http.StatusMethodNotAllowed || got.Header.Get("Allow") != "GET, HEAD" || !strings.Contains(string(got.body), path) {
			t.Errorf("%s: %d, Allow %q, %s", method, got.StatusCode, got.Header.Get("Allow"), got.body)
		}
	}
	_, err = c.Mark(t.Context(), adminapi.MarkRequest{Backend: "a", State: "draining"})
	if e := refusal(t, err); e.Status != http.StatusMethodNotAllowed {
		t.Errorf("mark: %v", e)
	}
	if _, err := c.History(t.Context(), adminapi.Backends, "a", adminapi.HistoryPage{}); refusal(t, err).Code != "not_found" {
		t.Errorf("history: %v", err)
	}
	must(t, os.WriteFile(path, []byte(strings.ReplaceAll(backendA, "http:", "ftp:")), 0o600))
	eventually(t, "the broken backend is served as it was", func() bool {
		got, err := c.Get(t.Context(), adminapi.Backends, "a")
		must(t, err)
		return got.Status == adminapi.LastGood && strings.Contains(string(got.Content), "ftp:")
	})
}

func TestWithoutABookTheTableIsShown(t *testing.T) {
	h := openHouse(t, policy.StaticSource("test", policy.Document{Backend: new(policy.NewBackend("a", "http://127.0.0.1:1"))}), nil)
	c := h.client(adminapi.RoleAdmin)
	list, err := c.List(t.Context(), adminapi.Backends, false)
	must(t, err)
	if len(list.Items) != 2 || !list.Stale || list.StaleReason == "" {
		t.Errorf("%+v", list)
	}
	if _, err := c.Get(t.Context(), adminapi.Backends, "a"); err != nil {
		t.Error(err)
	}
	_, err = c.Get(t.Context(), adminapi.Backends, "c")
	if refusal(t, err).Code != "not_found" {
		t.Error(err)
	}
	for name, err := range map[string]error{
		"put":  second(c.Put(t.Context(), adminapi.Backends, "a", []byte(backendA), adminapi.If{})),
		"mark": second(c.Mark(t.Context(), adminapi.MarkRequest{Backend: "a", State: "draining"})),
	} {
		if refusal(t, err).Code != "method_not_allowed" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// A book that is gone takes no list away, and says of a change that it cannot be made.
func TestWhenTheBookIsGoneTheTableStays(t *testing.T) {
	h := newHouse(t)
	h.furnish()
	must(t, h.Book.(interface{ Close() error }).Close())
	c := h.client(adminapi.RoleAdmin)
	list, err := c.List(context.Background(), adminapi.Backends, false)
	must(t, err)
	if !list.Stale || list.StaleReason == "" || len(list.Items) != 3 || list.Items[0].Status != adminapi.InForce || list.Items[0].Revision == 0 {
		t.Errorf("%+v", list)
	}
	if got, err := c.Get(context.Background(), adminapi.Policies, "p"); err != nil || got.Status != adminapi.InForce {
		t.Errorf("%+v, %v", got, err)
	}
	for name, err := range map[string]error{
		"get":      second(c.Get(context.Background(), adminapi.Policies, "other")),
		"put":      second(c.Put(context.Background(), adminapi.Backends, "a", []byte(backendA), adminapi.If{})),
		"delete":   second(c.Delete(context.Background(), adminapi.Backends, "a", adminapi.If{})),
		"history":  second(c.History(context.Background(), adminapi.Backends, "a", adminapi.HistoryPage{})),
		"audit":    second(c.Audit(context.Background(), adminapi.HistoryPage{})),
		"rollback": second(c.Rollback(context.Background(), adminapi.Backends, "a", adminapi.Rollback{Revision: 1})),
		"diff":     second(c.Diff(context.Background(), []byte(backendA))),
		"mark":     second(c.Mark(context.Background(), adminapi.MarkRequest{Backend: "a", State: "draining"})),
	} {
		if e := refusal(t, err); e.Status != http.StatusServiceUnavailable || e.Code != "store_unavailable" || !strings.Contains(e.Message, "served on") {
			t.Errorf("%s: %v", name, e)
		}
	}
}
