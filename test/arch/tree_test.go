package arch

import (
	"bytes"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// tree is everything that the rules look at: the Go sources, the texts beside them and the floor table.
type tree struct {
	root    string
	module  string
	sources []source
	texts   map[string]string // path to content: sources, pages, scripts
	floors  map[string]int    // package to floor, from ARCHITECTURE.md
}

// source is one parsed Go file. Paths are relative to the root, with slashes.
type source struct {
	path  string
	dir   string
	test  bool
	lines int
	fset  *token.FileSet
	file  *ast.File
}

// use is one mention of an imported package's name, as in os.Exit.
type use struct {
	pkg, name string
	line      int
}

var textSuffixes = []string{".go", ".md", ".yaml", ".yml", ".sh", ".js", ".mjs", ".py", ".json", ".toml"}

// load reads the tree below root. It fails on what it cannot read or parse: a rule must not pass because a file was skipped.
func load(root string) (*tree, error) {
	t := &tree{root: root, texts: map[string]string{}}
	gomod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		return nil, err
	}
	match := regexp.MustCompile(`(?m)^module\s+(\S+)`).FindSubmatch(gomod)
	if match == nil {
		return nil, errors.New("go.mod names no module")
	}
	t.module = string(match[1])
	page, err := os.ReadFile(filepath.Join(root, "ARCHITECTURE.md"))
	if err != nil {
		return nil, err
	}
	if t.floors, err = parseFloors(string(page)); err != nil {
		return nil, fmt.Errorf("ARCHITECTURE.md: %w", err)
	}
	err = filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		if entry.IsDir() {
			if skipped(rel) {
				return fs.SkipDir
			}
			return nil
		}
		return t.read(rel)
	})
	return t, err
}

// skipped tells the folders that hold nothing of ours: build output, tools, fetched packages, and samples for tests.
func skipped(rel string) bool {
	base := path.Base(rel)
	switch base {
	case ".", ".ci", ".github":
		return false
	case "node_modules", "testdata", "bin", "dist":
		return true
	}
	return strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_")
}

func (t *tree) read(rel string) error {
	base := path.Base(rel)
	isText := slices.Contains(textSuffixes, path.Ext(rel)) || base == "Makefile" || rel == ".ci/run"
	if !isText || base == "package-lock.json" {
		return nil
	}
	content, err := os.ReadFile(filepath.Join(t.root, filepath.FromSlash(rel)))
	if err != nil {
		return err
	}
	t.texts[rel] = string(content)
	if path.Ext(rel) != ".go" {
		return nil
	}
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, rel, content, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	t.sources = append(t.sources, source{
		path: rel, dir: path.Dir(rel), test: strings.HasSuffix(rel, "_test.go"),
		lines: bytes.Count(content, []byte("\n")), fset: fset, file: file,
	})
	return nil
}

// parseFloors reads the table under the header | floor | package | what it is for |.
func parseFloors(page string) (map[string]int, error) {
	floors := map[string]int{}
	inside := false
	for line := range strings.Lines(page) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		switch {
		case slices.Equal(cells, []string{"floor", "package", "what it is for"}):
			inside = true
		case !inside || strings.HasPrefix(cells[0], "---"):
		case len(cells) != 3:
			inside = false
		default:
			floor, err := strconv.Atoi(cells[0])
			if err != nil || cells[1] == "" || cells[2] == "" {
				return nil, fmt.Errorf("row %q is not | floor | package | what it is for |", strings.TrimSpace(line))
			}
			if _, twice := floors[cells[1]]; twice {
				return nil, fmt.Errorf("package %s has two rows", cells[1])
			}
			floors[cells[1]] = floor
		}
	}
	if len(floors) == 0 {
		return nil, errors.New("no table | floor | package | what it is for |")
	}
	return floors, nil
}

// own turns an import path into a package of this module ("internal/wire"), or says that it is none.
func (t *tree) own(importPath string) (string, bool) {
	return strings.CutPrefix(importPath, t.module+"/")
}

// imports lists the import paths of a source.
func (s source) imports() []string {
	paths := make([]string, 0, len(s.file.Imports))
	for _, spec := range s.file.Imports {
		if p, err := strconv.Unquote(spec.Path.Value); err == nil {
			paths = append(paths, p)
		}
	}
	return paths
}

// uses lists every pkg.Name in a source where pkg is an import. A local variable that shadows the import counts as a use:
// the rules are better off without such names.
func (s source) uses() []use {
	byName := map[string]string{}
	for _, spec := range s.file.Imports {
		p, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			continue
		}
		name := path.Base(p)
		if spec.Name != nil {
			name = spec.Name.Name
		}
		byName[name] = p
	}
	var found []use
	ast.Inspect(s.file, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if x, ok := sel.X.(*ast.Ident); ok && byName[x.Name] != "" {
			found = append(found, use{byName[x.Name], sel.Sel.Name, s.fset.Position(sel.Pos()).Line})
		}
		return true
	})
	return found
}

// moduleRoot is the folder of go.mod, above the folder in which Go runs a test.
func moduleRoot(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			t.Fatal("no go.mod above the test")
		}
		dir = parent
	}
}
