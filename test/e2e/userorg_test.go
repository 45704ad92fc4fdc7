package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/ai-aas/api-router/internal/auth"
	"github.com/ai-aas/api-router/internal/state"
	"github.com/ai-aas/api-router/test/ports"
)

const (
	pepperText    = "e2e-pepper-0123456789abcdef"
	validation    = "e2e-validation-token-0123456789"
	validationURL = "/v1/auth/validate-api-key"
)

// ledger is a state book in a file with an organization acme, and what changes it from beside the router.
type ledger struct {
	t    *testing.T
	path string
	book *state.Book
}

func newLedger(t *testing.T) *ledger {
	t.Helper()
	l := &ledger{t: t, path: filepath.Join(t.TempDir(), "state.db")}
	var err error
	if l.book, err = state.Open(state.Options{URL: "sqlite://" + l.path, Logger: slog.New(slog.DiscardHandler)}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.book.Close() })
	if _, err := l.book.PutOrganization(t.Context(), auth.Organization{ID: "acme", Name: "Acme"}, new(int64(0)), auth.By{Actor: "test"}); err != nil {
		t.Fatal(err)
	}
	return l
}

// issue makes a key with these scopes.
func (l *ledger) issue(scopes auth.Scopes) (secret, id string) {
	l.t.Helper()
	peppers, err := auth.NewPeppers(pepperText)
	if err != nil {
		l.t.Fatal(err)
	}
	k := auth.Key{Organization: "acme", Scopes: scopes}
	made, _, err := peppers.Make(&k)
	if err != nil {
		l.t.Fatal(err)
	}
	if _, err := l.book.CreateKey(l.t.Context(), k, auth.By{Actor: "test"}); err != nil {
		l.t.Fatal(err)
	}
	return made.Reveal(), k.ID
}

// policies is a file with the model on one backend.
func policies(t *testing.T, url string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "policies.yaml")
	text := fmt.Sprintf("kind: Backend\nid: b\nurl: %s\n---\nkind: RoutingPolicy\nid: p\nmodel: %s\nbackends: [{id: b}]\n", url, model)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// with sends a chat request with a key and says what came: the status, and the code of an error.
func (r *router) with(credential string) (string, error) {
	body := fmt.Sprintf(`{"model":%q,"messages":[{"role":"user","content":"Hi."}],"max_tokens":4}`, model)
	request, err := http.NewRequestWithContext(context.Background(), http.MethodPost, "http://"+r.public+"/v1/chat/completions", strings.NewReader(body))
	if err != nil {
		return "", err
	}
	request.Header.Set("Authorization", "Bearer "+credential)
	response, err := r.client.Do(request)
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	var e struct {
		Error struct {
			Code string `json:"code"`
		} `json:"error"`
	}
	content, err := io.ReadAll(response.Body)
	if err != nil {
		return "", err
	}
	_ = json.Unmarshal(content, &e)
	return strings.TrimSpace(fmt.Sprintf("%d %s", response.StatusCode, e.Error.Code)), nil
}

func (r *router) gets(credential, want string) error {
	got, err := r.with(credential)
	if err == nil && got != want {
		err = fmt.Errorf("got %s, want %s", got, want)
	}
	return err
}

// counted is a backend that counts its requests, but for questions how it is.
func counted(t *testing.T) (url string, requests *atomic.Int64) {
	t.Helper()
	behind := engine(t)
	requests = new(atomic.Int64)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			requests.Add(1)
		}
		forwarded, err := http.NewRequestWithContext(r.Context(), r.Method, behind+r.URL.Path, r.Body)
		if err != nil {
			return
		}
		forwarded.Header.Set("Content-Type", "application/json")
		response, err := http.DefaultClient.Do(forwarded)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		defer func() { _ = response.Body.Close() }()
		w.Header().Set("Content-Type", response.Header.Get("Content-Type"))
		w.WriteHeader(response.StatusCode)
		_, _ = io.Copy(w, response.Body)
	}))
	t.Cleanup(server.Close)
	return server.URL, requests
}

func TestOneRouterIsTheIdentityServiceOfAnother(t *testing.T) {
	l := newLedger(t)
	good, goodID := l.issue(auth.Scopes{})
	narrow, _ := l.issue(auth.Scopes{Models: []string{"another-*"}})
	backend, requests := counted(t)
	home := func(admin string) *router {
		return serve(t, "policy.source=state", "state.url=sqlite://"+l.path, "identity.peppers=env:PEPPER", "PEPPER="+pepperText, "identity.cache.file=",
			"identity.validation_tokens=env:VALIDATION", "VALIDATION="+validation, "listen.admin="+admin)
	}
	admin := ports.Free(t)
	first := home(admin)
	edge := serve(t, "policy.file.path="+policies(t, backend), "identity.user_org_service.url=http://"+admin, "identity.user_org_service.token=env:SERVICE",
		"SERVICE="+validation, "identity.cache.ttl=1s", "identity.cache.negative_ttl=100ms")
	eventually(t, "a key of the other router is let in", func() error { return edge.gets(good, "200") })
	before := requests.Load()
	unknown := auth.NewKey().Reveal()
	for credential, want := range map[string]string{unknown: "401 invalid_api_key", narrow: "404 model_not_found", "nonsense": "401 invalid_api_key"} {
		if err := edge.gets(credential, want); err != nil {
			t.Error(err)
		}
	}
	if n := requests.Load() - before; n != 0 {
		t.Errorf("a backend was contacted %d times for keys that were refused", n)
	}

	first.end(syscall.SIGKILL)
	for range 20 {
		if err := edge.gets(good, "200"); err != nil {
			t.Errorf("a known key while its service is dead: %v", err)
		}
		if err := edge.gets(auth.NewKey().Reveal(), "503 identity_unavailable"); err != nil {
			t.Errorf("an unknown key while the service is dead: %v", err)
		}
	}
	home(admin)
	late, _ := l.issue(auth.Scopes{})
	t.Logf("a new key after the service came back: %s", eventually(t, "a new key is let in", func() error { return edge.gets(late, "200") }))
	revoke := func(k *auth.Key) error { k.RevokedAt = k.CreatedAt; return nil }
	if _, err := l.book.ChangeKey(t.Context(), "acme", goodID, revoke, "revoke", auth.By{Actor: "test"}); err != nil {
		t.Fatal(err)
	}
	t.Logf("the revocation reached the other router after %s", eventually(t, "the revoked key is refused", func() error { return edge.gets(good, "401 revoked_api_key") }))

	for _, r := range []*router{first, edge} {
		for _, secret := range []string{good, narrow, late, unknown, validation, pepperText} {
			if strings.Contains(r.log.String(), secret) {
				t.Errorf("a log holds %s", secret)
			}
		}
	}
}

func TestOnlyItsOwnTokensOpenTheValidationOfKeys(t *testing.T) {
	l := newLedger(t)
	good, _ := l.issue(auth.Scopes{})
	r := serve(t, "policy.source=state", "state.url=sqlite://"+l.path, "identity.peppers=env:PEPPER", "PEPPER="+pepperText, "identity.cache.file=",
		"identity.validation_tokens=env:VALIDATION", "VALIDATION="+validation)
	ask := func(address, path, token string) int {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+address+path, strings.NewReader(`{"apiKeySecret":"`+good+`"}`))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Authorization", "Bearer "+token)
		response, err := r.client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = response.Body.Close() }()
		return response.StatusCode
	}
	eventually(t, "the door is open", func() error {
		if status := ask(r.admin, validationURL, validation); status != http.StatusOK {
			return fmt.Errorf("status %d", status)
		}
		return nil
	})
	for name, c := range map[string]struct {
		address, path, token string
		want                 int
	}{
		"an admin token":                          {r.admin, validationURL, adminToken, 401},
		"the key itself":                          {r.admin, validationURL, good, 401},
		"its token at the admin API":              {r.admin, "/admin/v1/validate", validation, 401},
		"the public listener":                     {r.public, validationURL, validation, 404},
		"the public listener, as a path of model": {r.public, "/v1/models", validation, 405},
	} {
		if got := ask(c.address, c.path, c.token); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}
