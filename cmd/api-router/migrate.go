package main

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/ai-aas/api-router/internal/app"
)

func migrateCommand(p app.Process, env map[string]string) *cobra.Command {
	c := &cobra.Command{
		Use:   "migrate",
		Short: "Bring the tables of the state book up to date",
		Long: `Bring the tables of the state book that state.url names up to date, and say what was done. A router does this itself when it opens
the book, unless state.migrate is manual. It only goes forward, and several may do it at once. A book of a newer version is left as it is.

Behind a pooler of PostgreSQL connections that shares sessions, name the server itself here: a lock of the session keeps others away meanwhile.`,
		Example: `  api-router migrate --config /etc/api-router/config.yaml
  API_ROUTER_STATE_PASSWORD=env:DATABASE_PASSWORD api-router migrate --state postgres://router@db.internal/router`,
		Args: noArguments,
	}
	sources := configFlags(c, env)
	wait := c.Flags().Duration("wait", time.Minute, "how long the database may take to answer")
	c.RunE = func(c *cobra.Command, _ []string) error { return app.Migrate(c.Context(), p, sources(), *wait) }
	return c
}
