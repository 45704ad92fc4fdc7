package fleet

import (
	"strings"
	"testing"
)

func TestModelNames(t *testing.T) {
	vllm := []Model{{ID: "served", Root: "unsloth/gpt-oss-20b"}, {ID: "lora", Root: "/adapters/lora-v2"}}
	for _, test := range []struct {
		name   string
		models map[string]string
		listed []Model
		public string
		want   string
		known  bool
	}{
		{"nothing listed yet", nil, nil, "gpt-oss-20b", "gpt-oss-20b", false},
		{"mapped", map[string]string{"m": "own"}, nil, "m", "own", true},
		{"the map comes first", map[string]string{"served": "other"}, vllm, "served", "other", true},
		{"listed", nil, vllm, "served", "served", true},
		{"whole root", nil, vllm, "unsloth/gpt-oss-20b", "served", true},
		{"end of root", nil, vllm, "gpt-oss-20b", "served", true},
		{"end of a path", nil, vllm, "lora-v2", "lora", true},
		{"part of a name", nil, vllm, "oss-20b", "oss-20b", false},
		{"other models", nil, vllm, "llama", "llama", false},
		{"id without root", nil, []Model{{ID: "openai/gpt-oss-20b"}}, "gpt-oss-20b", "openai/gpt-oss-20b", true},
		{"two names of one root", nil, []Model{{ID: "x", Root: "org/m"}, {ID: "y", Root: "org/m"}}, "m", "x", true},
		{"two roots that end alike", nil, []Model{{ID: "x", Root: "one/m"}, {ID: "y", Root: "two/m"}}, "m", "m", false},
		{"a whole root beats an end", nil, []Model{{ID: "x", Root: "one/m"}, {ID: "y", Root: "m"}}, "m", "y", true},
		{"tags are part of the name", nil, []Model{{ID: "gpt-oss:20b"}}, "gpt-oss", "gpt-oss", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := fleetOf(t, 1, func(s *Spec) { s.Models = test.models })
			a := backend(t, f, "a")
			a.catalog.Store(newCatalog(test.listed))
			if name, known := a.ModelName(test.public); name != test.want || known != test.known {
				t.Errorf("got %q, %t, want %q, %t", name, known, test.want, test.known)
			}
		})
	}
}

func TestListings(t *testing.T) {
	for _, test := range []struct {
		name, body string
		want       []Model
		fails      bool
	}{
		{"vllm", oneModel, []Model{{ID: "gpt-oss-20b", Root: "unsloth/gpt-oss-20b", OwnedBy: "vllm", MaxModelLen: 131072}}, false},
		{"nulls", `{"data":[{"id":"a","root":null,"max_model_len":null,"owned_by":"x"}]}`, []Model{{ID: "a", OwnedBy: "x"}}, false},
		{"no models", `{"object":"list","data":null}`, nil, false},
		{"odd entries", `{"data":[{"id":""},{"id":"` + strings.Repeat("a", 257) + `"},{"id":"b","max_model_len":-1}]}`, []Model{{ID: "b"}}, false},
		{"an array", `[]`, nil, true},
		{"cut", `{"data":[`, nil, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			l, err := parseListing([]byte(test.body))
			if (err != nil) != test.fails {
				t.Fatal(err)
			}
			got := l.served()
			if len(got) != len(test.want) {
				t.Fatalf("got %+v", got)
			}
			for i := range got {
				if got[i] != test.want[i] {
					t.Errorf("got %+v, want %+v", got[i], test.want[i])
				}
			}
		})
	}
}

func FuzzListing(f *testing.F) {
	f.Add([]byte(oneModel), "gpt-oss-20b")
	f.Add([]byte(`{"data":[{"id":"a","root":"x/a"},{"id":"b","root":"y/a"}]}`), "a")
	f.Add([]byte(`{"data":[{"id":"/","root":"///"},{"id":"."}]}`), "/")
	f.Fuzz(func(t *testing.T, body []byte, public string) {
		l, err := parseListing(body)
		if err != nil {
			return
		}
		served := l.served()
		c := newCatalog(served)
		ids := map[string]bool{}
		for _, m := range served {
			ids[m.ID] = true
			if _, ok := c.ids[m.ID]; !ok {
				t.Fatalf("%q is listed and not known", m.ID)
			}
		}
		if id, ok := c.roots[public]; ok && !ids[id] {
			t.Fatalf("%q leads to %q, which is not listed", public, id)
		}
	})
}

func TestABackendThatIsReplacedKeepsTheNamesOfItsModels(t *testing.T) {
	f := fleetOf(t, 1)
	backend(t, f, "a").catalog.Store(newCatalog([]Model{{ID: "served", Root: "unsloth/public"}}))
	spec := backend(t, f, "a").Spec()
	spec.APIKey = "rotated"
	if err := f.Apply([]Spec{spec}); err != nil {
		t.Fatal(err)
	}
	if name, known := backend(t, f, "a").ModelName("public"); name != "served" || !known {
		t.Errorf("after a new key: %q, %v", name, known)
	}
	spec.URL = "http://127.0.0.1:10"
	if err := f.Apply([]Spec{spec}); err != nil {
		t.Fatal(err)
	}
	if name, known := backend(t, f, "a").ModelName("public"); known {
		t.Errorf("at another address: %q is known", name)
	}
}
