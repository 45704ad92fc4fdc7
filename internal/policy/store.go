package policy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// How soon a change is in force. A change comes at the worst while the one before it is being compiled: it then waits for that, for the
// rest or for what BeforePublish readies (both at once), and for its own compile. With compiles of 200 ms that is 0.8 s.
const (
	// gather is how long the first change after some quiet waits for those that come with it.
	gather = 20 * time.Millisecond
	// The rest after a compile is three times as long as the compile took, within these bounds.
	shortestRest, longestRest = 50 * time.Millisecond, 200 * time.Millisecond
	// prepareWithin is how old a change may be when BeforePublish must let its table go.
	prepareWithin = 500 * time.Millisecond
)

const (
	// grace is how long a start waits for the source before it serves from the last good file. A source that answers later replaces
	// that, so waiting longer would only be a longer outage. prepareColdWithin is prepareWithin for that table, from the start on.
	grace, prepareColdWithin = 100 * time.Millisecond, 200 * time.Millisecond
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
	// BeforePublish is called with each table that has a new revision before readers see it. It returns when ctx ends at the latest:
	// the table then has to be in force.
	BeforePublish func(ctx context.Context, table *Table)
	// AfterPublish is called with the same table once readers see it.
	AfterPublish func(*Table)
	// Metrics is where the store's metrics are registered; nil: nowhere.
	Metrics prometheus.Registerer
}

// Store keeps the current table. Its methods may be called from any goroutine.
type Store struct {
	options  Options
	logger   *slog.Logger
	table    atomic.Pointer[Table]
	failure  atomic.Pointer[failure]
	ready    chan struct{}
	once     sync.Once
	reload   chan struct{}
	arrivals chan arrival // of capacity 1: the newest state of the source, until it is taken
	saver    saver
	compile  func(Snapshot, []Document) *Table
	counted  counted

	// The rest belongs to Run's goroutine.
	begun    time.Time
	pending  *arrival    // what the next compile is for
	due      *time.Timer // when that is
	rested   time.Time   // not before this, though
	recalled bool
	last     []Document // in force, and where they stand: what the next compile may hold on to
	savedAt  time.Time
	logged   map[string]bool // the problems that the log has
	yielded  map[key]bool    // the extra documents that gave way, as the log has it
}

// failure is why the source cannot be read, and since when.
type failure struct {
	text  string
	since time.Time
}

// arrival is a state of the source that has not been compiled.
type arrival struct {
	snapshot Snapshot
	since    time.Time // when the oldest change came that is in no table yet
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
	// Failure is why the source cannot be read now, empty while it can, and FailureSince since when.
	Failure      string
	FailureSince time.Time
	// LastGood says that the table is the last good copy, Confirmed when the source last stood behind it; zero: it is watched, and so does now.
	LastGood  bool
	Confirmed time.Time
}

// NewStore returns a store without a table. Run fills it.
func NewStore(options Options) *Store {
	s := &Store{
		options:  options,
		logger:   options.Logger,
		ready:    make(chan struct{}),
		reload:   make(chan struct{}, 1),
		arrivals: make(chan arrival, 1),
		saver:    newSaver(options.LastGood, options.Logger),
		compile:  Compile,
		yielded:  make(map[key]bool),
	}
	s.register(options.Metrics)
	return s
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
		status.Failure, status.FailureSince = failure.text, failure.since
	}
	if t := s.table.Load(); t != nil {
		status.Loaded = true
		status.Origin, status.Revision, status.Since, status.Problems = t.origin, t.revision, t.loadedAt, len(t.problems)
		status.LastGood = s.counted.lastGood.Load()
		if nanos := s.counted.confirmed.Load(); nanos != 0 {
			status.Confirmed = time.Unix(0, nanos)
		}
	}
	return status
}

// Run follows the source until ctx ends, and then returns nil. A source that fails is watched again after a pause; the
// table stays meanwhile. If there is none yet, the last good file gives the first one.
//
// Of the states that the source publishes only the newest is compiled. A change after some quiet is compiled within tens of
// milliseconds; changes that go on are compiled together, a few times a second. Each is in force within a second.
func (s *Store) Run(ctx context.Context) error {
	s.begun = time.Now()
	s.counted.confirmed.Store(s.begun.UnixNano())
	cold := time.NewTimer(grace)
	defer cold.Stop()
	s.due = time.NewTimer(0)
	s.due.Stop()
	defer s.due.Stop()
	endSaving := s.saver.start()
	defer endSaving()
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
		s.fail(ctx, err)
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
	watching, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		err := s.options.Source.Watch(watching, s.arrive)
		if err == nil {
			err = errors.New("the policy source ended")
		}
		done <- err
	}()
	s.recall() // While the source is asked.
	for {
		select {
		case a := <-s.arrivals:
			s.await(a)
		case <-s.due.C:
			s.accept(ctx)
		case err := <-done:
			if ctx.Err() == nil && watching.Err() != nil { // Reload. What is pending stays so.
				return nil
			}
			select {
			case a := <-s.arrivals:
				s.await(a)
			default:
			}
			if ctx.Err() == nil {
				s.accept(ctx) // It came before the failure.
			}
			return err
		case <-s.reload:
			cancel()
		case <-cold:
			if s.table.Load() == nil && s.pending == nil && s.failure.Load() == nil {
				s.fail(ctx, fmt.Errorf("the policy source has not answered within %s", grace))
			}
		}
	}
}

// arrive takes a state from the source and never waits. There is room: only one goroutine at a time sends.
func (s *Store) arrive(snapshot Snapshot) {
	a := arrival{snapshot, time.Now()}
	select {
	case older := <-s.arrivals:
		a.since = older.since
	default:
	}
	s.arrivals <- a
}

// await sets the time of the next compile, which is for the newest state that has come until then.
func (s *Store) await(a arrival) {
	if s.pending != nil {
		s.pending.snapshot = a.snapshot
		return
	}
	s.pending = &a
	wait := max(gather, time.Until(s.rested))
	if s.table.Load() == nil {
		wait = 0
	}
	s.due.Reset(wait)
}

// rest is the pause after a compile. It leaves most of a processor to requests while changes go on.
func rest(took time.Duration) time.Duration {
	return min(max(shortestRest, 3*took), longestRest)
}

// recall reads the last good file into last, once. What came from the environment is given anew at each start, and a mark that has
// ended is of no use any more.
//
// A mark that has not ended holds as it did, although it may have been lifted while this process was not there to see it: what an
// operator switched off stays off until the source says otherwise. To serve what should not be served is the worse mistake, and
// the source ends the other one when it answers. A mark that was set meanwhile cannot be known.
func (s *Store) recall() {
	if s.recalled || s.options.LastGood == "" {
		return
	}
	s.recalled = true
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
	now := time.Now()
	s.last = slices.DeleteFunc(snapshot.Documents, func(d Document) bool {
		return d.File == environment || d.Mark != nil && !d.Mark.Active(now)
	})
	s.savedAt = saved
}

// accept compiles the pending state of the source and publishes it if anything differs.
func (s *Store) accept(ctx context.Context) {
	if s.pending == nil {
		return
	}
	snapshot, since := s.pending.snapshot, s.pending.since
	s.pending = nil
	s.due.Stop()
	s.counted.confirm()
	if was := s.failure.Swap(nil); was != nil {
		s.logger.Info("policies can be read again", "origin", snapshot.Origin)
	}
	began := time.Now()
	t := s.compile(s.withExtra(snapshot, snapshot.Documents), s.last)
	s.rested = time.Now().Add(rest(time.Since(began)))
	s.mourn(t)
	s.publish(ctx, t, since.Add(prepareWithin))
	if s.options.LastGood != "" {
		s.saver.offer(t.documents)
	}
}

// mourn warns when most policies go at once. They do go: a deletion is a deletion, but it may be a mistake.
func (s *Store) mourn(t *Table) {
	before, left := 0, 0
	is := make(map[string]bool, len(s.last))
	for _, d := range t.documents {
		if d.Policy != nil {
			is[d.Policy.ID] = true
		}
	}
	for _, d := range s.last {
		if d.Policy != nil {
			before++
			if is[d.Policy.ID] {
				left++
			}
		}
	}
	if before >= 4 && 2*left < before {
		s.logger.Warn("more than half of the policies are gone from the policy source and no longer in force: if that is a mistake, put them back",
			"before", before, "gone", before-left, "policies", t.Routes(), "origin", t.origin)
	}
}

// fail keeps everything in force although the source cannot be read. Without a table, the last good documents give one;
// without those there is none: a table of only the extra documents could hide that everything else is missing.
func (s *Store) fail(ctx context.Context, err error) {
	s.counted.doubt()
	text := err.Error()
	was := s.failure.Load()
	if was == nil || was.text != text {
		now := failure{text, time.Now()}
		if was != nil {
			now.since = was.since // The reason differs; it fails all the same.
		}
		s.failure.Store(&now)
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
		s.counted.recall(s.savedAt)
	}
	s.publish(ctx, s.compile(s.withExtra(snapshot, s.last), s.last), s.begun.Add(prepareColdWithin))
}

// withExtra adds the extra documents that the source has no document of its own for. there are those that it has, as far as is known.
func (s *Store) withExtra(snapshot Snapshot, there []Document) Snapshot {
	if len(s.options.Extra) == 0 {
		return snapshot
	}
	own := make(map[key]bool, len(there))
	for _, d := range there {
		if d.File != environment && d.single() {
			own[d.key()] = true
		}
	}
	for _, p := range snapshot.Problems {
		for _, kind := range Kinds() {
			if p.ID != "" && (p.Kind == "" || p.Kind == kind) {
				own[key{kind, p.ID}] = true
			}
		}
	}
	snapshot.Documents = slices.Clone(snapshot.Documents)
	for _, d := range s.options.Extra {
		if own[d.key()] {
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

// publish puts t in force, by the deadline if that has not passed already.
func (s *Store) publish(ctx context.Context, t *Table, deadline time.Time) {
	s.last = t.documents
	before := s.table.Load()
	t.loadedAt = time.Now()
	if before != nil && before.revision == t.revision { // Places, book revisions and problems may differ all the same.
		t.loadedAt = before.loadedAt
		s.table.Store(t)
		if before.origin != t.origin || !slices.Equal(before.problems, t.problems) {
			s.log(t)
		}
		return
	}
	if s.options.BeforePublish != nil {
		ctx, cancel := context.WithDeadline(ctx, deadline)
		s.options.BeforePublish(ctx, t)
		cancel()
	}
	s.table.Store(t)
	s.counted.published.Add(1)
	s.once.Do(func() { close(s.ready) })
	s.log(t)
	if s.options.AfterPublish != nil {
		s.options.AfterPublish(t)
	}
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
