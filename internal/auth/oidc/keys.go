package oidc

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/ai-aas/api-router/internal/upstream"
)

const (
	refreshEvery = 10 * time.Minute
	unknownEvery = time.Minute     // how often a key that is not known may cause a fetch
	unknownWait  = time.Second     // how long a request waits for that
	fetchTimeout = 5 * time.Second // for all of a fetch
	retryFirst   = time.Second
	retryLast    = time.Minute

	maxDocument = 1 << 20
	maxKeys     = 256
	minRSA      = 2048 // bits
)

// keys are those of one issuer.
type keys struct {
	issuer  *Issuer
	log     *slog.Logger
	stale   time.Duration
	metrics *metrics
	wanted  chan struct{} // asks the loop for a fetch

	mu      sync.Mutex
	list    []jose.JSONWebKey
	heard   time.Time     // when the last fetch that had them began; zero: never
	failure string        // of the latest fetch
	since   time.Time     // when it began to fail
	asked   time.Time     // when a key that is not known last caused a fetch
	pending bool          // that fetch has not ended
	fetched chan struct{} // closed, and another put here, when a fetch has ended
}

func newKeys(i *Issuer, opts *Options, m *metrics) (*keys, error) {
	k := &keys{issuer: i, log: opts.Logger, stale: opts.Stale, metrics: m, wanted: make(chan struct{}, 1), fetched: make(chan struct{})}
	place := i.JWKS
	if place == "" {
		place = i.Issuer
	}
	if _, _, err := upstream.For(place, i.CA); err != nil {
		return nil, fmt.Errorf("the place of its keys: %w", err)
	}
	m.watch(i.Issuer, k)
	return k, nil
}

// run fetches the keys now, from time to time, and when somebody wants them.
func (k *keys) run(ctx context.Context) {
	pause := time.Duration(0)
	failed := retryFirst
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-k.wanted:
		case <-timer.C:
		}
		if k.refresh(ctx) {
			pause, failed = refreshEvery, retryFirst
		} else {
			pause, failed = failed, min(2*failed, retryLast)
		}
		timer.Reset(pause*3/4 + rand.N(pause/4+1))
	}
}

// refresh fetches once and keeps what it got.
func (k *keys) refresh(ctx context.Context) bool {
	bounded, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	began := time.Now() // What comes to the issuer after this may not be in its answer.
	list, err := k.fetch(bounded)
	if ctx.Err() != nil {
		return false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case err == nil:
		if k.failure != "" {
			k.log.Info("the keys of an issuer can be had again", "issuer", k.issuer.Issuer)
		}
		k.list, k.heard, k.failure, k.since = list, began, "", time.Time{}
	case k.failure == "":
		k.since = time.Now()
		k.log.Warn("the keys of an issuer cannot be had: known ones go on, tokens with others get 503", "issuer", k.issuer.Issuer, "error", err)
		fallthrough
	default:
		k.failure = err.Error()
	}
	k.metrics.fetched(err == nil)
	k.pending = k.asked.After(began)
	close(k.fetched)
	k.fetched = make(chan struct{})
	return err == nil
}

// find gives the public key that a token was signed with. An error says whether there is none, or whether nobody can tell: the key of a token
// that says it is younger than the keys that are known may have come after them. What it says is not proven, and decides nothing else.
func (k *keys) find(ctx context.Context, id, algorithm string, issued *jwt.NumericDate) (any, error) {
	if !slices.Contains(k.issuer.Algorithms, algorithm) {
		return nil, invalid("its issuer does not sign in this way")
	}
	k.mu.Lock()
	now := time.Now()
	key, ended, known := k.look(id, algorithm, now)
	if known {
		k.mu.Unlock()
		return key, nil
	}
	first := k.heard.IsZero() && k.failure == ""
	if !first && now.Sub(k.asked) >= unknownEvery {
		k.asked, k.pending = now, true
		select {
		case k.wanted <- struct{}{}:
		default:
		}
	}
	waits := first || k.pending
	k.mu.Unlock()
	if waits {
		wait := time.NewTimer(unknownWait)
		defer wait.Stop()
		select {
		case <-ended:
		case <-wait.C:
		case <-ctx.Done():
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if key, _, known = k.look(id, algorithm, time.Now()); known {
		return key, nil
	}
	switch {
	case k.failure != "":
		return nil, unavailable(errors.New(k.failure))
	case k.heard.IsZero() || k.pending:
		return nil, unavailable(errors.New("the keys of the issuer did not come in time"))
	case k.heard.Before(now) && (issued == nil || young(issued.Time(), k.heard, now, k.issuer.Leeway)):
		return nil, unavailable(errors.New("the keys of the issuer are fetched again in a while")).WithRetryAfter(max(unknownEvery-time.Since(k.asked), retry))
	}
	return nil, invalid("its issuer has no such key")
}

// young reports whether a token may have been made after the keys were had, and not only later than now.
func young(issued, heard, now time.Time, leeway time.Duration) bool {
	return issued.After(heard.Add(-leeway)) && issued.Before(now.Add(leeway))
}

// look finds a key among those that are known and not too old. Without an id there must be one alone that fits. It gives what ends with the next
// fetch, too.
func (k *keys) look(id, algorithm string, now time.Time) (key any, fetched <-chan struct{}, known bool) {
	if now.After(k.heard.Add(refreshEvery + k.stale)) {
		return nil, k.fetched, false
	}
	fits := 0
	for _, each := range k.list {
		if id != "" && each.KeyID != id || !usable(&each, algorithm) {
			continue
		}
		key, fits = each.Key, fits+1
	}
	return key, k.fetched, fits == 1
}

// usable reports whether a key is for signatures of an algorithm.
func usable(k *jose.JSONWebKey, algorithm string) bool {
	if k.Use != "" && k.Use != "sig" || k.Algorithm != "" && k.Algorithm != algorithm {
		return false
	}
	switch key := k.Key.(type) {
	case *rsa.PublicKey:
		return (strings.HasPrefix(algorithm, "RS") || strings.HasPrefix(algorithm, "PS")) && key.N.BitLen() >= minRSA
	case *ecdsa.PublicKey:
		return map[string]int{"ES256": 256, "ES384": 384, "ES512": 521}[algorithm] == key.Curve.Params().BitSize
	case ed25519.PublicKey:
		return algorithm == "EdDSA"
	}
	return false
}

// fetch reads the keys, and before them the document that says where they are, where that is not configured.
func (k *keys) fetch(ctx context.Context) ([]jose.JSONWebKey, error) {
	place := k.issuer.JWKS
	if place == "" {
		var found struct {
			Issuer string `json:"issuer"`
			JWKS   string `json:"jwks_uri"`
		}
		if err := k.get(ctx, strings.TrimSuffix(k.issuer.Issuer, "/")+"/.well-known/openid-configuration", &found); err != nil {
			return nil, fmt.Errorf("the discovery document: %w", err)
		}
		if found.Issuer != k.issuer.Issuer {
			return nil, errors.New("the discovery document is of another issuer")
		}
		if err := checkPlace(found.JWKS); err != nil {
			return nil, fmt.Errorf("the discovery document's jwks_uri: %w", err)
		}
		place = found.JWKS
	}
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := k.get(ctx, place, &set); err != nil {
		return nil, fmt.Errorf("the keys: %w", err)
	}
	if len(set.Keys) > maxKeys {
		return nil, fmt.Errorf("the keys: there are more than %d", maxKeys)
	}
	var list []jose.JSONWebKey
	for _, raw := range set.Keys {
		var key jose.JSONWebKey
		// One of a kind that is not known here is nobody's mistake.
		if json.Unmarshal(raw, &key) == nil && key.IsPublic() && key.Valid() && slices.ContainsFunc(k.issuer.Algorithms, func(a string) bool { return usable(&key, a) }) {
			list = append(list, key)
		}
	}
	if len(list) == 0 {
		return nil, errors.New("the keys: there is none that can be used with the algorithms that are configured")
	}
	return list, nil
}

// get reads one JSON document. It dials the host of the URL and nothing else, and follows no redirect.
func (k *keys) get(ctx context.Context, place string, into any) error {
	transport, u, err := upstream.For(place, k.issuer.CA)
	if err != nil {
		return err
	}
	defer transport.CloseIdleConnections()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), http.NoBody)
	if err != nil {
		return err
	}
	r.Header.Set("Accept", "application/json")
	response, err := transport.RoundTrip(r)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("the answer was %d", response.StatusCode)
	}
	content, err := io.ReadAll(io.LimitReader(response.Body, maxDocument+1))
	switch {
	case err != nil:
		return err
	case len(content) > maxDocument:
		return fmt.Errorf("the answer is larger than %d bytes", maxDocument)
	}
	if err := json.Unmarshal(content, into); err != nil {
		return fmt.Errorf("the answer is not the JSON that was expected: %w", err)
	}
	return nil
}

// Status is how the keys of an issuer are.
type Status struct {
	Issuer string
	Keys   int
	// Heard is when they were had last; zero: never.
	Heard time.Time
	// Failure is why they could not be had the last time, and Since when that began; "" if they could, or before the first attempt has ended.
	Failure string
	Since   time.Time
}

// Status says how the keys are, issuer by issuer.
func (v *Verifier) Status() []Status {
	list := make([]Status, 0, len(v.issuers))
	for _, i := range v.issuers {
		i.keys.mu.Lock()
		list = append(list, Status{i.Issuer.Issuer, len(i.keys.list), i.keys.heard, i.keys.failure, i.keys.since})
		i.keys.mu.Unlock()
	}
	return list
}
