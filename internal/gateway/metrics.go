package gateway

import (
	"maps"
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/ai-aas/api-router/internal/usage"
)

// The bounds of what labels can say. Models are configured, so the first is reached only by a policy that changes its names for ever;
// statuses and codes are few, so the second is reached only by a backend that makes its statuses up.
const (
	maxModelLabels  = 1000
	maxAnswerLabels = 64
)

// otherLabel stands for what is beyond a bound, otherEndpoint for a path that nothing is served at.
const (
	otherLabel    = "_other"
	otherEndpoint = "other"
)

// The buckets, in seconds: an answer takes between the microseconds of a refusal and the minutes of a long generation.
var (
	durationBuckets  = []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600}
	firstByteBuckets = []float64{.005, .01, .025, .05, .1, .25, .5, .75, 1, 1.5, 2.5, 5, 10, 20, 30, 60}
	overheadBuckets  = []float64{.00005, .0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, 1}
)

// metrics are the gateway's counters. What a request needs of them is looked up once for each endpoint and model, and again for each
// status and code there; from then on an observation allocates nothing and takes no lock.
type metrics struct {
	requests  *prometheus.CounterVec
	duration  *prometheus.HistogramVec
	overhead  *prometheus.HistogramVec
	firstByte *prometheus.HistogramVec
	tokens    *prometheus.CounterVec
	failovers *prometheus.CounterVec
	truncated *prometheus.CounterVec

	inFlight prometheus.Gauge
	panics   prometheus.Counter
	// suppressed counts access lines that were not written.
	suppressed prometheus.Counter

	subjects shelf[subject, *handles]
	models   shelf[string, *modelHandles]
}

// subject is what most observations are about.
type subject struct{ endpoint, model string }

// answerKey is how a request ended.
type answerKey struct {
	status int
	code   string
}

// handles are those of one endpoint and model.
type handles struct {
	subject

	duration prometheus.Observer
	overhead prometheus.Observer
	model    *modelHandles // nil where no model was decided on
	answers  shelf[answerKey, prometheus.Counter]
}

// modelHandles are those of one model.
type modelHandles struct {
	label                            string
	firstByte                        prometheus.Observer
	input, cached, output, reasoning prometheus.Counter
	failovers, truncated             prometheus.Counter
}

// shelf is a map that is read at every request and written a few times in the life of a process: readers take no lock, writers copy.
type shelf[K comparable, V any] struct {
	m       atomic.Pointer[map[K]V]
	writing sync.Mutex
}

func (s *shelf[K, V]) get(key K) (V, bool) {
	if m := s.m.Load(); m != nil {
		v, ok := (*m)[key]
		return v, ok
	}
	var none V
	return none, false
}

// put keeps what build makes of key, unless somebody was faster or limit keys are there: then key gets what beyond has.
func (s *shelf[K, V]) put(key, beyond K, limit int, build func(K) V) V {
	s.writing.Lock()
	defer s.writing.Unlock()
	if v, ok := s.get(key); ok {
		return v
	}
	var before map[K]V
	if m := s.m.Load(); m != nil {
		before = *m
	}
	if len(before) >= limit {
		if v, ok := before[beyond]; ok {
			return v
		}
		key = beyond
	}
	next := make(map[K]V, len(before)+1)
	maps.Copy(next, before)
	v := build(key)
	next[key] = v
	s.m.Store(&next)
	return v
}

func newMetrics(registerer prometheus.Registerer, bodies func() float64) *metrics {
	factory := promauto.With(registerer)
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return factory.NewCounterVec(prometheus.CounterOpts{Name: "api_router_gateway_" + name, Help: help}, labels)
	}
	histogram := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		return factory.NewHistogramVec(prometheus.HistogramOpts{Name: "api_router_gateway_" + name, Help: help, Buckets: buckets}, labels)
	}
	factory.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "api_router_gateway_body_memory_bytes", Help: "Memory that the bodies of running requests hold; server.body_memory bounds it.",
	}, bodies)
	return &metrics{
		requests: counter("requests_total", "Requests that have ended. model is the configured name that the request was planned for, empty without one; "+
			"code is that of the router's own error, empty for an answer of a backend.", "endpoint", "model", "status", "code"),
		duration:  histogram("request_duration_seconds", "From the receipt of a request's head to the end of its answer.", durationBuckets, "endpoint", "model"),
		overhead:  histogram("overhead_seconds", "The router's own part of a request that reached a backend: neither the backend nor the client was waited for.", overheadBuckets, "endpoint"),
		firstByte: histogram("time_to_first_token_seconds", "From the receipt of a streamed request's head to the first event with content.", firstByteBuckets, "model"),
		tokens:    counter("tokens_total", "Tokens that requests used. cached_input is a part of input, reasoning a part of output.", "model", "type"),
		failovers: counter("failovers_total", "Attempts that were made because the one before them had failed.", "model"),
		truncated: counter("streams_truncated_total", "Streams that a backend, or the router, ended before their answer was complete; clients that left do not count.", "model"),
		inFlight: factory.NewGauge(prometheus.GaugeOpts{
			Name: "api_router_gateway_requests_in_flight", Help: "Requests that are being answered now.",
		}),
		panics: factory.NewCounter(prometheus.CounterOpts{
			Name: "api_router_gateway_panics_total", Help: "Requests that a fault in the router's own code ended. Each is a bug.",
		}),
		suppressed: factory.NewCounter(prometheus.CounterOpts{
			Name: "api_router_gateway_access_lines_suppressed_total", Help: "Access lines that were left out of the log because there were too many.",
		}),
	}
}

// observe counts a request that has ended.
func (m *metrics) observe(x *exchange) {
	h, ok := m.subjects.get(subject{x.surface, x.planned})
	if !ok {
		h = m.of(subject{x.surface, x.planned})
	}
	h.answer(m, answerKey{x.Status, x.Code}).Inc()
	labels := exemplar(x)
	record(h.duration, x.LatencyMillis, labels)
	if x.Attempts > 0 {
		h.overhead.Observe(x.RouterMillis / 1000)
	}
	if h.model != nil {
		h.model.observe(x, labels)
	}
}

func (h *modelHandles) observe(x *exchange, labels prometheus.Labels) {
	if x.Stream && x.TTFTMillis > 0 && x.Status < http.StatusMultipleChoices {
		record(h.firstByte, x.TTFTMillis, labels)
	}
	if x.Attempts > 1 {
		h.failovers.Add(float64(x.Attempts - 1))
	}
	if x.Stream && x.Truncated && x.StopReason != usage.StopClientGone {
		h.truncated.Inc()
	}
	add(h.input, x.PromptTokens)
	add(h.cached, x.CachedTokens)
	add(h.output, x.CompletionTokens)
	add(h.reasoning, x.ReasoningTokens)
}

// add counts n more. A backend's word is not always a number above zero, and a counter must not go back.
func add(c prometheus.Counter, n int64) {
	if n > 0 {
		c.Add(float64(n))
	}
}

// record observes milliseconds, with an exemplar if there are labels for one.
func record(h prometheus.Observer, millis float64, labels prometheus.Labels) {
	if labels != nil {
		if with, ok := h.(prometheus.ExemplarObserver); ok {
			with.ObserveWithExemplar(millis/1000, labels)
			return
		}
	}
	h.Observe(millis / 1000)
}

// exemplar leads from a bucket to the trace of a request that fell into it; nil for a request whose trace is not kept.
func exemplar(x *exchange) prometheus.Labels {
	if !x.traced {
		return nil
	}
	return prometheus.Labels{"trace_id": x.TraceID}
}

// of resolves the handles of a subject that is new.
func (m *metrics) of(s subject) *handles {
	var model *modelHandles
	if s.model != "" {
		var ok bool
		if model, ok = m.models.get(s.model); !ok {
			model = m.models.put(s.model, otherLabel, maxModelLabels, m.newModel)
		}
		s.model = model.label
	}
	// What is beyond the bound shares its handles, and is found the slower way. Paths and labels of models bound the subjects themselves.
	if h, ok := m.subjects.get(s); ok {
		return h
	}
	return m.subjects.put(s, s, math.MaxInt, func(s subject) *handles {
		return &handles{subject: s, duration: m.duration.WithLabelValues(s.endpoint, s.model), overhead: m.overhead.WithLabelValues(s.endpoint), model: model}
	})
}

func (m *metrics) newModel(name string) *modelHandles {
	name = strings.ToValidUTF8(name, "?") // A label must be; a document need not.
	tokens := func(kind string) prometheus.Counter { return m.tokens.WithLabelValues(name, kind) }
	return &modelHandles{
		label: name, firstByte: m.firstByte.WithLabelValues(name), failovers: m.failovers.WithLabelValues(name), truncated: m.truncated.WithLabelValues(name),
		input: tokens("input"), cached: tokens("cached_input"), output: tokens("output"), reasoning: tokens("reasoning"),
	}
}

// answer is the counter of requests that ended so.
func (h *handles) answer(m *metrics, key answerKey) prometheus.Counter {
	if c, ok := h.answers.get(key); ok {
		return c
	}
	return h.answers.put(key, answerKey{0, otherLabel}, maxAnswerLabels, func(key answerKey) prometheus.Counter {
		status := strconv.Itoa(key.status)
		if key.status == 0 {
			status = otherLabel
		}
		return m.requests.WithLabelValues(h.endpoint, h.subject.model, status, key.code)
	})
}
