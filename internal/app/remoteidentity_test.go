package app_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/ai-aas/api-router/internal/app"
	"github.com/ai-aas/api-router/internal/simengine"
)

// tokenIssuer is a server with one key, and what makes tokens under it.
func tokenIssuer(t *testing.T) (url string, sign func(claims map[string]any) string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "1", Use: "sig"}}})
	}))
	t.Cleanup(server.Close)
	return server.URL, func(claims map[string]any) string {
		signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: "1"}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		all := map[string]any{"iss": server.URL, "aud": "router", "sub": "someone", "exp": time.Now().Add(time.Hour).Unix()}
		maps.Copy(all, claims)
		content, err := json.Marshal(all)
		if err != nil {
			t.Fatal(err)
		}
		signed, err := signer.Sign(content)
		if err != nil {
			t.Fatal(err)
		}
		text, err := signed.CompactSerialize()
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
}

// statusOf sends a request with a bearer and says what came.
func statusOf(t *testing.T, method, url, bearer, body string) int {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+bearer)
	r.Header.Set("Content-Type", "application/json")
	response, err := client(t).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	_, _ = io.Copy(io.Discard, response.Body)
	return response.StatusCode
}

func TestSignedTokensLetCallersAndOperatorsIn(t *testing.T) {
	issuer, sign := tokenIssuer(t)
	o := administered(t, map[string]string{"policy.source": "file"}, write(t, "token", token))
	o.Config.Policy.File.Path = write(t, "policies.yaml", sprintf(documentsOf, simulated(t, simengine.Config{Speed: 100}), "gpt-oss-20b"))
	loaded, _, err := app.Load(app.Sources{Env: map[string]string{"API_ROUTER_IDENTITY_JWT": "issuer=" + issuer + ";jwks_url=" + issuer +
		"/keys;audience=router;algorithms=ES256;organization_claim=org;scopes_claim=scope;roles_claim=roles;roles=boss=admin watcher=viewer"}})
	if err != nil {
		t.Fatal(err)
	}
	o.Config.Identity.JWT = loaded.Identity.JWT
	o.Config.Identity.UserOrg.URL = "http://127.0.0.1:1" // It is dead, and nobody asks it about a token.
	p := run(t, o)
	chat := `{"model":"gpt-oss-20b","messages":[{"role":"user","content":"Hi."}],"max_tokens":4}`
	caller := map[string]any{"org": "acme", "scope": "inference:chat"}
	for _, c := range []struct {
		name   string
		claims map[string]any
		want   int
	}{
		{"a caller", caller, 200},
		{"an operator alone", map[string]any{"roles": []string{"boss"}}, 403},
		{"another audience", map[string]any{"org": "acme", "scope": "inference:chat", "aud": "other"}, 401},
	} {
		if got := statusOf(t, http.MethodPost, p.base+"/v1/chat/completions", sign(c.claims), chat); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
	admin := "http://" + p.AdminAddr().String()
	for _, c := range []struct {
		name, method, path string
		claims             map[string]any
		want               int
	}{
		{"an admin reads", http.MethodGet, "/admin/v1/fleet", map[string]any{"roles": []string{"boss"}}, 200},
		{"an admin changes", http.MethodPut, "/admin/v1/log-level", map[string]any{"roles": "boss watcher"}, 400},
		{"a viewer reads", http.MethodGet, "/admin/v1/fleet", map[string]any{"roles": []string{"watcher"}}, 200},
		{"a viewer changes", http.MethodPut, "/admin/v1/log-level", map[string]any{"roles": []string{"watcher"}}, 403},
		{"a role's own word where it has another", http.MethodGet, "/admin/v1/fleet", map[string]any{"roles": []string{"admin"}}, 403},
		{"a caller", http.MethodGet, "/admin/v1/fleet", caller, 403},
		{"an expired token", http.MethodGet, "/admin/v1/fleet", map[string]any{"roles": "boss", "exp": 1}, 401},
	} {
		if got := statusOf(t, c.method, admin+c.path, sign(c.claims), "{}"); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
	if got := statusOf(t, http.MethodGet, admin+"/admin/v1/fleet", token, ""); got != 200 {
		t.Errorf("an admin token beside them: %d", got)
	}
}

func TestSettingsOfRemoteIdentitiesThatAreWrongAreReportedAtOnce(t *testing.T) {
	file := write(t, "config.yaml", `environment: development
identity:
  order: [user_org_service, jwt]
  validation_tokens: [env:SOMETHING]
  jwt:
    - { issuer: "http://elsewhere.example", audience: router, algorithms: HS256, organization_claim: org }
    - { issuer: "https://a.example", algorithms: RS256, roles_claim: r, leeway: 5m }
    - { issuer: "https://a.example", audience: router, algorithms: RS256, roles_claim: r, roles: boss=god }
    - { issuer: "https://a.example", audience: router, algorithms: RS256, roles_claim: r, organisation_claim: org }
`)
	_, _, err := app.Load(app.Sources{File: file})
	for _, want := range []string{
		"must begin with https://", `"HS256" is none of`, "audience is missing", "leeway", `"boss=god"`, "organisation_claim: there is no such setting",
		"identity.user_org_service.url: identity.order names user_org_service", "identity.jwt: identity.order names jwt", "identity.validation_tokens: others would ask",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the problems do not say %q: %v", want, err)
		}
	}
}

func TestTheEarlierServicesVariablesNameTheUserOrgService(t *testing.T) {
	c, _, err := app.Load(app.Sources{Env: map[string]string{"USER_ORG_SERVICE_URL": "http://user-org-service:8081", "USER_ORG_SERVICE_TIMEOUT": "750ms"}})
	if err != nil || c.Identity.UserOrg.URL != "http://user-org-service:8081" || c.Identity.UserOrg.Timeout != 750*time.Millisecond {
		t.Errorf("%+v, %v", c.Identity.UserOrg, err)
	}
}
