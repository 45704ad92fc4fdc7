package telemetry

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"
)

// State says how a signal fares.
type State string

// The states of a signal.
const (
	Off     State = "off"     // nobody asked for it, or what was asked cannot be done
	Idle    State = "idle"    // nothing has been sent yet
	Up      State = "up"      // the collector takes it
	Failing State = "failing" // the collector does not answer or does not take it; each batch is tried for its time and then dropped
	Refused State = "refused" // the collector has no pipeline for it; asked again after ten minutes
)

// Signal is one kind of telemetry on its way to its collector, for people and checks. Nothing in it is secret.
type Signal struct {
	Name     string // Traces, Metrics or Logs
	Endpoint string // a URL without user and query; "" when there is none
	Protocol string // GRPC or HTTP; "" when off
	State    State
	Since    time.Time // of State
	// Unusable says that it is off by mistake: what the environment asks for cannot be done.
	Unusable bool
	// LastError is why it is off, or what went wrong last; "" when nothing did.
	LastError string
	// Exported and Dropped count traces, data points and log lines.
	Exported, Dropped uint64
	// Queue is how many wait, or are being sent.
	Queue int
}

const (
	askAgain    = 10 * time.Minute // after a refusal
	quiet       = time.Minute      // between two lines that a signal fails
	firstPause  = 500 * time.Millisecond
	longPause   = 5 * time.Second
	failuresToo = 2 // attempts in a row until a signal counts as failing: one alone may be a hiccup
)

// signal carries one kind of telemetry: it counts, tries again, and knows whether that makes sense.
type signal struct {
	name string
	to   collector
	by   carrier
	log  *slog.Logger
	// stopping is closed when the process ends: no pause then, and no attempt after the next.
	stopping <-chan struct{}

	exported, full, failed, off atomic.Uint64
	queued                      atomic.Int64
	closedUntil                 atomic.Int64 // nanoseconds of Unix time until which a refusal holds; 0: none

	mu        sync.Mutex
	state     State
	since     time.Time
	lastError string
	inRow     int       // attempts that failed since the last success
	warned    time.Time // when the log last said that it fails
	told      bool      // the log says that it fails, and has not said that it is over
	lostSince uint64    // drops before the first of those attempts
}

func newSignal(name string, to collector, agent string, log *slog.Logger, stopping <-chan struct{}) *signal {
	s := &signal{name: name, to: to, log: log, stopping: stopping, state: Off, since: time.Now(), lastError: to.off}
	if to.off == "" {
		s.state, s.by = Idle, to.carrier(name, agent)
		s.log = log.With("signal", name, "endpoint", to.display(), "protocol", to.protocol)
	}
	return s
}

// on reports whether anything is to be sent at all.
func (s *signal) on() bool { return s.by != nil }

// open reports whether the collector would take it now, as far as is known.
func (s *signal) open() bool {
	until := s.closedUntil.Load()
	return until == 0 || time.Now().UnixNano() >= until
}

func (s *signal) dropped() uint64 { return s.full.Load() + s.failed.Load() + s.off.Load() }

func (s *signal) status() Signal {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Signal{
		Name: s.name, Endpoint: s.to.display(), Protocol: s.to.protocol, State: s.state, Since: s.since, Unusable: s.to.unusable, LastError: s.lastError,
		Exported: s.exported.Load(), Dropped: s.dropped(), Queue: int(s.queued.Load()),
	}
}

// deliver sends one request, tries again while that makes sense and budget lasts, and counts its n entries. It returns within budget, or
// soon after ctx has ended.
func (s *signal) deliver(ctx context.Context, budget time.Duration, n int, request proto.Message) {
	if !s.open() {
		s.off.Add(uint64(n))
		return
	}
	ctx, cancel := context.WithTimeout(ctx, budget)
	defer cancel()
	pause := firstPause
	for {
		answer := newAnswer(s.name)
		err := s.attempt(ctx, request, answer)
		if err == nil {
			s.delivered(n, answer)
			return
		}
		f := asFailure(err)
		if f.refused {
			s.refuse(f.reason)
			s.off.Add(uint64(n))
			return
		}
		wait := max(f.after, time.Duration((0.5+rand.Float64())*float64(pause)))
		pause = min(2*pause, longPause)
		if !f.again || s.ending() || !fits(ctx, wait) {
			s.fail(f.reason, true)
			s.failed.Add(uint64(n))
			return
		}
		s.fail(f.reason, false)
		if !s.sleep(ctx, wait) {
			s.failed.Add(uint64(n))
			return
		}
	}
}

func (s *signal) attempt(ctx context.Context, request, answer proto.Message) error {
	ctx, cancel := context.WithTimeout(ctx, s.to.timeout)
	defer cancel()
	return s.by.send(ctx, request, answer)
}

// fits reports whether something can be done after wait.
func fits(ctx context.Context, wait time.Duration) bool {
	deadline, ok := ctx.Deadline()
	return ctx.Err() == nil && (!ok || time.Until(deadline) > wait)
}

// sleep waits for d, or until the process ends; false when ctx ended first.
func (s *signal) sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-s.stopping:
	case <-timer.C:
	}
	return true
}

func (s *signal) ending() bool {
	select {
	case <-s.stopping:
		return true
	default:
		return false
	}
}

// turn changes the state. The caller holds mu.
func (s *signal) turn(to State) {
	if s.state != to {
		s.state, s.since = to, time.Now()
	}
}

// delivered counts what was taken. A rejected span takes its trace with it, as far as can be told: spans are not traced back.
func (s *signal) delivered(n int, answer proto.Message) {
	refused, words := rejected(answer)
	lost := uint64(min(refused, int64(n)))
	s.exported.Add(uint64(n) - lost)
	s.failed.Add(lost)
	s.closedUntil.Store(0)

	s.mu.Lock()
	before := s.state
	s.turn(Up)
	s.inRow, s.lastError = 0, ""
	say := s.told
	s.told = false
	missing := s.dropped() - s.lostSince
	partial := false
	if refused > 0 || words != "" {
		s.lastError = "the collector rejected a part: " + s.to.clean(words)
		if partial = time.Since(s.warned) >= quiet; partial {
			s.warned = time.Now()
		}
	}
	reason := s.lastError
	s.mu.Unlock()

	switch {
	case say:
		s.log.Info("telemetry is delivered again", "dropped", missing)
	case before == Idle:
		s.log.Info("telemetry is delivered")
	}
	if partial {
		s.log.Warn("the collector did not take all of the telemetry", "rejected", refused, "reason", reason)
	}
}

// miss counts an attempt that did not succeed, before what it loses is counted. The caller holds mu.
func (s *signal) miss(reason string) {
	if s.inRow++; s.inRow == 1 {
		s.lostSince = s.dropped()
	}
	s.lastError = reason
}

// fail remembers a failed attempt. lost says that its entries are dropped. The log hears of the change and not of each failure; at the end
// of the process it hears what was lost from who ends it.
func (s *signal) fail(reason string, lost bool) {
	s.mu.Lock()
	s.miss(reason)
	say := false
	if s.inRow >= failuresToo || lost {
		s.turn(Failing)
		if say = !s.told && !s.ending() && time.Since(s.warned) >= quiet; say {
			s.told, s.warned = true, time.Now()
		}
	}
	s.mu.Unlock()
	if say {
		s.log.Warn("telemetry is not delivered; requests are served all the same. It is tried again, and what has no room is dropped and counted", "reason", reason)
	}
}

func (s *signal) refuse(reason string) {
	s.closedUntil.Store(time.Now().Add(askAgain).UnixNano())
	s.mu.Lock()
	say := s.state != Refused
	s.turn(Refused)
	s.miss(reason)
	if say {
		s.told, s.warned = true, time.Now()
	}
	s.mu.Unlock()
	if say {
		s.log.Warn("the collector has no pipeline for this signal: it is off. Add one there, or set OTEL_"+upper[s.name]+"_EXPORTER=none",
			"reason", reason, "asked_again_after", askAgain.String())
	}
}

var upper = map[string]string{Traces: "TRACES", Metrics: "METRICS", Logs: "LOGS"}
