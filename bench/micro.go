package main

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/ai-aas/api-router/bench/report"
)

// micro is a benchmark of a room that the page quotes. A name that ends in / stands for all below it.
type micro struct{ label, name string }

// rooms are the packages with benchmarks, each run once. pattern is for `go test -bench`.
var rooms = []struct {
	dir, pattern string
	quoted       []micro
}{
	{"./internal/wire", "^Benchmark(Scan|Events|Tap)$/^(prose|none|all)$/^(1|400)KB$", []micro{
		{"scan of a 1 KB body", scanSmall},
		{"scan of a 400 KB body", scanLarge},
		{"finding an event in a stream", "BenchmarkEvents"},
		{"tap per event, passed on whole", "BenchmarkTap/none"},
		{"tap per event, usage taken out", "BenchmarkTap/all"},
	}},
	{"./internal/auth", "^Benchmark(Credential|DevelopmentValidate)$", []micro{{"credential from the headers", authHeader}, {"validation of a key", authKey}}},
	{"./internal/policy", "^BenchmarkLookup$", []micro{{"policy lookup among 10,000, the organization's own", lookup}}},
	{"./internal/fleet", "^BenchmarkPick$", []micro{{"pick and lease, one backend", pickOne}, {"pick and lease, one of 16", "BenchmarkPick/16"}}},
	{"./internal/plan", "^BenchmarkDecideAndNext$", []micro{{"decision and pick", "BenchmarkDecideAndNext"}}},
	{"./internal/gateway", "^BenchmarkWalk$", []micro{{"the whole walk of a request", walk}}},
}

// The benchmarks that budgets are about.
const (
	scanSmall  = "BenchmarkScan/prose/1KB"
	scanLarge  = "BenchmarkScan/prose/400KB"
	authHeader = "BenchmarkCredential"
	authKey    = "BenchmarkDevelopmentValidate"
	lookup     = "BenchmarkLookup/org-1"
	pickOne    = "BenchmarkPick/1"
	walk       = "BenchmarkWalk/"
	walkSmall  = walk + "plain_1KB"
)

const microTimeout = 5 * time.Minute

// microBenchmarks runs the rooms' own benchmarks. A room whose tests do not build, or that has lost a benchmark, is skipped loudly.
func (b *run) microBenchmarks(ctx context.Context) ([]report.Micro, error) {
	var all []report.Micro
	for _, room := range rooms {
		fmt.Fprintf(b.log, "go test -bench in %s\n", room.dir)
		found, err := b.benchmarkRoom(ctx, room.dir, room.pattern)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			b.skip("the benchmarks of %s: %v", room.dir, err)
			continue
		}
		// The names within one benchmark may come in any order.
		slices.SortStableFunc(found, func(a, b report.Micro) int { return strings.Compare(a.Name, b.Name) })
		if labels, _ := quoted(found); len(labels) == 0 {
			b.skip("the benchmarks of %s: there is none that matches %s", room.dir, room.pattern)
		}
		all = append(all, found...)
	}
	return all, nil
}

func (b *run) benchmarkRoom(ctx context.Context, dir, pattern string) ([]report.Micro, error) {
	ctx, cancel := context.WithTimeout(ctx, microTimeout)
	defer cancel()
	var out, said bytes.Buffer
	args := []string{"test", "-run", "^$", "-bench", pattern, "-benchmem", "-benchtime", b.plan.microTime.String(), "-count", "3", dir}
	cmd := exec.CommandContext(ctx, "go", args...) //nolint:gosec // Patterns and folders stand in the table above.
	cmd.Stdout, cmd.Stderr = &out, &said
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		lines := strings.Split(strings.TrimSpace(said.String()+out.String()), "\n")
		return nil, fmt.Errorf("%w: %s", err, strings.Join(lines[:min(len(lines), 4)], "; "))
	}
	return report.ParseMicro(out.String()), nil
}

// quoted are the results that the page quotes, in its order, each with what it calls them.
func quoted(results []report.Micro) (labels []string, found []report.Micro) {
	for _, room := range rooms {
		for _, q := range room.quoted {
			for _, m := range results {
				if rest, ok := strings.CutPrefix(m.Name, q.name); ok && strings.HasSuffix(q.name, "/") {
					labels, found = append(labels, q.label+": "+strings.ReplaceAll(rest, "_", " ")), append(found, m)
				} else if ok && rest == "" {
					labels, found = append(labels, q.label), append(found, m)
				}
			}
		}
	}
	return labels, found
}

func microTable(results []report.Micro) string {
	labels, found := quoted(results)
	rows := make([][]string, len(found))
	for i, m := range found {
		rows[i] = []string{labels[i], report.Figure(m.Nanos, true), report.Figure(m.Allocs, !math.IsNaN(m.Allocs))}
	}
	return report.Table([]string{"", "ns", "allocations"}, rows)
}

// nanos adds up the times of benchmarks, if all of them were run.
func nanos(results []report.Micro, names ...string) (sum float64, ok bool) {
	for _, name := range names {
		m, found := find(results, name)
		if !found {
			return 0, false
		}
		sum += m.Nanos
	}
	return sum, true
}

func allocations(results []report.Micro, name string) (float64, bool) {
	m, ok := find(results, name)
	return m.Allocs, ok && !math.IsNaN(m.Allocs)
}

func find(results []report.Micro, name string) (report.Micro, bool) {
	for _, m := range results {
		if m.Name == name {
			return m, true
		}
	}
	return report.Micro{}, false
}
