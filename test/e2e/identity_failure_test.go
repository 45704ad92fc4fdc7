package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ai-aas/api-router/internal/auth"
	"github.com/ai-aas/api-router/internal/policy"
	"github.com/ai-aas/api-router/internal/state"
	"github.com/ai-aas/api-router/test/postgres"
)

const (
	// pepper is what keys are digested under, here.
	pepper = "e2e-pepper-0123456789abcdef"
	// promisedRevocation is how soon every replica refuses a key that was revoked.
	promisedRevocation = 5 * time.Second
)

var operatorOfKeys = auth.By{Actor: "ada", Role: "admin", Reason: "a test"}

// keyring makes keys in a state book, past every router.
type keyring struct {
	book    *state.Book
	peppers auth.Peppers
}

// newKeyring opens the book of a URL and makes the organization acme in it. The password is PostgreSQL's.
func newKeyring(t *testing.T, url string) *keyring {
	t.Helper()
	peppers, err := auth.NewPeppers(pepper)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("E2E_DATABASE", postgres.Password)
	password, err := policy.ParseSecretRef("env:E2E_DATABASE")
	if err != nil {
		t.Fatal(err)
	}
	book, err := state.Open(state.Options{URL: url, Password: password, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = book.Close() })
	k := &keyring{book, peppers}
	if _, err := book.PutOrganization(k.waits(t), auth.Organization{ID: "acme", Name: "Acme"}, new(int64), operatorOfKeys); err != nil {
		t.Fatal(err)
	}
	return k
}

func (k *keyring) waits(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), hang)
	t.Cleanup(cancel)
	return ctx
}

// make makes a key of acme.
func (k *keyring) make(t *testing.T, name string) auth.Secret {
	t.Helper()
	key := auth.Key{Organization: "acme", Name: name}
	secret, _, err := k.peppers.Make(&key)
	if err == nil {
		_, err = k.book.CreateKey(k.waits(t), key, operatorOfKeys)
	}
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

// revoke revokes a key, as often as it takes: its database may be about to come back.
func (k *keyring) revoke(t *testing.T, key auth.Secret) {
	t.Helper()
	eventually(t, "the key is revoked in the book", func() error {
		_, err := k.book.ChangeKey(k.waits(t), "acme", key.ID(), func(k *auth.Key) error { k.RevokedAt = time.Now(); return nil }, "revoke", operatorOfKeys)
		return err
	})
}

// byKeys are the settings of a router that takes the keys of its state book and no other.
func byKeys(dir string) []string {
	return []string{
		"identity.development_keys=false", "identity.order=state", "identity.peppers=env:PEPPER", "PEPPER=" + pepper,
		"identity.cache.file=" + filepath.Join(dir, "keys.snapshot"), "policy.last_good=" + filepath.Join(dir, "policy.json"),
	}
}

// askAs sends one chat request with a key, and returns its status and code.
func (r *router) askAs(key string) (status int, code string, err error) {
	request, err := http.NewRequestWithContext(context.Background(), http.MethodPost, "http://"+r.public+"/v1/chat/completions", strings.NewReader(chat(model, "Say hello.", false)))
	if err != nil {
		return 0, "", err
	}
	request.Header.Set("Authorization", "Bearer "+key)
	request.Header.Set("Content-Type", "application/json")
	response, err := r.client.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	return response.StatusCode, errorCode(string(text)), err
}

// errorCode is the code of an error's body, "" where there is none.
func errorCode(body string) string {
	_, rest, _ := strings.Cut(body, `"code":"`)
	code, _, _ := strings.Cut(rest, `"`)
	return code
}

// answers wants a status and code for a key.
func (r *router) answers(key auth.Secret, status int, code string) error {
	got, said, err := r.askAs(key.Reveal())
	if err == nil && (got != status || said != code) {
		err = fmt.Errorf("the key is answered %d %s, want %d %s", got, said, status, code)
	}
	return err
}

// seldom is eventually with pauses between the questions: an address that guesses keys is made to wait.
func seldom(t *testing.T, what string, check func() error) time.Duration {
	t.Helper()
	return eventually(t, what, func() error {
		err := check()
		if err != nil {
			time.Sleep(400 * time.Millisecond)
		}
		return err
	})
}

// crowd asks routers with one key until it is told to stop.
type crowd struct {
	wg            sync.WaitGroup
	over          chan struct{}
	asked, failed atomic.Int64
	first         atomic.Pointer[string]
}

func newCrowd(key auth.Secret, routers ...*router) *crowd {
	c := &crowd{over: make(chan struct{})}
	for i := range 4 {
		c.wg.Go(func() {
			for r := routers[i%len(routers)]; ; {
				select {
				case <-c.over:
					return
				default:
				}
				c.asked.Add(1)
				if err := r.answers(key, http.StatusOK, ""); err != nil {
					c.failed.Add(1)
					c.first.CompareAndSwap(nil, new(err.Error()))
				}
			}
		})
	}
	return c
}

// goesOn wants that nobody of the crowd was refused.
func (c *crowd) goesOn(t *testing.T, while string) {
	t.Helper()
	close(c.over)
	c.wg.Wait()
	t.Logf("%d requests with a known key while %s, %d failed", c.asked.Load(), while, c.failed.Load())
	if c.failed.Load() > 0 || c.asked.Load() == 0 {
		t.Errorf("%d of %d failed, the first: %s", c.failed.Load(), c.asked.Load(), *c.first.Load())
	}
}

func TestKnownKeysGoOnWhilePostgresIsDeadOrSilentAndUnknownOnesAreNotJudged(t *testing.T) {
	server := postgres.New(t)
	database, between, settings := seeded(t, server, engine(t))
	keys := newKeyring(t, server.URL(database, ""))
	known := keys.make(t, "known")
	one, two := serve(t, append(settings, byKeys(t.TempDir())...)...), serve(t, append(settings, byKeys(t.TempDir())...)...)
	both := func(what string, check func(*router) error) time.Duration {
		t.Helper()
		return seldom(t, what, func() error { return errors.Join(check(one), check(two)) })
	}
	both("the key works", func(r *router) error { return r.answers(known, http.StatusOK, "") })
	for _, trouble := range []struct {
		name       string
		begin, end func()
		meanwhile  bool // the book can be changed while the routers do without
	}{
		{"it is dead", server.Kill, func() {
			if err := server.Start(); err != nil {
				t.Fatal(err)
			}
		}, false},
		{"it is silent", between.Stall, between.Pass, true},
		{"its connections are stranded", between.StrandAll, func() {}, true},
	} {
		t.Run(trouble.name, func(t *testing.T) {
			doomed := keys.make(t, trouble.name)
			both("the doomed key works", func(r *router) error { return r.answers(doomed, http.StatusOK, "") })
			load := newCrowd(known, one, two)
			trouble.begin()
			if trouble.name != "its connections are stranded" { // New ones are good: then nobody is without the book for long.
				unknown := auth.NewKey()
				took := both("an unknown key cannot be judged", func(r *router) error {
					return r.answers(unknown, http.StatusServiceUnavailable, "identity_unavailable")
				})
				t.Logf("an unknown key is not judged from %s on", took.Round(time.Millisecond))
				for range 50 {
					unknown := auth.NewKey()
					if err := errors.Join(one.answers(unknown, 503, "identity_unavailable"), two.answers(unknown, 503, "identity_unavailable")); err != nil {
						t.Fatal(err)
					}
				}
			}
			begun := time.Now()
			if trouble.meanwhile {
				keys.revoke(t, doomed)
			}
			time.Sleep(time.Second)
			trouble.end()
			if trouble.name != "its connections are stranded" { // There, nothing keeps the routers from the book: the promise counts from the revocation on.
				begun = time.Now()
			}
			if !trouble.meanwhile {
				keys.revoke(t, doomed)
			}
			both("the revoked key is refused", func(r *router) error { return r.answers(doomed, http.StatusUnauthorized, "revoked_api_key") })
			within(t, "from the return, or the revocation, to the refusal of the revoked key on both routers", time.Since(begun), promisedRevocation)
			both("an unknown key is refused again", func(r *router) error { return r.answers(auth.NewKey(), http.StatusUnauthorized, "invalid_api_key") })
			load.goesOn(t, trouble.name)
		})
	}
	for _, r := range []*router{one, two} {
		for what, secret := range map[string]string{"a key": known.Reveal(), "the pepper": pepper, "the password": postgres.Password} {
			if strings.Contains(r.log.String(), secret) {
				t.Errorf("%s is in the log", what)
			}
		}
	}
}

func TestAColdStartWithADeadDatabaseServesTheKeysOfItsSnapshot(t *testing.T) {
	for _, on := range []struct {
		name string
		make func(t *testing.T) (url string, settings []string, die func())
	}{
		{"PostgreSQL", func(t *testing.T) (string, []string, func()) {
			server := postgres.New(t)
			database, _, settings := seeded(t, server, engine(t))
			return server.URL(database, ""), settings, server.Kill
		}},
		{"PostgreSQL that is silent", func(t *testing.T) (string, []string, func()) {
			server := postgres.New(t)
			database, between, settings := seeded(t, server, engine(t))
			return server.URL(database, ""), settings, between.Stall
		}},
		{"SQLite", func(t *testing.T) (string, []string, func()) {
			path := filepath.Join(t.TempDir(), "state.db")
			settings := []string{"policy.source=state", "state.url=sqlite://" + path}
			bySeed(t, settings, engine(t))
			return "sqlite://" + path, settings, func() { // As after a disk that failed.
				for _, suffix := range []string{"-wal", "-shm", ""} {
					_ = os.Remove(path + suffix)
				}
				if err := os.WriteFile(path, []byte(strings.Repeat("no database ", 1000)), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}},
	} {
		t.Run(on.name, func(t *testing.T) {
			url, settings, die := on.make(t)
			keys, dir := newKeyring(t, url), t.TempDir()
			known, revoked := keys.make(t, "known"), keys.make(t, "revoked")
			keys.revoke(t, revoked)
			settings = append(settings, byKeys(dir)...)
			r := serve(t, settings...)
			eventually(t, "the key works", func() error { return r.answers(known, http.StatusOK, "") })
			for _, file := range []string{"keys.snapshot", "policy.json"} {
				eventually(t, file+" is written", func() error { _, err := os.Stat(filepath.Join(dir, file)); return err })
			}
			r.end(9)
			if err := keys.book.Close(); err != nil {
				t.Fatal(err)
			}
			die()

			snapshot, err := os.ReadFile(filepath.Join(dir, "keys.snapshot"))
			if err != nil || strings.Contains(string(snapshot), known.Reveal()) {
				t.Errorf("the snapshot holds a key, or cannot be read: %v", err)
			}
			r = launch(t, "", settings...)
			eventually(t, "a known key is served", func() error { return r.answers(known, http.StatusOK, "") })
			within(t, "from the start to the answer to a known key", time.Since(r.begun), promisedDoor)
			if err := errors.Join(r.answers(revoked, http.StatusUnauthorized, "revoked_api_key"), r.answers(auth.NewKey(), 503, "identity_unavailable")); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestARevocationReachesEveryProcessOnOneSQLiteFile(t *testing.T) {
	url := "sqlite://" + filepath.Join(t.TempDir(), "state.db")
	settings := []string{"policy.source=state", "state.url=" + url}
	bySeed(t, settings, engine(t))
	keys := newKeyring(t, url)
	one, two := serve(t, append(settings, byKeys(t.TempDir())...)...), serve(t, append(settings, byKeys(t.TempDir())...)...)
	key := keys.make(t, "a key")
	eventually(t, "the key works", func() error { return errors.Join(one.answers(key, 200, ""), two.answers(key, 200, "")) })
	keys.revoke(t, key)
	took := eventually(t, "the key is refused", func() error {
		return errors.Join(one.answers(key, http.StatusUnauthorized, "revoked_api_key"), two.answers(key, http.StatusUnauthorized, "revoked_api_key"))
	})
	within(t, "from the revocation to the refusal on both", took, promisedRevocation)
}
