package state

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/ai-aas/api-router/test/postgres"
)

// openings counts how often a log tells that a book was opened.
type openings struct{ n atomic.Int64 }

func (o *openings) Write(line []byte) (int, error) {
	if strings.Contains(string(line), "the state book is open") {
		o.n.Add(1)
	}
	return len(line), nil
}

// A book that opens and is of no use then, as one into which a backup is being written, is not opened again and again without a pause.
func TestABookThatIsLostAtOnceIsOpenedEverMoreSeldom(t *testing.T) {
	server := postgres.Shared(t)
	database := server.Database(t)
	count := &openings{}
	place := Options{URL: server.URL(database, ""), Password: reference(t), Logger: slog.New(slog.NewTextHandler(count, nil))}
	book := openedAt(t, place)
	writeVersion(t, book, "a", 1)
	server.Exec(t, database, "CREATE TABLE aside AS SELECT * FROM counter; DELETE FROM counter")
	failure(t, book, "")
	before := count.n.Load()
	time.Sleep(3 * time.Second)
	if n := count.n.Load() - before; n > 9 { // With pauses that double there is time for seven.
		t.Errorf("it was opened %d times in three seconds", n)
	}
	server.Exec(t, database, "INSERT INTO counter SELECT * FROM aside")
	writeVersion(t, book, "a", 2)
}

// Whoever prefers a standby, which is no book, gets the primary, and that is told from one of before a failover as any other is.
func TestAPrimaryIsRecognizedWhateverIsPreferred(t *testing.T) {
	server := postgres.Shared(t)
	for _, preferred := range []string{"any", "read-write", "primary", "prefer-standby"} {
		book := openedAt(t, Options{URL: server.URL(server.Database(t), "") + "&target_session_attrs=" + preferred, Password: reference(t)})
		writeVersion(t, book, "a", 1)
		newest := &book.engine.(*postgresEngine).newest
		newest.mu.Lock()
		if newest.seen.system == "" {
			t.Errorf("with %s nothing is known of the server", preferred)
		}
		newest.mu.Unlock()
	}
}

// Tables with millions of rows take their time, or somebody holds one: the server is there, and that is not what is wrong.
func TestAMigrationThatTakesTooLongSaysSo(t *testing.T) {
	server := postgres.Shared(t)
	database := server.Database(t)
	place := Options{URL: server.URL(database, ""), Password: reference(t), Logger: slog.New(slog.DiscardHandler)}
	older(t, place, 2)
	holder, err := pgx.Connect(waits(t), server.Login(database))
	must(t, err)
	_, err = holder.Exec(waits(t), "BEGIN; LOCK TABLE audit IN ROW EXCLUSIVE MODE")
	must(t, err)
	late := &lateness{Context: waits(t), over: make(chan struct{})}
	go func() {
		defer close(late.over)
		for held := false; !held && late.Context.Err() == nil; wait(late.Context, 5*time.Millisecond) {
			_ = holder.QueryRow(late.Context, "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())").Scan(&held)
		}
	}()
	_, _, err = Migrate(late, place)
	<-late.over
	if err == nil || !strings.Contains(err.Error(), "--wait") || strings.Contains(err.Error(), "does not answer") || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v; want that it takes longer", err)
	}
	must(t, holder.Close(waits(t)))
	if _, steps, err := Migrate(waits(t), place); err != nil || len(steps) == 0 {
		t.Errorf("then: %+v, %v", steps, err)
	}
}

// lateness is a context whose deadline has passed when over is closed: when something has come about, and not at a time.
type lateness struct {
	context.Context //nolint:containedctx // It is one.

	over chan struct{}
}

func (l *lateness) Done() <-chan struct{} { return l.over }

func (l *lateness) Err() error {
	select {
	case <-l.over:
		return context.DeadlineExceeded
	default:
		return l.Context.Err()
	}
}
