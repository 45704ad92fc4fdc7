package userorg

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// What came of a question, as the metric names it.
const (
	outcomeAccepted = iota
	outcomeRefused
	outcomeFailed
	outcomeHeld
	outcomeAbandoned
	outcomes
)

var outcomeNames = [outcomes]string{"accepted", "refused", "failed", "held", "abandoned"}

// metrics are the counters of the questions that were asked.
type metrics struct {
	questions [outcomes]prometheus.Counter
	seconds   prometheus.Histogram
	asked     atomic.Bool
}

func (s *Service) measure(registerer prometheus.Registerer) *metrics {
	factory := promauto.With(registerer)
	questions := factory.NewCounterVec(prometheus.CounterOpts{
		Name: "api_router_auth_user_org_questions_total",
		Help: "Questions to the user-org-service: accepted or refused (it answered), failed (no answer that makes sense), held (not asked, because it fails or too many are on their way), abandoned.",
	}, []string{"outcome"})
	m := &metrics{seconds: factory.NewHistogram(prometheus.HistogramOpts{
		Name: "api_router_auth_user_org_question_seconds", Help: "How long a question to the user-org-service took, with or without an answer.",
		Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5},
	})}
	for i, name := range outcomeNames {
		m.questions[i] = questions.WithLabelValues(name)
	}
	factory.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "api_router_auth_user_org_open", Help: "1 while the user-org-service is not asked, because it has failed several times in a row.",
	}, func() float64 {
		if _, _, open := s.breaker.state(); open {
			return 1
		}
		return 0
	})
	return m
}

func (m *metrics) count(outcome int) {
	m.questions[outcome].Inc()
	if outcome != outcomeHeld {
		m.asked.Store(true)
	}
}
