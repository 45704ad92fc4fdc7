package ops

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestDashboardsAreComplete(t *testing.T) {
	uids := map[string]string{}
	for _, d := range readDashboards(t) {
		if other, twice := uids[d.UID]; twice || d.UID+".json" != d.file {
			t.Errorf("%s: the uid %q is not the file's name, or that of %q, too", d.file, d.UID, other)
		}
		uids[d.UID] = d.file
		if d.ID != nil {
			t.Errorf("%s: it has the id of one Grafana", d.file)
		}
		if d.SchemaVersion < 39 || d.Title == "" || d.Description == "" {
			t.Errorf("%s: schemaVersion %d, title %q, description %q", d.file, d.SchemaVersion, d.Title, d.Description)
		}
		if len(d.Templating.List) == 0 || d.Templating.List[0].Type != "datasource" || d.Templating.List[0].Name != "datasource" {
			t.Errorf("%s: the first variable is not the data source", d.file)
		}
		for _, v := range d.Templating.List[1:] {
			if !v.Datasource.chosen() {
				t.Errorf("%s: variable %s: the data source is not the variable", d.file, v.Name)
			}
		}
		for _, a := range d.Annotations.List {
			if !a.Datasource.chosen() {
				t.Errorf("%s: annotation %s: the data source is not the variable", d.file, a.Name)
			}
		}
		ids, titles := map[int]bool{}, map[string]bool{}
		for _, p := range d.Panels {
			if ids[p.ID] || titles[p.Title] {
				t.Errorf("%s: %q: its id %d or its title is there twice", d.file, p.Title, p.ID)
			}
			ids[p.ID], titles[p.Title] = true, true
			for _, finding := range p.check() {
				t.Errorf("%s: %q: %s", d.file, p.Title, finding)
			}
		}
		for _, finding := range overlaps(d.Panels) {
			t.Errorf("%s: %s", d.file, finding)
		}
	}
}

// chosen reports whether the data source is the one that the dashboard's user picks.
func (s *source) chosen() bool { return s != nil && *s == source{"prometheus", "${datasource}"} }

// traced are the histograms whose observations lead to traces.
var traced = regexp.MustCompile(`api_router_gateway_(request_duration|time_to_first_token)_seconds_bucket`)

func (p panel) check() []string {
	var findings []string
	say := func(format string, args ...any) { findings = append(findings, fmt.Sprintf(format, args...)) }
	if p.Title == "" || p.ID == 0 {
		say("no title or no id")
	}
	if p.Type == "row" {
		return findings
	}
	if p.FieldConfig.Defaults.Unit == "" {
		say("no unit")
	}
	if len(p.Description) < 20 {
		say("no description that says what to look for")
	}
	if !p.Datasource.chosen() || len(p.Targets) == 0 {
		say("no query, or not of the data source that is the variable")
	}
	for _, l := range p.Links {
		page, ok := strings.CutPrefix(l.URL, runbookURL)
		if _, err := os.Stat(filepath.Join(runbooks, page)); !ok || err != nil {
			say("the link %s leads to no runbook", l.URL)
		}
		if !strings.Contains(p.Description, l.URL) {
			say("the description does not link %s", l.URL)
		}
	}
	var refs []string
	for _, q := range p.Targets {
		if !q.Datasource.chosen() {
			say("query %s: the data source is not the variable", q.RefID)
		}
		if has := p.Type == "timeseries" && traced.MatchString(q.Expr); q.Exemplar != has {
			say("query %s: exemplars are shown: %t, and there are some: %t", q.RefID, q.Exemplar, has)
		}
		if !strings.Contains(q.Expr, `instance=~"$instance"`) {
			say("query %s does not choose instances", q.RefID)
		}
		if slices.Contains(refs, q.RefID) || q.RefID == "" {
			say("the refId %q is there twice", q.RefID)
		}
		refs = append(refs, q.RefID)
	}
	return findings
}

// overlaps lists panels that lie on each other, or outside of the grid's 24 columns.
func overlaps(panels []panel) []string {
	var findings []string
	for i, a := range panels {
		if a.GridPos.H < 1 || a.GridPos.W < 1 || a.GridPos.X < 0 || a.GridPos.X+a.GridPos.W > 24 {
			findings = append(findings, fmt.Sprintf("%q lies outside of the grid", a.Title))
		}
		for _, b := range panels[:i] {
			p, q := a.GridPos, b.GridPos
			if p.X < q.X+q.W && q.X < p.X+p.W && p.Y < q.Y+q.H && q.Y < p.Y+p.H {
				findings = append(findings, fmt.Sprintf("%q lies on %q", a.Title, b.Title))
			}
		}
	}
	return findings
}

// TestEveryQueryIsPromQL lets promtool read the dashboards' queries, as rules.
func TestEveryQueryIsPromQL(t *testing.T) {
	var b strings.Builder
	b.WriteString("groups:\n  - name: queries\n    rules:\n")
	for i, q := range questions(t) {
		if strings.Contains(q.expr, "$") {
			t.Errorf("%s: a variable that no dashboard has: %s", q.where, q.expr)
		}
		fmt.Fprintf(&b, "      - record: q%d\n        # %s\n        expr: |\n          %s\n", i, q.where, strings.ReplaceAll(strings.TrimSpace(q.expr), "\n", "\n          "))
	}
	path := filepath.Join(t.TempDir(), "queries.yaml")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := promtool(t, "check", "rules", path); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
