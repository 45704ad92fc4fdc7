package state

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/ai-aas/api-router/internal/policy"
	"github.com/ai-aas/api-router/test/leaks"
	"github.com/ai-aas/api-router/test/postgres"
)

// part is the variable that makes this test binary another process that uses a book: "write" it at path until it is killed, or
// "seed" it and end.
const part = "API_ROUTER_STATE_TEST"

func TestMain(m *testing.M) {
	switch os.Getenv(part) {
	case "":
		leaks.Main(postgres.Main{Tests: m})
	default:
		os.Exit(play(os.Getenv(part), os.Args[1], os.Args[2]))
	}
}

// play is the other process. It prints a line for each write that was answered.
func play(part, path, name string) int {
	ctx, cancel := context.WithTimeout(context.Background(), hang)
	defer cancel()
	book, err := Open(Options{URL: "sqlite:" + path, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for i := 1; part == "write" || i <= 100; i++ {
		id := fmt.Sprintf("%s-%d", name, i%7)
		change := policy.Write{Kind: policy.KindBackend, ID: id, Content: content(id, rand.IntN(1_000_000)), Actor: name}
		if i%10 == 0 {
			change.Content = nil
		}
		stored, err := book.Write(ctx, change)
		if errors.Is(err, policy.ErrNotFound) {
			continue
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		fmt.Println(stored.ID, stored.Revision, change.Content == nil)
	}
	if err := book.Close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func start(t *testing.T, role, path, name string) (process *exec.Cmd, lines *bufio.Scanner) {
	t.Helper()
	process = exec.CommandContext(waits(t), os.Args[0], path, name)
	process.Env = append(os.Environ(), part+"="+role)
	process.Stderr = os.Stderr
	out, err := process.StdoutPipe()
	must(t, err)
	must(t, process.Start())
	return process, bufio.NewScanner(out)
}

// answered is what a process was told of a write.
type answered struct {
	id       string
	revision int64
	deletion bool
}

func parseAnswer(t *testing.T, line string) (a answered) {
	t.Helper()
	if _, err := fmt.Sscan(line, &a.id, &a.revision, &a.deletion); err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	return a
}

// A process that is killed in the middle of its writes loses none that was answered, and documents and history agree ever after.
func TestAKilledProcessLosesNothingThatWasAnswered(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	rounds := 40
	if testing.Short() {
		rounds = 8
	}
	writes, last := 0, int64(0)
	for round := range rounds {
		process, lines := start(t, "write", path, "w")
		var acknowledged []answered
		var kill *time.Timer
		for lines.Scan() {
			if kill == nil { // From the first answer on, at any moment.
				kill = time.AfterFunc(rand.N(30*time.Millisecond), func() { _ = process.Process.Kill() })
			}
			acknowledged = append(acknowledged, parseAnswer(t, lines.Text()))
		}
		if err := process.Wait(); err == nil || len(acknowledged) == 0 {
			t.Fatalf("round %d: the process ended by itself: %v", round, err)
		}
		writes += len(acknowledged)
		last = agrees(t, path, acknowledged, last)
	}
	t.Logf("%d rounds, %d answered writes", rounds, writes)
}

// agrees checks a book after a kill: what was answered is in the history, revisions have no gap and go on from the last, and each
// document is what its newest entry says.
func agrees(t *testing.T, path string, acknowledged []answered, last int64) (revision int64) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	must(t, err)
	defer db.Close()
	var entries, documents int64
	must(t, db.QueryRow("SELECT value FROM counter WHERE name = 'revision'").Scan(&revision))
	must(t, db.QueryRow("SELECT count(*) FROM change WHERE revision > $1 AND revision <= $2", last, revision).Scan(&entries))
	if entries != revision-last {
		t.Errorf("the counter went from %d to %d with %d entries", last, revision, entries)
	}
	for _, a := range acknowledged {
		action := ""
		if !a.deletion {
			must(t, db.QueryRow("SELECT action FROM change WHERE revision = $1 AND id = $2", a.revision, a.id).Scan(&action))
		}
		if a.revision > revision || action == string(policy.ActionDelete) {
			t.Errorf("%+v was answered; the history has %q and ends at %d", a, action, revision)
		}
	}
	const newest = `SELECT count(*) FROM change JOIN (SELECT kind, id, max(revision) AS revision FROM change GROUP BY kind, id) USING (kind, id, revision)
		LEFT JOIN document USING (kind, id) WHERE after_content IS NOT document.content OR document.revision IS NOT NULL AND document.revision <> change.revision`
	var differ int64
	must(t, db.QueryRow(newest).Scan(&differ))
	must(t, db.QueryRow("SELECT count(*) FROM document WHERE NOT EXISTS (SELECT 1 FROM change WHERE change.kind = document.kind AND change.id = document.id)").Scan(&documents))
	if differ > 0 || documents > 0 {
		t.Errorf("%d documents are not what their newest entry says, and %d have no entry", differ, documents)
	}
	var sound string
	must(t, db.QueryRow("PRAGMA integrity_check").Scan(&sound))
	if sound != "ok" {
		t.Error(sound)
	}
	return revision
}

// A process that is killed while it opens a new book leaves one that opens.
func TestAProcessThatIsKilledWhileItBeginsABookLeavesOneThatOpens(t *testing.T) {
	for round := range 20 {
		path := filepath.Join(t.TempDir(), "state.db")
		process, lines := start(t, "write", path, "w")
		time.AfterFunc(rand.N(60*time.Millisecond), func() { _ = process.Process.Kill() })
		var acknowledged []answered
		for lines.Scan() {
			acknowledged = append(acknowledged, parseAnswer(t, lines.Text()))
		}
		if err := process.Wait(); err == nil {
			t.Fatalf("round %d: the process ended by itself", round)
		}
		book := opened(t, path)
		writeVersion(t, book, "after", round)
		must(t, book.Close())
		agrees(t, path, acknowledged, 0)
	}
}

// Several processes begin one book at once and write it at once, as a seed does while the router serves.
func TestProcessesShareABook(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	book := opened(t, path)
	snapshots := make(chan policy.Snapshot, 1)
	ctx, cancel := context.WithCancel(waits(t))
	watching := make(chan error, 1)
	go func() {
		watching <- book.Watch(ctx, func(s policy.Snapshot) {
			select {
			case <-snapshots:
			default:
			}
			snapshots <- s
		})
	}()
	processes := 3
	answers := make(chan []answered, processes)
	for i := range processes {
		process, lines := start(t, "seed", path, "p"+strconv.Itoa(i))
		go func() {
			var got []answered
			for lines.Scan() {
				got = append(got, parseAnswer(t, lines.Text()))
			}
			if err := process.Wait(); err != nil {
				t.Errorf("process %d: %v", i, err)
			}
			answers <- got
		}()
	}
	var all []answered
	for i := range 100 {
		stored := writeVersion(t, book, fmt.Sprintf("own-%d", i%7), i)
		all = append(all, answered{stored.ID, stored.Revision, false})
	}
	for range processes {
		all = append(all, <-answers...)
	}
	if len(all) < 300 {
		t.Errorf("%d answers", len(all))
	}
	agrees(t, path, all, 0)
	last := writeVersion(t, book, "end", 1)
	for s := range snapshots {
		if len(s.Problems) > 0 {
			t.Fatal(s.Problems)
		}
		if slices.ContainsFunc(s.Documents, func(d policy.Document) bool { return d.Revision == last.Revision }) {
			documents, err := book.Read(waits(t), policy.KindBackend, "")
			if err != nil || len(documents) != len(s.Documents) {
				t.Errorf("the watch has %d documents, the book %d, %v", len(s.Documents), len(documents), err)
			}
			break
		}
	}
	cancel()
	if err := <-watching; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
