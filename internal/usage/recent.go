package usage

import "sync"

// keepRecords is how many closed records are kept in memory.
const keepRecords = 100

// ring keeps the records that were closed last. Adding one copies it under a lock and allocates nothing.
type ring struct {
	mu      sync.Mutex
	records []Record
	next    int // the place of the next one
	held    int
}

func newRing(size int) *ring { return &ring{records: make([]Record, max(size, 0))} }

func (r *ring) add(rec *Record) {
	if len(r.records) == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.records[r.next] = *rec
	r.next = (r.next + 1) % len(r.records)
	r.held = min(r.held+1, len(r.records))
}

// latest copies at most limit records, the newest first.
func (r *ring) latest(limit int) []Record {
	r.mu.Lock()
	defer r.mu.Unlock()
	latest := make([]Record, max(min(limit, r.held), 0))
	for i := range latest {
		latest[i] = r.records[(r.next-1-i+len(r.records))%len(r.records)]
	}
	return latest
}
