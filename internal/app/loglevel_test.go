package app

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// leveled is a log with a level that can be changed.
func leveled(at slog.Level) (*logLevel, *bytes.Buffer) {
	level, log := new(slog.LevelVar), new(bytes.Buffer)
	level.Set(at)
	return newLogLevel(slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: level})), level), log
}

func TestALogLevelGoesBackByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, log := leveled(slog.LevelWarn)
		before, set, err := l.Set("debug", 10*time.Minute, "olga")
		if err != nil || before.Level != "warn" || before.Then != "" || set.Level != "debug" || set.Then != "warn" || set.Actor != "olga" || !set.Until.Equal(time.Now().Add(10*time.Minute)) {
			t.Fatalf("%+v %v", set, err)
		}
		l.log.Debug("a detail")
		time.Sleep(9 * time.Minute)
		if _, _, err := l.Set("info", 2*time.Minute, "ada"); err != nil { // It begins anew, and still goes back to what was usual.
			t.Fatal(err)
		}
		time.Sleep(90 * time.Second) // The first time is over.
		synctest.Wait()
		if got := l.Get(); got.Level != "info" || got.Then != "warn" {
			t.Errorf("%+v", got)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := l.Get(); got.Level != "warn" || got.Actor != "" || !got.Until.IsZero() || l.level.Level() != slog.LevelWarn {
			t.Errorf("%+v", got)
		}
		for _, want := range []string{"actor=olga", "from=warn to=debug", "a detail", "actor=ada", "from=debug to=info", `msg="the log level went back" set_by=ada from=info to=warn`} {
			if !strings.Contains(log.String(), want) {
				t.Errorf("the log lacks %s:\n%s", want, log)
			}
		}
	})
}

func TestEveryChangeOfTheLogLevelIsSeen(t *testing.T) {
	levels := []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError}
	for _, from := range levels {
		for _, to := range levels {
			l, log := leveled(from)
			if _, _, err := l.Set(to.String(), 0, "olga"); err != nil {
				t.Fatal(err)
			}
			if l.level.Level() != to || !strings.Contains(log.String(), "actor=olga") {
				t.Errorf("from %s to %s: it is %s, and the log says %s", from, to, l.level.Level(), log)
			}
		}
	}
	l, log := leveled(slog.LevelInfo)
	if _, _, err := l.Set("loud", 0, "olga"); err == nil || l.level.Level() != slog.LevelInfo || log.Len() > 0 {
		t.Errorf("%v %s", err, log)
	}
}
