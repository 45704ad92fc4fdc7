package sourcetest

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/ai-aas/api-router/internal/policy"
)

// largest is the size of the largest document, in bytes.
const largest = 256 << 10

// problem finds the problem that names this document.
func problem(s policy.Snapshot, id string) (policy.Problem, bool) {
	for _, p := range s.Problems {
		if p.ID == id {
			return p, true
		}
	}
	return policy.Problem{}, false
}

func badDocuments(t *testing.T, p Place) {
	f := follow(t, p.Source)
	good := map[string]int{}
	for i := range 10 {
		id := fmt.Sprintf("b%d", i)
		good[id] = 1
		p.put(t, policy.KindBackend, id, backend(id, 1))
	}
	for _, test := range []struct {
		name    string
		kind    policy.Kind
		id      string
		content string
		line    int
		keyed   bool // only a key shows that it is wrong
	}{
		{"a field too many", policy.KindBackend, "red", string(flawed("red")), 2, false},
		{"a wrong value", policy.KindBackend, "weight", "{\"kind\":\"Backend\",\n\"id\":\"weight\",\n\"url\":\"http://h\",\n\"max_concurrency\":-1}", 4, false},
		{"a wrong type", policy.KindRoutingPolicy, "typed", "{\"kind\":\"RoutingPolicy\",\n\"id\":\"typed\",\n\"model\":\"m\",\n\"backends\":7}", 4, false},
		{"nothing but its name", policy.KindRoutingPolicy, "bare", "{\n\"kind\":\"RoutingPolicy\",\n\"id\":\"bare\"}", 0, false},
		{"another kind than its key", policy.KindBackend, "other", string(route("other", "m", "b0")), 0, true},
		{"another id than its key", policy.KindBackend, "mine", string(backend("yours", 1)), 0, true},
		{"a list", policy.KindBackend, "list", "[1,2]", 0, true},
	} {
		if test.keyed && p.Keyless {
			continue
		}
		t.Run(test.name, func(t *testing.T) {
			p.putRaw(t, test.kind, test.id, json.RawMessage(test.content))
			var found policy.Problem
			s := f.until(t, "the problem", func(s policy.Snapshot) bool {
				var ok bool
				found, ok = problem(s, test.id)
				return ok
			})
			if found.File == "" || found.Message == "" || found.Kind != test.kind || found.Line < test.line || test.line > 0 && found.Line != test.line {
				t.Errorf("the problem is %+v; want kind %s, a place, line %d and a message", found, test.kind, test.line)
			}
			stored := readOne(t, p.Book, test.kind, test.id)
			if stored.Place != found.File && !p.Keyless || !json.Valid(stored.Content) {
				t.Errorf("the book has it at %q as %s; the problem is at %q", stored.Place, stored.Content, found.File)
			}
			if !maps.Equal(backends(s), good) {
				t.Errorf("with it, %s", summary(s))
			}
			good["b0"]++
			p.put(t, policy.KindBackend, "b0", backend("b0", good["b0"]))
			f.until(t, "a change beside it", func(s policy.Snapshot) bool { return maps.Equal(backends(s), good) })
			p.putRaw(t, test.kind, test.id, nil)
			f.holds(t, "its end", good)
		})
	}
}

func fixedDocument(t *testing.T, p Place) {
	f := follow(t, p.Source)
	p.put(t, policy.KindBackend, "a", backend("a", 1))
	p.put(t, policy.KindBackend, "b", backend("b", 1))
	good := policy.Compile(f.holds(t, "two good ones", map[string]int{"a": 1, "b": 1}), nil)

	p.putRaw(t, policy.KindBackend, "a", flawed("a"))
	bad := f.until(t, "the bad version", func(s policy.Snapshot) bool { return len(s.Problems) > 0 })
	held := policy.Compile(bad, []policy.Document{{Backend: &good.Backends()[0], File: bad.Problems[0].File}})
	if n := len(held.Backends()); n != 2 {
		t.Errorf("%d backends are in force, want the good version of the bad one as well", n)
	}
	for _, found := range held.Problems() {
		if !found.Serving {
			t.Errorf("%s: should say that a good version keeps serving", found)
		}
	}
	p.putRaw(t, policy.KindBackend, "a", backend("a", 2))
	f.holds(t, "the fixed version", map[string]int{"a": 2, "b": 1})
}

func garbage(t *testing.T, p Place) {
	f := follow(t, p.Source)
	p.put(t, policy.KindBackend, "a", backend("a", 1))
	for _, text := range []string{"not: [json", "", "{", "\xff\xfe", "null", "\"text\"", strings.Repeat("[", 5000), strings.Repeat("x", largest+1)} {
		p.Put(t, policy.KindBackend, "bad", []byte(text))
		if p.Keyless { // A file without a document is no problem, and one that cannot be read names none.
			f.until(t, "the good one beside it", func(s policy.Snapshot) bool { return maps.Equal(backends(s), map[string]int{"a": 1}) })
			continue
		}
		s := f.until(t, "the problem", func(s policy.Snapshot) bool { _, ok := problem(s, "bad"); return ok })
		if !maps.Equal(backends(s), map[string]int{"a": 1}) {
			t.Errorf("with %.20q, %s", text, summary(s))
		}
		if stored := readOne(t, p.Book, policy.KindBackend, "bad"); !json.Valid(stored.Content) {
			t.Errorf("the book gives %.20q, which is no JSON, as it is: it must be a JSON string", stored.Content)
		}
		p.Put(t, policy.KindBackend, "bad", nil)
		f.holds(t, "its end", map[string]int{"a": 1})
	}
	p.Put(t, policy.KindBackend, "bad", backend("bad", 1))
	f.holds(t, "good text in its place", map[string]int{"a": 1, "bad": 1})
}

func oneID(t *testing.T, p Place) {
	f := follow(t, p.Source)
	p.put(t, policy.KindBackend, "a", backend("a", 1))
	p.putRaw(t, policy.KindBackend, "b", backend("a", 2))
	var table *policy.Table
	f.until(t, "one backend and one problem", func(s policy.Snapshot) bool {
		table = policy.Compile(s, nil)
		return len(table.Backends()) == 1 && len(table.Problems()) == 1
	})
	if b := table.Backends()[0]; b.ID != "a" || b.MaxConcurrency != 1 {
		t.Errorf("in force is %s with version %d, want the first", b.ID, b.MaxConcurrency)
	}
	p.putRaw(t, policy.KindBackend, "b", backend("b", 2))
	f.holds(t, "an id of its own", map[string]int{"a": 1, "b": 2})
}

func leftToTheKey(t *testing.T, p Place) {
	p.putRaw(t, policy.KindBackend, "a", json.RawMessage(`{"url":"http://127.0.0.1:8000","max_concurrency":4}`))
	p.putRaw(t, policy.KindRoutingPolicy, "global-m", json.RawMessage(`{"model":"m","backends":[{"id":"a"}]}`))
	s := follow(t, p.Source).until(t, "both", func(s policy.Snapshot) bool { return len(s.Documents) == 2 })
	table := policy.Compile(s, nil)
	if found, ok := table.Lookup("anyone", "m", "key"); !ok || found.Policy != "global-m" || len(table.Problems()) > 0 {
		t.Errorf("no such route in %s", summary(s))
	}
}

func legacyPolicies(t *testing.T, p Place) {
	p.put(t, policy.KindBackend, "vllm", backend("vllm", 1))
	p.putRaw(t, policy.KindRoutingPolicy, "global-camel", json.RawMessage(
		`{"PolicyID":"global-camel","OrganizationID":"*","Model":"camel","Backends":[{"BackendID":"vllm","Weight":100}],`+
			`"FailoverThreshold":3,"UpdatedAt":"2025-01-01T00:00:00Z","Version":7}`))
	p.putRaw(t, policy.KindRoutingPolicy, "global-snake", json.RawMessage(
		`{"policy_id":"global-snake","organization_id":"*","model":"snake","backends":[{"backend_id":"vllm","weight":100}],`+
			`"failover_threshold":3,"updated_at":"2025-01-01T00:00:00Z","version":7}`))
	s := follow(t, p.Source).until(t, "three documents", func(s policy.Snapshot) bool { return len(s.Documents) == 3 && len(s.Problems) == 0 })
	table := policy.Compile(s, nil)
	for _, spelling := range []string{"camel", "snake"} {
		if found, ok := table.Lookup("anyone", spelling, "key"); !ok || found.Candidates[0].Backend != "vllm" {
			t.Errorf("no route for %s in %s", spelling, summary(s))
		}
		if stored := readOne(t, p.Book, policy.KindRoutingPolicy, "global-"+spelling); !stored.Legacy {
			t.Errorf("%s: the book does not mark it", spelling)
		}
	}
	for _, d := range s.Documents {
		if d.Legacy != (d.Policy != nil) {
			t.Errorf("%s %s: legacy is %t", d.Kind(), d.ID(), d.Legacy)
		}
	}
}

func largeDocument(t *testing.T, p Place) {
	f := follow(t, p.Source)
	for version := 1; version <= 2; version++ {
		content := padded(backend("large", version), largest)
		p.put(t, policy.KindBackend, "large", content)
		f.holds(t, "the large one", map[string]int{"large": version})
		if stored := readOne(t, p.Book, policy.KindBackend, "large"); !sameJSON(stored.Content, content) {
			t.Error("the book gives another content back")
		}
	}
}

// padded fills a JSON object up to size bytes with models.
func padded(object json.RawMessage, size int) json.RawMessage {
	var b strings.Builder
	b.WriteString(strings.TrimSuffix(string(object), "}") + `,"models":{"public":"own"`)
	for i := 0; ; i++ {
		field := fmt.Sprintf(`,"public-%06d":"%s"`, i, strings.Repeat("m", 200))
		if b.Len()+len(field)+2 > size {
			break
		}
		b.WriteString(field)
	}
	b.WriteString(strings.Repeat(" ", size-b.Len()-2) + "}}")
	return json.RawMessage(b.String())
}
