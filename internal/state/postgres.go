package state

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"github.com/ai-aas/api-router/internal/policy"
)

const (
	// lookInterval is how often the book is asked whether it has changed, should a notification be lost: a pooler between may not pass them on.
	lookInterval = 500 * time.Millisecond
	// silence is how long the server may take to answer that. Then it counts as lost.
	silence = 2 * time.Second
	// pinging is how long a connection that has rested may take to show that it still has another side, where the URL does not say.
	pinging = time.Second
	// connecting bounds one attempt to connect to one host, where the URL does not; connectingNext where it names another to go on with.
	connecting     = 5 * time.Second
	connectingNext = 2 * time.Second
	// leastConns is what one process needs at least: pool_max_conns in the URL may ask for more.
	leastConns = 3
	// channel is what a book's trigger notifies.
	channel = "api_router_state"
)

// greeting is what a new connection is told. A writer whose machine died in the middle of a transaction holds up the others no longer than this.
const greeting = "SET idle_in_transaction_session_timeout = '15s'"

// postgresEngine is a book in a PostgreSQL database, which replicas share.
type postgresEngine struct {
	url      string
	where    string
	password policy.SecretRef
	newest   newest
}

func newPostgres(o Options) (*postgresEngine, error) {
	_, place, err := poolOf(o.URL)
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // A certificate that the URL names may come yet.
		return nil, err
	}
	return &postgresEngine{url: o.URL, where: place, password: o.Password}, nil
}

// configure reads the URL and the files that it names: anew for each opening, so that those that were changed count without a restart.
func (e *postgresEngine) configure() (*pgxpool.Config, error) {
	config, _, err := poolOf(e.url)
	if err != nil {
		return nil, fmt.Errorf("state.url %w", err)
	}
	if c := config.ConnConfig; c.ConnectTimeout == 0 {
		c.ConnectTimeout = connecting
		if slices.ContainsFunc(c.Fallbacks, func(f *pgconn.FallbackConfig) bool { return f.Host != c.Host || f.Port != c.Port }) {
			c.ConnectTimeout = connectingNext
		}
	}
	if config.ConnConfig.RuntimeParams["application_name"] == "" {
		config.ConnConfig.RuntimeParams["application_name"] = "api-router"
	}
	if config.PingTimeout == 0 {
		config.PingTimeout = pinging
	}
	config.MaxConns = max(config.MaxConns, leastConns)
	config.BeforeConnect = func(_ context.Context, c *pgx.ConnConfig) error { return e.authenticate(c) }
	config.AfterConnect = func(ctx context.Context, c *pgx.Conn) error { _, err := c.Exec(ctx, greeting); return err }
	return config, nil
}

// authenticate puts the password in. It is read anew for each connection, so that a new one counts without a restart.
func (e *postgresEngine) authenticate(c *pgx.ConnConfig) error {
	if e.password.IsZero() {
		return nil
	}
	password, err := e.password.Resolve()
	if err != nil {
		return final{fmt.Errorf("state.password: %w", err)}
	}
	c.Password = password
	return nil
}

func (e *postgresEngine) place() string { return e.where }

// postgresPool is one opening of the database: connections for transactions, and one that listens. When that one is lost, all are given up:
// behind the same name there may now be a server that lacks the newest changes.
type postgresPool struct {
	engine *postgresEngine
	lines  *lines
	pool   *pgxpool.Pool
	ears   *pgx.Conn
}

func (e *postgresEngine) open(ctx context.Context, _ bool, migrate migration) (_ database, err error) {
	config, err := e.configure()
	if err != nil {
		return nil, err
	}
	db := &postgresPool{engine: e, lines: &lines{open: map[*line]bool{}}}
	config.ConnConfig.DialFunc = db.lines.dial
	config.ConnConfig.ValidateConnect = db.recognize(config.ConnConfig.ValidateConnect)
	defer func() {
		if err != nil {
			_ = db.close() // What failed is told already.
		}
	}()
	if db.pool, err = pgxpool.NewWithConfig(ctx, config); err != nil {
		return nil, e.explain(err)
	}
	if err := db.migrate(ctx, migrate); err != nil {
		return nil, e.explain(err)
	}
	own := config.ConnConfig.Copy()
	if err := e.authenticate(own); err != nil {
		return nil, err
	}
	if db.ears, err = pgx.ConnectConfig(ctx, own); err != nil {
		return nil, e.explain(err)
	}
	if _, err := db.ears.Exec(ctx, "LISTEN "+channel); err != nil {
		return nil, e.explain(err)
	}
	return db, nil
}

// migrate lets one process at a time at the tables. A lock of the session guards them, which is why a pooler that shares sessions
// between transactions must not stand between for this.
func (d *postgresPool) migrate(ctx context.Context, migrate migration) error {
	if err := d.pool.Ping(ctx); err != nil { // What is wrong with a connection is told best by the connection itself.
		return err
	}
	const everySecond, tries = 1, 60
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(everySecond, tries))
	if err != nil {
		return err
	}
	db := stdlib.OpenDBFromPool(d.pool)
	defer func() { _ = db.Close() }() // The pool stays, and this holds nothing else.
	return migrate(ctx, db, schema{
		dialect: goose.DialectPostgres,
		folder:  "migrations/postgres",
		tables: `SELECT count(*), count(CASE WHEN table_name = $1 THEN 1 END) FROM information_schema.tables
			WHERE table_schema = current_schema() AND table_type = 'BASE TABLE'`,
		options: []goose.ProviderOption{goose.WithSessionLocker(locker)},
	})
}

// close ends every connection at once. pgx would say goodbye on each, and wait for a server that may not be there.
func (d *postgresPool) close() error {
	d.lines.cut()
	if d.ears != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = d.ears.Close(ctx) // It is cut already.
	}
	if d.pool != nil {
		d.pool.Close()
	}
	return nil
}

func (d *postgresPool) read(ctx context.Context, ask func(tx) error) error {
	options := pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly} // One state of the book for all that is asked.
	return pgx.BeginTxFunc(ctx, d.pool, options, func(t pgx.Tx) error { return ask(postgresTx{t}) })
}

func (d *postgresPool) write(ctx context.Context, change func(tx) error) error {
	return pgx.BeginTxFunc(ctx, d.pool, pgx.TxOptions{}, func(t pgx.Tx) error { return change(postgresTx{t}) })
}

type postgresTx struct{ pgx.Tx }

func (t postgresTx) exec(ctx context.Context, statement string, args ...any) error {
	_, err := t.Exec(ctx, statement, args...)
	return err
}

func (t postgresTx) one(ctx context.Context, query string, args ...any) row {
	return t.QueryRow(ctx, query, args...)
}

func (t postgresTx) each(ctx context.Context, take func(row) error, query string, args ...any) error {
	rows, err := t.Query(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := take(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

func (d *postgresPool) lookAfter(ctx context.Context, changed func()) error {
	for last := int64(-1); ; {
		now, err := d.clocks(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			return d.engine.explain(err)
		case now != last:
			last = now
			changed()
		}
		if err := d.listen(ctx); err != nil {
			return d.engine.explain(err)
		}
	}
}

// clocks is the sum of the counters, which only grow.
func (d *postgresPool) clocks(ctx context.Context) (sum int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, silence)
	defer cancel()
	err = d.ears.QueryRow(ctx, "SELECT CAST(sum(value) AS BIGINT) FROM counter WHERE name IN ($1, $2, $3)", clockDocuments, clockIdentity, clockAdmins).Scan(&sum)
	return sum, err
}

// listen returns at a notification, at the latest after lookInterval.
func (d *postgresPool) listen(ctx context.Context) error {
	waiting, cancel := context.WithTimeout(ctx, lookInterval)
	defer cancel()
	_, err := d.ears.WaitForNotification(waiting)
	if waiting.Err() != nil {
		return ctx.Err()
	}
	return err
}

// lines are the sockets of one opening, so that all of them can be ended at once.
type lines struct {
	mu   sync.Mutex
	open map[*line]bool // nil once they are cut
}

type line struct {
	net.Conn
	of *lines
}

func (l *lines) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open == nil {
		return nil, errors.Join(net.ErrClosed, conn.Close())
	}
	made := &line{conn, l}
	l.open[made] = true
	return made, nil
}

func (l *line) Close() error {
	l.of.mu.Lock()
	delete(l.of.open, l)
	l.of.mu.Unlock()
	return l.Conn.Close()
}

func (l *lines) cut() {
	l.mu.Lock()
	open := l.open
	l.open = nil
	l.mu.Unlock()
	for one := range open {
		_ = one.Conn.Close() // It is given up.
	}
}

// explain says what an error of the database means and what to do about it.
func (e *postgresEngine) explain(err error) error {
	if IsFinal(err) || err == nil {
		return err
	}
	told, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		if errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("the state book %s does not answer: start the database, or correct state.url: %w", e.where, err)
		}
		switch {
		case errors.Is(err, errBefore):
			return fmt.Errorf("the state book %s: a server that answers is of before a failover and was passed over: stop it, and start or promote the one that "+
				"took its place; if it is to be the book again, restart the router: %w", e.where, flat{err})
		case errors.Is(err, errStandby), strings.Contains(err.Error(), "read only connection"):
			return fmt.Errorf("the state book %s: the server takes no changes: it is a standby; name every host in state.url, so that the primary is found, "+
				"or promote it: %w", e.where, flat{err})
		case errors.Is(err, errAnother):
			return fmt.Errorf("the state book %s is opened anew: %w", e.where, flat{err})
		}
		if text := err.Error(); strings.Contains(text, "x509: ") || strings.Contains(text, "refused TLS") {
			return fmt.Errorf("the state book %s is not who sslmode asks for: correct sslmode and sslrootcert in state.url, or the server's certificate: %w", e.where, flat{err})
		}
		return fmt.Errorf("the state book %s cannot be reached: %w", e.where, flat{err})
	}
	wrap := func(what string) error { return fmt.Errorf("the state book %s: %s: %w", e.where, what, flat{err}) }
	switch told.Code {
	case "28P01", "28000":
		return final{wrap("the user or the password is refused: correct the user in state.url, state.password, or the server's pg_hba.conf")}
	case "3D000":
		return final{wrap("there is no such database: create it, or correct state.url")}
	case "3F000":
		return final{wrap("the schema that search_path names is not there: create it, or correct search_path in state.url")}
	case "42501":
		return final{wrap("the user lacks a right: the user needs to own the database or the schema, and its tables")}
	case "25006":
		return wrap("the server takes no changes: name every host in state.url, so that the primary is found")
	case "53100":
		return wrap("the server has no space left, and the change was not made")
	case "53300":
		return wrap("the server has no connection left: raise its max_connections, or lower pool_max_conns in state.url")
	case "57P01", "57P02", "57P03":
		return wrap("the server is starting or stopping")
	}
	return fmt.Errorf("the state book %s: %w", e.where, flat{err})
}

// flat is an error in one line: one of a connection has a line for each try at each host, and tries with TLS and without mostly fail alike.
type flat struct{ error }

func (f flat) Error() string {
	var lines []string
	for line := range strings.Lines(f.error.Error()) {
		if line = strings.Join(strings.Fields(line), " "); line != "" && !slices.Contains(lines, line) {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, " ")
}

func (f flat) Unwrap() error { return f.error }
