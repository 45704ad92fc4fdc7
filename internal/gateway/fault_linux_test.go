package gateway_test

import (
	"fmt"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/ai-aas/api-router/internal/fleet"
)

// deaf is an address whose SYNs are dropped: a listener whose queue is full, and that accepts nobody.
func deaf(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	address := fmt.Sprintf("127.0.0.1:%d", name.(*syscall.SockaddrInet4).Port)
	for range 16 {
		conn, err := (&net.Dialer{Timeout: 200 * time.Millisecond}).DialContext(t.Context(), "tcp", address)
		if err != nil {
			return "http://" + address
		}
		t.Cleanup(func() { _ = conn.Close() })
	}
	t.Fatal("the queue of a listener does not fill up on this system: nothing stands for a dropped SYN")
	return ""
}

func TestDroppedConnectionAttemptsFailOverAfterTheConnectTimeout(t *testing.T) {
	onBoth(t, func(t *testing.T, way setting) {
		way.specs = func(s *fleet.Spec) {
			if s.ID == "b0" { // The good one may take its time.
				s.Timeouts.Connect = 200 * time.Millisecond
			}
		}
		h := build(t, way, deaf(t), play(t, says(plain(200, "application/json", `{"ok":1}`))).URL)
		start := time.Now()
		resp := h.post("/v1/chat/completions", chat)
		if got := body(t, resp); resp.StatusCode != 200 || resp.Header.Get("X-Routing-Attempts") != "2" {
			t.Errorf("%d %s after %s attempts", resp.StatusCode, got, resp.Header.Get("X-Routing-Attempts"))
		}
		if took := time.Since(start); took < 200*time.Millisecond || took > 10*time.Second {
			t.Errorf("after %v", took)
		}
		alone := build(t, way, deaf(t))
		if code, _, _ := refusal(t, alone.post("/v1/chat/completions", chat)); code != "backend_error" {
			t.Errorf("alone: %s", code)
		}
	})
}
