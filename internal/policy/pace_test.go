package policy

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"weak"
)

// numbered is a state of one backend, whose max_concurrency tells the states apart.
func numbered(n int) Snapshot {
	b := NewBackend("b", "http://h")
	b.MaxConcurrency = n
	return Snapshot{Documents: []Document{{Backend: &b}}, Origin: "source"}
}

func number(t *Table) int { return t.Backends()[0].MaxConcurrency }

// begin runs a store that the test has prepared, and gives a function that ends it.
func begin(t *testing.T, store *Store) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- store.Run(ctx) }()
	return func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

func TestRestFollowsTheLastCompile(t *testing.T) {
	for took, want := range map[time.Duration]time.Duration{
		0: shortestRest, 10 * time.Millisecond: shortestRest, 30 * time.Millisecond: 90 * time.Millisecond,
		time.Second: longestRest,
	} {
		if got := rest(took); got != want {
			t.Error(took, got)
		}
	}
}

func TestABurstAfterSomeQuietIsCompiledOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := newHandSource()
		var published []int
		store, stop := running(t, Options{Source: source, AfterPublish: func(t *Table) { published = append(published, number(t)) }})
		source.next <- numbered(1)
		ready(t, store)
		time.Sleep(time.Second)
		began := time.Now()
		for n := range 1000 {
			source.next <- numbered(n)
		}
		if waited := time.Since(began); waited != 0 {
			t.Error("the source was kept waiting for", waited)
		}
		time.Sleep(gather)
		synctest.Wait()
		if number(store.Table()) != 999 {
			t.Error("the change is not in force after", gather)
		}
		time.Sleep(time.Second)
		stop()
		if len(published) != 2 {
			t.Error("published", published)
		}
	})
}

// A stream of changes, a compile that is as slow as it may be, and a backend that never answers.
func TestEveryChangeIsInForceWithinASecondWhileAThousandASecondCome(t *testing.T) {
	for name, slow := range map[string]struct{ compile, prepare time.Duration }{
		"all is quick": {0, 0}, "slow compile": {200 * time.Millisecond, 0},
		"silent backends": {0, time.Minute}, "both": {200 * time.Millisecond, 400 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const changes = 10_000
				var came, inForce [changes]time.Time
				next, tables := 0, 0
				source := newHandSource()
				store := NewStore(Options{
					Logger: slog.New(slog.DiscardHandler), Source: source,
					BeforePublish: func(ctx context.Context, _ *Table) {
						select {
						case <-ctx.Done():
						case <-time.After(slow.prepare):
						}
					},
					AfterPublish: func(t *Table) {
						tables++
						for ; next <= number(t); next++ {
							inForce[next] = time.Now()
						}
					},
				})
				store.compile = func(now Snapshot, last []Document) *Table {
					time.Sleep(slow.compile)
					return Compile(now, last)
				}
				stop := begin(t, store)
				for n := range changes {
					came[n] = time.Now()
					source.next <- numbered(n)
					if time.Since(came[n]) != 0 {
						t.Fatal("the source was kept waiting")
					}
					time.Sleep(time.Millisecond)
				}
				time.Sleep(time.Second)
				stop()
				if next != changes {
					t.Fatal("the last change is not in force:", next)
				}
				var worst time.Duration
				for n := range changes {
					worst = max(worst, inForce[n].Sub(came[n]))
				}
				t.Logf("the slowest change took %s; %d tables", worst, tables)
				if worst > time.Second {
					t.Error("a change took", worst)
				}
				if most := int(12 * time.Second / (shortestRest + slow.compile)); tables > most {
					t.Errorf("%d tables are more than %d", tables, most)
				}
			})
		})
	}
}

func TestStatesThatNobodyWaitsForAreLetGo(t *testing.T) {
	hold := make(chan struct{})
	source := newHandSource()
	store, _ := running(t, Options{Source: source, BeforePublish: func(context.Context, *Table) { <-hold }})
	defer close(hold)
	var states []weak.Pointer[Backend]
	for n := range 500 {
		state := numbered(n)
		states = append(states, weak.Make(state.Documents[0].Backend))
		source.next <- state
	}
	eventually(t, "only a few states are kept", func() bool {
		runtime.GC()
		alive := 0
		for _, state := range states {
			if state.Value() != nil {
				alive++
			}
		}
		return alive <= 5
	})
	if store.Table() != nil {
		t.Error("published before it was prepared")
	}
}

func TestAStateThatCameRightBeforeAFailureIsInForce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := newHandSource()
		store, stop := running(t, Options{Source: source})
		source.next <- numbered(1)
		ready(t, store)
		source.next <- numbered(2)
		source.next <- errors.New("away")
		synctest.Wait()
		if number(store.Table()) != 2 || store.Status().Failure != "away" {
			t.Error(number(store.Table()), store.Status())
		}
		stop()
	})
}

func kept(t *testing.T, snapshot Snapshot) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "policy.json")
	s := newSaver(path, slog.New(slog.DiscardHandler))
	must(t, s.save(&offered{Compile(snapshot, nil).documents, time.Now()}, new("")))
	return path
}

func TestAColdStartServesFromTheLastGoodFileInTime(t *testing.T) {
	for name, test := range map[string]struct {
		source Source
		within time.Duration
	}{
		"silent":  {newHandSource(), grace},
		"refused": {refusing{}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if h, ok := test.source.(*handSource); ok { // Its channels have to be of this clock.
					*h = *newHandSource()
				}
				began := time.Now()
				store, stop := running(t, Options{Source: test.source, LastGood: kept(t, numbered(7))})
				ready(t, store)
				if took := time.Since(began); took > test.within {
					t.Error("served after", took)
				}
				if s := store.Status(); number(store.Table()) != 7 || !strings.HasPrefix(s.Origin, "last good of ") || s.Failure == "" || !s.LastGood || s.Confirmed.IsZero() {
					t.Errorf("%+v", s)
				}
				stop()

				// Not one of the backends answers.
				began = time.Now()
				store, stop = running(t, Options{
					Source: test.source, LastGood: kept(t, numbered(7)),
					BeforePublish: func(ctx context.Context, _ *Table) { <-ctx.Done() },
				})
				ready(t, store)
				if took := time.Since(began); took > prepareColdWithin {
					t.Error("served after", took)
				}
				stop()
			})
		})
	}
}

type refusing struct{}

func (refusing) Watch(context.Context, func(Snapshot)) error { return errors.New("connection refused") }

func TestASourceThatAnswersAfterTheGraceReplacesTheLastGoodTable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := newHandSource()
		store, stop := running(t, Options{Source: source, LastGood: kept(t, numbered(1))})
		ready(t, store)
		time.Sleep(grace)
		source.next <- numbered(2)
		time.Sleep(gather)
		synctest.Wait()
		if s := store.Status(); number(store.Table()) != 2 || s.Origin != "source" || s.Failure != "" {
			t.Errorf("%+v", s)
		}
		stop()
	})
}

func TestStoreWarnsWhenMostPoliciesGoAtOnce(t *testing.T) {
	policies := func(n int) Snapshot {
		s := numbered(1)
		for i := range n {
			p := NewRoutingPolicy("p"+strconv.Itoa(i), "m"+strconv.Itoa(i), "b")
			s.Documents = append(s.Documents, Document{Policy: &p})
		}
		return s
	}
	for _, test := range []struct{ before, after, warnings int }{{4, 2, 0}, {4, 1, 1}, {3, 0, 0}, {10, 0, 1}, {0, 10, 0}} {
		synctest.Test(t, func(t *testing.T) {
			var log logbook
			source := newHandSource()
			path := kept(t, policies(test.before)) // It counts, too, when they went while nothing ran.
			for range 2 {
				_, stop := running(t, Options{Logger: slog.New(slog.NewTextHandler(&log, nil)), Source: source, LastGood: path})
				source.next <- policies(test.after)
				time.Sleep(time.Second)
				stop()
			}
			if log.count("more than half of the policies are gone") != test.warnings {
				t.Error(test, log.text.String())
			}
		})
	}
}
