// Package postgres runs a real PostgreSQL for tests: one server for a test binary, and a database for each test that asks.
package postgres

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/ai-aas/api-router/test/ports"
	"github.com/ai-aas/api-router/test/rig"
)

// User and Password are of the superuser of every server.
const (
	User     = "router"
	Password = "only for tests"
)

// slow is how long what should take a second or two may take.
const slow = time.Minute

// Server is one running PostgreSQL.
type Server struct {
	Address string // host:port on the loopback address

	release  func() // gives the address back; nil: it has none
	bin, dir string
	as       *syscall.Credential // nil: as this process
	mu       sync.Mutex
	process  *exec.Cmd
	ended    chan struct{} // closed when the process has ended
	log      bytes.Buffer
	made     int // databases
}

var (
	mu     sync.Mutex
	shared *Server
)

// Main runs the tests of a binary and ends its shared server, if one was started.
type Main struct{ Tests interface{ Run() int } }

// Run is testing.M's.
func (m Main) Run() int {
	code := m.Tests.Run()
	mu.Lock()
	defer mu.Unlock()
	if shared != nil {
		shared.remove()
		shared = nil
	}
	return code
}

// Shared gives the server of this test binary, which is started at the first call. The binary's TestMain must run its tests by Main.
// Without PostgreSQL the test is skipped, or fails where CONFORMANCE=required.
func Shared(t testing.TB) *Server {
	t.Helper()
	mu.Lock()
	defer mu.Unlock()
	if shared == nil {
		shared = start(t)
	}
	return shared
}

// New starts a server for one test alone, which may kill it.
func New(t testing.TB) *Server {
	t.Helper()
	s := start(t)
	t.Cleanup(s.remove)
	return s
}

func start(t testing.TB) *Server {
	t.Helper()
	bin, found := binaries()
	if !found {
		rig.Lacking(t, "there is no PostgreSQL: run scripts/prepare postgres, or install the package postgresql")
	}
	s := &Server{bin: bin}
	if err := s.initialize(); err != nil {
		s.remove()
		t.Fatal(err)
	}
	if err := s.Start(); err != nil {
		s.remove()
		t.Fatal(err)
	}
	return s
}

// binaries finds the newest version of the distribution, which is not on PATH, or what is on PATH.
func binaries() (dir string, found bool) {
	newest := 0
	all, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb") // The pattern is good.
	for _, one := range all {
		if version, err := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(one)))); err == nil && version > newest {
			newest, dir = version, filepath.Dir(one)
		}
	}
	if dir == "" {
		if one, err := exec.LookPath("initdb"); err == nil {
			dir = filepath.Dir(one)
		}
	}
	return dir, dir != ""
}

// directory makes the server's directory, with its password in it. PostgreSQL refuses to run as root: it then is the user postgres, or nobody.
func (s *Server) directory() error {
	dir, err := os.MkdirTemp("", "api-router-postgres-")
	if err != nil {
		return err
	}
	s.dir = dir
	if err := os.WriteFile(s.secret(), []byte(Password), 0o600); err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return nil
	}
	if s.as, err = other(); err != nil {
		return err
	}
	for _, path := range []string{dir, s.secret()} {
		if err := os.Chown(path, int(s.as.Uid), int(s.as.Gid)); err != nil {
			return err
		}
	}
	return nil
}

func (s *Server) secret() string { return filepath.Join(s.dir, "password") }

// initialize makes an empty server.
func (s *Server) initialize() error {
	if err := s.directory(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), slow)
	defer cancel()
	initdb := s.command(ctx, "initdb", "--pgdata="+s.data(), "--username="+User, "--pwfile="+s.secret(), "--auth=scram-sha-256",
		"--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions")
	if out, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, out)
	}
	var err error
	s.Address, s.release, err = ports.Reserve()
	return err
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

// other is somebody who is not root.
func other() (*syscall.Credential, error) {
	for _, name := range []string{"postgres", "nobody"} {
		found, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.ParseUint(found.Uid, 10, 32)
		if err != nil {
			return nil, err
		}
		gid, err := strconv.ParseUint(found.Gid, 10, 32)
		if err != nil {
			return nil, err
		}
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
	}
	return nil, errors.New("PostgreSQL refuses to run as root, and there is neither a user postgres nor nobody")
}

func (s *Server) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, filepath.Join(s.bin, program), args...)
	c.Dir = s.dir
	c.Env = append(os.Environ(), "LC_ALL=C", "PGPASSWORD="+Password)
	c.SysProcAttr = &syscall.SysProcAttr{Credential: s.as}
	return c
}

// Start starts the server and returns when it answers.
func (s *Server) Start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, port, err := net.SplitHostPort(s.Address)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), slow)
	defer cancel()
	process := s.command(context.WithoutCancel(ctx), "postgres", "-D", s.data(), "-p", port, "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=",
		"-c", "fsync=off", "-c", "shared_buffers=32MB", "-c", "max_connections=200")
	process.Stdout, process.Stderr = &s.log, &s.log
	// Should this process be killed, the server ends with it. The system watches the thread that started it.
	process.SysProcAttr.Pdeathsig = syscall.SIGQUIT
	ended, begun := make(chan struct{}), make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(ended)
		err := process.Start()
		begun <- err
		if err == nil {
			_ = process.Wait() // It is killed.
		}
	}()
	if err := <-begun; err != nil {
		return err
	}
	s.process, s.ended = process, ended
	for {
		conn, err := pgx.Connect(ctx, s.url("postgres", true))
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-ended:
			return fmt.Errorf("PostgreSQL ended: %s", s.log.String())
		case <-ctx.Done():
			return fmt.Errorf("PostgreSQL does not start: %w", err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Kill ends the server as a failure does, with every process of it.
func (s *Server) Kill() { s.signal(syscall.SIGQUIT) }

// Stop ends the server in an orderly way; its clients are sent away.
func (s *Server) Stop() { s.signal(syscall.SIGINT) }

func (s *Server) signal(signal syscall.Signal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		return
	}
	_ = s.process.Process.Signal(signal) // It may have ended.
	select {
	case <-s.ended:
	case <-time.After(slow):
		_ = s.process.Process.Kill()
		<-s.ended
	}
	s.process = nil
}

func (s *Server) remove() {
	s.Kill()
	if s.dir != "" {
		_ = os.RemoveAll(s.dir)
	}
	if s.release != nil {
		s.release()
	}
}

// Database makes an empty database and returns its name.
func (s *Server) Database(t testing.TB) string {
	t.Helper()
	s.mu.Lock()
	s.made++
	name := "test_" + strconv.Itoa(s.made)
	s.mu.Unlock()
	s.Exec(t, "postgres", "CREATE DATABASE "+name)
	return name
}

// Exec runs statements in a database, as the superuser.
func (s *Server) Exec(t testing.TB, database string, statements ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), slow)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.url(database, true))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	for _, statement := range statements {
		if _, err := conn.Exec(ctx, statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
}

// URL is a database's URL, without the password. address is where it is reached; "" is the server itself.
func (s *Server) URL(database, address string) string {
	return strings.Replace(s.url(database, false), s.Address, cmp.Or(address, s.Address), 1)
}

// Login is URL with the password, for the test's own connections.
func (s *Server) Login(database string) string { return s.url(database, true) }

func (s *Server) url(database string, password bool) string {
	who := User
	if password {
		who += ":" + strings.ReplaceAll(Password, " ", "%20")
	}
	return "postgres://" + who + "@" + s.Address + "/" + database + "?sslmode=disable"
}

// Run runs a program of the server's version, such as pg_dump, on a database, and returns what it wrote.
func (s *Server) Run(t testing.TB, input []byte, program, database string, args ...string) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), slow)
	defer cancel()
	c := s.command(ctx, program, append([]string{"--dbname=" + s.url(database, false)}, args...)...)
	c.Stdin = bytes.NewReader(input)
	var out, failure bytes.Buffer
	c.Stdout, c.Stderr = &out, &failure
	if err := c.Run(); err != nil {
		t.Fatalf("%s: %v: %s", program, err, failure.String())
	}
	return out.Bytes()
}
