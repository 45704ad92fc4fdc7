package main

import (
	"database/sql"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ai-aas/api-router/internal/adminapi"
)

func TestEntriesOfAdminsShowTheName(t *testing.T) {
	t.Parallel()
	for want, e := range map[string]adminapi.Entry{
		"1a2B3c4D (olga)": {Kind: "admin", ID: "1a2B3c4D", Before: []byte("null"), After: []byte(`{"name":"olga"}`)},
		"5e6F7g8H (olaf)": {Kind: "admin", ID: "5e6F7g8H", Before: []byte(`{"name":"olaf"}`), After: []byte("null")},
		"9i0J1k2L":        {Kind: "admin", ID: "9i0J1k2L"},
		"acme":            {Kind: "organization", ID: "acme", After: []byte(`{"name":"Acme Corporation"}`)},
	} {
		if got := thing(&e); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestALengthOfTimeTakesDaysEverywhere(t *testing.T) {
	t.Parallel()
	for _, c := range []string{"log-level debug", "model disable m --reason x", "backend drain b --reason x"} {
		for length, want := range map[string]string{"7d": "does not answer", "90m": "does not answer", "5": "a length of time is", "0s": "a length of time is", "-1h": "a length of time is"} {
			args := append(strings.Fields(c), "--for", length, "--server", "http://127.0.0.1:1")
			if code, _, message := command(t, args...); code != 1 || !strings.Contains(message, want) {
				t.Errorf("%s: %d, %q lacks %q", args, code, message, want)
			}
		}
	}
}

func TestSinceTakesALengthADayOrAMoment(t *testing.T) {
	now := time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"": {}, "36h": now.Add(-36 * time.Hour), "7d": now.AddDate(0, 0, -7), "2026-05-01T10:00:00+02:00": time.Date(2026, 5, 1, 8, 0, 0, 0, time.UTC),
		"2026-05-01": time.Date(2026, 5, 1, 0, 0, 0, 0, time.Local), "2026-05-01 10:30:00": time.Date(2026, 5, 1, 10, 30, 0, 0, time.Local),
	} {
		if got, err := sinceWhen(text, now); err != nil || !got.Equal(want) {
			t.Errorf("%q is %s, %v; want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"yesterday", "-1h", "0s", "2026-13-01", "24"} {
		if got, err := sinceWhen(text, now); err == nil {
			t.Errorf("%q is %s", text, got)
		}
	}
}

func TestTheListOfChangesSaysWhereItBegins(t *testing.T) {
	c := openCounter(t)
	c.do("org create acme")
	const told = "were taken out of the state book, as state.audit_retention asks for"
	if out := c.do("audit list"); strings.Contains(out, told) {
		t.Error(out)
	}
	db, err := sql.Open("sqlite", filepath.Join(c.data, "state.db")+"?_busy_timeout=10000&_txlock=immediate")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	since := time.Now().Add(-48 * time.Hour)
	if _, err := db.Exec("UPDATE counter SET value = $1 WHERE name = 'audit_since'", since.UnixNano()); err != nil {
		t.Fatal(err)
	}
	c.do("audit list --limit 0", "acme", "Entries from before "+when(since), told)
	c.do("audit list --kind project", "no such changes", told)
	for _, whole := range []string{"audit list --since 24h", "audit list --limit 1"} { // It is whole; and what is older is there.
		if out := c.do(whole); strings.Contains(out, told) {
			t.Errorf("%s: %s", whole, out)
		}
	}
	c.do("audit list -o json", `"since": "`+since.UTC().Format("2006-01-02T15:"))
}
