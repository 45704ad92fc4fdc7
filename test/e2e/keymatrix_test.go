package e2e

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ai-aas/api-router/internal/auth"
)

// The public routes, by what a key has to be for them.
const (
	routeInference = "inference"
	routeList      = "list"
	routeModel     = "model"
	routeOpen      = "open"
)

// publicRoutes is the whole public surface. TestEveryPublicRouteAnswersEveryStateOfAKey holds it to what the router says of itself.
var publicRoutes = map[string]string{
	"/v1/chat/completions": routeInference, "/v1/completions": routeInference, "/v1/embeddings": routeInference,
	"/v1/models": routeList, "/v1/models/" + model: routeModel,
	"/healthz": routeOpen, "/readyz": routeOpen, "/v1/status/healthz": routeOpen, "/v1/status/readyz": routeOpen,
}

// outcome is what a request gets: its status and code.
type outcome struct {
	status int
	code   string
}

var fine = outcome{http.StatusOK, ""}

// keyState is a state that a key can be in, and what requests with it get.
type keyState struct {
	// key is made in the book; nil: credential is sent as it is.
	key        func(endpoint string) auth.Key
	credential func(*testing.T, *keyring) []string // headers
	revoked    bool
	// all is the outcome of every route that needs a key; by holds those that differ, by kind of route.
	all outcome
	by  map[string]outcome
}

func bearer(key string) []string { return []string{"Authorization", "Bearer " + key} }

// another is an endpoint that is not this one.
func another(endpoint string) string {
	if endpoint == "/v1/embeddings" {
		return "/v1/completions"
	}
	return "/v1/embeddings"
}

func scoped(scopes auth.Scopes) func(string) auth.Key {
	return func(string) auth.Key { return auth.Key{Scopes: scopes} }
}

var keyStates = map[string]keyState{
	"valid":   {key: scoped(auth.Scopes{}), all: fine},
	"revoked": {key: scoped(auth.Scopes{}), revoked: true, all: outcome{401, "revoked_api_key"}},
	"expired": {
		key: func(string) auth.Key { return auth.Key{ExpiresAt: time.Now().Add(-time.Minute)} },
		all: outcome{401, "expired_api_key"},
	},
	"of an organization that is switched off": {
		key: func(string) auth.Key { return auth.Key{Organization: "closed"} },
		all: outcome{403, "organization_disabled"},
	},
	"from a wrong network": {key: scoped(auth.Scopes{Networks: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}}), all: outcome{403, "ip_not_allowed"}},
	"for another model": {
		key: scoped(auth.Scopes{Models: []string{"other"}}),
		all: outcome{404, "model_not_found"}, by: map[string]outcome{routeList: fine},
	},
	"for another endpoint": {
		key: func(endpoint string) auth.Key {
			return auth.Key{Scopes: auth.Scopes{Endpoints: []string{another(endpoint)}}}
		},
		all: fine, by: map[string]outcome{routeInference: {403, "permission_denied"}},
	},
	"that signs, unsigned": {key: scoped(auth.Scopes{Signature: auth.SignatureRequired}), all: outcome{401, "invalid_signature"}},
	"unknown": {
		credential: func(*testing.T, *keyring) []string { return bearer(auth.NewKey().Reveal()) },
		all:        outcome{401, "invalid_api_key"},
	},
	"with a typing mistake": {
		credential: func(t *testing.T, keys *keyring) []string {
			good := keys.make(t, "mistaken").Reveal()
			last := map[bool]string{true: "1", false: "0"}[strings.HasSuffix(good, "0")]
			return bearer(good[:len(good)-1] + last)
		},
		all: outcome{401, "invalid_api_key"},
	},
	"of no form":         {credential: func(*testing.T, *keyring) []string { return bearer("ar_") }, all: outcome{401, "invalid_api_key"}},
	"of the development": {credential: func(*testing.T, *keyring) []string { return bearer(key) }, all: outcome{401, "invalid_api_key"}},
	"that is not there":  {credential: func(*testing.T, *keyring) []string { return nil }, all: outcome{401, "missing_api_key"}},
	"that is empty":      {credential: func(*testing.T, *keyring) []string { return []string{"Authorization", "Bearer "} }, all: outcome{401, "missing_api_key"}},
	"and a different one": {
		credential: func(t *testing.T, keys *keyring) []string {
			return append(bearer(keys.make(t, "one").Reveal()), "X-API-Key", keys.make(t, "two").Reveal())
		},
		all: outcome{400, "ambiguous_request"},
	},
	"twice the same": {
		credential: func(t *testing.T, keys *keyring) []string {
			good := keys.make(t, "same").Reveal()
			return append(bearer(good), "X-API-Key", good)
		},
		all: fine,
	},
}

// want is what a route answers to a key in this state.
func (s *keyState) want(kind string) outcome {
	if kind == routeOpen {
		return fine
	}
	if o, ok := s.by[kind]; ok {
		return o
	}
	return s.all
}

// headers make the key for a route and are what is sent of it.
func (s *keyState) headers(t *testing.T, keys *keyring, endpoint string) []string {
	t.Helper()
	if s.key == nil {
		return s.credential(t, keys)
	}
	k := s.key(endpoint)
	if k.Organization == "" {
		k.Organization = "acme"
	}
	secret, _, err := keys.peppers.Make(&k)
	if err == nil {
		_, err = keys.book.CreateKey(keys.waits(t), k, operatorOfKeys)
	}
	if err != nil {
		t.Fatal(err)
	}
	if s.revoked {
		keys.revoke(t, secret)
	}
	return bearer(secret.Reveal())
}

// TestEveryPublicRouteAnswersEveryStateOfAKey walks every route with every state, on a real router. No backend hears of a key that is refused.
func TestEveryPublicRouteAnswersEveryStateOfAKey(t *testing.T) {
	var contacted atomic.Int64
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			contacted.Add(1)
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"object":"list","data":[{"id":%q}],"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}`, model)
	}))
	t.Cleanup(backend.Close)
	url := "sqlite://" + filepath.Join(t.TempDir(), "state.db")
	settings := []string{"policy.source=state", "state.url=" + url}
	bySeed(t, settings, backend.URL)
	keys := newKeyring(t, url)
	if _, err := keys.book.PutOrganization(keys.waits(t), auth.Organization{ID: "closed", Name: "Closed", Disabled: true}, new(int64), operatorOfKeys); err != nil {
		t.Fatal(err)
	}
	r := serve(t, append(settings, byKeys(t.TempDir())...)...)
	eventually(t, "it is ready", func() error { return r.get("/readyz") })

	_, all := r.send(t, http.MethodGet, "/v1/nothing", "")
	for _, path := range regexp.MustCompile(`/v1/[a-z/]+`).FindAllString(all[strings.Index(all, "serves"):], -1) {
		if _, there := publicRoutes[path]; !there {
			t.Errorf("the router serves %s, and this test does not know it", path)
		}
	}

	type ask struct {
		state, path string
		headers     []string
	}
	var asks []ask
	for _, name := range slices.Sorted(maps.Keys(keyStates)) {
		for _, path := range slices.Sorted(maps.Keys(publicRoutes)) {
			s := keyStates[name]
			asks = append(asks, ask{name, path, s.headers(t, keys, path)})
		}
	}
	last := keys.make(t, "the last one")
	eventually(t, "all keys have arrived", func() error { return r.answers(last, http.StatusOK, "") })
	for _, a := range asks {
		s, kind := keyStates[a.state], publicRoutes[a.path]
		want, before := s.want(kind), contacted.Load()
		status, code := r.walks(t, kind, a.path, a.headers)
		if status != want.status || code != want.code {
			t.Errorf("%s with a key %s: %d %s, want %d %s", a.path, a.state, status, code, want.status, want.code)
		}
		if heard := contacted.Load() > before; heard != (kind == routeInference && want == fine) {
			t.Errorf("%s with a key %s: a backend was contacted: %t", a.path, a.state, heard)
		}
	}
	t.Logf("%d routes with %d states of a key", len(publicRoutes), len(keyStates))
}

// walks sends what a route takes, and returns its status and code.
func (r *router) walks(t *testing.T, kind, path string, headers []string) (status int, code string) {
	t.Helper()
	method, body := http.MethodGet, ""
	if kind == routeInference {
		method, body = http.MethodPost, fmt.Sprintf(`{"model":%q,"messages":[{"role":"user","content":"hi"}],"prompt":"hi","input":"hi"}`, model)
	}
	request, err := http.NewRequestWithContext(t.Context(), method, "http://"+r.public+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := r.client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, errorCode(string(text))
}
