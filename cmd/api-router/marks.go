package main

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ai-aas/api-router/internal/adminapi"
	"github.com/ai-aas/api-router/internal/app"
	"github.com/ai-aas/api-router/internal/policy"
)

// verb is one way to mark something.
type verb struct {
	name, state    string
	backend, model string // what it does, for the help
}

var verbs = []verb{
	{
		"disable", policy.Disabled,
		"No request goes to it, and what runs there is cut off: a request without a byte of its answer goes elsewhere, a stream ends in an error.",
		"Every request for it is answered 503 model_disabled, with the reason. What runs may finish.",
	},
	{
		"drain", policy.Draining,
		"No new request goes to it; what runs there finishes.",
		"New requests go to its fallback models; without any they are answered 503 model_disabled. What runs finishes.",
	},
	{
		"degrade", policy.Degraded,
		"It is used only while no other backend of the model works. Answers carry a warning header.",
		"Its fallback models are used first. Answers carry a warning header.",
	},
}

func backendCommand(p app.Process, env map[string]string) *cobra.Command {
	c := &cobra.Command{
		Use:   "backend",
		Short: "Look at backends; drain, disable, degrade or enable one",
		Long:  `Look at the backends, or put a mark on one. A mark reaches every replica within a second and ends by itself after --for.`,
		Example: `  api-router backend list
  api-router backend drain vllm-a --reason "driver update" --for 2h
  api-router backend enable vllm-a`,
	}
	c.AddCommand(backendListCommand(p, env))
	for _, v := range verbs {
		c.AddCommand(markCommand(p, env, "backend", v, v.backend))
	}
	c.AddCommand(enableCommand(p, env, "backend"))
	return c
}

func modelCommand(p app.Process, env map[string]string) *cobra.Command {
	c := &cobra.Command{
		Use:   "model",
		Short: "Drain, disable, degrade or enable a model",
		Long: `Put a mark on a model, for everybody or with --org for one organization; with --org and no model, on all models of that
organization. A mark reaches every replica within a second and ends by itself after --for.`,
		Example: `  api-router model disable gpt-oss-20b --reason "answers are garbled" --for 1h
  api-router model disable --org acme --reason "by agreement"
  api-router model enable gpt-oss-20b`,
	}
	for _, v := range verbs {
		c.AddCommand(markCommand(p, env, "model", v, v.model))
	}
	c.AddCommand(enableCommand(p, env, "model"))
	return c
}

// aim says what a mark is on.
type aim struct{ backend, model, organization string }

// aimFlags adds what a command of noun needs to name its target.
func aimFlags(c *cobra.Command, noun string) func(args []string) (aim, error) {
	if noun == "backend" {
		c.Use += " ID"
		c.Args = func(c *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fmt.Errorf("name one backend: api-router %s ID; \"api-router backend list\" lists them", c.CommandPath()[len("api-router "):])
			}
			return nil
		}
		return func(args []string) (aim, error) { return aim{backend: args[0]}, nil }
	}
	c.Use += " [MODEL]"
	c.Args = oneArgument
	organization := c.Flags().String("org", "", "only for the `ORGANIZATION` with this id")
	return func(args []string) (aim, error) {
		a := aim{organization: *organization}
		if len(args) == 1 {
			a.model = args[0]
		}
		if a == (aim{}) {
			return a, errors.New("name a model, an organization with --org, or both")
		}
		return a, nil
	}
}

func markCommand(p app.Process, env map[string]string, noun string, v verb, does string) *cobra.Command {
	c := &cobra.Command{Use: v.name, Short: strings.ToUpper(v.name[:1]) + v.name[1:] + " a " + noun, Long: does}
	find := aimFlags(c, noun)
	reason := c.Flags().String("reason", "", "why; others read it in the audit, and clients where a model is disabled")
	var length span
	c.Flags().Var(&length, "for", "`HOW LONG` the mark holds, as in 30m or 7d; without it: until somebody takes it away")
	return operate(p, env, c, func(o *operation, api *adminapi.Client, args []string) error {
		a, err := find(args)
		if err != nil {
			return err
		}
		result, err := api.Mark(o.Context(), adminapi.MarkRequest{
			Backend: a.backend, Model: a.model, Organization: a.organization, State: v.state, Reason: *reason, For: adminapi.Duration(length),
		})
		if err != nil {
			return err
		}
		ends := "until \"" + undo(noun, a) + "\""
		if set, problems := policy.ParseOne(result.Place, policy.KindMark, result.ID, result.Content); len(problems) == 0 && !set.Mark.Until.IsZero() {
			ends = "until " + when(set.Mark.Until) // By the server's clock.
		}
		if result.Outcome == adminapi.Unchanged {
			return o.printf("%s was %s already\n", target(a.backend, a.model, a.organization), v.state)
		}
		return o.printf("%s is %s %s\n", target(a.backend, a.model, a.organization), v.state, ends)
	}).Command
}

// undo is the command that takes a mark away.
func undo(noun string, a aim) string {
	text := "api-router " + noun + " enable"
	if name := cmp.Or(a.backend, a.model); name != "" {
		text += " " + name
	}
	if a.organization != "" {
		text += " --org " + a.organization
	}
	return text
}

func enableCommand(p app.Process, env map[string]string, noun string) *cobra.Command {
	c := &cobra.Command{Use: "enable", Short: "Take every mark off a " + noun, Long: "Take every mark off a " + noun + ", whoever put it there."}
	find := aimFlags(c, noun)
	reason := c.Flags().String("reason", "", "why, for the history")
	return operate(p, env, c, func(o *operation, api *adminapi.Client, args []string) error {
		a, err := find(args)
		if err != nil {
			return err
		}
		marks, err := api.List(o.Context(), adminapi.Marks, false)
		if err != nil {
			return err
		}
		if marks.Stale {
			return fmt.Errorf("the store cannot be read now: %s", oneLine(marks.StaleReason))
		}
		lifted := 0
		for i := range marks.Items {
			d := &marks.Items[i]
			parsed, problems := policy.ParseOne(d.Place, policy.KindMark, d.ID, d.Content)
			if len(problems) > 0 || a != (aim{parsed.Mark.Backend, parsed.Mark.Model, parsed.Mark.Organization}) {
				continue
			}
			if _, err := api.Delete(o.Context(), adminapi.Marks, d.ID, adminapi.If{Reason: *reason}); err != nil {
				if refusal, ok := errors.AsType[*adminapi.Error](err); ok && refusal.Code == "not_found" {
					continue // It ended by itself just now.
				}
				return err
			}
			lifted++
		}
		if lifted == 0 {
			return o.printf("there is no mark on %s\n", target(a.backend, a.model, a.organization))
		}
		return o.printf("%s is enabled\n", target(a.backend, a.model, a.organization))
	}).Command
}

// target names what a mark is on.
func target(backend, model, organization string) string {
	switch {
	case backend != "":
		return "backend " + backend
	case organization == "":
		return "model " + model
	case model == "":
		return "every model of organization " + organization
	}
	return "model " + model + " for organization " + organization
}

func markText(m *adminapi.Mark) string {
	if m == nil {
		return ""
	}
	if m.Until.IsZero() {
		return m.State
	}
	return m.State + " until " + when(m.Until)
}

func backendListCommand(p app.Process, env map[string]string) *cobra.Command {
	c := &cobra.Command{
		Use: "list", Short: "Show every backend: health, load, marks", Example: `  api-router backend list`, Args: noArguments,
	}
	return operate(p, env, c, func(o *operation, api *adminapi.Client, _ []string) error {
		fleet, err := api.Fleet(o.Context())
		switch {
		case err != nil:
			return err
		case o.output != asTable:
			return o.print(fleet)
		case len(fleet.Backends) == 0:
			return o.printf("There are no backends.\n")
		}
		rows := make([][]string, 0, len(fleet.Backends))
		for _, b := range fleet.Backends {
			rows = append(rows, []string{b.ID, b.URL, b.Engine, b.State, load(b.InFlight, b.MaxConcurrency), markText(b.Mark), b.Reason})
		}
		return o.table([]string{"ID", "URL", "ENGINE", "STATE", "IN FLIGHT", "MARK", "REASON"}, rows)
	}).withOutput().Command
}

func load(inFlight int64, most int) string {
	text := strconv.FormatInt(inFlight, 10)
	if most > 0 {
		text += " of " + strconv.Itoa(most)
	}
	return text
}

func explainCommand(p app.Process, env map[string]string) *cobra.Command {
	c := &cobra.Command{
		Use:   "explain --model MODEL",
		Short: "Say which backend a request would get, and why",
		Long: `Say which policy a request would match and why, how each of its backends is, which one would be asked, and what would be tried
next. The same code decides for real; nothing is sent to a backend.

With --org and --key, a key of the state book is looked up by the eight characters after ar_: whether it works, and what its scopes do
to the request. Its secret is not needed.`,
		Example: `  api-router explain --model gpt-oss-20b --org acme
  api-router explain --model gpt-oss-20b --org acme --key 1a2B3c4D
  api-router explain --org acme -f request.json`,
		Args: nothing("name the model with --model, the request's body with -f FILE"),
	}
	var ask adminapi.ExplainRequest
	f := c.Flags()
	f.StringVar(&ask.Model, "model", "", "`MODEL` that is asked for; with -f the body's own")
	f.StringVar(&ask.Organization, "org", "", "`ORGANIZATION` that asks")
	f.StringVar(&ask.KeyID, "key", "", "`ID` of the key that asks, never the key itself; with --org its scopes count, too")
	f.StringVar(&ask.Session, "session", "", "`ID` of the session, as in the header x-session-id")
	f.StringVar(&ask.Endpoint, "endpoint", "", "`PATH` that the body is for (default "+adminapi.EndpointChat+")")
	file := f.StringP("file", "f", "", "`FILE` with the request's body; - is the standard input")
	return operate(p, env, c, func(o *operation, api *adminapi.Client, _ []string) error {
		if *file != "" {
			body, err := o.input(*file, maxBody)
			if err != nil {
				return err
			}
			if err := ask.Text(body); err != nil {
				return err
			}
		}
		if err := noKey(ask.KeyID); err != nil {
			return err
		}
		explanation, err := api.Explain(o.Context(), ask)
		switch {
		case err != nil:
			return err
		case o.output != asTable:
			return o.print(explanation)
		}
		return o.explain(&explanation)
	}).withOutput().Command
}

// maxBody bounds the body that explain sends, in bytes.
const maxBody = 64 << 20
