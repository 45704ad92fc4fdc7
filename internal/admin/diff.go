package admin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/ai-aas/api-router/internal/adminapi"
)

// differences compares two documents field by field, in the order of the paths. A nil document has no fields. Numbers are
// compared as they are written.
func differences(before, after json.RawMessage) ([]adminapi.Field, error) {
	was, err := decodeAny(before)
	if err != nil {
		return nil, err
	}
	is, err := decodeAny(after)
	if err != nil {
		return nil, err
	}
	var d differ
	d.compare("", was, is)
	return d.fields, d.err
}

// absent stands for a field that is not there, which is not the same as one that is null.
type absent struct{}

func decodeAny(document json.RawMessage) (any, error) {
	if document == nil {
		return map[string]any{}, nil
	}
	decoder := json.NewDecoder(bytes.NewReader(document))
	decoder.UseNumber()
	var v any
	if err := decoder.Decode(&v); err != nil {
		return nil, fmt.Errorf("compare documents: %w", err)
	}
	return v, nil
}

type differ struct {
	fields []adminapi.Field
	err    error
}

func (d *differ) compare(path string, before, after any) {
	if was, ok := before.(map[string]any); ok {
		if is, ok := after.(map[string]any); ok {
			d.objects(path, was, is)
			return
		}
	}
	if was, ok := before.([]any); ok {
		if is, ok := after.([]any); ok {
			for i := range max(len(was), len(is)) {
				d.compare(path+"["+strconv.Itoa(i)+"]", element(was, i), element(is, i))
			}
			return
		}
	}
	from, to := d.text(before), d.text(after)
	if !bytes.Equal(from, to) {
		d.fields = append(d.fields, adminapi.Field{Path: path, Before: from, After: to})
	}
}

func (d *differ) objects(path string, before, after map[string]any) {
	names := slices.AppendSeq(slices.Collect(maps.Keys(before)), maps.Keys(after))
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		d.compare(strings.TrimPrefix(path+"."+name, "."), member(before, name), member(after, name))
	}
}

func member(object map[string]any, name string) any {
	if v, ok := object[name]; ok {
		return v
	}
	return absent{}
}

func element(list []any, i int) any {
	if i < len(list) {
		return list[i]
	}
	return absent{}
}

// text is a value as JSON; nil where it is absent.
func (d *differ) text(v any) json.RawMessage {
	if v == (absent{}) {
		return nil
	}
	text, err := json.Marshal(v)
	if err != nil {
		d.err = fmt.Errorf("compare documents: %w", err)
	}
	return text
}
