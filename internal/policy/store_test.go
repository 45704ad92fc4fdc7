package policy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ai-aas/api-router/test/leaks"
)

func TestMain(m *testing.M) { leaks.Main(m) }

// logbook is what a store logs.
type logbook struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logbook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logbook) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), text)
}

// running starts a store and ends it with the test, or before when stop is called.
func running(t testing.TB, options Options) (store *Store, stop func()) {
	t.Helper()
	if options.Logger == nil {
		options.Logger = slog.New(slog.DiscardHandler)
	}
	store = NewStore(options)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- store.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error("Run:", err)
		}
	})
	t.Cleanup(stop)
	return store, stop
}

func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(hang); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it never came to this: ", what)
		}
	}
}

func serving(s *Store) string {
	if t := s.Table(); t != nil {
		return names(t.documents)
	}
	return "no table"
}

func ready(t testing.TB, s *Store) {
	t.Helper()
	select {
	case <-s.Ready():
	case <-time.After(hang):
		t.Fatal("the store never became ready: ", s.Status())
	}
}

// handSource is moved by the test.
type handSource struct {
	next   chan any // a Snapshot to publish or an error to fail with
	starts chan struct{}
}

func newHandSource() *handSource {
	return &handSource{next: make(chan any), starts: make(chan struct{}, 100)}
}

func (h *handSource) Watch(ctx context.Context, publish func(Snapshot)) error {
	h.starts <- struct{}{}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case step := <-h.next:
			if err, failed := step.(error); failed {
				return err
			}
			publish(step.(Snapshot))
		}
	}
}

func backendDocument(id, url string) Document {
	b := NewBackend(id, url)
	return Document{Backend: &b}
}

func TestStoreServesWhatTheSourceHolds(t *testing.T) {
	var log logbook
	store, _ := running(t, Options{Logger: slog.New(slog.NewTextHandler(&log, nil)), Source: StaticSource("built in", backendDocument("b", "http://h"))})
	ready(t, store)
	status := store.Status()
	if !status.Loaded || status.Origin != "built in" || status.Revision == "" || status.Since.IsZero() || status.Problems != 0 || status.Failure != "" {
		t.Errorf("%+v", status)
	}
	eventually(t, "the log says so", func() bool { return log.count("policies in force") == 1 && log.count("revision="+status.Revision) == 1 })
}

func TestStoreKeepsABadDocumentsLastVersionAndDropsDeletedOnes(t *testing.T) {
	t.Parallel() // It mostly waits.
	dir := t.TempDir()
	path := filepath.Join(dir, "a.yaml")
	put(t, path, everyTwo)
	store, _ := running(t, Options{Source: FileSource(dir)})
	ready(t, store)
	if serving(store) != "a b p" {
		t.Fatal(serving(store))
	}
	revision := store.Table().Revision()

	put(t, path, strings.Replace(everyTwo, "url: http://b", "url: b", 1))
	eventually(t, "the bad document shows", func() bool { return store.Status().Problems == 1 })
	if p := store.Table().Problems()[0]; p.ID != "b" || !p.Serving || store.Table().Revision() != revision {
		t.Error(p, serving(store))
	}

	put(t, path, strings.Replace(everyTwo, "model: m", "model: [m", 1))
	eventually(t, "a document without a readable id", func() bool { p := store.Table().Problems(); return len(p) == 1 && p[0].ID == "" })
	if p := store.Table().Problems()[0]; !p.Serving || store.Table().Revision() != revision {
		t.Error(p, serving(store))
	}

	put(t, path, everyTwo)
	eventually(t, "all is well", func() bool { return store.Status().Problems == 0 })
	if store.Table().Revision() != revision {
		t.Error("the same documents have another revision")
	}
	put(t, path, strings.Replace(everyTwo, backends("b"), "", 1))
	eventually(t, "the deleted document goes", func() bool { return serving(store) == "a p" })

	must(t, os.Remove(path))
	eventually(t, "an empty directory is an empty table", func() bool { return serving(store) == "" })
}

const everyTwo = "---\nkind: Backend\nid: a\nurl: http://a\n" + "---\nkind: Backend\nid: b\nurl: http://b\n" +
	"---\nkind: RoutingPolicy\nid: p\nmodel: m\nbackends: [{id: a}]\n"

func TestStoreOutlivesItsSource(t *testing.T) {
	t.Parallel() // It mostly waits.
	dir := filepath.Join(t.TempDir(), "policies")
	must(t, os.Mkdir(dir, 0o700))
	put(t, filepath.Join(dir, "a.yaml"), everyTwo)
	var log logbook
	published := 0
	store, _ := running(t, Options{
		Logger: slog.New(slog.NewTextHandler(&log, nil)), Source: FileSource(dir),
		AfterPublish: func(*Table) { published++ },
	})
	ready(t, store)
	before := store.Table()

	must(t, os.Rename(dir, dir+".away"))
	eventually(t, "the failure shows", func() bool { return store.Status().Failure != "" && store.Status().Problems == 1 })
	now := store.Table()
	if serving(store) != "a b p" || now.Revision() != before.Revision() || !now.LoadedAt().Equal(before.LoadedAt()) || !now.Problems()[0].Serving {
		t.Error(serving(store), now.Problems())
	}
	since := store.Status().FailureSince
	time.Sleep(2 * longestPause) // Several further attempts.
	if again := store.Status().FailureSince; since.IsZero() || !again.Equal(since) || store.Status().LastGood || store.Status().Confirmed.IsZero() {
		t.Errorf("it failed since %s, then since %s", since, again)
	}
	if log.count("what is in force stays") != 1 {
		t.Error("the log repeats itself:", log.text.String())
	}

	must(t, os.Rename(dir+".away", dir))
	eventually(t, "it is back", func() bool {
		return store.Status() == Status{Loaded: true, Origin: before.Origin(), Revision: before.Revision(), Since: before.LoadedAt()}
	})
	if published != 1 {
		t.Error("the same documents were published again:", published)
	}
}

func TestStoreStartsFromTheLastGoodFile(t *testing.T) {
	t.Parallel() // It mostly waits.
	parent := t.TempDir()
	dir, lastGood := filepath.Join(parent, "policies"), filepath.Join(parent, "state", "policy.json")
	must(t, os.Mkdir(dir, 0o700))
	put(t, filepath.Join(dir, "a.yaml"), everyTwo)
	put(t, filepath.Join(dir, "b.yaml"), backends("x"))
	b := NewBackend("extra", "http://extra")
	options := Options{Source: FileSource(dir), LastGood: lastGood, Extra: []Document{{Backend: &b}}}

	store, stop := running(t, options)
	ready(t, store)
	eventually(t, "the copy is written", func() bool { _, err := os.Stat(lastGood); return err == nil }) // The end waits for a slow disk, but not for ever.
	stop()
	revision := store.Table().Revision()
	info, err := os.Stat(lastGood)
	must(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Error(info.Mode())
	}

	// The source is away.
	must(t, os.Rename(dir, dir+".away"))
	store, stop = running(t, options)
	ready(t, store)
	if status := store.Status(); status.Revision != revision || !strings.HasPrefix(status.Origin, "last good of 20") || status.Failure == "" || status.Problems != 1 {
		t.Errorf("%+v", status)
	}
	must(t, os.Rename(dir+".away", dir))
	eventually(t, "the source is back", func() bool { return store.Status().Origin == "directory "+dir })
	if store.Table().Revision() != revision {
		t.Error("another revision")
	}
	stop()

	// A document broke while nothing ran, and one was deleted.
	put(t, filepath.Join(dir, "a.yaml"), strings.Replace(everyTwo, "model: m", "model: m m", 1))
	must(t, os.Remove(filepath.Join(dir, "b.yaml")))
	store, stop = running(t, options)
	eventually(t, "the source is read", func() bool { return store.Status().Origin == "directory "+dir })
	if _, found := store.Table().Lookup("o", "m", "k"); !found || serving(store) != "a b extra p" || store.Status().Problems != 1 {
		t.Error(serving(store), store.Table().Problems())
	}
	stop()

	// A damaged file is worse than none, and is said to be so.
	content, err := os.ReadFile(lastGood)
	must(t, err)
	put(t, lastGood, strings.Replace(string(content), "http://a", "http://z", 1))
	must(t, os.Rename(dir, dir+".away"))
	var log logbook
	options.Logger = slog.New(slog.NewTextHandler(&log, nil))
	store, _ = running(t, options)
	eventually(t, "the damage is told", func() bool { return log.count("checksum does not match") == 1 })
	eventually(t, "and so is the source", func() bool { return store.Status().Failure != "" })
	if store.Table() != nil || store.Status().Loaded {
		t.Error(serving(store))
	}
}

func TestStoreStartsFromTheLastGoodFileWhenTheSourceIsSilent(t *testing.T) {
	t.Parallel() // It mostly waits.
	path := filepath.Join(t.TempDir(), "policy.json")
	documents, err := json.Marshal(read(t, everyTwo))
	must(t, err, replace(path, sealed(documents, time.Now())))
	source := newHandSource()
	store, _ := running(t, Options{Source: source, LastGood: path})
	ready(t, store)
	if serving(store) != "a b p" || store.Status().Failure == "" {
		t.Error(serving(store), store.Status())
	}
	source.next <- Snapshot{Documents: read(t, backends("c")), Origin: "source"}
	eventually(t, "the source speaks", func() bool { return serving(store) == "c" && store.Status().Failure == "" })
}

func TestStoreWithoutAnyTableIsNotReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // Or the grace may be over before the source was read, which is told, too.
		b := NewBackend("extra", "http://extra")
		var log logbook
		store, _ := running(t, Options{
			Logger: slog.New(slog.NewTextHandler(&log, nil)),
			Source: FileSource(filepath.Join(t.TempDir(), "missing")), Extra: []Document{{Backend: &b}},
		})
		synctest.Wait()
		if store.Status().Failure == "" {
			t.Error("the failure does not show")
		}
		select {
		case <-store.Ready():
			t.Error("ready without a table")
		case <-time.After(2 * grace):
		}
		if store.Table() != nil {
			t.Error(serving(store))
		}
		if log.count("no request can be served") != 1 || log.count("in force stays") != 0 {
			t.Error("the log says what is not so, or repeats itself:", log.text.String())
		}
	})
}

// flapping is a source that publishes and fails at once.
type flapping struct{ watched int }

func (f *flapping) Watch(_ context.Context, publish func(Snapshot)) error {
	f.watched++
	publish(Snapshot{Origin: "flapping"})
	return errors.New("it fails again")
}

func TestStoreBacksOffFromASourceThatFailsRightAfterItPublished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &flapping{}
		_, stop := running(t, Options{Source: source})
		time.Sleep(60 * time.Second)
		stop()
		if most := int(60 * time.Second / (longestPause / 2)); source.watched < 2 || source.watched > most+10 {
			t.Errorf("watched %d times in a minute", source.watched)
		}
	})
}

func TestStoreMergesExtraDocuments(t *testing.T) {
	one, two, bad := NewBackend("a", "http://environment"), NewBackend("only-here", "http://h/v1/completions"), NewBackend("bad", "h")
	var log logbook
	source := newHandSource()
	store, _ := running(t, Options{
		Logger: slog.New(slog.NewTextHandler(&log, nil)), Source: source,
		Extra: []Document{{Backend: &one}, {Backend: &two}, {Backend: &bad}},
	})
	for range 2 {
		source.next <- Snapshot{Documents: read(t, backends("a")), Origin: "source"}
	}
	eventually(t, "both", func() bool { return serving(store) == "a only-here" })
	if b := store.Table().Backends(); b[0].URL != "http://a" || b[1].URL != "http://h" {
		t.Error(b)
	}
	if log.count("gives way") != 1 {
		t.Error(log.text.String())
	}
	if p := store.Table().Problems(); len(p) != 1 || p[0].String() != "environment: Backend bad: url must begin with http:// or https://" {
		t.Error(p)
	}

	source.next <- errors.New("away")
	eventually(t, "away", func() bool { return store.Status().Failure == "away" })
	if b := store.Table().Backends(); len(b) != 2 || b[0].URL != "http://a" {
		t.Error("the environment took over while the source was away:", b)
	}
	<-source.starts
	<-source.starts
	source.next <- Snapshot{Origin: "source"}
	eventually(t, "the source's own is deleted", func() bool { b := store.Table().Backends(); return len(b) == 2 && b[0].URL == "http://environment" })
}

func TestStorePreparesBeforeItPublishes(t *testing.T) {
	var store *Store
	var steps []string
	source := newHandSource()
	options := Options{Source: source, Logger: slog.New(slog.DiscardHandler)}
	options.BeforePublish = func(_ context.Context, table *Table) {
		if store.Table() == table {
			t.Error("published before it was prepared")
		}
		steps = append(steps, "before "+names(table.documents))
	}
	options.AfterPublish = func(table *Table) {
		if store.Table() != table {
			t.Error("not published after it was")
		}
		steps = append(steps, "after "+names(table.documents))
	}
	store = NewStore(options)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- store.Run(ctx) }()
	for _, ids := range []string{"a", "a", "b", "b"} {
		source.next <- Snapshot{Documents: read(t, backends(ids)), Origin: "source"}
		eventually(t, ids+" in force", func() bool { return serving(store) == ids }) // Or one compile would be for several states.
	}
	source.next <- Snapshot{Documents: read(t, backends("b")), Origin: "source", Problems: []Problem{{Kind: KindBackend, ID: "c", Message: "bad"}}}
	eventually(t, "the problem shows", func() bool { return store.Status().Problems == 1 })
	cancel()
	<-ended
	if got := strings.Join(steps, ", "); got != "before a, after a, before b, after b" {
		t.Error(got)
	}
}

func TestStoreReloads(t *testing.T) {
	source := newHandSource()
	store, _ := running(t, Options{Source: source})
	<-source.starts
	source.next <- Snapshot{Documents: read(t, backends("a")), Origin: "source"}
	ready(t, store)
	for range 3 {
		store.Reload()
		<-source.starts
	}
	if store.Status().Failure != "" || serving(store) != "a" {
		t.Error("a reload is no failure:", store.Status())
	}
	source.next <- fmt.Errorf("away: %w", io.ErrUnexpectedEOF)
	eventually(t, "away", func() bool { return store.Status().Failure != "" })
	<-source.starts
}
