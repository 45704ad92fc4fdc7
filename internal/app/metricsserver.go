package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/net/netutil"

	"github.com/ai-aas/api-router/internal/adminapi"
	"github.com/ai-aas/api-router/internal/telemetry"
)

// How the metrics listener is kept from costing the service anything: it is opened in the background, as often as it takes, and whoever
// reaches it, without a key, can hold a few connections for a short while.
const (
	metricsFirstPause   = 500 * time.Millisecond
	metricsLongestPause = 15 * time.Second
	metricsConnections  = 64
	metricsReadTimeout  = 5 * time.Second
	metricsWriteTimeout = 20 * time.Second
	metricsMaxHeader    = 8 << 10
)

// metricsServer is the process's registry and the listener that shows it.
type metricsServer struct {
	log      *slog.Logger
	registry *prometheus.Registry
	address  string // empty: there is no listener
	moves    bool   // a taken port gives way to a free one
	remotes  dependencies

	open    atomic.Pointer[net.Addr] // nil while the listener is not
	since   atomic.Int64             // Unix nanoseconds at which it was opened
	failure atomic.Pointer[trouble]  // why the listener is not open; nil while it is
}

// newMetricsServer shows a registry. It opens nothing.
func newMetricsServer(log *slog.Logger, address string, registry *prometheus.Registry) *metricsServer {
	m := &metricsServer{log: log, registry: registry, address: address}
	m.registry.MustRegister(&m.remotes)
	return m
}

// MetricsAddr is the address of the metrics listener, nil while it is not open.
func (a *App) MetricsAddr() net.Addr {
	if addr := a.metrics.open.Load(); addr != nil {
		return *addr
	}
	return nil
}

// shows registers what the process as a whole says of itself.
func (m *metricsServer) shows(ready func() bool) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "api_router_ready", Help: "1 when /readyz says yes.",
	}, func() float64 { return number(ready()) }))
}

// run opens the listener and serves it until ctx ends. What goes wrong is logged and tried again: no metrics is no reason for no service.
func (m *metricsServer) run(ctx context.Context) error {
	if m.address == "" {
		<-ctx.Done()
		return nil
	}
	wait, known := metricsFirstPause, ""
	for {
		listener, err := m.listen(ctx)
		if err == nil {
			wait, known = metricsFirstPause, ""
			err = m.serve(ctx, listener)
		}
		if ctx.Err() != nil {
			return nil
		}
		m.fails(err)
		if text := err.Error(); text != known {
			known = text
			m.log.Warn("the metrics listener is not open and will be tried again; requests are served all the same", "address", m.address, "error", text)
		}
		pause(ctx, wait/2+rand.N(wait/2))
		wait = min(2*wait, metricsLongestPause)
	}
}

// fails notes why the listener is not open; since when stays, while it is not.
func (m *metricsServer) fails(err error) {
	since := time.Now()
	if was := m.failure.Load(); was != nil {
		since = was.since
	}
	m.failure.Store(&trouble{err.Error(), since})
}

// health says how the listener is.
func (m *metricsServer) health() []adminapi.Component {
	c := adminapi.Component{Name: adminapi.ComponentMetricsListener, ID: m.address, State: "opening"}
	switch failure, addr := m.failure.Load(), m.open.Load(); {
	case m.address == "":
		c.State, c.OK, c.Detail = "off", true, "listen.metrics is empty"
	case failure != nil:
		c.State, c.LastError, c.Since = "failing", failure.text, failure.since
		c.Action = "Nothing can be scraped, and requests are served all the same: free the port, or choose another with listen.metrics."
	case addr != nil:
		c.State, c.OK, c.Since, c.Detail = "open", true, time.Unix(0, m.since.Load()), telemetry.PathMetrics+" at "+(*addr).String()
	}
	return []adminapi.Component{c}
}

func (m *metricsServer) listen(ctx context.Context) (net.Listener, error) {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", m.address)
	if err == nil {
		return listener, nil
	}
	if !errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%w; choose another address with listen.metrics", err)
	}
	if host, _, cut := net.SplitHostPort(m.address); m.moves && cut == nil {
		return config.Listen(ctx, "tcp", net.JoinHostPort(host, "0"))
	}
	return nil, errors.New("another process has this port; choose another address with listen.metrics in the configuration, " +
		"API_ROUTER_LISTEN_METRICS or --metrics-listen")
}

// serve returns when ctx has ended, or with what ended the listener before.
func (m *metricsServer) serve(ctx context.Context, listener net.Listener) error {
	server := &http.Server{
		Handler:           telemetry.MetricsHandler(m.log, m.registry),
		ReadHeaderTimeout: metricsReadTimeout,
		ReadTimeout:       metricsReadTimeout,
		WriteTimeout:      metricsWriteTimeout,
		MaxHeaderBytes:    metricsMaxHeader,
		ErrorLog:          slog.NewLogLogger(m.log.Handler(), slog.LevelDebug),

		DisableGeneralOptionsHandler: true,
	}
	server.SetKeepAlivesEnabled(false) // A scrape is rare; connections that wait for the next one would keep others out.
	addr := listener.Addr()
	m.open.Store(&addr)
	defer m.open.Store(nil)
	m.failure.Store(nil)
	m.since.Store(time.Now().UnixNano())
	m.log.Info("metrics listener open", "address", addr.String(), "path", telemetry.PathMetrics)
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(netutil.LimitListener(listener, metricsConnections)) }()
	select {
	case err := <-ended:
		_ = server.Close() // The listener is closed already; this is for its connections.
		return err
	case <-ctx.Done():
	}
	finish, cancel := context.WithTimeout(context.Background(), adminWait)
	defer cancel()
	if server.Shutdown(finish) != nil {
		_ = server.Close() // Whoever is left has had their time.
	}
	return <-ended
}

// dependencies are the remote parts that the process is configured to use, as metrics: each is there from the first scrape on.
type dependencies []struct {
	name string
	up   func() bool
}

var dependencyUp = prometheus.NewDesc("api_router_dependency_up",
	"1 while a part that this process depends on works: the policy source can be read, the usage sink takes records, the collector answers.",
	[]string{"dependency"}, nil)

// add names a dependency and how to ask whether it works, which must not wait. It is called before Run alone.
func (d *dependencies) add(name string, up func() bool) {
	*d = append(*d, struct {
		name string
		up   func() bool
	}{name, up})
}

// Describe implements prometheus.Collector.
func (d *dependencies) Describe(to chan<- *prometheus.Desc) { to <- dependencyUp }

// Collect implements prometheus.Collector.
func (d *dependencies) Collect(to chan<- prometheus.Metric) {
	for _, dependency := range *d {
		to <- prometheus.MustNewConstMetric(dependencyUp, prometheus.GaugeValue, number(dependency.up()), dependency.name)
	}
}

func number(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
