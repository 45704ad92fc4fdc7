package policy

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseOneTakesKindAndIDFromTheKey(t *testing.T) {
	const place = "/api-router/backends/b"
	want := NewBackend("b", "http://h")
	for _, text := range []string{
		`{"url":"http://h"}`,
		`{"id":"b","url":"http://h"}`,
		`{"kind":"Backend","url":"http://h"}`,
		`{"kind":"Backend","id":"b","url":"http://h"}`,
		`{"id":null,"url":"http://h"}`,
		"url: http://h",
		"# comment\n---\nurl: http://h\n...\n",
		"\uFEFF{\n\t\"url\"\t:\t\"http:\\/\\/h\"\n}\n",
	} {
		d, problems := ParseOne(place, KindBackend, "b", []byte(text))
		if len(problems) > 0 {
			t.Errorf("%s: %v", text, problems)
			continue
		}
		if diff := cmp.Diff(Document{Backend: &want, File: place}, d, sameDocuments); diff != "" {
			t.Errorf("%s: %s", text, diff)
		}
	}
	d, problems := ParseOne(place, "", "", []byte(`{"kind":"Backend","id":"c","url":"http://h"}`))
	if len(problems) > 0 || d.ID() != "c" {
		t.Error(d, problems)
	}
}

func TestParseOneNamesEveryProblemWithItsPlace(t *testing.T) {
	tests := []struct {
		name, id, text string
		want           []string
	}{
		{"another kind", "b", `{"kind":"RoutingPolicy","id":"b"}`, []string{`k:1:9: Backend b: kind must be Backend here, as the key says, or be left out`}},
		{"a kind that is no text", "b", `{"kind":7,"url":"http://h"}`, []string{`k:1:9: Backend b: kind must be Backend here, as the key says, or be left out`}},
		{"another id", "b", "{\n  \"id\": \"c\",\n  \"url\": \"http://h\"\n}", []string{`k:2:9: Backend b: id must be "b" here, as the key says, or be left out`}},
		{"both", "b", `{"kind":"Mark","id":"c"}`, []string{
			`k:1:9: Backend b: kind must be Backend here, as the key says, or be left out`,
			`k:1:21: Backend b: id must be "b" here, as the key says, or be left out`,
		}},
		{"a key that is no id", "a/b", `{"url":"http://h"}`, []string{`k:1:1: Backend: the document's key must end in its id, which must be 1 to 128 of the characters A-Z a-z 0-9 . _ -`}},
		{"nothing", "b", "", []string{`k: Backend b: the document is empty`}},
		{"only a comment", "b", "# later\n", []string{`k: Backend b: the document is empty`}},
		{"null", "b", "null", []string{`k:1:1: Backend b: a document is a list of fields`}},
		{"a list", "b", "[1]", []string{`k:1:1: Backend b: a document is a list of fields`}},
		{"text", "b", "hello", []string{`k:1:1: Backend b: a document is a list of fields`}},
		{"two", "b", "url: http://h\n---\nurl: http://i\n", []string{`k:2: Backend b: there is a second document: a key holds one`}},
		{"cut off", "b", `{"url":"http://h"`, []string{`k:1:1: Backend b: not valid YAML: could not find flow mapping end token '}'`}},
		{"not text", "b", "{\"url\":\"\xff\"}", []string{`k:1: Backend b: the document is not UTF-8 text`}},
		{"too large", "b", `{"url":"` + strings.Repeat("x", maxDocument) + `"}`, []string{`k:1: Backend b: the document is larger than 256 KiB`}},
		{"far too large", "b", strings.Repeat("#", MaxFile+1), []string{`k: Backend b: the file is larger than 16 MiB`}},
		{"tabs count as one column", "b", "{\n\t\"url\": \"http://h\",\n\t\t\"colour\":\t\"red\"\n}", []string{`k:3:3: Backend b: unknown field "colour"`}},
		{"all of them", "b", `{"url":"ftp://h","engine":"vlm","max_concurrency":"4"}`, []string{
			`k:1:8: Backend b: url must begin with http:// or https://`,
			`k:1:27: Backend b: engine must be one of vllm, sglang, tgi, llamacpp, ollama, openai, anthropic; did you mean vllm?`,
			`k:1:51: Backend b: max_concurrency must be a whole decimal number`,
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			d, problems := ParseOne("k", KindBackend, test.id, []byte(test.text))
			if d.content() != nil {
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

func TestCallersAreChecked(t *testing.T) {
	checkProblems(t, []problemCase{
		{"callers", "kind: RoutingPolicy\nid: p\nmodel: m\nbackends:\n- {id: a, degraded: yes}\n- {id: b, callers: {allow: ['*', a b, k], deny: ['*', k], only: x}}\n", []string{
			`f:5:21: RoutingPolicy p: backends[0].degraded must be true or false`,
			`f:6:29: RoutingPolicy p: backends[1].callers.allow must list callers: leave it out to serve all of them`,
			`f:6:34: RoutingPolicy p: backends[1].callers.allow[1] must be the id of a key or an organization: 1 to 128 visible ASCII characters`,
			`f:6:50: RoutingPolicy p: backends[1].callers.deny must list callers: to serve none of them, leave the backend out`,
			`f:6:50: RoutingPolicy p: caller "*" is both allowed and denied`,
			`f:6:55: RoutingPolicy p: caller "k" is both allowed and denied`,
			`f:6:59: RoutingPolicy p: unknown field "only" in backends[1].callers`,
		}},
	})
}

func FuzzParseOne(f *testing.F) {
	keys := []string{"p", "", "*/m", "acme/a/b", "a b", "/", "*/", "/m", "x/y:z"}
	for _, name := range []string{"camel.json", "snake.json", "mixed.json", "lists.json", "degraded.json", "bare.json", "camel.yaml", "everyone.json", "slashed.json", "lower-camel.json"} {
		f.Add(byte(0), byte(2), fixture(f, name))
	}
	for kind, text := range []string{
		`{"url":"http://h"}`, policyWith("backends: [{id: b, callers: {allow: [k]}}]"),
		"model: m\nvalid_from: 2026-01-01T00:00:00Z\nusd_per_million: {input: 0.10, output: \"0.4\"}", "model: m\nstate: disabled\nuntil: 2026-01-01T00:00:00Z\nreason: x",
	} {
		f.Add(byte(kind), byte(0), []byte(text))
		f.Add(byte(kind), byte(1), []byte(text))
	}
	f.Add(byte(1), byte(0), []byte(`{"PolicyID":{},"Backends":[[],{"BackendID":[]}],"backends":null}`))
	f.Fuzz(func(t *testing.T, kind, at byte, data []byte) {
		k, id := append(Kinds(), "")[int(kind)%5], keys[int(at)%len(keys)]
		d, problems := ParseOne("place", k, id, data)
		for _, p := range problems {
			if p.File != "place" || p.Message == "" || p.Line < 0 || k != "" && p.Kind != k || idForm.MatchString(id) && p.ID != id {
				t.Errorf("problem %+v", p)
			}
		}
		if len(problems) > 0 {
			return
		}
		if k != "" && d.Kind() != k || idForm.MatchString(id) && d.ID() != id || !idForm.MatchString(d.ID()) || !d.checked {
			t.Errorf("%s at %s/%s: %+v", data, k, id, d)
		}
		roundTrip(t, d)
	})
}
