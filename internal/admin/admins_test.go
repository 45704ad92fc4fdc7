package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ai-aas/api-router/internal/adminapi"
	"github.com/ai-aas/api-router/internal/auth"
	"github.com/ai-aas/api-router/internal/fault"
)

const adminsPath = adminapi.Prefix + "/admins"

// hire makes the admin olga.
func (h *house) hire(role string) adminapi.NewAdmin {
	h.t.Helper()
	made, err := h.client(adminapi.RoleAdmin).CreateAdmin(h.t.Context(), adminapi.AdminRequest{Name: "olga", Role: role, Reason: "a test"})
	must(h.t, err)
	return made
}

// by sends a request with a token.
func (h *house) by(token, method, path, body string) response {
	h.t.Helper()
	return h.send("", method, path, body, "Authorization", "Bearer "+token)
}

// gets waits until a token gets this answer to a question that the role viewer may ask.
func (h *house) gets(token string, want fault.Code) {
	h.t.Helper()
	var got response
	defer func() {
		if h.t.Failed() && got.Response != nil {
			h.t.Logf("the last answer: %d %s", got.StatusCode, got.body)
		}
	}()
	eventually(h.t, fmt.Sprintf("the token gets %q", want), func() bool {
		h.guesses.mu.Lock()
		h.guesses.until = [1024]time.Time{} // This is not about the pace of guessing.
		h.guesses.mu.Unlock()
		got = h.by(token, http.MethodGet, adminapi.Prefix+"/fleet", "")
		return fault.Code(got.code()) == want
	})
}

func TestAnAdminIsMadeUsedChangedAndRevoked(t *testing.T) {
	h, ctx := newHouse(t), t.Context()
	h.furnish()
	olga := h.hire(adminapi.RoleOperator)
	if !auth.IsAdminToken(olga.Secret) || !strings.HasPrefix(olga.Secret, "ara_"+olga.ID+"_") || olga.State != adminapi.AdminActive || olga.CreatedBy != "the-admin" {
		t.Errorf("%+v", olga.Admin)
	}
	h.gets(olga.Secret, "")
	mark := `{"backend":"a","state":"draining","reason":"by olga"}`
	if got := h.by(olga.Secret, http.MethodPost, adminapi.Prefix+"/marks", mark); got.StatusCode >= 300 {
		t.Errorf("an operator's mark: %d %s", got.StatusCode, got.body)
	}
	if got := h.send(adminapi.RoleViewer, http.MethodGet, adminapi.Prefix+"/marks/backend.a/history", ""); !strings.Contains(string(got.body), `"actor":"olga"`) {
		t.Errorf("the history does not name who it was: %s", got.body)
	}
	for method, path := range map[string]string{ // Nobody makes more of themselves.
		http.MethodPost: adminsPath, http.MethodPut: adminsPath + "/" + olga.ID, http.MethodDelete: adminsPath + "/" + olga.ID, http.MethodGet: adminsPath,
	} {
		if got := h.by(olga.Secret, method, path, `{"name":"eve","role":"admin"}`); got.code() != string(fault.PermissionDenied) {
			t.Errorf("%s %s by an operator: %d %s", method, path, got.StatusCode, got.body)
		}
	}

	c := h.client(adminapi.RoleAdmin)
	raised, err := c.ChangeAdmin(ctx, olga.ID, adminapi.AdminChange{Role: adminapi.RoleAdmin}, adminapi.If{Revision: &olga.Revision, Reason: "she leads now"})
	must(t, err)
	eventually(t, "she may do more", func() bool {
		return h.by(olga.Secret, http.MethodPut, adminapi.Prefix+"/backends/b", backendB).StatusCode == http.StatusOK
	})
	if _, err := c.ChangeAdmin(ctx, olga.ID, adminapi.AdminChange{Role: adminapi.RoleViewer}, adminapi.If{Revision: &olga.Revision}); refusal(t, err).Code != string(fault.PreconditionFailed) {
		t.Errorf("an old revision: %v", err)
	}
	byOlga := h.by(olga.Secret, http.MethodPost, adminsPath, `{"name":"otto","role":"viewer","expires_in":"1h"}`)
	if byOlga.StatusCode != http.StatusCreated || !strings.Contains(string(byOlga.body), `"created_by":"olga"`) {
		t.Errorf("%d %s", byOlga.StatusCode, byOlga.body)
	}

	gone, err := c.RevokeAdmin(ctx, olga.ID, "she left")
	must(t, err)
	again, err := c.RevokeAdmin(ctx, olga.ID, "she left, again")
	must(t, err)
	if gone.State != adminapi.AdminRevoked || again != gone || gone.Revision <= raised.Revision {
		t.Errorf("%+v, then %+v", gone, again)
	}
	h.gets(olga.Secret, fault.RevokedAPIKey)
	if _, err := c.ChangeAdmin(ctx, olga.ID, adminapi.AdminChange{Role: adminapi.RoleViewer}, adminapi.If{Revision: &gone.Revision}); !strings.Contains(refusal(t, err).Message, "stays so") {
		t.Errorf("she is let in again: %v", err)
	}
	_, err = c.DeleteAdmin(ctx, olga.ID, adminapi.If{Reason: "long gone"})
	must(t, err)
	h.gets(olga.Secret, fault.InvalidAPIKey)
	next := h.hire(adminapi.RoleViewer)
	h.gets(next.Secret, "")
	h.rolls(olga, next)
}

// rolls holds the list and the audit to what the test above did, and to no secret.
func (h *house) rolls(olga, next adminapi.NewAdmin) {
	h.t.Helper()
	auditor := h.client(adminapi.RoleAuditor)
	all, err := auditor.Admins(h.t.Context())
	must(h.t, err)
	var names []string
	for _, a := range all.Items {
		names = append(names, a.Name+" "+a.Role+" "+a.State)
	}
	if diff := cmp.Diff([]string{"olga viewer active", "otto viewer active"}, names); diff != "" {
		h.t.Error(diff)
	}
	if one, err := auditor.Admin(h.t.Context(), next.ID); err != nil || one != next.Admin {
		h.t.Errorf("%+v, %v", one, err)
	}
	entries, err := auditor.Entries(h.t.Context(), adminapi.EntryFilter{Kind: "admin", ID: olga.ID})
	must(h.t, err)
	var told []string
	for _, e := range entries.Items {
		told = append(told, e.Action+": "+e.Reason)
		for _, secret := range []string{olga.Secret[13:], next.Secret[13:]} {
			if strings.Contains(string(e.Before)+string(e.After), secret) || strings.Contains(h.log.String(), secret) {
				h.t.Error("a token is in the audit or in the log")
			}
		}
	}
	if diff := cmp.Diff([]string{"delete: long gone", "revoke: she left", "update: she leads now", "create: a test"}, told); diff != "" {
		h.t.Error(diff)
	}
}

func TestAnAdminIsRefusedWithEveryProblem(t *testing.T) {
	h := newHouse(t, func(o *Options) { o.Configured = []string{"Ada"} })
	olga := h.hire(adminapi.RoleOperator)
	long := strings.Repeat("x", 600)
	for name, tc := range map[string]struct {
		method, path, body string
		headers            []string
		status             int
		says               []string
	}{
		"everything wrong":              {"POST", "", `{"name":"a b","role":"root","expires_at":"2001-01-01T00:00:00Z","expires_in":"1h","reason":"` + long + `"}`, nil, 400, []string{"5 things are wrong", "name:", "role: it is none of viewer, operator, admin, auditor", "expires_at:", "expires_in:", "reason:"}},
		"nothing":                       {"POST", "", `{}`, nil, 400, []string{"2 things are wrong", "name:", "role:"}},
		"a name of the configuration":   {"POST", "", `{"name":"ada","role":"viewer"}`, nil, 400, []string{"name: a token of identity.admin_tokens has this name"}},
		"a name of the router":          {"POST", "", `{"name":"API-router","role":"viewer"}`, nil, 400, []string{"name: the router itself"}},
		"the name of what seeds":        {"POST", "", `{"name":"Seed","role":"viewer"}`, nil, 400, []string{"name: the router itself"}},
		"a token for a name":            {"POST", "", `{"name":"` + olga.Secret + `","role":"viewer"}`, nil, 400, []string{"name: this looks like a token"}},
		"a name of an issuer's":         {"POST", "", `{"name":"OIDC-0123456789abcdef","role":"viewer"}`, nil, 400, []string{"name: operators of issuers"}},
		"a name that is taken":          {"POST", "", `{"name":"OLGA","role":"chief"}`, nil, 400, []string{"2 things are wrong", "name: there is an admin with this name", "role:"}},
		"an end in a far time":          {"POST", "", `{"name":"otto","role":"viewer","expires_at":"2300-01-01T00:00:00Z"}`, nil, 400, []string{"expires_at:"}},
		"a name that changes":           {"PUT", "/" + olga.ID, `{"name":"otto","role":"viewer"}`, nil, 400, []string{"name"}},
		"no role":                       {"PUT", "/" + olga.ID, `{"expires_at":"2001-01-01T00:00:00Z"}`, nil, 400, []string{"2 things are wrong", "role:", "expires_at:"}},
		"two ends":                      {"PUT", "/" + olga.ID, `{"role":"viewer","expires_in":"1h","expires_at":null}`, nil, 400, []string{"expires_in: there is expires_at, too"}},
		"a moment that is none":         {"PUT", "/" + olga.ID, `{"role":"viewer","expires_at":"0001-01-01T00:00:00Z"}`, nil, 400, []string{"null takes away the end"}},
		"a far end":                     {"PUT", "/" + olga.ID, `{"role":"viewer","expires_at":"2300-01-01T00:00:00Z"}`, nil, 400, []string{"expires_at: it must be before the year 2200"}},
		"nobody":                        {"PUT", "/nobody00", `{"role":"viewer"}`, nil, 404, []string{"there is no admin nobody00"}},
		"an old revision":               {"PUT", "/" + olga.ID, `{"role":"viewer"}`, []string{"If-Match", `"999"`}, 412, []string{"is not at revision 999 any more"}},
		"an old revision is revoked":    {"POST", "/" + olga.ID + "/revoke", `{}`, []string{"If-Match", `"999"`}, 412, []string{"any more"}},
		"nobody is revoked":             {"POST", "/nobody00/revoke", `{}`, nil, 404, []string{"there is no admin nobody00"}},
		"one in force is deleted":       {"DELETE", "/" + olga.ID, "", nil, 412, []string{"revoke it first"}},
		"one that is not, at a moment":  {"DELETE", "/nobody00", "", []string{"If-Match", `"7"`}, 412, []string{"does not exist"}},
		"one who never was, is deleted": {"DELETE", "/nobody00", "", nil, 404, []string{"there is no admin nobody00"}},
	} {
		t.Run(name, func(t *testing.T) {
			got := h.send(adminapi.RoleAdmin, tc.method, adminsPath+tc.path, tc.body, tc.headers...)
			for _, says := range tc.says {
				if got.StatusCode != tc.status || !strings.Contains(string(got.body), says) {
					t.Errorf("%d %s, want %d with %q", got.StatusCode, got.body, tc.status, says)
				}
			}
		})
	}
	without := newHouse(t, func(o *Options) { o.Identities, o.AdminOf = nil, nil })
	if got := without.send(adminapi.RoleAdmin, http.MethodGet, adminsPath, ""); got.StatusCode != http.StatusNotFound || !strings.Contains(string(got.body), "state.url") {
		t.Errorf("%d %s", got.StatusCode, got.body)
	}
	if got := without.by(olga.Secret, http.MethodGet, adminsPath, ""); got.code() != string(fault.InvalidAPIKey) {
		t.Errorf("%d %s", got.StatusCode, got.body)
	}
}

func TestAnAdminsTokenEnds(t *testing.T) {
	h, ctx := newHouse(t), t.Context()
	c := h.client(adminapi.RoleAdmin)
	brief, err := c.CreateAdmin(ctx, adminapi.AdminRequest{Name: "brief", Role: adminapi.RoleViewer, ExpiresIn: adminapi.Duration(time.Hour)})
	must(t, err)
	h.gets(brief.Secret, "")
	past := func(a *auth.Admin) error { a.ExpiresAt = time.Now().Add(-time.Second); return nil } // An hour later.
	_, err = h.Identities.ChangeAdmin(ctx, brief.ID, past, "update", auth.By{Actor: "time"})
	must(t, err)
	h.gets(brief.Secret, fault.ExpiredAPIKey)
	if a, err := c.Admin(ctx, brief.ID); err != nil || a.State != adminapi.AdminExpired {
		t.Errorf("%+v, %v", a, err)
	}
	now, err := c.ChangeAdmin(ctx, brief.ID, adminapi.AdminChange{Role: adminapi.RoleViewer, ExpiresAt: adminapi.To(time.Time{})}, adminapi.If{})
	must(t, err)
	h.gets(brief.Secret, "")
	if !now.ExpiresAt.IsZero() || now.State != adminapi.AdminActive {
		t.Errorf("%+v", now)
	}
}

// A token that was to end ends, unless somebody says that it shall not: who forgets the field makes no privilege last.
func TestTheEndOfAnAdminGoesByNameAlone(t *testing.T) {
	h := newHouse(t)
	olga := h.hire(adminapi.RoleOperator)
	end := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	for _, step := range []struct {
		name, body, role string
		ends             time.Time // give or take some seconds; zero: never
	}{
		{"an end is given", `{"role":"operator","expires_at":"` + end.Format(time.RFC3339) + `"}`, "operator", end},
		{"nothing is said of it", `{"role":"viewer"}`, "viewer", end},
		{"it is in some time from now on", `{"role":"viewer","expires_in":"48h"}`, "viewer", time.Now().Add(48 * time.Hour)},
		{"it goes", `{"role":"admin","expires_at":null}`, "admin", time.Time{}},
		{"there is none, and nothing is said", `{"role":"viewer"}`, "viewer", time.Time{}},
	} {
		got := h.send(adminapi.RoleAdmin, http.MethodPut, adminsPath+"/"+olga.ID, step.body)
		var now adminapi.Admin
		must(t, json.Unmarshal(got.body, &now))
		if got.StatusCode != http.StatusOK || now.Role != step.role || now.ExpiresAt.Sub(step.ends).Abs() > time.Minute {
			t.Errorf("%s: %d %s", step.name, got.StatusCode, got.body)
		}
	}
}

func TestKeysAndAdminTokensAreNothingToEachOther(t *testing.T) {
	asked := 0
	h := newHouse(t, func(o *Options) {
		o.Bearer = func(context.Context, string) (string, []string, error) {
			asked++
			return "", nil, fault.New(fault.InvalidAPIKey, "no token of an issuer")
		}
	})
	h.acme("acme")
	key, err := h.client(adminapi.RoleAdmin).CreateKey(t.Context(), "acme", adminapi.KeyRequest{})
	must(t, err)
	if got := h.by(key.Secret, http.MethodGet, adminapi.Prefix+"/fleet", ""); got.code() != string(fault.InvalidAPIKey) || asked != 1 {
		t.Errorf("a client's key: %d %s", got.StatusCode, got.body)
	}
	stranger := new(auth.Admin).Make().Reveal()
	h.gets(stranger, fault.InvalidAPIKey)
	slowed(t, func() response { return h.by(stranger, http.MethodGet, adminapi.Prefix+"/fleet", "") }) // As all others are, and a right one is not.
	olga := h.hire(adminapi.RoleViewer)
	eventually(t, "olga is let in, whatever others sent", func() bool {
		return h.by(olga.Secret, http.MethodGet, adminapi.Prefix+"/fleet", "").StatusCode == http.StatusOK
	})
	if asked != 1 {
		t.Error("an admin's token was shown to an issuer's door")
	}
	page := h.send("", http.MethodGet, "/", "", "Authorization", basic(olga.Secret))
	if page.StatusCode != http.StatusOK {
		t.Errorf("the console in a browser: %d", page.StatusCode)
	}
}
