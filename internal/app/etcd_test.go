package app_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/ai-aas/api-router/internal/policy/etcdpolicy"
	"github.com/ai-aas/api-router/test/ports"
)

// etcd is a real server in a process of its own.
type etcd struct {
	binary, dir, address, peer string
	process                    *exec.Cmd
	raw                        *clientv3.Client // past the router, as etcdctl
}

// etcdBinary finds an etcd, or skips the test.
func etcdBinary(t *testing.T) string {
	t.Helper()
	for _, path := range []string{os.Getenv("ETCD_BIN"), filepath.Join("..", "..", ".tools", "bin", "etcd"), "/usr/bin/etcd"} {
		if _, err := os.Stat(path); err != nil {
			continue
		}
		path, err := filepath.Abs(path)
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
	t.Skip(`NOT TESTED: there is no etcd. Run "make test", or scripts/prepare etcd.`)
	return ""
}

// startEtcd starts an empty etcd that ends with the test.
func startEtcd(t *testing.T) *etcd {
	t.Helper()
	e := &etcd{binary: etcdBinary(t), dir: t.TempDir(), address: ports.Free(t), peer: "http://" + ports.Free(t)}
	t.Cleanup(e.kill)
	e.start(t)
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{"http://" + e.address}, Logger: zap.NewNop(), DialTimeout: hang})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	e.raw = client
	return e
}

func (e *etcd) start(t *testing.T) {
	t.Helper()
	url := "http://" + e.address
	e.process = exec.Command(e.binary, "--name", "t", "--data-dir", filepath.Join(e.dir, "data"), "--unsafe-no-fsync", "--log-level", "error",
		"--listen-client-urls", url, "--advertise-client-urls", url,
		"--listen-peer-urls", e.peer, "--initial-advertise-peer-urls", e.peer, "--initial-cluster", "t="+e.peer)
	e.process.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := e.process.Start(); err != nil {
		t.Fatal(err)
	}
}

// kill ends the server as a power cut does.
func (e *etcd) kill() {
	if e.process != nil {
		_ = e.process.Process.Kill() // It may be dead.
		_ = e.process.Wait()         // It was killed.
		e.process = nil
	}
}

func (e *etcd) put(t *testing.T, key, value string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), hang)
	defer cancel()
	if _, err := e.raw.Put(ctx, "/api-router/"+key, value); err != nil {
		t.Fatal(err)
	}
}

// keys are all documents, by their keys below the prefix, without the history.
func (e *etcd) keys(t *testing.T) map[string]string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), hang)
	defer cancel()
	answer, err := e.raw.Get(ctx, "/api-router/", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, kv := range answer.Kvs {
		if key := strings.TrimPrefix(string(kv.Key), "/api-router/"); !strings.HasPrefix(key, "history/") {
			found[key] = string(kv.Value)
		}
	}
	return found
}

// soon is what the router promises for a change; a test gives it ten times that.
const soon = time.Second

// within waits for a change to be in force, and says how long it took.
func within(t *testing.T, what string, is func() bool) {
	t.Helper()
	begun := time.Now()
	eventually(t, what, is)
	took := time.Since(begun)
	t.Logf("%s took %s", what, took.Round(time.Millisecond))
	if took > 10*soon {
		t.Errorf("%s took %s", what, took)
	}
}

// etcdBook is the book of flags, as another router has it.
func etcdBook(t *testing.T, flags map[string]string) *etcdpolicy.Book {
	t.Helper()
	b, err := etcdpolicy.New(etcdpolicy.Config{Endpoints: []string{flags["policy.etcd.endpoints"]}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}
