package e2e

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ai-aas/api-router/internal/auth"
	"github.com/ai-aas/api-router/test/postgres"
	network "github.com/ai-aas/api-router/test/relay"
)

// The primary dies, and a standby that was behind takes its place: known keys go on all the time, what the standby does not have is given up, and
// the old primary is not taken for the book when it comes back.
func TestKnownKeysGoOnWhileAStandbyTakesThePlaceOfItsPrimary(t *testing.T) {
	primary := postgres.New(t)
	database, backend := primary.Database(t), engine(t)
	link := network.New(t, primary.Address)
	login := []string{"policy.source=state", "state.password=env:DB", "DB=" + postgres.Password}
	bySeed(t, append(login, "state.url="+primary.URL(database, "")), backend)
	standby := primary.Standby(t, link.Address())
	url := postgres.Both(primary, standby, database) + "&target_session_attrs=read-write"
	settings := append(login, "state.url="+url)
	keys := newKeyring(t, url)
	known, doomed := keys.make(t, "known"), keys.make(t, "doomed")
	one, two := serve(t, append(settings, byKeys(t.TempDir())...)...), serve(t, append(settings, byKeys(t.TempDir())...)...)
	both := func(what string, key auth.Secret, status int, code string) time.Duration {
		t.Helper()
		return seldom(t, what, func() error { return errors.Join(one.answers(key, status, code), two.answers(key, status, code)) })
	}
	both("the key works", known, http.StatusOK, "")
	primary.CaughtUp(t)

	link.Refuse(true) // The standby falls behind.
	link.Drop(true)
	lost := keys.make(t, "lost")
	keys.revoke(t, doomed)
	both("a key that the standby does not have works", lost, http.StatusOK, "")
	both("a key that is not revoked there is refused", doomed, http.StatusUnauthorized, "revoked_api_key")
	load := newCrowd(known, one, two)
	primary.Kill()
	both("an unknown key cannot be judged", auth.NewKey(), http.StatusServiceUnavailable, "identity_unavailable")
	if err := errors.Join(one.answers(lost, http.StatusOK, ""), two.answers(lost, http.StatusOK, "")); err != nil { // It is known, until the book says otherwise.
		t.Error(err)
	}
	seldom(t, "the status tells that there is a standby alone", func() error {
		if told, _ := one.exits(t, "status"); !strings.Contains(told, "the server takes no changes") {
			return errors.New(told)
		}
		return nil
	})

	standby.Promote(t)
	begun := time.Now()
	both("what the standby does not have is given up", lost, http.StatusUnauthorized, "invalid_api_key")
	within(t, "from the promotion to the refusal of what was lost", time.Since(begun), promisedRevocation)
	both("a revocation that was lost has to be made again", doomed, http.StatusOK, "")
	revoked := func(key auth.Secret) {
		t.Helper()
		keys.revoke(t, key)
		begun := time.Now()
		both("a key that is revoked afterwards is refused", key, http.StatusUnauthorized, "revoked_api_key")
		within(t, "from the revocation to the refusal on both routers", time.Since(begun), promisedRevocation)
	}
	revoked(doomed)
	next := keys.make(t, "next")
	both("a key that is made afterwards works", next, http.StatusOK, "")

	if err := primary.Start(); err != nil { // It does not know that it is none any more, and is the first that the URL names.
		t.Fatal(err)
	}
	standby.Exec(t, "postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'api-router'")
	seldom(t, "a key is made at the new primary", func() error { _, err := keys.book.Key(keys.waits(t), "acme", next.ID()); return err })
	revoked(next)
	both("the old primary is not asked", lost, http.StatusUnauthorized, "invalid_api_key")
	load.goesOn(t, "a standby takes the place of its primary")
}
