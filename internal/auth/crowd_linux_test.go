package auth_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ai-aas/api-router/internal/auth"
	"github.com/ai-aas/api-router/internal/fault"
)

// crowd is a ledger of many keys, which it makes as they are asked for, as one that reads them from a database does.
type crowd struct {
	n        int
	peppers  auth.Peppers
	known    map[int]string // credentials of some
	imported bool
}

func (c *crowd) Follow(ctx context.Context, give func(auth.Change), whole func()) error {
	for i := range 100 {
		give(auth.Change{Organization: &auth.Organization{ID: fmt.Sprintf("organization-%02d", i)}})
	}
	for i := range c.n {
		k := auth.Key{
			ID: fmt.Sprintf("%08d", i), Organization: fmt.Sprintf("organization-%02d", i%100), Name: fmt.Sprintf("key %d", i), Pepper: 1,
			Scopes: auth.Scopes{Models: []string{"gpt-oss-20b", "llama-*"}, Tags: map[string]string{"team": strconv.Itoa(i % 10)}},
		}
		binary.LittleEndian.PutUint64(k.Digest[:], uint64(i))
		if credential, ok := c.known[i]; ok {
			k.Digest, _ = c.peppers.Digest(1, credential)
		}
		if c.imported {
			k.Pepper = 0
		}
		give(auth.Change{Key: &k})
	}
	whole()
	<-ctx.Done()
	return ctx.Err()
}

func (*crowd) Used(context.Context, map[string]time.Time) error { return nil }

// TestAMillionKeysFitIntoMemory measures a process of its own, so that nothing else counts. Its times are printed; what must hold is the memory. As
// in a container, the process knows its limit: without one, what a busy machine leaves uncollected is of any size.
func TestAMillionKeysFitIntoMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("a million keys are not for -short")
	}
	if raceEnabled {
		t.Log("under the race detector there are 50,000, and memory is not judged: run it without -race, too")
	}
	for _, kind := range []string{"own", "imported"} {
		t.Run(kind, func(t *testing.T) {
			limit := "GOMEMLIMIT=220MiB"
			if kind == "imported" {
				limit = "GOMEMLIMIT=off" // They are allowed more; the log says how much.
			}
			out := child(t, "CROWD="+kind, limit)
			t.Log(out)
			var peak int
			if _, err := fmt.Sscanf(out[strings.LastIndex(out, "peak"):], "peak %d", &peak); err != nil {
				t.Fatal(err)
			}
			if limit := 250; kind == "own" && peak > limit && !raceEnabled {
				t.Errorf("a million keys took %d MiB at their peak, and may take %d", peak, limit)
			}
		})
	}
}

// TestCrowdChild is the process that TestAMillionKeysFitIntoMemory starts.
func TestCrowdChild(t *testing.T) {
	kind := os.Getenv("CROWD")
	if kind == "" {
		t.Skip("it is started by another test")
	}
	n := 1_000_000
	if raceEnabled {
		n /= 20
	}
	p := peppers(t, pepper1)
	c := &crowd{n: n, peppers: p, known: map[int]string{}, imported: kind == "imported"}
	for i := 0; i < n; i += n / 100 {
		c.known[i] = auth.WithChecksum(fmt.Sprintf("ar_%08d_", i) + auth.NewKey().Reveal()[12:44])
	}
	o := options(c, p)
	o.File = t.TempDir() + "/keys.snapshot"
	k := auth.NewKeys(o)
	began := time.Now()
	stop := runs(t, k)
	var slowest time.Duration
	lookups := 0
	for !k.Status().Current {
		asked := time.Now()
		_, err := k.Validate(t.Context(), c.known[0])
		slowest = max(slowest, time.Since(asked))
		if code := fault.CodeOf(err); code != "" && code != fault.IdentityUnavailable && kind == "own" {
			t.Fatalf("while they are loaded: %v", err)
		}
		lookups++
		runtime.Gosched()
	}
	loaded := time.Since(began)
	if kind == "own" {
		for i, credential := range c.known {
			if _, err := k.Validate(t.Context(), credential); err != nil {
				t.Fatalf("key %d: %v", i, err)
			}
		}
	}
	runtime.GC()
	var live runtime.MemStats
	runtime.ReadMemStats(&live)
	var garbage [][]byte
	for range 20_000 { // The heap grows to what the collector lets it, as it does under requests.
		garbage = append(garbage[:len(garbage)%1000], make([]byte, 20<<10))
	}
	runtime.KeepAlive(garbage)
	now, peak := memory(t)
	saving := time.Now()
	stop() // That writes the file, if it is not there yet.
	saved := time.Since(saving)
	var size int64
	if info, err := os.Stat(o.File); err == nil {
		size = info.Size()
	}
	_, peak2 := memory(t)
	fmt.Printf("%d keys (%s) in %v, %d lookups meanwhile, the slowest in %v; %d MiB are live, RSS %d MiB, with the file of %d MiB written in %v: peak %d MiB (before it %d)\n",
		n, kind, loaded.Round(time.Millisecond), lookups, slowest.Round(time.Microsecond), live.HeapAlloc>>20, now, size>>20, saved.Round(time.Millisecond), peak2, peak)
}

// memory is the process's resident memory now and at its highest, in MiB.
func memory(t *testing.T) (now, peak int) {
	t.Helper()
	content, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(content)) {
		name, rest, _ := strings.Cut(line, ":")
		kilobytes, _ := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(rest), " kB"))
		switch name {
		case "VmRSS":
			now = kilobytes >> 10
		case "VmHWM":
			peak = kilobytes >> 10
		}
	}
	return now, peak
}

func child(t *testing.T, env ...string) string {
	t.Helper()
	return command(t, env, os.Args[0], "-test.run", "^TestCrowdChild$", "-test.v")
}
