package report

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Section is one table: a heading, a sentence or none, and its rows.
type Section struct {
	Title, Note string
	Rows        []Row
}

// Row is one metric for all subjects.
type Row struct {
	Label  string // with its unit
	Metric string
	// Total adds the rounds up in place of their median: for what should be 0. It has no ratio.
	Total bool
}

// Ratio is a column for the ratio of one subject to another.
type Ratio struct{ Of, To string }

// none stands where there is no figure.
const none = "–"

// Write writes the sections for the subjects, in their order, with the columns of ratios last. Rows and sections without a figure
// are left out.
func (r *Results) Write(sections []Section, subjects []string, ratios ...Ratio) string {
	var b strings.Builder
	for _, section := range sections {
		var rows [][]string
		for _, row := range section.Rows {
			if cells, ok := r.cells(row, subjects, ratios); ok {
				rows = append(rows, cells)
			}
		}
		if len(rows) == 0 {
			continue
		}
		fmt.Fprintf(&b, "### %s\n\n", section.Title)
		if section.Note != "" {
			fmt.Fprintf(&b, "%s\n\n", section.Note)
		}
		head := append([]string{""}, subjects...)
		for _, ratio := range ratios {
			head = append(head, ratio.Of+" ÷ "+ratio.To)
		}
		b.WriteString(Table(head, rows))
		b.WriteString("\n")
	}
	return b.String()
}

// cells is a row's line, if any subject has the figure.
func (r *Results) cells(row Row, subjects []string, ratios []Ratio) (cells []string, found bool) {
	cells = []string{row.Label}
	for _, s := range subjects {
		value, ok := r.Median(s, row.Metric)
		if row.Total {
			value, ok = r.Sum(s, row.Metric)
		}
		cells = append(cells, Figure(value, ok))
		found = found || ok
	}
	for _, ratio := range ratios {
		text := none
		if v, ok := r.Ratio(ratio.Of, ratio.To, row.Metric); ok && !row.Total {
			text = strconv.FormatFloat(v, 'f', 2, 64)
		}
		cells = append(cells, text)
	}
	return cells, found
}

// Table writes a table. The first column is text, the others are figures.
func Table(head []string, rows [][]string) string {
	var b strings.Builder
	line := func(cells []string) { fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | ")) }
	line(head)
	b.WriteString("|---|" + strings.Repeat("---:|", len(head)-1) + "\n")
	for _, cells := range rows {
		line(cells)
	}
	return b.String()
}

// Figure writes a figure with three digits that count, and all of those before the point; a whole number as it is.
func Figure(v float64, ok bool) string {
	if !ok {
		return none
	}
	a := math.Abs(v)
	switch {
	case a < 0.0005:
		return "0"
	case a < 100 && a == math.Trunc(a):
		return strconv.FormatFloat(v, 'f', 0, 64)
	case a < 1:
		return strconv.FormatFloat(v, 'g', 3, 64)
	case a < 10:
		return strconv.FormatFloat(v, 'f', 2, 64)
	case a < 100:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return thousands(strconv.FormatFloat(v, 'f', 0, 64))
}

func thousands(digits string) string {
	sign, digits, negative := strings.Cut(digits, "-")
	if !negative {
		sign, digits = "", sign
	} else {
		sign = "-"
	}
	var groups []string
	for len(digits) > 3 {
		groups = append(groups, digits[len(digits)-3:])
		digits = digits[:len(digits)-3]
	}
	groups = append(groups, digits)
	slices.Reverse(groups)
	return sign + strings.Join(groups, ",")
}

// Budget is one limit and what was measured.
type Budget struct {
	What     string
	Limit    float64
	Unit     string // written after both figures
	Measured float64
	Known    bool
}

// Budgets writes a table of limits, what was measured, and whether it keeps to them.
func Budgets(budgets []Budget) string {
	rows := make([][]string, 0, len(budgets))
	for _, b := range budgets {
		verdict := "not measured"
		switch {
		case !b.Known:
		case b.Measured <= b.Limit:
			verdict = "met"
		default:
			verdict = "**missed**"
		}
		rows = append(rows, []string{b.What, "≤ " + strconv.FormatFloat(b.Limit, 'f', -1, 64) + b.Unit, Figure(b.Measured, b.Known) + unitIf(b), verdict})
	}
	return Table([]string{"what", "budget", "measured", ""}, rows)
}

func unitIf(b Budget) string {
	if b.Known {
		return b.Unit
	}
	return ""
}
