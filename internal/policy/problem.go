package policy

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// Problem is one thing that is wrong with a document, a file or the source.
type Problem struct {
	// Kind and ID name the document where they could be read.
	Kind Kind   `json:"kind,omitempty"`
	ID   string `json:"id,omitempty"`
	// File is empty for a problem of the source as a whole. Line and Column count from 1; 0 is unknown.
	File    string `json:"file,omitempty"`
	Line    int    `json:"line,omitempty"`
	Column  int    `json:"column,omitempty"`
	Message string `json:"message"`
	// Serving says that a good version of the document is in the table all the same.
	Serving bool `json:"serving"`
}

// String is one line in the form of a compiler's message: file:line:column: Kind id: message.
func (p Problem) String() string {
	var b strings.Builder
	if at := place(p.File, p.Line, p.Column); at != "" {
		b.WriteString(at)
		b.WriteString(": ")
	}
	if p.Kind != "" || p.ID != "" {
		b.WriteString(strings.TrimSpace(string(p.Kind) + " " + p.ID))
		b.WriteString(": ")
	}
	b.WriteString(p.Message)
	if p.Serving {
		b.WriteString(" (a good version keeps serving)")
	}
	return b.String()
}

func place(file string, line, column int) string {
	if line > 0 {
		file += ":" + strconv.Itoa(line)
		if column > 0 {
			file += ":" + strconv.Itoa(column)
		}
	}
	return file
}

// sortProblems gives the same order for the same problems.
func sortProblems(problems []Problem) {
	slices.SortFunc(problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column),
			cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.ID, b.ID), cmp.Compare(a.Message, b.Message))
	})
}

// nearest returns the candidate that is most likely meant by name, or "" if none is close. Candidates are looked at in
// their order and at most 2,000 of them: a suggestion is a courtesy.
func nearest(name string, candidates []string) string {
	best, limit := "", len(name)/3+1
	for _, c := range candidates[:min(len(candidates), 2000)] {
		if d := distance(name, c, limit); d < limit {
			best, limit = c, d
		}
	}
	return best
}

// distance is the Levenshtein distance of a and b in bytes, letter case aside, or limit if it is not below limit.
func distance(a, b string, limit int) int {
	if len(a)-len(b) >= limit || len(b)-len(a) >= limit || len(a) > 256 || len(b) > 256 {
		return limit
	}
	a, b = strings.ToLower(a), strings.ToLower(b)
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		least := row[0]
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(diagonal+cost, row[j]+1, row[j+1]+1)
			least = min(least, row[j+1])
		}
		if least >= limit {
			return limit
		}
	}
	return min(row[len(b)], limit)
}

// Suggest ends a message about a name that does not exist: it asks for the known one that name is most likely a slip of, or is "".
func Suggest(name string, known []string) string { return suggest(name, known) }

func suggest(name string, candidates []string) string {
	if near := nearest(name, candidates); near != "" {
		return "; did you mean " + near + "?"
	}
	return ""
}
