package arch

import (
	"fmt"
	"go/ast"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
)

const (
	maxFileLines     = 500
	maxFunctionLines = 80
	maxOwnImports    = 9
	maxWalkLines     = 149

	appPackage = "internal/app"
	wiringFile = "internal/app/wire.go"
	walkFile   = "internal/gateway/walk.go"
)

// rule is one thing that the code may not do. check returns one finding a line, each naming a place and what is wrong with it.
type rule struct {
	name  string
	check func(*tree) []string
}

var rules = []rule{
	{"every package is on a floor and every floor row is a package", everyPackageHasAFloor},
	{"imports run strictly downward", importsRunDown},
	{"a package imports few others", importsAreFew},
	{"guarded packages are imported by their keepers alone", guardedImports},
	{"files are short", filesAreShort},
	{"functions are short", functionsAreShort},
	{"the walk fits on a page", walkFitsOnAPage},
	{"package names say what they provide", packageNames},
	{"calls stay in the room that owns them", ownedCalls},
	{"no package-level init", noInit},
	{"no work markers in comments", noMarkers},
	{"no path of one machine", noMachinePaths},
}

// code yields the sources that end in the binary: not tests, not the packages of test/.
func (t *tree) code() []source {
	return slices.DeleteFunc(slices.Clone(t.sources), func(s source) bool {
		top, _, _ := strings.Cut(s.path, "/")
		return s.test || !slices.Contains([]string{"api", "cmd", "internal"}, top)
	})
}

func everyPackageHasAFloor(t *tree) []string {
	var findings []string
	found := map[string]bool{}
	for _, s := range t.code() {
		found[s.dir] = true
	}
	for _, dir := range slices.Sorted(maps.Keys(found)) {
		if _, ok := t.floors[dir]; !ok {
			findings = append(findings, dir+": not in the floor table of ARCHITECTURE.md")
		}
	}
	for _, dir := range slices.Sorted(maps.Keys(t.floors)) {
		if !found[dir] {
			findings = append(findings, dir+": in the floor table of ARCHITECTURE.md, but there is no such package")
		}
	}
	return findings
}

func importsRunDown(t *tree) []string {
	var findings []string
	for _, s := range t.code() {
		for _, p := range s.imports() {
			target, ok := t.own(p)
			if !ok {
				continue
			}
			from, fromOK := t.floors[s.dir]
			to, toOK := t.floors[target]
			switch {
			case !toOK:
				findings = append(findings, fmt.Sprintf("%s: imports %s, which is on no floor", s.path, target))
			case fromOK && to == from:
				findings = append(findings, fmt.Sprintf("%s: imports %s sideways, both are on floor %d", s.path, target, to))
			case fromOK && to > from:
				findings = append(findings, fmt.Sprintf("%s: imports %s upward, from floor %d to %d", s.path, target, from, to))
			}
		}
	}
	return findings
}

func importsAreFew(t *tree) []string {
	imported := map[string]map[string]bool{}
	for _, s := range t.code() {
		for _, p := range s.imports() {
			if target, ok := t.own(p); ok && s.dir != appPackage {
				if imported[s.dir] == nil {
					imported[s.dir] = map[string]bool{}
				}
				imported[s.dir][target] = true
			}
		}
	}
	var findings []string
	for _, dir := range slices.Sorted(maps.Keys(imported)) {
		if n := len(imported[dir]); n > maxOwnImports {
			findings = append(findings, fmt.Sprintf("%s: imports %d of our packages, at most %d", dir, n, maxOwnImports))
		}
	}
	return findings
}

// keepers are the packages that alone may import a guarded one.
var keepers = map[string][]string{
	// Those that ask elsewhere whose a credential is dial, too, and need the same guard: one host, no redirect, deadlines.
	"internal/upstream":  {"internal/fleet", "internal/proxy", "internal/auth/userorg", "internal/auth/oidc", appPackage},
	"internal/telemetry": {appPackage, "cmd/api-router"},
	"internal/adminapi":  {"internal/admin", "internal/admin/console", appPackage, "cmd/api-router"}, // its client dials: no room of the server may
}

func guardedImports(t *tree) []string {
	var findings []string
	for _, s := range t.code() {
		for _, p := range s.imports() {
			target, _ := t.own(p)
			if allowed, guarded := keepers[target]; guarded && !slices.Contains(allowed, s.dir) {
				findings = append(findings, fmt.Sprintf("%s: imports %s, which only %s may", s.path, target, strings.Join(allowed, ", ")))
			}
		}
	}
	return findings
}

func filesAreShort(t *tree) []string {
	var findings []string
	for _, s := range t.sources {
		if s.lines > maxFileLines {
			findings = append(findings, fmt.Sprintf("%s: %d lines, at most %d", s.path, s.lines, maxFileLines))
		}
	}
	return findings
}

func functionsAreShort(t *tree) []string {
	var findings []string
	for _, s := range t.sources {
		if s.path == wiringFile {
			continue
		}
		for _, decl := range s.file.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok {
				continue
			}
			first, last := s.fset.Position(f.Pos()).Line, s.fset.Position(f.End()).Line
			n := last - first + 1
			if s.test {
				n -= s.tableLines(f)
			}
			if n > maxFunctionLines {
				findings = append(findings, fmt.Sprintf("%s:%d: function %s has %d lines, at most %d", s.path, first, f.Name.Name, n, maxFunctionLines))
			}
		}
	}
	return findings
}

// tableLines counts the lines of the composite literals in a function: the cases of a table test are data.
func (s source) tableLines(f *ast.FuncDecl) int {
	lines := 0
	ast.Inspect(f, func(n ast.Node) bool {
		table, ok := n.(*ast.CompositeLit)
		if ok {
			lines += s.fset.Position(table.End()).Line - s.fset.Position(table.Pos()).Line
		}
		return !ok
	})
	return lines
}

func walkFitsOnAPage(t *tree) []string {
	for _, s := range t.sources {
		if s.path == walkFile {
			if s.lines > maxWalkLines {
				return []string{fmt.Sprintf("%s: %d lines, at most %d", walkFile, s.lines, maxWalkLines)}
			}
			return nil
		}
	}
	return []string{walkFile + ": missing"}
}

// emptyNames say nothing about what a package provides.
var emptyNames = []string{"util", "utils", "common", "core", "types", "manager", "helper", "helpers", "impl", "base", "misc", "shared"}

func packageNames(t *tree) []string {
	var findings []string
	for _, s := range t.sources {
		if slices.Contains(emptyNames, s.file.Name.Name) || slices.Contains(emptyNames, path.Base(s.dir)) {
			findings = append(findings, fmt.Sprintf("%s: package %s is not named for what it provides", s.path, s.file.Name.Name))
		}
	}
	return findings
}

// owned is a set of names of one package that only some of our packages may use.
type owned struct {
	pkg    string
	names  *regexp.Regexp
	owners []string // packages, with those below them
	why    string
}

func (o owned) by(dir string) bool {
	return slices.ContainsFunc(o.owners, func(owner string) bool { return dir == owner || strings.HasPrefix(dir, owner+"/") })
}

var ownedNames = []owned{
	{"os", regexp.MustCompile(`^Exit$`), []string{"cmd"}, "only cmd exits"},
	{"log", regexp.MustCompile(`^(Fatal|Panic|Print)`), nil, "log through the *slog.Logger that was passed in; only cmd exits"},
	{"time", regexp.MustCompile(`^(Sleep|Tick)$`), nil, "wait on a timer and the context together"},
	{"net/http", regexp.MustCompile(`^(Error|NotFound|NotFoundHandler)$`), []string{"internal/fault"}, "only fault renders an error"},
	{
		"net/http", regexp.MustCompile(`^(Client|Transport|DefaultClient|DefaultTransport|Get|Head|Post|PostForm)$`),
		[]string{"internal/upstream", "internal/adminapi", "internal/telemetry"},
		"only upstream opens connections: it has the dial guard and the deadlines; adminapi has the command line's client, telemetry its collector",
	},
	{"net/http/httputil", regexp.MustCompile(`.`), nil, "proxy is the only proxy"},
}

func ownedCalls(t *tree) []string {
	var findings []string
	for _, s := range t.code() {
		for _, u := range s.uses() {
			for _, o := range ownedNames {
				if u.pkg == o.pkg && o.names.MatchString(u.name) && !o.by(s.dir) {
					findings = append(findings, fmt.Sprintf("%s:%d: %s.%s: %s", s.path, u.line, path.Base(u.pkg), u.name, o.why))
				}
			}
		}
	}
	return findings
}

func noInit(t *tree) []string {
	var findings []string
	for _, s := range t.code() {
		for _, decl := range s.file.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				findings = append(findings, fmt.Sprintf("%s:%d: func init runs unseen; wire it in app", s.path, s.fset.Position(f.Pos()).Line))
			}
		}
	}
	return findings
}

// The patterns are written so that this file does not match them.
var (
	marker      = regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|XX` + `X|HA` + `CK)\b`)
	machinePath = regexp.MustCompile(`(?:^|[\s"'` + "`" + `=:(])/(?:root|home|Users)/\w`)
)

func noMarkers(t *tree) []string {
	var findings []string
	for _, s := range t.sources {
		for _, group := range s.file.Comments {
			for _, c := range group.List {
				if m := marker.FindString(c.Text); m != "" {
					findings = append(findings, fmt.Sprintf("%s:%d: %s in a comment: do it or file it", s.path, s.fset.Position(c.Pos()).Line, m))
				}
			}
		}
	}
	return findings
}

func noMachinePaths(t *tree) []string {
	var findings []string
	for _, name := range slices.Sorted(maps.Keys(t.texts)) {
		n := 0
		for line := range strings.Lines(t.texts[name]) {
			n++
			if m := machinePath.FindString(line); m != "" {
				findings = append(findings, fmt.Sprintf("%s:%d: %s is a path of one machine", name, n, strings.TrimSpace(m)))
			}
		}
	}
	return findings
}
