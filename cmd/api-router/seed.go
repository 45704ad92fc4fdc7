package main

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/ai-aas/api-router/internal/app"
)

func seedCommand(p app.Process, env map[string]string) *cobra.Command {
	var o app.SeedOptions
	c := &cobra.Command{
		Use:   "seed -f FILE",
		Short: "Put documents into the policy source, where they are absent or differ",
		Long: `Put the documents of files into the policy source that the configuration names, etcd or the state book, without asking a router:
for the first start of a cluster, and for a job at every release. All documents are checked first; when one is bad, nothing is
written. What stands there already and says the same is left alone, so that a second run changes nothing. Documents that the
files do not name stay.

--upgrade turns the policies of the earlier service that are in the source into the form of this one.`,
		Example: `  api-router seed --policy-source etcd --etcd etcd-0:2379 -f policies/
  api-router seed --config /etc/api-router/config.yaml -f backends.yaml -f policies.yaml --dry-run
  api-router seed --config /etc/api-router/config.yaml --upgrade`,
		Args: nothing(nameFiles),
	}
	sources := configFlags(c, env)
	f := c.Flags()
	f.StringArrayVarP(&o.Files, "file", "f", nil, "`FILE` or directory with documents; may be given several times")
	f.BoolVar(&o.Upgrade, "upgrade", false, "turn the policies of the earlier service into the form of this one")
	f.BoolVar(&o.DryRun, "dry-run", false, "say what would be written, and write nothing")
	f.DurationVar(&o.Wait, "wait", time.Minute, "how long the policy source may take to answer")
	c.RunE = func(c *cobra.Command, _ []string) error { return app.Seed(c.Context(), p, sources(), o) }
	return c
}
