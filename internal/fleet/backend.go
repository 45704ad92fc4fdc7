package fleet

import (
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/ai-aas/api-router/internal/upstream"
)

// Backend is one server that runs models. What a request reads of it are atomics; locks are taken only where its state changes.
type Backend struct {
	id        string
	identity  identity
	base      *url.URL
	transport atomic.Pointer[upstream.Transport] // a cut puts another one here
	log       *slog.Logger
	now       func() time.Duration
	born      time.Duration
	place     uint64 // hash of the id: its place in a rendezvous, the same in every replica

	spec     atomic.Pointer[Spec]
	inFlight atomic.Int64
	retired  atomic.Bool
	mark     atomic.Pointer[mark] // nil: none
	cuts     atomic.Uint32        // how often its connections were cut
	unmarked atomic.Int64         // when the latest mark that kept requests out was taken off

	// What requests found out. Moments are counted from the fleet's epoch, zero means never.
	failures     atomic.Int32 // consecutive
	ejectedUntil atomic.Int64 // not zero: ejected, and past that moment half open until a trial decides
	trial        atomic.Bool  // the half-open slot is taken
	restingFrom  atomic.Int64
	restingUntil atomic.Int64
	ejection     ejection

	// What probes found out.
	probed    atomic.Uint32 // a probeState
	nextProbe atomic.Int64
	probing   probing
	catalog   atomic.Pointer[catalog]
	met       chan struct{} // closed when the first probe has ended, well or not
	awaited   atomic.Bool   // Meet has waited for it
	counted   *handles      // what is counted under its id
}

// ejection is the slow part of the outlier rule, touched only when a backend goes out or comes back.
type ejection struct {
	mu     sync.Mutex
	times  int           // how often in a row
	began  time.Duration // when the latest one began
	ended  time.Duration // when the latest one ended
	reason string
}

func (f *Fleet) newBackend(spec Spec) (*Backend, error) {
	base, err := spec.base()
	if err != nil {
		return nil, err
	}
	transport, err := f.transport(spec)
	if err != nil {
		return nil, err
	}
	b := &Backend{
		id:       spec.ID,
		identity: spec.identity(),
		base:     base,
		log:      f.log.With("backend", spec.ID),
		now:      f.now,
		born:     f.now(),
		place:    xxhash.Sum64String(spec.ID),
		met:      make(chan struct{}),
		counted:  f.metrics.of(spec.ID),
	}
	b.transport.Store(&transport)
	b.spec.Store(&spec)
	b.catalog.Store(&catalog{})
	return b, nil
}

// inherit takes over what is known of the server behind an earlier configuration with the same URL: until it has listed its
// models anew the names stay, and Meet does not wait for it a second time.
func (b *Backend) inherit(from *Backend) {
	b.catalog.Store(from.catalog.Load())
	b.awaited.Store(from.awaited.Load())
	select {
	case <-from.met:
		b.met = from.met
	default:
	}
}

// ID is the backend's name in policies, headers and logs.
func (b *Backend) ID() string { return b.id }

// Spec is the backend's present configuration. Its maps must not be changed.
func (b *Backend) Spec() Spec { return *b.spec.Load() }

// Host is the host, and the port where the URL has one.
func (b *Backend) Host() string { return b.base.Host }

// URL is the address of a path on the backend, such as "/v1/chat/completions". The path is appended to the one that
// the backend's own URL may have, and must be a constant of the caller's.
func (b *Backend) URL(path string) *url.URL {
	u := *b.base
	u.Path += path
	return &u
}

// Authorize sets the headers that carry the router's own credential to this backend, if it has one.
func (b *Backend) Authorize(h http.Header) {
	spec := b.spec.Load()
	authorize(h, spec.Engine, spec.APIKey)
}

// RoundTrip sends a request over the backend's connections. Hold a Lease while the answer is being read. At a disabled backend
// it fails with an *upstream.ConnectError.
func (b *Backend) RoundTrip(r *http.Request) (*http.Response, error) {
	// In this order, as SetMarks has it in the other: whoever does not see the mark has the Transport that is cut with it.
	transport := b.connections()
	if m := b.mark.Load(); m != nil && m.bars == disabled && b.now() < m.until {
		if r.Body != nil {
			_ = r.Body.Close() // A RoundTripper closes the body whatever happens.
		}
		return nil, &upstream.ConnectError{Address: b.base.Host, Err: upstream.ErrCut}
	}
	return transport.RoundTrip(r)
}

// connections is what carries requests and probes at the moment.
func (b *Backend) connections() upstream.Transport { return *b.transport.Load() }

// cut ends every connection. What fails by that is not held against the backend; what begins now connects anew.
func (b *Backend) cut() {
	b.cuts.Add(1)
	successor := b.connections().Cut()
	b.transport.Store(&successor)
}

// Retired says that the fleet has this backend no more, or has another one under its id. What runs at it may go on.
func (b *Backend) Retired() bool { return b.retired.Load() }

// InFlight counts the leases that are out.
func (b *Backend) InFlight() int64 { return b.inFlight.Load() }

// retire ends the backend's use. Its connections go with its last lease.
func (b *Backend) retire() {
	b.retired.Store(true)
	if b.inFlight.Load() == 0 {
		b.connections().CloseIdleConnections()
	}
}
