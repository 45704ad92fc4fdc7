package usage

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Measure registers the recorder's metrics. It returns r, and is called at most once.
func (r *Recorder) Measure(registerer prometheus.Registerer) *Recorder {
	factory := promauto.With(registerer)
	factory.NewCounterFunc(prometheus.CounterOpts{
		Name: "api_router_usage_records_total", Help: "Requests whose usage record was closed, whether or not a sink could take it.",
	}, func() float64 { return float64(r.closed.Load()) })
	factory.NewCounterFunc(prometheus.CounterOpts{
		Name: "api_router_usage_lines_lost_total", Help: "Lines of usage records that a sink could not take.",
	}, func() float64 { return float64(r.lost.Load()) })
	return r
}
