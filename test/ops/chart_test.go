package ops

import (
	"os"
	"path/filepath"
	"testing"
)

// TestDocsChartFiles keeps what the chart carries the same as what it was copied from: Helm reads nothing outside of a chart, and a link
// does not survive every way in which a repository is fetched. UPDATE_DOCS=1 copies.
func TestDocsChartFiles(t *testing.T) {
	from := []string{"deploy/alerts/api-router.rules.yaml", "deploy/otel/collector.yaml", "scripts/smoke"}
	for _, path := range files(t, "deploy/grafana/*.json") {
		from = append(from, "deploy/grafana/"+filepath.Base(path))
	}
	const folder = root + "/deploy/helm/api-router/files"
	carried := map[string]bool{}
	for _, path := range from {
		source, copied := read(t, filepath.Join(root, path)), filepath.Join(folder, filepath.Base(path))
		carried[filepath.Base(path)] = true
		if os.Getenv("UPDATE_DOCS") != "" {
			if err := os.WriteFile(copied, []byte(source), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if read(t, copied) != source {
			t.Errorf("%s is not what %s is: make docs copies it", copied, path)
		}
	}
	for _, path := range files(t, "deploy/helm/api-router/files/*") {
		if !carried[filepath.Base(path)] {
			t.Errorf("%s is a copy of nothing: see the list of this test", path)
		}
	}
}
