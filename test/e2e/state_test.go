package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ai-aas/api-router/test/postgres"
	"github.com/ai-aas/api-router/test/relay"
)

// seeded is a database in which the model is routed to one backend, and the settings of a router that uses it, through a relay.
func seeded(t *testing.T, server *postgres.Server, backend string) (database string, between *relay.Relay, settings []string) {
	t.Helper()
	database = server.Database(t)
	between = relay.New(t, server.Address)
	settings = []string{"policy.source=state", "state.url=" + server.URL(database, between.Address()), "state.password=env:DB", "DB=" + postgres.Password}
	t.Log(bySeed(t, settings, backend))
	return database, between, settings
}

// bySeed points the model at one backend, without a router.
func bySeed(t *testing.T, settings []string, backend string) string {
	t.Helper()
	documents := filepath.Join(t.TempDir(), "documents.yaml")
	text := fmt.Sprintf("kind: Backend\nid: north\nurl: %s\n---\nkind: RoutingPolicy\nid: chat\nmodel: %s\nbackends: [{ id: north }]\n", backend, model)
	if err := os.WriteFile(documents, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := command(t, environment(settings), "seed", "-f", documents)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// environment turns settings into variables, as launch does.
func environment(settings []string) (env []string) {
	for _, s := range settings {
		name, value, _ := strings.Cut(s, "=")
		if name != strings.ToUpper(name) {
			name = "API_ROUTER_" + strings.ToUpper(strings.ReplaceAll(name, ".", "_"))
		}
		env = append(env, name+"="+value)
	}
	return env
}

func TestTwoRoutersShareAPostgresDatabase(t *testing.T) {
	server := postgres.Shared(t)
	_, _, settings := seeded(t, server, engine(t))
	one, two := serve(t, settings...), serve(t, settings...)
	for _, r := range []*router{one, two} {
		within(t, "the policy routes", eventually(t, "the policy routes", func() error { return r.served("north") }), prompt)
	}
	out, err := command(t, []string{"API_ROUTER_ADMIN_URL=http://" + one.admin, "API_ROUTER_ADMIN_TOKEN=" + adminToken}, "model", "disable", model, "--reason", "a test")
	if err != nil {
		t.Fatal(out, err)
	}
	within(t, "the other refuses", eventually(t, "the other refuses", func() error { return two.refused(503, "model_disabled") }), prompt)
}

func TestPostgresDiesUnderLoad(t *testing.T) {
	server := postgres.New(t)
	_, between, settings := seeded(t, server, engine(t))
	r := serve(t, settings...)
	eventually(t, "the policy routes", func() error { return r.served("north") })
	l := r.load(t, 4)
	server.Kill()
	time.Sleep(2 * time.Second)
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	between.Stall()
	time.Sleep(3 * time.Second)
	between.Pass()
	other := engine(t)
	bySeed(t, settings, other)
	l.stop(t)
}

func TestAColdStartWithoutItsDatabaseServesTheLastGoodPolicies(t *testing.T) {
	server := postgres.New(t)
	_, between, settings := seeded(t, server, engine(t))
	lastGood := filepath.Join(t.TempDir(), "policy.json")
	settings = append(settings, "policy.last_good="+lastGood)
	r := serve(t, settings...)
	eventually(t, "the policy routes", func() error { return r.served("north") })
	eventually(t, "the last good file", func() error { _, err := os.Stat(lastGood); return err })
	r.end(9)
	for _, trouble := range []struct {
		name string
		make func()
	}{
		{"silent", between.Stall},
		{"dead", func() { between.Pass(); server.Kill() }},
	} {
		t.Run(trouble.name, func(t *testing.T) {
			trouble.make()
			r := launch(t, "", settings...)
			within(t, "it listens", eventually(t, "it listens", func() error { return r.get("/healthz") }), 300*time.Millisecond)
			within(t, "it serves", eventually(t, "it serves", func() error { return r.served("north") }), prompt)
		})
	}
}

// As docs/state.md tells.
func TestARouterRoutesFromARestoredBackup(t *testing.T) {
	t.Run("PostgreSQL", func(t *testing.T) {
		server := postgres.Shared(t)
		database, _, settings := seeded(t, server, engine(t))
		dump := server.Run(t, nil, "pg_dump", database, "--format=custom", "--no-owner")
		other := server.Database(t)
		server.Run(t, dump, "pg_restore", other, "--exit-on-error", "--no-owner")
		r := serve(t, append(settings, "state.url="+server.URL(other, ""))...)
		eventually(t, "the restored policy routes", func() error { return r.served("north") })
	})
	t.Run("SQLite", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "state.db")
		settings := []string{"policy.source=state", "state.url=sqlite://" + path}
		bySeed(t, settings, engine(t))
		serve(t, settings...).end(9) // Its write-ahead log stays: what a copy of all files has.
		away := filepath.Join(t.TempDir(), "restored.db")
		for _, suffix := range []string{"", "-wal"} {
			content, err := os.ReadFile(path + suffix)
			if err != nil && suffix == "" {
				t.Fatal(err)
			}
			if err := os.WriteFile(away+suffix, content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		r := serve(t, "policy.source=state", "state.url=sqlite://"+away)
		eventually(t, "the restored policy routes", func() error { return r.served("north") })
	})
}

func TestTablesThatAreLeftToAPersonWaitForMigrate(t *testing.T) {
	server := postgres.Shared(t)
	settings := []string{"policy.source=state", "state.url=" + server.URL(server.Database(t), ""), "state.migrate=manual", "state.password=env:DB", "DB=" + postgres.Password}
	r := serve(t, settings...)
	env := []string{"API_ROUTER_ADMIN_URL=http://" + r.admin, "API_ROUTER_ADMIN_TOKEN=" + adminToken}
	eventually(t, "the status says what to do", func() error {
		out, _ := command(t, env, "status") // It fails while something is wrong.
		if !strings.Contains(out, "un api-router migrate") {
			return fmt.Errorf("status: %s", out)
		}
		return nil
	})
	out, err := command(t, environment(settings), "migrate")
	if err != nil || !strings.Contains(out, "version 5") || strings.Contains(out, postgres.Password) {
		t.Fatalf("%s %v", out, err)
	}
	bySeed(t, settings, engine(t))
	eventually(t, "the policy routes", func() error { return r.served("north") })
	if strings.Contains(r.log.String(), postgres.Password) {
		t.Error("the log has the password")
	}
}
