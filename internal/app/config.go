// Package app composes the rooms into a process: configuration, wiring, and the life from start to end.
// It is the only place that knows every room.
package app

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ai-aas/api-router/internal/policy"
)

// The environments. Production is the default, because a mistake there must close doors, not open them.
const (
	Production  = "production"
	Staging     = "staging"
	Development = "development"
)

// Config is the configuration of serve. Every setting stands in the table below, which is where the file, the
// environment, the flags and docs/config.md take it from.
type Config struct {
	Environment string
	Listen      struct {
		Public, Admin, Metrics string
		TLS, AdminTLS          ListenTLS
	}
	Log struct {
		Level, Format string
		AccessLines   int // in a second; 0: no bound
	}
	Policy struct {
		Source   string
		File     struct{ Path string }
		Etcd     Etcd
		LastGood string
	}
	State     State
	Identity  Identity
	Usage     struct{ Sinks []Sink }
	Telemetry struct{ Traces Traces }
	Server    struct {
		BodyMemory    int64 // bytes
		MaxBody       int64 // bytes
		HeaderTimeout time.Duration
		BodyTimeout   time.Duration
		IdleTimeout   time.Duration
		WriteTimeout  time.Duration
		DrainTimeout  time.Duration
		DrainGrace    time.Duration
		ExposeBackend bool
		// TrustedProxies are the networks of those before this router whose X-Forwarded-For counts.
		TrustedProxies []netip.Prefix
	}

	// Backends come from BACKEND_ENDPOINTS of the earlier service; there is no setting of ours, because backends are documents.
	Backends []Endpoint
}

// The policy sources.
const (
	SourceFile  = "file"
	SourceState = "state"
	SourceEtcd  = "etcd"
)

// State is where the state book is, and who brings its tables up to date.
type State struct {
	URL      string
	Named    bool             // whether somebody wrote the URL, be it the default's own
	Password policy.SecretRef // zero: in the standard places
	Migrate  string           // auto or manual
	// AuditRetention is how long entries of the audit are kept; 0: for ever.
	AuditRetention time.Duration
}

// Who brings the tables of the state book up to date.
const (
	MigrateAuto   = "auto"
	MigrateManual = "manual"
)

// Etcd is how the policy source etcd is reached.
type Etcd struct {
	Endpoints []string
	Prefix    string
	Username  string
	Password  policy.SecretRef
	TLS       policy.TLS
}

// AdminToken lets its bearer use the admin API in a role.
type AdminToken struct {
	Name  string
	Role  string // one of adminRoles
	Token policy.SecretRef
}

// adminRoles are what an admin token may be: the first three each with all that those before it may, the auditor beside them.
var adminRoles = []string{"viewer", "operator", "admin", "auditor"}

// Sink is one place that usage records go to.
type Sink struct {
	Type string // jsonl
	Path string
}

// Traces are which requests leave a trace, where traces are sent: see docs/telemetry.md.
type Traces struct {
	Sample float64       // the share, from 0 to 1
	Slow   time.Duration // to the first byte, from which on a request leaves one in any case
}

// Endpoint is a backend as the earlier service's environment names it.
type Endpoint struct{ ID, URL string }

// setting is one line of the table: where a value comes from, what it means and how it is read.
type setting struct {
	path  string // in the file; the environment variable's name follows from it
	flag  string // of serve, "" for none
	doc   string
	value func(c *Config) value
}

// env is the name of the setting's environment variable.
func (s setting) env() string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(s.path, ".", "_"))
}

const envPrefix = "API_ROUTER_"

// The paths of the settings that the code asks for by name.
const (
	pathEnvironment     = "environment"
	pathListenPublic    = "listen.public"
	pathListenAdmin     = "listen.admin"
	pathListenMetrics   = "listen.metrics"
	pathLogLevel        = "log.level"
	pathLogFormat       = "log.format"
	pathSource          = "policy.source"
	pathEndpoints       = "policy.etcd.endpoints"
	pathPassword        = "policy.etcd.password"
	pathUsername        = "policy.etcd.username"
	pathTLSCert         = "policy.etcd.tls.cert"
	pathLastGood        = "policy.last_good"
	pathState           = "state.url"
	pathStatePassword   = "state.password"
	pathDevelopmentKeys = "identity.development_keys"
	pathAdminTokens     = "identity.admin_tokens"
)

// settings is the table.
var settings = slices.Concat(generalSettings, identitySettings, tlsSettings)

var generalSettings = []setting{
	{
		pathEnvironment, "environment", "What this process is for. production refuses to start with settings that are only safe in development.",
		func(c *Config) value { return choice(&c.Environment, Production, Staging, Development) },
	},
	{
		pathListenPublic, "listen", "Address of the public listener: the /v1 surface, /healthz and /readyz.",
		func(c *Config) value { return address(&c.Listen.Public) },
	},
	{
		pathListenAdmin, "admin-listen", "Address of the admin listener: the console at /, /status, the admin API under /admin/v1, and profiles. It is opened only where identity.admin_tokens or identity.validation_tokens has an entry, or one of identity.jwt a roles_claim.",
		func(c *Config) value { return address(&c.Listen.Admin) },
	},
	{
		pathListenMetrics, "metrics-listen", "Address of the metrics listener: Prometheus's GET /metrics and nothing else, without a key. A port that is taken keeps nothing from starting: it is tried again. Empty: off.",
		func(c *Config) value { return optionalAddress(&c.Listen.Metrics) },
	},
	{
		pathLogLevel, "log-level", "The least severe lines that are logged.",
		func(c *Config) value { return choice(&c.Log.Level, "debug", "info", "warn", "error") },
	},
	{
		pathLogFormat, "log-format", "How a log line looks: one JSON object, or text for a person.",
		func(c *Config) value { return choice(&c.Log.Format, "json", "text") },
	},
	{
		"log.access_lines", "", "How many access lines below warning are written in one second before only every hundredth is, which says how many were left out. 0: all are written.",
		func(c *Config) value { return count{&c.Log.AccessLines, 0, 1_000_000} },
	},
	{
		pathSource, "policy-source", "Where the documents (backends, routing policies, prices and marks) come from: files that only a person changes, the state book of this machine, or etcd, which all replicas share.",
		func(c *Config) value { return choice(&c.Policy.Source, SourceFile, SourceState, SourceEtcd) },
	},
	{
		"policy.file.path", "policies", "A YAML file, or a directory of them, with the documents. Changes are taken up while the process runs.",
		func(c *Config) value { return text(&c.Policy.File.Path) },
	},
	{
		pathEndpoints, "etcd", "The etcd cluster, as a list of HOST:PORT, with http:// or https:// before it where wanted. In the environment: separated by commas.",
		func(c *Config) value { return endpoints(&c.Policy.Etcd.Endpoints) },
	},
	{
		"policy.etcd.prefix", "", "What the keys in etcd begin with: a policy is at PREFIX`policies/ID`.",
		func(c *Config) value { return prefix(&c.Policy.Etcd.Prefix) },
	},
	{
		pathUsername, "", "The user at etcd. Empty: no authentication.",
		func(c *Config) value { return optional(&c.Policy.Etcd.Username) },
	},
	{
		pathPassword, "", "The password at etcd: a reference, env:NAME or file:PATH.",
		func(c *Config) value { return reference{&c.Policy.Etcd.Password} },
	},
	{
		"policy.etcd.tls.ca", "", "PEM file of the authorities that etcd's certificate is checked against. Empty: the system's.",
		func(c *Config) value { return optional(&c.Policy.Etcd.TLS.CA) },
	},
	{
		pathTLSCert, "", "PEM file of the router's own certificate for etcd.",
		func(c *Config) value { return optional(&c.Policy.Etcd.TLS.Cert) },
	},
	{
		"policy.etcd.tls.key", "", "PEM file of the key of policy.etcd.tls.cert.",
		func(c *Config) value { return optional(&c.Policy.Etcd.TLS.Key) },
	},
	{
		"policy.etcd.tls.server_name", "", "The name in etcd's certificate. Empty: the host of the endpoint.",
		func(c *Config) value { return optional(&c.Policy.Etcd.TLS.ServerName) },
	},
	{
		pathLastGood, "", "Where the last usable set of policies is kept for a start without their source. Empty: nowhere. The default is used only where its directory exists.",
		func(c *Config) value { return optional(&c.Policy.LastGood) },
	},
	{
		pathState, "state", "The state book, a SQLite file as sqlite:///PATH, or a PostgreSQL database as postgres://USER@HOST/DATABASE without its password. Organizations, projects and keys are in it where it is set, and the documents where policy.source is state; unset, it is used only for those and where identity.order names state. See docs/state.md.",
		func(c *Config) value { return stateURL(&c.State.URL) },
	},
	{
		pathStatePassword, "", "The password at PostgreSQL: a reference, env:NAME or file:PATH. Empty: PGPASSWORD and the password file count, as for PostgreSQL's own programs.",
		func(c *Config) value { return reference{&c.State.Password} },
	},
	{
		"state.migrate", "", "Who brings the tables of the state book up to date: auto, this process when it opens the book; manual, a person or a job by api-router migrate.",
		func(c *Config) value { return choice(&c.State.Migrate, MigrateAuto, MigrateManual) },
	},
	{
		"state.audit_retention", "", "How long entries of the audit are kept, as in 365d or 8760h; older ones are taken out of the state book, by one replica. 0: for ever. See docs/state.md.",
		func(c *Config) value { return age{&c.State.AuditRetention} },
	},
	{
		pathDevelopmentKeys, "", "Accept any key of the form test-ORGANIZATION-ID or dev-ORGANIZATION-ID. Refused in production.",
		func(c *Config) value { return (*truth)(&c.Identity.DevelopmentKeys) },
	},
	{
		pathAdminTokens, "", "Who may use the admin API: a list of { name: NAME, role: viewer, operator, admin or auditor, token: env:NAME or file:PATH }. A viewer reads, an operator also sets marks, changes the log level and takes profiles, an admin also changes documents, organizations, keys and admins. An auditor reads who changed what, who the admins are, and the status, alone. The state book has more of them, made while routers run: see docs/identity.md. A token has at least 16 bytes. In the environment: NAME:ROLE:env:NAME, separated by commas. Empty: the admin listener stays closed.",
		func(c *Config) value { return adminTokens(&c.Identity.AdminTokens) },
	},
	{
		"usage.sinks", "", "Where usage records go: a list of { type: jsonl, path: FILE }. In the environment: jsonl:FILE, separated by commas. Empty: nowhere.",
		func(c *Config) value { return sinks(&c.Usage.Sinks) },
	},
	{
		"telemetry.traces.sample", "", "The share of requests that leave a trace, from 0 to 1, where traces are sent and the caller has not decided already. Requests that fail or are slow leave one in any case. OTEL_TRACES_SAMPLER wins over it.",
		func(c *Config) value { return share{&c.Telemetry.Traces.Sample} },
	},
	{
		"telemetry.traces.slow", "", "How long the first byte of an answer may take until the request counts as slow.",
		func(c *Config) value { return span{&c.Telemetry.Traces.Slow, time.Millisecond} },
	},
	{
		"server.body_memory", "", "The memory for the bodies of all requests together; a request beyond it is answered 429 `queue_full`. Under a memory limit it is at most half of that.",
		func(c *Config) value { return size{&c.Server.BodyMemory, 1 << 20, 1 << 40} },
	},
	{
		"server.max_body", "", "The largest request body that is accepted, up to 1GiB; larger ones are answered 413.",
		func(c *Config) value { return size{&c.Server.MaxBody, 1 << 10, 1 << 30} },
	},
	{
		"server.header_timeout", "", "How long a client may take to send a request's headers.",
		func(c *Config) value { return span{&c.Server.HeaderTimeout, time.Millisecond} },
	},
	{
		"server.body_timeout", "", "How long a client may take to send a request's body.",
		func(c *Config) value { return span{&c.Server.BodyTimeout, time.Millisecond} },
	},
	{
		"server.idle_timeout", "", "How long an unused client connection is kept open.",
		func(c *Config) value { return span{&c.Server.IdleTimeout, time.Millisecond} },
	},
	{
		"server.write_timeout", "", "How long a client may take to read one piece of an answer before it counts as gone. Streams may last longer than this.",
		func(c *Config) value { return span{&c.Server.WriteTimeout, time.Millisecond} },
	},
	{
		"server.drain_timeout", "", "How long running requests may take to finish at shutdown, after the grace. Streams that are still open then end in an error event.",
		func(c *Config) value { return span{&c.Server.DrainTimeout, 0} },
	},
	{
		"server.drain_grace", "", "How long the process keeps serving at shutdown after /readyz says no, so that load balancers notice.",
		func(c *Config) value { return span{&c.Server.DrainGrace, 0} },
	},
	{
		"server.expose_backend", "", "Name the backend that answered in the x-routing-backend header.",
		func(c *Config) value { return (*truth)(&c.Server.ExposeBackend) },
	},
}

// defaultLastGood is used where its directory exists: in the container image and the packages, not on a developer's machine.
const defaultLastGood = "/var/lib/api-router/policy.json"

// Default is the configuration without a file, an environment or flags.
func Default() Config {
	var c Config
	c.Environment = Production
	c.Listen.Public = ":8080"
	c.Log.Level, c.Log.Format, c.Log.AccessLines = "info", "json", 1000
	c.Listen.Admin = "127.0.0.1:8082"
	c.Listen.Metrics = ":9464"
	c.Policy.Source = SourceFile
	c.Policy.File.Path = "./policies"
	c.Policy.LastGood = defaultLastGood
	c.Policy.Etcd.Prefix = "/api-router/"
	c.State.Migrate = MigrateAuto
	c.State.URL = defaultState
	c.Identity.Cache = IdentityCache{TTL: time.Minute, NegativeTTL: 5 * time.Second, StaleIfError: 24 * time.Hour, File: defaultKeysFile}
	c.Identity.UserOrg.Timeout = 2 * time.Second
	c.Telemetry.Traces = Traces{Sample: 0.1, Slow: 10 * time.Second}
	c.Server.BodyMemory = 512 << 20
	c.Server.MaxBody = 64 << 20
	c.Server.HeaderTimeout = 10 * time.Second
	c.Server.BodyTimeout = 60 * time.Second
	c.Server.IdleTimeout = 120 * time.Second
	c.Server.WriteTimeout = 30 * time.Second
	c.Server.DrainTimeout = 60 * time.Second
	c.Server.DrainGrace = 5 * time.Second
	c.Server.ExposeBackend = true
	return c
}

// alias is an environment variable of the earlier service that stands for settings of ours.
type alias struct {
	env   string
	paths []string // the settings that it sets, "" for something that is not a setting
	// set reads the value into c. Its error is a problem, a warning when mild is set. nil: the variable has no effect in this version.
	set  func(c *Config, text string) error
	mild bool
	// empty says that the empty value means something; otherwise an empty variable counts as not set.
	empty bool
	// native marks a variable that is ours too and stands above the file, like API_ROUTER_*; the others stand below it.
	native bool
}

// aliases is the table of the earlier service's environment. Ours wins wherever both are set.
var aliases = []alias{
	{env: "HTTP_PORT", paths: []string{pathListenPublic}, set: setPort},
	{env: "ENVIRONMENT", paths: []string{pathEnvironment, pathDevelopmentKeys}, set: setEnvironment, mild: true},
	{env: "LOG_LEVEL", paths: []string{pathLogLevel}, native: true, mild: true, set: func(c *Config, text string) error {
		return choice(&c.Log.Level, "debug", "info", "warn", "error").Set(strings.Replace(strings.ToLower(text), "warning", "warn", 1))
	}},
	{env: "BACKEND_ENDPOINTS", paths: []string{""}, set: setBackends},
	{env: "CONFIG_CACHE_PATH", paths: []string{pathLastGood}, empty: true, set: func(c *Config, text string) error {
		return optional(&c.Policy.LastGood).Set(text)
	}},
	{env: "CONFIG_SERVICE_ENDPOINT", paths: []string{pathSource, pathEndpoints}, set: func(c *Config, text string) error {
		c.Policy.Source = SourceEtcd
		return endpoints(&c.Policy.Etcd.Endpoints).Set(text)
	}},
	{env: "USER_ORG_SERVICE_URL", paths: []string{pathUserOrgURL}, set: func(c *Config, text string) error {
		return remoteURL(&c.Identity.UserOrg.URL).Set(text)
	}},
	{env: "USER_ORG_SERVICE_TIMEOUT", paths: []string{pathUserOrgTimeout}, set: func(c *Config, text string) error {
		return span{&c.Identity.UserOrg.Timeout, time.Millisecond}.Set(text)
	}},
	{env: "REDIS_ADDR"},
	{env: "REDIS_PASSWORD"},
	{env: "REDIS_DB"},
	{env: "KAFKA_BROKERS"},
	{env: "KAFKA_TOPIC"},
	{env: "USAGE_BUFFER_DIR"},
}

func setPort(c *Config, text string) error {
	port, err := strconv.ParseUint(strings.TrimPrefix(text, ":"), 10, 16)
	if err != nil {
		return fmt.Errorf("%q is not a port number", text)
	}
	c.Listen.Public = ":" + strconv.FormatUint(port, 10)
	return nil
}

func setEnvironment(c *Config, text string) error {
	if err := choice(&c.Environment, Production, Staging, Development).Set(strings.ToLower(text)); err != nil {
		return fmt.Errorf("%w; it is ignored", err)
	}
	c.Identity.DevelopmentKeys = c.Environment == Development
	return nil
}

// setBackends reads id:url,id:url. The earlier service's URLs end in the path of one operation, which is cut off.
func setBackends(c *Config, list string) error {
	var endpoints []Endpoint
	for entry := range strings.SplitSeq(list, ",") {
		if entry = strings.TrimSpace(entry); entry == "" {
			continue
		}
		id, raw, ok := strings.Cut(entry, ":")
		id = strings.TrimSpace(id)
		u, err := url.Parse(strings.TrimSpace(raw))
		if !ok || id == "" || identifier(id) != id || err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			// The entry is not repeated: a URL may hold a password.
			return fmt.Errorf("entry %d is not of the form id:http://host:port", len(endpoints)+1)
		}
		clean := path.Clean("/" + u.Path)
		if at := strings.Index(clean+"/", "/v1/"); at >= 0 {
			clean = clean[:at]
		}
		u.Path, u.RawPath, u.RawQuery, u.Fragment = strings.TrimSuffix(clean, "/"), "", "", ""
		endpoints = append(endpoints, Endpoint{ID: id, URL: u.String()})
	}
	c.Backends = endpoints
	return nil
}

// validate finds what no single setting shows. origin tells where a path's value came from.
func (c *Config) validate(origin map[string]string) Problems {
	var problems Problems
	add := func(path, format string, args ...any) {
		where := origin[path]
		if where == "" {
			where = "default"
		}
		problems = append(problems, Problem{Where: where, Text: path + ": " + fmt.Sprintf(format, args...)})
	}
	c.validateIdentity(add)
	c.validateTLS(add)
	if _, port, err := net.SplitHostPort(c.Listen.Public); err != nil || port == "" {
		add(pathListenPublic, "%q is not of the form host:port or :port", c.Listen.Public)
	}
	if c.Policy.Source == SourceEtcd {
		c.validateEtcd(add)
	}
	return problems
}

func (c *Config) validateEtcd(add func(path, format string, args ...any)) {
	etcd := &c.Policy.Etcd
	if len(etcd.Endpoints) == 0 {
		add(pathEndpoints, "policy.source is etcd and there is no endpoint; set policy.etcd.endpoints, API_ROUTER_POLICY_ETCD_ENDPOINTS or --etcd")
	}
	switch {
	case etcd.Username == "" && !etcd.Password.IsZero():
		add(pathPassword, "a password without policy.etcd.username")
	case etcd.Username != "" && etcd.Password.IsZero():
		add(pathUsername, "a user without policy.etcd.password")
	}
	if (etcd.TLS.Cert == "") != (etcd.TLS.Key == "") {
		add(pathTLSCert, "policy.etcd.tls.cert and policy.etcd.tls.key belong together: set both or neither")
	}
	schemes := map[string]bool{}
	secured := etcd.TLS != policy.TLS{}
	for _, e := range etcd.Endpoints {
		scheme, _, found := strings.Cut(e, "://")
		switch {
		case !found && secured:
			scheme = "https"
		case !found:
			scheme = "http"
		}
		schemes[scheme] = true
	}
	switch {
	case len(schemes) > 1:
		add(pathEndpoints, "the endpoints of one cluster have TLS all or none")
	case schemes["http"] && secured:
		add(pathEndpoints, "policy.etcd.tls is set, and an http:// endpoint has no TLS; write https://")
	}
}
