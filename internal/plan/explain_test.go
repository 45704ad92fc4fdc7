package plan

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/ai-aas/api-router/internal/fault"
	"github.com/ai-aas/api-router/internal/fleet"
	"github.com/ai-aas/api-router/internal/policy"
)

func explain(t tb, f *fleet.Fleet, table *policy.Table, ask Ask) *Explanation {
	t.Helper()
	e, err := (&Decider{Fleet: f}).Explain(table, ask)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return e
}

// outline is the part of an explanation that is the same each time, in lines.
func outline(e *Explanation) string {
	var b strings.Builder
	for _, r := range e.Routes {
		fmt.Fprintf(&b, "%d %s %s: %s\n", r.Turn, r.Model, r.Policy, r.Why)
		for _, c := range r.Candidates {
			fmt.Fprintf(&b, "  %d %s %s tier %d weight %d", c.Order, c.Backend, c.State, c.Tier, c.Weight)
			if c.SharePercent != 0 {
				fmt.Fprintf(&b, " share %g", c.SharePercent)
			}
			if c.Why != "" {
				fmt.Fprintf(&b, ": %s", c.Why)
			}
			b.WriteByte('\n')
		}
	}
	fmt.Fprintf(&b, "choice %q next %q draw %v warning %q\n", e.Choice, e.Next, e.Draw, e.Warning)
	if e.Error != nil {
		fmt.Fprintf(&b, "error %d %s: %s\n", e.Error.Status, e.Error.Code, e.Error.Message)
	}
	return b.String()
}

const weighted = `
kind: RoutingPolicy
id: p
model: m
strategy: weighted
backends: [{id: a, weight: 3}, {id: b, weight: 1}, {id: c, tier: 1}, {id: d, weight: 0}]
retry: {attempts: 1}
`

func TestAnExplanationSaysWhichPolicyAndWhichBackend(t *testing.T) {
	const only = "the only one that can be chosen now"
	for _, test := range []struct {
		name      string
		documents string
		marks     []string
		backends  map[string]fleet.Mark
		ask       Ask
		want      string
	}{
		{
			"everyone's policy by an alias, with fallback models", documents, nil, nil,
			Ask{Organization: "o", KeyID: "k", Model: "big"},
			`1 large global-large: everyone's policy for model "large", by its alias "big"
  1 l1 available tier 0 weight 100 share 100: ` + only + `
  2 l2 available tier 1 weight 100: ` + only + `
  0 l3 available tier 2 weight 100: behind as many attempts as the policy allows
2 medium global-medium: everyone's policy for model "medium"
  X
  X
3 small global-small: everyone's policy for model "small"
  4 s1 available tier 0 weight 100 share 100: ` + only + `
0 secret global-secret: everyone's policy for model "secret"; passed over: its key rules refuse this key
0 nowhere : passed over: no policy routes this model
0 small global-small: everyone's policy for model "small", by its alias "little"; it has its turn under another name
  0 s1 available tier 0 weight 100
choice "l1" next ["l2" "X" "s1"] draw false warning ""
`,
		},
		{
			"the organization's own", documents, nil, nil,
			Ask{Organization: "acme", Model: "small"},
			`1 small acme-small: the policy of organization "acme" for model "small"
  1 a1 available tier 0 weight 100 share 100: ` + only + `
choice "a1" next [] draw false warning ""
`,
		},
		{
			"a key that the rules refuse", documents, nil, nil,
			Ask{Organization: "o", KeyID: "k", Model: "secret"},
			`0 secret global-secret: everyone's policy for model "secret"; its key rules refuse this key
choice "" next [] draw false warning ""
error 404 model_not_found: no routing policy configured for model "secret"
`,
		},
		{
			"an unknown model", documents, nil, nil,
			Ask{Model: "nowhere"},
			`choice "" next [] draw false warning ""
error 404 model_not_found: no routing policy configured for model "nowhere"
`,
		},
		{
			"no backend for this caller", narrowed, nil, nil,
			Ask{Organization: "o", KeyID: "k2", Model: "m"},
			`0 m p: everyone's policy for model "m"; none of its backends serves this caller
choice "" next [] draw false warning ""
error 404 model_not_found: no routing policy configured for model "m"
`,
		},
		{
			"a backend that is not for this caller", narrowed, nil, nil,
			Ask{Organization: "o", KeyID: "k", Model: "m"},
			`1 m p: everyone's policy for model "m"
  0 a available tier 0 weight 100: the policy keeps it from this caller
  1 b available tier 1 weight 100 share 100: ` + only + `
0 n q: everyone's policy for model "n"; passed over: none of its backends serves this caller
choice "b" next [] draw false warning ""
`,
		},
		{
			"switched off", documents,
			[]string{"model: large\nstate: disabled\nreason: it leaks"},
			nil,
			Ask{Organization: "acme", Model: "large"},
			`0 large global-large: everyone's policy for model "large"; an operator has switched it off
  0 l1 available tier 0 weight 100
  0 l2 available tier 1 weight 100
  0 l3 available tier 2 weight 100
0 medium global-medium: everyone's policy for model "medium"; no fallback model stands in for a model that is switched off
  0 m1 available tier 0 weight 100
  0 l1 available tier 0 weight 100
0 small acme-small: the policy of organization "acme" for model "small"; no fallback model stands in for a model that is switched off
  0 a1 available tier 0 weight 100
0 secret global-secret: everyone's policy for model "secret"; passed over: its key rules refuse this key
0 nowhere : passed over: no policy routes this model
0 small global-small: everyone's policy for model "small", by its alias "little"; no fallback model stands in for a model that is switched off
  0 s1 available tier 0 weight 100
choice "" next [] draw false warning ""
error 503 model_disabled: model "large" is switched off (reason: it leaks); use another model
`,
		},
		{
			"degraded, with a fallback model that is drained", pair,
			[]string{"model: m\nstate: degraded", "model: n\nstate: draining"},
			map[string]fleet.Mark{"internal-a": {State: fleet.MarkDisabled}},
			Ask{Model: "m"},
			`1 m internal-policy: everyone's policy for model "m"; it is degraded: behind all that are not
  0 internal-a disabled tier 0 weight 100: an operator has switched it off
  1 internal-b available tier 0 weight 100 share 100: ` + only + `
0 n internal-other: everyone's policy for model "n"; an operator is draining it
  0 internal-c available tier 0 weight 100
choice "internal-b" next [] draw false warning "degraded model used"
`,
		},
		{
			"everything switched off", pair, nil,
			map[string]fleet.Mark{"internal-a": {State: fleet.MarkDisabled}, "internal-b": {State: fleet.MarkDraining}, "internal-c": {State: fleet.MarkDraining}},
			Ask{Model: "m"},
			`1 m internal-policy: everyone's policy for model "m"
  0 internal-a disabled tier 0 weight 100: an operator has switched it off
  0 internal-b draining tier 0 weight 100: an operator is draining it
2 n internal-other: everyone's policy for model "n"
  0 internal-c draining tier 0 weight 100: an operator is draining it
choice "" next [] draw false warning ""
error 503 model_disabled: every backend of model "m" or its fallback models is switched off or being drained; use another model
`,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			table := compile(t, marked(test.documents, test.marks...))
			f := fleetFor(t, table)
			f.SetMarks(test.backends)
			test.ask.At = asked
			got := outline(explain(t, f, table, test.ask))
			if strings.Contains(test.want, "X") { // Which of the two backends of medium comes is a draw.
				lines := strings.Split(got, "\n")
				for i, line := range lines {
					if strings.HasPrefix(line, "2 medium") {
						lines[i+1], lines[i+2] = "  X", "  X"
					}
				}
				got = strings.NewReplacer(`"m1"`, `"X"`, `"l2" "l1"`, `"l2" "X"`).Replace(strings.Join(lines, "\n"))
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestAnExplanationSaysWhatIsDrawn(t *testing.T) {
	table := compile(t, weighted)
	f := fleetFor(t, table)
	e := explain(t, f, table, Ask{Model: "m"})
	if !e.Draw || !e.Tries[0].Draw || e.Tries[0].Why != "one draw by weight among 2" {
		t.Errorf("%+v", e.Tries)
	}
	shares := map[string]float64{}
	for _, c := range e.Routes[0].Candidates {
		shares[c.Backend] = c.SharePercent
	}
	if diff := cmp.Diff(map[string]float64{"a": 75, "b": 25, "c": 0, "d": 0}, shares); diff != "" {
		t.Error(diff)
	}
	for strategy, want := range map[string]struct {
		session string
		weights string
		why     string
		draw    bool
	}{
		"round_robin":  {"", "1,1", "its turn in the rotation among 2", false},
		"session":      {"s", "1,2", "the place of its session among 2", false},
		"least_loaded": {"", "1,1", "the fewest requests in flight for its weight among 2, drawn from 2 that are equal", true},
		"adaptive":     {"", "1,2", "one draw by weight among 2", true},
	} {
		first, second, _ := strings.Cut(want.weights, ",")
		table := compile(t, fmt.Sprintf("kind: RoutingPolicy\nid: p\nmodel: m\nstrategy: %s\nbackends: [{id: a, weight: %s}, {id: b, weight: %s}]\n", strategy, first, second))
		e := explain(t, fleetFor(t, table), table, Ask{Model: "m", Session: want.session})
		if e.Draw != want.draw || e.Tries[0].Why != want.why {
			t.Errorf("%s: %v, %q", strategy, e.Draw, e.Tries[0].Why)
		}
	}
}

func TestAnExplanationCarriesTheDocumentAndItsMarks(t *testing.T) {
	documents, problems := policy.Parse("a/place.yaml", []byte(marked(pair, "model: m\nstate: degraded\nreason: slow", "backend: internal-a\nstate: degraded")))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	for i := range documents {
		documents[i].Revision, documents[i].Legacy = int64(10+i), true
	}
	for _, id := range []string{"internal-a", "internal-b", "internal-c"} {
		documents = append(documents, policy.Document{Backend: new(policy.NewBackend(id, "http://"+id+":1"))})
	}
	table := policy.Compile(policy.Snapshot{Documents: documents, Origin: "a test"}, nil)
	f := fleetFor(t, table, func(s *fleet.Spec) {
		s.MaxConcurrency, s.Models = 5, map[string]string{"m": "own-" + s.ID}
	})
	f.SetMarks(map[string]fleet.Mark{"internal-a": {State: fleet.MarkDegraded, Reason: "hot"}})
	e := explain(t, f, table, Ask{Organization: "o", KeyID: "k", Model: "m"})
	if e.Revision != table.Revision() || e.Origin != "a test" || e.Organization != "o" || e.KeyID != "k" || e.Clamps == nil || e.Fields.ChatTemplate != policy.Refuse {
		t.Errorf("%+v", e)
	}
	own := e.Routes[slices.IndexFunc(e.Routes, func(r Route) bool { return r.Model == "m" })]
	if own.Revision != 10 || !own.Legacy || !strings.HasPrefix(own.Place, "a/place.yaml") || own.Attempts != 2 || own.Strategy != "adaptive" || own.Mark.Reason != "slow" {
		t.Errorf("%+v", own)
	}
	a := own.Candidates[0]
	if a.Model != "own-internal-a" || !a.Known || a.MaxConcurrency != 5 || !a.Degraded || a.Mark == nil || a.Mark.Reason != "hot" || a.Mark.Backend != "internal-a" || a.Mark.ID != "" {
		t.Errorf("%+v", a)
	}
	f.SetMarks(map[string]fleet.Mark{"internal-a": {State: fleet.MarkDegraded}}) // As the table has it.
	at := slices.IndexFunc(e.Routes, func(r Route) bool { return r.Model == "m" })
	if m := explain(t, f, table, Ask{Model: "m"}).Routes[at].Candidates[0].Mark; m == nil || m.ID != "internal-mark-1" || m.Actor != "internal-actor" {
		t.Errorf("%+v", m)
	}
	text, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	var again Explanation
	if err := json.Unmarshal(text, &again); err != nil || !reflect.DeepEqual(again.Tries, e.Tries) {
		t.Errorf("%v: %s", err, text)
	}
}

func TestWhatCannotBeExplained(t *testing.T) {
	d := &Decider{Fleet: fleet.New(fleet.Options{})}
	if _, err := d.Explain(compile(t, documents), Ask{}); fault.CodeOf(err) != fault.InvalidRequest {
		t.Errorf("no model: %v", err)
	}
	e, err := d.Explain(nil, Ask{Model: "m"})
	if err != nil || e.Error == nil || e.Error.Code != string(fault.NoBackendAvailable) || e.Error.Status != 503 || e.Error.RetryAfterMillis != 1000 {
		t.Errorf("no table: %+v, %v", e, err)
	}
}

// world draws documents with their marks, and a fleet in some state.
func world(t *rapid.T) (*policy.Table, *fleet.Fleet) {
	models, organizations, keys := []string{"m0", "m1", "m2"}, []string{"*", "o1"}, []string{"k1", "k2"}
	marks := []string{"", "", "", policy.Disabled, policy.Draining, policy.Degraded}
	var text strings.Builder
	for _, m := range models {
		for _, o := range organizations {
			if o != "*" && !rapid.Bool().Draw(t, "own") {
				continue
			}
			var backends []string
			for b := range 4 {
				if b == 0 || rapid.Bool().Draw(t, "backend") {
					callers := rapid.SampledFrom([]string{"", "", "", ", callers: {allow: [k1]}", ", callers: {deny: [o1]}"}).Draw(t, "callers")
					backends = append(backends, fmt.Sprintf("{id: b%d, weight: %d, tier: %d, degraded: %v%s}", b, rapid.IntRange(max(0, 1-b), 2).Draw(t, "weight"),
						rapid.IntRange(0, 1).Draw(t, "tier"), rapid.IntRange(0, 5).Draw(t, "degraded") == 0, callers))
				}
			}
			others := slices.DeleteFunc([]string{"m2", "alias-m0", "m1"}, func(name string) bool { return strings.HasSuffix(name, m) })
			fallback := others[:rapid.IntRange(0, len(others)).Draw(t, "fallback")]
			rules := rapid.SampledFrom([]string{"", "", "keys: {deny: [k2]}\n"}).Draw(t, "keys")
			fmt.Fprintf(&text, "kind: RoutingPolicy\nid: p-%s-%s\norganization: %q\nmodel: %s\naliases: [alias-%s]\nfallback_models: [%s]\nbackends: [%s]\nstrategy: %s\nretry: {attempts: %d}\n%s---\n",
				m, strings.Trim(o, "*"), o, m, m, strings.Join(fallback, ", "), strings.Join(backends, ", "),
				rapid.SampledFrom([]string{"adaptive", "weighted", "round_robin", "round_robin", "least_loaded", "session"}).Draw(t, "strategy"), rapid.IntRange(1, 4).Draw(t, "attempts"), rules)
		}
		for _, target := range []string{"", "\norganization: o1"} {
			if state := rapid.SampledFrom(marks).Draw(t, "mark"); state != "" {
				fmt.Fprintf(&text, "kind: Mark\nid: mark-%s-%d\nmodel: %s%s\nstate: %s\n---\n", m, len(target), m, target, state)
			}
		}
	}
	table := compile(t, text.String())
	gone := rapid.IntRange(0, 9).Draw(t, "gone")
	f := fleet.New(fleet.Options{})
	var specs []fleet.Spec
	backends := map[string]fleet.Mark{}
	for i, b := range table.Backends() {
		if state := rapid.SampledFrom(marks).Draw(t, "backend mark"); state != "" {
			backends[b.ID] = fleet.Mark{State: state, Until: time.Now().Add(time.Hour)}
		}
		if i != gone {
			specs = append(specs, fleet.Spec{ID: b.ID, URL: b.URL, MaxConcurrency: rapid.IntRange(0, 2).Draw(t, "cap")})
		}
	}
	if err := f.Apply(specs); err != nil {
		t.Fatal(err)
	}
	for range rapid.IntRange(0, 12).Draw(t, "requests") { // They leave the fleet in some state; some never end.
		b := rapid.SampledFrom(table.Backends()).Draw(t, "of").ID
		choice, err := f.Picker(fleet.Ask{Candidates: []fleet.Candidate{{Backend: b}}}).Next()
		if kind := rapid.SampledFrom([]fleet.Kind{fleet.Failed, fleet.Failed, fleet.Saturated, fleet.Neutral}).Draw(t, "result"); err == nil && kind != fleet.Neutral {
			choice.Lease.Done(fleet.Result{Kind: kind, RetryAfter: time.Minute})
		}
	}
	for range rapid.IntRange(0, 3).Draw(t, "turns") { // They move the rotations.
		p, err := (&Decider{Fleet: f}).Decide(table, Ask{KeyID: keys[0], Model: "m0"})
		if err == nil {
			_, _ = drain(p, fleet.Result{})
		}
	}
	f.SetMarks(backends)
	return table, f
}

// An explanation is the decision: what it says is chosen is chosen, what it refuses is refused in the same words, and it changes nothing.
func TestAnExplanationIsTheDecision(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // Time stands still meanwhile.
		rapid.Check(struct{ testing.TB }{t}, isTheDecision) // In a bubble rapid must not ask a *testing.T for its deadline.
	})
}

func isTheDecision(t *rapid.T) {
	table, f := world(t)
	ask := Ask{
		Organization: rapid.SampledFrom([]string{"o1", "o2"}).Draw(t, "organization"),
		KeyID:        rapid.SampledFrom([]string{"k1", "k2"}).Draw(t, "key"),
		Model:        rapid.SampledFrom([]string{"m0", "alias-m1", "m2", "nowhere"}).Draw(t, "model"),
		Session:      rapid.SampledFrom([]string{"", "s1", "s2"}).Draw(t, "session"),
		At:           asked,
	}
	before := f.Status()
	e := explain(t, f, table, ask)
	again := explain(t, f, table, ask)
	if diff := cmp.Diff(before, f.Status()); diff != "" {
		t.Fatalf("the explanation changed the fleet: %s", diff)
	}
	if !slices.ContainsFunc(e.Tries, func(try Try) bool { return try.Draw }) && outline(e) != outline(again) {
		t.Fatalf("two explanations differ:\n%s\n%s", outline(e), outline(again))
	}
	checkShares(t, e)
	followed(t, f, table, ask, e)
}

// followed decides and takes leases, and compares that with the explanation as far as chance has no part in it.
func followed(t *rapid.T, f *fleet.Fleet, table *policy.Table, ask Ask, e *Explanation) {
	p, err := (&Decider{Fleet: f}).Decide(table, ask)
	taken := 0
	for err == nil {
		var choice fleet.Choice
		choice, err = p.Next()
		if err != nil {
			break
		}
		choice.Lease.Done(fleet.Result{})
		if taken >= len(e.Tries) {
			t.Fatalf("%s was taken, which is not in\n%s", choice.Lease.Backend().ID(), outline(e))
		}
		try := e.Tries[taken]
		if try.Draw {
			return // The draws differ, and with them what follows.
		}
		if try.Backend != choice.Lease.Backend().ID() || try.Model != choice.Public || try.Asked != choice.Model || try.Warning != p.Warning() {
			t.Fatalf("try %d is %s for %s (%s), got %s for %s (%s):\n%s", taken+1, try.Backend, try.Model, try.Warning,
				choice.Lease.Backend().ID(), choice.Public, p.Warning(), outline(e))
		}
		taken++
	}
	if taken != len(e.Tries) {
		t.Fatalf("%d were taken of\n%s", taken, outline(e))
	}
	if (e.Error != nil) != (taken == 0) {
		t.Fatalf("an error and %d choices: %+v", taken, e.Error)
	}
	if taken > 0 {
		return
	}
	want := fault.From(err)
	if e.Error.Code != string(want.Code) || e.Error.Message != want.Message || e.Error.Status != want.Status() || e.Error.Param != want.Param {
		t.Fatalf("explained %+v, got %+v", e.Error, want)
	}
	if wait := want.RetryAfter.Milliseconds(); e.Error.RetryAfterMillis != wait {
		t.Fatalf("explained a wait of %d ms, got %d", e.Error.RetryAfterMillis, wait)
	}
}

func checkShares(t *rapid.T, e *Explanation) {
	for _, r := range e.Routes {
		var total float64
		for _, c := range r.Candidates {
			total += c.SharePercent
		}
		if total != 0 && (total < 99.5 || total > 100.5) {
			t.Fatalf("shares of %s add up to %g", r.Policy, total)
		}
	}
}
