// Package oidc knows callers by signed tokens (JWT) of issuers that the configuration names.
//
// A token says who made it and how it is signed; neither is believed. The issuer, its audience and its algorithms are pinned by the
// configuration, keys come from the place that it names, and a token without any of them is refused.
package oidc

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/ai-aas/api-router/internal/auth"
	"github.com/ai-aas/api-router/internal/fault"
)

// Source is the name of the validator among the others.
const Source = "jwt"

const (
	// maxToken is the longest token that is looked at, in bytes.
	maxToken = 8 << 10
	// MaxLeeway is the most that clocks may differ.
	MaxLeeway = time.Minute
	// retry is when a client should come back whose token could not be judged.
	retry = time.Second
)

// Options are what a Verifier needs.
type Options struct {
	Logger  *slog.Logger
	Issuers []Issuer
	// Stale is how long keys are used after their place was last heard of. 0: a day.
	Stale time.Duration
	// Metrics is where the metrics are registered; nil: nowhere.
	Metrics prometheus.Registerer
}

// Verifier is the Validator of signed tokens. Run fetches keys in the background; a request waits for that only where a token names a key that
// is not known, and then for a second at most.
//
// While the place of the keys is out of reach, known keys go on for Stale; then, and for a key that is not known, the answer is
// identity_unavailable: nobody is refused because nobody could be asked.
type Verifier struct {
	Options
	issuers []*issuer
	all     []jose.SignatureAlgorithm // of all issuers
}

// New returns a Verifier. It dials nothing. Its error names every setting that is wrong.
func New(opts Options) (*Verifier, error) {
	opts.Logger = cmp.Or(opts.Logger, slog.New(slog.DiscardHandler))
	opts.Stale = cmp.Or(opts.Stale, 24*time.Hour)
	v := &Verifier{Options: opts}
	metrics := newMetrics(opts.Metrics)
	var problems []error
	for i, setting := range opts.Issuers {
		made, err := newIssuer(setting, &v.Options, metrics)
		if err != nil {
			problems = append(problems, fmt.Errorf("issuer %d: %w", i+1, err))
			continue
		}
		v.issuers = append(v.issuers, made)
		v.all = append(v.all, made.algorithms...)
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	if len(v.issuers) == 0 {
		return nil, errors.New("no issuer is configured")
	}
	return v, nil
}

// Run keeps the keys of all issuers until ctx ends.
func (v *Verifier) Run(ctx context.Context) error {
	var all sync.WaitGroup
	for _, each := range v.issuers {
		all.Go(func() { each.keys.run(ctx) })
	}
	all.Wait()
	return nil
}

// Validate implements auth.Validator. A token of an issuer that nobody named is not known here: invalid_api_key, as is one that is not signed as
// it should be.
func (v *Verifier) Validate(ctx context.Context, credential string) (auth.Principal, error) {
	i, c, err := v.verify(ctx, credential, func(i *issuer) bool { return i.Organization != "" })
	if err != nil {
		return auth.Principal{}, err
	}
	return i.principal(c)
}

// Operator says who may use the admin API by a token: a name that tells the same person each time, and the roles that are theirs, which may be none.
func (v *Verifier) Operator(ctx context.Context, credential string) (name string, roles []string, err error) {
	i, c, err := v.verify(ctx, credential, func(i *issuer) bool { return i.Roles != "" })
	if err != nil {
		return "", nil, err
	}
	return i.operator(c)
}

func invalid(why string) error {
	return fault.New(fault.InvalidAPIKey, "the token is not accepted here: "+why+"; get another from its issuer, or ask the operator")
}

func unavailable(cause error) *fault.Error {
	return fault.New(fault.IdentityUnavailable, "whether this token is genuine cannot be told now, because the keys of its issuer cannot be had; retry in a moment").
		WithRetryAfter(retry).WithCause(cause)
}

// claims are those of a token whose signature is right.
type claims struct {
	jwt.Claims

	all map[string]any
}

// verify finds the issuer of a token among those that are for this, and checks everything that it promises.
func (v *Verifier) verify(ctx context.Context, credential string, fits func(*issuer) bool) (*issuer, *claims, error) {
	if len(credential) > maxToken || !auth.LooksSigned(credential) {
		return nil, nil, invalid("it is no signed token")
	}
	token, err := jwt.ParseSigned(credential, v.all)
	if err != nil || len(token.Headers) != 1 {
		return nil, nil, invalid("it cannot be read, or is signed in a way that no issuer here uses")
	}
	var said jwt.Claims // What is not verified yet says which issuer to ask, and nothing else.
	if err := token.UnsafeClaimsWithoutVerification(&said); err != nil {
		return nil, nil, invalid("its claims cannot be read")
	}
	problem := invalid("its issuer is not known")
	for _, each := range v.issuers {
		if each.Issuer.Issuer != said.Issuer || !fits(each) {
			continue
		}
		if !said.Audience.Contains(each.Audience) {
			problem = invalid("it was made for another audience")
			continue
		}
		c, err := each.check(ctx, token, said.IssuedAt)
		if err != nil {
			return nil, nil, err
		}
		return each, c, nil
	}
	return nil, nil, problem
}

// check verifies the signature and the times of a token, and reads its claims anew from what was signed.
func (i *issuer) check(ctx context.Context, token *jwt.JSONWebToken, issued *jwt.NumericDate) (*claims, error) {
	header := token.Headers[0]
	key, err := i.keys.find(ctx, header.KeyID, header.Algorithm, issued)
	if err != nil {
		return nil, err
	}
	c := &claims{}
	if err := token.Claims(key, &c.Claims, &c.all); err != nil {
		return nil, invalid("its signature is wrong")
	}
	if c.Expiry == nil || c.Subject == "" {
		return nil, invalid("it has no end (exp) or no subject (sub)")
	}
	err = c.ValidateWithLeeway(jwt.Expected{Issuer: i.Issuer.Issuer, AnyAudience: jwt.Audience{i.Audience}, Time: time.Now()}, i.Leeway)
	switch {
	case errors.Is(err, jwt.ErrExpired):
		return nil, fault.New(fault.ExpiredAPIKey, "this token has expired; get a new one from its issuer")
	case err != nil:
		return nil, invalid("it is not valid yet, or was made for others")
	}
	return c, nil
}

// principal maps the claims of a token to a caller.
func (i *issuer) principal(c *claims) (auth.Principal, error) {
	organization, ok := c.value(i.Organization).(string)
	if !ok || !organizationForm.MatchString(organization) {
		return auth.Principal{}, fault.New(fault.PermissionDenied, "this token names no organization that the router understands; ask the operator which claim it is read from")
	}
	if len(i.Organizations) > 0 && !slices.Contains(i.Organizations, organization) {
		return auth.Principal{}, fault.New(fault.PermissionDenied, "this token's issuer does not speak for its organization here; ask the operator")
	}
	p := auth.Principal{
		Organization: organization, KeyID: "jwt-" + i.digest(c), Source: Source, ExpiresAt: c.Expiry.Time().Add(i.Leeway),
	}
	if i.Scopes != "" && !inference(c.words(i.Scopes)) {
		return auth.Principal{}, fault.New(fault.PermissionDenied, "this token is not for inference: it has no scope that begins with inference:; ask its issuer")
	}
	if i.Models != "" {
		models := c.words(i.Models)
		if len(models) == 0 { // An empty list of a key means every model.
			return auth.Principal{}, fault.New(fault.PermissionDenied, "this token names no model that it may use; ask its issuer")
		}
		p.Scopes = &auth.Scopes{Models: models}
	}
	return p, nil
}

func inference(scopes []string) bool {
	for _, s := range scopes {
		if rest, ok := strings.CutPrefix(s, "inference:"); ok && rest != "" {
			return true
		}
	}
	return false
}

// digest stands for the subject, which may be a name or an address of mail. It is the same each time.
func (i *issuer) digest(c *claims) string {
	sum := sha256.Sum256([]byte(i.Issuer.Issuer + "\x00" + c.Subject))
	return hex.EncodeToString(sum[:8])
}

// operator maps the claims of a token to an operator.
func (i *issuer) operator(c *claims) (name string, roles []string, err error) {
	for _, word := range c.words(i.Roles) {
		if role := i.Role[word]; role != "" {
			roles = append(roles, role)
		}
	}
	return "oidc-" + i.digest(c), roles, nil
}

// value finds a claim by its name, or by a path of names with dots between them.
func (c *claims) value(name string) any {
	if v, ok := c.all[name]; ok {
		return v
	}
	var at any = c.all
	for part := range strings.SplitSeq(name, ".") {
		object, ok := at.(map[string]any)
		if !ok {
			return nil
		}
		at = object[part]
	}
	return at
}

// words are the words of a claim: a list of texts, or one text with spaces between them. Anything else has none.
func (c *claims) words(name string) []string {
	switch v := c.value(name).(type) {
	case string:
		return strings.Fields(v)
	case []any:
		words := make([]string, 0, len(v))
		for _, each := range v {
			word, ok := each.(string)
			if !ok || word == "" {
				return nil
			}
			words = append(words, word)
		}
		return words
	}
	return nil
}
