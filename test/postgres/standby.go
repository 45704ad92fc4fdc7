package postgres

import (
	"cmp"
	"context"
	"net"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/ai-aas/api-router/test/ports"
)

// Standby starts a server that follows this one, and is read-only until it is promoted. It ends with the test. address is where it finds this
// server: a relay before it can hold it back; "" is the server itself.
func (s *Server) Standby(t testing.TB, address string) *Server {
	t.Helper()
	other := &Server{bin: s.bin, as: s.as}
	t.Cleanup(other.remove)
	if err := other.directory(); err != nil {
		t.Fatal(err)
	}
	host, port, err := net.SplitHostPort(cmp.Or(address, s.Address))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), slow)
	defer cancel()
	copied := other.command(ctx, "pg_basebackup", "--pgdata="+other.data(), "--host="+host, "--port="+port, "--username="+User, "--write-recovery-conf",
		"--wal-method=stream", "--checkpoint=fast", "--no-sync")
	if out, err := copied.CombinedOutput(); err != nil {
		t.Fatalf("pg_basebackup: %v: %s", err, out)
	}
	if other.Address, other.release, err = ports.Reserve(); err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	return other
}

// Promote makes a standby the primary, of a timeline of its own. Whoever was it before should be dead.
func (s *Server) Promote(t testing.TB) {
	t.Helper()
	s.Exec(t, "postgres", "SELECT pg_promote()")
}

// Both is the URL of a database at either of two servers, without the password.
func Both(first, second *Server, database string) string {
	return first.URL(database, first.Address+","+second.Address)
}

// CaughtUp waits until the standby of this server has everything.
func (s *Server) CaughtUp(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), slow)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.url("postgres", true))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	for {
		var all bool
		err := conn.QueryRow(ctx, "SELECT count(*) > 0 FROM pg_stat_replication WHERE replay_lsn = pg_current_wal_lsn()").Scan(&all)
		if err != nil {
			t.Fatalf("the standby has not caught up: %v", err)
		}
		if all {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}
