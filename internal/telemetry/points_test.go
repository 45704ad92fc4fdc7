package telemetry

import (
	"context"
	"math"
	"strconv"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	collectorpb "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	metricspb "go.opentelemetry.io/proto/otlp/metrics/v1"
)

func TestMetricsBecomePoints(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	factory := promauto.With(registry)
	factory.NewCounterVec(prometheus.CounterOpts{Name: "c_total", Help: "counts"}, []string{"model"}).WithLabelValues("m").Add(3)
	factory.NewGauge(prometheus.GaugeOpts{Name: "g"}).Set(-1.5)
	factory.NewUntypedFunc(prometheus.UntypedOpts{Name: "u"}, func() float64 { return math.Inf(1) })
	factory.NewSummary(prometheus.SummaryOpts{Name: "s", Objectives: map[float64]float64{0.5: 0.05}}).Observe(4)
	h := factory.NewHistogram(prometheus.HistogramOpts{Name: "h", Buckets: []float64{1, 2, 4}})
	for _, v := range []float64{0.5, 1.5, 1.6, 3, 100} {
		h.Observe(v)
	}
	h.(prometheus.ExemplarObserver).ObserveWithExemplar(1000, prometheus.Labels{"trace_id": "0102030405060708090a0b0c0d0e0f10", "span_id": "zz", "other": "o"})
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	began, now := time.Now().Add(-time.Hour), time.Now()
	got := map[string]*metricspb.Metric{}
	for _, family := range families {
		got[family.GetName()] = convert(family, began, now)
	}
	c := got["c_total"].GetSum()
	if p := c.GetDataPoints()[0]; p.GetAsDouble() != 3 || !c.GetIsMonotonic() || c.GetAggregationTemporality() != 2 || p.GetTimeUnixNano() != nanos(now) ||
		p.GetAttributes()[0].GetValue().GetStringValue() != "m" || p.GetStartTimeUnixNano() <= nanos(began) || got["c_total"].GetDescription() != "counts" {
		t.Errorf("the counter is %v", got["c_total"])
	}
	if p := got["g"].GetGauge().GetDataPoints()[0]; p.GetAsDouble() != -1.5 {
		t.Errorf("the gauge is %v", p)
	}
	if p := got["u"].GetGauge().GetDataPoints()[0]; !math.IsInf(p.GetAsDouble(), 1) {
		t.Errorf("the untyped is %v", p)
	}
	if p := got["s"].GetSummary().GetDataPoints()[0]; p.GetCount() != 1 || p.GetSum() != 4 || p.GetQuantileValues()[0].GetValue() != 4 {
		t.Errorf("the summary is %v", p)
	}
	p := got["h"].GetHistogram().GetDataPoints()[0]
	counts, total := []uint64{1, 2, 1, 2}, uint64(0)
	for i, n := range p.GetBucketCounts() {
		total += n
		if n != counts[i] {
			t.Errorf("bucket %d has %d, want %d", i, n, counts[i])
		}
	}
	if total != p.GetCount() || len(p.GetBucketCounts()) != len(p.GetExplicitBounds())+1 || p.GetSum() != 1106.6 {
		t.Errorf("the histogram is %v", p)
	}
	e := p.GetExemplars()
	if len(e) != 1 || len(e[0].GetTraceId()) != 16 || e[0].GetSpanId() != nil || len(e[0].GetFilteredAttributes()) != 2 || e[0].GetAsDouble() != 1000 {
		t.Errorf("the exemplars are %v", e)
	}
}

func TestAMetricOfManyPointsIsDivided(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	factory := promauto.With(registry)
	many := factory.NewCounterVec(prometheus.CounterOpts{Name: "a_total"}, []string{"n"})
	for i := range 2*maxPoints + 1 {
		many.WithLabelValues(strconv.Itoa(i)).Inc()
	}
	factory.NewGauge(prometheus.GaugeOpts{Name: "b"}).Set(1)
	factory.NewCounterVec(prometheus.CounterOpts{Name: "c_total"}, []string{"n"}) // It has no point.
	var sizes []int
	names := map[string]int{}
	s := signalBy(scripted(func(context.Context) error { return nil }), make(chan struct{}))
	p := &pusher{signal: s, from: registry, began: time.Now(), budget: time.Minute, request: func(metrics []*metricspb.Metric) *collectorpb.ExportMetricsServiceRequest {
		size := 0
		for _, m := range metrics {
			n := len(m.GetSum().GetDataPoints()) + len(m.GetGauge().GetDataPoints())
			size += n
			names[m.GetName()] += n
		}
		sizes = append(sizes, size)
		return nil
	}}
	p.push(t.Context())
	if len(sizes) != 3 || sizes[0] != maxPoints || sizes[1] != maxPoints || sizes[2] != 2 || names["a_total"] != 2*maxPoints+1 || len(names) != 2 || s.exported.Load() != 2*maxPoints+2 {
		t.Errorf("requests of %v points, of %v; %d exported", sizes, names, s.exported.Load())
	}
}
