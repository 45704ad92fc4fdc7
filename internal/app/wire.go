package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ai-aas/api-router/api"
	"github.com/ai-aas/api-router/internal/admin"
	"github.com/ai-aas/api-router/internal/auth"
	"github.com/ai-aas/api-router/internal/auth/oidc"
	"github.com/ai-aas/api-router/internal/auth/userorg"
	"github.com/ai-aas/api-router/internal/fleet"
	"github.com/ai-aas/api-router/internal/gateway"
	"github.com/ai-aas/api-router/internal/limit"
	"github.com/ai-aas/api-router/internal/plan"
	"github.com/ai-aas/api-router/internal/policy"
	"github.com/ai-aas/api-router/internal/proxy"
	"github.com/ai-aas/api-router/internal/telemetry"
	"github.com/ai-aas/api-router/internal/usage"
)

// maxHeader is the largest head of a request, in bytes. Over HTTP/1, net/http may let up to 4 KiB more pass before it answers 431.
const maxHeader = 32 << 10

// How a dead HTTP/2 client is found: no TCP keep-alive reaches through a load balancer.
const (
	pingAfter = 30 * time.Second
	pingWait  = 15 * time.Second
)

// Options are what New needs.
type Options struct {
	Config  Config
	Logger  *slog.Logger
	Version string
	// Registry is where the process's metrics are; nil: a new one.
	Registry *prometheus.Registry
	// Telemetry is started once the process serves. Whoever made it stops it. It may be nil.
	Telemetry *telemetry.Telemetry
	// Source replaces the place that the configuration names; there is no book beside it.
	Source policy.Source
	// Ledger replaces the book of keys in the place of the documents.
	Ledger auth.Ledger
	// OpenAdmin opens the admin listener without a token, for this machine alone, and on a free port where the configured one is
	// taken. For dev alone.
	OpenAdmin bool
	// MoveMetrics opens the metrics listener on a free port where the configured one is taken. For dev alone.
	MoveMetrics bool
	// Keys are keys of backends, by id, that stand in no document.
	Keys map[string]fleet.Secret
	// Level is what the handlers of Logger go by: the admin API changes it. Nil: there is nothing to change.
	Level *slog.LevelVar
	// Hints makes refusals say which keys and models work. For dev alone.
	Hints bool
	// Reload asks for the policies to be read anew with each value.
	Reload <-chan struct{}
	// Force ends a drain at once when it gets a value or is closed.
	Force <-chan struct{}

	// place is where documents live, if somebody has opened it already; the process closes it.
	place *place
	// loops run beside those of the process.
	loops []loop
}

// rooms are the parts that live as long as the process.
type rooms struct {
	recorder *usage.Recorder
	fleet    *fleet.Fleet
	place    *place
	keys     *auth.Keys       // of the state book; nil: they are not asked for
	userOrg  *userorg.Service // nil: none is configured
	tokens   *oidc.Verifier   // of issuers of signed tokens; nil: none is configured
	store    *policy.Store
	gateway  *gateway.Gateway
	roster   *roster
	metrics  *metricsServer

	certificates certificates // of the listeners that speak TLS

	operators *operators // nil where nobody may use the admin API
	level     *logLevel
	sinks     []sink
}

// New wires the process and opens its listener. It dials nothing and serves nothing; Run does. What it opened is closed again when it fails.
func New(opts Options) (*App, error) {
	a := &App{
		log: opts.Logger, config: opts.Config, version: opts.Version, began: time.Now(),
		loops: opts.loops, telemetry: opts.Telemetry, reload: opts.Reload, force: opts.Force, failed: make(chan error, 1),
	}
	a.requests, a.endRequests = context.WithCancelCause(context.Background())
	if err := a.wire(opts); err != nil {
		return nil, errors.Join(err, a.stopAll())
	}
	return a, nil
}

// wire is one straight function on purpose: its local names are the graph of who needs whom.
func (a *App) wire(opts Options) error {
	c := &a.config
	a.onStop("requests", func(context.Context) error { a.endRequests(nil); return nil })

	a.metrics = newMetricsServer(a.log.With("component", "metrics"), c.Listen.Metrics, cmp.Or(opts.Registry, telemetry.NewRegistry(opts.Version)))
	a.metrics.moves = opts.MoveMetrics
	registry := a.metrics.registry

	sinks := make([]usage.Sink, 0, len(c.Usage.Sinks))
	var failing []func() bool
	for _, s := range c.Usage.Sinks {
		lines := usage.NewLines(s.Path)
		if err := lines.Probe(); err != nil {
			a.log.Error("usage records cannot be written yet: make the file writable", "path", s.Path, "error", err)
		}
		sinks = append(sinks, lines)
		a.sinks = append(a.sinks, sink{lines.Status})
		failing = append(failing, lines.Failing)
	}
	if len(sinks) == 0 {
		a.log.Warn("no usage sink is configured: usage shows in this log only; set usage.sinks to keep it")
	}
	a.recorder = usage.NewRecorder(a.log.With("component", "usage"), sinks...).Measure(registry)
	if len(sinks) > 0 {
		a.metrics.remotes.add("usage_sink", func() bool { return !slices.ContainsFunc(failing, func(is func() bool) bool { return is() }) })
	}
	a.onStop("usage", func(context.Context) error { return a.recorder.Stop() })

	forwarder := proxy.New(proxy.Options{
		UserAgent:     "api-router/" + opts.Version,
		ExposeBackend: c.Server.ExposeBackend,
		WriteTimeout:  c.Server.WriteTimeout,
		Metrics:       registry,
	})
	a.fleet = fleet.New(fleet.Options{Logger: a.log.With("component", "fleet"), Metrics: registry, Gone: forwarder.Forget})
	a.roster = newRoster(a.log.With("component", "fleet"), a.fleet, opts.Keys)

	switch {
	case opts.Source != nil:
		a.place = &place{source: opts.Source, close: func() error { return nil }}
	case opts.place != nil:
		a.place = opts.place
	default:
		opened, err := openPlace(c, a.log)
		if err != nil {
			return err
		}
		a.place = opened
	}
	a.onStop("policy source", func(context.Context) error { return a.place.close() })
	a.store = policy.NewStore(policy.Options{
		Logger:        a.log.With("component", "policy"),
		Source:        a.place.source,
		Extra:         documents(c.Backends),
		LastGood:      a.lastGood(),
		BeforePublish: a.roster.before,
		AfterPublish:  a.roster.after,
		Metrics:       registry,
	})
	a.metrics.remotes.add("policy_source", func() bool {
		s := a.store.Status()
		return s.Loaded && s.Failure == ""
	})

	if err := a.wireState(opts.Ledger); err != nil {
		return err
	}
	a.wireRetention(registry)
	keys, err := a.identity(cmp.Or(opts.Ledger, a.place.ledger), registry, opts.Hints)
	if err != nil {
		return err
	}
	decider := &plan.Decider{Fleet: a.fleet}
	a.gateway = gateway.New(gateway.Options{
		Logger:   a.log,
		Keys:     keys,
		Verifier: a.verifier(),
		Trusted:  c.Server.TrustedProxies,
		Table:    a.store.Table,
		Decider:  decider,
		Limiter:  limit.Unlimited{},
		Recorder: a.recorder,
		Proxy:    forwarder,
		Metrics:  registry,

		Components:   a.publicHealth,
		Draining:     a.draining.Load,
		Version:      opts.Version,
		MaxBody:      c.Server.MaxBody,
		BodyMemory:   min(c.Server.BodyMemory, debug.SetMemoryLimit(-1)/2),
		BodyTimeout:  c.Server.BodyTimeout,
		WriteTimeout: c.Server.WriteTimeout,
		Hints:        opts.Hints,
		AccessLines:  c.Log.AccessLines,
		Tracer:       tracer(opts.Telemetry),
		Slow:         c.Telemetry.Traces.Slow,
	})
	a.metrics.shows(a.gateway.Ready)
	a.wireTLS(opts, registry)
	a.metrics.remotes.relies(opts.Telemetry)
	a.server = a.httpServer()
	if err := a.listen(opts.Hints); err != nil {
		return err
	}
	a.level = newLogLevel(a.log, opts.Level)
	a.onStop("log level", func(context.Context) error { a.level.stop(); return nil })
	options := admin.Options{
		Logger: a.log.With("component", "admin"), Book: a.place.book, Table: a.store.Table, Fleet: a.fleet.Status, Decider: decider, Recent: a.recorder.Recent,
		Health: a.health, Level: a.level, Metrics: registry, Identities: a.place.identities, Audited: a.place.audited, Name: hostName(),
		Description: api.OpenAPI,
	}
	if err := a.mints(&options); err != nil {
		return err
	}
	return a.wireAdmin(opts, options)
}

// lastGood is where the store keeps its copy. The default applies only where its directory exists.
func (a *App) lastGood() string {
	path := a.config.Policy.LastGood
	if path == defaultLastGood {
		if _, err := os.Stat(filepath.Dir(path)); err != nil {
			a.log.Info("no last good copy of the policies is kept: the directory of policy.last_good does not exist", "path", path)
			return ""
		}
	}
	return path
}

func (a *App) httpServer() *http.Server {
	c := &a.config.Server
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	own := a.certificates.of(listenerPublic)
	protocols.SetHTTP2(own != nil)
	protocols.SetUnencryptedHTTP2(own == nil)
	return &http.Server{
		TLSConfig: own.server(),
		Handler:   a.handler(a.gateway),
		Protocols: protocols,
		HTTP2: &http.HTTP2Config{
			SendPingTimeout: pingAfter, PingTimeout: pingWait, WriteByteTimeout: c.WriteTimeout,
			MaxReadFrameSize: 16 << 10, // The least that HTTP/2 allows, and what clients send anyway: a frame is read whole into memory.
		},
		ReadHeaderTimeout: c.HeaderTimeout,
		IdleTimeout:       c.IdleTimeout,
		MaxHeaderBytes:    maxHeader,
		BaseContext:       func(net.Listener) context.Context { return a.requests },
		ErrorLog:          slog.NewLogLogger(a.log.With("component", "http").Handler(), slog.LevelDebug),
		// OPTIONS * is a request like any other: the gateway refuses it, with an id and a log line.
		DisableGeneralOptionsHandler: true,
	}
}

// listen opens the public listener. Its error names every way to move it; dev, which reads no configuration, has ways of its own.
func (a *App) listen(dev bool) error {
	ways := "listen.public in the configuration, API_ROUTER_LISTEN_PUBLIC or --listen"
	if dev {
		ways = "--listen, as in --listen 127.0.0.1:9090 or make run PORT=9090"
	}
	address := a.config.Listen.Public
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", address)
	if err != nil {
		reason := err.Error()
		if errors.Is(err, syscall.EADDRINUSE) {
			reason = "another process has this port"
		}
		return fmt.Errorf("cannot listen on %s: %s; choose another address with %s", address, reason, ways)
	}
	a.listener = listener
	// Serve closes the listener, too; this is for a process that never came to serve.
	a.onStop("listener", closing(listener))
	return nil
}

// documents are the backends that the configuration itself names.
func documents(endpoints []Endpoint) []policy.Document {
	list := make([]policy.Document, 0, len(endpoints))
	for _, e := range endpoints {
		b := policy.NewBackend(e.ID, e.URL)
		list = append(list, policy.Document{Backend: &b, File: "BACKEND_ENDPOINTS"})
	}
	return list
}
