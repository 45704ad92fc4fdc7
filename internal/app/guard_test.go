package app_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/ai-aas/api-router/internal/app"
	"github.com/ai-aas/api-router/internal/auth"
)

func TestASwitchedOffOrganizationIsRefusedToItsDevelopmentKeysToo(t *testing.T) {
	b := newBooks()
	b.put(auth.Change{Organization: &auth.Organization{ID: "closed", Disabled: true}})
	o, key, _ := keyed(t, b, auth.Key{})
	o.Config.Identity.DevelopmentKeys, o.Config.Identity.Order = true, []string{app.ValidatorDevelopment, app.ValidatorState}
	p := run(t, o)
	eventually(t, "the keys to be known", func() bool { status, _ := ask(t, p.base, key); return status == http.StatusOK })
	for credential, want := range map[string]int{"test-acme-1": http.StatusOK, "test-closed-1": http.StatusForbidden} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.base+"/v1/models", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+credential)
		resp, err := client(t).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if content := read(t, resp.Body); resp.StatusCode != want || want == http.StatusForbidden && !strings.Contains(content, "organization_disabled") {
			t.Errorf("%s: %d %s, want %d", credential, resp.StatusCode, content, want)
		}
	}
}
