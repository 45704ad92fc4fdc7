package policy

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestAMarkIsNamedForItsTarget(t *testing.T) {
	tests := []struct{ backend, model, organization, want string }{
		{"vllm-a", "", "", "backend.vllm-a"},
		{"", "gpt-oss-20b", "", "model.gpt-oss-20b"},
		{"", "", "acme", "organization.acme"},
		{"", "gpt-oss-20b", "acme", "organization.acme.model.gpt-oss-20b"},
		{"", "x.model.y", "acme", "organization.acme.model.x.model.y"},
		{"", "meta/Llama", "", "model.meta-Llama.hf4aa4a097aa4987c"},
		{"", "meta:Llama", "", "model.meta-Llama.hc6298714d056f96e"},
		{"", "", "acme.model.x", "organization.acme.model.x.hc93f21b99121cf93"},
		{"", "b", "acme.model", "organization.acme.model.model.b.h6d9ad2559fea91e4"},
		{"b.h0123456789abcdef", "", "", "backend.b.h0123456789abcdef.h9ae2279159e9c460"},
	}
	for _, test := range tests {
		if got := MarkID(test.backend, test.model, test.organization); got != test.want {
			t.Errorf("%q %q %q: got %s, want %s", test.backend, test.model, test.organization, got, test.want)
		}
	}
}

func TestNoTwoTargetsShareAnID(t *testing.T) {
	names := rapid.OneOf(
		rapid.StringOfN(rapid.RuneFrom([]rune("a.-/:")), 0, 3, -1),
		rapid.SampledFrom([]string{"", "model", ".model.", "a.model.b", "backend.a", "organization.a", "é", strings.Repeat("x", 256), strings.Repeat("x", 255)}),
		rapid.Custom(func(t *rapid.T) string {
			return strings.TrimPrefix(MarkID("", rapid.SampledFrom([]string{"a/b", "a:b"}).Draw(t, "m"), ""), "model.")
		}),
	)
	known := map[string][3]string{}
	rapid.Check(t, func(t *rapid.T) {
		target := [3]string{names.Draw(t, "backend"), names.Draw(t, "model"), names.Draw(t, "organization")}
		id := MarkID(target[0], target[1], target[2])
		if !idForm.MatchString(id) || MarkID(target[0], target[1], target[2]) != id {
			t.Fatalf("%q: %q", target, id)
		}
		if other, taken := known[id]; taken && other != target {
			t.Fatalf("%q and %q share %s", other, target, id)
		}
		known[id] = target
	})
}

func TestMarksAreRead(t *testing.T) {
	const text = `kind: Mark
backend: vllm-a
state: draining
reason: new driver
actor: kim
since: 2026-03-01T10:00:00+01:00
until: 2026-03-01T11:00:00.5+01:00
---
kind: Mark
id: any.name
model: meta/Llama
organization: acme
state: disabled
`
	documents := read(t, text)
	want := []Document{
		{File: "a.yaml", Line: 1, Mark: &Mark{
			ID: "backend.vllm-a", Backend: "vllm-a", State: Draining, Reason: "new driver", Actor: "kim",
			Since: time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC), Until: time.Date(2026, 3, 1, 10, 0, 0, 5e8, time.UTC),
		}},
		{File: "a.yaml", Line: 9, Mark: &Mark{ID: "any.name", Model: "meta/Llama", Organization: "acme", State: Disabled}},
	}
	if diff := cmp.Diff(want, documents, sameDocuments); diff != "" {
		t.Error(diff)
	}
	for _, d := range documents {
		roundTrip(t, d)
	}
}

func TestMarksMustBeRight(t *testing.T) {
	text := func(rest string) string { return "kind: Mark\nid: x\n" + rest }
	checkProblems(t, []problemCase{
		{"no target", text("state: disabled"), []string{"f:1:1: Mark x: a mark needs its target: backend, model or organization"}},
		{"two targets", text("model: m\nbackend: b\nstate: disabled"), []string{"f:4:10: Mark x: a mark has one target: a backend, or a model and perhaps an organization"}},
		{"everybody", text("organization: '*'\nstate: disabled"), []string{"f:3:15: Mark x: organization must be an organization's id: for all of them, leave it out and write a model"}},
		{"no state", text("model: m"), []string{"f:1:1: Mark x: state is missing: it is one of disabled, draining, degraded"}},
		{"a wrong state", text("model: m\nstate: drained"), []string{"f:4:8: Mark x: state must be one of disabled, draining, degraded"}},
		{"names", text("model: m m\nstate: disabled\norganization: a/b"), []string{
			"f:3:8: Mark x: model must be 1 to 256 of the characters A-Z a-z 0-9 . _ : / @ + -",
			"f:5:15: Mark x: organization must be 1 to 128 of the characters A-Z a-z 0-9 . _ -",
		}},
		{"texts", text("model: m\nstate: disabled\nreason: \"a\\nb\"\nactor: " + strings.Repeat("x", 129)), []string{
			"f:5:9: Mark x: reason must be at most 500 bytes of printable text in one line",
			"f:6:8: Mark x: actor must be at most 128 bytes of printable text in one line",
		}},
		{"a long reason", text("model: m\nstate: disabled\nreason: " + strings.Repeat("é", 251)), []string{
			"f:5:9: Mark x: reason must be at most 500 bytes of printable text in one line",
		}},
		{"it ends before it begins", text("model: m\nstate: disabled\nsince: 2026-01-01T00:00:00Z\nuntil: 2026-01-01T00:00:00Z"), []string{
			"f:6:8: Mark x: until must be after since",
		}},
		{"times", text("model: m\nstate: disabled\nsince: now\nuntil: 1h"), []string{
			"f:5:8: Mark x: since must be a time with its zone, such as 2026-01-01T00:00:00Z",
			"f:6:8: Mark x: until must be a time with its zone, such as 2026-01-01T00:00:00Z",
		}},
	})
	for _, good := range []string{"reason: " + strings.Repeat("é", 250), "reason: drück weg — 你好", "until: 9999-12-31T23:59:59Z"} {
		read(t, text("model: m\nstate: disabled\n"+good))
	}
}

const noon = "2026-03-01T12:00:00Z"

func markedTable(t testing.TB, marks string) *Table {
	t.Helper()
	table := Compile(Snapshot{Documents: read(t, backends("b")+`---
kind: RoutingPolicy
id: everyone
model: gpt
aliases: [fast]
backends: [{id: b}]
---
kind: RoutingPolicy
id: acme
organization: acme
model: gpt
backends: [{id: b}]
---
kind: RoutingPolicy
id: other
model: llama
backends: [{id: b}]
`+marks)}, nil)
	if len(table.Problems()) > 0 {
		t.Fatal(said(table))
	}
	return table
}

func TestTheStrictestActiveMarkHolds(t *testing.T) {
	now, err := time.Parse(time.RFC3339, noon)
	must(t, err)
	mark := func(id, fields string) string {
		return "---\nkind: Mark\nid: " + id + "\n" + strings.ReplaceAll(fields, "; ", "\n") + "\n"
	}
	tests := []struct {
		name, marks string
		want        string // of umbrella's gpt, acme's gpt and acme's llama
	}{
		{"none", "", "- - -"},
		{"a backend's does not concern requests", mark("m", "backend: b; state: disabled"), "- - -"},
		{"a model, for everybody", mark("m", "model: gpt; state: disabled"), "m m -"},
		{"by an alias", mark("m", "model: fast; state: draining"), "m - -"},
		{"an unknown model", mark("m", "model: gtp; state: disabled"), "- - -"},
		{"an organization", mark("m", "organization: acme; state: disabled"), "- m m"},
		{"a model of an organization", mark("m", "model: gpt; organization: acme; state: degraded"), "- m -"},
		{"a model of an organization without a policy of its own", mark("m", "model: gpt; organization: umbrella; state: degraded"), "m - -"},
		{"the strictest", mark("a", "model: gpt; state: degraded") + mark("b", "model: gpt; organization: acme; state: draining") + mark("c", "organization: acme; state: disabled"), "a c c"},
		{"the strictest of one target", mark("a", "model: gpt; state: degraded") + mark("b", "model: gpt; state: disabled") + mark("c", "model: gpt; state: draining"), "b b -"},
		{"the strictest whatever its target", mark("a", "model: gpt; state: disabled") + mark("b", "organization: acme; state: draining"), "a a b"},
		{"what has ended does not hold", mark("a", "model: gpt; state: disabled; until: "+noon) + mark("b", "model: gpt; state: degraded"), "b b -"},
		{"what has ended does not hold for an organization", mark("a", "organization: acme; state: disabled; until: 2026-03-01T11:59:59Z"), "- - -"},
		{"what has not ended holds", mark("a", "model: gpt; state: disabled; until: 2026-03-01T12:00:00.000000001Z"), "a a -"},
		{"a clock that is ahead", mark("a", "model: gpt; state: disabled; since: 2026-03-01T12:00:05Z"), "a a -"},
		{"the longest of equals", mark("a", "model: gpt; state: disabled; until: 2026-03-01T13:00:00Z") + mark("b", "model: gpt; state: disabled; until: 2026-03-01T14:00:00Z"), "b b -"},
		{"one without an end is the longest", mark("a", "model: gpt; state: disabled") + mark("b", "organization: acme; state: disabled; until: 2026-03-01T14:00:00Z"), "a a b"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			table := markedTable(t, test.marks)
			var got []string
			for _, ask := range [][2]string{{"umbrella", "gpt"}, {"acme", "gpt"}, {"acme", "llama"}} {
				route, _ := table.Lookup(ask[0], ask[1], "k")
				m, holds := table.Mark(route, ask[0], now)
				if !holds {
					m.ID = "-"
				}
				got = append(got, m.ID)
			}
			if said := strings.Join(got, " "); said != test.want {
				t.Errorf("got %s, want %s", said, test.want)
			}
			if n := strings.Count(test.marks, "kind: Mark"); len(table.Marks()) != n {
				t.Errorf("%d marks of %d", len(table.Marks()), n)
			}
		})
	}
}

func TestAskingForMarksAllocatesNothing(t *testing.T) {
	now := time.Now()
	for _, marks := range []string{"", "---\nkind: Mark\nmodel: gpt\nstate: degraded\n---\nkind: Mark\norganization: acme\nstate: disabled\n"} {
		table := markedTable(t, marks)
		route, _ := table.Lookup("acme", "gpt", "k")
		if n := testing.AllocsPerRun(100, func() { table.Mark(route, "acme", now) }); n != 0 {
			t.Error(n, "allocations")
		}
	}
}

func TestMarksAndPricesChangeTheRevision(t *testing.T) {
	revisions := map[string]string{}
	for _, marks := range []string{
		"", "---\nkind: Mark\nmodel: gpt\nstate: degraded\n", "---\nkind: Mark\nmodel: gpt\nstate: disabled\n",
		"---\nkind: Mark\nmodel: gpt\nstate: disabled\nuntil: " + noon + "\n",
		"---\nkind: Price\nid: p\nmodel: gpt\nvalid_from: " + noon + "\nusd_per_million: {input: 1, output: 2}\n",
		"---\nkind: Price\nid: p\nmodel: gpt\nvalid_from: " + noon + "\nusd_per_million: {input: 1, output: 2.000001}\n",
	} {
		revision := markedTable(t, marks).Revision()
		if other, same := revisions[revision]; same {
			t.Errorf("%q and %q have one revision", other, marks)
		}
		revisions[revision] = marks
	}
}

func TestCandidatesServeTheirCallers(t *testing.T) {
	table := Compile(Snapshot{Documents: read(t, backends("a", "b", "c", "d")+`---
kind: RoutingPolicy
id: p
model: m
backends:
  - {id: a, tier: 1}
  - {id: b, callers: {allow: [k1, acme]}}
  - {id: c, callers: {deny: [k1, umbrella]}}
  - {id: d, degraded: true, callers: {allow: [acme], deny: [k2]}}
`)}, nil)
	route, _ := table.Lookup("acme", "m", "k")
	if last := route.Candidates[3]; last.Backend != "a" || !route.Candidates[2].Degraded {
		t.Error(route.Candidates)
	}
	for _, test := range []struct{ key, organization, want string }{
		{"k1", "umbrella", "ba"}, {"k1", "acme", "bda"}, {"k2", "acme", "bca"}, {"k3", "umbrella", "a"}, {"k3", "other", "ca"}, {"", "", "ca"},
	} {
		serve := func() (got string) {
			for i := range route.Candidates {
				if route.Candidates[i].Serves(test.key, test.organization) {
					got += route.Candidates[i].Backend
				}
			}
			return got
		}
		if got := serve(); got != test.want {
			t.Errorf("%+v: got %s", test, got)
		}
	}
	if n := testing.AllocsPerRun(100, func() { route.Candidates[2].Serves("k2", "acme") }); n != 0 {
		t.Error(n, "allocations")
	}
	policy, _ := table.Find(KindRoutingPolicy, "p")
	if c := policy.Policy.Backends[1]; c.allow != nil {
		t.Error("the document was changed")
	}
}

func TestExplainTellsAClosedRouteFromNone(t *testing.T) {
	documents, problems := ParseOne("key", KindRoutingPolicy, "p", []byte(`{"model":"m","backends":[{"id":"b"}],"keys":{"deny":["banned"]}}`))
	documents.Revision = 41
	table := Compile(Snapshot{Documents: append(read(t, backends("b")), documents)}, nil)
	if len(problems)+len(table.Problems()) > 0 {
		t.Fatal(problems, said(table))
	}
	for _, test := range []struct {
		model, key string
		there, may bool
	}{{"m", "k", true, true}, {"m", "banned", true, false}, {"n", "k", false, false}} {
		route, allowed := table.Explain("o", test.model, test.key)
		if (route != nil) != test.there || allowed != test.may {
			t.Errorf("%+v: %v %v", test, route, allowed)
		}
		if route != nil && fmt.Sprint(route.Policy, " ", route.Revision, " ", route.Place, " ", route.Legacy) != "p 41 key false" {
			t.Errorf("%+v", route)
		}
	}
}
