package load

import (
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestQuantilesAreWithinTheStatedError(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(rapid.Int64Range(0, int64(17*time.Minute)), 1, 200).Draw(t, "values")
		q := rapid.Float64Range(0, 1).Draw(t, "q")
		var h Histogram
		for _, v := range values {
			h.Record(time.Duration(v))
		}
		slices.Sort(values)
		exact := values[max(int(math.Ceil(q*float64(len(values)))), 1)-1]
		got := int64(h.Quantile(q))
		if diff := math.Abs(float64(got - exact)); diff > float64(exact)/256+1 {
			t.Fatalf("quantile %v is %d, exactly %d", q, got, exact)
		}
		if h.Quantile(1) != h.Max() || int64(h.Max()) != values[len(values)-1] || h.Count() != uint64(len(values)) {
			t.Fatalf("max %d, count %d of %v", h.Max(), h.Count(), values)
		}
	})
}

func TestMergedHistogramsEqualOne(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var all, a, b Histogram
		for _, v := range rapid.SliceOf(rapid.Int64Range(-5, math.MaxInt64)).Draw(t, "a") {
			a.Record(time.Duration(v))
			all.Record(time.Duration(v))
		}
		for _, v := range rapid.SliceOf(rapid.Int64Range(0, 1_000_000)).Draw(t, "b") {
			b.Record(time.Duration(v))
			all.Record(time.Duration(v))
		}
		a.Merge(&b)
		if a.counts != all.counts || a.n != all.n || a.max != all.max {
			t.Fatal("the sum differs from the whole")
		}
	})
}

func TestEveryBucketHoldsItsMiddleAndBucketsAscend(t *testing.T) {
	for i := range buckets {
		if got := bucket(middle(i)); got != i {
			t.Fatalf("the middle of bucket %d lies in bucket %d", i, got)
		}
		if i > 0 && middle(i) <= middle(i-1) {
			t.Fatalf("bucket %d is not above the one before", i)
		}
	}
}

func TestAnEmptyHistogramIsZero(t *testing.T) {
	var h Histogram
	if h.Quantile(0.5) != 0 || h.Max() != 0 || h.Mean() != 0 || h.Count() != 0 {
		t.Error("not zero")
	}
	h.Record(3)
	h.Record(5)
	if h.Mean() != 4 || h.Quantile(0) != 3 || h.Quantile(0.5) != 3 || h.Quantile(0.51) != 5 {
		t.Error(h.Mean(), h.Quantile(0), h.Quantile(0.5))
	}
}

func BenchmarkRecord(b *testing.B) {
	var h Histogram
	for i := 0; b.Loop(); i++ {
		h.Record(time.Duration(i & 0xfffff))
	}
}
