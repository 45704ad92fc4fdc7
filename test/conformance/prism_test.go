package conformance

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ai-aas/api-router/test/ports"
	"github.com/ai-aas/api-router/test/rig"
)

// specification names the file of OpenAI's specification, in the environment.
const specification = "OPENAI_SPEC"

// dialect are the fields that vLLM sets to null, the simulated one too, where OpenAI's specification has no null. They pass byte for byte.
var dialect = []string{"annotations", "function_call", "system_fingerprint"}

// violation is one thing that Prism found.
type violation struct {
	Location []string `json:"location"`
	Severity string   `json:"severity"`
	Message  string   `json:"message"`
}

func (v violation) String() string { return strings.Join(v.Location, ".") + ": " + v.Message }

// TestPrism puts Prism between a client and the router. Prism answers what the specification does not allow with an error of its own.
func TestPrism(t *testing.T) {
	spec := os.Getenv(specification)
	if spec == "" {
		t.Skip("NOT TESTED: what the router answers against OpenAI's specification; " + specification + "=FILE make test does it")
	}
	if _, err := os.Stat(spec); err != nil && !filepath.IsAbs(spec) {
		spec = filepath.Join("..", "..", spec) // As it is from where make runs.
	}
	touch(t, spec, filepath.Join("prism", "package-lock.json"))
	base := proxy(t, enter(t), spec)

	const words = `"messages": [{"role": "user", "content": "Hello!"}]`
	for _, c := range []struct{ name, path, body string }{
		{"models", "/models", ""},
		{"model", "/models/" + model, ""},
		{"chat", "/chat/completions", `{"model": "gpt-oss-20b", ` + words + `}`},
		{"chat at its limit", "/chat/completions", `{"model": "gpt-oss-20b", "max_tokens": 3, ` + words + `}`},
		{"chat with logprobs", "/chat/completions", `{"model": "gpt-oss-20b", "max_tokens": 3, "logprobs": true, "top_logprobs": 2, ` + words + `}`},
		{"chat with a tool call", "/chat/completions", `{"model": "plays-vllm-tools", ` + words + `}`},
		{"chat stream", "/chat/completions", `{"model": "gpt-oss-20b", "stream": true, "max_tokens": 8, ` + words + `}`},
		{"completion", "/completions", `{"model": "gpt-oss-20b", "prompt": "Once", "max_tokens": 3}`},
		{"embeddings", "/embeddings", `{"model": "gpt-oss-20b", "input": ["first", "second"]}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, body, found := through(t, base+c.path, c.body)
			if found = slices.DeleteFunc(found, ofTheDialect); len(found) > 0 {
				t.Errorf("the answer is not what the specification says:\n%v", found)
			}
			if status >= http.StatusBadRequest && !strings.Contains(string(body), "#VIOLATIONS") {
				t.Errorf("status %d: %s", status, body)
			}
		})
	}
	t.Run("a wrong answer would be found", func(t *testing.T) {
		status, body, found := through(t, base+"/chat/completions", `{"model": "answers-400", `+words+`}`)
		if status != http.StatusInternalServerError || len(found) == 0 {
			t.Errorf("status %d: %s", status, body)
		}
	})
}

func ofTheDialect(v violation) bool {
	return len(v.Location) > 1 && v.Location[0] == "response" && slices.Contains(dialect, v.Location[len(v.Location)-1])
}

// through sends a request to Prism, and returns the answer with what Prism found wrong.
func through(t *testing.T, url, body string) (status int, content []byte, found []violation) {
	t.Helper()
	method := http.MethodPost
	if body == "" {
		method = http.MethodGet
	}
	request, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+key)
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: clientDeadline}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if content, err = io.ReadAll(response.Body); err != nil {
		t.Fatal(err)
	}
	if response.Header.Get("Content-Type") != "application/problem+json" {
		return response.StatusCode, content, nil
	}
	var problem struct {
		Validation []violation `json:"validation"`
	}
	if err := json.Unmarshal(content, &problem); err != nil {
		t.Fatalf("%v\n%s", err, content)
	}
	return response.StatusCode, content, problem.Validation
}

// proxy starts Prism before the router, and returns its base URL once it answers.
func proxy(t *testing.T, a arena, spec string) string {
	t.Helper()
	const folder = "prism/node_modules/@stoplight/prism-cli"
	program := node(t, folder)
	cli := filepath.Join(filepath.FromSlash(folder), "dist", "index.js")
	address := ports.Free(t)
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, program, cli, "proxy", spec, a.base+"/v1", "--errors", "--port", port)
	cmd.Env = a.command(t, program).Env
	log := &rig.Journal{}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		cancel()
		<-ended
		if t.Failed() {
			t.Logf("Prism's log:\n%s", log)
		}
	})
	for deadline := time.After(clientDeadline); ; {
		if conn, err := net.Dial("tcp", address); err == nil {
			conn.Close()
			return "http://" + address
		}
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("Prism ended with: %v", err)
		case <-deadline:
			t.Fatal("Prism does not listen")
		case <-time.After(50 * time.Millisecond):
		}
	}
}
