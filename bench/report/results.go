// Package report turns the figures of interleaved rounds into medians, ratios and the tables of a page.
package report

import (
	"math"
	"slices"
)

// Results are figures by round, subject and metric. Rounds count from 0.
type Results struct {
	rounds []map[series]float64
}

type series struct{ subject, metric string }

// Add notes a figure. A second one for the same place replaces the first; NaN and infinities are left out.
func (r *Results) Add(round int, subject, metric string, value float64) {
	if math.IsNaN(value) || math.IsInf(value, 0) {
		return
	}
	for len(r.rounds) <= round {
		r.rounds = append(r.rounds, map[series]float64{})
	}
	r.rounds[round][series{subject, metric}] = value
}

// Get is the figure of one round.
func (r *Results) Get(round int, subject, metric string) (float64, bool) {
	if round >= len(r.rounds) {
		return 0, false
	}
	v, ok := r.rounds[round][series{subject, metric}]
	return v, ok
}

// Median is the median over the rounds that have the figure.
func (r *Results) Median(subject, metric string) (float64, bool) {
	var values []float64
	for round := range r.rounds {
		if v, ok := r.Get(round, subject, metric); ok {
			values = append(values, v)
		}
	}
	return Median(values)
}

// Sum is the sum over the rounds.
func (r *Results) Sum(subject, metric string) (sum float64, ok bool) {
	for round := range r.rounds {
		if v, has := r.Get(round, subject, metric); has {
			sum, ok = sum+v, true
		}
	}
	return sum, ok
}

// Ratio is the median of the rounds' own ratios: what was measured side by side is compared, whatever the machine did between the rounds.
// Rounds in which base is not above 0 do not count; where most are such, as with differences that are all noise, there is no ratio.
func (r *Results) Ratio(subject, base, metric string) (float64, bool) {
	var ratios []float64
	useless := 0
	for round := range r.rounds {
		v, ok := r.Get(round, subject, metric)
		b, okBase := r.Get(round, base, metric)
		switch {
		case !ok || !okBase:
		case b > 0:
			ratios = append(ratios, v/b)
		default:
			useless++
		}
	}
	if useless >= len(ratios) {
		return 0, false
	}
	return Median(ratios)
}

// Subtract gives every subject but base, in each round, the figure metric less that of base, under the name of difference.
func (r *Results) Subtract(base, metric, difference string) {
	for round, figures := range r.rounds {
		from, ok := r.Get(round, base, metric)
		if !ok {
			continue
		}
		for s, v := range figures {
			if s.metric == metric && s.subject != base {
				r.Add(round, s.subject, difference, v-from)
			}
		}
	}
}

// Median is the middle value, or the mean of the two in the middle. It reports false where there are none.
func Median(values []float64) (float64, bool) {
	if len(values) == 0 {
		return 0, false
	}
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2, true
}
