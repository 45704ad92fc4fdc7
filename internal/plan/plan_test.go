package plan

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/ai-aas/api-router/internal/fault"
	"github.com/ai-aas/api-router/internal/fleet"
	"github.com/ai-aas/api-router/internal/policy"
)

// tb is what the helpers need of a test; rapid's tests have it too.
type tb interface {
	Helper()
	Fatalf(format string, args ...any)
}

// compile parses documents and builds their table. Every backend that a policy names is added.
func compile(t tb, yaml string) *policy.Table {
	t.Helper()
	documents, problems := policy.Parse("test.yaml", []byte(yaml))
	if len(problems) > 0 {
		t.Fatalf("%v", problems)
	}
	named := map[string]bool{}
	for _, d := range documents {
		if d.Policy == nil {
			continue
		}
		for _, c := range d.Policy.Backends {
			if !named[c.Backend] {
				named[c.Backend] = true
				b := policy.NewBackend(c.Backend, "http://"+c.Backend+".test:8000")
				documents = append(documents, policy.Document{Backend: &b})
			}
		}
	}
	return policy.Compile(policy.Snapshot{Documents: documents}, nil)
}

// fleetFor makes a fleet of the table's backends.
func fleetFor(t tb, table *policy.Table, change ...func(*fleet.Spec)) *fleet.Fleet {
	t.Helper()
	f := fleet.New(fleet.Options{})
	var specs []fleet.Spec
	for _, b := range table.Backends() {
		spec := fleet.Spec{ID: b.ID, URL: b.URL, Engine: b.Engine}
		for _, c := range change {
			c(&spec)
		}
		specs = append(specs, spec)
	}
	if err := f.Apply(specs); err != nil {
		t.Fatalf("%v", err)
	}
	return f
}

const documents = `
kind: RoutingPolicy
id: global-large
model: large
aliases: [big]
fallback_models: [medium, small, secret, nowhere, little]
backends: [{id: l1}, {id: l2, tier: 1}, {id: l3, tier: 2}]
retry: {attempts: 2}
---
kind: RoutingPolicy
id: global-medium
model: medium
fallback_models: [large]
backends: [{id: m1}, {id: l1}]
retry: {attempts: 1}
---
kind: RoutingPolicy
id: global-small
model: small
aliases: [little]
backends: [{id: s1}]
retry: {attempts: 5}
---
kind: RoutingPolicy
id: global-secret
model: secret
backends: [{id: x1}]
keys: {allow: [privileged]}
---
kind: RoutingPolicy
id: acme-small
organization: acme
model: small
backends: [{id: a1}]
`

func decide(t tb, f *fleet.Fleet, table *policy.Table, ask Ask) *Plan {
	t.Helper()
	p, err := (&Decider{Fleet: f}).Decide(table, ask)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return p
}

// drain takes all choices, ends each with result, and returns them as backend:public and the error at the end.
func drain(p *Plan, result fleet.Result) ([]string, error) {
	var got []string
	for {
		choice, err := p.Next()
		if err != nil {
			return got, err
		}
		got = append(got, choice.Lease.Backend().ID()+":"+choice.Public)
		choice.Lease.Done(result)
	}
}

func TestAPlanNamesItsPolicy(t *testing.T) {
	table := compile(t, documents)
	f := fleetFor(t, table)
	for _, test := range []struct {
		name  string
		ask   Ask
		model string
		route string
	}{
		{"by model", Ask{Organization: "o", Model: "large"}, "large", "global-large"},
		{"by alias", Ask{Organization: "o", Model: "big"}, "large", "global-large"},
		{"of the organization", Ask{Organization: "acme", Model: "small"}, "small", "acme-small"},
		{"of everyone", Ask{Organization: "acme", Model: "medium"}, "medium", "global-medium"},
		{"for a key", Ask{Organization: "o", Model: "secret", KeyID: "privileged"}, "secret", "global-secret"},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := decide(t, f, table, test.ask)
			if p.Policy != test.route || p.Route.Policy != test.route || p.Model != test.model || p.Revision != table.Revision() {
				t.Errorf("got policy %s, model %s, revision %s", p.Policy, p.Model, p.Revision)
			}
		})
	}
}

func TestAnUnknownModelAndAForbiddenOneGetTheSameAnswer(t *testing.T) {
	table := compile(t, documents)
	d := &Decider{Fleet: fleetFor(t, table)}
	for _, model := range []string{"secret", "imaginary", `qu"ote`} {
		p, err := d.Decide(table, Ask{Organization: "o", KeyID: "plain", Model: model})
		e, ok := errors.AsType[*fault.Error](err)
		if p != nil || !ok {
			t.Fatalf("%s: %v, %v", model, p, err)
		}
		want := fault.Error{Code: fault.ModelNotFound, Param: "model", Message: fmt.Sprintf("no routing policy configured for model %q", model)}
		if *e != want {
			t.Errorf("%s: got %+v, want %+v", model, *e, want)
		}
	}
}

func TestWithoutATableThereIsNoPlan(t *testing.T) {
	_, err := (&Decider{Fleet: fleet.New(fleet.Options{})}).Decide(nil, Ask{Model: "m"})
	if e := fault.From(err); e.Code != fault.NoBackendAvailable || e.RetryAfter <= 0 {
		t.Errorf("got %v", err)
	}
}

func TestNextWalksTheRouteThenTheFallbackModels(t *testing.T) {
	table := compile(t, documents)
	f := fleetFor(t, table)
	for _, test := range []struct {
		name string
		ask  Ask
		want []string // a star stands for any one backend of medium
	}{
		{"attempts, one route a model, forbidden and unknown models passed over", Ask{Organization: "o", Model: "big"}, []string{"l1:large", "l2:large", "*:medium", "s1:small"}},
		{"the organization's rule holds for a fallback too", Ask{Organization: "acme", Model: "large"}, []string{"l1:large", "l2:large", "*:medium", "a1:small"}},
		{"a key that may use more gets more", Ask{Organization: "o", Model: "large", KeyID: "privileged"}, []string{"l1:large", "l2:large", "*:medium", "s1:small", "x1:secret"}},
		{"no fallback of a fallback", Ask{Organization: "o", Model: "medium"}, []string{"*:medium", "l1:large", "l2:large"}},
		{"no more attempts than backends", Ask{Organization: "o", Model: "small"}, []string{"s1:small"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := decide(t, f, table, test.ask)
			got, err := drain(p, fleet.Result{})
			for i := range got {
				if strings.HasSuffix(got[i], ":medium") {
					got[i] = "*:medium"
				}
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("got %v, want %v", got, test.want)
			}
			if e := fault.From(err); e.Code != fault.NoBackendAvailable {
				t.Errorf("at the end: %v", err)
			}
			if _, again := p.Next(); fault.From(again).Message != fault.From(err).Message {
				t.Errorf("asked again: %v, want %v", again, err)
			}
		})
	}
}

func TestAChoiceNamesTheBackendsOwnModel(t *testing.T) {
	table := compile(t, documents)
	f := fleetFor(t, table, func(s *fleet.Spec) { s.Models = map[string]string{"small": "org/small-" + s.ID} })
	choice, err := decide(t, f, table, Ask{Organization: "o", Model: "little"}).Next()
	if err != nil {
		t.Fatal(err)
	}
	defer choice.Lease.Done(fleet.Result{})
	if choice.Model != "org/small-s1" || choice.Public != "small" {
		t.Errorf("got %q for %q", choice.Model, choice.Public)
	}
}

func TestThePolicysThresholdEjects(t *testing.T) {
	table := compile(t, "kind: RoutingPolicy\nid: p\nmodel: m\nfailover_threshold: 2\nbackends: [{id: a}, {id: b, tier: 1}]\nretry: {attempts: 1}\n")
	f := fleetFor(t, table)
	for i, want := range []string{"a:m", "a:m", "b:m"} {
		if got, _ := drain(decide(t, f, table, Ask{Model: "m"}), fleet.Result{Kind: fleet.Failed}); !slices.Equal(got, []string{want}) {
			t.Errorf("request %d went to %v, want %s", i+1, got, want)
		}
	}
}

func TestWhyNothingIsLeft(t *testing.T) {
	table := compile(t, `
kind: RoutingPolicy
id: policy-with-an-internal-name
model: m
fallback_models: [n]
backends: [{id: internal-a}, {id: internal-b}]
---
kind: RoutingPolicy
id: other
model: n
backends: [{id: internal-c}]
`)
	rest := func(d time.Duration) fleet.Result { return fleet.Result{Kind: fleet.Saturated, RetryAfter: d} }
	for _, test := range []struct {
		name    string
		results map[string]fleet.Result
		model   string
		code    fault.Code
		message string
		after   time.Duration
	}{
		{
			"all at rest",
			map[string]fleet.Result{"internal-a": rest(40 * time.Second), "internal-b": rest(20 * time.Second), "internal-c": rest(30 * time.Second)},
			"m",
			fault.BackendOverloaded, `every backend of model "m" or its fallback models is at its limit (3 backends: 3 asking for a pause); retry later`, 20 * time.Second,
		},
		{
			"one at rest",
			map[string]fleet.Result{"internal-c": rest(0)},
			"n",
			fault.BackendOverloaded, `every backend of model "n" is at its limit (1 backend: 1 asking for a pause); retry later`, time.Second,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := fleetFor(t, table)
			for id, result := range test.results {
				probe := f.Picker(fleet.Ask{Candidates: []fleet.Candidate{{Backend: id}}})
				choice, err := probe.Next()
				if err != nil {
					t.Fatal(err)
				}
				choice.Lease.Done(result)
			}
			_, err := decide(t, f, table, Ask{Model: test.model}).Next()
			e := fault.From(err)
			if e.Code != test.code || e.Message != test.message {
				t.Errorf("got %s: %s\nwant %s: %s", e.Code, e.Message, test.code, test.message)
			}
			if e.RetryAfter > test.after || e.RetryAfter < test.after-5*time.Second || e.RetryAfter <= 0 {
				t.Errorf("retry after %s, want %s", e.RetryAfter, test.after)
			}
			if strings.Contains(e.Message, "internal") {
				t.Errorf("the message holds an internal name: %s", e.Message)
			}
		})
	}
	t.Run("gone from the fleet", func(t *testing.T) {
		_, err := decide(t, fleet.New(fleet.Options{}), table, Ask{Model: "m"}).Next()
		e := fault.From(err)
		want := `no backend can serve model "m" or its fallback models now (3 backends: 3 not configured); retry later`
		if e.Code != fault.NoBackendAvailable || e.Message != want || e.RetryAfter != time.Second {
			t.Errorf("got %s: %s, retry after %s", e.Code, e.Message, e.RetryAfter)
		}
		if _, ok := errors.AsType[*fleet.Exhausted](err); !ok {
			t.Error("the cause is lost for the log")
		}
	})
	t.Run("full", func(t *testing.T) {
		f := fleetFor(t, table, func(s *fleet.Spec) { s.MaxConcurrency = 1 })
		held, err := decide(t, f, table, Ask{Model: "n"}).Next()
		if err != nil {
			t.Fatal(err)
		}
		defer held.Lease.Done(fleet.Result{})
		_, err = decide(t, f, table, Ask{Model: "n"}).Next()
		if e := fault.From(err); e.Code != fault.BackendOverloaded || !strings.Contains(e.Message, "(1 backend: 1 full)") {
			t.Errorf("got %v", err)
		}
	})
}

func TestADecisionHasNoSideEffects(t *testing.T) {
	table := compile(t, documents)
	f := fleetFor(t, table)
	for range 10 {
		decide(t, f, table, Ask{Organization: "o", Model: "large"})
	}
	for _, s := range f.Status() {
		if s.InFlight != 0 {
			t.Errorf("%s has %d in flight although nobody asked for a lease", s.ID, s.InFlight)
		}
	}
}

// Whatever the policies are, a plan ends, keeps to each route's attempts, and gives a backend once for each model.
func TestPlanProperties(t *testing.T) {
	kinds := []fleet.Kind{fleet.Neutral, fleet.Served, fleet.ClientGone, fleet.Failed, fleet.Saturated, fleet.ConnectFailed}
	rapid.Check(t, func(t *rapid.T) {
		models := []string{"m0", "m1", "m2", "m3"}
		attempts := map[string]int{}
		var text strings.Builder
		for _, m := range models {
			attempts[m] = rapid.IntRange(1, 4).Draw(t, "attempts")
			var fallback []string
			for _, other := range models {
				if other != m && rapid.Bool().Draw(t, "fallback") {
					fallback = append(fallback, other)
				}
			}
			var backends []string
			for b := range 5 {
				if b == 0 || rapid.Bool().Draw(t, "backend") {
					backends = append(backends, fmt.Sprintf("{id: b%d, weight: %d, tier: %d}", b, rapid.IntRange(1, 5).Draw(t, "weight"), rapid.IntRange(0, 2).Draw(t, "tier")))
				}
			}
			fmt.Fprintf(&text, "kind: RoutingPolicy\nid: p-%s\nmodel: %s\nfallback_models: [%s]\nbackends: [%s]\nretry: {attempts: %d}\n---\n",
				m, m, strings.Join(fallback, ", "), strings.Join(backends, ", "), attempts[m])
		}
		table := compile(t, text.String())
		f := fleetFor(t, table)
		for range 3 {
			p := decide(t, f, table, Ask{Model: rapid.SampledFrom(models).Draw(t, "model")})
			seen := map[string]int{}
			given := map[string]int{}
			for {
				choice, err := p.Next()
				if err != nil {
					if code := fault.CodeOf(err); code != fault.NoBackendAvailable && code != fault.BackendOverloaded {
						t.Fatalf("code %s", code)
					}
					break
				}
				id := choice.Lease.Backend().ID() + ":" + choice.Public
				if seen[id]++; seen[id] > 1 {
					t.Fatalf("%s was given twice", id)
				}
				if given[choice.Public]++; given[choice.Public] > attempts[choice.Public] {
					t.Fatalf("%d attempts for %s, the policy allows %d", given[choice.Public], choice.Public, attempts[choice.Public])
				}
				choice.Lease.Done(fleet.Result{Kind: rapid.SampledFrom(kinds).Draw(t, "result")})
			}
		}
		for _, s := range f.Status() {
			if s.InFlight != 0 {
				t.Fatalf("%s has %d in flight at the end", s.ID, s.InFlight)
			}
		}
	})
}

func BenchmarkDecideAndNext(b *testing.B) {
	table := compile(b, documents)
	d := &Decider{Fleet: fleetFor(b, table)}
	b.ReportAllocs()
	for b.Loop() {
		p, err := d.Decide(table, Ask{Organization: "o", KeyID: "k", Model: "large", At: asked})
		if err != nil {
			b.Fatal(err)
		}
		choice, err := p.Next()
		if err != nil {
			b.Fatal(err)
		}
		choice.Lease.Done(fleet.Result{Kind: fleet.Served})
	}
}
