package state

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/ai-aas/api-router/internal/auth"
)

const day = 24 * time.Hour

// retains is a Retention of a book, of which another replica was last at it at that moment.
func retains(t testing.TB, book *Book, audit time.Duration, last time.Time) *Retention {
	t.Helper()
	must(t, book.write(waits(t), "", func(ctx context.Context, tx tx) error {
		return tx.exec(ctx, "UPDATE counter SET value = $2 WHERE name = $1", clockRetention, last.UnixNano())
	}))
	return NewRetention(RetentionOptions{Book: book, Audit: audit, Logger: slog.New(slog.DiscardHandler)})
}

// passes lets time go by: one pass at each of these moments, each by another replica.
func passes(t testing.TB, book *Book, audit time.Duration, at ...time.Duration) {
	t.Helper()
	for _, after := range at {
		now := time.Now().Add(after)
		must(t, retains(t, book, audit, now.Add(-retentionEvery)).pass(waits(t), now))
	}
}

// rows counts what a condition holds for.
func rows(t testing.TB, book *Book, of string) (n int) {
	t.Helper()
	must(t, book.read(waits(t), func(ctx context.Context, tx tx) error { return tx.one(ctx, "SELECT count(*) FROM "+of).Scan(&n) }))
	return n
}

// dropped makes a key and deletes it.
func dropped(t testing.TB, book *Book, n int) {
	t.Helper()
	k := revoke(t, book, made(t, book, aKey("acme", n)))
	must(t, book.DeleteKey(waits(t), "acme", k.ID, nil, tester))
}

func TestDeletionsAreKeptForAMonthAndNotForTwo(t *testing.T) {
	onBoth(t, func(t *testing.T, place Options) {
		book := withKeys(t, place)
		for n := range 2*takenAtOnce + 7 { // More than one transaction takes out.
			must(t, book.write(waits(t), clockIdentity, func(ctx context.Context, tx tx) error { return bury(ctx, tx, kindKey, aKey("acme", n).ID) }))
		}
		many := rows(t, book, "gone")
		passes(t, book, 0, 0, day, 29*day)
		if n := rows(t, book, "gone"); n != many {
			t.Errorf("after a month %d of %d are left", n, many)
		}
		dropped(t, book, 1000)
		passes(t, book, 0, 31*day)
		if n := rows(t, book, "gone"); n != 1 {
			t.Errorf("after more than a month there are %d, want the one that came later", n)
		}
		passes(t, book, 0, 62*day)
		if n := rows(t, book, "gone"); n != 0 {
			t.Errorf("after two months %d are left", n)
		}
	})
}

func TestDeletionsAreBoundedInNumber(t *testing.T) {
	onBoth(t, func(t *testing.T, place Options) {
		book := withKeys(t, place)
		for n := range 5 {
			dropped(t, book, n)
		}
		r := retains(t, book, 0, time.Unix(0, 0))
		r.maxGone = 3
		must(t, r.pass(waits(t), time.Now()))
		if n := rows(t, book, "gone"); n != 3 {
			t.Errorf("there are %d", n)
		}
	})
}

// A process that was suspended for months has missed deletions that nobody tells any more.
func TestWhoMissedADeletionThatIsNotToldAnyMoreReadsEverythingAnew(t *testing.T) {
	onBoth(t, func(t *testing.T, place Options) {
		book, other := withKeys(t, place), openedAt(t, place)
		stays := made(t, book, aKey("acme", 1))
		goes := revoke(t, book, made(t, book, aKey("acme", 2)))
		asleep, awake, whole := make(chan struct{}), make(chan struct{}), false
		ended := make(chan error, 1)
		go func() {
			ended <- other.Follow(waits(t), func(c auth.Change) {
				if whole && c.Key != nil { // The first change after everything was read.
					close(asleep)
					<-awake
					whole = false
				}
				if c.Gone == goes.ID {
					t.Error("it was told, and this test shows nothing")
				}
			}, func() { whole = true; go func() { revoke(t, book, made(t, book, aKey("acme", 3))) }() })
		}()
		<-asleep
		for rows(t, book, "api_key WHERE revoked_at > 0") < 2 { // Until the change that woke it is over.
			wait(waits(t), time.Millisecond)
		}
		must(t, book.DeleteKey(waits(t), "acme", goes.ID, nil, tester))
		passes(t, book, 0, 0, 31*day)
		made(t, book, aKey("acme", 4))
		close(awake)
		if err := <-ended; err == nil || !strings.Contains(err.Error(), "read anew") || strings.Contains(err.Error(), "cannot be reached") {
			t.Errorf("it went on: %v", err)
		}
		again := following(t, other)
		again.agrees(t, book)
		if _, there := again.keys[goes.ID]; there || again.keys[stays.ID].ID == "" {
			t.Errorf("%+v", again.keys)
		}
	})
}

// A router that was away for months starts from its file, in which a key stands that was deleted, and nobody tells of it any more.
func TestAStartFromAnOldSnapshotDoesNotKeepWhatIsNotToldAnyMore(t *testing.T) {
	onBoth(t, func(t *testing.T, place Options) {
		book := withKeys(t, place)
		peppers, err := auth.NewPeppers("0123456789abcdef0123456789abcdef")
		must(t, err)
		k := auth.Key{Organization: "acme"}
		secret, _, err := peppers.Make(&k)
		must(t, err)
		k = made(t, book, k)
		options := auth.KeysOptions{Ledger: book, Peppers: peppers, TTL: time.Hour, StaleIfError: day, File: t.TempDir() + "/keys.snapshot"}
		run := func(until func(*auth.Keys) bool) {
			t.Helper()
			keys := auth.NewKeys(options)
			ctx, cancel := context.WithCancel(waits(t))
			ended := make(chan error, 1)
			go func() { ended <- keys.Run(ctx) }()
			for !until(keys) {
				if wait(ctx, time.Millisecond); ctx.Err() != nil {
					t.Fatal(ctx.Err())
				}
			}
			cancel()
			must(t, <-ended)
		}
		knows := func(keys *auth.Keys) bool { _, err := keys.Validate(t.Context(), secret.Reveal()); return err == nil }
		run(func(keys *auth.Keys) bool { return keys.Status().Current && knows(keys) })
		revoke(t, book, k)
		must(t, book.DeleteKey(waits(t), "acme", k.ID, nil, tester))
		passes(t, book, 0, 0, 31*day)
		if n := rows(t, book, "gone"); n != 0 {
			t.Fatal("the deletion is still told", n)
		}
		run(func(keys *auth.Keys) bool { return keys.Status().Current && !knows(keys) && keys.Status().Keys == 0 })
	})
}

// noted puts entries into the audit that were made so long ago, in this order.
func noted(t testing.TB, book *Book, ago ...time.Duration) {
	t.Helper()
	must(t, book.write(waits(t), "", func(ctx context.Context, tx tx) error {
		entries := make([]auth.Entry, 0, len(ago))
		for _, d := range ago {
			entries = append(entries, auth.Entry{At: time.Now().Add(-d), Actor: "ada", Reason: d.String()})
		}
		return addEntries(ctx, tx, entries...)
	}))
}

func TestTheAuditIsKeptForAsLongAsIsAsked(t *testing.T) {
	hours := func(entries []auth.Entry) string {
		var all []string
		for _, e := range entries {
			all = append(all, e.Reason)
		}
		return strings.Join(all, " ")
	}
	for _, test := range []struct {
		name   string
		audit  time.Duration
		ago    []time.Duration
		at     time.Duration
		want   string
		pruned bool
	}{
		{"for ever", 0, []time.Duration{300 * day, day}, 0, "24h0m0s 7200h0m0s", false},
		{"nothing is old", 10 * day, []time.Duration{9 * day, day}, 0, "24h0m0s 216h0m0s", false},
		{"some are old", 10 * day, []time.Duration{300 * day, 11 * day, 9 * day, day}, 0, "24h0m0s 216h0m0s", true},
		{"all are old", 10 * day, []time.Duration{300 * day, 11 * day}, 0, "", true},
		{"a clock was behind", 10 * day, []time.Duration{11 * day, 9 * day, 20_000 * day, day}, 0, "24h0m0s 480000h0m0s 216h0m0s", true},
		{"a clock was ahead", 10 * day, []time.Duration{12 * day, -2000 * day, 11 * day, day}, 0, "24h0m0s", true},
		{"the clock is behind, as once before", 10 * day, []time.Duration{9 * day, day, 20_000 * day}, -20_000*day + time.Hour, "480000h0m0s 24h0m0s 216h0m0s", false},
		{"there are none", 10 * day, nil, 0, "", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			onBoth(t, func(t *testing.T, place Options) {
				book := openedAt(t, place)
				noted(t, book, test.ago...)
				begun := time.Now()
				passes(t, book, test.audit, test.at)
				if got := hours(whole(t, book, auth.AuditFilter{})); got != test.want {
					t.Errorf("left is %q, want %q", got, test.want)
				}
				since, err := book.AuditSince(waits(t))
				if err != nil || since.IsZero() == test.pruned || test.pruned && since.Sub(begun.Add(-test.audit)).Abs() > time.Minute {
					t.Errorf("it is said to reach back to %s, %v", since, err)
				}
				must(t, book.Note(waits(t), auth.Entry{Actor: "later"}))
				if got := whole(t, book, auth.AuditFilter{Actor: "later"}); len(got) != 1 || got[0].Sequence != int64(len(test.ago)+1) {
					t.Errorf("the next entry: %+v", got)
				}
			})
		})
	}
}

// What is taken out cannot be had back, and a clock may be years ahead.
func TestNothingGoesFromTheAuditByAClockThatNoOtherBearsOut(t *testing.T) {
	onBoth(t, func(t *testing.T, place Options) {
		book := openedAt(t, place)
		noted(t, book, 9*day, day)
		now := time.Now()
		wrong := retains(t, book, 10*day, now)
		for _, after := range []time.Duration{0, retentionEvery} {
			must(t, wrong.pass(waits(t), now.Add(400*day+after)))
			if n := rows(t, book, "audit"); n != 2 {
				t.Fatal("left are", n)
			}
			passes(t, book, 10*day, after+retentionEvery/2) // Another replica, whose clock is right.
		}
		passes(t, book, 10*day, 2*day) // By now one entry is old.
		if n := rows(t, book, "audit"); n != 1 {
			t.Error("left are", n)
		}
	})
}

// Others change the book meanwhile, and each entry of theirs is there.
func TestManyEntriesAreTakenOutWhileTheBookIsChanged(t *testing.T) {
	onBoth(t, func(t *testing.T, place Options) {
		book, other := withKeys(t, place), openedAt(t, place)
		before := rows(t, book, "audit")
		old := make([]time.Duration, 7*takenAtOnce+1)
		for i := range old {
			old[i] = 400 * day
		}
		noted(t, book, old...)
		registry := prometheus.NewRegistry()
		var log strings.Builder
		retains(t, book, 0, time.Now().Add(-retentionEvery))
		r := NewRetention(RetentionOptions{Book: book, Audit: 365 * day, Metrics: registry, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		must(t, book.write(waits(t), "", func(ctx context.Context, tx tx) error {
			return tx.exec(ctx, "UPDATE audit SET made_at = made_at - $1 WHERE actor <> 'ada'", int64(400*day))
		}))
		ended := make(chan error, 1)
		go func() { ended <- r.pass(waits(t), time.Now()) }()
		const changes = 20
		for i := range changes {
			made(t, other, aKey("acme", i))
		}
		must(t, <-ended)
		if n := rows(t, book, "audit"); n != changes {
			t.Errorf("%d entries are left, want %d", n, changes)
		}
		if n := testutil.ToFloat64(r.removed.WithLabelValues(tableAudit)); n != float64(before+len(old)) {
			t.Errorf("%v are counted, want %d", n, before+len(old))
		}
		if strings.Count(log.String(), "entries of the audit") != 1 || !strings.Contains(log.String(), "removed=704") {
			t.Error(log.String())
		}
	})
}

func TestOneReplicaAtATimeTakesOutWhatIsOld(t *testing.T) {
	onBoth(t, func(t *testing.T, place Options) {
		book, other := openedAt(t, place), openedAt(t, place)
		first, second := NewRetention(RetentionOptions{Book: book, Audit: day}), NewRetention(RetentionOptions{Book: other, Audit: day})
		now := time.Now()
		for _, step := range []struct {
			r    *Retention
			at   time.Duration
			ours bool
		}{
			{first, 0, true},
			{second, time.Minute, false},
			{first, time.Minute, false},
			{second, retentionEvery, true},
			{first, 100 * day, true}, // Its clock is wrong.
			{second, 2 * retentionEvery, true},
		} {
			ours, err := step.r.begin(waits(t), now.Add(step.at))
			if err != nil || ours != step.ours {
				t.Errorf("%+v: %v, %v", step, ours, err)
			}
		}
		noted(t, book, 2*day)
		if err := first.takeEntries(waits(t), now); !errors.Is(err, errTakenOver.error) || rows(t, book, "audit") != 1 {
			t.Errorf("one that stood still goes on: %v", err)
		}
	})
}
