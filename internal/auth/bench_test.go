package auth_test

import (
	"crypto/sha256"
	"testing"
	"time"

	"github.com/ai-aas/api-router/internal/auth"
)

// kept is where what a benchmark makes must stay, as a request's context does.
var kept any

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
	ask := func(b *testing.B) {
		credential, err := auth.Credential(h)
		if err != nil {
			b.Fatal(err)
		}
		principal, err := c.Validate(ctx, credential)
		if err != nil {
			b.Fatal(err)
		}
		kept = auth.NewContext(ctx, principal)
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
