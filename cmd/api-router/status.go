package main

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ai-aas/api-router/internal/adminapi"
	"github.com/ai-aas/api-router/internal/app"
)

func statusCommand(p app.Process, env map[string]string) *cobra.Command {
	c := &cobra.Command{
		Use:   "status",
		Short: "Show how a router is, component by component",
		Long: `Show what a running router is made of and depends on: in which state, since when, how old what it knows is, and what to do.
The exit code is 1 when something needs a person. doctor tells the same of a configuration that nobody runs yet.`,
		Example: `  api-router status
  api-router status -o json --server http://10.0.0.5:8082 --token env:VIEWER_TOKEN`,
		Args: noArguments,
	}
	return operate(p, env, c, func(o *operation, api *adminapi.Client, _ []string) error {
		health, err := api.Status(o.Context())
		if err != nil {
			return err
		}
		if o.output == asTable {
			err = o.health(&health)
		} else {
			err = o.print(health)
		}
		if err == nil && health.Attention > 0 {
			return app.ErrFound
		}
		return err
	}).withOutput().Command
}

// health prints a router for a person: its components, then what there is to do.
func (o *operation) health(h *adminapi.Health) error {
	up := time.Duration(h.UptimeSeconds * float64(time.Second)).Round(time.Second)
	if err := o.printf("%s, version %s, up %s\n\n", oneLine(h.State), oneLine(h.Version), up); err != nil {
		return err
	}
	rows := make([][]string, 0, len(h.Components))
	var todo []string
	for _, c := range h.Components {
		ok, age := "ok", ""
		switch {
		case c.Action != "":
			ok = "ATTENTION"
			line := strings.TrimSpace(c.Name+" "+c.ID) + ": " + c.Action
			if c.LastError != "" {
				line += " (" + c.LastError + ")"
			}
			todo = append(todo, line)
		case !c.OK:
			ok = "waiting"
		}
		if c.AgeSeconds != nil {
			age = time.Duration(*c.AgeSeconds * float64(time.Second)).Round(time.Second).String()
		}
		rows = append(rows, []string{c.Name, c.ID, ok, c.State, when(c.Since), age, cmp.Or(c.LastError, c.Detail)})
	}
	if err := o.table([]string{"COMPONENT", "ID", "OK", "STATE", "SINCE", "DATA AGE", "DETAIL"}, rows); err != nil || len(todo) == 0 {
		return err
	}
	for _, line := range todo {
		if err := o.printf("\n%s\n", oneLine(line)); err != nil {
			return err
		}
	}
	return nil
}

func logLevelCommand(p app.Process, env map[string]string) *cobra.Command {
	c := &cobra.Command{
		Use:   "log-level [LEVEL]",
		Short: "Show or change what a router logs",
		Long: `Show what a running router logs, or change it: debug, info, warn or error. With --for it goes back by itself; without, it stays until
it is set again or the router ends. One router is meant, not its replicas. A reload does not undo it.`,
		Example: `  api-router log-level
  api-router log-level debug --for 10m`,
		Args: oneArgument,
	}
	var length span
	c.Flags().Var(&length, "for", "`HOW LONG`, as in 10m or 2d; without it: until it is set again")
	return operate(p, env, c, func(o *operation, api *adminapi.Client, args []string) error {
		var level adminapi.LogLevel
		var err error
		switch {
		case len(args) == 0 && o.Flags().Changed("for"):
			return errors.New("name the level, as in log-level debug --for 10m")
		case len(args) == 0:
			level, err = api.LogLevel(o.Context())
		default:
			if err := app.CheckLevel(args[0]); err != nil {
				return err
			}
			level, err = api.SetLogLevel(o.Context(), adminapi.LogLevelRequest{Level: args[0], For: adminapi.Duration(length)})
		}
		if err != nil {
			return err
		}
		if o.output != asTable {
			return o.print(level)
		}
		text := level.Level
		if !level.Until.IsZero() {
			text += fmt.Sprintf(" until %s, then %s", when(level.Until), level.Then)
		}
		if level.Actor != "" {
			text += ", set by " + level.Actor
		}
		return o.printf("%s\n", oneLine(text))
	}).withOutput().Command
}
