package auth

import (
	"cmp"
	"context"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ai-aas/api-router/internal/fault"
)

// SourceState is the name of Keys among the validators.
const SourceState = "state"

// retryIdentity is when a client should come back whose key could not be judged.
const retryIdentity = time.Second

// KeysOptions are what Keys needs.
type KeysOptions struct {
	Logger  *slog.Logger
	Ledger  Ledger
	Peppers Peppers
	// TTL is how long keys are served after the ledger was last heard of without being called stale; StaleIfError how long after that they are
	// served still. Then they are answered 503.
	TTL, StaleIfError time.Duration
	// File is where a copy of the keys' digests is kept, for a start without the ledger; "": nowhere. Several processes may share one.
	File string
	// Book is which ledger this is: a copy that was written for another is not used.
	Book string
	// Metrics is where the metrics are registered; nil: nowhere.
	Metrics prometheus.Registerer
}

// Keys is the Validator of the keys that a Ledger holds. It follows the ledger in the background and answers from memory: no request waits
// for I/O. It verifies signatures, too.
//
// A known key goes on while the ledger is away, and ends in 503 identity_unavailable after TTL and StaleIfError. A key that is not known is
// 401 only while what is in memory is whole and the ledger is being followed; otherwise it is 503, because nobody can tell.
type Keys struct {
	KeysOptions
	table  atomic.Pointer[table]
	nonces nonces
	// heard is when the ledger was last known to stand behind the table, in Unix milliseconds: 0 never. While it is followed, that is now.
	heard atomic.Int64
	// current says that all of the ledger is in the table, and that it is being followed.
	current atomic.Bool
	// known says that all of the ledger was in the table once, in this process or in the one that wrote the file.
	known atomic.Bool
	// whole says that what is in the table was all of the ledger at one time, and its changes since: not the middle of a report.
	whole   atomic.Bool
	failure atomic.Pointer[failure]
	// position is that of the ledger's clock up to which its changes are in the table; loaded, since when they are followed without a gap, in
	// Unix milliseconds: positions of before may be of another time of the ledger's.
	position, loaded atomic.Int64
	own              [macLength]byte // of the body that this process wrote last; of flush alone
	shares           bool            // that others write the file has been told; of flush alone
	// hasty asks for the file to be written soon.
	hasty chan struct{}
	// changes counts those of the table, for the file.
	changes atomic.Int64
	misfits atomic.Int64 // keys of the ledger that have no place in the table: see take
	// first is closed when all keys were there for the first time in this process.
	first     chan struct{}
	wholeOnce sync.Once
}

// failure is what keeps the ledger from being followed, and since when.
type failure struct {
	text  string
	since time.Time
}

// NewKeys returns Keys without any. It dials and reads nothing; Run does.
func NewKeys(opts KeysOptions) *Keys {
	k := &Keys{KeysOptions: opts, first: make(chan struct{}), hasty: make(chan struct{}, 1)}
	k.Logger = cmp.Or(k.Logger, slog.New(slog.DiscardHandler))
	k.table.Store(newTable())
	k.nonces.init()
	k.register(opts.Metrics)
	return k
}

// Validate implements Validator.
//
// Of the digests that a ledger holds, one is compared: the id in the key names it, and its pepper.
func (k *Keys) Validate(_ context.Context, credential string) (Principal, error) {
	t, now := k.table.Load(), time.Now()
	well := WellFormed(credential)
	if well {
		id := keyID([]byte(credential[idStart:idEnd]))
		if e, g, ok := t.find(id); ok && e.pepper > 0 {
			pepper := k.Peppers.version(int(e.pepper))
			if e.pepper == unreadable {
				return Principal{}, unavailable("this key cannot be judged here, because of what the router has of it; ask its operator, who finds the reason in the router's log")
			}
			if pepper == nil {
				return Principal{}, unavailable("this key was made under a pepper that this router does not have: its operator can add it").WithCause(errPepper)
			}
			if pepper.matches(credential, &e.digest) {
				return k.judge(t, &e, g, credential[idStart:idEnd], now)
			}
		}
	}
	if t.imported.Load() > 0 {
		if e, g, ok := t.print(Fingerprint(credential)); ok {
			return k.judge(t, &e, g, string(e.id[:]), now)
		}
	}
	return Principal{}, k.unknown(credential, well)
}

// judge says what becomes of a key that is known.
func (k *Keys) judge(t *table, e *entry, g *grant, id string, now time.Time) (Principal, error) {
	millis := now.UnixMilli()
	switch {
	case e.revoked:
		return Principal{}, fault.New(fault.RevokedAPIKey, "this API key was revoked; use another, or ask the operator for one")
	case e.expires != 0 && millis >= e.expires:
		return Principal{}, fault.New(fault.ExpiredAPIKey, "this API key has expired; use another, or ask the operator for one")
	}
	organization := g.organization
	switch organization.state.Load() {
	case ownerDisabled:
		return Principal{}, switchedOff()
	case ownerUnknown:
		return Principal{}, unavailable("the keys are still being loaded; retry in a moment")
	}
	if !k.current.Load() && now.After(time.UnixMilli(k.heard.Load()).Add(k.TTL+k.StaleIfError)) {
		return Principal{}, unavailable("the place of the keys was out of reach for too long to trust what is known; retry later")
	}
	if millis/1000-int64(e.used) >= useEvery {
		t.use(e.id, millis)
	}
	p := Principal{Organization: organization.id, KeyID: id, Source: SourceState, Project: g.project, Scopes: g.scopes}
	if e.expires != 0 {
		p.ExpiresAt = time.UnixMilli(e.expires)
	}
	return p, nil
}

// unknown says why a credential is not accepted that no key fits.
func (k *Keys) unknown(credential string, well bool) error {
	switch {
	case ours(credential) && !well:
		return fault.New(fault.InvalidAPIKey, "the API key is damaged: its checksum is wrong; compare it with the one you were given, character by character")
	case k.current.Load():
		return fault.New(fault.InvalidAPIKey, "the API key is not known here; check the key, or ask the operator for one")
	}
	e := unavailable("whose key this is cannot be told now, because the place of the keys cannot be reached; retry in a moment")
	_, development := developmentOrganization(credential)
	if development || LooksSigned(credential) || !well && k.known.Load() && k.table.Load().imported.Load() == 0 {
		return undecided{e} // It is another validator's, or does not look like one of these, and of other forms there were none.
	}
	return e
}

// LooksSigned reports whether a credential has the form of a signed token (JWT), whoever made it.
func LooksSigned(credential string) bool {
	return strings.HasPrefix(credential, "eyJ") && strings.Count(credential, ".") == 2
}

func switchedOff() error {
	return fault.New(fault.OrganizationDisabled, "the organization of this API key is switched off; ask the operator")
}

// Guard holds what another validator accepts to the organizations of the ledger: one that is switched off there is refused whoever vouches for
// its callers. One that the ledger does not know is none of its business, nor is any before the ledger was heard.
func (k *Keys) Guard(v Validator) Validator { return guard{k, v} }

type guard struct {
	keys *Keys
	Validator
}

// Validate implements Validator.
func (g guard) Validate(ctx context.Context, credential string) (Principal, error) {
	p, err := g.Validator.Validate(ctx, credential)
	if err == nil && g.keys.table.Load().disabled(p.Organization) {
		return Principal{}, switchedOff()
	}
	return p, err
}

func unavailable(message string) *fault.Error {
	return fault.New(fault.IdentityUnavailable, message).WithRetryAfter(retryIdentity)
}

// undecided is the error of a validator that cannot tell now, about a credential that is hardly one of its own: the next one may be asked.
// If nobody accepts the credential, it is the answer.
type undecided struct{ fault *fault.Error }

// Error is that of the fault.
func (u undecided) Error() string { return u.fault.Error() }

// Unwrap gives the fault itself.
func (u undecided) Unwrap() error { return u.fault }

// KeysStatus is how Keys is.
type KeysStatus struct {
	Keys, Imported int64
	// Unusable are keys of the ledger that cannot be used: their pepper is not there or another one, or what is kept of them cannot be read.
	Unusable int64
	// Current says that all keys are there and the ledger is followed.
	Current bool
	// Known says that all keys were there once: what is in memory may be old, but it is whole.
	Known bool
	// Heard is when the ledger last stood behind what is in memory; zero: never.
	Heard time.Time
	// Failure says why the ledger is not followed, since Since; "" while it is, or before the first attempt has ended.
	Failure string
	Since   time.Time
}

// Status says how k is.
func (k *Keys) Status() KeysStatus {
	t := k.table.Load()
	s := KeysStatus{Keys: t.count.Load(), Imported: t.imported.Load(), Unusable: k.unusable(), Current: k.current.Load(), Known: k.known.Load()}
	if heard := k.heard.Load(); heard != 0 {
		s.Heard = time.UnixMilli(heard)
	}
	if s.Current {
		s.Heard = time.Now()
	} else if f := k.failure.Load(); f != nil {
		s.Failure, s.Since = f.text, f.since
	}
	return s
}

// unusable counts the keys of the ledger that cannot be used.
func (k *Keys) unusable() int64 { return k.table.Load().unusable.Load() + k.misfits.Load() }

// age is how long ago the ledger last stood behind what is in memory; 0 while it is followed, and where it never has.
func (k *Keys) age() time.Duration {
	heard := k.heard.Load()
	if k.current.Load() || heard == 0 {
		return 0
	}
	return max(time.Since(time.UnixMilli(heard)), 0)
}
