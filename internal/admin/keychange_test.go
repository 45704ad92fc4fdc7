package admin

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ai-aas/api-router/internal/adminapi"
	"github.com/ai-aas/api-router/internal/auth"
	"github.com/ai-aas/api-router/internal/state"
)

// ofAcme is the path of something of the organization acme.
func ofAcme(path string) string { return adminapi.Prefix + "/organizations/acme" + path }

// sealedKey is a key of acme, in the project shop, that is restricted in every way.
func (h *house) sealedKey() adminapi.NewKey {
	h.t.Helper()
	h.acme("acme")
	c := h.client(adminapi.RoleAdmin)
	for _, project := range []string{"shop", "lab"} {
		_, err := c.PutProject(h.t.Context(), "acme", project, adminapi.ProjectRequest{Name: project}, adminapi.If{})
		must(h.t, err)
	}
	made, err := c.CreateKey(h.t.Context(), "acme", adminapi.KeyRequest{Project: "shop", Name: "checkout", ExpiresIn: adminapi.Duration(time.Hour), Scopes: adminapi.Scopes{
		Models: []string{"gpt-*"}, Endpoints: []string{adminapi.EndpointChat}, Networks: []string{"10.0.0.0/8"}, Priority: true, MaxTokens: 100,
		Tags: map[string]string{"team": "shop"}, Signature: "required",
	}})
	must(h.t, err)
	return made
}

func TestAChangeOfAKeyLeavesWhatItDoesNotName(t *testing.T) {
	h := newHouse(t)
	made := h.sealedKey()
	end := time.Now().Add(48 * time.Hour).UTC().Truncate(time.Second)
	want := made.Key
	for _, step := range []struct {
		body   string
		change func(k *adminapi.Key)
	}{
		{`{"name":"cashier"}`, func(k *adminapi.Key) { k.Name = "cashier" }},
		{`{"project":"lab","reason":"moves"}`, func(k *adminapi.Key) { k.Project = "lab" }},
		{`{"scopes":{"models":["a","b-*"]}}`, func(k *adminapi.Key) { k.Scopes.Models = []string{"a", "b-*"} }},
		{`{"scopes":{"endpoints":["/v1/embeddings"],"networks":["192.0.2.1"]}}`, func(k *adminapi.Key) {
			k.Scopes.Endpoints, k.Scopes.Networks = []string{adminapi.EndpointEmbedding}, []string{"192.0.2.1/32"}
		}},
		{`{"scopes":{"tags":{"unit":"x"},"max_tokens":7}}`, func(k *adminapi.Key) { k.Scopes.Tags, k.Scopes.MaxTokens = map[string]string{"unit": "x"}, 7 }},
		{fmt.Sprintf(`{"expires_at":%q}`, end.Format(time.RFC3339)), func(k *adminapi.Key) { k.ExpiresAt = end }},
		{`{"scopes":{"signature":"optional"}}`, func(k *adminapi.Key) { k.Scopes.Signature = "optional" }},
		{`{"scopes":{"models":null,"priority":false}}`, func(k *adminapi.Key) { k.Scopes.Models, k.Scopes.Priority = nil, false }},
		{`{"project":null,"name":"","expires_at":null}`, func(k *adminapi.Key) { k.Project, k.Name, k.ExpiresAt = "", "", time.Time{} }},
		{`{"scopes":{"endpoints":null,"networks":null,"tags":{},"max_tokens":null}}`, func(k *adminapi.Key) {
			k.Scopes = adminapi.Scopes{Signature: "optional"}
		}},
		{`{"scopes":{"signature":null}}`, func(k *adminapi.Key) { k.Scopes = adminapi.Scopes{} }},
	} {
		step.change(&want)
		got := h.send(adminapi.RoleAdmin, http.MethodPatch, ofAcme("/keys/"+made.ID), step.body)
		var answer adminapi.ChangedKey
		must(t, json.Unmarshal(got.body, &answer))
		if got.StatusCode != http.StatusOK || answer.Revision <= want.Revision || answer.SigningSecret != "" || got.Header.Get("ETag") != etag(answer.Revision) {
			t.Fatalf("%s: %d %s", step.body, got.StatusCode, got.body)
		}
		want.Revision = answer.Revision
		kept, err := h.client(adminapi.RoleViewer).Key(t.Context(), "acme", made.ID)
		must(t, err)
		for name, is := range map[string]adminapi.Key{"answered": answer.Key, "kept": kept} {
			if diff := cmp.Diff(want, is); diff != "" {
				t.Errorf("%s, %s: %s", step.body, name, diff)
			}
		}
	}
	for _, body := range []string{`{}`, `{"scopes":{}}`, `{"name":"","scopes":{"models":null},"reason":"nothing"}`} {
		if got := h.send(adminapi.RoleAdmin, http.MethodPatch, ofAcme("/keys/"+made.ID), body); got.StatusCode != http.StatusOK || got.Header.Get("ETag") != etag(want.Revision) {
			t.Errorf("%s changes something: %d %s", body, got.StatusCode, got.body)
		}
	}
	for _, field := range []string{"models", "endpoints", "networks"} {
		got := h.send(adminapi.RoleAdmin, http.MethodPatch, ofAcme("/keys/"+made.ID), `{"scopes":{"`+field+`":[]}}`)
		if got.StatusCode != http.StatusBadRequest || !strings.Contains(string(got.body), "scopes."+field+": an empty list") {
			t.Errorf("%s of nothing: %d %s", field, got.StatusCode, got.body)
		}
	}
	h.chained(made.ID, 11)
}

// chained holds the audit of a key to so many changes, each of which begins where the one before ended.
func (h *house) chained(id string, changes int) {
	h.t.Helper()
	entries, err := h.client(adminapi.RoleAuditor).Entries(h.t.Context(), adminapi.EntryFilter{Kind: "key", ID: id})
	must(h.t, err)
	if len(entries.Items) != changes+1 {
		h.t.Fatalf("%d entries", len(entries.Items))
	}
	for i, e := range entries.Items[:changes] {
		if e.Action != "update" || e.Actor != "the-admin" || string(e.Before) == string(e.After) || string(e.Before) != string(entries.Items[i+1].After) {
			h.t.Errorf("%s by %s, from %s to %s", e.Action, e.Actor, e.Before, e.After)
		}
	}
}

func TestAChangeThatCannotBeIsRefusedWhole(t *testing.T) {
	h, ctx := newHouse(t), t.Context()
	made, c := h.sealedKey(), h.client(adminapi.RoleAdmin)
	_, err := c.ImportKeys(ctx, "acme", adminapi.Import{Keys: []adminapi.Fingerprint{{SHA256: strings.Repeat("ab", 32)}}})
	must(t, err)
	all, err := c.Keys(ctx, "acme", "", 0)
	must(t, err)
	imported := all.Items[slices.IndexFunc(all.Items, func(k adminapi.Key) bool { return k.Imported })]
	revoked, err := c.CreateKey(ctx, "acme", adminapi.KeyRequest{})
	must(t, err)
	_, err = c.RevokeKey(ctx, "acme", revoked.ID, adminapi.If{})
	must(t, err)
	for name, test := range map[string]struct {
		id, body string
		status   int
		says     []string
		headers  []string
	}{
		"everything wrong": {
			made.ID, `{"name":"\u0007","project":"a b","expires_at":"2001-01-01T00:00:00Z","expires_in":"1h","reason":"\n",
			"scopes":{"models":["a*b"],"endpoints":["/v1/models"],"networks":["10.0.0.1/8"],"max_tokens":-1,"signature":"perhaps","tags":{"a b":"x"}}}`, 400,
			[]string{"11 things are wrong", "name:", "project:", "expires_at:", "expires_in:", "reason:", "scopes.models[0]", "scopes.endpoints[0]", "scopes.networks[0]", "scopes.max_tokens", "scopes.signature", "scopes.tags"},
			nil,
		},
		"all scopes away":   {made.ID, `{"scopes":null}`, 400, []string{"name what is to change"}, nil},
		"an unknown scope":  {made.ID, `{"scopes":{"model":["a"]}}`, 400, []string{`unknown field`, "model"}, nil},
		"an unknown field":  {made.ID, `{"models":["a"]}`, 400, []string{`unknown field`, "models"}, nil},
		"a wrong type":      {made.ID, `{"scopes":{"models":"a"}}`, 400, []string{"scopes.models has a value of the wrong type"}, nil},
		"no moment":         {made.ID, `{"expires_at":"0001-01-01T00:00:00Z"}`, 400, []string{"null takes away the end"}, nil},
		"no such project":   {made.ID, `{"project":"nowhere"}`, 400, []string{"has no project nowhere"}, nil},
		"an imported one":   {imported.ID, `{"scopes":{"signature":"required"}}`, 400, []string{"cannot sign", "rotate it"}, nil},
		"a revoked one":     {revoked.ID, `{"expires_in":"1h"}`, 412, []string{"it is revoked"}, nil},
		"one that is not":   {"00000000", `{"name":"x"}`, 404, []string{"there is no key 00000000"}, nil},
		"one of a project":  {"00000000", `{"project":"shop"}`, 404, []string{"there is no key 00000000"}, nil},
		"a wrong condition": {made.ID, `{"name":"x"}`, 400, []string{"If-Match takes one revision"}, []string{"If-Match", "17"}},
	} {
		t.Run(name, func(t *testing.T) {
			got := h.send(adminapi.RoleAdmin, http.MethodPatch, ofAcme("/keys/"+test.id), test.body, test.headers...)
			if got.StatusCode != test.status {
				t.Errorf("%d %s", got.StatusCode, got.body)
			}
			for _, says := range test.says {
				if !strings.Contains(string(got.body), says) {
					t.Errorf("%s lacks %q", got.body, says)
				}
			}
		})
	}
	kept, err := c.Key(ctx, "acme", made.ID)
	must(t, err)
	if diff := cmp.Diff(made.Key, kept); diff != "" {
		t.Error(diff)
	}
}

func TestARotatedKeyEndsWithItsGraceWhateverIsAskedFor(t *testing.T) {
	h, ctx := newHouse(t), t.Context()
	h.acme("acme")
	c := h.client(adminapi.RoleAdmin)
	old, err := c.CreateKey(ctx, "acme", adminapi.KeyRequest{})
	must(t, err)
	next, err := c.RotateKey(ctx, "acme", old.ID, adminapi.Rotation{Grace: adminapi.Duration(2 * time.Hour)}, nil)
	must(t, err)
	for _, body := range []string{`{"expires_in":"3h"}`, `{"expires_at":"2190-01-01T00:00:00Z"}`, `{"expires_at":null}`, `{"expires_at":null,"name":"x"}`} {
		got := h.send(adminapi.RoleAdmin, http.MethodPatch, ofAcme("/keys/"+old.ID), body)
		if got.StatusCode != http.StatusPreconditionFailed || !strings.Contains(string(got.body), next.ID+" took its place in a rotation") || !strings.Contains(string(got.body), "create another") {
			t.Errorf("%s: %d %s", body, got.StatusCode, got.body)
		}
	}
	shorter, err := c.ChangeKey(ctx, "acme", old.ID, adminapi.KeyChange{ExpiresIn: adminapi.Duration(time.Hour)}, nil)
	must(t, err)
	if shorter.Name != "" || shorter.State != adminapi.KeyRotated || time.Until(shorter.ExpiresAt) > time.Hour {
		t.Errorf("%+v", shorter.Key)
	}
	longer, err := c.ChangeKey(ctx, "acme", next.ID, adminapi.KeyChange{ExpiresIn: adminapi.Duration(100 * time.Hour)}, nil)
	must(t, err)
	if time.Until(longer.ExpiresAt) < 99*time.Hour {
		t.Errorf("the successor: %+v", longer.Key)
	}
}

func TestAKeyThatBeginsToSignGetsItsSecretOnce(t *testing.T) {
	h, ctx := newHouse(t), t.Context()
	h.acme("acme")
	c := h.client(adminapi.RoleAdmin)
	made, err := c.CreateKey(ctx, "acme", adminapi.KeyRequest{})
	must(t, err)
	sign := func(how string) string {
		t.Helper()
		changed, err := c.ChangeKey(ctx, "acme", made.ID, adminapi.KeyChange{Scopes: adminapi.ScopesChange{Signature: adminapi.To(how)}}, nil)
		must(t, err)
		if changed.Scopes.Signature != how {
			t.Errorf("%+v", changed.Key)
		}
		return changed.SigningSecret
	}
	first := sign("optional")
	if !strings.HasPrefix(first, "ars_") || sign("required") != "" || sign("required") != "" || sign("") != "" {
		t.Errorf("it is shown at another time than at its making")
	}
	if second := sign("required"); second == first || second == "" {
		t.Errorf("a key that began anew has the secret of before")
	}
	entries, err := h.client(adminapi.RoleAuditor).Entries(ctx, adminapi.EntryFilter{})
	must(t, err)
	text, err := json.Marshal(entries)
	must(t, err)
	if strings.Contains(string(text)+h.log.String(), first) {
		t.Error("the secret is in the audit or in the log")
	}
	without := newHouse(t, func(o *Options) { o.Seal = nil })
	without.acme("acme")
	made, err = without.client(adminapi.RoleAdmin).CreateKey(ctx, "acme", adminapi.KeyRequest{})
	must(t, err)
	got := without.send(adminapi.RoleAdmin, http.MethodPatch, ofAcme("/keys/"+made.ID), `{"scopes":{"signature":"optional"}}`)
	if got.StatusCode != http.StatusBadRequest || !strings.Contains(string(got.body), "identity.peppers") {
		t.Errorf("%d %s", got.StatusCode, got.body)
	}
}

func TestAKeyIsDeletedWhenNobodyCanUseIt(t *testing.T) {
	h, ctx := newHouse(t), t.Context()
	h.acme("acme")
	c := h.client(adminapi.RoleAdmin)
	made, err := c.CreateKey(ctx, "acme", adminapi.KeyRequest{})
	must(t, err)
	ids := []string{made.ID, h.expiredKey().ID}
	got := h.send(adminapi.RoleAdmin, http.MethodDelete, ofAcme("/keys/"+ids[0]), "")
	if got.StatusCode != http.StatusPreconditionFailed || !strings.Contains(string(got.body), "revoke it first") {
		t.Errorf("%d %s", got.StatusCode, got.body)
	}
	_, err = c.RevokeKey(ctx, "acme", ids[0], adminapi.If{})
	must(t, err)
	for _, id := range ids {
		gone, err := c.DeleteKey(ctx, "acme", id, adminapi.If{Reason: "tidying up"})
		if err != nil || gone != (adminapi.Gone{ID: id, Organization: "acme"}) {
			t.Errorf("%+v, %v", gone, err)
		}
		if got := h.send(adminapi.RoleAdmin, http.MethodDelete, ofAcme("/keys/"+id), ""); got.StatusCode != http.StatusNotFound {
			t.Errorf("it is deleted twice: %d %s", got.StatusCode, got.body)
		}
	}
	gone, err := c.DeleteOrganization(ctx, "acme", adminapi.If{Reason: "nobody is left"})
	must(t, err)
	entries, err := c.Entries(ctx, adminapi.EntryFilter{Organization: "acme", Limit: 3})
	must(t, err)
	if last := entries.Items[0]; gone.ID != "acme" || last.Action != "delete" || last.Reason != "nobody is left" || string(last.After) != "null" || string(last.Before) == "null" {
		t.Errorf("%+v", last)
	}
	if entries.Items[1].Action != "delete" || entries.Items[1].ID != ids[1] || string(entries.Items[1].Before) == "null" {
		t.Errorf("%+v", entries.Items[1])
	}
}

func TestChangesHonourTheirConditions(t *testing.T) {
	h, ctx := newHouse(t), t.Context()
	h.acme("acme")
	c := h.client(adminapi.RoleAdmin)
	p, err := c.PutProject(ctx, "acme", "web", adminapi.ProjectRequest{}, adminapi.If{})
	must(t, err)
	for _, change := range []struct{ method, suffix, body string }{
		{http.MethodPatch, "", `{"name":"x"}`}, {http.MethodPost, "/rotate", "{}"}, {http.MethodPost, "/revoke", "{}"}, {http.MethodDelete, "", ""},
	} {
		made, err := c.CreateKey(ctx, "acme", adminapi.KeyRequest{})
		must(t, err)
		k := made.Key
		if change.method == http.MethodDelete {
			k, err = c.RevokeKey(ctx, "acme", made.ID, adminapi.If{Revision: &made.Revision})
			must(t, err)
		}
		h.conditional(change.method, ofAcme("/keys/"+k.ID+change.suffix), change.body, k.Revision)
	}
	h.conditional(http.MethodDelete, ofAcme("/projects/web"), "", p.Revision)
	h.acme("empty")
	o, err := c.Organization(ctx, "empty")
	must(t, err)
	h.conditional(http.MethodDelete, adminapi.Prefix+"/organizations/empty", "", o.Revision)
}

// conditional makes a change under conditions that do not hold, and then under one that does.
func (h *house) conditional(method, path, body string, revision int64) {
	h.t.Helper()
	for _, headers := range [][]string{{"If-Match", etag(revision + 1000)}, {"If-None-Match", "*"}} {
		got := h.send(adminapi.RoleAdmin, method, path, body, headers...)
		if got.StatusCode != http.StatusPreconditionFailed || !strings.Contains(string(got.body), `"param":"`+headers[0]+`"`) {
			h.t.Errorf("%s %s with %v: %d %s", method, path, headers, got.StatusCode, got.body)
		}
	}
	if got := h.send(adminapi.RoleAdmin, method, path, body, "If-Match", etag(revision)); got.StatusCode >= 300 {
		h.t.Errorf("%s %s: %d %s", method, path, got.StatusCode, got.body)
	}
}

func TestAnotherOrganizationsThingsAreAsIfTheyWereNot(t *testing.T) {
	h := newHouse(t)
	made := h.sealedKey()
	h.acme("other")
	ids := map[string][2]string{"keys": {made.ID, "00000000"}, "projects": {"shop", "nothing"}}
	for _, r := range h.routes {
		noun, known := "", ""
		for kind := range ids {
			if strings.HasPrefix(r.path, "/organizations/{organization}/"+kind+"/{") {
				noun, known = kind, ids[kind][0]
			}
		}
		if noun == "" || noun == "projects" && r.method == http.MethodPut { // Whoever puts a project makes one of its own.
			continue
		}
		for _, headers := range [][]string{nil, {"If-Match", etag(made.Revision)}} {
			var said []string
			for _, id := range ids[noun] {
				path := adminapi.Prefix + strings.NewReplacer("{organization}", "other", "{key}", id, "{project}", id).Replace(r.path)
				got := h.send(adminapi.RoleAdmin, r.method, path, `{"reason":"x"}`, headers...)
				said = append(said, fmt.Sprint(got.StatusCode, strings.ReplaceAll(string(got.body), id, "ID")))
				if headers == nil && got.StatusCode != http.StatusNotFound {
					t.Errorf("%s %s of %s: %d %s", r.method, path, known, got.StatusCode, got.body)
				}
			}
			if said[0] != said[1] {
				t.Errorf("%s %s: %s of another's, %s of none", r.method, r.path, said[0], said[1])
			}
		}
	}
	if k, err := h.client(adminapi.RoleAdmin).Key(t.Context(), "acme", made.ID); err != nil || k.Revision != made.Revision {
		t.Errorf("%+v, %v", k, err)
	}
}

func TestListsOfOrganizationsAndProjectsComeInPages(t *testing.T) {
	h, ctx := newHouse(t), t.Context()
	c := h.client(adminapi.RoleAdmin)
	h.acme("acme")
	for i := range 4 {
		h.acme(fmt.Sprint("o", i))
		_, err := c.PutProject(ctx, "acme", fmt.Sprint("p", i), adminapi.ProjectRequest{}, adminapi.If{})
		must(t, err)
	}
	for want, ask := range map[string]func(after string) (ids []string, next string){
		"[acme o0 o1 o2 o3]": func(after string) (ids []string, next string) {
			page, err := c.Organizations(ctx, after, 2)
			must(t, err)
			for _, o := range page.Items {
				ids = append(ids, o.ID)
			}
			return ids, page.Next
		},
		"[p0 p1 p2 p3]": func(after string) (ids []string, next string) {
			page, err := c.Projects(ctx, "acme", after, 2)
			must(t, err)
			for _, p := range page.Items {
				ids = append(ids, p.ID)
			}
			return ids, page.Next
		},
	} {
		var all []string
		for ids, next := ask(""); ; ids, next = ask(next) {
			if len(ids) == 0 {
				t.Errorf("after %v is a page of nothing", all)
			}
			if all = append(all, ids...); next == "" || len(all) > 10 {
				break
			}
		}
		if fmt.Sprint(all) != want {
			t.Errorf("%v, want %s", all, want)
		}
	}
	for _, path := range []string{"/organizations", "/organizations/acme/projects", "/organizations/acme/keys"} {
		for _, query := range []string{"after=a%20b", "limit=0", "limit=1001", "before=1"} {
			if got := h.send(adminapi.RoleViewer, http.MethodGet, adminapi.Prefix+path+"?"+query, ""); got.StatusCode != http.StatusBadRequest {
				t.Errorf("%s?%s: %d %s", path, query, got.StatusCode, got.body)
			}
		}
	}
}

func TestAFullBookIsARefusalThatSaysWhatHelps(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	book, err := state.Open(state.Options{URL: "sqlite:" + path, Logger: slog.New(slog.DiscardHandler)})
	must(t, err)
	t.Cleanup(func() { must(t, book.Close()) })
	peppers, err := auth.NewPeppers("the pepper of these tests")
	must(t, err)
	h := openHouse(t, book, book, func(o *Options) { o.Identities, o.Mint, o.Seal = book, peppers.Make, peppers.Seal })
	made := h.sealedKey()
	db, err := sql.Open("sqlite", path+"?_busy_timeout=10000&_txlock=immediate")
	must(t, err)
	defer db.Close()
	for _, statement := range []string{ // What as many calls as a book takes would have left.
		"UPDATE counter SET value = 5000000 WHERE name = 'keys'",
		"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000) INSERT INTO project SELECT 'acme', 'p' || i, '', 1, 1 FROM n",
	} {
		_, err := db.Exec(statement)
		must(t, err)
	}
	before := h.log.String()
	for name, ask := range map[string][3]string{
		"a key":             {http.MethodPost, "/keys", "{}"},
		"a rotation":        {http.MethodPost, "/keys/" + made.ID + "/rotate", "{}"},
		"an import":         {http.MethodPost, "/fingerprints", `{"keys":[{"sha256":"` + strings.Repeat("ab", 32) + `"}]}`},
		"one project more":  {http.MethodPut, "/projects/more", "{}"},
		"one that is there": {http.MethodPut, "/projects/p7", `{"name":"x"}`},
	} {
		got := h.send(adminapi.RoleAdmin, ask[0], ofAcme(ask[1]), ask[2])
		if ask[1] == "/projects/p7" {
			if got.StatusCode != http.StatusOK {
				t.Errorf("%s: %d %s", name, got.StatusCode, got.body)
			}
			continue
		}
		if got.StatusCode != http.StatusPreconditionFailed || !strings.Contains(string(got.body), "no more can be created: delete") {
			t.Errorf("%s: %d %s", name, got.StatusCode, got.body)
		}
	}
	if strings.Contains(strings.TrimPrefix(h.log.String(), before), `"level":"ERROR"`) {
		t.Error("a full book is told as a failure of the router")
	}
}

// meanwhile is a book in which somebody else makes a change just after a key was read, once.
type meanwhile struct {
	Identities

	change func()
}

func (m *meanwhile) Key(ctx context.Context, organization, id string) (auth.Key, error) {
	k, err := m.Identities.Key(ctx, organization, id)
	if change := m.change; change != nil {
		m.change = nil
		change()
	}
	return k, err
}

func TestARotationOverrulesNoChangeThatComesBetween(t *testing.T) {
	book := &meanwhile{}
	h := newHouse(t, func(o *Options) { book.Identities, o.Identities = o.Identities, book })
	h.acme("acme")
	ctx, c := t.Context(), h.client(adminapi.RoleAdmin)
	made, err := c.CreateKey(ctx, "acme", adminapi.KeyRequest{})
	must(t, err)
	restrict := func() {
		_, err := c.ChangeKey(ctx, "acme", made.ID, adminapi.KeyChange{Scopes: adminapi.ScopesChange{Models: adminapi.To([]string{"m"})}}, nil)
		must(t, err)
	}
	book.change = restrict
	if _, err := c.RotateKey(ctx, "acme", made.ID, adminapi.Rotation{}, &made.Revision); refusal(t, err).Code != "precondition_failed" {
		t.Error(err)
	}
	_, err = c.ChangeKey(ctx, "acme", made.ID, adminapi.KeyChange{Scopes: adminapi.ScopesChange{Models: adminapi.To[[]string](nil)}}, nil)
	must(t, err)
	book.change = restrict
	next, err := c.RotateKey(ctx, "acme", made.ID, adminapi.Rotation{}, nil)
	must(t, err)
	if !slices.Equal(next.Scopes.Models, []string{"m"}) {
		t.Errorf("the key that takes the place of a restricted one may use %v", next.Scopes.Models)
	}
}
