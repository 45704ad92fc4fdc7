package app

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ai-aas/api-router/internal/admin"
	"github.com/ai-aas/api-router/internal/adminapi"
	"github.com/ai-aas/api-router/internal/auth"
)

// wireAdmins lets in whom the state book names, where there is one: beside the tokens of the configuration, which ask nobody.
func (a *App) wireAdmins(options *admin.Options, registry prometheus.Registerer) *auth.Admins {
	for _, t := range a.config.Identity.AdminTokens {
		options.Configured = append(options.Configured, t.Name)
	}
	if a.place.admins == nil || options.Open {
		return nil
	}
	cache := &a.config.Identity.Cache
	admins := auth.NewAdmins(auth.AdminsOptions{
		Logger: a.log.With("component", "admin"), Ledger: a.place.admins, Stale: cache.TTL + cache.StaleIfError, Metrics: registry,
	})
	a.metrics.remotes.add("admins", func() bool { return admins.Status().Current })
	options.AdminOf = admins.Find
	return admins
}

// adminsHealth is the admins of the state book.
func (a *App) adminsHealth() []adminapi.Component {
	if a.operators == nil || a.operators.admins == nil {
		return nil
	}
	s := a.operators.admins.Status()
	c := adminapi.Component{
		Name: adminapi.ComponentAdmins, State: "loading", Since: s.Since, DataAsOf: s.Heard, LastError: s.Failure,
		Detail: fmt.Sprintf("%d in the state book", s.Admins),
	}
	switch {
	case s.Current:
		c.State, c.OK = "followed", true
	case s.Failure != "" && s.Known:
		c.State = "failing"
		c.Action = "Known admins go on, others get 503: mend the state book of state.url. Tokens of identity.admin_tokens work."
	case s.Failure != "":
		c.State = "failing"
		c.Action = "Admins of the state book get 503: mend the state book of state.url. Tokens of identity.admin_tokens work."
	}
	return []adminapi.Component{c}
}
