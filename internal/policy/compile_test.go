package policy

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// read parses documents that must be good, from one file a text.
func read(t testing.TB, texts ...string) []Document {
	t.Helper()
	var all []Document
	for i, text := range texts {
		documents, problems := Parse(fmt.Sprintf("%c.yaml", 'a'+i), []byte(text))
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		all = append(all, documents...)
	}
	return all
}

func backends(ids ...string) string {
	var b strings.Builder
	for _, id := range ids {
		fmt.Fprintf(&b, "---\nkind: Backend\nid: %s\nurl: http://%s\n", id, id)
	}
	return b.String()
}

func said(t *Table) []string {
	var lines []string
	for _, p := range t.Problems() {
		lines = append(lines, p.String())
	}
	return lines
}

func TestLookupTakesTheNarrowerRule(t *testing.T) {
	table := Compile(Snapshot{Documents: read(t, backends("b", "c")+`---
kind: RoutingPolicy
id: everyone
model: gpt
aliases: [gpt-latest, fast]
backends: [{id: b, tier: 2}, {id: c, weight: 5, tier: 1}]
keys: {deny: [banned]}
---
kind: RoutingPolicy
id: acme
organization: acme
model: gpt
backends: [{id: c}]
keys: {allow: [k1]}
---
kind: RoutingPolicy
id: acme-fast
organization: acme
model: quick
aliases: [fast]
backends: [{id: c}]
---
kind: RoutingPolicy
id: zeta
model: zeta/1.5:b@x+y
backends: [{id: b}]
`)}, nil)
	if problems := table.Problems(); len(problems) > 0 {
		t.Fatal(problems)
	}
	for _, test := range []struct{ organization, model, key, policy string }{
		{"other", "gpt", "k", "everyone"},
		{"other", "gpt-latest", "k", "everyone"},
		{"other", "fast", "k", "everyone"},
		{"other", "GPT", "k", ""},
		{"other", "quick", "k", ""},
		{"other", "gpt", "banned", ""},
		{"other", "fast", "banned", ""},
		{"", "gpt", "", "everyone"},
		{"acme", "gpt", "k1", "acme"},
		{"acme", "gpt", "k9", ""}, // Not on the narrower rule's list: the wider rule does not take over.
		{"acme", "gpt-latest", "k9", "everyone"},
		{"acme", "fast", "k9", "acme-fast"},
		{"acme", "zeta/1.5:b@x+y", "k9", "zeta"},
		{"acme", "", "k1", ""},
	} {
		route, ok := table.Lookup(test.organization, test.model, test.key)
		if ok != (test.policy != "") || ok && route.Policy != test.policy {
			t.Errorf("%+v: got %+v", test, route)
		}
	}
	for _, test := range []struct {
		organization, key string
		want              []string
	}{
		{"other", "k", []string{"gpt", "zeta/1.5:b@x+y"}},
		{"other", "banned", []string{"zeta/1.5:b@x+y"}},
		{"acme", "k1", []string{"gpt", "quick", "zeta/1.5:b@x+y"}},
		{"acme", "k9", []string{"quick", "zeta/1.5:b@x+y"}},
		{"", "", []string{"gpt", "zeta/1.5:b@x+y"}},
	} {
		got := table.Models(test.organization, test.key)
		if !slices.Equal(got, test.want) {
			t.Errorf("%s %s: %v, want %v", test.organization, test.key, got, test.want)
		}
		for _, model := range got {
			if route, ok := table.Lookup(test.organization, model, test.key); !ok || route.Model != model {
				t.Errorf("%s is listed and not found", model)
			}
		}
	}
	route, _ := table.Lookup("other", "gpt", "k")
	if want := []Candidate{{Backend: "c", Weight: 5, Tier: 1}, {Backend: "b", Weight: 100, Tier: 2}}; !cmp.Equal(route.Candidates, want, sameDocuments) {
		t.Error("candidates", route.Candidates)
	}
	if got := table.Backends(); len(got) != 2 || got[0].ID != "b" || got[1].ID != "c" {
		t.Error(got)
	}
}

func TestCompileRefusesWhatDoesNotFitTogether(t *testing.T) {
	pol := func(id, organization, model, rest string) string {
		return fmt.Sprintf("---\nkind: RoutingPolicy\nid: %s\norganization: %q\nmodel: %s\n%s\n", id, organization, model, rest)
	}
	tests := []struct {
		name  string
		files []string
		want  []string
	}{
		{"an id twice", []string{backends("b"), backends("b")}, []string{
			`b.yaml:2: Backend b: this id is already used by the Backend at a.yaml:2 (a good version keeps serving)`,
		}},
		{"the same id of two kinds is fine", []string{backends("x"), pol("x", "*", "m", "backends: [{id: x}]")}, nil},
		{"unknown backend", []string{backends("vllm-a", "b"), pol("p", "*", "m", "backends: [{id: vlm-a}, {id: zzzzz}, {id: b}]")}, []string{
			`b.yaml:2: RoutingPolicy p: backend "vlm-a" does not exist; did you mean vllm-a?`,
			`b.yaml:2: RoutingPolicy p: backend "zzzzz" does not exist`,
		}},
		{"a model twice", []string{backends("b"), pol("p", "*", "m", "backends: [{id: b}]"), pol("q", "*", "m", "backends: [{id: b}]")}, []string{
			`c.yaml:2: RoutingPolicy q: model "m" of organization "*" is already routed by policy p at b.yaml:2`,
		}},
		{"an alias of another's model", []string{backends("b"), pol("p", "*", "m", "backends: [{id: b}]"), pol("q", "*", "n", "aliases: [k, m]\nbackends: [{id: b}]")}, []string{
			`c.yaml:2: RoutingPolicy q: model "m" of organization "*" is already routed by policy p at b.yaml:2`,
		}},
		{"a model of another organization", []string{backends("b"), pol("p", "*", "m", "backends: [{id: b}]"), pol("q", "o", "m", "backends: [{id: b}]")}, nil},
		{"fallback without a policy", []string{backends("b"), pol("p", "*", "m", "fallback_models: [n, o]\nbackends: [{id: b}]"), pol("q", "*", "n", "backends: [{id: b}]")}, []string{
			`b.yaml:2: RoutingPolicy p: fallback model "o" has no routing policy: it is passed over (a good version keeps serving)`,
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, said(Compile(Snapshot{Documents: read(t, test.files...)}, nil))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestCompileChecksDocumentsThatNoParserHasSeen(t *testing.T) {
	bad, good, odd := NewBackend("b", "h:80"), NewBackend("c", "http://C/v1/"), NewBackend("not an id", "http://h")
	table := Compile(Snapshot{Documents: []Document{{Backend: &bad}, {Backend: &good}, {Backend: &odd}, {}}}, nil)
	if got := table.Backends(); len(got) != 1 || got[0].URL != "http://c" || good.URL != "http://C/v1/" {
		t.Error(got, good.URL)
	}
	want := []string{
		`a document is one backend, one routing policy, one price or one mark`,
		`Backend: id must be 1 to 128 of the characters A-Z a-z 0-9 . _ -`,
		`Backend b: url must begin with http:// or https://`,
	}
	if diff := cmp.Diff(want, said(table)); diff != "" {
		t.Error(diff)
	}
}

func TestCompileKeepsTheLastGoodVersion(t *testing.T) {
	const policyP = "---\nkind: RoutingPolicy\nid: p\nmodel: m\nbackends: [{id: b}, {id: c}]\n"
	last := Compile(Snapshot{Documents: read(t, backends("b")+policyP, backends("c"))}, nil).documents
	compile := func(files ...string) *Table {
		var now Snapshot
		for i, text := range files {
			documents, problems := Parse(fmt.Sprintf("%c.yaml", 'a'+i), []byte(text))
			now.Documents, now.Problems = append(now.Documents, documents...), append(now.Problems, problems...)
		}
		return Compile(now, last)
	}
	tests := []struct {
		name     string
		files    []string
		backends string
		policy   string // its candidates
		problems int
	}{
		{"nothing changed", []string{backends("b") + policyP, backends("c")}, "b c", "b c", 0},
		{"deleted documents go", []string{"", ""}, "", "", 0},
		{"a bad document with its id keeps its last version", []string{backends("b") + policyP + "extra: 1\n", backends("c")}, "b c", "b c", 1},
		{"also a bad kind", []string{backends("b") + strings.Replace(policyP, "RoutingPolicy", "RoutingPolicies", 1), backends("c")}, "b c", "b c", 1},
		{"a bad document does not keep others", []string{policyP, "---\nkind: Backend\nid: c\nurl: x\n"}, "c", "c", 2},
		{"a syntax error keeps what the file had", []string{"kind: [\n---\n" + policyP, backends("c")}, "b c", "b c", 1},
		{"a syntax error does not keep another file's", []string{backends("b") + policyP, "kind: ["}, "b c", "b c", 1},
		{"a deleted backend leaves the last version of a policy", []string{backends("b") + policyP, ""}, "b", "b", 1},
		{"a policy with no backend left goes", []string{policyP, ""}, "", "", 2},
		{"a changed policy with an unknown backend", []string{backends("b") + strings.Replace(policyP, "id: c", "id: d", 1), backends("c")}, "b c", "b c", 1},
		{"a document that moved is not also kept", []string{"kind: [\n", backends("c", "b") + strings.Replace(policyP, ", {id: c}", "", 1)}, "b c", "b", 1},
		{"a good policy takes the model of a kept one", []string{backends("b") + "---\nkind: [\n---\nkind: RoutingPolicy\nid: q\nmodel: m\nbackends: [{id: b}]\n", backends("c")}, "b c", "b", 1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			table := compile(test.files...)
			var ids []string
			for _, b := range table.Backends() {
				ids = append(ids, b.ID)
			}
			if got := strings.Join(ids, " "); got != test.backends {
				t.Errorf("backends %q, want %q", got, test.backends)
			}
			var candidates []string
			if route, ok := table.Lookup("o", "m", "k"); ok {
				for _, c := range route.Candidates {
					candidates = append(candidates, c.Backend)
				}
			}
			if got := strings.Join(candidates, " "); got != test.policy {
				t.Errorf("candidates %q, want %q", got, test.policy)
			}
			if len(table.Problems()) != test.problems {
				t.Errorf("problems %q", said(table))
			}
			if again := Compile(Snapshot{Problems: []Problem{{Message: "away"}}}, table.documents); again.Revision() != table.Revision() {
				t.Error("a source that is away changes the table")
			}
		})
	}
}

func TestProblemsTellWhetherAGoodVersionServes(t *testing.T) {
	last := Compile(Snapshot{Documents: read(t, backends("b", "c"))}, nil).documents
	documents, problems := Parse("a.yaml", []byte("kind: Backend\nid: b\nurl: x\n---\nkind: Backend\nid: new\nurl: x\n"))
	got := said(Compile(Snapshot{Documents: documents, Problems: problems}, last))
	want := []string{
		"a.yaml:3:6: Backend b: url must begin with http:// or https:// (a good version keeps serving)",
		"a.yaml:7:6: Backend new: url must begin with http:// or https://",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestRoutesCarryTheClamps(t *testing.T) {
	table := Compile(Snapshot{Documents: read(t, backends("b")+"---\nkind: RoutingPolicy\nid: p\nmodel: m\naliases: [a]\nbackends: [{id: b}]\n"+
		"clamps: {n: 2, max_tokens: 100}\nfields: {chat_template: allow}\n")}, nil)
	for _, name := range []string{"m", "a"} {
		route, found := table.Lookup("o", name, "k")
		if !found || route.Clamps != (Clamps{N: 2, MaxTokens: 100}) || route.Fields != (Fields{Allow, Allow, Refuse}) {
			t.Errorf("%s: %+v", name, route)
		}
	}
}

func TestRevisionIsTheSameInAnyOrder(t *testing.T) {
	documents := manyPolicies(t, 50)
	one := Compile(Snapshot{Documents: documents}, nil)
	for range 5 {
		shuffled := slices.Clone(documents)
		rand.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		for i := range shuffled {
			shuffled[i].File, shuffled[i].Line = "elsewhere", i
		}
		if two := Compile(Snapshot{Documents: shuffled}, nil); one.Revision() != two.Revision() {
			t.Fatal(one.Revision(), two.Revision())
		}
	}
	changed := slices.Clone(documents)
	b := *changed[0].Backend
	b.MaxConcurrency++
	changed[0] = Document{Backend: &b}
	if two := Compile(Snapshot{Documents: changed}, nil); one.Revision() == two.Revision() {
		t.Error("a change of content leaves the revision as it was")
	}
}

// policiesText is n policies, half of them for organizations, over n/10 backends.
func policiesText(n int) string {
	var b strings.Builder
	for i := range max(n/10, 1) {
		b.WriteString(backends(fmt.Sprintf("backend-%d", i)))
	}
	for i := range n {
		organization := "*"
		if i%2 == 1 {
			organization = fmt.Sprintf("org-%d", i%100)
		}
		fmt.Fprintf(&b, "---\nkind: RoutingPolicy\nid: policy-%d\norganization: %q\nmodel: model-%d\naliases: [alias-%d]\n"+
			"backends: [{id: backend-%d, weight: 3}, {id: backend-%d, tier: 1}]\nstrategy: weighted\nretry: {attempts: 3, backoff: 50ms}\n",
			i, organization, i, i, i%max(n/10, 1), (i+1)%max(n/10, 2))
	}
	return b.String()
}

func manyPolicies(t testing.TB, n int) []Document { return read(t, policiesText(n)) }

// spent is the processors' time that this process has taken: that of others on a busy machine is not in it.
func spent(t *testing.T) time.Duration {
	t.Helper()
	var usage syscall.Rusage
	must(t, syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func TestTenThousandPolicies(t *testing.T) {
	const most = 40 * time.Second // Ten times what the race detector makes of it.
	text := policiesText(10_000)
	began := spent(t)
	documents, problems := Parse("a.yaml", []byte(text))
	parsed := spent(t)
	table := Compile(Snapshot{Documents: documents, Problems: problems}, nil)
	compiled := spent(t)
	t.Logf("10,000 policies, %d KiB: parsed in %v, compiled in %v", len(text)>>10, parsed-began, compiled-parsed)
	if len(table.Problems()) > 0 || table.Routes() != 10_000 || len(table.Backends()) != 1000 {
		t.Fatal(table.Routes(), len(table.Backends()), said(table)[:1])
	}
	if took := compiled - began; took > most {
		t.Error("took", took)
	}
	// All of them wrong: the work stays bounded.
	for i := range documents {
		if p := documents[i].Policy; p != nil {
			p.Backends[0].Backend = fmt.Sprintf("bakend-%d", i)
		}
	}
	began = spent(t)
	if table := Compile(Snapshot{Documents: documents}, nil); len(table.Problems()) != 10_000 || spent(t)-began > most {
		t.Error(len(table.Problems()), spent(t)-began)
	}
}

func TestLookupAllocatesNothing(t *testing.T) {
	table := Compile(Snapshot{Documents: manyPolicies(t, 1000)}, nil)
	if n := testing.AllocsPerRun(100, func() {
		table.Lookup("org-1", "alias-1", "key")
		table.Lookup("org-1", "model-2", "key")
		table.Lookup("org-1", "unknown", "key")
	}); n != 0 {
		t.Error(n, "allocations")
	}
}

func TestProblemAsJSON(t *testing.T) {
	content, err := json.Marshal(Problem{Kind: KindBackend, ID: "b", File: "f", Line: 1, Column: 2, Message: "m"})
	if want := `{"kind":"Backend","id":"b","file":"f","line":1,"column":2,"message":"m","serving":false}`; err != nil || string(content) != want {
		t.Errorf("%s %v", content, err)
	}
}
