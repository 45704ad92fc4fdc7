package ops

import (
	"maps"
	"regexp"
	"slices"
	"testing"
)

// query is what the tests want to know of a PromQL expression: each series that it asks for, with the labels and values that it selects by,
// and the labels that it groups by.
type query struct {
	selectors []selector
	groups    []string
}

type selector struct {
	name     string
	matchers map[string][]string // by label: the texts that it is compared with
}

var (
	// token cuts an expression: strings, ranges, numbers with their units, names, and the rest by the byte.
	token = regexp.MustCompile("(?s)\"(?:[^\"\\\\]|\\\\.)*\"|'(?:[^'\\\\]|\\\\.)*'|`[^`]*`|\\[[^]]*\\]|[0-9][0-9a-zA-Z.]*|[a-zA-Z_:][a-zA-Z0-9_:]*|.")
	name  = regexp.MustCompile(`^[a-zA-Z_:]`)
	// clauses are followed by labels in parentheses.
	clauses = []string{"by", "without", "on", "ignoring", "group_left", "group_right"}
	// words are neither series nor functions.
	words = []string{"and", "or", "unless", "bool", "offset", "inf", "nan", "start", "end", "atan2"}
)

// parse reads an expression that promtool has found to be one.
func parse(expr string) query {
	var q query
	tokens := slices.DeleteFunc(token.FindAllString(expr, -1), func(s string) bool { return regexp.MustCompile(`^\s$`).MatchString(s) })
	at := func(i int) string {
		if i < len(tokens) {
			return tokens[i]
		}
		return ""
	}
	for i := 0; i < len(tokens); i++ {
		switch word := tokens[i]; {
		case !name.MatchString(word), slices.Contains(words, word):
		case slices.Contains(clauses, word):
			if at(i+1) != "(" {
				continue
			}
			for i += 2; i < len(tokens) && tokens[i] != ")"; i++ {
				if tokens[i] != "," {
					q.groups = append(q.groups, tokens[i])
				}
			}
		case at(i+1) == "(" || slices.Contains(clauses, at(i+1)) && at(i+2) == "(" && aggregation(word): // A function or an aggregation.
		default:
			s := selector{word, map[string][]string{}}
			if at(i+1) == "{" {
				for i += 2; i < len(tokens) && tokens[i] != "}"; i++ {
					if name.MatchString(tokens[i]) {
						label := tokens[i]
						for !regexp.MustCompile("^[\"'`]").MatchString(at(i)) && i < len(tokens) {
							i++
						}
						s.matchers[label] = append(s.matchers[label], at(i)[1:len(at(i))-1])
					}
				}
			}
			q.selectors = append(q.selectors, s)
		}
	}
	return q
}

func aggregation(word string) bool {
	return slices.Contains([]string{"sum", "min", "max", "avg", "count", "group", "stddev", "stdvar", "topk", "bottomk", "quantile", "count_values"}, word)
}

func TestQueriesAreTakenApart(t *testing.T) {
	cases := []struct {
		expr    string
		names   []string
		groups  []string
		matched []string
	}{
		{`up`, []string{"up"}, nil, nil},
		{`rate(a_total[5m])`, []string{"a_total"}, nil, nil},
		{`sum by (job, le) (rate(a_bucket{x=~"b_total|c",y!='d_total'}[5m])) / sum(c_count) by (job)`, []string{"a_bucket", "c_count"}, []string{"job", "le", "job"}, []string{"x", "y"}},
		{`histogram_quantile(0.95, sum by (le) (rate(a_bucket{path="/{x}"}[1h] offset 15m))) > 14.4 * 0.005`, []string{"a_bucket"}, []string{"le"}, []string{"path"}},
		{"a:b:rate5m > 1e3 and on (job) b unless ignoring (x) group_left (y) c == bool 1", []string{"a:b:rate5m", "b", "c"}, []string{"job", "x", "y"}, nil},
		{"absent(up{job=\"a\"}) or\n  0 * max without (z) (b)", []string{"up", "b"}, []string{"z"}, []string{"job"}},
		{"time() - a{}", []string{"a"}, nil, nil},
		{"sum + max{x=\"y\"}", []string{"sum", "max"}, nil, []string{"x"}},
	}
	for _, c := range cases {
		t.Run(c.expr, func(t *testing.T) {
			got := parse(c.expr)
			var names, matched []string
			for _, s := range got.selectors {
				names = append(names, s.name)
				matched = append(matched, slices.Sorted(maps.Keys(s.matchers))...)
			}
			if !slices.Equal(names, c.names) || !slices.Equal(got.groups, c.groups) || !slices.Equal(matched, c.matched) {
				t.Errorf("got series %q, groups %q, matchers %q; want %q, %q, %q", names, got.groups, matched, c.names, c.groups, c.matched)
			}
		})
	}
}
