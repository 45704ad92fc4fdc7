package e2e

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ai-aas/api-router/internal/adminapi"
)

// onEveryPlace runs a test with documents in the state book, of either kind, and in etcd beside it.
func onEveryPlace(t *testing.T, test func(t *testing.T, e *etcd, settings ...string)) {
	onBothBooks(t, func(t *testing.T, settings ...string) { test(t, nil, append(settings, "policy.source=state")...) })
	t.Run("etcd beside sqlite", func(t *testing.T) {
		e := startEtcd(t, anyEtcd(t))
		test(t, e, "policy.source=etcd", "policy.etcd.endpoints="+e.endpoint(), "state.url=sqlite://"+filepath.Join(t.TempDir(), "state.db"))
	})
}

func TestOneAuditTellsOfEverything(t *testing.T) {
	onEveryPlace(t, func(t *testing.T, e *etcd, settings ...string) {
		b := &bureau{desk: &desk{t: t, dir: t.TempDir(), role: adminToken}, secrets: []string{pepper, adminToken, operatorToken}}
		b.router = serve(t, append(settings, "identity.peppers=env:PEPPER", "PEPPER="+pepper, "identity.cache.file=",
			"identity.admin_tokens=ada:admin:env:ADA,olga:operator:env:OLGA,audrey:auditor:env:AUDREY", "AUDREY="+auditorToken)...)
		documents := b.file("documents.yaml", fmt.Sprintf(`{kind: Backend, id: north, url: %q, api_key: 'env:PEPPER'}
---
{kind: RoutingPolicy, id: ours, model: %s, organization: acme, backends: [{id: north}]}
`, engine(t), model))

		b.order("org create acme --reason 'a new customer'")
		made := b.makeKey("key create --org acme --name checkout")
		b.order("apply -f " + documents + " --reason 'new GPUs'")
		b.role = operatorToken
		b.order("backend drain north --reason 'the fan is loud'")
		b.order("log-level debug")
		b.role = adminToken
		b.order("key revoke --org acme " + made.ID + " --reason leaked")
		b.role = operatorToken
		b.order("backend enable north --reason 'it is quiet now'")
		want := []string{
			"ada create organization acme of acme: a new customer", "ada create key " + made.ID + " of acme: ", "ada create Backend north of : new GPUs",
			"ada create RoutingPolicy ours of acme: new GPUs", "olga create Mark backend.north of : the fan is loud", "olga update log-level HOST of : ",
			"ada revoke key " + made.ID + " of acme: leaked", "olga delete Mark backend.north of : it is quiet now",
		}
		slices.Reverse(want)

		b.role = auditorToken
		b.order("audit list", "WHEN", "ada (admin)", "olga (operator)", "log-level", "the fan is loud")
		for _, tc := range []struct {
			flags string
			want  []string
		}{
			{"--limit 0", want},
			{"--limit 3", want[:3]},
			{"--since 1h", want},
			{"--since 2100-01-01", nil},
			{"--org acme", []string{want[1], want[4], want[6], want[7]}},
			{"--actor olga", []string{want[0], want[2], want[3]}},
			{"--kind mark", []string{want[0], want[3]}},
			{"--kind log-level", want[2:3]},
			{"--kind key --id " + made.ID, []string{want[1], want[6]}},
		} {
			got, _ := b.entries(tc.flags)
			if strings.Join(got, "\n") != strings.Join(tc.want, "\n") {
				t.Errorf("audit list %s tells\n%s\nwant\n%s", tc.flags, strings.Join(got, "\n"), strings.Join(tc.want, "\n"))
			}
		}
		var pages []string
		for next := ""; ; {
			flags := "--limit 3"
			if next != "" {
				flags += " --before " + next
			}
			got, after := b.entries(flags)
			pages = append(pages, got...)
			if next = after; next == "" || len(pages) > len(want) {
				break
			}
		}
		if strings.Join(pages, "\n") != strings.Join(want, "\n") {
			t.Errorf("in pages it tells\n%s", strings.Join(pages, "\n"))
		}
		if e != nil {
			e.kill()
			b.fails("audit list", "store_unavailable", "the history of the documents cannot be read")
			b.order("audit list --kind key", made.ID)
		}
		for place, text := range map[string]string{"the output of commands": b.heard.String(), "the log": b.router.log.String()} {
			for i, secret := range b.secrets {
				for _, form := range forms(secret) {
					if strings.Contains(text, form) {
						t.Errorf("secret %d is in %s", i, place)
					}
				}
			}
		}
	})
}

// entries lists the audit with these flags, a line for each, the newest first, and where the next page begins.
func (b *bureau) entries(flags string) (lines []string, next string) {
	b.t.Helper()
	var found adminapi.Entries
	if err := json.Unmarshal([]byte(b.order("audit list -o json "+flags)), &found); err != nil {
		b.t.Fatal(err)
	}
	for _, e := range found.Items {
		id := e.ID
		if e.Kind == "log-level" {
			id = "HOST"
		}
		lines = append(lines, fmt.Sprintf("%s %s %s %s of %s: %s", e.Actor, e.Action, e.Kind, id, e.Organization, e.Reason))
		role := map[string]string{"ada": adminapi.RoleAdmin, "olga": adminapi.RoleOperator}[e.Actor]
		if isNew := e.Action == "create"; e.Role != role || e.RequestID == "" || e.ID == "" || (string(e.Before) == "null") != isNew ||
			(string(e.After) == "null") != (e.Action == "delete") {
			b.t.Errorf("%+v", e)
		}
	}
	return lines, found.Next
}
