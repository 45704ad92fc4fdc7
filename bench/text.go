package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/ai-aas/api-router/bench/report"
	"github.com/ai-aas/api-router/bench/subject"
)

// text writes everything that the page tells between its marks.
func (b *run) text(ctx context.Context, micro []report.Micro) string {
	var t strings.Builder
	b.writeMachine(ctx, &t)
	names := make([]string, 0, len(b.subjects))
	for _, s := range b.subjects {
		names = append(names, s.Name)
	}
	t.WriteString(b.results.Write(b.sections(), names, report.Ratio{Of: subject.Router, To: subject.Nginx}))
	t.WriteString(b.results.Write([]report.Section{telemetrySection()}, []string{subject.Off, subject.Traced, subject.Unread},
		report.Ratio{Of: subject.Traced, To: subject.Off}, report.Ratio{Of: subject.Unread, To: subject.Off}))
	t.WriteString("### The binary\n\n")
	var sizes [][]string
	for _, s := range b.subjects {
		if s.Size > 0 {
			sizes = append(sizes, []string{s.Name, report.Figure(float64(s.Size)/1e6, true)})
		}
	}
	t.WriteString(report.Table([]string{"", "MB"}, sizes))
	if len(micro) > 0 {
		t.WriteString("\n### Inside of the router\n\nFrom `go test -bench`, medians of three: the time of one operation on one processor, and what it allocates.\n\n")
		t.WriteString(microTable(micro))
	}
	t.WriteString("\n### Budgets\n\n")
	t.WriteString(report.Budgets(b.budgets(micro)))
	return t.String()
}

func (b *run) writeMachine(ctx context.Context, t *strings.Builder) {
	fmt.Fprintf(t, "Measured on %s in %d interleaved rounds: medians, and the ratio is the median of the rounds' own ratios.\n\n",
		time.Now().UTC().Format("2006-01-02"), b.plan.rounds)
	fmt.Fprintf(t, "- machine: %s, %d processors, %s, %s\n", processor(ctx), runtime.NumCPU(), kernel(ctx), runtime.Version())
	for _, s := range b.subjects {
		if s.Version != "" {
			fmt.Fprintf(t, "- %s %s, on %d processors\n", s.Name, strings.TrimPrefix(s.Version, "v"), b.workers)
		}
	}
	if b.accounting {
		fmt.Fprintf(t, "- while this was measured, other processes used %.0f %% of the machine, and %.0f %% was taken by other machines on the same hardware\n",
			100*b.others, 100*b.stolen)
	}
	for _, s := range b.skipped {
		fmt.Fprintf(t, "- not measured: %s\n", s)
	}
	t.WriteString("\n")
}

// kernel is the name and release of the kernel.
func kernel(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "uname", "-sr").Output()
	if err != nil {
		return runtime.GOOS
	}
	return strings.TrimSpace(string(out))
}

// processor is the model of the processor.
func processor(ctx context.Context) string {
	if content, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(content)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				return strings.TrimSpace(value)
			}
		}
	}
	if out, err := exec.CommandContext(ctx, "sysctl", "-n", "machdep.cpu.brand_string").Output(); err == nil {
		return strings.TrimSpace(string(out))
	}
	return runtime.GOARCH
}

// sections are the tables of the page.
func (b *run) sections() []report.Section {
	p := b.plan
	row := func(scenario, label, figure string) report.Row {
		return report.Row{Label: label, Metric: metric(scenario, figure)}
	}
	requests := func(scenario, what string) []report.Row {
		return []report.Row{
			row(scenario, what+": requests/s", figRate), row(scenario, "CPU µs/request", figCPU),
			row(scenario, "p50 µs", figP50), row(scenario, "p99 µs", figP99),
		}
	}
	var closed, bodies, open []report.Row
	for _, n := range p.connections {
		closed = append(closed, requests(closedName(n), fmt.Sprintf("**%d**", n))...)
	}
	for _, kb := range p.bodies {
		bodies = append(bodies, requests(bodyName(kb), fmt.Sprintf("**%d KB**", kb))...)
	}
	for _, rate := range p.rates {
		name := openName(rate)
		open = append(
			open, row(name, fmt.Sprintf("**%d/s**: p50 µs", rate), figP50), row(name, "p99 µs", figP99), row(name, "p99.9 µs", figP999),
			row(name, "added p50 µs", "added_"+figP50), row(name, "added p99 µs", "added_"+figP99), row(name, "CPU µs/request", figCPU),
			row(name, "the load's own lateness, p99 µs", figLate),
		)
	}
	sections := []report.Section{
		{Title: "Closed loop, by connections", Note: "Bodies of 1 KB, answers of 1 KB; each connection sends its next request when it has the last answer.", Rows: closed},
		{Title: "Closed loop, by the size of the body", Note: fmt.Sprintf("%d connections.", bodyConnections), Rows: bodies},
		{Title: "Constant rate", Note: "Latency from the time at which a request was due. *Added* is what is above direct in the same round.", Rows: open},
	}
	sections = append(sections, p.streamSections()...)
	return append(sections, report.Section{Title: "Process", Rows: []report.Row{
		{Label: "first answer after start, ms", Metric: metStart},
		{Label: "memory idle, MiB", Metric: metIdle},
		{Label: fmt.Sprintf("memory under %d connections, MiB", loadedConnections), Metric: metLoaded},
		{Label: fmt.Sprintf("memory %s after all loads, MiB", p.settle), Metric: metRecovered},
	}}, report.Section{Title: "Failed requests and streams, all rounds", Rows: b.failed()})
}

// telemetrySection compares the router's variants.
func telemetrySection() report.Section {
	closed, open := telemetryName(closedName(cpuConnections)), telemetryName(openName(judgedRate))
	return report.Section{
		Title: "Telemetry",
		Note: "The router without telemetry, with every tenth request traced to a collector that answers, and with traces, metrics and log lines for a collector that accepts and never answers. " +
			"Metrics are on in all three.",
		Rows: []report.Row{
			{Label: fmt.Sprintf("**%d connections**: requests/s", cpuConnections), Metric: metric(closed, figRate)},
			{Label: "CPU µs/request", Metric: metric(closed, figCPU)},
			{Label: "p99 µs", Metric: metric(closed, figP99)},
			{Label: fmt.Sprintf("**%d/s**: p50 µs", judgedRate), Metric: metric(open, figP50)},
			{Label: "p99 µs", Metric: metric(open, figP99)},
			{Label: "CPU µs/request", Metric: metric(open, figCPU)},
			{Label: "the load's own lateness, p99 µs", Metric: metric(open, figLate)},
			{Label: "memory, MiB", Metric: metric(open, figResident)},
			{Label: "failed requests, all rounds", Metric: metric(open, figBad), Total: true},
		},
	}
}

func (p *plan) streamSections() []report.Section {
	rows := func(name string, memory bool) []report.Row {
		rows := []report.Row{
			{Label: "events/s", Metric: metric(name, figRate)},
			{Label: "CPU µs/event", Metric: metric(name, figCPU)},
			{Label: "first event p50 µs", Metric: metric(name, figFirst)},
			{Label: "first event p99 µs", Metric: metric(name, figTail)},
			{Label: "gap between events p99 µs", Metric: metric(name, figGap)},
			{Label: "longest gap of a stream p99 µs", Metric: metric(name, figWorst)},
			{Label: "events lost, all rounds", Metric: metric(name, figLost), Total: true},
		}
		if memory {
			rows = append(rows, report.Row{Label: "KB/open stream", Metric: metric(name, figSize)})
		}
		return rows
	}
	paced, burst, held := p.paced, p.burst, p.held
	return []report.Section{
		{
			Title: "Streams with pauses", Note: fmt.Sprintf("%d streams of %d events, one every %s: each event travels alone.", paced.streams, paced.shape.Events, paced.shape.Interval),
			Rows: rows(pacedName, false),
		},
		{
			Title: "Streams without pauses", Note: fmt.Sprintf("%d streams of %d events, as fast as they go: events that have come together may be passed on together.", burst.streams, burst.shape.Events),
			Rows: rows(burstName, false),
		},
		{
			Title: "Open streams", Note: fmt.Sprintf("%d streams at once, an event of each every %s; memory is what a subject that was idle before needs more.", held.streams, held.shape.Interval),
			Rows: rows(heldName, true),
		},
	}
}

// failed are the rows of what should be 0, one for each scenario.
func (b *run) failed() []report.Row {
	scenarios := slices.Concat(b.plan.answers(), b.plan.streams())
	rows := make([]report.Row, 0, len(scenarios))
	for _, s := range scenarios {
		rows = append(rows, report.Row{Label: s.name, Metric: metric(s.name, figBad), Total: true})
	}
	return rows
}

// budgets are what the router may cost.
func (b *run) budgets(micro []report.Micro) []report.Budget {
	var list []report.Budget
	add := func(what string, limit float64, unit string, scale, v float64, ok bool) {
		list = append(list, report.Budget{What: what, Limit: limit, Unit: unit, Measured: v / scale, Known: ok})
	}
	ratio := func(what string, limit float64, metric string) {
		v, ok := b.results.Ratio(subject.Router, subject.Nginx, metric)
		add(what, limit, " ×", 1, v, ok)
	}
	median := func(what string, limit float64, unit, metric string) {
		v, ok := b.results.Median(subject.Router, metric)
		add(what, limit, unit, 1, v, ok)
	}
	operation := func(what string, limit float64, names ...string) {
		v, ok := nanos(micro, names...)
		add(what, limit, " µs", 1000, v, ok)
	}
	ratio(fmt.Sprintf("CPU per request at %d connections, against nginx", cpuConnections), 1.7, metric(closedName(cpuConnections), figCPU))
	ratio("CPU per event of a stream with pauses, against nginx", 1.5, metric(pacedName, figCPU))
	ratio(fmt.Sprintf("added latency at %d requests/s, p50, against nginx's", judgedRate), 1.1, addedMetric(judgedRate, figP50))
	ratio(fmt.Sprintf("added latency at %d requests/s, p99, against nginx's", judgedRate), 1.2, addedMetric(judgedRate, figP99))
	closed, open := telemetryName(closedName(cpuConnections)), telemetryName(openName(judgedRate))
	telemetry := func(of, what string, limit float64, metric string) {
		v, ok := b.results.Ratio(of, subject.Off, metric)
		add(what+", against telemetry off", limit, " ×", 1, v, ok && b.heard)
	}
	telemetry(subject.Traced, "CPU per request with every tenth traced", 1.05, metric(closed, figCPU))
	telemetry(subject.Unread, fmt.Sprintf("CPU per request at %d requests/s with a silent collector", judgedRate), 1.05, metric(open, figCPU))
	telemetry(subject.Unread, fmt.Sprintf("p99 at %d requests/s with a silent collector", judgedRate), 1.2, metric(open, figP99))
	median("memory per open stream", 48, " KB", metric(heldName, figSize))
	median("memory idle", 30, " MiB", metIdle) // This one and the next with all features, as the allocations and the binary below.
	median(fmt.Sprintf("memory under %d connections", loadedConnections), 80, " MiB", metLoaded)
	median("first answer after start", 50, " ms", metStart)
	v, ok := allocations(micro, walkSmall)
	add("allocations per request in our own code", 30, "", 1, v, ok)
	operation("scan of a 1 KB body", 1.5, scanSmall)
	operation("scan of a 400 KB body", 60, scanLarge)
	v, ok = allocations(micro, scanSmall)
	add("allocations of a scan", 0, "", 1, v, ok)
	operation("authentication", 1.5, authHeader, authKey)
	operation("policy lookup", 0.2, lookup)
	operation("pick", 1, pickOne)
	for _, s := range b.subjects {
		if s.Name == subject.Router {
			add("binary", 45, " MB", 1e6, float64(s.Size), true)
		}
	}
	return list
}
