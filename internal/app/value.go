package app

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ai-aas/api-router/internal/policy"
	"github.com/ai-aas/api-router/internal/state"
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
	normal  func(string) string // the form that is kept; nil: as it is
	options []string            // shown in the documentation
	empty   bool                // the empty text means off
}

func (w word) String() string { return *w.target }

func (w word) Set(text string) error {
	if err := w.check(text); err != nil {
		return err
	}
	if w.normal != nil {
		text = w.normal(text)
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

// count is a whole number within bounds.
type count struct {
	target   *int
	min, max int
}

func (n count) String() string { return strconv.Itoa(*n.target) }

func (n count) Set(text string) error {
	v, err := strconv.Atoi(text)
	if err != nil {
		return fmt.Errorf("%q is not a whole number", text)
	}
	if v < n.min || v > n.max {
		return fmt.Errorf("%d is not between %d and %d", v, n.min, n.max)
	}
	*n.target = v
	return nil
}

// optionalAddress is an address that may be empty.
func optionalAddress(target *string) word {
	w := address(target)
	check := w.check
	w.empty, w.check = true, func(s string) error {
		if s == "" {
			return nil
		}
		return check(s)
	}
	return w
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

// age is how long something is kept: 0 for ever, else a number of days as in 365d, or a duration. Less than a day is a slip.
type age struct{ target *time.Duration }

const (
	day    = 24 * time.Hour
	oldest = 100 * 365 * day
)

func (a age) String() string {
	switch d := *a.target; {
	case d == 0:
		return "0"
	case d%day == 0:
		return strconv.FormatInt(int64(d/day), 10) + "d"
	}
	return span{target: a.target}.String()
}

func (a age) Set(text string) error {
	d, err := time.ParseDuration(text)
	if number, ok := strings.CutSuffix(text, "d"); ok {
		var days uint64
		days, err = strconv.ParseUint(number, 10, 16)
		d = time.Duration(days) * day
	}
	switch {
	case err != nil:
		return fmt.Errorf("%q is neither 0 nor a length of time such as 365d or 8760h", text)
	case d != 0 && (d < day || d > oldest):
		return fmt.Errorf("%s is neither 0, which is for ever, nor between 1d and %s", text, age{new(oldest)})
	}
	*a.target = d
	return nil
}

// share is a part of all, from 0 to 1.
type share struct{ target *float64 }

func (s share) String() string { return strconv.FormatFloat(*s.target, 'g', -1, 64) }

func (s share) Set(text string) error {
	part, err := strconv.ParseFloat(text, 64)
	if err != nil || !(part >= 0 && part <= 1) {
		return fmt.Errorf("%q is not a number from 0 to 1", text)
	}
	*s.target = part
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

// reference is where a secret is; the empty text means that there is none. What was written in its place is never repeated.
type reference struct{ target *policy.SecretRef }

func (r reference) String() string { return r.target.String() }

func (r reference) Set(text string) error { return r.target.UnmarshalText([]byte(text)) }

// prefix is what the keys of a store begin with. It ends in a slash, which may be left out.
func prefix(target *string) word {
	return word{target: target, normal: func(s string) string { return strings.TrimRight(s, "/") + "/" }, check: func(s string) error {
		if strings.Trim(s, "/") == "" || strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c == 0x7f }) {
			return fmt.Errorf("%q is not a prefix such as /api-router/", s)
		}
		return nil
	}}
}

// endpoint checks one address of etcd: host:port, which may stand in a URL.
func endpoint(text string) (string, error) {
	scheme, rest, found := strings.Cut(text, "://")
	if !found {
		scheme, rest = "", text
	}
	rest = strings.TrimSuffix(rest, "/")
	host, port, err := net.SplitHostPort(rest)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil || host == "" || strings.ContainsAny(rest, "/@?# ") || found && scheme != "http" && scheme != "https" {
		return "", errors.New("an endpoint is host:port, http://host:port or https://host:port") // It is not repeated: it may hold a password.
	}
	if !found {
		return rest, nil
	}
	return scheme + "://" + rest, nil
}

// stateURL names the state book. What is wrong with it is not repeated: it may hold a password.
func stateURL(target *string) word {
	return word{target: target, check: func(s string) error {
		if rest, ok := strings.CutPrefix(s, "sqlite:"); ok && !strings.HasPrefix(rest, "///") {
			return errors.New("it is not of the form sqlite:///PATH, with an absolute path")
		}
		if err := state.CheckURL(s); err != nil {
			return fmt.Errorf("it %w", err)
		}
		return nil
	}}
}
