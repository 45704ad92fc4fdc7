package policy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// scriptedSource is a place of documents under keys. Its text is parsed as that of any other source.
type scriptedSource struct {
	mu      sync.Mutex
	texts   map[string]string // by key
	away    error
	silent  bool
	changed chan struct{} // of capacity 1
}

func newScriptedSource() *scriptedSource {
	return &scriptedSource{texts: map[string]string{}, changed: make(chan struct{}, 1)}
}

// change makes changes, which a watch publishes as soon as it runs.
func (s *scriptedSource) change(make func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	make()
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

func (s *scriptedSource) snapshot() Snapshot {
	now := Snapshot{Origin: "script"}
	for _, key := range slices.Sorted(maps.Keys(s.texts)) {
		documents, problems := Parse(key, []byte(s.texts[key]))
		now.Documents, now.Problems = append(now.Documents, documents...), append(now.Problems, problems...)
	}
	return now
}

func (s *scriptedSource) look() (now Snapshot, silent bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.snapshot(), s.silent, s.away
}

func (s *scriptedSource) Watch(ctx context.Context, publish func(Snapshot)) error {
	for {
		now, silent, err := s.look()
		if err != nil {
			return err
		}
		if !silent {
			publish(now)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.changed:
		}
	}
}

// script is one run of the test below.
//
// What it expects is how the last good version is meant: a table is made of the state that the source has when a compile begins.
// From then on each document that is there and good serves as it is there; one that is there and bad serves as it was in the table
// before, if it was in it; one that is not there does not serve. A version that came and was replaced before a compile
// began was never in force and nothing holds on to it. While the source is away or silent everything stays. A restart carries the
// table over: the next one begins with it if the source is away or silent, and holds on to it otherwise.
type script struct {
	*rapid.T
	t        *testing.T
	source   *scriptedSource
	path     string
	store    *Store
	end      func()
	wrote    map[string]int  // by id: the version of what the source has now
	bad      map[string]bool // whether that is bad
	inForce  map[string]int
	versions int
	reads    bool // the source can be read
}

// compiled brings the expectation to what a compile of the state of now makes of it.
func (s *script) compiled() {
	if !s.reads {
		return
	}
	next := map[string]int{}
	for id, version := range s.wrote {
		if !s.bad[id] {
			next[id] = version
		} else if before, served := s.inForce[id]; served {
			next[id] = before
		}
	}
	s.inForce = next
}

// rest lets time pass, so that whatever is due happens.
func (s *script) rest() {
	time.Sleep(2 * time.Second)
	synctest.Wait()
	s.compiled()
	got := map[string]int{}
	if table := s.store.Table(); table != nil {
		for _, d := range table.Documents() {
			got[d.ID()] = version(d)
		}
	}
	if !maps.Equal(got, s.inForce) {
		s.Fatalf("in force are %v, want %v; problems %v", got, s.inForce, s.store.Table().Problems())
	}
	if status := s.store.Status(); (status.Failure == "") != s.reads {
		s.Fatalf("the source can be read: %v; status %+v", s.reads, status)
	}
}

func version(d Document) int {
	switch {
	case d.Backend != nil:
		return d.Backend.MaxConcurrency
	case d.Price != nil:
		return int(d.Price.USDPerMillion.Input / 1_000_000)
	}
	return len(d.Mark.Reason)
}

func (s *script) put(id, flaw string) {
	s.versions++
	var text string
	switch id[:1] {
	case "b":
		text = fmt.Sprintf("kind: Backend\nid: %s\nurl: http://h\nmax_concurrency: %d\n", id, s.versions)
	case "p":
		text = fmt.Sprintf("kind: Price\nid: %s\nmodel: %s\nvalid_from: 2026-01-01T00:00:00Z\nusd_per_million: {input: %d, output: 1}\n", id, id, s.versions)
	default:
		text = fmt.Sprintf("kind: Mark\nid: %s\nbackend: b0\nstate: disabled\nreason: \"%0*d\"\n", id, s.versions, 1)
	}
	s.source.change(func() { s.source.texts["/"+id] = text + flaw })
	s.wrote[id], s.bad[id] = s.versions, flaw != ""
}

func (s *script) start() {
	s.store, s.end = running(s.t, Options{Source: s.source, LastGood: s.path, Logger: slog.New(slog.DiscardHandler)})
}

func (s *script) step() {
	id := rapid.SampledFrom([]string{"b0", "b1", "p0", "m0"}).Draw(s.T, "id")
	switch rapid.SampledFrom([]string{"put", "put", "bad", "garbled", "delete", "rest", "rest", "away", "silent", "back", "reload", "restart"}).Draw(s.T, "step") {
	case "put":
		s.put(id, "")
	case "bad":
		s.put(id, "colour: red\n")
	case "garbled": // Neither kind nor id can be read.
		s.put(id, "x: [\n")
	case "delete":
		s.source.change(func() { delete(s.source.texts, "/"+id) })
		delete(s.wrote, id)
		delete(s.bad, id)
	case "rest":
		s.rest()
	case "away": // What the source told before it went is in force.
		synctest.Wait()
		if s.reads {
			s.compiled()
		}
		s.reads = false
		s.source.change(func() { s.source.away = errors.New("away") })
		synctest.Wait()
	case "silent": // It has its effect with the next watch.
		s.rest()
		s.source.change(func() { s.source.away, s.source.silent = errors.New("away"), true })
		s.reads = false
		s.rest()
		s.source.change(func() { s.source.away = nil })
		s.end()
		s.start()
		s.rest()
	case "back":
		s.source.change(func() { s.source.away, s.source.silent = nil, false })
		s.reads = true
		s.rest()
	case "reload":
		s.store.Reload()
	case "restart":
		s.rest()
		s.end()
		s.start()
		s.rest()
	}
	if rapid.Bool().Draw(s.T, "published") { // The store has it, and may wait for more.
		synctest.Wait()
	}
}

func TestAnySequenceEndsInTheTableOfAFreshLoad(t *testing.T) {
	dir, runs := t.TempDir(), 0
	rapid.Check(t, func(r *rapid.T) {
		runs++
		path := filepath.Join(dir, strconv.Itoa(runs), "policy.json")
		var thrown any // rapid ends a run by a panic, which must not end the bubble's goroutine.
		synctest.Test(t, func(t *testing.T) {
			defer func() { thrown = recover() }()
			runScript(&script{
				T: r, t: t, source: newScriptedSource(), path: path, reads: true,
				wrote: map[string]int{}, bad: map[string]bool{}, inForce: map[string]int{},
			})
		})
		if thrown != nil {
			panic(thrown)
		}
		must(r, os.RemoveAll(filepath.Dir(path)))
	})
}

func runScript(s *script) {
	s.start()
	defer func() { s.end() }()
	s.rest()
	for range rapid.IntRange(1, 20).Draw(s.T, "steps") {
		s.step()
	}
	s.rest()

	// All that is bad is mended, and the source is there: now nothing of what was before may show.
	for id := range s.wrote {
		if s.bad[id] {
			s.put(id, "")
		}
	}
	s.source.change(func() { s.source.away, s.source.silent = nil, false })
	s.reads = true
	s.rest()
	fresh := Compile(s.source.snapshot(), nil)
	if table := s.store.Table(); table.Revision() != fresh.Revision() || len(table.Problems()) > 0 {
		s.Fatalf("%v and %v", table.Documents(), fresh.Documents())
	}
}
