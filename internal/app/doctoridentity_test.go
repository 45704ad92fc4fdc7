package app

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/ai-aas/api-router/internal/auth"
	"github.com/ai-aas/api-router/internal/auth/oidc"
	"github.com/ai-aas/api-router/internal/policy"
	"github.com/ai-aas/api-router/internal/state"
	"github.com/ai-aas/api-router/test/ports"
)

const unknownKey = `{"valid":false,"apiKeyId":"","organizationId":"","principalId":"","principalType":"","scopes":[],"status":"unknown","expiresAt":null,"message":""}`

// said runs a part of doctor that says one line, within the time that it may take.
func said(t *testing.T, part func(d *doctor)) string {
	t.Helper()
	var out strings.Builder
	d := doctor{out: &out}
	begun := time.Now()
	part(&d)
	if took := time.Since(begun); took > 3*sourceWait {
		t.Errorf("it took %s", took)
	}
	if strings.Count(out.String(), "\n") != 1 || d.failed != strings.HasPrefix(out.String(), verdictFail) {
		t.Errorf("failed %t: %s", d.failed, out.String())
	}
	return out.String()
}

// authorityOf is a file with the certificate of a server.
func authorityOf(t *testing.T, server *httptest.Server) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// quietTLS is a server whose complaints about handshakes go nowhere.
func quietTLS(t *testing.T, handler http.Handler) *httptest.Server {
	t.Helper()
	server := httptest.NewUnstartedServer(handler)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	return server
}

// mute is an address that takes connections and says nothing.
func mute(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l.Addr().String()
}

func TestDoctorAsksTheUserOrgService(t *testing.T) {
	t.Setenv("DOCTOR_USER_ORG", "canary-of-the-service")
	token, err := policy.ParseSecretRef("env:DOCTOR_USER_ORG")
	if err != nil {
		t.Fatal(err)
	}
	absent, err := policy.ParseSecretRef("env:DOCTOR_NOT_THERE")
	if err != nil {
		t.Fatal(err)
	}
	answers := func(status int, text string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			var asked struct{ APIKeySecret string }
			if err := json.NewDecoder(r.Body).Decode(&asked); err != nil || r.URL.Path != "/v1/auth/validate-api-key" || len(asked.APIKeySecret) < 40 {
				t.Errorf("it was asked %s %+v, %v", r.URL.Path, asked, err)
			}
			w.Header().Set("Location", "https://elsewhere.example/")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, strings.ReplaceAll(text, "KEY", asked.APIKeySecret))
		}
	}
	serves := func(status int, text string) UserOrg {
		server := httptest.NewServer(answers(status, text))
		t.Cleanup(server.Close)
		return UserOrg{URL: server.URL}
	}
	secured := quietTLS(t, answers(200, unknownKey))
	breaksOff := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1000")
		_, _ = io.WriteString(w, `{"valid":`)
	}))
	defer breaksOff.Close()
	checks := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer canary-of-the-service" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		answers(200, unknownKey)(w, r)
	}))
	defer checks.Close()
	with := func(c, more UserOrg) UserOrg {
		c.Token, c.CA, c.Timeout = more.Token, more.CA, more.Timeout
		return c
	}
	for name, tc := range map[string]struct {
		config        UserOrg
		verdict, says string
	}{
		"it answers":                     {serves(200, unknownKey), verdictOK, "it answers, and refuses a key that nobody has"},
		"it says that it does not exist": {serves(200, `{"valid":false}`), verdictOK, "it answers"},
		"with the token":                 {UserOrg{URL: checks.URL, Token: token}, verdictOK, "it answers"},
		"without the token":              {UserOrg{URL: checks.URL}, verdictFail, "answered 401: it does not let this router ask"},
		"a token that cannot be read":    {UserOrg{URL: checks.URL, Token: absent}, verdictFail, "identity.user_org_service.token: secret env:DOCTOR_NOT_THERE"},
		"every key is valid":             {serves(200, strings.Replace(unknownKey, `"valid":false,"apiKeyId":"","organizationId":"","principalId":"","principalType":"","scopes":[],"status":"unknown"`, `"valid":true,"apiKeyId":"a","organizationId":"b","scopes":["inference:*"]`, 1)), verdictFail, "who can make up a key gets in"},
		"valid, for nothing":             {serves(200, `{"valid":true,"apiKeyId":"a","organizationId":"b"}`), verdictFail, "who can make up a key gets in"},
		"every key is revoked":           {serves(200, `{"valid":false,"status":"revoked"}`), verdictFail, "it says revoked_api_key of a key that nobody has"},
		"nothing there":                  {serves(404, unknownKey), verdictFail, "answered 404"},
		"it fails":                       {serves(502, unknownKey), verdictFail, "answered 502; its own log says why"},
		"another place":                  {serves(307, ""), verdictFail, "no redirect is followed"},
		"HTML":                           {serves(200, "<html>KEY</html>"), verdictFail, "is it a user-org-service that is there?"},
		"garbage":                        {serves(200, "\x00\x01KEY"), verdictFail, "it is not the JSON that was expected"},
		"another JSON":                   {serves(200, `{"status":"KEY"}`), verdictFail, "it does not say whether the key is valid"},
		"endless":                        {serves(200, strings.Repeat("[", 1<<17)), verdictFail, "it is larger than 65536 bytes"},
		"it breaks off":                  {UserOrg{URL: breaksOff.URL}, verdictFail, "unexpected EOF"},
		"nobody":                         {UserOrg{URL: "http://" + ports.Dead(t)}, verdictFail, "connection refused; start it, or correct identity.user_org_service.url"},
		"no such name":                   {UserOrg{URL: "http://user-org.invalid"}, verdictFail, "start it, or correct identity.user_org_service.url"},
		"mute":                           {UserOrg{URL: "http://" + mute(t), Timeout: 200 * time.Millisecond}, verdictFail, "no answer within 200ms"},
		"TLS":                            {with(UserOrg{URL: secured.URL}, UserOrg{CA: authorityOf(t, secured)}), verdictOK, "it answers"},
		"TLS of somebody else":           {UserOrg{URL: secured.URL}, verdictFail, "correct its certificate, identity.user_org_service.ca"},
		"TLS without authorities":        {UserOrg{URL: secured.URL, CA: filepath.Join(t.TempDir(), "none")}, verdictFail, "make the file readable"},
		"TLS where there is none":        {UserOrg{URL: strings.Replace(serves(200, unknownKey).URL, "http:", "https:", 1)}, verdictFail, "http:// and https://"},
		"no TLS where there is":          {UserOrg{URL: strings.Replace(secured.URL, "https:", "http:", 1)}, verdictFail, "answered 400"},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.config.Timeout == 0 {
				tc.config.Timeout = sourceWait
			}
			line := said(t, func(d *doctor) { d.userOrg(t.Context(), &tc.config) })
			if !strings.HasPrefix(line, tc.verdict+" ") || !strings.Contains(line, tc.says) {
				t.Errorf("%swant %s … %s", line, tc.verdict, tc.says)
			}
			if strings.Contains(line, "ar_") || strings.Contains(line, "canary") {
				t.Errorf("a secret shows: %s", line)
			}
		})
	}
	for place, clear := range map[string]bool{
		"http://user-org.example": true, "http://10.0.0.1:80": true, "http://localhost:1": false, "http://[::1]:1": false, "https://user-org.example": false,
	} {
		if inTheClear(place) != clear {
			t.Errorf("%s: %t", place, !clear)
		}
	}
}

func TestDoctorFetchesTheKeysOfIssuers(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	set, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "e1", Use: "sig"}}})
	if err != nil {
		t.Fatal(err)
	}
	// issuer serves a discovery document and keys; SELF in it is its own URL.
	issuer := func(discovery, keys string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			text := map[string]string{"/.well-known/openid-configuration": discovery, "/keys": keys}[r.URL.Path]
			if text == "" {
				w.WriteHeader(http.StatusNotFound)
			}
			scheme := "http://"
			if r.TLS != nil {
				scheme = "https://"
			}
			_, _ = io.WriteString(w, strings.ReplaceAll(text, "SELF", scheme+r.Host))
		}
	}
	const usual = `{"issuer":"SELF","jwks_uri":"SELF/keys"}`
	serves := func(discovery, keys string) oidc.Issuer {
		server := httptest.NewServer(issuer(discovery, keys))
		t.Cleanup(server.Close)
		return oidc.Issuer{Issuer: server.URL}
	}
	secured := quietTLS(t, issuer(usual, string(set)))
	for name, tc := range map[string]struct {
		issuer        oidc.Issuer
		ca            string
		algorithms    string
		verdict, says string
	}{
		"its keys":                {serves(usual, string(set)), "", "ES256", verdictOK, "1 keys for ES256"},
		"by their place":          {oidc.Issuer{Issuer: "https://login.invalid", JWKS: serves("", string(set)).Issuer + "/keys"}, "", "ES256", verdictOK, "https://login.invalid: 1 keys"},
		"none for an algorithm":   {serves(usual, string(set)), "", "ES256 RS256", verdictWarn, "none for RS256"},
		"none that can be used":   {serves(usual, string(set)), "", "RS256", verdictFail, "name in algorithms those that it signs with"},
		"no keys":                 {serves(usual, `{"keys":[]}`), "", "ES256", verdictFail, "there is none that can be used"},
		"of another issuer":       {serves(strings.Replace(usual, "SELF", "https://other.example", 1), string(set)), "", "ES256", verdictFail, "letter for letter"},
		"keys in plain text":      {serves(`{"issuer":"SELF","jwks_uri":"http://keys.example/"}`, string(set)), "", "ES256", verdictFail, "name the place of its keys by jwks_url, with https://"},
		"no discovery":            {serves("", string(set)), "", "ES256", verdictFail, "the discovery document: the answer was 404; correct issuer in identity.jwt"},
		"no keys there":           {serves(usual, ""), "", "ES256", verdictFail, "the keys: the answer was 404; correct jwks_url"},
		"HTML":                    {serves("<html>", string(set)), "", "ES256", verdictFail, "the answer is not the JSON that was expected"},
		"garbage for keys":        {serves(usual, "\x00"), "", "ES256", verdictFail, "the keys: the answer is not the JSON that was expected"},
		"endless":                 {serves(usual, strings.Repeat(" ", 2<<20)), "", "ES256", verdictFail, "the answer is larger than"},
		"nobody":                  {oidc.Issuer{Issuer: "http://" + ports.Dead(t)}, "", "ES256", verdictFail, "connection refused; start it, or correct issuer"},
		"mute":                    {oidc.Issuer{Issuer: "http://" + mute(t)}, "", "ES256", verdictFail, "start it, or correct issuer"},
		"TLS":                     {oidc.Issuer{Issuer: secured.URL}, authorityOf(t, secured), "ES256", verdictOK, "1 keys"},
		"TLS of somebody else":    {oidc.Issuer{Issuer: secured.URL}, "", "ES256", verdictFail, "correct its certificate, or ca in identity.jwt"},
		"TLS without authorities": {oidc.Issuer{Issuer: secured.URL}, filepath.Join(t.TempDir(), "none"), "ES256", verdictFail, "make the file readable"},
	} {
		t.Run(name, func(t *testing.T) {
			i := TokenIssuer{Issuer: tc.issuer, Authorities: tc.ca}
			i.Audience, i.Organization, i.Algorithms = "router", "org", strings.Fields(tc.algorithms)
			line := said(t, func(d *doctor) { d.issuer(t.Context(), i) })
			if !strings.HasPrefix(line, tc.verdict+" ") || !strings.Contains(line, tc.says) {
				t.Errorf("%swant %s … %s", line, tc.verdict, tc.says)
			}
		})
	}
}

func TestDoctorTellsOfTheBookOfKeys(t *testing.T) {
	garbage := filepath.Join(t.TempDir(), "state.db")
	if err := os.WriteFile(garbage, []byte(strings.Repeat("this is no database ", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct{ url, verdict, says string }{
		"not there yet": {"sqlite://" + filepath.Join(t.TempDir(), "a", "state.db"), verdictOK, "is writable"},
		"damaged":       {"sqlite://" + garbage, verdictFail, "mend the file or the database"},
		"no server":     {"postgres://router@" + ports.Dead(t) + "/router?sslmode=disable", verdictFail, "start the database, or correct state.url"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // Each waits until the time is over.
			c := Config{State: State{URL: tc.url}}
			c.Policy.Source = SourceFile
			line := said(t, func(d *doctor) { d.keyBook(t.Context(), &c) })
			if !strings.HasPrefix(line, tc.verdict+" ") || !strings.Contains(line, tc.says) {
				t.Errorf("%swant %s … %s", line, tc.verdict, tc.says)
			}
		})
	}
}

func TestDoctorTellsOfKeysThatCannotBeUsed(t *testing.T) {
	url := "sqlite://" + filepath.Join(t.TempDir(), "state.db")
	book, err := state.Open(state.Options{URL: url, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = book.Close() })
	for deadline := time.Now().Add(time.Minute); !book.Status().Open && time.Now().Before(deadline); { // A busy disk may hold that up for longer than a call is.
		time.Sleep(time.Millisecond)
	}
	by := auth.By{Actor: "tester", Role: "admin"}
	if _, err := book.PutOrganization(t.Context(), auth.Organization{ID: "acme"}, nil, by); err != nil {
		t.Fatal(err)
	}
	const first, second = "the first pepper of this test", "the second pepper of this test"
	peppers, err := auth.NewPeppers(second, first)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		k := auth.Key{Organization: "acme"}
		if _, _, err := peppers.Make(&k); err != nil {
			t.Fatal(err)
		}
		if _, err := book.CreateKey(t.Context(), k, by); err != nil {
			t.Fatal(err)
		}
	}
	for name, test := range map[string]struct {
		peppers []string
		want    string
	}{
		"the right ones":         {[]string{second, first}, "ok    keys"},
		"one that is missing":    {[]string{first}, "fail  keys"},
		"another one":            {[]string{"the third pepper of this test", first}, "fail  keys"},
		"those in another order": {[]string{first, second}, "fail  keys"},
	} {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			c := Config{State: State{URL: url}, Identity: Identity{Order: []string{ValidatorState}}}
			for i, text := range test.peppers {
				path := filepath.Join(t.TempDir(), string(rune('a'+i)))
				if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
				ref, err := policy.ParseSecretRef("file:" + path)
				if err != nil {
					t.Fatal(err)
				}
				c.Identity.Peppers = append(c.Identity.Peppers, ref)
			}
			out := said(t, func(d *doctor) { d.keysInBook(t.Context(), &c) })
			if !strings.HasPrefix(out, test.want) || !strings.Contains(out, "2 ") {
				t.Errorf("%s, want %s", out, test.want)
			}
		})
	}
}

// A book may hold more keys than doctor waits for: what it has not read is not said to be good.
func TestDoctorSaysHowManyKeysItHasSeen(t *testing.T) {
	for _, test := range []struct {
		status auth.KeysStatus
		want   string
	}{
		{auth.KeysStatus{Keys: 3, Current: true}, "ok    keys           all 3 keys"},
		{auth.KeysStatus{Keys: 3, Unusable: 1, Current: true}, "fail  keys           1 of 3 keys"},
		{auth.KeysStatus{Keys: 3, Unusable: 1}, "fail  keys           1 of 3 keys"},
		{auth.KeysStatus{Keys: 3}, "warn  keys           the first 3 keys"},
		{auth.KeysStatus{Failure: "it does not answer"}, ""},
	} {
		var out strings.Builder
		d := doctor{out: &out}
		d.keysThere(&test.status)
		if !strings.HasPrefix(out.String(), test.want) || test.want == "" && out.Len() > 0 {
			t.Errorf("%+v: %q, want %q", test.status, out.String(), test.want)
		}
	}
}
