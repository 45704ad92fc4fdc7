package policy

import (
	"bytes"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
)

// JSON writes a document in the form of this service as compact JSON: with its kind and id, and without the fields that have
// their defaults, so that it follows when a later version has others.
func JSON(d Document) ([]byte, error) {
	c := d.content()
	if c == nil {
		return nil, errors.New("a document is one backend, one routing policy, one price or one mark")
	}
	if d.Price != nil {
		price := *d.Price
		price.USDPerMillion.lean()
		c = &price
	}
	var w bytes.Buffer
	fmt.Fprintf(&w, `{"kind":%q`, d.Kind())
	v := reflect.ValueOf(c).Elem()
	if err := writeFields(&w, v, defaults(v.Type()), ","); err != nil {
		return nil, err
	}
	w.WriteByte('}')
	return w.Bytes(), nil
}

// defaults is what a value of this type has where a document says nothing.
func defaults(of reflect.Type) reflect.Value {
	v := reflect.New(of)
	if f, ok := reflect.TypeAssert[filler](v); ok {
		f.fill()
	}
	return v.Elem()
}

// writeFields writes the fields of a struct that are not as in without. lead comes before the first.
func writeFields(w *bytes.Buffer, v, without reflect.Value, lead string) error {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if !f.IsExported() || reflect.DeepEqual(v.Field(i).Interface(), without.Field(i).Interface()) {
			continue
		}
		fmt.Fprintf(w, "%s%q:", lead, jsonName(f))
		lead = ","
		if err := writeValue(w, v.Field(i), without.Field(i)); err != nil {
			return err
		}
	}
	return nil
}

func writeValue(w *bytes.Buffer, v, without reflect.Value) error {
	_, asJSON := reflect.TypeAssert[json.Marshaler](v)
	_, asText := reflect.TypeAssert[encoding.TextMarshaler](v)
	switch {
	case asJSON, asText:
	case v.Kind() == reflect.Struct:
		w.WriteByte('{')
		if err := writeFields(w, v, without, ""); err != nil {
			return err
		}
		w.WriteByte('}')
		return nil
	case v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Struct:
		w.WriteByte('[')
		for i := range v.Len() {
			if i > 0 {
				w.WriteByte(',')
			}
			if err := writeValue(w, v.Index(i), defaults(v.Type().Elem())); err != nil {
				return err
			}
		}
		w.WriteByte(']')
		return nil
	}
	text, err := json.Marshal(v.Interface())
	w.Write(text)
	return err
}

// ToJSON turns one YAML or JSON document into JSON as it was written: it adds no defaults, drops nothing that it does not know, and
// keeps every number digit for digit. It fails where the text is not one document that JSON can hold, and says where.
func ToJSON(text []byte) (json.RawMessage, error) {
	if !utf8.Valid(text) {
		return nil, errors.New("the document is not UTF-8 text")
	}
	if len(text) > maxDocument {
		return nil, fmt.Errorf("the document is larger than %d KiB", maxDocument>>10)
	}
	if json.Valid(text) {
		var w bytes.Buffer
		err := json.Compact(&w, text)
		return w.Bytes(), err
	}
	var found json.RawMessage
	var err error
	count := 0
	for _, c := range split(bytes.TrimPrefix(text, []byte("\uFEFF"))) {
		if c.blank() {
			continue
		}
		if count++; count > 1 {
			return nil, fmt.Errorf("line %d: there is a second document", c.line)
		}
		var body ast.Node
		if body, err = syntax(string(c.text)); err == nil {
			found, err = toJSON(body)
		}
		if at, ok := errors.AsType[*syntaxError](err); ok && at.token != nil && at.token.Position != nil {
			line, column := c.position(at.token.Position)
			err = fmt.Errorf("line %d, column %d: %w", line, column, err)
		}
		if err != nil {
			return nil, err
		}
	}
	if count == 0 {
		return nil, errors.New("the document is empty")
	}
	return found, nil
}

func toJSON(body ast.Node) (json.RawMessage, error) {
	var w bytes.Buffer
	if err := writeNode(&w, body); err != nil {
		return nil, err
	}
	return w.Bytes(), nil
}

func writeNode(w *bytes.Buffer, node ast.Node) error {
	switch n := node.(type) {
	case *ast.MappingNode:
		return writeMapping(w, n)
	case *ast.SequenceNode:
		w.WriteByte('[')
		for i, element := range n.Values {
			if i > 0 {
				w.WriteByte(',')
			}
			if err := writeNode(w, element); err != nil {
				return err
			}
		}
		w.WriteByte(']')
	case *ast.NullNode:
		w.WriteString("null")
	case *ast.BoolNode:
		fmt.Fprint(w, n.Value)
	case *ast.StringNode:
		writeText(w, n.Value)
	case *ast.LiteralNode:
		writeText(w, n.Value.Value)
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		// Where YAML writes numbers as JSON cannot, such as 0x10, text keeps them: no field takes them in either form.
		if text := n.GetToken().Value; json.Valid([]byte(text)) {
			w.WriteString(text)
		} else {
			writeText(w, text)
		}
	default:
		return &syntaxError{"this is not read here", node.GetToken()}
	}
	return nil
}

func writeMapping(w *bytes.Buffer, m *ast.MappingNode) error {
	seen := make(map[string]bool, len(m.Values))
	w.WriteByte('{')
	for i, pair := range m.Values {
		name, ok := pair.Key.(*ast.StringNode)
		if !ok {
			return &syntaxError{"a field's name must be text: put it in quotes", pair.Key.GetToken()}
		}
		if seen[name.Value] {
			return &syntaxError{quote(name.Value) + " is written twice", name.GetToken()}
		}
		seen[name.Value] = true
		if i > 0 {
			w.WriteByte(',')
		}
		writeText(w, name.Value)
		w.WriteByte(':')
		if err := writeNode(w, pair.Value); err != nil {
			return err
		}
	}
	w.WriteByte('}')
	return nil
}

func writeText(w *bytes.Buffer, text string) {
	quoted, err := json.Marshal(text)
	if err != nil { // Text always can be.
		panic("policy: " + err.Error())
	}
	w.Write(quoted)
}
