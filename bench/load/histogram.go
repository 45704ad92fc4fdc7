package load

import (
	"math"
	"math/bits"
	"time"
)

// A Histogram counts durations in buckets whose width grows with the value: below 128 ns each nanosecond has its own, above
// that every doubling is split into 128 equal parts. A quantile is therefore off by at most 1/256 of itself (the middle of a
// bucket is reported), whatever the range. The zero value is ready for use. It is not safe for concurrent use: each
// goroutine fills its own, and Merge adds them up.
//
// The layout is the log-linear one of Gil Tene's HdrHistogram.
type Histogram struct {
	counts [buckets]uint32
	n      uint64
	sum    float64 // nanoseconds
	max    time.Duration
}

const (
	subBits    = 7
	subBuckets = 1 << subBits
	// maxBits bounds what is told apart: 2^40 ns are 18 minutes. Longer durations count in the last bucket; Max stays exact.
	maxBits = 40
	buckets = (maxBits - subBits + 1) * subBuckets
)

// Record counts one duration; a negative one counts as 0.
func (h *Histogram) Record(d time.Duration) {
	d = max(d, 0)
	h.counts[bucket(d)]++
	h.n++
	h.sum += float64(d)
	h.max = max(h.max, d)
}

// Merge adds what other has counted.
func (h *Histogram) Merge(other *Histogram) {
	for i, c := range &other.counts {
		h.counts[i] += c
	}
	h.n += other.n
	h.sum += other.sum
	h.max = max(h.max, other.max)
}

// Count is the number of durations.
func (h *Histogram) Count() uint64 { return h.n }

// Max is the longest of them, exactly.
func (h *Histogram) Max() time.Duration { return h.max }

// Mean is their exact mean, 0 where there are none.
func (h *Histogram) Mean() time.Duration {
	if h.n == 0 {
		return 0
	}
	return time.Duration(h.sum / float64(h.n))
}

// Quantile is the duration that the share q (0 to 1) of all durations does not exceed: the smallest for 0, Max for 1. It is 0
// where there are none.
func (h *Histogram) Quantile(q float64) time.Duration {
	if h.n == 0 {
		return 0
	}
	rank := uint64(math.Ceil(min(max(q, 0), 1) * float64(h.n)))
	if rank >= h.n {
		return h.max
	}
	rank = max(rank, 1)
	var seen uint64
	for i, c := range &h.counts {
		if seen += uint64(c); seen >= rank {
			return min(middle(i), h.max)
		}
	}
	return h.max
}

// bucket is the index of the bucket of d, which is not negative.
func bucket(d time.Duration) int {
	v := uint64(d)
	if v < subBuckets {
		return int(v)
	}
	shift := bits.Len64(v) - 1 - subBits
	return min((shift+1)<<subBits+int(v>>shift)-subBuckets, buckets-1)
}

// middle is the middle of a bucket.
func middle(i int) time.Duration {
	if i < subBuckets {
		return time.Duration(i)
	}
	shift := i>>subBits - 1
	low := uint64(i&(subBuckets-1)+subBuckets) << shift
	return time.Duration(low + uint64(1)<<shift/2)
}
