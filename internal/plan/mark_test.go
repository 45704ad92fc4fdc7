package plan

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ai-aas/api-router/internal/fault"
	"github.com/ai-aas/api-router/internal/fleet"
)

// asked is the moment of every request in these tests.
var asked = time.Date(2026, 11, 23, 9, 30, 0, 0, time.UTC)

// marked adds marks to documents, each given as the fields behind its kind and id.
func marked(documents string, marks ...string) string {
	var b strings.Builder
	b.WriteString(documents)
	for i, m := range marks {
		fmt.Fprintf(&b, "---\nkind: Mark\nid: internal-mark-%d\nactor: internal-actor\n%s\n", i, m)
	}
	return b.String()
}

func TestAModelThatIsSwitchedOffIsRefusedWithWhatAndWhy(t *testing.T) {
	const off = "state: disabled"
	for _, test := range []struct {
		name    string
		mark    string
		ask     Ask
		message string
		after   time.Duration
	}{
		{"a model", "model: small\n" + off, Ask{Model: "small"}, `model "small" is switched off; use another model`, 0},
		{"as the client named it", "model: large\n" + off, Ask{Model: "big"}, `model "big" is switched off; use another model`, 0},
		{"marked by its alias", "model: big\n" + off, Ask{Model: "large"}, `model "large" is switched off; use another model`, 0},
		{"even with fallback models", "model: large\n" + off, Ask{Model: "large"}, `model "large" is switched off; use another model`, 0},
		{
			"with a reason", "model: small\nreason: it leaks\n" + off,
			Ask{Model: "small"},
			`model "small" is switched off (reason: it leaks); use another model`, 0,
		},
		{
			"until soon", "model: small\nuntil: 2026-11-23T10:30:00Z\n" + off,
			Ask{Model: "small"},
			`model "small" is switched off until 2026-11-23T10:30:00Z; use another model, or come back then`, time.Hour,
		},
		{
			"until later", "model: small\nreason: new weights\nuntil: 2026-11-23T10:30:00.5Z\n" + off,
			Ask{Model: "small"},
			`model "small" is switched off (reason: new weights) until 2026-11-23T10:30:01Z; use another model, or come back then`, 0,
		},
		{
			"an organization's use of a model", "organization: acme\nmodel: small\n" + off,
			Ask{Organization: "acme", Model: "little"},
			`your organization's use of model "little" is switched off; use another model`, 0,
		},
		{
			"all that an organization uses", "organization: acme\nreason: unpaid\n" + off,
			Ask{Organization: "acme", Model: "medium"},
			`your organization's use of this router is switched off (reason: unpaid); ask the operator of this router`, 0,
		},
		{
			"drained without a fallback model", "model: small\nreason: moving\nstate: draining",
			Ask{Model: "small"},
			`model "small" is being drained (reason: moving); use another model`, 0,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			table := compile(t, marked(documents, test.mark))
			test.ask.At = asked
			p, err := (&Decider{Fleet: fleetFor(t, table)}).Decide(table, test.ask)
			if p != nil || err == nil {
				t.Fatalf("it has a plan: %+v", p)
			}
			want := fault.Error{Code: fault.ModelDisabled, Param: "model", Message: test.message, RetryAfter: test.after}
			if e := fault.From(err); *e != want {
				t.Errorf("got %+v\nwant %+v", *e, want)
			}
		})
	}
}

func TestMarksChangeTheOrderOfModels(t *testing.T) {
	for _, test := range []struct {
		name     string
		marks    []string
		ask      Ask
		want     []string // a star stands for any one backend of medium
		warnings []string
	}{
		{
			"none", nil,
			Ask{Model: "large"},
			[]string{"l1:large", "l2:large", "*:medium", "s1:small"},
			[]string{"", "", "", ""},
		},
		{
			"ended",
			[]string{"model: large\nstate: disabled\nuntil: 2026-11-23T09:30:00Z"},
			Ask{Model: "large"},
			[]string{"l1:large", "l2:large", "*:medium", "s1:small"},
			[]string{"", "", "", ""},
		},
		{
			"of another organization",
			[]string{"organization: other\nstate: disabled", "organization: other\nmodel: large\nstate: disabled"},
			Ask{Organization: "acme", Model: "small"},
			[]string{"a1:small"},
			[]string{""},
		},
		{
			"draining",
			[]string{"model: large\nstate: draining"},
			Ask{Model: "large"},
			[]string{"*:medium", "s1:small"},
			[]string{"", ""},
		},
		{
			"draining for one organization",
			[]string{"model: large\norganization: acme\nstate: draining"},
			Ask{Organization: "acme", Model: "large"},
			[]string{"*:medium", "a1:small"},
			[]string{"", ""},
		},
		{
			"degraded",
			[]string{"model: large\nstate: degraded"},
			Ask{Model: "large"},
			[]string{"*:medium", "s1:small", "l1:large", "l2:large"},
			[]string{"degraded model avoided", "degraded model avoided", "degraded model used", "degraded model used"},
		},
		{
			"degraded without a fallback model",
			[]string{"model: small\nstate: degraded"},
			Ask{Model: "small"},
			[]string{"s1:small"},
			[]string{"degraded model used"},
		},
		{
			"a disabled fallback model",
			[]string{"model: medium\nstate: disabled"},
			Ask{Model: "large"},
			[]string{"l1:large", "l2:large", "s1:small"},
			[]string{"", "", ""},
		},
		{
			"a draining fallback model",
			[]string{"model: little\nstate: draining"},
			Ask{Model: "large"},
			[]string{"l1:large", "l2:large", "*:medium"},
			[]string{"", "", ""},
		},
		{
			"a degraded fallback model",
			[]string{"model: medium\nstate: degraded"},
			Ask{Model: "large"},
			[]string{"l1:large", "l2:large", "s1:small", "*:medium"},
			[]string{"", "", "degraded model avoided", "degraded model used"},
		},
		{
			"degraded like its fallback model",
			[]string{"model: large\nstate: degraded", "model: medium\nstate: degraded"},
			Ask{Model: "large"},
			[]string{"s1:small", "l1:large", "l2:large", "*:medium"},
			[]string{"degraded model avoided", "degraded model used", "degraded model used", "degraded model used"},
		},
		{
			"all fallback models disabled",
			[]string{"model: medium\nstate: disabled", "model: small\nstate: disabled"},
			Ask{Model: "large"},
			[]string{"l1:large", "l2:large"},
			[]string{"", ""},
		},
		{
			"degraded for the whole organization",
			[]string{"organization: acme\nstate: degraded"},
			Ask{Organization: "acme", Model: "small"},
			[]string{"a1:small"},
			[]string{"degraded model used"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			table := compile(t, marked(documents, test.marks...))
			test.ask.At = asked
			p := decide(t, fleetFor(t, table), table, test.ask)
			var got, warnings []string
			for {
				choice, err := p.Next()
				if err != nil {
					break
				}
				id := choice.Lease.Backend().ID()
				if choice.Public == "medium" {
					id = "*"
				}
				got, warnings = append(got, id+":"+choice.Public), append(warnings, p.Warning())
				choice.Lease.Done(fleet.Result{})
			}
			if !slices.Equal(got, test.want) || !slices.Equal(warnings, test.warnings) {
				t.Errorf("got %v with %q\nwant %v with %q", got, warnings, test.want, test.warnings)
			}
		})
	}
}

// pair is a model with two backends and one with a third.
const pair = `
kind: RoutingPolicy
id: internal-policy
model: m
fallback_models: [n]
backends: [{id: internal-a}, {id: internal-b}]
---
kind: RoutingPolicy
id: internal-other
model: n
backends: [{id: internal-c}]
`

func TestABackendsMarkIsSeenInTheAnswer(t *testing.T) {
	type marks = map[string]fleet.Mark
	off, drain, degrade := fleet.Mark{State: fleet.MarkDisabled, Reason: "internal"}, fleet.Mark{State: fleet.MarkDraining}, fleet.Mark{State: fleet.MarkDegraded}
	soon := fleet.Mark{State: fleet.MarkDisabled, Until: time.Now().Add(10 * time.Minute)}
	late := fleet.Mark{State: fleet.MarkDisabled, Until: time.Now().Add(10 * time.Hour)}
	for _, test := range []struct {
		name    string
		marks   marks
		model   string
		choice  string
		warning string
		code    fault.Code
		message string
		after   time.Duration
	}{
		{name: "one degraded", marks: marks{"internal-a": degrade}, model: "m", choice: "internal-b", warning: "degraded backend avoided"},
		{name: "both degraded", marks: marks{"internal-a": degrade, "internal-b": degrade}, model: "m", choice: "internal-[ab]", warning: "degraded backend used"},
		{name: "one degraded, one off", marks: marks{"internal-a": degrade, "internal-b": off}, model: "m", choice: "internal-a", warning: "degraded backend used"},
		{name: "one drained", marks: marks{"internal-a": drain}, model: "m", choice: "internal-b"},
		{name: "all of a model off", marks: marks{"internal-a": off, "internal-b": drain}, model: "m", choice: "internal-c"},
		{
			name: "everything off", marks: marks{"internal-a": off, "internal-b": drain, "internal-c": off}, model: "m",
			code: fault.ModelDisabled, message: `every backend of model "m" or its fallback models is switched off or being drained; use another model`,
		},
		{
			name: "back soon", marks: marks{"internal-c": soon}, model: "n", after: 10 * time.Minute,
			code: fault.ModelDisabled, message: `every backend of model "n" is switched off or being drained; use another model`,
		},
		{
			name: "back late", marks: marks{"internal-c": late}, model: "n",
			code: fault.ModelDisabled, message: `every backend of model "n" is switched off or being drained; use another model`,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			table := compile(t, pair)
			f := fleetFor(t, table)
			f.SetMarks(test.marks)
			p := decide(t, f, table, Ask{Model: test.model})
			choice, err := p.Next()
			if err == nil {
				defer choice.Lease.Done(fleet.Result{})
				id := choice.Lease.Backend().ID()
				if test.choice == "internal-[ab]" && id != "internal-c" {
					id = test.choice
				}
				if id != test.choice || p.Warning() != test.warning {
					t.Errorf("got %s with %q", id, p.Warning())
				}
				return
			}
			e := fault.From(err)
			if e.Code != test.code || e.Message != test.message || strings.Contains(e.Message, "internal") {
				t.Errorf("got %v", e)
			}
			if e.RetryAfter > test.after || e.RetryAfter < test.after-time.Minute {
				t.Errorf("retry after %v, want %v", e.RetryAfter, test.after)
			}
		})
	}
}

func TestOneBackendThatIsNotSwitchedOffMakesItAnOutage(t *testing.T) {
	table := compile(t, pair)
	f := fleetFor(t, table)
	f.SetMarks(map[string]fleet.Mark{"internal-a": {State: fleet.MarkDisabled}, "internal-b": {State: fleet.MarkDisabled}})
	c, err := f.Picker(fleet.Ask{Candidates: []fleet.Candidate{{Backend: "internal-c"}}}).Next()
	if err != nil {
		t.Fatal(err)
	}
	c.Lease.Done(fleet.Result{Kind: fleet.Saturated})
	if _, err := decide(t, f, table, Ask{Model: "m"}).Next(); fault.CodeOf(err) != fault.BackendOverloaded {
		t.Errorf("full: %v", err)
	}
	if err := f.Apply(nil); err != nil {
		t.Fatal(err)
	}
	if _, err := decide(t, f, table, Ask{Model: "m"}).Next(); fault.CodeOf(err) != fault.NoBackendAvailable {
		t.Errorf("gone: %v", err)
	}
}

func TestABackendThatIsSwitchedOffDuringTheLastAttemptIsNoOutage(t *testing.T) {
	table := compile(t, "kind: RoutingPolicy\nid: p\nmodel: m\nbackends: [{id: a}]\nretry: {attempts: 1}\n")
	f := fleetFor(t, table)
	p := decide(t, f, table, Ask{Model: "m"})
	choice, err := p.Next()
	if err != nil {
		t.Fatal(err)
	}
	f.SetMarks(map[string]fleet.Mark{"a": {State: fleet.MarkDisabled}})
	choice.Lease.Done(fleet.Result{Kind: fleet.ConnectFailed})
	if _, err := p.Next(); fault.CodeOf(err) != fault.ModelDisabled {
		t.Errorf("got %v", err)
	}
}

func TestAnAttemptThatAnOperatorCutDoesNotCount(t *testing.T) {
	table := compile(t, "kind: RoutingPolicy\nid: p\nmodel: m\nbackends: [{id: a}, {id: b, tier: 1}, {id: c, tier: 2}, {id: d, tier: 3}]\nretry: {attempts: 2}\n")
	f := fleetFor(t, table)
	p := decide(t, f, table, Ask{Model: "m"})
	off := map[string]fleet.Mark{}
	for _, step := range []struct {
		backend string
		cut     bool
	}{{"a", true}, {"b", false}, {"c", true}, {"d", false}} {
		choice, err := p.Next()
		if err != nil || choice.Lease.Backend().ID() != step.backend {
			t.Fatalf("%s: got %+v, %v", step.backend, choice, err)
		}
		if step.cut {
			off[step.backend] = fleet.Mark{State: fleet.MarkDisabled}
			f.SetMarks(off)
		}
		choice.Lease.Done(fleet.Result{})
	}
	if choice, err := p.Next(); fault.CodeOf(err) != fault.NoBackendAvailable {
		t.Errorf("got %+v, %v", choice, err)
	}
}

const narrowed = `
kind: RoutingPolicy
id: p
model: m
fallback_models: [n]
backends: [{id: a, callers: {allow: [k1, acme]}}, {id: b, callers: {deny: [k2]}, tier: 1}]
---
kind: RoutingPolicy
id: q
model: n
backends: [{id: c, callers: {allow: [k2, k3]}}]
`

func TestABackendServesOnlyItsCallers(t *testing.T) {
	table := compile(t, narrowed)
	f := fleetFor(t, table)
	for _, test := range []struct {
		name, organization, key, model string
		want                           []string
	}{
		{"an allowed key", "o", "k1", "m", []string{"a:m", "b:m"}},
		{"an allowed organization", "acme", "k", "m", []string{"a:m", "b:m"}},
		{"any other", "o", "k", "m", []string{"b:m"}},
		{"its fallback model", "o", "k3", "m", []string{"b:m", "c:n"}},
		{"none is left", "o", "k2", "m", nil},
		{"none is left of another", "o", "k1", "n", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			p, err := (&Decider{Fleet: f}).Decide(table, Ask{Organization: test.organization, KeyID: test.key, Model: test.model})
			if test.want == nil {
				want := fault.Error{Code: fault.ModelNotFound, Param: "model", Message: fmt.Sprintf("no routing policy configured for model %q", test.model)}
				if e := fault.From(err); *e != want {
					t.Errorf("got %+v, %v", p, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got, _ := drain(p, fleet.Result{}); !slices.Equal(got, test.want) {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

// A client must not learn from a switched off model that it exists where its key may not use it.
func TestAModelThatAKeyMayNotUseIsNotFoundEvenWhenSwitchedOff(t *testing.T) {
	table := compile(t, marked(documents+"---\n"+narrowed[1:], "model: secret\nstate: disabled", "model: n\nstate: disabled"))
	d := &Decider{Fleet: fleetFor(t, table)}
	for _, model := range []string{"secret", "n"} {
		if _, err := d.Decide(table, Ask{Organization: "o", KeyID: "plain", Model: model}); fault.CodeOf(err) != fault.ModelNotFound {
			t.Errorf("%s: %v", model, err)
		}
	}
}

func TestADegradedModelThatCouldNotAnswerWasNotAvoided(t *testing.T) {
	table := compile(t, marked(pair, "model: m\nstate: degraded"))
	f := fleetFor(t, table)
	f.SetMarks(map[string]fleet.Mark{"internal-a": {State: fleet.MarkDisabled}, "internal-b": {State: fleet.MarkDraining}})
	p := decide(t, f, table, Ask{Model: "m"})
	choice, err := p.Next()
	if err != nil {
		t.Fatal(err)
	}
	defer choice.Lease.Done(fleet.Result{})
	if choice.Public != "n" || p.Warning() != "" {
		t.Errorf("%s with %q", choice.Public, p.Warning())
	}
}
