package etcdpolicy

import (
	"cmp"
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/ai-aas/api-router/internal/policy"
)

// A thousand changes a second for three seconds are published a few times a second, keep no memory, and the last one wins.
func TestManyChangesEndInTheLast(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		const writers, each, documents = 10, 300, 50
		f := follow(t, s.book(t))
		before := heap()
		begun := time.Now()
		var group sync.WaitGroup
		for writer := range writers {
			group.Go(func() {
				for i := range each {
					id := fmt.Sprintf("b%02d", (writer+i*writers)%documents)
					s.put(t, "/api-router/backends/"+id, backend(id, 1+i))
					time.Sleep(time.Until(begun.Add(time.Duration(i) * 10 * time.Millisecond)))
				}
			})
		}
		group.Wait()
		for i := range documents {
			id := fmt.Sprintf("b%02d", i)
			s.put(t, "/api-router/backends/"+id, backend(id, 10_000+i))
		}
		eventually(t, "the last values", func() (string, bool) {
			right := 0
			for _, d := range f.last.Load().Documents {
				var i int
				_, _ = fmt.Sscanf(d.ID(), "b%02d", &i) // Ours are all of that form.
				if d.Backend.MaxConcurrency == 10_000+i {
					right++
				}
			}
			return fmt.Sprint(right), right == documents
		})
		took := time.Since(begun)
		grown := heap() - before
		t.Logf("%d changes in %s, published %d times, the heap grew by %d KiB", writers*each, took.Round(time.Millisecond), f.published.Load(), grown>>10)
		if most := int64(took/rest) + 20; f.published.Load() > most {
			t.Errorf("published %d times, at most %d", f.published.Load(), most)
		}
		if grown > 16<<20 {
			t.Errorf("the heap grew by %d bytes", grown)
		}
	})
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// fill puts many keys at once.
func (s *server) fill(t *testing.T, from, to int, operation func(id string) clientv3.Op) {
	t.Helper()
	for at := from; at < to; at += 100 {
		var operations []clientv3.Op
		for i := at; i < min(at+100, to); i++ {
			operations = append(operations, operation(fmt.Sprintf("m%06d", i)))
		}
		if _, err := s.raw.Txn(t.Context()).Then(operations...).Commit(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestMoreDocumentsThanAreHeldAreAProblem(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		const most = policy.MaxDocuments
		key := func(id string) string { return "/api-router/marks/" + id }
		put := func(id string) clientv3.Op {
			return clientv3.OpPut(key(id), `{"backend":"`+id+`","state":"draining"}`)
		}
		s.fill(t, 0, most+2, put)
		begun := time.Now()
		f := follow(t, s.book(t))
		holds := func(want string) {
			t.Helper()
			eventually(t, want, func() (string, bool) {
				snapshot := f.last.Load()
				if len(snapshot.Documents) == 0 {
					return "nothing", false
				}
				held := snapshot.Documents
				got := fmt.Sprintf("%d from %s to %s, %d problems", len(held), held[0].ID(), held[len(held)-1].ID(), len(snapshot.Problems))
				return got, got == want
			})
		}
		holds(fmt.Sprintf("%d from m000000 to m%06d, 1 problems", most, most-1))
		t.Log("read after", time.Since(begun))
		s.remove(t, key("m000000"))
		holds(fmt.Sprintf("%d from m000001 to m%06d, 1 problems", most, most))
		s.put(t, key("m000000"), `{"backend":"x","state":"draining"}`)
		holds(fmt.Sprintf("%d from m000000 to m%06d, 1 problems", most, most-1))
		s.fill(t, 0, 4, func(id string) clientv3.Op { return clientv3.OpDelete(key(id)) })
		holds(fmt.Sprintf("%d from m000004 to m%06d, 0 problems", most-2, most+1))
	})
}

// What is not ours below the prefix, and the history, is neither read nor watched.
func TestOtherKeysAreLeftAlone(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		b := s.book(t)
		f := follow(t, b)
		eventually(t, "the first", func() (string, bool) { return "none", f.published.Load() > 0 })
		for _, key := range []string{"/api-router/other/a", "/api-router/x", "/api-router/backendsx/a", "/api-router2/backends/a", "/api-router/history/backends/a/1", "/backends/a"} {
			s.put(t, key, backend("a", 1))
		}
		time.Sleep(checkEvery + checkEvery/2) // The checks of the watch see other keys' revisions, and take them for what they are.
		s.put(t, "/api-router/backends/a", backend("a", 1))
		eventually(t, "our own", func() (string, bool) {
			got := f.last.Load()
			return fmt.Sprintf("%+v", got), len(got.Documents) == 1 && len(got.Problems) == 0
		})
		if n, most := f.published.Load(), f.begun.Load()+1; n > most { // Each watch begins with what there is, and there was one change.
			t.Errorf("published %d times, at most %d", n, most)
		}
		if status := b.Status(); status.Watched.IsZero() || status.Revision < 7 || !status.Connected {
			t.Errorf("the status is %+v", status)
		}
	})
}

// BenchmarkPutToPublish tells how long it takes from the beginning of a put to the snapshot that has it. Run it with -benchtime 200x.
func BenchmarkPutToPublish(b *testing.B) {
	for _, r := range releases(b) {
		b.Run(r.name, func(b *testing.B) {
			s := newServer(b, r)
			book := s.book(b)
			seen := make(chan int, 100)
			ctx, cancel := context.WithCancel(b.Context())
			ended := make(chan error, 1)
			go func() {
				ended <- book.Watch(ctx, func(snapshot policy.Snapshot) {
					version := 0
					for _, d := range snapshot.Documents {
						version = d.Backend.MaxConcurrency
					}
					seen <- version
				})
			}()
			defer func() { cancel(); <-ended }()
			<-seen
			var times []time.Duration
			for version := 1; b.Loop(); version++ {
				time.Sleep(time.Duration(110+version*7%60) * time.Millisecond)
				begun := time.Now()
				s.put(b, "/api-router/backends/a", backend("a", version))
				for <-seen != version { // One from before.
				}
				times = append(times, time.Since(begun))
			}
			slices.SortFunc(times, cmp.Compare)
			b.ReportMetric(float64(times[len(times)/2].Microseconds()), "µs/p50")
			b.ReportMetric(float64(times[len(times)-1].Microseconds()), "µs/max")
		})
	}
}
