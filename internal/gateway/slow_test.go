package gateway_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ai-aas/api-router/internal/fleet"
	"github.com/ai-aas/api-router/internal/usage"
)

// hang is far above every limit that these tests set: what takes as long waits for ever.
const hang = time.Minute

// connect gives a connection to the router.
func (h *house) connect() net.Conn {
	h.t.Helper()
	conn, err := h.dial(h.t.Context(), "tcp", h.Listener.Addr().String())
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// raw sends bytes as they are and reads the answer's status; the body stays where it is.
func (h *house) raw(text string) (net.Conn, int) {
	h.t.Helper()
	conn := h.connect()
	if _, err := io.WriteString(conn, text); err != nil {
		h.t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(hang))
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		h.t.Fatalf("no answer: %v", err)
	}
	h.t.Cleanup(func() { _ = resp.Body.Close() })
	return conn, resp.StatusCode
}

func TestABodyThatNeverComesKeepsNoAnswerAndNoConnection(t *testing.T) {
	head := "%s HTTP/1.1\r\nHost: router\r\nContent-Type: application/json\r\n"
	for name, tc := range map[string]struct {
		request string
		want    int
	}{
		"without a key":       {fmt.Sprintf(head, "POST /v1/chat/completions") + "Content-Length: 1000\r\n\r\n", http.StatusUnauthorized},
		"without a key, cut":  {fmt.Sprintf(head, "POST /v1/chat/completions") + "Transfer-Encoding: chunked\r\n\r\n5\r\n", http.StatusUnauthorized},
		"with a key":          {fmt.Sprintf(head, "POST /v1/chat/completions") + "X-API-Key: " + key + "\r\nContent-Length: 1000\r\n\r\n{", http.StatusRequestTimeout},
		"at no path":          {fmt.Sprintf(head, "POST /v1/nothing") + "Content-Length: 1000\r\n\r\n", http.StatusNotFound},
		"with a GET":          {fmt.Sprintf(head, "GET /healthz") + "Content-Length: 1000\r\n\r\n", http.StatusOK},
		"of the wrong type":   {fmt.Sprintf(head, "POST /v1/embeddings") + "Content-Encoding: gzip\r\nX-API-Key: " + key + "\r\nContent-Length: 1000\r\n\r\n", http.StatusUnsupportedMediaType},
		"in chunks that stop": {fmt.Sprintf(head, "POST /v1/embeddings") + "X-API-Key: " + key + "\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{    \r\n", http.StatusRequestTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := build(t, setting{bodyTimeout: 100 * time.Millisecond}, "http://127.0.0.1:1")
			conn, status := h.raw(tc.request)
			if status != tc.want {
				t.Errorf("status %d, want %d", status, tc.want)
			}
			_ = conn.SetReadDeadline(time.Now().Add(hang))
			if _, err := io.Copy(io.Discard, conn); err != nil && strings.Contains(err.Error(), "timeout") {
				t.Error("the connection stays open: ", err)
			}
		})
	}
}

func TestARefusalOfAWholeBodyKeepsTheConnection(t *testing.T) {
	inBubble(t, setting{bodyTimeout: 200 * time.Millisecond}, says(""), func(t *testing.T, h *house) {
		request := "POST /v1/chat/completions HTTP/1.1\r\nHost: router\r\nContent-Length: 2\r\n\r\n{}"
		conn, status := h.raw(request)
		time.Sleep(500 * time.Millisecond) // Longer than any limit of the first request's body.
		if _, err := io.WriteString(conn, request); err != nil || status != http.StatusUnauthorized {
			t.Fatal(status, err)
		}
		_ = conn.SetReadDeadline(time.Now().Add(hang))
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusUnauthorized {
			t.Error(resp.Status)
		}
	})
}

// The write timeout is the client's time, not the backend's: a stream may pause for longer.
func TestAPauseOfTheBackendIsNotHeldAgainstTheClient(t *testing.T) {
	long := delta(strings.Repeat("a long piece ", 4<<10)) // Larger than every buffer on the way.
	answer := func(conn net.Conn, _ string) {
		_, _ = io.WriteString(conn, streamed(opening, delta("Hel")))
		time.Sleep(700 * time.Millisecond)
		_, _ = io.WriteString(conn, strings.SplitAfterN(streamed(long), "\r\n\r\n", 2)[1])
		time.Sleep(700 * time.Millisecond)
		_, _ = io.WriteString(conn, strings.SplitAfterN(streamed(finish, done), "\r\n\r\n", 2)[1]+lastChunk)
	}
	overBoth(t, setting{writeTimeout: 200 * time.Millisecond}, answer, func(t *testing.T, h *house, client *http.Client) {
		resp, err := client.Do(h.request("/v1/chat/completions", streamChat))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if got := body(t, resp); got != opening+delta("Hel")+long+finish+done {
			t.Errorf("%d bytes, want all", len(got))
		}
	})
}

func TestABackendThatFallsSilentEndsInAnErrorEventHoweverShortTheWriteTimeoutIs(t *testing.T) {
	set := setting{
		writeTimeout: 100 * time.Millisecond,
		specs:        func(s *fleet.Spec) { s.Timeouts.BetweenBytes = 500 * time.Millisecond },
	}
	overBoth(t, set, says(streamed(opening, delta("Hel"))), func(t *testing.T, h *house, client *http.Client) {
		resp, err := client.Do(h.request("/v1/chat/completions", streamChat))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		content, err := io.ReadAll(resp.Body)
		if err == nil {
			t.Error("the stream ends cleanly")
		}
		if !strings.HasSuffix(string(content), "\n\n") || !strings.Contains(string(content), "backend_timeout") {
			t.Errorf("no error event at the end of %q", content)
		}
		if rec := h.closed(1); rec.StopReason != usage.StopTimeout || !rec.Truncated {
			t.Errorf("record %+v", rec)
		}
	})
}

func TestAClientThatDoesNotReadIsGoneAfterTheWriteTimeout(t *testing.T) {
	flood := delta(strings.Repeat("x", 32<<10))
	answer := func(conn net.Conn, _ string) {
		_, _ = io.WriteString(conn, streamed(opening))
		for piece := fmt.Sprintf("%x\r\n%s\r\n", len(flood), flood); ; {
			if _, err := io.WriteString(conn, piece); err != nil {
				return
			}
		}
	}
	overBoth(t, setting{writeTimeout: 200 * time.Millisecond}, answer, func(t *testing.T, h *house, client *http.Client) {
		resp, err := client.Do(h.request("/v1/chat/completions", streamChat))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if rec := h.closed(1); rec.StopReason != usage.StopClientGone {
			t.Errorf("record %+v", rec)
		}
	})
}

// Engines send the head of a stream at once and its first byte after the prefill: that is what first_byte bounds.
func TestTheFirstByteOfAStreamMayTakeAsLongAsItMay(t *testing.T) {
	answer := func(conn net.Conn, _ string) {
		_, _ = io.WriteString(conn, streamed())
		time.Sleep(600 * time.Millisecond)
		_, _ = io.WriteString(conn, strings.SplitAfterN(streamed(opening, delta("Hel"), finish, done), "\r\n\r\n", 2)[1]+lastChunk)
	}
	inBubble(t, setting{specs: func(s *fleet.Spec) { s.Timeouts.BetweenBytes = 200 * time.Millisecond }}, answer, func(t *testing.T, h *house) {
		resp := h.post("/v1/chat/completions", streamChat)
		if content := body(t, resp); resp.StatusCode != http.StatusOK || !strings.Contains(content, "[DONE]") {
			t.Errorf("%d %q", resp.StatusCode, content)
		}
	})
}

func TestAFailureWithoutItsBodyFailsOverAtOnce(t *testing.T) {
	bad := play(t, says("HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"))
	good := play(t, says(plain(http.StatusOK, "application/json", `{"choices":[]}`)))
	never := func(s *fleet.Spec) { // Whoever waits for the body waits longer than the client.
		s.Timeouts = fleet.Timeouts{Connect: time.Hour, FirstByte: time.Hour, BetweenBytes: time.Hour, Total: time.Hour}
	}
	h := build(t, setting{specs: never}, bad.URL, good.URL)
	ctx, cancel := context.WithTimeout(t.Context(), hang)
	defer cancel()
	resp := h.send(h.request("/v1/chat/completions", chat).WithContext(ctx))
	if content := body(t, resp); resp.StatusCode != http.StatusOK {
		t.Errorf("%d %s", resp.StatusCode, content)
	}
}

func TestAnErrorEventThatWasCutEndsInAWholeOne(t *testing.T) {
	backend := play(t, func(conn net.Conn, _ string) {
		_, _ = io.WriteString(conn, streamed(opening, delta("Hel"), `data: {"error":{"message":"out of memory"}}`)+lastChunk)
	})
	h := build(t, setting{}, backend.URL)
	content, err := io.ReadAll(h.post("/v1/chat/completions", streamChat).Body)
	if err == nil || !strings.HasSuffix(string(content), "\n\n") || !strings.Contains(string(content), `"error"`) {
		t.Errorf("%v after %q", err, content)
	}
}

// overBoth is inBubble for an HTTP/1.1 and for an HTTP/2 client.
func overBoth(t *testing.T, set setting, answer func(conn net.Conn, body string), test func(t *testing.T, h *house, client *http.Client)) {
	t.Helper()
	for _, version := range []string{"HTTP/1.1", "HTTP/2"} {
		t.Run(version, func(t *testing.T) {
			inBubble(t, set, answer, func(t *testing.T, h *house) {
				protocols := new(http.Protocols)
				protocols.SetHTTP1(version == "HTTP/1.1")
				protocols.SetUnencryptedHTTP2(version == "HTTP/2")
				client := &http.Client{Transport: &http.Transport{Protocols: protocols, DialContext: h.dial}}
				t.Cleanup(client.CloseIdleConnections)
				test(t, h, client)
			})
		})
	}
}

func TestTheTimeOfTheUploadIsNotTheRouters(t *testing.T) {
	inBubble(t, setting{}, says(plain(http.StatusOK, "application/json", `{"choices":[]}`)), func(t *testing.T, h *house) {
		conn := h.connect()
		go func() { _, _ = io.Copy(io.Discard, conn) }()
		_, _ = fmt.Fprintf(conn, "POST /v1/chat/completions HTTP/1.1\r\nHost: router\r\nX-API-Key: %s\r\nContent-Length: %d\r\n\r\n%s", key, len(chat), chat[:10])
		time.Sleep(1500 * time.Millisecond)
		_, _ = io.WriteString(conn, chat[10:])
		if rec := h.closed(1); rec.Status != http.StatusOK || rec.RouterMillis > 1 || rec.LatencyMillis < 1500 {
			t.Errorf("record %+v", rec)
		}
		lines, err := os.ReadFile(h.records)
		if first, _, _ := strings.Cut(string(lines), "\n"); err != nil || !strings.Contains(first, `"type":"open"`) || strings.Contains(first, usage.StopDone) {
			t.Errorf("%v: the open line knows the end: %s", err, first)
		}
	})
}

func TestAClientThatLeavesWithinItsBodyIsRecordedAsGone(t *testing.T) {
	h := build(t, setting{}, "http://127.0.0.1:1")
	conn := h.connect()
	_, _ = fmt.Fprintf(conn, "POST /v1/chat/completions HTTP/1.1\r\nHost: router\r\nX-API-Key: %s\r\nContent-Length: 100\r\n\r\n{", key)
	_ = conn.Close()
	if rec := h.closed(1); rec.StopReason != usage.StopClientGone || rec.Attempts != 0 {
		t.Errorf("record %+v", rec)
	}
}

// Over HTTP/2, "Connection: close" becomes a GOAWAY: behind a proxy, one client could end everybody's connection again and again.
func TestARefusalEndsNoSharedConnection(t *testing.T) {
	h := build(t, setting{}, "http://127.0.0.1:1")
	var dials atomic.Int64
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	client := &http.Client{Transport: &http.Transport{Protocols: protocols, DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		dials.Add(1)
		return new(net.Dialer).DialContext(ctx, network, address)
	}}}
	t.Cleanup(client.CloseIdleConnections)
	for range 3 {
		twice := h.request("/v1/chat/completions", `{"model":"m","model":"m","messages":[1]}`)
		underscore := h.request("/v1/chat/completions", `{}`)
		underscore.Header["x_api_key"] = []string{"other"}
		for _, req := range []*http.Request{twice, underscore} {
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = body(t, resp)
			_ = resp.Body.Close()
			if resp.StatusCode != http.StatusBadRequest {
				t.Error(resp.Status)
			}
		}
	}
	if n := dials.Load(); n != 1 {
		t.Errorf("%d connections for one client", n)
	}
}
