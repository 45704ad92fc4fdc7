package auth_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ai-aas/api-router/internal/auth"
	"github.com/ai-aas/api-router/internal/fault"
)

func TestASnapshotServesAStartWithoutTheLedger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "keys.snapshot")
		l, p := newLedger("acme", "closed"), peppers(t, pepper2, pepper1)
		l.organize(auth.Organization{ID: "closed", Disabled: true})
		known, signing, _ := l.issue(t, p, auth.Key{Project: "web", Scopes: auth.Scopes{Signature: auth.SignatureOptional, MaxTokens: 7}})
		revoked, _, _ := l.issue(t, p, auth.Key{RevokedAt: time.Now()})
		closed, _, _ := l.issue(t, p, auth.Key{Organization: "closed"})
		l.put(auth.Key{ID: "imported", Organization: "acme", Digest: auth.Fingerprint("sk-1")})
		o := options(l, p)
		o.File = file
		first := auth.NewKeys(o)
		stop := runs(t, first)
		synctest.Wait()
		time.Sleep(30 * time.Minute) // The file is confirmed all the while.
		stop()

		info, err := os.Stat(file)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Fatalf("the file is %v, %v", info, err)
		}
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range []string{known.Reveal()[12:], signing.Reveal()[4:], pepper1, pepper2} {
			if strings.Contains(string(content), secret) {
				t.Error("the file holds a secret")
			}
		}
		l.fail(false)
		again := auth.NewKeys(o)
		stop = runs(t, again)
		synctest.Wait()
		if got, code := asks(t, again, known.Reveal()); code != "" || got.Project != "web" || got.Scopes.MaxTokens != 7 {
			t.Errorf("got %+v, %q", got, code)
		}
		wants(t, again, revoked, fault.RevokedAPIKey, "revoked")
		wants(t, again, closed, fault.OrganizationDisabled, "closed")
		wants(t, again, auth.NewKey(), fault.IdentityUnavailable, "unknown")
		if _, code := asks(t, again, "sk-1"); code != "" {
			t.Errorf("imported: %q", code)
		}
		if s, err := sign(t, signing, "/v1/x", "body"); err != nil {
			t.Error(err)
		} else if err := verify(t, again, known, s, "/v1/x", "body"); err != nil {
			t.Errorf("a signature after a start from the file: %v", err)
		}
		time.Sleep(time.Hour + 2*time.Minute)
		wants(t, again, known, fault.IdentityUnavailable, "when the file is too old")
		stop()
		again = auth.NewKeys(o) // Its age counts from when it was confirmed, not from the start.
		stop = runs(t, again)
		synctest.Wait()
		wants(t, again, known, fault.IdentityUnavailable, "after another start")
		stop()

		damage(t, o, content)
	})
}

// damage changes and cuts the file in many places: whatever it is, none of it is used.
func damage(t *testing.T, o auth.KeysOptions, content []byte) {
	t.Helper()
	for at := range content {
		if at%7 != 0 && at > 128 {
			continue
		}
		changed := append([]byte(nil), content...)
		changed[at] ^= 0x40
		if err := os.WriteFile(o.File, changed, 0o600); err != nil {
			t.Fatal(err)
		}
		if n := loaded(t, o); n != 0 {
			t.Fatalf("with byte %d changed, %d keys are taken from it", at, n)
		}
	}
	for _, cut := range []int{0, 1, 50, 96, 128, len(content) / 2, len(content) - 1} {
		if err := os.WriteFile(o.File, content[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		if n := loaded(t, o); n != 0 {
			t.Fatalf("cut at %d, %d keys are taken from it", cut, n)
		}
	}
	if err := os.WriteFile(o.File, content, 0o600); err != nil {
		t.Fatal(err)
	}
	o.Peppers = peppers(t, "a pepper that has nothing to do with it", pepper1)
	if n := loaded(t, o); n != 0 {
		t.Errorf("under other peppers, %d keys are taken from it", n)
	}
}

// loaded is how many keys a start with a dead ledger takes from the file.
func loaded(t *testing.T, o auth.KeysOptions) int64 {
	t.Helper()
	k := auth.NewKeys(o)
	stop := runs(t, k)
	synctest.Wait()
	defer stop()
	return k.Status().Keys
}
