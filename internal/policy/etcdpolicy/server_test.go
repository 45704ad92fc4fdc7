package etcdpolicy

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/ai-aas/api-router/internal/policy"
	"github.com/ai-aas/api-router/test/leaks"
	"github.com/ai-aas/api-router/test/ports"
)

// hang is how long a test waits for what takes a second at most.
const hang = time.Minute

func TestMain(m *testing.M) { leaks.Main(m) }

// release is one etcd that tests may start.
type release struct{ name, binary string }

// releases are those of this machine: the current one, which "make test" builds, and the one of the distribution, which is 3.4.
func releases(t testing.TB) []release {
	t.Helper()
	built, err := filepath.Abs(filepath.Join("..", "..", "..", ".tools", "bin", "etcd"))
	if err != nil {
		t.Fatal(err)
	}
	if named := os.Getenv("ETCD_BIN"); named != "" {
		built = named
	}
	var found []release
	for _, r := range []release{{"current", built}, {"distribution", "/usr/bin/etcd"}} {
		if _, err := os.Stat(r.binary); err != nil {
			t.Logf("NOT TESTED with the %s release of etcd: there is no %s. Run \"make test\", or scripts/prepare go etcd.", r.name, r.binary)
			continue
		}
		found = append(found, r)
	}
	if len(found) == 0 {
		t.Skip("NOT TESTED: there is no etcd. Run \"make test\", or scripts/prepare go etcd.")
	}
	return found
}

// onEach runs a test on every release at once, each with a server of its own: most of a test is waiting.
func onEach(t *testing.T, test func(t *testing.T, s *server)) {
	t.Helper()
	for _, r := range releases(t) {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			test(t, newServer(t, r))
		})
	}
}

// server is a real etcd in a process of its own.
type server struct {
	release      release
	dir, address string
	peer         string
	scheme       string
	more         []string // arguments
	process      *exec.Cmd
	output       bytes.Buffer
	raw          *clientv3.Client // past the router, as etcdctl
}

// newServer starts an empty etcd that ends with the test.
func newServer(t testing.TB, r release, more ...string) *server {
	t.Helper()
	s := &server{release: r, dir: t.TempDir(), address: ports.Free(t), peer: ports.Free(t), scheme: "http", more: more}
	t.Cleanup(func() { s.kill(t) })
	s.start(t)
	s.raw = rawClient(t, s.url())
	s.put(t, "/ready", "") // One that is killed before it has a leader may never have one.
	return s
}

func rawClient(t testing.TB, url string) *clientv3.Client {
	t.Helper()
	return rawClientOf(t, url, "", "")
}

func rawClientOf(t testing.TB, url, username, password string) *clientv3.Client {
	t.Helper()
	client, err := clientv3.New(clientv3.Config{
		Endpoints: []string{url}, Logger: zap.NewNop(), Username: username, Password: password, DialTimeout: hang,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func (s *server) url() string { return s.scheme + "://" + s.address }

// start starts the process and waits until its port is open.
func (s *server) start(t testing.TB) {
	t.Helper()
	peer := "http://" + s.peer
	arguments := append([]string{
		"--name", "t", "--data-dir", filepath.Join(s.dir, "data"), "--unsafe-no-fsync", "--logger", "zap", "--log-level", "error",
		"--listen-client-urls", s.url(), "--advertise-client-urls", s.url(),
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "t=" + peer,
	}, s.more...)
	s.process = exec.Command(s.release.binary, arguments...)
	s.process.Env = []string{"PATH=" + os.Getenv("PATH"), "TMPDIR=" + s.dir}
	s.output.Reset()
	s.process.Stdout, s.process.Stderr = &s.output, &s.output
	if err := s.process.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(hang); ; time.Sleep(5 * time.Millisecond) {
		conn, err := net.Dial("tcp", s.address)
		if err == nil {
			_ = conn.Close()
			return
		}
		if time.Now().After(deadline) {
			s.kill(t)
			t.Fatalf("etcd did not start:\n%s", s.output.String())
		}
	}
}

// kill ends the process as a power cut does.
func (s *server) kill(t testing.TB) {
	t.Helper()
	if s.process == nil {
		return
	}
	_ = s.process.Process.Kill() // It may be dead.
	_ = s.process.Wait()         // It was killed.
	s.process = nil
}

// wipe makes the next start one with new data.
func (s *server) wipe(t testing.TB) {
	t.Helper()
	if err := os.RemoveAll(filepath.Join(s.dir, "data")); err != nil {
		t.Fatal(err)
	}
}

// put writes a key past the router.
func (s *server) put(t testing.TB, key, value string) int64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), hang)
	defer cancel()
	answer, err := s.raw.Put(ctx, key, value)
	if err != nil {
		t.Fatal(err)
	}
	return answer.Header.Revision
}

func (s *server) remove(t testing.TB, key string) int64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), hang)
	defer cancel()
	answer, err := s.raw.Delete(ctx, key)
	if err != nil {
		t.Fatal(err)
	}
	return answer.Header.Revision
}

func (s *server) compact(t testing.TB, revision int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), hang)
	defer cancel()
	if _, err := s.raw.Compact(ctx, revision); err != nil {
		t.Fatal(err)
	}
}

// open opens a book that ends with the test.
func open(t testing.TB, config Config) *Book {
	t.Helper()
	b, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

func (s *server) book(t testing.TB) *Book {
	t.Helper()
	return open(t, Config{Endpoints: []string{s.address}})
}

// watching is a store that follows a book: what the router does.
type watching struct {
	*policy.Store
	log *strings.Builder
	mu  *sync.Mutex
}

// watch runs a store on a book until the test ends.
func watch(t testing.TB, b *Book) *watching {
	t.Helper()
	w := &watching{log: new(strings.Builder), mu: new(sync.Mutex)}
	w.Store = policy.NewStore(policy.Options{Source: b, Logger: slog.New(slog.NewTextHandler(w, nil))})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = w.Run(ctx) // Nil always.
	}()
	t.Cleanup(func() { cancel(); <-ended })
	return w
}

func (w *watching) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.Write(p)
}

func (w *watching) lines() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.String()
}

// backends are those in force, by id and version.
func (w *watching) backends() string {
	table := w.Table()
	if table == nil {
		return "no table"
	}
	var names []string
	for _, b := range table.Backends() {
		names = append(names, fmt.Sprintf("%s=%d", b.ID, b.MaxConcurrency))
	}
	return strings.Join(names, " ")
}

// until waits for these backends and tells how long it took.
func (w *watching) until(t testing.TB, want string) time.Duration {
	t.Helper()
	begun := time.Now()
	eventually(t, want, func() (string, bool) { got := w.backends(); return got, got == want })
	return time.Since(begun)
}

func eventually(t testing.TB, want string, is func() (string, bool)) {
	t.Helper()
	for deadline := time.Now().Add(2 * hang); ; time.Sleep(time.Millisecond) {
		got, ok := is()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("it never came to\n%s\nit is\n%s", want, got)
		}
	}
}

func backend(id string, version int) string {
	return fmt.Sprintf(`{"kind":"Backend","id":%q,"url":"http://127.0.0.1:8000","max_concurrency":%d}`, id, version)
}
