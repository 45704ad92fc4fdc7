// Package gateway is the clients' door: it serves the public listener.
//
// walk.go is the page to read first: it shows a whole request.
package gateway

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ai-aas/api-router/internal/auth"
	"github.com/ai-aas/api-router/internal/limit"
	"github.com/ai-aas/api-router/internal/plan"
	"github.com/ai-aas/api-router/internal/policy"
	"github.com/ai-aas/api-router/internal/proxy"
	"github.com/ai-aas/api-router/internal/usage"
)

// Limiter decides whether a principal may spend what a request asks for.
type Limiter interface {
	Reserve(ctx context.Context, ask limit.Ask) (limit.Reservation, error)
}

// Verifier checks the signature of a request whose body is whole.
type Verifier interface {
	Verify(p *auth.Principal, s *auth.Signature, method, path string, body []byte) error
}

// Component is a part of the process as /v1/status shows it. It carries no address and no secret: the page needs no key.
type Component struct {
	Name  string `json:"name"`
	State string `json:"state"`
	// Since is when the component entered this state.
	Since time.Time `json:"since,omitzero"`
	// Needed says that the process is not ready without this component.
	Needed bool `json:"-"`
	OK     bool `json:"ok"`
}

// Options are the rooms that the gateway leads a request through, and what it needs to know of the process.
type Options struct {
	Logger *slog.Logger
	Keys   auth.Validator
	// Verifier checks signatures; nil: no request may be signed.
	Verifier Verifier
	// Trusted are the networks of the proxies before this router, whose X-Forwarded-For counts.
	Trusted  []netip.Prefix
	Table    func() *policy.Table // nil until a table is loaded
	Decider  *plan.Decider
	Limiter  Limiter
	Proxy    *proxy.Proxy
	Recorder *usage.Recorder
	// Tracer takes the traces of requests; nil: nobody does, and a client's trace passes through to the backends.
	Tracer Tracer
	// Slow is the time to the first byte of an answer from which on a request is always traced; 0: none is for its slowness.
	Slow time.Duration
	// AccessLines bounds how many access lines below warning are written in a second before only every hundredth is; 0: no bound.
	AccessLines int
	// Metrics is where the gateway's metrics are registered; nil: nowhere.
	Metrics prometheus.Registerer

	// Components lists the parts of the process for the status pages.
	Components func() []Component
	// Draining says that the process is about to end: it serves on, but is not ready.
	Draining func() bool
	Version  string

	// MaxBody is the largest request body, in bytes.
	MaxBody int64
	// BodyMemory bounds the memory of all request bodies together, in bytes.
	BodyMemory int64
	// BodyTimeout is how long a client may take to send its body.
	BodyTimeout time.Duration
	// WriteTimeout is how long a client may take to read an answer of the router's own. The proxy has its own limit for a backend's.
	WriteTimeout time.Duration
	// Hints makes refusals name the models and keys that would work. For development alone.
	Hints bool
}

// Gateway is the handler of the public listener.
type Gateway struct {
	Options
	routes  map[string]route
	bodies  bodyBudget
	access  pace
	guesses *auth.Guesses
	metrics *metrics
}

// New returns a Gateway. It starts nothing.
func New(opts Options) *Gateway {
	g := &Gateway{Options: opts, guesses: auth.NewGuesses()}
	g.bodies.limit = opts.BodyMemory
	g.access.limit = int64(opts.AccessLines)
	g.metrics = newMetrics(opts.Metrics, func() float64 { return float64(g.bodies.used.Load()) })
	g.routes = g.table()
	return g
}

var _ http.Handler = (*Gateway)(nil)
