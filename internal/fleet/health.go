package fleet

import "time"

// The outlier rule: a backend is ejected for ejectBase times the number of ejections in a row, at most ejectCap; then
// one request tries it (half open), and its result decides. The number decays by one for each ejectBase that the
// backend has stayed in. It is the rule of Envoy's outlier detection with a trial added.
const (
	ejectBase = 30 * time.Second
	ejectCap  = 300 * time.Second

	// DefaultEjectAfter is the number of consecutive failures that eject, for an Ask that names none.
	DefaultEjectAfter = 3

	restDefault = time.Second
	restCap     = 60 * time.Second
)

// state says whether a backend may get a request, and if not, why.
type state uint8

const (
	open state = iota
	full
	resting
	ejected
	unhealthy
	draining
	disabled
	gone
)

var stateNames = [...]string{
	open: "available", full: "full", resting: "resting", ejected: "ejected", unhealthy: "unhealthy",
	draining: MarkDraining, disabled: MarkDisabled, gone: "retired",
}

func (s state) String() string { return stateNames[s] }

// stand asks every voice; the gravest answer counts. degraded says that an operator wants others to be taken first.
func (b *Backend) stand(now time.Duration) (s state, degraded bool) {
	m := b.marked(now)
	switch {
	case b.retired.Load():
		return gone, false
	case m != nil && m.bars != open:
		return m.bars, false
	case !b.healthy():
		s = unhealthy
	case b.ejected(now):
		s = ejected
	case b.resting(now):
		s = resting
	case b.full():
		s = full
	}
	return s, m != nil
}

func (b *Backend) standing(now time.Duration) state {
	s, _ := b.stand(now)
	return s
}

// Available reports whether the backend can take a request now.
func (b *Backend) Available() bool { return b.standing(b.now()) == open }

// healthy is the probes' voice. A backend that was not probed yet may be tried.
func (b *Backend) healthy() bool { return probeState(b.probed.Load()) != probeUnhealthy }

// ejected is the voice of past requests. A half-open backend is not ejected while its trial is free.
func (b *Backend) ejected(now time.Duration) bool {
	until := time.Duration(b.ejectedUntil.Load())
	return until != 0 && (now < until || b.trial.Load())
}

// resting is the backend's own voice.
func (b *Backend) resting(now time.Duration) bool { return now < time.Duration(b.restingUntil.Load()) }

// full is the configuration's voice.
func (b *Backend) full() bool {
	limit := b.spec.Load().MaxConcurrency
	return limit > 0 && b.inFlight.Load() >= int64(limit)
}

// acquire takes a lease, or reports false when somebody else was faster: the last free place or the half-open slot is
// taken, or the backend has retired or was marked. With force an ejection does not count.
func (b *Backend) acquire(now time.Duration, ejectAfter int, force bool) (*Lease, bool) {
	if !b.enter() {
		return nil, false
	}
	lease := &Lease{backend: b, cuts: b.cuts.Load(), ejectAfter: int32(min(max(ejectAfter, 1), 1<<20))}
	if until := time.Duration(b.ejectedUntil.Load()); until != 0 {
		lease.probation = true
		lease.trial = now >= until && b.trial.CompareAndSwap(false, true)
		if !lease.trial && !force {
			b.leave()
			return nil, false
		}
	}
	// Asked after entering: either this sees the retirement or the mark, or whoever set it sees this lease.
	if m := b.marked(now); b.retired.Load() || m != nil && m.bars != open {
		lease.Done(Result{})
		return nil, false
	}
	return lease, true
}

// enter counts one more in flight, never above the cap.
func (b *Backend) enter() bool {
	limit := int64(b.spec.Load().MaxConcurrency)
	if limit <= 0 {
		b.inFlight.Add(1)
		return true
	}
	for {
		n := b.inFlight.Load()
		if n >= limit {
			return false
		}
		if b.inFlight.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (b *Backend) leave() {
	if b.inFlight.Add(-1) == 0 && b.retired.Load() {
		b.connections().CloseIdleConnections()
	}
}

// settle books a lease's result, then frees what it held.
func (b *Backend) settle(l *Lease, r Result) {
	switch {
	case r.Kind == Served:
		b.succeed(l)
	case r.Kind == Saturated:
		b.rest(r.RetryAfter)
	case r.Kind.failure():
		b.fail(l, r.Kind)
	}
	if l.trial {
		b.trial.Store(false)
	}
	b.leave()
}

// succeed clears the count, ends the ejection if this was a trial of it, and tells the probes: an answer to a request is
// worth more than an answer to a probe, which a busy engine may leave waiting.
func (b *Backend) succeed(l *Lease) {
	if b.failures.Load() != 0 {
		b.failures.Store(0)
	}
	if l.probation {
		b.readmit("a request was served")
	}
	if !b.healthy() {
		b.heal("a request was served")
	}
}

// fail counts a failure and ejects where the count says so. A request that began before an ejection says nothing about
// the backend after it, and one that began before a cut says nothing about it at all.
func (b *Backend) fail(l *Lease, kind Kind) {
	if l.Cut() {
		return
	}
	now := b.now()
	switch until := time.Duration(b.ejectedUntil.Load()); {
	case until == 0:
		if n := b.failures.Add(1); n >= l.ejectAfter {
			b.eject(now, 0, kind.String())
		}
	case l.probation && now >= until:
		b.eject(now, until, kind.String())
	}
}

// eject takes the backend out. seen is the ejection that the caller knew of: if another one came first, that one stands.
func (b *Backend) eject(now, seen time.Duration, reason string) {
	e := &b.ejection
	e.mu.Lock()
	defer e.mu.Unlock()
	if time.Duration(b.ejectedUntil.Load()) != seen {
		return
	}
	if seen == 0 {
		e.times = max(0, e.times-int((now-e.ended)/ejectBase))
	}
	e.times = min(e.times+1, int(ejectCap/ejectBase))
	e.reason = reason
	e.began = now
	length := time.Duration(e.times) * ejectBase
	failures := b.failures.Swap(0)
	b.ejectedUntil.Store(int64(now + length))
	b.counted.ejections.Inc()
	b.log.Warn("backend ejected", "reason", reason, "failures", failures, "for", length)
}

// readmit ends the ejection.
func (b *Backend) readmit(reason string) {
	e := &b.ejection
	e.mu.Lock()
	defer e.mu.Unlock()
	if b.ejectedUntil.Swap(0) == 0 {
		return
	}
	b.failures.Store(0)
	e.ended = b.now()
	b.log.Info("backend readmitted", "reason", reason)
}

// halfOpen lets the next request try an ejected backend at once.
func (b *Backend) halfOpen() {
	e := &b.ejection
	e.mu.Lock()
	defer e.mu.Unlock()
	if now := b.now(); time.Duration(b.ejectedUntil.Load()) > now {
		b.ejectedUntil.Store(int64(max(now, 1)))
	}
}

// rest keeps the backend out for as long as it asked. A longer rest that runs already stands.
func (b *Backend) rest(after time.Duration) {
	if after <= 0 {
		after = restDefault
	}
	now := b.now()
	until := now + min(after, restCap)
	for {
		before := b.restingUntil.Load()
		if int64(until) <= before {
			return
		}
		if b.restingUntil.CompareAndSwap(before, int64(until)) {
			if time.Duration(before) <= now {
				b.restingFrom.Store(int64(now))
				b.log.Info("backend resting", "reason", Saturated.String(), "for", until-now)
			}
			return
		}
	}
}
