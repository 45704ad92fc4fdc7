package fleet

import (
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// twoOf gives a fleet of a and b with a journal, and a.
func twoOf(t *testing.T) (*Fleet, *Backend, *journal) {
	t.Helper()
	log := &journal{}
	f := New(Options{Logger: log.logger()})
	if err := f.Apply([]Spec{{ID: "a", URL: "http://a.test"}, {ID: "b", URL: "http://b.test"}}); err != nil {
		t.Fatal(err)
	}
	return f, backend(t, f, "a"), log
}

func TestConsecutiveFailuresEject(t *testing.T) {
	for _, kind := range []Kind{ConnectFailed, Failed, TimedOut, Broken, CredentialsRejected} {
		t.Run(kind.String(), func(t *testing.T) {
			_, a, log := twoOf(t)
			fail := func() { finish(t, a, 3, Result{Kind: kind}) }
			fail()
			fail()
			finish(t, a, 3, Result{Kind: Served}) // Breaks the row.
			fail()
			fail()
			for _, harmless := range []Kind{Neutral, ClientGone} {
				finish(t, a, 3, Result{Kind: harmless})
			}
			if !a.Available() {
				t.Fatal("ejected after two failures in a row")
			}
			fail()
			if a.Available() {
				t.Fatal("available after three failures in a row")
			}
			fail()
			if n := log.count("backend ejected"); n != 1 {
				t.Errorf("the ejection was logged %d times", n)
			}
			if s := a.Status(); s.State != "ejected" || s.Reason != kind.String() {
				t.Errorf("status %q because of %q", s.State, s.Reason)
			}
		})
	}
}

func TestEjectionsGrowAndATrialDecides(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, a, _ := twoOf(t)
		ask := Ask{Candidates: candidates("a", "b"), EjectAfter: 1}
		finish(t, a, 1, Result{Kind: Failed})
		for round := 1; round <= 12; round++ {
			length := min(time.Duration(round)*30*time.Second, 300*time.Second)
			if got := a.Status().Back; got != length {
				t.Fatalf("ejection %d lasts %s, want %s", round, got, length)
			}
			time.Sleep(length - time.Millisecond)
			if got, _ := order(f, ask); slices.Contains(got, "a") {
				t.Fatalf("ejection %d: given before its end", round)
			}
			time.Sleep(time.Millisecond)
			lease, ok := a.acquire(f.now(), 1, false)
			if !ok {
				t.Fatalf("ejection %d: no trial after its end", round)
			}
			if got, _ := order(f, ask); slices.Contains(got, "a") {
				t.Fatalf("ejection %d: two trials at once", round)
			}
			lease.Done(Result{Kind: TimedOut})
		}
		time.Sleep(ejectCap)
		finish(t, a, 1, Result{Kind: Served})
		if !a.Available() {
			t.Error("still out after a trial that was served")
		}
	})
}

func TestTheNumberOfEjectionsDecaysWhileABackendServes(t *testing.T) {
	for _, test := range []struct {
		name string
		calm time.Duration
		want time.Duration
	}{
		{"at once", 0, 120 * time.Second},
		{"after a minute", 61 * time.Second, 60 * time.Second},
		{"after a day", 24 * time.Hour, 30 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, a, _ := twoOf(t)
				for range 3 {
					finish(t, a, 1, Result{Kind: Failed})
					time.Sleep(ejectCap)
				}
				finish(t, a, 1, Result{Kind: Served})
				time.Sleep(test.calm)
				finish(t, a, 1, Result{Kind: Failed})
				if got := a.Status().Back; got != test.want {
					t.Errorf("ejected for %s, want %s", got, test.want)
				}
			})
		})
	}
}

func TestATrialThatSaysNothingLeavesRoomForTheNext(t *testing.T) {
	for _, kind := range []Kind{Neutral, ClientGone, Saturated} {
		synctest.Test(t, func(t *testing.T) {
			_, a, _ := twoOf(t)
			finish(t, a, 1, Result{Kind: Failed})
			time.Sleep(ejectBase)
			finish(t, a, 1, Result{Kind: kind})
			time.Sleep(restDefault)
			if !a.Available() {
				t.Errorf("%s: no further trial", kind)
			}
			if a.ejectedUntil.Load() == 0 {
				t.Errorf("%s: readmitted", kind)
			}
		})
	}
}

func TestTheFirstByteOfATrialReadmits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, a, _ := twoOf(t)
		finish(t, a, 1, Result{Kind: Failed})
		time.Sleep(ejectBase)
		lease, ok := a.acquire(f.now(), 1, false)
		if !ok || a.Available() {
			t.Fatal("want one trial and no second")
		}
		lease.FirstByte()
		if !a.Available() {
			t.Error("a stream that has begun keeps the backend out")
		}
		lease.Done(Result{Kind: Broken})
		if a.Available() {
			t.Error("the failure after the first byte does not count")
		}
		lease.FirstByte()
		if a.Available() {
			t.Error("a lease that is done still speaks")
		}
	})
}

func TestOldFailuresDoNotLengthenAnEjection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, a, _ := twoOf(t)
		var old []*Lease
		for range 10 {
			lease, _ := a.acquire(f.now(), 2, false)
			old = append(old, lease)
		}
		for _, lease := range old[:5] {
			lease.Done(Result{Kind: ConnectFailed})
		}
		time.Sleep(ejectBase)
		for _, lease := range old[5:] {
			lease.Done(Result{Kind: TimedOut})
		}
		if !a.Available() {
			t.Error("requests from before the ejection took the trial away")
		}
		if got := a.ejection.times; got != 1 {
			t.Errorf("%d ejections, want 1", got)
		}
	})
}

func TestASaturatedBackendRestsAsLongAsItAsks(t *testing.T) {
	for _, test := range []struct{ asked, want time.Duration }{
		{0, time.Second}, {-1, time.Second}, {250 * time.Millisecond, 250 * time.Millisecond}, {7 * time.Second, 7 * time.Second}, {time.Hour, time.Minute},
	} {
		synctest.Test(t, func(t *testing.T) {
			_, a, log := twoOf(t)
			finish(t, a, 1, Result{Kind: Saturated, RetryAfter: test.asked})
			finish(t, a, 1, Result{Kind: Saturated, RetryAfter: time.Millisecond}) // A shorter one does not shorten it.
			if got := a.Status(); got.State != "resting" || got.Back != test.want {
				t.Errorf("asked for %s: %s for %s, want %s", test.asked, got.State, got.Back, test.want)
			}
			time.Sleep(test.want)
			if !a.Available() {
				t.Errorf("asked for %s: not back after %s", test.asked, test.want)
			}
			if n := log.count("backend resting"); n != 1 {
				t.Errorf("the rest was logged %d times", n)
			}
			if a.failures.Load() != 0 {
				t.Error("saturation was taken for sickness")
			}
		})
	}
}

func TestAServedRequestOverrulesTheProbes(t *testing.T) {
	f, a, _ := twoOf(t)
	lease, _ := a.acquire(f.now(), 3, false)
	a.suffer("no answer within 2s")
	a.suffer("no answer within 2s")
	if a.Available() {
		t.Fatal("available although two probes failed")
	}
	lease.Done(Result{Kind: Served})
	if !a.Available() {
		t.Error("an engine that serves, but is too busy for probes, counts as dead")
	}
}

func TestEveryVoiceSpeaksInStatus(t *testing.T) {
	f := fleetOf(t, 1, func(s *Spec) { s.MaxConcurrency = 1 })
	a := backend(t, f, "a")
	check := func(state, reason string) {
		t.Helper()
		if s := a.Status(); s.State != state || s.Reason != reason {
			t.Errorf("%s because %q, want %s because %q", s.State, s.Reason, state, reason)
		}
	}
	check("available", "")
	lease, _ := a.acquire(0, 1, false)
	check("full", "max_concurrency is reached")
	a.rest(time.Minute)
	check("resting", "saturated")
	lease.Done(Result{Kind: Failed})
	check("ejected", "failed")
	a.suffer("x")
	a.suffer("probe said no")
	check("unhealthy", "probe said no")
}

// Ten thousand requests end in every way there is, many at once and some twice: at the end nothing is in flight.
func TestCountersReturnToZero(t *testing.T) {
	f := fleetOf(t, 4, func(s *Spec) {
		if s.ID == "d" {
			s.MaxConcurrency = 2
		}
	})
	stop := make(chan struct{})
	var applying sync.WaitGroup
	applying.Go(func() { // Backends come and go meanwhile.
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			specs := []Spec{{ID: "a", URL: "http://a.test"}, {ID: "b", URL: "http://b.test"}, {ID: "d", URL: "http://d.test", MaxConcurrency: 2}}
			if i%2 == 0 {
				specs = append(specs[1:], Spec{ID: "c", URL: "http://c.test", Engine: []string{EngineVLLM, EngineTGI}[i/2%2]})
			}
			if err := f.Apply(specs); err != nil {
				t.Error(err)
			}
			time.Sleep(100 * time.Microsecond)
		}
	})
	var seen sync.Map
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 1250 {
				p := f.Picker(Ask{Candidates: candidates("a", "b", "c", "d"), EjectAfter: 2})
				for {
					choice, err := p.Next()
					if err != nil {
						break
					}
					seen.Store(choice.Lease.Backend(), true)
					result := Result{Kind: Kind(rand.IntN(len(kindNames))), RetryAfter: time.Nanosecond}
					if rand.IntN(2) == 0 {
						choice.Lease.FirstByte()
					}
					if rand.IntN(4) == 0 {
						group.Go(func() { choice.Lease.Done(Result{}) })
					}
					choice.Lease.Done(result)
					if result.Kind == Served {
						break
					}
				}
			}
		})
	}
	group.Wait()
	close(stop)
	applying.Wait()
	n := 0
	seen.Range(func(key, _ any) bool {
		n++
		b, _ := key.(*Backend)
		if got := b.InFlight(); got != 0 {
			t.Errorf("%s: %d in flight at the end", b.ID(), got)
		}
		if b.trial.Load() {
			t.Errorf("%s: the half-open slot was never given back", b.ID())
		}
		return true
	})
	if n < 4 {
		t.Errorf("only %d backends took part", n)
	}
}

// The ejection rule against a model of it, in virtual time.
func TestEjectionProperties(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		steps := rapid.SliceOfN(rapid.IntRange(0, 5), 1, 60).Draw(r, "steps")
		threshold := rapid.IntRange(1, 4).Draw(r, "threshold")
		synctest.Test(t, func(t *testing.T) {
			f, a, _ := twoOf(t)
			inARow := 0
			for _, step := range steps {
				switch step {
				case 0:
					time.Sleep(10 * time.Second)
				case 1:
					time.Sleep(ejectCap)
				case 2:
					if lease, ok := a.acquire(f.now(), threshold, false); ok {
						lease.Done(Result{Kind: Served})
						inARow = 0
						if !a.Available() {
							r.Fatal("not available after a request was served")
						}
					}
				default:
					before := a.ejectedUntil.Load() != 0
					lease, ok := a.acquire(f.now(), threshold, false)
					if !ok {
						continue
					}
					lease.Done(Result{Kind: Failed})
					inARow++
					if wantOut := before || inARow >= threshold; wantOut == a.Available() {
						r.Fatalf("available %t after %d failures in a row, threshold %d, on trial %t", a.Available(), inARow, threshold, before)
					}
					if !a.Available() {
						inARow = 0
					}
				}
				if back := a.Status().Back; back > ejectCap {
					r.Fatalf("out for %s", back)
				}
			}
		})
	})
}
