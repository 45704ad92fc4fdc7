package app

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ai-aas/api-router/internal/adminapi"
	"github.com/ai-aas/api-router/internal/auth"
	"github.com/ai-aas/api-router/internal/auth/oidc"
	"github.com/ai-aas/api-router/internal/auth/userorg"
	"github.com/ai-aas/api-router/internal/policy"
)

// askingMargin is how much longer a cache waits than the validator behind it, whose own words are better.
const askingMargin = 500 * time.Millisecond

// wireUserOrg makes the validator that asks a user-org-service, where one is configured.
func (a *App) wireUserOrg(registry prometheus.Registerer, made map[string]auth.Validator) error {
	c := &a.config.Identity
	if c.UserOrg.URL == "" {
		return nil
	}
	authorities, err := authoritiesIn(pathUserOrgCA, c.UserOrg.CA)
	if err != nil {
		return err
	}
	options := userorg.Options{
		Logger: a.log.With("component", "identity"), URL: c.UserOrg.URL, CA: authorities, Timeout: c.UserOrg.Timeout, Metrics: registry,
	}
	options.Skip = func(credential string) bool {
		if a.tokens != nil && auth.LooksSigned(credential) {
			return true // A token that others made is theirs alone to see, and its issuer's keys judge it.
		}
		if !c.DevelopmentKeys {
			return false
		}
		_, err := auth.Development{}.Validate(context.Background(), credential)
		return err == nil // It is known by its form, also where the service is dead.
	}
	if !c.UserOrg.Token.IsZero() {
		options.Token = c.UserOrg.Token.Resolve
	}
	a.userOrg, err = userorg.New(options)
	if err != nil {
		return fmt.Errorf("%s: %w", pathUserOrgURL, err)
	}
	a.onStop("user-org-service", func(context.Context) error { a.userOrg.Close(); return nil })
	a.metrics.remotes.add("user_org_service", func() bool { return a.userOrg.Status().Failure == "" })
	made[ValidatorUserOrg] = auth.Cached(a.userOrg, auth.CacheOptions{
		TTL: c.Cache.TTL, NegativeTTL: c.Cache.NegativeTTL, StaleIfError: c.Cache.StaleIfError, Timeout: c.UserOrg.Timeout + askingMargin,
		Pass: options.Skip,
	})
	return nil
}

// wireTokens makes the validator of signed tokens, where an issuer is configured.
func (a *App) wireTokens(registry prometheus.Registerer, made map[string]auth.Validator) error {
	c := &a.config.Identity
	if len(c.JWT) == 0 {
		return nil
	}
	options := oidc.Options{Logger: a.log.With("component", "identity"), Stale: c.Cache.StaleIfError, Metrics: registry}
	for _, each := range c.JWT {
		var err error
		if each.CA, err = authoritiesIn(pathJWT, each.Authorities); err != nil {
			return err
		}
		options.Issuers = append(options.Issuers, each.Issuer)
	}
	var err error
	if a.tokens, err = oidc.New(options); err != nil {
		return fmt.Errorf("%s: %w", pathJWT, err)
	}
	a.loops = append(a.loops, loop{"keys of issuers", a.tokens.Run})
	a.metrics.remotes.add("token_issuers", func() bool {
		return !slices.ContainsFunc(a.tokens.Status(), func(s oidc.Status) bool { return s.Failure != "" })
	})
	if slices.ContainsFunc(c.JWT, TokenIssuer.callers) {
		made[ValidatorJWT] = a.tokens
	}
	return nil
}

// operatorTokens judges signed tokens of operators; nil where no issuer gives them roles.
func (a *App) operatorTokens() func(context.Context, string) (string, []string, error) {
	if !a.config.judgesOperators() {
		return nil
	}
	return a.tokens.Operator
}

// judgesOperators says whether an issuer of signed tokens gives roles of the admin API.
func (c *Config) judgesOperators() bool {
	return slices.ContainsFunc(c.Identity.JWT, func(i TokenIssuer) bool { return i.Roles != "" })
}

// tokensHealth is the keys of the issuers.
func (a *App) tokensHealth() []adminapi.Component {
	var all []adminapi.Component
	for _, s := range a.tokens.Status() {
		c := adminapi.Component{
			Name: adminapi.ComponentIdentity, ID: s.Issuer, State: "loading", Since: s.Since, DataAsOf: s.Heard, LastError: s.Failure,
			Detail: fmt.Sprintf("%d keys of an issuer of signed tokens", s.Keys),
		}
		switch {
		case s.Failure != "":
			c.State = "failing"
			c.Action = "Tokens signed with known keys go on, others get 503: mend the issuer, or correct identity.jwt."
		case !s.Heard.IsZero():
			c.State, c.OK = "known", true
		}
		all = append(all, c)
	}
	return all
}

// authoritiesIn reads the PEM file of a setting; without one it is "".
func authoritiesIn(setting, path string) (string, error) {
	if path == "" {
		return "", nil
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("%s: %w", setting, err)
	}
	return string(content), nil
}

// userOrgHealth is the user-org-service.
func (a *App) userOrgHealth() adminapi.Component {
	s := a.userOrg.Status()
	c := adminapi.Component{Name: adminapi.ComponentIdentity, ID: ValidatorUserOrg, State: "answering", OK: true, Detail: "asked at " + s.Host}
	switch {
	case s.Failure != "":
		c.State, c.OK, c.Since, c.LastError = "failing", false, s.Since, s.Failure
		c.Action = "Known keys go on, others get 503: mend the user-org-service, or correct identity.user_org_service."
	case !s.Asked:
		c.State = "not asked yet"
	}
	return c
}

// askers are the tokens of identity.validation_tokens, read anew from time to time. One that cannot be read does not work, also if it did before.
type askers struct {
	log      *slog.Logger
	settings []policy.SecretRef
	valid    atomic.Pointer[[]userorg.Asker]
	problems map[string]string // by reference; for run alone
}

func newAskers(log *slog.Logger, settings []policy.SecretRef) *askers {
	k := &askers{log: log, settings: settings}
	k.read()
	return k
}

func (k *askers) list() []userorg.Asker { return *k.valid.Load() }

func (k *askers) run(ctx context.Context) error {
	for {
		if pause(ctx, secretsEvery); ctx.Err() != nil {
			return nil
		}
		k.read()
	}
}

func (k *askers) read() {
	valid := make([]userorg.Asker, 0, len(k.settings))
	problems := map[string]string{}
	for _, reference := range k.settings {
		token, err := reference.Resolve()
		if err == nil && len(token) < minToken {
			err = fmt.Errorf("secret %s is shorter than %d bytes: make a new one, as with openssl rand -hex 32", reference, minToken)
		}
		if err != nil {
			problems[reference.String()] = err.Error()
			if k.problems[reference.String()] != err.Error() {
				k.log.Error("a token of identity.validation_tokens does not work", "error", err)
			}
			continue
		}
		if k.problems[reference.String()] != "" {
			k.log.Info("a token of identity.validation_tokens works again", "reference", reference.String())
		}
		valid = append(valid, userorg.NewAsker(reference.String(), token))
	}
	k.problems = problems
	k.valid.Store(&valid)
}

// validationDoor is what answers other routers; nil where nobody may ask.
func (a *App) validationDoor(registry prometheus.Registerer) (*userorg.Door, error) {
	settings := a.config.Identity.ValidationTokens
	switch {
	case len(settings) == 0:
		return nil, nil
	case a.keys == nil:
		return nil, fmt.Errorf("%s: %w", pathValidationTokens, errNoLedger)
	}
	log := a.log.With("component", "identity")
	list := newAskers(log, settings)
	a.loops = append(a.loops, loop{"validation tokens", list.run})
	return userorg.NewDoor(userorg.DoorOptions{Logger: log, Keys: a.keys, Askers: list.list, Metrics: registry}), nil
}
