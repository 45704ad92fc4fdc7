package auth

import (
	"cmp"
	"context"
	"crypto/subtle"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/ai-aas/api-router/internal/fault"
)

// AdminLedger is where admins are kept, as the admin listener needs them.
type AdminLedger interface {
	// FollowAdmins publishes all of them, and all of them again within five seconds of every change. It returns when ctx ends or when the
	// ledger cannot be reached; it is then called again, after a pause.
	FollowAdmins(ctx context.Context, publish func([]Admin)) error
}

// AdminsOptions are what Admins needs.
type AdminsOptions struct {
	Logger *slog.Logger
	Ledger AdminLedger
	// Stale is how long admins are let in after the ledger was last heard of. Then they are answered 503.
	Stale time.Duration
	// Metrics is where the metrics are registered; nil: nowhere.
	Metrics prometheus.Registerer
}

// Admins say whose the token of an Admin is. They follow their ledger in the background and answer from memory: no request waits for I/O.
//
// Known ones go on while the ledger is away, until they expire, and end in 503 after Stale. A token that is not known is 401 only while the
// ledger is followed; otherwise it is 503, because nobody can tell.
type Admins struct {
	AdminsOptions
	roll atomic.Pointer[roll]
}

// roll is what is known of the ledger at a time. It is never changed: another takes its place.
type roll struct {
	byID    map[string]Admin // nil: the ledger was never read
	current bool             // the ledger is followed
	heard   time.Time        // when it was last, if it is not
	failure failure          // why it is not; zero while it is, or before the first attempt has ended
}

// NewAdmins returns Admins that know nobody. It dials nothing; Run does.
func NewAdmins(opts AdminsOptions) *Admins {
	a := &Admins{AdminsOptions: opts}
	a.Logger = cmp.Or(a.Logger, slog.New(slog.DiscardHandler))
	a.roll.Store(&roll{})
	factory := promauto.With(opts.Metrics)
	factory.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "api_router_admin_book_admins", Help: "Admins of the state book that this process knows, revoked and expired ones included.",
	}, func() float64 { return float64(len(a.roll.Load().byID)) })
	factory.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "api_router_admin_book_up", Help: "1 while the admins of the state book are followed and all of them are known.",
	}, func() float64 {
		if a.roll.Load().current {
			return 1
		}
		return 0
	})
	return a
}

// Run follows the ledger until ctx ends, again and again. It returns nil.
func (a *Admins) Run(ctx context.Context) error {
	for wait := followFirst; ctx.Err() == nil; wait = min(2*wait, followLongest) {
		began, read := time.Now(), false
		err := a.Ledger.FollowAdmins(ctx, func(all []Admin) { read = true; a.take(all) })
		if ctx.Err() != nil {
			break
		}
		if read && time.Since(began) > followLongest {
			wait = followFirst
		}
		a.lost(err)
		pause(ctx, wait/2+rand.N(wait/2))
	}
	return nil
}

// take puts what the ledger says in the place of what was known.
func (a *Admins) take(all []Admin) {
	next := &roll{byID: make(map[string]Admin, len(all)), current: true}
	for i := range all {
		next.byID[all[i].ID] = all[i]
	}
	before := a.roll.Swap(next)
	switch {
	case before.byID == nil:
		a.Logger.Info("the admins of the state book are loaded", "admins", len(all))
	case !before.current:
		a.Logger.Info("the admins of the state book are followed again", "admins", len(all), "away", time.Since(before.failure.since).Round(time.Millisecond).String())
	}
}

// lost notes that the ledger is not followed any more.
func (a *Admins) lost(err error) {
	if err == nil {
		err = errors.New("the ledger has ended its report")
	}
	before, now := a.roll.Load(), time.Now()
	next := &roll{byID: before.byID, heard: before.heard, failure: failure{err.Error(), now}}
	if before.current {
		next.heard = now
	} else if before.failure.text != "" {
		next.failure.since = before.failure.since
	}
	a.roll.Store(next)
	if before.failure.text != next.failure.text {
		a.Logger.Error("the admins of the state book cannot be followed: known ones go on, others get 503, tokens of the configuration work", "error", err)
	}
}

// Find says whose a token is. Its errors are faults: 401 for one that is damaged, unknown, revoked or expired, 503 where nobody can tell.
func (a *Admins) Find(token string) (Admin, error) {
	id, known, now := adminID(token), a.roll.Load(), time.Now()
	if id == "" {
		return Admin{}, fault.New(fault.InvalidAPIKey, "the admin token is damaged: its checksum is wrong; compare it with the one you were given, character by character")
	}
	found, there := known.byID[id] // The id is no secret.
	digest := Fingerprint(token)
	switch {
	case there && found.Damage != "":
		return Admin{}, unavailable("what is kept of this admin token cannot be read: \"api-router admin list\" names it; ask an admin for another")
	case !there || subtle.ConstantTimeCompare(digest[:], found.Digest[:]) != 1:
		if !known.current {
			return Admin{}, adminUnavailable("whose admin token this is cannot be told now, because the state book cannot be reached")
		}
		return Admin{}, fault.New(fault.InvalidAPIKey, "this admin token is not known here: \"api-router admin list\" shows whose are; ask an admin for another")
	case !found.RevokedAt.IsZero():
		return Admin{}, fault.Newf(fault.RevokedAPIKey, "the admin token of %s was revoked; ask an admin for another", found.Name)
	case !found.ExpiresAt.IsZero() && !now.Before(found.ExpiresAt):
		return Admin{}, fault.Newf(fault.ExpiredAPIKey, "the admin token of %s has expired; ask an admin for another, or for a later end", found.Name)
	case !known.current && now.After(known.heard.Add(a.Stale)):
		return Admin{}, adminUnavailable("the state book was out of reach for too long to trust what is known of its admins")
	}
	return found, nil
}

func adminUnavailable(what string) error {
	return unavailable(what + ": mend the state book of state.url, see /status; a token of identity.admin_tokens works meanwhile")
}

// AdminsStatus is how Admins are.
type AdminsStatus struct {
	Admins int
	// Current says that the ledger is followed; Known, that it was read once.
	Current, Known bool
	// Heard is when the ledger last stood behind what is known; zero: never.
	Heard time.Time
	// Failure says why it is not followed, since Since; "" while it is, or before the first attempt has ended.
	Failure string
	Since   time.Time
}

// Status says how a is.
func (a *Admins) Status() AdminsStatus {
	known := a.roll.Load()
	s := AdminsStatus{
		Admins: len(known.byID), Current: known.current, Known: known.byID != nil, Heard: known.heard, Failure: known.failure.text, Since: known.failure.since,
	}
	if s.Current {
		s.Heard = time.Now()
	}
	return s
}
