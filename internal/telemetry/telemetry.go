package telemetry

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	collectorpb "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	logspb "go.opentelemetry.io/proto/otlp/logs/v1"
	metricspb "go.opentelemetry.io/proto/otlp/metrics/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"

	"github.com/ai-aas/api-router/internal/trace"
)

// stopBudget is how long the last of the telemetry may take at the end of the process, whatever the collector does.
const stopBudget = 3 * time.Second

// Options are what New needs.
type Options struct {
	// Env is the whole environment. The standard variables in it say what is sent, where and how; nothing else is read.
	Env map[string]string
	// Logger says how the delivery fares. Its lines must not come back through Telemetry.Logger: a failure would then feed on itself.
	Logger  *slog.Logger
	Version string
	// Sample is the share of traces that begin here and are kept, from 0 to 1, unless Env has a sampler.
	Sample float64
	// Within is asked for each log line: the place in a trace where it was written. It may be nil.
	Within func(context.Context) trace.Context
	// Gatherer is what is sent as metrics. nil: none are.
	Gatherer prometheus.Gatherer
	// Metrics registers how many entries were sent and dropped. It may be nil.
	Metrics prometheus.Registerer
}

// Telemetry sends traces, metrics and log lines to a collector, and never holds up who makes them: it takes what has room, drops the rest,
// and counts both.
type Telemetry struct {
	sampler  sampler
	resource *resourcepb.Resource
	scope    *commonpb.InstrumentationScope
	within   func(context.Context) trace.Context

	spans  *batcher[*trace.Trace]
	lines  *batcher[*logspb.LogRecord]
	points *pusher

	stopping chan struct{} // closed by Stop
	ended    chan struct{} // closed when all that Start began has ended
	mu       sync.Mutex
	started  bool
	stopped  bool
}

// New reads the settings and says in the log what is wrong with them: nothing there is fatal. It dials nothing and sends nothing; what
// is given to it waits for Start.
func New(o Options) *Telemetry {
	settings := readSettings(o.Env, validShare(o.Sample))
	if o.Gatherer == nil && settings.metrics.off == "" {
		settings.metrics = collector{off: "there are no metrics to send"}
	}
	host, err := os.Hostname()
	if err != nil {
		host = "" // A resource without it is still one.
	}
	t := &Telemetry{
		sampler: settings.sampler, within: o.Within,
		resource: resource(settings.resource, o.Version, uuid.NewString(), host),
		scope:    &commonpb.InstrumentationScope{Name: scope, Version: o.Version},
		stopping: make(chan struct{}), ended: make(chan struct{}),
	}
	carry := func(name string, to collector) *signal {
		return newSignal(name, to, "api-router/"+o.Version, o.Logger, t.stopping)
	}
	t.spans = newBatcher(carry(Traces, settings.traces), settings.spans, func(each *trace.Trace) int { return max(len(each.Spans), 1) }, t.sendTraces)
	t.lines = newBatcher(carry(Logs, settings.logs), settings.lines, func(*logspb.LogRecord) int { return 1 }, t.sendLines)
	t.points = &pusher{
		signal: carry(Metrics, settings.metrics), from: o.Gatherer, began: time.Now(), every: settings.interval, budget: settings.budget,
		request: t.metricsRequest,
	}
	register(o.Metrics, t.signals()...)
	for _, n := range settings.notes {
		o.Logger.Log(context.Background(), n.level, n.message, n.attrs...)
	}
	for _, s := range t.signals() {
		if s.on() {
			s.log.Info("telemetry is sent by OTLP")
		}
	}
	return t
}

func (t *Telemetry) metricsRequest(metrics []*metricspb.Metric) *collectorpb.ExportMetricsServiceRequest {
	return &collectorpb.ExportMetricsServiceRequest{ResourceMetrics: []*metricspb.ResourceMetrics{{
		Resource: t.resource, ScopeMetrics: []*metricspb.ScopeMetrics{{Scope: t.scope, Metrics: metrics}},
	}}}
}

func (t *Telemetry) signals() []*signal {
	return []*signal{t.spans.signal, t.points.signal, t.lines.signal}
}

// Start begins to send, in the background, and returns at once. It is called when the process serves already; what was given before has waited.
func (t *Telemetry) Start() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.started || t.stopped {
		return
	}
	t.started = true
	go t.run()
}

func (t *Telemetry) run() {
	defer close(t.ended)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var loops sync.WaitGroup
	if t.spans.on() {
		loops.Go(func() { t.spans.run(ctx, t.stopping) })
	}
	if t.lines.on() {
		loops.Go(func() { t.lines.run(ctx, t.stopping) })
	}
	if t.points.on() {
		loops.Go(func() { t.points.run(ctx, t.stopping) })
	}
	<-t.stopping
	before := map[string]uint64{}
	for _, s := range t.signals() {
		before[s.name] = s.dropped()
	}
	timer := time.AfterFunc(stopBudget, cancel)
	defer timer.Stop()
	loops.Wait()
	for _, s := range t.signals() {
		if !s.on() {
			continue
		}
		s.by.close()
		if lost := s.dropped() - before[s.name]; lost > 0 {
			s.log.Warn("the last telemetry could not be delivered", "dropped", lost, "reason", s.status().LastError)
		}
	}
}

// Stop sends what is left, which takes three seconds at most whatever the collector does, and ends what Start began. It waits no longer
// than ctx. Without Start nothing is sent.
func (t *Telemetry) Stop(ctx context.Context) error {
	t.mu.Lock()
	if !t.stopped {
		t.stopped = true
		close(t.stopping)
	}
	started := t.started
	t.mu.Unlock()
	if !started {
		return nil
	}
	select {
	case <-t.ended:
		return nil
	case <-ctx.Done():
		return errors.New("the last telemetry was not sent in time")
	}
}

// Sample decides at the head of a trace whether it is kept. parent is the caller's place in it, zero for none. Where no traces are sent, a
// caller's decision passes through, for those who are called.
func (t *Telemetry) Sample(id trace.ID, parent trace.Context) bool {
	if !t.spans.on() {
		return parent.Sampled
	}
	return t.sampler.sample(id, parent)
}

// Tracing reports whether traces are sent at all.
func (t *Telemetry) Tracing() bool { return t.spans.on() }

// Room reports whether a trace would be taken now. When not, it counts as dropped: ask once for each trace, and do not make it in vain.
func (t *Telemetry) Room() bool { return t.spans.room() }

// Emit takes a trace, which must not be changed any more. It never blocks: a trace without room is dropped and counted.
func (t *Telemetry) Emit(each *trace.Trace) { t.spans.offer(each) }

// Logger is NewLogger, and sends on what is written by it, where log lines are sent: to w first, which nothing here can fail or hold up.
func (t *Telemetry) Logger(w io.Writer, format string, level slog.Leveler, attrs func(context.Context) []slog.Attr) *slog.Logger {
	h := newHandler(w, format, level)
	if t.lines.on() {
		h = fanout{h, &lineHandler{to: t.lines, within: t.within}}
	}
	return newLogger(h, attrs)
}

// Status tells how each signal fares: traces, metrics, logs.
func (t *Telemetry) Status() []Signal {
	all := make([]Signal, 0, 3)
	for _, s := range t.signals() {
		all = append(all, s.status())
	}
	return all
}
