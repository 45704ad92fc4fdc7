package sourcetest

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/ai-aas/api-router/internal/policy"
)

// budget is the time that the property test goes on with new sequences: a place that is polled takes a second for each.
const budget = 5 * time.Second

// name is what a document is put under.
type name struct {
	kind policy.Kind
	id   string
}

// anySequence makes changes of every sort in every way, while a watch runs and begins anew. In the end that watch has what a fresh
// one finds, and that is what the changes have left.
func anySequence(t *testing.T, p Place) {
	begun, runs := time.Now(), 0
	left := map[name]string{} // what the sequence before left behind
	rapid.Check(t, func(r *rapid.T) {
		if time.Since(begun) > budget && !t.Failed() {
			return
		}
		runs++
		for _, n := range slices.SortedFunc(maps.Keys(left), name.compare) {
			p.putRaw(t, n.kind, n.id, nil)
		}
		clear(left)
		s := sequence{t: t, p: p, want: left, watch: follow(t, p.Source)}
		for range rapid.IntRange(1, 25).Draw(r, "steps") {
			s.step(r)
		}
		s.end(r)
	})
	t.Logf("%d sequences", runs)
}

func (n name) compare(other name) int {
	return slices.Compare([]string{string(n.kind), n.id}, []string{string(other.kind), other.id})
}

// sequence is one run: want tells of each document that is there what can be told of it from outside.
type sequence struct {
	t       *testing.T
	p       Place
	watch   *follower
	want    map[name]string
	version int
}

const unusable = "bad"

func traits(s policy.Snapshot) map[name]string {
	found := map[name]string{}
	for _, d := range s.Documents {
		n := name{d.Kind(), d.ID()}
		switch {
		case d.Backend != nil:
			found[n] = fmt.Sprint("version ", d.Backend.MaxConcurrency)
		case d.Policy != nil:
			found[n] = d.Policy.Model + " at " + d.Policy.Backends[0].Backend
		}
	}
	for _, p := range s.Problems {
		found[name{p.Kind, p.ID}] = unusable
	}
	return found
}

func (s *sequence) step(r *rapid.T) {
	s.version++
	put := s.p.put
	if rapid.Bool().Draw(r, "past the router") {
		put = s.p.putRaw
	}
	n := name{policy.KindBackend, rapid.SampledFrom([]string{"b0", "b1", "b2", "b3"}).Draw(r, "backend")}
	switch rapid.SampledFrom([]string{"good", "good", "good", "bad", "delete", "policy", "again"}).Draw(r, "step") {
	case "good":
		put(s.t, n.kind, n.id, backend(n.id, s.version))
		s.want[n] = fmt.Sprint("version ", s.version)
	case "bad":
		put(s.t, n.kind, n.id, flawed(n.id))
		s.want[n] = unusable
	case "policy": // Its backend may not be there, and another policy may have its model.
		p := name{policy.KindRoutingPolicy, rapid.SampledFrom([]string{"p0", "p1"}).Draw(r, "policy")}
		model := rapid.SampledFrom([]string{"m", "n"}).Draw(r, "model")
		put(s.t, p.kind, p.id, route(p.id, model, n.id))
		s.want[p] = model + " at " + n.id
	case "delete":
		if s.want[n] != "" {
			put(s.t, n.kind, n.id, nil)
			delete(s.want, n)
		}
	case "again":
		s.watch.stop(s.t)
		s.watch = follow(s.t, s.p.Source)
	}
}

func (s *sequence) end(r *rapid.T) {
	source := s.p.Source
	if s.p.Second != nil && rapid.Bool().Draw(r, "fresh process") {
		source, _ = s.p.Second(s.t)
	}
	fresh := follow(s.t, source)
	complete := func(got policy.Snapshot) bool { return maps.Equal(traits(got), s.want) }
	there := fresh.until(s.t, fmt.Sprint("in a fresh load ", s.want), complete)
	documents := func(got policy.Snapshot) string {
		text, err := json.Marshal(got.Documents)
		if err != nil {
			r.Fatal(err)
		}
		return string(text)
	}
	// The traits do not tell one revision from another: the same content may have been put past the router twice.
	here := s.watch.until(s.t, "in the watch that ran "+documents(there), func(got policy.Snapshot) bool {
		return complete(got) && documents(got) == documents(there)
	})
	fresh.stop(s.t)
	s.watch.stop(s.t)
	compiled, expected := policy.Compile(here, nil), policy.Compile(there, nil)
	if compiled.Revision() != expected.Revision() || !slices.Equal(compiled.Problems(), expected.Problems()) {
		r.Fatalf("the watch ends in\n\t%s\nand a fresh load in\n\t%s", summary(here), summary(there))
	}
}
