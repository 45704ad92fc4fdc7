package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf16"
)

// escaped is JSON in which whatever cannot be printed is an escape: a terminal would obey it. Between strings there are only line feeds.
func escaped(text string) string {
	if !strings.ContainsFunc(text, unprintable) {
		return text
	}
	var w strings.Builder
	for _, c := range text {
		if !unprintable(c) {
			w.WriteRune(c)
			continue
		}
		for _, unit := range utf16.Encode([]rune{c}) {
			fmt.Fprintf(&w, `\u%04x`, unit)
		}
	}
	return w.String()
}

func unprintable(c rune) bool { return !unicode.IsPrint(c) && c != '\n' }

// field is one of an object, whose order is kept.
type field struct {
	name  string
	value any
}

// toYAML writes JSON as YAML that reads back as the same: numbers digit for digit, fields in their order, in quotes every text that a
// reader could take for something else.
func toYAML(text []byte) (string, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	v, err := ordered(d)
	if err != nil {
		return "", err
	}
	return strings.Join(lines(v), "\n"), nil
}

// ordered decodes the next value. An object is a []field.
func ordered(d *json.Decoder) (any, error) {
	token, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch token {
	case json.Delim('{'):
		var object []field
		for d.More() {
			name, err := d.Token()
			if err != nil {
				return nil, err
			}
			value, err := ordered(d)
			if err != nil {
				return nil, err
			}
			object = append(object, field{fmt.Sprint(name), value})
		}
		_, err = d.Token()
		return object, err
	case json.Delim('['):
		var list []any
		for d.More() {
			element, err := ordered(d)
			if err != nil {
				return nil, err
			}
			list = append(list, element)
		}
		_, err = d.Token()
		return list, err
	}
	return token, nil
}

// lines are a value in block style.
func lines(v any) []string {
	switch v := v.(type) {
	case []field:
		return objectLines(v)
	case []any:
		if len(v) == 0 {
			return []string{"[]"}
		}
		var all []string
		for _, element := range v {
			lead := "- "
			for _, line := range lines(element) {
				all = append(all, lead+line)
				lead = "  "
			}
		}
		return all
	case string:
		return []string{word(v)}
	case nil:
		return []string{"null"}
	}
	return []string{fmt.Sprint(v)}
}

func objectLines(object []field) []string {
	if len(object) == 0 {
		return []string{"{}"}
	}
	var all []string
	for _, f := range object {
		name, value := word(f.name)+":", lines(f.value)
		indent, block := "", false
		switch child := f.value.(type) {
		case []field:
			indent, block = "  ", len(child) > 0
		case []any:
			block = len(child) > 0
		}
		if !block {
			all = append(all, name+" "+value[0])
			continue
		}
		all = append(all, name)
		for _, line := range value {
			all = append(all, indent+line)
		}
	}
	return all
}

var (
	plain = regexp.MustCompile(`^[A-Za-z_/]([A-Za-z0-9_./:@%+-]*[A-Za-z0-9_/%+-])?$`)
	// taken are the plain words that mean something else to one reader of YAML or another.
	taken = []string{"true", "false", "null", "yes", "no", "on", "off", "y", "n"}
)

// word is text in YAML.
func word(text string) string {
	if plain.MatchString(text) && !slices.Contains(taken, strings.ToLower(text)) {
		return text
	}
	var w strings.Builder
	w.WriteByte('"')
	for _, c := range text {
		switch {
		case c == '"' || c == '\\':
			w.WriteByte('\\')
			w.WriteRune(c)
		case unicode.IsPrint(c):
			w.WriteRune(c)
		case c <= 0xffff:
			fmt.Fprintf(&w, `\u%04x`, c)
		default:
			fmt.Fprintf(&w, `\U%08x`, c)
		}
	}
	w.WriteByte('"')
	return w.String()
}
