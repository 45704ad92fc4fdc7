package auth_test

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/ai-aas/api-router/internal/auth"
	"github.com/ai-aas/api-router/internal/fault"
)

// roster is a ledger of admins in memory, which can be changed and cut off.
type roster struct {
	mu      sync.Mutex
	all     []auth.Admin
	broken  bool
	changed chan struct{}
}

func newRoster(all ...auth.Admin) *roster { return &roster{all: all, changed: make(chan struct{})} }

// set puts these in the place of all others, and cuts everybody off or lets them in again.
func (r *roster) set(broken bool, all ...auth.Admin) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all, r.broken = all, broken
	close(r.changed)
	r.changed = make(chan struct{})
}

// FollowAdmins implements auth.AdminLedger.
func (r *roster) FollowAdmins(ctx context.Context, publish func([]auth.Admin)) error {
	for {
		r.mu.Lock()
		all, broken, changed := r.all, r.broken, r.changed
		r.mu.Unlock()
		if broken {
			return errDown
		}
		publish(all)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// named is a new admin with its token.
func named(name, role string) (auth.Admin, auth.Secret) {
	a := auth.Admin{Name: name, Role: role}
	return a, a.Make()
}

// follows runs admins until the test ends.
func follows(t *testing.T, a *auth.Admins) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := a.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); running.Wait() })
}

func TestAdminTokensHaveAFormOfTheirOwn(t *testing.T) {
	t.Parallel()
	for range 100 {
		a, token := named("olga", "operator")
		text := token.Reveal()
		switch _, err := auth.ParseKey(text); {
		case len(text) != 51 || text[:4] != "ara_" || text[4:12] != a.ID || token.ID() != a.ID || a.Digest != auth.Fingerprint(text):
			t.Fatalf("id %q of %q", a.ID, text[:13])
		case err == nil || !auth.IsAdminToken(text) || auth.IsAdminToken(auth.NewKey().Reveal()):
			t.Fatal("a key and an admin's token are taken for each other")
		case token.String() != "ara_"+a.ID+"_…":
			t.Fatal(token)
		}
	}
	_, token := named("olga", "operator")
	for _, header := range []string{"Authorization", "X-API-Key", "api-key", "x-goog-api-key"} {
		for _, text := range []string{token.Reveal(), "ara_whatever"} {
			h := http.Header{}
			h.Set(header, strings.TrimPrefix("Bearer "+text, map[bool]string{true: "Bearer "}[header != "Authorization"]))
			credential, err := auth.Credential(h)
			if credential != "" || fault.CodeOf(err) != fault.InvalidAPIKey || strings.Contains(err.Error(), text) || !strings.Contains(err.Error(), "admin API") {
				t.Errorf("in %s: %q, %v", header, credential, err)
			}
		}
	}
}

func TestAnyChangedByteOfAnAdminTokenIsNoticed(t *testing.T) {
	t.Parallel()
	a, token := named("olga", "operator")
	admins := auth.NewAdmins(auth.AdminsOptions{Ledger: newRoster(a), Stale: time.Hour})
	follows(t, admins)
	for deadline := time.Now().Add(time.Minute); !admins.Status().Current && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	if found, err := admins.Find(token.Reveal()); err != nil || found != a {
		t.Fatal(found, err)
	}
	rapid.Check(t, func(t *rapid.T) {
		text := []byte(token.Reveal())
		at := rapid.IntRange(0, len(text)-1).Draw(t, "at")
		text[at] = rapid.Byte().Filter(func(b byte) bool { return b != text[at] }).Draw(t, "by")
		if _, err := admins.Find(string(text)); fault.CodeOf(err) != fault.InvalidAPIKey || strings.Contains(err.Error(), string(text[13:])) {
			t.Fatalf("byte %d may be %q: %v", at, text[at], err)
		}
	})
}

func TestAnAdminWhoCannotBeReadIsNotSaidToBeUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		spoilt, token := named("otto", "admin")
		spoilt.Digest, spoilt.Damage = auth.Digest{}, "its digest has 3 bytes"
		olga, another := named("olga", "operator")
		admins := auth.NewAdmins(auth.AdminsOptions{Ledger: newRoster(spoilt, olga), Stale: time.Hour})
		follows(t, admins)
		synctest.Wait()
		if _, err := admins.Find(token.Reveal()); fault.CodeOf(err) != fault.IdentityUnavailable {
			t.Errorf("the spoilt one: %v", err)
		}
		if found, err := admins.Find(another.Reveal()); err != nil || found != olga {
			t.Errorf("another: %+v, %v", found, err)
		}
	})
}

func TestAdminsGoOnWithoutTheirLedgerForATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		olga, token := named("olga", "operator")
		left, old := named("left", "admin")
		left.RevokedAt = time.Now().Add(-time.Hour)
		brief, short := named("brief", "viewer")
		brief.ExpiresAt = time.Now().Add(30 * time.Minute)
		forged := olga
		_, another := named("olga", "admin")
		book, log := newRoster(olga, left, brief), &journal{}
		book.set(true, olga, left, brief)
		admins := auth.NewAdmins(auth.AdminsOptions{Ledger: book, Stale: time.Hour, Logger: log.logger()})
		says := func(when string, want map[string]fault.Code) {
			t.Helper()
			for text, code := range want {
				if _, err := admins.Find(text); fault.CodeOf(err) != code {
					t.Errorf("%s: %s… gives %v, want %q", when, text[:13], err, code)
				}
			}
		}
		nobodyKnows := map[string]fault.Code{
			token.Reveal(): fault.IdentityUnavailable, old.Reveal(): fault.IdentityUnavailable, another.Reveal(): fault.IdentityUnavailable, "ara_damaged_token": fault.InvalidAPIKey,
		}
		says("before it was read", nobodyKnows)
		follows(t, admins)
		time.Sleep(time.Minute)
		says("while it was never read", nobodyKnows)
		if s := admins.Status(); s.Known || s.Current || s.Failure == "" || time.Since(s.Since) < 59*time.Second {
			t.Errorf("%+v", s)
		}

		book.set(false, olga, left, brief)
		time.Sleep(5 * time.Second)
		says("once it is there", map[string]fault.Code{
			token.Reveal(): "", short.Reveal(): "", old.Reveal(): fault.RevokedAPIKey, another.Reveal(): fault.InvalidAPIKey, "ara_damaged_token": fault.InvalidAPIKey,
		})
		if s := admins.Status(); !s.Known || !s.Current || s.Failure != "" || s.Admins != 3 {
			t.Errorf("%+v", s)
		}

		book.set(true)
		time.Sleep(50 * time.Minute)
		says("while it is away", map[string]fault.Code{
			token.Reveal(): "", short.Reveal(): fault.ExpiredAPIKey, old.Reveal(): fault.RevokedAPIKey, another.Reveal(): fault.IdentityUnavailable,
		})
		time.Sleep(11 * time.Minute)
		says("too long", map[string]fault.Code{token.Reveal(): fault.IdentityUnavailable, old.Reveal(): fault.RevokedAPIKey})

		forged.RevokedAt = time.Now()
		book.set(false, forged)
		time.Sleep(5 * time.Second)
		says("once it is back", map[string]fault.Code{token.Reveal(): fault.RevokedAPIKey, old.Reveal(): fault.InvalidAPIKey})
		for _, text := range []string{token.Reveal(), old.Reveal(), short.Reveal(), another.Reveal()} {
			if strings.Contains(log.String(), text[13:]) {
				t.Error("a token is in the log")
			}
		}
		if text := log.String(); strings.Count(text, "cannot be followed") != 2 || !strings.Contains(text, "followed again") {
			t.Errorf("the log says %s", text)
		}
	})
}

// An id is no secret: whoever has one and makes up the rest is not let in.
func TestAnIDAloneLetsNobodyIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		olga, token := named("olga", "admin")
		admins := auth.NewAdmins(auth.AdminsOptions{Ledger: newRoster(olga), Stale: time.Hour})
		follows(t, admins)
		synctest.Wait()
		forged := auth.WithChecksum(token.Reveal()[:13] + strings.Repeat("0", 32))
		if _, err := admins.Find(forged); fault.CodeOf(err) != fault.InvalidAPIKey {
			t.Errorf("%v", err)
		}
		if _, err := admins.Find(token.Reveal()); err != nil {
			t.Error(err)
		}
	})
}

func FuzzAdminToken(f *testing.F) {
	olga, token := named("olga", "admin")
	f.Add(token.Reveal())
	f.Add("ara_0123abcd_0123456789012345678901234567890100abcd")
	f.Add(auth.NewKey().Reveal())
	f.Add("ara_")
	f.Add("")
	admins := auth.NewAdmins(auth.AdminsOptions{Ledger: newRoster(olga), Stale: time.Hour})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = admins.Run(ctx) })
	f.Cleanup(func() { cancel(); running.Wait() })
	for !admins.Status().Current {
		time.Sleep(time.Millisecond)
	}
	f.Fuzz(func(t *testing.T, text string) {
		found, err := admins.Find(text)
		switch {
		case (err == nil) != (text == token.Reveal()) || err == nil && found != olga || err != nil && found != auth.Admin{}:
			t.Fatalf("%q is %+v, %v", text, found, err)
		case err != nil && (fault.CodeOf(err) != fault.InvalidAPIKey || len(text) > 30 && strings.Contains(err.Error(), text)):
			t.Fatalf("%q: %v", text, err)
		case auth.WellFormed(text) && auth.IsAdminToken(text):
			t.Fatalf("%q is a key and an admin's token", text)
		}
	})
}
