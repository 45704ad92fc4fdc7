package policy

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// counted is what the store keeps for its metrics and its status alone.
type counted struct {
	published atomic.Int64 // tables with a new revision
	// confirmed is when the source was last known to hold what is in force, in Unix nanoseconds; 0 while it is being watched, and so
	// confirms it all the time.
	confirmed atomic.Int64
	lastGood  atomic.Bool // what is in force comes from the last good file
}

// confirm says that the source has told its state, and is watched from here on.
func (c *counted) confirm() {
	c.confirmed.Store(0)
	c.lastGood.Store(false)
}

// doubt says that the source cannot be read. The first word counts.
func (c *counted) doubt() { c.confirmed.CompareAndSwap(0, time.Now().UnixNano()) }

// recall says that documents of that time come into force.
func (c *counted) recall(saved time.Time) {
	c.confirmed.Store(saved.UnixNano())
	c.lastGood.Store(true)
}

// age is how long ago the source last confirmed what is in force, in seconds; before Run 0.
func (c *counted) age() float64 {
	confirmed := c.confirmed.Load()
	if confirmed == 0 {
		return 0
	}
	return max(time.Since(time.Unix(0, confirmed)).Seconds(), 0)
}

// register makes the store's metrics. All of them are read when somebody asks.
func (s *Store) register(registerer prometheus.Registerer) {
	factory := promauto.With(registerer)
	gauge := func(name, help string, value func() float64) {
		factory.NewGaugeFunc(prometheus.GaugeOpts{Name: "api_router_policy_" + name, Help: help}, value)
	}
	ofTable := func(value func(*Table) float64) func() float64 {
		return func() float64 {
			if t := s.table.Load(); t != nil {
				return value(t)
			}
			return 0
		}
	}
	gauge("loaded", "1 when there is a table of policies.", ofTable(func(*Table) float64 { return 1 }))
	gauge("revision", "Tables with a new revision that this process has put in force.", func() float64 { return float64(s.counted.published.Load()) })
	gauge("age_seconds", "How long ago the policy source last confirmed what is in force: 0 while it is watched, and growing while it cannot be read.", s.counted.age)
	gauge("loaded_timestamp_seconds", "When the present revision came into force, in Unix time; 0 without a table.", ofTable(func(t *Table) float64 {
		return float64(t.loadedAt.UnixMilli()) / 1000
	}))
	gauge("routes", "Routing policies in force.", ofTable(func(t *Table) float64 { return float64(t.Routes()) }))
	gauge("backends", "Documents of backends in force.", ofTable(func(t *Table) float64 { return float64(len(t.backends)) }))
	gauge("marks", "Marks that hold now.", ofTable(func(t *Table) float64 { return float64(t.holding(time.Now())) }))
	gauge("problems", "What is wrong with the documents of the source.", ofTable(func(t *Table) float64 { return float64(len(t.problems)) }))
	gauge("last_good_in_use", "1 while what is in force comes from the last good copy on disk.", func() float64 {
		if s.counted.lastGood.Load() {
			return 1
		}
		return 0
	})
}

// holding counts the marks that hold at that moment.
func (t *Table) holding(now time.Time) int {
	n := 0
	for i := range t.documents {
		if m := t.documents[i].Mark; m != nil && m.Active(now) {
			n++
		}
	}
	return n
}
