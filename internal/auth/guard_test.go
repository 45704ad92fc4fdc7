package auth_test

import (
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ai-aas/api-router/internal/auth"
	"github.com/ai-aas/api-router/internal/fault"
)

func TestAnOrganizationThatIsSwitchedOffIsSoForAllOfItsCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger("acme")
		l.organize(auth.Organization{ID: "closed", Disabled: true})
		k := auth.NewKeys(options(l, peppers(t, pepper1)))
		v := auth.Chain(k, k.Guard(auth.Development{}))
		runs(t, k)
		synctest.Wait()
		for credential, want := range map[string]fault.Code{
			"test-acme-1": "", "test-closed-1": fault.OrganizationDisabled, "test-stranger-1": "", "sk-1": fault.InvalidAPIKey,
		} {
			if _, got := asks(t, v, credential); got != want {
				t.Errorf("%s: %q, want %q", credential, got, want)
			}
		}
		l.fail(false) // What was known goes on.
		synctest.Wait()
		if _, got := asks(t, v, "test-closed-1"); got == "" {
			t.Error("while the ledger is away, an organization that is switched off is let in")
		}
		l.organize(auth.Organization{ID: "closed"})
		l.mend()
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if _, got := asks(t, v, "test-closed-1"); got != "" {
			t.Errorf("once it is open again: %q", got)
		}
	})
}

// Deleting refuses one that is switched off; whoever was away meanwhile has not heard that it was switched on before.
func TestAnOrganizationThatWasDeletedIsNotSwitchedOffForGood(t *testing.T) {
	for name, away := range map[string]bool{"followed": false, "away meanwhile": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLedger("acme")
				l.organize(auth.Organization{ID: "closed", Disabled: true})
				o := options(l, peppers(t, pepper1))
				o.File = filepath.Join(t.TempDir(), "keys.snapshot")
				first := auth.NewKeys(o)
				stop := runs(t, first)
				time.Sleep(time.Second)
				if away {
					l.fail(false)
					synctest.Wait()
				}
				l.disband("closed")
				l.mend()
				time.Sleep(5 * time.Second)
				if _, got := asks(t, first.Guard(auth.Development{}), "test-closed-1"); got != "" {
					t.Errorf("in the process that knew it: %q", got)
				}
				stop()
				l.fail(false)
				second := auth.NewKeys(o) // From the file alone.
				stop = runs(t, second)
				defer stop()
				synctest.Wait()
				if _, got := asks(t, second.Guard(auth.Development{}), "test-closed-1"); got != "" {
					t.Errorf("after another start: %q", got)
				}
			})
		})
	}
}
