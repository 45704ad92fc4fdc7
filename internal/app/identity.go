package app

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ai-aas/api-router/internal/adminapi"
	"github.com/ai-aas/api-router/internal/auth"
	"github.com/ai-aas/api-router/internal/gateway"
	"github.com/ai-aas/api-router/internal/state"
)

// identity makes the validators that are configured and puts them in their order. The keys of the state book are followed by a loop of the
// process; nothing is dialed or read here but the peppers.
func (a *App) identity(ledger auth.Ledger, registry prometheus.Registerer, hints bool) (auth.Validator, error) {
	c := &a.config.Identity
	made := map[string]auth.Validator{}
	if c.DevelopmentKeys {
		a.log.Warn("development keys are on: anybody who reaches the listener can use it", "keys", "test-*, dev-*")
		made[ValidatorDevelopment] = auth.Development{Hint: hints}
	}
	if err := a.wireKeys(ledger, registry); err != nil {
		return nil, err
	}
	if a.keys != nil {
		made[ValidatorState] = a.keys
	}
	if err := a.wireTokens(registry, made); err != nil {
		return nil, err
	}
	if err := a.wireUserOrg(registry, made); err != nil {
		return nil, err
	}
	if a.keys != nil { // An organization that is switched off is so for all of its callers.
		for name, v := range made {
			if name != ValidatorState {
				made[name] = a.keys.Guard(v)
			}
		}
	}
	names := c.Order
	if len(names) == 0 {
		names = slices.DeleteFunc(slices.Clone(validators), func(name string) bool { return made[name] == nil })
	}
	order := make([]auth.Named, 0, len(names))
	for _, name := range names {
		if made[name] == nil {
			a.log.Warn("a validator of identity.order is passed over, because it is not configured", "validator", name)
			continue
		}
		order = append(order, auth.Named{Name: name, Validator: made[name]})
	}
	if len(order) == 0 {
		a.log.Warn("no source of API keys is configured: every request will be refused; identity.peppers turns on the keys of the state book, " +
			"and identity.development_keys accepts test-* and dev-* outside production")
	}
	return auth.Order(registry, order...), nil
}

// wireKeys makes the validator of the state book's keys, where they are asked for and there are any.
func (a *App) wireKeys(ledger auth.Ledger, registry prometheus.Registerer) error {
	c := &a.config.Identity
	named := slices.Contains(c.Order, ValidatorState)
	switch {
	case !named && (len(c.Order) > 0 || len(c.Peppers) == 0):
		return nil
	case ledger == nil && named:
		return errNoLedger
	case ledger == nil:
		a.log.Warn("identity.peppers has no effect: there is no state book, where keys are; state.url says where to keep it", "source", a.config.Policy.Source)
		return nil
	}
	peppers, err := a.config.peppers()
	if err != nil {
		return err
	}
	a.keys = auth.NewKeys(auth.KeysOptions{
		Logger: a.log.With("component", "identity"), Ledger: ledger, Peppers: peppers,
		TTL: c.Cache.TTL, StaleIfError: c.Cache.StaleIfError, File: a.keysFile(), Book: state.Name(a.config.State.URL), Metrics: registry,
	})
	a.loops = append(a.loops, loop{"keys", a.keys.Run})
	a.metrics.remotes.add("identity_ledger", func() bool { return a.keys.Status().Current })
	return nil
}

// verifier checks signatures, where there are keys that can sign.
func (a *App) verifier() gateway.Verifier {
	if a.keys == nil {
		return nil
	}
	return a.keys
}

// keysFile is where the copy of the keys is. The default applies only where its directory exists.
func (a *App) keysFile() string {
	path := a.config.Identity.Cache.File
	if path == defaultKeysFile {
		if _, err := os.Stat(filepath.Dir(path)); err != nil {
			a.log.Info("no snapshot of the keys is kept: the directory of identity.cache.file does not exist", "path", path)
			return ""
		}
	}
	return path
}

// identityHealth is what knows callers, for operators.
func (a *App) identityHealth() []adminapi.Component {
	var all []adminapi.Component
	if a.keys != nil {
		all = append(all, a.keysHealth())
	}
	if a.userOrg != nil {
		all = append(all, a.userOrgHealth())
	}
	if a.tokens != nil {
		all = append(all, a.tokensHealth()...)
	}
	return all
}

// keysHealth is the keys of the state book.
func (a *App) keysHealth() adminapi.Component {
	s := a.keys.Status()
	c := adminapi.Component{
		Name: adminapi.ComponentIdentity, ID: ValidatorState, State: "loading", Since: s.Since, DataAsOf: s.Heard, LastError: s.Failure,
		Detail: fmt.Sprintf("%d keys, %d of them imported", s.Keys, s.Imported),
	}
	switch {
	case s.Current && s.Unusable > 0:
		c.State = "followed, in part"
		c.Detail += fmt.Sprintf(", and %d that cannot be used", s.Unusable)
		c.Action = "Keys of the book cannot be used, mostly because their pepper is missing in identity.peppers, or another one is in its place: the log names them."
	case s.Current:
		c.State, c.OK = "followed", true
	case s.Failure != "" && s.Known:
		c.State = "failing"
		c.Action = "Known keys go on, unknown ones get 503: mend the state book of state.url."
	case s.Failure != "":
		c.State = "failing"
		c.Action = "Keys of the state book get 503: mend the state book of state.url."
	}
	return c
}

// identityPublic is the same for outsiders: one of them, the first that is not well.
func (a *App) identityPublic() []gateway.Component {
	all := a.identityHealth()
	if len(all) == 0 {
		return nil
	}
	c := all[max(0, slices.IndexFunc(all, func(c adminapi.Component) bool { return !c.OK }))]
	return []gateway.Component{{Name: adminapi.ComponentIdentity, State: c.State, OK: c.OK, Since: c.Since}}
}
