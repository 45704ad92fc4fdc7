package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ai-aas/api-router/internal/auth"
	"github.com/ai-aas/api-router/internal/auth/oidc"
	"github.com/ai-aas/api-router/internal/auth/userorg"
)

// identity tells who knows whose a credential is: what is read here, and what is asked elsewhere.
func (d *doctor) identity(ctx context.Context, c *Config) {
	d.keys(c)
	d.keyBook(ctx, c)
	d.keysInBook(ctx, c)
	d.userOrg(ctx, &c.Identity.UserOrg)
	for _, i := range c.Identity.JWT {
		d.issuer(ctx, i)
	}
}

// keys tells which credentials are accepted without asking anybody.
func (d *doctor) keys(c *Config) {
	if len(c.Identity.Peppers) > 0 {
		switch peppers, err := c.peppers(); {
		case err != nil:
			d.say(verdictFail, "keys", err.Error())
		case c.ownKeys() && !c.hasBook():
			d.say(verdictWarn, "keys", "identity.peppers has no effect: there is no state book, where keys are; state.url (API_ROUTER_STATE_URL, --state) says where to keep it")
		default:
			d.say(verdictOK, "keys", fmt.Sprintf("%s can be read; new keys are digested under version %d", peppers, peppers.Live()))
		}
	}
	switch {
	case !c.Identity.DevelopmentKeys && !c.ownKeys() && c.Identity.UserOrg.URL == "" && !slices.ContainsFunc(c.Identity.JWT, TokenIssuer.callers):
		d.say(verdictWarn, "keys", "no source of API keys is configured: every request will be refused with 401")
	case !c.Identity.DevelopmentKeys:
	case c.Environment == Development:
		d.say(verdictOK, "keys", "development keys (test-*, dev-*) are accepted")
	default:
		d.say(verdictWarn, "keys", "development keys (test-*, dev-*) are accepted from anybody, in environment "+c.Environment)
	}
}

// keyBook tells how the state book is, where keys are in it and documents are not: policies tells of it otherwise.
func (d *doctor) keyBook(ctx context.Context, c *Config) {
	if c.Policy.Source == SourceState || !c.hasBook() {
		return
	}
	if path, absent := absentState(c.State.URL); absent {
		d.writable("state book", path, "there can be no keys")
		return
	}
	if err := reachBook(ctx, c.State); err != nil {
		d.say(verdictFail, SourceState, err.Error()+"; "+advice(SourceState, err.Error()))
		return
	}
	d.say(verdictOK, SourceState, "it answers; keys are in it")
}

// keysInBook loads the keys of the book as serve would and tells of those that cannot be used. A book that does not answer has been told of.
func (d *doctor) keysInBook(ctx context.Context, c *Config) {
	peppers, err := c.peppers()
	if _, absent := absentState(c.State.URL); err != nil || absent || !c.ownKeys() || !c.hasBook() {
		return
	}
	s := c.State
	s.Migrate = MigrateManual
	p, err := openState(s, slog.New(slog.DiscardHandler))
	if err != nil {
		return
	}
	defer func() { _ = p.close() }() // Nothing was written.
	ctx, cancel := context.WithTimeout(ctx, sourceWait)
	defer cancel()
	keys := auth.NewKeys(auth.KeysOptions{Ledger: p.ledger, Peppers: peppers})
	var running sync.WaitGroup
	running.Go(func() { _ = keys.Run(ctx) }) // It returns nil.
	defer running.Wait()
	defer cancel()
	status := keys.Status()
	for ; !status.Current && status.Failure == "" && ctx.Err() == nil; status = keys.Status() {
		pause(ctx, 10*time.Millisecond)
	}
	d.keysThere(&status)
}

// keysThere tells of the keys of the book, as far as they were loaded.
func (d *doctor) keysThere(status *auth.KeysStatus) {
	switch {
	case status.Unusable > 0:
		d.say(verdictFail, "keys", fmt.Sprintf("%d of %d keys of the state book cannot be used: their pepper is missing in identity.peppers, or another one is in its place; "+
			"give every replica the same list, in the same order", status.Unusable, status.Keys))
	case status.Current:
		d.say(verdictOK, "keys", fmt.Sprintf("all %d keys of the state book can be used", status.Keys))
	case status.Keys > 0 && status.Failure == "":
		d.say(verdictWarn, "keys", fmt.Sprintf("the first %d keys of the state book can be used; there are more than could be read within %s, so those are not known to be: "+
			"/status of a router says it of all", status.Keys, sourceWait))
	}
}

// reachBook opens the state book and reads from it. It changes nothing there.
func reachBook(ctx context.Context, s State) (err error) {
	s.Migrate = MigrateManual
	p, err := openState(s, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	ctx, cancel := context.WithTimeout(ctx, sourceWait)
	defer cancel()
	return p.wait(ctx)
}

// userOrg asks the user-org-service whose a key is that nobody has.
func (d *doctor) userOrg(ctx context.Context, c *UserOrg) {
	if c.URL == "" {
		return
	}
	const subject = "user-org"
	authorities, err := authoritiesIn(pathUserOrgCA, c.CA)
	if err != nil {
		d.say(verdictFail, subject, err.Error()+"; make the file readable, or correct "+pathUserOrgCA)
		return
	}
	options := userorg.Options{URL: c.URL, CA: authorities, Timeout: min(c.Timeout, sourceWait)}
	if !c.Token.IsZero() {
		options.Token = c.Token.Resolve
	}
	service, err := userorg.New(options)
	if err != nil {
		d.say(verdictFail, subject, pathUserOrgURL+": "+err.Error())
		return
	}
	defer service.Close()
	host := service.Status().Host
	switch err := service.Try(ctx); {
	case err != nil:
		d.say(verdictFail, subject, fmt.Sprintf("at %s: %v; %s", host, err, userOrgAdvice(err.Error())))
	case inTheClear(c.URL):
		d.say(verdictWarn, subject, "at "+host+" it answers, and keys travel there in plain text: write https:// in "+pathUserOrgURL+", unless everybody on that network may have them")
	default:
		d.say(verdictOK, subject, "at "+host+" it answers, and refuses a key that nobody has")
	}
}

// inTheClear reports whether what is sent to a URL can be read on its way to another machine.
func inTheClear(place string) bool {
	u, err := url.Parse(place)
	if err != nil || u.Scheme == "https" {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback())
}

// userOrgAdvice is what to do about a user-org-service.
func userOrgAdvice(reason string) string {
	switch {
	case mentions(reason, "valid that nobody has"):
		return "do not use it: who can make up a key gets in"
	case mentions(reason, "the answer is not"):
		return "is it a user-org-service that is there? Correct identity.user_org_service.url (USER_ORG_SERVICE_URL), or mend it"
	case mentions(reason, "identity.user_org_service.token"):
		return "make the token readable, and the one that the service expects"
	case mentions(reason, wordsOfTLS...):
		return "correct its certificate, identity.user_org_service.ca, or http:// and https:// in identity.user_org_service.url"
	case mentions(reason, "answered 404", "answered 3", "answered 405"):
		return "correct identity.user_org_service.url (USER_ORG_SERVICE_URL): its path is that before /v1/auth/validate-api-key, and no redirect is followed"
	case mentions(reason, "answered"):
		return "its own log says why"
	case mentions(reason, "no answer within"):
		return "mend it, or raise identity.user_org_service.timeout (USER_ORG_SERVICE_TIMEOUT)"
	default:
		return "start it, or correct identity.user_org_service.url (USER_ORG_SERVICE_URL)"
	}
}

// issuer fetches the keys of one issuer of signed tokens.
func (d *doctor) issuer(ctx context.Context, i TokenIssuer) {
	const subject = "issuer"
	var err error
	if i.CA, err = authoritiesIn(pathJWT, i.Authorities); err != nil {
		d.say(verdictFail, subject, fmt.Sprintf("%s: %v; make the file readable, or correct its ca", i.Issuer.Issuer, err))
		return
	}
	tokens, err := oidc.New(oidc.Options{Issuers: []oidc.Issuer{i.Issuer}})
	if err != nil {
		d.say(verdictFail, subject, fmt.Sprintf("%s: %v", i.Issuer.Issuer, err))
		return
	}
	for _, t := range tokens.Try(ctx) {
		switch {
		case t.Err != nil:
			d.say(verdictFail, subject, fmt.Sprintf("%s: %v; %s", i.Issuer.Issuer, t.Err, issuerAdvice(t.Err.Error())))
		case len(t.Idle) > 0:
			d.say(verdictWarn, subject, fmt.Sprintf("%s: %d keys, and none for %s: tokens that are signed so are refused; take it out of algorithms, or add such a key",
				i.Issuer.Issuer, t.Keys, strings.Join(t.Idle, ", ")))
		default:
			d.say(verdictOK, subject, fmt.Sprintf("%s: %d keys for %s", i.Issuer.Issuer, t.Keys, strings.Join(i.Algorithms, ", ")))
		}
	}
}

// issuerAdvice is what to do about an issuer of signed tokens.
func issuerAdvice(reason string) string {
	switch {
	case mentions(reason, "of another issuer"):
		return "write issuer in identity.jwt letter for letter as its discovery document does, a slash at the end included"
	case mentions(reason, "that can be used"):
		return "name in algorithms those that it signs with; RSA keys must have 2048 bits"
	case mentions(reason, "jwks_uri"):
		return "name the place of its keys by jwks_url, with https://"
	case mentions(reason, wordsOfTLS...):
		return "correct its certificate, or ca in identity.jwt"
	case mentions(reason, "discovery document: the answer"):
		return "correct issuer in identity.jwt, or name the place of its keys by jwks_url where it has no discovery document"
	case mentions(reason, "the answer"):
		return "correct jwks_url in identity.jwt, or mend the issuer"
	default:
		return "start it, or correct issuer and jwks_url in identity.jwt"
	}
}

// wordsOfTLS are in errors of handshakes.
var wordsOfTLS = []string{"certificate", "authorities", "tls:", "x509", "HTTP response to HTTPS client"}

// mentions reports whether a reason has one of the words.
func mentions(reason string, words ...string) bool {
	return slices.ContainsFunc(words, func(word string) bool { return strings.Contains(reason, word) })
}
