package app_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/ai-aas/api-router/internal/app"
	"github.com/ai-aas/api-router/internal/policy"
	"github.com/ai-aas/api-router/internal/simengine"
	"github.com/ai-aas/api-router/test/leaks"
)

// hang is when a test gives up on something that should take milliseconds.
const hang = time.Minute

func TestMain(m *testing.M) {
	leaks.Main(m)
}

// simulated starts an engine and returns its URL. The engine ends with the test.
func simulated(t *testing.T, config simengine.Config) string {
	t.Helper()
	server := httptest.NewServer(simengine.New(config).Handler())
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return server.URL
}

// routed is a source with one backend for gpt-oss-20b.
func routed(url string) policy.Source {
	b := policy.NewBackend("one", url)
	p := policy.NewRoutingPolicy("global", "gpt-oss-20b", "one")
	return policy.StaticSource("test", policy.Document{Backend: &b}, policy.Document{Policy: &p})
}

// options are those of a process that listens on any port and accepts development keys.
func options(t *testing.T, source policy.Source) app.Options {
	t.Helper()
	c := app.Default()
	c.Environment = app.Development
	c.Identity.DevelopmentKeys = true
	c.Listen.Public, c.Listen.Metrics = "127.0.0.1:0", "127.0.0.1:0"
	c.Policy.LastGood = ""
	c.Server.DrainGrace = 0
	c.Server.DrainTimeout = hang
	return app.Options{Config: c, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)), Version: "test", Source: source}
}

// process is an App that runs.
type process struct {
	*app.App
	base string
	end  context.CancelFunc // as SIGTERM does
	done chan error         // the result of Run
}

// run starts an App, waits until it has policies, and ends it with the test.
func run(t *testing.T, o app.Options) *process {
	t.Helper()
	p := launch(t, o)
	select {
	case <-p.Ready():
	case <-time.After(hang):
		t.Fatal("no policies were loaded")
	}
	return p
}

// launch is run without the wait for policies.
func launch(t *testing.T, o app.Options) *process {
	t.Helper()
	a, err := app.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	p := &process{App: a, base: "http://" + a.Addr().String(), end: cancel, done: make(chan error, 1)}
	go func() {
		p.done <- a.Run(ctx)
		close(p.done)
	}()
	t.Cleanup(func() {
		cancel()
		p.wait(t)
	})
	return p
}

// wait returns what Run returned; nil when asked a second time.
func (p *process) wait(t *testing.T) error {
	t.Helper()
	select {
	case err := <-p.done:
		return err
	case <-time.After(2 * hang):
		t.Error("the process did not end")
		return nil
	}
}

// client makes no connection outlive the test.
func client(t *testing.T) *http.Client {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 2 * hang}
}

// chat sends a chat completion and returns the answer, whose body the caller closes.
func chat(t *testing.T, c *http.Client, base, fields string) *http.Response {
	t.Helper()
	body := `{"model": "gpt-oss-20b", "messages": [{"role": "user", "content": "Hello!"}]` + fields + `}`
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base+"/v1/chat/completions", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("X-API-Key", "test-vllm-key")
	request.Header.Set("Content-Type", "application/json")
	response, err := c.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = response.Body.Close() })
	return response
}

// get returns the status and the body of an answer.
func get(t *testing.T, c *http.Client, url string) (int, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := c.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	return response.StatusCode, read(t, response.Body)
}

func read(t *testing.T, r io.Reader) string {
	t.Helper()
	content, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// eventually waits for something that takes milliseconds.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(hang); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s did not happen", what)
		}
	}
}

// taken is an address that somebody else listens on.
func taken(t *testing.T) string {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	return listener.Addr().String()
}
