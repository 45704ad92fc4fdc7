package app

import (
	"fmt"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// file applies the configuration file. It walks the parsed document along the table, so that every unknown key and
// every bad value is found in one go, each with its position.
func (l *loader) file(name string, data []byte) {
	parsed, err := parser.ParseBytes(data, 0)
	if err != nil {
		l.problem(name, "not valid YAML: %s", strings.TrimSpace(yaml.FormatError(err, false, false)))
		return
	}
	w := walk{loader: l, name: name}
	for i, document := range parsed.Docs {
		switch {
		case document.Body == nil:
		case i > 0:
			l.problem(w.at(document.Body), "a configuration is one YAML document; policies and backends belong to policy.file.path")
			return
		default:
			w.node("", document.Body)
		}
	}
}

// maxQuoted bounds how much of what stands in the place of settings is shown, in bytes: the whole of a file that is none may stand there.
const maxQuoted = 40

// walk is the descent through one configuration file.
type walk struct {
	*loader
	name string
}

func (w walk) at(n ast.Node) string {
	if token := n.GetToken(); token != nil && token.Position != nil {
		return fmt.Sprintf("%s:%d:%d", w.name, token.Position.Line, token.Position.Column)
	}
	return w.name
}

func (w walk) node(path string, n ast.Node) {
	setting, isSetting := w.byPath[path]
	switch n := n.(type) {
	case *ast.NullNode: // A key without a value keeps its default.
	case *ast.MappingNode:
		if isSetting {
			w.problem(w.at(n), "%s: has a value, not settings below it", path)
			return
		}
		for _, entry := range n.Values {
			w.entry(path, entry)
		}
	case *ast.MappingValueNode:
		w.entry(path, n)
	case *ast.SequenceNode:
		if path != pathSinks {
			w.problem(w.at(n), "%s: is not a list", describe(path))
			return
		}
		w.sinks(n)
	default:
		text, ok := scalar(n)
		switch {
		case !ok:
			w.problem(w.at(n), "%s: anchors, aliases and tags are not supported here", describe(path))
		case !isSetting:
			w.problem(w.at(n), "%s: expected settings below it, not %q", describe(path), text[:min(len(text), maxQuoted)])
		default:
			w.set(setting, text, w.at(n))
		}
	}
}

func (w walk) entry(path string, entry *ast.MappingValueNode) {
	key := entry.Key.GetToken().Value
	if path != "" {
		key = path + "." + key
	}
	if !w.known(key) {
		w.problem(w.at(entry.Key), "%s: there is no such setting%s", key, w.suggest(key))
		return
	}
	w.node(key, entry.Value)
}

// sinks reads the one list that there is.
func (w walk) sinks(n *ast.SequenceNode) {
	list := make([]Sink, 0, len(n.Values))
	for i, item := range n.Values {
		path := fmt.Sprintf("%s[%d]", pathSinks, i)
		var entries []*ast.MappingValueNode
		switch item := item.(type) {
		case *ast.MappingNode:
			entries = item.Values
		case *ast.MappingValueNode:
			entries = []*ast.MappingValueNode{item}
		default:
			w.problem(w.at(item), "%s: expected { type: jsonl, path: FILE }", path)
			continue
		}
		var s Sink
		before := len(w.problems)
		for _, entry := range entries {
			text, ok := scalar(entry.Value)
			switch key := entry.Key.GetToken().Value; {
			case key == "type" && ok:
				s.Type = text
			case key == "path" && ok:
				s.Path = text
			case ok:
				w.problem(w.at(entry.Key), "%s.%s: there is no such setting; a sink has type and path", path, key)
			default:
				w.problem(w.at(entry.Value), "%s.%s: expected one word", path, key)
			}
		}
		if err := s.check(); err != nil && len(w.problems) == before {
			w.problem(w.at(item), "%s: %v", path, err)
		}
		list = append(list, s)
	}
	w.config.Usage.Sinks = list
	w.origin[pathSinks] = w.at(n)
}

// known reports whether path is a setting or leads to one.
func (l *loader) known(path string) bool {
	return slices.ContainsFunc(settings, func(s setting) bool {
		return s.path == path || strings.HasPrefix(s.path, path+".")
	})
}

// suggest names the setting that was probably meant.
func (l *loader) suggest(path string) string {
	best, bestDistance := "", 3
	for _, s := range settings {
		for known := s.path; known != ""; {
			if d := distance(path, known); d < bestDistance {
				best, bestDistance = known, d
			}
			cut := strings.LastIndexByte(known, '.')
			known = known[:max(cut, 0)]
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %s?", best)
}

// distance is the number of single-byte edits between a and b (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

func describe(path string) string {
	if path == "" {
		return "the configuration"
	}
	return path
}

// scalar gives the text of a plain, quoted or block value.
func scalar(n ast.Node) (string, bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return strings.TrimSpace(n.Value.Value), true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return n.GetToken().Value, true
	default:
		return "", false
	}
}
