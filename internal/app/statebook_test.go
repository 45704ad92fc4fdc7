package app

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestABookIsThereWhereItIsNamedEvenByTheDefault(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, []byte("state: { url: '"+defaultState+"' }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		sources Sources
		want    bool
	}{
		"nobody names it":        {Sources{}, false},
		"an empty variable":      {Sources{Env: map[string]string{"API_ROUTER_STATE_URL": ""}}, false},
		"the file names it":      {Sources{File: file}, true},
		"a variable names it":    {Sources{Env: map[string]string{"API_ROUTER_STATE_URL": defaultState}}, true},
		"a flag names it":        {Sources{Flags: map[string]string{pathState: defaultState}}, true},
		"documents are in it":    {Sources{Env: map[string]string{"API_ROUTER_POLICY_SOURCE": SourceState}}, true},
		"another place is named": {Sources{Env: map[string]string{"API_ROUTER_STATE_URL": "sqlite:///srv/state.db"}}, true},
	} {
		if config, _, err := Load(test.sources); err != nil || config.hasBook() != test.want {
			t.Errorf("%s: %t, %v", name, config.hasBook(), err)
		}
	}
}

func TestTheAuditIsKeptForeverOrForDays(t *testing.T) {
	t.Parallel()
	const days = 24 * time.Hour
	for text, want := range map[string]struct {
		length time.Duration
		shown  string
	}{
		"":          {0, "0"},
		"0":         {0, "0"},
		"0s":        {0, "0"},
		"0d":        {0, "0"},
		"1d":        {days, "1d"},
		"365d":      {365 * days, "365d"},
		"8760h":     {365 * days, "365d"},
		"36h":       {36 * time.Hour, "36h"},
		"36500d":    {36500 * days, "36500d"},
		"23h":       {-1, "for ever"},
		"365":       {-1, "365d"},
		"1y":        {-1, "365d"},
		"-1d":       {-1, "365d"},
		"-48h":      {-1, "for ever"},
		"36501d":    {-1, "36500d"},
		"99999999d": {-1, "365d"},
	} {
		config, _, err := Load(Sources{Env: map[string]string{"API_ROUTER_STATE_AUDIT_RETENTION": text}})
		switch length := config.State.AuditRetention; {
		case want.length < 0 && (err == nil || !strings.Contains(err.Error(), "state.audit_retention: ") || !strings.Contains(err.Error(), want.shown)):
			t.Errorf("%q: %s, %v", text, length, err)
		case want.length >= 0 && (err != nil || length != want.length || age{&length}.String() != want.shown):
			t.Errorf("%q: %s, shown as %q, %v", text, length, age{&length}, err)
		}
	}
}

func TestMigrateMakesNoBookThatNobodyNamed(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	err := Migrate(t.Context(), Process{Stdout: &out}, Sources{}, time.Second)
	if err == nil || !strings.Contains(err.Error(), "--config") || out.Len() > 0 {
		t.Errorf("got %v, %s", err, &out)
	}
}
