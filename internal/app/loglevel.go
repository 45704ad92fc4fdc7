package app

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/ai-aas/api-router/internal/adminapi"
	"github.com/ai-aas/api-router/internal/telemetry"
)

// logLevel is the level of the process's log, which operators may change while it runs. A reload does not undo that.
type logLevel struct {
	log   *slog.Logger
	level *slog.LevelVar // what the handlers ask

	mu    sync.Mutex
	usual slog.Level  // what it goes back to
	until time.Time   // when; zero: it is at the usual one
	actor string      // who set what is in force
	back  *time.Timer // nil: it does not go back
	turns int         // counts the changes, so that a timer that fires late knows that it is
}

func newLogLevel(log *slog.Logger, level *slog.LevelVar) *logLevel {
	if level == nil {
		level = new(slog.LevelVar)
	}
	return &logLevel{log: log, level: level, usual: level.Level()}
}

// Get tells what is logged.
func (l *logLevel) Get() adminapi.LogLevel {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.get()
}

func (l *logLevel) get() adminapi.LogLevel {
	now := adminapi.LogLevel{Level: levelName(l.level.Level()), Until: l.until, Actor: l.actor}
	if !l.until.IsZero() {
		now.Then = levelName(l.usual)
	}
	return now
}

// Set changes what is logged: for a time, after which it goes back by itself, or for good when that is 0. It tells what was logged before.
func (l *logLevel) Set(name string, hold time.Duration, who string) (before, now adminapi.LogLevel, err error) {
	level, err := telemetry.ParseLevel(name)
	if err != nil {
		return before, now, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	before = l.get()
	l.forget()
	attrs := []slog.Attr{slog.String("actor", who)}
	l.actor = who
	if hold == 0 {
		l.usual = level
	} else {
		l.until = time.Now().Add(hold)
		attrs = append(attrs, slog.Time("until", l.until), slog.String("then", levelName(l.usual)))
		turn := l.turns
		l.back = time.AfterFunc(hold, func() { l.goBack(turn) })
	}
	l.change(level, "the log level was set", attrs...)
	return before, l.get(), nil
}

// goBack ends what a timer was for, unless somebody has set something else meanwhile.
func (l *logLevel) goBack(turn int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if turn != l.turns {
		return
	}
	who := l.actor
	l.forget()
	l.change(l.usual, "the log level went back", slog.String("set_by", who))
}

func (l *logLevel) forget() {
	if l.back != nil {
		l.back.Stop()
	}
	l.back, l.until, l.actor = nil, time.Time{}, ""
	l.turns++
}

// change writes its line at a level that is logged before or after it: whatever the change, it is seen.
func (l *logLevel) change(level slog.Level, message string, attrs ...slog.Attr) {
	before := l.level.Level()
	lower := min(before, level)
	l.level.Set(lower)
	attrs = append(attrs, slog.String("from", levelName(before)), slog.String("to", levelName(level)))
	l.log.LogAttrs(context.Background(), max(lower, slog.LevelInfo), message, attrs...)
	l.level.Set(level)
}

// stop ends the timer.
func (l *logLevel) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.forget()
}

func levelName(level slog.Level) string { return strings.ToLower(level.String()) }
