package admin

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/ai-aas/api-router/internal/adminapi"
	"github.com/ai-aas/api-router/internal/state"
)

// ringed is a house with policies of the models m and n, and a maker of keys of acme.
func ringed(t *testing.T) (h *house, key func(s adminapi.Scopes) string) {
	t.Helper()
	h = newHouse(t)
	h.furnish()
	h.acme("acme")
	h.acme("other")
	return h, func(s adminapi.Scopes) string {
		t.Helper()
		made, err := h.client(adminapi.RoleAdmin).CreateKey(t.Context(), "acme", adminapi.KeyRequest{Scopes: s})
		must(t, err)
		return made.ID
	}
}

func TestExplainSaysWhatAKeyDoes(t *testing.T) {
	h, key := ringed(t)
	c := h.client(adminapi.RoleAdmin)
	rotated, revoked := key(adminapi.Scopes{}), key(adminapi.Scopes{Models: []string{"other"}})
	next, err := c.RotateKey(t.Context(), "acme", rotated, adminapi.Rotation{}, nil)
	must(t, err)
	_, err = c.RevokeKey(t.Context(), "acme", revoked, adminapi.If{Reason: "leaked"})
	must(t, err)
	expired := h.expiredKey()
	const chat, messages = `{"model":"m",`, `"messages":[{"role":"user","content":"x"}]}`
	for name, tc := range map[string]struct {
		organization, id, endpoint, body string
		want                             string // state of the key, code, choice
		notes                            []string
		clamps                           string
	}{
		"everything":                {"acme", key(adminapi.Scopes{}), "", "", "active  a", nil, ""},
		"its model":                 {"acme", key(adminapi.Scopes{Models: []string{"m"}}), "", "", "active  a", []string{"models: m; others do not exist for it"}, ""},
		"its model by a prefix":     {"acme", key(adminapi.Scopes{Models: []string{"m*"}}), "", "", "active  a", []string{"models: m*"}, ""},
		"another model":             {"acme", key(adminapi.Scopes{Models: []string{"n"}}), "", "", "active model_not_found ", []string{"models: n"}, ""},
		"its endpoint":              {"acme", key(adminapi.Scopes{Endpoints: []string{adminapi.EndpointChat}}), "", chat + messages, "active  a", []string{"endpoints: /v1/chat/completions"}, "max_tokens: + 100"},
		"another endpoint":          {"acme", key(adminapi.Scopes{Endpoints: []string{adminapi.EndpointEmbedding}}), "", chat + messages, "active permission_denied ", nil, ""},
		"another endpoint, unsaid":  {"acme", key(adminapi.Scopes{Endpoints: []string{adminapi.EndpointEmbedding}}), "", "", "active  a", []string{"at others it gets 403 permission_denied"}, ""},
		"networks":                  {"acme", key(adminapi.Scopes{Networks: []string{"10.0.0.0/8"}}), "", "", "active  a", []string{"networks: 10.0.0.0/8; from elsewhere it gets 403 ip_not_allowed, which is not tried here"}, ""},
		"signed":                    {"acme", key(adminapi.Scopes{Signature: "required"}), "", "", "active  a", []string{"must be signed"}, ""},
		"perhaps signed":            {"acme", key(adminapi.Scopes{Signature: "optional"}), "", "", "active  a", []string{"may be signed"}, ""},
		"a bound of its own":        {"acme", key(adminapi.Scopes{MaxTokens: 7}), "", chat + messages, "active  a", []string{"max_tokens: 7 where a request names none"}, "max_tokens: + 7"},
		"a bound above the policy":  {"acme", key(adminapi.Scopes{MaxTokens: 5000}), "", chat + messages, "active  a", nil, "max_tokens: + 100"},
		"a bound of the request":    {"acme", key(adminapi.Scopes{MaxTokens: 7}), "", chat + `"max_tokens":50,` + messages, "active  a", nil, ""},
		"rotated":                   {"acme", rotated, "", "", "rotated  a", []string{"key " + next.ID + " has taken its place; it works until "}, ""},
		"revoked":                   {"acme", revoked, "", "", "revoked revoked_api_key ", []string{"it was revoked at"}, ""},
		"revoked, with a bad body":  {"acme", revoked, "", `{"model":`, "revoked revoked_api_key ", nil, ""},
		"a good key, a bad body":    {"acme", rotated, "", `{"model":`, "rotated invalid_json ", nil, ""},
		"expired":                   {"acme", expired.ID, "", "", "expired expired_api_key ", []string{"it ended at"}, ""},
		"another organization's":    {"other", rotated, "", "", "unknown  a", []string{"the state book has no such key of this organization"}, ""},
		"another's, that is wrong":  {"other", revoked, "", "", "unknown  a", nil, ""},
		"nobody's":                  {"acme", "00000000", "", "", "unknown  a", []string{"the state book has no such key of this organization"}, ""},
		"without its organization":  {"", rotated, "", "", "unread  a", []string{"a key is looked up in its organization"}, ""},
		"of another validator":      {"acme", "jwt-0011223344556677", "", "", "  a", nil, ""},
		"of nobody's organization":  {"nobody", rotated, "", "", "unknown  a", nil, ""},
		"no key, as it was":         {"acme", "", "", "", "  a", nil, ""},
		"the key itself, by chance": {"acme", "ar_aZ09bY18_", "", "", "  a", nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			ask := adminapi.ExplainRequest{Model: "m", Organization: tc.organization, KeyID: tc.id, Endpoint: tc.endpoint}
			if tc.body != "" {
				ask.Model = ""
				must(t, ask.Text([]byte(tc.body)))
			}
			e, err := h.client(adminapi.RoleViewer).Explain(t.Context(), ask)
			must(t, err)
			got, told, code := "", "", ""
			if e.Key != nil {
				got, told = e.Key.State, strings.Join(e.Key.Notes, "\n")
			}
			if e.Error != nil {
				code = e.Error.Code
			}
			if got = got + " " + code + " " + e.Choice; got != tc.want {
				t.Errorf("%q, want %q", got, tc.want)
			}
			for _, note := range tc.notes {
				if !strings.Contains(told, note) {
					t.Errorf("the notes do not say %q:\n%s", note, told)
				}
			}
			if e.Request != nil && e.Error == nil && strings.Join(e.Request.Clamps, ", ") != tc.clamps {
				t.Errorf("changed %v, want %q", e.Request.Clamps, tc.clamps)
			}
			if (e.Choice == "") != (len(e.Tries) == 0) {
				t.Errorf("choice %q with %d tries", e.Choice, len(e.Tries))
			}
		})
	}
	_, err = c.SwitchOrganization(t.Context(), "acme", true, "by agreement")
	must(t, err)
	e, err := c.Explain(t.Context(), adminapi.ExplainRequest{Model: "m", Organization: "acme", KeyID: rotated})
	if must(t, err); e.Error == nil || e.Error.Code != "organization_disabled" || len(e.Routes) == 0 {
		t.Errorf("%+v, %+v", e, e.Error)
	}
}

func TestExplainRefusesAKeyInThePlaceOfItsID(t *testing.T) {
	h, _ := ringed(t)
	c := h.client(adminapi.RoleAdmin)
	made, err := c.CreateKey(t.Context(), "acme", adminapi.KeyRequest{})
	must(t, err)
	_, err = c.Explain(t.Context(), adminapi.ExplainRequest{Model: "m", Organization: "acme", KeyID: made.Secret})
	if err == nil || !strings.Contains(err.Error(), "name it by its id") || strings.Contains(err.Error(), made.Secret) {
		t.Errorf("got %v", err)
	}
}

func TestExplainSaysWhyAModelIsNotThereForAKey(t *testing.T) {
	h, key := ringed(t)
	id := key(adminapi.Scopes{Models: []string{"n"}})
	e, err := h.client(adminapi.RoleViewer).Explain(t.Context(), adminapi.ExplainRequest{Model: "m", Organization: "acme", KeyID: id})
	must(t, err)
	if len(e.Routes) != 1 || !strings.HasSuffix(e.Routes[0].Why, "the scopes of this key do not name it") {
		t.Errorf("%+v", e.Routes)
	}
	denied := key(adminapi.Scopes{})
	_, err = h.client(adminapi.RoleAdmin).Put(t.Context(), adminapi.Policies, "p",
		[]byte(strings.Replace(policyP, `"backends"`, `"keys":{"deny":["`+denied+`"]},"backends"`, 1)), adminapi.If{})
	must(t, err)
	h.settle()
	e, err = h.client(adminapi.RoleViewer).Explain(t.Context(), adminapi.ExplainRequest{Model: "m", Organization: "acme", KeyID: denied})
	must(t, err)
	if e.Key.State != adminapi.KeyActive || e.Error == nil || e.Error.Code != "model_not_found" || len(e.Routes) != 1 || !strings.HasSuffix(e.Routes[0].Why, "its key rules refuse this key") {
		t.Errorf("%+v, %+v", e.Routes, e.Error)
	}
}

func TestExplainGoesOnWithoutTheBook(t *testing.T) {
	dead, err := state.Open(state.Options{URL: "sqlite:/dev/null/state.db", Logger: slog.New(slog.DiscardHandler)})
	must(t, err)
	t.Cleanup(func() { must(t, dead.Close()) })
	h := newHouse(t, func(o *Options) { o.Identities = dead })
	h.furnish()
	e, err := h.client(adminapi.RoleViewer).Explain(t.Context(), adminapi.ExplainRequest{Model: "m", Organization: "acme", KeyID: "1a2B3c4D"})
	must(t, err)
	if e.Choice != "a" || e.Key == nil || e.Key.State != adminapi.KeyUnread || e.Key.Scopes != nil ||
		!strings.Contains(strings.Join(e.Key.Notes, ""), "the state book could not be asked, so nothing is known of the key") {
		t.Errorf("%+v, %+v", e, e.Key)
	}
	h = newHouse(t, func(o *Options) { o.Identities = nil })
	h.furnish()
	if e, err := h.client(adminapi.RoleViewer).Explain(t.Context(), adminapi.ExplainRequest{Model: "m", KeyID: "1a2B3c4D"}); err != nil || e.Key != nil || e.Choice != "a" {
		t.Errorf("%+v, %v", e, err)
	}
}
