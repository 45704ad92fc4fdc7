// Package fleet knows the backends: which there are, how they are, how busy they are, and which one a request takes.
//
// Four voices speak on a backend, and each can take it out alone: operators' marks (disabled, draining), active probes
// (unhealthy), the results of requests (ejected) and the backend's own word that it is full (resting). A request asks a
// Picker, gets a Lease, and gives it back with a Result. The lists of backends come as Specs, the marks with SetMarks; the
// documents behind them are not known here.
package fleet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ai-aas/api-router/internal/upstream"
)

// Options configure a Fleet.
type Options struct {
	// Logger hears of every change of a backend's state, once. Nil: silence.
	Logger *slog.Logger
	// Transport makes the connections of a backend. Nil: NewTransport.
	Transport func(Spec) (upstream.Transport, error)
	// Metrics is where the fleet's metrics are registered. Nil: nowhere.
	Metrics prometheus.Registerer
	// Gone hears of each backend whose id has left the fleet, once it is retired. It must not call the fleet. Nil: nobody does.
	Gone func(id string)
}

// Fleet is the set of backends. It is safe for concurrent use.
type Fleet struct {
	log       *slog.Logger
	transport func(Spec) (upstream.Transport, error)
	metrics   *metrics
	gone      func(id string)
	epoch     time.Time // time is counted from here, on the monotonic clock
	rotations rotations

	backends atomic.Pointer[map[string]*Backend]
	applying sync.Mutex                 // one Apply or SetMarks at a time
	marks    map[string]*mark           // under applying: of all ids, also of those that are not there
	leaving  atomic.Pointer[[]*Backend] // retired ones that may have requests still; set under applying
	changed  chan struct{}              // wakes Run after an Apply; holds one
}

// New returns an empty Fleet. It starts nothing.
func New(opts Options) *Fleet {
	f := &Fleet{
		log:       cmp.Or(opts.Logger, slog.New(slog.DiscardHandler)),
		transport: opts.Transport,
		gone:      opts.Gone,
		epoch:     time.Now(),
		changed:   make(chan struct{}, 1),
	}
	if f.transport == nil {
		f.transport = NewTransport
	}
	f.backends.Store(&map[string]*Backend{})
	f.leaving.Store(&[]*Backend{})
	if f.gone == nil {
		f.gone = func(string) {}
	}
	f.metrics = newMetrics(opts.Metrics, f.Status)
	return f
}

// now is the time since the fleet began. It never jumps.
func (f *Fleet) now() time.Duration { return time.Since(f.epoch) }

// Apply makes specs the set of backends. A backend whose URL, engine, key, connect timeout and TLS are unchanged keeps
// its state and takes over the rest of its new spec; a changed one is replaced, and keeps its list of models while its
// URL stays; one that is missing retires: it gets no new lease, and its idle connections are closed when the last lease
// ends.
//
// A spec that cannot be used is left out and named in the error; a backend that already runs under its id stays.
func (f *Fleet) Apply(specs []Spec) error {
	f.applying.Lock()
	defer f.applying.Unlock()
	old := *f.backends.Load()
	next := make(map[string]*Backend, len(specs))
	var problems []error
	for _, spec := range specs {
		if next[spec.ID] != nil {
			problems = append(problems, fmt.Errorf("backend %s: given twice, the first one counts", spec.ID))
			continue
		}
		known := old[spec.ID]
		if known != nil && known.identity == spec.identity() {
			known.spec.Store(&spec)
			next[spec.ID] = known
			continue
		}
		fresh, err := f.newBackend(spec)
		if err != nil {
			problems = append(problems, fmt.Errorf("backend %s: %w", spec.ID, err))
			if known != nil {
				next[spec.ID] = known
			}
			continue
		}
		fresh.mark.Store(f.marks[spec.ID])
		if known != nil && known.identity.url == fresh.identity.url {
			fresh.inherit(known)
		}
		next[spec.ID] = fresh
	}
	f.backends.Store(&next)
	leaving := f.busy()
	for id, b := range old {
		if next[id] != b {
			b.retire()
			leaving = append(leaving, b)
		}
		if next[id] == nil {
			f.metrics.forget(id)
			f.gone(id)
		}
	}
	f.leaving.Store(&leaving)
	select {
	case f.changed <- struct{}{}:
	default:
	}
	return errors.Join(problems...)
}

// busy are those of the leaving backends at which something runs.
func (f *Fleet) busy() []*Backend {
	var busy []*Backend
	for _, b := range *f.leaving.Load() {
		if b.inFlight.Load() > 0 {
			busy = append(busy, b)
		}
	}
	return busy
}

// Run probes the backends until ctx ends, following every Apply. It returns after the last probe has ended, with the
// idle connections closed. It must not be called twice at once.
func (f *Fleet) Run(ctx context.Context) error {
	var probes sync.WaitGroup
	stops := map[*Backend]context.CancelFunc{}
	defer probes.Wait()
	for {
		current := *f.backends.Load()
		for b, stop := range stops {
			if current[b.id] != b {
				stop()
				delete(stops, b)
			}
		}
		for _, b := range current {
			if stops[b] == nil {
				probing, stop := context.WithCancel(ctx)
				stops[b] = stop
				probes.Go(func() { b.probe(probing) })
			}
		}
		select {
		case <-ctx.Done():
			for b, stop := range stops {
				stop() // ctx has ended it already; this frees the context.
				probes.Go(b.connections().CloseIdleConnections)
			}
			return nil
		case <-f.changed:
		}
	}
}

// Backend finds a backend by its id.
func (f *Fleet) Backend(id string) (*Backend, bool) {
	b, ok := (*f.backends.Load())[id]
	return b, ok
}

// Status describes every backend, sorted by id. What still runs on an earlier configuration of one counts as in flight there.
func (f *Fleet) Status() []Status {
	backends := slices.SortedFunc(maps.Values(*f.backends.Load()), func(a, b *Backend) int { return cmp.Compare(a.id, b.id) })
	leaving := *f.leaving.Load()
	statuses := make([]Status, len(backends))
	for i, b := range backends {
		statuses[i] = b.Status()
		for _, old := range leaving {
			if old.id == b.id {
				statuses[i].InFlight += old.inFlight.Load()
			}
		}
	}
	return statuses
}
