package app_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ai-aas/api-router/internal/app"
	"github.com/ai-aas/api-router/internal/policy"
)

// write puts content into a new file and returns its path.
func write(t *testing.T, name, content string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestTheFileSetsEverySetting(t *testing.T) {
	t.Parallel()
	file := write(t, "config.yaml", `
environment: development
listen: { public: "127.0.0.1:9000", admin: "127.0.0.1:9001", metrics: "127.0.0.1:9002" }
log: { level: debug, format: text }
policy:
  source: etcd
  etcd:
    endpoints: [ "etcd-0:2379", "https://etcd-1:2379/" ]
    prefix: /router
    username: router
    password: env:ETCD_PASSWORD
    tls: { ca: /etc/ca.pem, cert: /etc/cert.pem, key: /etc/key.pem, server_name: etcd }
  last_good: ""
identity:
  development_keys: true
  admin_tokens:
    - { name: ops, role: operator, token: env:OPS_TOKEN }
    - name: ci
      role: admin
      token: file:/run/secrets/ci
usage:
  sinks:
    - { type: jsonl, path: /tmp/usage.jsonl }
    - type: jsonl
      path: /tmp/second.jsonl
telemetry:
  traces: { sample: 0.5, slow: 3s }
server:
  max_body: 512KiB
  header_timeout: 1s
  body_timeout: 2s
  idle_timeout: 3s
  write_timeout: 4s
  drain_timeout: 5s
  drain_grace: 0s
  expose_backend: false
`)
	got, notes, err := app.Load(app.Sources{File: file})
	if err != nil || len(notes) != 0 {
		t.Fatalf("got %v, notes %v", err, notes)
	}
	want := app.Default()
	want.Environment = app.Development
	want.Listen.Public = "127.0.0.1:9000"
	want.Log.Level, want.Log.Format = "debug", "text"
	want.Listen.Admin, want.Listen.Metrics = "127.0.0.1:9001", "127.0.0.1:9002"
	want.Policy.Source, want.Policy.LastGood = app.SourceEtcd, ""
	want.Policy.Etcd = app.Etcd{
		Endpoints: []string{"etcd-0:2379", "https://etcd-1:2379"}, Prefix: "/router/", Username: "router", Password: reference(t, "env:ETCD_PASSWORD"),
		TLS: policy.TLS{CA: "/etc/ca.pem", Cert: "/etc/cert.pem", Key: "/etc/key.pem", ServerName: "etcd"},
	}
	want.Identity.DevelopmentKeys = true
	want.Identity.AdminTokens = []app.AdminToken{
		{Name: "ops", Role: "operator", Token: reference(t, "env:OPS_TOKEN")}, {Name: "ci", Role: "admin", Token: reference(t, "file:/run/secrets/ci")},
	}
	want.Usage.Sinks = []app.Sink{{Type: "jsonl", Path: "/tmp/usage.jsonl"}, {Type: "jsonl", Path: "/tmp/second.jsonl"}}
	want.Telemetry.Traces = app.Traces{Sample: 0.5, Slow: 3 * time.Second}
	want.Server.MaxBody = 512 << 10
	want.Server.HeaderTimeout, want.Server.BodyTimeout, want.Server.IdleTimeout = time.Second, 2*time.Second, 3*time.Second
	want.Server.WriteTimeout, want.Server.DrainTimeout, want.Server.DrainGrace = 4*time.Second, 5*time.Second, 0
	want.Server.ExposeBackend = false
	if diff := cmp.Diff(want, got, byText); diff != "" {
		t.Error(diff)
	}
}

// byText compares references, which keep their text to themselves.
var byText = cmp.Comparer(func(a, b policy.SecretRef) bool { return a.String() == b.String() })

func reference(t *testing.T, text string) policy.SecretRef {
	t.Helper()
	ref, err := policy.ParseSecretRef(text)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

func TestTheOtherPolicySources(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		file string
		want func(*app.Config)
	}{
		"file": {"policy: { source: file, file: { path: /etc/policies } }", func(c *app.Config) { c.Policy.File.Path = "/etc/policies" }},
		"state": {"policy: { source: state }\nstate: { url: sqlite:///srv/state.db }", func(c *app.Config) {
			c.Policy.Source, c.State.URL, c.State.Named = app.SourceState, "sqlite:///srv/state.db", true
		}},
		"one etcd endpoint": {"policy: { source: etcd, etcd: { endpoints: 'a:1' } }", func(c *app.Config) { c.Policy.Source, c.Policy.Etcd.Endpoints = app.SourceEtcd, []string{"a:1"} }},
	} {
		got, notes, err := app.Load(app.Sources{File: write(t, "config.yaml", test.file)})
		want := app.Default()
		test.want(&want)
		if diff := cmp.Diff(want, got, byText); err != nil || len(notes) != 0 || diff != "" {
			t.Errorf("%s: %v %v %s", name, err, notes, diff)
		}
	}
}

func TestWhatThePolicySourceCannotBe(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		file, want string
	}{
		"no such source":           {"policy: { source: consul }", `"consul" is none of file, state, etcd`},
		"etcd without endpoints":   {"policy: { source: etcd }", "there is no endpoint; set policy.etcd.endpoints"},
		"an endpoint with a path":  {"policy: { etcd: { endpoints: [ 'http://a:1/v3' ] } }", "policy.etcd.endpoints[0]: an endpoint is host:port"},
		"a secret in an endpoint":  {"policy: { etcd: { endpoints: [ 'a:1', 'http://u:hidden@a:1' ] } }", "policy.etcd.endpoints[1]: an endpoint is host:port"},
		"an endpoint as a map":     {"policy: { etcd: { endpoints: [ { host: a } ] } }", "policy.etcd.endpoints[0]: expected HOST:PORT"},
		"a prefix of nothing":      {"policy: { etcd: { prefix: / } }", "is not a prefix"},
		"a password in the file":   {"policy: { etcd: { password: hidden } }", "must be a reference and never the secret itself"},
		"a password for nobody":    {"policy: { source: etcd, etcd: { endpoints: ['a:1'], password: env:P } }", "a password without policy.etcd.username"},
		"a user who proves naught": {"policy: { source: etcd, etcd: { endpoints: ['a:1'], username: u } }", "a user without policy.etcd.password"},
		"half a certificate":       {"policy: { source: etcd, etcd: { endpoints: ['a:1'], tls: { cert: x } } }", "belong together"},
		"TLS without TLS":          {"policy: { source: etcd, etcd: { endpoints: ['http://a:1'], tls: { ca: x } } }", "an http:// endpoint has no TLS"},
		"half a cluster with TLS":  {"policy: { source: etcd, etcd: { endpoints: ['https://a:1', 'b:1'] } }", "TLS all or none"},
		"PostgreSQL":               {"state: { url: 'postgres://u:hidden@db/router' }", "must not hold a password"},
		"a state book of its own":  {"state: { url: 'mysql://u:hidden@db/router' }", "must begin with sqlite: or postgres:"},
		"who migrates":             {"state: { migrate: never }", "state.migrate"},
		"a relative path":          {"state: { url: 'sqlite:state.db' }", "sqlite:///PATH"},
		"a host":                   {"state: { url: 'sqlite://state.db' }", "sqlite:///PATH"},
		"a list for a word":        {"policy: { source: [ etcd ] }", "policy.source: is not a list"},
		"a token in the file":      {"identity: { admin_tokens: [ { name: ops, role: admin, token: hidden } ] }", "identity.admin_tokens[0]: the token of ops must be a reference"},
		"a token without a name":   {"identity: { admin_tokens: [ { role: admin, token: env:T } ] }", "needs a name"},
		"a role too many":          {"identity: { admin_tokens: [ { name: ops, role: root, token: env:T } ] }", "the role of an admin token is none of viewer, operator, admin"},
		"a name twice":             {"identity: { admin_tokens: [ { name: a, role: admin, token: env:T }, { name: a, role: viewer, token: env:U } ] }", "the name a is given twice"},
		"a field too many":         {"identity: { admin_tokens: [ { name: a, role: admin, token: env:T, scope: x } ] }", "there is no such setting; an admin token has name, role and token"},
		"an address for nobody":    {"listen: { admin: localhost }", "listen.admin"},
		"a list in a field":        {"identity: { admin_tokens: [ { name: [ hidden ] } ] }", "identity.admin_tokens[0].name: expected one word"},
		"words in place of maps":   {"identity: { admin_tokens: [ hidden, more ] }", "identity.admin_tokens[0]: expected { name: NAME"},
	} {
		_, _, err := app.Load(app.Sources{File: write(t, "config.yaml", test.file)})
		if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "hidden") {
			t.Errorf("%s: got %v; want %q", name, err, test.want)
		}
	}
}

func TestAdminTokensOnOneLine(t *testing.T) {
	t.Parallel()
	load := func(line string) (app.Config, error) {
		c, _, err := app.Load(app.Sources{
			File: write(t, "config.yaml", "identity: { admin_tokens: [ { name: file, role: viewer, token: env:F } ] }"),
			Env:  map[string]string{"API_ROUTER_IDENTITY_ADMIN_TOKENS": line},
		})
		return c, err
	}
	c, err := load("ops:operator:env:OPS, ci:admin:file:/run/ci")
	want := []app.AdminToken{{Name: "ops", Role: "operator", Token: reference(t, "env:OPS")}, {Name: "ci", Role: "admin", Token: reference(t, "file:/run/ci")}}
	if diff := cmp.Diff(want, c.Identity.AdminTokens, byText); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
	if c, err := load(""); err != nil || len(c.Identity.AdminTokens) != 0 {
		t.Errorf("the empty line gives %v, %v", c.Identity.AdminTokens, err)
	}
	if _, err := load("ops:operator:hidden,hidden:chief:env:X"); err == nil || strings.Contains(err.Error(), "hidden") ||
		!strings.Contains(err.Error(), "entry 1: the token of ops") || !strings.Contains(err.Error(), "entry 2: the role of an admin token") {
		t.Errorf("got %v", err)
	}
}

func TestTheEarlierServicesPolicySource(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		file      string
		env       map[string]string
		source    string
		endpoints []string
		note      string
	}{
		"an address":               {env: map[string]string{"CONFIG_SERVICE_ENDPOINT": "etcd-service:2379"}, source: app.SourceEtcd, endpoints: []string{"etcd-service:2379"}, note: "names=[CONFIG_SERVICE_ENDPOINT]"},
		"several":                  {env: map[string]string{"CONFIG_SERVICE_ENDPOINT": "http://a:1, b:2/"}, source: app.SourceEtcd, endpoints: []string{"http://a:1", "b:2"}},
		"empty is off":             {env: map[string]string{"CONFIG_SERVICE_ENDPOINT": ""}, source: app.SourceFile},
		"our endpoints win":        {file: "policy: { etcd: { endpoints: [ 'ours:1' ] } }", env: map[string]string{"CONFIG_SERVICE_ENDPOINT": "a:1"}, source: app.SourceEtcd, endpoints: []string{"ours:1"}, note: "names=[CONFIG_SERVICE_ENDPOINT]"},
		"our source wins":          {file: "policy: { source: file }", env: map[string]string{"CONFIG_SERVICE_ENDPOINT": "a:1"}, source: app.SourceFile, endpoints: []string{"a:1"}, note: "source=file names=[policy.etcd.endpoints]"},
		"files are not read then":  {file: "policy: { file: { path: /p } }", env: map[string]string{"CONFIG_SERVICE_ENDPOINT": "a:1"}, source: app.SourceEtcd, endpoints: []string{"a:1"}, note: "source=etcd names=[policy.file.path]"},
		"the last good copy moves": {env: map[string]string{"CONFIG_CACHE_PATH": "/cache/policies"}, source: app.SourceFile, note: "names=[CONFIG_CACHE_PATH]"},
	} {
		c, notes, err := app.Load(app.Sources{File: write(t, "config.yaml", test.file), Env: test.env})
		if err != nil || c.Policy.Source != test.source {
			t.Errorf("%s: got %q, %v", name, c.Policy.Source, err)
		}
		if diff := cmp.Diff(test.endpoints, c.Policy.Etcd.Endpoints); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		said := ""
		for _, n := range notes {
			for _, a := range n.Attrs {
				said += sprintf(" %s=%v", a.Key, a.Value)
			}
		}
		if !strings.Contains(said, test.note) {
			t.Errorf("%s: the notes say %q; want %q", name, said, test.note)
		}
	}
	if _, _, err := app.Load(app.Sources{Env: map[string]string{"CONFIG_SERVICE_ENDPOINT": "http://u:hidden@a:1"}}); err == nil || strings.Contains(err.Error(), "hidden") {
		t.Errorf("got %v", err)
	}
}

func TestAllProblemsAreReportedAtOnceWithTheirPositions(t *testing.T) {
	t.Parallel()
	file := write(t, "config.yaml", `environment: prod
listn: { public: ":80" }
listen: { publik: ":80" }
log:
  level: loud
  format: [json]
policy: file
identity: { development_keys: yes }
usage: { sinks: [ { type: kafka, path: x }, { typ: jsonl }, 3 ] }
server:
  max_body: 2TiB
  header_timeout: 10
  idle_timeout: 48h
  drain_timeout: -1s
`)
	_, _, err := app.Load(app.Sources{
		File:  file,
		Env:   map[string]string{"API_ROUTER_SERVER_BODY_TIMEOUT": "soon", "HTTP_PORT": "http"},
		Flags: map[string]string{"listen.public": "8080"},
	})
	got := strings.ReplaceAll(err.Error(), file, "config.yaml")
	want := []string{
		`HTTP_PORT: "http" is not a port number`,
		`config.yaml:1:14: environment: "prod" is none of production, staging, development`,
		`config.yaml:2:1: listn: there is no such setting; did you mean listen?`,
		`config.yaml:3:11: listen.publik: there is no such setting; did you mean listen.public?`,
		`config.yaml:5:10: log.level: "loud" is none of debug, info, warn, error`,
		`config.yaml:6:11: log.format: is not a list`,
		`config.yaml:7:9: policy: expected settings below it, not "file"`,
		`config.yaml:8:31: identity.development_keys: "yes" is neither true nor false`,
		`config.yaml:9:19: usage.sinks[0]: sink type "kafka" is none of jsonl`,
		`config.yaml:9:47: usage.sinks[1].typ: there is no such setting; a sink has type and path`,
		`config.yaml:9:61: usage.sinks[2]: expected { type: jsonl, path: FILE }`,
		`config.yaml:11:13: server.max_body: "2TiB" is not a size such as 64MiB, 512KiB or a number of bytes`,
		`config.yaml:12:19: server.header_timeout: "10" is not a duration such as 500ms, 30s or 5m`,
		`config.yaml:13:17: server.idle_timeout: 48h is not between 1ms and 24h0m0s`,
		`config.yaml:14:18: server.drain_timeout: -1s is not between 0s and 24h0m0s`,
		`API_ROUTER_SERVER_BODY_TIMEOUT: server.body_timeout: "soon" is not a duration such as 500ms, 30s or 5m`,
		`--listen: listen.public: "8080" is not of the form host:port or :port`,
	}
	if diff := cmp.Diff(want, strings.Split(got, "\n")); diff != "" {
		t.Error(diff)
	}
}

func TestFilesThatAreNoConfiguration(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ content, want string }{
		"not YAML":      {"listen: [", "not valid YAML"},
		"a scalar":      {"hello", "expected settings below it"},
		"another file":  {strings.Repeat("word ", 1000) + "tail", "expected settings below it"},
		"a list":        {"- a", "is not a list"},
		"two documents": {"log: {level: info}\n---\nkind: Backend\n", "one YAML document"},
		"a key twice":   {"log: {level: info}\nlog: {level: info}\n", "already defined"},
		"an anchor":     {"log: {level: &x info}", "anchors"},
		"a tag":         {"log: {level: !!str info}", "tags"},
	} {
		_, _, err := app.Load(app.Sources{File: write(t, "config.yaml", test.content)})
		if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "tail") {
			t.Errorf("%s: got %v; want %q", name, err, test.want)
		}
	}
	for _, empty := range []string{"", "# nothing\n", "log:\n"} {
		if _, _, err := app.Load(app.Sources{File: write(t, "config.yaml", empty)}); err != nil {
			t.Errorf("%q: got %v", empty, err)
		}
	}
	if _, _, err := app.Load(app.Sources{File: filepath.Join(t.TempDir(), "absent.yaml")}); err == nil || app.AsProblems(err) != nil {
		t.Errorf("got %v for a file that is not there", err)
	}
}

func TestFlagsWinOverEnvironmentOverFileOverAliases(t *testing.T) {
	t.Parallel()
	file := write(t, "config.yaml", `listen: { public: ":2" }`)
	sources := app.Sources{Env: map[string]string{}, Flags: map[string]string{}}
	check := func(want string) {
		t.Helper()
		c, _, err := app.Load(sources)
		if err != nil || c.Listen.Public != want {
			t.Errorf("got %q, %v; want %q", c.Listen.Public, err, want)
		}
	}
	check(":8080")
	sources.Env["HTTP_PORT"] = "1"
	check(":1")
	sources.File = file
	check(":2")
	sources.Env["API_ROUTER_LISTEN_PUBLIC"] = ":3"
	check(":3")
	sources.Flags["listen.public"] = ":4"
	check(":4")
}

func TestLogLevelOfTheEnvironmentStandsAboveTheFile(t *testing.T) {
	t.Parallel()
	file := write(t, "config.yaml", `log: { level: error }`)
	for _, test := range []struct {
		env  map[string]string
		want string
	}{
		{map[string]string{"LOG_LEVEL": "WARNING"}, "warn"},
		{map[string]string{"LOG_LEVEL": ""}, "error"},
		{map[string]string{"LOG_LEVEL": "verbose"}, "error"},
		{map[string]string{"LOG_LEVEL": "debug", "API_ROUTER_LOG_LEVEL": "info"}, "info"},
	} {
		c, _, err := app.Load(app.Sources{File: file, Env: test.env})
		if err != nil || c.Log.Level != test.want {
			t.Errorf("%v: got %q, %v; want %q", test.env, c.Log.Level, err, test.want)
		}
	}
}

func TestDevelopmentKeysNeedAnEnvironmentThatAllowsThem(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		file    string
		env     map[string]string
		want    bool
		refused bool
	}{
		"off by default":                         {},
		"refused in production":                  {file: "identity: {development_keys: true}", refused: true},
		"allowed in staging":                     {file: "environment: staging\nidentity: {development_keys: true}", want: true},
		"not implied by our own setting":         {file: "environment: development"},
		"on with the earlier ENVIRONMENT":        {env: map[string]string{"ENVIRONMENT": "development"}, want: true},
		"case does not matter there":             {env: map[string]string{"ENVIRONMENT": "Development"}, want: true},
		"off with another ENVIRONMENT":           {env: map[string]string{"ENVIRONMENT": "prod"}},
		"off when the file says production":      {file: "environment: production", env: map[string]string{"ENVIRONMENT": "development"}},
		"off when our variable says so":          {env: map[string]string{"ENVIRONMENT": "development", "API_ROUTER_IDENTITY_DEVELOPMENT_KEYS": "false"}},
		"refused when ours turns them on anyway": {file: "environment: production", env: map[string]string{"ENVIRONMENT": "development", "API_ROUTER_IDENTITY_DEVELOPMENT_KEYS": "true"}, refused: true},
	} {
		c, _, err := app.Load(app.Sources{File: write(t, "config.yaml", test.file), Env: test.env})
		switch {
		case test.refused:
			if err == nil || !strings.Contains(err.Error(), "production refuses to start") {
				t.Errorf("%s: got %v; want a refusal", name, err)
			}
		case err != nil || c.Identity.DevelopmentKeys != test.want:
			t.Errorf("%s: got %v, %v; want %v", name, c.Identity.DevelopmentKeys, err, test.want)
		}
	}
}

func TestBackendEndpointsOfTheEarlierService(t *testing.T) {
	t.Parallel()
	c, _, err := app.Load(app.Sources{Env: map[string]string{"BACKEND_ENDPOINTS": "a:http://one:8000/v1/chat/completions, b:https://two/base/v1/completions?x=1,c:http://three:1/,,d:http://four/v1"}})
	want := []app.Endpoint{{ID: "a", URL: "http://one:8000"}, {ID: "b", URL: "https://two/base"}, {ID: "c", URL: "http://three:1"}, {ID: "d", URL: "http://four"}}
	if diff := cmp.Diff(want, c.Backends); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
	for _, bad := range []string{"http://one:8000", "a", "a:one:8000", "a:", ":http://one", "a:ftp://one", "a/b:http://one"} {
		if _, _, err := app.Load(app.Sources{Env: map[string]string{"BACKEND_ENDPOINTS": bad}}); err == nil || !strings.Contains(err.Error(), "id:http://host:port") {
			t.Errorf("%q: got %v", bad, err)
		}
	}
}

func TestNotesSayWhichVariablesCount(t *testing.T) {
	t.Parallel()
	c, notes, err := app.Load(app.Sources{Env: map[string]string{
		"HTTP_PORT": "81", "CONFIG_CACHE_PATH": "", "LOG_LEVEL": "info", "API_ROUTER_LISTEN_PUBLIC": ":82",
		"REDIS_ADDR": "redis:6379", "KAFKA_BROKERS": "", "KAFKA_TOPIC": "usage.records.v1",
		"API_ROUTER_LISTEN_PUBLC": ":1", "API_ROUTER_ADMIN_URL": "http://10.0.0.1:8082", "API_ROUTER_ADMIN_TOKEN": "secret", "API_ROUTER_SERVICE_HOST": "10.0.0.1", "API_ROUTER_PORT_8080_TCP": "tcp://10.0.0.1:8080", "API_ROUTER_LOG_FORMAT": "",
	}})
	if err != nil || c.Listen.Public != ":82" || c.Policy.LastGood != "" || c.Log.Format != "json" {
		t.Fatalf("got %+v, %v", c, err)
	}
	got := map[string]any{}
	for _, n := range notes {
		got[n.Level.String()+" "+n.Message] = n.Attrs[0].Value.Any()
	}
	want := map[string]any{
		"WARN environment variables that look like settings but are none; \"api-router check --settings\" lists the settings": []string{"API_ROUTER_LISTEN_PUBLC"},
		"INFO settings taken from the earlier service's environment variables":                                                []string{"CONFIG_CACHE_PATH"},
		"WARN environment variables of the earlier service that have no effect in this version":                               []string{"REDIS_ADDR", "KAFKA_TOPIC"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for _, n := range notes {
		if n.Level != slog.LevelInfo && n.Level != slog.LevelWarn {
			t.Errorf("a note of level %v", n.Level)
		}
	}
}

func TestADatabaseThatMayBeReachedWithoutTLSIsWarnedOf(t *testing.T) {
	t.Parallel()
	const want = "state.url does not say whether the database must be reached by TLS"
	for url, warns := range map[string]bool{
		"postgres://router@db.internal/router": true, "postgres://router@db.internal/router?sslmode=verify-full": false,
		"postgres://router@127.0.0.1/router": false, "sqlite:///var/lib/api-router/other.db": false,
	} {
		sources := app.Sources{Flags: map[string]string{"state.url": url}, Env: map[string]string{}}
		_, notes, err := app.Load(sources)
		var out strings.Builder
		_ = app.Check(&out, sources, nil) // There are no documents.
		if err != nil || len(notes) != strings.Count(out.String(), want) || (len(notes) == 1) != warns {
			t.Fatalf("%s: %+v, %v\n%s", url, notes, err, out.String())
		}
		for _, n := range notes {
			if n.Level != slog.LevelWarn || n.Message[:len(want)] != want {
				t.Errorf("%s: %+v", url, n)
			}
		}
	}
}

func TestEveryDefaultReadsBack(t *testing.T) {
	t.Parallel()
	flags := map[string]string{}
	for _, s := range app.Settings() {
		if s.Default != "" {
			flags[s.Path] = s.Default
		}
	}
	got, _, err := app.Load(app.Sources{Flags: flags})
	want := app.Default()
	want.State.Named = true // What is written counts as meant.
	if diff := cmp.Diff(want, got, byText); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
}

// TestDocsConfig keeps docs/config.md true. UPDATE_DOCS=1 writes it.
func TestDocsConfig(t *testing.T) {
	t.Parallel()
	const page = "../../docs/config.md"
	want := app.Reference()
	if os.Getenv("UPDATE_DOCS") != "" {
		if err := os.WriteFile(page, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("docs/config.md is not what the table says; write it with UPDATE_DOCS=1 go test ./internal/app -run TestDocsConfig\n%s", diff)
	}
}
