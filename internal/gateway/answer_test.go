package gateway_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ai-aas/api-router/internal/fleet"
)

// odd is an answer that no encoder would write: key order, spacing, numbers and unknown fields must survive.
const odd = "{ \"z\":1.0e+2,\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":7,\"prompt_tokens_details\":{\"cached_tokens\":3}} , \"a\":[1E5 ,-0],\n\t\"x_new\":{\"\\u00e9\":\"\\ud83d\\ude00\"},\"reasoning\":\"…\"}\r\n"

func TestBodiesPassUnchangedInBothDirections(t *testing.T) {
	backend := play(t, says(plain(200, "application/json", odd)))
	h := build(t, setting{}, backend.URL)
	request := "{\n \"temperature\":1.50e0 ,\"messages\":[{\"content\":\"\\u0041 é\",\"role\":\"user\"}],\"x_unknown\":[null,{}],\"model\":\"m\"} \n"
	resp := h.post("/v1/chat/completions", request)
	if got := body(t, resp); resp.StatusCode != 200 || got != odd {
		t.Errorf("%d %q", resp.StatusCode, got)
	}
	if got := backend.bodies(); len(got) != 1 || got[0] != request {
		t.Errorf("the backend got %q", got)
	}
	for name, want := range map[string]string{"X-Routing-Backend": "b0", "X-Routing-Decision": "PRIMARY", "X-Routing-Attempts": "1", "Content-Type": "application/json"} {
		if got := resp.Header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if got := resp.Header.Get("Server-Timing"); !strings.HasPrefix(got, "router;dur=") {
		t.Errorf("server-timing: %q", got)
	}
	rec := h.closed(1)
	if rec.PromptTokens != 5 || rec.CachedTokens != 3 || rec.CompletionTokens != 7 || rec.UsageSource != "reported" || rec.Status != 200 ||
		rec.StopReason != "done" || rec.Organization != "acme" || rec.KeyID == "" || rec.Policy != "p" || rec.Attempts != 1 {
		t.Errorf("%+v", rec)
	}
}

func TestTheModelAliasIsSplicedAndNothingElse(t *testing.T) {
	backend := play(t, says(plain(200, "application/json", `{}`)))
	h := build(t, setting{specs: func(s *fleet.Spec) { s.Models = map[string]string{"m": "vendor/m-1"} }}, backend.URL)
	for _, model := range []string{"m", "alias"} {
		h.post("/v1/completions", `{"prompt": "a" , "model" : "`+model+`","n":1}`)
	}
	for _, got := range backend.bodies() {
		if got != `{"prompt": "a" , "model" : "vendor/m-1","n":1}` {
			t.Errorf("%q", got)
		}
	}
}

func TestTheBackendSeesNothingOfTheClientButTheTrace(t *testing.T) {
	var head http.Header
	engine := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		head = r.Header
		w.Header().Set("Set-Cookie", "a=b")
		w.Header().Set("Server", "internal-name")
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{}`)
	}), ReadHeaderTimeout: hang}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = engine.Serve(listener) }()
	t.Cleanup(func() { _ = engine.Close() })

	h := build(t, setting{specs: func(s *fleet.Spec) { s.APIKey = "backend-secret" }}, "http://"+listener.Addr().String())
	req := h.request("/v1/chat/completions", chat)
	for name, value := range map[string]string{
		"Cookie": "c", "Baggage": "b", "X-Forwarded-For": "1.2.3.4", "Openai-Organization": "o", "X-Custom": "x",
		"X-Request-Id": "mine", "Traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
	} {
		req.Header.Set(name, value)
	}
	resp := h.send(req)
	_ = body(t, resp)
	for name, values := range head {
		switch name {
		case "Content-Type", "Content-Length", "Accept", "Accept-Encoding", "User-Agent", "Traceparent":
		case "Authorization":
			if values[0] != "Bearer backend-secret" {
				t.Errorf("Authorization: %q", values)
			}
		case "X-Request-Id":
			if values[0] == "mine" || values[0] != resp.Header.Get("X-Request-Id") {
				t.Errorf("X-Request-Id: %q", values)
			}
		default:
			t.Errorf("the backend saw %s: %q", name, values)
		}
	}
	if resp.Header.Get("Set-Cookie") != "" || resp.Header.Get("Server") != "" {
		t.Errorf("the client saw %v", resp.Header)
	}
	if rec := h.closed(1); rec.ClientRequestID != "mine" {
		t.Errorf("client_request_id %q", rec.ClientRequestID)
	}
}

func TestFailoverBeforeTheFirstByte(t *testing.T) { onBoth(t, failover) }

func failover(t *testing.T, way setting) {
	good := func(t *testing.T) string {
		t.Helper()
		return play(t, says(plain(200, "application/json", `{"ok":1}`))).URL
	}
	answer := func(text string) func(t *testing.T) string {
		return func(t *testing.T) string { t.Helper(); return play(t, says(text)).URL }
	}
	const inTime, silent = "no header in time", "silent in the body"
	for name, tc := range map[string]struct {
		first func(t *testing.T) string
		code  string // what a client sees when there is no second backend; net/http cannot tell bad HTTP from a broken connection
	}{
		"nobody listens": {func(*testing.T) string { return "http://127.0.0.1:1" }, "backend_error"},
		"closes at once": {func(t *testing.T) string {
			t.Helper()
			return play(t, func(c net.Conn, _ string) { _ = c.Close() }).URL
		}, "backend_error"},
		"500":                {answer(plain(500, "text/plain", "oops")), "backend_error"},
		"502":                {answer(plain(502, "text/html", "<html>")), "backend_error"},
		"503":                {answer(plain(503, "text/plain", "loading")), "backend_overloaded"},
		"429":                {answer(plain(429, "application/json", "{}")), "backend_overloaded"},
		"our credential":     {answer(plain(401, "application/json", "{}")), "backend_credentials_rejected"},
		"a redirect":         {answer("HTTP/1.1 307 T\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"), "backend_protocol_error"},
		"200 with HTML":      {answer(plain(200, "text/html", "<html>")), "backend_protocol_error"},
		"200 with an error":  {answer(plain(200, "application/json", `{"error":{"message":"CUDA"}}`)), "backend_error"},
		"200 with nothing":   {answer(plain(200, "application/json", "")), "backend_protocol_error"},
		"gzip not asked for": {answer("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc"), "backend_protocol_error"},
		"not HTTP":           {answer("SSH-2.0-OpenSSH_9\r\n"), "backend_protocol_error"},
		"resets at once":     {func(t *testing.T) string { t.Helper(); return play(t, reset("")).URL }, "backend_error"},
		"resets in the body": {func(t *testing.T) string {
			t.Helper()
			return play(t, reset("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{\"a\"")).URL
		}, "backend_error"},
		"two lengths":        {answer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}"), "backend_protocol_error"},
		"breaks in the head": {func(t *testing.T) string { t.Helper(); return play(t, hangUp("HTTP/1.1 200 OK\r\nConte")).URL }, "backend_error"},
		"breaks in the body": {func(t *testing.T) string {
			t.Helper()
			return play(t, hangUp("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{\"a\"")).URL
		}, "backend_error"},
		inTime:      {func(t *testing.T) string { t.Helper(); return play(t, func(net.Conn, string) {}).URL }, "backend_timeout"},
		silent:      {answer("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{\"a\""), "backend_timeout"},
		"huge head": {answer("HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 1<<20) + "\r\nContent-Length: 2\r\n\r\n{}"), "backend_protocol_error"},
	} {
		t.Run(name, func(t *testing.T) {
			way := way
			way.specs = func(s *fleet.Spec) {
				if s.ID == "b0" && (name == inTime || name == silent) { // The others may take their time.
					s.Timeouts.Total = time.Second
				}
			}
			h := build(t, way, tc.first(t), good(t))
			resp := h.post("/v1/chat/completions", chat)
			if got := body(t, resp); resp.StatusCode != 200 || got != `{"ok":1}` || resp.Header.Get("X-Routing-Decision") != "FAILOVER" ||
				resp.Header.Get("X-Routing-Attempts") != "2" || resp.Header.Get("X-Routing-Backend") != "b1" {
				t.Errorf("%d %q %v", resp.StatusCode, got, resp.Header)
			}
			alone := build(t, way, tc.first(t))
			resp = alone.post("/v1/chat/completions", chat)
			code, _, message := refusal(t, resp)
			if code != tc.code && (strings.HasPrefix(t.Name(), "TestFailoverBeforeTheFirstByte/own") || code != "backend_error") {
				t.Errorf("alone: %d %s %s", resp.StatusCode, code, message)
			}
			if strings.Contains(message, "127.0.0.1") || strings.Contains(message, "CUDA") {
				t.Errorf("the client learns internals: %s", message)
			}
		})
	}
}

func hangUp(text string) func(net.Conn, string) {
	return func(conn net.Conn, _ string) { _, _ = io.WriteString(conn, text); _ = conn.Close() }
}

func TestARefusalOfTheRequestPassesAsItIsAndIsNotRetried(t *testing.T) {
	for _, status := range []int{400, 403, 404, 409, 413, 422} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			content := `{"error":{"message":"context too long","type":"BadRequestError","param":null,"code":400}, "x" : 1}`
			first, second := play(t, says(plain(status, "application/json", content))), play(t, says(plain(200, "application/json", `{}`)))
			h := build(t, setting{}, first.URL, second.URL)
			for n := range 6 { // More than the threshold that ejects.
				resp := h.post("/v1/chat/completions", chat)
				if got := body(t, resp); resp.StatusCode != status || got != content {
					t.Fatalf("request %d: %d %s", n, resp.StatusCode, got)
				}
			}
			if len(second.bodies()) != 0 {
				t.Error("the request was retried")
			}
			if rec := h.closed(1); rec.StopReason != "refused" || rec.Status != status {
				t.Errorf("%+v", rec)
			}
		})
	}
}

func TestAKeyThatABackendRepeatsIsNotPassedOn(t *testing.T) {
	const repeated = `{"error":{"message":"%s is not a model that %s may use","type":"BadRequestError","param":null,"code":400}}`
	told := fmt.Sprintf(repeated, "m", "[secret]")
	for name, tc := range map[string]struct{ key, ask, answer, want string }{
		"a refusal": {"backend-secret", chat, plain(400, "application/json", fmt.Sprintf(repeated, "m", "backend-secret")), told},
		"an error event": {
			"backend-secret", streamChat, plain(200, "text/event-stream", "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hel\"}}]}\n\ndata: "+fmt.Sprintf(repeated, "m", "backend-secret")+"\n\n"), told,
		},
		"a word that is no secret": {"EMPTY", chat, plain(400, "application/json", fmt.Sprintf(repeated, "m", "EMPTY")), fmt.Sprintf(repeated, "m", "EMPTY")},
	} {
		t.Run(name, func(t *testing.T) {
			h := build(t, setting{specs: func(s *fleet.Spec) { s.APIKey = fleet.Secret(tc.key) }}, play(t, says(tc.answer)).URL)
			resp := h.post("/v1/chat/completions", tc.ask)
			got, _ := io.ReadAll(resp.Body) // A stream that ends in an error is cut.
			if !strings.Contains(string(got), tc.want) {
				t.Errorf("got %d %s", resp.StatusCode, got)
			}
		})
	}
}

func TestALongAnswerPassesWholeAndItsBreakIsSeen(t *testing.T) {
	long := `{"data":["` + strings.Repeat("x", 3<<20) + `"],"usage":{"prompt_tokens":4,"total_tokens":4}}`
	h := build(t, setting{}, play(t, says(plain(200, "application/json", long))).URL)
	if got := body(t, h.post("/v1/embeddings", `{"model":"m","input":"a"}`)); got != long {
		t.Errorf("%d bytes of %d", len(got), len(long))
	}
	if rec := h.closed(1); rec.PromptTokens != 4 || rec.BytesOut != int64(len(long)) {
		t.Errorf("%+v", rec)
	}
	whole := plain(200, "application/json", long)
	h = build(t, setting{}, play(t, hangUp(whole[:2<<20])).URL)
	resp := h.post("/v1/embeddings", `{"model":"m","input":"a"}`)
	if content, err := io.ReadAll(resp.Body); err == nil {
		t.Errorf("a broken answer of %d bytes ends cleanly", len(content))
	}
	if rec := h.closed(1); !rec.Truncated || rec.StopReason != "backend_error" {
		t.Errorf("%+v", rec)
	}
}

func TestTheBodiesOfAllRequestsShareABoundedMemory(t *testing.T) {
	started, answer := make(chan struct{}), make(chan struct{})
	backend := play(t, func(conn net.Conn, content string) {
		if len(content) > 100_000 {
			started <- struct{}{}
			<-answer
		}
		_, _ = io.WriteString(conn, plain(200, "application/json", `{"ok":1}`))
	})
	h := build(t, setting{maxBody: 4 << 20, bodyMemory: 1500 << 10}, backend.URL)
	large := chat[:len(chat)-4] + strings.Repeat("x", 700_000) + chat[len(chat)-4:]
	first := make(chan *http.Response)
	go func() { first <- h.post("/v1/chat/completions", large) }()
	<-started

	resp := h.post("/v1/chat/completions", large)
	if code, _, _ := refusal(t, resp); resp.StatusCode != 429 || code != "queue_full" || resp.Header.Get("Retry-After") != "1" {
		t.Errorf("a second large body: %d %s", resp.StatusCode, code)
	}
	if resp := h.post("/v1/chat/completions", chat); resp.StatusCode != 200 {
		t.Errorf("a small body beside it: %d", resp.StatusCode)
	}
	answer <- struct{}{}
	if resp := <-first; resp.StatusCode != 200 {
		t.Errorf("the first: %d", resp.StatusCode)
	}
	for range 20 { // What was taken was given back, also by the refusals.
		go func() { <-started; answer <- struct{}{} }()
		if resp := h.post("/v1/chat/completions", large); resp.StatusCode != 200 {
			t.Fatalf("afterwards: %d", resp.StatusCode)
		}
	}
}

func TestPooledBodiesNeverMix(t *testing.T) {
	backend := play(t, func(conn net.Conn, content string) {
		_, _ = io.WriteString(conn, plain(200, "application/json", content))
	})
	h := build(t, setting{}, backend.URL, backend.URL)
	h.Client().Transport.(*http.Transport).MaxIdleConnsPerHost = 32
	var wg sync.WaitGroup
	for worker := range 16 {
		wg.Go(func() {
			for n := range 40 {
				mark := strings.Repeat(fmt.Sprintf("<%d.%d>", worker, n), 1+(worker*7919+n*104729)%9000)
				request := `{"model":"m","messages":[{"role":"user","content":"` + mark + `"}]}`
				if got := body(t, h.post("/v1/chat/completions", request)); got != request {
					t.Errorf("worker %d, request %d: got another request's bytes", worker, n)
					return
				}
			}
		})
	}
	wg.Wait()
}
