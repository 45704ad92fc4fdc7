package state

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/ai-aas/api-router/internal/policy"
	"github.com/ai-aas/api-router/internal/policy/sourcetest"
	"github.com/ai-aas/api-router/test/postgres"
	"github.com/ai-aas/api-router/test/relay"
)

// reference is where the tests' password is.
func reference(t testing.TB) policy.SecretRef {
	t.Helper()
	if t, ok := t.(*testing.T); ok {
		t.Setenv("API_ROUTER_TEST_POSTGRES", postgres.Password)
	}
	ref, err := policy.ParseSecretRef("env:API_ROUTER_TEST_POSTGRES")
	must(t, err)
	return ref
}

// openedAt is a book with these options that ends with the test.
func openedAt(t testing.TB, options Options) *Book {
	t.Helper()
	if options.Logger == nil {
		options.Logger = slog.New(slog.DiscardHandler)
	}
	book, err := Open(options)
	must(t, err)
	t.Cleanup(func() {
		if err := book.Close(); err != nil {
			t.Error(err)
		}
	})
	return book
}

func TestPostgresPassesTheSuite(t *testing.T) {
	server := postgres.Shared(t)
	password := reference(t)
	sourcetest.Run(t, func(t *testing.T) sourcetest.Place {
		name := server.Database(t)
		between := relay.New(t, server.Address)
		options := Options{URL: server.URL(name, between.Address()), Password: password}
		book := settled(t, openedAt(t, options))
		return sourcetest.Place{
			Source: book, Book: book,
			Second: func(testing.TB) (policy.Source, policy.Book) {
				second := openedAt(t, Options{URL: server.URL(name, ""), Password: password})
				return second, second
			},
			Put: func(t testing.TB, kind policy.Kind, id string, content []byte) {
				t.Helper()
				_, err := book.Read(waits(t), policy.KindBackend, "") // Until it is open.
				must(t, err)
				byHandInPostgres(t, server.Login(name), kind, id, content)
			},
			Stop:  func(testing.TB) { between.Refuse(true); between.Drop(true) },
			Start: func(testing.TB) { between.Refuse(false) },
		}
	})
}

// byHandInPostgres changes a document as the comment in the migration tells whoever writes past the program.
func byHandInPostgres(t testing.TB, url string, kind policy.Kind, id string, content []byte) {
	t.Helper()
	conn, err := pgx.Connect(waits(t), url)
	must(t, err)
	defer conn.Close(waits(t))
	var after *string
	if content != nil {
		text := strings.ReplaceAll(strings.ToValidUTF8(string(content), "?"), "\x00", "?") // PostgreSQL itself takes nothing else.
		after = &text
	}
	must(t, pgx.BeginFunc(waits(t), conn, func(tx pgx.Tx) error {
		var revision int64
		err := tx.QueryRow(waits(t), "UPDATE counter SET value = value + 1 WHERE name = 'revision' RETURNING value").Scan(&revision)
		must(t, err)
		var before *string
		err = tx.QueryRow(waits(t), "SELECT content FROM document WHERE kind = $1 AND id = $2", kind, id).Scan(&before)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		action := policy.ActionUpdate
		switch {
		case after == nil:
			action = policy.ActionDelete
		case before == nil:
			action = policy.ActionCreate
		}
		_, err = tx.Exec(waits(t), "INSERT INTO change (revision, action, kind, id, before_content, after_content, actor, reason, made_at) VALUES ($1, $2, $3, $4, $5, $6, '', '', $7)", revision, action, kind, id, before, after, time.Now().UnixNano())
		must(t, err)
		_, err = tx.Exec(waits(t), "DELETE FROM document WHERE kind = $1 AND id = $2", kind, id)
		if after != nil && err == nil {
			_, err = tx.Exec(waits(t), "INSERT INTO document VALUES ($1, $2, $3, $4)", kind, id, revision, after)
		}
		return err
	}))
}

func TestPostgresURLs(t *testing.T) {
	for _, test := range []struct{ url, place, refusal string }{
		{"postgres://router@db.internal/router", "postgres://router@db.internal/router", ""},
		{"postgresql://router@db.internal:6432/router?sslmode=verify-full&pool_max_conns=20", "postgres://router@db.internal:6432/router", ""},
		{"postgres://router@one:5432,two:5433/router?target_session_attrs=read-write", "postgres://router@one:5432,two:5433/router", ""},
		{"postgres:///router?host=/run/postgresql&user=router", "postgres:///router", ""},
		{"postgres://router:hunter2@db/router", "", "state.password"},
		{"postgres://router@db/router?password=hunter2", "", "state.password"},
		{"postgres://router:12/hunter2@db/router", "", "state.password"},
		{"postgres://router:hunter2?x@db/router", "", "state.password"},
		{"postgres://router:hunter2?x=y@db/router", "", "state.password"},
		{"postgres://one:5432,[::1]:5433/router?user=router@acme", "postgres://one:5432,[::1]:5433/router", ""},
		{"postgres://router@db/router?sslpassword=hunter2&sslmode=require", "", "state.password"},
		{"postgres://router@db/router?hunter2=%zz", "", "parameters"},
		{"postgres:router", "", "not of the form"},
		{"postgres://router@db:port/router", "", "cannot be used"},
		{"postgres://router@db/router?sslmode=hunter", "", "cannot be used"},
	} {
		_, place, err := poolOf(test.url)
		switch {
		case test.refusal == "" && (err != nil || place != test.place):
			t.Errorf("%s: %s, %v; want %s", test.url, place, err, test.place)
		case test.refusal != "" && (err == nil || !strings.Contains(err.Error(), test.refusal) || strings.Contains(err.Error(), "hunter2")):
			t.Errorf("%s: %s, %v; want a refusal with %q", test.url, place, err, test.refusal)
		}
	}
}

// failure waits until a book has told why it is not open, and gives that.
func failure(t testing.TB, book *Book, part string) string {
	t.Helper()
	for deadline := time.Now().Add(hang); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if status := book.Status(); !status.Open && strings.Contains(status.Failure, part) {
			return status.Failure
		}
	}
	t.Fatalf("status %+v; want a failure with %q", book.Status(), part)
	return ""
}

func TestADatabaseThatIsNoBookIsLeftAlone(t *testing.T) {
	server := postgres.Shared(t)
	password := reference(t)
	t.Setenv("WRONG", "hunter2")
	wrong, err := policy.ParseSecretRef("env:WRONG")
	must(t, err)
	gone, err := policy.ParseSecretRef("env:API_ROUTER_TEST_NOT_THERE")
	must(t, err)
	for _, test := range []struct {
		name, message string
		options       func(database string) Options
		prepare       func(t *testing.T, database string)
	}{
		{"of another program", "another program", nil, func(t *testing.T, database string) { server.Exec(t, database, "CREATE TABLE guests (name TEXT)") }},
		{"of a newer version", "newer version", nil, func(t *testing.T, database string) {
			book := openedAt(t, Options{URL: server.URL(database, ""), Password: password})
			writeVersion(t, book, "a", 1)
			must(t, book.Close())
			server.Exec(t, database, "INSERT INTO schema_version (version_id, is_applied) VALUES (99, true)")
		}},
		{"not there", "no such database", func(string) Options { return Options{URL: server.URL("nowhere", ""), Password: password} }, nil},
		{"with another password", "the password is refused", func(database string) Options { return Options{URL: server.URL(database, ""), Password: wrong} }, nil},
		{"with a password that cannot be read", "API_ROUTER_TEST_NOT_THERE", func(database string) Options { return Options{URL: server.URL(database, ""), Password: gone} }, nil},
		{"without its schema", "schema", func(database string) Options {
			return Options{URL: server.URL(database, "") + "&search_path=nowhere", Password: password}
		}, nil},
		{"where it may not make tables", "lacks a right", func(database string) Options {
			return Options{URL: strings.Replace(server.URL(database, ""), postgres.User+"@", "guest@", 1), Password: password}
		}, func(t *testing.T, database string) {
			server.Exec(t, database, "REVOKE ALL ON SCHEMA public FROM PUBLIC", "GRANT USAGE ON SCHEMA public TO PUBLIC", "CREATE ROLE guest LOGIN PASSWORD '"+postgres.Password+"'")
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			database := server.Database(t)
			if test.prepare != nil {
				test.prepare(t, database)
			}
			options := Options{URL: server.URL(database, ""), Password: password}
			if test.options != nil {
				options = test.options(database)
			}
			book := openedAt(t, options)
			told := failure(t, book, test.message)
			if strings.ContainsAny(told, "\n\t") {
				t.Errorf("it is more than one line: %q", told)
			}
			if strings.Contains(told, "hunter2") || strings.Contains(told, postgres.Password) {
				t.Errorf("the password shows: %s", told)
			}
			begun := time.Now()
			_, err := book.Write(waits(t), policy.Write{Kind: policy.KindBackend, ID: "b", Content: []byte(`{}`)})
			if err == nil || !strings.Contains(err.Error(), test.message) {
				t.Errorf("write: %v; want %q", err, test.message)
			}
			if took := time.Since(begun); took > 8*time.Second {
				t.Errorf("a call that cannot succeed took %s", took)
			}
			t.Log(told)
		})
	}
}

func TestABookMayHaveASchemaOfItsOwn(t *testing.T) {
	server := postgres.Shared(t)
	database := server.Database(t)
	server.Exec(t, database, "CREATE TABLE guests (name TEXT)", "CREATE SCHEMA router")
	book := openedAt(t, Options{URL: server.URL(database, "") + "&search_path=router", Password: reference(t)})
	writeVersion(t, book, "a", 1)
	server.Exec(t, database, "SELECT FROM router.document")
}

// The router's user need not own the tables where another brings them up to date.
func TestAUserThatMayOnlyReadAndWriteIsEnough(t *testing.T) {
	server := postgres.Shared(t)
	database, password := server.Database(t), reference(t)
	owner := Options{URL: server.URL(database, ""), Password: password, Logger: slog.New(slog.DiscardHandler)}
	if _, _, err := Migrate(waits(t), owner); err != nil {
		t.Fatal(err)
	}
	server.Exec(t, database, "CREATE ROLE modest LOGIN PASSWORD '"+postgres.Password+"'",
		"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO modest")
	owner.URL = strings.Replace(owner.URL, postgres.User+"@", "modest@", 1)
	book := withKeys(t, owner)
	writeVersion(t, book, "a", 1)
	follower := following(t, book)
	made(t, book, aKey("acme", 1))
	follower.agrees(t, book)
}

func TestNothingIsMigratedWhereThatIsLeftToAPerson(t *testing.T) {
	onBoth(t, func(t *testing.T, place Options) {
		place.Manual = true
		book := openedAt(t, place)
		failure(t, book, "run api-router migrate")
		_, steps, err := Migrate(waits(t), place)
		if err != nil || len(steps) < 2 || steps[0].Version != 1 {
			t.Fatalf("steps %+v, %v", steps, err)
		}
		_, err = book.Read(waits(t), policy.KindBackend, "")
		for ; err != nil && strings.Contains(err.Error(), "migrate"); _, err = book.Read(waits(t), policy.KindBackend, "") {
			time.Sleep(20 * time.Millisecond)
		}
		writeVersion(t, book, "a", 1)
		if _, steps, err := Migrate(waits(t), place); err != nil || len(steps) > 0 {
			t.Errorf("once more: %+v, %v", steps, err)
		}
	})
}

// onBoth runs a test on an empty place in SQLite, and on one in PostgreSQL.
func onBoth(t *testing.T, test func(t *testing.T, place Options)) {
	t.Helper()
	logger := slog.New(slog.DiscardHandler)
	t.Run("SQLite", func(t *testing.T) { test(t, Options{URL: "sqlite:" + t.TempDir() + "/state.db", Logger: logger}) })
	t.Run("PostgreSQL", func(t *testing.T) {
		server := postgres.Shared(t)
		test(t, Options{URL: server.URL(server.Database(t), ""), Password: reference(t), Logger: logger})
	})
}

func TestReplicasMayMigrateAtOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, place Options) {
		const replicas = 6
		type result struct {
			steps int
			err   error
		}
		results := make(chan result, replicas)
		for range replicas {
			go func() {
				_, steps, err := Migrate(waits(t), place)
				results <- result{len(steps), err}
			}()
		}
		made := 0
		for range replicas {
			r := <-results
			if r.err != nil {
				t.Error(r.err)
			}
			made += r.steps
		}
		scripts, err := migrations.ReadDir("migrations/sqlite")
		must(t, err)
		if want := len(scripts); made != want {
			t.Errorf("%d migrations were made, want %d", made, want)
		}
		writeVersion(t, openedAt(t, place), "a", 1)
	})
}

func TestACallEndsWithItsDeadlineWhileTheDatabaseIsSilent(t *testing.T) {
	server := postgres.Shared(t)
	between := relay.New(t, server.Address)
	book := openedAt(t, Options{URL: server.URL(server.Database(t), between.Address()), Password: reference(t)})
	writeVersion(t, book, "a", 1)
	between.Stall()
	for i := range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		begun := time.Now()
		_, err := book.Write(ctx, policy.Write{Kind: policy.KindBackend, ID: "a", Content: content("a", 2+i)})
		if took := time.Since(begun); err == nil || took > 5*time.Second {
			t.Errorf("a write took %s: %v", took, err)
		}
		cancel()
	}
	begun := time.Now()
	t.Log(failure(t, book, "does not answer"), "after", time.Since(begun).Round(time.Millisecond))
	begun = time.Now()
	must(t, openedAt(t, Options{URL: server.URL("any", between.Address()), Password: reference(t)}).Close())
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("a book that never got through took %s to close", took)
	}
	between.Pass()
	writeVersion(t, book, "a", 10)
}

func TestABookRecoversFromWhatHappensToItsServer(t *testing.T) {
	server := postgres.New(t)
	between := relay.New(t, server.Address)
	book := openedAt(t, Options{URL: server.URL(server.Database(t), between.Address()), Password: reference(t)})
	for i, trouble := range []struct {
		name string
		make func()
	}{
		{"killed and started again", func() { server.Kill(); failure(t, book, ""); must(t, server.Start()) }},
		{"stopped and started again", func() { server.Stop(); failure(t, book, ""); must(t, server.Start()) }},
		{"every connection is reset", func() { between.Drop(true) }},
		{"every connection loses its other side", between.StrandAll},
		{"every session is ended by the server", func() {
			server.Exec(t, "postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'api-router'")
		}},
	} {
		t.Run(trouble.name, func(t *testing.T) {
			writeVersion(t, book, "a", 2*i+1)
			trouble.make()
			begun := time.Now()
			// A call may meet the trouble; its failure is told, and one of the next succeeds.
			for deadline := time.Now().Add(hang); ; {
				_, err := book.Write(waits(t), policy.Write{Kind: policy.KindBackend, ID: "a", Content: content("a", 2*i+2), Actor: "test"})
				if err == nil {
					break
				}
				t.Log(err)
				if time.Now().After(deadline) {
					t.Fatal(err)
				}
			}
			t.Logf("it took a change again after %s", time.Since(begun).Round(time.Millisecond))
		})
	}
	if all, err := book.History(waits(t), "", "", 0, 100); err != nil || len(all) != 10 {
		t.Errorf("%d entries, %v", len(all), err)
	}
}

// A machine that dies in the middle of a change holds a lock on the server, which does not know of it.
func TestAWriterThatDiedDoesNotHoldUpTheOthersForEver(t *testing.T) {
	if testing.Short() {
		t.Skip("it waits for the server's timeout")
	}
	server := postgres.Shared(t)
	database := server.Database(t)
	between := relay.New(t, server.Address)
	lost := openedAt(t, Options{URL: server.URL(database, between.Address()), Password: reference(t)})
	book := openedAt(t, Options{URL: server.URL(database, ""), Password: reference(t)})
	writeVersion(t, lost, "a", 1)
	ctx, cancel := context.WithCancel(waits(t))
	err := lost.write(ctx, clockDocuments, func(context.Context, tx) error {
		between.StrandAll()
		return refusal{fmt.Errorf("lost")}
	})
	cancel()
	t.Log(err)
	begun := time.Now()
	for {
		_, err := book.Write(waits(t), policy.Write{Kind: policy.KindBackend, ID: "a", Content: content("a", 2)})
		if err == nil {
			break
		}
		if time.Since(begun) > hang {
			t.Fatal(err)
		}
	}
	t.Logf("the other wrote after %s", time.Since(begun).Round(time.Millisecond))
}
