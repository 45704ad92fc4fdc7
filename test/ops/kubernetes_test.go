package ops

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func TestThePageOfKubernetesNamesValuesThatTheChartHas(t *testing.T) {
	chart := filepath.Join(root, "deploy/helm/api-router")
	var values map[string]any
	readYAML(t, filepath.Join(chart, "values.yaml"), &values)
	page := read(t, filepath.Join(root, "docs/kubernetes.md"))
	named := regexp.MustCompile(`--set ([A-Za-z.]+)=`).FindAllStringSubmatch(page, -1)
	if len(named) < 5 {
		t.Fatalf("the page sets only %v", named)
	}
	for _, name := range named {
		at := any(values)
		for step := range strings.SplitSeq(name[1], ".") {
			branch, _ := at.(map[string]any)
			var ok bool
			if at, ok = branch[step]; !ok {
				t.Errorf("the chart has no value %s", name[1])
				break
			}
		}
	}
	for _, path := range regexp.MustCompile(`deploy/[a-z-]+/[a-zA-Z./-]+\.yaml`).FindAllString(page, -1) {
		if _, err := os.Stat(filepath.Join(root, path)); err != nil {
			t.Errorf("the page names %s: %v", path, err)
		}
	}
}
