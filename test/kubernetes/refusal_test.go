package kubernetes

import (
	"strings"
	"testing"
)

func TestBadValuesAreRefusedWithAMessageThatNamesThem(t *testing.T) {
	for _, c := range []struct {
		name string
		file string
		sets []string
		want string
	}{
		{"a word with a typing mistake", "", []string{"replica=2"}, "additional properties 'replica' not allowed"},
		{"a setting that does not exist", "", []string{"config.server.drain_timout=1s"}, "at '/config/server': additional properties 'drain_timout' not allowed"},
		{"an address, which is the chart's", "", []string{"config.listen.public=:80"}, "at '/config/listen': additional properties 'public' not allowed"},
		{"a certificate that is no file", "", []string{"config.listen.tls.cert=env:CERT"}, "/config/listen/tls/cert"},
		{"a certificate that is nowhere", "", []string{"config.listen.tls.cert=/run/secrets/api-router/tls.crt"}, "add { file: tls.crt"},
		{"a word in place of a number", "", []string{"replicas=two"}, "at '/replicas': got string, want integer"},
		{"a source for one machine", "", []string{"config.policy.source=state"}, "name the PostgreSQL database that all pods share with config.state.url"},
		{"a state book for one machine", "", []string{"config.state.url=sqlite:///var/lib/api-router/state.db"}, "at '/config/state/url'"},
		{"a pepper itself", "", []string{"config.identity.peppers[0]=hunter2-hunter2"}, "number 1 of config.identity.peppers: a reference is wanted"},
		{"a database's password itself", "", []string{"config.state.password=hunter2-hunter2"}, "config.state.password: a reference is wanted"},
		{"a database's password in its URL", "", []string{"config.state.url=postgres://router:hunter2@db/router"}, "config.state.url has a password in it"},
		{"a database's password behind its URL", "", []string{"config.state.url=postgres://router@db/router?sslmode=require&password=hunter2"}, "config.state.url has a password in it"},
		{"an authority that is nowhere", "", []string{"config.state.url=postgres://router@db/router?sslrootcert=/run/secrets/api-router/db-ca.crt"}, "add { file: db-ca.crt"},
		{"a field that no issuer has", "", []string{"config.identity.jwt[0].issuer=https://a,config.identity.jwt[0].audience=b,config.identity.jwt[0].algorithms=RS256,config.identity.jwt[0].organisation_claim=c"}, "additional properties 'organisation_claim' not allowed"},
		{"an environment that is none", "", []string{"config.environment=prod"}, "at '/config/environment': value must be one of"},
		{"a duration without a unit", "", []string{"config.server.drain_timeout=60"}, "/config/server/drain_timeout"},
		{"a password as it is", "", []string{"config.policy.etcd.password=hunter2"}, "config.policy.etcd.password: a reference is wanted"},
		{"a token as it is", "", []string{"config.identity.admin_tokens[0].name=a,config.identity.admin_tokens[0].role=admin,config.identity.admin_tokens[0].token=0123456789abcdef"}, "token of a in config.identity.admin_tokens: a reference is wanted"},
		{"a role that is none", "", []string{"config.identity.admin_tokens[0].name=a,config.identity.admin_tokens[0].role=root,config.identity.admin_tokens[0].token=env:A"}, "/config/identity/admin_tokens/0/role"},
		{"a secret in a variable", "", []string{"env[0].name=OTEL_EXPORTER_OTLP_HEADERS,env[0].value=hunter2"}, "at '/env/0': missing property 'valueFrom'"},
		{"a secret from a ConfigMap", "", []string{"env[0].name=VLLM_API_KEY,env[0].valueFrom.configMapKeyRef.name=a,env[0].valueFrom.configMapKeyRef.key=b"}, "missing property 'secretKeyRef'"},
		{"a user in the collector's URL", "", []string{"otlp.endpoint=https://ada:hunter2@otel"}, "otlp.endpoint has a user in it"},
		{"a real key for the test", "values-development.yaml", []string{"tests.developmentKey=hunter2"}, "tests.developmentKey is no development key"},
		{"a digest that is none", "", []string{"image.digest=latest"}, "/image/digest"},
		{"a file that no router reads", "", []string{`documents.notes\.txt=x`}, "'notes.txt' does not match pattern"},
		{"a route to no gateway", "", []string{"httpRoute.enabled=true"}, "/httpRoute/parentRefs"},
		{"a name that Kubernetes refuses", "", []string{"fullnameOverride=Router_1"}, "/fullnameOverride"},
		{"a name that leaves no room", "", []string{"fullnameOverride=" + strings.Repeat("a", 53)}, "/fullnameOverride"},
		{"a size without a unit", "", []string{"config.server.max_body=1048576"}, "at '/config/server/max_body': got number, want string"},
		{"a size in words", "", []string{"resources.limits.memory=lots"}, "/resources/limits/memory"},

		{"etcd without an address", "", []string{"config.policy.source=etcd"}, "say where it is with config.policy.etcd.endpoints"},
		{"development keys in production", "", []string{"config.identity.development_keys=true"}, "config.identity.development_keys is refused in production"},
		{"a development key where none works", "", []string{"tests.developmentKey=test-a-b"}, "tests.developmentKey needs config.identity.development_keys"},
		{"documents twice", "", []string{`documents.a\.yaml=x`, "existingDocuments=b"}, "existingDocuments and documents are both set"},
		{"a volume for two", "", []string{"state.existingClaim=a"}, "state.existingClaim is a volume of one pod"},
		{"a volume for as many as it takes", "", []string{"state.existingClaim=a", "replicas=1", "autoscaling.enabled=true"}, "state.existingClaim is a volume of one pod"},
		{"a token that is nowhere", "values-staging.yaml", []string{"secrets=null"}, "refer to /run/secrets/api-router/ada: add { file: ada, secret: NAME, key: KEY } to secrets"},
		{"a backend's key that is nowhere", "values-production.yaml", []string{"secrets[4].file=other"}, "refer to /run/secrets/api-router/vllm: add { file: vllm"},
		{"one file twice", "values-production.yaml", []string{"secrets[4].file=ada"}, "secrets has two entries for one file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := values{namespace: "default", file: c.file, sets: c.sets}
			_, err := helm(t, append([]string{"template", release, chart}, v.args(t)...)...)
			switch {
			case err == nil:
				t.Error("it was taken")
			case !strings.Contains(err.Error(), c.want):
				t.Errorf("got %v\nwant something with %q", err, c.want)
			case strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "0123456789abcdef"):
				t.Errorf("the message repeats a secret: %v", err)
			}
		})
	}
}
