package auth_test

import (
	"context"
	"crypto/sha256"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/ai-aas/api-router/internal/auth"
	"github.com/ai-aas/api-router/internal/fault"
)

// asks validates a credential and gives the code of its refusal, "" when it is accepted.
func asks(t *testing.T, v auth.Validator, credential string) (auth.Principal, fault.Code) {
	t.Helper()
	p, err := v.Validate(t.Context(), credential)
	if err != nil && len(credential) > 3 && strings.Contains(err.Error(), credential) {
		t.Errorf("a refusal repeats the credential: %v", err)
	}
	if err != nil && p != (auth.Principal{}) {
		t.Errorf("a refusal comes with the principal %v", p)
	}
	return p, fault.CodeOf(err)
}

func wants(t *testing.T, v auth.Validator, credential auth.Secret, code fault.Code, when string) {
	t.Helper()
	if _, got := asks(t, v, credential.Reveal()); got != code {
		t.Errorf("%s: %q, want %q", when, got, code)
	}
}

func TestKeysAreJudgedByTheirState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, p := newLedger("acme", "closed"), peppers(t, pepper2, pepper1)
		l.organize(auth.Organization{ID: "closed", Disabled: true})
		scopes := auth.Scopes{Models: []string{"gpt-*"}, Networks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, Tags: map[string]string{"team": "a"}}
		good, _, made := l.issue(t, p, auth.Key{Project: "web", Scopes: scopes})
		older, _, _ := l.issue(t, peppers(t, pepper1), auth.Key{})
		revoked, _, _ := l.issue(t, p, auth.Key{RevokedAt: time.Now()})
		expired, _, _ := l.issue(t, p, auth.Key{ExpiresAt: time.Now()})
		ending, _, _ := l.issue(t, p, auth.Key{ExpiresAt: time.Now().Add(time.Minute)})
		closed, _, _ := l.issue(t, p, auth.Key{Organization: "closed"})
		homeless, _, _ := l.issue(t, p, auth.Key{Organization: "nobody"})
		l.put(auth.Key{ID: "imported", Organization: "acme", Digest: auth.Fingerprint("sk-of-another-service")})
		k := auth.NewKeys(options(l, p))
		wants(t, k, good, fault.IdentityUnavailable, "before it runs")
		runs(t, k)
		synctest.Wait()

		got, code := asks(t, k, good.Reveal())
		if code != "" || got.Organization != "acme" || got.Project != "web" || got.KeyID != made.ID || got.Source != "state" ||
			!got.Scopes.Model("gpt-x") || got.Scopes.Model("llama") || got.Scopes.Address(netip.MustParseAddr("11.0.0.1")) || got.Scopes.Tags["team"] != "a" {
			t.Errorf("got %+v, %q", got, code)
		}
		for when, c := range map[string]struct {
			credential string
			code       fault.Code
		}{
			"under an older pepper":    {older.Reveal(), ""},
			"ending later":             {ending.Reveal(), ""},
			"imported":                 {"sk-of-another-service", ""},
			"revoked":                  {revoked.Reveal(), fault.RevokedAPIKey},
			"expired":                  {expired.Reveal(), fault.ExpiredAPIKey},
			"of a closed organization": {closed.Reveal(), fault.OrganizationDisabled},
			"of no organization":       {homeless.Reveal(), fault.IdentityUnavailable},
			"unknown":                  {auth.NewKey().Reveal(), fault.InvalidAPIKey},
			"the id of another":        {rewrite(good.Reveal()), fault.InvalidAPIKey},
			"damaged":                  {good.Reveal()[:49] + "!", fault.InvalidAPIKey},
			"of another form":          {"sk-1", fault.InvalidAPIKey},
			"the digest itself":        {string(made.Digest[:]), fault.InvalidAPIKey},
			"empty":                    {"", fault.InvalidAPIKey},
		} {
			if _, got := asks(t, k, c.credential); got != c.code {
				t.Errorf("%s: %q, want %q", when, got, c.code)
			}
		}
		time.Sleep(time.Minute)
		wants(t, k, ending, fault.ExpiredAPIKey, "at its end")

		// Changes.
		made.RevokedAt = time.Now()
		l.put(made)
		l.organize(auth.Organization{ID: "closed"})
		l.remove("imported")
		synctest.Wait()
		wants(t, k, good, fault.RevokedAPIKey, "once revoked")
		wants(t, k, closed, "", "once its organization is open again")
		if _, code := asks(t, k, "sk-of-another-service"); code != fault.InvalidAPIKey {
			t.Errorf("a key that was deleted: %q", code)
		}
		if s := k.Status(); s.Imported != 0 || s.Keys != 7 || !s.Current {
			t.Errorf("status %+v", s)
		}
	})
}

// rewrite makes a well-formed key with the id of another.
func rewrite(key string) string {
	for {
		if other := auth.NewKey().Reveal(); other[12:44] != key[12:44] {
			return auth.WithChecksum(key[:12] + other[12:44])
		}
	}
}

func TestKnownKeysGoOnWithoutTheLedger(t *testing.T) {
	for name, hang := range map[string]bool{"refused": false, "hanging": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, p := newLedger("acme"), peppers(t, pepper1)
				known, _, made := l.issue(t, p, auth.Key{})
				gone, _, lost := l.issue(t, p, auth.Key{})
				registry := prometheus.NewRegistry()
				o := options(l, p)
				o.Metrics = registry
				k := auth.NewKeys(o)
				runs(t, k)
				synctest.Wait()
				l.fail(hang)
				synctest.Wait()
				wants(t, k, known, "", "at once")
				wants(t, k, auth.NewKey(), fault.IdentityUnavailable, "an unknown key")
				if _, code := asks(t, k, "sk-1"); code != fault.IdentityUnavailable {
					t.Errorf("an unknown key of another form: %q", code)
				}
				if _, code := asks(t, k, known.Reveal()[:49]+"!"); code != fault.InvalidAPIKey {
					t.Errorf("a damaged key: %q", code)
				}
				time.Sleep(time.Minute + time.Hour - time.Second)
				wants(t, k, known, "", "at the end of stale_if_error")
				if age := gauge(t, registry, "api_router_auth_snapshot_age_seconds"); age < 3650 || age > 3670 {
					t.Errorf("the snapshot is %v s old", age)
				}
				time.Sleep(2 * time.Second)
				wants(t, k, known, fault.IdentityUnavailable, "after it")
				if up := gauge(t, registry, "api_router_auth_ledger_up"); up != 0 {
					t.Errorf("the ledger is up: %v", up)
				}
				if hang {
					return // Who hangs for ever is the ledger's to end.
				}
				l.mu.Lock()
				delete(l.keys, lost.ID) // While nobody was told.
				made.RevokedAt = time.Now()
				revoked := made
				l.keys[made.ID] = revoked
				l.mu.Unlock()
				l.mend()
				time.Sleep(5 * time.Second)
				wants(t, k, known, fault.RevokedAPIKey, "revoked meanwhile")
				wants(t, k, gone, fault.InvalidAPIKey, "deleted meanwhile")
				if up := gauge(t, registry, "api_router_auth_ledger_up"); up != 1 || k.Status().Failure != "" {
					t.Errorf("the ledger is not up: %+v", k.Status())
				}
			})
		})
	}
}

func gauge(t *testing.T, registry *prometheus.Registry, name string) float64 {
	t.Helper()
	all, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("there is no %s", name)
	return 0
}

func TestALedgerThatIsDownIsAskedWithPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		l.fail(false)
		runs(t, auth.NewKeys(options(l, peppers(t, pepper1))))
		time.Sleep(10 * time.Minute)
		if n := l.asked(); n < 300 || n > 700 { // One to two seconds apart.
			t.Errorf("it was asked %d times in ten minutes", n)
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
		if s, err := sign(t, signing, known, "POST", "/v1/x", "body"); err != nil {
			t.Error(err)
		} else if err := verify(t, again, known, s, "POST", "/v1/x", "body"); err != nil {
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

		for at := range content { // Whatever byte of it is changed: none of it is used.
			if at%7 != 0 && at > 128 {
				continue
			}
			changed := append([]byte(nil), content...)
			changed[at] ^= 0x40
			if err := os.WriteFile(file, changed, 0o600); err != nil {
				t.Fatal(err)
			}
			if n := loaded(t, o); n != 0 {
				t.Fatalf("with byte %d changed, %d keys are taken from it", at, n)
			}
		}
		for _, cut := range []int{0, 1, 50, 96, 128, len(content) / 2, len(content) - 1} {
			if err := os.WriteFile(file, content[:cut], 0o600); err != nil {
				t.Fatal(err)
			}
			if n := loaded(t, o); n != 0 {
				t.Fatalf("cut at %d, %d keys are taken from it", cut, n)
			}
		}
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
		o.Peppers = peppers(t, "a pepper that has nothing to do with it", pepper1)
		if n := loaded(t, o); n != 0 {
			t.Errorf("under other peppers, %d keys are taken from it", n)
		}
	})
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

func TestLastUseIsToldAboutOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, p := newLedger("acme"), peppers(t, pepper1)
		key, _, made := l.issue(t, p, auth.Key{})
		idle, _, unused := l.issue(t, p, auth.Key{RevokedAt: time.Now()})
		k := auth.NewKeys(options(l, p))
		stop := runs(t, k)
		synctest.Wait()
		wants(t, k, key, "", "used")
		wants(t, k, idle, fault.RevokedAPIKey, "refused")
		at := time.Now()
		if !l.lastUse(made.ID).IsZero() {
			t.Error("the ledger is told at once")
		}
		time.Sleep(2 * time.Minute)
		if got := l.lastUse(made.ID); !got.Equal(at) {
			t.Errorf("last used %v, want %v", got, at)
		}
		if !l.lastUse(unused.ID).IsZero() {
			t.Error("a refused key counts as used")
		}
		l.failUses(errDown)
		wants(t, k, key, "", "used again")
		at = time.Now()
		time.Sleep(5 * time.Minute)
		l.failUses(nil)
		time.Sleep(2 * time.Minute)
		if got := l.lastUse(made.ID); !got.Equal(at) {
			t.Errorf("after a failure last used %v, want %v", got, at)
		}
		time.Sleep(10 * time.Second)
		wants(t, k, key, "", "used at the end")
		at = time.Now()
		stop()
		if got := l.lastUse(made.ID); !got.Equal(at) {
			t.Errorf("at the end last used %v, want %v", got, at)
		}
	})
}

func TestKeysThatCannotBeUsedAreSaidAndNotGuessed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, both := newLedger("acme"), peppers(t, pepper2, pepper1)
		newer, _, made := l.issue(t, both, auth.Key{})
		l.put(auth.Key{ID: "of-another-length", Organization: "acme", Pepper: 1})
		log := &journal{}
		o := options(l, peppers(t, pepper1))
		o.Logger = log.logger()
		k := auth.NewKeys(o)
		runs(t, k)
		synctest.Wait()
		wants(t, k, newer, fault.IdentityUnavailable, "a key of a pepper that is not there")
		if s := k.Status(); s.Unusable != 2 || !strings.Contains(log.String(), made.ID) || !strings.Contains(log.String(), "of-another-length") {
			t.Errorf("%+v, %s", s, log)
		}
	})
}

func TestAChainPassesOnOnlyWhatIsHardlyAKeyOfTheBook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, p := newLedger("acme"), peppers(t, pepper1)
		registry := prometheus.NewRegistry()
		k := auth.NewKeys(options(l, p))
		key := auth.NewKey()
		next := only{name: "next", accepts: "foreign", refuses: key.Reveal()}
		c := auth.Order(registry, auth.Named{Name: "state", Validator: k}, auth.Named{Name: "next", Validator: next})
		if _, code := asks(t, c, "foreign"); code != fault.IdentityUnavailable {
			t.Errorf("before anything is known, %q: it may have been imported", code)
		}
		runs(t, k)
		synctest.Wait()
		if got, code := asks(t, c, "foreign"); code != "" || got.Source != "next" {
			t.Errorf("%v, %q", got, code)
		}
		l.fail(false)
		synctest.Wait()
		if got, code := asks(t, c, "foreign"); code != "" || got.Source != "next" {
			t.Errorf("with the ledger away: %v, %q", got, code)
		}
		if _, code := asks(t, c, "nobody's"); code != fault.IdentityUnavailable {
			t.Errorf("what nobody knows, with the ledger away: %q", code)
		}
		wants(t, c, key, fault.IdentityUnavailable, "a key of ours that is not known, with the ledger away")
		l.put(auth.Key{ID: "imported", Organization: "acme", Digest: auth.Fingerprint("sk-1")})
		l.mend()
		time.Sleep(5 * time.Second)
		l.fail(false)
		synctest.Wait()
		if _, code := asks(t, c, "foreign"); code != fault.IdentityUnavailable {
			t.Errorf("with imported keys and the ledger away, %q: it may be one that was revoked", code)
		}
		const want = `
			# HELP api_router_auth_decisions_total Credentials that a validator was asked about: accepted; unknown to it; refused (expired, revoked, switched off); unavailable (it cannot tell now).
			# TYPE api_router_auth_decisions_total counter
			api_router_auth_decisions_total{result="accepted",validator="next"} 2
			api_router_auth_decisions_total{result="accepted",validator="state"} 0
			api_router_auth_decisions_total{result="refused",validator="next"} 0
			api_router_auth_decisions_total{result="refused",validator="state"} 0
			api_router_auth_decisions_total{result="unavailable",validator="next"} 0
			api_router_auth_decisions_total{result="unavailable",validator="state"} 5
			api_router_auth_decisions_total{result="unknown",validator="next"} 1
			api_router_auth_decisions_total{result="unknown",validator="state"} 1
		`
		if err := testutil.GatherAndCompare(registry, strings.NewReader(want), "api_router_auth_decisions_total"); err != nil {
			t.Error(err)
		}
	})
}

func TestWrongCredentialsSlowTheirAddressDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := auth.NewGuesses()
		wrong := fault.New(fault.InvalidAPIKey, "wrong")
		from, other := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("192.0.2.1")
		n := 0
		for ; fault.CodeOf(g.Wrong(from, wrong)) == fault.InvalidAPIKey; n++ {
			if n > 1000 {
				t.Fatal("no end")
			}
		}
		if n != 100 {
			t.Errorf("%d wrong ones were let be", n)
		}
		if err := fault.From(g.Wrong(netip.MustParseAddr("2001:db8::ffff"), wrong)); err.Code != fault.RateLimitExceeded || err.RetryAfter <= 0 {
			t.Errorf("a neighbour in the same /64 gets %v", err)
		}
		if err := g.Wrong(other, wrong); fault.CodeOf(err) != fault.InvalidAPIKey {
			t.Errorf("another address gets %v", err)
		}
		for _, err := range []error{nil, fault.New(fault.IdentityUnavailable, "x"), fault.New(fault.OrganizationDisabled, "x")} {
			if got := g.Wrong(from, err); fault.CodeOf(got) != fault.CodeOf(err) {
				t.Errorf("%v has become %v", err, got)
			}
		}
		time.Sleep(time.Minute)
		if err := g.Wrong(from, wrong); fault.CodeOf(err) != fault.InvalidAPIKey {
			t.Errorf("a minute later it gets %v", err)
		}
	})
}

func TestScopesSayWhatMayBeDone(t *testing.T) {
	t.Parallel()
	var none *auth.Scopes
	if !none.Model("x") || !none.Endpoint("/x") || !none.Address(netip.Addr{}) {
		t.Error("no scopes do not allow everything")
	}
	s := &auth.Scopes{
		Models: []string{"a", "b-*"}, Endpoints: []string{"/v1/embeddings"},
		Networks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("::ffff:192.0.2.0/120")},
	}
	for _, c := range []struct {
		got, want bool
		what      string
	}{
		{s.Model("a"), true, "a"},
		{s.Model("aa"), false, "aa"},
		{s.Model("b-1"), true, "b-1"},
		{s.Model("b"), false, "b"},
		{s.Model("alias", "a"), true, "an alias of a"},
		{(&auth.Scopes{Models: []string{"*"}}).Model("x"), true, "*"},
		{s.Endpoint("/v1/embeddings"), true, "embeddings"},
		{s.Endpoint("/v1/chat/completions"), false, "chat"},
		{s.Address(netip.MustParseAddr("10.1.2.3")), true, "10.1.2.3"},
		{s.Address(netip.MustParseAddr("::ffff:10.1.2.3")), true, "10.1.2.3 mapped"},
		{s.Address(netip.MustParseAddr("192.0.2.9")), true, "a mapped network"},
		{s.Address(netip.MustParseAddr("2001:db8::1%eth0")), true, "with a zone"},
		{s.Address(netip.MustParseAddr("11.0.0.1")), false, "11.0.0.1"},
		{s.Address(netip.Addr{}), false, "an unknown address"},
	} {
		if c.got != c.want {
			t.Errorf("%s: %v", c.what, c.got)
		}
	}
}

func BenchmarkKnownKey(b *testing.B) {
	l, p := newLedger("acme"), peppers(b, pepper2, pepper1)
	key, _, _ := l.issue(b, p, auth.Key{Scopes: auth.Scopes{Models: []string{"m"}}})
	for range 1000 {
		l.issue(b, p, auth.Key{})
	}
	k := auth.NewKeys(options(l, p))
	runs(b, k)
	for !k.Status().Current {
		time.Sleep(time.Millisecond)
	}
	h := header("Authorization", "Bearer "+key.Reveal())
	c := auth.Order(nil, auth.Named{Name: "state", Validator: k})
	ctx := b.Context()
	var last context.Context
	ask := func(b *testing.B) {
		credential, err := auth.Credential(h)
		if err != nil {
			b.Fatal(err)
		}
		principal, err := c.Validate(ctx, credential)
		if err != nil {
			b.Fatal(err)
		}
		last = auth.NewContext(ctx, principal)
	}
	b.Run("alone", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			ask(b)
		}
	})
	b.Run("crowd", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				credential, _ := auth.Credential(h)
				principal, err := c.Validate(ctx, credential)
				if err != nil {
					b.Error(err)
					return
				}
				_ = principal
			}
		})
	})
	_ = last
	b.Run("unknown", func(b *testing.B) {
		b.ReportAllocs()
		unknown := auth.NewKey().Reveal()
		for b.Loop() {
			if _, err := c.Validate(ctx, unknown); err == nil {
				b.Fatal("it is accepted")
			}
		}
	})
	b.Run("sha256", func(b *testing.B) { // What this machine takes for one block, to compare.
		content := []byte(key.Reveal())
		for b.Loop() {
			_ = sha256.Sum256(content)
		}
	})
}
