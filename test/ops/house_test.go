package ops

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/ai-aas/api-router/test/rig"
)

const (
	root      = "../.."
	rulesFile = root + "/deploy/alerts/api-router.rules.yaml"
	rulesTest = root + "/deploy/alerts/api-router.rules.test.yaml"
	runbooks  = root + "/docs/runbooks"
	// runbookURL is where the pages of runbooks are read.
	runbookURL = "https://github.com/ai-aas/api-router/blob/main/docs/runbooks/"
)

// binary is the router, built once for all tests.
var binary string

func TestMain(m *testing.M) { os.Exit(rig.Main(m, &binary)) }

// promtool runs Prometheus's own judge, and returns what it says.
func promtool(t *testing.T, args ...string) (string, error) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), rig.Tool(t, "promtool"), args...).CombinedOutput()
	return string(out), err
}

func read(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func readYAML(t *testing.T, path string, into any) {
	t.Helper()
	if err := yaml.Unmarshal([]byte(read(t, path)), into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// files are those below the root that match a pattern; there has to be one.
func files(t *testing.T, pattern string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(root, pattern))
	if err != nil || len(found) == 0 {
		t.Fatalf("%s: no such file (%v)", pattern, err)
	}
	return found
}

// rule is one of the rules file: an alert or a recorded series.
type rule struct {
	Alert, Record, Expr string
	Labels, Annotations map[string]string
}

func readRules(t *testing.T) []rule {
	t.Helper()
	var file struct {
		Groups []struct{ Rules []rule }
	}
	readYAML(t, rulesFile, &file)
	var all []rule
	for _, g := range file.Groups {
		all = append(all, g.Rules...)
	}
	if len(all) == 0 {
		t.Fatal("there are no rules")
	}
	return all
}

// dashboard is the part of a Grafana dashboard that the tests look at.
type dashboard struct {
	file string

	ID            *int
	UID, Title    string
	Description   string
	SchemaVersion int
	Panels        []panel
	Templating    struct {
		List []variable
	}
	Annotations struct{ List []annotation }
}

type panel struct {
	ID                       int
	Type, Title, Description string
	Datasource               *source
	GridPos                  struct{ H, W, X, Y int }
	FieldConfig              struct{ Defaults struct{ Unit string } }
	Targets                  []target
	Links                    []struct{ URL string }
}

type target struct {
	RefID, Expr string
	Datasource  *source
	Exemplar    bool
}

type variable struct {
	Name, Type string
	Datasource *source
	Query      any
}

type annotation struct {
	Name, Expr string
	Datasource *source
}

type source struct{ Type, UID string }

func readDashboards(t *testing.T) []dashboard {
	t.Helper()
	var all []dashboard
	for _, path := range files(t, "deploy/grafana/*.json") {
		var d dashboard
		if err := json.Unmarshal([]byte(read(t, path)), &d); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		d.file = filepath.Base(path)
		all = append(all, d)
	}
	return all
}

// question is one PromQL expression, and where it stands.
type question struct{ where, expr string }

// questions are those of every dashboard and rule. Variables of Grafana are put in.
func questions(t *testing.T) []question {
	t.Helper()
	var all []question
	for _, d := range readDashboards(t) {
		add := func(where, expr string) {
			all = append(all, question{d.file + ": " + where, variables.Replace(expr)})
		}
		for _, p := range d.Panels {
			for _, q := range p.Targets {
				add(p.Title, q.Expr)
			}
		}
		for _, a := range d.Annotations.List {
			add("annotation "+a.Name, a.Expr)
		}
		for _, v := range d.Templating.List {
			if asked, ok := v.Query.(map[string]any); ok {
				text, _ := asked["query"].(string)
				text = strings.TrimSuffix(strings.TrimPrefix(text, "label_values("), ")")
				at := strings.LastIndex(text, ", ")
				if at < 0 {
					t.Errorf("%s: the variable %s does not ask for label_values(series, label)", d.file, v.Name)
					continue
				}
				add("variable "+v.Name, "count by ("+text[at+2:]+") ("+text[:at]+")")
			}
		}
	}
	for _, r := range readRules(t) {
		all = append(all, question{filepath.Base(rulesFile) + ": " + r.Alert + r.Record, r.Expr})
	}
	return all
}

// variables puts values in place of Grafana's variables.
var variables = strings.NewReplacer("$__rate_interval", "5m", "$job", ".*", "$instance", ".*", "$model", ".*", "$backend", ".*")
