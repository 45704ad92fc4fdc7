package admin

import (
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ai-aas/api-router/internal/adminapi"
	"github.com/ai-aas/api-router/internal/auth"
	"github.com/ai-aas/api-router/internal/policy"
	"github.com/ai-aas/api-router/internal/state"
)

// whole is the audit as an auditor reads it, the newest entry first.
func (h *house) whole(filter adminapi.EntryFilter) []adminapi.Entry {
	h.t.Helper()
	var all []adminapi.Entry
	for {
		page, err := h.client(adminapi.RoleAuditor).Entries(h.t.Context(), filter)
		must(h.t, err)
		all = append(all, page.Items...)
		if filter.Before = page.Next; page.Next == "" {
			return all
		}
	}
}

func told(entries []adminapi.Entry) string {
	lines := make([]string, 0, len(entries))
	for _, e := range entries {
		lines = append(lines, e.Action+" "+e.Kind+" "+e.ID)
	}
	return strings.Join(lines, ", ")
}

// furnished is what is there before a change: documents with a past, an organization with a project and a key, and marks.
type furnished struct {
	*house
	key, admin     string // ids
	policy1, mark1 int64  // the first revisions of the policy and the mark
}

func furnishedHouse(t *testing.T) furnished {
	t.Helper()
	h := newHouse(t)
	h.furnish()
	c, ctx := h.client(adminapi.RoleAdmin), t.Context()
	f := furnished{house: h}
	first, err := c.Get(ctx, adminapi.Policies, "p")
	must(t, err)
	f.policy1 = first.Revision
	_, err = c.Put(ctx, adminapi.Policies, "p", []byte(strings.Replace(policyP, `"max_tokens":100`, `"max_tokens":200`, 1)), adminapi.If{})
	must(t, err)
	mark, err := c.Mark(ctx, adminapi.MarkRequest{Backend: "b", State: policy.Draining})
	must(t, err)
	f.mark1 = mark.Revision
	_, err = c.Mark(ctx, adminapi.MarkRequest{Backend: "b", State: policy.Degraded})
	must(t, err)
	h.acme("acme")
	_, err = c.PutProject(ctx, "acme", "web", adminapi.ProjectRequest{Name: "Web"}, adminapi.If{})
	must(t, err)
	made, err := c.CreateKey(ctx, "acme", adminapi.KeyRequest{Name: "k"})
	must(t, err)
	f.key = made.ID
	olga, err := c.CreateAdmin(ctx, adminapi.AdminRequest{Name: "olga", Role: adminapi.RoleViewer})
	must(t, err)
	f.admin = olga.ID
	return f
}

// KEY and ADMIN stand in what follows for ids, POLICY and MARK for first revisions, NEW for an id that the request makes. A request that succeeds leaves these entries, the newest first.
var changes = map[string]struct {
	body, leaves string
	prepare      func(f furnished)
}{
	"POST /marks":                                             {`{"backend":"a","state":"draining","reason":"why"}`, "create Mark backend.a", nil},
	"PUT /marks/{id}":                                         {`{"backend":"b","state":"disabled","reason":"why"}`, "update Mark backend.b", nil},
	"DELETE /marks/{id}":                                      {"", "delete Mark backend.b", nil},
	"POST /marks/{id}/rollback":                               {`{"revision":MARK,"reason":"why"}`, "update Mark backend.b", nil},
	"PUT /{collection}/{id}":                                  {policyP, "update RoutingPolicy p", nil},
	"DELETE /{collection}/{id}":                               {"", "delete RoutingPolicy p", nil},
	"PUT /log-level":                                          {`{"level":"debug"}`, "update log-level here", nil},
	"PUT /organizations/{organization}":                       {`{"name":"Acme & Sons"}`, "update organization acme", nil},
	"POST /organizations/{organization}/disable":              {`{"reason":"why"}`, "update organization acme", nil},
	"PUT /organizations/{organization}/projects/{project}":    {`{"name":"World wide web"}`, "update project web", nil},
	"DELETE /organizations/{organization}/projects/{project}": {"", "delete project web", nil},
	"POST /organizations/{organization}/keys":                 {`{"name":"new","reason":"why"}`, "create key NEW", nil},
	"POST /organizations/{organization}/keys/{key}/rotate":    {`{"reason":"why"}`, "rotate key KEY, create key NEW", nil},
	"POST /organizations/{organization}/keys/{key}/revoke":    {`{"reason":"why"}`, "revoke key KEY", nil},
	"POST /organizations/{organization}/fingerprints":         {`{"keys":[{"sha256":"` + strings.Repeat("ab", 32) + `"}],"reason":"why"}`, "import key NEW", nil},
	"POST /{collection}/{id}/rollback":                        {`{"revision":POLICY,"reason":"why"}`, "update RoutingPolicy p", nil},
	"PATCH /organizations/{organization}/keys/{key}":          {`{"name":"renamed","reason":"why"}`, "update key KEY", nil},
	"DELETE /organizations/{organization}/keys/{key}":         {"", "delete key KEY", revoked},
	"POST /admins":                                            {`{"name":"new","role":"viewer","reason":"why"}`, "create admin NEW", nil},
	"PUT /admins/{admin}":                                     {`{"role":"operator"}`, "update admin ADMIN", nil},
	"POST /admins/{admin}/revoke":                             {`{"reason":"why"}`, "revoke admin ADMIN", nil},
	"DELETE /admins/{admin}": {"", "delete admin ADMIN", func(f furnished) {
		_, err := f.client(adminapi.RoleAdmin).RevokeAdmin(f.t.Context(), f.admin, "by agreement")
		must(f.t, err)
	}},
	"DELETE /organizations/{organization}": {"", "delete organization acme", func(f furnished) {
		revoked(f)
		_, err := f.client(adminapi.RoleAdmin).DeleteKey(f.t.Context(), "acme", f.key, adminapi.If{})
		must(f.t, err)
		_, err = f.client(adminapi.RoleAdmin).DeleteProject(f.t.Context(), "acme", "web", adminapi.If{})
		must(f.t, err)
	}},
	"POST /organizations/{organization}/enable": {`{"reason":"why"}`, "update organization acme", func(f furnished) {
		_, err := f.client(adminapi.RoleAdmin).SwitchOrganization(f.t.Context(), "acme", true, "by agreement")
		must(f.t, err)
	}},
}

func revoked(f furnished) {
	_, err := f.client(adminapi.RoleAdmin).RevokeKey(f.t.Context(), "acme", f.key, adminapi.If{Reason: "by agreement"})
	must(f.t, err)
}

// questions are the routes that take a body and change nothing.
var questions = []string{"POST /validate", "POST /diff", "POST /explain"}

func TestEveryRouteThatChangesSomethingLeavesAnEntry(t *testing.T) {
	known := 0
	for _, r := range New(Options{}).routes {
		name := r.method + " " + r.path
		if r.method == http.MethodGet || slices.Contains(questions, name) {
			continue
		}
		t.Run(name, func(t *testing.T) {
			change, ok := changes[name]
			if !ok {
				t.Fatal("nobody knows what this route leaves in the audit: add a request that succeeds, and its entries, to changes")
			}
			known++
			f := furnishedHouse(t)
			f.Name = "here"
			if change.prepare != nil {
				change.prepare(f)
			}
			before := len(f.whole(adminapi.EntryFilter{}))
			path := strings.NewReplacer("/marks/{id}", "/marks/backend.b", "{key}", f.key, "{admin}", f.admin).Replace(r.path)
			body := strings.NewReplacer("POLICY", fmt.Sprint(f.policy1), "MARK", fmt.Sprint(f.mark1)).Replace(change.body)
			path = fill(path)
			if slices.Contains(r.query, "reason") {
				path += "?reason=why"
			}
			got := f.send(r.access.from, r.method, path, body)
			if got.StatusCode >= 300 {
				t.Fatalf("%d %s", got.StatusCode, got.body)
			}
			all := f.whole(adminapi.EntryFilter{})
			left := all[:len(all)-before]
			for i, e := range left {
				if e.Action == "create" && (e.Kind == "key" || e.Kind == "admin") || e.Action == "import" {
					left[i].ID = "NEW"
				}
				if e.Actor != "the-"+r.access.from || e.Role != r.access.from || e.RequestID != got.Header.Get("X-Request-Id") || e.RequestID == "" || e.At.IsZero() {
					t.Errorf("it does not tell who: %+v", e)
				}
				if e.Reason != "why" && strings.Contains(path+body, "why") {
					t.Errorf("it does not tell why: %+v", e)
				}
				isNew, gone := e.Action == "create" || e.Action == "import", e.Action == "delete"
				if (string(e.Before) == "null") != isNew || (string(e.After) == "null") != gone || string(e.Before) == string(e.After) {
					t.Errorf("%s %s was %s and became %s", e.Kind, e.ID, e.Before, e.After)
				}
			}
			if want := strings.NewReplacer("KEY", f.key, "ADMIN", f.admin).Replace(change.leaves); told(left) != want {
				t.Errorf("it leaves %q, want %q", told(left), want)
			}
			if _, page := f.pages[path]; page || r.access == (access{}) {
				t.Error("a page changes something")
			}
		})
	}
	if known < len(changes) {
		t.Errorf("%d of %d requests are of routes that there are", known, len(changes))
	}
}

func TestWhatChangesNothingLeavesNoEntry(t *testing.T) {
	f := furnishedHouse(t)
	before := len(f.whole(adminapi.EntryFilter{}))
	for path, body := range map[string]string{
		"/policies/p": strings.Replace(policyP, `"max_tokens":100`, `"max_tokens":200`, 1), "/organizations/acme": `{"name":"The acme"}`,
		"/backends/x": `{"url":"nonsense"}`, "/organizations/a%20b": `{"name":"x"}`,
	} {
		_ = f.send(adminapi.RoleAdmin, http.MethodPut, adminapi.Prefix+path, body)
	}
	_ = f.send(adminapi.RoleViewer, http.MethodPut, adminapi.Prefix+"/policies/p", policyP)
	if all := f.whole(adminapi.EntryFilter{}); len(all) != before {
		t.Errorf("%s", told(all[:len(all)-before]))
	}
}

// apart is a house whose documents are not in the state book of its identities.
func apart(t *testing.T, change ...func(*Options)) (h *house, documents, identities *state.Book) {
	t.Helper()
	open := func(name string) *state.Book {
		book, err := state.Open(state.Options{URL: "sqlite:" + filepath.Join(t.TempDir(), name), Logger: slog.New(slog.DiscardHandler)})
		must(t, err)
		t.Cleanup(func() { must(t, book.Close()) })
		return book
	}
	documents, identities = open("documents.db"), open("identities.db")
	beside := func(o *Options) { o.Identities = identities }
	return openHouse(t, documents, documents, append([]func(*Options){beside}, change...)...), documents, identities
}

// mixed makes changes of documents and of what is in the state book in turn, and tells what they leave, the newest first.
func (h *house) mixed() string {
	h.t.Helper()
	var want []string
	for i := range 4 {
		id := fmt.Sprint("x", i)
		_, err := h.client(adminapi.RoleAdmin).Put(h.t.Context(), adminapi.Backends, id, []byte(`{"url":"http://127.0.0.1:9"}`), adminapi.If{})
		must(h.t, err)
		h.acme(id)
		_, err = h.client(adminapi.RoleOperator).SetLogLevel(h.t.Context(), adminapi.LogLevelRequest{Level: []string{"debug", "info"}[i%2]})
		must(h.t, err)
		_, err = h.client(adminapi.RoleOperator).Mark(h.t.Context(), adminapi.MarkRequest{Organization: id, State: policy.Degraded})
		must(h.t, err)
		want = append(want, "create Backend "+id, "create organization "+id, "update log-level here", "create Mark "+policy.MarkID("", "", id))
	}
	slices.Reverse(want)
	return strings.Join(want, ", ")
}

func TestTheAuditTellsOfDocumentsWhereverTheyAre(t *testing.T) {
	named := func(o *Options) { o.Name = "here" }
	separate, _, _ := apart(t, named)
	for where, h := range map[string]*house{"in the state book": newHouse(t, named), "beside it": separate} {
		t.Run(where, func(t *testing.T) {
			h.t = t
			want := h.mixed()
			for limit := range 7 { // 0 is as many as the server likes.
				if got := told(h.whole(adminapi.EntryFilter{Limit: limit})); got != want {
					t.Errorf("in pages of %d it tells\n%s, want\n%s", limit, got, want)
				}
			}
			all := h.whole(adminapi.EntryFilter{})
			for name, tc := range map[string]struct {
				filter adminapi.EntryFilter
				want   string
			}{
				"an organization": {adminapi.EntryFilter{Organization: "x1"}, "create Mark " + policy.MarkID("", "", "x1") + ", create organization x1"},
				"a kind":          {adminapi.EntryFilter{Kind: "project"}, ""},
				"documents":       {adminapi.EntryFilter{Kind: "backends"}, "create Backend x3, create Backend x2, create Backend x1, create Backend x0"},
				"one document":    {adminapi.EntryFilter{Kind: "Backend", ID: "x2"}, "create Backend x2"},
				"an id":           {adminapi.EntryFilter{ID: "x2"}, "create organization x2, create Backend x2"},
				"an actor":        {adminapi.EntryFilter{Actor: "the-operator", Organization: "x0"}, "create Mark " + policy.MarkID("", "", "x0")},
				"lately":          {adminapi.EntryFilter{Since: all[2].At}, told(all[:3])},
			} {
				for _, limit := range []int{0, 1} {
					tc.filter.Limit = limit
					if got := told(h.whole(tc.filter)); got != tc.want {
						t.Errorf("%s, in pages of %d: %q, want %q", name, limit, got, tc.want)
					}
				}
			}
			for _, e := range all {
				if e.Role == "" || e.RequestID == "" || e.At.IsZero() || (e.Organization == "") != (e.Kind == "Backend" || e.Kind == kindLogLevel) {
					t.Errorf("%+v", e)
				}
			}
		})
	}
}

// Documents that were moved out of the state book leave in it what became of them there.
func TestTheAuditTellsOfDocumentsThatWereElsewhereBefore(t *testing.T) {
	h, _, identities := apart(t)
	_, err := identities.Write(t.Context(), policy.Write{Kind: policy.KindBackend, ID: "a", Content: []byte(backendA), Actor: "olga"})
	must(t, err)
	_, err = h.client(adminapi.RoleAdmin).Put(t.Context(), adminapi.Backends, "b", []byte(backendB), adminapi.If{})
	must(t, err)
	for _, kind := range []string{"", "backends"} {
		if got := told(h.whole(adminapi.EntryFilter{Kind: kind})); got != "create Backend b, create Backend a" {
			t.Errorf("of the kind %q: %s", kind, got)
		}
	}
}

// What comes while somebody turns the pages is on none of the later ones.
func TestPagesOfTheAuditDoNotMoveWithWhatIsNew(t *testing.T) {
	h, _, _ := apart(t)
	h.acme("first")
	_, err := h.client(adminapi.RoleAdmin).Put(t.Context(), adminapi.Backends, "a", []byte(backendA), adminapi.If{})
	must(t, err)
	c := h.client(adminapi.RoleAuditor)
	page, err := c.Entries(t.Context(), adminapi.EntryFilter{Limit: 1})
	must(t, err)
	h.acme("second") // Of the place from which the first page has taken nothing.
	_, err = h.client(adminapi.RoleAdmin).Put(t.Context(), adminapi.Backends, "b", []byte(backendB), adminapi.If{})
	must(t, err)
	if rest := told(h.whole(adminapi.EntryFilter{Before: page.Next})); told(page.Items) != "create Backend a" || rest != "create organization first" {
		t.Errorf("%s, and then %s", told(page.Items), rest)
	}
}

func TestAnAuditWithAGapIsNoAnswer(t *testing.T) {
	h, documents, identities := apart(t)
	h.acme("acme")
	_, err := h.client(adminapi.RoleAdmin).Put(t.Context(), adminapi.Backends, "a", []byte(backendA), adminapi.If{})
	must(t, err)
	ask := func(query string) (int, string) {
		got := h.send(adminapi.RoleAuditor, http.MethodGet, adminapi.Prefix+"/audit/entries"+query, "")
		return got.StatusCode, string(got.body)
	}
	must(t, documents.Close())
	if status, body := ask(""); status != http.StatusServiceUnavailable || !strings.Contains(body, "the history of the documents cannot be read") || !strings.Contains(body, "other kinds: organization") {
		t.Errorf("%d %s", status, body)
	}
	if status, body := ask("?kind=organization"); status != http.StatusOK || !strings.Contains(body, `"id":"acme"`) {
		t.Errorf("%d %s", status, body)
	}
	must(t, identities.Close())
	if status, body := ask("?kind=organization"); status != http.StatusServiceUnavailable || !strings.Contains(body, "the audit of the state book cannot be read") {
		t.Errorf("%d %s", status, body)
	}
}

func TestWithoutAStateBookTheAuditIsTheHistory(t *testing.T) {
	h, _, _ := apart(t, func(o *Options) { o.Identities = nil })
	_, err := h.client(adminapi.RoleAdmin).Put(t.Context(), adminapi.Backends, "a", []byte(backendA), adminapi.If{})
	must(t, err)
	_, err = h.client(adminapi.RoleOperator).SetLogLevel(t.Context(), adminapi.LogLevelRequest{Level: "debug"})
	must(t, err)
	if got := told(h.whole(adminapi.EntryFilter{})); got != "create Backend a" {
		t.Error(got)
	}
	if got := h.send(adminapi.RoleAuditor, http.MethodGet, adminapi.Prefix+"/audit/entries?kind=key", ""); got.StatusCode != http.StatusNotFound || !strings.Contains(string(got.body), "state.url") {
		t.Errorf("%d %s", got.StatusCode, got.body)
	}
}

func TestDocumentsInFilesHaveNoPartInTheAudit(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "a.json"), []byte(backendA), 0o600))
	book, err := state.Open(state.Options{URL: "sqlite:" + filepath.Join(t.TempDir(), "state.db"), Logger: slog.New(slog.DiscardHandler)})
	must(t, err)
	t.Cleanup(func() { must(t, book.Close()) })
	h := openHouse(t, policy.FileSource(dir), policy.FileBook(dir), func(o *Options) { o.Identities = book })
	h.acme("acme")
	if got := told(h.whole(adminapi.EntryFilter{})); got != "create organization acme" {
		t.Error(got)
	}
	if got := h.send(adminapi.RoleAuditor, http.MethodGet, adminapi.Prefix+"/audit/entries?kind=backends", ""); got.StatusCode != http.StatusNotFound || !strings.Contains(string(got.body), "files") {
		t.Errorf("%d %s", got.StatusCode, got.body)
	}
	h.Identities = nil
	for _, query := range []string{"", "?kind=backends"} {
		if got := h.send(adminapi.RoleAuditor, http.MethodGet, adminapi.Prefix+"/audit/entries"+query, ""); got.StatusCode != http.StatusNotFound || !strings.Contains(string(got.body), "files") {
			t.Errorf("%d %s", got.StatusCode, got.body)
		}
	}
}

func TestTheLogLevelIsChangedAlsoWhileItCannotBeAudited(t *testing.T) {
	h, _, identities := apart(t)
	must(t, identities.Close())
	set, err := h.client(adminapi.RoleOperator).SetLogLevel(t.Context(), adminapi.LogLevelRequest{Level: "error"})
	if err != nil || set.Level != "error" {
		t.Errorf("%+v, %v", set, err)
	}
	for _, want := range []string{"is not in the audit", `"level":"ERROR"`, `"actor":"the-operator"`, `\"level\":\"info\"`, `\"level\":\"error\"`} {
		if !strings.Contains(h.log.String(), want) {
			t.Errorf("the log lacks %s:\n%s", want, h.log)
		}
	}
}

func TestWhoMayDoWhatIsInTheAuditForThoseAloneWhoMayReadIt(t *testing.T) {
	f := furnishedHouse(t)
	for role, reads := range map[string]bool{adminapi.RoleViewer: false, adminapi.RoleOperator: false, adminapi.RoleAdmin: true, adminapi.RoleAuditor: true} {
		page, err := f.client(role).Entries(t.Context(), adminapi.EntryFilter{})
		must(t, err)
		of := map[string]string{}
		for _, e := range page.Items {
			of[e.Kind] = string(e.After)
		}
		if got := strings.Contains(of["admin"], "olga"); got != reads || of["admin"] == "" {
			t.Errorf("%s reads of an admin %s", role, of["admin"])
		}
		if !strings.Contains(of["key"], f.key) {
			t.Errorf("%s reads of a key %s", role, of["key"])
		}
	}
}

func TestAPageOfLargeEntriesIsShorter(t *testing.T) {
	h := newHouse(t)
	const large = 9
	for range large {
		must(t, h.Identities.Note(t.Context(), auth.Entry{Actor: "a", Action: "update", Kind: "log-level", ID: "x", After: []byte(`"` + strings.Repeat("y", 1<<20) + `"`)}))
	}
	page, err := h.client(adminapi.RoleAuditor).Entries(t.Context(), adminapi.EntryFilter{Limit: maxLimit})
	if err != nil || len(page.Items) != mostShown>>20 || page.Next == "" {
		t.Errorf("%d entries, next %q, %v", len(page.Items), page.Next, err)
	}
	if all := h.whole(adminapi.EntryFilter{Limit: maxLimit}); len(all) != large {
		t.Errorf("%d of %d entries are told", len(all), large)
	}
}

func TestARareEntryIsFoundBehindManyOthers(t *testing.T) {
	h, documents, _ := apart(t)
	write := func(id string, n int, actor string) {
		_, err := documents.Write(t.Context(), policy.Write{
			Kind: policy.KindBackend, ID: id, Content: fmt.Appendf(nil, `{"kind":"Backend","id":%q,"url":"http://127.0.0.1:9","max_concurrency":%d}`, id, n+1), Actor: actor,
		})
		must(t, err)
	}
	write("rare", 0, "olga")
	h.acme("acme")
	for n := range mostRead + 1 {
		write("often", n, "ada")
	}
	page, err := h.client(adminapi.RoleAuditor).Entries(t.Context(), adminapi.EntryFilter{Actor: "olga"})
	if err != nil || len(page.Items) > 0 || page.Next == "" {
		t.Errorf("one page reads all there is: %+v, %v", page, err)
	}
	if got := told(h.whole(adminapi.EntryFilter{Actor: "olga"})); got != "create Backend rare" {
		t.Error(got)
	}
	if got := told(h.whole(adminapi.EntryFilter{Organization: "acme"})); got != "create organization acme" {
		t.Error(got)
	}
}

func FuzzPositionsAreTakenAsTheyWereGiven(f *testing.F) {
	for _, p := range []positions{{}, {bookStrand: 1}, {bookStrand: -7, documentStrand: 1 << 62}} {
		f.Add(p.String())
	}
	f.Add("YjEuYjI")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := readPositions(text)
		if err == nil && (p.String() != text || len(p) == 0 || len(p) > 2) {
			t.Errorf("%q is %v", text, p)
		}
	})
}

func TestEntriesThatNobodyKnowsTheTimeOfStayInTheirPlace(t *testing.T) {
	at := time.Now()
	var s stretch
	for _, e := range []adminapi.Entry{{Sequence: 9, At: at}, {Sequence: 8}, {Sequence: 7, At: at.Add(-time.Hour)}} {
		s.add(e)
	}
	if !s.times[1].Equal(at) || s.last != 7 || !s.until.Equal(at.Add(-time.Hour)) {
		t.Errorf("%+v", s)
	}
}
