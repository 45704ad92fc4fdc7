package policy

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// wild draws documents that clash in every way: ids, models, aliases, prices, places.
func wild(t *rapid.T, label string) []Document {
	names := rapid.SampledFrom([]string{"a", "b", "c"})
	one := rapid.Custom(func(t *rapid.T) Document {
		kind, id := rapid.SampledFrom(Kinds()).Draw(t, "kind"), names.Draw(t, "id")
		d := blank(kind)
		switch kind {
		case KindBackend:
			*d.Backend = NewBackend(id, "http://"+names.Draw(t, "host"))
		case KindRoutingPolicy:
			*d.Policy = NewRoutingPolicy(id, names.Draw(t, "model"), names.Draw(t, "backend"))
			d.Policy.Organization = rapid.SampledFrom([]string{Everyone, "o"}).Draw(t, "organization")
			if alias := names.Draw(t, "alias"); alias != d.Policy.Model {
				d.Policy.Aliases = []string{alias}
			}
		case KindPrice:
			from := time.Date(2026, 1, rapid.IntRange(1, 2).Draw(t, "day"), 0, 0, 0, 0, time.UTC)
			*d.Price = Price{id, names.Draw(t, "model"), from, Rates{Input: USD(rapid.IntRange(0, 1).Draw(t, "input"))}}
		case KindMark:
			*d.Mark = Mark{ID: id, Model: names.Draw(t, "model"), State: rapid.SampledFrom(states).Draw(t, "state")}
		}
		d.File = rapid.SampledFrom([]string{"", "x", "y"}).Draw(t, "file")
		d.Line = rapid.IntRange(0, 2).Draw(t, "line")
		d.Revision = int64(rapid.IntRange(0, 1).Draw(t, "revision"))
		return d
	})
	return rapid.SliceOfN(one, 0, 12).Draw(t, label)
}

// describe is all that a table answers.
func describe(table *Table) string {
	var b strings.Builder
	fmt.Fprintln(&b, table.Revision(), table.Routes())
	for _, d := range table.Documents() {
		content, err := JSON(d)
		fmt.Fprintln(&b, d.place(), d.Revision, string(content), err)
	}
	for _, p := range table.Problems() {
		fmt.Fprintln(&b, p)
	}
	for _, organization := range []string{"o", "p"} {
		for _, model := range []string{"a", "b", "c"} {
			if route, found := table.Lookup(organization, model, "k"); found {
				m, marked := table.Mark(route, organization, time.Now())
				fmt.Fprintln(&b, organization, model, route.Policy, route.Place, route.Revision, m.ID, marked)
			}
		}
	}
	return b.String()
}

func TestTheOrderOfDocumentsDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		last := Compile(Snapshot{Documents: wild(t, "last")}, nil).Documents()
		documents := wild(t, "now")
		problems := []Problem{{Kind: KindPrice, ID: "a", Message: "bad"}, {File: "y", Message: "unreadable"}}
		before := slices.Clone(documents)
		one := describe(Compile(Snapshot{Documents: documents, Problems: problems}, last))
		if diff := cmp.Diff(before, documents, sameDocuments); diff != "" {
			t.Fatal("the snapshot was changed", diff)
		}
		two := describe(Compile(Snapshot{Documents: rapid.Permutation(documents).Draw(t, "order"), Problems: problems}, rapid.Permutation(last).Draw(t, "last order")))
		if diff := cmp.Diff(one, two); diff != "" {
			t.Fatal(diff)
		}
	})
}

// keyed reads documents as a book does: each under its key.
func keyed(documents map[string]string) Snapshot {
	var s Snapshot
	for k, text := range documents {
		collection, id, _ := strings.Cut(k, "/")
		kind, _ := KindOf(collection)
		d, problems := ParseOne("/api-router/"+k, kind, id, []byte(text))
		if len(problems) == 0 {
			s.Documents = append(s.Documents, d)
		}
		s.Problems = append(s.Problems, problems...)
	}
	return s
}

func TestABrokenDocumentAmongAHundredIsAlone(t *testing.T) {
	good := func(version int) map[string]string {
		documents := map[string]string{
			"backends/b":            fmt.Sprintf(`{"url":"http://b","max_concurrency":%d}`, version),
			"prices/p":              fmt.Sprintf(`{"model":"m","valid_from":"2026-01-01T00:00:00Z","usd_per_million":{"input":%d,"output":0}}`, version),
			"marks/m":               fmt.Sprintf(`{"model":"model-1","state":"disabled","reason":"version %d"}`, version),
			"policies/*/meta/llama": fmt.Sprintf(`{"PolicyID":"llama","Backends":[{"BackendID":"b"}],"FailoverThreshold":%d}`, version),
		}
		for i := range 96 {
			documents[fmt.Sprintf("policies/p%d", i)] = fmt.Sprintf(`{"model":"model-%d","backends":[{"id":"b"}],"failover_threshold":%d}`, i, version)
		}
		return documents
	}
	versions := func(table *Table) map[string]int {
		found := map[string]int{}
		for _, d := range table.Documents() {
			version := 0
			switch {
			case d.Backend != nil:
				version = d.Backend.MaxConcurrency
			case d.Policy != nil:
				version = d.Policy.FailoverThreshold
			case d.Price != nil:
				version = int(d.Price.USDPerMillion.Input / dollar)
			case d.Mark != nil:
				_, err := fmt.Sscanf(d.Mark.Reason, "version %d", &version)
				must(t, err)
			}
			found[strings.TrimPrefix(d.File, "/api-router/")] = version
		}
		return found
	}
	first := Compile(keyed(good(1)), nil)
	if len(first.Documents()) != 100 || len(first.Problems()) > 0 {
		t.Fatal(len(first.Documents()), said(first))
	}
	tests := []struct{ key, text, want string }{
		{"policies/p7", "{\n  \"model\": \"model-7\",\n  \"backends\": [{\"id\": \"b\", \"wieght\": 2}]\n}", `/api-router/policies/p7:3:28: RoutingPolicy p7: unknown field "wieght" in backends[0]; did you mean weight?`},
		{"policies/p7", `{"model":`, `/api-router/policies/p7:1:9: RoutingPolicy p7: not valid YAML: could not find map value`},
		{"policies/p7", `{"kind":"Mark","model":"x"}`, `/api-router/policies/p7:1:9: RoutingPolicy p7: kind must be RoutingPolicy here, as the key says, or be left out`},
		{"policies/p7", `{"model":"model-7","backends":[{"id":"c"}]}`, `/api-router/policies/p7: RoutingPolicy p7: backend "c" does not exist`},
		{"policies/p7", `{"model":"model-6","backends":[{"id":"b"}]}`, `/api-router/policies/p7: RoutingPolicy p7: model "model-6" of organization "*" is already routed by policy p6 at /api-router/policies/p6`},
		{"policies/p7", ``, `/api-router/policies/p7: RoutingPolicy p7: the document is empty`},
		{"policies/*/meta/llama", `{"PolicyID":"other","Backends":[]}`, `/api-router/policies/*/meta/llama:1:32: RoutingPolicy: backends is missing or empty: the policy names no backend`},
		{"policies/*/meta/llama", `gone wrong`, `/api-router/policies/*/meta/llama:1:1: RoutingPolicy: a document is a list of fields`},
		{"backends/b", `{"url":"b:80"}`, `/api-router/backends/b:1:8: Backend b: url must begin with http:// or https://`},
		{"prices/p", `{"model":"m","valid_from":"2026-01-01T00:00:00Z","usd_per_million":{"input":-2,"output":0}}`, `/api-router/prices/p:1:77: Price p: usd_per_million.input must be an amount in US dollars from 0 to 1000000 with at most 6 decimals, such as 0.40`},
		{"marks/m", `{"model":"model-1","state":"off","reason":"version 2"}`, `/api-router/marks/m:1:28: Mark m: state must be one of disabled, draining, degraded`},
	}
	for _, test := range tests {
		t.Run(test.key+" "+test.text, func(t *testing.T) {
			now := good(2)
			now[test.key] = test.text
			table := Compile(keyed(now), first.Documents())
			want := map[string]int{}
			for k := range now {
				want[k] = 2
			}
			want[test.key] = 1
			if diff := cmp.Diff(want, versions(table)); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff([]string{test.want + " (a good version keeps serving)"}, said(table)); diff != "" {
				t.Error(diff)
			}
			// Once more from what serves now, and then without the broken one.
			again := Compile(keyed(now), table.Documents())
			if again.Revision() != table.Revision() || again.Problems()[0] != table.Problems()[0] {
				t.Error("the last good version is lost the second time", said(again))
			}
			if test.key != "backends/b" {
				delete(now, test.key)
				if gone := Compile(keyed(now), table.Documents()); len(gone.Documents()) != 99 || len(gone.Problems()) > 0 {
					t.Error("a deleted document stays", said(gone))
				}
			}
		})
	}
}

func TestADocumentThatLosesItsLegacyKeyKeepsItsName(t *testing.T) {
	before := keyed(map[string]string{"backends/b": `{"url":"http://b"}`, "policies/acme/m": string(`{"Backends":[{"BackendID":"b"}]}`)})
	table := Compile(before, nil)
	const id = "organization.acme.model.m"
	d, found := table.Find(KindRoutingPolicy, id)
	route, routed := table.Lookup("acme", "m", "k")
	if !found || !d.Legacy || !routed || !route.Legacy || route.Place != "/api-router/policies/acme/m" {
		t.Fatal(found, routed, said(table))
	}
	content, err := JSON(d)
	must(t, err)
	upgraded := Compile(keyed(map[string]string{"backends/b": `{"url":"http://b"}`, "policies/" + id: string(content)}), table.Documents())
	if route, routed := upgraded.Lookup("acme", "m", "k"); !routed || route.Legacy || upgraded.Revision() != table.Revision() {
		t.Error("the upgrade changes what is routed", routed, said(upgraded))
	}
}
