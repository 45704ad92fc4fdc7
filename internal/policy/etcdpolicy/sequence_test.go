package etcdpolicy

import (
	"context"
	"encoding/json"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/ai-aas/api-router/internal/policy"
	"github.com/ai-aas/api-router/test/relay"
)

// budget is the time that the test below goes on with new sequences.
const budget = 6 * time.Second

// Whatever happens to documents, etcd and the network: in the end the router has the table that a fresh start would have.
func TestAnySequenceEndsAsAFreshLoad(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		begun, runs := time.Now(), 0
		r := relay.New(t, s.address)
		rapid.Check(t, func(rt *rapid.T) {
			if time.Since(begun) > budget {
				return
			}
			runs++
			prefix := fmt.Sprintf("/run-%d/", runs)
			config := Config{Endpoints: []string{r.Address()}, Prefix: prefix, Timeout: time.Second}
			b, err := New(config)
			if err != nil {
				rt.Fatal(err)
			}
			defer func() { _ = b.Close() }()
			got := follow(t, b)
			for step := range rapid.IntRange(1, 30).Draw(rt, "steps") {
				move(rt, t, s, r, b, prefix, step)
			}
			r.Pass()
			fresh := open(t, Config{Endpoints: []string{s.address}, Prefix: prefix})
			l, err := fresh.load(t.Context())
			if err != nil {
				rt.Fatal(err)
			}
			want := outcome(l.snapshot())
			eventually(t, want, func() (string, bool) { s := outcome(*got.last.Load()); return s, s == want })
		})
		t.Log(runs, "sequences")
	})
}

// move makes one step.
func move(rt *rapid.T, t *testing.T, s *server, r *relay.Relay, b *Book, prefix string, step int) {
	id := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(rt, "id")
	key := prefix + "backends/" + id
	switch rapid.SampledFrom([]string{"put", "put", "put", "write", "bad", "delete", "policy", "compact", "drop", "reset", "stall", "pass", "kill"}).Draw(rt, "step") {
	case "put":
		s.put(t, key, backend(id, step+1))
	case "write":
		r.Pass()
		_, err := b.Write(t.Context(), policy.Write{Kind: policy.KindBackend, ID: id, Content: []byte(backend(id, step+1))})
		if err != nil { // The network has just failed, which it may.
			t.Log("write:", err)
		}
	case "bad":
		s.put(t, key, `{"url":7`)
	case "delete":
		s.remove(t, key)
	case "policy":
		s.put(t, prefix+"policies/*/m/"+id, fmt.Sprintf(`{"PolicyID":"p-%s","Backends":[{"BackendID":"a","Weight":%d}]}`, id, step+1))
	case "compact":
		s.compact(t, s.put(t, "/elsewhere", "x"))
	case "drop":
		r.Drop(false)
	case "reset":
		r.Drop(true)
	case "stall":
		r.Stall()
	case "pass":
		r.Pass()
	case "kill":
		if step%5 == 0 { // It takes a second or so.
			s.kill(t)
			s.start(t)
		}
	}
}

// followed is what was published, and by how many watches: one that ends, because etcd has not answered in time, is begun again.
type followed struct {
	last             atomic.Pointer[policy.Snapshot]
	published, begun atomic.Int64
}

// follow watches a book as the router does, until the test ends.
func follow(t *testing.T, b *Book) *followed {
	t.Helper()
	f := new(followed)
	f.last.Store(new(policy.Snapshot))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			f.begun.Add(1)
			_ = b.Watch(ctx, func(s policy.Snapshot) { f.last.Store(&s); f.published.Add(1) }) // Whatever it was: it is watched again.
			time.Sleep(50 * time.Millisecond)
		}
	}()
	t.Cleanup(func() { cancel(); <-ended })
	return f
}

// outcome is what a snapshot comes to.
func outcome(s policy.Snapshot) string {
	table := policy.Compile(s, nil)
	text, err := json.Marshal(struct {
		Documents []policy.Document
		Problems  []policy.Problem
	}{table.Documents(), table.Problems()})
	if err != nil {
		return err.Error()
	}
	return string(text)
}
