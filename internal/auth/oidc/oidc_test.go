package oidc_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/ai-aas/api-router/internal/auth"
	"github.com/ai-aas/api-router/internal/auth/oidc"
	"github.com/ai-aas/api-router/internal/fault"
	"github.com/ai-aas/api-router/test/leaks"
)

func TestMain(m *testing.M) { leaks.Main(m) }

// issuer is a server that makes tokens and publishes its keys.
type issuer struct {
	t       testing.TB
	url     string
	server  *httptest.Server
	fetches atomic.Int64
	down    atomic.Bool

	mu   sync.Mutex
	keys map[string]crypto.Signer
	raw  string // in place of the keys
}

var rsaKey = sync.OnceValue(func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return k
})

func elliptical(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newIssuer(t testing.TB) *issuer {
	t.Helper()
	i := &issuer{t: t, keys: map[string]crypto.Signer{"r1": rsaKey(), "e1": elliptical(t)}}
	i.server = httptest.NewServer(http.HandlerFunc(i.serve))
	i.url = i.server.URL
	t.Cleanup(i.server.Close)
	return i
}

func (i *issuer) serve(w http.ResponseWriter, r *http.Request) {
	if i.down.Load() {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	switch r.URL.Path {
	case "/.well-known/openid-configuration":
		_ = json.NewEncoder(w).Encode(map[string]string{"issuer": i.url, "jwks_uri": i.url + "/keys"})
	case "/keys":
		i.fetches.Add(1)
		if i.raw != "" {
			_, _ = w.Write([]byte(i.raw))
			return
		}
		var set jose.JSONWebKeySet
		for id, k := range i.keys {
			set.Keys = append(set.Keys, jose.JSONWebKey{Key: k.Public(), KeyID: id, Use: "sig"})
		}
		_ = json.NewEncoder(w).Encode(set)
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

func (i *issuer) rotate(keys map[string]crypto.Signer) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys = keys
}

type object = map[string]any

// usual are the claims of a good token, with changes; nil takes one away.
func (i *issuer) usual(changes object) object {
	now := time.Now()
	c := object{
		"iss": i.url, "aud": "router", "sub": "someone@example.com", "exp": now.Add(time.Hour).Unix(), "iat": now.Unix(),
		"org": "acme", "scope": "openid inference:chat", "models": []string{"gpt-*"}, "realm": object{"roles": []string{"router-admins", "others"}},
	}
	for name, value := range changes {
		if c[name] = value; value == nil {
			delete(c, name)
		}
	}
	return c
}

func sign(t testing.TB, key any, algorithm, id string, claims object) string {
	t.Helper()
	opts := (&jose.SignerOptions{}).WithType("JWT")
	if id != "" {
		opts = opts.WithHeader("kid", id)
	}
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.SignatureAlgorithm(algorithm), Key: key}, opts)
	if err != nil {
		t.Fatal(err)
	}
	content, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := s.Sign(content)
	if err != nil {
		t.Fatal(err)
	}
	text, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func (i *issuer) good(changes object) string {
	return sign(i.t, rsaKey(), "RS256", "r1", i.usual(changes))
}

func (i *issuer) setting() oidc.Issuer {
	return oidc.Issuer{
		Issuer: i.url, Audience: "router", Algorithms: []string{"RS256", "ES256"}, Organization: "org", Scopes: "scope", Models: "models", Roles: "realm.roles",
		Role: map[string]string{"router-admins": "admin"}, Leeway: 10 * time.Second,
	}
}

// verifier runs until the test ends.
func verifier(t testing.TB, opts oidc.Options) *oidc.Verifier {
	t.Helper()
	v, err := oidc.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	ctx := t.Context()
	go func() {
		defer close(done)
		_ = v.Run(ctx)
	}()
	t.Cleanup(func() { <-done })
	return v
}

func plain(header, claims object, signature string) string {
	part := func(o object) string {
		content, _ := json.Marshal(o)
		return base64.RawURLEncoding.EncodeToString(content)
	}
	return part(header) + "." + part(claims) + "." + signature
}

func TestATokenOfAKnownIssuerIsItsCaller(t *testing.T) {
	i := newIssuer(t)
	for name, jwks := range map[string]string{"by discovery": "", "by its place": i.url + "/keys"} {
		setting := i.setting()
		setting.JWKS = jwks
		v := verifier(t, oidc.Options{Issuers: []oidc.Issuer{setting}})
		p, err := v.Validate(t.Context(), i.good(nil))
		if err != nil || p.Organization != "acme" || p.Source != oidc.Source || !p.Scopes.Model("gpt-1") || p.Scopes.Model("llama") || p.ExpiresAt.IsZero() {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
		if strings.Contains(p.KeyID, "someone") || !strings.HasPrefix(p.KeyID, "jwt-") {
			t.Errorf("%s: the key id %q", name, p.KeyID)
		}
		again, err := v.Validate(t.Context(), sign(t, i.keys["e1"], "ES256", "e1", i.usual(nil)))
		if err != nil || again.KeyID != p.KeyID {
			t.Errorf("%s: %+v, %v: another id for the same subject", name, again, err)
		}
	}
}

func TestEveryAttackOnATokenIsRefused(t *testing.T) {
	i, other := newIssuer(t), newIssuer(t)
	v := verifier(t, oidc.Options{Issuers: []oidc.Issuer{i.setting()}})
	if _, err := v.Validate(t.Context(), i.good(nil)); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	der, err := x509.MarshalPKIXPublicKey(rsaKey().Public())
	if err != nil {
		t.Fatal(err)
	}
	public := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	stranger := elliptical(t)
	good := i.good(nil)
	parts := strings.Split(good, ".")
	embedded, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: stranger}, &jose.SignerOptions{EmbedJWK: true})
	if err != nil {
		t.Fatal(err)
	}
	content, _ := json.Marshal(i.usual(nil))
	signed, err := embedded.Sign(content)
	if err != nil {
		t.Fatal(err)
	}
	carried, _ := signed.CompactSerialize()
	many, err := jose.NewMultiSigner([]jose.SigningKey{{Algorithm: jose.ES256, Key: stranger}, {Algorithm: jose.RS256, Key: rsaKey()}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	twice, err := many.Sign(content)
	if err != nil {
		t.Fatal(err)
	}
	double := `"iss":"` + i.url + `","aud":"router","sub":"x","org":"acme","exp":9999999999`
	cases := []struct {
		name, token string
		want        fault.Code
	}{
		{"alg none", plain(object{"alg": "none"}, i.usual(nil), ""), fault.InvalidAPIKey},
		{"alg None", plain(object{"alg": "None", "kid": "r1"}, i.usual(nil), ""), fault.InvalidAPIKey},
		{"no signature", parts[0] + "." + parts[1] + ".", fault.InvalidAPIKey},
		{"HS256 with the public key in PEM", sign(t, public, "HS256", "r1", i.usual(nil)), fault.InvalidAPIKey},
		{"HS256 with the public key in DER", sign(t, der, "HS256", "r1", i.usual(nil)), fault.InvalidAPIKey},
		{"an algorithm that is not pinned", sign(t, rsaKey(), "PS256", "r1", i.usual(nil)), fault.InvalidAPIKey},
		{"a key of another kind", sign(t, stranger, "ES256", "r1", i.usual(nil)), fault.InvalidAPIKey},
		{"a stranger's key under a known id", sign(t, stranger, "ES256", "e1", i.usual(nil)), fault.InvalidAPIKey},
		{"a key that it brings along", carried, fault.InvalidAPIKey},
		{"two signatures", twice.FullSerialize(), fault.InvalidAPIKey},
		{"other claims under the signature", parts[0] + "." + strings.Split(i.good(object{"org": "other"}), ".")[1] + "." + parts[2], fault.InvalidAPIKey},
		{"another issuer", other.good(nil), fault.InvalidAPIKey},
		{"another issuer's name", i.good(object{"iss": other.url}), fault.InvalidAPIKey},
		{"the issuer with a slash", i.good(object{"iss": i.url + "/"}), fault.InvalidAPIKey},
		{"no issuer", i.good(object{"iss": nil}), fault.InvalidAPIKey},
		{"another audience", i.good(object{"aud": "billing"}), fault.InvalidAPIKey},
		{"no audience", i.good(object{"aud": nil}), fault.InvalidAPIKey},
		{"expired", i.good(object{"exp": now.Add(-time.Minute).Unix()}), fault.ExpiredAPIKey},
		{"no end", i.good(object{"exp": nil}), fault.InvalidAPIKey},
		{"not yet", i.good(object{"nbf": now.Add(time.Minute).Unix()}), fault.InvalidAPIKey},
		{"made in the future", i.good(object{"iat": now.Add(time.Minute).Unix()}), fault.InvalidAPIKey},
		{"no subject", i.good(object{"sub": nil}), fault.InvalidAPIKey},
		{"an end that is no number", i.good(object{"exp": "tomorrow"}), fault.InvalidAPIKey},
		{"an unknown key", sign(t, rsaKey(), "RS256", "r9", i.usual(object{"iat": time.Now().Add(-time.Hour).Unix()})), fault.InvalidAPIKey},
		{"oversized", i.good(object{"pad": strings.Repeat("x", 9<<10)}), fault.InvalidAPIKey},
		{"no organization", i.good(object{"org": nil}), fault.PermissionDenied},
		{"everybody's organization", i.good(object{"org": "*"}), fault.PermissionDenied},
		{"an organization that is a list", i.good(object{"org": []string{"acme"}}), fault.PermissionDenied},
		{"no scope for inference", i.good(object{"scope": "openid inference"}), fault.PermissionDenied},
		{"no scopes", i.good(object{"scope": nil}), fault.PermissionDenied},
		{"no models", i.good(object{"models": []string{}}), fault.PermissionDenied},
		{"models of another type", i.good(object{"models": 7}), fault.PermissionDenied},
		{"a claim twice", raw(t, i, "{"+double+`,"org":"other"}`), fault.InvalidAPIKey},
		{"not JSON", "eyJhbGciOiJSUzI1NiJ9.e30x.AAAA", fault.InvalidAPIKey},
		{"an API key", "ar_12345678_abc", fault.InvalidAPIKey},
		{"nothing", "", fault.InvalidAPIKey},
	}
	for _, c := range cases {
		t.Run(strings.ReplaceAll(c.name, " ", "-"), func(t *testing.T) {
			p, err := v.Validate(t.Context(), c.token)
			if fault.CodeOf(err) != c.want {
				t.Errorf("%+v, %v, want %s", p, err, c.want)
			}
		})
	}
}

// raw signs claims as they are written.
func raw(t testing.TB, _ *issuer, claims string) string {
	t.Helper()
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: rsaKey()}, (&jose.SignerOptions{}).WithHeader("kid", "r1"))
	if err != nil {
		t.Fatal(err)
	}
	signed, err := s.Sign([]byte(claims))
	if err != nil {
		t.Fatal(err)
	}
	text, _ := signed.CompactSerialize()
	return text
}

func TestClocksMayDifferByTheLeeway(t *testing.T) {
	i := newIssuer(t)
	setting, now := i.setting(), time.Now()
	setting.Leeway = oidc.MaxLeeway
	v := verifier(t, oidc.Options{Issuers: []oidc.Issuer{setting}})
	for name, changes := range map[string]object{ // Far enough from the leeway's end for a test that takes its time.
		"an end that was": {"exp": now.Add(-oidc.MaxLeeway / 4).Unix()}, "a beginning to come": {"nbf": now.Add(oidc.MaxLeeway / 2).Unix()},
	} {
		if _, err := v.Validate(t.Context(), i.good(changes)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRotatedKeysAreFetchedOnceForAllWhoComeWithThem(t *testing.T) {
	i := newIssuer(t)
	v := verifier(t, oidc.Options{Issuers: []oidc.Issuer{i.setting()}})
	if _, err := v.Validate(t.Context(), i.good(nil)); err != nil {
		t.Fatal(err)
	}
	next := elliptical(t)
	i.rotate(map[string]crypto.Signer{"e2": next})
	before := i.fetches.Load()
	token := sign(t, next, "ES256", "e2", i.usual(nil))
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if _, err := v.Validate(t.Context(), token); err != nil {
				t.Errorf("with the new key: %v", err)
			}
		})
	}
	all.Wait()
	if _, err := v.Validate(t.Context(), i.good(object{"iat": time.Now().Add(-time.Hour).Unix()})); fault.CodeOf(err) != fault.InvalidAPIKey {
		t.Errorf("with the old key: %v, want invalid_api_key", err)
	}
	for range 50 {
		_, _ = v.Validate(t.Context(), sign(t, next, "ES256", "made-up", i.usual(nil)))
	}
	if n := i.fetches.Load() - before; n != 1 {
		t.Errorf("unknown keys caused %d fetches, want 1 in a minute", n)
	}
	now := time.Now()
	for name, test := range map[string]struct {
		issued any
		want   fault.Code
	}{ // The keys were fetched a moment ago and are not fetched again yet.
		"younger than the keys that are known": {now.Add(time.Second).Unix(), fault.IdentityUnavailable},
		"that does not say when it was made":   {nil, fault.IdentityUnavailable},
		"older than those":                     {now.Add(-time.Hour).Unix(), fault.InvalidAPIKey},
		"that will be made":                    {now.Add(time.Hour).Unix(), fault.InvalidAPIKey},
	} {
		_, err := v.Validate(t.Context(), sign(t, next, "ES256", "e3", i.usual(object{"iat": test.issued})))
		if fault.CodeOf(err) != test.want {
			t.Errorf("with an unknown key and a token %s: %v, want %s", name, err, test.want)
		}
	}
}

func TestAnIssuerSpeaksForItsOrganizationsAlone(t *testing.T) {
	i := newIssuer(t)
	setting := i.setting()
	setting.Organizations = []string{"acme", "other"}
	v := verifier(t, oidc.Options{Issuers: []oidc.Issuer{setting}})
	for organization, want := range map[string]fault.Code{"acme": "", "other": "", "acme2": fault.PermissionDenied, "Acme": fault.PermissionDenied} {
		if p, err := v.Validate(t.Context(), i.good(object{"org": organization})); fault.CodeOf(err) != want || err == nil && p.Organization != organization {
			t.Errorf("%s: %+v, %v, want %q", organization, p, err, want)
		}
	}
}

func TestKnownKeysGoOnWhileTheIssuerIsAwayAndOthersAreNotRefused(t *testing.T) {
	i := newIssuer(t)
	v := verifier(t, oidc.Options{Issuers: []oidc.Issuer{i.setting()}})
	if _, err := v.Validate(t.Context(), i.good(nil)); err != nil {
		t.Fatal(err)
	}
	i.down.Store(true)
	stranger := sign(t, rsaKey(), "RS256", "r9", i.usual(nil))
	for range 3 {
		if _, err := v.Validate(t.Context(), stranger); fault.CodeOf(err) != fault.IdentityUnavailable {
			t.Errorf("with an unknown key: %v, want identity_unavailable", err)
		}
		if _, err := v.Validate(t.Context(), i.good(nil)); err != nil {
			t.Errorf("with a known key: %v", err)
		}
	}
	if s := v.Status()[0]; s.Failure == "" || s.Keys != 2 {
		t.Errorf("%+v", s)
	}
}

func TestAnIssuerThatWasNeverReachedIsNoRefusal(t *testing.T) {
	cases := map[string]func(*issuer){
		"dead":       func(i *issuer) { i.server.Close() },
		"failing":    func(i *issuer) { i.down.Store(true) },
		"garbage":    func(i *issuer) { i.raw = "<html>" },
		"endless":    func(i *issuer) { i.raw = `{"keys":[` + strings.Repeat(" ", 2<<20) },
		"no keys":    func(i *issuer) { i.raw = `{"keys":[]}` },
		"shared key": func(i *issuer) { i.raw = `{"keys":[{"kty":"oct","kid":"r1","k":"c2VjcmV0"}]}` },
	}
	for name, harm := range cases {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			i := newIssuer(t)
			harm(i)
			v := verifier(t, oidc.Options{Issuers: []oidc.Issuer{i.setting()}})
			start := time.Now()
			_, err := v.Validate(t.Context(), i.good(nil))
			if fault.CodeOf(err) != fault.IdentityUnavailable {
				t.Errorf("%v, want identity_unavailable", err)
			}
			if took := time.Since(start); took > 50*time.Second {
				t.Errorf("it took %s", took)
			}
		})
	}
}

func TestTokensOfOthersPassToTheNextValidator(t *testing.T) {
	i, other := newIssuer(t), newIssuer(t)
	v := verifier(t, oidc.Options{Issuers: []oidc.Issuer{i.setting()}})
	p, err := auth.Chain(v, verifier(t, oidc.Options{Issuers: []oidc.Issuer{other.setting()}})).Validate(t.Context(), other.good(nil))
	if err != nil || p.Organization != "acme" {
		t.Errorf("%+v, %v", p, err)
	}
}

func TestRolesOfOperatorsComeFromTheirClaim(t *testing.T) {
	i := newIssuer(t)
	v := verifier(t, oidc.Options{Issuers: []oidc.Issuer{i.setting()}})
	name, roles, err := v.Operator(t.Context(), i.good(nil))
	if err != nil || len(roles) != 1 || roles[0] != "admin" || !strings.HasPrefix(name, "oidc-") {
		t.Errorf("%q %v %v", name, roles, err)
	}
	if _, roles, err := v.Operator(t.Context(), i.good(object{"realm": nil})); err != nil || len(roles) != 0 {
		t.Errorf("without the claim: %v %v", roles, err)
	}
	setting := i.setting()
	setting.Roles = ""
	if _, _, err := verifier(t, oidc.Options{Issuers: []oidc.Issuer{setting}}).Operator(t.Context(), i.good(nil)); fault.CodeOf(err) != fault.InvalidAPIKey {
		t.Errorf("an issuer of callers alone: %v", err)
	}
	setting = i.setting()
	setting.Organization, setting.Scopes, setting.Models = "", "", ""
	if _, err := verifier(t, oidc.Options{Issuers: []oidc.Issuer{setting}}).Validate(t.Context(), i.good(nil)); fault.CodeOf(err) != fault.InvalidAPIKey {
		t.Errorf("an issuer of operators alone: %v", err)
	}
}

func TestASettingThatOpensADoorIsRefused(t *testing.T) {
	good := oidc.Issuer{Issuer: "https://issuer.example", Audience: "router", Algorithms: []string{"RS256"}, Organization: "org"}
	if err := good.Check(); err != nil {
		t.Fatal(err)
	}
	cases := map[string]func(*oidc.Issuer){
		"no issuer":              func(i *oidc.Issuer) { i.Issuer = "" },
		"a plain issuer":         func(i *oidc.Issuer) { i.Issuer = "http://issuer.example" },
		"plain keys":             func(i *oidc.Issuer) { i.JWKS = "http://issuer.example/keys" },
		"no audience":            func(i *oidc.Issuer) { i.Audience = "" },
		"no algorithm":           func(i *oidc.Issuer) { i.Algorithms = nil },
		"none":                   func(i *oidc.Issuer) { i.Algorithms = []string{"none"} },
		"a shared key":           func(i *oidc.Issuer) { i.Algorithms = []string{"RS256", "HS256"} },
		"nobody's":               func(i *oidc.Issuer) { i.Organization = "" },
		"much leeway":            func(i *oidc.Issuer) { i.Leeway = 2 * time.Minute },
		"scopes without callers": func(i *oidc.Issuer) { i.Organization, i.Roles, i.Scopes = "", "roles", "scope" },
	}
	for name, harm := range maps.All(cases) {
		bad := good
		harm(&bad)
		if err := bad.Check(); err == nil {
			t.Errorf("%s was accepted", name)
		}
		if _, err := oidc.New(oidc.Options{Issuers: []oidc.Issuer{bad}}); err == nil {
			t.Errorf("%s: a verifier was made", name)
		}
	}
}

func FuzzToken(f *testing.F) {
	i := newIssuer(f)
	good := i.good(nil)
	for _, seed := range []string{good, plain(object{"alg": "none"}, i.usual(nil), ""), "eyJ..", "eyJhbGciOiJSUzI1NiJ9.e30.", strings.ToUpper(good)} {
		f.Add(seed)
	}
	v := verifier(f, oidc.Options{Issuers: []oidc.Issuer{i.setting()}})
	want, err := v.Validate(f.Context(), good)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, token string) {
		p, err := v.Validate(t.Context(), token)
		// The last character of a signature has bits that mean nothing: another text can be the same token.
		if err == nil && (p.KeyID != want.KeyID || p.Organization != want.Organization || !p.ExpiresAt.Equal(want.ExpiresAt)) {
			t.Fatalf("%q was accepted as %+v", token, p)
		}
		if err != nil && fault.CodeOf(err).Status() >= 500 && fault.CodeOf(err) != fault.IdentityUnavailable {
			t.Fatalf("%q: %v", token, err)
		}
	})
}
