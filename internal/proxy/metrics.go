package proxy

import (
	"errors"
	"maps"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/ai-aas/api-router/internal/fault"
	"github.com/ai-aas/api-router/internal/fleet"
	"github.com/ai-aas/api-router/internal/upstream"
	"github.com/ai-aas/api-router/internal/usage"
)

// The buckets, in seconds.
var (
	attemptBuckets   = []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600}
	firstByteBuckets = []float64{.005, .01, .025, .05, .1, .25, .5, .75, 1, 1.5, 2.5, 5, 10, 20, 30, 60}
)

// ending is how an attempt ended, as the metrics name it.
type ending uint8

const (
	endedOK ending = iota
	endedRefused
	endedSaturated
	endedError
	endedTimeout
	endedCut
	endedClientGone
)

var endings = [...]string{
	endedOK: "ok", endedRefused: "refused", endedSaturated: "saturated", endedError: "error", endedTimeout: "timeout",
	endedCut: "cut", endedClientGone: "client_gone",
}

const attemptsHelp = "Attempts that have ended: ok; refused (the backend said no to the request itself); saturated (it said that it is full); error; timeout; " +
	"cut (an operator switched the backend off, or the router shut down); client_gone."

// errUnfinished is the error of an attempt that our own code did not bring to its end.
var errUnfinished = errors.New("the attempt did not end")

// metrics are the proxy's counters, resolved once for each backend. An observation takes no lock and allocates nothing.
type metrics struct {
	attempts  *prometheus.CounterVec
	duration  *prometheus.HistogramVec
	firstByte *prometheus.HistogramVec

	backends atomic.Pointer[map[string]*handles] // by id; replaced whole
	changing sync.Mutex
}

// handles are those of one backend.
type handles struct {
	attempts  [len(endings)]prometheus.Counter
	duration  prometheus.Observer
	firstByte prometheus.Observer
}

func newMetrics(registerer prometheus.Registerer) *metrics {
	factory := promauto.With(registerer)
	m := &metrics{
		attempts: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "api_router_proxy_attempts_total",
			Help: attemptsHelp,
		}, []string{"backend", "result"}),
		duration: factory.NewHistogramVec(prometheus.HistogramOpts{
			Name: "api_router_proxy_attempt_duration_seconds", Help: "From the beginning of an attempt to its end, that of a stream included.", Buckets: attemptBuckets,
		}, []string{"backend"}),
		firstByte: factory.NewHistogramVec(prometheus.HistogramOpts{
			Name: "api_router_proxy_first_byte_seconds", Buckets: firstByteBuckets,
			Help: "From the beginning of an attempt to the first byte of its answer that was sent on: of a stream the first event with content, of a short plain answer the whole.",
		}, []string{"backend"}),
	}
	m.backends.Store(&map[string]*handles{})
	return m
}

// of gives the handles of a backend.
func (m *metrics) of(backend *fleet.Backend) *handles {
	if h, ok := (*m.backends.Load())[backend.ID()]; ok {
		return h
	}
	return m.meet(backend)
}

// meet makes the handles of a backend that is new. One that has left already gets some that nobody sees: what ends there late brings
// nothing back that was forgotten.
func (m *metrics) meet(backend *fleet.Backend) *handles {
	m.changing.Lock()
	defer m.changing.Unlock()
	before := *m.backends.Load()
	if h, ok := before[backend.ID()]; ok {
		return h
	}
	if backend.Retired() {
		return newMetrics(nil).resolve(backend.ID())
	}
	h := m.resolve(backend.ID())
	next := maps.Clone(before)
	next[backend.ID()] = h
	m.backends.Store(&next)
	return h
}

func (m *metrics) resolve(backend string) *handles {
	h := &handles{duration: m.duration.WithLabelValues(backend), firstByte: m.firstByte.WithLabelValues(backend)}
	for i, result := range endings {
		h.attempts[i] = m.attempts.WithLabelValues(backend, result)
	}
	return h
}

// forget deletes what was counted for a backend, after it was retired.
func (m *metrics) forget(backend string) {
	m.changing.Lock()
	defer m.changing.Unlock()
	next := maps.Clone(*m.backends.Load())
	delete(next, backend)
	m.backends.Store(&next)
	labels := prometheus.Labels{"backend": backend}
	m.attempts.DeletePartialMatch(labels)
	m.duration.DeletePartialMatch(labels)
	m.firstByte.DeletePartialMatch(labels)
}

// observe counts an attempt that has ended.
func (h *handles) observe(f *flight, res *result) {
	a := f.current()
	h.attempts[f.ended(res)].Inc()
	h.duration.Observe(a.End.Sub(a.Start).Seconds())
	if f.out.Sent && f.out.Status < http.StatusMultipleChoices {
		h.firstByte.Observe(f.out.FirstByte.Sub(a.Start).Seconds())
	}
}

func (f *flight) ended(res *result) ending {
	if res.err == nil {
		if f.out.Stop == usage.StopRefused {
			return endedRefused
		}
		return endedOK
	}
	switch fault.CodeOf(res.err) {
	case fault.ClientClosed:
		return endedClientGone
	case fault.Draining:
		return endedCut
	case fault.BackendOverloaded:
		return endedSaturated
	case fault.BackendTimeout:
		return endedTimeout
	}
	if errors.Is(res.err, upstream.ErrCut) {
		return endedCut
	}
	return endedError
}
