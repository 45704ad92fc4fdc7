package telemetry

import (
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/ai-aas/api-router/internal/fault"
)

// PathMetrics is where the metrics are.
const PathMetrics = "/metrics"

// A scrape reads counters: whoever asks in crowds, or finds it slow, is told to come again.
const (
	scrapesAtOnce = 4
	scrapeTimeout = 10 * time.Second
)

// NewRegistry returns the registry of a process: what Go and the operating system say of it, and which build it is. It is the
// process's own and not the library's global one, so that nothing is exposed that nobody put there.
func NewRegistry(version string) *prometheus.Registry {
	registry := prometheus.NewRegistry()
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "api_router_build_info", Help: "Which build this is: always 1.",
	}, []string{"version", "goversion"})
	build.WithLabelValues(version, runtime.Version()).Set(1)
	registry.MustRegister(build, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return registry
}

// MetricsHandler serves the metrics at PathMetrics, in Prometheus's text format or in OpenMetrics, which has exemplars. Every other
// path and every method but GET and HEAD is a 404: nothing else is on its listener.
//
// A collector that fails is logged and left out of the answer. Requests beyond scrapesAtOnce, or that take longer than scrapeTimeout,
// are answered 503.
func MetricsHandler(log *slog.Logger, gatherer prometheus.Gatherer) http.Handler {
	scrape := promhttp.HandlerFor(gatherer, promhttp.HandlerOpts{
		ErrorLog:            &failures{log: log},
		ErrorHandling:       promhttp.ContinueOnError,
		MaxRequestsInFlight: scrapesAtOnce,
		Timeout:             scrapeTimeout,
		EnableOpenMetrics:   true,
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != PathMetrics || r.Method != http.MethodGet && r.Method != http.MethodHead {
			fault.Write(w, fault.New(fault.NotFound, "nothing is served here but GET "+PathMetrics))
			return
		}
		w.Header().Set("X-Content-Type-Options", "nosniff")
		scrape.ServeHTTP(w, r)
	})
}

// failures takes what promhttp has to say to the log, once a minute at most: it says something for each family of metrics that whoever
// asked did not wait for.
type failures struct {
	log    *slog.Logger
	warned atomic.Int64 // Unix seconds of the last line
}

func (f *failures) Println(values ...any) {
	second := time.Now().Unix()
	if last := f.warned.Load(); second-last >= 60 && f.warned.CompareAndSwap(last, second) {
		f.log.Warn("metrics could not be collected or sent whole", "reason", fmt.Sprint(values...))
	}
}
