package auth_test

import (
	"net/netip"
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
		older := peppers(t, pepper1)
		broken, _, damaged := l.issue(t, older, auth.Key{})
		l.damage(damaged.ID)
		later, _, damagedLater := l.issue(t, older, auth.Key{})
		well, _, _ := l.issue(t, older, auth.Key{})
		exchanged, _, foreign := l.issue(t, peppers(t, pepper2), auth.Key{}) // Version 1, too.
		unmarked, _, old := l.issue(t, peppers(t, pepper2), auth.Key{})
		old.PepperMark = 0 // As it was kept before there were marks.
		l.put(old)
		log := &journal{}
		o := options(l, peppers(t, pepper1))
		o.Logger = log.logger()
		k := auth.NewKeys(o)
		runs(t, k)
		synctest.Wait()
		wants(t, k, newer, fault.IdentityUnavailable, "a key of a pepper that is not there")
		wants(t, k, broken, fault.IdentityUnavailable, "a key that cannot be read")
		wants(t, k, later, "", "a key that can be read still")
		l.damage(damagedLater.ID)
		synctest.Wait()
		wants(t, k, later, fault.IdentityUnavailable, "a key that cannot be read any more")
		wants(t, k, well, "", "a key beside those")
		wants(t, k, exchanged, fault.IdentityUnavailable, "a key of another pepper in the place of its own")
		wants(t, k, unmarked, fault.InvalidAPIKey, "a key of which that cannot be told")
		if !strings.Contains(log.String(), foreign.ID) || !strings.Contains(log.String(), "another pepper") {
			t.Errorf("%s", log)
		}
		if s := k.Status(); s.Unusable != 5 || !strings.Contains(log.String(), damaged.ID) || !strings.Contains(log.String(), made.ID) || !strings.Contains(log.String(), "of-another-length") {
			t.Errorf("%+v, %s", s, log)
		}

		// What an operator does about them counts, and what is said of one again counts once.
		l.put(old)
		l.damage(damaged.ID)
		made.RevokedAt, foreign.RevokedAt = time.Now(), time.Now()
		l.put(made)
		l.put(foreign)
		synctest.Wait()
		if s := k.Status(); s.Unusable != 3 {
			t.Errorf("after two were revoked: %+v, want 3 that cannot be used", s)
		}
		wants(t, k, exchanged, fault.InvalidAPIKey, "a key that was revoked, of another pepper")
		for _, id := range []string{damaged.ID, damagedLater.ID, "of-another-length"} {
			l.remove(id)
		}
		synctest.Wait()
		if s := k.Status(); s.Unusable != 0 {
			t.Errorf("after the others were deleted: %+v, want none that cannot be used", s)
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
		if _, code := asks(t, auth.Chain(k, only{name: "tokens", accepts: "eyJ.e.s"}), "eyJ.e.s"); code != "" {
			t.Errorf("a signed token before anything is known: %q, and it is another's to judge", code)
		}
		if _, code := asks(t, auth.Chain(k, auth.Development{}), "test-vllm-key"); code != "" {
			t.Errorf("a development key before anything is known: %q, and anybody can make one up", code)
		}
		if _, code := asks(t, auth.Chain(k, only{name: "next", accepts: "foreign"}), "test-vllm-key"); code != fault.IdentityUnavailable {
			t.Errorf("a development key that nobody takes, before anything is known: %q", code)
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
