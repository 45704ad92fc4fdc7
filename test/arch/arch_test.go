package arch

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestHouse holds this module to the rules.
func TestHouse(t *testing.T) {
	house, err := load(moduleRoot(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rules {
		t.Run(strings.ReplaceAll(r.name, " ", "-"), func(t *testing.T) {
			for _, finding := range r.check(house) {
				t.Error(finding)
			}
		})
	}
}

// sample is a small tree that keeps every rule; the cases of TestRulesFindWhatIsWrong break it one at a time.
func sample() map[string]string {
	return map[string]string{
		"go.mod": "module example.com/house\n",
		"ARCHITECTURE.md": strings.Join([]string{
			"# A house", "", "| floor | package | what it is for |", "|---|---|---|",
			"| 5 | cmd/house | main |", "| 4 | internal/app | wiring |", "| 3 | internal/gateway | door |",
			"| 1 | internal/adminapi | client |", "| 1 | internal/fleet | backends |", "| 1 | internal/wire | bytes |", "| 0 | internal/upstream | sockets |", "", "| a | b |",
		}, "\n"),
		"cmd/house/main.go": "package main\n\nimport (\n\"os\"\n\"example.com/house/internal/app\"\n)\n\nfunc main() { os.Exit(app.Run()) }\n",
		"internal/app/app.go": "package app\n\nimport \"example.com/house/internal/gateway\"\n\n// Run runs.\n" +
			"func Run() int { return gateway.Walk() }\n",
		"internal/app/wire.go":         "package app\n\nfunc wire() {\n" + strings.Repeat("\t_ = 0\n", 100) + "}\n",
		"internal/gateway/walk.go":     "package gateway\n\nimport \"example.com/house/internal/fleet\"\n\n// Walk walks.\nfunc Walk() int { return fleet.N }\n",
		"internal/fleet/fleet.go":      "package fleet\n\nimport _ \"example.com/house/internal/upstream\"\n\nconst N = 0\n",
		"internal/fleet/fleet_test.go": "package fleet\n\nimport \"time\"\n\nfunc wait() { time.Sleep(1) }\n",
		"internal/wire/wire.go":        "package wire\n",
		"internal/wire/wire_test.go":   "package wire\n\nfunc table() {\n\t_ = []int{\n" + strings.Repeat("\t\t0,\n", 90) + "\t}\n}\n",
		"internal/adminapi/client.go":  "package adminapi\n\nimport \"net/http\"\n\nvar c http.Client\n",
		"internal/upstream/up.go":      "package upstream\n\nimport \"net/http\"\n\nvar T http.Transport\n",
		"node_modules/x/util/bad.go":   "not Go at all",
	}
}

// build writes a tree into a temporary folder.
func build(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		full := filepath.Join(root, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(full), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// findings runs every rule over a tree of the given files.
func findings(t *testing.T, files map[string]string) []string {
	t.Helper()
	house, err := load(build(t, files))
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, r := range rules {
		all = append(all, r.check(house)...)
	}
	return all
}

func TestRulesAcceptAGoodHouse(t *testing.T) {
	if got := findings(t, sample()); len(got) > 0 {
		t.Errorf("a house that keeps the rules was blamed:\n%s", strings.Join(got, "\n"))
	}
}

func imports(names ...string) string {
	var b strings.Builder
	for _, name := range names {
		fmt.Fprintf(&b, "import _ %q\n", name)
	}
	return b.String()
}

func TestRulesFindWhatIsWrong(t *testing.T) {
	const own = "example.com/house/internal/"
	var many []string
	for i := range 10 {
		many = append(many, fmt.Sprintf("%sroom%d", own, i))
	}
	cases := []struct {
		name, file, content, want string
	}{
		{"a package without a floor", "internal/extra/e.go", "package extra\n", "internal/extra: not in the floor table"},
		{"a floor without a package", "internal/wire/wire.go", "", "internal/wire: in the floor table of ARCHITECTURE.md, but there is no such package"},
		{"sideways", "internal/wire/wire.go", "package wire\n" + imports(own+"fleet"), "imports internal/fleet sideways, both are on floor 1"},
		{"upward", "internal/wire/wire.go", "package wire\n" + imports(own+"app"), "imports internal/app upward, from floor 1 to 4"},
		{"into the unknown", "internal/wire/wire.go", "package wire\n" + imports(own+"nowhere"), "imports internal/nowhere, which is on no floor"},
		{"too many imports", "internal/gateway/more.go", "package gateway\n" + imports(many...), "internal/gateway: imports 11 of our packages, at most 9"},
		{"a server that dials its own admin API", "internal/gateway/more.go", "package gateway\n" + imports(own+"adminapi"), "imports internal/adminapi, which only"},
		{"a stranger at the sockets", "internal/gateway/more.go", "package gateway\n" + imports(own+"upstream"), "imports internal/upstream, which only"},
		{"a long file", "internal/wire/long.go", "package wire\n" + strings.Repeat("//\n", 500), "internal/wire/long.go: 501 lines"},
		{"a long test file", "internal/wire/long_test.go", "package wire\n" + strings.Repeat("//\n", 500), "internal/wire/long_test.go: 501 lines"},
		{"a long function", "internal/wire/long.go", "package wire\n\nfunc long() {\n" + strings.Repeat("\t_ = 0\n", 79) + "}\n", "internal/wire/long.go:3: function long has 81 lines"},
		{"a long test function", "internal/wire/long_test.go", "package wire\n\nfunc long() {\n" + strings.Repeat("\t_ = 0\n", 79) + "}\n", "internal/wire/long_test.go:3: function long has 81 lines"},
		{"a long walk", "internal/gateway/walk.go", "package gateway\n" + strings.Repeat("//\n", 149), "internal/gateway/walk.go: 150 lines"},
		{"no walk", "internal/gateway/walk.go", "", "internal/gateway/walk.go: missing"},
		{"an empty name", "internal/util/u.go", "package util\n", "package util is not named for what it provides"},
		{"an empty folder name", "test/helper/u.go", "package sound\n", "is not named for what it provides"},
		{"an exit below cmd", "internal/app/end.go", "package app\n\nimport \"os\"\n\nfunc end() { os.Exit(1) }\n", "internal/app/end.go:5: os.Exit: only cmd exits"},
		{"an exit by another name", "internal/app/end.go", "package app\n\nimport sys \"os\"\n\nvar end = sys.Exit\n", "internal/app/end.go:5: os.Exit: only cmd exits"},
		{"a fatal log", "internal/app/end.go", "package app\n\nimport \"log\"\n\nfunc end() { log.Fatalln(1) }\n", "log.Fatalln"},
		{"a sleep", "internal/app/nap.go", "package app\n\nimport \"time\"\n\nfunc nap() { time.Sleep(1) }\n", "time.Sleep: wait on a timer"},
		{"a second error writer", "internal/gateway/err.go", "package gateway\n\nimport \"net/http\"\n\nvar _ = http.Error\n", "http.Error: only fault renders"},
		{"a second client", "internal/app/get.go", "package app\n\nimport \"net/http\"\n\nvar c http.Client\n", "http.Client: only upstream opens"},
		{"an init", "internal/wire/i.go", "package wire\n\nfunc init() {}\n", "internal/wire/i.go:3: func init"},
		{"a marker", "internal/wire/m.go", "package wire\n\n// TO" + "DO: later.\n", "internal/wire/m.go:3: TO" + "DO in a comment"},
		{"a machine's path", "docs/x.md", "see\nit at /ro" + "ot/x\n", "docs/x.md:2:"},
	}
	for _, c := range cases {
		t.Run(strings.ReplaceAll(c.name, " ", "-"), func(t *testing.T) {
			files := sample()
			files[c.file] = c.content
			if c.content == "" {
				delete(files, c.file)
			}
			got := strings.Join(findings(t, files), "\n")
			if !strings.Contains(got, c.want) {
				t.Errorf("findings:\n%s\nwant one with %q", got, c.want)
			}
		})
	}
}

func TestLoadRefusesWhatItCannotJudge(t *testing.T) {
	cases := []struct{ name, file, content, want string }{
		{"no table", "ARCHITECTURE.md", "# A house\n", "no table"},
		{"a bad row", "ARCHITECTURE.md", "| floor | package | what it is for |\n|---|---|---|\n| top | cmd/house | main |\n", "row"},
		{"a package twice", "ARCHITECTURE.md", "| floor | package | what it is for |\n|---|---|---|\n| 1 | a | x |\n| 2 | a | x |\n", "two rows"},
		{"a source that does not parse", "internal/wire/wire.go", "package", "wire.go"},
		{"no module", "go.mod", "\n", "no module"},
	}
	for _, c := range cases {
		t.Run(strings.ReplaceAll(c.name, " ", "-"), func(t *testing.T) {
			files := sample()
			files[c.file] = c.content
			if _, err := load(build(t, files)); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
}
