package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/ai-aas/api-router/test/relay"
)

// load sends requests from several clients until it is stopped.
type load struct {
	stopping chan struct{}
	clients  sync.WaitGroup
	sent     atomic.Int64
	mu       sync.Mutex
	failures []string
}

func (r *router) load(t *testing.T, clients int) *load {
	t.Helper()
	l := &load{stopping: make(chan struct{})}
	for range clients {
		l.clients.Go(func() {
			for {
				select {
				case <-l.stopping:
					return
				default:
				}
				l.sent.Add(1)
				if err := r.served(""); err != nil {
					l.mu.Lock()
					l.failures = append(l.failures, err.Error())
					l.mu.Unlock()
				}
			}
		})
	}
	return l
}

func (l *load) stop(t *testing.T) {
	t.Helper()
	close(l.stopping)
	l.clients.Wait()
	t.Logf("%d requests, %d failed", l.sent.Load(), len(l.failures))
	for i, failure := range l.failures {
		if i < 5 {
			t.Errorf("a request failed: %s", failure)
		}
	}
	if l.sent.Load() == 0 {
		t.Error("no request was sent")
	}
}

func TestEtcdDiesUnderLoad(t *testing.T) {
	onEach(t, func(t *testing.T, path string) {
		e := startEtcd(t, path)
		north := engine(t)
		south := engine(t)
		e.route(t, north)
		r := serve(t, "policy.source=etcd", "policy.etcd.endpoints="+e.endpoint())
		eventually(t, "the policy routes", func() error { return r.served("north") })

		l := r.load(t, 4)
		e.kill()
		time.Sleep(3 * time.Second)
		e.start(t)
		e.await(t)
		e.put(t, "backends/south", `{"url":"`+south+`"}`)
		e.point(t, "south")
		within(t, "a change after etcd's return", eventually(t, "a change after etcd's return", func() error { return r.served("south") }), prompt)

		e.kill()
		time.Sleep(prompt)
		l.stop(t) // A store that lost everything says that there are no policies: until it has them again, that is the truth.
		e.empty(t)
		e.start(t)
		e.await(t)
		e.route(t, north)
		within(t, "a change in a new store", eventually(t, "a change in a new store", func() error { return r.served("north") }), prompt)
	})
}

func TestCompactionPastTheWatchedRevision(t *testing.T) {
	onEach(t, func(t *testing.T, path string) {
		e := startEtcd(t, path)
		north := engine(t)
		south := engine(t)
		e.route(t, north)
		way := relay.New(t, e.endpoint())
		r := serve(t, "policy.source=etcd", "policy.etcd.endpoints="+way.Address())
		eventually(t, "the policy routes", func() error { return r.served("north") })
		way.Refuse(true)
		way.Drop(false)
		e.put(t, "backends/south", `{"url":"`+south+`"}`)
		var last int64
		for range 50 {
			e.point(t, "north")
			last = e.put(t, "policies/global-"+model, `{"model":"`+model+`","backends":[{"id":"south"}]}`)
		}
		ctx, cancel := context.WithTimeout(t.Context(), hang)
		defer cancel()
		if _, err := e.client.Compact(ctx, last, clientv3.WithCompactPhysical()); err != nil {
			t.Fatal(err)
		}
		way.Refuse(false)
		within(t, "the state after a compaction", eventually(t, "the state after a compaction", func() error { return r.served("south") }), prompt)
		e.point(t, "north")
		within(t, "a change after that", eventually(t, "a change after that", func() error { return r.served("north") }), prompt)
	})
}

func TestAColdStartWithoutEtcdServesTheLastGoodPolicies(t *testing.T) {
	e := startEtcd(t, anyEtcd(t))
	url := engine(t)
	e.route(t, url)
	file := filepath.Join(t.TempDir(), "policy.json")
	warm := serve(t, "policy.source=etcd", "policy.etcd.endpoints="+e.endpoint(), "policy.last_good="+file)
	eventually(t, "the policy routes", func() error { return warm.served("north") })
	eventually(t, "the last good file is there", func() error { _, err := os.Stat(file); return err })
	e.kill()
	for name, dead := range deaths {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			cold := launch(t, dead.resolvConf(t), "CONFIG_SERVICE_ENDPOINT="+dead.at(t), "policy.last_good="+file)
			cold.healthy(t)
			healthy := time.Since(cold.begun)
			eventually(t, "the last good policy routes", func() error { return cold.served("north") })
			within(t, "from the start to the first answer", time.Since(cold.begun), 300*time.Millisecond)
			t.Logf("from the start to /healthz: %s", healthy.Round(time.Millisecond))
			if err := cold.get("/readyz"); err != nil {
				t.Error(err)
			}
			cold.log.Await(t, "last good", hang)
		})
	}
}

// rss is the resident memory of a process in MiB.
func (p *process) rss(t *testing.T) float64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.Atoi(strings.Fields(rest)[0])
			if err != nil {
				t.Fatal(err)
			}
			return float64(kib) / 1024
		}
	}
	t.Fatal("no VmRSS")
	return 0
}

func TestAThousandChangesASecond(t *testing.T) {
	e := startEtcd(t, anyEtcd(t))
	url := engine(t)
	south := engine(t)
	e.route(t, url)
	r := serve(t, "policy.source=etcd", "policy.etcd.endpoints="+e.endpoint())
	eventually(t, "the policy routes", func() error { return r.served("north") })
	length := 10 * time.Second
	if testing.Short() {
		length = 2 * time.Second
	}
	l := r.load(t, 2)
	change := func(length time.Duration) int {
		var changes atomic.Int64
		var writers sync.WaitGroup
		deadline := time.Now().Add(length)
		const writing, pace = 20, 20 * time.Millisecond // 1,000 a second
		for w := range writing {
			writers.Go(func() {
				for next := time.Now(); time.Now().Before(deadline); next = next.Add(pace) {
					time.Sleep(time.Until(next))
					id := fmt.Sprintf("w-%d-%d", w, changes.Add(1)%10)
					e.put(t, "policies/"+id, fmt.Sprintf(`{"model":%q,"backends":[{"id":"north","weight":%d}]}`, id, 1+changes.Load()%1000))
				}
			})
		}
		writers.Wait()
		return int(changes.Load())
	}
	change(length / 5)
	before := r.rss(t)
	n := change(length)
	after := r.rss(t)
	t.Logf("%d changes in %s; resident memory %.1f MiB before, %.1f MiB after", n, length, before, after)
	if after > 2*before+32 {
		t.Errorf("the memory grew from %.1f to %.1f MiB", before, after)
	}
	e.put(t, "backends/south", `{"url":"`+south+`"}`)
	e.point(t, "south")
	within(t, "the change after the flood", eventually(t, "the change after the flood", func() error { return r.served("south") }), prompt)
	l.stop(t)
}
