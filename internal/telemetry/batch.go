package telemetry

import (
	"context"
	"time"
)

// batcher gathers entries and hands them on together. Whoever offers one never waits: what finds no room is dropped and counted.
//
// Each entry that was accepted is counted once more when it leaves, so that accepted = exported + dropped + queued at any quiet moment.
type batcher[T any] struct {
	*signal
	batching
	entries chan T
	weight  func(T) int                             // of an entry against batching.batch
	send    func(context.Context, *batcher[T], []T) // one batch, with all its attempts
}

func newBatcher[T any](s *signal, how batching, weight func(T) int, send func(context.Context, *batcher[T], []T)) *batcher[T] {
	return &batcher[T]{signal: s, batching: how, entries: make(chan T, how.queue), weight: weight, send: send}
}

// room reports whether an entry would be accepted. When not, that entry counts as dropped: its maker need not make it.
func (b *batcher[T]) room() bool {
	switch {
	case !b.on():
		return false
	case !b.open():
		b.off.Add(1)
		return false
	case len(b.entries) == cap(b.entries):
		b.full.Add(1)
		return false
	}
	return true
}

// offer takes v if there is room. It does not block.
func (b *batcher[T]) offer(v T) {
	if !b.on() {
		return
	}
	if !b.open() {
		b.off.Add(1)
		return
	}
	b.queued.Add(1)
	select {
	case b.entries <- v:
	default:
		b.queued.Add(-1)
		b.full.Add(1)
	}
}

// run hands batches on until stopping is closed, and then what is left. ctx bounds all of it.
func (b *batcher[T]) run(ctx context.Context, stopping <-chan struct{}) {
	var pending []T
	heavy := 0
	flush := func() {
		if len(pending) == 0 {
			return
		}
		b.send(ctx, b, pending)
		b.queued.Add(-int64(len(pending)))
		clear(pending) // What was sent may go.
		pending, heavy = pending[:0], 0
	}
	add := func(v T) {
		pending = append(pending, v)
		if heavy += b.weight(v); heavy >= b.batch {
			flush()
		}
	}
	timer := time.NewTimer(b.delay)
	defer timer.Stop()
	for {
		select {
		case v := <-b.entries:
			if len(pending) == 0 {
				timer.Reset(b.delay)
			}
			add(v)
		case <-timer.C:
			flush()
		case <-stopping:
			for {
				select {
				case v := <-b.entries:
					add(v)
				default:
					flush()
					return
				}
			}
		}
	}
}
