package userorg_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/ai-aas/api-router/internal/auth"
	"github.com/ai-aas/api-router/internal/auth/userorg"
	"github.com/ai-aas/api-router/internal/fault"
)

// fixed is a validator of one key.
type fixed struct {
	principal auth.Principal
	errors    map[string]error
}

func (f fixed) Validate(_ context.Context, credential string) (auth.Principal, error) {
	if err := f.errors[credential]; err != nil {
		return auth.Principal{}, err
	}
	if credential != secret {
		return auth.Principal{}, fault.New(fault.InvalidAPIKey, "unknown here")
	}
	return f.principal, nil
}

func door(t *testing.T, keys auth.Validator) string {
	t.Helper()
	server := httptest.NewServer(userorg.NewDoor(userorg.DoorOptions{Logger: slog.New(slog.DiscardHandler), Keys: keys, Askers: func() []userorg.Asker {
		return []userorg.Asker{userorg.NewAsker("other", "the-token-of-the-other")}
	}}))
	t.Cleanup(server.Close)
	return server.URL
}

func TestBothEndsAgree(t *testing.T) {
	ends := time.Now().Add(time.Hour).Truncate(time.Millisecond)
	held := &auth.Scopes{Models: []string{"gpt-*"}, MaxTokens: 7, Tags: map[string]string{"team": "red"}}
	url := door(t, fixed{
		principal: auth.Principal{Organization: "acme", KeyID: "K1", Project: "lab", Scopes: held, ExpiresAt: ends},
		errors: map[string]error{
			"revoked": fault.New(fault.RevokedAPIKey, ""), "expired": fault.New(fault.ExpiredAPIKey, ""), "off": fault.New(fault.OrganizationDisabled, ""),
			"dark": fault.New(fault.IdentityUnavailable, ""), "broken": io.ErrUnexpectedEOF,
		},
	})
	s := client(t, userorg.Options{URL: url, Token: func() (string, error) { return "the-token-of-the-other", nil }})
	p, err := s.Validate(t.Context(), secret)
	if err != nil || p.Organization != "acme" || p.KeyID != "K1" || p.Project != "lab" || !p.ExpiresAt.Equal(ends) ||
		p.Scopes.Model("llama") || p.Scopes.MaxTokens != 7 || p.Scopes.Tags["team"] != "red" {
		t.Errorf("%+v, %v", p, err)
	}
	for credential, want := range map[string]fault.Code{
		"revoked": fault.RevokedAPIKey, "expired": fault.ExpiredAPIKey, "off": fault.OrganizationDisabled,
		"dark": fault.IdentityUnavailable, "broken": fault.IdentityUnavailable, "never seen": fault.InvalidAPIKey,
	} {
		if _, err := s.Validate(t.Context(), credential); fault.CodeOf(err) != want {
			t.Errorf("%s: %v, want %s", credential, err, want)
		}
	}
	stranger := client(t, userorg.Options{URL: url, Token: func() (string, error) { return "another-token-entirely", nil }})
	if _, err := stranger.Validate(t.Context(), secret); fault.CodeOf(err) != fault.IdentityUnavailable {
		t.Errorf("with a wrong token: %v, want identity_unavailable", err)
	}
}

// ask sends a question as it is.
func ask(t *testing.T, method, url, token, body string) (int, http.Header, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url+userorg.Path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	content, _ := io.ReadAll(response.Body)
	http.DefaultClient.CloseIdleConnections()
	return response.StatusCode, response.Header, string(content)
}

func TestTheDoorAnswersEveryJudgmentInOneShape(t *testing.T) {
	url := door(t, fixed{principal: auth.Principal{Organization: "acme", KeyID: "K1"}, errors: map[string]error{"revoked": fault.New(fault.RevokedAPIKey, "gone")}})
	shapes := map[string]bool{}
	for _, credential := range []string{secret, "revoked", "never seen"} {
		status, _, body := ask(t, http.MethodPost, url, "the-token-of-the-other", fmt.Sprintf(`{"apiKeySecret":%q}`, credential))
		var fields map[string]any
		if err := json.Unmarshal([]byte(body), &fields); err != nil || status != http.StatusOK {
			t.Fatalf("%s: %d %s", credential, status, body)
		}
		shapes[fmt.Sprint(len(fields))] = true
		for _, field := range []string{"valid", "apiKeyId", "organizationId", "principalId", "principalType", "scopes", "status", "expiresAt", "message"} {
			if _, ok := fields[field]; !ok {
				t.Errorf("%s: the answer has no %s: %s", credential, field, body)
			}
		}
		if strings.Contains(body, credential) && credential != "revoked" {
			t.Errorf("the answer repeats the key: %s", body)
		}
	}
	if len(shapes) != 1 {
		t.Errorf("the answers have different fields: %v", shapes)
	}
}

func TestTheDoorRefusesBadQuestions(t *testing.T) {
	url := door(t, fixed{})
	const token = "the-token-of-the-other"
	cases := []struct {
		name, method, token, body string
		want                      int
	}{
		{"no token", http.MethodPost, "", `{"apiKeySecret":"x"}`, 401},
		{"a wrong token", http.MethodPost, token + "x", `{"apiKeySecret":"x"}`, 401},
		{"the key as the token", http.MethodPost, secret, `{"apiKeySecret":"` + secret + `"}`, 401},
		{"another method", http.MethodGet, token, ``, 405},
		{"no JSON", http.MethodPost, token, `apiKeySecret=x`, 400},
		{"no key", http.MethodPost, token, `{}`, 400},
		{"a long key", http.MethodPost, token, `{"apiKeySecret":"` + strings.Repeat("k", 9<<10) + `"}`, 400},
		{"a long body", http.MethodPost, token, strings.Repeat(" ", 64<<10), 413},
	}
	for _, c := range cases {
		t.Run(strings.ReplaceAll(c.name, " ", "-"), func(t *testing.T) {
			if status, _, body := ask(t, c.method, url, c.token, c.body); status != c.want || strings.Contains(body, secret) {
				t.Errorf("%d %s, want %d", status, body, c.want)
			}
		})
	}
}

func TestAFloodOfWrongKeysWithholdsNoJudgment(t *testing.T) {
	url := door(t, fixed{
		principal: auth.Principal{Organization: "acme", KeyID: "K1"}, errors: map[string]error{"revoked": fault.New(fault.RevokedAPIKey, "gone")},
	})
	const token = "the-token-of-the-other"
	for i := range 150 {
		if status, _, body := ask(t, http.MethodPost, url, token, fmt.Sprintf(`{"apiKeySecret":"guess-%d"}`, i)); status != http.StatusOK {
			t.Fatalf("wrong key %d: %d %s", i, status, body)
		}
	}
	for credential, want := range map[string]string{secret: `"valid":true`, "revoked": `"status":"revoked"`} {
		status, _, body := ask(t, http.MethodPost, url, token, `{"apiKeySecret":"`+credential+`"}`)
		if status != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("after a flood of wrong keys: %d %s, want %s", status, body, want)
		}
	}
}

func TestGuessesOfTokensAtTheDoorAreSlowedDownAndRightOnesAreNot(t *testing.T) {
	url := door(t, fixed{principal: auth.Principal{Organization: "acme", KeyID: "K1"}})
	limited := 0
	for i := range 150 {
		status, h, _ := ask(t, http.MethodPost, url, fmt.Sprintf("guess-%d", i), `{"apiKeySecret":"`+secret+`"}`)
		if status == http.StatusTooManyRequests && h.Get("Retry-After") != "" {
			limited++
		}
	}
	if limited == 0 {
		t.Error("150 wrong tokens were all answered")
	}
	if status, _, body := ask(t, http.MethodPost, url, "the-token-of-the-other", `{"apiKeySecret":"`+secret+`"}`); status != http.StatusOK || !strings.Contains(body, `"valid":true`) {
		t.Errorf("a right token after them: %d %s", status, body)
	}
}
