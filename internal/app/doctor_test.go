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
`, url, closed(t), simulated(t, simengine.Config{APIKey: "secret"})))
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
