package auth_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/ai-aas/api-router/internal/auth"
	"github.com/ai-aas/api-router/internal/fault"
)

var signed struct {
	sync.Mutex
	n int
}

// signedHeader signs a request as docs/keys.md says, without any of the router's own code.
func signedHeader(secret auth.Secret, stamp time.Time, nonce, method, path, body string) http.Header {
	digest := sha256.Sum256([]byte(body))
	timestamp := strconv.FormatInt(stamp.Unix(), 10)
	mac := hmac.New(sha256.New, []byte(secret.Reveal()))
	fmt.Fprintf(mac, "%s\n%s\n%s\n%s\n%x", timestamp, nonce, method, path, digest)
	return header("X-HMAC-Signature", hex.EncodeToString(mac.Sum(nil)), "X-HMAC-Timestamp", timestamp, "X-HMAC-Nonce", nonce)
}

func freshNonce() string {
	signed.Lock()
	defer signed.Unlock()
	signed.n++
	return fmt.Sprintf("nonce-%020d", signed.n)
}

func sign(t *testing.T, secret auth.Secret, path, body string) (*auth.Signature, error) {
	t.Helper()
	s, err := auth.ParseSignature(signedHeader(secret, time.Now(), freshNonce(), http.MethodPost, path, body))
	return &s, err
}

func verify(t *testing.T, k *auth.Keys, key auth.Secret, s *auth.Signature, path, body string) error {
	t.Helper()
	p, err := k.Validate(t.Context(), key.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Due(&p); err != nil {
		return err
	}
	return k.Verify(&p, s, http.MethodPost, path, []byte(body))
}

func TestASignedRequestIsVerifiedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, p := newLedger("acme"), peppers(t, pepper1)
		key, secret, _ := l.issue(t, p, auth.Key{Scopes: auth.Scopes{Signature: auth.SignatureRequired}})
		other, otherSecret, _ := l.issue(t, p, auth.Key{Scopes: auth.Scopes{Signature: auth.SignatureOptional}})
		plain, _, _ := l.issue(t, p, auth.Key{})
		k := auth.NewKeys(options(l, p))
		runs(t, k)
		synctest.Wait()
		check := func(what string, h http.Header, by auth.Secret, want fault.Code) {
			t.Helper()
			s, err := auth.ParseSignature(h)
			if err == nil {
				err = verify(t, k, by, &s, "/v1/chat/completions", "body")
			}
			if fault.CodeOf(err) != want {
				t.Errorf("%s: %v, want %q", what, err, want)
			}
		}
		make := func(secret auth.Secret, off time.Duration, nonce string) http.Header {
			return signedHeader(secret, time.Now().Add(off), nonce, "POST", "/v1/chat/completions", "body")
		}
		first := make(secret, 0, "a-nonce-of-its-own")
		check("the first time", first, key, "")
		check("a replay", first, key, fault.InvalidSignature)
		check("its nonce at another time", make(secret, time.Second, "a-nonce-of-its-own"), key, fault.InvalidSignature)
		check("the same nonce of another key", make(otherSecret, 0, "a-nonce-of-its-own"), other, "")
		check("the secret of another key", make(otherSecret, 0, freshNonce()), key, fault.InvalidSignature)
		check("300 s ago", make(secret, -300*time.Second, freshNonce()), key, "")
		check("301 s ago", make(secret, -301*time.Second, freshNonce()), key, fault.InvalidSignature)
		ahead := make(secret, 300*time.Second, freshNonce())
		check("300 s ahead", ahead, key, "")
		check("301 s ahead", make(secret, 301*time.Second, freshNonce()), key, fault.InvalidSignature)
		check("unsigned, where it must be", header(), key, fault.InvalidSignature)
		check("unsigned, where it may be", header(), other, "")
		check("unsigned, where it cannot be", header(), plain, "")
		check("signed, where it cannot be", make(secret, 0, freshNonce()), plain, fault.InvalidSignature)
		based := make(secret, 0, freshNonce())
		content, err := hex.DecodeString(based.Get("X-HMAC-Signature"))
		if err != nil {
			t.Fatal(err)
		}
		based.Set("X-HMAC-Signature", base64.StdEncoding.EncodeToString(content))
		check("in base64", based, key, "")
		for _, name := range []string{"X-HMAC-Signature", "X-HMAC-Timestamp", "X-HMAC-Nonce"} {
			h := make(secret, 0, freshNonce())
			h.Del(name)
			check("without "+name, h, key, fault.InvalidSignature)
			h = make(secret, 0, freshNonce())
			h.Add(name, h.Get(name))
			check("with two of "+name, h, key, fault.AmbiguousRequest)
		}
		for range 20 { // A replay is refused as long as its time would let it in.
			time.Sleep(30 * time.Second)
			check("a replay of one that was ahead", ahead, key, fault.InvalidSignature)
		}
	})
}

func TestAFullMemoryOfNoncesRefusesAndForgetsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, p := newLedger("acme"), peppers(t, pepper1)
		scopes := auth.Scopes{Signature: auth.SignatureRequired}
		a, secretA, _ := l.issue(t, p, auth.Key{Scopes: scopes})
		b, secretB, _ := l.issue(t, p, auth.Key{Scopes: scopes})
		k := auth.NewKeys(options(l, p))
		k.LimitNonces(5, 3)
		runs(t, k)
		synctest.Wait()
		send := func(key, secret auth.Secret) (*auth.Signature, fault.Code) {
			s, err := sign(t, secret, "/", "")
			if err != nil {
				t.Fatal(err)
			}
			return s, fault.CodeOf(verify(t, k, key, s, "/", ""))
		}
		first, code := send(a, secretA)
		if code != "" {
			t.Fatal(code)
		}
		for i, want := range []fault.Code{"", "", fault.RateLimitExceeded} {
			if _, code := send(a, secretA); code != want {
				t.Errorf("request %d of one key: %q, want %q", i+2, code, want)
			}
		}
		for i, want := range []fault.Code{"", "", fault.IdentityUnavailable} {
			if _, code := send(b, secretB); code != want {
				t.Errorf("request %d of the other: %q, want %q", i+1, code, want)
			}
		}
		if err := verify(t, k, a, first, "/", ""); fault.CodeOf(err) != fault.InvalidSignature {
			t.Errorf("a replay while there is no room: %v", err)
		}
		time.Sleep(7 * time.Minute)
		if _, code := send(a, secretA); code != "" {
			t.Errorf("when they are forgotten: %q", code)
		}
	})
}

func TestAnyFlippedByteOfWhatIsSignedIsRefused(t *testing.T) {
	l, p := newLedger("acme"), peppers(t, pepper1)
	key, secret, _ := l.issue(t, p, auth.Key{Scopes: auth.Scopes{Signature: auth.SignatureRequired}})
	k := auth.NewKeys(options(l, p))
	runs(t, k)
	for !k.Status().Current {
		time.Sleep(time.Millisecond)
	}
	principal, err := k.Validate(t.Context(), key.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		method, path, body := "POST", "/v1/chat/completions", rapid.SliceOf(rapid.Byte()).Draw(t, "body")
		h := signedHeader(secret, time.Now(), freshNonce(), method, path, string(body))
		parts := map[string][]byte{
			"method": []byte(method), "path": []byte(path), "body": body, "timestamp": []byte(h.Get("X-HMAC-Timestamp")),
			"nonce": []byte(h.Get("X-HMAC-Nonce")), "signature": []byte(h.Get("X-HMAC-Signature")),
		}
		check := func() error {
			changed := header("X-HMAC-Signature", string(parts["signature"]), "X-HMAC-Timestamp", string(parts["timestamp"]), "X-HMAC-Nonce", string(parts["nonce"]))
			s, err := auth.ParseSignature(changed)
			if err != nil {
				return err
			}
			return k.Verify(&principal, &s, string(parts["method"]), string(parts["path"]), parts["body"])
		}
		which := rapid.SampledFrom([]string{"method", "path", "body", "timestamp", "nonce", "signature"}).Draw(t, "part")
		part := parts[which]
		if len(part) > 0 {
			at := rapid.IntRange(0, len(part)-1).Draw(t, "at")
			by := byte(1) << rapid.IntRange(0, 7).Draw(t, "bit")
			if which == "signature" && strings.EqualFold(string(part[at]), string(part[at]^by)) {
				by = 1 // Hexadecimal digits may be of either case.
			}
			part[at] ^= by
			if err := check(); fault.CodeOf(err) != fault.InvalidSignature {
				t.Fatalf("byte %d of the %s may be changed: %v", at, which, err)
			}
			part[at] ^= by
		}
		if err := check(); err != nil {
			t.Fatalf("the request itself, after a wrong one with its nonce: %v", err)
		}
		if err := check(); fault.CodeOf(err) != fault.InvalidSignature {
			t.Fatalf("its replay: %v", err)
		}
	})
}

func FuzzParseSignature(f *testing.F) {
	f.Add(strings.Repeat("ab", 32), "1700000000", "0123456789abcdef")
	f.Add(base64.StdEncoding.EncodeToString(make([]byte, 32)), "-1", "x")
	f.Add("", "", "")
	f.Fuzz(func(t *testing.T, mac, stamp, nonce string) {
		h := http.Header{}
		for name, value := range map[string]string{"X-Hmac-Signature": mac, "X-Hmac-Timestamp": stamp, "X-Hmac-Nonce": nonce} {
			if value != "" {
				h[name] = []string{value}
			}
		}
		s, err := auth.ParseSignature(h)
		switch fault.CodeOf(err) {
		case "":
			if s.Signed() != (len(h) == 3) {
				t.Fatalf("signed: %v of %v", s.Signed(), h)
			}
			if s.Signed() && (len(nonce) < 16 || len(nonce) > 64 || strings.Trim(stamp, "0123456789") != "" || len(mac) != 64 && len(mac) != 44) {
				t.Fatalf("accepted %v", h)
			}
		case fault.InvalidSignature:
			if s.Signed() {
				t.Fatal("a refusal comes with a signature")
			}
		default:
			t.Fatalf("unexpected %v", err)
		}
	})
}
