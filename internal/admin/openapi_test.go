package admin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/ai-aas/api-router/api"
	"github.com/ai-aas/api-router/internal/adminapi"
)

// description is api/openapi.yaml, ready to check answers by.
type description struct {
	root     map[string]any
	compiler *jsonschema.Compiler
	mu       sync.Mutex // the compiler's
}

const describedAt = "https://api-router.invalid/openapi.json"

var describe = sync.OnceValues(func() (*description, error) {
	text, err := yaml.YAMLToJSON(api.OpenAPI)
	if err != nil {
		return nil, err
	}
	root, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	d := &description{root: root.(map[string]any), compiler: jsonschema.NewCompiler()}
	closeObjects(d.root["components"])
	d.compiler.AssertFormat()
	return d, d.compiler.AddResource(describedAt, root)
})

// closeObjects refuses fields that are not described. Clients must not, so the document does not say it.
func closeObjects(v any) {
	switch v := v.(type) {
	case map[string]any:
		if _, ok := v["properties"]; ok {
			v["additionalProperties"] = false
		}
		for _, child := range v {
			closeObjects(child)
		}
	case []any:
		for _, child := range v {
			closeObjects(child)
		}
	}
}

// step escapes one step of a JSON pointer.
func step(s string) string {
	return strings.ReplaceAll(strings.ReplaceAll(s, "~", "~0"), "/", "~1")
}

// resolve finds what a pointer points at, through references.
func (d *description) resolve(pointer string) (at string, value map[string]any, ok bool) {
	var current any = d.root
	at = ""
	for _, s := range strings.Split(pointer, "/")[1:] {
		object, isObject := current.(map[string]any)
		if !isObject {
			return "", nil, false
		}
		current, ok = object[strings.ReplaceAll(strings.ReplaceAll(s, "~1", "/"), "~0", "~")]
		if !ok {
			return "", nil, false
		}
		at += "/" + s
		if object, isObject = current.(map[string]any); isObject {
			if ref, isRef := object["$ref"].(string); isRef {
				if at, object, ok = d.resolve(strings.TrimPrefix(ref, "#")); !ok {
					return "", nil, false
				}
				current = object
			}
		}
	}
	value, ok = current.(map[string]any)
	return at, value, ok
}

// check holds a value to the schema at a place of the document.
func (d *description) check(pointer string, value []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	schema, err := d.compiler.Compile(describedAt + "#" + strings.ReplaceAll(strings.ReplaceAll(pointer, "{", "%7B"), "}", "%7D"))
	if err != nil {
		return err
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(value))
	if err != nil {
		return err
	}
	return schema.Validate(v)
}

// pathOf is the described path that a request's path stands for.
func pathOf(path string) string {
	path, _, _ = strings.Cut(strings.TrimPrefix(path, adminapi.Prefix), "?")
	segments := strings.Split(strings.TrimPrefix(path, "/"), "/")
	if segments[0] != adminapi.Marks && ofCollection(segments[0]) != "" {
		segments[0] = "{collection}"
	}
	if (segments[0] == "{collection}" || segments[0] == adminapi.Marks) && len(segments) > 1 {
		segments[1] = "{id}"
	}
	if segments[0] == "admins" && len(segments) > 1 {
		segments[1] = "{admin}"
	}
	if segments[0] == "organizations" && len(segments) > 1 {
		segments[1] = "{organization}"
		if len(segments) > 3 {
			segments[3] = map[string]string{"projects": "{project}", "keys": "{key}"}[segments[2]]
		}
	}
	return "/" + strings.Join(segments, "/")
}

// described holds an answer to what the document says of it. What is at no described path must be an error.
func described(t testing.TB, method, path string, got response) {
	t.Helper()
	d, err := describe()
	must(t, err)
	if method == http.MethodHead {
		return
	}
	operation := "/paths/" + step(pathOf(path)) + "/" + strings.ToLower(method)
	content := "/components/responses/Error/content"
	if got.StatusCode < 400 {
		content = fmt.Sprintf("%s/responses/%d/content", operation, got.StatusCode)
	}
	media, _, _ := strings.Cut(got.Header.Get("Content-Type"), ";")
	at, _, ok := d.resolve(content + "/" + step(media) + "/schema")
	if !ok {
		t.Errorf("%s %s: the answer %d as %s is not described", method, path, got.StatusCode, media)
		return
	}
	if media != "application/json" {
		return
	}
	if err := d.check(at, got.body); err != nil {
		t.Errorf("%s %s: the answer %d is not as described: %v\n%s", method, path, got.StatusCode, err, got.body)
	}
	if tag := got.Header.Get("ETag"); tag != "" {
		if _, _, ok := d.resolve(fmt.Sprintf("%s/responses/%d/headers/ETag", operation, got.StatusCode)); !ok {
			t.Errorf("%s %s: the ETag of answer %d is not described", method, path, got.StatusCode)
		}
	}
}

func TestEveryRouteIsDescribedAndEveryDescribedPathIsServed(t *testing.T) {
	d, err := describe()
	must(t, err)
	served := map[string]route{}
	for _, r := range New(Options{}).routes {
		served[r.method+" "+r.path] = r
	}
	written := map[string]bool{}
	for path, item := range d.root["paths"].(map[string]any) {
		for method := range item.(map[string]any) {
			if method != "parameters" {
				written[strings.ToUpper(method)+" "+path] = true
			}
		}
	}
	if a, b := slices.Sorted(maps.Keys(served)), slices.Sorted(maps.Keys(written)); !slices.Equal(a, b) {
		t.Errorf("served:\n%s\ndescribed:\n%s", strings.Join(a, "\n"), strings.Join(b, "\n"))
	}
	for name, r := range served {
		at := "/paths/" + step(r.path) + "/" + strings.ToLower(r.method)
		_, operation, ok := d.resolve(at)
		if !ok {
			continue // Said above.
		}
		if says := fmt.Sprint(operation["description"]); !strings.Contains(says, "Role: `"+strings.ReplaceAll(r.access.String(), " or ", "` or `")+"`.") {
			t.Errorf("%s takes the role %s, and is described as: %s", name, r.access, says)
		}
		if got := d.parameters(t, operation); !slices.Equal(got, slices.Sorted(slices.Values(r.query))) {
			t.Errorf("%s takes the parameters %v, and %v are described", name, r.query, got)
		}
	}
}

// parameters are the names of an operation's query parameters.
func (d *description) parameters(t *testing.T, operation map[string]any) []string {
	t.Helper()
	var names []string
	list, _ := operation["parameters"].([]any)
	for _, p := range list {
		_, parameter, ok := d.resolve(strings.TrimPrefix(p.(map[string]any)["$ref"].(string), "#"))
		if !ok {
			t.Fatalf("%v leads nowhere", p)
		}
		if parameter["in"] == "query" {
			names = append(names, parameter["name"].(string))
		}
	}
	slices.Sort(names)
	return names
}

func TestExamplesAreAsTheirSchemasSay(t *testing.T) {
	d, err := describe()
	must(t, err)
	checked := 0
	var walk func(at string, v any)
	walk = func(at string, v any) {
		switch v := v.(type) {
		case map[string]any:
			if _, ok := v["schema"]; ok {
				for where, example := range examples(v) {
					text, err := json.Marshal(example)
					must(t, err)
					if err := d.check(at+"/schema", text); err != nil {
						t.Errorf("%s: the %s: %v", at, where, err)
					}
					checked++
				}
			}
			for name, child := range v {
				walk(at+"/"+step(name), child)
			}
		case []any:
			for i, child := range v {
				walk(fmt.Sprintf("%s/%d", at, i), child)
			}
		}
	}
	walk("", d.root)
	if checked < 10 {
		t.Errorf("only %d examples were found", checked)
	}
}

func examples(of map[string]any) map[string]any {
	all := map[string]any{}
	if example, ok := of["example"]; ok {
		all["example"] = example
	}
	named, _ := of["examples"].(map[string]any)
	for name, example := range named {
		all["example "+name] = example.(map[string]any)["value"]
	}
	return all
}

func TestReferencesLeadSomewhereAndNothingIsUnused(t *testing.T) {
	d, err := describe()
	must(t, err)
	used := map[string]bool{}
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			if ref, ok := v["$ref"].(string); ok {
				used[ref] = true
				if _, _, ok := d.resolve(strings.TrimPrefix(ref, "#")); !ok {
					t.Errorf("%s leads nowhere", ref)
				}
			}
			for _, child := range v {
				walk(child)
			}
		case []any:
			for _, child := range v {
				walk(child)
			}
		}
	}
	walk(d.root)
	for section, parts := range d.root["components"].(map[string]any) {
		for name := range parts.(map[string]any) {
			if ref := "#/components/" + section + "/" + name; section != "securitySchemes" && !used[ref] {
				t.Errorf("%s is used nowhere", ref)
			}
		}
	}
}

func TestTheDescriptionIsServed(t *testing.T) {
	h := newHouse(t)
	got := h.send(adminapi.RoleViewer, http.MethodGet, adminapi.Prefix+"/openapi.yaml", "")
	if got.StatusCode != http.StatusOK || !bytes.Equal(got.body, api.OpenAPI) {
		t.Errorf("%d, %d bytes", got.StatusCode, len(got.body))
	}
}
