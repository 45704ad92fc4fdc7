package main

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ai-aas/api-router/internal/adminapi"
	"github.com/ai-aas/api-router/internal/app"
	"github.com/ai-aas/api-router/internal/policy"
)

// kinds is what people may write for a kind, for the help texts.
const kinds = "KIND is backends, policies, prices or marks (one of it, as in policy, will do, too)."

// named wants between least and most arguments, and says which they are.
func named(usage string, least, most int) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) < least || len(args) > most {
			return fmt.Errorf("write it as: api-router %s, where KIND is backends, policies, prices or marks", usage)
		}
		return nil
	}
}

const nameFiles = "name files and directories with -f, each with its own"

// nothing wants no arguments, and says what to write instead.
func nothing(instead string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) > 0 {
			return fmt.Errorf("%s takes no argument, and got %q: %s", c.Name(), spoken(args[0]), instead)
		}
		return nil
	}
}

func getCommand(p app.Process, env map[string]string) *cobra.Command {
	c := &cobra.Command{
		Use:   "get KIND [ID]",
		Short: "Show documents and what has become of them",
		Long: `Show the documents of a kind, or one of them: as they are stored, and whether they are in force. A document that cannot be used
stays visible with its error, and its last good version keeps serving. ` + kinds + `

-o yaml prints what "apply -f" takes.`,
		Example: `  api-router get policies
  api-router get policies --invalid
  api-router get backend vllm-a -o yaml > vllm-a.yaml`,
		Args: named("get KIND [ID]", 1, 2),
	}
	invalid := c.Flags().Bool("invalid", false, "only documents that are not used as they are written, with the reason")
	return operate(p, env, c, func(o *operation, api *adminapi.Client, args []string) error {
		kind, err := policy.KindOf(args[0])
		if err != nil {
			return err
		}
		if len(args) == 2 {
			document, err := api.Get(o.Context(), kind.Collection(), args[1])
			if err != nil {
				return err
			}
			return o.documents(kind, adminapi.List{Items: []adminapi.Document{document}}, document, false)
		}
		list, err := api.List(o.Context(), kind.Collection(), *invalid)
		if err != nil {
			return err
		}
		return o.documents(kind, list, list, *invalid)
	}).withOutput().Command
}

// documents prints a list. answer is what JSON shows.
func (o *operation) documents(kind policy.Kind, list adminapi.List, answer any, invalid bool) error {
	if list.Stale {
		if _, err := fmt.Fprintf(o.ErrOrStderr(), "The store cannot be read now, these are the documents in force: %s\n", oneLine(list.StaleReason)); err != nil {
			return err
		}
	}
	switch {
	case o.output == asJSON:
		return o.print(answer)
	case o.output == asYAML:
		return o.contents(list.Items)
	case invalid:
		return o.problems(list)
	}
	if len(list.Items) == 0 {
		return o.printf("There are no %s.\n", kind.Collection())
	}
	rows := make([][]string, 0, len(list.Items))
	for i := range list.Items {
		rows = append(rows, row(kind, &list.Items[i]))
	}
	if err := o.table(heads[kind], rows); err != nil {
		return err
	}
	if len(list.Items) > 1 {
		return nil
	}
	for _, problem := range list.Items[0].Problems {
		if err := o.printf("%s\n", oneLine(problem.String())); err != nil {
			return err
		}
	}
	return nil
}

// contents prints documents as they were written, ready for apply.
func (o *operation) contents(items []adminapi.Document) error {
	for i := range items {
		text, err := toYAML(items[i].Content)
		if err != nil {
			return fmt.Errorf("%s %s: %w", items[i].Kind, items[i].ID, err)
		}
		if err := o.printf("---\n# %s\n%s\n", oneLine(strings.Join(remarks(&items[i]), ", ")), text); err != nil {
			return err
		}
	}
	return nil
}

func remarks(d *adminapi.Document) []string {
	notes := []string{string(d.Status)}
	if d.Revision != 0 {
		notes = append(notes, "revision "+strconv.FormatInt(d.Revision, 10))
	}
	if d.Place != "" {
		notes = append(notes, d.Place)
	}
	return notes
}

// problems prints what is wrong, one line each, documents first.
func (o *operation) problems(list adminapi.List) error {
	all := slices.Clone(list.Problems)
	for i := range list.Items {
		all = append(all, list.Items[i].Problems...)
	}
	if len(all) == 0 {
		return o.printf("Every document is used as it is written.\n")
	}
	rows := make([][]string, 0, len(all))
	for _, p := range all {
		place := p.Place
		if p.Line > 0 {
			place += fmt.Sprintf(":%d:%d", p.Line, p.Column)
		}
		serving := "nothing"
		if p.Serving {
			serving = "the last good version"
		}
		rows = append(rows, []string{strings.TrimSpace(p.Kind + " " + p.ID), place, p.Message, serving})
	}
	return o.table([]string{"DOCUMENT", "PLACE", "PROBLEM", "SERVING"}, rows)
}

var heads = map[policy.Kind][]string{
	policy.KindBackend:       {"ID", "URL", "ENGINE", "STATE", "IN FLIGHT", "MARK", "REVISION", "STATUS"},
	policy.KindRoutingPolicy: {"ID", "ORGANIZATION", "MODEL", "BACKENDS", "STRATEGY", "REVISION", "STATUS"},
	policy.KindPrice:         {"ID", "MODEL", "VALID FROM", "INPUT", "CACHED", "OUTPUT", "REASONING", "REVISION", "STATUS"},
	policy.KindMark:          {"ID", "TARGET", "STATE", "UNTIL", "BY", "REASON", "REVISION", "STATUS"},
}

// row is a document in a table. What cannot be read of a refused document stays empty.
func row(kind policy.Kind, d *adminapi.Document) []string {
	status := string(d.Status)
	if d.Legacy {
		status += ", legacy"
	}
	cells := make([]string, len(heads[kind]))
	cells[0], cells[len(cells)-2], cells[len(cells)-1] = d.ID, revision(d.Revision), status
	// The id's rules are the server's to check: a document of the earlier service may stand under any key.
	parsed, problems := policy.ParseOne(d.Place, kind, d.ID, d.Content)
	if len(problems) > 0 {
		return cells
	}
	switch kind {
	case policy.KindBackend:
		cells[1], cells[2] = parsed.Backend.URL, parsed.Backend.Engine
		if b := d.Backend; b != nil {
			cells[3], cells[4], cells[5] = b.State, strconv.FormatInt(b.InFlight, 10), markText(b.Mark)
		}
	case policy.KindRoutingPolicy:
		r := parsed.Policy
		cells[1], cells[2], cells[3], cells[4] = r.Organization, r.Model, candidates(r.Backends), r.Strategy
	case policy.KindPrice:
		price := parsed.Price
		cells[1], cells[2] = price.Model, when(price.ValidFrom)
		rates := price.USDPerMillion
		for i, rate := range []policy.USD{rates.Input, rates.CachedInput, rates.Output, rates.Reasoning} {
			cells[3+i] = rate.String()
		}
	case policy.KindMark:
		m := parsed.Mark
		cells[1], cells[2], cells[3], cells[4], cells[5] = target(m.Backend, m.Model, m.Organization), m.State, when(m.Until), m.Actor, m.Reason
	}
	return cells
}

// revision is empty where the store keeps none.
func revision(n int64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatInt(n, 10)
}

func candidates(list []policy.Candidate) string {
	names := make([]string, 0, len(list))
	for _, c := range list {
		names = append(names, c.Backend)
	}
	const most = 3
	if len(names) > most {
		names = append(names[:most], fmt.Sprintf("and %d more", len(names)-most))
	}
	return strings.Join(names, ", ")
}

func applyCommand(p app.Process, env map[string]string) *cobra.Command {
	c := &cobra.Command{
		Use:   "apply -f FILE",
		Short: "Write documents",
		Long: `Write documents that are new or differ. All of them are checked first, also against what is in force: when one has a problem,
nothing is written and every problem is printed. A document that somebody changes in the meantime is not overwritten.`,
		Example: `  api-router apply -f policies/
  api-router apply -f new.yaml --reason "the new GPUs are in"
  api-router apply -f new.yaml --dry-run`,
		Args: nothing(nameFiles),
	}
	files := c.Flags().StringArrayP("file", "f", nil, "`FILE` or directory with documents, - for the standard input; may be given several times")
	reason := c.Flags().String("reason", "", "why, for the history")
	dry := c.Flags().Bool("dry-run", false, "check, and say what would be done, but write nothing")
	return operate(p, env, c, func(o *operation, api *adminapi.Client, _ []string) error {
		differences, err := o.compare(api, *files)
		if err != nil {
			return err
		}
		written := 0
		for i := range differences {
			d := &differences[i]
			outcome := d.Outcome
			if outcome != adminapi.Unchanged && !*dry {
				kind, err := policy.KindOf(d.Kind)
				if err != nil {
					return err
				}
				result, err := api.Put(o.Context(), kind.Collection(), d.ID, d.Content, adminapi.If{Revision: &d.Revision, Reason: *reason})
				if err != nil {
					return fmt.Errorf("%s%s %s: %w", before(written), d.Kind, d.ID, changedMeanwhile(err))
				}
				outcome = result.Outcome
				written++
			}
			if err := o.printf("%-9s %s %s\n", outcome, d.Kind, d.ID); err != nil {
				return err
			}
		}
		if *dry {
			return o.printf("Nothing was written: this was a dry run.\n")
		}
		return nil
	}).Command
}

// before says what an apply had done when it failed. It can be run again.
func before(written int) string {
	switch written {
	case 0:
		return ""
	case 1:
		return "after 1 document was written: "
	}
	return fmt.Sprintf("after %d documents were written: ", written)
}

// changedMeanwhile says what to do about a document that somebody else has changed between the look at it and the writing.
func changedMeanwhile(err error) error {
	if refusal, ok := errors.AsType[*adminapi.Error](err); ok && refusal.Code == "precondition_failed" {
		return fmt.Errorf("%w; look at it with get, and run the command again", err)
	}
	return err
}

// compare checks the documents of files and says what writing them would change, backends before the policies that name them.
func (o *operation) compare(api *adminapi.Client, files []string) ([]adminapi.Difference, error) {
	documents, err := o.read(files)
	if err != nil {
		return nil, err
	}
	validation, err := api.Validate(o.Context(), documents.text)
	if err != nil {
		return nil, err
	}
	if !validation.Valid {
		return nil, documents.complain(o, validation.Problems)
	}
	diff, err := api.Diff(o.Context(), documents.text)
	if err != nil {
		return nil, err
	}
	if err := documents.complain(o, diff.Problems); err != nil {
		return nil, err
	}
	for _, p := range validation.Problems { // They keep nothing from serving.
		if _, err := fmt.Fprintln(o.ErrOrStderr(), "note: "+oneLine(documents.locate(p).String())); err != nil {
			return nil, err
		}
	}
	order := map[string]int{}
	for i, kind := range policy.Kinds() {
		order[string(kind)] = i
	}
	slices.SortStableFunc(diff.Items, func(a, b adminapi.Difference) int { return cmp.Compare(order[a.Kind], order[b.Kind]) })
	return diff.Items, nil
}

func diffCommand(p app.Process, env map[string]string) *cobra.Command {
	c := &cobra.Command{
		Use:     "diff -f FILE",
		Short:   "Show what apply would change",
		Long:    `Show, field by field, what "apply -f" would change. Nothing is written.`,
		Example: `  api-router diff -f policies/`,
		Args:    nothing(nameFiles),
	}
	files := c.Flags().StringArrayP("file", "f", nil, "`FILE` or directory with documents, - for the standard input; may be given several times")
	exit := c.Flags().Bool("exit-code", false, "end with exit code 1 when there is a difference")
	return operate(p, env, c, func(o *operation, api *adminapi.Client, _ []string) error {
		differences, err := o.compare(api, *files)
		if err != nil {
			return err
		}
		changes := slices.DeleteFunc(slices.Clone(differences), func(d adminapi.Difference) bool { return d.Outcome == adminapi.Unchanged })
		if o.output != asTable {
			err = o.print(adminapi.Diff{Items: changes})
		} else {
			err = o.differences(changes, len(differences)-len(changes))
		}
		if err == nil && *exit && len(changes) > 0 {
			return app.ErrFound
		}
		return err
	}).withOutput().Command
}

func (o *operation) differences(changes []adminapi.Difference, unchanged int) error {
	signs := map[adminapi.Outcome]string{adminapi.Created: "+", adminapi.Changed: "~"}
	for _, d := range changes {
		title := fmt.Sprintf("%s %s %s", signs[d.Outcome], d.Kind, d.ID)
		if d.Revision != 0 {
			title += fmt.Sprintf(" (revision %d)", d.Revision)
		}
		if err := o.printf("%s\n", title); err != nil {
			return err
		}
		for _, f := range d.Fields {
			if err := o.printf("    %s\n", oneLine(f.String())); err != nil {
				return err
			}
		}
	}
	return o.printf("%d of %d documents differ.\n", len(changes), len(changes)+unchanged)
}

func deleteCommand(p app.Process, env map[string]string) *cobra.Command {
	c := &cobra.Command{
		Use:     "delete KIND ID",
		Short:   "Delete a document",
		Long:    `Delete a document. Its history stays: "rollback" brings it back. ` + kinds,
		Example: `  api-router delete policy global-gpt-oss-20b --reason "replaced by acme-gpt-oss-20b"`,
		Args:    named("delete KIND ID", 2, 2),
	}
	reason := c.Flags().String("reason", "", "why, for the history")
	return operate(p, env, c, func(o *operation, api *adminapi.Client, args []string) error {
		kind, err := policy.KindOf(args[0])
		if err != nil {
			return err
		}
		gone, err := api.Delete(o.Context(), kind.Collection(), args[1], adminapi.If{Reason: *reason})
		if err != nil {
			return err
		}
		return o.printf("deleted %s %s\n", gone.Kind, gone.ID)
	}).Command
}

func historyCommand(p app.Process, env map[string]string) *cobra.Command {
	c := &cobra.Command{
		Use:   "history [KIND ID]",
		Short: "Show who changed what, when and why",
		Long: `Show the changes of one document, or of all, the newest first. -o yaml and -o json show the documents before and after each change.
A change without a name was made past the router, in the store itself. ` + kinds,
		Example: `  api-router history policy global-gpt-oss-20b
  api-router history --limit 20`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 0 && len(args) != 2 {
				return errors.New("history takes a KIND and an ID, or nothing for all documents")
			}
			return nil
		},
	}
	before := c.Flags().String("before", "", "go on where the list before ended: its `NEXT`")
	limit := c.Flags().Int("limit", 50, "at most so many changes; 0: all of them")
	return operate(p, env, c, func(o *operation, api *adminapi.Client, args []string) error {
		ask := func(page adminapi.HistoryPage) (adminapi.History, error) { return api.Audit(o.Context(), page) }
		if len(args) > 0 {
			kind, err := policy.KindOf(args[0])
			if err != nil {
				return err
			}
			ask = func(page adminapi.HistoryPage) (adminapi.History, error) {
				return api.History(o.Context(), kind.Collection(), args[1], page)
			}
		}
		items, next, err := gather(*before, *limit, func(before string, limit int) ([]adminapi.Change, string, error) {
			page, err := ask(adminapi.HistoryPage{Before: before, Limit: limit})
			return page.Items, page.Next, err
		})
		history := adminapi.History{Items: items, Next: next}
		switch {
		case err != nil:
			return err
		case o.output != asTable:
			return o.print(history)
		case len(history.Items) == 0:
			return o.printf("There is no history.\n")
		}
		rows := make([][]string, 0, len(history.Items))
		for _, e := range history.Items {
			rows = append(rows, []string{revision(e.Revision), when(e.At), e.Actor, e.Action, e.Kind + " " + e.ID, e.Reason})
		}
		return o.part([]string{"REVISION", "WHEN", "BY", "ACTION", "DOCUMENT", "REASON"}, rows, older, history.Next)
	}).withOutput().Command
}

func rollbackCommand(p app.Process, env map[string]string) *cobra.Command {
	c := &cobra.Command{
		Use:     "rollback KIND ID --to REVISION",
		Short:   "Write a document as it once was",
		Long:    `Write a document as it was at one of the revisions that "history" lists, also after it was deleted. ` + kinds,
		Example: `  api-router rollback policy global-gpt-oss-20b --to 41 --reason "the new backend is too slow"`,
		Args:    named("rollback KIND ID", 2, 2),
	}
	to := c.Flags().Int64("to", 0, "`REVISION` to go back to")
	reason := c.Flags().String("reason", "", "why, for the history")
	return operate(p, env, c, func(o *operation, api *adminapi.Client, args []string) error {
		kind, err := policy.KindOf(args[0])
		if err != nil {
			return err
		}
		if *to <= 0 {
			return fmt.Errorf("--to is missing: \"api-router history %s %s\" lists the revisions", args[0], args[1])
		}
		result, err := api.Rollback(o.Context(), kind.Collection(), args[1], adminapi.Rollback{Revision: *to, Reason: *reason})
		if err != nil {
			return err
		}
		return o.printf("%s %s %s: as at revision %d, now revision %d\n", result.Outcome, result.Kind, result.ID, *to, result.Revision)
	}).Command
}
