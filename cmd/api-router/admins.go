package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ai-aas/api-router/internal/adminapi"
	"github.com/ai-aas/api-router/internal/app"
)

func adminCommand(p app.Process, env map[string]string) *cobra.Command {
	c := &cobra.Command{
		Use:   "admin",
		Short: "Say who may operate the router; change it, and end it",
		Long: `Say who may ask the admin API, and in which role: viewer, operator, admin or auditor. They are in the state book (state.url) and known to every
router within five seconds, beside the tokens of identity.admin_tokens, which are the way in. A token is shown once, when it is made: the book keeps
a digest. Commands name an admin by name or by id, the eight characters after "ara_", never by the token.`,
		Example: `  api-router admin create olga --role operator --expires 90d
  api-router admin list
  api-router admin get olga
  api-router admin set olga --role admin
  api-router admin revoke olga --reason "she left"`,
	}
	c.AddCommand(adminCreateCommand(p, env), adminListCommand(p, env), adminGetCommand(p, env), adminSetCommand(p, env), adminEndCommand(p, env, false), adminEndCommand(p, env, true))
	return c
}

// oneAdmin wants exactly one name.
func oneAdmin(verb string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		switch {
		case len(args) != 1 && verb == "create":
			return errors.New("name one admin: api-router admin create NAME --role ROLE")
		case len(args) != 1:
			return fmt.Errorf("name one admin: api-router admin %s NAME; \"api-router admin list\" lists them", verb)
		case strings.HasPrefix(args[0], "ara_"):
			return errors.New("this is a token, and a command line is kept in histories and lists of processes: name the admin by name or by id, the eight characters after \"ara_\"")
		}
		return nil
	}
}

// roles are what --role can be.
var roles = []string{adminapi.RoleViewer, adminapi.RoleOperator, adminapi.RoleAdmin, adminapi.RoleAuditor}

const expiresOfAdmin = "when the token ends: in a `TIME` such as 90d or 12h, or at one such as 2027-01-31 or 2027-01-31T12:00:00Z"

func adminCreateCommand(p app.Process, env map[string]string) *cobra.Command {
	c := &cobra.Command{
		Use: "create NAME --role ROLE", Short: "Let somebody operate the router",
		Long: `Make an admin and print the token, this once. The name has up to 64 of the characters A-Z a-z 0-9 . _ -, cannot be changed, and stands in the
audit as who changed something.`,
		Example: `  api-router admin create olga --role operator --expires 90d
  api-router admin create deploy --role admin -o json | jq -r .secret`,
		Args: oneAdmin("create"),
	}
	role := c.Flags().String("role", "", "`ROLE`: viewer, operator, admin or auditor")
	offer(c, "role", roles...)
	expires := c.Flags().String("expires", "", expiresOfAdmin+" (default: never)")
	notEmpty(c, "expires")
	reason := c.Flags().String("reason", "", "why, for the audit")
	return operate(p, env, c, func(o *operation, api *adminapi.Client, args []string) error {
		if *role == "" {
			return fmt.Errorf("--role is missing: it is one of %s", strings.Join(roles, ", "))
		}
		end, err := readEnd(*expires, time.Now())
		if err != nil {
			return err
		}
		made, err := api.CreateAdmin(o.Context(), adminapi.AdminRequest{Name: args[0], Role: *role, ExpiresAt: end, Reason: *reason})
		switch {
		case err != nil:
			return err
		case o.output != asTable:
			return o.print(made)
		}
		return o.printf("admin %s with the role %s is created; this is the only time that the token is shown:\n\n  %s\n\n"+
			"Commands take it from %s. Whoever has it can use it; if it is lost or known, \"api-router admin revoke %s\" ends it.\n",
			made.Name, made.Role, made.Secret, envAdminToken, made.Name)
	}).withOutput().Command
}

func adminListCommand(p app.Process, env map[string]string) *cobra.Command {
	c := &cobra.Command{
		Use: "list", Short: "List who may operate the router",
		Long:    `List who may operate the router, by name: those of the state book. Those of identity.admin_tokens and of issuers are not among them.`,
		Example: `  api-router admin list`, Args: noArguments,
	}
	return operate(p, env, c, func(o *operation, api *adminapi.Client, _ []string) error {
		found, err := api.Admins(o.Context())
		switch {
		case err != nil:
			return err
		case o.output != asTable:
			return o.print(found)
		case len(found.Items) == 0:
			return o.printf("There are no admins in the state book; \"api-router admin create NAME --role ROLE\" makes one.\n")
		}
		return o.admins(found.Items...)
	}).withOutput().Command
}

func (o *operation) admins(list ...adminapi.Admin) error {
	rows := make([][]string, 0, len(list))
	for _, a := range list {
		rows = append(rows, []string{a.ID, a.Name, a.Role, a.State, when(a.ExpiresAt), when(a.CreatedAt), a.CreatedBy})
	}
	return o.table([]string{"ID", "NAME", "ROLE", "STATE", "EXPIRES", "CREATED", "BY"}, rows)
}

func adminGetCommand(p app.Process, env map[string]string) *cobra.Command {
	c := &cobra.Command{
		Use: "get NAME", Short: "Show everything that is kept of an admin",
		Long:    `Show everything that is kept of an admin: the role, until when, and since when the token is refused. The token itself is kept nowhere.`,
		Example: `  api-router admin get olga`, Args: oneAdmin("get"),
	}
	return operate(p, env, c, func(o *operation, api *adminapi.Client, args []string) error {
		found, err := findAdmin(o.Context(), api, args[0])
		switch {
		case err != nil:
			return err
		case o.output != asTable:
			return o.print(found)
		}
		return o.whole([][]string{
			{"ID", found.ID},
			{"Name", found.Name},
			{"Role", found.Role},
			{"State", damaged(found.State, found.Damage)},
			{"Expires", cmp.Or(when(found.ExpiresAt), "never")},
			{"Revoked", when(found.RevokedAt)},
			{"Created", strings.TrimSpace(when(found.CreatedAt) + " " + found.CreatedBy)},
			{"Revision", revision(found.Revision)},
		})
	}).withOutput().Command
}

// findAdmin finds whoever goes by this name or id.
func findAdmin(ctx context.Context, api *adminapi.Client, name string) (adminapi.Admin, error) {
	all, err := api.Admins(ctx)
	if err != nil {
		return adminapi.Admin{}, err
	}
	var found []adminapi.Admin
	for _, a := range all.Items {
		if a.ID == name || strings.EqualFold(a.Name, name) {
			found = append(found, a)
		}
	}
	switch len(found) {
	case 0:
		return adminapi.Admin{}, fmt.Errorf("the state book has no admin %s; \"api-router admin list\" lists them, and those of identity.admin_tokens are in the configuration", name)
	case 1:
		return found[0], nil
	}
	return adminapi.Admin{}, fmt.Errorf("%s is the name of one admin, %s, and the id of another, %s: name the first by its id, or end the second first", name, found[0].ID, found[1].ID)
}

func adminSetCommand(p app.Process, env map[string]string) *cobra.Command {
	c := &cobra.Command{
		Use: "set NAME", Short: "Change the role or the end of an admin",
		Long:    `Change the role of an admin, or when the token ends; on every router within five seconds. The token stays.`,
		Example: "  api-router admin set olga --role admin\n  api-router admin set olga --expires 90d", Args: oneAdmin("set"),
	}
	role := c.Flags().String("role", "", "`ROLE`: viewer, operator, admin or auditor (default: it stays)")
	offer(c, "role", roles...)
	expires := c.Flags().String("expires", "", expiresOfAdmin+", or never (default: it stays)")
	notEmpty(c, "role", "expires")
	reason := c.Flags().String("reason", "", "why, for the audit")
	return operate(p, env, c, func(o *operation, api *adminapi.Client, args []string) error {
		if *role == "" && *expires == "" {
			return errors.New("say what to change: --role or --expires")
		}
		now, err := findAdmin(o.Context(), api, args[0])
		if err != nil {
			return err
		}
		next := adminapi.AdminChange{Role: cmp.Or(*role, now.Role)}
		if *expires == "never" {
			next.ExpiresAt = adminapi.To(time.Time{})
		} else if *expires != "" {
			end, err := readEnd(*expires, time.Now())
			if err != nil {
				return err
			}
			next.ExpiresAt = adminapi.To(end)
		}
		changed, err := api.ChangeAdmin(o.Context(), now.ID, next, adminapi.If{Revision: &now.Revision, Reason: *reason})
		switch {
		case err != nil:
			return err
		case o.output != asTable:
			return o.print(changed)
		}
		return o.admins(changed)
	}).withOutput().Command
}

// adminEndCommand revokes an admin, or forgets one that nobody can be any more.
func adminEndCommand(p app.Process, env map[string]string, forget bool) *cobra.Command {
	c := &cobra.Command{
		Use: "revoke NAME", Short: "Refuse the token of an admin for good",
		Long:    `Refuse the token of an admin with 401 from now on, on every router within five seconds. It cannot be undone.`,
		Example: `  api-router admin revoke olga --reason "she left"`, Args: oneAdmin("revoke"),
	}
	if forget {
		c.Use, c.Short, c.Args = "delete NAME", "Forget an admin who is revoked or expired", oneAdmin("delete")
		c.Long = `Forget an admin who is revoked or expired, so that another can have the name. The audit keeps what was.`
		c.Example = `  api-router admin delete olga`
	}
	reason := c.Flags().String("reason", "", "why, for the audit")
	return operate(p, env, c, func(o *operation, api *adminapi.Client, args []string) error {
		found, err := findAdmin(o.Context(), api, args[0])
		if err != nil {
			return err
		}
		if forget {
			if _, err := api.DeleteAdmin(o.Context(), found.ID, adminapi.If{Revision: &found.Revision, Reason: *reason}); err != nil {
				return err
			}
			return o.printf("admin %s is deleted\n", found.Name)
		}
		if _, err := api.RevokeAdmin(o.Context(), found.ID, *reason); err != nil {
			return err
		}
		return o.printf("admin %s is revoked\n", found.Name)
	}).Command
}
