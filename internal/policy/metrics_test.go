package policy

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// gauges reads every metric of the store.
func gauges(t *testing.T, registry *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for _, f := range families {
		values[f.GetName()[len("api_router_policy_"):]] = f.GetMetric()[0].GetGauge().GetValue()
	}
	return values
}

func expect(t *testing.T, when string, registry *prometheus.Registry, want map[string]float64) {
	t.Helper()
	got := gauges(t, registry)
	for name, value := range want {
		if got[name] != value {
			t.Errorf("%s: %s is %v, want %v", when, name, got[name], value)
		}
	}
}

func TestMetricsShowTheTableAndHowOldItsSourceIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := prometheus.NewRegistry()
		source := newScriptedSource()
		source.silent = true
		_, stop := running(t, Options{Source: source, Metrics: registry})
		defer stop()
		time.Sleep(3 * time.Second)
		expect(t, "before the first table", registry, map[string]float64{
			"loaded": 0, "revision": 0, "age_seconds": 3, "loaded_timestamp_seconds": 0, "routes": 0, "backends": 0, "marks": 0, "problems": 0, "last_good_in_use": 0,
		})

		source.change(func() {
			source.silent = false
			source.texts["a"] = backends("a") + "---\nkind: RoutingPolicy\nid: p\nmodel: m\nbackends: [{ id: a }]\n"
			source.texts["b"] = "kind: Mark\nbackend: a\nstate: draining\nuntil: " + time.Now().Add(time.Hour).UTC().Format(time.RFC3339) + "\n"
			source.texts["c"] = "kind: Nothing\n"
		})
		time.Sleep(time.Minute)
		expect(t, "while it is watched", registry, map[string]float64{
			"loaded": 1, "revision": 1, "age_seconds": 0, "routes": 1, "backends": 1, "marks": 1, "problems": 1, "last_good_in_use": 0,
		})
		if at := gauges(t, registry)["loaded_timestamp_seconds"]; time.Since(time.Unix(int64(at), 0)) > 61*time.Second {
			t.Errorf("it was loaded at %v", at)
		}

		source.change(func() { source.away = errors.New("gone") })
		time.Sleep(time.Second) // The watch notices nothing until it is begun anew.
		source.change(func() {})
		time.Sleep(2 * time.Hour)
		got := gauges(t, registry)
		if age := got["age_seconds"]; age < 7200 || age > 7202 || got["loaded"] != 1 || got["revision"] != 1 || got["marks"] != 0 || got["last_good_in_use"] != 0 {
			t.Errorf("while the source is away: %v", got)
		}

		source.change(func() { source.away = nil; delete(source.texts, "c") })
		time.Sleep(time.Minute)
		expect(t, "when it is back", registry, map[string]float64{"age_seconds": 0, "problems": 0, "revision": 1})
	})
}

func TestMetricsShowThatTheLastGoodCopyServes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := kept(t, Snapshot{Documents: read(t, backends("a"))})
		time.Sleep(time.Hour)
		registry := prometheus.NewRegistry()
		source := newScriptedSource()
		source.away = errors.New("gone")
		store, stop := running(t, Options{Source: source, LastGood: path, Metrics: registry})
		defer stop()
		ready(t, store)
		got := gauges(t, registry)
		if got["last_good_in_use"] != 1 || got["age_seconds"] < 3600 || got["loaded"] != 1 {
			t.Errorf("after a cold start: %v", got)
		}
		source.change(func() { source.away = nil; source.texts["a"] = backends("a", "b") })
		time.Sleep(time.Minute)
		expect(t, "when the source is there", registry, map[string]float64{"last_good_in_use": 0, "age_seconds": 0, "backends": 2, "revision": 2})
	})
}
