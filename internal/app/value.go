package app

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
)

// value reads and shows one setting. Set leaves the setting alone when it fails.
type value interface {
	Set(text string) error
	String() string
}

// word is a text setting with its own rule.
type word struct {
	target  *string
	check   func(string) error
	options []string // shown in the documentation
	empty   bool     // the empty text means off
}

func (w word) String() string { return *w.target }

func (w word) Set(text string) error {
	if err := w.check(text); err != nil {
		return err
	}
	*w.target = text
	return nil
}

func text(target *string) word {
	return word{target: target, check: func(s string) error {
		if s == "" {
			return fmt.Errorf("must not be empty")
		}
		return nil
	}}
}

func optional(target *string) word {
	return word{target: target, empty: true, check: func(string) error { return nil }}
}

func choice(target *string, options ...string) word {
	return word{target: target, options: options, check: func(s string) error {
		if !slices.Contains(options, s) {
			return fmt.Errorf("%q is none of %s", s, strings.Join(options, ", "))
		}
		return nil
	}}
}

func address(target *string) word {
	return word{target: target, check: func(s string) error {
		_, port, err := net.SplitHostPort(s)
		if err != nil {
			return fmt.Errorf("%q is not of the form host:port or :port", s)
		}
		if _, err := strconv.ParseUint(port, 10, 16); err != nil {
			return fmt.Errorf("%q has no port between 0 and 65535", s)
		}
		return nil
	}}
}

type truth bool

func (b *truth) String() string { return strconv.FormatBool(bool(*b)) }

func (b *truth) Set(text string) error {
	switch strings.ToLower(text) {
	case "true":
		*b = true
	case "false":
		*b = false
	default:
		return fmt.Errorf("%q is neither true nor false", text)
	}
	return nil
}

// span is a duration of at least min and at most a day, which no deadline here can mean to exceed.
type span struct {
	target *time.Duration
	min    time.Duration
}

const maxSpan = 24 * time.Hour

func (s span) String() string {
	short := s.target.String()
	if strings.HasSuffix(short, "m0s") {
		short = strings.TrimSuffix(short, "0s")
	}
	if strings.HasSuffix(short, "h0m") {
		short = strings.TrimSuffix(short, "0m")
	}
	return short
}

func (s span) Set(text string) error {
	d, err := time.ParseDuration(text)
	if err != nil {
		return fmt.Errorf("%q is not a duration such as 500ms, 30s or 5m", text)
	}
	if d < s.min || d > maxSpan {
		return fmt.Errorf("%s is not between %s and %s", text, s.min, maxSpan)
	}
	*s.target = d
	return nil
}

// size is a number of bytes between min and max.
type size struct {
	target   *int64
	min, max int64
}

type unit struct {
	name  string
	bytes int64
}

// units are ordered so that the first one that divides a size shows it best.
var units = []unit{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}, {"B", 1}}

func (s size) String() string { return formatSize(*s.target) }

func formatSize(n int64) string {
	for _, u := range units {
		if n >= u.bytes && n%u.bytes == 0 {
			return strconv.FormatInt(n/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10)
}

func (s size) Set(text string) error {
	number := strings.TrimRight(text, "BGKMbgikm ")
	n, err := strconv.ParseInt(number, 10, 64)
	factor := int64(1)
	if suffix := strings.TrimSpace(text[len(number):]); suffix != "" {
		at := slices.IndexFunc(units, func(u unit) bool { return strings.EqualFold(u.name, suffix) })
		if at < 0 {
			err = strconv.ErrSyntax
		} else {
			factor = units[at].bytes
		}
	}
	if err != nil {
		return fmt.Errorf("%q is not a size such as 64MiB, 512KiB or a number of bytes", text)
	}
	if n > s.max/factor || n*factor < s.min {
		return fmt.Errorf("%s is not between %s and %s", text, formatSize(s.min), formatSize(s.max))
	}
	*s.target = n * factor
	return nil
}

// sinks is the list of usage sinks, in its one-line form type:path,type:path.
type sinks []Sink

func (l *sinks) String() string {
	parts := make([]string, 0, len(*l))
	for _, s := range *l {
		parts = append(parts, s.Type+":"+s.Path)
	}
	return strings.Join(parts, ",")
}

func (l *sinks) Set(text string) error {
	list := sinks{}
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		kind, path, _ := strings.Cut(part, ":")
		s := Sink{Type: kind, Path: path}
		if err := s.check(); err != nil {
			return err
		}
		list = append(list, s)
	}
	*l = list
	return nil
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
