package fleet

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func exhaustedOf(t *testing.T, err error) *Exhausted {
	t.Helper()
	e, ok := errors.AsType[*Exhausted](err)
	if !ok {
		t.Fatalf("got %v, want an *Exhausted", err)
	}
	return e
}

func TestTiersAndWeightZeroComeInOrder(t *testing.T) {
	f := fleetOf(t, 5)
	ask := Ask{Candidates: []Candidate{
		{Backend: "a", Weight: 0, Tier: 0},
		{Backend: "b", Weight: 10, Tier: 2},
		{Backend: "c", Weight: 1, Tier: 0},
		{Backend: "d", Weight: 10, Tier: 1},
		{Backend: "e", Weight: 0, Tier: 1},
	}}
	for range 50 {
		if got, _ := order(f, ask); !slices.Equal(got, []string{"c", "d", "b", "a", "e"}) {
			t.Fatalf("order %v, want c d b a e", got)
		}
	}
	backend(t, f, "c").rest(time.Minute)
	if got, _ := order(f, ask); got[0] != "d" {
		t.Errorf("without the first tier: %v, want d first", got)
	}
}

func TestABackendIsGivenOnce(t *testing.T) {
	f := fleetOf(t, 3)
	for _, strategy := range []string{StrategyAdaptive, StrategyWeighted, StrategyRoundRobin, StrategyLeastLoaded, StrategySession} {
		got, err := order(f, Ask{Candidates: candidates("a", "b", "a", "c", "b"), Strategy: strategy, Session: "s"})
		slices.Sort(got)
		if !slices.Equal(got, []string{"a", "b", "c"}) {
			t.Errorf("%s: gave %v", strategy, got)
		}
		if e := exhaustedOf(t, err); e.Tried != 5 {
			t.Errorf("%s: %+v", strategy, e)
		}
	}
}

func TestAnExhaustedErrorSaysWhy(t *testing.T) {
	f := fleetOf(t, 6, func(s *Spec) {
		if s.ID == "e" {
			s.MaxConcurrency = 1
		}
	})
	sick := backend(t, f, "a")
	sick.suffer("x")
	sick.suffer("x")
	finish(t, backend(t, f, "b"), 1, Result{Kind: Failed})
	finish(t, backend(t, f, "c"), 1, Result{Kind: Saturated, RetryAfter: 20 * time.Second})
	finish(t, backend(t, f, "d"), 1, Result{Kind: Saturated, RetryAfter: 10 * time.Second})
	held, _ := backend(t, f, "e").acquire(0, 1, false)
	defer held.Done(Result{})

	got, err := order(f, Ask{Candidates: candidates("a", "b", "c", "d", "e", "f", "nowhere")})
	if !slices.Equal(got, []string{"f"}) {
		t.Errorf("gave %v, want f alone", got)
	}
	e := exhaustedOf(t, err)
	want := Exhausted{Candidates: 7, Missing: 1, Unhealthy: 1, Ejected: 1, Resting: 2, Full: 1, Tried: 1, RetryAfter: e.RetryAfter}
	if *e != want {
		t.Errorf("got %+v, want %+v", *e, want)
	}
	if e.RetryAfter > 10*time.Second || e.RetryAfter < time.Second {
		t.Errorf("retry after %s, want that of d", e.RetryAfter)
	}
	if e.AllSaturated() {
		t.Error("not all of them are merely full")
	}
	if got, want := e.Reason(), "7 backends: 1 unhealthy, 1 failing, 2 asking for a pause, 1 full, 1 tried, 1 not configured"; got != want {
		t.Errorf("reason %q, want %q", got, want)
	}

	_, err = order(f, Ask{Candidates: candidates("c", "d", "e")})
	if e := exhaustedOf(t, err); !e.AllSaturated() || e.Reason() != "3 backends: 2 asking for a pause, 1 full" {
		t.Errorf("full alone: %+v, %s", *e, e.Reason())
	}
	_, err = order(f, Ask{})
	if e := exhaustedOf(t, err); e.AllSaturated() || e.Reason() != "no backends" {
		t.Errorf("no candidates: %+v, %s", *e, e.Reason())
	}
}

func TestABackendOfTheRequestThatRestsNowCountsAsResting(t *testing.T) {
	f := fleetOf(t, 2)
	p := f.Picker(Ask{Candidates: candidates("a", "b")})
	for range 2 {
		choice, err := p.Next()
		if err != nil {
			t.Fatal(err)
		}
		choice.Lease.Done(Result{Kind: Saturated})
	}
	_, err := p.Next()
	if e := exhaustedOf(t, err); !e.AllSaturated() {
		t.Errorf("got %+v, want all saturated", *e)
	}
}

func TestEjectionStopsAtHalfOfTheCandidates(t *testing.T) {
	eject := func(f *Fleet, ids ...string) {
		for _, id := range ids {
			finish(t, backend(t, f, id), 1, Result{Kind: ConnectFailed})
		}
	}
	for _, test := range []struct {
		name    string
		n       int
		ejected string
		want    string // ids in order; those after a bar in any order
	}{
		{"one of one is tried all the same", 1, "a", "|a"},
		{"one of two stays out", 2, "a", "b"},
		{"two of two are tried", 2, "ab", "|ab"},
		{"two of four stay out", 4, "ab", "|cd"},
		{"two of three come last", 3, "ab", "c|ab"},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := fleetOf(t, test.n)
			ids := strings.Split("abcd"[:test.n], "")
			eject(f, strings.Split(test.ejected, "")...)
			got, _ := order(f, Ask{Candidates: candidates(ids...)})
			first, rest, _ := strings.Cut(test.want, "|")
			text := strings.Join(got, "")
			tail := strings.Split(strings.TrimPrefix(text, first), "")
			slices.Sort(tail)
			if !strings.HasPrefix(text, first) || strings.Join(tail, "") != rest {
				t.Errorf("gave %s, want %s", text, test.want)
			}
		})
	}
}

func TestUnhealthyBackendsCountTowardsTheHalf(t *testing.T) {
	f := fleetOf(t, 2)
	dead := backend(t, f, "a")
	dead.suffer("x")
	dead.suffer("x")
	finish(t, backend(t, f, "b"), 1, Result{Kind: Failed})
	if got, _ := order(f, Ask{Candidates: candidates("a", "b")}); !slices.Equal(got, []string{"b"}) {
		t.Errorf("gave %v, want b: one that fails is better than none", got)
	}
}

func TestACapIsNeverPassed(t *testing.T) {
	f := fleetOf(t, 1, func(s *Spec) { s.MaxConcurrency = 3 })
	var leases []*Lease
	for {
		choice, err := f.Picker(Ask{Candidates: candidates("a")}).Next()
		if err != nil {
			if e := exhaustedOf(t, err); e.Full != 1 {
				t.Errorf("%+v", *e)
			}
			break
		}
		leases = append(leases, choice.Lease)
	}
	if len(leases) != 3 {
		t.Errorf("%d leases under a cap of 3", len(leases))
	}
	leases[0].Done(Result{})
	choice, err := f.Picker(Ask{Candidates: candidates("a")}).Next()
	if err != nil {
		t.Fatal(err)
	}
	leases[0].Done(Result{}) // A second Done frees nothing.
	if _, err := f.Picker(Ask{Candidates: candidates("a")}).Next(); err == nil {
		t.Error("a second Done freed a place")
	}
	choice.Lease.Done(Result{})
	for _, l := range leases[1:] {
		l.Done(Result{})
	}
}

func TestAChoiceNamesTheModelInBothWorlds(t *testing.T) {
	f := fleetOf(t, 1, func(s *Spec) { s.Models = map[string]string{"gpt-oss-20b": "unsloth/gpt-oss-20b"} })
	choice, err := f.Picker(Ask{Model: "gpt-oss-20b", Candidates: candidates("a")}).Next()
	if err != nil {
		t.Fatal(err)
	}
	defer choice.Lease.Done(Result{})
	if choice.Model != "unsloth/gpt-oss-20b" || choice.Public != "gpt-oss-20b" {
		t.Errorf("got %q for %q", choice.Model, choice.Public)
	}
}

// Whatever happens to the backends, a picker gives each at most once, only those that may be had, and lower tiers first.
func TestPickerProperties(t *testing.T) {
	strategies := []string{"", StrategyAdaptive, StrategyWeighted, StrategyRoundRobin, StrategyLeastLoaded, StrategySession, "unknown"}
	rapid.Check(t, func(t *rapid.T) {
		f := New(Options{})
		var specs []Spec
		var list []Candidate
		for i := range rapid.IntRange(1, 8).Draw(t, "backends") {
			id := string(rune('a' + i))
			specs = append(specs, Spec{ID: id, URL: "http://127.0.0.1:9", MaxConcurrency: rapid.IntRange(0, 2).Draw(t, "cap")})
			list = append(list, Candidate{Backend: id, Weight: rapid.IntRange(0, 3).Draw(t, "weight"), Tier: rapid.IntRange(0, 2).Draw(t, "tier")})
		}
		if err := f.Apply(specs); err != nil {
			t.Fatal(err)
		}
		var held []*Lease
		for _, spec := range specs {
			b, _ := f.Backend(spec.ID)
			switch rapid.IntRange(0, 5).Draw(t, "state") {
			case 0:
				b.suffer("x")
				b.suffer("x")
			case 1:
				b.rest(time.Minute)
			case 2:
				if l, ok := b.acquire(0, 1, true); ok {
					l.Done(Result{Kind: Broken})
				}
			case 3:
				for range rapid.IntRange(1, 3).Draw(t, "load") {
					if l, ok := b.acquire(0, 1, true); ok {
						held = append(held, l)
					}
				}
			}
		}
		p := f.Picker(Ask{
			Candidates: list, Strategy: rapid.SampledFrom(strategies).Draw(t, "strategy"), Session: rapid.SampledFrom([]string{"", "s"}).Draw(t, "session"),
		})
		seen := map[string]bool{}
		for {
			now := f.now()
			var best *Candidate
			for i, c := range list {
				b, _ := f.Backend(c.Backend)
				if !seen[c.Backend] && b.standing(now) == open && c.Weight > 0 && (best == nil || c.Tier < best.Tier) {
					best = &list[i]
				}
			}
			choice, err := p.Next()
			if err != nil {
				if best != nil {
					t.Fatalf("%s was available: %v", best.Backend, err)
				}
				break
			}
			b := choice.Lease.Backend()
			held = append(held, choice.Lease)
			if seen[b.ID()] {
				t.Fatalf("%s was given twice", b.ID())
			}
			seen[b.ID()] = true
			if best != nil && list[b.ID()[0]-'a'].Tier != best.Tier {
				t.Fatalf("%s was given although tier %d had %s", b.ID(), best.Tier, best.Backend)
			}
			if limit := b.Spec().MaxConcurrency; limit > 0 && b.InFlight() > int64(limit) {
				t.Fatalf("%d in flight with a cap of %d", b.InFlight(), limit)
			}
		}
		for _, l := range held {
			l.Done(Result{})
		}
		for _, s := range f.Status() {
			if s.InFlight != 0 {
				t.Fatalf("%s has %d in flight at the end", s.ID, s.InFlight)
			}
		}
	})
}

// A reload of the configuration must not cost a request that is on its way.
func TestAPickerFollowsABackendThatIsReplaced(t *testing.T) {
	f := fleetOf(t, 2)
	p := f.Picker(Ask{Candidates: candidates("a", "b")})
	replace := func(timeout time.Duration, ids ...string) {
		t.Helper()
		var specs []Spec
		for _, id := range ids {
			spec := backend(t, f, id).Spec()
			spec.Timeouts.Connect = timeout
			specs = append(specs, spec)
		}
		if err := f.Apply(specs); err != nil {
			t.Fatal(err)
		}
	}
	replace(time.Second, "a", "b")
	first, err := p.Next()
	if err != nil {
		t.Fatalf("after a reload: %v", err)
	}
	replace(2*time.Second, "a", "b")
	second, err := p.Next()
	if err != nil {
		t.Fatalf("failover after a reload: %v", err)
	}
	if first.Lease.Backend().ID() == second.Lease.Backend().ID() {
		t.Error("the same backend twice")
	}
	if second.Lease.Backend() != backend(t, f, second.Lease.Backend().ID()) {
		t.Error("not the backend that replaced it")
	}
	first.Lease.Done(Result{Kind: Failed})
	second.Lease.Done(Result{Kind: Served})
	if _, err := p.Next(); exhaustedOf(t, err).Tried != 2 {
		t.Error(err)
	}

	gone := f.Picker(Ask{Candidates: candidates("a", "b")})
	replace(2*time.Second, "a")
	for range 2 {
		choice, err := gone.Next()
		if err != nil {
			if e := exhaustedOf(t, err); e.Missing != 1 {
				t.Errorf("%+v", e)
			}
			continue
		}
		if choice.Lease.Backend().ID() != "a" {
			t.Error("a backend that was taken away: ", choice.Lease.Backend().ID())
		}
		choice.Lease.Done(Result{Kind: Served})
	}
}

// A policy may keep backends from some callers, so that requests of one route choose among different ones.
func TestTheRoundIsSharedByThoseWhoSeeOnlyAPart(t *testing.T) {
	f := fleetOf(t, 4)
	asks := []Ask{
		{Route: "r", Strategy: StrategyRoundRobin, Candidates: candidates("a", "b", "c", "d")},
		{Route: "r", Strategy: StrategyRoundRobin, Candidates: candidates("a", "b")},
	}
	got := map[string]int{}
	for i := range 80 {
		choice, err := f.Picker(asks[i%2]).Next()
		if err != nil {
			t.Fatal(err)
		}
		choice.Lease.Done(Result{})
		got[fmt.Sprint(choice.Lease.Backend().ID(), " of ", len(asks[i%2].Candidates))]++
	}
	want := map[string]int{"a of 4": 10, "b of 4": 10, "c of 4": 10, "d of 4": 10, "a of 2": 20, "b of 2": 20}
	for who, turns := range want {
		if n := got[who]; n < turns-2 || n > turns+2 {
			t.Errorf("%s had %d turns, want %d: %v", who, n, turns, got)
		}
	}
}
