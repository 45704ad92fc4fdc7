package app

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ai-aas/api-router/internal/fleet"
	"github.com/ai-aas/api-router/internal/policy"
)

// tableOf compiles backends, given as id and URL; each has the key in file.
func tableOf(t *testing.T, file string, backends ...[2]string) *policy.Table {
	t.Helper()
	key, err := policy.ParseSecretRef("file:" + file)
	if err != nil {
		t.Fatal(err)
	}
	var s policy.Snapshot
	for _, each := range backends {
		b := policy.NewBackend(each[0], each[1])
		b.APIKey = key
		s.Documents = append(s.Documents, policy.Document{Backend: &b})
	}
	return policy.Compile(s, nil)
}

func TestRosterFollowsTheSecretsFiles(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key")
	synctest.Test(t, func(t *testing.T) {
		f := fleet.New(fleet.Options{})
		r := newRoster(slog.New(slog.DiscardHandler), f, nil)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.run(ctx) }()
		key := func(want string, broken int) {
			t.Helper()
			time.Sleep(2 * secretsEvery)
			got := ""
			if b, ok := f.Backend("a"); ok {
				got = string(b.Spec().APIKey)
			}
			if got != want || r.broken() != broken {
				t.Errorf("the fleet has the key %q, %d broken; want %q, %d", got, r.broken(), want, broken)
			}
		}
		put := func(content string) {
			t.Helper()
			if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		r.before(t.Context(), tableOf(t, file, [2]string{"a", "http://one"}))
		key("", 1)
		put("first\n")
		key("first", 0)
		put("second\n")
		key("second", 0)
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		key("second", 0) // The last good one stays.
		r.before(t.Context(), tableOf(t, file, [2]string{"a", "http://two"}))
		if _, ok := r.applied["a"]; ok {
			t.Error("a key that was meant for one address went to another")
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestRosterKeepsOldBackendsUntilTheTableIsPublished(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte("k"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := fleet.New(fleet.Options{})
	r := newRoster(slog.New(slog.DiscardHandler), f, map[string]fleet.Secret{"new": "override"})
	has := func(want ...string) {
		t.Helper()
		var got []string
		for _, s := range f.Status() {
			got = append(got, s.ID)
		}
		if len(got) != len(want) {
			t.Fatalf("the fleet has %v; want %v", got, want)
		}
		for i := range want {
			if got[i] != want[i] {
				t.Errorf("the fleet has %v; want %v", got, want)
			}
		}
	}
	first := tableOf(t, file, [2]string{"old", "http://one"}, [2]string{"stays", "http://two"})
	r.before(t.Context(), first)
	r.after(first)
	has("old", "stays")
	second := tableOf(t, file, [2]string{"new", "http://three"}, [2]string{"stays", "http://two"})
	r.before(t.Context(), second)
	has("new", "old", "stays")
	r.after(second)
	has("new", "stays")
	if b, ok := f.Backend("new"); !ok || b.Spec().APIKey != "override" {
		t.Error("a key that stands in no document did not win")
	}
}

// withMarks is a table with one backend "a" and the given marks on it, by id.
func withMarks(t *testing.T, marks ...policy.Mark) *policy.Table {
	t.Helper()
	b := policy.NewBackend("a", "http://one")
	s := policy.Snapshot{Documents: []policy.Document{{Backend: &b}}}
	for _, m := range marks {
		m.Backend = "a"
		s.Documents = append(s.Documents, policy.Document{Mark: &m})
	}
	table := policy.Compile(s, nil)
	if problems := table.Problems(); len(problems) > 0 {
		t.Fatal(problems)
	}
	return table
}

func TestOfSeveralMarksOnABackendTheStrictestHolds(t *testing.T) {
	past := time.Now().Add(-time.Minute)
	disabled := policy.Mark{ID: "m", State: policy.Disabled}
	for _, others := range [][]policy.Mark{
		{{ID: "a", State: policy.Degraded}, {ID: "z", State: policy.Draining}},
		{{ID: "a", State: policy.Disabled, Until: past}, {ID: "z", State: policy.Disabled, Until: past}},
	} {
		f := fleet.New(fleet.Options{})
		table := withMarks(t, append(others, disabled)...)
		r := newRoster(slog.New(slog.DiscardHandler), f, nil)
		r.before(t.Context(), table)
		r.after(table)
		if b, ok := f.Backend("a"); !ok || b.Status().State != fleet.MarkDisabled {
			t.Errorf("beside %+v the switch does not hold", others)
		}
	}
}

func TestAMarkGoesWithTheTableThatHasIt(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // Nobody probes here: do not wait for it.
	f := fleet.New(fleet.Options{})
	r := newRoster(slog.New(slog.DiscardHandler), f, nil)
	is := func(want string) {
		t.Helper()
		if b, ok := f.Backend("a"); !ok || b.Status().State != want {
			t.Errorf("the backend is %s, want %s", b.Status().State, want)
		}
	}
	for _, step := range []struct {
		marks         []policy.Mark
		before, after string
	}{
		{nil, "available", "available"},
		{[]policy.Mark{{ID: "m", State: policy.Draining}}, "draining", "draining"},
		{[]policy.Mark{{ID: "m", State: policy.Disabled}}, "disabled", "disabled"}, // A switch holds before the table does.
		{[]policy.Mark{{ID: "m", State: policy.Degraded}}, "disabled", "available"},
		{[]policy.Mark{{ID: "m", State: policy.Disabled}}, "disabled", "disabled"},
		{nil, "disabled", "available"}, // Requests still go by the table that has it.
	} {
		table := withMarks(t, step.marks...)
		r.before(ctx, table)
		is(step.before)
		r.after(table)
		is(step.after)
	}
}
