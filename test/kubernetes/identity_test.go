package kubernetes

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// identities name everything that is about who may do what, and where that is kept, with what is secret of it in files.
var identities = append(mounted("tls.crt", "tls.key", "clients.crt", "db-password", "db-ca.crt", "pepper-2", "pepper-1", "edge", "user-org", "user-org-ca.crt", "issuer-ca.crt", "ada"),
	"config.policy.source=state",
	`config.state.url=postgres://router@db-0.db\,db-1.db/router?target_session_attrs=read-write&sslmode=verify-full&sslrootcert=`+secretsDir+"db-ca.crt",
	"config.state.password=file:"+secretsDir+"db-password", "config.state.migrate=manual",
	"config.listen.tls.cert="+secretsDir+"tls.crt", "config.listen.tls.key="+secretsDir+"tls.key", "config.listen.tls.client_ca="+secretsDir+"clients.crt",
	"config.listen.admin_tls.cert="+secretsDir+"tls.crt", "config.listen.admin_tls.key="+secretsDir+"tls.key", "config.listen.admin_tls.client_ca="+secretsDir+"clients.crt",
	"config.identity.order={state,jwt,user_org_service}",
	"config.identity.peppers={file:"+secretsDir+"pepper-2,file:"+secretsDir+"pepper-1}", "config.identity.validation_tokens={file:"+secretsDir+"edge}",
	"config.identity.cache.ttl=30s", "config.identity.cache.negative_ttl=5s", "config.identity.cache.stale_if_error=2h",
	"config.identity.user_org_service.url=https://user-org.example", "config.identity.user_org_service.timeout=1s",
	"config.identity.user_org_service.token=file:"+secretsDir+"user-org", "config.identity.user_org_service.ca="+secretsDir+"user-org-ca.crt",
	"config.identity.jwt[0].issuer=https://login.example/realms/acme", "config.identity.jwt[0].audience=api-router", "config.identity.jwt[0].algorithms=RS256 ES256",
	"config.identity.jwt[0].organization_claim=org", "config.identity.jwt[0].organizations=acme acme-labs", "config.identity.jwt[0].scopes_claim=scope", "config.identity.jwt[0].models_claim=models",
	"config.identity.jwt[0].roles_claim=realm_access.roles", "config.identity.jwt[0].roles=router-admins=admin", "config.identity.jwt[0].leeway=10s",
	"config.identity.jwt[0].jwks_url=https://login.example/keys", "config.identity.jwt[0].ca="+secretsDir+"issuer-ca.crt",
	"config.identity.admin_tokens[0].name=ada", "config.identity.admin_tokens[0].role=admin", "config.identity.admin_tokens[0].token=file:"+secretsDir+"ada",
	"config.server.trusted_proxies={10.0.0.0/8}",
)

// intended is what the router is to read of them.
const intended = `
environment: production
policy: { source: state }
state:
  url: postgres://router@db-0.db,db-1.db/router?target_session_attrs=read-write&sslmode=verify-full&sslrootcert=/run/secrets/api-router/db-ca.crt
  password: file:/run/secrets/api-router/db-password
  migrate: manual
listen:
  public: ':8080'
  admin: 127.0.0.1:8082
  metrics: ':9464'
  tls: { cert: /run/secrets/api-router/tls.crt, key: /run/secrets/api-router/tls.key, client_ca: /run/secrets/api-router/clients.crt }
  admin_tls: { cert: /run/secrets/api-router/tls.crt, key: /run/secrets/api-router/tls.key, client_ca: /run/secrets/api-router/clients.crt }
identity:
  order: [state, jwt, user_org_service]
  peppers: ['file:/run/secrets/api-router/pepper-2', 'file:/run/secrets/api-router/pepper-1']
  validation_tokens: ['file:/run/secrets/api-router/edge']
  cache: { ttl: 30s, negative_ttl: 5s, stale_if_error: 2h }
  user_org_service:
    url: https://user-org.example
    timeout: 1s
    token: file:/run/secrets/api-router/user-org
    ca: /run/secrets/api-router/user-org-ca.crt
  jwt:
    - issuer: https://login.example/realms/acme
      audience: api-router
      algorithms: RS256 ES256
      organization_claim: org
      organizations: acme acme-labs
      scopes_claim: scope
      models_claim: models
      roles_claim: realm_access.roles
      roles: router-admins=admin
      leeway: 10s
      jwks_url: https://login.example/keys
      ca: /run/secrets/api-router/issuer-ca.crt
  admin_tokens: [{ name: ada, role: admin, token: 'file:/run/secrets/api-router/ada' }]
server: { trusted_proxies: [10.0.0.0/8] }
`

const secretsDir = "/run/secrets/api-router/"

// mounted are the entries of "secrets" for these files.
func mounted(files ...string) (sets []string) {
	for i, file := range files {
		entry := fmt.Sprintf("secrets[%d]", i)
		sets = append(sets, entry+".file="+file, entry+".secret=api-router-identity", entry+".key="+file)
	}
	return sets
}

func TestWhatIsSaidOfKeysTokensAndCertificatesReachesTheRouter(t *testing.T) {
	all := render(t, installation("keys, tokens and certificates"))
	path, got := configuration(t, all)
	var want map[string]any
	if err := yaml.Unmarshal([]byte(intended), &want); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the configuration is\n%s\nwant\n%s", read(t, path), intended)
	}
	// The router takes it, without a note of something that has no effect.
	documents := filepath.Join(t.TempDir(), "none.yaml")
	if err := os.WriteFile(documents, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := command(t, "check", "--config", path, "-f", documents); err != nil || strings.Contains(out, "note:") {
		t.Errorf("%v: %s", err, out)
	}
	// Every file that it names is in the pod, in a volume that follows its Secret: a path of its own would not.
	spec := router(t, all).Spec.Template.Spec
	var files []string
	for _, v := range spec.Volumes {
		if v.Name != "secrets" {
			continue
		}
		for _, source := range v.Projected.Sources {
			for _, item := range source.Secret.Items {
				files = append(files, item.Path)
			}
		}
	}
	for _, m := range spec.Containers[0].VolumeMounts {
		if m.Name == "secrets" && (m.SubPath != "" || m.MountPath+"/" != secretsDir || !m.ReadOnly) {
			t.Errorf("the secrets are mounted as %+v", m)
		}
	}
	for word := range strings.FieldsFuncSeq(read(t, path), func(c rune) bool { return strings.ContainsRune(" \n\"'=&,", c) }) {
		if _, file, found := strings.Cut(word, secretsDir); found && !slices.Contains(files, file) {
			t.Errorf("%s is not in the pod, only %v", word, files)
		}
	}
	// The kubelet has no certificate to show: the pod asks itself.
	container := spec.Containers[0]
	for _, probe := range []any{container.StartupProbe.HTTPGet, container.LivenessProbe.HTTPGet, container.ReadinessProbe.HTTPGet} {
		if !reflect.ValueOf(probe).IsNil() {
			t.Errorf("a probe over HTTP: %+v", probe)
		}
	}
}

// The schema takes the fields of an issuer that the router takes.
func TestAnIssuerHasTheFieldsThatTheRouterKnows(t *testing.T) {
	out, err := command(t, "check", "--settings")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(out, "| `identity.jwt` |")
	_, rest, _ = strings.Cut(rest, "{ ")
	form, _, found := strings.Cut(rest, " }")
	var want []string
	for field := range strings.SplitSeq(form, ", ") {
		name, _, _ := strings.Cut(field, ":")
		want = append(want, name)
	}
	var schema struct {
		Properties struct {
			Config struct {
				Properties struct {
					Identity struct {
						Properties struct {
							JWT struct {
								Items struct {
									Properties map[string]any `json:"properties"`
								} `json:"items"`
							} `json:"jwt"`
						} `json:"properties"`
					} `json:"identity"`
				} `json:"properties"`
			} `json:"config"`
		} `json:"properties"`
	}
	if err := json.Unmarshal([]byte(read(t, filepath.Join(chart, "values.schema.json"))), &schema); err != nil {
		t.Fatal(err)
	}
	got := slices.Sorted(maps.Keys(schema.Properties.Config.Properties.Identity.Properties.JWT.Items.Properties))
	if slices.Sort(want); !found || !slices.Equal(got, want) {
		t.Errorf("values.schema.json has for an issuer:\n%v\nthe router has:\n%v", got, want)
	}
}
