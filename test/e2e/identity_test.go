package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ai-aas/api-router/internal/adminapi"
	"github.com/ai-aas/api-router/test/postgres"
)

const auditorToken = "e2e-auditor-token-0123456789"

// onBothBooks runs a test on a state book in a SQLite file and on one in PostgreSQL.
func onBothBooks(t *testing.T, test func(t *testing.T, settings ...string)) {
	t.Run("sqlite", func(t *testing.T) { test(t, "state.url=sqlite://"+filepath.Join(t.TempDir(), "state.db")) })
	t.Run("postgres", func(t *testing.T) {
		server := postgres.Shared(t)
		test(t, "state.url="+server.URL(server.Database(t), ""), "state.password=env:STATE_PASSWORD", "STATE_PASSWORD="+postgres.Password)
	})
}

// bureau is two replicas over one state book, and whoever operates them.
type bureau struct {
	*desk
	replicas [2]*router
	records  string   // the usage records of the first replica
	secrets  []string // what nothing may print again
	heard    strings.Builder
}

func openBureau(t *testing.T, settings ...string) *bureau {
	t.Helper()
	b := &bureau{desk: &desk{t: t, dir: t.TempDir(), role: adminToken}, secrets: []string{pepper, postgres.Password}}
	b.records = filepath.Join(b.dir, "usage.jsonl")
	common := append(slices.Clone(settings), "policy.source=state", "identity.peppers=env:PEPPER", "PEPPER="+pepper, "identity.cache.file=", "log.level=debug",
		"identity.admin_tokens=ada:admin:env:ADA,audrey:auditor:env:AUDREY", "AUDREY="+auditorToken)
	b.replicas[0] = serve(t, append(slices.Clone(common), "usage.sinks=jsonl:"+b.records)...)
	b.replicas[1] = serve(t, common...)
	b.router = b.replicas[0]
	for _, name := range []string{model, "other"} {
		b.do("apply -f " + b.file(name+".yaml", fmt.Sprintf("kind: RoutingPolicy\nid: %[1]s\nmodel: %[1]s\nbackends: [{id: b-%[1]s}]\n---\nkind: Backend\nid: b-%[1]s\nurl: %[2]s\nmodels: {%[1]s: %[3]s}\n",
			name, engine(t), model)))
	}
	return b
}

// order runs a command that succeeds, and keeps what it says.
func (b *bureau) order(args string, want ...string) string {
	b.t.Helper()
	out := b.do(args, want...)
	b.heard.WriteString(out)
	return out
}

// makeKey runs a command that prints a new key.
func (b *bureau) makeKey(args string) adminapi.NewKey {
	b.t.Helper()
	var made struct {
		Key    adminapi.Key `json:"key"`
		Secret string       `json:"secret"`
	}
	if err := json.Unmarshal([]byte(b.do(args+" -o json")), &made); err != nil {
		b.t.Fatal(err)
	}
	b.secrets = append(b.secrets, made.Secret)
	return adminapi.NewKey{Key: made.Key, Secret: made.Secret}
}

// says wants this status, and of an error this code, from a replica that is asked for a model with a key.
func (b *bureau) says(replica int, path, name, secret string, status int, code string) error {
	r := b.replicas[replica]
	body := fmt.Sprintf(`{"model":%q,"messages":[{"role":"user","content":"Say hello."}],"input":"hello","max_tokens":8}`, name)
	request, err := http.NewRequestWithContext(context.Background(), http.MethodPost, "http://"+r.public+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+secret)
	request.Header.Set("Content-Type", "application/json")
	response, err := r.client.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	switch {
	case err != nil:
		return err
	case response.StatusCode != status || code != "" && !strings.Contains(string(text), `"code":"`+code+`"`):
		return fmt.Errorf("replica %d answers %d %s, want %d %s", replica, response.StatusCode, text, status, code)
	}
	return nil
}

// everywhere waits until both replicas say so, and prints how long that took.
func (b *bureau) everywhere(what, secret string, status int, code string) {
	b.t.Helper()
	within(b.t, what, eventually(b.t, what, func() error {
		for replica := range b.replicas {
			if err := b.says(replica, chatPath, model, secret, status, code); err != nil {
				return err
			}
		}
		return nil
	}), promisedRevocation)
}

const chatPath = "/v1/chat/completions"

func TestTheLifeOfAKey(t *testing.T) {
	onBothBooks(t, func(t *testing.T, settings ...string) {
		b := openBureau(t, settings...)
		b.order("org create acme --name 'Acme Corporation' --time-zone Europe/Berlin --reason 'a new customer'", "organization acme is created", "api-router key create --org acme")
		b.order("org list", "Acme Corporation", "Europe/Berlin", "enabled")
		b.fails("org create acme", "exists already")
		b.fails("org create there --time-zone Europe/Bonn", "time_zone", "there is no such time zone")
		b.fails("key create --org nobody", "there is no organization nobody")
		b.fails("key create --org acme --model a*b --endpoint /v1/models --network 10.0.0.1/8 --tag 'two words=x' --expires 2001-01-01 --signed perhaps",
			"6 things are wrong", "scopes.models[0]", "scopes.endpoints[0]", "scopes.networks[0]", "scopes.tags", "expires_at", "scopes.signature")
		b.fails("key create --org acme --project shop", "organization acme has no project shop")

		first := b.makeKey("key create --org acme --name checkout --model gpt-oss-* --endpoint " + chatPath + " --network 127.0.0.0/8 --expires 90d --max-tokens 64 --tag team=shop")
		b.everywhere("a new key works on both replicas", first.Secret, http.StatusOK, "")
		for what, err := range map[string]error{
			"a model that it may not use":     b.says(1, chatPath, "other", first.Secret, http.StatusNotFound, "model_not_found"),
			"an endpoint that it may not use": b.says(1, "/v1/embeddings", model, first.Secret, http.StatusForbidden, "permission_denied"),
			"a key that is not known":         b.says(1, chatPath, model, "sk-whatever", http.StatusUnauthorized, "invalid_api_key"),
			"a development key, beside it":    b.says(1, chatPath, model, key, http.StatusOK, ""),
		} {
			if err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
		b.await("the usage record has organization, key and tags", func() error {
			records, err := os.ReadFile(b.records)
			for _, part := range []string{`"organization":"acme"`, `"key_id":"` + first.ID + `"`, `"team":"shop"`} {
				if err == nil && !strings.Contains(string(records), part) {
					err = fmt.Errorf("%s is not in %s", part, records)
				}
			}
			return err
		})

		second := b.makeKey("key rotate --org acme " + first.ID + " --grace 24h --reason 'every quarter'")
		b.everywhere("the key that takes its place works", second.Secret, http.StatusOK, "")
		b.everywhere("and so does the old one in its grace", first.Secret, http.StatusOK, "")
		b.order("key list --org acme", first.ID, "rotated", second.ID, "active", "checkout")
		b.fails("key rotate --org acme "+first.ID, "was rotated before")
		b.fails("key revoke --org acme "+first.Secret, "name it by its id")
		b.fails("key revoke --org other "+first.ID, "there is no key "+first.ID+" of organization other")

		b.order("key revoke --org acme "+first.ID+" --reason 'it was in a public repository'", "is revoked")
		b.everywhere("a key that was revoked is refused on both replicas", first.Secret, http.StatusUnauthorized, "revoked_api_key")
		b.everywhere("and its successor works", second.Secret, http.StatusOK, "")

		b.fails("org disable acme", "--reason is missing")
		b.order("org disable acme --reason 'by agreement'", "is disabled until")
		b.everywhere("a disabled organization is refused", second.Secret, http.StatusForbidden, "organization_disabled")
		b.order("org enable acme", "is enabled")
		b.everywhere("and enabled again", second.Secret, http.StatusOK, "")

		imported := "old-gateway-key-0123456789abcdef"
		digest := sha256.Sum256([]byte(imported))
		b.order("key import --org acme -f "+b.file("prints.txt", "# of the old gateway\n"+hex.EncodeToString(digest[:])+" the old gateway\n\n"), "imported: 1, there already: 0")
		b.order("key import --org acme -f "+filepath.Join(b.dir, "prints.txt"), "imported: 0, there already: 1")
		b.secrets = append(b.secrets, imported)
		b.everywhere("an imported key works", imported, http.StatusOK, "")
		b.audited(first.ID, second.ID)
		b.nothingLeaks()
	})
}

// audited holds the audit to all that was done, as the auditor sees it, who sees nothing else.
func (b *bureau) audited(first, second string) {
	b.t.Helper()
	b.role = auditorToken
	defer func() { b.role = adminToken }()
	b.order("audit list --org acme", "ada", "a new customer", "every quarter", "by agreement", "it was in a public repository", second)
	var entries adminapi.Entries
	if err := json.Unmarshal([]byte(b.order("audit list --org acme -o json")), &entries); err != nil {
		b.t.Fatal(err)
	}
	var told []string
	for _, e := range slices.Backward(entries.Items) {
		told = append(told, e.Action+" "+e.Kind)
		if e.Actor != "ada" || e.Role != adminapi.RoleAdmin || e.RequestID == "" || string(e.After) == "null" {
			b.t.Errorf("%+v", e)
		}
		if made := e.Action == "create" || e.Action == "import"; made != (string(e.Before) == "null") {
			b.t.Errorf("before %s of %s was %s", e.Action, e.Kind, e.Before)
		}
	}
	want := "create organization, create key, create key, rotate key, revoke key, update organization, update organization, import key"
	if strings.Join(told, ", ") != want {
		b.t.Errorf("the audit tells of\n%s\nwant\n%s", strings.Join(told, ", "), want)
	}
	b.order("audit list --kind key --id "+first, "rotate", "revoke")
	b.order("status")
	for _, args := range []string{"org list", "key list --org acme", "get policies", "key create --org acme", "org disable acme --reason x"} {
		b.fails(args, "permission_denied", "auditor")
	}
}

// nothingLeaks looks for keys and peppers in everything that was printed, but where a key is shown the once.
func (b *bureau) nothingLeaks() {
	b.t.Helper()
	records, err := os.ReadFile(b.records)
	if err != nil {
		b.t.Fatal(err)
	}
	for place, text := range map[string]string{
		"the output of commands": b.heard.String(), "the usage records": string(records),
		"the log of the first replica": b.replicas[0].log.String(), "the log of the second": b.replicas[1].log.String(),
	} {
		for i, secret := range b.secrets {
			for _, form := range forms(secret) {
				if strings.Contains(text, form) {
					b.t.Errorf("secret %d is in %s", i, place)
				}
			}
		}
	}
}
