package policy

import (
	"cmp"
	"encoding"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// absentFields are what documents will have one day. Saying so is kinder than "unknown field".
var absentFields = map[string]string{
	"stream.continuation": "stream.continuation is not available in this version: leave it out",
}

// decoder reads one syntax tree into a document. It goes on after a problem, to find them all.
type decoder struct {
	chunk    chunk
	file     string
	key      key // of the document, as its place says; zero where that says nothing
	kind     Kind
	id       string
	at       map[string]*token.Position // where each field's value stands, by its path
	mistyped map[string]bool            // the paths of values that could not be read
	problems []Problem
}

// filler is a document or a part of one that has defaults.
type filler interface{ fill() }

func (d *decoder) addf(p *token.Position, format string, args ...any) {
	problem := Problem{Kind: d.kind, ID: d.id, File: d.file, Message: fmt.Sprintf(format, args...)}
	problem.Line, problem.Column = d.chunk.position(p)
	d.problems = append(d.problems, problem)
}

func (d *decoder) document(body ast.Node) (Document, []Problem) {
	d.at[""] = start(body)
	d.kind = d.key.kind
	if idForm.MatchString(d.key.id) {
		d.id = d.key.id
	}
	root, ok := body.(*ast.MappingNode)
	if !ok {
		d.addf(start(body), "a document is a list of fields%s", d.begins())
		return Document{}, d.problems
	}
	if (d.kind == KindRoutingPolicy || d.kind == "") && isLegacy(root) {
		return d.legacy(root)
	}
	if id := textOf(field(root, "id")); d.key.id == "" && idForm.MatchString(id) {
		d.id = id
	}
	if !d.named(root) {
		return Document{}, d.problems
	}
	document := blank(d.kind)
	d.value("", root, reflect.ValueOf(document.content()).Elem())
	switch name := document.name(); {
	case *name == "" && d.key.id != "":
		*name = d.key.id
	case *name == "" && document.Mark != nil:
		*name = MarkID(document.Mark.Backend, document.Mark.Model, document.Mark.Organization)
	}
	return d.finish(document)
}

// finish gives the document its place, and reports what is wrong with it, each where it stands.
func (d *decoder) finish(document Document) (Document, []Problem) {
	document.File = d.file
	document.Line, _ = d.chunk.position(d.at[""])
	document.content().check(flaws{func(path, message string) {
		if !d.unread(path) {
			d.addf(d.place(path), "%s", message)
		}
	}})
	if len(d.problems) == 0 {
		document.seal()
	}
	return document, d.problems
}

// begins says how a document begins, where its key does not say what it is.
func (d *decoder) begins() string {
	if d.kind != "" {
		return ""
	}
	return " that begins with " + kindChoices
}

const kindChoices = "kind: " + string(KindBackend) + ", " + string(KindRoutingPolicy) + ", " + string(KindPrice) + " or " + string(KindMark)

// named sees to it that kind and id are known, and that they are what the document's key says.
func (d *decoder) named(root *ast.MappingNode) bool {
	before := len(d.problems)
	if node := field(root, "kind"); d.kind == "" {
		d.chooseKind(root, node)
	} else if node != nil && Kind(textOf(node)) != d.kind {
		d.addf(start(node), "kind must be %s here, as the key says, or be left out", d.kind)
	}
	node := field(root, "id")
	switch {
	case d.key.id == "":
	case d.kind == KindRoutingPolicy && strings.Contains(d.key.id, "/"):
		d.addf(start(root), "the key names an organization and a model, which only policies of the earlier service's form do: "+
			"write this one at a key that ends in its id")
	case d.id == "":
		d.addf(start(root), "the document's key must end in its id, which %s", idRule)
	case node != nil && node.Type() != ast.NullType && textOf(node) != d.id:
		d.addf(start(node), "id must be %q here, as the key says, or be left out", d.id)
	}
	return len(d.problems) == before
}

// chooseKind takes the kind from the document, or reports it.
func (d *decoder) chooseKind(root *ast.MappingNode, node ast.Node) {
	kind := Kind(textOf(node))
	switch {
	case slices.Contains(Kinds(), kind):
		d.kind = kind
	case kind == "":
		d.addf(start(cmp.Or(node, ast.Node(root))), "kind is missing: write %s", kindChoices)
	default:
		var known []string
		for _, k := range Kinds() {
			known = append(known, string(k))
		}
		d.addf(start(node), "kind %s is unknown%s", quote(string(kind)), suggest(string(kind), known))
	}
}

// parent cuts the last step off a path, and gives "" for the document itself.
func parent(path string) string { return path[:max(0, strings.LastIndexAny(path, ".["))] }

// place finds where a field stands, or the nearest thing around it that is there.
func (d *decoder) place(path string) *token.Position {
	for {
		if p, ok := d.at[path]; ok {
			return p
		}
		path = parent(path)
	}
}

// unread says that a field, or what it is part of, has a value of a wrong type: it is not also missing.
func (d *decoder) unread(path string) bool {
	for ; path != ""; path = parent(path) {
		if d.mistyped[path] {
			return true
		}
	}
	return false
}

// mistakef is addf for a value that cannot be read.
func (d *decoder) mistakef(path string, node ast.Node, format string, args ...any) {
	if d.mistyped == nil {
		d.mistyped = make(map[string]bool)
	}
	d.mistyped[path] = true
	d.addf(start(node), "%s %s", path, fmt.Sprintf(format, args...))
}

// value reads node into v, which has its defaults. A null leaves them.
func (d *decoder) value(path string, node ast.Node, v reflect.Value) {
	d.at[path] = start(node)
	if f, ok := reflect.TypeAssert[filler](v.Addr()); ok {
		f.fill()
	}
	if node.Type() == ast.NullType {
		return
	}
	if text, ok := reflect.TypeAssert[encoding.TextUnmarshaler](v.Addr()); ok {
		d.text(path, node, text)
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		if m, ok := d.mapping(path, node); ok {
			d.fields(path, m, v)
		}
	case reflect.Map:
		if m, ok := d.mapping(path, node); ok {
			d.entries(path, m, v)
		}
	case reflect.Slice:
		list, ok := node.(*ast.SequenceNode)
		if !ok {
			d.mistakef(path, node, "must be a list, as in [a, b]")
			return
		}
		if len(list.Values) == 0 { // The same as none.
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), len(list.Values), len(list.Values)))
		for i, element := range list.Values {
			d.value(path+"["+strconv.Itoa(i)+"]", element, v.Index(i))
		}
	case reflect.Int:
		n, err := strconv.Atoi(node.GetToken().Value)
		if node.Type() != ast.IntegerType || err != nil || leadingZero(node.GetToken().Value) {
			d.mistakef(path, node, "must be a whole decimal number")
			return
		}
		v.SetInt(int64(n))
	case reflect.Bool:
		b, ok := node.(*ast.BoolNode)
		if !ok {
			d.mistakef(path, node, "must be true or false")
			return
		}
		v.SetBool(b.Value)
	case reflect.String:
		if s, ok := d.string(path, node); ok {
			v.SetString(s)
		}
	default:
		panic("policy: a document's struct has a field that the decoder cannot read: " + path)
	}
}

func leadingZero(s string) bool {
	s = strings.TrimLeft(s, "+-")
	return len(s) > 1 && s[0] == '0'
}

// text reads a value that knows its own form. A bare number is text here: a duration of 0 needs no unit, and an amount no quotes.
func (d *decoder) text(path string, node ast.Node, into encoding.TextUnmarshaler) {
	s, ok := node.GetToken().Value, node.Type() == ast.IntegerType || node.Type() == ast.FloatType
	if !ok {
		if s, ok = d.string(path, node); !ok {
			return
		}
	}
	if err := into.UnmarshalText([]byte(s)); err != nil {
		if _, ok := into.(*time.Time); ok {
			err = errTime // The library's own repeats the text, and means its programmers.
		}
		d.mistakef(path, node, "%s", err)
	}
}

var errTime = errors.New("must be a time with its zone, such as 2026-01-01T00:00:00Z")

// string reads text. It does not repeat a wrong value: it may be a secret.
func (d *decoder) string(path string, node ast.Node) (string, bool) {
	switch n := node.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return n.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		d.mistakef(path, node, "must be text: put it in quotes")
	default:
		d.mistakef(path, node, "must be text")
	}
	return "", false
}

func (d *decoder) mapping(path string, node ast.Node) (*ast.MappingNode, bool) {
	m, ok := node.(*ast.MappingNode)
	if !ok {
		d.mistakef(path, node, "must hold fields, as in {a: b}")
	}
	return m, ok
}

// each walks the fields of m and refuses a name that is written twice.
func (d *decoder) each(m *ast.MappingNode, visit func(name string, key, value ast.Node)) {
	seen := make(map[string]*token.Position, len(m.Values))
	for _, pair := range m.Values {
		name, ok := pair.Key.(*ast.StringNode)
		if !ok {
			d.addf(start(pair.Key), "a field's name must be text: put it in quotes")
			continue
		}
		if first, twice := seen[name.Value]; twice {
			line, _ := d.chunk.position(first)
			d.addf(start(name), "%s is written twice, first in line %d", quote(name.Value), line)
			continue
		}
		seen[name.Value] = start(name)
		visit(name.Value, name, pair.Value)
	}
}

func (d *decoder) fields(path string, m *ast.MappingNode, v reflect.Value) {
	byName := make(map[string]int, v.NumField())
	names := make([]string, 0, v.NumField())
	for i := range v.NumField() {
		if !v.Type().Field(i).IsExported() {
			continue
		}
		name := jsonName(v.Type().Field(i))
		byName[name] = i
		names = append(names, name)
	}
	d.each(m, func(name string, key, value ast.Node) {
		if path == "" && name == "kind" {
			return
		}
		full := strings.TrimPrefix(path+"."+name, ".")
		i, known := byName[name]
		switch absent := absentFields[full]; {
		case known:
			d.value(full, value, v.Field(i))
		case absent != "":
			d.addf(start(key), "%s", absent)
		case path == "" && d.kind == KindRoutingPolicy && isLegacyName(name):
			d.addf(start(key), "%s is a field of the earlier service's form: write all of the policy in one form", quote(name))
		default:
			where := ""
			if path != "" {
				where = " in " + path
			}
			d.addf(start(key), "unknown field %s%s%s", quote(name), where, suggest(name, names))
		}
	})
}

func jsonName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name
}

func (d *decoder) entries(path string, m *ast.MappingNode, v reflect.Value) {
	if len(m.Values) == 0 {
		return
	}
	v.Set(reflect.MakeMapWithSize(v.Type(), len(m.Values)))
	d.each(m, func(name string, _, value ast.Node) {
		element := reflect.New(v.Type().Elem()).Elem()
		d.value(path+"."+name, value, element)
		v.SetMapIndex(reflect.ValueOf(name), element)
	})
}

// field finds a field of m by its name, nil if there is none.
func field(m *ast.MappingNode, name string) ast.Node {
	for _, pair := range m.Values {
		if key, ok := pair.Key.(*ast.StringNode); ok && key.Value == name {
			return pair.Value
		}
	}
	return nil
}

func textOf(node ast.Node) string {
	if s, ok := node.(*ast.StringNode); ok {
		return s.Value
	}
	return ""
}

// start is where a node begins: a block mapping's own token is its first colon.
func start(node ast.Node) *token.Position {
	if m, ok := node.(*ast.MappingNode); ok && !m.IsFlowStyle && len(m.Values) > 0 {
		return m.Values[0].Key.GetToken().Position
	}
	return node.GetToken().Position
}

// quote makes a name from a document fit for a message of one line.
func quote(name string) string {
	const limit = 64
	if len(name) > limit {
		name = strings.ToValidUTF8(name[:limit], "") + "…"
	}
	return strconv.Quote(name)
}
