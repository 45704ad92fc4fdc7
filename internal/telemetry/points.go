package telemetry

import (
	"context"
	"encoding/hex"
	"math"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	collectorpb "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	metricspb "go.opentelemetry.io/proto/otlp/metrics/v1"
)

// maxPoints is how many data points go into one request at most. Collectors take 4 MiB at once, and a histogram's point with exemplars may have 1.5 KiB.
const maxPoints = 2000

// pusher sends what /metrics shows, at an interval. It keeps nothing: what is not taken is superseded by the next.
type pusher struct {
	*signal
	from    prometheus.Gatherer
	began   time.Time // of the counters
	every   time.Duration
	budget  time.Duration
	request func([]*metricspb.Metric) *collectorpb.ExportMetricsServiceRequest
}

// run sends until stopping is closed, and then once more. ctx bounds all of it.
func (p *pusher) run(ctx context.Context, stopping <-chan struct{}) {
	ticker := time.NewTicker(p.every)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			p.push(ctx)
		case <-stopping:
			p.push(ctx)
			return
		}
	}
}

func (p *pusher) push(ctx context.Context) {
	if !p.open() {
		return
	}
	families, err := p.from.Gather()
	if err != nil {
		p.log.Warn("some metrics could not be gathered and are not sent", "error", p.to.clean(err.Error()))
	}
	ctx, cancel := context.WithTimeout(ctx, p.budget)
	defer cancel()
	now := time.Now()
	var metrics []*metricspb.Metric
	points := 0
	flush := func() {
		if points == 0 {
			return
		}
		p.queued.Store(int64(points))
		p.deliver(ctx, p.budget, points, p.request(metrics))
		p.queued.Store(0)
		metrics, points = nil, 0
	}
	for _, family := range families {
		for part := range slices.Chunk(family.GetMetric(), maxPoints) {
			if points+len(part) > maxPoints {
				flush()
			}
			family.Metric = part
			metrics = append(metrics, convert(family, p.began, now))
			points += len(part)
		}
	}
	flush()
}

// convert turns a family of Prometheus into a metric of OpenTelemetry, as its specification has it
// (https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/). Names stay as /metrics shows them.
func convert(family *dto.MetricFamily, began, now time.Time) *metricspb.Metric {
	out := &metricspb.Metric{Name: family.GetName(), Description: text(family.GetHelp()), Unit: family.GetUnit()}
	c := converter{began: nanos(began), now: nanos(now)}
	switch family.GetType() {
	case dto.MetricType_COUNTER:
		sum := &metricspb.Sum{AggregationTemporality: metricspb.AggregationTemporality_AGGREGATION_TEMPORALITY_CUMULATIVE, IsMonotonic: true}
		for _, m := range family.GetMetric() {
			point := c.number(m, m.GetCounter().GetValue())
			point.StartTimeUnixNano = c.start(m.GetCounter().GetCreatedTimestamp())
			point.Exemplars = c.exemplars(m.GetCounter().GetExemplar())
			sum.DataPoints = append(sum.DataPoints, point)
		}
		out.Data = &metricspb.Metric_Sum{Sum: sum}
	case dto.MetricType_SUMMARY:
		summary := new(metricspb.Summary)
		for _, m := range family.GetMetric() {
			summary.DataPoints = append(summary.DataPoints, c.summary(m))
		}
		out.Data = &metricspb.Metric_Summary{Summary: summary}
	case dto.MetricType_HISTOGRAM, dto.MetricType_GAUGE_HISTOGRAM:
		histogram := &metricspb.Histogram{AggregationTemporality: metricspb.AggregationTemporality_AGGREGATION_TEMPORALITY_CUMULATIVE}
		for _, m := range family.GetMetric() {
			histogram.DataPoints = append(histogram.DataPoints, c.histogram(m))
		}
		out.Data = &metricspb.Metric_Histogram{Histogram: histogram}
	default:
		gauge := new(metricspb.Gauge)
		for _, m := range family.GetMetric() {
			value := m.GetGauge().GetValue()
			if m.Untyped != nil {
				value = m.GetUntyped().GetValue()
			}
			gauge.DataPoints = append(gauge.DataPoints, c.number(m, value))
		}
		out.Data = &metricspb.Metric_Gauge{Gauge: gauge}
	}
	return out
}

type converter struct{ began, now uint64 }

func nanos(t time.Time) uint64 { return uint64(max(t.UnixNano(), 0)) }

// timestamp is what Prometheus keeps a time in.
type timestamp interface {
	AsTime() time.Time
	IsValid() bool
}

func (c converter) start(created timestamp) uint64 {
	if created != nil && created.IsValid() && !created.AsTime().IsZero() && created.AsTime().Unix() > 0 {
		return nanos(created.AsTime())
	}
	return c.began
}

func (c converter) number(m *dto.Metric, value float64) *metricspb.NumberDataPoint {
	return &metricspb.NumberDataPoint{TimeUnixNano: c.now, Attributes: labels(m), Value: &metricspb.NumberDataPoint_AsDouble{AsDouble: value}}
}

func (c converter) summary(m *dto.Metric) *metricspb.SummaryDataPoint {
	s := m.GetSummary()
	point := &metricspb.SummaryDataPoint{
		TimeUnixNano: c.now, StartTimeUnixNano: c.start(s.GetCreatedTimestamp()), Attributes: labels(m),
		Count: s.GetSampleCount(), Sum: s.GetSampleSum(),
	}
	for _, q := range s.GetQuantile() {
		point.QuantileValues = append(point.QuantileValues, &metricspb.SummaryDataPoint_ValueAtQuantile{Quantile: q.GetQuantile(), Value: q.GetValue()})
	}
	return point
}

// histogram turns Prometheus's cumulative buckets into counts of their own. The last one, without a bound, takes the rest.
func (c converter) histogram(m *dto.Metric) *metricspb.HistogramDataPoint {
	h := m.GetHistogram()
	point := &metricspb.HistogramDataPoint{
		TimeUnixNano: c.now, StartTimeUnixNano: c.start(h.GetCreatedTimestamp()), Attributes: labels(m),
		Count: h.GetSampleCount(), Sum: new(h.GetSampleSum()),
	}
	below := uint64(0)
	for _, b := range h.GetBucket() {
		point.Exemplars = append(point.Exemplars, c.exemplars(b.GetExemplar())...)
		if math.IsInf(b.GetUpperBound(), 1) {
			continue
		}
		point.ExplicitBounds = append(point.ExplicitBounds, b.GetUpperBound())
		point.BucketCounts = append(point.BucketCounts, b.GetCumulativeCount()-below)
		below = b.GetCumulativeCount()
	}
	point.BucketCounts = append(point.BucketCounts, h.GetSampleCount()-below)
	return point
}

func labels(m *dto.Metric) []*commonpb.KeyValue {
	out := make([]*commonpb.KeyValue, 0, len(m.GetLabel()))
	for _, l := range m.GetLabel() {
		out = append(out, keyValue(l.GetName(), stringValue(l.GetValue())))
	}
	return out
}

// exemplars keeps the way from a point to its trace.
func (c converter) exemplars(e *dto.Exemplar) []*metricspb.Exemplar {
	if e == nil {
		return nil
	}
	out := &metricspb.Exemplar{TimeUnixNano: c.now, Value: &metricspb.Exemplar_AsDouble{AsDouble: e.GetValue()}}
	if at := e.GetTimestamp(); at.IsValid() {
		out.TimeUnixNano = nanos(at.AsTime())
	}
	for _, l := range e.GetLabel() {
		id, err := hex.DecodeString(l.GetValue())
		switch {
		case l.GetName() == "trace_id" && err == nil && len(id) == 16:
			out.TraceId = id
		case l.GetName() == "span_id" && err == nil && len(id) == 8:
			out.SpanId = id
		default:
			out.FilteredAttributes = append(out.FilteredAttributes, keyValue(l.GetName(), stringValue(l.GetValue())))
		}
	}
	return []*metricspb.Exemplar{out}
}
