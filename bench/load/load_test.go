package load

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ai-aas/api-router/bench/backend"
)

// serve runs a backend with the given shapes and returns its address.
func serve(t *testing.T, shapes ...backend.Shape) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- backend.New(shapes...).Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

func ask(model string) []byte {
	body := fmt.Sprintf(`{"model":%q,"messages":[]}`, model)
	return fmt.Appendf(nil, "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

func TestClosedLoopCountsWhatWasAnsweredInTheWindow(t *testing.T) {
	target := Target{Address: serve(t, backend.Shape{}), Request: ask("whole"), Length: backend.Shape{}.Length()}
	marks := 0
	w := Window{Warmup: 20 * time.Millisecond, Length: 200 * time.Millisecond, Begin: func() { marks++ }, End: func() { marks += 10 }}
	r, err := Closed(t.Context(), target, 4, w)
	if err != nil || r.Failed > 0 || marks != 11 {
		t.Fatalf("%v %v, marks %d", err, r.Failures, marks)
	}
	if r.Requests == 0 || r.Elapsed < 100*time.Millisecond {
		t.Errorf("%d requests in %s", r.Requests, r.Elapsed)
	}
	// An answer at an edge may count on one side only.
	if diff := int64(r.Requests) - int64(r.Latency.Count()); diff > 8 || diff < -8 {
		t.Errorf("%d requests, %d latencies", r.Requests, r.Latency.Count())
	}
}

func TestOpenLoopSendsAtItsRate(t *testing.T) {
	target := Target{Address: serve(t, backend.Shape{}), Request: ask("whole"), Length: backend.Shape{}.Length()}
	r, err := Open(t.Context(), target, 200, 8, Window{Warmup: 50 * time.Millisecond, Length: 500 * time.Millisecond})
	if err != nil || r.Failed > 0 {
		t.Fatalf("%v %v", err, r.Failures)
	}
	// The number of requests that were due in the window does not depend on anybody's speed.
	if n := r.Latency.Count(); n != 100 {
		t.Errorf("%d latencies, want 100", n)
	}
}

func TestOpenLoopChargesAStallToEveryRequestThatWaited(t *testing.T) {
	const stall = 400 * time.Millisecond
	var served atomic.Int64
	address := server(t, func(w http.ResponseWriter, _ *http.Request) {
		if served.Add(1) == 20 {
			time.Sleep(stall)
		}
		fmt.Fprint(w, "ok")
	})
	request := []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	r, err := Open(t.Context(), Target{Address: address, Request: request, Length: 2}, 100, 1, Window{Length: time.Second})
	if err != nil || r.Failed > 0 || r.Latency.Count() != 100 {
		t.Fatalf("%v, %d latencies", err, r.Latency.Count())
	}
	// During the stall 40 requests were due. All of them waited, half of them more than half of it.
	if q := r.Latency.Quantile(0.8); q < stall/4 {
		t.Errorf("the 80th percentile is %s: requests that were due in a stall of %s were left out", q, stall)
	}
}

// server is a server of net/http.
func server(t *testing.T, handler http.HandlerFunc) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: handler}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		_ = s.Close()
		<-done
	})
	return l.Addr().String()
}

func TestWrongAnswersAreFailures(t *testing.T) {
	address := server(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/500" {
			w.WriteHeader(500)
		}
		w.Header().Set("Connection", "close")
		fmt.Fprint(w, "ok")
	})
	for path, failed := range map[string]bool{"/": false, "/500": true, "/long": true} {
		target := Target{Address: address, Request: []byte("GET " + path + " HTTP/1.1\r\nHost: x\r\n\r\n"), Length: 2}
		if path == "/long" {
			target.Length = 3
		}
		w := Window{Length: 100 * time.Millisecond}
		closed, err := Closed(t.Context(), target, 2, w)
		if err != nil || closed.Failed > 0 != failed || closed.Requests > 0 == failed {
			t.Errorf("%s: %v, %d requests, %v", path, err, closed.Requests, closed.Failures)
		}
		open, err := Open(t.Context(), target, 50, 2, w)
		if err != nil || open.Failed > 0 != failed || open.Requests > 0 == failed {
			t.Errorf("%s: %v, %d requests, %v", path, err, open.Requests, open.Failures)
		}
	}
}

func TestStreamsAreReadToTheirEnd(t *testing.T) {
	shape := backend.Shape{Events: 10, Interval: 10 * time.Millisecond}
	s := StreamLoad{
		Target: Target{Address: serve(t, shape), Request: ask(shape.Model())}, Streams: 5, Events: shape.Sent(),
		Ramp: 20 * time.Millisecond, Window: Window{Warmup: 10 * time.Millisecond, Length: 50 * time.Millisecond},
	}
	r, err := s.Run(t.Context())
	if err != nil || r.Failed > 0 || r.Lost > 0 || r.Extra > 0 || r.Streams != 5 || r.FirstEvent.Count() != 5 || r.WorstGaps.Count() != 5 {
		t.Fatalf("%v %+v, %d lost, %d extra, %d streams", err, r.Failures, r.Lost, r.Extra, r.Streams)
	}
	if gaps := r.Gaps.Count(); gaps != 5*uint64(shape.Sent()-1) {
		t.Errorf("%d gaps", gaps)
	}
	if r.WorstGaps.Quantile(0) < 10*time.Millisecond {
		t.Errorf("the worst gap was %s", r.WorstGaps.Quantile(0))
	}

	s.Events, s.Again, s.Streams = shape.Sent()+1, true, 2
	if r, err = s.Run(t.Context()); err != nil || r.Lost != r.Streams || r.Lost < 2 {
		t.Errorf("one event too few in each: %v, %d lost in %d streams", err, r.Lost, r.Streams)
	}
}

func TestBrokenStreamsAreFailures(t *testing.T) {
	for name, end := range map[string]string{"aborted": "", "ended without [DONE]": "0\r\n\r\n"} {
		l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			conn, err := l.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
			_, _ = http.ReadRequest(bufio.NewReader(conn))
			_, _ = fmt.Fprint(conn, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ndata: x\n\n\r\n"+end)
		}()
		s := StreamLoad{Target: Target{Address: l.Addr().String(), Request: ask("x")}, Streams: 1, Events: 3}
		r, err := s.Run(t.Context())
		if err != nil || r.Failed != 1 || r.Streams != 0 {
			t.Errorf("%s: %v, %d failed, %d ended", name, err, r.Failed, r.Streams)
		}
		_ = l.Close()
		<-done
	}
}

func TestLoadEndsWithItsContext(t *testing.T) {
	shape := backend.Shape{Events: 1000, Interval: time.Second}
	address := serve(t, shape)
	target := Target{Address: address, Request: ask(shape.Model())}
	w := Window{Length: time.Hour}
	for name, run := range map[string]func(context.Context) error{
		"closed": func(ctx context.Context) error { _, err := Closed(ctx, target, 2, w); return err },
		"open":   func(ctx context.Context) error { _, err := Open(ctx, target, 10, 2, w); return err },
		"streams": func(ctx context.Context) error {
			_, err := StreamLoad{Target: target, Streams: 2, Window: w}.Run(ctx)
			return err
		},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if err := run(ctx); err == nil {
			t.Errorf("%s: no error", name)
		}
		cancel()
	}
	if _, err := Closed(t.Context(), Target{Address: "127.0.0.1:1"}, 1, w); err == nil {
		t.Error("nobody listens there")
	}
}
