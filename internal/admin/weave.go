package admin

import (
	"context"
	"encoding/base64"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/ai-aas/api-router/internal/adminapi"
	"github.com/ai-aas/api-router/internal/fault"
	"github.com/ai-aas/api-router/internal/policy"
)

// The names of strands in positions.
const (
	bookStrand     = 'b'
	documentStrand = 'd'
)

// strand is one of the places that tell of changes. Each has an order of its own, which stays as it is; among several, time decides.
type strand struct {
	name rune
	// read gives a stretch of entries with a sequence below the one that is given, or from the newest on at 0.
	read func(ctx context.Context, q *question, below int64) (stretch, error)
	// what it is, and what can be done while it cannot be read, for messages.
	what, instead string
}

// stretch are entries of a strand, the newest first.
type stretch struct {
	entries []adminapi.Entry
	times   []time.Time // by which they are put among those of other strands
	more    bool        // there are, or may be, entries below
	last    int64       // the lowest sequence that was looked at
	until   time.Time   // the time of that one
}

// add takes the next entry. One without a time, which was made past the router, stands with the one before it: nobody knows when that was.
func (s *stretch) add(e adminapi.Entry) {
	at := e.At
	if at.IsZero() {
		at = s.until
	}
	s.entries, s.times = append(s.entries, e), append(s.times, at)
	s.last, s.until = e.Sequence, at
}

// thread is a strand as far as one page has taken it.
type thread struct {
	strand
	stretch
	from  int64 // where the page began
	taken int
}

// newest is the time of the next entry, or of what comes after the last that was read; false: there is nothing more.
func (t *thread) newest() (at time.Time, ok bool) {
	switch {
	case t.taken < len(t.entries):
		return t.times[t.taken], true
	case t.more:
		return t.until, true
	}
	return time.Time{}, false
}

// position is where the next page begins; false: nowhere.
func (t *thread) position() (below int64, ok bool) {
	switch {
	case t.taken == len(t.entries):
		return t.last, t.more
	case t.taken > 0:
		return t.entries[t.taken-1].Sequence, true
	case t.from != 0:
		return t.from, true
	}
	return t.entries[0].Sequence + 1, true // What is newer than this page is not for the next.
}

// weave reads one page out of all strands. It may hold fewer entries than there are, or none, and have a next all the same.
func weave(ctx context.Context, strands []strand, q *question, now time.Time) (adminapi.Entries, error) {
	page := adminapi.Entries{Items: []adminapi.Entry{}}
	var unkept error
	threads := make([]*thread, 0, len(strands))
	for _, s := range strands {
		from, there := q.from[s.name]
		if q.from != nil && !there { // It has come to its end.
			continue
		}
		read, err := s.read(ctx, q, from)
		switch {
		case errors.Is(err, policy.ErrReadOnly): // Documents in files have no history.
			unkept = err
			continue
		case err != nil:
			return page, unreadable(s, err)
		}
		if len(read.times) > 0 && read.times[0].IsZero() { // It is the newest, and nobody knows of when.
			read.times[0] = now
		}
		threads = append(threads, &thread{strand: s, stretch: read, from: from})
	}
	for len(page.Items) < q.Limit {
		next := newest(threads)
		if next == nil || next.taken == len(next.entries) { // What comes next has not been read.
			break
		}
		page.Items = append(page.Items, next.entries[next.taken])
		next.taken++
	}
	if unkept != nil && len(page.Items) == 0 && (len(threads) == 0 || q.document != "") { // An empty audit would read like "never changed".
		return page, fault.New(fault.NotFound, "there is no audit of that here: "+unkept.Error())
	}
	rest := positions{}
	for _, t := range threads {
		if below, ok := t.position(); ok {
			rest[t.name] = below
		}
	}
	page.Next = rest.String()
	return page, nil
}

// unreadable is the answer where a strand cannot be read.
func unreadable(s strand, err error) error {
	return fault.Newf(fault.StoreUnavailable, "%s cannot be read, and without it the audit would have a gap: %s; try again in a moment, or %s",
		s.what, printable(err.Error()), s.instead).WithCause(err)
}

// newest is the thread that tells of the latest change; of two, the first. Nil: none does.
func newest(threads []*thread) (found *thread) {
	var latest time.Time
	for _, t := range threads {
		if at, ok := t.newest(); ok && (found == nil || at.After(latest)) {
			found, latest = t, at
		}
	}
	return found
}

// positions are where each strand goes on. One that is not there has come to its end.
type positions map[rune]int64

var errPositions = errors.New("these are no positions")

// String is "" where nothing is left.
func (p positions) String() string {
	var parts []string
	for _, name := range []rune{bookStrand, documentStrand} {
		if below, ok := p[name]; ok {
			parts = append(parts, string(name)+strconv.FormatInt(below, 10))
		}
	}
	return base64.RawURLEncoding.EncodeToString([]byte(strings.Join(parts, ".")))
}

// readPositions is the reverse of String. It takes what String has given, and nothing else.
func readPositions(text string) (positions, error) {
	plain, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return nil, errPositions
	}
	p := positions{}
	for part := range strings.SplitSeq(string(plain), ".") {
		if part == "" {
			return nil, errPositions
		}
		if p[rune(part[0])], err = strconv.ParseInt(part[1:], 10, 64); err != nil {
			return nil, errPositions
		}
	}
	if p.String() != text {
		return nil, errPositions
	}
	return p, nil
}
