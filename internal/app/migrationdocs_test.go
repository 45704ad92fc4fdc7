package app_test

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/ai-aas/api-router/internal/app"
)

// earlierRows are the variables in the table of the earlier service's environment that follows a heading, with the rest of their row.
func earlierRows(t *testing.T, page, heading string) map[string]string {
	t.Helper()
	_, text, found := strings.Cut(page, "\n"+heading+"\n")
	if !found {
		t.Fatalf("there is no heading %q", heading)
	}
	text, _, _ = strings.Cut(text, "\n## ")
	rows := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([A-Z_]+)` \\|(.*)\\|$").FindAllStringSubmatch(text, -1) {
		if _, twice := rows[row[1]]; twice {
			t.Errorf("%s has two rows", row[1])
		}
		rows[row[1]] = row[2]
	}
	return rows
}

func TestDocsOfTheMigrationNameEveryVariableOfTheEarlierService(t *testing.T) {
	page, err := os.ReadFile("../../docs/migration.md")
	if err != nil {
		t.Fatal(err)
	}
	told := earlierRows(t, string(page), "## Variables")
	known := earlierRows(t, app.Reference(), "## Variables of the earlier service")
	// These are OpenTelemetry's, which telemetry reads.
	for _, name := range []string{"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_INSECURE"} {
		if !strings.Contains(app.Reference(), name) {
			t.Errorf("docs/config.md does not name %s", name)
		}
		known[name] = ""
	}
	if len(known) < 10 {
		t.Fatalf("only the variables %v are known", slices.Collect(maps.Keys(known)))
	}
	for name, meaning := range known {
		row, ok := told[name]
		if !ok {
			t.Errorf("docs/migration.md does not name %s", name)
			continue
		}
		if strings.Contains(meaning, "no effect") != strings.HasPrefix(row, " no effect yet |") {
			t.Errorf("docs/migration.md and the program do not agree whether %s has an effect: %q, %q", name, row, meaning)
		}
		for _, setting := range regexp.MustCompile("`((?:policy|listen|log|identity)\\.[a-z_.]+)`").FindAllStringSubmatch(meaning, -1) {
			if !strings.Contains(row, setting[0]) {
				t.Errorf("docs/migration.md does not say that %s sets %s", name, setting[1])
			}
		}
	}
	for name := range told {
		if _, ok := known[name]; !ok {
			t.Errorf("docs/migration.md names %s, which the program does not know", name)
		}
	}
}
