package etcdpolicy

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/ai-aas/api-router/internal/policy"
	"github.com/ai-aas/api-router/internal/policy/sourcetest"
)

// TestBookIsASourceAndABook runs the suite that every place of documents passes. All its tests share a server: each has a prefix.
func TestBookIsASourceAndABook(t *testing.T) {
	for _, r := range releases(t) { // One after the other: the suite looks for goroutines that stay.
		t.Run(r.name, func(t *testing.T) { suite(t, newServer(t, r)) })
	}
}

func suite(t *testing.T, s *server) {
	t.Helper()
	count := 0
	sourcetest.Run(t, func(t *testing.T) sourcetest.Place {
		t.Helper()
		count++
		config := Config{Endpoints: []string{s.address}, Prefix: fmt.Sprintf("/suite-%d/", count)}
		book := open(t, config)
		return sourcetest.Place{
			Source: book, Book: book,
			Put: func(t testing.TB, kind policy.Kind, id string, content []byte) {
				key := config.Prefix + kind.Collection() + "/" + id
				if content == nil {
					s.remove(t, key)
				} else {
					s.put(t, key, string(content))
				}
			},
			Second: func(t testing.TB) (policy.Source, policy.Book) { b := open(t, config); return b, b },
			Stop:   s.kill,
			Start: func(t testing.TB) {
				s.start(t)
				ctx, cancel := context.WithTimeout(context.Background(), hang)
				defer cancel()
				begun := time.Now()
				if err := book.Wait(ctx); err != nil {
					t.Error(err)
				}
				t.Log("etcd answers", time.Since(begun), "after its port is open")
			},
		}
	})
}
