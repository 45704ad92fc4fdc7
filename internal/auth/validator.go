package auth

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/ai-aas/api-router/internal/fault"
)

// Validator says whose a credential is.
//
// Validate returns invalid_api_key for a credential that it does not know; any other error means that it could not
// tell, or that it knows the credential and refuses it. It must be safe for concurrent use and return when ctx ends.
type Validator interface {
	Validate(ctx context.Context, credential string) (Principal, error)
}

// Named is a validator with the name that identity.order has for it. Its principals name it as their Source, too.
type Named struct {
	Name string
	Validator
}

// The results of a decision, as the metric names them.
const (
	resultAccepted = iota
	resultUnknown
	resultRefused
	resultUnavailable
	results
)

var resultNames = [results]string{"accepted", "unknown", "refused", "unavailable"}

// Chain asks the validators in order. The first that accepts wins; one that does not know the credential passes it on;
// any other error ends the search, so that a refusal is never overruled by a later validator. The answer of an empty
// chain is always invalid_api_key.
func Chain(order ...Validator) Validator {
	c := make(chain, 0, len(order))
	for _, v := range order {
		c = append(c, link{Validator: v})
	}
	return c
}

// Order is Chain with names, whose decisions are counted by the name of who made them.
func Order(metrics prometheus.Registerer, order ...Named) Validator {
	decisions := promauto.With(metrics).NewCounterVec(prometheus.CounterOpts{
		Name: "api_router_auth_decisions_total",
		Help: "Credentials that a validator was asked about: accepted; unknown to it; refused (expired, revoked, switched off); unavailable (it cannot tell now).",
	}, []string{"validator", "result"})
	c := make(chain, 0, len(order))
	for _, v := range order {
		l := link{Validator: v.Validator}
		for i, name := range resultNames {
			l.decisions[i] = decisions.WithLabelValues(v.Name, name)
		}
		c = append(c, l)
	}
	return c
}

type chain []link

// link is one validator of a chain with its counters, which are nil where nobody counts.
type link struct {
	Validator

	decisions [results]prometheus.Counter
}

func (l *link) count(result int) {
	if counter := l.decisions[result]; counter != nil {
		counter.Inc()
	}
}

func (c chain) Validate(ctx context.Context, credential string) (Principal, error) {
	var unknown, open error
	for i := range c {
		l := &c[i]
		p, err := l.Validate(ctx, credential)
		if err == nil {
			l.count(resultAccepted)
			return p, nil
		}
		code := fault.CodeOf(err)
		if code == fault.InvalidAPIKey {
			l.count(resultUnknown)
			unknown = err // The last one's message is the one to show: validators that hint stand at the end.
			continue
		}
		if status := code.Status(); status >= http.StatusInternalServerError || status == http.StatusTooManyRequests {
			l.count(resultUnavailable)
		} else {
			l.count(resultRefused)
		}
		if _, ok := errors.AsType[undecided](err); !ok {
			return Principal{}, err
		}
		open = err
	}
	switch {
	case open != nil:
		return Principal{}, open
	case unknown == nil:
		unknown = fault.New(fault.InvalidAPIKey, "this router accepts no API keys: no source of keys is configured; ask its operator")
	}
	return Principal{}, unknown
}

// Limits and names of development keys.
const (
	developmentSource = "development"
	maxDevelopmentKey = 160
	// defaultOrganization owns the development keys that name none.
	defaultOrganization = "00000000-0000-0000-0000-000000000001"
)

// Development accepts keys of the form test-<organization>-<id> and dev-<organization>-<id> without looking anywhere.
// It is for development alone: whoever can reach the listener can make up a key.
//
// The organization is everything between the first and the last dash, so it may be a UUID. A key with fewer parts
// (test-<id>) belongs to 00000000-0000-0000-0000-000000000001. The alphabet is A-Z a-z 0-9 . _ - and a key is at most
// 160 bytes long. The key id is derived from the key and the same each time.
type Development struct {
	// Hint makes the refusal of an unknown key say which keys work.
	Hint bool
}

// Validate implements Validator.
func (d Development) Validate(_ context.Context, credential string) (Principal, error) {
	organization, ok := developmentOrganization(credential)
	if !ok {
		return Principal{}, d.unknown()
	}
	sum := sha256.Sum256([]byte(credential))
	return Principal{
		Organization: organization,
		KeyID:        "dev-" + hex.EncodeToString(sum[:8]),
		Source:       developmentSource,
	}, nil
}

func (d Development) unknown() error {
	if d.Hint {
		return fault.New(fault.InvalidAPIKey, "the API key is not known here. Development keys are on: "+
			"any key of the form test-ORGANIZATION-ID or dev-ORGANIZATION-ID works, for example test-vllm-key")
	}
	return fault.New(fault.InvalidAPIKey, "the API key is not known here; check the key, or ask the operator for one")
}

func developmentOrganization(credential string) (string, bool) {
	if len(credential) > maxDevelopmentKey {
		return "", false
	}
	for i := range len(credential) {
		if !developmentAlphabet(credential[i]) {
			return "", false
		}
	}
	prefix, rest, _ := strings.Cut(credential, "-")
	if prefix != "test" && prefix != "dev" {
		return "", false
	}
	cut := strings.LastIndexByte(rest, '-')
	organization, id := defaultOrganization, rest
	if cut >= 0 {
		organization, id = rest[:cut], rest[cut+1:]
	}
	return organization, organization != "" && id != ""
}

func developmentAlphabet(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_', c == '.':
		return true
	default:
		return false
	}
}
