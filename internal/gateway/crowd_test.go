package gateway_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ai-aas/api-router/internal/fleet"
	"github.com/ai-aas/api-router/internal/simengine"
)

// descriptors counts the open files of this process, -1 where it cannot be told.
func descriptors() int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return -1
	}
	return len(entries)
}

// backTo waits until count is at most want again.
func backTo(t *testing.T, what string, want int, count func() int) {
	t.Helper()
	got := 0
	for deadline := time.Now().Add(hang); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if got = count(); got <= want {
			return
		}
	}
	t.Errorf("%d %s are left of %d before", got, what, want)
}

func TestTwoThousandStreamsLoseNothingAndLeaveNothing(t *testing.T) {
	streams, events := 2000, 20
	if testing.Short() {
		streams = 200
	}
	engine := simengine.New(simengine.Config{
		Models:   []simengine.Model{{ID: "m"}},
		ZeroWork: &simengine.ZeroWork{Events: events, Interval: 50 * time.Millisecond},
	})
	backend := httptest.NewServer(engine.Handler())
	t.Cleanup(backend.Close)
	const ever = 5 * time.Minute // Two thousand connections at once take their time where other tests run, too: no limit is meant here.
	patient := setting{bodyTimeout: ever, writeTimeout: ever}.with(func(s *fleet.Spec) {
		s.Timeouts = fleet.Timeouts{Connect: ever, FirstByte: ever, BetweenBytes: ever, Total: ever}
	})
	h := build(t, patient, backend.URL)
	want := body(t, h.post("/v1/chat/completions", streamChat))
	if n := strings.Count(want, "data: "); n < events || !strings.HasSuffix(want, "data: [DONE]\n\n") {
		t.Fatalf("one stream alone has %d events: %q", n, want)
	}
	h.Client().CloseIdleConnections()
	time.Sleep(100 * time.Millisecond)
	goroutines, files := runtime.NumGoroutine(), descriptors()

	ctx, cancel := context.WithTimeout(t.Context(), ever) // A hang detector: an event must not be late for ever.
	defer cancel()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: streams}}
	var all, opened sync.WaitGroup
	opened.Add(streams)
	broken := make(chan string, streams)
	for n := range streams {
		all.Go(func() {
			resp, err := client.Do(h.request("/v1/chat/completions", streamChat).WithContext(ctx))
			opened.Done()
			if err != nil {
				broken <- err.Error()
				return
			}
			defer func() { _ = resp.Body.Close() }()
			opened.Wait() // Every stream is open before the first is read to its end.
			content, err := io.ReadAll(resp.Body)
			if got := string(content); err != nil || got != want {
				broken <- fmt.Sprintf("stream %d: status %d, %v, %d bytes of %d: %.200s", n, resp.StatusCode, err, len(got), len(want), got)
			}
		})
	}
	all.Wait()
	close(broken)
	for what := range broken {
		t.Error(what)
	}
	if n := len(h.closes()); n != streams+1 {
		t.Errorf("%d records of %d requests", n, streams+1)
	}
	client.CloseIdleConnections()
	if err := h.fleet.Apply(nil); err != nil { // Their idle connections go with the backends.
		t.Error(err)
	}
	backTo(t, "goroutines", goroutines, runtime.NumGoroutine)
	backTo(t, "descriptors", files, descriptors)
}
