package auth

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// register makes the metrics of the keys. All of them are read when somebody asks.
func (k *Keys) register(registerer prometheus.Registerer) {
	factory := promauto.With(registerer)
	gauge := func(name, help string, value func() float64) {
		factory.NewGaugeFunc(prometheus.GaugeOpts{Name: "api_router_auth_" + name, Help: help}, value)
	}
	gauge("keys", "Keys of the ledger that this process knows, revoked and expired ones included.", func() float64 { return float64(k.table.Load().count.Load()) })
	gauge("ledger_up", "1 while the ledger of keys is followed and all of it is known.", func() float64 {
		if k.current.Load() {
			return 1
		}
		return 0
	})
	gauge("snapshot_age_seconds", "How long ago the ledger last stood behind the keys that are known: 0 while it is followed, and growing while it cannot be.", func() float64 {
		return k.age().Seconds()
	})
	gauge("keys_unusable", "Keys of the ledger that cannot be used, because their pepper is not configured here or another one is, or what is kept of them cannot be read.", func() float64 {
		return float64(k.unusable())
	})
	gauge("nonces", "Nonces of signed requests that are remembered.", func() float64 { return float64(k.nonces.size()) })
}
