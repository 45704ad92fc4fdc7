package telemetry

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// register shows the signals' counts. Each series is there from the first scrape on, also of a signal that is off.
func register(to prometheus.Registerer, signals ...*signal) {
	factory := promauto.With(to)
	counter := func(name, help string, labels prometheus.Labels, from *atomic.Uint64) {
		factory.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: labels}, func() float64 { return float64(from.Load()) })
	}
	for _, s := range signals {
		counter("api_router_telemetry_exported_total", "Traces, data points and log lines that the collector took.",
			prometheus.Labels{"signal": s.name}, &s.exported)
		for reason, from := range map[string]*atomic.Uint64{"queue_full": &s.full, "failed": &s.failed, "off": &s.off} {
			counter("api_router_telemetry_dropped_total",
				"Traces, data points and log lines that were not delivered: no room in the queue, no success in time, or no pipeline at the collector.",
				prometheus.Labels{"signal": s.name, "reason": reason}, from)
		}
		factory.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "api_router_telemetry_queue_length", Help: "Traces, data points and log lines that wait for delivery or are being delivered.",
			ConstLabels: prometheus.Labels{"signal": s.name},
		}, func() float64 { return float64(s.queued.Load()) })
	}
}
