package app_test

import (
	"strings"
	"testing"

	"github.com/ai-aas/api-router/internal/app"
)

func TestTheSettingsOfIdentityAreReadAndRefused(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		file, says string // says: "" where it is good
	}{
		"nothing":                           {"", ""},
		"everything":                        {"environment: production\nidentity: { order: [state, jwt], peppers: [env:B, 'file:/run/a'], jwt: [{ issuer: 'https://id.example.org', audience: router, algorithms: RS256, organization_claim: org }], cache: { ttl: 1m, negative_ttl: 5s, stale_if_error: 1h, file: '' } }\nserver: { trusted_proxies: [10.0.0.0/8, '2001:db8::/32', 192.0.2.1] }\n", ""},
		"state without a pepper":            {"environment: production\nidentity: { order: [state] }\n", "identity.peppers: identity.order names state"},
		"the same in development":           {"environment: development\nidentity: { order: [state] }\n", "identity.peppers: identity.order names state"},
		"development in production":         {"identity: { order: [development] }\n", "production accepts no development keys"},
		"a validator that is none":          {"identity: { order: [ldap] }\n", "is none of state, user_org_service, jwt, development"},
		"one twice":                         {"identity: { order: [jwt, jwt] }\n", "given twice"},
		"a pepper in the place of its name": {"identity: { peppers: [hunter2-hunter2-hunter2] }\n", "must be a reference"},
		"a network that is none":            {"server: { trusted_proxies: [everybody] }\n", "is not a network"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, _, err := app.Load(app.Sources{File: write(t, "config.yaml", tc.file)})
			switch {
			case tc.says == "" && err != nil:
				t.Fatal(err)
			case tc.says != "" && (err == nil || !strings.Contains(err.Error(), tc.says) || strings.Contains(err.Error(), "hunter2")):
				t.Errorf("got %v, want %q", err, tc.says)
			case name == "everything" && (len(c.Identity.Order) != 2 || len(c.Identity.Peppers) != 2 || len(c.Server.TrustedProxies) != 3 || c.Identity.Cache.File != ""):
				t.Errorf("got %+v", c.Identity)
			}
		})
	}
}
