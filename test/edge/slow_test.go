package edge

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ai-aas/api-router/internal/app"
)

// short are limits that a test can wait for, and that a good request keeps on a busy machine.
func short(c *app.Config) {
	c.Server.HeaderTimeout = time.Second
	c.Server.BodyTimeout = time.Second
	c.Server.IdleTimeout = time.Second
	c.Server.WriteTimeout = time.Second
}

func TestClientsThatAreSlowAreLetGo(t *testing.T) {
	r := start(t, short)
	for name, tc := range map[string]struct {
		send   string
		drip   string // comes byte by byte, for ever
		status int    // 0 for no answer, or for net/http's 400, if it finds that what has come so far is no request
		code   string
	}{
		"nothing":                           {},
		"half a head":                       {send: good[:80]},
		"a head, line by line":              {send: "GET /healthz HTTP/1.1\r\n", drip: "A: b\r\n"},
		"a head of HTTP/2":                  {send: "PRI * HTTP/2.0\r\n"},
		"half a body":                       {send: good[:len(good)-10], status: 408, code: "request_timeout"},
		"a body, byte by byte":              {send: chat(strings.Repeat(" ", 10_000))[:200], drip: " ", status: 408, code: "request_timeout"},
		"chunks, byte by byte":              {send: chunks(""), drip: "1\r\n \r\n", status: 408, code: "request_timeout"},
		"a chunk's size, digit by digit":    {send: chunks(""), drip: "0", status: 408, code: "request_timeout"},
		"half a body, without a key":        {send: strings.Replace(good[:len(good)-10], key, "", 1), status: 401, code: "missing_api_key"},
		"half a body, to nowhere":           {send: strings.Replace(good[:len(good)-10], "chat", "shat", 1), status: 404, code: "not_found"},
		"half a body, refused by the door":  {send: strings.Replace(good[:len(good)-10], "Host: router", "Host: router\r\nX_Y: z", 1), status: 400, code: "invalid_request"},
		"a good request, and then nothing":  {send: good, status: 200},
		"a good request, and half a second": {send: good + good[:80], status: 200},
		"no continuation":                   {send: strings.TrimSuffix(chat(hello, "Expect: 100-continue"), hello), status: 100},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn := r.dial(t)
			_, _ = io.WriteString(conn, tc.send)
			if tc.drip != "" {
				go drip(conn, tc.drip)
			}
			from := bufio.NewReader(conn)
			got := receive(from, http.MethodPost)
			code, _ := got.refusal()
			noRequest := tc.status == 0 && got.status == http.StatusBadRequest
			if got.status != tc.status && !noRequest || code != tc.code {
				t.Errorf("got %+v", got)
			}
			if _, err := io.Copy(io.Discard, from); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("the connection stays open")
			}
		})
	}
	t.Run("a good one beside them", func(t *testing.T) {
		t.Parallel()
		r.works(t)
	})
}

// drip sends text byte by byte until the connection ends, faster than any limit.
func drip(conn net.Conn, text string) {
	for i := 0; ; i++ {
		if _, err := conn.Write([]byte{text[i%len(text)]}); err != nil {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// A client that sends request after request and reads no answer fills every buffer on the way. Then it has to go.
func TestAClientThatNeverReadsIsLetGo(t *testing.T) {
	r := start(t, short)
	for name, request := range map[string]string{
		"health":       get("/healthz"),
		"models":       get("/v1/models"),
		"no path":      get("/v1/nothing"),
		"no key":       strings.Replace(good, key, "", 1),
		"no JSON":      chat("{"),
		"chats":        good,
		"whole chunks": strings.Replace(good, "/v1", "//v1", 1),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn := r.dialWith(t, net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
				return c.Control(func(fd uintptr) { // So that less is needed to fill every buffer. Later the kernel would take it amiss.
					_ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4<<10)
				})
			}})
			for {
				_ = conn.SetWriteDeadline(time.Now().Add(hang)) // As long as the router reads, the buffers are not full yet.
				if _, err := io.WriteString(conn, request); errors.Is(err, os.ErrDeadlineExceeded) {
					t.Fatal("the connection stays open")
				} else if err != nil {
					return
				}
			}
		})
	}
	t.Run("a good one beside them", func(t *testing.T) {
		t.Parallel()
		r.works(t)
	})
}

// Expect: 100-continue asks whether the body is wanted. It is told so only once the head alone gives no reason to refuse it.
func TestContinueIsSaidOnlyToWhoMaySend(t *testing.T) {
	r := start(t, nil)
	ask := func(lines ...string) string {
		return request("POST /v1/chat/completions HTTP/1.1", append(lines, "Expect: 100-continue")...)
	}
	length := "Content-Length: " + number(len(hello))
	for name, tc := range map[string]struct {
		send string
		want []int
	}{
		"welcome":        {ask(length), []int{100, 200}},
		"no key":         {strings.Replace(ask(length), "X-API-Key", "X-No-Key", 1), []int{401}},
		"a wrong key":    {strings.Replace(ask(length), key, "sk-1", 1), []int{401}},
		"two keys":       {ask(length, "X-API-Key: b"), []int{400}},
		"no path":        {strings.Replace(ask(length), "chat", "shat", 1), []int{404}},
		"too large":      {ask("Content-Length: 1048577"), []int{413}},
		"compressed":     {ask(length, "Content-Encoding: gzip"), []int{415}},
		"over HTTP/1.0":  {strings.Replace(ask(length), "HTTP/1.1", "HTTP/1.0", 1), []int{400}},
		"with an answer": {ask(length) + hello, []int{100, 200}},
	} {
		t.Run(name, func(t *testing.T) {
			conn := r.dial(t)
			_, _ = io.WriteString(conn, tc.send)
			from := bufio.NewReader(conn)
			for i, want := range tc.want {
				got := receive(from, http.MethodPost)
				if got.status != want {
					t.Fatalf("answer %d is %+v, want %d", i, got, want)
				}
				if want == http.StatusContinue && !strings.HasSuffix(tc.send, hello) {
					_, _ = io.WriteString(conn, hello)
				}
			}
			if len(tc.want) == 1 && !closed(from) {
				t.Error("the connection stays open, and nobody knows whether a body follows")
			}
		})
	}
	r.works(t)
}
