package fleet

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// compare wants these series of one family, without its head.
func compare(t *testing.T, registry *prometheus.Registry, name, series string) {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	head := ""
	for _, f := range families {
		if f.GetName() == name {
			head = "# HELP " + name + " " + f.GetHelp() + "\n# TYPE " + name + " " + strings.ToLower(f.GetType().String()) + "\n"
		}
	}
	if err := testutil.GatherAndCompare(registry, strings.NewReader(head+series), name); err != nil {
		t.Error(err)
	}
}

func TestMetricsShowWhatTheFleetKnows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := prometheus.NewRegistry()
		f := New(Options{Metrics: registry})
		if err := f.Apply([]Spec{{ID: "a", URL: "http://a", MaxConcurrency: 2}, {ID: "b", URL: "http://b"}}); err != nil {
			t.Fatal(err)
		}
		lease, ok := backend(t, f, "a").acquire(f.now(), 3, false)
		if !ok {
			t.Fatal("no lease")
		}
		for range 3 {
			finish(t, backend(t, f, "b"), 3, Result{Kind: Failed})
		}
		compare(t, registry, "api_router_fleet_backend_state", strings.ReplaceAll(`!{backend="a",state="available"} 1
!{backend="a",state="disabled"} 0
!{backend="a",state="draining"} 0
!{backend="a",state="ejected"} 0
!{backend="a",state="full"} 0
!{backend="a",state="resting"} 0
!{backend="a",state="unhealthy"} 0
!{backend="b",state="available"} 0
!{backend="b",state="disabled"} 0
!{backend="b",state="draining"} 0
!{backend="b",state="ejected"} 1
!{backend="b",state="full"} 0
!{backend="b",state="resting"} 0
!{backend="b",state="unhealthy"} 0
`, "!", "api_router_fleet_backend_state"))
		compare(t, registry, "api_router_fleet_backend_in_flight", strings.ReplaceAll("!{backend=\"a\"} 1\n!{backend=\"b\"} 0\n", "!", "api_router_fleet_backend_in_flight"))
		compare(t, registry, "api_router_fleet_backend_max_concurrency", strings.ReplaceAll("!{backend=\"a\"} 2\n!{backend=\"b\"} 0\n", "!", "api_router_fleet_backend_max_concurrency"))
		compare(t, registry, "api_router_fleet_ejections_total", strings.ReplaceAll("!{backend=\"a\"} 0\n!{backend=\"b\"} 1\n", "!", "api_router_fleet_ejections_total"))
		lease.Done(Result{Kind: Failed})
		compare(t, registry, "api_router_fleet_backend_consecutive_failures", strings.ReplaceAll("!{backend=\"a\"} 1\n!{backend=\"b\"} 0\n", "!", "api_router_fleet_backend_consecutive_failures"))
	})
}

func TestProbesAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(`{"data":[{"id":"m"}]}`)
		stop := e.start()
		defer stop()
		registry := prometheus.NewRegistry()
		f := New(Options{Transport: e.open, Metrics: registry})
		if err := f.Apply([]Spec{{ID: "a", URL: "http://a", Engine: EngineVLLM}}); err != nil {
			t.Fatal(err)
		}
		b := backend(t, f, "a")
		b.probeOnce(t.Context())
		e.health.Store(503)
		b.probeOnce(t.Context())
		b.probeOnce(t.Context())
		compare(t, registry, "api_router_fleet_probes_total", strings.ReplaceAll("!{backend=\"a\",result=\"healthy\"} 1\n!{backend=\"a\",result=\"unhealthy\"} 2\n", "!", "api_router_fleet_probes_total"))
		b.retire()
	})
}

func TestNothingIsLeftOfABackendThatHasLeft(t *testing.T) {
	registry := prometheus.NewRegistry()
	var gone []string
	f := New(Options{Metrics: registry, Gone: func(id string) { gone = append(gone, id) }})
	both := []Spec{{ID: "a", URL: "http://a"}, {ID: "b", URL: "http://b"}}
	if err := f.Apply(both); err != nil {
		t.Fatal(err)
	}
	a := backend(t, f, "a")
	before, err := testutil.GatherAndCount(registry)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Apply([]Spec{both[1], {ID: "c", URL: "http://c"}, {ID: "b", URL: "http://c"}}); err != nil && !strings.Contains(err.Error(), "twice") {
		t.Fatal(err)
	}
	a.counted.ejections.Inc() // Too late: it is counted where nobody looks.
	if after, err := testutil.GatherAndCount(registry); err != nil || after != before || strings.Join(gone, " ") != "a" {
		t.Errorf("%d series, then %d, %v; %v is gone", before, after, err, gone)
	}
	if err := f.Apply([]Spec{{ID: "b", URL: "http://elsewhere"}}); err != nil || strings.Join(gone, " ") != "a c" {
		t.Errorf("%v; %v is gone", err, gone)
	}
}

func TestABackendThatComesAndGoesLeavesNoSeries(t *testing.T) {
	registry := prometheus.NewRegistry()
	f := New(Options{Metrics: registry})
	for i := range 200 {
		id := "b" + strings.Repeat("x", i)
		if err := f.Apply([]Spec{{ID: id, URL: "http://" + id[:min(len(id), 60)]}}); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := testutil.GatherAndCount(registry, "api_router_fleet_probes_total", "api_router_fleet_ejections_total"); err != nil || n != 3 {
		t.Errorf("%d series are left, %v", n, err)
	}
}

// BenchmarkMetrics measures a scrape of a hundred backends, and what counting one probe costs.
func BenchmarkMetrics(b *testing.B) {
	registry := prometheus.NewRegistry()
	f := New(Options{Metrics: registry})
	specs := make([]Spec, 100)
	for i := range specs {
		specs[i] = Spec{ID: "b" + strings.Repeat("x", i), URL: "http://b", Timeouts: Timeouts{Connect: time.Second}}
	}
	if err := f.Apply(specs); err != nil {
		b.Fatal(err)
	}
	b.Run("scrape", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := registry.Gather(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("probe", func(b *testing.B) {
		one, _ := f.Backend("b")
		b.ReportAllocs()
		for b.Loop() {
			one.counted.healthy.Inc()
		}
	})
}
