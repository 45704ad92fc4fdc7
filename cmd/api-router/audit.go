package main

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/ai-aas/api-router/internal/adminapi"
	"github.com/ai-aas/api-router/internal/app"
)

func auditCommand(p app.Process, env map[string]string) *cobra.Command {
	c := &cobra.Command{
		Use: "audit", Short: "Show who changed what, of everything that can be changed",
		Long: `Show who changed what: documents, marks, organizations, projects, keys, admins and the log level. "history" has the revisions of one document, to which
"rollback" can go.`,
	}
	c.AddCommand(auditListCommand(p, env))
	return c
}

func auditListCommand(p app.Process, env map[string]string) *cobra.Command {
	c := &cobra.Command{
		Use: "list", Short: "List changes, the newest first",
		Long: `List changes, the newest first: when, who made them and in which role, and why. -o yaml and -o json show each thing before and after, and the
request. No key or token is in it. A change without a name was made past the router. While a place that has a part of the audit cannot be read, nothing is shown
rather than a part: while etcd is away, a --kind that is no document asks the state book alone; while that is, "history" asks etcd.`,
		Example: `  api-router audit list --org acme
  api-router audit list --actor ada --since 24h
  api-router audit list --kind key --id 1a2B3c4D -o json
  api-router audit list --kind policy --limit 0`,
		Args: noArguments,
	}
	var filter adminapi.EntryFilter
	f := c.Flags()
	f.StringVar(&filter.Organization, "org", "", "only what is of the `ORGANIZATION` with this id, or names it")
	f.StringVar(&filter.Kind, "kind", "", "only things of this `KIND`: organization, project, key, admin, log-level, backend, policy, price or mark")
	offer(c, "kind", "organization", "project", "key", "admin", "log-level", "backend", "policy", "price", "mark")
	f.StringVar(&filter.ID, "id", "", "only the thing with this `ID`; of a key or an admin the eight characters, not the name")
	f.StringVar(&filter.Actor, "actor", "", "only what this `NAME` changed: that of a token, or api-router for the router itself")
	since := f.String("since", "", "only what was changed since this `TIME`, as in 24h, 7d, 2026-05-04 or 2026-05-04T10:00:00Z")
	f.StringVar(&filter.Before, "before", "", "go on where the list before ended: its `NEXT`")
	limit := f.Int("limit", 50, "at most so many changes; 0: all of them")
	return operate(p, env, c, func(o *operation, api *adminapi.Client, _ []string) error {
		var err error
		if filter.Since, err = sinceWhen(*since, time.Now()); err != nil {
			return err
		}
		var found adminapi.Entries
		found.Items, found.Next, err = gather(filter.Before, *limit, func(before string, limit int) ([]adminapi.Entry, string, error) {
			filter.Before, filter.Limit = before, limit
			page, err := api.Entries(o.Context(), filter)
			found.Since = page.Since
			return page.Items, page.Next, err
		})
		switch {
		case err != nil:
			return err
		case o.output != asTable:
			return o.print(found)
		case len(found.Items) == 0:
			return o.printf("There are no such changes.\n%s", reach(&found, filter.Since))
		}
		rows := make([][]string, 0, len(found.Items))
		for i := range found.Items {
			e := &found.Items[i]
			who := e.Actor
			if e.Role != "" {
				who += " (" + e.Role + ")"
			}
			rows = append(rows, []string{when(e.At), who, e.Action, e.Kind, thing(e), e.Organization, e.Reason})
		}
		err = o.part([]string{"WHEN", "BY", "ACTION", "KIND", "ID", "ORGANIZATION", "REASON"}, rows, older, found.Next)
		if err != nil || found.Next != "" {
			return err
		}
		return o.printf("%s", reach(&found, filter.Since))
	}).withOutput().Command
}

// reach says that what is older than the list may have been taken out, where that was asked for.
func reach(found *adminapi.Entries, since time.Time) string {
	if found.Since.IsZero() || !since.Before(found.Since) {
		return ""
	}
	return "Entries from before " + when(found.Since) + " were taken out of the state book, as state.audit_retention asks for.\n"
}

// thing is what an entry is about. Of an admin people know the name, and it stands in other entries as who made them.
func thing(e *adminapi.Entry) string {
	if e.Kind != "admin" {
		return e.ID
	}
	for _, text := range [][]byte{e.After, e.Before} {
		var is adminapi.Admin
		if json.Unmarshal(text, &is) == nil && is.Name != "" {
			return e.ID + " (" + is.Name + ")"
		}
	}
	return e.ID
}

// sinceWhen reads how long ago, a day or a moment, in the zone that times are shown in; "" is none.
func sinceWhen(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if ago, err := readLength(text); err == nil {
		return now.Add(-ago), nil
	}
	for _, form := range []string{time.RFC3339, time.DateTime, time.DateOnly} {
		if at, err := time.ParseInLocation(form, text, time.Local); err == nil {
			return at, nil
		}
	}
	return time.Time{}, fmt.Errorf("--since %q is neither a length of time such as 24h or 7d, nor a date such as 2026-05-04 or 2026-05-04T10:00:00Z", text)
}
