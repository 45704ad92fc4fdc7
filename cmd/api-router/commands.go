package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ai-aas/api-router/internal/app"
)

// newRoot is the command tree.
func newRoot(p app.Process, env map[string]string) *cobra.Command {
	root := &cobra.Command{
		Use:   "api-router",
		Short: "An OpenAI-compatible router in front of your own inference servers",
		Long: `api-router takes OpenAI requests, finds out who asks, picks a backend by your policies and its health, and
carries the answer back unchanged. Try it without any configuration:

  api-router dev

Documentation of every setting: api-router check --settings`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.ArbitraryArgs,
		RunE:          noCommand,

		SuggestionsMinimumDistance: 2,
	}
	root.AddCommand(serveCommand(p, env), devCommand(p, env), simulateCommand(p), checkCommand(p, env), doctorCommand(p, env), versionCommand(p))
	root.AddCommand(getCommand(p, env), applyCommand(p, env), deleteCommand(p, env), diffCommand(p, env), historyCommand(p, env), rollbackCommand(p, env),
		backendCommand(p, env), modelCommand(p, env), explainCommand(p, env), decisionsCommand(p, env), seedCommand(p, env), migrateCommand(p, env), statusCommand(p, env), logLevelCommand(p, env),
		orgCommand(p, env), projectCommand(p, env), keyCommand(p, env), adminCommand(p, env), auditCommand(p, env))
	explainMistakes(root)
	return root
}

// configFlags adds --config and the flags of the settings table. The function that it returns gathers what was given.
func configFlags(c *cobra.Command, env map[string]string) func() app.Sources {
	file := c.Flags().String("config", "", "configuration `FILE` (YAML); without one the defaults, the environment and these flags count")
	for _, s := range app.Settings() {
		if s.Flag != "" {
			c.Flags().String(s.Flag, s.Default, fmt.Sprintf("%s [%s, %s]", s.Doc, s.Path, s.Env))
		}
	}
	return func() app.Sources {
		sources := app.Sources{File: *file, Env: env, Flags: map[string]string{}}
		for _, s := range app.Settings() {
			if f := c.Flags().Lookup(s.Flag); s.Flag != "" && f.Changed {
				sources.Flags[s.Path] = f.Value.String()
			}
		}
		return sources
	}
}

func serveCommand(p app.Process, env map[string]string) *cobra.Command {
	c := &cobra.Command{
		Use:   "serve",
		Short: "Run the service",
		Long: `Run the service until SIGTERM or SIGINT. It listens at once, whatever is not there yet, and says in /readyz and in its log
when it has policies. At the end it drains: /readyz says no, requests that run may finish; a second signal ends it at once.
SIGHUP reads the policies anew and reopens the usage files; a change of the policy files is noticed without it.

Flags win over the environment (API_ROUTER_*), the environment over the file. Logs go to standard error.`,
		Example: `  api-router serve --config /etc/api-router/config.yaml
  api-router serve --policies ./policies --listen :9000 --log-format text
  API_ROUTER_ENVIRONMENT=development API_ROUTER_IDENTITY_DEVELOPMENT_KEYS=true api-router serve --policies ./policies`,
		Args: noArguments,
	}
	sources := configFlags(c, env)
	c.RunE = func(c *cobra.Command, _ []string) error { return app.Serve(c.Context(), p, sources()) }
	return c
}

func devCommand(p app.Process, env map[string]string) *cobra.Command {
	var o app.DevOptions
	c := &cobra.Command{
		Use:   "dev",
		Short: "Run everything on this machine, without any configuration",
		Long: `Run a router with development keys in the foreground, and print a curl that works. Without --backend it brings simulated
vLLM engines of its own, in this process: two that serve gpt-oss-20b and one that serves qwen3-8b. With --backend it stands
before real engines: what they are and which models they serve is asked of them, and asked again until they answer.

The documents are in a state book, a SQLite file in --data: what you apply through the admin API is still there at the next start.
Backends are written anew at each start, because their addresses change.

Any key of the form test-ORGANIZATION-ID or dev-ORGANIZATION-ID works. It is not for production: whoever reaches the listener can use it.`,
		Example: `  api-router dev
  api-router dev --backend http://localhost:8000                        # vLLM
  api-router dev --backend http://localhost:11434                       # Ollama
  api-router dev --backend http://localhost:8081 --backend http://gpu:8000 --backend-key env:VLLM_API_KEY`,
		Args: noArguments,
	}
	f := c.Flags()
	f.StringVar(&o.Listen, "listen", "127.0.0.1:8080", "`ADDRESS` of the public listener; :8080 lets other machines in, 127.0.0.1:0 takes any free port")
	f.StringVar(&o.AdminListen, "admin-listen", "127.0.0.1:8082", "`ADDRESS` of the admin listener, which only this machine can use; where the port is taken, another one is")
	f.StringVar(&o.MetricsListen, "metrics-listen", "127.0.0.1:9464", "`ADDRESS` of the metrics listener; where the port is taken, another one is")
	f.StringArrayVar(&o.Backends, "backend", nil, "`URL` of an engine to stand before, instead of simulated ones; may be given several times")
	f.StringArrayVar(&o.BackendKeys, "backend-key", nil, "`KEY` that the engines want, as it is or as env:NAME; once for all of them, or once for each --backend in its order")
	f.StringVar(&o.Data, "data", "", "`DIRECTORY` of the state book and the usage records (default: api-router in your cache directory)")
	logFlags(c, &o.LogLevel, &o.LogFormat, p.Stderr, env)
	o.Env = env
	c.RunE = func(c *cobra.Command, _ []string) error { return app.Dev(c.Context(), p, o) }
	return c
}

func simulateCommand(p app.Process) *cobra.Command {
	var o app.SimulateOptions
	c := &cobra.Command{
		Use:   "simulate",
		Short: "Run one simulated vLLM alone",
		Long: `Run one simulated vLLM: its HTTP API, its batching, prefix cache and metrics, with readable, repeatable answers in place of a
model. Use it to try policies and failover, or, with --zero-work, as the other end of a load test.`,
		Example: `  api-router simulate --listen 127.0.0.1:8000
  api-router simulate --listen 127.0.0.1:8001 --model qwen3-8b --speed 10 --api-key secret
  api-router simulate --listen 127.0.0.1:8002 --zero-work`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error { return app.Simulate(c.Context(), p, o) },
	}
	f := c.Flags()
	f.StringVar(&o.Listen, "listen", "127.0.0.1:8000", "`ADDRESS` to listen on")
	f.StringSliceVar(&o.Models, "model", []string{"gpt-oss-20b"}, "`NAME` of a model to serve; several, or separated by commas, for more")
	f.StringVar(&o.APIKey, "api-key", "", "`KEY` that requests must carry, as with vLLM's own --api-key (default: none)")
	f.Float64Var(&o.Speed, "speed", 1, "how many times faster than a real engine, above 0")
	f.Uint64Var(&o.Seed, "seed", 0, "engines with the same seed and model give the same answers")
	f.BoolVar(&o.ZeroWork, "zero-work", false, "answer with prebuilt bytes and compute nothing")
	return c
}

func checkCommand(p app.Process, env map[string]string) *cobra.Command {
	c := &cobra.Command{
		Use:   "check",
		Short: "Validate the configuration and the policies, offline",
		Long: `Validate a configuration and documents without reaching anything. Every problem is printed at once, with its position.
Without -f the documents are those that the configuration names. The exit code is 1 when there is a problem.`,
		Example: `  api-router check --config /etc/api-router/config.yaml
  api-router check -f ./policies -f extra.yaml
  api-router check --settings`,
		Args: noArguments,
	}
	sources := configFlags(c, env)
	files := c.Flags().StringArrayP("file", "f", nil, "`FILE` or directory with documents; may be given several times")
	settings := c.Flags().Bool("settings", false, "print every setting with its default, as Markdown, and check nothing")
	c.RunE = func(*cobra.Command, []string) error {
		if *settings {
			_, err := io.WriteString(p.Stdout, app.Reference())
			return err
		}
		return app.Check(p.Stdout, sources(), *files)
	}
	return c
}

func doctorCommand(p app.Process, env map[string]string) *cobra.Command {
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Try everything that the configuration depends on",
		Long: `Try the listeners, the policy source, the admin tokens, the usage files, the OTLP collector and every backend, and print one line each: how it is
and what to do. It changes nothing and may run beside the service. The exit code is 1 when something needs a person.

With --local it asks the service that runs on this machine and nothing else: /healthz and /readyz of the public listener that the
configuration names, within two seconds. The exit code is 1 when the service does not live; with --ready also when it is not ready.
That is the health check of the image.`,
		Example: `  api-router doctor --config /etc/api-router/config.yaml
  api-router doctor --policies ./policies
  api-router doctor --local --ready`,
		Args: noArguments,
	}
	sources := configFlags(c, env)
	local := c.Flags().Bool("local", false, "ask the service that runs on this machine whether it lives, and nothing else")
	ready := c.Flags().Bool("ready", false, "with --local: fail also when it lives and is not ready")
	c.RunE = func(c *cobra.Command, _ []string) error {
		switch {
		case *local:
			return app.DoctorLocal(c.Context(), p.Stdout, sources(), *ready)
		case *ready:
			return errors.New("--ready goes with --local")
		}
		return app.Doctor(c.Context(), p.Stdout, sources())
	}
	return c
}

// logFlags adds the two flags of commands without a configuration. Logs are text for a person at a terminal, JSON otherwise.
func logFlags(c *cobra.Command, level, format *string, stderr io.Writer, env map[string]string) {
	preferred := "json"
	if terminal(stderr) {
		preferred = "text"
	}
	usual := "info"
	if named := strings.ToLower(env["LOG_LEVEL"]); named != "" {
		usual = named
	}
	c.Flags().StringVar(level, "log-level", usual, "least severe lines that are logged: debug, info, warn or error")
	c.Flags().StringVar(format, "log-format", preferred, "json or text; text on a terminal if not given")
	c.PreRunE = func(*cobra.Command, []string) error {
		if *format != "json" && *format != "text" {
			return fmt.Errorf("--log-format: %q is none of json, text", *format)
		}
		return app.CheckLevel(*level)
	}
}

func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
