package sourcetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ai-aas/api-router/internal/policy"
)

// follower watches a source as policy.Store does, and keeps the newest snapshot.
type follower struct {
	cancel context.CancelFunc
	ended  chan struct{} // closed when it is at its end

	mu        sync.Mutex
	snapshot  policy.Snapshot
	published int
	failure   error         // why the last Watch ended, until the next publishes
	changed   chan struct{} // closed at the next change of the above
}

func follow(t testing.TB, source policy.Source) *follower {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	f := &follower{cancel: cancel, ended: make(chan struct{}), changed: make(chan struct{})}
	go func() {
		defer close(f.ended)
		for ctx.Err() == nil {
			err := f.watch(ctx, source)
			if ctx.Err() != nil {
				return
			}
			if err == nil {
				t.Error("Watch returned nil, although its context goes on")
				return
			}
			f.update(func() { f.failure = err })
			select {
			case <-ctx.Done():
			case <-time.After(50 * time.Millisecond):
			}
		}
	}()
	t.Cleanup(func() { f.stop(t) })
	return f
}

// watch calls Watch once and holds it to its word: one publish at a time, and none after it returned.
func (f *follower) watch(ctx context.Context, source policy.Source) error {
	var running, over atomic.Bool
	err := source.Watch(ctx, func(s policy.Snapshot) {
		if over.Load() || !running.CompareAndSwap(false, true) {
			panic("a snapshot is published after Watch returned, or beside another")
		}
		defer running.Store(false)
		f.update(func() { f.snapshot, f.published, f.failure = s, f.published+1, nil })
	})
	over.Store(true)
	return err
}

func (f *follower) update(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
	close(f.changed)
	f.changed = make(chan struct{})
}

func (f *follower) stop(t testing.TB) {
	t.Helper()
	f.cancel()
	select {
	case <-f.ended:
	case <-time.After(bound):
		t.Error("Watch does not end with its context")
	}
}

// until waits for a snapshot that is ok and returns it.
func (f *follower) until(t testing.TB, what string, ok func(policy.Snapshot) bool) policy.Snapshot {
	t.Helper()
	timeout := time.After(bound)
	for {
		f.mu.Lock()
		snapshot, published, failure, changed := f.snapshot, f.published, f.failure, f.changed
		f.mu.Unlock()
		if published > 0 && failure == nil && ok(snapshot) {
			return snapshot
		}
		select {
		case <-changed:
		case <-timeout:
			t.Fatalf("%s: not seen in %s; published %d times, last %s; failure: %v", what, bound, published, summary(snapshot), failure)
		}
	}
}

// fails waits until the source cannot be read.
func (f *follower) fails(t testing.TB) error {
	t.Helper()
	timeout := time.After(bound)
	for {
		f.mu.Lock()
		failure, changed := f.failure, f.changed
		f.mu.Unlock()
		if failure != nil {
			return failure
		}
		select {
		case <-changed:
		case <-timeout:
			t.Fatalf("the place is away and Watch has not failed in %s", bound)
		}
	}
}

// holds waits until the backends are these, by id and version, and nothing is wrong.
func (f *follower) holds(t testing.TB, what string, want map[string]int) policy.Snapshot {
	t.Helper()
	return f.until(t, what, func(s policy.Snapshot) bool {
		return maps.Equal(backends(s), want) && len(s.Problems) == 0
	})
}

func backends(s policy.Snapshot) map[string]int {
	versions := map[string]int{}
	for _, d := range s.Documents {
		if d.Backend != nil {
			versions[d.ID()] = d.Backend.MaxConcurrency
		}
	}
	return versions
}

func summary(s policy.Snapshot) string {
	lines := []string{fmt.Sprintf("%s: %d documents, backends %v", s.Origin, len(s.Documents), backends(s))}
	for _, p := range s.Problems {
		lines = append(lines, p.String())
	}
	return strings.Join(lines, "\n\t")
}

func emptyPlace(t *testing.T, p Place) {
	s := follow(t, p.Source).holds(t, "the empty place", map[string]int{})
	if s.Origin == "" || len(s.Documents) > 0 {
		t.Errorf("origin %q, %d documents; want a name and none", s.Origin, len(s.Documents))
	}
}

func firstState(t *testing.T, p Place) {
	want := map[string]int{}
	for i := range 20 {
		id := fmt.Sprintf("b%d", i)
		want[id] = i + 1
		p.put(t, policy.KindBackend, id, backend(id, i+1))
	}
	f := follow(t, p.Source)
	first := f.until(t, "the first state", func(policy.Snapshot) bool { return true })
	if !p.Keyless && !maps.Equal(backends(first), want) { // Files that were just written may still be at rest in part.
		t.Errorf("the first state has the backends %v, want %v", backends(first), want)
	}
	f.holds(t, "all documents", want)
}

func everyKind(t *testing.T, p Place) {
	p.put(t, policy.KindBackend, "b", backend("b", 1))
	p.put(t, policy.KindRoutingPolicy, "p", route("p", "m", "b"))
	p.put(t, policy.KindPrice, "m-2026", []byte(
		`{"kind":"Price","id":"m-2026","model":"m","valid_from":"2026-01-01T00:00:00Z",`+
			`"usd_per_million":{"input":0.10,"cached_input":0.05,"output":0.40,"reasoning":0.40}}`))
	mark := policy.MarkID("b", "", "")
	p.put(t, policy.KindMark, mark, fmt.Appendf(nil, `{"kind":"Mark","id":%q,"backend":"b","state":"draining","reason":"a new kernel"}`, mark))
	s := follow(t, p.Source).until(t, "four documents", func(s policy.Snapshot) bool { return len(s.Documents) == 4 })
	kinds := map[policy.Kind]bool{}
	for _, d := range s.Documents {
		kinds[d.Kind()] = true
	}
	if len(kinds) != len(policy.Kinds()) || len(s.Problems) > 0 {
		t.Errorf("kinds %v in %s", kinds, summary(s))
	}
}

func changes(t *testing.T, p Place) { eachChange(t, follow(t, p.Source), p.put) }

func changesPastTheRouter(t *testing.T, p Place) {
	eachChange(t, follow(t, p.Source), func(t testing.TB, kind policy.Kind, id string, content json.RawMessage) { p.Put(t, kind, id, content) })
}

// eachChange makes one change after the other and waits for each.
func eachChange(t *testing.T, f *follower, put func(testing.TB, policy.Kind, string, json.RawMessage)) {
	t.Helper()
	f.holds(t, "the beginning", map[string]int{})
	for _, step := range []struct {
		what    string
		id      string
		version int // 0 deletes
		want    map[string]int
	}{
		{"a creation", "a", 1, map[string]int{"a": 1}},
		{"an update", "a", 2, map[string]int{"a": 2}},
		{"another creation", "b", 1, map[string]int{"a": 2, "b": 1}},
		{"a deletion", "a", 0, map[string]int{"b": 1}},
		{"a new creation", "a", 3, map[string]int{"a": 3, "b": 1}},
		{"the last but one deletion", "b", 0, map[string]int{"a": 3}},
		{"the last deletion", "a", 0, map[string]int{}},
	} {
		var content json.RawMessage
		if step.version > 0 {
			content = backend(step.id, step.version)
		}
		begun := time.Now()
		put(t, policy.KindBackend, step.id, content)
		f.holds(t, step.what, step.want)
		t.Logf("%s was seen after %s", step.what, time.Since(begun).Round(time.Millisecond))
	}
}

func changesOfAnother(t *testing.T, p Place) {
	source, book := p.Second(t)
	here, there := follow(t, p.Source), follow(t, source)
	both := func(what string, want map[string]int) {
		t.Helper()
		here.holds(t, what+" here", want)
		there.holds(t, what+" there", want)
	}
	both("the empty place", map[string]int{})
	write(t, book, policy.Write{Kind: policy.KindBackend, ID: "a", Content: backend("a", 1)})
	both("what the other created", map[string]int{"a": 1})
	write(t, p.Book, policy.Write{Kind: policy.KindBackend, ID: "a", Content: backend("a", 2)})
	both("what we updated", map[string]int{"a": 2})
	if stored := readOne(t, book, policy.KindBackend, "a"); !sameJSON(stored.Content, backend("a", 2)) {
		t.Errorf("the other reads %s", stored.Content)
	}
	write(t, book, policy.Write{Kind: policy.KindBackend, ID: "a"})
	both("what the other deleted", map[string]int{})
}

func snapshotRevisions(t *testing.T, p Place) {
	f := follow(t, p.Source)
	for version := 1; version <= 3; version++ {
		stored := write(t, p.Book, policy.Write{Kind: policy.KindBackend, ID: "a", Content: backend("a", version)})
		s := f.holds(t, "the document", map[string]int{"a": version})
		if d := s.Documents[0]; stored.Revision == 0 || d.Revision != stored.Revision || d.File != stored.Place || d.File == "" {
			t.Errorf("the snapshot has it at %q with revision %d; the book at %q with %d", d.File, d.Revision, stored.Place, stored.Revision)
		}
	}
}

func burst(t *testing.T, p Place) {
	f := follow(t, p.Source)
	f.holds(t, "the beginning", map[string]int{})
	want := map[string]int{}
	for version := 1; version <= 60; version++ {
		id := fmt.Sprintf("b%d", version%3)
		want[id] = version
		p.put(t, policy.KindBackend, id, backend(id, version))
	}
	p.put(t, policy.KindBackend, "b1", nil)
	delete(want, "b1")
	f.holds(t, "the newest", want)
}

func watchAgain(t *testing.T, p Place) {
	p.put(t, policy.KindBackend, "a", backend("a", 1))
	p.put(t, policy.KindBackend, "b", backend("b", 1))
	f := follow(t, p.Source)
	f.holds(t, "the first watch", map[string]int{"a": 1, "b": 1})
	f.stop(t)
	p.put(t, policy.KindBackend, "a", nil)
	p.put(t, policy.KindBackend, "c", backend("c", 1))
	follow(t, p.Source).holds(t, "the second watch", map[string]int{"b": 1, "c": 1})
}

func twoWatches(t *testing.T, p Place) {
	first, second := follow(t, p.Source), follow(t, p.Source)
	p.put(t, policy.KindBackend, "a", backend("a", 1))
	first.holds(t, "the first", map[string]int{"a": 1})
	second.holds(t, "the second", map[string]int{"a": 1})
	first.stop(t)
	p.put(t, policy.KindBackend, "a", backend("a", 2))
	second.holds(t, "the one that is left", map[string]int{"a": 2})
}

func watchEnds(t *testing.T, p Place) {
	p.put(t, policy.KindBackend, "a", backend("a", 1))
	f := follow(t, p.Source)
	f.holds(t, "the document", map[string]int{"a": 1})
	f.stop(t)
	before := goleak.IgnoreCurrent()
	for range 5 {
		ctx, cancel := context.WithTimeout(context.Background(), bound)
		err := p.Source.Watch(ctx, func(policy.Snapshot) { cancel() })
		if !errors.Is(err, context.Canceled) {
			t.Errorf("Watch returned %v, want the context's error", err)
		}
		cancel()
	}
	left := goleak.Find(before)
	for deadline := time.Now().Add(bound); left != nil && time.Now().Before(deadline); { // What was closed ends when it is run.
		left = goleak.Find(before)
	}
	if left != nil {
		t.Error(left)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := p.Source.Watch(ctx, func(policy.Snapshot) {}); !errors.Is(err, context.Canceled) {
		t.Errorf("a watch that is over before it begins returned %v", err)
	}
}

func awayAndBack(t *testing.T, p Place) {
	p.put(t, policy.KindBackend, "a", backend("a", 1))
	f := follow(t, p.Source)
	f.holds(t, "the beginning", map[string]int{"a": 1})
	p.Stop(t)
	t.Log("away:", f.fails(t))
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := p.Book.Read(ctx, policy.KindBackend, "a"); err == nil || errors.Is(err, policy.ErrNotFound) {
		t.Errorf("a book that is away reads with the error %v", err)
	}
	p.Start(t)
	f.holds(t, "the return", map[string]int{"a": 1})
	p.put(t, policy.KindBackend, "a", backend("a", 2))
	f.holds(t, "a change after the return", map[string]int{"a": 2})
}
