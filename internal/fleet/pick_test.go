package fleet

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cespare/xxhash/v2"
	"pgregory.net/rapid"
)

func optionsOf(weights ...int) []option {
	options := make([]option, len(weights))
	for i, w := range weights {
		id := string(rune('a' + i))
		options[i] = option{id: id, entry: i, weight: w, place: xxhash.Sum64String(id)}
	}
	return options
}

// checkShares fails when the counts are further from the weights' shares than chance explains: chi-square, with a bound
// that true shares pass all but once in a million runs.
func checkShares(t *testing.T, counts, weights []int) {
	t.Helper()
	var n, total float64
	for i := range counts {
		n += float64(counts[i])
		total += float64(weights[i])
	}
	var chi float64
	for i := range counts {
		expected := n * float64(weights[i]) / total
		chi += (float64(counts[i]) - expected) * (float64(counts[i]) - expected) / expected
	}
	degrees := float64(len(counts) - 1)
	// Wilson and Hilferty's approximation of the quantile at 4.75 standard deviations.
	bound := degrees * math.Pow(1-2/(9*degrees)+4.75*math.Sqrt(2/(9*degrees)), 3)
	if chi > bound {
		t.Errorf("shares %v for weights %v: chi-square %.1f is above %.1f", counts, weights, chi, bound)
	}
}

func TestWeightedSharesAreExact(t *testing.T) {
	for _, weights := range [][]int{{1, 1}, {90, 10}, {1, 2, 3, 4}, {1000, 1}} {
		counts := make([]int, len(weights))
		random := rand.New(rand.NewPCG(1, 2))
		for range 100_000 {
			counts[pickWeighted(optionsOf(weights...), random.Uint64N)]++
		}
		checkShares(t, counts, weights)
	}
}

func TestAPickersSharesFollowTheWeights(t *testing.T) {
	f := fleetOf(t, 3)
	weights := []int{70, 20, 10}
	list := candidates("a", "b", "c")
	for i := range list {
		list[i].Weight = weights[i]
	}
	for _, strategy := range []string{StrategyWeighted, StrategyAdaptive, ""} {
		counts := make([]int, 3)
		for range 30_000 {
			choice, err := f.Picker(Ask{Candidates: list, Strategy: strategy}).Next()
			if err != nil {
				t.Fatal(err)
			}
			counts[choice.Lease.Backend().ID()[0]-'a']++
			choice.Lease.Done(Result{Kind: Served})
		}
		checkShares(t, counts, weights)
	}
}

func TestLeastLoadedTakesTheFewestPerWeight(t *testing.T) {
	for _, test := range []struct {
		name    string
		loads   []int64
		weights []int
		want    string // the ids that may be picked
	}{
		{"fewest", []int64{3, 1, 2}, []int{1, 1, 1}, "b"},
		{"per weight", []int64{10, 2}, []int{10, 1}, "a"},
		{"equals", []int64{1, 2, 1}, []int{1, 1, 1}, "ac"},
		{"equal per weight", []int64{2, 1}, []int{2, 1}, "ab"},
		{"all idle", []int64{0, 0}, []int{5, 1}, "ab"},
	} {
		t.Run(test.name, func(t *testing.T) {
			seen := map[string]bool{}
			for range 200 {
				options := optionsOf(test.weights...)
				for i := range options {
					options[i].load = test.loads[i]
				}
				at := pickLeastLoaded(options, rand.Uint64N)
				seen[options[at].id] = true
			}
			for id := range seen {
				if !strings.Contains(test.want, id) {
					t.Errorf("%s was picked, want one of %s", id, test.want)
				}
			}
			if len(seen) != len(test.want) {
				t.Errorf("picked %v, want all of %s", seen, test.want)
			}
		})
	}
}

func TestLeastLoadedIsMinimal(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		weights := rapid.SliceOfN(rapid.IntRange(1, 1000), 1, 12).Draw(t, "weights")
		options := optionsOf(weights...)
		for i := range options {
			options[i].load = rapid.Int64Range(0, 500).Draw(t, "load")
		}
		all := slices.Clone(options)
		got := options[pickLeastLoaded(options, rand.Uint64N)]
		for _, o := range all {
			if o.load*int64(got.weight) < got.load*int64(o.weight) {
				t.Fatalf("took load %d weight %d although there was load %d weight %d", got.load, got.weight, o.load, o.weight)
			}
		}
	})
}

func TestAdaptiveBalancesEqualsByLoad(t *testing.T) {
	f := fleetOf(t, 4)
	var leases []*Lease
	for range 40 {
		choice, err := f.Picker(Ask{Candidates: candidates("a", "b", "c", "d")}).Next()
		if err != nil {
			t.Fatal(err)
		}
		leases = append(leases, choice.Lease)
	}
	for _, s := range f.Status() {
		if s.InFlight != 10 {
			t.Errorf("%s has %d in flight, want 10", s.ID, s.InFlight)
		}
	}
	for _, l := range leases {
		l.Done(Result{Kind: Served})
	}
}

func TestSessionsStayTogether(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		weights := rapid.SliceOfN(rapid.IntRange(1, 100), 2, 10).Draw(t, "weights")
		session := rapid.Uint64().Draw(t, "session")
		options := optionsOf(weights...)
		home := options[pickSession(options, session)].id
		if again := options[pickSession(options, session)].id; again != home {
			t.Fatalf("one session went to %s and %s", home, again)
		}
		without := rapid.IntRange(0, len(options)-1).Draw(t, "without")
		gone := options[without].id
		fewer := slices.Delete(slices.Clone(options), without, without+1)
		if now := fewer[pickSession(fewer, session)].id; gone != home && now != home {
			t.Fatalf("the session moved from %s to %s because %s left", home, now, gone)
		}
		shuffled := slices.Clone(options)
		slices.Reverse(shuffled)
		if now := shuffled[pickSession(shuffled, session)].id; now != home {
			t.Fatalf("the order of the candidates moved the session from %s to %s", home, now)
		}
	})
}

func TestSessionsSpreadByWeight(t *testing.T) {
	weights := []int{1, 2, 5}
	counts := make([]int, len(weights))
	for i := range 50_000 {
		counts[pickSession(optionsOf(weights...), xxhash.Sum64String(fmt.Sprint("session-", i)))]++
	}
	checkShares(t, counts, weights)
}

func TestASessionReturnsToItsBackend(t *testing.T) {
	f := fleetOf(t, 5)
	ask := Ask{Candidates: candidates("a", "b", "c", "d", "e"), Strategy: StrategySession, Session: "conversation-7"}
	first, _ := order(f, ask)
	for range 20 {
		if again, _ := order(f, ask); !slices.Equal(again, first) {
			t.Fatalf("order %v, then %v", first, again)
		}
	}
	backend(t, f, first[0]).rest(restCap)
	if now, _ := order(f, ask); !slices.Equal(now, first[1:]) {
		t.Errorf("with the home at rest: %v, want %v", now, first[1:])
	}
}

func TestRoundRobinIsSmooth(t *testing.T) {
	var r rotation
	r.credit = map[string]int{}
	var turns strings.Builder
	for range 14 {
		turns.WriteString(optionsOf(5, 1, 1)[r.pick(optionsOf(5, 1, 1), 3)].id)
	}
	if got, want := turns.String(), "aabacaaaabacaa"; got != want {
		t.Errorf("turns %s, want %s", got, want)
	}
}

func TestRoundRobinSharesAreExactInEveryRound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		weights := rapid.SliceOfN(rapid.IntRange(1, 9), 1, 6).Draw(t, "weights")
		total := 0
		for _, w := range weights {
			total += w
		}
		r := rotation{credit: map[string]int{}}
		for range 3 {
			counts := make([]int, len(weights))
			for range total {
				counts[r.pick(optionsOf(weights...), len(weights))]++
			}
			if !slices.Equal(counts, weights) {
				t.Fatalf("a round gave %v, want %v", counts, weights)
			}
		}
	})
}

func TestEachRouteHasItsOwnRound(t *testing.T) {
	f := fleetOf(t, 2)
	turn := func(route string) string {
		choice, err := f.Picker(Ask{Candidates: candidates("a", "b"), Strategy: StrategyRoundRobin, Route: route}).Next()
		if err != nil {
			t.Fatal(err)
		}
		defer choice.Lease.Done(Result{Kind: Served})
		return choice.Lease.Backend().ID()
	}
	var got string
	for range 3 {
		got += turn("one") + turn("two")
	}
	if got != "aabbaa" {
		t.Errorf("turns %s, want aabbaa", got)
	}
}

func TestRoundsAreBounded(t *testing.T) {
	var r rotations
	for i := range 3 * maxRotations {
		r.of(fmt.Sprint(i)).pick(optionsOf(1, 1), 2)
	}
	if len(r.routes) > maxRotations {
		t.Errorf("%d rounds are remembered, the bound is %d", len(r.routes), maxRotations)
	}
	one := r.of("x")
	for i := range 100 {
		one.pick([]option{{id: fmt.Sprint(i), weight: 1}, {id: fmt.Sprint(i + 1), weight: 1}}, 2)
	}
	if len(one.credit) > 4 {
		t.Errorf("%d credits are remembered for two candidates", len(one.credit))
	}
}
