package oidc_test

import (
	"crypto"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/ai-aas/api-router/internal/auth/oidc"
	"github.com/ai-aas/api-router/internal/fault"
)

// The answer that is on its way was written before the token was signed: it does not say that there is no such key.
func TestAKeyThatCameWhileKeysWereFetchedIsNoRefusal(t *testing.T) {
	i := newIssuer(t)
	written, read := make(chan struct{}, 1), make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		old := httptest.NewRecorder()
		i.serve(old, r)
		select {
		case written <- struct{}{}:
			<-read
		default: // A later one.
		}
		_, _ = w.Write(old.Body.Bytes())
	}))
	t.Cleanup(slow.Close)
	setting := i.setting()
	setting.JWKS = slow.URL + "/keys"
	v := verifier(t, oidc.Options{Issuers: []oidc.Issuer{setting}})
	for deadline := time.Now().Add(time.Minute); len(written) == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nobody asked for the keys")
		}
	}
	next := elliptical(t)
	i.rotate(map[string]crypto.Signer{"e2": next})
	token := sign(t, next, "ES256", "e2", i.usual(nil))
	verdict := make(chan error)
	go func() { _, err := v.Validate(t.Context(), token); verdict <- err }()
	time.Sleep(50 * time.Millisecond) // So that it waits for the answer. One that comes later is judged alike.
	close(read)
	if err := <-verdict; err != nil && fault.CodeOf(err) != fault.IdentityUnavailable {
		t.Errorf("%v, want identity_unavailable", err)
	}
	if _, err := v.Validate(t.Context(), token); err != nil {
		t.Errorf("when it is fetched: %v", err)
	}
}
