package load

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// Closed keeps connections busy: each sends its next request when it has the answer to the last. It measures what a server can
// do, at the latency that comes with that; it says nothing about latency at a given rate. The error is ctx's, or that of a connection
// which could not be made at the start; failures within the run are in the result.
func Closed(ctx context.Context, t Target, connections int, w Window) (*Result, error) {
	conns, err := dialAll(ctx, t.Address, connections)
	if err != nil {
		return nil, err
	}
	run := &closed{Target: t}
	workers := make([]closedWorker, connections)
	var wg sync.WaitGroup
	for i := range workers {
		workers[i].conn = conns[i]
		wg.Go(func() { workers[i].work(ctx, run) })
	}

	result := new(Result)
	var before uint64
	var began time.Time
	w.edges(ctx, time.Now(), func(begin bool) {
		if begin {
			before, began = run.answered.Load(), time.Now()
			run.measuring.Store(true)
			return
		}
		run.measuring.Store(false)
		result.Requests, result.Elapsed = run.answered.Load()-before, time.Since(began)
	})
	run.stopped.Store(true)
	wg.Wait()
	for i := range workers {
		result.Latency.Merge(&workers[i].latency)
	}
	result.Failures = run.failures.Failures
	return result, ctx.Err()
}

// closed is what the workers of one run share.
type closed struct {
	Target
	answered  atomic.Uint64
	measuring atomic.Bool
	stopped   atomic.Bool
	failures  tally
}

type closedWorker struct {
	conn    *Conn
	latency Histogram
}

func (w *closedWorker) work(ctx context.Context, run *closed) {
	defer func() { _ = w.conn.Close() }()
	for !run.stopped.Load() && ctx.Err() == nil {
		sent := time.Now()
		status, length, err := w.conn.Do(run.Request)
		took := time.Since(sent)
		if err == nil {
			err = run.check(status, length)
			if err == nil {
				run.answered.Add(1)
				if run.measuring.Load() {
					w.latency.Record(took)
				}
				if !w.conn.Closing() {
					continue
				}
			}
		}
		if ctx.Err() != nil || err != nil && !run.failures.add(err) || !w.redial(ctx, run, err != nil) {
			return
		}
	}
}

// redial replaces the connection, after a pause where the last one failed.
func (w *closedWorker) redial(ctx context.Context, run *closed, failed bool) bool {
	_ = w.conn.Close() // It failed, or the other side closes it.
	for {
		if failed && !sleep(ctx, retryPause) || run.stopped.Load() {
			return false
		}
		conn, err := Dial(ctx, run.Address)
		if err == nil {
			w.conn = conn
			return true
		}
		if failed = true; ctx.Err() != nil || !run.failures.add(err) {
			return false
		}
	}
}
