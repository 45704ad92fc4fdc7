package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ai-aas/api-router/internal/adminapi"
	"github.com/ai-aas/api-router/internal/app"
)

func orgCommand(p app.Process, env map[string]string) *cobra.Command {
	c := &cobra.Command{
		Use:   "org",
		Short: "Make organizations; look at them, change, disable, enable or delete one",
		Long: `Organizations are whom keys belong to, and whose policies and limits apply. They are in the state book (state.url). To disable one
refuses every key of it with 403, on every router within five seconds.`,
		Example: `  api-router org create acme --name "Acme Corporation" --time-zone Europe/Berlin
  api-router org list
  api-router org disable acme --reason "by agreement"`,
	}
	c.AddCommand(orgCreateCommand(p, env), orgListCommand(p, env), orgGetCommand(p, env), orgUpdateCommand(p, env), orgSwitchCommand(p, env, true),
		orgSwitchCommand(p, env, false), orgDeleteCommand(p, env))
	return c
}

// oneOrganization wants exactly one id.
func oneOrganization(verb string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != 1 {
			return fmt.Errorf("name one organization: api-router org %s ID; \"api-router org list\" lists them", verb)
		}
		return nil
	}
}

func orgCreateCommand(p app.Process, env map[string]string) *cobra.Command {
	c := &cobra.Command{
		Use: "create ID", Short: "Make an organization",
		Long:    `Make an organization. An id has up to 64 of the characters A-Z a-z 0-9 . _ - and cannot be changed; the name can be anything.`,
		Example: `  api-router org create acme --name "Acme Corporation" --time-zone Europe/Berlin`,
		Args:    oneOrganization("create"),
	}
	name := c.Flags().String("name", "", "what people call it (default: its id)")
	zone := c.Flags().String("time-zone", "", "`ZONE` in which its days and months begin, as in Europe/Berlin (default: UTC)")
	reason := c.Flags().String("reason", "", "why, for the audit")
	return operate(p, env, c, func(o *operation, api *adminapi.Client, args []string) error {
		if !o.Flags().Changed("name") {
			*name = args[0]
		}
		made, err := api.PutOrganization(o.Context(), args[0], adminapi.OrganizationRequest{Name: *name, TimeZone: *zone}, adminapi.If{Revision: new(int64), Reason: *reason})
		switch {
		case err != nil:
			return err
		case o.output != asTable:
			return o.print(made)
		}
		return o.printf("organization %s is created; make a key for it with \"api-router key create --org %s\"\n", made.ID, made.ID)
	}).withOutput().Command
}

func orgListCommand(p app.Process, env map[string]string) *cobra.Command {
	c := &cobra.Command{Use: "list", Short: "List the organizations", Example: `  api-router org list`, Args: noArguments}
	pages := addPageFlags(c, "organizations")
	return operate(p, env, c, func(o *operation, api *adminapi.Client, _ []string) error {
		items, next, err := gather(pages.after, pages.limit, func(after string, limit int) ([]adminapi.Organization, string, error) {
			found, err := api.Organizations(o.Context(), after, limit)
			return found.Items, found.Next, err
		})
		switch {
		case err != nil:
			return err
		case o.output != asTable:
			return o.print(adminapi.Organizations{Items: items, Next: next})
		case len(items) == 0:
			return o.printf("There are no such organizations; \"api-router org create ID\" makes one.\n")
		}
		return o.organizations(next, items...)
	}).withOutput().Command
}

func orgGetCommand(p app.Process, env map[string]string) *cobra.Command {
	c := &cobra.Command{Use: "get ID", Short: "Show an organization", Example: `  api-router org get acme`, Args: oneOrganization("get")}
	return operate(p, env, c, func(o *operation, api *adminapi.Client, args []string) error {
		found, err := api.Organization(o.Context(), args[0])
		switch {
		case err != nil:
			return err
		case o.output != asTable:
			return o.print(found)
		}
		return o.organizations("", found)
	}).withOutput().Command
}

func (o *operation) organizations(next string, list ...adminapi.Organization) error {
	rows := make([][]string, 0, len(list))
	for _, each := range list {
		state := "enabled"
		if each.Disabled {
			state = "disabled"
		}
		rows = append(rows, []string{each.ID, each.Name, each.TimeZone, state, when(each.CreatedAt), revision(each.Revision)})
	}
	return o.part([]string{"ID", "NAME", "TIME ZONE", "STATE", "CREATED", "REVISION"}, rows, follows, next)
}

func orgUpdateCommand(p app.Process, env map[string]string) *cobra.Command {
	c := &cobra.Command{
		Use: "update ID", Short: "Change the name or the time zone of an organization",
		Long:    `Change the name or the time zone of an organization. What is not named stays as it is.`,
		Example: `  api-router org update acme --name "Acme Incorporated" --time-zone America/New_York`, Args: oneOrganization("update"),
	}
	name := c.Flags().String("name", "", "what people call it from now on")
	zone := c.Flags().String("time-zone", "", "`ZONE` in which its days and months begin, as in Europe/Berlin or UTC")
	reason := c.Flags().String("reason", "", "why, for the audit")
	return operate(p, env, c, func(o *operation, api *adminapi.Client, args []string) error {
		named, zoned := o.Flags().Changed("name"), o.Flags().Changed("time-zone")
		if !named && !zoned {
			return errors.New("name what is to change: --name, --time-zone or both")
		}
		before, err := api.Organization(o.Context(), args[0])
		if err != nil {
			return err
		}
		ask := adminapi.OrganizationRequest{Name: before.Name, TimeZone: before.TimeZone}
		if named {
			ask.Name = *name
		}
		if zoned {
			ask.TimeZone = *zone
		}
		after, err := api.PutOrganization(o.Context(), args[0], ask, adminapi.If{Revision: &before.Revision, Reason: *reason})
		switch {
		case err != nil:
			return err
		case o.output != asTable:
			return o.print(after)
		}
		return o.organizations("", after)
	}).withOutput().Command
}

func orgDeleteCommand(p app.Process, env map[string]string) *cobra.Command {
	c := &cobra.Command{
		Use: "delete ID", Short: "Delete an organization that has neither keys nor projects",
		Long: `Delete an organization that is enabled and has neither keys nor projects. To end one that is in use, disable it: that refuses all of its keys at once,
and can be undone. What it was stays in the audit.`,
		Example: `  api-router org delete acme --reason "created by mistake"`, Args: oneOrganization("delete"),
	}
	reason := c.Flags().String("reason", "", "why, for the audit")
	return operate(p, env, c, func(o *operation, api *adminapi.Client, args []string) error {
		gone, err := api.DeleteOrganization(o.Context(), args[0], adminapi.If{Reason: *reason})
		if err != nil {
			return err
		}
		return o.printf("organization %s is deleted\n", gone.ID)
	}).Command
}

func orgSwitchCommand(p app.Process, env map[string]string, disabled bool) *cobra.Command {
	verb, does := "enable", "Accept the keys of an organization again."
	if disabled {
		verb, does = "disable", "Refuse every key of an organization with 403, on every router within five seconds. What runs may finish."
	}
	c := &cobra.Command{
		Use: verb + " ID", Short: strings.ToUpper(verb[:1]) + verb[1:] + " an organization", Long: does, Args: oneOrganization(verb),
		Example: fmt.Sprintf(`  api-router org %s acme --reason "by agreement"`, verb),
	}
	reason := c.Flags().String("reason", "", "why, for the audit; needed to disable")
	return operate(p, env, c, func(o *operation, api *adminapi.Client, args []string) error {
		if disabled && *reason == "" {
			return errors.New("--reason is missing: say why every key of the organization is to be refused")
		}
		if _, err := api.SwitchOrganization(o.Context(), args[0], disabled, *reason); err != nil {
			return err
		}
		if disabled {
			return o.printf("organization %s is disabled until \"api-router org enable %s\"\n", args[0], args[0])
		}
		return o.printf("organization %s is enabled\n", args[0])
	}).Command
}
