package adminapi_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/ai-aas/api-router/internal/adminapi"
)

func TestEachCallOfIdentityIsTheRequestItShouldBe(t *testing.T) {
	var seen string
	_, c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		seen = fmt.Sprint(r.Method, " ", r.RequestURI, " ", r.Header.Get("If-Match"), r.Header.Get("If-None-Match"), " ", string(body))
		fmt.Fprint(w, "{}")
	})
	ctx, when := t.Context(), adminapi.If{Revision: new(int64(17)), Reason: "why so"}
	const acme = "/admin/v1/organizations/acme"
	for want, call := range map[string]func() error{
		"GET /admin/v1/organizations  ":                  func() error { _, err := c.Organizations(ctx, "", 0); return err },
		"GET /admin/v1/organizations?after=a&limit=7  ":  func() error { _, err := c.Organizations(ctx, "a", 7); return err },
		"DELETE " + acme + `?reason=why+so "17" `:        func() error { _, err := c.DeleteOrganization(ctx, "acme", when); return err },
		"GET " + acme + "/projects?after=a  ":            func() error { _, err := c.Projects(ctx, "acme", "a", 0); return err },
		"GET " + acme + "/projects/p  ":                  func() error { _, err := c.Project(ctx, "acme", "p"); return err },
		"DELETE " + acme + "/projects/p  ":               func() error { _, err := c.DeleteProject(ctx, "acme", "p", adminapi.If{}); return err },
		"GET " + acme + "/keys?after=a&limit=1  ":        func() error { _, err := c.Keys(ctx, "acme", "a", 1); return err },
		"DELETE " + acme + `/keys/k?reason=why+so "17" `: func() error { _, err := c.DeleteKey(ctx, "acme", "k", when); return err },
		"POST " + acme + `/keys/k/revoke "17" {"reason":"why so"}`: func() error {
			_, err := c.RevokeKey(ctx, "acme", "k", when)
			return err
		},
		"POST " + acme + `/keys/k/rotate "17" {"grace":"1h0m0s"}`: func() error {
			_, err := c.RotateKey(ctx, "acme", "k", adminapi.Rotation{Grace: adminapi.Duration(time.Hour)}, when.Revision)
			return err
		},
		"PATCH " + acme + `/keys/k "17" {"name":null,"scopes":{"models":["m"],"max_tokens":null},"expires_at":null,"reason":"x"}`: func() error {
			_, err := c.ChangeKey(ctx, "acme", "k", adminapi.KeyChange{
				Name: adminapi.To(""), ExpiresAt: adminapi.To(time.Time{}), Reason: "x",
				Scopes: adminapi.ScopesChange{Models: adminapi.To([]string{"m"}), MaxTokens: adminapi.To[int64](0)},
			}, when.Revision)
			return err
		},
		"PATCH " + acme + `/keys/k  {}`: func() error { _, err := c.ChangeKey(ctx, "acme", "k", adminapi.KeyChange{}, nil); return err },
	} {
		if err := call(); err != nil || seen != want {
			t.Errorf("%q, %v; want %q", seen, err, want)
		}
	}
}

func TestAChangeIsReadAsItIsWritten(t *testing.T) {
	for _, text := range []string{
		`{}`, `{"project":null}`, `{"name":"x","expires_at":"2027-01-31T00:00:00Z"}`, `{"scopes":{"models":["a"],"networks":null,"priority":null,"tags":{"a":"b"}},"reason":"why"}`,
	} {
		var change adminapi.KeyChange
		if err := json.Unmarshal([]byte(text), &change); err != nil {
			t.Fatal(err)
		}
		if again, err := json.Marshal(change); err != nil || string(again) != text {
			t.Errorf("%s became %s, %v", text, again, err)
		}
	}
	for _, text := range []string{`{"scopes":null}`, `{"scopes":{"model":["a"]}}`, `{"scopes":[]}`, `{"name":7}`} {
		if err := json.Unmarshal([]byte(text), new(adminapi.KeyChange)); err == nil {
			t.Errorf("%s is read", text)
		}
	}
}
