package policy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// grace is how long a start waits for the source before it serves from the last good file.
	grace = 500 * time.Millisecond
	// The pause before a source that failed is watched again. It stays below a second: a source that is back is seen so soon.
	firstPause, longestPause = 100 * time.Millisecond, 800 * time.Millisecond
	maxLogged                = 20 // problems written to the log for one table
)

// environment is the File of the documents that the store was given and no source holds.
const environment = "environment"

// Options configure a Store. Logger and Source are required.
type Options struct {
	Logger *slog.Logger
	Source Source
	// Extra documents come from outside the source, such as the environment. One whose id the source also has gives way.
	Extra []Document
	// LastGood is the path of the file that keeps the documents in force for the next start; empty keeps none.
	LastGood string
	// BeforePublish is called with each table that has a new revision before readers see it.
	BeforePublish func(*Table)
	// AfterPublish is called with the same table once readers see it.
	AfterPublish func(*Table)
}

// Store keeps the current table. Its methods may be called from any goroutine.
type Store struct {
	options Options
	logger  *slog.Logger
	table   atomic.Pointer[Table]
	failure atomic.Pointer[string]
	ready   chan struct{}
	once    sync.Once
	reload  chan struct{}

	// The rest belongs to Run's goroutine.
	last    []Document // in force, and where they stand: what the next compile may hold on to
	saved   []byte     // what the last good file holds
	savedAt time.Time
	logged  map[string]bool // the problems that the log has
	yielded map[key]bool    // the extra documents that gave way, as the log has it
}

// Status is the store's state in short.
type Status struct {
	// Loaded says that there is a table.
	Loaded bool
	// Origin, Revision and Since are the table's: where from, which, and since when it is in force.
	Origin   string
	Revision string
	Since    time.Time
	// Problems counts those of the table.
	Problems int
	// Failure is why the source cannot be read now, empty while it can.
	Failure string
}

// NewStore returns a store without a table. Run fills it.
func NewStore(options Options) *Store {
	return &Store{
		options: options,
		logger:  options.Logger,
		ready:   make(chan struct{}),
		reload:  make(chan struct{}, 1),
		yielded: make(map[key]bool),
	}
}

// Table is the current table, nil before the first. It is one atomic load: take it once for a request.
func (s *Store) Table() *Table { return s.table.Load() }

// Ready is closed when there is a table.
func (s *Store) Ready() <-chan struct{} { return s.ready }

// Reload makes Run read the source anew, now. It does not wait for that.
func (s *Store) Reload() {
	select {
	case s.reload <- struct{}{}:
	default: // One is already due.
	}
}

// Status tells the state.
func (s *Store) Status() Status {
	var status Status
	if failure := s.failure.Load(); failure != nil {
		status.Failure = *failure
	}
	if t := s.table.Load(); t != nil {
		status.Loaded = true
		status.Origin, status.Revision, status.Since, status.Problems = t.origin, t.revision, t.loadedAt, len(t.problems)
	}
	return status
}

// Run follows the source until ctx ends, and then returns nil. A source that fails is watched again after a pause; the
// table stays meanwhile. If there is none yet, the last good file gives the first one.
func (s *Store) Run(ctx context.Context) error {
	s.recall()
	cold := time.NewTimer(grace)
	defer cold.Stop()
	pause := firstPause
	for ctx.Err() == nil {
		begun := time.Now()
		err := s.follow(ctx, cold.C)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil: // Reload.
			pause = firstPause
			continue
		case time.Since(begun) > longestPause: // It went well for a while. One that fails right after it published has its pauses grow.
			pause = firstPause
		}
		s.fail(err)
		select {
		case <-ctx.Done():
		case <-s.reload:
		case <-time.After(pause/2 + rand.N(pause/2)):
		}
		pause = min(2*pause, longestPause)
	}
	return nil
}

// follow watches the source once: until it fails, or until a reload, which gives nil.
func (s *Store) follow(ctx context.Context, cold <-chan time.Time) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	snapshots, done := make(chan Snapshot), make(chan error, 1)
	go func() {
		err := s.options.Source.Watch(ctx, func(snapshot Snapshot) {
			select {
			case snapshots <- snapshot:
			case <-ctx.Done():
			}
		})
		if err == nil {
			err = errors.New("the policy source ended")
		}
		done <- err
	}()
	reloaded := false
	for {
		select {
		case snapshot := <-snapshots:
			s.accept(snapshot)
		case err := <-done:
			if reloaded {
				err = nil
			}
			return err
		case <-s.reload:
			reloaded = true
			cancel()
		case <-cold:
			if s.table.Load() == nil && s.failure.Load() == nil {
				s.fail(errors.New("the policy source has not answered yet"))
			}
		}
	}
}

// recall reads the last good file into last. What came from the environment is given anew at each start.
func (s *Store) recall() {
	if s.options.LastGood == "" {
		return
	}
	snapshot, saved, err := readLastGood(s.options.LastGood)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return
	case err != nil:
		s.logger.Warn("the last good policies cannot be used", "error", err)
		return
	}
	for _, p := range snapshot.Problems {
		s.logger.Warn("a document of the last good policies cannot be used", "problem", p.String())
	}
	s.last = slices.DeleteFunc(snapshot.Documents, func(d Document) bool { return d.File == environment })
	s.savedAt = saved
}

// accept compiles a new state of the source and publishes it if anything differs.
func (s *Store) accept(snapshot Snapshot) {
	if was := s.failure.Swap(nil); was != nil {
		s.logger.Info("policies can be read again", "origin", snapshot.Origin)
	}
	there := make(map[key]bool, len(snapshot.Documents))
	for _, d := range snapshot.Documents {
		if d.Backend != nil || d.Policy != nil {
			there[d.key()] = true
		}
	}
	for _, p := range snapshot.Problems {
		if p.ID != "" {
			for _, kind := range []Kind{KindBackend, KindRoutingPolicy} {
				there[key{kind, p.ID}] = there[key{kind, p.ID}] || p.Kind == "" || p.Kind == kind
			}
		}
	}
	s.publish(Compile(s.withExtra(snapshot, there), s.last))
}

// fail keeps everything in force although the source cannot be read. Without a table, the last good documents give one;
// without those there is none: a table of only the extra documents could hide that everything else is missing.
func (s *Store) fail(err error) {
	text := err.Error()
	if was := s.failure.Swap(&text); was == nil || *was != text {
		message := "policies cannot be read; what is in force stays"
		switch {
		case s.table.Load() != nil:
		case s.savedAt.IsZero():
			message = "policies cannot be read; no request can be served until they can"
		default:
			message = "policies cannot be read; the last good ones serve"
		}
		s.logger.Warn(message, "error", err)
	}
	snapshot := Snapshot{Problems: []Problem{{Message: text}}}
	if t := s.table.Load(); t != nil {
		snapshot.Origin = t.origin
	} else if s.savedAt.IsZero() {
		return
	} else {
		snapshot.Origin = "last good of " + s.savedAt.Format(time.RFC3339)
	}
	there := make(map[key]bool, len(s.last))
	for _, d := range s.last {
		there[d.key()] = d.File != environment
	}
	s.publish(Compile(s.withExtra(snapshot, there), s.last))
}

// withExtra adds the extra documents whose ids are not there.
func (s *Store) withExtra(snapshot Snapshot, there map[key]bool) Snapshot {
	snapshot.Documents = slices.Clone(snapshot.Documents)
	for _, d := range s.options.Extra {
		if there[d.key()] {
			if !s.yielded[d.key()] {
				s.yielded[d.key()] = true
				s.logger.Info("a document of the environment gives way to the policy source's own", "kind", d.Kind(), "id", d.ID())
			}
			continue
		}
		d.File, d.Line = environment, 0
		snapshot.Documents = append(snapshot.Documents, d)
	}
	return snapshot
}

func (s *Store) publish(t *Table) {
	s.last = t.documents
	before := s.table.Load()
	same := before != nil && before.revision == t.revision
	if same && before.origin == t.origin && slices.Equal(before.problems, t.problems) {
		s.save(t)
		return
	}
	t.loadedAt = time.Now()
	if same {
		t.loadedAt = before.loadedAt
	} else if s.options.BeforePublish != nil {
		s.options.BeforePublish(t)
	}
	s.table.Store(t)
	s.once.Do(func() { close(s.ready) })
	s.log(t)
	if !same && s.options.AfterPublish != nil {
		s.options.AfterPublish(t)
	}
	s.save(t) // Last: no reader waits for a disk that is slow or hangs.
}

// save writes the last good file if its content changes. While the source cannot be read there is nothing new to write.
func (s *Store) save(t *Table) {
	if s.options.LastGood == "" || s.failure.Load() != nil {
		return
	}
	documents, err := json.Marshal(t.documents)
	if err != nil { // Strings, numbers and maps of strings: nothing in them can fail.
		panic("policy: " + err.Error())
	}
	if bytes.Equal(documents, s.saved) {
		return
	}
	if err := saveLastGood(s.options.LastGood, documents, time.Now()); err != nil {
		s.logger.Warn("the last good policies cannot be saved; a start while the policy source is away will have none", "error", err)
		return
	}
	s.saved = documents
}

func (s *Store) log(t *Table) {
	s.logger.Info("policies in force", "revision", t.revision, "origin", t.origin,
		"backends", len(t.backends), "policies", t.Routes(), "problems", len(t.problems))
	if len(t.documents) == 0 {
		s.logger.Warn("there are no policies: every request is answered with model_not_found", "origin", t.origin)
	}
	known := s.logged
	s.logged = make(map[string]bool, min(len(t.problems), maxLogged))
	for i, p := range t.problems {
		line := p.String()
		if i >= maxLogged {
			s.logger.Warn("further problems with policies are not logged", "count", len(t.problems)-maxLogged)
			break
		}
		s.logged[line] = true
		if !known[line] {
			s.logger.Warn("problem with a policy document", "problem", line)
		}
	}
}
