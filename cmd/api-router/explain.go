package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ai-aas/api-router/internal/adminapi"
	"github.com/ai-aas/api-router/internal/app"
)

// explain prints an explanation for a person.
func (o *operation) explain(e *adminapi.Explanation) error {
	for _, line := range explanation(e) {
		if err := o.printf("%s\n", oneLine(line)); err != nil {
			return err
		}
	}
	for i := range e.Routes {
		if err := o.route(&e.Routes[i]); err != nil {
			return err
		}
	}
	return nil
}

// explanation is the upper part: what is asked, and what becomes of it.
func explanation(e *adminapi.Explanation) []string {
	asked := "model " + e.Model
	if e.Organization != "" {
		asked += ", organization " + e.Organization
	}
	if e.KeyID != "" {
		asked += ", key " + e.KeyID
	}
	lines := []string{"asked:   " + asked}
	if k := e.Key; k != nil {
		lines = append(lines, "key:     "+k.State)
		for _, note := range k.Notes {
			lines = append(lines, "         "+note)
		}
	}
	if r := e.Request; r != nil {
		text := fmt.Sprintf("body:    %s, stream %t, max_tokens %d, choices %d", r.Endpoint, r.Stream, r.MaxTokens, r.Choices)
		if len(r.Clamps) > 0 {
			text += "; lowered: " + strings.Join(r.Clamps, ", ")
		}
		lines = append(lines, text)
	}
	if e.Error != nil {
		lines = append(lines, fmt.Sprintf("answer:  %d %s: %s", e.Error.Status, e.Error.Code, e.Error.Message))
	}
	if e.Choice != "" {
		lines = append(lines, "choice:  "+e.Choice)
		if len(e.Next) > 0 {
			lines = append(lines, "next:    "+strings.Join(e.Next, ", "))
		}
	}
	if e.Warning != "" {
		lines = append(lines, "warning: "+e.Warning)
	}
	return lines
}

// route prints one policy and its candidates.
func (o *operation) route(r *adminapi.Route) error {
	name := r.Policy
	if r.Revision != 0 {
		name += " revision " + strconv.FormatInt(r.Revision, 10)
	}
	if r.Legacy {
		name += " (legacy)"
	}
	if err := o.printf("\npolicy %s: %s\n%s, at most %d attempts\n", oneLine(name), oneLine(r.Why), r.Strategy, r.Attempts); err != nil {
		return err
	}
	if r.Mark != nil {
		text := target(r.Mark.Backend, r.Mark.Model, r.Mark.Organization) + " is " + markText(r.Mark)
		if r.Mark.Reason != "" {
			text += ": " + r.Mark.Reason
		}
		if err := o.printf("%s\n", oneLine(text)); err != nil {
			return err
		}
	}
	rows := make([][]string, 0, len(r.Candidates))
	for _, c := range r.Candidates {
		order := ""
		if c.Order > 0 {
			order = strconv.Itoa(c.Order)
		}
		why := c.Why
		if why == "" {
			why = c.Reason
		}
		rows = append(rows, []string{
			order, c.Backend, strconv.Itoa(c.Tier), strconv.Itoa(c.Weight), c.State, load(c.InFlight, c.MaxConcurrency), markText(c.Mark), why,
		})
	}
	return o.table([]string{"ORDER", "BACKEND", "TIER", "WEIGHT", "STATE", "IN FLIGHT", "MARK", "WHY"}, rows)
}

func decisionsCommand(p app.Process, env map[string]string) *cobra.Command {
	c := &cobra.Command{
		Use:     "decisions",
		Short:   "Show the last requests of one router and where they went",
		Long:    `Show the last requests that one router has answered, the newest first: who asked for what, which policy and backend it got, how it ended.`,
		Example: `  api-router decisions --limit 20`,
		Args:    noArguments,
	}
	limit := c.Flags().Int("limit", 0, "at most so many requests; 0 leaves it to the server")
	return operate(p, env, c, func(o *operation, api *adminapi.Client, _ []string) error {
		decisions, err := api.Decisions(o.Context(), *limit)
		switch {
		case err != nil:
			return err
		case o.output != asTable:
			return o.print(decisions)
		case len(decisions.Items) == 0:
			return o.printf("There was no request yet.\n")
		}
		rows := make([][]string, 0, len(decisions.Items))
		for i := range decisions.Items {
			d := &decisions.Items[i]
			rows = append(rows, []string{
				when(d.Start), d.Organization, d.Model, d.Policy, d.Backend, d.Decision, strconv.Itoa(d.Status), d.Code,
				fmt.Sprintf("%.0f ms", d.LatencyMillis), d.RequestID,
			})
		}
		return o.table([]string{"WHEN", "ORGANIZATION", "MODEL", "POLICY", "BACKEND", "DECISION", "STATUS", "CODE", "TOOK", "REQUEST"}, rows)
	}).withOutput().Command
}
