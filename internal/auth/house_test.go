package auth_test

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ai-aas/api-router/internal/auth"
	"github.com/ai-aas/api-router/test/leaks"
)

func TestMain(m *testing.M) { leaks.Main(m) }

// ledger is a book of keys in memory: it can be changed, be cut off, and hang.
type ledger struct {
	mu            sync.Mutex
	organizations map[string]auth.Organization
	keys          map[string]auth.Key
	followers     map[chan auth.Change]bool
	broken        error         // why nobody can follow; nil: they can
	cut           chan struct{} // closed when followers are cut off
	hang          bool          // gives nothing and never ends
	half          bool          // gives all and ends before it is whole
	used          map[string]time.Time
	usedErr       error
	follows       int
	position      int64
}

func newLedger(organizations ...string) *ledger {
	l := &ledger{
		organizations: map[string]auth.Organization{}, keys: map[string]auth.Key{}, followers: map[chan auth.Change]bool{},
		cut: make(chan struct{}), used: map[string]time.Time{}, position: 1,
	}
	for _, id := range organizations {
		l.organizations[id] = auth.Organization{ID: id}
	}
	return l
}

var errDown = errors.New("connection refused")

// Follow implements auth.Ledger.
func (l *ledger) Follow(ctx context.Context, give func(auth.Change), whole func()) error {
	l.mu.Lock()
	l.follows++
	if l.broken != nil {
		defer l.mu.Unlock()
		return l.broken
	}
	if l.hang {
		l.mu.Unlock()
		<-ctx.Done()
		return ctx.Err()
	}
	changes, cut := make(chan auth.Change, 1024), l.cut
	l.followers[changes] = true
	var all []auth.Change
	for _, o := range l.organizations {
		all = append(all, auth.Change{Organization: &o})
	}
	for _, k := range l.keys {
		all = append(all, auth.Change{Key: &k})
	}
	half := l.half
	all = append(all, auth.Change{Position: l.position})
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		delete(l.followers, changes)
		l.mu.Unlock()
	}()
	for _, c := range all {
		give(c)
	}
	if half {
		return errDown
	}
	whole()
	for {
		select {
		case c := <-changes:
			give(c)
		case <-cut:
			return errDown
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Used implements auth.Ledger.
func (l *ledger) Used(_ context.Context, at map[string]time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.usedErr != nil {
		return l.usedErr
	}
	maps.Copy(l.used, at)
	return nil
}

// lastUse is what the ledger was told of a key.
func (l *ledger) lastUse(id string) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.used[id]
}

// failUses makes Used fail, or work again with nil.
func (l *ledger) failUses(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.usedErr = err
}

func (l *ledger) asked() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.follows
}

func (l *ledger) tell(c auth.Change) {
	l.position++
	for changes := range l.followers {
		changes <- c
		changes <- auth.Change{Position: l.position}
	}
}

func (l *ledger) put(k auth.Key) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.keys[k.ID] = k
	l.tell(auth.Change{Key: &k})
}

func (l *ledger) remove(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.keys, id)
	l.tell(auth.Change{Gone: id})
}

func (l *ledger) organize(o auth.Organization) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.organizations[o.ID] = o
	l.tell(auth.Change{Organization: &o})
}

// disband deletes an organization.
func (l *ledger) disband(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.organizations, id)
	l.tell(auth.Change{Organization: &auth.Organization{ID: id}})
}

// fail cuts every follower off and lets none in until mend.
func (l *ledger) fail(hang bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hang = hang
	if !hang {
		l.broken = errDown
	}
	close(l.cut)
	l.cut = make(chan struct{})
}

// breakOff lets followers in, and ends each report just before it is whole.
func (l *ledger) breakOff() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.broken, l.hang, l.half = nil, false, true
}

// damage makes a key one that cannot be read.
func (l *ledger) damage(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := auth.Key{ID: id, Organization: l.keys[id].Organization, Damage: "its scopes are no JSON"}
	l.keys[id] = k
	l.tell(auth.Change{Key: &k})
}

func (l *ledger) mend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.broken, l.hang = nil, false
}

const (
	pepper1 = "the first pepper of this test"
	pepper2 = "the second pepper of this test"
)

func peppers(tb testing.TB, newestFirst ...string) auth.Peppers {
	tb.Helper()
	p, err := auth.NewPeppers(newestFirst...)
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

// issue makes a key in the ledger.
func (l *ledger) issue(tb testing.TB, p auth.Peppers, k auth.Key) (key, signing auth.Secret, made auth.Key) {
	tb.Helper()
	if k.Organization == "" {
		k.Organization = "acme"
	}
	key, signing, err := p.Make(&k)
	if err != nil {
		tb.Fatal(err)
	}
	l.put(k)
	return key, signing, k
}

// runs runs keys until the test ends, or stop is called.
func runs(tb testing.TB, k *auth.Keys) (stop func()) {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := k.Run(ctx); err != nil {
			tb.Error(err)
		}
	}()
	stop = func() { cancel(); <-done }
	tb.Cleanup(stop)
	return stop
}

func options(l auth.Ledger, p auth.Peppers) auth.KeysOptions {
	return auth.KeysOptions{Ledger: l, Peppers: p, TTL: time.Minute, StaleIfError: time.Hour}
}

// journal is a log that can be read.
type journal struct {
	mu   sync.Mutex
	text strings.Builder
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

func (j *journal) logger() *slog.Logger {
	return slog.New(slog.NewJSONHandler(j, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// command runs a program and gives what it prints.
func command(t *testing.T, env []string, name string, args ...string) string {
	t.Helper()
	c := exec.CommandContext(t.Context(), name, args...)
	c.Env = append(os.Environ(), env...)
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", name, err, out)
	}
	return string(out)
}
