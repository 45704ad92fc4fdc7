package app_test

import (
	"cmp"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/ai-aas/api-router/internal/app"
	"github.com/ai-aas/api-router/internal/simengine"
)

// dev runs app.Dev until the test ends and returns its standard output.
func dev(t *testing.T, o app.DevOptions) (stdout, stderr *syncBuffer) {
	t.Helper()
	o.AdminListen = "127.0.0.1:0"
	if o.Data == "" {
		o.Data = t.TempDir()
	}
	stdout, stderr, _ = devUntil(t, o)
	return stdout, stderr
}

// devUntil runs app.Dev until end is called, or the test ends.
func devUntil(t *testing.T, o app.DevOptions) (stdout, stderr *syncBuffer, end func()) {
	t.Helper()
	stdout, stderr = new(syncBuffer), new(syncBuffer)
	ctx, cancel := contextFor(t)
	done := make(chan error, 1)
	o.Listen, o.LogLevel, o.LogFormat = "127.0.0.1:0", "debug", "text"
	o.MetricsListen = cmp.Or(o.MetricsListen, "127.0.0.1:0")
	go func() { done <- app.Dev(ctx, app.Process{Version: "test", Stdout: stdout, Stderr: stderr}, o) }()
	end = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("dev ended with %v", err)
		}
		if t.Failed() {
			t.Logf("standard error: %s", stderr)
		}
	})
	t.Cleanup(end)
	return stdout, stderr, end
}

// lastLine waits for the call that dev prints at the end.
func lastLine(t *testing.T, stdout *syncBuffer) string {
	t.Helper()
	var last string
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("standard output: %s", stdout)
		}
	})
	eventually(t, "the banner", func() bool {
		lines := strings.Split(strings.TrimSuffix(stdout.String(), "\n"), "\n")
		last = lines[len(lines)-1]
		return strings.HasPrefix(last, "curl ") && strings.HasSuffix(stdout.String(), "\n")
	})
	return last
}

var callForm = regexp.MustCompile(`^curl -X POST (http://localhost:\d+)/v1/chat/completions -H "X-API-Key: test-vllm-key" -H "Content-Type: application/json" ` +
	`-d '({"model": "([^"]+)", "messages": \[{"role": "user", "content": "Hello!"}\]})'$`)

func TestDevNeedsNothingAndPrintsACallThatWorks(t *testing.T) {
	data := t.TempDir()
	stdout, stderr := dev(t, app.DevOptions{Data: data})
	line := lastLine(t, stdout)
	form := callForm.FindStringSubmatch(line)
	if form == nil || form[3] != "gpt-oss-20b" {
		t.Fatalf("the last line is %q", line)
	}
	for _, part := range []string{"gpt-oss-20b: 2 simulated vLLM", "qwen3-8b: 1 simulated vLLM", "test-ORGANIZATION-ID", filepath.Join(data, "usage.jsonl"), "\n  console   http://localhost:"} {
		if !strings.Contains(stdout.String(), part) {
			t.Errorf("the banner does not say %q: %s", part, stdout)
		}
	}
	if first, _, _ := strings.Cut(stderr.String(), "\n"); !strings.Contains(first, "api-router starting") || !strings.Contains(first, "version=test") {
		t.Errorf("the first log line is %q", first)
	}

	c := client(t)
	if response := chat(t, c, form[1], ""); response.StatusCode != http.StatusOK || !strings.Contains(read(t, response.Body), `"chat.completion"`) {
		t.Errorf("the call gives %d", response.StatusCode)
	}
	if response := chat(t, c, form[1], `, "stream": true`); !strings.HasSuffix(read(t, response.Body), "data: [DONE]\n\n") {
		t.Error("the stream does not end in [DONE]")
	}
	used := map[string]bool{}
	for range 20 {
		used[chat(t, c, form[1], `, "max_tokens": 1`).Header.Get("X-Routing-Backend")] = true
	}
	if len(used) != 2 {
		t.Errorf("20 requests reached %v; want both engines", used)
	}
	if curl, err := exec.LookPath("curl"); err == nil {
		out, err := exec.CommandContext(t.Context(), "sh", "-c", strings.Replace(line, "curl ", curl+" -sS ", 1)).CombinedOutput()
		if err != nil || !strings.Contains(string(out), `"chat.completion"`) {
			t.Errorf("the printed line gives %v: %s", err, out)
		}
	}
	records, err := os.ReadFile(filepath.Join(data, "usage.jsonl"))
	if err != nil || strings.Count(string(records), `"type":"close"`) < 22 {
		t.Errorf("the usage file holds %q, %v", records, err)
	}
}

func TestDevSaysWhatWouldWork(t *testing.T) {
	stdout, _ := dev(t, app.DevOptions{})
	base := callForm.FindStringSubmatch(lastLine(t, stdout))[1]
	for name, test := range map[string]struct {
		key, model string
		status     int
		want       string
	}{
		"unknown key":   {"sk-1", "gpt-oss-20b", http.StatusUnauthorized, "test-ORGANIZATION-ID"},
		"unknown model": {"test-a-1", "gpt-5", http.StatusNotFound, "gpt-oss-20b, qwen3-8b"},
	} {
		body := fmt.Sprintf(`{"model": %q, "messages": [{"role": "user", "content": "x"}]}`, test.model)
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base+"/v1/chat/completions", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("api-key", test.key)
		response, err := client(t).Do(request)
		if err != nil {
			t.Fatal(err)
		}
		if got := read(t, response.Body); response.StatusCode != test.status || !strings.Contains(got, test.want) {
			t.Errorf("%s: got %d %s", name, response.StatusCode, got)
		}
		_ = response.Body.Close()
	}
}

func TestDevWaitsForRealEnginesAndSaysWhatTheyAre(t *testing.T) {
	// A vLLM that loads its model for a while, and an Ollama.
	var loaded atomic.Bool
	vllm := simengine.New(simengine.Config{APIKey: "secret", Speed: 100, Models: []simengine.Model{{ID: "gpt-oss-20b"}}}).Handler()
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !loaded.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		vllm.ServeHTTP(w, r)
	}))
	defer slow.Close()
	ollama := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/models" {
			fmt.Fprint(w, `{"object":"list","data":[{"id":"llama3.2:latest","object":"model","created":1,"owned_by":"library"}]}`)
			return
		}
		fmt.Fprint(w, `{"id":"1","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}`)
	}))
	defer ollama.Close()

	t.Setenv("DEV_TEST_KEY", "secret")
	stdout, stderr := dev(t, app.DevOptions{Backends: []string{slow.URL + "/v1/", ollama.URL}, BackendKeys: []string{"env:DEV_TEST_KEY", "none"}})
	line := lastLine(t, stdout)
	form := callForm.FindStringSubmatch(line)
	if form == nil || form[3] != "llama3.2:latest" || !strings.Contains(stdout.String(), "ollama at "+ollama.URL) {
		t.Fatalf("the banner is %s", stdout)
	}
	c := client(t)
	if response := chat(t, c, form[1], ""); response.StatusCode != http.StatusNotFound {
		t.Errorf("a model that is not there yet gives %d", response.StatusCode)
	}
	loaded.Store(true)
	eventually(t, "the discovery of vLLM", func() bool { return strings.Contains(stderr.String(), "engine=vllm") })
	eventually(t, "an answer of vLLM", func() bool {
		response := chat(t, c, form[1], "")
		_ = read(t, response.Body)
		return response.StatusCode == http.StatusOK
	})
	request := strings.NewReader(`{"model": "llama3.2", "messages": [{"role": "user", "content": "x"}]}`)
	post, err := http.NewRequestWithContext(t.Context(), http.MethodPost, form[1]+"/v1/chat/completions", request)
	if err != nil {
		t.Fatal(err)
	}
	post.Header.Set("x-goog-api-key", "dev-1")
	response, err := c.Do(post)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	if got := read(t, response.Body); response.StatusCode != http.StatusOK {
		t.Errorf("Ollama's model without its tag gives %d %s", response.StatusCode, got)
	}
	if strings.Contains(stderr.String(), "secret\n") || strings.Contains(stderr.String(), "Bearer") {
		t.Error("the log holds a key")
	}
}

func TestDevServesAModelWhoseNameIsAPathWithSpaces(t *testing.T) {
	asked := make(chan string, 1)
	engine := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/models" {
			fmt.Fprint(w, `{"object":"list","data":[{"id":"/my models/a (1).gguf","object":"model","owned_by":"llamacpp"},{"id":"say \"b\"","object":"model"}]}`)
			return
		}
		if r.Method == http.MethodPost {
			asked <- read(t, r.Body)
		}
		fmt.Fprint(w, `{"id":"1","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}]}`)
	}))
	defer engine.Close()
	stdout, _ := dev(t, app.DevOptions{Backends: []string{engine.URL}})
	form := callForm.FindStringSubmatch(lastLine(t, stdout))
	if form == nil || form[3] != "/my-models/a--1-.gguf" {
		t.Fatalf("the banner is %s", stdout)
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, form[1]+"/v1/chat/completions", strings.NewReader(form[2]))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("X-API-Key", "test-vllm-key")
	response, err := client(t).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	if body := read(t, response.Body); response.StatusCode != http.StatusOK {
		t.Fatalf("got %d %s", response.StatusCode, body)
	}
	if body := <-asked; !strings.Contains(body, `"/my models/a (1).gguf"`) {
		t.Errorf("the engine was asked %s", body)
	}
}

func TestDevRefusesFlagsThatCannotWork(t *testing.T) {
	for name, test := range map[string]struct {
		o    app.DevOptions
		want string
	}{
		"no URL":            {app.DevOptions{Backends: []string{"localhost:8000"}}, "--backend number 1"},
		"keys and backends": {app.DevOptions{Backends: []string{"http://a", "http://b", "http://c"}, BackendKeys: []string{"1", "2"}}, "one for each"},
		"a key alone":       {app.DevOptions{BackendKeys: []string{"1"}}, "there is no --backend"},
		"a secret in a URL": {app.DevOptions{Backends: []string{"http://user:secret@a"}}, "--backend-key"},
		"a query in a URL":  {app.DevOptions{Backends: []string{"http://a?key=secret"}}, "--backend-key"},
		"unset variable":    {app.DevOptions{Backends: []string{"http://a"}, BackendKeys: []string{"env:NOT_SET_ANYWHERE"}}, "NOT_SET_ANYWHERE"},
		"data in a file":    {app.DevOptions{Data: write(t, "file", "")}, "--data"},
		"a busy port":       {app.DevOptions{Listen: taken(t)}, "--listen"},
	} {
		o := test.o
		if o.Listen == "" {
			o.Listen = "127.0.0.1:0"
		}
		if o.Data == "" {
			o.Data = t.TempDir()
		}
		err := app.Dev(t.Context(), app.Process{Version: "test", Stdout: new(syncBuffer), Stderr: new(syncBuffer)}, o)
		if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "secret@") || strings.Contains(err.Error(), "=secret") {
			t.Errorf("%s: got %v; want %q", name, err, test.want)
		}
	}
}
