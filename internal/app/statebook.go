package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"unicode"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ai-aas/api-router/internal/admin"
	"github.com/ai-aas/api-router/internal/adminapi"
	"github.com/ai-aas/api-router/internal/auth"
	"github.com/ai-aas/api-router/internal/gateway"
	"github.com/ai-aas/api-router/internal/policy"
	"github.com/ai-aas/api-router/internal/state"
)

// defaultState is used for documents where policy.source is state, and for keys where identity.order names state.
const defaultState = "sqlite:///var/lib/api-router/state.db"

// wireState opens the state book for organizations and keys beside a place of documents that is another, where that is asked for and
// nothing stands in for it.
func (a *App) wireState(instead auth.Ledger) error {
	c := &a.config
	if instead != nil || a.place.identities != nil || !c.hasBook() {
		return nil
	}
	book, err := openState(c.State, a.log)
	if err != nil {
		return err
	}
	a.onStop("state book", func(context.Context) error { return book.close() })
	a.place.ledger, a.place.identities, a.place.admins = book.ledger, book.identities, book.admins
	a.place.beside, a.place.besidePublic, a.place.kept = book.health, book.public, book.kept
	return nil
}

// wireRetention has what is old taken out of the state book, where there is one.
func (a *App) wireRetention(registry prometheus.Registerer) {
	if a.place.kept == nil {
		return
	}
	retention := state.NewRetention(state.RetentionOptions{
		Logger: a.log.With("component", "state"), Book: a.place.kept, Audit: a.config.State.AuditRetention, Metrics: registry,
	})
	a.loops = append(a.loops, loop{"retention of the state book", retention.Run})
}

// besideHealth is the state book where it holds identities alone; of one that holds documents, policy_source tells.
func (a *App) besideHealth() []adminapi.Component {
	if a.place.beside == nil {
		return nil
	}
	c := adminapi.Component{Name: adminapi.ComponentStateBook, ID: SourceState}
	a.place.beside(&c)
	return []adminapi.Component{c}
}

func (a *App) besidePublic() []gateway.Component {
	if a.place.besidePublic == nil {
		return nil
	}
	return a.place.besidePublic()
}

// hostName is how the audit tells this router from others: the name of its machine or pod, as far as an id can hold it.
func hostName() string {
	name, err := os.Hostname()
	if err != nil {
		return ""
	}
	keep := func(c rune) rune {
		if strings.ContainsRune("._-", c) || c < 128 && (unicode.IsLetter(c) || unicode.IsDigit(c)) {
			return c
		}
		return '-'
	}
	return strings.Map(keep, name[:min(len(name), 128)])
}

// hasBook reports whether there is a state book: where documents are in it, and for keys where one is named.
func (c *Config) hasBook() bool {
	chosen := c.State.URL != "" && (c.State.Named || c.State.URL != defaultState)
	return c.Policy.Source == SourceState || chosen || slices.Contains(c.Identity.Order, ValidatorState)
}

// mints lets operators make keys and signing secrets under the newest pepper, if there is one.
func (a *App) mints(o *admin.Options) error {
	if len(a.config.Identity.Peppers) == 0 || a.place.identities == nil {
		return nil
	}
	peppers, err := a.config.peppers()
	if err != nil {
		return err
	}
	o.Mint, o.Seal = peppers.Make, peppers.Seal
	return nil
}

// pepper is where the pepper of dev's keys is: beside its state book, made at the first start and never printed.
func (h *home) pepper() (policy.SecretRef, error) {
	path := strings.TrimSuffix(h.state(), "state.db") + "pepper"
	_, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		err = os.WriteFile(path, []byte(auth.NewSigningSecret().Reveal()+"\n"), 0o600)
	}
	if err != nil {
		return policy.SecretRef{}, fmt.Errorf("the pepper of keys cannot be kept: %w; choose another directory with --data", err)
	}
	return policy.ParseSecretRef("file:" + path)
}
