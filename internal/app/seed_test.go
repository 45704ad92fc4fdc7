package app_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ai-aas/api-router/internal/app"
	"github.com/ai-aas/api-router/internal/policy"
	"github.com/ai-aas/api-router/internal/state"
	"github.com/ai-aas/api-router/test/ports"
)

const seedDocuments = `kind: RoutingPolicy
id: global
model: gpt-oss-20b
backends: [ { id: one } ]
---
kind: Backend
id: one
url: http://one:8000
---
kind: Price
id: gpt-2026
model: gpt-oss-20b
valid_from: 2026-01-01T00:00:00Z
usd_per_million: { input: 0.10, output: 0.40 }
---
kind: Mark
id: backend.one
backend: one
state: degraded
`

// seed runs app.Seed and returns what it printed.
func seed(t *testing.T, flags map[string]string, o app.SeedOptions) (stdout, stderr string, err error) {
	t.Helper()
	var out, bad strings.Builder
	if o.Wait == 0 {
		o.Wait = hang
	}
	err = app.Seed(t.Context(), app.Process{Version: "test", Stdout: &out, Stderr: &bad}, app.Sources{Flags: flags}, o)
	return out.String(), bad.String(), err
}

// sources are the configurations of writable places, each new and empty.
func sources(t *testing.T) map[string]map[string]string {
	t.Helper()
	places := map[string]map[string]string{"state": stateFlags(t)}
	t.Run("with etcd", func(t *testing.T) { etcdBinary(t) }) // It says that it is missing, if it is.
	if _, err := os.Stat("../../.tools/bin/etcd"); err == nil || os.Getenv("ETCD_BIN") != "" {
		places["etcd"] = map[string]string{"policy.source": "etcd", "policy.etcd.endpoints": startEtcd(t).address}
	}
	return places
}

func stateFlags(t *testing.T) map[string]string {
	t.Helper()
	return map[string]string{"policy.source": "state", "state.url": "sqlite://" + filepath.Join(t.TempDir(), "state.db")}
}

func TestSeedTwiceChangesNothingTheSecondTime(t *testing.T) {
	for name, flags := range sources(t) {
		file := write(t, "documents.yaml", seedDocuments)
		step := func(what string, o app.SeedOptions, want ...string) {
			t.Helper()
			o.Files = []string{file}
			out, bad, err := seed(t, flags, o)
			if err != nil || bad != "" {
				t.Fatalf("%s, %s: %v\n%s", name, what, err, bad)
			}
			if diff := cmp.Diff(want, strings.Split(strings.TrimSuffix(out, "\n"), "\n")); diff != "" {
				t.Errorf("%s, %s: %s", name, what, diff)
			}
		}
		created := []string{
			"created   Backend one", "created   RoutingPolicy global", "created   Price gpt-2026", "created   Mark backend.one",
			"4 documents: 4 created, 0 changed, 0 unchanged",
		}
		unchanged := []string{
			"unchanged Backend one", "unchanged RoutingPolicy global", "unchanged Price gpt-2026", "unchanged Mark backend.one",
			"4 documents: 0 created, 0 changed, 4 unchanged",
		}
		dry := slices.Clone(created)
		dry[4] += " (a dry run: nothing was written)"
		step("a dry run", app.SeedOptions{DryRun: true}, dry...)
		step("the first time", app.SeedOptions{}, created...)
		step("the second time", app.SeedOptions{}, unchanged...)
		// The same in other words: JSON, fields in another order, a default written out.
		overwrite(t, file, strings.Replace(seedDocuments, "kind: RoutingPolicy\nid: global\nmodel: gpt-oss-20b\nbackends: [ { id: one } ]\n",
			`{"backends": [{"weight": 100, "id": "one"}], "strategy": "adaptive", "model": "gpt-oss-20b", "id": "global", "kind": "RoutingPolicy"}`+"\n", 1))
		step("in other words", app.SeedOptions{}, unchanged...)
		overwrite(t, file, strings.Replace(seedDocuments, "id: one }", "id: one, weight: 50 }", 1))
		step("with a change", app.SeedOptions{}, "unchanged Backend one", "changed   RoutingPolicy global", "unchanged Price gpt-2026", "unchanged Mark backend.one",
			"4 documents: 0 created, 1 changed, 3 unchanged")
	}
}

func TestSeedWritesNothingWhenADocumentIsBad(t *testing.T) {
	flags := stateFlags(t)
	dir := t.TempDir()
	for name, content := range map[string]string{
		"a.yaml": seedDocuments, "b.yaml": "kind: Backend\nid: two\nurl: nowhere\n---\nkind: Backend\nid: one\nurl: http://other:1\n", "c.yml": "kind: Rout", ".hidden.yaml": "x", "readme.md": "x",
	} {
		overwrite(t, filepath.Join(dir, name), content)
	}
	out, bad, err := seed(t, flags, app.SeedOptions{Files: []string{dir}})
	if !errors.Is(err, app.ErrFound) || out != "" {
		t.Errorf("got %v and %q", err, out)
	}
	for _, want := range []string{"b.yaml:3:6: Backend two: url", "c.yml:1", "b.yaml:5: Backend one: the same document is also at " + dir + "/a.yaml:6", "nothing was written: 3 problems"} {
		if !strings.Contains(bad, want) {
			t.Errorf("it does not say %q:\n%s", want, bad)
		}
	}
	if _, err := os.Stat(strings.TrimPrefix(flags["state.url"], "sqlite://")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the state book was touched: %v", err)
	}
}

func TestSeedWarnsOfWhatDoesNotFitTogether(t *testing.T) {
	file := write(t, "p.yaml", "kind: RoutingPolicy\nid: p\nmodel: m\nbackends: [ { id: comes-later } ]\n")
	out, _, err := seed(t, stateFlags(t), app.SeedOptions{Files: []string{file}})
	if err != nil || !strings.Contains(out, `warning: `+file) || !strings.Contains(out, `backend "comes-later" does not exist`) {
		t.Errorf("got %v:\n%s", err, out)
	}
}

func TestSeedSaysWhyItCannot(t *testing.T) {
	file := write(t, "d.yaml", seedDocuments)
	blocked := write(t, "blocked", "")
	const wait = 3 * time.Second // For an answer that comes at once, and says why not.
	for name, test := range map[string]struct {
		flags map[string]string
		o     app.SeedOptions
		want  string
	}{
		"nothing to do":   {stateFlags(t), app.SeedOptions{}, "name files with -f, or ask for --upgrade"},
		"a file source":   {nil, app.SeedOptions{Files: []string{file}}, "policy.source is file: the documents are the files in ./policies"},
		"no such file":    {stateFlags(t), app.SeedOptions{Files: []string{"absent.yaml"}}, "absent.yaml"},
		"an empty folder": {stateFlags(t), app.SeedOptions{Files: []string{t.TempDir()}}, "there is no file *.yaml"},
		"a negative wait": {stateFlags(t), app.SeedOptions{Files: []string{file}, Wait: -time.Second}, "--wait"},
		"a dead etcd":     {map[string]string{"policy.source": "etcd", "policy.etcd.endpoints": ports.Dead(t)}, app.SeedOptions{Files: []string{file}, Wait: wait}, "nothing was written within 3s (--wait): the policy source does not answer: etcd cannot be reached"},
		"no state book":   {map[string]string{"policy.source": "state", "state.url": "sqlite://" + blocked + "/state.db"}, app.SeedOptions{Files: []string{file}, Wait: wait}, "not a directory"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // Some wait until the time is over.
			out, _, err := seed(t, test.flags, test.o)
			if err == nil || !strings.Contains(err.Error(), test.want) || out != "" {
				t.Errorf("got %v and %q; want %q", err, out, test.want)
			}
		})
	}
	err := app.Seed(t.Context(), app.Process{Stdout: io.Discard, Stderr: io.Discard}, app.Sources{Flags: map[string]string{"log.level": "loud"}}, app.SeedOptions{Files: []string{file}, Wait: hang})
	if app.AsProblems(err) == nil {
		t.Errorf("got %v for a bad configuration", err)
	}
}

func TestSeedWaitsForEtcd(t *testing.T) {
	e := startEtcd(t)
	e.kill()
	var out strings.Builder
	done := make(chan error, 1)
	file := write(t, "d.yaml", seedDocuments)
	go func() {
		done <- app.Seed(t.Context(), app.Process{Version: "test", Stdout: &out, Stderr: io.Discard},
			app.Sources{Flags: map[string]string{"policy.source": "etcd", "policy.etcd.endpoints": e.address}}, app.SeedOptions{Files: []string{file}, Wait: hang})
	}()
	time.Sleep(300 * time.Millisecond) // Some attempts fail.
	e.start(t)
	if err := <-done; err != nil || !strings.Contains(out.String(), "4 documents: 4 created") {
		t.Errorf("got %v:\n%s", err, out.String())
	}
}

// legacy are policies of the earlier service, by their keys, and the keys that they have in the end.
var legacy = map[string]struct{ file, becomes string }{
	"policies/plain":                           {"camel.json", "policies/plain"},
	"policies/*/gpt-oss-20b":                   {"snake.json", "policies/global-gpt-oss-20b"},
	"policies/acme/meta-llama/Llama-3.1-8B":    {"slashed.json", "policies/" + policy.MarkID("", "meta-llama/Llama-3.1-8B", "acme")},
	"policies/globex/llama":                    {"bare.json", "policies/" + policy.MarkID("", "llama", "globex")},
	"policies/acme/gpt-oss-20b":                {"degraded.json", "policies/acme-gpt"},
	"policies/ours":                            {"", "policies/ours"},
	"policies/broken/" + "model-without-backs": {"", "policies/broken/model-without-backs"},
}

const oursAsWritten = `{ "model": "other", "backends": [ {"id": "vllm-a"} ] }`

func TestSeedUpgradesThePoliciesOfTheEarlierService(t *testing.T) {
	e := startEtcd(t)
	for key, each := range legacy {
		content := []byte(oursAsWritten)
		if strings.Contains(key, "broken") {
			content = []byte(`{"PolicyID": "broken", "Backends": []}`)
		} else if each.file != "" {
			var err error
			if content, err = os.ReadFile("../policy/testdata/legacy/" + each.file); err != nil {
				t.Fatal(err)
			}
		}
		e.put(t, key, string(content))
	}
	flags := map[string]string{"policy.source": "etcd", "policy.etcd.endpoints": e.address}
	before := e.keys(t)
	out, _, err := seed(t, flags, app.SeedOptions{Upgrade: true, DryRun: true})
	if !errors.Is(err, app.ErrFound) || !strings.Contains(out, "5 policies of the earlier service upgraded, 1 left as they are (a dry run: nothing was written)") || !maps.Equal(before, e.keys(t)) {
		t.Errorf("the dry run gives %v:\n%s", err, out)
	}
	out, _, err = seed(t, flags, app.SeedOptions{Upgrade: true})
	if !errors.Is(err, app.ErrFound) {
		t.Errorf("got %v", err)
	}
	for _, want := range []string{
		"upgraded  RoutingPolicy plain\n", "upgraded  RoutingPolicy global-gpt-oss-20b (from the key */gpt-oss-20b)\n", "upgraded  RoutingPolicy acme-gpt (from the key acme/gpt-oss-20b)\n",
		"left      RoutingPolicy broken", "the policy names no backend", "5 policies of the earlier service upgraded, 1 left as they are\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("it does not say %q:\n%s", want, out)
		}
	}
	after := e.keys(t)
	var want []string
	for _, each := range legacy {
		want = append(want, each.becomes)
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, slices.Sorted(maps.Keys(after))); diff != "" {
		t.Error(diff)
	}
	if got := after["policies/acme-gpt"]; !strings.Contains(got, `"kind":"RoutingPolicy"`) || !strings.Contains(got, `"degraded":true`) || strings.Contains(got, "PolicyID") {
		t.Errorf("it became %s", got)
	}
	if after["policies/ours"] != oursAsWritten {
		t.Errorf("a policy of our form became %s", after["policies/ours"])
	}
	out, _, err = seed(t, flags, app.SeedOptions{Upgrade: true})
	if !errors.Is(err, app.ErrFound) || !strings.Contains(out, "0 policies of the earlier service upgraded, 1 left") || !maps.Equal(after, e.keys(t)) {
		t.Errorf("the second run gives %v:\n%s", err, out)
	}
}

// book opens the state book of flags beside whoever else has it.
func book(t *testing.T, flags map[string]string) *state.Book {
	t.Helper()
	b, err := state.Open(state.Options{URL: flags["state.url"], Logger: new(syncBuffer).logger()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	eventually(t, "the book is open", func() bool { return b.Status().Open }) // A busy disk may hold that up for longer than a call is.
	return b
}

func TestSeedUpgradesAPolicyThatStandsAtTwoKeys(t *testing.T) {
	e := startEtcd(t)
	const legacy = `{"PolicyID":"%s","OrganizationID":"acme","Model":"m","Backends":[{"BackendID":"a","Weight":1}]}`
	e.put(t, "policies/acme/m", sprintf(legacy, "same"))
	e.put(t, "policies/same", `{"organization":"acme","model":"m","backends":[{"id":"a","weight":1}]}`)
	e.put(t, "policies/globex/m", strings.ReplaceAll(sprintf(legacy, "other"), "acme", "globex"))
	e.put(t, "policies/other", `{"model":"something","backends":[{"id":"b"}]}`)
	out, _, err := seed(t, map[string]string{"policy.source": "etcd", "policy.etcd.endpoints": e.address}, app.SeedOptions{Upgrade: true})
	if !errors.Is(err, app.ErrFound) || !strings.Contains(out, "upgraded  RoutingPolicy same (from the key acme/m)") || !strings.Contains(out, "another policy has the same id and says something else") {
		t.Errorf("got %v:\n%s", err, out)
	}
	if diff := cmp.Diff([]string{"policies/globex/m", "policies/other", "policies/same"}, slices.Sorted(maps.Keys(e.keys(t)))); diff != "" {
		t.Error(diff)
	}
}

// One policy that needs a person must not keep a release from its documents.
func TestSeedWritesItsFilesAlsoWhereAPolicyCannotBeUpgraded(t *testing.T) {
	flags := stateFlags(t)
	book, err := state.Open(state.Options{URL: flags["state.url"], Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	_, err = book.Write(t.Context(), policy.Write{Kind: policy.KindRoutingPolicy, ID: "broken", Content: []byte(`{"PolicyID":"broken","Model":"m","Backends":[]}`)})
	if err := errors.Join(err, book.Close()); err != nil {
		t.Fatal(err)
	}
	out, _, err := seed(t, flags, app.SeedOptions{Upgrade: true, Files: []string{write(t, "documents.yaml", seedDocuments)}})
	if !errors.Is(err, app.ErrFound) || !strings.Contains(out, "0 policies of the earlier service upgraded, 1 left") || !strings.Contains(out, "4 documents: 4 created") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestSeedThatIsInterruptedSaysSo(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(100*time.Millisecond, cancel)
	sources := app.Sources{Flags: map[string]string{"policy.source": "etcd", "policy.etcd.endpoints": "127.0.0.1:1"}}
	o := app.SeedOptions{Files: []string{write(t, "documents.yaml", seedDocuments)}, Wait: hang}
	err := app.Seed(ctx, app.Process{Stdout: io.Discard, Stderr: io.Discard}, sources, o)
	if !errors.Is(err, context.Canceled) || !strings.HasPrefix(err.Error(), "interrupted: nothing was written") {
		t.Error(err)
	}
}

func TestSeedUpgradesAStateBookToo(t *testing.T) {
	flags := stateFlags(t)
	b := book(t, flags)
	const content = `{"PolicyID":"p1","OrganizationID":"acme","Model":"m","Backends":[{"BackendID":"a","Weight":0}]}`
	_, err := b.Write(t.Context(), policy.Write{Kind: policy.KindRoutingPolicy, ID: "plain", Content: []byte(content), Actor: "x"})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"upgraded  RoutingPolicy plain\n1 policies", "0 policies"} {
		out, _, err := seed(t, flags, app.SeedOptions{Upgrade: true})
		if err != nil || !strings.Contains(out, want) {
			t.Errorf("got %v:\n%s", err, out)
		}
	}
	changes, err := b.History(t.Context(), policy.KindRoutingPolicy, "plain", 0, 10)
	if err != nil || len(changes) != 2 || changes[0].Actor != "seed" || changes[0].Reason != "upgraded from the form of the earlier service" {
		t.Errorf("the history is %+v, %v", changes, err)
	}
}
