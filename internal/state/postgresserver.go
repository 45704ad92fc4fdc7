package state

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"

	"github.com/jackc/pgx/v5/pgconn"
)

// server is which server answers. Copies of one database, a primary and its standbys, are one system; a standby that is promoted begins a new
// timeline of it, of a higher number.
type server struct {
	system   string
	timeline uint64
}

var (
	errStandby = errors.New("it is a standby")
	errBefore  = errors.New("it was the primary of before a failover, and lacks what was changed since")
	errAnother = errors.New("another server answers now")
)

// newest is the server whose book was served last, or that was seen to have taken its place. Hosts of before a failover may come back and take changes, without knowing of it.
type newest struct {
	mu   sync.Mutex
	seen server
}

// meet takes note of a server, unless it is one of before a failover.
func (n *newest) meet(s server) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if s.system == n.seen.system && s.timeline < n.seen.timeline {
		return fmt.Errorf("timeline %d, after %d: %w", s.timeline, n.seen.timeline, errBefore)
	}
	n.seen = s
	return nil
}

// admit holds one opening to the server that its first connection has met.
func (n *newest) admit(pinned *server, s server) error {
	switch {
	case pinned.system == "":
		if err := n.meet(s); err != nil {
			return err
		}
		*pinned = s
	case s.system == pinned.system && s.timeline < pinned.timeline:
		return errBefore
	case s.system == pinned.system && s.timeline > pinned.timeline:
		return errors.Join(errAnother, n.meet(s)) // Now what is pinned is of before, should it answer first at the next opening.
	case s != *pinned:
		return errAnother
	}
	return nil
}

// recognize holds the connections of one opening to one server, which is no standby, and no primary of before a failover. A host that is refused
// here is passed over for the next one of the URL. before is what the URL asks for.
func (d *postgresPool) recognize(before pgconn.ValidateConnectFunc) pgconn.ValidateConnectFunc {
	var mu sync.Mutex
	var pinned server
	return func(ctx context.Context, conn *pgconn.PgConn) error {
		s, err := identify(ctx, conn)
		if err != nil {
			return err
		}
		if before != nil {
			err := before(ctx, conn)
			if _, primary := errors.AsType[*pgconn.NotPreferredError](err); err != nil && !primary { // Who prefers a standby does without: none is a book.
				return err
			}
		}
		if s.system == "" {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		err = d.engine.newest.admit(&pinned, s)
		if errors.Is(err, errAnother) {
			d.lines.cut() // What was read so far may be of the other: everything begins anew.
		}
		return err
	}
}

// identify asks a server which it is. One that does not tell, because it is none of PostgreSQL's own or may not, is "".
func identify(ctx context.Context, conn *pgconn.PgConn) (server, error) {
	results, err := conn.Exec(ctx, "SELECT pg_is_in_recovery()").ReadAll()
	if _, untold := errors.AsType[*pgconn.PgError](err); untold {
		return server{}, nil
	}
	switch {
	case err != nil:
		return server{}, err
	case len(results) == 1 && len(results[0].Rows) == 1 && string(results[0].Rows[0][0]) == "t":
		return server{}, errStandby
	}
	results, err = conn.Exec(ctx, "SELECT system_identifier, pg_walfile_name(pg_current_wal_lsn()) FROM pg_control_system()").ReadAll()
	if _, untold := errors.AsType[*pgconn.PgError](err); untold {
		return server{}, nil
	}
	if err != nil || len(results) != 1 || len(results[0].Rows) != 1 {
		return server{}, err
	}
	const digits = 8 // The name of a file of the log begins with its timeline, in hexadecimal digits.
	system, file := string(results[0].Rows[0][0]), string(results[0].Rows[0][1])
	timeline, err := strconv.ParseUint(file[:min(digits, len(file))], 16, 64)
	if err != nil {
		return server{}, nil //nolint:nilerr // It does not tell.
	}
	return server{system, timeline}, nil
}
