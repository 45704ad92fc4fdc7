package fleet

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestASurveyShowsEveryCandidate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fleetOf(t, 8, func(s *Spec) {
			s.Models = map[string]string{"m": "own-" + s.ID}
			if s.ID == "e" {
				s.MaxConcurrency = 1
			}
			if s.ID == "a" {
				s.Models = nil
			}
		})
		backend(t, f, "b").suffer("GET /health: no")
		backend(t, f, "b").suffer("GET /health: no answer")
		finish(t, backend(t, f, "c"), 1, Result{Kind: TimedOut})
		finish(t, backend(t, f, "d"), 1, Result{Kind: Saturated})
		held, _ := backend(t, f, "e").acquire(0, 1, false)
		defer held.Done(Result{})
		off := Mark{State: MarkDisabled, Reason: "wrong answers", Until: time.Now().Add(time.Hour)}
		backend(t, f, "f").suffer("GET /health: odd")
		f.SetMarks(map[string]Mark{"f": off, "g": {State: MarkDraining}, "h": {State: MarkDegraded, Reason: "slow"}})

		ask := Ask{Model: "m", Candidates: candidates("a", "b", "c", "nowhere", "d", "e", "f", "g", "h")}
		ask.Candidates[1].Weight, ask.Candidates[1].Tier, ask.Candidates[1].Degraded = 7, 2, true
		p := f.Picker(ask)
		if _, err := p.Peek(); err != nil {
			t.Fatal(err)
		}
		want := []Standing{
			{ID: "a", Weight: 100, State: "available", ModelName: "m"},
			{ID: "b", Weight: 7, Tier: 2, Degraded: true, State: "unhealthy", LastError: "GET /health: no answer", ModelName: "own-b", Known: true},
			{ID: "c", Weight: 100, State: "ejected", LastError: "timed out", ModelName: "own-c", Known: true},
			{ID: "nowhere", Weight: 100, State: "missing"},
			{ID: "d", Weight: 100, State: "resting", ModelName: "own-d", Known: true},
			{ID: "e", Weight: 100, State: "full", InFlight: 1, Capacity: 1, ModelName: "own-e", Known: true},
			{ID: "f", Weight: 100, State: "disabled", Mark: off, LastError: "GET /health: odd", ModelName: "own-f", Known: true},
			{ID: "g", Weight: 100, State: "draining", Mark: Mark{State: MarkDraining}, ModelName: "own-g", Known: true},
			{ID: "h", Weight: 100, Degraded: true, State: "available", Mark: Mark{State: MarkDegraded, Reason: "slow"}, ModelName: "own-h", Known: true},
		}
		if diff := cmp.Diff(want, p.Survey()); diff != "" {
			t.Error(diff)
		}
		if err := f.Apply(nil); err != nil {
			t.Fatal(err)
		}
		for _, s := range p.Survey() {
			if s.State != "missing" {
				t.Errorf("%s is %s after all were taken away", s.ID, s.State)
			}
		}
	})
}

// What Peek foretells is what Next does, in order, wherever chance has no say; and neither the fleet nor a round changes by it.
func TestPeekForetellsNext(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 6).Draw(t, "backends")
		f := New(Options{})
		var specs []Spec
		var list []Candidate
		marks := map[string]Mark{}
		for i := range n {
			id := string(rune('a' + i))
			specs = append(specs, Spec{ID: id, URL: "http://127.0.0.1:9", MaxConcurrency: rapid.IntRange(0, 1).Draw(t, "cap")})
			list = append(list, Candidate{Backend: id, Weight: rapid.IntRange(0, 3).Draw(t, "weight"), Tier: rapid.IntRange(0, 1).Draw(t, "tier")})
			marks[id] = Mark{State: rapid.SampledFrom([]string{"", "", MarkDisabled, MarkDraining, MarkDegraded}).Draw(t, "mark")}
		}
		if err := f.Apply(specs); err != nil {
			t.Fatal(err)
		}
		f.SetMarks(marks)
		for _, spec := range specs {
			if b, _ := f.Backend(spec.ID); rapid.IntRange(0, 2).Draw(t, "ejected") == 0 {
				b.eject(f.now(), 0, "x")
			}
		}
		ask := Ask{
			Candidates: list, Route: "r", Session: "s",
			Strategy: rapid.SampledFrom([]string{StrategyRoundRobin, StrategySession}).Draw(t, "strategy"),
		}
		for range rapid.IntRange(1, 8).Draw(t, "rounds") {
			before := f.Status()
			first, _ := foretold(f, ask)
			if again, _ := foretold(f, ask); again != first {
				t.Fatalf("foretold %q, then %q", first, again)
			}
			after := f.Status()
			for i := range before {
				before[i].Since, after[i].Since, before[i].EjectedUntil, after[i].EjectedUntil = time.Time{}, time.Time{}, time.Time{}, time.Time{}
				before[i].Back, after[i].Back = 0, 0
			}
			if diff := cmp.Diff(before, after); diff != "" {
				t.Fatalf("looking changed the fleet: %s", diff)
			}
			if done, _ := course(f, ask); done != first {
				t.Fatalf("foretold %q, done %q", first, done)
			}
		}
	})
}

func TestAPreviewSaysHowItCameAbout(t *testing.T) {
	f := fleetOf(t, 3, func(s *Spec) { s.Models = map[string]string{"m": "own"} })
	p := f.Picker(Ask{Model: "m", Candidates: []Candidate{{Backend: "a", Weight: 1}, {Backend: "b", Weight: 1}, {Backend: "c", Weight: 1, Tier: 1}}})
	finish(t, backend(t, f, "c"), 1, Result{Kind: Failed})
	f.SetMarks(marked("c?"))
	for want := range slices.Values([]Preview{{Model: "own", Among: 2}, {Model: "own", Among: 1}}) {
		got, err := p.Peek()
		if got.Backend = ""; err != nil || got != want {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
	}
	if got, err := p.Peek(); err == nil {
		t.Errorf("one of three is out, and was foretold: %+v", got)
	}
	f.SetMarks(marked("a- b- c?"))
	want := Preview{Backend: "c", Model: "own", Among: 1, Forced: true, Degraded: true}
	if got, err := f.Picker(Ask{Model: "m", Candidates: candidates("a", "b", "c")}).Peek(); err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
}

func TestStatusSaysSinceWhen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fleetOf(t, 1)
		a := backend(t, f, "a")
		born := time.Now()
		expect := func(state string, since time.Time) {
			t.Helper()
			if s := a.Status(); s.State != state || !s.Since.Equal(since) {
				t.Errorf("%s since %s, want %s since %s", s.State, s.Since, state, since)
			}
		}
		pass := func() time.Time { time.Sleep(time.Second); return time.Now() }
		at := pass()
		expect("available", born)
		f.SetMarks(marked("a?"))
		expect("available", born)
		f.SetMarks(marked("a~"))
		pass()
		f.SetMarks(marked("a~"))
		expect("draining", at)
		at = pass()
		f.SetMarks(marked("a-"))
		pass()
		expect("disabled", at)
		f.SetMarks(marked("a?"))
		expect("available", time.Now())
		at = pass()
		a.rest(3 * time.Second)
		pass()
		a.rest(3 * time.Second)
		expect("resting", at)
		time.Sleep(time.Minute)
		expect("available", at.Add(4*time.Second))
		at = pass()
		finish(t, a, 1, Result{Kind: Failed})
		pass()
		expect("ejected", at)
		if s := a.Status(); !s.EjectedUntil.Equal(at.Add(ejectBase)) || s.LastError != "failed" {
			t.Errorf("ejected until %s for %q", s.EjectedUntil, s.LastError)
		}
		at = pass()
		a.suffer("no")
		a.suffer("no")
		pass()
		expect("unhealthy", at)
		at = pass()
		a.heal("yes")
		finish(t, a, 1, Result{Kind: Served})
		pass()
		expect("available", at)
		if s := a.Status(); !s.EjectedUntil.IsZero() || s.LastError != "" {
			t.Errorf("well, but ejected until %s for %q", s.EjectedUntil, s.LastError)
		}
	})
}
