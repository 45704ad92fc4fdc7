package telemetry

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"
)

// scripted answers each attempt by a function.
type scripted func(context.Context) error

func (s scripted) send(ctx context.Context, _, _ proto.Message) error { return s(ctx) }
func (scripted) close()                                               {}

func signalBy(by carrier, stopping <-chan struct{}) *signal {
	return &signal{
		name: Traces, by: by, to: collector{timeout: 10 * time.Second}, log: slog.New(slog.DiscardHandler), stopping: stopping, state: Idle,
	}
}

// TestEveryEntryIsCountedOnce: whatever the collector does, what was offered was exported, or dropped for one reason, or still waits.
func TestEveryEntryIsCountedOnce(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		outcomes := rapid.SliceOfN(rapid.SampledFrom([]error{nil, &failure{reason: "no"}, &failure{reason: "later", again: true}, &failure{reason: "none", refused: true}}), 1, 12).Draw(r, "outcomes")
		how := batching{queue: rapid.IntRange(1, 20).Draw(r, "queue"), batch: rapid.IntRange(1, 8).Draw(r, "batch"), delay: time.Second, budget: rapid.SampledFrom([]time.Duration{time.Second, time.Minute}).Draw(r, "budget")}
		producers, each := rapid.IntRange(1, 4).Draw(r, "producers"), rapid.IntRange(0, 40).Draw(r, "each")
		synctest.Test(t, func(t *testing.T) {
			stopping := make(chan struct{})
			n := 0
			s := signalBy(scripted(func(context.Context) error { n++; return outcomes[n%len(outcomes)] }), stopping)
			b := newBatcher(s, how, func(int) int { return 1 }, func(ctx context.Context, b *batcher[int], batch []int) {
				if len(batch) > how.batch {
					t.Errorf("a batch of %d", len(batch))
				}
				b.deliver(ctx, b.budget, len(batch), nil)
			})
			done := make(chan struct{})
			go func() { defer close(done); b.run(t.Context(), stopping) }()
			check := func(when string) {
				synctest.Wait()
				offered := uint64(producers * each)
				if got := s.exported.Load() + s.dropped() + uint64(s.queued.Load()); got > offered || when == "at the end" && got != offered {
					t.Errorf("%s: %d offered, %d exported, %d full, %d failed, %d off, %d queued", when, offered, s.exported.Load(), s.full.Load(), s.failed.Load(), s.off.Load(), s.queued.Load())
				}
				if queued := s.queued.Load(); queued < 0 || queued > int64(how.queue+how.batch) {
					t.Errorf("%d queued", queued)
				}
			}
			var group sync.WaitGroup
			for range producers {
				group.Go(func() {
					for i := range each {
						if b.room() {
							b.offer(i)
						}
						if i%7 == 6 {
							time.Sleep(100 * time.Millisecond)
						}
					}
				})
			}
			time.Sleep(150 * time.Millisecond)
			check("meanwhile")
			group.Wait()
			close(stopping)
			<-done
			check("at the end")
			if s.queued.Load() != 0 {
				t.Errorf("%d left", s.queued.Load())
			}
		})
	})
}

func TestABatchWaitsForItsDelayOrItsSize(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		stopping := make(chan struct{})
		began := time.Now()
		var sizes []int
		var times []time.Duration
		s := signalBy(scripted(func(context.Context) error { return nil }), stopping)
		b := newBatcher(s, batching{queue: 100, batch: 3, delay: time.Second, budget: time.Minute}, func(n int) int { return n }, func(ctx context.Context, b *batcher[int], batch []int) {
			sizes, times = append(sizes, len(batch)), append(times, time.Since(began))
			b.deliver(ctx, b.budget, len(batch), nil)
		})
		done := make(chan struct{})
		go func() { defer close(done); b.run(t.Context(), stopping) }()
		time.Sleep(5 * time.Second)
		b.offer(1)
		b.offer(1)
		time.Sleep(2 * time.Second)
		b.offer(7) // As heavy as a batch by itself.
		synctest.Wait()
		close(stopping)
		<-done
		if len(sizes) != 2 || sizes[0] != 2 || times[0] != 6*time.Second || sizes[1] != 1 || times[1] != 7*time.Second {
			t.Errorf("got batches of %v at %v", sizes, times)
		}
	})
}

func TestAttemptsPauseLongerAndEndWithTheBudget(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		fail        failure
		least, most int // attempts in 30 s
	}{
		"a failure that may pass":          {failure{again: true}, 6, 16},
		"a collector that names its time":  {failure{again: true, after: 9 * time.Second}, 4, 4},
		"a time beyond the budget":         {failure{again: true, after: time.Hour}, 1, 1},
		"a failure that will not pass":     {failure{}, 1, 1},
		"a collector that has no pipeline": {failure{refused: true}, 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				n := 0
				s := signalBy(scripted(func(context.Context) error { n++; return &test.fail }), make(chan struct{}))
				began := time.Now()
				s.deliver(t.Context(), 30*time.Second, 1, nil)
				if took := time.Since(began); n < test.least || n > test.most || took > 30*time.Second || s.dropped() != 1 {
					t.Errorf("%d attempts in %s, %d dropped", n, took, s.dropped())
				}
			})
		})
	}
}

func TestARefusedSignalIsAskedAgainAfterTenMinutes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var answer error = &failure{reason: "none", refused: true}
		n := 0
		s := signalBy(scripted(func(context.Context) error { n++; return answer }), make(chan struct{}))
		deliver := func() { s.deliver(t.Context(), time.Minute, 1, nil) }
		deliver()
		for range 599 {
			deliver()
			time.Sleep(time.Second)
		}
		if n != 1 || s.state != Refused || s.off.Load() != 600 {
			t.Errorf("%d attempts, %s, %d off", n, s.state, s.off.Load())
		}
		time.Sleep(2 * time.Second)
		deliver()
		answer = nil
		deliver()
		if n != 2 {
			t.Errorf("%d attempts; a second refusal holds as long", n)
		}
		time.Sleep(askAgain)
		deliver()
		if n != 3 || s.state != Up || s.exported.Load() != 1 {
			t.Errorf("%d attempts, %s", n, s.state)
		}
	})
}

func TestTheEndOfTheProcessLeavesOneAttempt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		stopping := make(chan struct{})
		n := 0
		s := signalBy(scripted(func(context.Context) error { n++; return &failure{reason: "away", again: true} }), stopping)
		time.AfterFunc(100*time.Millisecond, func() { close(stopping) })
		began := time.Now()
		s.deliver(t.Context(), time.Minute, 1, nil)
		if took := time.Since(began); n != 2 || took != 100*time.Millisecond {
			t.Errorf("%d attempts in %s", n, took)
		}
	})
}

func TestFailingAndRecoveringInTurnIsNotALineEach(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		lines := 0
		s := signalBy(nil, nil)
		s.log = slog.New(counting{&lines})
		for range 100 { // Over fifty minutes.
			s.fail("away", true)
			time.Sleep(15 * time.Second)
			s.delivered(0, nil)
			time.Sleep(15 * time.Second)
		}
		t.Logf("%d lines", lines)
		if lines > 2*51 {
			t.Errorf("%d lines", lines)
		}
	})
}

// counting counts lines.
type counting struct{ n *int }

func (counting) Enabled(context.Context, slog.Level) bool    { return true }
func (c counting) Handle(context.Context, slog.Record) error { *c.n++; return nil }
func (c counting) WithAttrs([]slog.Attr) slog.Handler        { return c }
func (c counting) WithGroup(string) slog.Handler             { return c }

func TestWhatIsLostFromTheFirstFailureOnIsSaid(t *testing.T) {
	t.Parallel()
	for name, fails := range map[string]failure{"that does not pass": {reason: "401"}, "that is a refusal": {reason: "404", refused: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var answer error = &fails
				var journal bytes.Buffer
				s := signalBy(scripted(func(context.Context) error { return answer }), make(chan struct{}))
				s.log = slog.New(slog.NewTextHandler(&journal, nil))
				s.deliver(t.Context(), time.Minute, 7, nil)
				s.deliver(t.Context(), time.Minute, 2, nil)
				time.Sleep(askAgain + time.Second)
				answer = nil
				s.deliver(t.Context(), time.Minute, 1, nil)
				if text := journal.String(); !strings.Contains(text, "delivered again\" dropped=9") {
					t.Errorf("the log says:\n%s", text)
				}
			})
		})
	}
}

func TestAtTheEndNothingIsPromised(t *testing.T) {
	t.Parallel()
	stopping := make(chan struct{})
	lines := 0
	s := signalBy(scripted(func(context.Context) error { return &failure{reason: "away", again: true} }), stopping)
	s.log = slog.New(counting{&lines})
	close(stopping)
	s.deliver(t.Context(), time.Minute, 1, nil)
	if lines > 0 || s.failed.Load() != 1 || s.state != Failing {
		t.Errorf("%d lines that it is tried again; %d dropped, %s", lines, s.failed.Load(), s.state)
	}
}
