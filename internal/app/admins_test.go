package app_test

import (
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ai-aas/api-router/internal/adminapi"
	"github.com/ai-aas/api-router/internal/app"
	"github.com/ai-aas/api-router/internal/auth"
	"github.com/ai-aas/api-router/internal/simengine"
	"github.com/ai-aas/api-router/test/postgres"
)

// bookkeeper is a place for a state book that can die.
type bookkeeper struct {
	state       app.State
	stop, start func()
}

// onBothBooks runs a test on a book in a SQLite file, and on one in a PostgreSQL server.
func onBothBooks(t *testing.T, test func(t *testing.T, book bookkeeper)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "book")
		path := filepath.Join(dir, "state.db")
		move := func(from, to string) {
			if err := os.Rename(from, to); err != nil {
				t.Fatal(err)
			}
		}
		test(t, bookkeeper{app.State{URL: "sqlite://" + path}, func() {
			move(dir, dir+".away")
			if err := os.WriteFile(dir, nil, 0o600); err != nil { // Nobody makes a new one there.
				t.Fatal(err)
			}
		}, func() {
			if err := os.Remove(dir); err != nil {
				t.Fatal(err)
			}
			move(dir+".away", dir)
		}})
	})
	t.Run("postgres", func(t *testing.T) {
		server := postgres.New(t)
		t.Setenv("APP_TEST_DATABASE", postgres.Password)
		state := app.State{URL: server.URL(server.Database(t), ""), Password: reference(t, "env:APP_TEST_DATABASE")}
		test(t, bookkeeper{state, server.Kill, func() {
			if err := server.Start(); err != nil {
				t.Fatal(err)
			}
		}})
	})
}

// admins is the component that tells of the admins of the state book.
func admins(t *testing.T, api *adminapi.Client) adminapi.Component {
	t.Helper()
	health, err := api.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(health.Components, func(c adminapi.Component) bool { return c.Name == adminapi.ComponentAdmins })
	if i < 0 {
		t.Fatalf("no component tells of admins: %+v", health.Components)
	}
	return health.Components[i]
}

// lets says what a token gets at the admin API: "" is let in.
func lets(t *testing.T, p *process, token string) string {
	t.Helper()
	if _, err := operator(t, p, token).Fleet(t.Context()); err != nil {
		return refused(err)
	}
	return ""
}

func TestAdminsOfTheBookAreLetInWithAndWithoutIt(t *testing.T) {
	onBothBooks(t, func(t *testing.T, book bookkeeper) {
		o := administered(t, map[string]string{"policy.source": "file"}, write(t, "token", token))
		o.Config.Policy.File.Path = write(t, "policies.yaml", sprintf(documentsOf, simulated(t, simengine.Config{Speed: 100}), "gpt-oss-20b"))
		o.Config.State = book.state
		log := new(syncBuffer)
		o.Logger = log.logger()
		p := run(t, o)
		api := operator(t, p, token)
		hire := func(name, role string) (made adminapi.NewAdmin) {
			t.Helper()
			eventually(t, "an admin is made", func() (ok bool) {
				var err error
				made, err = api.CreateAdmin(t.Context(), adminapi.AdminRequest{Name: name, Role: role})
				return err == nil
			})
			return made
		}
		otto, left := hire("otto", adminapi.RoleOperator), hire("left", adminapi.RoleAdmin)
		if _, err := api.CreateAdmin(t.Context(), adminapi.AdminRequest{Name: "Olga", Role: adminapi.RoleOperator}); refused(err) != "invalid_request" {
			t.Errorf("a name of the configuration and of the book: %v", err)
		}
		if _, err := api.RevokeAdmin(t.Context(), left.ID, "a test"); err != nil {
			t.Fatal(err)
		}
		within(t, "the admin is let in", func() bool { return lets(t, p, otto.Secret) == "" })
		eventually(t, "the other is refused", func() bool { return lets(t, p, left.Secret) == "revoked_api_key" })
		stranger := new(auth.Admin).Make().Reveal()
		if got := lets(t, p, stranger); got != "invalid_api_key" {
			t.Errorf("a stranger gets %q", got)
		}
		if status := statusOf(t, http.MethodGet, p.base+"/v1/models", otto.Secret, ""); status != http.StatusUnauthorized {
			t.Errorf("her token opens the public listener: %d", status)
		}
		if c := admins(t, api); !c.OK || c.State != "followed" || !strings.HasPrefix(c.Detail, "2 ") {
			t.Errorf("%+v", c)
		}

		book.stop()
		eventually(t, "the book is lost", func() bool { c := admins(t, api); return c.State == "failing" && c.Action != "" })
		for token, want := range map[string]string{
			otto.Secret: "", left.Secret: "revoked_api_key", stranger: "identity_unavailable", "ara_damaged": "invalid_api_key", token: "",
		} {
			if got := lets(t, p, token); got != want {
				t.Errorf("without the book %.12s gets %q, want %q", token, got, want)
			}
		}

		o.Registry = nil
		begun := time.Now()
		cold := run(t, o)
		if got := lets(t, cold, token); got != "" {
			t.Errorf("after a start without the book, the token of the configuration gets %q", got)
		}
		t.Logf("the configuration's token was let in %s after a start without the book", time.Since(begun).Round(time.Millisecond))
		for _, token := range []string{otto.Secret, left.Secret, stranger} {
			if got := lets(t, cold, token); got != "identity_unavailable" {
				t.Errorf("after a start without the book %.12s gets %q", token, got)
			}
		}
		if c := admins(t, operator(t, cold, token)); c.OK || !c.DataAsOf.IsZero() {
			t.Errorf("%+v", c)
		}

		book.start()
		eventually(t, "both know everybody again", func() bool {
			return lets(t, p, otto.Secret)+lets(t, cold, otto.Secret) == "" && admins(t, api).OK && lets(t, cold, left.Secret) == "revoked_api_key"
		})
		for _, secret := range []string{otto.Secret, left.Secret, stranger, token} {
			if strings.Contains(log.String(), secret[13:]) {
				t.Error("a token is in the log")
			}
		}
	})
}

// Whoever is in the book does not open the listener: without a configuration nobody could have asked for that.
func TestAdminsOfTheBookDoNotOpenTheListener(t *testing.T) {
	flags := stateFlags(t)
	p := run(t, administered(t, flags, write(t, "token", token)))
	if _, err := operator(t, p, token).CreateAdmin(t.Context(), adminapi.AdminRequest{Name: "otto", Role: adminapi.RoleAdmin}); err != nil {
		t.Fatal(err)
	}
	p.end()
	if err := p.wait(t); err != nil {
		t.Fatal(err)
	}
	if p := run(t, placed(t, flags)); p.AdminAddr() != nil {
		t.Errorf("it is open at %s", p.AdminAddr())
	}
}
