package app

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ai-aas/api-router/internal/adminapi"
	"github.com/ai-aas/api-router/internal/gateway"
	"github.com/ai-aas/api-router/internal/telemetry"
)

// tell makes what sends telemetry, and the logger that sends on what it writes. It dials nothing; App starts it once it serves. Its own
// lines go to log, and so to stderr alone: they must not depend on what they tell of.
func (p *Process) tell(env map[string]string, c *Config, registry *prometheus.Registry, level *slog.LevelVar, log *slog.Logger) (*telemetry.Telemetry, *slog.Logger) {
	t := telemetry.New(telemetry.Options{
		Env: env, Logger: log.With("component", "telemetry"), Version: p.Version, Sample: c.Telemetry.Traces.Sample,
		Within: gateway.Place, Gatherer: registry, Metrics: registry,
	})
	both := t.Logger(p.Stderr, c.Log.Format, level, requestAttrs)
	return t, both
}

// flushBudget is a little more than what telemetry allows itself.
const flushBudget = 5 * time.Second

// hurry is what is left of it when a second signal asks for the end at once: enough for a collector that answers.
const hurry = 500 * time.Millisecond

// flush sends what is left of the telemetry, after everything that could tell more. log writes to stderr alone by now.
func flush(t *telemetry.Telemetry, log *slog.Logger, force <-chan struct{}) {
	ctx, cancel := context.WithTimeout(context.Background(), flushBudget)
	defer cancel()
	go func() {
		select {
		case <-force:
			pause(ctx, hurry)
			cancel()
		case <-ctx.Done():
		}
	}()
	if err := t.Stop(ctx); err != nil {
		log.Warn("stopping failed", "part", "telemetry", "error", err)
	}
}

// tracer is t where traces are sent; nil where they are not.
func tracer(t *telemetry.Telemetry) gateway.Tracer {
	if t == nil || !t.Tracing() {
		return nil
	}
	return t
}

// otlp is what the name of a signal begins with among other things that the process depends on.
const otlp = "otlp_"

// relies names each signal that is sent among what the process depends on.
func (d *dependencies) relies(t *telemetry.Telemetry) {
	if t == nil {
		return
	}
	for i, s := range t.Status() {
		if s.State != telemetry.Off {
			// A collector that answers is there, also for a signal that it has no pipeline for; and nothing to send is no failure.
			d.add(otlp+s.Name, func() bool { return t.Status()[i].State != telemetry.Failing })
		}
	}
}

// telemetryHealth is each signal of telemetry, for operators. None of them is needed to serve.
func (a *App) telemetryHealth() []adminapi.Component {
	if a.telemetry == nil {
		return nil
	}
	var all []adminapi.Component
	for _, s := range a.telemetry.Status() {
		all = append(all, signalHealth(&s))
	}
	return all
}

// telemetryPublic is each signal that is sent, for outsiders.
func (a *App) telemetryPublic() []gateway.Component {
	if a.telemetry == nil {
		return nil
	}
	var all []gateway.Component
	for _, s := range a.telemetry.Status() {
		if s.State != telemetry.Off {
			all = append(all, gateway.Component{
				Name: otlp + s.Name, State: string(s.State), OK: s.State == telemetry.Up || s.State == telemetry.Idle, Since: s.Since,
			})
		}
	}
	return all
}

func signalHealth(s *telemetry.Signal) adminapi.Component {
	c := adminapi.Component{Name: adminapi.ComponentTelemetry, ID: s.Name, State: string(s.State), OK: true, Since: s.Since}
	switch {
	case s.Unusable:
		c.OK, c.LastError, c.Action = false, s.LastError, "It is not sent, and requests are served all the same: correct the variable, and start the router anew."
		return c
	case s.State == telemetry.Off:
		c.Detail = s.LastError
		return c
	case s.State == telemetry.Failing:
		c.OK, c.Action = false, "It is dropped until the collector takes it, and requests are served all the same: \"api-router doctor\" says what the collector answers."
	case s.State == telemetry.Refused:
		c.OK, c.Action = false, "The collector has no pipeline for it: add one there, or switch it off here with OTEL_"+strings.ToUpper(s.Name)+"_EXPORTER=none."
	}
	c.LastError = s.LastError
	c.Detail = fmt.Sprintf("to %s (%s), %d sent, %d dropped, %d waiting", s.Endpoint, s.Protocol, s.Exported, s.Dropped, s.Queue)
	return c
}
