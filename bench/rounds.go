package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/ai-aas/api-router/bench/backend"
	"github.com/ai-aas/api-router/bench/proc"
	"github.com/ai-aas/api-router/bench/report"
	"github.com/ai-aas/api-router/bench/subject"
)

// run is one benchmark.
type run struct {
	plan       plan
	only       *regexp.Regexp
	subjects   []*subject.Subject
	variants   []*subject.Subject // of the router: they are compared with each other alone
	collectors *collectors
	heard      bool // something came to each collector
	workers    int
	accounting bool
	dir        string
	log        io.Writer

	results  report.Results
	skipped  []string
	failures uint64
	// others and stolen are the shares of the machine that were not ours during the rounds, 0 to 1.
	others, stolen float64
}

// The figures of a subject's life, beside those of the scenarios.
const (
	metStart     = "start"     // ms from exec to the first answer
	metIdle      = "idle"      // MiB
	metLoaded    = "loaded"    // MiB, at the end of the closed loop over loadedConnections
	metRecovered = "recovered" // MiB, after everything and a rest
)

const (
	mib = 1 << 20
	// breath is a pause between two runs, in which connections close.
	breath = 100 * time.Millisecond
)

// skip says loudly that something is not measured.
func (b *run) skip(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	b.skipped = append(b.skipped, text)
	fmt.Fprintf(b.log, "SKIPPING %s\n", text)
}

// rounds runs all rounds. In each, all subjects run at once but only one is under load: scenario by scenario one after the other, in an
// order that moves on with the rounds.
func (b *run) rounds(ctx context.Context) error {
	before, beforeOwn, err := b.machine()
	if err != nil {
		return err
	}
	if b.collectors, err = startCollectors(ctx); err != nil {
		return err
	}
	defer b.collectors.stop()
	for round := range b.plan.rounds {
		order := turned(b.subjects, round)
		if err := b.life(ctx, round, order, b.plan.answers(), true); err != nil {
			return err
		}
		if err := b.life(ctx, round, order, b.plan.streams(), false); err != nil {
			return err
		}
		if err := b.life(ctx, round, turned(b.variants, round), b.plan.telemetry(), false); err != nil {
			return err
		}
	}
	b.checkCollectors()
	after, afterOwn, err := b.machine()
	if all := after.All - before.All; err == nil && all > 0 {
		b.others = max(float64(after.Busy-before.Busy-(afterOwn-beforeOwn))/float64(all), 0)
		b.stolen = float64(after.Stolen-before.Stolen) / float64(all)
	}
	for _, rate := range b.plan.rates {
		for _, fig := range []string{figP50, figP99} {
			b.results.Subtract(subject.Direct, metric(openName(rate), fig), addedMetric(rate, fig))
		}
	}
	return err
}

// turned is a list that begins, in each round, with another one of its members.
func turned(list []*subject.Subject, round int) []*subject.Subject {
	if len(list) == 0 {
		return nil
	}
	first := round % len(list)
	return slices.Concat(list[first:], list[:first])
}

func metric(scenario, figure string) string { return scenario + " " + figure }

func addedMetric(rate int, figure string) string { return metric(openName(rate), "added_"+figure) }

// machine reads the processor time of the machine, and of this process with all that it has started.
func (b *run) machine() (proc.Machine, time.Duration, error) {
	if !b.accounting {
		return proc.Machine{}, 0, nil
	}
	own, err := proc.Take(os.Getpid())
	if err != nil {
		return proc.Machine{}, 0, err
	}
	m, err := proc.ReadMachine()
	return m, own.Total(), err
}

// life starts the backend and every subject, runs the scenarios, and stops them all, whatever happens.
func (b *run) life(ctx context.Context, round int, order []*subject.Subject, scenarios []scenario, thenRest bool) error {
	scenarios = slices.DeleteFunc(scenarios, func(s scenario) bool { return !b.only.MatchString(s.name) })
	if len(scenarios) == 0 || len(order) == 0 {
		return nil
	}
	dir, err := os.MkdirTemp(b.dir, "life-")
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	models := b.plan.models()
	back, err := subject.StartBackend(ctx, dir, append([]string{self, backendCommand}, models...)...)
	if err != nil {
		return err
	}
	defer back.Stop()
	site := subject.Site{Backend: back.Address, Models: models, Workers: b.workers, Collector: b.collectors.answering.address(), Silent: b.collectors.silent.address()}
	probe := request(backend.Shape{}.Model(), false, smallBody)
	var live []*living
	defer func() {
		for _, l := range live {
			l.Stop()
		}
	}()
	for _, s := range order {
		r, err := s.Start(ctx, dir, site, back, probe)
		if err != nil {
			return err
		}
		live = append(live, &living{Running: r})
		if r.FirstAnswer > 0 {
			b.add(round, r.Name, metStart, micros(r.FirstAnswer)/1000)
		}
	}
	if err := b.memory(ctx, round, live, metIdle, b.plan.warmup); err != nil {
		return err
	}
	for _, s := range scenarios {
		for _, l := range live {
			if err := b.measure(ctx, round, s, l); err != nil {
				return fmt.Errorf("%s, %s: %w", s.name, l.Name, l.Explain(err))
			}
		}
	}
	if !thenRest {
		return nil
	}
	return b.memory(ctx, round, live, metRecovered, b.plan.settle)
}

// living is a subject in one life.
type living struct {
	*subject.Running

	rss int64 // bytes, when it was last read
}

// memory reads the resident memory of every subject after a rest and files it under a name.
func (b *run) memory(ctx context.Context, round int, live []*living, name string, rest time.Duration) error {
	if err := pause(ctx, rest); err != nil || !b.accounting {
		return err
	}
	for _, l := range live {
		s, err := proc.Take(l.PID)
		if err != nil {
			return l.Explain(err)
		}
		l.rss = s.RSS
		if l.Name != subject.Direct {
			b.add(round, l.Name, name, float64(s.RSS)/mib)
		}
	}
	return nil
}

// measure runs one scenario with one subject.
func (b *run) measure(ctx context.Context, round int, s scenario, l *living) error {
	m := &meter{off: !b.accounting, idle: l.rss}
	if b.accounting {
		if m.tree, m.err = proc.Find(l.PID); m.err != nil {
			return m.err
		}
	}
	o, err := s.run(ctx, m, l.Running)
	if err != nil {
		return err
	}
	for name, v := range o.figures {
		b.add(round, l.Name, metric(s.name, name), v)
	}
	if b.accounting && l.Name != subject.Direct {
		switch s.name {
		case closedName(loadedConnections):
			b.add(round, l.Name, metLoaded, float64(m.after.RSS)/mib)
		case telemetryName(openName(judgedRate)):
			b.add(round, l.Name, metric(s.name, figResident), float64(m.after.RSS)/mib)
		case heldName:
			o.figures[figSize] = float64(m.after.RSS-m.idle) / float64(b.plan.held.streams) / 1024
			b.add(round, l.Name, metric(heldName, figSize), o.figures[figSize])
		}
	}
	fmt.Fprintf(b.log, "round %d  %-21s %-16s %s\n", round+1, s.name, l.Name, brief(o.figures))
	if o.Failed > 0 {
		b.failures += o.Failed
		fmt.Fprintf(b.log, "FAILED: %d in %s through %s, the first: %v\n", o.Failed, s.name, l.Name, o.First)
	}
	return pause(ctx, breath)
}

func (b *run) add(round int, name, metric string, v float64) { b.results.Add(round, name, metric, v) }

// brief is a line for whoever watches.
func brief(figures map[string]float64) string {
	var text strings.Builder
	for _, f := range []struct{ name, format string }{
		{figRate, "%8.0f/s"},
		{figCPU, "  cpu %6.1f µs"},
		{figP50, "  p50 %7.0f µs"},
		{figP99, "  p99 %7.0f µs"},
		{figLate, "  sent late p99 %4.0f µs"},
		{figFirst, "  first %7.0f µs"},
		{figGap, "  gap p99 %7.0f µs"},
		{figWorst, "  longest p99 %7.0f µs"},
		{figSize, "  %5.1f KB each"},
	} {
		if v, ok := figures[f.name]; ok {
			fmt.Fprintf(&text, f.format, v)
		}
	}
	return text.String()
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
