package state

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

const (
	// goneFor is how long a deletion is kept at least for those who follow the keys, and about half as long as it is kept at most. Whoever follows
	// reads it within seconds; one that was suspended for longer reads everything anew.
	goneFor = 30 * 24 * time.Hour
	// maxGone bounds how many deletions are kept, whatever their age.
	maxGone = 1_000_000
	// retentionEvery is how often what is old is taken out, by one replica.
	retentionEvery = time.Hour
	// retentionFirst is how long after a start at most: replicas that start together come one after the other.
	retentionFirst = 5 * time.Minute
	// The pause after a failure.
	retentionPause, retentionSlowest = time.Minute, time.Hour
	// takenAtOnce is how many rows one transaction takes out, so that changes wait for it for milliseconds. An entry may show a mebibyte and more.
	takenAtOnce = 100
	// takenRest is how many times the time that a transaction took passes before the next, at least takenShortest.
	takenRest, takenShortest = 4, 5 * time.Millisecond
	// skew is how far ahead of this process's clock the one of another replica may be, and this one of the other's.
	skew = 24 * time.Hour
)

// errTakenOver ends a pass that another replica goes on with.
var errTakenOver = refusal{errors.New("another replica takes out what is old")}

// RetentionOptions are what Retention needs.
type RetentionOptions struct {
	Logger *slog.Logger
	Book   *Book
	// Audit is how long entries of the audit are kept; 0: for ever.
	Audit time.Duration
	// Metrics is where the metrics are registered; nil: nowhere.
	Metrics prometheus.Registerer
}

// Retention takes out of a book what is old: entries of the audit, and the deletions that whoever follows the keys has read long ago. Of all
// replicas of a book one at a time is at it, in short transactions.
type Retention struct {
	RetentionOptions
	goneFor  time.Duration
	maxGone  int
	removed  *prometheus.CounterVec
	failures prometheus.Counter
	claim    int64 // what this process wrote last into the counter of that name
	borneOut bool  // that this process's clock is not far ahead of the one by which something was taken out last
}

// NewRetention returns a Retention that has done nothing yet. Run does.
func NewRetention(opts RetentionOptions) *Retention {
	r := &Retention{RetentionOptions: opts, goneFor: goneFor, maxGone: maxGone}
	r.Logger = cmp.Or(r.Logger, slog.New(slog.DiscardHandler))
	factory := promauto.With(opts.Metrics)
	r.removed = factory.NewCounterVec(prometheus.CounterOpts{
		Name: "api_router_state_removed_total", Help: "Rows that this process took out of the state book because they were old, by their table: audit, gone.",
	}, []string{"table"})
	for _, table := range []string{tableAudit, tableGone} {
		r.removed.WithLabelValues(table)
	}
	r.failures = factory.NewCounter(prometheus.CounterOpts{
		Name: "api_router_state_retention_failures_total", Help: "Attempts to take out of the state book what is old that failed. They are made again.",
	})
	return r
}

const (
	tableAudit = "audit"
	tableGone  = "gone"
)

// Run takes out what is old about once an hour until ctx ends. It returns nil.
func (r *Retention) Run(ctx context.Context) error {
	pause, failure := retentionPause, ""
	for next := rand.N(retentionFirst); ; {
		if wait(ctx, next); ctx.Err() != nil {
			return nil
		}
		err := r.pass(ctx, time.Now())
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			next, pause, failure = retentionEvery*3/4+rand.N(retentionEvery/2), retentionPause, ""
			continue
		case err.Error() != failure:
			failure = err.Error()
			r.Logger.Warn("what is old cannot be taken out of the state book yet; it grows meanwhile", "error", err)
		}
		r.failures.Inc()
		next = pause/2 + rand.N(pause)
		pause = min(2*pause, retentionSlowest)
	}
}

// pass takes out what is old at this moment, unless a replica is at it or was lately. An entry of the audit cannot be had back: where nobody was
// at it for long, or this clock is ahead, none goes before the next pass.
func (r *Retention) pass(ctx context.Context, now time.Time) error {
	if ours, err := r.begin(ctx, now); err != nil || !ours {
		return err
	}
	err := r.takeGone(ctx, now)
	if err == nil && r.Audit > 0 && r.borneOut {
		err = r.takeEntries(ctx, now)
	}
	if errors.Is(err, errTakenOver.error) {
		return nil
	}
	return err
}

// begin claims the pass. A claim of the future is of a clock that was wrong, and holds nobody up.
func (r *Retention) begin(ctx context.Context, now time.Time) (ours bool, err error) {
	var last int64
	claim := now.UnixNano()
	err = r.Book.write(ctx, "", func(ctx context.Context, tx tx) error {
		err := tx.one(ctx, "SELECT value FROM counter WHERE name = $1", clockRetention).Scan(&last)
		if since := now.Sub(time.Unix(0, last)); err != nil || since > -retentionEvery && since < retentionEvery/2 {
			return cmp.Or[error](err, errUnchanged)
		}
		err = tx.one(ctx, "UPDATE counter SET value = $3 WHERE name = $1 AND value = $2 RETURNING value", clockRetention, last, claim).Scan(&claim)
		if errors.Is(err, sql.ErrNoRows) { // Another was faster.
			return errUnchanged
		}
		ours = err == nil
		return err
	})
	r.claim, r.borneOut = claim, now.Sub(time.Unix(0, last)) <= skew
	return ours && err == nil, err
}

// steps runs step in one transaction after the other until it takes out fewer rows than one may, and says how many it took out.
func (r *Retention) steps(ctx context.Context, table string, step func(ctx context.Context, tx tx) (int, error)) (total int, err error) {
	for {
		began, taken := time.Now(), 0
		claim := max(began.UnixNano(), r.claim+1)
		err := r.Book.write(ctx, "", func(ctx context.Context, tx tx) (err error) {
			var still int64
			err = tx.one(ctx, "UPDATE counter SET value = $3 WHERE name = $1 AND value = $2 RETURNING value", clockRetention, r.claim, claim).Scan(&still)
			if errors.Is(err, sql.ErrNoRows) { // This process stood still for long.
				return errTakenOver
			}
			if err == nil {
				taken, err = step(ctx, tx)
			}
			return err
		})
		if err != nil {
			return total, err
		}
		r.claim, total = claim, total+taken
		r.removed.WithLabelValues(table).Add(float64(taken))
		if taken < takenAtOnce {
			return total, nil
		}
		wait(ctx, max(takenShortest, takenRest*time.Since(began)))
	}
}

// takeGone takes out deletions. First it is written up to where they go: who has followed less far reads everything anew.
//
// No clock says how old a deletion is. A position in them is kept instead with the time at which it was the end, and what stands up to it goes once
// that was long enough ago.
func (r *Retention) takeGone(ctx context.Context, now time.Time) error {
	var horizon int64
	advanced := false
	total, err := r.steps(ctx, tableGone, func(ctx context.Context, tx tx) (taken int, err error) {
		if !advanced {
			if horizon, err = r.advance(ctx, tx, now); err != nil {
				return 0, err
			}
		}
		advanced = true
		return takeOut(ctx, tx, "DELETE FROM gone WHERE revision IN (SELECT revision FROM gone WHERE revision <= $1 ORDER BY revision LIMIT $2) RETURNING revision", horizon)
	})
	if total > 0 {
		r.Logger.Info("deletions that everybody has read long ago were taken out of the state book", "removed", total)
	}
	return err
}

// advance says up to where deletions are taken out, and writes it into the book.
func (r *Retention) advance(ctx context.Context, tx tx, now time.Time) (horizon int64, err error) {
	var current, next, at int64
	err = tx.one(ctx, `SELECT (SELECT value FROM counter WHERE name = $1), (SELECT value FROM counter WHERE name = $2),
		(SELECT value FROM counter WHERE name = $3), (SELECT value FROM counter WHERE name = $4)`,
		clockIdentity, horizonGone, nextGone, nextGoneAt).Scan(&current, &horizon, &next, &at)
	if err != nil {
		return 0, err
	}
	set := func(counter string, value int64) {
		if err == nil {
			err = tx.exec(ctx, "UPDATE counter SET value = $2 WHERE name = $1", counter, value)
		}
	}
	since := now.Sub(time.Unix(0, at))
	if since < 0 || since >= r.goneFor { // A time in the future is of a clock that was wrong.
		if since >= r.goneFor && at != 0 {
			horizon = max(horizon, next)
		}
		set(nextGone, current)
		set(nextGoneAt, now.UnixNano())
	}
	var most int64
	switch failure := tx.one(ctx, "SELECT revision FROM gone ORDER BY revision DESC LIMIT 1 OFFSET $1", r.maxGone).Scan(&most); {
	case failure == nil:
		horizon = max(horizon, most)
	case !errors.Is(failure, sql.ErrNoRows):
		return 0, failure
	}
	set(horizonGone, horizon)
	return horizon, err
}

// takeEntries takes out entries of the audit, and notes in the same transaction since when it is whole.
func (r *Retention) takeEntries(ctx context.Context, now time.Time) error {
	since := now.Add(-r.Audit)
	end, found, err := r.firstKept(ctx, since, now)
	if err != nil || !found {
		return err
	}
	total, err := r.steps(ctx, tableAudit, func(ctx context.Context, tx tx) (int, error) {
		taken, err := takeOut(ctx, tx, "DELETE FROM audit WHERE sequence IN (SELECT sequence FROM audit WHERE sequence < $1 ORDER BY sequence LIMIT $2) RETURNING sequence", end)
		if taken == 0 || err != nil {
			return taken, err
		}
		return taken, tx.exec(ctx, "UPDATE counter SET value = $2 WHERE name = $1 AND value < $2", auditSince, nanos(since))
	})
	if total > 0 {
		r.Logger.Info("entries of the audit that are older than state.audit_retention were taken out", "removed", total, "before", since.UTC(), "audit_retention", r.Audit.String())
	}
	return err
}

// firstKept is the sequence of the first entry that is not old. Entries go in the order in which they were made, up to the last old one: one that a
// wrong clock has dated into the past stays with those beside it, and one of the future holds nobody up.
func (r *Retention) firstKept(ctx context.Context, since, now time.Time) (sequence int64, found bool, err error) {
	var afterOld, kept *int64
	err = r.Book.read(ctx, func(ctx context.Context, tx tx) error {
		return tx.one(ctx, `SELECT (SELECT max(sequence + 0) + 1 FROM audit WHERE made_at < $1),
			(SELECT min(sequence + 0) FROM audit WHERE made_at >= $1 AND made_at <= $2)`, nanos(since), nanos(now.Add(skew))).Scan(&afterOld, &kept)
	})
	switch {
	case err != nil, afterOld == nil: // Where nothing is old, what is kept may all be of the future: then it is this clock that is behind.
		return 0, false, err
	case kept == nil:
		return *afterOld, true, nil
	}
	return min(*afterOld, *kept), true, nil
}

// takeOut deletes at most takenAtOnce rows up to a bound, and counts them.
func takeOut(ctx context.Context, tx tx, statement string, bound int64) (taken int, err error) {
	err = tx.each(ctx, func(row) error { taken++; return nil }, statement, bound, takenAtOnce)
	return taken, err
}

// AuditSince is before when entries of the audit were taken out because they were old; zero: none ever was.
func (b *Book) AuditSince(ctx context.Context) (since time.Time, err error) {
	err = b.read(ctx, func(ctx context.Context, tx tx) error {
		var at int64
		err := tx.one(ctx, "SELECT value FROM counter WHERE name = $1", auditSince).Scan(&at)
		since = moment(at)
		return err
	})
	return since, err
}
