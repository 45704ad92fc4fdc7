package gateway_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ai-aas/api-router/internal/fleet"
	"github.com/ai-aas/api-router/internal/upstream"
)

// onBoth runs a test over both ways to a backend: a fault has the same outcome on each.
func onBoth(t *testing.T, test func(t *testing.T, way setting)) {
	t.Helper()
	for name, transport := range map[string]func(fleet.Spec) (upstream.Transport, error){
		"own connections": fleet.NewTransport,
		"net/http": func(spec fleet.Spec) (upstream.Transport, error) {
			u, err := url.Parse(spec.URL)
			if err != nil {
				return nil, err
			}
			return upstream.Standard(upstream.Config{Address: u.Host, Connect: spec.Timeouts.Connect})
		},
	} {
		t.Run(name, func(t *testing.T) { test(t, setting{transport: transport}) })
	}
}

// reset closes a connection with RST after some bytes.
func reset(text string) func(net.Conn, string) {
	return func(conn net.Conn, _ string) {
		_, _ = io.WriteString(conn, text)
		time.Sleep(20 * time.Millisecond) // What was sent arrives before the RST, which would overtake it.
		_ = conn.(*net.TCPConn).SetLinger(0)
		_ = conn.Close()
	}
}

func TestDeathAtEveryByteOfAStreamIsNeverACleanEnd(t *testing.T) {
	onBoth(t, func(t *testing.T, way setting) {
		whole := streamed(opening, delta("a"), delta("b"), finish, done) + lastChunk
		want := opening + delta("a") + delta("b") + finish + done
		complete := strings.Index(whole, done) + len("data: [DONE]") // From here on the answer is whole, whatever becomes of the connection.
		var cut atomic.Int64
		backend := play(t, func(conn net.Conn, _ string) { hangUp(whole[:cut.Load()])(conn, "") })
		way.specs = func(s *fleet.Spec) { s.Engine = "" }
		way.documents = "kind: RoutingPolicy\nid: p\nmodel: m\nfailover_threshold: 1000\nbackends: [{ id: b0 }]\n"
		h := build(t, way, backend.URL)
		for at := range len(whole) + 1 {
			cut.Store(int64(at))
			resp := h.post("/v1/chat/completions", streamAsked)
			content, err := io.ReadAll(resp.Body)
			got := string(content)
			switch {
			case resp.StatusCode != 200: // Nothing had been sent: an error of our own, in its envelope.
				if at >= complete || err != nil || !strings.Contains(got, `"code":"backend_`) {
					t.Fatalf("cut at %d: %d %q %v", at, resp.StatusCode, got, err)
				}
			case at >= complete:
				if err != nil || strings.TrimRight(got, "\n") != strings.TrimRight(want, "\n") || !strings.HasSuffix(got, "\n\n") {
					t.Fatalf("cut at %d, behind the end: %q %v", at, got, err)
				}
			default:
				before, after, found := strings.Cut(got, `data: {"error":{`)
				if err == nil || !found || !strings.HasPrefix(want, before) || strings.Contains(after, "data:") {
					t.Fatalf("cut at %d: %q %v", at, got, err)
				}
			}
		}
	})
}

func TestDeathAtEveryByteOfAnAnswerIsNeverACleanEnd(t *testing.T) {
	onBoth(t, func(t *testing.T, way setting) {
		for name, whole := range map[string]string{
			"with a length": plain(200, "application/json", `{"choices":[{"message":{"content":"a"}}]}`),
			"chunked":       "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{\"choices\r\n5\r\n\":[]}\r\n0\r\n\r\n",
		} {
			var cut atomic.Int64
			backend := play(t, func(conn net.Conn, _ string) { hangUp(whole[:cut.Load()])(conn, "") })
			way.documents = "kind: RoutingPolicy\nid: p\nmodel: m\nfailover_threshold: 1000\nbackends: [{ id: b0 }]\n"
			h := build(t, way, backend.URL)
			for at := range len(whole) {
				cut.Store(int64(at))
				resp := h.post("/v1/chat/completions", chat)
				if got := body(t, resp); resp.StatusCode != 502 || !strings.Contains(got, `"code":"backend_`) {
					t.Fatalf("%s, cut at %d: %d %q", name, at, resp.StatusCode, got)
				}
			}
		}
	})
}

// Over our own connections alone: net/http sees the end of a connection when its goroutine runs, and until then a request is lost on it.
func TestAConnectionThatTheBackendClosesWhileIdleCostsNoRequest(t *testing.T) {
	for name, ending := range map[string]func(net.Conn, string){"FIN": hangUp(""), "RST": reset("")} {
		ended := make(chan struct{}, 1)
		backend := play(t, func(conn net.Conn, _ string) {
			_, _ = io.WriteString(conn, plain(200, "application/json", `{"ok":1}`)) // Says nothing of closing, and closes.
			ending(conn, "")
			ended <- struct{}{}
		})
		h := build(t, setting{}, backend.URL)
		const requests = 40
		for n := range requests {
			if resp := h.post("/v1/chat/completions", chat); resp.StatusCode != 200 {
				t.Fatalf("%s, request %d: %d %s", name, n, resp.StatusCode, body(t, resp))
			}
			<-ended // The end of the connection has come before the next request.
		}
		if got := len(backend.bodies()); got != requests {
			t.Errorf("%s: the backend saw %d requests of %d", name, got, requests)
		}
	}
}

// Over our own connections alone: net/http may take such bytes for the next answer when the next request is quick. See
// docs/adr/0002-own-upstream-connections.md.
func TestBytesBehindAnAnswerNeverReachTheNextRequest(t *testing.T) {
	var n atomic.Int64
	backend := play(t, func(conn net.Conn, _ string) {
		own := fmt.Sprintf(`{"n":%d}`, n.Add(1))
		_, _ = io.WriteString(conn, plain(200, "application/json", own)+plain(200, "application/json", `{"n":"smuggled"}`))
	})
	h := build(t, setting{}, backend.URL)
	for want := range 20 {
		if got := body(t, h.post("/v1/chat/completions", chat)); got != fmt.Sprintf(`{"n":%d}`, want+1) {
			t.Fatalf("request %d got %s", want+1, got)
		}
	}
}

// exploding is a transport with a bug.
type exploding struct{}

func (exploding) RoundTrip(*http.Request) (*http.Response, error) { panic("a bug") }
func (exploding) CloseIdleConnections()                           {}
func (e exploding) Cut() upstream.Transport                       { return e }

func TestAPanicOnTheWayGivesTheLeaseBackAndLeavesARecord(t *testing.T) {
	h := build(t, setting{transport: func(fleet.Spec) (upstream.Transport, error) { return exploding{}, nil }}, "http://127.0.0.1:1")
	resp, err := h.Client().Do(h.request("/v1/chat/completions", chat))
	if err == nil {
		_ = resp.Body.Close()
		t.Errorf("status %d: nobody knows how far the answer had come", resp.StatusCode)
	}
	if rec := h.closed(1); rec.StopReason != "crash" || rec.Status != 500 || rec.Code != "internal_error" {
		t.Errorf("%+v", rec)
	}
	if b, _ := h.fleet.Backend("b0"); b.InFlight() != 0 {
		t.Errorf("%d leases are out", b.InFlight())
	}
	if resp := h.get("/v1/models"); resp.StatusCode != 200 {
		t.Errorf("the router does not live on: %d", resp.StatusCode)
	}
}
