package policy

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// fixture reads a policy as the earlier service left it.
func fixture(t testing.TB, name string) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("testdata", "legacy", name))
	must(t, err)
	return content
}

func TestPoliciesOfTheEarlierServiceAreReadAsTheyAre(t *testing.T) {
	const (
		global   = `"model":"gpt-oss-20b","backends":[{"id":"vllm-a","weight":70},{"id":"vllm-b","weight":30}],"failover_threshold":5}`
		degraded = `"organization":"acme","model":"gpt-oss-20b","backends":[{"id":"vllm-a"},{"id":"vllm-b","weight":50,"degraded":true}]}`
		lists    = `"organization":"acme","model":"gpt-oss-20b","backends":[{"id":"vllm-a","callers":{"allow":["key-1","acme"]}},{"id":"vllm-b","callers":{"deny":["key-2"]}}]}`
		slashed  = `"organization":"acme","model":"meta-llama/Llama-3.1-8B","backends":[{"id":"vllm-a","weight":1}]}`
		everyone = `"model":"gpt-oss-20b","backends":[{"id":"vllm-a"},{"id":"vllm-b"}]}`
	)
	tests := []struct{ file, key, id, want string }{
		// A key that is an id: it is the id, whatever PolicyID says.
		{"camel.json", "global-gpt-oss-20b", "global-gpt-oss-20b", global},
		{"snake.json", "global-gpt-oss-20b", "global-gpt-oss-20b", global},
		{"lower-camel.json", "global-gpt-oss-20b", "global-gpt-oss-20b", global},
		{"mixed.json", "global-gpt-oss-20b", "global-gpt-oss-20b", global},
		{"camel.yaml", "global-gpt-oss-20b", "global-gpt-oss-20b", global},
		{"camel.json", "another-id", "another-id", global},
		{"slashed.json", "llama", "llama", slashed},
		{"everyone.json", "e", "e", everyone},
		// A key that names organization and model.
		{"camel.json", "*/gpt-oss-20b", "global-gpt-oss-20b", global},
		{"snake.json", "*/gpt-oss-20b", "global-gpt-oss-20b", global},
		{"lower-camel.json", "*/gpt-oss-20b", "global-gpt-oss-20b", global},
		{"mixed.json", "*/gpt-oss-20b", "global-gpt-oss-20b", global},
		{"camel.yaml", "*/gpt-oss-20b", "global-gpt-oss-20b", global},
		{"degraded.json", "acme/gpt-oss-20b", "acme-gpt", degraded},
		{"lists.json", "acme/gpt-oss-20b", "acme-gpt", lists},
		{"slashed.json", "acme/meta-llama/Llama-3.1-8B", "organization.acme.model.meta-llama-Llama-3.1-8B.he6a7d5fe1bd8d19d", slashed},
		{"everyone.json", "*/gpt-oss-20b", "model.gpt-oss-20b", everyone},
		{"everyone.json", "acme/gpt-oss-20b", "organization.acme.model.gpt-oss-20b", `"organization":"acme",` + everyone},
		{"bare.json", "*/gpt-oss-20b", "model.gpt-oss-20b", everyone},
		{"bare.json", "acme/gpt-oss-20b", "organization.acme.model.gpt-oss-20b", `"organization":"acme",` + everyone},
		{"bare.json", "acme/a/b:c", "organization.acme.model.a-b-c.hb5583896dc33da28", `"organization":"acme","model":"a/b:c","backends":[{"id":"vllm-a"},{"id":"vllm-b"}]}`},
		{
			"uuid.json", "7d9f4bd0-6f0e-4b6e-8a55-3b8f0f2f2a10/gpt-oss-20b", "0d5c1a52-6f3a-4a0e-9d1c-2b7f3c0f6a11",
			`"organization":"7d9f4bd0-6f0e-4b6e-8a55-3b8f0f2f2a10","model":"gpt-oss-20b","backends":[{"id":"vllm-a","weight":0},{"id":"vllm-b"}]}`,
		},
		// No key, as in a file.
		{"camel.json", "", "global-gpt-oss-20b", global},
		{"degraded.json", "", "acme-gpt", degraded},
		{"everyone.json", "", "model.gpt-oss-20b", everyone},
		// A key that fits no id of ours.
		{"camel.json", "global:gpt", "global-gpt-oss-20b", global},
	}
	for _, test := range tests {
		t.Run(test.file+" at "+test.key, func(t *testing.T) {
			place := "/api-router/policies/" + test.key
			d, problems := ParseOne(place, KindRoutingPolicy, test.key, fixture(t, test.file))
			if len(problems) > 0 {
				t.Fatal(problems)
			}
			if !d.Legacy || d.File != place || d.ID() != test.id || d.Kind() != KindRoutingPolicy {
				t.Errorf("%s: %+v", d.ID(), d)
			}
			content, err := JSON(d)
			if want := `{"kind":"RoutingPolicy","id":"` + test.id + `",` + test.want; err != nil || string(content) != want {
				t.Errorf("got  %s\nwant %s; %v", content, want, err)
			}
			upgraded, problems := ParseOne(place, KindRoutingPolicy, test.id, content)
			if len(problems) > 0 || upgraded.Legacy {
				t.Fatal(upgraded.Legacy, problems)
			}
			if diff := cmp.Diff(d.Policy, upgraded.Policy, sameDocuments); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestPoliciesOfTheEarlierServiceMustBeRight(t *testing.T) {
	const backend = `"Backends":[{"BackendID":"b","Weight":1}]`
	tests := []struct {
		name, key, text string
		want            []string
	}{
		{"no backends", "p", `{"PolicyID":"p","Model":"m"}`, []string{`k:1:1: RoutingPolicy p: backends is missing or empty: the policy names no backend`}},
		{"empty backends", "p", `{"PolicyID":"p","Model":"m","Backends":[]}`, []string{`k:1:40: RoutingPolicy p: backends is missing or empty: the policy names no backend`}},
		{"null backends", "p", `{"PolicyID":"p","Model":"m","Backends":null}`, []string{`k:1:40: RoutingPolicy p: backends is missing or empty: the policy names no backend`}},
		{"no model", "p", `{"PolicyID":"p",` + backend + `}`, []string{`k:1:1: RoutingPolicy p: model is missing or empty`}},
		{"wrong types", "p", `{"PolicyID":7,"OrganizationID":8,"Model":["m"],"Backends":{},"FailoverThreshold":"3","DegradedBackends":"b"}`, []string{
			`k:1:32: RoutingPolicy p: organization must be text: put it in quotes`,
			`k:1:42: RoutingPolicy p: model must be text`,
			`k:1:59: RoutingPolicy p: backends must be a list`,
			`k:1:82: RoutingPolicy p: failover_threshold must be a whole decimal number`,
			`k:1:105: RoutingPolicy p: degraded_backends must be a list, as in [a, b]`,
		}},
		{"wrong types in a backend", "p", `{"PolicyID":"p","Model":"m","Backends":["b",{"BackendID":1,"Weight":"1","AllowList":"k","DenyList":[1]}]}`, []string{
			`k:1:41: RoutingPolicy p: backends[0] must hold fields, as in {a: b}`,
			`k:1:58: RoutingPolicy p: backends[1].id must be text: put it in quotes`,
			`k:1:69: RoutingPolicy p: backends[1].weight must be a whole decimal number`,
			`k:1:85: RoutingPolicy p: backends[1].callers.allow must be a list, as in [a, b]`,
			`k:1:101: RoutingPolicy p: backends[1].callers.deny[0] must be text: put it in quotes`,
		}},
		{"values out of bounds", "p", "{\n \"PolicyID\": \"p\",\n \"OrganizationID\": \"a b\",\n \"Model\": \"m\",\n \"Backends\": [{\"BackendID\": \"b\", \"Weight\": -1}, {\"Weight\": 1}],\n \"FailoverThreshold\": -1\n}", []string{
			`k:3:20: RoutingPolicy p: organization must be "*" or an organization's id: 1 to 128 of the characters A-Z a-z 0-9 . _ -`,
			`k:5:44: RoutingPolicy p: backends[0].weight must be between 0 and 1000000`,
			`k:5:49: RoutingPolicy p: backends[1].id is missing or empty`,
			`k:6:23: RoutingPolicy p: failover_threshold must be between 1 and 1000`,
		}},
		{"everybody denied", "p", `{"PolicyID":"p","Model":"m","Backends":[{"BackendID":"b","DenyList":["*"]}]}`, []string{
			`k:1:70: RoutingPolicy p: backends[0].callers.deny must list callers: to serve none of them, leave the backend out`,
		}},
		{"two spellings of one field", "p", `{"PolicyID":"p","Model":"m","model":"n",` + backend + `}`, []string{`k:1:29: RoutingPolicy p: "Model" and "model" are the same field`}},
		{"the same field twice", "p", `{"PolicyID":"p","Model":"m","Model":"n",` + backend + `}`, []string{`k:1:29: RoutingPolicy p: "Model" is written twice, first in line 1`}},
		{"another organization than the key's", "acme/m", `{"PolicyID":"p","OrganizationID":"umbrella","Model":"m",` + backend + `}`, []string{
			`k:1:34: RoutingPolicy: the organization is "umbrella" here and "acme" in the key`,
		}},
		{"everyone, and an organization's key", "acme/m", `{"PolicyID":"p","OrganizationID":"*",` + backend + `}`, []string{
			`k:1:34: RoutingPolicy: the organization is "*" here and "acme" in the key`,
		}},
		{"another model than the key's", "*/m/n", `{"PolicyID":"p","Model":"m",` + backend + `}`, []string{`k:1:25: RoutingPolicy: the model is "m" here and "m/n" in the key`}},
		{"a key without its model", "acme/", `{"PolicyID":"p",` + backend + `}`, []string{`k:1:1: RoutingPolicy: model is missing or empty`}},
		{"a key that is no organization", "a b/m", `{"PolicyID":"p",` + backend + `}`, []string{
			`k:1:1: RoutingPolicy: organization must be "*" or an organization's id: 1 to 128 of the characters A-Z a-z 0-9 . _ -`,
		}},
		{"both forms", "p", `{"id":"p","policy_id":"p","model":"m","backends":[{"id":"b"}]}`, []string{
			`k:1:11: RoutingPolicy p: "policy_id" is a field of the earlier service's form: write all of the policy in one form`,
		}},
		{"both forms, with a kind", "p", `{"kind":"RoutingPolicy","PolicyID":"p","Model":"m",` + backend + `}`, []string{
			`k:1:1: RoutingPolicy p: backends is missing: a policy needs at least one, as in backends: [{id: my-backend}]`,
			`k:1:1: RoutingPolicy p: model is missing or empty`,
			`k:1:25: RoutingPolicy p: "PolicyID" is a field of the earlier service's form: write all of the policy in one form`,
			`k:1:40: RoutingPolicy p: "Model" is a field of the earlier service's form: write all of the policy in one form`,
			`k:1:52: RoutingPolicy p: "Backends" is a field of the earlier service's form: write all of the policy in one form`,
		}},
		{"our form at a key of theirs", "*/m", `{"id":"p","model":"m","backends":[{"id":"b"}]}`, []string{
			`k:1:1: RoutingPolicy: the key names an organization and a model, which only policies of the earlier service's form do: write this one at a key that ends in its id`,
		}},
		{"an unreadable one at a key of theirs", "*/m", `{"PolicyID":`, []string{`k:1:12: RoutingPolicy: not valid YAML: could not find map value`}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			d, problems := ParseOne("k", KindRoutingPolicy, test.key, []byte(test.text))
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

func TestOnlyPoliciesAreReadInTheEarlierForm(t *testing.T) {
	for _, kind := range []Kind{KindBackend, KindPrice, KindMark} {
		d, problems := ParseOne("k", kind, "p", fixture(t, "camel.json"))
		if len(problems) == 0 || d.Legacy {
			t.Errorf("%s is read from a policy: %+v", kind, d)
		}
	}
	documents, problems := Parse("f", []byte(`{"model":"m","backends":[{"id":"b"}]}`))
	if len(documents) > 0 || len(problems) != 1 || !strings.Contains(problems[0].Message, "kind is missing") {
		t.Error(documents, problems)
	}
}
