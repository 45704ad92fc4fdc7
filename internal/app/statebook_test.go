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

func TestMigrateMakesNoBookThatNobodyNamed(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	err := Migrate(t.Context(), Process{Stdout: &out}, Sources{}, time.Second)
	if err == nil || !strings.Contains(err.Error(), "--config") || out.Len() > 0 {
		t.Errorf("got %v, %s", err, &out)
	}
}
