package app

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/ai-aas/api-router/internal/state"
)

// Problem is one thing that is wrong with a configuration.
type Problem struct {
	Where string // FILE:LINE:COLUMN, an environment variable or a flag
	Text  string
}

// Problems is everything that is wrong with a configuration, found in one go.
type Problems []Problem

// Error has one line for each problem.
func (p Problems) Error() string {
	lines := make([]string, 0, len(p))
	for _, problem := range p {
		lines = append(lines, problem.Where+": "+problem.Text)
	}
	return strings.Join(lines, "\n")
}

// Sources are the places that a configuration is made of. A later one wins over an earlier one: the defaults, the earlier
// service's environment, the file, the environment, the flags.
type Sources struct {
	File  string            // "" for none
	Env   map[string]string // the whole environment
	Flags map[string]string // by the path of the setting
}

// Note is something about a configuration that the log should say: nothing that stops it.
type Note struct {
	Level   slog.Level
	Message string
	Attrs   []slog.Attr
}

// Load reads a configuration. Its error is Problems, or what kept the file from being read.
func Load(s Sources) (Config, []Note, error) {
	config, notes, problems, err := load(s)
	switch {
	case err != nil:
		return Config{}, nil, err
	case len(problems) > 0:
		return Config{}, notes, problems
	}
	return config, notes, nil
}

// load is Load for those who can use a configuration that has problems: what is wrong in it has its default.
func load(s Sources) (Config, []Note, Problems, error) {
	l := loader{config: Default(), origin: map[string]string{}, byPath: map[string]setting{}}
	for _, s := range settings {
		l.byPath[s.path] = s
	}
	l.aliases(s.Env, false)
	if s.File != "" {
		data, err := os.ReadFile(s.File)
		if err != nil {
			return Config{}, nil, nil, fmt.Errorf("read the configuration: %w", err)
		}
		l.file(s.File, data)
	}
	l.aliases(s.Env, true)
	l.environment(s.Env)
	for _, path := range slices.Sorted(maps.Keys(s.Flags)) {
		setting := l.byPath[path]
		l.set(setting, s.Flags[path], "--"+setting.flag)
	}
	// ENVIRONMENT=development turns the keys on only as long as the environment is still the one that it named.
	if l.origin[pathDevelopmentKeys] == "ENVIRONMENT" && l.origin[pathEnvironment] != "ENVIRONMENT" {
		l.config.Identity.DevelopmentKeys = false
	}
	l.config.State.Named = l.origin[pathState] != ""
	l.problems = append(l.problems, l.config.validate(l.origin)...)
	l.unused()
	if len(l.problems) == 0 {
		l.plain()
		l.summarize(s.Env)
	}
	return l.config, l.notes, l.problems, nil
}

// loader gathers one configuration.
type loader struct {
	config   Config
	byPath   map[string]setting
	origin   map[string]string // path → where its value came from
	problems Problems
	notes    []Note
}

func (l *loader) problem(where, format string, args ...any) {
	l.problems = append(l.problems, Problem{Where: where, Text: fmt.Sprintf(format, args...)})
}

func (l *loader) warn(message string, attrs ...slog.Attr) {
	l.notes = append(l.notes, Note{Level: slog.LevelWarn, Message: message, Attrs: attrs})
}

func (l *loader) set(s setting, text, where string) {
	if err := s.value(&l.config).Set(text); err != nil {
		l.problem(where, "%s: %v", s.path, err)
		return
	}
	l.origin[s.path] = where
}

// aliases applies the earlier service's variables: those below the file first, the native ones above it later.
func (l *loader) aliases(env map[string]string, native bool) {
	for _, a := range aliases {
		text, set := env[a.env]
		if !set || a.set == nil || a.native != native || text == "" && !a.empty {
			continue
		}
		if err := a.set(&l.config, strings.TrimSpace(text)); err != nil {
			if a.mild {
				l.warn("an environment variable has no usable value", slog.String("name", a.env), slog.String("error", err.Error()))
			} else {
				l.problem(a.env, "%v", err)
			}
			continue
		}
		for _, path := range a.paths {
			l.origin[path] = a.env
		}
	}
}

// commandVariables are what commands that ask a running router are told by. They stand in the environment of people who also run check and doctor.
var commandVariables = []string{envPrefix + "ADMIN_URL", envPrefix + "ADMIN_TOKEN", envPrefix + "ADMIN_CA", envPrefix + "ADMIN_CERT", envPrefix + "ADMIN_KEY"}

// environment applies our own variables.
func (l *loader) environment(env map[string]string) {
	known := map[string]bool{}
	for _, s := range settings {
		name := s.env()
		known[name] = true
		text, set := env[name]
		if !set {
			continue
		}
		if text == "" && !meansSomething(s.value(&l.config)) {
			continue // An empty variable is one that a template left out.
		}
		l.set(s, text, name)
	}
	var unknown []string
	for name := range env {
		if strings.HasPrefix(name, envPrefix) && !known[name] && !serviceLink(name) && !slices.Contains(commandVariables, name) {
			unknown = append(unknown, name)
		}
	}
	if len(unknown) > 0 {
		slices.Sort(unknown)
		l.warn("environment variables that look like settings but are none; \"api-router check --settings\" lists the settings", slog.Any("names", unknown))
	}
}

// meansSomething reports whether the empty text is a value of v.
func meansSomething(v value) bool {
	switch v := v.(type) {
	case word:
		return v.empty
	case interface{ takesEmpty() bool }:
		return v.takesEmpty()
	default:
		return false
	}
}

// serviceLink reports whether the variable is one that Kubernetes sets for a Service named api-router.
func serviceLink(name string) bool {
	rest := strings.TrimPrefix(name, envPrefix)
	return strings.HasPrefix(rest, "SERVICE_HOST") || strings.HasPrefix(rest, "SERVICE_PORT") || rest == "PORT" || strings.HasPrefix(rest, "PORT_")
}

// unused notes what was set for a policy source that is not the one in use: mostly somebody believes otherwise.
func (l *loader) unused() {
	var names []string
	for _, s := range settings {
		of := ""
		switch {
		case strings.HasPrefix(s.path, "policy.file."):
			of = SourceFile
		case strings.HasPrefix(s.path, "policy.etcd."):
			of = SourceEtcd
		}
		if of != "" && of != l.config.Policy.Source && l.origin[s.path] != "" {
			names = append(names, s.path)
			delete(l.origin, s.path) // It was not used, wherever it came from.
		}
	}
	if len(names) > 0 {
		l.warn("settings that have no effect, because policy.source is another", slog.String("source", l.config.Policy.Source), slog.Any("names", names))
	}
}

// plain warns of a connection to the state book that may be without TLS though nobody has decided that.
func (l *loader) plain() {
	if !l.config.hasBook() {
		return
	}
	if hosts := state.MaybePlain(l.config.State.URL); len(hosts) > 0 {
		l.warn("state.url does not say whether the database must be reached by TLS: add sslmode=verify-full, or sslmode=disable where others on that network may read along",
			slog.Any("hosts", hosts))
	}
}

// summarize notes which of the earlier service's variables were used and which have no effect.
func (l *loader) summarize(env map[string]string) {
	var used, idle []string
	for _, a := range aliases {
		if env[a.env] == "" && !(a.empty && l.origin[a.paths[0]] == a.env) {
			continue
		}
		if a.set == nil {
			idle = append(idle, a.env)
			continue
		}
		for _, path := range a.paths {
			if l.origin[path] == a.env && !a.native {
				used = append(used, a.env)
				break
			}
		}
	}
	if len(used) > 0 {
		l.notes = append(l.notes, Note{
			Level: slog.LevelInfo, Message: "settings taken from the earlier service's environment variables",
			Attrs: []slog.Attr{slog.Any("names", used)},
		})
	}
	if len(idle) > 0 {
		l.warn("environment variables of the earlier service that have no effect in this version", slog.Any("names", idle))
	}
}

// Environ turns the form of os.Environ into a map.
func Environ(list []string) map[string]string {
	env := make(map[string]string, len(list))
	for _, entry := range list {
		if name, text, ok := strings.Cut(entry, "="); ok && name != "" {
			env[name] = text
		}
	}
	return env
}

// AsProblems returns the problems in err, or nil when it is another kind of error.
func AsProblems(err error) Problems {
	problems, _ := errors.AsType[Problems](err)
	return problems
}
