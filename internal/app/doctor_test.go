package app_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ai-aas/api-router/internal/app"
	"github.com/ai-aas/api-router/internal/simengine"
	"github.com/ai-aas/api-router/test/ports"
)

func TestDoctorSaysWhatIsWrongAndWhatToDo(t *testing.T) {
	url := simulated(t, simengine.Config{Models: []simengine.Model{{ID: "unsloth/gpt-oss-20b"}}})
	policies := write(t, "policies.yaml", sprintf(`kind: Backend
id: good
url: %[1]s
---
kind: Backend
id: wrong-model
url: %[1]s
---
kind: Backend
id: dead
url: http://%[2]s
---
kind: Backend
id: no-key
url: %[1]s
api_key: env:NOT_SET_ANYWHERE
---
kind: Backend
id: idle
url: %[1]s
---
kind: Backend
id: refusing
url: %[3]s
---
kind: RoutingPolicy
id: global
model: gpt-oss-20b
backends: [ { id: good }, { id: dead }, { id: no-key } ]
---
kind: RoutingPolicy
id: other
model: qwen3-8b
backends: [ { id: wrong-model } ]
`, url, ports.Dead(t), simulated(t, simengine.Config{APIKey: "secret"})))
	records := filepath.Join(t.TempDir(), "a", "b", "usage.jsonl")
	var out strings.Builder
	err := app.Doctor(t.Context(), &out, app.Sources{
		Env: map[string]string{"API_ROUTER_USAGE_SINKS": "jsonl:" + records + ",jsonl:/dev/null/x", "REDIS_ADDR": "x"},
		Flags: map[string]string{
			"policy.file.path": policies, "listen.public": taken(t), "environment": "development",
		},
	})
	if !errors.Is(err, app.ErrFound) {
		t.Errorf("got %v; want ErrFound", err)
	}
	for _, want := range []string{
		"ok    configuration  environment development",
		"warn  configuration  environment variables of the earlier service that have no effect in this version names=[REDIS_ADDR]",
		"is taken by another process; set listen.public",
		"warn  keys",
		"ok    usage          " + records + " is writable",
		"fail  usage          /dev/null/x cannot be written, usage records will be lost",
		"ok    policies       6 backends and 2 policies in file",
		"ok    backend        good (" + url + "): healthy, serves gpt-oss-20b as unsloth/gpt-oss-20b",
		"does not serve qwen3-8b, it serves unsloth/gpt-oss-20b; name the right one in its models",
		"fail  backend        dead (",
		"the backend refuses the router's API key; correct its api_key",
		"fail  backend        no-key: api_key: secret env:NOT_SET_ANYWHERE",
		"warn  backend        idle (" + url + "): healthy, but no policy names it",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("it does not say %q:\n%s", want, out.String())
		}
	}
	if _, err := os.Stat(filepath.Dir(filepath.Dir(records))); !errors.Is(err, os.ErrNotExist) {
		t.Error("doctor made a directory")
	}
}

func TestDoctorTriesWhoeverKnowsCallers(t *testing.T) {
	policies := write(t, "policies.yaml", sprintf(documentsOf, "http://"+ports.Dead(t), "m"))
	t.Setenv("DOCTOR_PEPPER", "0123456789abcdef0123456789abcdef")
	flags := map[string]string{"policy.file.path": policies, "listen.public": "127.0.0.1:0"}
	for name, tc := range map[string]struct {
		env   map[string]string
		want  []string
		never string
	}{
		"nobody": {nil, []string{"warn  keys           no source of API keys is configured"}, "user-org"},
		"others": {map[string]string{
			"USER_ORG_SERVICE_URL":    "http://" + ports.Dead(t),
			"API_ROUTER_IDENTITY_JWT": "issuer=http://" + ports.Dead(t) + ";audience=router;algorithms=RS256;organization_claim=org",
		}, []string{"fail  user-org       at 127.0.0.1:", "fail  issuer         http://127.0.0.1:"}, "no source of API keys"},
		"a pepper for nothing": {
			map[string]string{"API_ROUTER_IDENTITY_PEPPERS": "env:DOCTOR_PEPPER"},
			[]string{"warn  keys           identity.peppers has no effect: there is no state book"},
			"0123456789abcdef",
		},
		"a book beside files": {map[string]string{
			"API_ROUTER_IDENTITY_PEPPERS": "env:DOCTOR_PEPPER", "API_ROUTER_STATE_URL": "sqlite://" + filepath.Join(t.TempDir(), "state.db"),
		}, []string{"ok    keys           1 pepper can be read", "ok    state book     "}, "0123456789abcdef"},
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			_ = app.Doctor(t.Context(), &out, app.Sources{Env: tc.env, Flags: flags}) // The backend is dead.
			for _, want := range tc.want {
				if !strings.Contains(out.String(), want) {
					t.Errorf("it does not say %q:\n%s", want, out.String())
				}
			}
			if strings.Contains(out.String(), tc.never) {
				t.Errorf("it says %q:\n%s", tc.never, out.String())
			}
		})
	}
}

func TestDoctorIsContentWithAServiceThatRuns(t *testing.T) {
	url := simulated(t, simengine.Config{})
	policies := write(t, "policies.yaml", sprintf(documentsOf, url, "gpt-oss-20b"))
	o := options(t, nil)
	o.Config.Policy.File.Path = policies
	p := run(t, o)
	var out strings.Builder
	err := app.Doctor(t.Context(), &out, app.Sources{
		Flags: map[string]string{"policy.file.path": policies, "listen.public": p.Addr().String()},
		Env:   map[string]string{"API_ROUTER_USAGE_SINKS": "jsonl:" + filepath.Join(t.TempDir(), "usage.jsonl")},
	})
	if err != nil || strings.Contains(out.String(), "fail") || !strings.Contains(out.String(), "is served by an api-router that is running") {
		t.Errorf("got %v:\n%s", err, out.String())
	}
}

func TestDoctorFindsNoPolicies(t *testing.T) {
	var out strings.Builder
	err := app.Doctor(t.Context(), &out, app.Sources{Flags: map[string]string{"policy.file.path": filepath.Join(t.TempDir(), "absent"), "listen.public": "127.0.0.1:0"}})
	if !errors.Is(err, app.ErrFound) || !strings.Contains(out.String(), "fail  policies") {
		t.Errorf("got %v:\n%s", err, out.String())
	}
	out.Reset()
	err = app.Doctor(context.Background(), &out, app.Sources{Env: map[string]string{"API_ROUTER_LISTEN_PUBLIC": "x", "API_ROUTER_LOG_LEVEL": "x"}})
	if !errors.Is(err, app.ErrFound) || strings.Count(out.String(), "fail  configuration") != 2 {
		t.Errorf("got %v:\n%s", err, out.String())
	}
}

func TestCheckFindsEverythingAtOnce(t *testing.T) {
	config := write(t, "config.yaml", "log: { level: loud }\nlisten: { public: x }\n")
	policies := write(t, "policies.yaml", "kind: Backend\nid: a\n---\nkind: RoutingPolicy\nid: p\nmodel: m\nbackends: [ { id: nowhere } ]\n")
	var out strings.Builder
	err := app.Check(&out, app.Sources{File: config}, []string{policies})
	if !errors.Is(err, app.ErrFound) {
		t.Errorf("got %v", err)
	}
	for _, want := range []string{config + ":1:15: log.level", config + ":2:19: listen.public", policies + ":", "Backend a: url", `backend "nowhere" does not exist`, "0 backends and 0 policies are good"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("it does not say %q:\n%s", want, out.String())
		}
	}
}

func TestCheckIsContentWithWhatIsGood(t *testing.T) {
	policies := write(t, "policies.yaml", sprintf(documentsOf, "http://localhost:1", "m"))
	more := write(t, "more.yaml", "kind: RoutingPolicy\nid: p2\nmodel: m2\nbackends: [ { id: old } ]\n")
	var out strings.Builder
	err := app.Check(&out, app.Sources{Env: map[string]string{"BACKEND_ENDPOINTS": "old:http://old:8000/v1/chat/completions"}}, []string{policies, more})
	if err != nil || !strings.Contains(out.String(), "2 backends and 2 policies are good, 0 problems") || !strings.Contains(out.String(), "note: settings taken from the earlier") {
		t.Errorf("got %v:\n%s", err, out.String())
	}
	err = app.Check(&out, app.Sources{Flags: map[string]string{"policy.file.path": filepath.Join(t.TempDir(), "absent")}}, nil)
	if err == nil || !strings.Contains(err.Error(), "policy.file.path") {
		t.Errorf("got %v", err)
	}
}

func TestDoctorTriesThePolicySource(t *testing.T) {
	url := simulatedModel(t, "m")
	blocked := write(t, "blocked", "")
	absent := filepath.Join(t.TempDir(), "a", "state.db")
	flags := stateFlags(t)
	documents := write(t, "d.yaml", sprintf(documentsOf, url, "m")+"---\nkind: Mark\nid: x\nbackend: one\nstate: draining\nreason: a test\n---\nkind: Price\nid: p\nmodel: m\nvalid_from: 2026-01-01T00:00:00Z\nusd_per_million: { input: 1, output: 1 }\n")
	if _, _, err := seed(t, flags, app.SeedOptions{Files: []string{documents}}); err != nil {
		t.Fatal(err)
	}
	type doctored struct {
		flags map[string]string
		want  []string
		fails bool
	}
	tests := map[string]doctored{
		"a state book": {flags, []string{"ok    state          it answers", "1 backend, 1 policy, 1 price and 1 mark in state book", "the newest of revision 4", "warn  mark           backend one is draining: a test", "healthy, serves m"}, false},
		"none yet":     {map[string]string{"policy.source": "state", "state.url": "sqlite://" + absent}, []string{"ok    state book     " + absent + " is writable", "serve makes it, and seed fills it"}, true},
		"a bad one":    {map[string]string{"policy.source": "state", "state.url": "sqlite://" + damaged(t)}, []string{"fail  state", "damaged", "set state.url"}, true},
		"an odd path":  {map[string]string{"policy.source": "state", "state.url": "sqlite://" + blocked + "/x.db"}, []string{"fail  state", "set state.url"}, true},
		"a dead etcd":  {map[string]string{"policy.source": "etcd", "policy.etcd.endpoints": ports.Dead(t)}, []string{"fail  etcd           the policy source does not answer: etcd cannot be reached", "start it, or correct policy.etcd.endpoints"}, true},
	}
	if places := sources(t); places["etcd"] != nil {
		tests["a living etcd"] = doctored{places["etcd"], []string{"ok    etcd           it answers", "fail  policies       0 backends and 0 policies in etcd"}, true}
	}
	for name, test := range tests {
		var out strings.Builder
		test.flags["listen.public"] = "127.0.0.1:0"
		err := app.Doctor(t.Context(), &out, app.Sources{Flags: test.flags})
		if errors.Is(err, app.ErrFound) != test.fails || err != nil && !test.fails {
			t.Errorf("%s: got %v", name, err)
		}
		for _, want := range test.want {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%s: it does not say %q:\n%s", name, want, out.String())
			}
		}
	}
	if _, err := os.Stat(filepath.Dir(absent)); !errors.Is(err, os.ErrNotExist) {
		t.Error("doctor made a directory")
	}
}

// damaged is a file that is no state book.
func damaged(t *testing.T) string {
	t.Helper()
	return write(t, "state.db", strings.Repeat("this is no database ", 1000))
}

func TestDoctorReadsTheAdminTokens(t *testing.T) {
	t.Setenv("DOCTOR_GOOD_TOKEN", token)
	t.Setenv("DOCTOR_SHORT_TOKEN", "hidden")
	policies := write(t, "policies.yaml", sprintf(documentsOf, "http://"+ports.Dead(t), "m"))
	o := administered(t, stateFlags(t), write(t, "token", token))
	running := run(t, o)
	for address, want := range map[string]string{
		running.AdminAddr().String(): "is served by an api-router that is running",
		taken(t):                     "is taken by another process; set listen.admin (API_ROUTER_LISTEN_ADMIN, --admin-listen)",
	} {
		var out strings.Builder
		err := app.Doctor(t.Context(), &out, app.Sources{
			Env:   map[string]string{"API_ROUTER_IDENTITY_ADMIN_TOKENS": "a:viewer:env:DOCTOR_GOOD_TOKEN,b:operator:env:DOCTOR_SHORT_TOKEN,c:admin:env:NOT_SET_ANYWHERE"},
			Flags: map[string]string{"policy.file.path": policies, "listen.public": "127.0.0.1:0", "listen.admin": address},
		})
		if !errors.Is(err, app.ErrFound) || strings.Contains(out.String(), "hidden") || strings.Contains(out.String(), token) {
			t.Errorf("got %v", err)
		}
		for _, want := range []string{
			"listen         " + address + " " + want, "ok    admin          the token a (viewer) can be read",
			"fail  admin          the token b does not work: secret env:DOCTOR_SHORT_TOKEN is shorter than 16 bytes", "fail  admin          the token c does not work: secret env:NOT_SET_ANYWHERE",
		} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("it does not say %q:\n%s", want, out.String())
			}
		}
	}
}

func TestCheckReadsDocumentsOfEveryKind(t *testing.T) {
	var out strings.Builder
	err := app.Check(&out, app.Sources{}, []string{write(t, "d.yaml", seedDocuments)})
	if err != nil || !strings.Contains(out.String(), "1 backend, 1 policy, 1 price and 1 mark are good, 0 problems") || !strings.Contains(out.String(), "nothing is charged by them") {
		t.Errorf("got %v:\n%s", err, out.String())
	}
	out.Reset()
	err = app.Check(&out, app.Sources{}, []string{write(t, "d.yaml", "kind: Mark\nid: x\nbackend: a\nmodel: b\nstate: off\n---\nkind: Price\nid: p\n")})
	for _, want := range []string{"Mark x", "Price p"} {
		if !errors.Is(err, app.ErrFound) || !strings.Contains(out.String(), want) {
			t.Errorf("got %v:\n%s", err, out.String())
		}
	}
	out.Reset()
	err = app.Check(&out, app.Sources{Flags: map[string]string{"policy.source": "etcd", "policy.etcd.endpoints": "etcd:2379"}}, nil)
	if err != nil || !strings.Contains(out.String(), "those in the policy source etcd are not read offline") {
		t.Errorf("got %v:\n%s", err, out.String())
	}
}

func TestDoctorTellsOfTheMetricsListener(t *testing.T) {
	running := run(t, options(t, routed("http://127.0.0.1:9")))
	eventually(t, "the metrics listener", func() bool { return running.MetricsAddr() != nil })
	for address, want := range map[string]string{
		running.MetricsAddr().String(): "is served by an api-router that is running",
		taken(t):                       "is taken by another process; set listen.metrics (API_ROUTER_LISTEN_METRICS, --metrics-listen)",
		"127.0.0.1:0":                  "is free",
	} {
		var out strings.Builder
		_ = app.Doctor(t.Context(), &out, app.Sources{Flags: map[string]string{"policy.file.path": t.TempDir(), "listen.public": "127.0.0.1:0", "listen.metrics": address}})
		if !strings.Contains(out.String(), "listen         "+address+" "+want) {
			t.Errorf("it does not say %q:\n%s", want, out.String())
		}
	}
}
