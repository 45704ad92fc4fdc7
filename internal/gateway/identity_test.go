package gateway_test

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ai-aas/api-router/internal/auth"
)

// shelf is a ledger whose keys are all there from the start.
type shelf struct {
	organizations []auth.Organization
	keys          []auth.Key
	broken        error
}

func (s *shelf) Follow(ctx context.Context, give func(auth.Change), whole func()) error {
	for _, o := range s.organizations {
		give(auth.Change{Organization: &o})
	}
	for _, k := range s.keys {
		give(auth.Change{Key: &k})
	}
	if s.broken != nil {
		return s.broken
	}
	whole()
	<-ctx.Done()
	return ctx.Err()
}

func (*shelf) Used(context.Context, map[string]time.Time) error { return nil }

// issued is a key with the secret that it signs with.
type issued struct{ key, signing auth.Secret }

// issue makes keys of the organization acme with these scopes, in a ledger that is followed until the test ends.
func issue(t *testing.T, scopes map[string]auth.Key, broken error) (*auth.Keys, map[string]issued) {
	t.Helper()
	peppers, err := auth.NewPeppers("a pepper for the tests of the door")
	if err != nil {
		t.Fatal(err)
	}
	s := &shelf{organizations: []auth.Organization{{ID: "acme"}, {ID: "closed", Disabled: true}}, broken: broken}
	made := map[string]issued{}
	for name, k := range scopes {
		if k.Organization == "" {
			k.Organization = "acme"
		}
		key, signing, err := peppers.Make(&k)
		if err != nil {
			t.Fatal(err)
		}
		s.keys, made[name] = append(s.keys, k), issued{key, signing}
	}
	keys := auth.NewKeys(auth.KeysOptions{Ledger: s, Peppers: peppers, TTL: time.Minute, StaleIfError: time.Hour})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = keys.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	for deadline := time.Now().Add(hang); !keys.Status().Current && keys.Status().Failure == ""; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the keys are not loaded")
		}
	}
	return keys, made
}

const twoModels = "kind: RoutingPolicy\nid: p\nmodel: m\naliases: [alias]\nfallback_models: [n]\nbackends: [{ id: b0 }]\n---\n" +
	"kind: RoutingPolicy\nid: q\nmodel: n\nbackends: [{ id: b1 }]\n"

const ok = `{"id":"x","object":"chat.completion","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}`

func TestAKeyMayDoWhatItsScopesSay(t *testing.T) {
	backend := play(t, says(plain(200, "application/json", ok)))
	other := play(t, says(plain(200, "application/json", ok)))
	keys, made := issue(t, map[string]auth.Key{
		"free":     {},
		"m":        {Scopes: auth.Scopes{Models: []string{"m"}}},
		"n":        {Scopes: auth.Scopes{Models: []string{"n*"}}},
		"chat":     {Scopes: auth.Scopes{Endpoints: []string{"/v1/chat/completions"}}},
		"inside":   {Scopes: auth.Scopes{Networks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}},
		"here":     {Scopes: auth.Scopes{Networks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}}},
		"short":    {Scopes: auth.Scopes{MaxTokens: 7}},
		"tagged":   {Project: "web", Scopes: auth.Scopes{Tags: map[string]string{"team": "a", "cost": "\"x\"\n"}}},
		"revoked":  {RevokedAt: time.Now()},
		"expired":  {ExpiresAt: time.Now()},
		"closed":   {Organization: "closed"},
		"signs":    {Scopes: auth.Scopes{Signature: auth.SignatureRequired}},
		"may sign": {Scopes: auth.Scopes{Signature: auth.SignatureOptional}},
	}, nil)
	h := build(t, setting{documents: twoModels, keys: auth.Chain(keys), verifier: keys}, backend.URL, other.URL)
	const chats, inputs = "/v1/chat/completions", "/v1/embeddings"
	hello := func(model string) string {
		return fmt.Sprintf(`{"model":%q,"messages":[{"role":"user","content":"Hi"}]}`, model)
	}
	for _, tc := range []struct {
		key, path, body, code string
		status                int
	}{
		{"free", chats, hello("m"), "", 200},
		{"m", chats, hello("m"), "", 200},
		{"m", chats, hello("alias"), "", 200},
		{"m", chats, hello("n"), "model_not_found", 404},
		{"n", chats, hello("n"), "", 200},
		{"n", chats, hello("m"), "model_not_found", 404},
		{"n", chats, hello("alias"), "model_not_found", 404},
		{"chat", chats, hello("m"), "", 200},
		{"chat", inputs, `{"model":"m","input":"x"}`, "permission_denied", 403},
		{"inside", chats, hello("m"), "ip_not_allowed", 403},
		{"here", chats, hello("m"), "", 200},
		{"revoked", chats, hello("m"), "revoked_api_key", 401},
		{"expired", chats, hello("m"), "expired_api_key", 401},
		{"closed", chats, hello("m"), "organization_disabled", 403},
		{"signs", chats, hello("m"), "invalid_signature", 401},
		{"may sign", chats, hello("m"), "", 200},
	} {
		before := len(backend.bodies()) + len(other.bodies())
		req := h.request(tc.path, tc.body)
		req.Header.Set("X-API-Key", made[tc.key].key.Reveal())
		resp := h.send(req)
		code := ""
		if resp.StatusCode != 200 {
			code, _, _ = refusal(t, resp)
		}
		if resp.StatusCode != tc.status || code != tc.code {
			t.Errorf("%s at %s with %s: %d %s, want %d %s", tc.key, tc.path, tc.body, resp.StatusCode, code, tc.status, tc.code)
		}
		if asked := len(backend.bodies()) + len(other.bodies()) - before; (asked > 0) != (tc.status == 200) {
			t.Errorf("%s: %d backends were contacted", tc.key, asked)
		}
	}

	send := func(name, body string) *http.Response {
		req := h.request(chats, body)
		req.Header.Set("X-API-Key", made[name].key.Reveal())
		return h.send(req)
	}
	_, _, forbidden := refusal(t, send("m", hello("n")))
	_, _, unknown := refusal(t, send("m", hello("z")))
	if strings.ReplaceAll(forbidden, `"n"`, `"z"`) != unknown {
		t.Errorf("a forbidden model reads %q and an unknown one %q", forbidden, unknown)
	}
	_ = body(t, send("short", hello("m")))
	_ = body(t, send("short", `{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"Hi"}]}`))
	if seen := backend.bodies(); !strings.Contains(seen[len(seen)-2], `"max_tokens":7`) || !strings.Contains(seen[len(seen)-1], `"max_tokens":9`) {
		t.Errorf("the backend got %q", seen[len(seen)-2:])
	}
	_ = body(t, send("tagged", hello("m")))
	records := h.closes()
	last := records[len(records)-1]
	if want := (map[string]string{"team": "a", "cost": "\"x\"\n"}); !maps.Equal(last.Tags, want) || last.Project != "web" || last.KeyID != made["tagged"].key.ID() {
		t.Errorf("the record has %+v", last)
	}

	for name, want := range map[string]string{"free": "m n", "m": "m", "n": "n"} {
		req := h.request("/v1/models", "")
		req.Method, req.Body, req.ContentLength = http.MethodGet, nil, 0
		req.Header.Set("X-API-Key", made[name].key.Reveal())
		var list struct{ Data []struct{ ID string } }
		if err := json.Unmarshal([]byte(body(t, h.send(req))), &list); err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, m := range list.Data {
			names = append(names, m.ID)
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("%s sees the models %q, want %q", name, got, want)
		}
		req = h.request("/v1/models/n", "")
		req.Method, req.Body, req.ContentLength = http.MethodGet, nil, 0
		req.Header.Set("X-API-Key", made[name].key.Reveal())
		if resp := h.send(req); (resp.StatusCode == 200) != strings.Contains(want, "n") {
			t.Errorf("%s gets %d for the model n", name, resp.StatusCode)
		}
	}
}

func TestAFallbackModelIsHeldToTheScopes(t *testing.T) {
	down := play(t, says(plain(503, "application/json", `{}`)))
	other := play(t, says(plain(200, "application/json", ok)))
	keys, made := issue(t, map[string]auth.Key{"free": {}, "m": {Scopes: auth.Scopes{Models: []string{"m"}}}}, nil)
	h := build(t, setting{documents: twoModels, keys: auth.Chain(keys)}, down.URL, other.URL)
	for name, want := range map[string]int{"free": 200, "m": 503} {
		req := h.request("/v1/chat/completions", chat)
		req.Header.Set("X-API-Key", made[name].key.Reveal())
		if resp := h.send(req); resp.StatusCode != want {
			t.Errorf("%s: %d %s, want %d", name, resp.StatusCode, body(t, resp), want)
		}
	}
}

func TestNobodyIsLetInOrTurnedAwayWhileNobodyKnows(t *testing.T) {
	backend := play(t, says(plain(200, "application/json", ok)))
	keys, made := issue(t, map[string]auth.Key{"free": {}}, context.DeadlineExceeded)
	h := build(t, setting{keys: auth.Chain(keys)}, backend.URL)
	for name, key := range map[string]string{"of another": auth.NewKey().Reveal(), "of another form": "sk-1", "given in part": made["free"].key.Reveal()} {
		req := h.request("/v1/chat/completions", chat)
		req.Header.Set("X-API-Key", key)
		resp := h.send(req)
		if code, _, _ := refusal(t, resp); code != "identity_unavailable" || resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
			t.Errorf("a key %s: %d %s", name, resp.StatusCode, code)
		}
	}
	if len(backend.bodies()) > 0 {
		t.Error("a backend was contacted")
	}
}

// signedRequest signs as docs/keys.md says.
func (h *house) signedRequest(by issued, method, path, content, nonce string) *http.Request {
	req := h.request(path, content)
	req.Method = method
	stamp := strconv.FormatInt(time.Now().Unix(), 10)
	mac := auth.Sign(by.signing, stamp, nonce, method, path, []byte(content))
	req.Header.Set("X-API-Key", by.key.Reveal())
	req.Header.Set("X-HMAC-Signature", hex.EncodeToString(mac[:]))
	req.Header.Set("X-HMAC-Timestamp", stamp)
	req.Header.Set("X-HMAC-Nonce", nonce)
	return req
}

func TestASignedRequestIsTakenOnce(t *testing.T) {
	backend := play(t, says(plain(200, "application/json", ok)))
	keys, made := issue(t, map[string]auth.Key{
		"signs": {Scopes: auth.Scopes{Signature: auth.SignatureRequired}}, "may": {Scopes: auth.Scopes{Signature: auth.SignatureOptional}}, "plain": {},
	}, nil)
	h := build(t, setting{keys: auth.Chain(keys), verifier: keys}, backend.URL)
	send := func(req *http.Request, status int, code, what string) {
		t.Helper()
		before := len(backend.bodies())
		resp := h.send(req)
		got := ""
		if resp.StatusCode != 200 {
			got, _, _ = refusal(t, resp)
		}
		if resp.StatusCode != status || got != code {
			t.Errorf("%s: %d %s, want %d %s", what, resp.StatusCode, got, status, code)
		}
		if status != 200 && len(backend.bodies()) != before {
			t.Errorf("%s: a backend was contacted", what)
		}
	}
	const path = "/v1/chat/completions"
	nonce := rand.Text()
	send(h.signedRequest(made["signs"], "POST", path, chat, nonce), 200, "", "signed")
	send(h.signedRequest(made["signs"], "POST", path, chat, nonce), 401, "invalid_signature", "its nonce again")
	send(h.signedRequest(made["may"], "POST", path, chat, nonce), 200, "", "another key's, which need not")
	send(h.signedRequest(made["plain"], "POST", path, chat, rand.Text()), 401, "invalid_signature", "of a key that cannot")
	send(h.signedRequest(made["signs"], "GET", "/v1/models", "", rand.Text()), 200, "", "the list of models")
	forged := h.signedRequest(made["signs"], "POST", path, chat, rand.Text())
	changed := h.request(path, strings.Replace(chat, "user", "USER", 1))
	changed.Header = forged.Header
	send(changed, 401, "invalid_signature", "another body")
	moved := h.signedRequest(made["signs"], "POST", "/v1/completions", chat, rand.Text())
	moved.URL.Path = path
	send(moved, 401, "invalid_signature", "another path")
}

func TestTheClientIsTheLastHopThatIsNotTrusted(t *testing.T) {
	network := func(texts ...string) (list []netip.Prefix) {
		for _, text := range texts {
			list = append(list, netip.MustParsePrefix(text))
		}
		return list
	}
	backend := play(t, says(plain(200, "application/json", ok)))
	keys, made := issue(t, map[string]auth.Key{"one": {Scopes: auth.Scopes{Networks: network("203.0.113.7/32", "2001:db8::7/128")}}}, nil)
	for _, tc := range []struct {
		what      string
		trusted   []netip.Prefix
		forwarded []string
		let       bool
	}{
		{"nobody is trusted", nil, []string{"203.0.113.7"}, false},
		{"the peer is trusted", network("127.0.0.0/8"), []string{"203.0.113.7"}, true},
		{"it says nothing", network("127.0.0.0/8"), nil, false},
		{"what the client wrote", network("127.0.0.0/8"), []string{"203.0.113.7, 198.51.100.1"}, false},
		{"through two", network("127.0.0.0/8", "10.0.0.0/8"), []string{"198.51.100.1, 203.0.113.7, 10.0.0.1"}, true},
		{"in two lines", network("127.0.0.0/8", "10.0.0.0/8"), []string{"203.0.113.7", "10.0.0.1"}, true},
		{"in the wrong line", network("127.0.0.0/8"), []string{"203.0.113.7", "198.51.100.1"}, false},
		{"with a port", network("127.0.0.0/8"), []string{"203.0.113.7:4711"}, true},
		{"of the other family", network("127.0.0.0/8"), []string{"[2001:db8::7]:4711"}, true},
		{"in brackets", network("127.0.0.0/8"), []string{"[2001:db8::7]"}, true},
		{"mapped", network("127.0.0.0/8"), []string{"::ffff:203.0.113.7"}, true},
		{"garbage", network("127.0.0.0/8"), []string{"203.0.113.7, unknown"}, false},
		{"a comma at the end", network("127.0.0.0/8"), []string{"203.0.113.7,"}, false},
		{"all of them trusted", network("0.0.0.0/0"), []string{"203.0.113.7, 198.51.100.1"}, true},
		{"empty", network("127.0.0.0/8"), []string{""}, false},
	} {
		h := build(t, setting{keys: auth.Chain(keys), trusted: tc.trusted}, backend.URL)
		req := h.request("/v1/chat/completions", chat)
		req.Header.Set("X-API-Key", made["one"].key.Reveal())
		for _, line := range tc.forwarded {
			req.Header.Add("X-Forwarded-For", line)
		}
		if resp := h.send(req); (resp.StatusCode == 200) != tc.let {
			t.Errorf("%s: %d", tc.what, resp.StatusCode)
		}
	}
}

func TestWrongKeysAreSlowedDownAndRightOnesAreNot(t *testing.T) {
	backend := play(t, says(plain(200, "application/json", ok)))
	keys, made := issue(t, map[string]auth.Key{"free": {}}, nil)
	h := build(t, setting{keys: auth.Chain(keys)}, backend.URL)
	slowed := false
	for range 2000 {
		req := h.request("/v1/chat/completions", chat)
		req.Header.Set("X-API-Key", "sk-wrong")
		resp := h.send(req)
		code, _, _ := refusal(t, resp)
		if slowed = code == "rate_limit_exceeded" && resp.Header.Get("Retry-After") != ""; slowed {
			break
		}
	}
	if !slowed {
		t.Error("two thousand wrong keys were not slowed down")
	}
	req := h.request("/v1/chat/completions", chat)
	req.Header.Set("X-API-Key", made["free"].key.Reveal())
	if resp := h.send(req); resp.StatusCode != 200 {
		t.Errorf("a right key gets %d", resp.StatusCode)
	}
}
