package telemetry

import (
	"context"
	"errors"
	"sync"

	logspb "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	metricspb "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	tracespb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"
)

// Trial is what became of the attempt to send nothing of one signal.
type Trial struct {
	Signal   string
	Endpoint string // a URL without user and query; "" when there is none
	Protocol string // GRPC or HTTP; "" when nothing is sent
	Off      bool   // nobody asked for it
	Err      error  // why the collector does not take it, or what is wrong with the settings; nil when all is well
}

// Try sends an empty request of each signal that env asks for, all at once, and tells what the collector said. It ends with ctx, or after
// the time that env allows for one attempt.
func Try(ctx context.Context, env map[string]string, agent string) []Trial {
	s := readSettings(env, 0)
	trials := []Trial{{Signal: Traces}, {Signal: Metrics}, {Signal: Logs}}
	var all sync.WaitGroup
	for i, to := range []*collector{&s.traces, &s.metrics, &s.logs} {
		all.Go(func() { trials[i].run(ctx, to, agent) })
	}
	all.Wait()
	return trials
}

func (t *Trial) run(ctx context.Context, to *collector, agent string) {
	switch {
	case to.unusable:
		t.Err = errors.New(to.off)
		return
	case to.off != "":
		t.Off = true
		return
	}
	t.Endpoint, t.Protocol = to.display(), to.protocol
	by := to.carrier(t.Signal, agent)
	defer by.close()
	ctx, cancel := context.WithTimeout(ctx, to.timeout)
	defer cancel()
	t.Err = by.send(ctx, emptyRequest(t.Signal), newAnswer(t.Signal))
}

// emptyRequest holds nothing. A collector takes it where it would take more.
func emptyRequest(signal string) proto.Message {
	switch signal {
	case Traces:
		return new(tracespb.ExportTraceServiceRequest)
	case Metrics:
		return new(metricspb.ExportMetricsServiceRequest)
	default:
		return new(logspb.ExportLogsServiceRequest)
	}
}
