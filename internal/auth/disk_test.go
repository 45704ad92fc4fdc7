package auth_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ai-aas/api-router/internal/auth"
	"github.com/ai-aas/api-router/internal/fault"
)

// A process that is killed while it writes leaves a file of the size of the snapshot, and one that is killed again and again would fill the disk.
func TestWhatAKilledProcessLeftOfASnapshotIsTakenAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		for name, age := range map[string]time.Duration{
			".keys.snapshot.123.new": time.Hour, ".keys.snapshot.456.new": 0, "keys.snapshot.1": time.Hour, ".other.789.new": time.Hour,
		} {
			path := filepath.Join(dir, name)
			if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Chtimes(path, time.Time{}, time.Now().Add(-age))); err != nil {
				t.Fatal(err)
			}
		}
		l, p := newLedger("acme"), peppers(t, pepper1)
		l.issue(t, p, auth.Key{})
		o := options(l, p)
		o.File = filepath.Join(dir, "keys.snapshot")
		stop := runs(t, auth.NewKeys(o))
		synctest.Wait()
		stop()
		var left []string
		entries, err := os.ReadDir(dir)
		for _, e := range entries {
			left = append(left, e.Name())
		}
		if want := []string{".keys.snapshot.456.new", ".other.789.new", "keys.snapshot", "keys.snapshot.1"}; err != nil || !slices.Equal(left, want) {
			t.Errorf("left are %q, %v; want %q", left, err, want)
		}
	})
}

// Where others may write, they can put there what never comes to an end.
func TestWhatIsNoFileInThePlaceOfASnapshotHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, p := newLedger("acme"), peppers(t, pepper1)
		known, _, _ := l.issue(t, p, auth.Key{})
		o := options(l, p)
		o.File = filepath.Join(t.TempDir(), "keys.snapshot")
		if err := syscall.Mkfifo(o.File, 0o600); err != nil {
			t.Fatal(err)
		}
		k := auth.NewKeys(o)
		stop := runs(t, k)
		synctest.Wait()
		wants(t, k, known, "", "after a start")
		stop()
		if info, err := os.Stat(o.File); err != nil || !info.Mode().IsRegular() {
			t.Error("no snapshot took its place:", info, err)
		}
	})
}

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

// What was taken away a moment before the ledger was lost is not given back by a start without it.
func TestASnapshotHoldsWhatWasTakenAwayJustBefore(t *testing.T) {
	for _, test := range []struct {
		name   string
		take   func(l *ledger, k auth.Key)
		lost   bool // the ledger is lost at once, before the file could be written in its turn
		want   fault.Code
		guards bool // the organization's callers of other sources are refused, too
	}{
		{"a key that was revoked", func(l *ledger, k auth.Key) { k.RevokedAt = time.Now(); l.put(k) }, false, fault.RevokedAPIKey, false},
		{"a key that was deleted", func(l *ledger, k auth.Key) { l.remove(k.ID) }, false, fault.IdentityUnavailable, false},
		{"a key whose end came nearer", func(l *ledger, k auth.Key) { k.ExpiresAt = time.Now(); l.put(k) }, false, fault.ExpiredAPIKey, false},
		{
			"an organization that was switched off", func(l *ledger, _ auth.Key) { l.organize(auth.Organization{ID: "acme", Disabled: true}) },
			false, fault.OrganizationDisabled, true,
		},
		{"a key that was revoked before the ledger was lost", func(l *ledger, k auth.Key) { k.RevokedAt = time.Now(); l.put(k) }, true, fault.RevokedAPIKey, false},
		{"a key with other scopes before the ledger was lost", func(l *ledger, k auth.Key) { k.Scopes.MaxTokens = 3; l.put(k) }, true, "", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := options(nil, peppers(t, pepper1))
				l := newLedger("acme")
				o.Ledger, o.File = l, filepath.Join(t.TempDir(), "keys.snapshot")
				key, _, made := l.issue(t, o.Peppers, auth.Key{})
				crashes := auth.NewKeys(o)
				stop := runs(t, crashes)
				time.Sleep(10 * time.Minute)
				test.take(l, made)
				if test.lost {
					synctest.Wait() // The change has arrived.
					l.fail(false)
				}
				time.Sleep(time.Second)
				content, err := os.ReadFile(o.File) // What a process that is killed leaves behind.
				if err != nil {
					t.Fatal(err)
				}
				l.fail(false)
				stop()
				if err := os.WriteFile(o.File, content, 0o600); err != nil {
					t.Fatal(err)
				}
				again := auth.NewKeys(o)
				stop = runs(t, again)
				defer stop()
				synctest.Wait()
				got, code := asks(t, again, key.Reveal())
				if code != test.want || code == "" && got.Scopes.MaxTokens != 3 {
					t.Errorf("%+v, %q, want %q", got, code, test.want)
				}
				_, err = again.Guard(auth.Development{}).Validate(t.Context(), "test-acme-1")
				if code := fault.CodeOf(err); (code == fault.OrganizationDisabled) != test.guards {
					t.Errorf("another source's caller: %v", err)
				}
			})
		})
	}
}

// A report that breaks off in the middle is of two times: the file keeps what it had.
func TestASnapshotIsNeverOfHalfAReport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, p := newLedger("acme"), peppers(t, pepper1)
		o := options(l, p)
		o.File = filepath.Join(t.TempDir(), "keys.snapshot")
		l.issue(t, p, auth.Key{})
		stop := runs(t, auth.NewKeys(o))
		time.Sleep(time.Second)
		whole, err := os.ReadFile(o.File)
		if err != nil {
			t.Fatal(err)
		}
		l.fail(false)
		time.Sleep(time.Second)
		l.issue(t, p, auth.Key{RevokedAt: time.Now()}) // Nobody hears of it yet.
		l.breakOff()
		time.Sleep(10 * time.Minute)
		stop()
		if now, err := os.ReadFile(o.File); err != nil || !bytes.Equal(now, whole) && len(now) != len(whole) {
			t.Errorf("the file has %d bytes, %d before, %v", len(now), len(whole), err)
		}
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
