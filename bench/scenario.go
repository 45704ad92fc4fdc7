package main

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/ai-aas/api-router/bench/backend"
	"github.com/ai-aas/api-router/bench/load"
	"github.com/ai-aas/api-router/bench/proc"
	"github.com/ai-aas/api-router/bench/subject"
)

// scenario is one kind of load. It measures a running subject and names its figures; they are filed under the scenario's name.
type scenario struct {
	name string
	run  func(ctx context.Context, m *meter, s *subject.Running) (outcome, error)
}

// outcome is what one run of a scenario gave.
type outcome struct {
	figures map[string]float64
	load.Failures
}

// The figures of scenarios.
const (
	figRate  = "rate" // requests or events a second
	figCPU   = "cpu"  // µs of processor time for each
	figP50   = "p50"  // µs
	figP99   = "p99"
	figP999  = "p99.9"
	figLate  = "late" // by how much the load itself was late, p99, µs
	figFirst = "first_p50"
	figTail  = "first_p99"
	figGap   = "gap_p99"
	figWorst = "worst_p99" // the longest gaps of the streams
	figLost  = "lost"
	figBad   = "failed"
	figSize  = "memory" // KB for each open stream

	figResident = "resident" // MiB, at the end of the window
)

// The names of scenarios.
func closedName(connections int) string { return fmt.Sprintf("closed/%d", connections) }
func bodyName(kb int) string            { return fmt.Sprintf("body/%d", kb) }
func openName(rate int) string          { return fmt.Sprintf("open/%d", rate) }

func telemetryName(name string) string { return "telemetry/" + name }

const (
	pacedName = "streams/paced"
	burstName = "streams/burst"
	heldName  = "streams/held"
)

// meter reads the accounting of a process at the edges of a window.
type meter struct {
	tree          proc.Tree
	off           bool  // there is no accounting
	idle          int64 // bytes of memory before
	before, after proc.Snapshot
	err           error
}

func (m *meter) read(into *proc.Snapshot) func() {
	return func() {
		if m.off || m.err != nil {
			return
		}
		*into, m.err = m.tree.Read()
	}
}

func (m *meter) window(warmup, length time.Duration) load.Window {
	return load.Window{Warmup: warmup, Length: length, Begin: m.read(&m.before), End: m.read(&m.after)}
}

// cpu is the processor time in µs for each of n.
func (m *meter) cpu(n uint64) float64 {
	if m.off || m.err != nil || n == 0 {
		return math.NaN()
	}
	var used time.Duration
	if used, m.err = m.after.CPUSince(m.before); m.err != nil {
		return math.NaN()
	}
	return micros(used) / float64(n)
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// answers are the scenarios of whole answers, in their order.
func (p *plan) answers() []scenario {
	var list []scenario
	for _, n := range p.connections {
		list = append(list, p.closed(closedName(n), n, smallBody, p.window))
	}
	for _, rate := range p.rates {
		list = append(list, p.open(openName(rate), rate, p.openWindow))
	}
	for _, kb := range p.bodies {
		list = append(list, p.closed(bodyName(kb), bodyConnections, kb<<10, p.window))
	}
	return list
}

// telemetry are the scenarios that the router's variants are compared in.
func (p *plan) telemetry() []scenario {
	return []scenario{
		p.closed(telemetryName(closedName(cpuConnections)), cpuConnections, smallBody, p.telemetryWindow),
		p.open(telemetryName(openName(judgedRate)), judgedRate, p.telemetryWindow),
	}
}

func target(s *subject.Running, size int) load.Target {
	whole := backend.Shape{}
	return load.Target{Address: s.Address, Request: request(whole.Model(), false, size), Length: whole.Length()}
}

func (p *plan) closed(name string, connections, size int, window time.Duration) scenario {
	return scenario{name, func(ctx context.Context, m *meter, s *subject.Running) (outcome, error) {
		r, err := load.Closed(ctx, target(s, size), connections, m.window(p.warmup, window))
		if err != nil {
			return outcome{}, err
		}
		return answered(m, r), m.err
	}}
}

func (p *plan) open(name string, rate int, window time.Duration) scenario {
	return scenario{name, func(ctx context.Context, m *meter, s *subject.Running) (outcome, error) {
		r, err := load.Open(ctx, target(s, smallBody), float64(rate), openConnections, m.window(p.warmup, window))
		if err != nil {
			return outcome{}, err
		}
		o := answered(m, r)
		o.figures[figLate] = micros(r.Late.Quantile(0.99))
		return o, m.err
	}}
}

func answered(m *meter, r *load.Result) outcome {
	return outcome{map[string]float64{
		figRate: float64(r.Requests) / r.Elapsed.Seconds(),
		figCPU:  m.cpu(r.Requests),
		figP50:  micros(r.Latency.Quantile(0.5)),
		figP99:  micros(r.Latency.Quantile(0.99)),
		figP999: micros(r.Latency.Quantile(0.999)),
		figBad:  float64(r.Failed),
	}, r.Failures}
}

// streams are the scenarios of streams. The first one is the one whose memory is read: it needs a subject that has done nothing yet.
func (p *plan) streams() []scenario {
	return []scenario{
		{heldName, p.held.scenario(false)},
		{pacedName, p.paced.scenario(false)},
		{burstName, p.burst.scenario(true)},
	}
}

func (p *streamPlan) scenario(again bool) func(context.Context, *meter, *subject.Running) (outcome, error) {
	return func(ctx context.Context, m *meter, s *subject.Running) (outcome, error) {
		r, err := load.StreamLoad{
			Target:  load.Target{Address: s.Address, Request: request(p.shape.Model(), true, smallBody)},
			Streams: p.streams, Ramp: p.ramp, Events: p.shape.Sent(), Again: again,
			Window: m.window(p.warmup, p.window),
		}.Run(ctx)
		if err != nil {
			return outcome{}, err
		}
		o := outcome{map[string]float64{
			figRate:  float64(r.Events) / r.Elapsed.Seconds(),
			figCPU:   m.cpu(r.Events),
			figFirst: micros(r.FirstEvent.Quantile(0.5)),
			figTail:  micros(r.FirstEvent.Quantile(0.99)),
			figGap:   micros(r.Gaps.Quantile(0.99)),
			figWorst: micros(r.WorstGaps.Quantile(0.99)),
			figLost:  float64(r.Lost + r.Extra),
			figBad:   float64(r.Failed),
		}, r.Failures}
		return o, m.err
	}
}
