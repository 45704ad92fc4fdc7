package auth_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/ai-aas/api-router/internal/auth"
	"github.com/ai-aas/api-router/internal/fault"
)

// remote is a validator that asks elsewhere, which takes a while.
type remote struct {
	mu     sync.Mutex
	takes  time.Duration
	answer func(credential string) (auth.Principal, error)
	asked  atomic.Int64
}

func (r *remote) Validate(ctx context.Context, credential string) (auth.Principal, error) {
	r.asked.Add(1)
	r.mu.Lock()
	takes, answer := r.takes, r.answer
	r.mu.Unlock()
	select {
	case <-time.After(takes):
		return answer(credential)
	case <-ctx.Done():
		return auth.Principal{}, ctx.Err()
	}
}

func (r *remote) set(takes time.Duration, answer func(string) (auth.Principal, error)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.takes, r.answer = takes, answer
}

func accepts(credential string) (auth.Principal, error) {
	return auth.Principal{Organization: "acme", KeyID: credential, Source: "remote"}, nil
}

func refuses(code fault.Code) func(string) (auth.Principal, error) {
	return func(string) (auth.Principal, error) { return auth.Principal{}, fault.New(code, "no") }
}

func fails(string) (auth.Principal, error) { return auth.Principal{}, errors.New("connection reset") }

var cacheOptions = auth.CacheOptions{TTL: time.Minute, NegativeTTL: 5 * time.Second, StaleIfError: time.Hour, Timeout: 2 * time.Second, Size: 100}

func TestACacheRemembersWhatItWasTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &remote{takes: 10 * time.Millisecond, answer: accepts}
		c := auth.Cached(r, cacheOptions)
		step := func(what, credential string, code fault.Code, asked int64) {
			t.Helper()
			before := r.asked.Load()
			p, got := asks(t, c, credential)
			if got != code || got == "" && p.KeyID != credential {
				t.Errorf("%s: %v, %q, want %q", what, p, got, code)
			}
			synctest.Wait()
			if n := r.asked.Load() - before; n != asked {
				t.Errorf("%s: asked %d times, want %d", what, n, asked)
			}
		}
		step("the first time", "k1", "", 1)
		step("again", "k1", "", 0)
		time.Sleep(59 * time.Second)
		step("within the TTL", "k1", "", 0)
		time.Sleep(2 * time.Second)
		step("after it", "k1", "", 1)
		r.set(0, refuses(fault.RevokedAPIKey))
		step("revoked, within the TTL", "k1", "", 0)
		time.Sleep(time.Minute)
		step("revoked", "k1", fault.RevokedAPIKey, 1)
		r.set(0, accepts)
		step("refused within the negative TTL", "k1", fault.RevokedAPIKey, 0)
		time.Sleep(6 * time.Second)
		step("accepted again", "k1", "", 1)

		r.set(0, fails)
		step("unknown, and nobody answers", "k2", fault.IdentityUnavailable, 1)
		step("unknown, and nobody answers still", "k2", fault.IdentityUnavailable, 1)
		time.Sleep(time.Minute)
		step("stale, the first time", "k1", "", 1)
		step("stale, at once again", "k1", "", 0)
		r.set(time.Hour, fails)
		time.Sleep(2 * time.Second)
		before := time.Now()
		step("stale, and it hangs", "k1", "", 1)
		if waited := time.Since(before); waited != 0 {
			t.Errorf("a stale credential waited for %v", waited)
		}
		time.Sleep(10 * time.Second)
		r.set(0, refuses(fault.RevokedAPIKey))
		step("stale, and it answers again", "k1", "", 1)
		step("revoked meanwhile", "k1", fault.RevokedAPIKey, 0)

		r.set(0, accepts)
		step("another", "k3", "", 1)
		r.set(0, fails)
		time.Sleep(time.Minute + time.Hour + time.Second)
		step("past stale_if_error", "k3", fault.IdentityUnavailable, 1)
		r.set(0, refuses(fault.IdentityUnavailable))
		step("and still", "k3", fault.IdentityUnavailable, 1)
	})
}

func TestACacheServesNoCredentialPastItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		end := time.Now().Add(10 * time.Second)
		r := &remote{answer: func(string) (auth.Principal, error) { return auth.Principal{KeyID: "k", ExpiresAt: end}, nil }}
		c := auth.Cached(r, cacheOptions)
		if _, code := asks(t, c, "k"); code != "" {
			t.Fatal(code)
		}
		time.Sleep(10 * time.Second)
		if _, code := asks(t, c, "k"); code != fault.ExpiredAPIKey || r.asked.Load() != 2 {
			t.Errorf("%q after %d questions", code, r.asked.Load())
		}
		end = time.Now().Add(10 * time.Second)
		time.Sleep(6 * time.Second)
		if _, code := asks(t, c, "k"); code != "" {
			t.Fatal(code)
		}
		time.Sleep(10 * time.Second)
		r.set(0, fails)
		if _, code := asks(t, c, "k"); code != fault.IdentityUnavailable {
			t.Errorf("past its end, with nobody to ask: %q", code)
		}
	})
}

func TestAskersOfOneCredentialShareAQuestionAndWaitAsLongAsTheyCan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &remote{takes: time.Second, answer: accepts}
		c := auth.Cached(r, cacheOptions)
		began := time.Now()
		var all sync.WaitGroup
		ask := func(within, want time.Duration, code fault.Code, cancel bool) {
			all.Go(func() {
				ctx, end := context.WithTimeout(context.Background(), within)
				if cancel {
					ctx, end = context.WithCancel(context.Background())
					time.AfterFunc(within, end)
				}
				defer end()
				_, err := c.Validate(ctx, "k")
				if got := time.Since(began); fault.CodeOf(err) != code || got != want {
					t.Errorf("within %v: %v after %v, want %q after %v", within, err, got, code, want)
				}
			})
		}
		ask(100*time.Millisecond, 100*time.Millisecond, fault.IdentityUnavailable, false) // Mostly the first: the others have their answer all the same.
		synctest.Wait()
		ask(200*time.Millisecond, 200*time.Millisecond, fault.ClientClosed, true)
		for range 50 {
			ask(time.Minute, time.Second, "", false)
		}
		all.Wait()
		if n := r.asked.Load(); n != 1 {
			t.Errorf("asked %d times", n)
		}
		r.set(time.Hour, accepts)
		began = time.Now()
		if _, err := c.Validate(t.Context(), "other"); fault.CodeOf(err) != fault.IdentityUnavailable || time.Since(began) != 2*time.Second {
			t.Errorf("a question without an end: %v after %v", err, time.Since(began))
		}
	})
}

func TestAPanicOfTheValidatorIsNoAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &remote{answer: func(string) (auth.Principal, error) { panic("a bug") }}
		if _, code := asks(t, auth.Cached(r, cacheOptions), "k"); code != fault.IdentityUnavailable {
			t.Errorf("got %q", code)
		}
	})
}

// TestACacheNeverExceedsItsSize asks for random credentials in random states: what it remembers is bounded, and what it says was said to it.
func TestACacheNeverExceedsItsSize(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		size := rapid.IntRange(1, 8).Draw(rt, "size")
		o := cacheOptions
		o.Size = size
		r := &remote{answer: func(credential string) (auth.Principal, error) {
			if credential[0]%3 == 0 {
				return auth.Principal{}, fault.New(fault.InvalidAPIKey, "no")
			}
			return accepts(credential)
		}}
		c := auth.Cached(r, o)
		for _, n := range rapid.SliceOfN(rapid.IntRange(0, 20), 1, 60).Draw(rt, "credentials") {
			credential := fmt.Sprintf("%c-%d", 'a'+n, n)
			p, err := c.Validate(context.Background(), credential)
			if refused := credential[0]%3 == 0; refused != (err != nil) || !refused && p.KeyID != credential {
				rt.Fatalf("%s: %v, %v", credential, p, err)
			}
			if n := auth.Remembered(c); n > size {
				rt.Fatalf("%d are remembered, and %d may be", n, size)
			}
		}
	})
}

func TestAFloodOfWrongCredentialsForgetsNoRightOne(t *testing.T) {
	r := &remote{answer: accepts}
	c := auth.Cached(r, cacheOptions)
	for i := range cacheOptions.Size / 2 {
		_, _ = asks(t, c, fmt.Sprintf("right-%d", i))
	}
	r.set(0, refuses(fault.InvalidAPIKey))
	for i := range 5 * cacheOptions.Size {
		if _, got := asks(t, c, fmt.Sprintf("wrong-%d", i)); got != fault.InvalidAPIKey {
			t.Fatalf("a wrong credential: %q", got)
		}
	}
	r.set(0, fails)
	for i := range cacheOptions.Size / 2 {
		if p, got := asks(t, c, fmt.Sprintf("right-%d", i)); got != "" {
			t.Fatalf("right-%d was forgotten: %v, %q", i, p, got)
		}
	}
	if n := auth.Remembered(c); n > cacheOptions.Size {
		t.Errorf("%d are remembered, and %d may be", n, cacheOptions.Size)
	}
}

// TestQuestionsAreBounded sends more credentials than may be asked about at once, whose senders have left.
func TestQuestionsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &remote{takes: time.Second, answer: accepts}
		c := auth.Cached(r, cacheOptions)
		left, leave := context.WithCancel(t.Context())
		leave()
		for i := range 10_000 {
			_, _ = c.Validate(left, fmt.Sprintf("flood-%d", i))
		}
		if _, got := asks(t, c, "one-more"); got != fault.IdentityUnavailable {
			t.Errorf("beyond the bound: %q, want %q", got, fault.IdentityUnavailable)
		}
		synctest.Wait()
		if n := r.asked.Load(); n > 1<<12 {
			t.Errorf("%d were asked about, and at most %d may be at once", n, 1<<12)
		}
		time.Sleep(2 * time.Second)
		if p, got := asks(t, c, "one-more"); got != "" || p.KeyID != "one-more" {
			t.Errorf("after the flood: %v, %q", p, got)
		}
	})
}

// TestAFloodKeepsNoRevocationFromBeingLearned has a validator with room for 64 at once, as the one of a user-org-service, and slow strangers in it.
func TestAFloodKeepsNoRevocationFromBeingLearned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &remote{answer: accepts}
		room := make(chan struct{}, 64)
		c := auth.Cached(validatorFunc(func(ctx context.Context, credential string) (auth.Principal, error) {
			select {
			case room <- struct{}{}:
				defer func() { <-room }()
				return r.Validate(ctx, credential)
			case <-ctx.Done():
				return auth.Principal{}, ctx.Err()
			}
		}), cacheOptions)
		if _, got := asks(t, c, "mine"); got != "" {
			t.Fatalf("before: %q", got)
		}
		time.Sleep(cacheOptions.TTL)
		r.set(cacheOptions.Timeout-time.Millisecond, refuses(fault.RevokedAPIKey))
		left, leave := context.WithCancel(t.Context())
		leave()
		for i := range 1000 {
			_, _ = c.Validate(left, fmt.Sprintf("flood-%d", i))
		}
		synctest.Wait()
		if _, got := asks(t, c, "mine"); got != fault.RevokedAPIKey {
			t.Errorf("a revoked key in a flood: %q, want %q", got, fault.RevokedAPIKey)
		}
		time.Sleep(2 * cacheOptions.Timeout)
	})
}

func TestWhatNobodyIsAskedAboutWaitsForNoFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := cacheOptions
		o.Pass = func(credential string) bool { return credential == "eyJ" }
		c := auth.Cached(validatorFunc(func(ctx context.Context, credential string) (auth.Principal, error) {
			if credential != "eyJ" {
				<-ctx.Done()
			}
			return auth.Principal{}, fault.New(fault.InvalidAPIKey, "no")
		}), o)
		left, leave := context.WithCancel(t.Context())
		leave()
		for i := range 5000 {
			_, _ = c.Validate(left, fmt.Sprintf("flood-%d", i))
		}
		began := time.Now()
		if _, got := asks(t, c, "eyJ"); got != fault.InvalidAPIKey || time.Since(began) > 0 || auth.Remembered(c) != 0 {
			t.Errorf("%q after %s, with %d remembered", got, time.Since(began), auth.Remembered(c))
		}
		time.Sleep(2 * cacheOptions.Timeout)
	})
}

type validatorFunc func(context.Context, string) (auth.Principal, error)

func (f validatorFunc) Validate(ctx context.Context, credential string) (auth.Principal, error) {
	return f(ctx, credential)
}

func BenchmarkCachedHit(b *testing.B) {
	c := auth.Cached(&remote{answer: accepts}, cacheOptions)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Validate(b.Context(), "a-credential-of-some-length-such-as-they-have"); err != nil {
			b.Fatal(err)
		}
	}
}
