package load

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// StreamLoad is a number of event streams, each on a connection of its own.
type StreamLoad struct {
	Target
	Streams int
	// Ramp is the time over which they begin, evenly. The connections are made before.
	Ramp time.Duration
	// Events is how many events each stream has, the last one, [DONE], included.
	Events int
	// Again begins a new stream when one has ended, until the window ends. Without it each connection carries one.
	Again bool
	Window
}

// StreamResult is what was seen. The window counts for Events and Elapsed alone, which belong to the processor time that was taken
// within it; the rest is about whole streams.
type StreamResult struct {
	Events  uint64
	Elapsed time.Duration

	Streams    uint64    // that ran to their end
	FirstEvent Histogram // from the request to the first event
	Gaps       Histogram // between two events of a stream
	WorstGaps  Histogram // the longest gap of each stream
	// Lost are the events that did not come in streams which ended well, and Extra those that nobody had sent. A stream that
	// broke is a failure.
	Lost, Extra uint64

	Failures
}

// Run runs the load until every stream has ended.
func (s StreamLoad) Run(ctx context.Context) (*StreamResult, error) {
	conns, err := dialAll(ctx, s.Address, s.Streams)
	if err != nil {
		return nil, err
	}
	defer closeAll(conns)

	run := &streams{StreamLoad: s}
	start := time.Now()
	watchers := make([]watcher, s.Streams)
	var wg sync.WaitGroup
	for i := range watchers {
		watchers[i].conn = conns[i]
		begin := start.Add(s.Ramp * time.Duration(i) / time.Duration(s.Streams))
		wg.Go(func() { watchers[i].work(ctx, run, begin) })
	}
	result := new(StreamResult)
	var before uint64
	var began time.Time
	s.edges(ctx, start, func(begin bool) {
		if begin {
			before, began = run.events.Load(), time.Now()
			return
		}
		result.Events, result.Elapsed = run.events.Load()-before, time.Since(began)
	})
	run.over.Store(true)
	wg.Wait()
	for i := range watchers {
		watchers[i].report(result)
	}
	result.Lost, result.Extra = run.lost.Load(), run.extra.Load()
	result.Failures = run.failures.Failures
	return result, ctx.Err()
}

// streams is what the watchers of one run share.
type streams struct {
	StreamLoad
	events      atomic.Uint64
	lost, extra atomic.Uint64
	over        atomic.Bool
	failures    tally
}

// watcher reads streams from one connection. What it sees stays in slices of its own: a histogram for each would weigh more
// than the stream.
type watcher struct {
	conn         *Conn
	first, worst []time.Duration // of each stream
	gaps         []time.Duration // of all events but the first
	zeros        uint64          // gaps of events that came together with the one before
}

func (w *watcher) work(ctx context.Context, run *streams, begin time.Time) {
	if !sleep(ctx, time.Until(begin)) {
		return
	}
	w.gaps = make([]time.Duration, 0, run.Events)
	for ctx.Err() == nil {
		events, err := w.stream(run)
		switch {
		case err != nil:
			// What is left of this connection is unknown: the watcher gives up with it.
			if ctx.Err() == nil {
				run.failures.add(err)
			}
			return
		case events < run.Events:
			run.lost.Add(uint64(run.Events - events))
		default:
			run.extra.Add(uint64(events - run.Events))
		}
		if !run.Again || run.over.Load() || w.conn.Closing() {
			return
		}
	}
}

var (
	blankLine = []byte("\n\n")
	lastEvent = []byte("data: [DONE]\n\n")
)

// stream reads one stream and counts its events.
func (w *watcher) stream(run *streams) (events int, err error) {
	sent := time.Now()
	if err := w.conn.Send(run.Request); err != nil {
		return 0, err
	}
	status, err := w.conn.Head()
	if err != nil {
		return 0, unexpected(err)
	}
	if status != 200 {
		return 0, fmt.Errorf("status %d", status)
	}
	var tail tail
	var last time.Time
	var worst time.Duration
	for {
		piece, err := w.conn.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return events, fmt.Errorf("a stream broke after %d events: %w", events, err)
		}
		n := tail.count(piece)
		if n == 0 {
			continue
		}
		run.events.Add(uint64(n))
		now := time.Now()
		if events == 0 {
			w.first = append(w.first, now.Sub(sent))
		} else {
			gap := now.Sub(last)
			w.gaps = append(w.gaps, gap)
			worst = max(worst, gap)
		}
		w.zeros += uint64(n - 1)
		last = now
		events += n
	}
	if !bytes.Equal(tail.bytes(), lastEvent) {
		return events, fmt.Errorf("a stream ended after %d events without [DONE]", events)
	}
	w.worst = append(w.worst, worst)
	return events, nil
}

func (w *watcher) report(r *StreamResult) {
	r.Streams += uint64(len(w.worst))
	for _, d := range w.first {
		r.FirstEvent.Record(d)
	}
	for _, d := range w.worst {
		r.WorstGaps.Record(d)
	}
	for _, d := range w.gaps {
		r.Gaps.Record(d)
	}
	for range w.zeros {
		r.Gaps.Record(0)
	}
}

// tail keeps the end of what has passed: enough to see a blank line that two pieces share, and how the stream ended.
type tail struct {
	buf [len("data: [DONE]\n\n")]byte
	n   int
}

func (t *tail) bytes() []byte { return t.buf[:t.n] }

// count takes the next piece and counts the events that end in it, by the blank lines. Events here end in "\n\n", as those of the
// engines do.
func (t *tail) count(piece []byte) int {
	n := bytes.Count(piece, blankLine)
	if t.n > 0 && len(piece) > 0 && t.buf[t.n-1] == '\n' && piece[0] == '\n' {
		n++
	}
	if len(piece) >= len(t.buf) {
		t.n = copy(t.buf[:], piece[len(piece)-len(t.buf):])
		return n
	}
	keep := min(t.n, len(t.buf)-len(piece))
	copy(t.buf[:], t.buf[t.n-keep:t.n])
	t.n = keep + copy(t.buf[keep:], piece)
	return n
}
