package state

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/ai-aas/api-router/internal/policy"
	"github.com/ai-aas/api-router/test/pki"
	"github.com/ai-aas/api-router/test/postgres"
)

// encrypted says of the sessions of api-router in a database whether they are so.
func encrypted(t *testing.T, login string) (all []bool) {
	t.Helper()
	conn, err := pgx.Connect(waits(t), login)
	must(t, err)
	defer conn.Close(waits(t))
	rows, err := conn.Query(waits(t), "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'api-router' AND datname = current_database()")
	must(t, err)
	all, err = pgx.CollectRows(rows, pgx.RowTo[bool])
	must(t, err)
	return all
}

func TestPostgresIsReachedByTLSAsTheURLAsks(t *testing.T) {
	server, bare, password := postgres.New(t), postgres.Shared(t), reference(t)
	ours, others := pki.New(t, "ours"), pki.New(t, "others")
	secure := func(pair pki.Pair) { server.Secure(t, pair.Cert, pair.Key) }
	file := func(content []byte) string {
		path := filepath.Join(t.TempDir(), "ca.pem")
		must(t, os.WriteFile(path, content, 0o600))
		return path
	}
	good, ended, client := ours.Server(t, time.Hour), ours.Server(t, -time.Hour), ours.Client(t, time.Hour)
	for _, test := range []struct {
		name       string
		server     *postgres.Server
		cert       pki.Pair
		parameters string
		encrypted  bool
		refusal    string
	}{
		{"with the authority", server, good, "?sslmode=verify-full&sslrootcert=" + file(ours.PEM), true, ""},
		{"with another authority", server, good, "?sslmode=verify-full&sslrootcert=" + file(others.PEM), false, "correct sslmode and sslrootcert in state.url"},
		{"with the system's authorities", server, good, "?sslmode=verify-full", false, "correct sslmode and sslrootcert in state.url"},
		{"with the authority, whatever the name", server, good, "?sslmode=verify-ca&sslrootcert=" + file(ours.PEM), true, ""},
		{"with another authority, whatever the name", server, good, "?sslmode=verify-ca&sslrootcert=" + file(others.PEM), false, "correct sslmode and sslrootcert in state.url"},
		{"with a certificate that has ended", server, ended, "?sslmode=verify-full&sslrootcert=" + file(ours.PEM), false, "correct sslmode and sslrootcert in state.url"},
		{"with a certificate of a client", server, client, "?sslmode=verify-full&sslrootcert=" + file(ours.PEM), false, "correct sslmode and sslrootcert in state.url"},
		{"where there is no TLS", bare, good, "?sslmode=verify-full&sslrootcert=" + file(ours.PEM), false, "correct sslmode and sslrootcert in state.url"},
		{"with nothing said", server, good, "", true, ""},
		{"with nothing said, where there is no TLS", bare, good, "", false, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.server == server {
				secure(test.cert)
			}
			database := test.server.Database(t)
			place, _, _ := strings.Cut(test.server.URL(database, ""), "?")
			book := openedAt(t, Options{URL: place + test.parameters, Password: password})
			if test.refusal != "" {
				told := failure(t, book, test.refusal)
				t.Log(told)
				if now := encrypted(t, test.server.Login(database)); len(now) > 0 {
					t.Errorf("there are sessions: %v", now)
				}
				return
			}
			writeVersion(t, book, "a", 1)
			if now := encrypted(t, test.server.Login(database)); len(now) == 0 || slices.Contains(now, !test.encrypted) {
				t.Errorf("encrypted %v; want each %t", now, test.encrypted)
			}
		})
	}
}

// In Kubernetes, a Secret may come after the pod, and is renewed while it runs.
func TestTheAuthorityOfPostgresMayComeLateAndChange(t *testing.T) {
	server, password := postgres.New(t), reference(t)
	first, second := pki.New(t, "first"), pki.New(t, "second")
	path := filepath.Join(t.TempDir(), "ca.pem")
	secure := func(a *pki.Authority) { pair := a.Server(t, time.Hour); server.Secure(t, pair.Cert, pair.Key) }
	secure(first)
	place, _, _ := strings.Cut(server.URL(server.Database(t), ""), "?")
	url := place + "?sslmode=verify-full&sslrootcert=" + path
	must(t, CheckURL(url))
	book := openedAt(t, Options{URL: url, Password: password})
	t.Log(failure(t, book, "no such file"))
	must(t, os.WriteFile(path, first.PEM, 0o600))
	writeVersion(t, book, "a", 1)
	secure(second)
	server.Exec(t, "postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'api-router'")
	failure(t, book, "correct sslmode and sslrootcert in state.url")
	must(t, os.WriteFile(path, second.PEM, 0o600))
	insist(t, func() error { _, err := book.Read(waits(t), policy.KindBackend, ""); return err })
}

func TestWhereAConnectionMayBePlainIsTold(t *testing.T) {
	for url, want := range map[string]string{
		"postgres://router@db.internal/router":                           "db.internal",
		"postgres://router@db.internal/router?sslmode=prefer":            "db.internal",
		"postgres://router@db.internal/router?sslmode=allow":             "db.internal",
		"postgres://router@db-0,127.0.0.1,db-1:5433/router":              "db-0 db-1",
		"postgres://router@10.0.0.1/router?sslmode=require":              "",
		"postgres://router@db.internal/router?sslmode=verify-full":       "",
		"postgres://router@db.internal/router?sslmode=disable":           "",
		"postgres://router@localhost/router":                             "",
		"postgres://router@[::1]:5432/router":                            "",
		"postgres:///router?host=/run/postgresql&user=router":            "",
		"sqlite:///var/lib/api-router/state.db":                          "",
		"postgres://router:hunter2@db.internal/router":                   "",
		"postgres://router@db.internal/router?host=/run/postgresql,db-2": "db-2",
	} {
		if got := strings.Join(MaybePlain(url), " "); got != want {
			t.Errorf("%s: %q; want %q", url, got, want)
		}
	}
	t.Setenv("PGSSLMODE", "verify-full")
	if got := MaybePlain("postgres://router@db.internal/router"); len(got) > 0 {
		t.Errorf("with PGSSLMODE: %v", got)
	}
}

func TestABookHasOneNameWhereverItsServerIs(t *testing.T) {
	for _, test := range []struct {
		one, other string
		same       bool
	}{
		{"sqlite:///var/lib/state.db", "sqlite:///var/lib/./state.db", true},
		{"sqlite:///var/lib/state.db", "sqlite:///srv/state.db", false},
		{"postgres://router@db-0/router", "postgres://other@db-0,db-1:5433/router?target_session_attrs=read-write&sslmode=disable", true},
		{"postgres://router@db/router", "postgresql://router@db/router", true},
		{"postgres://router@db/router", "postgres://router@db/router?sslmode=verify-full&sslnegotiation=direct&sslrootcert=/absent/ca.pem", true},
		{"postgres://router@db/router", "postgres://router@db/staging", false},
		{"postgres://router@db/router", "postgres://router@db/router?search_path=staging", false},
		{"postgres://router@db/state.db", "sqlite:///state.db", false},
	} {
		if one, other := Name(test.one), Name(test.other); one == "" || other == "" || (one == other) != test.same {
			t.Errorf("%s is %q, %s is %q", test.one, one, test.other, other)
		}
	}
	t.Setenv("PGSSLROOTCERT", "/absent/ca.pem")
	if name := Name("postgres://router@db/router"); name == "" {
		t.Error("it has no name until a certificate is there")
	}
	if name := Name("postgres://router:secret@db/router"); name != "" {
		t.Error(name)
	}
}
