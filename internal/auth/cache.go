package auth

import (
	"cmp"
	"container/list"
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/ai-aas/api-router/internal/fault"
)

// CacheOptions are how Cached remembers.
type CacheOptions struct {
	// TTL is how long an accepted credential is not asked about again; its own end may come sooner.
	TTL time.Duration
	// NegativeTTL is the same for a credential that was refused.
	NegativeTTL time.Duration
	// StaleIfError is how long after TTL an accepted credential is accepted while the validator cannot tell.
	StaleIfError time.Duration
	// Timeout bounds one question, whoever waits for it. 0: five seconds.
	Timeout time.Duration
	// Size bounds how many credentials are remembered, accepted and refused ones together; the one that was not used for longest is
	// forgotten first. 0: 65,536, which take about 20 MiB.
	Size int
}

const (
	defaultCacheSize = 1 << 16
	defaultAsking    = 5 * time.Second
	// spared is how long nobody is asked again about a credential that can go on as it is, after a question that found no answer.
	spared = time.Second
)

// Cached remembers what a validator that has to ask elsewhere says, by the SHA-256 of the whole credential.
//
// Those who ask about one credential at the same time share one question. It goes on when the one who asked first leaves, and each of them
// waits as long as their own context lets them. A refusal (401 or 403) is remembered and ends what was accepted before. What is no decision is
// not remembered: then an accepted credential goes on for StaleIfError, and any other gets identity_unavailable.
func Cached(v Validator, opts CacheOptions) Validator {
	opts.Size = cmp.Or(opts.Size, defaultCacheSize)
	opts.Timeout = cmp.Or(opts.Timeout, defaultAsking)
	return &cache{CacheOptions: opts, validator: v, known: map[Digest]*list.Element{}, asking: map[Digest]*question{}}
}

type cache struct {
	CacheOptions
	validator Validator

	mu     sync.Mutex
	known  map[Digest]*list.Element // of *verdict
	recent list.List                // the latest used first
	asking map[Digest]*question
}

// verdict is what was last said about a credential.
type verdict struct {
	digest    Digest
	principal Principal
	refusal   error // nil: it was accepted
	until     time.Time
	spared    time.Time // after a question without an answer: when the next may be asked
}

// question is one that is being asked.
type question struct {
	done      chan struct{}
	principal Principal
	err       error
}

// Validate implements Validator.
func (c *cache) Validate(ctx context.Context, credential string) (Principal, error) {
	digest, now := Fingerprint(credential), time.Now()
	c.mu.Lock()
	known, again := c.look(digest, now)
	if known != nil && !again {
		p, err := known.principal, known.refusal
		c.mu.Unlock()
		return p, err
	}
	q, ok := c.asking[digest]
	if !ok {
		q = &question{done: make(chan struct{})}
		c.asking[digest] = q
		go c.ask(q, digest, credential) //nolint:gosec // It belongs to all who wait, and not to who came first.
	}
	if known != nil {
		p := known.principal
		c.mu.Unlock()
		return p, nil
	}
	c.mu.Unlock()
	select {
	case <-q.done:
		return q.principal, q.err
	case <-ctx.Done():
		return Principal{}, left(ctx)
	}
}

// left is the error of a caller who did not wait for the answer.
func left(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return fault.New(fault.ClientClosed, "the client left before its key was judged").WithCause(context.Cause(ctx))
	}
	return unavailable("whose key this is could not be found out in time; retry in a moment").WithCause(context.Cause(ctx))
}

// look finds what needs no question, or can go on while one is asked again; nil otherwise. After a question that found no answer, a stale
// credential waits for no other.
func (c *cache) look(digest Digest, now time.Time) (known *verdict, again bool) {
	element, ok := c.known[digest]
	if !ok {
		return nil, false
	}
	known = element.Value.(*verdict) //nolint:forcetypeassert // The list holds nothing else.
	if !now.Before(known.until) {
		if known.spared.IsZero() || !c.stale(known, now) {
			return nil, false
		}
		again = !now.Before(known.spared)
	}
	c.recent.MoveToFront(element)
	return known, again
}

// stale reports whether an accepted credential may go on without an answer.
func (c *cache) stale(known *verdict, now time.Time) bool {
	return known.refusal == nil && now.Before(known.until.Add(c.StaleIfError)) && !known.principal.ended(now)
}

func (p *Principal) ended(now time.Time) bool {
	return !p.ExpiresAt.IsZero() && !now.Before(p.ExpiresAt)
}

// ask asks the validator and tells those who wait. A panic of the validator is an answer that is none.
func (c *cache) ask(q *question, digest Digest, credential string) {
	ctx, cancel := context.WithTimeout(context.Background(), c.Timeout)
	defer cancel()
	p, err := Principal{}, errPanicked
	defer func() {
		if v := recover(); v != nil {
			err = errPanicked
		}
		c.mu.Lock()
		q.principal, q.err = c.learn(digest, p, err, time.Now())
		delete(c.asking, digest)
		c.mu.Unlock()
		close(q.done)
	}()
	p, err = c.validator.Validate(ctx, credential)
}

var errPanicked = errors.New("the validator failed: this is a bug")

// learn takes the answer to a question, and says what it means for those who wait.
func (c *cache) learn(digest Digest, p Principal, err error, now time.Time) (Principal, error) {
	switch status := fault.CodeOf(err).Status(); {
	case err == nil && p.ended(now):
		err = fault.New(fault.ExpiredAPIKey, "this credential has expired; use another, or ask the operator for one")
		c.keep(verdict{digest: digest, refusal: err, until: now.Add(c.NegativeTTL)})
		return Principal{}, err
	case err == nil:
		until := now.Add(c.TTL)
		if !p.ExpiresAt.IsZero() && p.ExpiresAt.Before(until) {
			until = p.ExpiresAt
		}
		c.keep(verdict{digest: digest, principal: p, until: until})
		return p, nil
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		c.keep(verdict{digest: digest, refusal: err, until: now.Add(c.NegativeTTL)})
		return Principal{}, err
	}
	if element, ok := c.known[digest]; ok {
		known := element.Value.(*verdict) //nolint:forcetypeassert // The list holds nothing else.
		if c.stale(known, now) {
			known.spared = now.Add(spared)
			return known.principal, nil
		}
		c.recent.Remove(element)
		delete(c.known, digest)
	}
	if _, ok := errors.AsType[*fault.Error](err); !ok {
		err = unavailable("whose key this is cannot be told now, because who knows it does not answer; retry in a moment").WithCause(err)
	}
	return Principal{}, err
}

// keep remembers a verdict, in the place of an earlier one or of the one that was not used for longest.
func (c *cache) keep(v verdict) {
	if element, ok := c.known[v.digest]; ok {
		*element.Value.(*verdict) = v //nolint:forcetypeassert // The list holds nothing else.
		c.recent.MoveToFront(element)
		return
	}
	for len(c.known) >= c.Size {
		last := c.recent.Back()
		delete(c.known, c.recent.Remove(last).(*verdict).digest) //nolint:forcetypeassert // The list holds nothing else.
	}
	c.known[v.digest] = c.recent.PushFront(&v)
}
