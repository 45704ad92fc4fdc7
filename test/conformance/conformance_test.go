package conformance

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/ai-aas/api-router/internal/app"
	"github.com/ai-aas/api-router/test/leaks"
)

const (
	key            = "test-vllm-key"
	model          = "gpt-oss-20b"
	clientDeadline = 3 * time.Minute // a hang detector, not a measure
)

func TestMain(m *testing.M) { leaks.Main(m) }

// router is a running "api-router dev".
type router struct {
	base string // http://localhost:PORT
	call string // the command that its banner ends in
}

var callLine = regexp.MustCompile(`^curl -X POST (http://[^/]+)/v1/chat/completions .*$`)

// start runs dev on a free port until the test ends, and returns when its banner has told how to call it.
func start(t *testing.T) router {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	read, write := io.Pipe()
	log := &bytes.Buffer{}
	ended := make(chan error, 1)
	go func() {
		err := app.Dev(ctx, app.Process{Version: "test", Stdout: write, Stderr: log}, app.DevOptions{Listen: "127.0.0.1:0", Data: t.TempDir()})
		write.CloseWithError(errors.Join(errors.New("dev ended"), err))
		ended <- err
	}()
	t.Cleanup(func() {
		cancel()
		_, _ = io.Copy(io.Discard, read)
		if err := <-ended; err != nil {
			t.Errorf("dev ended with: %v", err)
		}
		if t.Failed() {
			t.Logf("the router's log:\n%s", log)
		}
	})
	lines := bufio.NewScanner(read)
	for lines.Scan() {
		if match := callLine.FindStringSubmatch(lines.Text()); match != nil {
			go func() { _, _ = io.Copy(io.Discard, read) }()
			return router{base: match[1], call: match[0]}
		}
	}
	t.Fatalf("dev printed no curl: %v", lines.Err())
	return router{}
}

// TestBannerCall runs the last line of dev's banner as a person would: pasted into a shell.
func TestBannerCall(t *testing.T) {
	for _, tool := range []string{"sh", "curl"} {
		if _, err := exec.LookPath(tool); err != nil {
			missing(t, "there is no "+tool)
		}
	}
	r := start(t)
	want := `curl -X POST ` + r.base + `/v1/chat/completions -H "X-API-Key: test-vllm-key" -H "Content-Type: application/json" ` +
		`-d '{"model": "gpt-oss-20b", "messages": [{"role": "user", "content": "Hello!"}]}'`
	if r.call != want {
		t.Errorf("the banner's call is\n%s\nwant\n%s", r.call, want)
	}
	ctx, cancel := context.WithTimeout(t.Context(), clientDeadline)
	defer cancel()
	output, err := exec.CommandContext(ctx, "sh", "-c", r.call+" --silent --show-error --fail-with-body").Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	checkChat(t, output)
}

func checkChat(t *testing.T, body []byte) {
	t.Helper()
	var answer struct {
		Object  string `json:"object"`
		Model   string `json:"model"`
		Choices []struct {
			Message struct{ Role, Content string } `json:"message"`
			Reason  string                         `json:"finish_reason"`
		} `json:"choices"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		t.Fatalf("%v\n%s", err, body)
	}
	if answer.Object != "chat.completion" || answer.Model != model || len(answer.Choices) != 1 ||
		answer.Choices[0].Message.Role != "assistant" || answer.Choices[0].Message.Content == "" || answer.Choices[0].Reason == "" {
		t.Errorf("not a chat completion:\n%s", body)
	}
}

// post sends a body with a key, and returns the answer with its body read whole.
func post(t *testing.T, url, apiKey, body string) (*http.Response, []byte) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	if apiKey != "" {
		request.Header.Set("X-API-Key", apiKey)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: clientDeadline}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response, content
}

func TestPlainRequests(t *testing.T) {
	r := start(t)
	chat := r.base + "/v1/chat/completions"
	t.Run("chat", func(t *testing.T) {
		response, body := post(t, chat, key, `{"model": "gpt-oss-20b", "messages": [{"role": "user", "content": "Hello!"}]}`)
		if response.StatusCode != http.StatusOK || response.Header.Get("X-Request-Id") == "" {
			t.Fatalf("status %d, headers %v\n%s", response.StatusCode, response.Header, body)
		}
		checkChat(t, body)
	})
	t.Run("stream ends in DONE", func(t *testing.T) {
		response, body := post(t, chat, key, `{"model": "gpt-oss-20b", "stream": true, "messages": [{"role": "user", "content": "Hello!"}]}`)
		if response.StatusCode != http.StatusOK || !strings.HasPrefix(response.Header.Get("Content-Type"), "text/event-stream") {
			t.Fatalf("status %d, headers %v\n%s", response.StatusCode, response.Header, body)
		}
		if bytes.Count(body, []byte("data: {")) < 3 || !bytes.HasSuffix(body, []byte("data: [DONE]\n\n")) || bytes.Contains(body, []byte(`"usage"`)) {
			t.Errorf("not the stream that was asked for:\n%s", body)
		}
	})
	cases := []struct {
		name, key, body string
		status          int
		code, says      string
	}{
		{"no key", "", `{}`, http.StatusUnauthorized, "missing_api_key", "authentication required"},
		{"unknown key", "sk-1234", `{}`, http.StatusUnauthorized, "invalid_api_key", "test-"},
		{"unknown model", key, `{"model": "gpt-4", "messages": [{"role": "user", "content": "Hello!"}]}`, http.StatusNotFound, "model_not_found", "no routing policy configured for model"},
		{"no model", key, `{"messages": [{"role": "user", "content": "Hello!"}]}`, http.StatusBadRequest, "invalid_request", "model"},
		{"no messages", key, `{"model": "gpt-oss-20b"}`, http.StatusBadRequest, "invalid_request", "messages"},
		{"two models", key, `{"model": "gpt-oss-20b", "model": "gpt-oss-20b", "messages": [{"role": "user", "content": "Hello!"}]}`, http.StatusBadRequest, "ambiguous_request", "model"},
		{"cut body", key, `{"model": "gpt-oss-20b", "mess`, http.StatusBadRequest, "invalid_json", "JSON"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			response, body := post(t, chat, c.key, c.body)
			checkError(t, response, body, c.status, c.code, c.says)
		})
	}
	t.Run("path of another API", func(t *testing.T) {
		response, body := post(t, r.base+"/v1/nothing", key, `{}`)
		checkError(t, response, body, http.StatusNotFound, "not_found", "")
	})
}

func checkError(t *testing.T, response *http.Response, body []byte, status int, code, says string) {
	t.Helper()
	var envelope struct {
		Error map[string]any `json:"error"`
	}
	if err := json.Unmarshal(body, &envelope); err != nil {
		t.Fatalf("%v\n%s", err, body)
	}
	for _, name := range []string{"message", "type", "param", "code"} {
		if _, ok := envelope.Error[name]; !ok {
			t.Errorf("the envelope lacks %s: %s", name, body)
		}
	}
	if response.StatusCode != status || envelope.Error["code"] != code || !strings.Contains(fmt.Sprint(envelope.Error["message"]), says) {
		t.Errorf("status %d and %s\nwant %d, %s and %q in the message", response.StatusCode, body, status, code, says)
	}
	if response.Header.Get("X-Request-Id") == "" {
		t.Error("no x-request-id")
	}
}
