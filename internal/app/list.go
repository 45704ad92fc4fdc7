package app

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ai-aas/api-router/internal/policy"
)

// list is a setting of several entries: a list in the file, one line separated by commas elsewhere.
type list interface {
	value
	// entry describes one: what it is called, how it looks in the file, and the names of its fields; none for a single word.
	entry() (noun, form string, fields []string)
	// begin starts a new list: add takes its entries in their order, and keep puts it in the place of the old one.
	begin() (add func(fields map[string]string) error, keep func())
}

// entries is a list of T.
type entries[T any] struct {
	target *[]T
	noun   string
	form   string
	fields []string                           // of one entry in the file; none: one word, under ""
	make   func(map[string]string) (T, error) // from the file
	split  func(string) map[string]string     // one entry of the line, by field
	show   func(T) string                     // the reverse of split
	// fits checks an entry against those before it. It may be nil.
	fits func(each T, before []T) error
	// empty says that the empty line is the empty list; otherwise it counts as not set.
	empty bool
}

func (l entries[T]) entry() (noun, form string, fields []string) { return l.noun, l.form, l.fields }

func (l entries[T]) takesEmpty() bool { return l.empty }

func (l entries[T]) String() string {
	parts := make([]string, 0, len(*l.target))
	for _, each := range *l.target {
		parts = append(parts, l.show(each))
	}
	return strings.Join(parts, ",")
}

func (l entries[T]) Set(text string) error {
	add, keep := l.begin()
	var problems []string
	n := 0
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		n++
		if err := add(l.split(part)); err != nil {
			problems = append(problems, fmt.Sprintf("entry %d: %v", n, err))
		}
	}
	if len(problems) > 0 {
		return errors.New(strings.Join(problems, "; "))
	}
	keep()
	return nil
}

func (l entries[T]) begin() (add func(fields map[string]string) error, keep func()) {
	made := []T{}
	add = func(fields map[string]string) error {
		each, err := l.make(fields)
		if err == nil && l.fits != nil {
			err = l.fits(each, made)
		}
		if err != nil {
			return err
		}
		made = append(made, each)
		return nil
	}
	return add, func() { *l.target = made }
}

// sinks are the usage sinks, on one line type:path,type:path.
func sinks(target *[]Sink) list {
	return entries[Sink]{
		target: target, noun: "a sink", form: "{ type: jsonl, path: FILE }", fields: []string{"type", "path"}, empty: true,
		make: func(f map[string]string) (Sink, error) {
			s := Sink{Type: f["type"], Path: f["path"]}
			return s, s.check()
		},
		split: func(part string) map[string]string {
			kind, path, _ := strings.Cut(part, ":")
			return map[string]string{"type": kind, "path": path}
		},
		show: func(s Sink) string { return s.Type + ":" + s.Path },
	}
}

func (s Sink) check() error {
	switch {
	case s.Type != "jsonl":
		return fmt.Errorf("sink type %q is none of jsonl", s.Type)
	case s.Path == "":
		return fmt.Errorf("a jsonl sink needs the path of its file")
	default:
		return nil
	}
}

// adminTokens are the tokens of the admin API, on one line name:role:env:NAME,name:role:file:PATH.
func adminTokens(target *[]AdminToken) list {
	return entries[AdminToken]{
		target: target, noun: "an admin token", form: "{ name: NAME, role: viewer, token: env:NAME }",
		fields: []string{"name", "role", "token"}, empty: true,
		make: makeAdminToken,
		split: func(part string) map[string]string {
			name, rest, _ := strings.Cut(part, ":")
			role, token, _ := strings.Cut(rest, ":")
			return map[string]string{"name": name, "role": role, "token": token}
		},
		show: func(t AdminToken) string { return t.Name + ":" + t.Role + ":" + t.Token.String() },
		fits: func(each AdminToken, before []AdminToken) error {
			if slices.ContainsFunc(before, func(t AdminToken) bool { return t.Name == each.Name }) {
				return fmt.Errorf("the name %s is given twice; the history names who changed something by it", each.Name)
			}
			return nil
		},
	}
}

// makeAdminToken repeats nothing that could be a token in the wrong place.
func makeAdminToken(f map[string]string) (AdminToken, error) {
	t := AdminToken{Name: f["name"], Role: f["role"]}
	if t.Name == "" || identifier(t.Name) != t.Name {
		return t, errors.New("an admin token needs a name of at most 100 letters, digits, \".\", \"_\" or \"-\"")
	}
	if !slices.Contains(adminRoles, t.Role) {
		return t, fmt.Errorf("the role of an admin token is none of %s", strings.Join(adminRoles, ", "))
	}
	var err error
	if t.Token, err = policy.ParseSecretRef(f["token"]); err != nil {
		return t, fmt.Errorf("the token of %s %w", t.Name, err)
	}
	return t, nil
}

// endpoints are the addresses of an etcd cluster.
func endpoints(target *[]string) list {
	return entries[string]{
		target: target, noun: "an endpoint", form: "HOST:PORT",
		make:  func(f map[string]string) (string, error) { return endpoint(f[""]) },
		split: func(part string) map[string]string { return map[string]string{"": part} },
		show:  func(text string) string { return text },
	}
}
