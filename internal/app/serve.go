package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/KimMachineGun/automemlimit/memlimit"

	"github.com/ai-aas/api-router/internal/auth"
	"github.com/ai-aas/api-router/internal/gateway"
	"github.com/ai-aas/api-router/internal/telemetry"
)

// Process is what a command gets from outside: its output, and the signals, which are caught by cmd alone.
type Process struct {
	Version string
	Stdout  io.Writer
	Stderr  io.Writer
	Reload  <-chan struct{} // a value asks for the policies to be read anew
	Force   <-chan struct{} // a value, or its closing, ends a drain at once
}

// ErrLogged says that a failure is in the log already, where the collector of a service's logs finds it.
var ErrLogged = errors.New("the reason is in the log")

// Serve is the service: it reads the configuration, and runs until ctx ends. The first log line is out before anything can fail,
// and the reason of a failure is the last: its error is ErrLogged.
func Serve(ctx context.Context, p Process, sources Sources) error {
	level := new(slog.LevelVar)
	format := cmp.Or(sources.Flags[pathLogFormat], sources.Env["API_ROUTER_LOG_FORMAT"], Default().Log.Format)
	log := p.start(level, format)

	config, notes, err := Load(sources)
	if err != nil {
		return logged(log, err)
	}
	if config.Log.Format != format {
		log = p.logger(level, config.Log.Format)
	}
	setLevel(level, config.Log.Level)
	registry := telemetry.NewRegistry(p.Version)
	sent, log := p.tell(sources.Env, &config, registry, level, log)
	defer flush(sent, log, p.Force)
	for _, n := range notes {
		log.LogAttrs(ctx, n.Level, n.Message, n.Attrs...)
	}
	limitMemory(log)
	a, err := New(Options{Config: config, Logger: log, Level: level, Version: p.Version, Registry: registry, Telemetry: sent, Reload: p.Reload, Force: p.Force})
	if err != nil {
		return logged(log, err)
	}
	if err := a.Run(ctx); err != nil {
		return logged(log, err)
	}
	return nil
}

// logged writes why the service ends, one line for each problem.
func logged(log *slog.Logger, err error) error {
	for line := range strings.Lines(err.Error()) {
		log.Error("api-router cannot go on", "error", strings.TrimSpace(line))
	}
	return fmt.Errorf("%w: %w", ErrLogged, err)
}

// start makes the logger and writes the first line.
func (p *Process) start(level *slog.LevelVar, format string) *slog.Logger {
	log := p.logger(level, format)
	slog.SetDefault(log) // What libraries write to the standard logger is one of our lines, too.
	log.Info("api-router starting", "version", p.Version, "pid", os.Getpid(), "go", runtime.Version())
	return log
}

func (p *Process) logger(level *slog.LevelVar, format string) *slog.Logger {
	return telemetry.NewLogger(p.Stderr, format, level, requestAttrs)
}

// setLevel takes a level that the configuration has checked.
func setLevel(level *slog.LevelVar, name string) {
	if l, err := telemetry.ParseLevel(name); err == nil {
		level.Set(l)
	}
}

// requestAttrs is what a log line inside of a request says of it.
func requestAttrs(ctx context.Context) []slog.Attr {
	id := gateway.RequestID(ctx)
	if id == "" {
		return nil
	}
	attrs := []slog.Attr{slog.String("request_id", id), slog.String("trace_id", gateway.Place(ctx).Trace.String())}
	if p, ok := auth.FromContext(ctx); ok {
		attrs = append(attrs, slog.String("organization", p.Organization), slog.String("key_id", p.KeyID))
	}
	return attrs
}

// gcPercent lets the heap grow to five times what is live before a collection: on the router's small heap that is a few
// megabytes for a tenth of the processor time under load. The memory limit holds all the same. GOGC wins over it.
const gcPercent = 400

// limitMemory tells the garbage collector of the container's limit: the one place where that is done. GOMEMLIMIT wins over it.
func limitMemory(log *slog.Logger) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	limit, err := memlimit.Set(memlimit.WithRatio(memlimitRatio), memlimit.WithProvider(memlimit.FromCgroup))
	if err != nil || limit == math.MaxInt64 {
		log.Debug("no memory limit found; the garbage collector works without one", "reason", err)
		return
	}
	log.Debug("memory limit for the garbage collector", "bytes", limit)
}

// memlimitRatio leaves room for what the collector does not count: stacks of cgo-free code are small, kernel buffers are not.
const memlimitRatio = 0.9

// CheckLevel says what is wrong with the name of a log level.
func CheckLevel(name string) error {
	_, err := telemetry.ParseLevel(name)
	return err
}
