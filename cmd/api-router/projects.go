package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/ai-aas/api-router/internal/adminapi"
	"github.com/ai-aas/api-router/internal/app"
)

func projectCommand(p app.Process, env map[string]string) *cobra.Command {
	c := &cobra.Command{
		Use:   "project",
		Short: "Make projects of an organization; list, rename or delete them",
		Long: `Projects are keys of an organization that belong together: a usage record names the project of its key. A key is put into a project with
"api-router key create --project" or "api-router key update --project".`,
		Example: `  api-router project create shop --org acme --name "The assistant in the shop"
  api-router project list --org acme
  api-router project delete shop --org acme`,
	}
	c.AddCommand(projectCreateCommand(p, env), projectListCommand(p, env), projectGetCommand(p, env), projectUpdateCommand(p, env), projectDeleteCommand(p, env))
	return c
}

// oneProject wants exactly one id.
func oneProject(verb string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != 1 {
			return fmt.Errorf("name one project: api-router project %s --org ORGANIZATION ID; \"api-router project list\" lists them", verb)
		}
		return nil
	}
}

func projectCreateCommand(p app.Process, env map[string]string) *cobra.Command {
	c := &cobra.Command{
		Use: "create --org ORGANIZATION ID", Short: "Make a project",
		Long:    `Make a project. An id has up to 64 of the characters A-Z a-z 0-9 . _ - and cannot be changed; the name can be anything.`,
		Example: `  api-router project create shop --org acme --name "The assistant in the shop"`, Args: oneProject("create"),
	}
	organization := ownerFlag(c, "project")
	name := c.Flags().String("name", "", "what people call it (default: its id)")
	reason := c.Flags().String("reason", "", "why, for the audit")
	return operate(p, env, c, func(o *operation, api *adminapi.Client, args []string) error {
		if !o.Flags().Changed("name") {
			*name = args[0]
		}
		made, err := api.PutProject(o.Context(), *organization, args[0], adminapi.ProjectRequest{Name: *name}, adminapi.If{Revision: new(int64), Reason: *reason})
		switch {
		case err != nil:
			return err
		case o.output != asTable:
			return o.print(made)
		}
		return o.printf("project %[1]s of organization %[2]s is created; make a key for it with \"api-router key create --org %[2]s --project %[1]s\"\n", made.ID, made.Organization)
	}).withOutput().Command
}

func projectListCommand(p app.Process, env map[string]string) *cobra.Command {
	c := &cobra.Command{
		Use: "list --org ORGANIZATION", Short: "List the projects of an organization", Example: `  api-router project list --org acme`, Args: noArguments,
	}
	organization, pages := ownerFlag(c, "project"), addPageFlags(c, "projects")
	return operate(p, env, c, func(o *operation, api *adminapi.Client, _ []string) error {
		items, next, err := gather(pages.after, pages.limit, func(after string, limit int) ([]adminapi.Project, string, error) {
			found, err := api.Projects(o.Context(), *organization, after, limit)
			return found.Items, found.Next, err
		})
		switch {
		case err != nil:
			return err
		case o.output != asTable:
			return o.print(adminapi.Projects{Items: items, Next: next})
		case len(items) == 0:
			return o.printf("Organization %[1]s has no such projects; \"api-router project create --org %[1]s ID\" makes one.\n", *organization)
		}
		return o.projects(next, items...)
	}).withOutput().Command
}

func projectGetCommand(p app.Process, env map[string]string) *cobra.Command {
	c := &cobra.Command{
		Use: "get --org ORGANIZATION ID", Short: "Show a project", Example: `  api-router project get shop --org acme`, Args: oneProject("get"),
	}
	organization := ownerFlag(c, "project")
	return operate(p, env, c, func(o *operation, api *adminapi.Client, args []string) error {
		found, err := api.Project(o.Context(), *organization, args[0])
		switch {
		case err != nil:
			return err
		case o.output != asTable:
			return o.print(found)
		}
		return o.projects("", found)
	}).withOutput().Command
}

func (o *operation) projects(next string, list ...adminapi.Project) error {
	rows := make([][]string, 0, len(list))
	for _, each := range list {
		rows = append(rows, []string{each.ID, each.Name, when(each.CreatedAt), revision(each.Revision)})
	}
	return o.part([]string{"ID", "NAME", "CREATED", "REVISION"}, rows, follows, next)
}

func projectUpdateCommand(p app.Process, env map[string]string) *cobra.Command {
	c := &cobra.Command{
		Use: "update --org ORGANIZATION ID", Short: "Change the name of a project", Long: `Change the name of a project. Its keys stay in it.`,
		Example: `  api-router project update shop --org acme --name "Shop and returns"`, Args: oneProject("update"),
	}
	organization := ownerFlag(c, "project")
	name := c.Flags().String("name", "", "what people call it from now on")
	reason := c.Flags().String("reason", "", "why, for the audit")
	return operate(p, env, c, func(o *operation, api *adminapi.Client, args []string) error {
		if !o.Flags().Changed("name") {
			return errors.New("--name is missing: it is what can be changed of a project")
		}
		before, err := api.Project(o.Context(), *organization, args[0])
		if err != nil {
			return err
		}
		after, err := api.PutProject(o.Context(), *organization, args[0], adminapi.ProjectRequest{Name: *name}, adminapi.If{Revision: &before.Revision, Reason: *reason})
		switch {
		case err != nil:
			return err
		case o.output != asTable:
			return o.print(after)
		}
		return o.projects("", after)
	}).withOutput().Command
}

func projectDeleteCommand(p app.Process, env map[string]string) *cobra.Command {
	c := &cobra.Command{
		Use: "delete --org ORGANIZATION ID", Short: "Delete a project",
		Long:    `Delete a project in which every key is revoked. Keys that are in force are revoked, or moved with "api-router key update --project", first.`,
		Example: `  api-router project delete shop --org acme --reason "the shop is closed"`, Args: oneProject("delete"),
	}
	organization := ownerFlag(c, "project")
	reason := c.Flags().String("reason", "", "why, for the audit")
	return operate(p, env, c, func(o *operation, api *adminapi.Client, args []string) error {
		gone, err := api.DeleteProject(o.Context(), *organization, args[0], adminapi.If{Reason: *reason})
		if err != nil {
			return err
		}
		return o.printf("project %s of organization %s is deleted\n", gone.ID, gone.Organization)
	}).Command
}
