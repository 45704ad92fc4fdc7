package policy

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var sameDocuments = cmp.Options{
	cmp.AllowUnexported(SecretRef{}),
	cmpopts.IgnoreUnexported(Document{}, Candidate{}),
	cmpopts.EquateEmpty(),
}

const everyField = `# The whole of both documents.
kind: Backend
id: vllm-gpt-oss-20b
url: https://vllm.system.svc.cluster.local:8000/v1/chat/completions
engine: sglang
models: { gpt-oss-20b: unsloth/gpt-oss-20b }
api_key: env:VLLM_API_KEY
max_concurrency: 64
timeouts: { connect: 1s, first_byte: 90s, between_bytes: 30s, total: 1h }
labels: { region: eu-central }
tls: { ca: /etc/ca.pem, cert: /etc/tls.crt, key: /etc/tls.key, server_name: vllm.internal }
---
kind: RoutingPolicy
id: acme-gpt-oss-20b
organization: acme
model: gpt-oss-20b
aliases: [gpt-oss]
fallback_models: [gpt-oss-120b]
backends:
  - { id: vllm-gpt-oss-20b, weight: 70 }
  - id: spare
    tier: 1
strategy: weighted
retry: { attempts: 3, backoff: 50ms }
failover_threshold: 5
stream: { on_break: error, heartbeat: 0s }
keys: { allow: [k1, k2], deny: [k3] }
clamps: { n: 4, best_of: 5, max_tokens: 8192, logprobs: 20, prompts: 64, stops: 16 }
fields: { chat_template: allow, chat_template_kwargs: refuse, remote_media: allow }
`

func TestParseReadsEveryField(t *testing.T) {
	documents, problems := Parse("all.yaml", []byte(everyField))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	key, _ := ParseSecretRef("env:VLLM_API_KEY")
	want := []Document{
		{File: "all.yaml", Line: 2, Backend: &Backend{
			ID: "vllm-gpt-oss-20b", URL: "https://vllm.system.svc.cluster.local:8000", Engine: "sglang",
			Models: map[string]string{"gpt-oss-20b": "unsloth/gpt-oss-20b"}, APIKey: key, MaxConcurrency: 64,
			Timeouts: Timeouts{
				Connect: Duration(time.Second), FirstByte: Duration(90 * time.Second),
				BetweenBytes: Duration(30 * time.Second), Total: Duration(time.Hour),
			},
			Labels: map[string]string{"region": "eu-central"},
			TLS:    TLS{CA: "/etc/ca.pem", Cert: "/etc/tls.crt", Key: "/etc/tls.key", ServerName: "vllm.internal"},
		}},
		{File: "all.yaml", Line: 13, Policy: &RoutingPolicy{
			ID: "acme-gpt-oss-20b", Organization: "acme", Model: "gpt-oss-20b", Aliases: []string{"gpt-oss"},
			FallbackModels: []string{"gpt-oss-120b"}, Strategy: StrategyWeighted, FailoverThreshold: 5,
			Backends: []Candidate{{Backend: "vllm-gpt-oss-20b", Weight: 70}, {Backend: "spare", Weight: 100, Tier: 1}},
			Retry:    Retry{Attempts: 3, Backoff: Duration(50 * time.Millisecond)},
			Stream:   StreamRules{OnBreak: "error"},
			Keys:     KeyRules{Allow: []string{"k1", "k2"}, Deny: []string{"k3"}},
			Clamps:   Clamps{N: 4, BestOf: 5, MaxTokens: 8192, Logprobs: 20, Prompts: 64, Stops: 16},
			Fields:   Fields{ChatTemplate: Allow, ChatTemplateKwargs: Refuse, RemoteMedia: Allow},
		}},
	}
	if diff := cmp.Diff(want, documents, sameDocuments); diff != "" {
		t.Error(diff)
	}
}

func TestParseFillsDefaultsAlsoForNull(t *testing.T) {
	documents, problems := Parse("f", []byte("kind: Backend\nid: b\nurl: http://h\nengine:\ntimeouts: ~\nlabels: null\n---\n"+
		"kind: RoutingPolicy\nid: p\nmodel: m\nbackends: [{id: b}]\nretry: {attempts: 1}\nclamps: {n:, prompts: 2}\nfields: {chat_template_kwargs: refuse}\n"))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	policy := NewRoutingPolicy("p", "m", "b")
	policy.Retry.Attempts = 1
	policy.Clamps.Prompts = 2
	policy.Fields = Fields{ChatTemplate: Refuse, ChatTemplateKwargs: Refuse, RemoteMedia: Refuse}
	backend := NewBackend("b", "http://h")
	want := []Document{{Backend: &backend, File: "f", Line: 1}, {Policy: &policy, File: "f", Line: 8}}
	if diff := cmp.Diff(want, documents, sameDocuments); diff != "" {
		t.Error(diff)
	}
	if got := backend.Timeouts; got != (Timeouts{Duration(2 * time.Second), Duration(2 * time.Minute), Duration(time.Minute), Duration(30 * time.Minute)}) {
		t.Error("default timeouts:", got)
	}
}

func TestParseReadsJSON(t *testing.T) {
	want, _ := Parse("f", []byte("kind: Backend\nid: b\nurl: http://h\nmodels: {m/x: 'own:m'}\n"))
	for name, text := range map[string]string{
		"compact":  `{"kind":"Backend","id":"b","url":"http:\/\/h","models":{"m/x":"own:m"}}`,
		"indented": "{\n  \"kind\": \"Backend\",\n  \"id\": \"b\",\n  \"url\": \"http://h\",\n  \"models\": {\n    \"m/x\": \"own:m\"\n  }\n}\n",
		"tabs":     "{\n\t\"kind\": \"Backend\",\n\t\"id\": \"b\",\n\t\"url\": \"http://h\",\n\t\"models\": {\n\t\t\"m/x\": \"own:m\"\n\t}\n}\n",
	} {
		got, problems := Parse("f", []byte(text))
		if len(problems) > 0 {
			t.Error(name, problems)
		}
		if diff := cmp.Diff(want, got, sameDocuments); diff != "" {
			t.Error(name, diff)
		}
	}
}

func backendWith(line string) string { return "kind: Backend\nid: b\nurl: http://h:1\n" + line + "\n" }

func policyWith(line string) string {
	return "kind: RoutingPolicy\nid: p\nmodel: m\nbackends: [{id: b}]\n" + line + "\n"
}

func TestParseNamesEveryProblemWithItsPlace(t *testing.T) {
	tests := []problemCase{
		{"all at once", "kind: Backend\nid: b\nurl: ftp://h\nengine: vlm\nmax_concurrency: -1\ncolour: red\ntimeouts: {connect: 2, total: 0s, idle: 1s}\n", []string{
			`f:3:6: Backend b: url must begin with http:// or https://`,
			`f:4:9: Backend b: engine must be one of vllm, sglang, tgi, llamacpp, ollama, openai, anthropic; did you mean vllm?`,
			`f:5:18: Backend b: max_concurrency must be between 0 and 1000000`,
			`f:6:1: Backend b: unknown field "colour"`,
			`f:7:21: Backend b: timeouts.connect must be a duration with its unit, such as 2s, 100ms or 30m`,
			`f:7:31: Backend b: timeouts.total must be above 0s and at most 24h0m0s`,
			`f:7:35: Backend b: unknown field "idle" in timeouts`,
		}},
		{"missing fields", "kind: Backend\n", []string{`f:1:1: Backend: id is missing or empty`, `f:1:1: Backend: url is missing`}},
		{"missing fields of a policy", "kind: RoutingPolicy\nid: p\n", []string{
			`f:1:1: RoutingPolicy p: backends is missing: a policy needs at least one, as in backends: [{id: my-backend}]`,
			`f:1:1: RoutingPolicy p: model is missing or empty`,
		}},
		{"a wrong type is not also missing", "kind: Backend\nid: 5\nurl: [x]\n", []string{
			`f:2:5: Backend: id must be text: put it in quotes`, `f:3:6: Backend: url must be text`,
		}},
		{"a bad id names nothing", "kind: Backend\nid: a b\nurl: http://h\n", []string{
			`f:2:5: Backend: id must be 1 to 128 of the characters A-Z a-z 0-9 . _ -`,
		}},
		{"duplicate keys", backendWith("engine: vllm\nengine: tgi"), []string{`f:5:1: Backend b: "engine" is written twice, first in line 4`}},
		{"near miss of a field", policyWith("fallback_model: [x]"), []string{`f:5:1: RoutingPolicy p: unknown field "fallback_model"; did you mean fallback_models?`}},
		{"near miss in a list", "kind: RoutingPolicy\nid: p\nmodel: m\nbackends:\n- {id: b}\n- id: c\n  weigth: 5\n", []string{`f:7:3: RoutingPolicy p: unknown field "weigth" in backends[1]; did you mean weight?`}},
		{"no kind", "id: b\nurl: http://h\n", []string{`f:1:1: b: kind is missing: write kind: Backend, RoutingPolicy, Price or Mark`}},
		{"unknown kind", "id: b\nkind: Backends\n", []string{`f:2:7: b: kind "Backends" is unknown; did you mean Backend?`}},
		{"later field", "kind: RoutingPolicy\nid: x\nmodel: m\nbackends: [{id: b}]\nstream: {continuation: auto}\n", []string{`f:5:10: RoutingPolicy x: stream.continuation is not available in this version: leave it out`}},
		{"list at the top", "- kind: Backend\n", []string{`f:1:1: a document is a list of fields that begins with kind: Backend, RoutingPolicy, Price or Mark`}},
		{"text at the top", "hello\n", []string{`f:1:1: a document is a list of fields that begins with kind: Backend, RoutingPolicy, Price or Mark`}},
		{"syntax", "kind: Backend\nid: [b\nurl: x\n", []string{`f:3:1: not valid YAML: ',' or ']' must be specified`}},
		{"number forms", backendWith("max_concurrency: 0x10"), []string{`f:4:18: Backend b: max_concurrency must be a whole decimal number`}},
		{"leading zero", backendWith("max_concurrency: 010"), []string{`f:4:18: Backend b: max_concurrency must be a whole decimal number`}},
		{"fraction", backendWith("max_concurrency: 1.5"), []string{`f:4:18: Backend b: max_concurrency must be a whole decimal number`}},
		{"number as text", backendWith(`max_concurrency: "5"`), []string{`f:4:18: Backend b: max_concurrency must be a whole decimal number`}},
		{"not a mapping", backendWith("timeouts: 2s"), []string{`f:4:11: Backend b: timeouts must hold fields, as in {a: b}`}},
		{"not a list", policyWith("aliases: x"), []string{`f:5:10: RoutingPolicy p: aliases must be a list, as in [a, b]`}},
		{"name that is not text", backendWith("labels: {1: x}"), []string{`f:4:10: Backend b: a field's name must be text: put it in quotes`}},
		{"anchor", backendWith("labels: &a {x: y}"), []string{`f:4:9: anchors, aliases and merge keys are not read here: write the value out`}},
		{"tag", backendWith("engine: !!str vllm"), []string{`f:4:9: tags are not read here: leave it out, or put the text in quotes`}},
		{"policy rules", policyWith("organization: a/b\naliases: [m, x y, z, z]\nfallback_models: [m, z, q]\nstrategy: random\n" +
			"retry: {attempts: 0, backoff: -1s}\nfailover_threshold: 0\nkeys: {allow: [k], deny: [k, '']}"), []string{
			`f:5:15: RoutingPolicy p: organization must be "*" or an organization's id: 1 to 128 of the characters A-Z a-z 0-9 . _ -`,
			`f:6:11: RoutingPolicy p: alias "m" is already the policy's model`,
			`f:6:14: RoutingPolicy p: aliases[1] must be 1 to 256 of the characters A-Z a-z 0-9 . _ : / @ + -`,
			`f:6:22: RoutingPolicy p: alias "z" is already an alias of this policy`,
			`f:7:19: RoutingPolicy p: fallback model "m" is already the policy's model`,
			`f:7:22: RoutingPolicy p: fallback model "z" is already an alias of this policy`,
			`f:8:11: RoutingPolicy p: strategy must be one of adaptive, weighted, round_robin, least_loaded, session`,
			`f:9:19: RoutingPolicy p: retry.attempts must be between 1 and 20`,
			`f:9:31: RoutingPolicy p: retry.backoff must be between 0s and 1m`,
			`f:10:21: RoutingPolicy p: failover_threshold must be between 1 and 1000`,
			`f:11:27: RoutingPolicy p: key "k" is both allowed and denied`,
			`f:11:30: RoutingPolicy p: keys.deny[1] is missing or empty`,
		}},
		{"candidates", "kind: RoutingPolicy\nid: p\nmodel: m\nbackends: [{id: b, weight: 0}, {id: b, tier: -1, weight: 0}, {weight: 0}]\n", []string{
			`f:4:11: RoutingPolicy p: every backend has weight 0: at least one must be above 0`,
			`f:4:37: RoutingPolicy p: backend "b" is listed twice`,
			`f:4:46: RoutingPolicy p: backends[1].tier must be between 0 and 1000`,
			`f:4:62: RoutingPolicy p: backends[2].id is missing or empty`,
		}},
		{"weights have a bound", "kind: RoutingPolicy\nid: p\nmodel: m\nbackends: [{id: b, weight: 1000001}]\n", []string{`f:4:28: RoutingPolicy p: backends[0].weight must be between 0 and 1000000`}},
		{"no backends", "kind: RoutingPolicy\nid: p\nmodel: m\nbackends: []\n", []string{`f:4:11: RoutingPolicy p: backends is missing: a policy needs at least one, as in backends: [{id: my-backend}]`}},
		{"what is not delivered is absent", policyWith("stream: {on_break: resume, continuation: auto, heartbeat: 5s}"), []string{
			`f:5:20: RoutingPolicy p: stream.on_break: resuming a broken stream is not available in this version: write error, or leave it out`,
			`f:5:28: RoutingPolicy p: stream.continuation is not available in this version: leave it out`,
			`f:5:59: RoutingPolicy p: stream.heartbeat is not available in this version: write 0s, or leave it out`,
		}},
		{"clamps", policyWith("clamps: {n: -1, max_tokens: 2147483648, logprobs: '5', stop: 4, prompts: -1, stops: 1.5}"), []string{
			`f:5:13: RoutingPolicy p: clamps.n must be between 0 and 2147483647`,
			`f:5:29: RoutingPolicy p: clamps.max_tokens must be between 0 and 2147483647`,
			`f:5:51: RoutingPolicy p: clamps.logprobs must be a whole decimal number`,
			`f:5:56: RoutingPolicy p: unknown field "stop" in clamps; did you mean stops?`,
			`f:5:74: RoutingPolicy p: clamps.prompts must be between 0 and 2147483647`,
			`f:5:85: RoutingPolicy p: clamps.stops must be a whole decimal number`,
		}},
		{"a best_of below n", policyWith("clamps: {n: 5, best_of: 4}"), []string{`f:5:25: RoutingPolicy p: clamps.best_of needs a clamps.n that is not above it: engines refuse a best_of below n`}},
		{"a best_of without n", policyWith("clamps: {best_of: 4}"), []string{`f:5:19: RoutingPolicy p: clamps.best_of needs a clamps.n that is not above it: engines refuse a best_of below n`}},
		{"fields", policyWith("fields: {chat_template: yes, chat_template_kwargs: true, remote_media: refused, tools: allow}"), []string{
			`f:5:25: RoutingPolicy p: fields.chat_template must be one of allow, refuse`,
			`f:5:52: RoutingPolicy p: fields.chat_template_kwargs must be text: put it in quotes`,
			`f:5:72: RoutingPolicy p: fields.remote_media must be one of allow, refuse; did you mean refuse?`,
			`f:5:81: RoutingPolicy p: unknown field "tools" in fields`,
		}},
		{"tls", backendWith(`tls: {ca: "-----BEGIN CERTIFICATE-----", cert: file:/x, server_name: "a b"}`), []string{
			`f:4:6: Backend b: tls is only for a backend whose url begins with https://`,
			`f:4:6: Backend b: tls.cert and tls.key go together: write both or none`,
			`f:4:11: Backend b: tls.ca must be the path of a PEM file, not its content`,
			`f:4:48: Backend b: tls.cert is the path of a PEM file: write it without file: or env:`,
			`f:4:70: Backend b: tls.server_name must be a host name`,
		}},
		{"models and labels", backendWith(`models: {"a b": x, c: 'd"'}` + "\n" + `labels: {"q?": x}`), []string{
			`f:4:17: Backend b: a public model name must be 1 to 256 of the characters A-Z a-z 0-9 . _ : / @ + -`,
			`f:4:23: Backend b: the backend's own name of a model must be 1 to 256 bytes without quotes, backslashes and control characters`,
			`f:5:16: Backend b: a label's name must be 1 to 128 of the characters A-Z a-z 0-9 . _ / -`,
		}},
	}
	checkProblems(t, tests)
}

// problemCase is a text that is refused, and every problem of it.
type problemCase struct {
	name, text string
	want       []string
}

func checkProblems(t *testing.T, tests []problemCase) {
	t.Helper()
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			documents, problems := Parse("f", []byte(test.text))
			if len(documents) > 0 {
				t.Error("a document with a problem was returned")
			}
			sortProblems(problems)
			var got []string
			for _, p := range problems {
				got = append(got, p.String())
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestParseBringsURLsIntoOneForm(t *testing.T) {
	good := map[string]string{
		"http://h":                            "http://h",
		"http://H.Example:80/":                "http://h.example:80",
		"http://h:8000/v1":                    "http://h:8000",
		"http://h:8000/v1/":                   "http://h:8000",
		"http://h:8000/v1/chat/completions":   "http://h:8000",
		"https://h/openai/v1":                 "https://h/openai",
		"https://h/openai/v1/completions/":    "https://h/openai",
		"https://h/v1beta/openai":             "https://h/v1beta/openai",
		"http://[::1]:8000":                   "http://[::1]:8000",
		"HTTP://h":                            "http://h",
		"http://10.0.0.1:8000/v1/completions": "http://10.0.0.1:8000",
	}
	for text, want := range good {
		if got, err := normalURL(text); got != want || err != nil {
			t.Errorf("%s: got %q, %v; want %q", text, got, err, want)
		}
	}
	bad := map[string]string{
		"":                        "is missing",
		"h:8000":                  "must begin with http",
		"10.0.0.1:8000":           "is not a valid URL",
		"http://":                 "has no host",
		"http://:8000":            "has no host",
		"http://h:":               "port",
		"http://h:0":              "port",
		"http://h:65536":          "port",
		"http://u:secret@h":       "must not hold a user or password",
		"http://h?key=secret":     "must not have a query",
		"http://h?":               "must not have a query",
		"http://h#secret":         "must not have a query or a fragment",
		"http://h/#":              "must not have a query or a fragment",
		"http://h/a/../b":         "dot or escaped segments",
		"http://h/a//b":           "empty, dot",
		"http://h/a%2fb":          "escaped",
		"http://h/secret\n":       "is not a valid URL",
		"unix:///run/x.sock":      "must begin with http",
		"dns+http://headless:800": "dns+http:// is not available in this version",
		"k8s://ns/service:8000":   "k8s:// is not available in this version",
	}
	for text, want := range bad {
		got, err := normalURL(text)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: got %q, %v; want an error with %q", text, got, err, want)
		}
	}
}

func TestParseNeverRepeatsASecret(t *testing.T) {
	const secret = "sk-0123456789"
	for _, text := range []string{
		backendWith("api_key: " + secret),
		backendWith("api_key: 'env:" + secret + "'"),
		backendWith("api_key: [" + secret + "]"),
		backendWith("api_key: {" + secret + ": x}"),
		backendWith("api_key: \"" + secret),
		backendWith("api_key: " + secret + "\n  x: y"),
		backendWith("api_key: &" + secret + " x"),
		backendWith("api_key: !" + secret + " x"),
		backendWith("api_key: @" + secret),
		backendWith("api_key: `" + secret),
		backendWith("api_key: |\n " + secret + "\n"),
		backendWith("url: http://user:" + secret + "@h"),
		backendWith("tls: {key: \"-----BEGIN PRIVATE KEY----- " + secret + "\"}"),
	} {
		_, problems := Parse("f", []byte(text))
		if len(problems) == 0 {
			t.Error("accepted:", text)
		}
		if said := fmt.Sprint(problems); strings.Contains(said, secret) {
			t.Errorf("%s\nis answered with %s", text, said)
		}
	}
	_, problems := Parse("f", []byte(backendWith("api_key: "+secret)))
	if said := fmt.Sprint(problems); !strings.Contains(said, "env:NAME") || !strings.Contains(said, "f:4:10") {
		t.Error("the message does not say what to write:", said)
	}
}

func TestParseTakesDocumentsOneByOne(t *testing.T) {
	good := func(id string) string { return "kind: Backend\nid: " + id + "\nurl: http://h\n" }
	tests := []struct {
		name, text string
		ids        string // of the documents, with their lines
		problems   string // the lines
	}{
		{"syntax errors stay where they are", good("a") + "---\nkind: [\n---\n" + good("b") + "---\nkind: Backend\n\tid: x\n---\n" + good("c"), "a:1 b:7 c:14", "5 12"},
		{"an open quote ends with its document", "kind: \"Backend\nid: x\n---\n" + good("b"), "b:4", "1"},
		{"a block scalar ends with its document", "kind: |\n  x\n---\n" + good("b"), "b:4", "1"},
		{"an indented marker is text", "kind: Backend\nid: a\nurl: http://h\nlabels:\n  x: |\n    a\n    ---\n    b\n---\n" + good("b"), "b:10", "5"},
		{"a longer dash line is no marker", "kind: Backend\nid: a\nurl: http://h\nlabels: {x: y}\n---x: y\n---\n" + good("b"), "b:7", "5"},
		{"comments and directives", "%YAML 1.2\n---\n# nothing\n---\n" + good("a") + "...\n# end\n", "a:5", ""},
		{"carriage returns", strings.ReplaceAll(good("a")+"---\n"+good("b")+"---\nkind: x\n", "\n", "\r\n"), "a:1 b:5", "9"},
		{"content behind a marker", "--- {kind: Backend, id: a, url: 'http://h'}\n--- # comment\n" + good("b"), "a:1 b:3", ""},
		{"end marker", good("a") + "...\n" + good("b"), "a:1 b:5", ""},
		{"no line feed at the end", good("a") + "---\n" + strings.TrimSuffix(good("b"), "\n"), "a:1 b:5", ""},
		{"byte order mark", "\uFEFF" + good("a"), "a:1", ""},
		{"not text", "kind: \xff\n---\n" + good("b"), "b:3", "1"},
		{"nothing", "", "", ""},
		{"only markers", "---\n---\n...\n", "", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			documents, problems := Parse("f", []byte(test.text))
			var ids, lines []string
			for _, d := range documents {
				ids = append(ids, fmt.Sprintf("%s:%d", d.ID(), d.Line))
			}
			for _, p := range problems {
				lines = append(lines, fmt.Sprint(p.Line))
			}
			if got := strings.Join(ids, " "); got != test.ids {
				t.Errorf("documents %q, want %q; %v", got, test.ids, problems)
			}
			if got := strings.Join(lines, " "); got != test.problems {
				t.Errorf("problems in lines %q, want %q: %v", got, test.problems, problems)
			}
		})
	}
}

func TestParseRefusesWhatIsTooLarge(t *testing.T) {
	const n = 200_000
	tests := []struct{ name, text, want string }{
		{"file", strings.Repeat("#\n", MaxFile/2+1), "larger than 16 MiB"},
		{"document", backendWith("labels: {x: \"" + strings.Repeat("y", maxDocument) + "\"}"), "larger than 256 KiB"},
		{"flow depth", strings.Repeat("[", n), "deeper than 32"},
		{"dashes", strings.Repeat("- ", n/2), "deeper than 32"},
		{"fields", strings.Repeat("a:\n", maxFields+1), "more than 10000 fields"},
		{"alias bomb", "a: &a [x]\nb: &b [*a, *a]\nc: [*b, *b]\n", "aliases"},
		{"documents", strings.Repeat("--- x\n", MaxDocuments+5), "more than 20000 documents"},
		{"problems of one document", backendWith(manyFields(500)), "and 450 further problems"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, problems := Parse("f", []byte(test.text))
			if len(problems) == 0 || len(problems) > MaxDocuments+1 || !strings.Contains(problems[len(problems)-1].Message, test.want) {
				t.Errorf("want %q at the end of %d problems", test.want, len(problems))
			}
		})
	}
}

func manyFields(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "f%d: x\n", i)
	}
	return b.String()
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		everyField, "", "---\n...\n", "kind: Backend\nid: a\nurl: http://h\n", "kind: [\n---\nkind: x", "a: &a [*a]\n", "? a\n: b\n",
		"{\"kind\":\"Backend\",\"id\":\"b\",\"url\":\"http://h\"}", "\uFEFFkind: |\n  x\n", "- - - -\n", "!!str x", "<<: {a: b}\n", "%YAML 1.2\n---\n",
		policyWith("keys: {allow: [a, b]}"), backendWith("api_key: file:/x"), "kind: \"\\ud83d\\ude00\"\r\nid: 'a\r\n\r\nb'\r\n", "a:\r b\r---\rc: d",
		"kind: Backend\nurl: http://h\nid: |\n  x",
	} {
		f.Add([]byte(seed))
	}
	const follower = "kind: Backend\nid: follower\nurl: http://h\n"
	f.Fuzz(func(t *testing.T, data []byte) {
		documents, problems := Parse("f", data)
		lines := strings.Count(string(data), "\n") + strings.Count(string(data), "\r") + 2
		for _, p := range problems {
			if p.File != "f" || p.Message == "" || p.Line < 0 || p.Line > lines || strings.Contains(p.String(), "\n") {
				t.Errorf("problem %+v", p)
			}
		}
		for _, d := range documents {
			roundTrip(t, d)
		}
		// Whatever stands before it, a good document behind a marker is read. The last line is ended in both: that newline is part of
		// a block scalar's text, and no id, say, may have one.
		if len(data) < 1<<20 && len(documents)+len(problems) < 1000 {
			ended := string(data) + "\n"
			alone, _ := Parse("f", []byte(ended))
			more, _ := Parse("f", []byte(ended+"---\n"+follower))
			if len(more) != len(alone)+1 || more[len(more)-1].ID() != "follower" {
				t.Errorf("%d documents, then %d with one more", len(alone), len(more))
			}
		}
	})
}

// roundTrip writes a document as JSON and reads it again.
func roundTrip(t *testing.T, d Document) {
	t.Helper()
	content, err := JSON(d)
	if err != nil || !json.Valid(content) {
		t.Fatalf("%s: %v", content, err)
	}
	for _, read := range []func() (Document, []Problem){
		func() (Document, []Problem) { return ParseOne(d.File, "", "", content) },
		func() (Document, []Problem) { return ParseOne(d.File, d.Kind(), d.ID(), content) },
	} {
		again, problems := read()
		if len(problems) > 0 {
			t.Fatalf("%s: %v", content, problems)
		}
		again.Line, again.Legacy = d.Line, d.Legacy
		if diff := cmp.Diff(d, again, sameDocuments); diff != "" {
			t.Errorf("%s: %s", content, diff)
		}
	}
}
