package load

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// Open sends at a constant rate, in requests a second, whatever the answers do, over a number of connections. Latency counts from
// the time at which a request was due, not from when it could be sent: a server that stalls is charged for every request that had
// to wait meanwhile, also for those that found no free connection (no coordinated omission).
func Open(ctx context.Context, t Target, rate float64, connections int, w Window) (*Result, error) {
	if !(rate > 0) {
		return nil, fmt.Errorf("a rate of %v", rate)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	conns, err := dialAll(ctx, t.Address, connections)
	if err != nil {
		return nil, err
	}
	start := time.Now().Add(retryPause)
	run := &open{
		Target: t, start: start, free: make(chan *lane, connections), interval: float64(time.Second) / rate,
		from: start.Add(w.Warmup), to: start.Add(w.Warmup + w.Length), cancel: cancel,
	}
	lanes := make([]*lane, connections)
	var readers, pacer sync.WaitGroup
	for i, c := range conns {
		lanes[i] = new(lane)
		lanes[i].conn.Store(c)
		run.free <- lanes[i]
		readers.Go(func() { lanes[i].read(ctx, run) })
	}
	result := new(Result)
	pacer.Go(func() { run.pace(ctx, &result.Late) })

	var before uint64
	var began time.Time
	w.edges(ctx, start, func(begin bool) {
		if begin {
			before, began = run.answered.Load(), time.Now()
			return
		}
		result.Requests, result.Elapsed = run.answered.Load()-before, time.Since(began)
	})
	pacer.Wait()
	run.collect(ctx)
	cancelled := ctx.Err()
	cancel() // Closes every connection, which ends the readers.
	readers.Wait()
	for _, l := range lanes {
		result.Latency.Merge(&l.latency)
	}
	result.Failures = run.failures.Failures
	if cancelled != nil && result.First == nil {
		return nil, cancelled
	}
	return result, nil
}

// open is what the pacer and the readers of one run share.
type open struct {
	Target
	interval        float64 // nanoseconds
	start, from, to time.Time
	free            chan *lane // connections without a request
	answered        atomic.Uint64
	failures        tally
	cancel          context.CancelFunc
}

// lane is one connection with at most one request on it.
type lane struct {
	conn    atomic.Pointer[Conn]
	busy    atomic.Bool  // a request is on it
	due     atomic.Int64 // when its request was due, in nanoseconds after the start
	latency Histogram
}

// pace sends each request when it is due. It has a thread to itself: Go's own timers may be a millisecond late on an idle machine.
func (o *open) pace(ctx context.Context, late *Histogram) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	sharpen()
	defer blunt()
	for k := 0; ctx.Err() == nil; k++ {
		due := o.start.Add(time.Duration(float64(k) * o.interval))
		if !due.Before(o.to) {
			return
		}
		sleepUntil(due)
		var l *lane
		select {
		case l = <-o.free:
		case <-ctx.Done():
			return
		}
		late.Record(time.Since(due))
		l.due.Store(int64(due.Sub(o.start)))
		l.busy.Store(true)
		if conn := l.conn.Load(); conn.Send(o.Request) != nil {
			_ = conn.Close() // Its reader finds out, and counts the failure.
		}
	}
}

// collect waits until every request has its answer, or its failure.
func (o *open) collect(ctx context.Context) {
	for range cap(o.free) {
		select {
		case <-o.free:
		case <-ctx.Done():
			return
		}
	}
}

// read takes the answers of one lane, one after the other.
func (l *lane) read(ctx context.Context, run *open) {
	for {
		conn := l.conn.Load()
		status, length, err := conn.Reply()
		answered := time.Since(run.start)
		if ctx.Err() != nil {
			return
		}
		if !l.busy.Swap(false) {
			// The pacer may be about to use it: there is no going on.
			run.failures.add(fmt.Errorf("a connection without a request ended or spoke: %v", err)) //nolint:errorlint // err may be nil here.
			run.cancel()
			return
		}
		spent := err != nil || conn.Closing()
		if err == nil {
			err = run.check(status, length)
		}
		if err != nil {
			if !run.failures.add(err) {
				run.cancel()
				return
			}
		} else {
			run.answered.Add(1)
			l.measure(run, answered)
		}
		if spent {
			_ = conn.Close() // It is of no use any more.
			if !l.redial(ctx, run) {
				return
			}
		}
		run.free <- l
	}
}

// measure records the latency of the answer that has just come, if its request was due within the window.
func (l *lane) measure(run *open, answered time.Duration) {
	due := time.Duration(l.due.Load())
	if at := run.start.Add(due); !at.Before(run.from) && at.Before(run.to) {
		l.latency.Record(answered - due)
	}
}

func (l *lane) redial(ctx context.Context, run *open) bool {
	for sleep(ctx, retryPause) {
		conn, err := Dial(ctx, run.Address)
		if err == nil {
			l.conn.Store(conn)
			return true
		}
		if !run.failures.add(err) {
			run.cancel()
			return false
		}
	}
	return false
}
