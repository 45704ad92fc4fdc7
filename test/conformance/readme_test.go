package conformance

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/ai-aas/api-router/internal/app"
	"github.com/ai-aas/api-router/internal/policy"
)

var yamlBlock = regexp.MustCompile("(?s)```yaml\n(.*?)```")

// readmeYAML gives the YAML blocks of the README that begin with prefix.
func readmeYAML(t *testing.T, prefix string) []byte {
	t.Helper()
	page, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string
	for _, match := range yamlBlock.FindAllSubmatch(page, -1) {
		if block := string(match[1]); strings.HasPrefix(block, prefix) {
			blocks = append(blocks, block)
		}
	}
	if len(blocks) == 0 {
		t.Fatalf("the README has no YAML that begins with %q", prefix)
	}
	return []byte(strings.Join(blocks, "---\n"))
}

func TestReadmeDocumentsWork(t *testing.T) {
	documents, problems := policy.Parse("README.md", readmeYAML(t, "kind:"))
	for _, p := range problems {
		t.Error(p)
	}
	table := policy.Compile(policy.Snapshot{Documents: documents}, nil)
	for _, p := range table.Problems() {
		t.Error(p)
	}
	if route, ok := table.Lookup("anybody", "gpt-oss", ""); !ok || route.Model != model || len(route.Candidates) != 2 {
		t.Errorf("the alias leads to %+v, %v", route, ok)
	}
}

func TestReadmeConfigurationWorks(t *testing.T) {
	file := filepath.Join(t.TempDir(), "api-router.yaml")
	if err := os.WriteFile(file, readmeYAML(t, "# api-router.yaml"), 0o600); err != nil {
		t.Fatal(err)
	}
	config, _, err := app.Load(app.Sources{File: file})
	if err != nil {
		t.Fatal(err)
	}
	if !config.Identity.DevelopmentKeys || config.Policy.File.Path == "" || len(config.Usage.Sinks) != 1 {
		t.Errorf("the file was read as %+v", config)
	}
}
