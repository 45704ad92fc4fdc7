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
		if isSetting {
			if l, ok := setting.value(&w.config).(list); ok {
				w.list(setting, l, n)
				return
			}
		}
		w.problem(w.at(n), "%s: is not a list", describe(path))
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

// list reads a setting of several entries.
func (w walk) list(s setting, l list, n *ast.SequenceNode) {
	_, form, fields := l.entry()
	add, keep := l.begin()
	before := len(w.problems)
	for i, item := range n.Values {
		path := fmt.Sprintf("%s[%d]", s.path, i)
		word, isWord := scalar(item)
		pairs, isMapping := mapping(item)
		if isMapping && len(fields) == 0 {
			word, isWord = joined(pairs)
		}
		var entry map[string]string
		switch {
		case isWord && len(fields) == 0:
			entry = map[string]string{"": word}
		case isMapping && len(fields) > 0:
			if entry = w.fields(path, l, pairs); entry == nil {
				continue
			}
		default:
			w.problem(w.at(item), "%s: expected %s", path, form)
			continue
		}
		if err := add(entry); err != nil {
			w.problem(w.at(item), "%s: %v", path, err)
		}
	}
	if len(w.problems) == before {
		keep()
		w.origin[s.path] = w.at(n)
	}
}

// joined is the word that the parser took for a pair: within braces, it cuts env:NAME in two, although no space follows the colon.
func joined(pairs []*ast.MappingValueNode) (string, bool) {
	if len(pairs) != 1 {
		return "", false
	}
	key := pairs[0].Key.GetToken()
	text, ok := scalar(pairs[0].Value)
	value := pairs[0].Value.GetToken()
	if !ok || key.Position == nil || value.Position == nil || value.Position.Line != key.Position.Line ||
		value.Position.Column != key.Position.Column+len(key.Value)+len(":") {
		return "", false
	}
	return key.Value + ":" + text, true
}

// fields reads one entry of a list; nil when there is a problem.
func (w walk) fields(path string, l list, pairs []*ast.MappingValueNode) map[string]string {
	noun, _, fields := l.entry()
	known := strings.Join(fields[:len(fields)-1], ", ") + " and " + fields[len(fields)-1]
	entry := map[string]string{}
	before := len(w.problems)
	for _, pair := range pairs {
		text, ok := scalar(pair.Value)
		switch key := pair.Key.GetToken().Value; {
		case ok && slices.Contains(fields, key):
			entry[key] = text
		case ok:
			w.problem(w.at(pair.Key), "%s.%s: there is no such setting; %s has %s", path, key, noun, known)
		default:
			w.problem(w.at(pair.Value), "%s.%s: expected one word", path, key)
		}
	}
	if len(w.problems) > before {
		return nil
	}
	return entry
}

func mapping(n ast.Node) ([]*ast.MappingValueNode, bool) {
	switch n := n.(type) {
	case *ast.MappingNode:
		return n.Values, true
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{n}, true
	default:
		return nil, false
	}
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
