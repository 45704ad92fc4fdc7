package auth_test

import (
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ai-aas/api-router/internal/auth"
	"github.com/ai-aas/api-router/internal/fault"
)

// pair is one book as two processes see it, each by a ledger of its own, which keep their snapshots in one file.
type pair struct {
	t       *testing.T
	file    string
	peppers auth.Peppers
	ledgers [2]*ledger
	stops   [2]func()
	key     auth.Secret
	made    auth.Key
}

// share starts both, with one key, and lets ten minutes go by.
func share(t *testing.T) *pair {
	t.Helper()
	p := &pair{t: t, file: filepath.Join(t.TempDir(), "keys.snapshot"), peppers: peppers(t, pepper1), ledgers: [2]*ledger{newLedger("acme"), newLedger("acme")}}
	p.key, _, p.made = p.ledgers[0].issue(t, p.peppers, auth.Key{})
	p.ledgers[1].put(p.made)
	for i, l := range p.ledgers {
		p.stops[i] = runs(t, auth.NewKeys(p.options(l)))
		synctest.Wait()
	}
	time.Sleep(10 * time.Minute)
	return p
}

func (p *pair) options(l *ledger) auth.KeysOptions {
	o := options(l, p.peppers)
	o.File, o.Book = p.file, "the book"
	return o
}

// revoked is the key as the book has it after its revocation.
func (p *pair) revoked() auth.Key {
	k := p.made
	k.RevokedAt = time.Now()
	return k
}

// starts is what a start without the ledger says of the key. o may be of another book.
func (p *pair) starts(o auth.KeysOptions) fault.Code {
	p.t.Helper()
	l := newLedger()
	l.fail(false)
	o.Ledger = l
	k := auth.NewKeys(o)
	stop := runs(p.t, k)
	defer stop()
	synctest.Wait()
	_, code := asks(p.t, k, p.key.Reveal())
	return code
}

func (p *pair) read() []byte {
	p.t.Helper()
	content, err := os.ReadFile(p.file)
	if err != nil {
		p.t.Fatal(err)
	}
	return content
}

// put puts back what a process that is gone has written before.
func (p *pair) put(content []byte) {
	p.t.Helper()
	if err := os.WriteFile(p.file, content, 0o600); err != nil {
		p.t.Fatal(err)
	}
}

func TestOfTwoProcessesWithOneSnapshotTheOneThatHeardMoreStays(t *testing.T) {
	for name, later := range map[string]time.Duration{"at once": time.Second, "in a while": time.Hour} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := share(t)
				p.ledgers[0].put(auth.Key{ID: "imported", Organization: "acme", Digest: auth.Fingerprint("sk-1")})
				p.ledgers[0].put(p.revoked())
				time.Sleep(time.Second)
				p.ledgers[1].put(auth.Key{ID: "imported", Organization: "acme", Digest: auth.Fingerprint("sk-1")})
				synctest.Wait()
				p.ledgers[1].fail(false) // It never hears of the revocation.
				time.Sleep(later)
				p.stops[1]()
				if code := p.starts(p.options(nil)); code != fault.RevokedAPIKey {
					t.Errorf("a start says %q", code)
				}
				p.stops[0]()
				if code := p.starts(p.options(nil)); code != fault.RevokedAPIKey {
					t.Errorf("a start says %q", code)
				}
			})
		})
	}
}

// What another process left that had heard less is not vouched for as if it were one's own.
func TestASnapshotOfAnotherProcessIsNotConfirmedUnlessItIsAsNew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := share(t)
		p.stops[1]()
		old := p.read()
		p.ledgers[0].put(p.revoked())
		time.Sleep(10 * time.Minute)
		p.put(old)
		time.Sleep(2 * time.Minute)
		if code := p.starts(p.options(nil)); code != fault.RevokedAPIKey {
			t.Errorf("a start says %q", code)
		}
		p.stops[0]()
	})
}

func TestTwoProcessesThatHeardTheSameLeaveTheFileToOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := share(t)
		before, err := os.Stat(p.file)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(12 * time.Hour) // Longer than what a file says may be trusted.
		if now, err := os.Stat(p.file); err != nil || !os.SameFile(before, now) {
			t.Error("it was written anew and again", err)
		}
		p.stops[0]()
		p.stops[1]()
		if code := p.starts(p.options(nil)); code != "" {
			t.Errorf("a start says %q", code)
		}
	})
}

// After a failover the book may lack what it had, and its clock stands lower than it did.
func TestABookThatWentBackTakesThePlaceOfWhatWasHeardBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := share(t)
		for range 5 {
			p.ledgers[0].put(p.made)
			p.ledgers[1].put(p.made)
		}
		dir := filepath.Dir(p.file)
		away := func(from, to string) {
			if err := os.Rename(from, to); err != nil {
				t.Fatal(err)
			}
		}
		away(dir, dir+".away") // They have something to write still when they end.
		p.ledgers[0].fail(false)
		p.ledgers[1].fail(false)
		time.Sleep(time.Second)
		away(dir+".away", dir)
		time.Sleep(20 * time.Second)
		back := newLedger("acme")
		back.put(p.revoked())
		stop := runs(t, auth.NewKeys(p.options(back)))
		time.Sleep(time.Second)
		if code := p.starts(p.options(nil)); code != fault.RevokedAPIKey {
			t.Errorf("a start says %q", code)
		}
		stop()
		p.stops[0]()
		p.stops[1]()
		if code := p.starts(p.options(nil)); code != fault.RevokedAPIKey {
			t.Errorf("when those that were cut off have ended, a start says %q", code)
		}
	})
}

// A process that is gone may have heard what a book that went back does not have any more, and its clock may have been wrong. It says nothing more, and
// nobody else would ever hear as much.
func TestASnapshotBehindWhichNobodyStandsIsReplacedByWhoFollowsTheBook(t *testing.T) {
	for name, ahead := range map[string]time.Duration{"it was confirmed just before": 0, "a clock was ahead": 365 * 24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := share(t)
				p.stops[1]()
				of := auth.NewKeys(p.options(nil))
				foreign := p.read()
				p.ledgers[0].put(p.revoked())
				synctest.Wait()
				time.Sleep(time.Second)
				p.put(of.Stamped(foreign, time.Now().Add(ahead), 1000))
				time.Sleep(15 * time.Minute)
				if code := p.starts(p.options(nil)); code != fault.RevokedAPIKey {
					t.Errorf("a start says %q", code)
				}
				p.stops[0]()
			})
		})
	}
}

func TestASnapshotOfAnotherBookIsNotUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := share(t)
		other := p.options(nil)
		other.Book = "another book"
		if code := p.starts(other); code != fault.IdentityUnavailable {
			t.Errorf("a start says %q", code)
		}
		p.stops[0]()
		p.stops[1]()
	})
}

func TestASnapshotOfTheEarlierVersionIsReadAndReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := share(t)
		p.stops[1]()
		earlier := auth.NewKeys(p.options(nil)).Earlier(p.read())
		p.put(earlier)
		if code := p.starts(p.options(nil)); code != "" {
			t.Errorf("a start says %q", code)
		}
		time.Sleep(2 * time.Minute)
		if now := p.read(); string(now[:8]) == string(earlier[:8]) {
			t.Error("it is there still")
		}
		p.put(earlier)
		p.stops[0]()
		for at := range earlier {
			changed := append([]byte(nil), earlier...)
			changed[at] ^= 0x40
			p.put(changed)
			if code := p.starts(p.options(nil)); code != fault.IdentityUnavailable {
				t.Fatalf("with byte %d changed, a start says %q", at, code)
			}
		}
	})
}
