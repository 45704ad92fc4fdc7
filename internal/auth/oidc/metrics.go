package oidc

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics are those of all issuers.
type metrics struct {
	fetches *prometheus.CounterVec
	ages    *ages
}

func newMetrics(registerer prometheus.Registerer) *metrics {
	m := &metrics{
		fetches: promauto.With(registerer).NewCounterVec(prometheus.CounterOpts{
			Name: "api_router_auth_issuer_fetches_total", Help: "Fetches of the keys of issuers of signed tokens, by their result: ok or failed.",
		}, []string{"result"}),
		ages: &ages{
			of: map[string]*keys{},
			age: prometheus.NewDesc("api_router_auth_issuer_age_seconds",
				"How long ago the keys of an issuer of signed tokens were had; 0 before the first time.", []string{"issuer"}, nil),
			count: prometheus.NewDesc("api_router_auth_issuer_keys", "Keys of an issuer of signed tokens that can be used; 0 before they were had.", []string{"issuer"}, nil),
		},
	}
	if registerer != nil {
		registerer.MustRegister(m.ages)
	}
	return m
}

func (m *metrics) fetched(ok bool) {
	result := "failed"
	if ok {
		result = "ok"
	}
	m.fetches.WithLabelValues(result).Inc()
}

// watch shows the keys of an issuer. Two settings of one issuer have one place, and the first of them is shown.
func (m *metrics) watch(issuer string, k *keys) {
	if m.ages.of[issuer] == nil {
		m.ages.of[issuer] = k
	}
}

// ages is the collector of how many keys there are and how old they are. Issuers are those of the configuration.
type ages struct {
	age, count *prometheus.Desc
	of         map[string]*keys
}

// Describe implements prometheus.Collector.
func (a *ages) Describe(descs chan<- *prometheus.Desc) {
	descs <- a.age
	descs <- a.count
}

// Collect implements prometheus.Collector.
func (a *ages) Collect(metrics chan<- prometheus.Metric) {
	for issuer, k := range a.of {
		k.mu.Lock()
		heard, count, age := k.heard, len(k.list), 0.0
		k.mu.Unlock()
		if !heard.IsZero() {
			age = time.Since(heard).Seconds()
		}
		metrics <- prometheus.MustNewConstMetric(a.age, prometheus.GaugeValue, age, issuer)
		metrics <- prometheus.MustNewConstMetric(a.count, prometheus.GaugeValue, float64(count), issuer)
	}
}
