package state

import (
	"context"
	"log/slog"
	"os"
	"runtime"
	"strconv"
	"testing"

	"github.com/ai-aas/api-router/internal/auth"
	"github.com/ai-aas/api-router/test/postgres"
)

// BenchmarkFollow loads as many keys as API_ROUTER_BENCH_KEYS says (100,000) from both databases. What stands for a key
// while it is given is not kept.
func BenchmarkFollow(b *testing.B) {
	count := 100_000
	if n, err := strconv.Atoi(os.Getenv("API_ROUTER_BENCH_KEYS")); err == nil {
		count = n
	}
	logger := slog.New(slog.DiscardHandler)
	b.Run("SQLite", func(b *testing.B) {
		benchmarkFollow(b, Options{URL: "sqlite:" + b.TempDir() + "/state.db", Logger: logger}, count, "randomblob(32)")
	})
	b.Run("PostgreSQL", func(b *testing.B) {
		server := postgres.Shared(b)
		b.Setenv("PGPASSWORD", postgres.Password)
		benchmarkFollow(b, Options{URL: server.URL(server.Database(b), ""), Logger: logger}, count, "sha256(CAST(CAST(i AS TEXT) AS BYTEA))")
	})
}

func benchmarkFollow(b *testing.B, place Options, count int, digest string) {
	book := withKeys(b, place)
	_, err := book.Organization(waits(b), "acme") // Until it is open.
	must(b, err)
	db, _, _ := book.current()
	must(b, db.write(b.Context(), func(tx tx) error { // It takes longer than a call may.
		last, err := tick(b.Context(), tx, clockIdentity, count)
		if err != nil {
			return err
		}
		return tx.exec(b.Context(), "INSERT INTO api_key ("+keyColumns+`) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < $1)
			SELECT substr(CAST(10000000 + i AS TEXT), 1, 8), 'acme', '', 'a key', '{"models":["gpt-*"]}', `+digest+`, 1, 0, null, 0, 0, '', 1, 'alex', $2 + i FROM n`,
			count, last-int64(count))
	}))
	var peak uint64
	for b.Loop() {
		ctx, cancel := context.WithCancel(b.Context())
		given := 0
		_ = book.Follow(ctx, func(c auth.Change) {
			if given++; given%50_000 == 0 {
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				peak = max(peak, m.HeapInuse)
			}
		}, cancel) // It ends by cancel.
		if given < count {
			b.Fatalf("%d were given", given)
		}
	}
	b.ReportMetric(float64(peak>>20), "heap-MiB")
}
