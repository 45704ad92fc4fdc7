package fleet

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics are the fleet's counters. What is known of a backend at any moment is read from its Status when somebody asks.
type metrics struct {
	ejections *prometheus.CounterVec
	probes    *prometheus.CounterVec
}

// handles are what is counted under one backend's id, whatever configuration it has.
type handles struct{ ejections, healthy, unhealthy prometheus.Counter }

func newMetrics(registerer prometheus.Registerer, status func() []Status) *metrics {
	factory := promauto.With(registerer)
	if registerer != nil {
		registerer.MustRegister(statuses(status))
	}
	return &metrics{
		ejections: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "api_router_fleet_ejections_total", Help: "Times that a backend was taken out because requests to it failed.",
		}, []string{"backend"}),
		probes: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "api_router_fleet_probes_total", Help: "Probes of a backend that have ended, by what they found: healthy or unhealthy.",
		}, []string{"backend", "result"}),
	}
}

// of resolves what is counted under an id.
func (m *metrics) of(id string) *handles {
	return &handles{
		ejections: m.ejections.WithLabelValues(id),
		healthy:   m.probes.WithLabelValues(id, probeHealthy.String()), unhealthy: m.probes.WithLabelValues(id, probeUnhealthy.String()),
	}
}

// forget deletes what was counted under an id that has left. What still ends there counts on where nobody sees it.
func (m *metrics) forget(id string) {
	m.ejections.DeleteLabelValues(id)
	m.probes.DeletePartialMatch(prometheus.Labels{"backend": id})
}

// statuses shows the state of every backend at the moment of a scrape.
type statuses func() []Status

var (
	descState = prometheus.NewDesc("api_router_fleet_backend_state",
		"1 for the state that a backend is in, 0 for the others: available, full, resting, ejected, unhealthy, draining, disabled.", []string{"backend", "state"}, nil)
	descInFlight = prometheus.NewDesc("api_router_fleet_backend_in_flight", "Requests that run at a backend now.", []string{"backend"}, nil)
	descLimit    = prometheus.NewDesc("api_router_fleet_backend_max_concurrency",
		"How many requests may run at a backend at once; 0: as many as come.", []string{"backend"}, nil)
	descFailures = prometheus.NewDesc("api_router_fleet_backend_consecutive_failures", "Requests to a backend that have failed in a row.", []string{"backend"}, nil)
)

// Describe implements prometheus.Collector.
func (statuses) Describe(to chan<- *prometheus.Desc) {
	for _, desc := range [...]*prometheus.Desc{descState, descInFlight, descLimit, descFailures} {
		to <- desc
	}
}

// Collect implements prometheus.Collector.
func (s statuses) Collect(to chan<- prometheus.Metric) {
	gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	for _, b := range s() {
		for _, name := range stateNames[:gone] { // What is gone is not listed.
			value := 0.0
			if b.State == name {
				value = 1
			}
			gauge(descState, value, b.ID, name)
		}
		gauge(descInFlight, float64(b.InFlight), b.ID)
		gauge(descLimit, float64(b.Limit), b.ID)
		gauge(descFailures, float64(b.Failures), b.ID)
	}
}
