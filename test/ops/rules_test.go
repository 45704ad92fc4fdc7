package ops

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestPromtoolFindsNothingWrongWithTheRules(t *testing.T) {
	if out, err := promtool(t, "check", "rules", rulesFile); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

func TestAlertsFireWhereTheyShouldAndNowhereElse(t *testing.T) {
	if out, err := promtool(t, "test", "rules", rulesTest); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

func TestPromtoolTakesTheScrapeConfiguration(t *testing.T) {
	if out, err := promtool(t, "check", "config", filepath.Join(root, "deploy/prometheus/prometheus.yaml")); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

func TestEachAlertHasATestInWhichItFiresAndOneInWhichItIsSilent(t *testing.T) {
	var file struct {
		Tests []struct {
			Name string
			Ask  []struct {
				Expr    string
				Samples []any `yaml:"exp_samples"`
			} `yaml:"promql_expr_test"`
		}
	}
	readYAML(t, rulesTest, &file)
	fires, silent := map[string]bool{}, map[string]bool{}
	asked := regexp.MustCompile(`^ALERTS\{alertname="(\w+)",alertstate="firing"\}$`)
	for _, c := range file.Tests {
		for _, a := range c.Ask {
			match := asked.FindStringSubmatch(a.Expr)
			switch {
			case match == nil:
				t.Errorf("%s: %s asks for no alert", c.Name, a.Expr)
			case len(a.Samples) > 0:
				fires[match[1]] = true
			default:
				silent[match[1]] = true
			}
		}
	}
	for _, r := range readRules(t) {
		if r.Alert == "" {
			continue
		}
		if !fires[r.Alert] {
			t.Errorf("%s: no test in which it fires", r.Alert)
		}
		if !silent[r.Alert] {
			t.Errorf("%s: no test in which it is silent", r.Alert)
		}
	}
}

func TestEachAlertSaysWhatItIsAndLinksItsRunbook(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range readRules(t) {
		if r.Alert == "" {
			continue
		}
		if seen[r.Alert] || !strings.HasPrefix(r.Alert, "ApiRouter") {
			t.Errorf("%s: the name is not ApiRouter…, or there twice", r.Alert)
		}
		seen[r.Alert] = true
		if !slices.Contains([]string{"critical", "warning"}, r.Labels["severity"]) {
			t.Errorf("%s: the severity %q is neither critical nor warning", r.Alert, r.Labels["severity"])
		}
		for _, what := range []string{"summary", "description"} {
			if r.Annotations[what] == "" {
				t.Errorf("%s: no %s", r.Alert, what)
			}
		}
		page, ok := strings.CutPrefix(r.Annotations["runbook_url"], runbookURL)
		if !ok {
			t.Errorf("%s: runbook_url %q is none of %s", r.Alert, r.Annotations["runbook_url"], runbookURL)
			continue
		}
		content, err := os.ReadFile(filepath.Join(runbooks, page))
		if err != nil {
			t.Errorf("%s: its runbook is missing: %v", r.Alert, err)
			continue
		}
		// The first line below the title lists the page's alerts with their severity.
		_, list, _ := strings.Cut(string(content), "\n\nAlert")
		list, _, _ = strings.Cut(list, "\n\n")
		grave, mild := "`"+r.Alert+"` (critical)", "`"+r.Alert+"` (warning)"
		all := strings.Contains(list, "(all "+r.Labels["severity"]+")") && strings.Contains(list, "`"+r.Alert+"`")
		if want := map[string]string{"critical": grave, "warning": mild}[r.Labels["severity"]]; !all && !strings.Contains(list, want) {
			t.Errorf("%s: %s does not say %s at its beginning", r.Alert, page, want)
		}
	}
}
