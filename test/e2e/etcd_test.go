package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/ai-aas/api-router/test/ports"
	"github.com/ai-aas/api-router/test/rig"
)

const prefix = "/api-router/"

// etcd is a real server in a process of its own.
type etcd struct {
	*process
	path, dir  string
	flags      []string
	url, peers string
	client     *clientv3.Client
}

// servers are the etcd programs that are here: the current release, and a distribution's.
func servers() map[string]string {
	found := map[string]string{}
	if path, err := filepath.Abs("../../.tools/bin/etcd"); err == nil {
		if _, err := os.Stat(path); err == nil {
			found["current"] = path
		}
	}
	if path, err := exec.LookPath("etcd"); err == nil {
		found["distribution"] = path
	}
	return found
}

// onEach runs a test with every etcd program that is here.
func onEach(t *testing.T, test func(t *testing.T, path string)) {
	t.Helper()
	found := servers()
	for _, name := range []string{"current", "distribution"} {
		t.Run(name, func(t *testing.T) {
			if found[name] == "" {
				rig.Lacking(t, `there is no etcd: "scripts/prepare etcd" builds the current one, and as root on Debian installs the distribution's`)
			}
			test(t, found[name])
		})
	}
}

// anyEtcd is one etcd program, the current one if it is here.
func anyEtcd(t *testing.T) string {
	t.Helper()
	found := servers()
	if found["current"] == "" && found["distribution"] == "" {
		rig.Lacking(t, `there is no etcd: "scripts/prepare etcd" builds one`)
	}
	if found["current"] != "" {
		return found["current"]
	}
	return found["distribution"]
}

func startEtcd(t *testing.T, path string) *etcd {
	t.Helper()
	e := &etcd{path: path, dir: t.TempDir(), url: "http://" + ports.Free(t), peers: "http://" + ports.Free(t)}
	if help, _ := exec.CommandContext(t.Context(), path, "--help").CombinedOutput(); strings.Contains(string(help), "--unsafe-no-fsync") {
		e.flags = append(e.flags, "--unsafe-no-fsync")
	}
	e.start(t)
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{e.url}, DialTimeout: 0, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	e.client = client
	t.Cleanup(func() { _ = client.Close() })
	e.await(t)
	return e
}

func (e *etcd) endpoint() string { return strings.TrimPrefix(e.url, "http://") }

func (e *etcd) start(t *testing.T) {
	t.Helper()
	args := append([]string{
		"--name=e", "--data-dir=" + e.dir, "--listen-client-urls=" + e.url, "--advertise-client-urls=" + e.url,
		"--listen-peer-urls=" + e.peers, "--initial-advertise-peer-urls=" + e.peers, "--initial-cluster=e=" + e.peers,
		"--log-level=error",
	}, e.flags...)
	e.process = start(t, e.path, nil, args...)
}

func (e *etcd) await(t *testing.T) {
	t.Helper()
	eventually(t, "etcd answers", func() error {
		ctx, cancel := context.WithTimeout(t.Context(), prompt)
		defer cancel()
		_, err := e.client.Get(ctx, "health")
		return err
	})
}

func (e *etcd) kill() { e.end(syscall.SIGKILL) }

// empty makes the next start one with a new, empty store.
func (e *etcd) empty(t *testing.T) { e.dir = t.TempDir() }

func (e *etcd) put(t *testing.T, key, value string) int64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), hang)
	defer cancel()
	response, err := e.client.Put(ctx, prefix+key, value)
	if err != nil {
		t.Fatal(err)
	}
	return response.Header.Revision
}

func (e *etcd) remove(t *testing.T, key string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), hang)
	defer cancel()
	if _, err := e.client.Delete(ctx, prefix+key); err != nil {
		t.Fatal(err)
	}
}

// get is the value of a key, "" if there is none.
func (e *etcd) get(t *testing.T, key string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), hang)
	defer cancel()
	response, err := e.client.Get(ctx, prefix+key)
	if err != nil {
		t.Fatal(err)
	}
	if len(response.Kvs) == 0 {
		return ""
	}
	return string(response.Kvs[0].Value)
}

// keys are all that are there, the prefix included, in their order.
func (e *etcd) keys(t *testing.T) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), hang)
	defer cancel()
	response, err := e.client.Get(ctx, "", clientv3.WithFromKey(), clientv3.WithKeysOnly())
	if err != nil {
		t.Fatal(err)
	}
	keys := make([]string, 0, len(response.Kvs))
	for _, kv := range response.Kvs {
		keys = append(keys, string(kv.Key))
	}
	return keys
}

// route puts the backend north and a policy that sends the model to it alone.
func (e *etcd) route(t *testing.T, url string) {
	t.Helper()
	e.put(t, "backends/north", `{"url":"`+url+`"}`)
	e.point(t, "north")
}

func (e *etcd) point(t *testing.T, backend string) {
	t.Helper()
	e.put(t, "policies/global-"+model, `{"model":"`+model+`","backends":[{"id":"`+backend+`"}]}`)
}
