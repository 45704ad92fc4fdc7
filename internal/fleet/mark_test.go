package fleet

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// marked makes marks of letters: "a-" is disabled, "a~" draining, "a?" degraded.
func marked(text string) map[string]Mark {
	marks := map[string]Mark{}
	for word := range strings.FieldsSeq(text) {
		marks[word[:1]] = Mark{State: map[string]string{"-": MarkDisabled, "~": MarkDraining, "?": MarkDegraded}[word[1:]]}
	}
	return marks
}

// course is what a picker gives until nothing is left: "a" plain, "a?" degraded, "a!" with a degraded one passed over.
func course(f *Fleet, ask Ask) (string, error) {
	p := f.Picker(ask)
	var given []string
	for {
		choice, err := p.Next()
		if err != nil {
			return strings.Join(given, " "), err
		}
		defer choice.Lease.Done(Result{})
		given = append(given, noted(choice.Lease.Backend().ID(), choice.Degraded, choice.Avoided))
	}
}

// foretold is what Peek says of the same.
func foretold(f *Fleet, ask Ask) (string, error) {
	p := f.Picker(ask)
	var given []string
	for {
		preview, err := p.Peek()
		if err != nil {
			return strings.Join(given, " "), err
		}
		given = append(given, noted(preview.Backend, preview.Degraded, preview.Avoided))
	}
}

func noted(id string, degraded, avoided bool) string {
	if degraded {
		id += "?"
	}
	if avoided {
		id += "!"
	}
	return id
}

func TestMarksDecideWhoIsChosen(t *testing.T) {
	tiers := []Candidate{{Backend: "a", Weight: 1, Tier: 0}, {Backend: "b", Weight: 1, Tier: 1}, {Backend: "c", Weight: 0, Tier: 0}}
	for _, test := range []struct {
		name   string
		marks  string
		before func(f *Fleet)
		change func(list []Candidate)
		want   string
		why    string
	}{
		{name: "no marks", want: "a b c", why: "3 backends: 3 tried"},
		{name: "disabled", marks: "a-", want: "b c", why: "3 backends: 1 switched off, 2 tried"},
		{name: "draining", marks: "b~", want: "a c", why: "3 backends: 1 being drained, 2 tried"},
		{name: "all out", marks: "a- b~ c-", want: "", why: "3 backends: 2 switched off, 1 being drained"},
		{name: "degraded comes after every tier and weight", marks: "a?", want: "b! c! a?"},
		{name: "tiers and weights order the degraded", marks: "a? b? c?", want: "a? b? c?"},
		{name: "degraded among disabled", marks: "a- b? c~", want: "b?"},
		{name: "degraded by the route", change: func(list []Candidate) { list[0].Degraded = true }, want: "b! c! a?"},
		{name: "the mark outweighs the route", marks: "a-", change: func(list []Candidate) { list[0].Degraded = true }, want: "b c"},
		{name: "degraded and resting", marks: "a?", before: func(f *Fleet) { rest(f, "a") }, want: "b c"},
		{name: "the others rest", marks: "a?", before: func(f *Fleet) { rest(f, "b", "c") }, want: "a?"},
		{name: "unknown state", marks: "a+", want: "a b c"},
		{name: "unknown backend", marks: "z-", want: "a b c"},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := fleetOf(t, 3)
			f.SetMarks(marked(test.marks))
			if test.before != nil {
				test.before(f)
			}
			list := append([]Candidate(nil), tiers...)
			if test.change != nil {
				test.change(list)
			}
			for _, walk := range []func(*Fleet, Ask) (string, error){foretold, course} {
				got, err := walk(f, Ask{Candidates: list})
				if got != test.want {
					t.Errorf("gave %q, want %q", got, test.want)
				}
				if e := exhaustedOf(t, err); test.why != "" && e.Reason() != test.why {
					t.Errorf("because %q, want %q", e.Reason(), test.why)
				}
			}
		})
	}
}

func rest(f *Fleet, ids ...string) {
	for _, id := range ids {
		b, _ := f.Backend(id)
		b.rest(time.Minute)
	}
}

// Those that an operator has taken out are as if they were not there when the rest of a route is mostly out.
func TestMarkedBackendsAreNeverForcedAndDoNotCountAsOut(t *testing.T) {
	for _, test := range []struct {
		name, ejected, marks, want string
	}{
		{"half of them out stays half", "a", "", "b"},
		{"the other one switched off", "a", "b-", "a"},
		{"the other one drained", "a", "b~", "a"},
		{"an ejected one switched off", "ab", "a-", "b"},
		{"all of them", "ab", "a- b~", ""},
		{"a degraded one is better than an ejected one", "a", "b?", "b?"},
		{"ejected, and of them the degraded last", "ab", "a?", "b a?"},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := fleetOf(t, 2)
			for id := range strings.SplitSeq(test.ejected, "") {
				finish(t, backend(t, f, id), 1, Result{Kind: Failed})
			}
			f.SetMarks(marked(test.marks))
			if got, _ := course(f, Ask{Candidates: candidates("a", "b")}); got != test.want {
				t.Errorf("gave %q, want %q", got, test.want)
			}
		})
	}
}

// A mark may come between the choice of a backend and the lease.
func TestAMarkedBackendGivesNoLease(t *testing.T) {
	for marks, want := range map[string]bool{"a-": false, "a~": false, "a?": true, "": true} {
		f := fleetOf(t, 1)
		f.SetMarks(marked(marks))
		a := backend(t, f, "a")
		for _, force := range []bool{false, true} {
			lease, ok := a.acquire(f.now(), 1, force)
			if ok != want {
				t.Errorf("%q: lease %t, want %t", marks, ok, want)
			}
			if ok {
				lease.Done(Result{})
			}
		}
		if n := a.InFlight(); n != 0 {
			t.Errorf("%q: %d in flight", marks, n)
		}
	}
}

func TestSaturationIsThatOfThoseWhoAreLeft(t *testing.T) {
	f := fleetOf(t, 3)
	f.SetMarks(marked("a- b~"))
	rest(f, "c")
	_, err := course(f, Ask{Candidates: candidates("a", "b", "c")})
	if e := exhaustedOf(t, err); !e.AllSaturated() {
		t.Errorf("the only one that is in has no room: %+v", *e)
	}
	_, err = course(f, Ask{Candidates: candidates("a", "b")})
	if e := exhaustedOf(t, err); e.AllSaturated() {
		t.Errorf("nobody is in: %+v", *e)
	}
}

func TestAMarkEndsByItself(t *testing.T) {
	for _, state := range []string{MarkDisabled, MarkDraining, MarkDegraded} {
		synctest.Test(t, func(t *testing.T) {
			f := fleetOf(t, 2)
			mark := Mark{State: state, Until: time.Now().Add(time.Hour).Round(0), Reason: "why"} // As read from a document: the wall clock's alone.
			f.SetMarks(map[string]Mark{"a": mark})
			ask := Ask{Candidates: []Candidate{{Backend: "a", Weight: 1}, {Backend: "b", Weight: 1, Tier: 1}}}
			if state != MarkDegraded {
				_, err := course(f, Ask{Candidates: candidates("a")})
				if e := exhaustedOf(t, err); e.RetryAfter != time.Hour {
					t.Errorf("%s: retry after %s", state, e.RetryAfter)
				}
			}
			time.Sleep(time.Hour - time.Nanosecond)
			if got, _ := course(f, ask); strings.HasPrefix(got, "a") {
				t.Errorf("%s: gave %s just before the end", state, got)
			}
			if s := backend(t, f, "a").Status(); s.Mark != mark {
				t.Errorf("%s: status has %+v", state, s.Mark)
			}
			time.Sleep(time.Nanosecond)
			if got, _ := course(f, ask); got != "a b" {
				t.Errorf("%s: gave %s at the end", state, got)
			}
			if s := backend(t, f, "a").Status(); s.Mark != (Mark{}) || s.State != "available" || state != MarkDegraded && !s.Since.Equal(mark.Until) {
				t.Errorf("%s: status has %+v at the end", state, s)
			}
			f.SetMarks(map[string]Mark{"a": mark})
			if !backend(t, f, "a").Available() {
				t.Errorf("%s: a mark that has ended holds when it is set again", state)
			}
			time.Sleep(time.Second)
			f.SetMarks(nil) // Somebody has deleted it.
			if s := backend(t, f, "a").Status(); state != MarkDegraded && !s.Since.Equal(mark.Until) {
				t.Errorf("%s: available since %s once the mark that ended at %s was deleted", state, s.Since, mark.Until)
			}
		})
	}
}

// A mark belongs to an id, whatever Apply does with the backend under it.
func TestMarksAndApply(t *testing.T) {
	f := New(Options{})
	apply := func(specs ...Spec) {
		t.Helper()
		if err := f.Apply(specs); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(when, want string) {
		t.Helper()
		if got, _ := course(f, Ask{Candidates: candidates("a", "b")}); got != want {
			t.Errorf("%s: gave %q, want %q", when, got, want)
		}
	}
	a, b := Spec{ID: "a", URL: "http://a.test"}, Spec{ID: "b", URL: "http://b.test"}
	f.SetMarks(marked("b-"))
	apply(a, b)
	expect("marked before it came", "a")
	b.APIKey = "another"
	apply(a, b)
	expect("replaced", "a")
	apply(a)
	apply(a, b)
	expect("gone and back", "a")
	f.SetMarks(marked("a~"))
	expect("the whole set is replaced", "b")
	f.SetMarks(nil)
	apply(a, b)
	if got, _ := course(f, Ask{Candidates: candidates("a", "b")}); len(got) != len("a b") {
		t.Errorf("without marks: gave %q", got)
	}
}

// No sequence of marks, results, changes of the configuration and time ever gives a lease on a disabled or draining backend, nor
// one on a degraded backend while another could be had.
func TestMarkProperties(t *testing.T) {
	states := []string{"", MarkDisabled, MarkDraining, MarkDegraded}
	rapid.Check(t, func(r *rapid.T) {
		steps := rapid.SliceOfN(rapid.IntRange(0, 7), 1, 40).Draw(r, "steps")
		count := rapid.IntRange(1, 5).Draw(r, "backends")
		seed := rapid.Uint64().Draw(r, "seed")
		draw := func(n int) int { seed = mix(seed); return int(seed % uint64(n)) }
		synctest.Test(t, func(t *testing.T) {
			f := fleetOf(t, count)
			var list []Candidate
			for i := range count {
				list = append(list, Candidate{Backend: string(rune('a' + i)), Weight: draw(3), Tier: draw(2), Degraded: draw(4) == 0})
			}
			model := map[string]Mark{}
			holds := func(id string) string {
				if m := model[id]; m.Until.IsZero() || m.Until.After(time.Now()) {
					return m.State
				}
				return ""
			}
			for _, step := range steps {
				switch step {
				case 0, 1:
					clear(model)
					for i := range count {
						m := Mark{State: states[draw(len(states))]}
						if draw(2) == 0 {
							m.Until = time.Now().Add(time.Duration(draw(60)) * time.Second)
						}
						model[string(rune('a'+i))] = m
					}
					f.SetMarks(model)
				case 2:
					time.Sleep(time.Duration(draw(40)) * time.Second)
				case 3:
					var specs []Spec
					for i := range count {
						specs = append(specs, Spec{ID: string(rune('a' + i)), URL: "http://127.0.0.1:9", APIKey: Secret(fmt.Sprint(draw(2)))})
					}
					if err := f.Apply(specs); err != nil {
						r.Fatal(err)
					}
				default:
					checkWalk(r, f, list, holds, func() Result { return Result{Kind: Kind(draw(len(kindNames)))} })
				}
			}
		})
	})
}

// checkWalk walks the candidates as a request does and holds every choice against the marks.
func checkWalk(r *rapid.T, f *Fleet, list []Candidate, holds func(id string) string, result func() Result) {
	p := f.Picker(Ask{Candidates: list, EjectAfter: 2})
	given := map[string]bool{}
	for {
		better, spare := "", "" // A plain and a degraded one that could be had.
		for _, c := range list {
			b, _ := f.Backend(c.Backend)
			switch state := holds(c.Backend); {
			case given[c.Backend] || state == MarkDisabled || state == MarkDraining || b.standing(f.now()) != open:
			case c.Degraded || state == MarkDegraded:
				spare = c.Backend
			default:
				better = c.Backend
			}
		}
		choice, err := p.Next()
		if err != nil {
			if better+spare != "" {
				r.Fatalf("%s%s could be had: %v", better, spare, err)
			}
			return
		}
		id := choice.Lease.Backend().ID()
		given[id] = true
		state := holds(id)
		degraded := state == MarkDegraded || list[id[0]-'a'].Degraded
		switch {
		case state == MarkDisabled || state == MarkDraining:
			r.Fatalf("%s was given although it is %s", id, state)
		case degraded && better != "":
			r.Fatalf("degraded %s was given although %s could be had", id, better)
		case choice.Degraded != degraded || choice.Avoided != (!degraded && spare != ""):
			r.Fatalf("%s: degraded %t, avoided %t, with %q to spare", id, choice.Degraded, choice.Avoided, spare)
		}
		choice.Lease.Done(result())
	}
}
