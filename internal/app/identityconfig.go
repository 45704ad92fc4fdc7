package app

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/ai-aas/api-router/internal/auth"
	"github.com/ai-aas/api-router/internal/policy"
	"github.com/ai-aas/api-router/internal/upstream"
)

// Identity is who may use the router, and who may operate it.
type Identity struct {
	DevelopmentKeys bool
	AdminTokens     []AdminToken
	// Order are the names of the validators that are asked about a credential; empty: those that are configured, in the order of validators.
	Order []string
	// Peppers are the secrets under which keys are digested, the newest first.
	Peppers []policy.SecretRef
	Cache   IdentityCache
	UserOrg UserOrg
	JWT     []TokenIssuer
	// ValidationTokens let other routers ask this one whose a key is.
	ValidationTokens []policy.SecretRef
}

// UserOrg is the service that is asked whose a key is.
type UserOrg struct {
	URL     string // "": there is none
	Timeout time.Duration
	Token   policy.SecretRef
	CA      string // the path of a PEM file
}

// IdentityCache is for how long what was learned of credentials holds.
type IdentityCache struct {
	TTL, NegativeTTL, StaleIfError time.Duration
	File                           string
}

// The validators that identity.order may name.
const (
	ValidatorState       = auth.SourceState
	ValidatorUserOrg     = "user_org_service"
	ValidatorJWT         = "jwt"
	ValidatorDevelopment = "development"
)

var validators = []string{ValidatorState, ValidatorUserOrg, ValidatorJWT, ValidatorDevelopment}

// defaultKeysFile is used where its directory exists, as the default of policy.last_good is.
const defaultKeysFile = "/var/lib/api-router/keys.snapshot"

const (
	pathOrder   = "identity.order"
	pathPeppers = "identity.peppers"

	pathUserOrgURL       = "identity.user_org_service.url"
	pathUserOrgTimeout   = "identity.user_org_service.timeout"
	pathUserOrgCA        = "identity.user_org_service.ca"
	pathJWT              = "identity.jwt"
	pathValidationTokens = "identity.validation_tokens"
)

// identitySettings are those of the callers' credentials, and of where callers are.
var identitySettings = []setting{
	{
		pathOrder, "", "The validators that are asked about a credential, in this order: a list of state (the keys in the state book), user_org_service, jwt, development. The first that accepts it wins, a refusal ends the search. Empty: those that are configured, in the order above; state is where identity.peppers has an entry.",
		func(c *Config) value { return order(&c.Identity.Order) },
	},
	{
		pathPeppers, "", "The secrets under which keys are digested and signing secrets are sealed: a list of references, env:NAME or file:PATH, of at least 16 bytes each, read at the start. The first is the one for new keys. A version is counted from the end of the list: put a new pepper in front, and never take one away that keys were made under. In the environment: separated by commas.",
		func(c *Config) value { return references(&c.Identity.Peppers) },
	},
	{
		"identity.cache.ttl", "", "How long an accepted credential is not asked about again at a validator that asks elsewhere, and how long keys of the state book are served after it was last heard of without counting as stale.",
		func(c *Config) value { return span{&c.Identity.Cache.TTL, 0} },
	},
	{
		"identity.cache.negative_ttl", "", "How long a refused credential is not asked about again.",
		func(c *Config) value { return span{&c.Identity.Cache.NegativeTTL, 0} },
	},
	{
		"identity.cache.stale_if_error", "", "How long after that an accepted credential goes on while nobody can tell; then it is answered 503 `identity_unavailable`.",
		func(c *Config) value { return span{&c.Identity.Cache.StaleIfError, 0} },
	},
	{
		"identity.cache.file", "", "Where a copy of the keys' digests is kept for a start without the state book; never a key. Empty: nowhere. The default is used only where its directory exists.",
		func(c *Config) value { return optional(&c.Identity.Cache.File) },
	},
	{
		pathUserOrgURL, "", "The user-org-service that is asked whose a key is, at URL`/v1/auth/validate-api-key`: see docs/identity-remote.md. Empty: none.",
		func(c *Config) value { return remoteURL(&c.Identity.UserOrg.URL) },
	},
	{
		pathUserOrgTimeout, "", "How long one question to the user-org-service may take.",
		func(c *Config) value { return span{&c.Identity.UserOrg.Timeout, time.Millisecond} },
	},
	{
		"identity.user_org_service.token", "", "The token that the user-org-service wants to see as Authorization: Bearer: a reference, env:NAME or file:PATH, read at each question. Empty: none is sent.",
		func(c *Config) value { return reference{&c.Identity.UserOrg.Token} },
	},
	{
		pathUserOrgCA, "", "PEM file of the authorities that the certificate of the user-org-service is checked against, read at the start. Empty: the system's.",
		func(c *Config) value { return optional(&c.Identity.UserOrg.CA) },
	},
	{
		pathJWT, "", "Who makes signed tokens that callers and operators may show: a list of { issuer: URL, audience: NAME, algorithms: RS256 ES256, organization_claim: NAME, organizations: ID ID, scopes_claim: NAME, models_claim: NAME, roles_claim: NAME, roles: WORD=ROLE WORD=ROLE, jwks_url: URL, ca: FILE, leeway: 30s }, where issuer, audience, algorithms and one of organization_claim and roles_claim are needed: see docs/identity-remote.md. In the environment: issuer=URL;audience=NAME;…, separated by commas. Empty: nobody.",
		func(c *Config) value { return issuers(&c.Identity.JWT) },
	},
	{
		pathValidationTokens, "", "Who may ask this router whose a key of its state book is, as at a user-org-service, with POST `/v1/auth/validate-api-key` on the admin listener: a list of references to tokens of at least 16 bytes, env:NAME or file:PATH. In the environment: separated by commas. Empty: nobody.",
		func(c *Config) value { return references(&c.Identity.ValidationTokens) },
	},
	{
		"server.trusted_proxies", "", "The networks of the proxies before this router, as a list such as 10.0.0.0/8: where a request comes from is the last hop in X-Forwarded-For that is none of them. In the environment: separated by commas. Empty: X-Forwarded-For means nothing.",
		func(c *Config) value { return networks(&c.Server.TrustedProxies) },
	},
}

// single is a list of single words.
func single[T any](target *[]T, noun, form string, read func(string) (T, error), show func(T) string) entries[T] {
	return entries[T]{
		target: target, noun: noun, form: form, empty: true, show: show,
		make:  func(f map[string]string) (T, error) { return read(f[""]) },
		split: func(part string) map[string]string { return map[string]string{"": part} },
	}
}

func order(target *[]string) list {
	l := single(target, "a validator", "NAME", func(name string) (string, error) {
		if !slices.Contains(validators, name) {
			return "", fmt.Errorf("%q is none of %s", name, strings.Join(validators, ", "))
		}
		return name, nil
	}, func(name string) string { return name })
	l.fits = func(each string, before []string) error {
		if slices.Contains(before, each) {
			return fmt.Errorf("%s is given twice", each)
		}
		return nil
	}
	return l
}

func references(target *[]policy.SecretRef) list {
	return single(target, "a reference", "env:NAME or file:PATH", policy.ParseSecretRef, policy.SecretRef.String)
}

func networks(target *[]netip.Prefix) list {
	return single(target, "a network", "ADDRESS/BITS", func(text string) (netip.Prefix, error) {
		if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" {
			return netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen()), nil
		}
		network, err := netip.ParsePrefix(text)
		if err != nil || network.Addr().Is4In6() {
			return netip.Prefix{}, fmt.Errorf("%q is not a network such as 10.0.0.0/8 or 2001:db8::/32", text)
		}
		return network.Masked(), nil
	}, netip.Prefix.String)
}

// validateIdentity refuses what would leave doors open, or keys that no one could use.
func (c *Config) validateIdentity(add func(path, format string, args ...any)) {
	if c.Environment == Production && c.Identity.DevelopmentKeys {
		add(pathDevelopmentKeys, "development keys are open to everybody and production refuses to start with them; "+
			"set identity.development_keys: false, or environment: development if this is not production")
	}
	if slices.Contains(c.Identity.Order, ValidatorState) && len(c.Identity.Peppers) == 0 {
		add(pathPeppers, "identity.order names state, whose keys are digested under a pepper, and there is none; "+
			"make one with openssl rand -hex 32, keep it where env:NAME or file:PATH finds it, and name that here")
	}
	if slices.Contains(c.Identity.Order, ValidatorUserOrg) && c.Identity.UserOrg.URL == "" {
		add(pathUserOrgURL, "identity.order names user_org_service, and where it is is not said; set this, or take user_org_service out")
	}
	if slices.Contains(c.Identity.Order, ValidatorJWT) && !slices.ContainsFunc(c.Identity.JWT, TokenIssuer.callers) {
		add(pathJWT, "identity.order names jwt, and no issuer has an organization_claim; add one, or take jwt out")
	}
	if len(c.Identity.ValidationTokens) > 0 && !c.ownKeys() {
		add(pathValidationTokens, "others would ask this router for keys, and it has none of its own: set identity.peppers, and name state in identity.order if that is set")
	}
	if c.Environment == Production && slices.Contains(c.Identity.Order, ValidatorDevelopment) {
		add(pathOrder, "production accepts no development keys; take development out")
	}
}

// ownKeys reports whether the keys of the state book are asked for.
func (c *Config) ownKeys() bool {
	return len(c.Identity.Peppers) > 0 && (len(c.Identity.Order) == 0 || slices.Contains(c.Identity.Order, ValidatorState))
}

// remoteURL is the URL of a service that is asked; empty: there is none.
func remoteURL(target *string) word {
	return word{target: target, empty: true, check: func(text string) error {
		if text == "" {
			return nil
		}
		_, _, err := upstream.For(text, "")
		return err
	}}
}

// peppers reads them. The error holds nothing of one.
func (c *Config) peppers() (auth.Peppers, error) {
	secrets := make([]string, 0, len(c.Identity.Peppers))
	for _, reference := range c.Identity.Peppers {
		secret, err := reference.Resolve()
		if err != nil {
			return auth.Peppers{}, fmt.Errorf("%s: %w", pathPeppers, err)
		}
		secrets = append(secrets, secret)
	}
	peppers, err := auth.NewPeppers(secrets...)
	if err != nil {
		return peppers, fmt.Errorf("%s: %w", pathPeppers, err)
	}
	return peppers, nil
}

var errNoLedger = errors.New("identity.order names state, and there is no book of keys: set state.url, or take state out")
