package admin

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ai-aas/api-router/internal/adminapi"
	"github.com/ai-aas/api-router/internal/auth"
)

// acme makes an organization.
func (h *house) acme(id string) {
	h.t.Helper()
	_, err := h.client(adminapi.RoleAdmin).PutOrganization(h.t.Context(), id, adminapi.OrganizationRequest{Name: "The " + id}, adminapi.If{})
	must(h.t, err)
}

func TestOrganizationsAreWrittenUnderConditions(t *testing.T) {
	h := newHouse(t)
	h.acme("acme")
	at := adminapi.Prefix + "/organizations/"
	for name, tc := range map[string]struct {
		method, path, body string
		headers            []string
		status             int
		says               []string
	}{
		"an old revision":       {"PUT", "acme", `{"name":"x"}`, []string{"If-Match", `"9999"`}, 412, []string{"is not at revision 9999 any more"}},
		"to be new, and is":     {"PUT", "acme", `{"name":"x"}`, []string{"If-None-Match", "*"}, 412, []string{"exists already"}},
		"one that is not":       {"PUT", "nobody", `{"name":"x"}`, []string{"If-Match", `"1"`}, 412, []string{"does not exist"}},
		"everything wrong":      {"PUT", strings.Repeat("x", 65), `{"name":"\u0007","time_zone":"Europe/Bonn"}`, nil, 400, []string{"3 things are wrong", "id:", "name:", "time_zone:"}},
		"this machine's zone":   {"PUT", "x", `{"time_zone":"Local"}`, nil, 400, []string{"IANA"}},
		"an unknown field":      {"PUT", "x", `{"disabled":true}`, nil, 400, []string{"disabled"}},
		"disabling for nothing": {"POST", "acme/disable", `{}`, nil, 400, []string{"reason is missing"}},
		"disabling nobody":      {"POST", "nobody/disable", `{"reason":"x"}`, nil, 404, []string{"there is no organization nobody"}},
		"disabling an old one":  {"POST", "acme/disable", `{"reason":"x"}`, []string{"If-Match", `"9999"`}, 412, []string{"any more"}},
		"a project of nobody":   {"PUT", "nobody/projects/p", `{"name":"x"}`, nil, 404, []string{"there is no organization nobody"}},
		"no such project":       {"DELETE", "acme/projects/p", "", nil, 404, []string{"there is no project p"}},
	} {
		t.Run(name, func(t *testing.T) {
			got := h.send(adminapi.RoleAdmin, tc.method, at+tc.path, tc.body, tc.headers...)
			for _, says := range tc.says {
				if got.StatusCode != tc.status || !strings.Contains(string(got.body), says) {
					t.Errorf("%d %s, want %d with %q", got.StatusCode, got.body, tc.status, says)
				}
			}
		})
	}
	c, ctx := h.client(adminapi.RoleAdmin), t.Context()
	off, err := c.SwitchOrganization(ctx, "acme", true, "by agreement")
	must(t, err)
	renamed, err := c.PutOrganization(ctx, "acme", adminapi.OrganizationRequest{Name: "Acme", TimeZone: "Europe/Berlin"}, adminapi.If{Revision: &off.Revision})
	must(t, err)
	if !off.Disabled || !renamed.Disabled || renamed.Name != "Acme" {
		t.Errorf("a new name enables what is disabled: %+v, %+v", off, renamed)
	}
}

func TestAKeyIsShownOnceAndItsStatesAreTold(t *testing.T) {
	h, ctx := newHouse(t), t.Context()
	h.acme("acme")
	h.acme("other")
	c := h.client(adminapi.RoleAdmin)
	_, err := c.PutProject(ctx, "acme", "shop", adminapi.ProjectRequest{Name: "The shop"}, adminapi.If{})
	must(t, err)
	made, err := c.CreateKey(ctx, "acme", adminapi.KeyRequest{Project: "shop", Name: "checkout", ExpiresIn: adminapi.Duration(time.Hour), Scopes: adminapi.Scopes{
		Models: []string{"gpt-*"}, Networks: []string{"10.0.0.0/8", "192.0.2.7"}, Signature: "required", Tags: map[string]string{"team": "shop"},
	}})
	must(t, err)
	if !auth.WellFormed(made.Secret) || !strings.HasPrefix(made.Secret, "ar_"+made.ID+"_") || made.SigningSecret == "" || made.CreatedBy != "the-admin" {
		t.Errorf("%+v", made.Key)
	}
	if got := fmt.Sprint(made.Scopes.Networks); got != "[10.0.0.0/8 192.0.2.7/32]" {
		t.Errorf("networks %s", got)
	}
	next, err := c.RotateKey(ctx, "acme", made.ID, adminapi.Rotation{}, nil)
	must(t, err)
	short := h.expiredKey()
	last, err := c.CreateKey(ctx, "acme", adminapi.KeyRequest{})
	must(t, err)
	_, err = c.RevokeKey(ctx, "acme", last.ID, adminapi.If{Reason: "leaked"})
	must(t, err)
	again, err := c.RevokeKey(ctx, "acme", last.ID, adminapi.If{Reason: "leaked, again"})
	must(t, err)
	want := map[string]string{made.ID: adminapi.KeyRotated, next.ID: adminapi.KeyActive, short.ID: adminapi.KeyExpired, last.ID: adminapi.KeyRevoked}
	var seen []string
	for after := ""; ; { // Page by page, one key on each.
		page, err := h.client(adminapi.RoleViewer).Keys(ctx, "acme", after, 1)
		must(t, err)
		for _, k := range page.Items {
			if seen = append(seen, k.ID); k.State != want[k.ID] {
				t.Errorf("key %s is %s, want %s", k.ID, k.State, want[k.ID])
			}
		}
		if after = page.Next; after == "" {
			break
		}
	}
	if len(seen) != len(want) || !slices.IsSorted(seen) {
		t.Errorf("the pages have %v", seen)
	}
	if k, err := c.Key(ctx, "acme", made.ID); err != nil || k.RotatedTo != next.ID || k.Project != "shop" || next.SigningSecret == made.SigningSecret {
		t.Errorf("%+v, %v", k, err)
	}
	for id, state := range want { // No route tells of another organization's key, whatever its state, or changes it.
		for path, method := range map[string]string{"": "GET", "/rotate": "POST", "/revoke": "POST"} {
			got := h.send(adminapi.RoleAdmin, method, adminapi.Prefix+"/organizations/other/keys/"+id+path, "{}")
			if got.StatusCode != http.StatusNotFound {
				t.Errorf("%s of a key that is %s, by another organization: %d %s", path, state, got.StatusCode, got.body)
			}
		}
	}
	for _, id := range []string{made.ID, short.ID, last.ID} {
		if got := h.send(adminapi.RoleAdmin, http.MethodPost, adminapi.Prefix+"/organizations/acme/keys/"+id+"/rotate", "{}"); got.StatusCode != http.StatusPreconditionFailed {
			t.Errorf("a key that is %s is rotated: %d %s", want[id], got.StatusCode, got.body)
		}
	}
	if got := h.send(adminapi.RoleAdmin, http.MethodDelete, adminapi.Prefix+"/organizations/acme/projects/shop", ""); got.StatusCode != http.StatusPreconditionFailed {
		t.Errorf("a project with keys is deleted: %d %s", got.StatusCode, got.body)
	}
	h.audited(made, next, last, again)
}

// audited holds the audit of the test above to what was done, and to no secret.
// expiredKey is a key of acme that was made for an hour, an hour ago.
func (h *house) expiredKey() adminapi.Key {
	h.t.Helper()
	made, err := h.client(adminapi.RoleAdmin).CreateKey(h.t.Context(), "acme", adminapi.KeyRequest{ExpiresIn: adminapi.Duration(time.Hour)})
	must(h.t, err)
	past := func(k *auth.Key) error { k.ExpiresAt = time.Now().Add(-time.Second); return nil }
	_, err = h.Identities.ChangeKey(h.t.Context(), "acme", made.ID, past, "update", auth.By{Actor: "the-admin", Role: adminapi.RoleAdmin, RequestID: "an-hour-later"})
	must(h.t, err)
	key, err := h.client(adminapi.RoleAdmin).Key(h.t.Context(), "acme", made.ID)
	must(h.t, err)
	if key.State != adminapi.KeyExpired {
		h.t.Errorf("%+v", key)
	}
	return key
}

func (h *house) audited(made, next, last adminapi.NewKey, again adminapi.Key) {
	h.t.Helper()
	entries, err := h.client(adminapi.RoleAuditor).Entries(h.t.Context(), adminapi.EntryFilter{Organization: "acme", Kind: "key"})
	must(h.t, err)
	var told []string
	for _, e := range entries.Items {
		told = append(told, e.Action+" "+e.ID+" "+e.Reason)
		if e.Actor != "the-admin" || e.Role != adminapi.RoleAdmin || e.RequestID == "" {
			h.t.Errorf("%+v", e)
		}
	}
	if told[0] != "revoke "+last.ID+" leaked" || len(told) != 7 || again.RevokedAt.IsZero() { // To revoke it again changed nothing.
		h.t.Errorf("%v", told)
	}
	text, err := json.Marshal(entries)
	must(h.t, err)
	for _, secret := range []string{made.Secret, made.SigningSecret, next.Secret, next.SigningSecret, last.Secret} {
		if strings.Contains(string(text), secret) || strings.Contains(h.log.String(), secret) {
			h.t.Error("a secret is in the audit or in the log")
		}
	}
}

func TestAnImportIsRefusedWithEveryProblem(t *testing.T) {
	h := newHouse(t)
	h.acme("acme")
	h.acme("other")
	good := strings.Repeat("ab", 32)
	send := func(organization, body string) response {
		return h.send(adminapi.RoleAdmin, http.MethodPost, adminapi.Prefix+"/organizations/"+organization+"/fingerprints", body)
	}
	got := send("acme", `{"keys":[{"sha256":"ar_this_is_a_key"},{"sha256":"`+good+`","scopes":{"signature":"required","max_tokens":-1}}]}`)
	for _, says := range []string{"3 things are wrong", "keys[0].sha256", "keys[1].scopes.signature", "keys[1].scopes.max_tokens"} {
		if got.StatusCode != http.StatusBadRequest || !strings.Contains(string(got.body), says) || strings.Contains(string(got.body), "this_is_a_key") {
			t.Errorf("%d %s", got.StatusCode, got.body)
		}
	}
	if got := send("acme", `{"keys":[]}`); got.StatusCode != http.StatusBadRequest {
		t.Errorf("%d %s", got.StatusCode, got.body)
	}
	one := `{"keys":[{"sha256":"` + good + `"},{"sha256":"` + strings.Repeat("cd", 32) + `"}]}`
	for _, want := range []string{`{"imported":2,"known":0}`, `{"imported":0,"known":2}`} {
		if got := send("acme", one); strings.TrimSpace(string(got.body)) != want {
			t.Errorf("%d %s, want %s", got.StatusCode, got.body, want)
		}
	}
	if got := send("other", one); got.StatusCode != http.StatusPreconditionFailed || !strings.Contains(string(got.body), "another organization") {
		t.Errorf("%d %s", got.StatusCode, got.body)
	}
	if got := send("nobody", one); got.StatusCode != http.StatusNotFound {
		t.Errorf("%d %s", got.StatusCode, got.body)
	}
}

func TestAsManyFingerprintsAsAreAllowedAreImportedAtOnce(t *testing.T) {
	h := newHouse(t)
	h.acme("acme")
	var all adminapi.Import
	for i := range adminapi.MaxFingerprints {
		all.Keys = append(all.Keys, adminapi.Fingerprint{SHA256: fmt.Sprintf("%064x", i+1)})
	}
	if done, err := h.client(adminapi.RoleAdmin).ImportKeys(t.Context(), "acme", all); err != nil || done.Imported != len(all.Keys) {
		t.Errorf("%+v, %v", done, err)
	}
	all.Keys = append(all.Keys, adminapi.Fingerprint{SHA256: strings.Repeat("ab", 32)})
	if _, err := h.client(adminapi.RoleAdmin).ImportKeys(t.Context(), "acme", all); err == nil || !strings.Contains(err.Error(), "from 1 to") {
		t.Errorf("one more: %v", err)
	}
}

func TestAProjectThatCannotBeIsTheMistakeOfWhoeverAsks(t *testing.T) {
	h := newHouse(t)
	h.acme("acme")
	for path, body := range map[string]string{
		"/keys":         `{"project":"a b"}`,
		"/fingerprints": `{"keys":[{"sha256":"` + strings.Repeat("ab", 32) + `","project":"a b"}]}`,
	} {
		got := h.send(adminapi.RoleAdmin, http.MethodPost, adminapi.Prefix+"/organizations/acme"+path, body)
		if got.StatusCode != http.StatusBadRequest || !strings.Contains(string(got.body), "project: ") {
			t.Errorf("%s: %d %s", path, got.StatusCode, got.body)
		}
	}
	got := h.send(adminapi.RoleAdmin, http.MethodPost, adminapi.Prefix+"/organizations/acme/fingerprints",
		`{"keys":[{"sha256":"`+strings.Repeat("ab", 32)+`","expires_at":"2300-01-01T00:00:00Z"}]}`)
	if got.StatusCode != http.StatusBadRequest || !strings.Contains(string(got.body), "expires_at: ") {
		t.Errorf("%d %s", got.StatusCode, got.body)
	}
}

func TestWithoutAStateBookOrAPepperItIsSaidWhatToSet(t *testing.T) {
	without := newHouse(t, func(o *Options) { o.Identities = nil })
	if got := without.send(adminapi.RoleViewer, http.MethodGet, adminapi.Prefix+"/organizations", ""); got.StatusCode != http.StatusNotFound || !strings.Contains(string(got.body), "state.url") {
		t.Errorf("%d %s", got.StatusCode, got.body)
	}
	h := newHouse(t, func(o *Options) { o.Mint = nil })
	h.acme("acme")
	_, err := h.client(adminapi.RoleAdmin).CreateKey(t.Context(), "acme", adminapi.KeyRequest{})
	if !strings.Contains(refusal(t, err).Message, "identity.peppers") {
		t.Error(err)
	}
}

func TestTheAuditIsReadInPages(t *testing.T) {
	h, ctx := newHouse(t), t.Context()
	for i := range 5 {
		h.acme(fmt.Sprintf("o%d", i))
	}
	c := h.client(adminapi.RoleAuditor)
	var ids []string
	for filter := (adminapi.EntryFilter{Limit: 2}); ; {
		page, err := c.Entries(ctx, filter)
		must(t, err)
		for _, e := range page.Items {
			ids = append(ids, e.ID)
		}
		if filter.Before = page.Next; filter.Before == "" {
			break
		}
	}
	if fmt.Sprint(ids) != "[o4 o3 o2 o1 o0]" {
		t.Errorf("%v", ids)
	}
	for _, query := range []string{"kind=user", "before=x", "before=YzE", "before=YjEuYjI", "limit=0", "id=a%20b", "action=create", "since=yesterday", "actor=a%0Ab"} {
		if got := h.send(adminapi.RoleAuditor, http.MethodGet, adminapi.Prefix+"/audit/entries?"+query, ""); got.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: %d %s", query, got.StatusCode, got.body)
		}
	}
}
