package policy

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestJSONLeavesOutWhatHasItsDefault(t *testing.T) {
	backend, routing := NewBackend("b", "http://h"), NewRoutingPolicy("p", "m", "b", "c")
	tests := []struct {
		name string
		d    Document
		want string
	}{
		{"a backend", Document{Backend: &backend}, `{"kind":"Backend","id":"b","url":"http://h"}`},
		{"a policy", Document{Policy: &routing}, `{"kind":"RoutingPolicy","id":"p","model":"m","backends":[{"id":"b"},{"id":"c"}]}`},
		{"parts of parts", read(t, backendWith("timeouts: {total: 1h, connect: 2s}\napi_key: env:X\nlabels: {a: b}"))[0], `{"kind":"Backend","id":"b","url":"http://h:1","api_key":"env:X","timeouts":{"total":"1h0m0s"},"labels":{"a":"b"}}`},
		{"zeros that are no defaults", read(t, "kind: RoutingPolicy\nid: p\nmodel: m\nbackends: [{id: b, weight: 0}, {id: c, tier: 0}]\nretry: {backoff: 0s}\nclamps: {n: 0}\n")[0], `{"kind":"RoutingPolicy","id":"p","model":"m","backends":[{"id":"b","weight":0},{"id":"c"}],"retry":{"backoff":"0s"}}`},
		{"the example of every field", read(t, everyField)[0], `{"kind":"Backend","id":"vllm-gpt-oss-20b","url":"https://vllm.system.svc.cluster.local:8000","engine":"sglang","models":{"gpt-oss-20b":"unsloth/gpt-oss-20b"},` +
			`"api_key":"env:VLLM_API_KEY","max_concurrency":64,"timeouts":{"connect":"1s","first_byte":"1m30s","between_bytes":"30s","total":"1h0m0s"},"labels":{"region":"eu-central"},` +
			`"tls":{"ca":"/etc/ca.pem","cert":"/etc/tls.crt","key":"/etc/tls.key","server_name":"vllm.internal"}}`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			content, err := JSON(test.d)
			if err != nil || string(content) != test.want {
				t.Errorf("got  %s\nwant %s; %v", content, test.want, err)
			}
			roundTrip(t, test.d)
		})
	}
	if _, err := JSON(Document{}); err == nil {
		t.Error("no document is written")
	}
}

func TestToJSONKeepsWhatWasWritten(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"JSON, its spaces aside", "{ \"a\" : 1.10, \"b\": [ ],\n\t\"big\": 123456789012345678901234567890.10, \"e\": 1E+2 , \"a\\/\": \"\\u00e9\"}", `{"a":1.10,"b":[],"big":123456789012345678901234567890.10,"e":1E+2,"a\/":"\u00e9"}`},
		{"the order of the fields", "b: 1\na: 2\n", `{"b":1,"a":2}`},
		{"numbers digit for digit", "a: 0.10\nb: 1.000000000000000000000000000001\nc: -1.5e+3\nd: 0\n", `{"a":0.10,"b":1.000000000000000000000000000001,"c":-1.5e+3,"d":0}`},
		{"numbers that JSON does not have", "a: 0x10\nb: 010\nc: 1_000\nd: .5\ne: .inf\nf: +1\n", `{"a":"0x10","b":"010","c":"1_000","d":".5","e":".inf","f":"+1"}`},
		{"text", "a: yes\nb: '1'\nc: \"x\\ty\"\nd: |\n  two\n  lines\ne: 2026-01-01T00:00:00Z\n", `{"a":"yes","b":"1","c":"x\ty","d":"two\nlines\n","e":"2026-01-01T00:00:00Z"}`},
		{"nothing and truth", "a: ~\nb:\nc: true\nd: False\n", `{"a":null,"b":null,"c":true,"d":false}`},
		{"nesting", "a:\n- b: [1, {c: d}]\n- {}\n", `{"a":[{"b":[1,{"c":"d"}]},{}]}`},
		{"unknown fields and wrong values", "kind: Backend\nid: b\nulr: http://h\nmax_concurrency: many\n", `{"kind":"Backend","id":"b","ulr":"http://h","max_concurrency":"many"}`},
		{"comments and markers", "# a\n---\na: 1 # b\n...\n# c\n", `{"a":1}`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := ToJSON([]byte(test.text))
			if err != nil || string(got) != test.want || !json.Valid(got) {
				t.Errorf("got  %s\nwant %s; %v", got, test.want, err)
			}
		})
	}
	for text, want := range map[string]string{
		"":                        "the document is empty",
		"a: 1\n---\nb: 1\n":       "line 2: there is a second document",
		"a: 1\na: 2\n":            `line 2, column 1: "a" is written twice`,
		"x: y\n1: a\n":            "line 2, column 1: a field's name must be text: put it in quotes",
		"a: \xff":                 "the document is not UTF-8 text",
		"a: [":                    "line 1, column",
		"a: &x 1\n":               "line 1, column 4: anchors",
		strings.Repeat("#", 3e5):  "larger than 256 KiB",
		"---\na:\n  b: !secret x": "line 3, column 6: tags",
	} {
		if got, err := ToJSON([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: got %s, %v; want %s", text, got, err, want)
		}
	}
}

func TestParseWrittenKeepsWhatWasWritten(t *testing.T) {
	const text = `# Two good ones around a bad one.
kind: Backend
id: b
url: http://H/v1
---
kind: Backend
id: c
url: x
--- {kind: Mark, model: m, state: disabled}
---
PolicyID: p
Model: m
Backends: [{BackendID: b}]
`
	written, problems := ParseWritten("f", []byte(text))
	type row struct {
		Kind    Kind
		ID      string
		Line    int
		Legacy  bool
		Content string
	}
	var got []row
	for _, w := range written {
		got = append(got, row{w.Kind(), w.ID(), w.Line, w.Legacy, string(w.Content)})
	}
	want := []row{
		{KindBackend, "b", 2, false, `{"kind":"Backend","id":"b","url":"http://H/v1"}`},
		{KindMark, "model.m", 9, false, `{"kind":"Mark","model":"m","state":"disabled"}`},
		{KindRoutingPolicy, "p", 11, true, `{"PolicyID":"p","Model":"m","Backends":[{"BackendID":"b"}]}`},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if len(problems) != 1 || problems[0].String() != "f:8:6: Backend c: url must begin with http:// or https://" {
		t.Error(problems)
	}
}

// What ToJSON gives says the same as the text did.
func FuzzToJSON(f *testing.F) {
	for _, seed := range []string{
		everyField[strings.Index(everyField, "---")+4:], backendWith("labels: {a: b}"), policyWith("keys: {allow: [a, b]}"), "a: 0.10\n", "{\"a\":\t1e5}", "a: |\n  x\n", "- 1\n- [2]\n",
		"kind: Price\nid: p\nmodel: m\nvalid_from: 2026-01-01T00:00:00Z\nusd_per_million: {input: 0.10, output: 010}", "kind: Mark\nmodel: 1e3\nstate: disabled\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		content, err := ToJSON(data)
		if err != nil {
			return
		}
		if !json.Valid(content) {
			t.Fatalf("%q gives %q", data, content)
		}
		before, problems := ParseOne("f", "", "", data)
		after, further := ParseOne("f", "", "", content)
		if len(problems) == 0 && len(further) > 0 && len(content) <= maxDocument {
			t.Fatalf("%q gives %q, which has %v", data, content, further)
		}
		if len(problems) == 0 && before.sum != after.sum {
			t.Errorf("%q gives %q, which says something else", data, content)
		}
	})
}
