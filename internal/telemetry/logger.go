// Package telemetry is what the process tells of itself: its log, and the traces, metrics and log lines that it sends to a collector by
// OTLP (https://opentelemetry.io/docs/specs/otlp/). What a log line should say about a request is passed in as a function.
package telemetry

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
)

// The formats of NewLogger.
const (
	FormatJSON = "json"
	FormatText = "text"
)

// NewLogger returns a logger that writes one line a record to w, in JSON or, for every other format, as key=value text.
//
// level may be a *slog.LevelVar to change it while the process runs. attrs, which may be nil, is asked on each line for what
// the context knows: the request, the organization, the key. Its answer is added to the line at the level where the
// message stands; in a logger made by WithGroup it belongs to the group.
func NewLogger(w io.Writer, format string, level slog.Leveler, attrs func(context.Context) []slog.Attr) *slog.Logger {
	return newLogger(newHandler(w, format, level), attrs)
}

func newHandler(w io.Writer, format string, level slog.Leveler) slog.Handler {
	options := &slog.HandlerOptions{Level: level}
	if format == FormatJSON {
		return slog.NewJSONHandler(w, options)
	}
	return slog.NewTextHandler(w, options)
}

func newLogger(h slog.Handler, attrs func(context.Context) []slog.Attr) *slog.Logger {
	if attrs != nil {
		h = &contextual{Handler: h, attrs: attrs}
	}
	return slog.New(h)
}

// ParseLevel reads debug, info, warn (or warning) and error, in any case.
func ParseLevel(name string) (slog.Level, error) {
	switch strings.ToLower(name) {
	case "debug":
		return slog.LevelDebug, nil
	case "info":
		return slog.LevelInfo, nil
	case "warn", "warning":
		return slog.LevelWarn, nil
	case "error":
		return slog.LevelError, nil
	default:
		return slog.LevelInfo, fmt.Errorf("log level %q is none of debug, info, warn, error", name)
	}
}

// contextual adds to each record what its context knows.
type contextual struct {
	slog.Handler
	attrs func(context.Context) []slog.Attr
}

func (h *contextual) Handle(ctx context.Context, r slog.Record) error {
	if add := h.attrs(ctx); len(add) > 0 {
		r = r.Clone() // A record may be shared with other handlers.
		r.AddAttrs(add...)
	}
	return h.Handler.Handle(ctx, r)
}

func (h *contextual) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &contextual{Handler: h.Handler.WithAttrs(attrs), attrs: h.attrs}
}

func (h *contextual) WithGroup(name string) slog.Handler {
	return &contextual{Handler: h.Handler.WithGroup(name), attrs: h.attrs}
}
