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
	// Size bounds how many credentials are remembered, accepted and refused ones together. Refused ones are forgotten first, because anybody
	// can send them, and of each kind the one that was not used for longest. 0: 65,536, which take about 20 MiB.
	Size int
	// Pass names credentials that the validator answers without asking anybody: they go straight to it, and nothing is remembered of them. Nil: none.
	Pass func(credential string) bool
}

const (
	defaultCacheSize = 1 << 16
	defaultAsking    = 5 * time.Second
	// maxQuestions is how many credentials are asked about at once: each takes some memory, whether or not who sent it still waits.
	maxQuestions = 1 << 12
	// maxStrangers is how many credentials that were not accepted before may be before the validator at once. Anybody can send those: however many
	// come, there is room to ask whether a known one still holds.
	maxStrangers = 48
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
	return &cache{
		CacheOptions: opts, validator: v, known: map[Digest]*list.Element{}, asking: map[Digest]*question{}, strangers: make(chan struct{}, maxStrangers),
	}
}

type cache struct {
	CacheOptions
	validator Validator
	strangers chan struct{}

	mu       sync.Mutex
	known    map[Digest]*list.Element // of *verdict, in one of the two lists, where the latest used is first
	accepted list.List
	refused  list.List
	asking   map[Digest]*question
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
	if c.Pass != nil && c.Pass(credential) {
		return c.validator.Validate(ctx, credential)
	}
	digest, now := Fingerprint(credential), time.Now()
	c.mu.Lock()
	known, again := c.look(digest, now)
	if known != nil && !again {
		p, err := known.principal, known.refusal
		c.mu.Unlock()
		return p, err
	}
	q, ok := c.asking[digest]
	stranger := c.stranger(digest)
	if !ok && stranger && len(c.asking) >= maxQuestions {
		defer c.mu.Unlock()
		return c.learn(digest, Principal{}, errTooMany, now)
	}
	if !ok {
		q = &question{done: make(chan struct{})}
		c.asking[digest] = q
		go c.ask(q, digest, credential, stranger) //nolint:gosec // It belongs to all who wait, and not to who came first.
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
	known = element.Value.(*verdict) //nolint:forcetypeassert // The lists hold nothing else.
	if !now.Before(known.until) {
		if known.spared.IsZero() || !c.stale(known, now) {
			return nil, false
		}
		again = !now.Before(known.spared)
	}
	c.kind(known).MoveToFront(element)
	return known, again
}

// stale reports whether an accepted credential may go on without an answer.
func (c *cache) stale(known *verdict, now time.Time) bool {
	return known.refusal == nil && now.Before(known.until.Add(c.StaleIfError)) && !known.principal.ended(now)
}

// stranger reports whether a credential is none that was accepted when it was last judged.
func (c *cache) stranger(digest Digest) bool {
	element, ok := c.known[digest]
	return !ok || element.Value.(*verdict).refusal != nil //nolint:forcetypeassert // The lists hold nothing else.
}

func (p *Principal) ended(now time.Time) bool {
	return !p.ExpiresAt.IsZero() && !now.Before(p.ExpiresAt)
}

// ask asks the validator and tells those who wait. A panic of the validator is an answer that is none.
func (c *cache) ask(q *question, digest Digest, credential string, stranger bool) {
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
	if stranger {
		select {
		case c.strangers <- struct{}{}:
			defer func() { <-c.strangers }()
		case <-ctx.Done():
			err = errTooMany
			return
		}
	}
	p, err = c.validator.Validate(ctx, credential)
}

var (
	errPanicked = errors.New("the validator failed: this is a bug")
	errTooMany  = errors.New("too many credentials are being asked about")
)

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
		known := element.Value.(*verdict) //nolint:forcetypeassert // The lists hold nothing else.
		if c.stale(known, now) {
			known.spared = now.Add(spared)
			return known.principal, nil
		}
		c.forget(element)
	}
	if _, ok := errors.AsType[*fault.Error](err); !ok {
		err = unavailable("whose key this is cannot be told now, because who knows it does not answer; retry in a moment").WithCause(err)
	}
	return Principal{}, err
}

// keep remembers a verdict, in the place of an earlier one, or of what is forgotten first.
func (c *cache) keep(v verdict) {
	if element, ok := c.known[v.digest]; ok {
		c.forget(element)
	}
	for len(c.known) >= c.Size {
		last := c.refused.Back()
		if last == nil {
			last = c.accepted.Back()
		}
		c.forget(last)
	}
	c.known[v.digest] = c.kind(&v).PushFront(&v)
}

// kind is the list that a verdict belongs to.
func (c *cache) kind(v *verdict) *list.List {
	if v.refusal != nil {
		return &c.refused
	}
	return &c.accepted
}

// forget forgets a verdict.
func (c *cache) forget(element *list.Element) {
	v := element.Value.(*verdict) //nolint:forcetypeassert // The lists hold nothing else.
	delete(c.known, v.digest)
	c.kind(v).Remove(element)
}
