package edge

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ai-aas/api-router/internal/app"
	"github.com/ai-aas/api-router/internal/policy"
	"github.com/ai-aas/api-router/test/leaks"
)

const (
	key = "test-acme-1"
	// hang is when a test gives up on something that should take milliseconds.
	hang = time.Minute
)

func TestMain(m *testing.M) { leaks.Main(m) }

// router is a whole process that serves the models m and org/m from one backend.
type router struct {
	addr    string
	backend *backend
	log     *watch
}

// start runs a router until the test ends. change, unless nil, changes its configuration.
func start(t *testing.T, change func(*app.Config)) *router {
	t.Helper()
	r := &router{backend: engine(t), log: &watch{}}
	b := policy.NewBackend("one", r.backend.URL)
	plain, slash := policy.NewRoutingPolicy("plain", "m", "one"), policy.NewRoutingPolicy("slash", "org/m", "one")
	c := app.Default()
	c.Environment, c.Identity.DevelopmentKeys = app.Development, true
	c.Listen.Public, c.Listen.Metrics, c.Policy.LastGood = "127.0.0.1:0", "", ""
	c.Server.DrainGrace, c.Server.DrainTimeout = 0, hang
	c.Server.MaxBody = 1 << 20
	if change != nil {
		change(&c)
	}
	a, err := app.New(app.Options{
		Config: c, Logger: slog.New(r.log), Version: "test",
		Source: policy.StaticSource("test", policy.Document{Backend: &b}, policy.Document{Policy: &plain}, policy.Document{Policy: &slash}),
	})
	if err != nil {
		t.Fatal(err)
	}
	r.addr = a.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(2 * hang):
			t.Error("the process did not end")
		}
		for _, line := range r.log.alarms() {
			t.Error("the log says: " + line)
		}
	})
	select {
	case <-a.Ready():
	case <-time.After(hang):
		t.Fatal("no policies were loaded")
	}
	return r
}

// dial opens a connection that ends with the test at the latest.
func (r *router) dial(t *testing.T) *net.TCPConn {
	t.Helper()
	return r.dialWith(t, net.Dialer{})
}

func (r *router) dialWith(t *testing.T, dialer net.Dialer) *net.TCPConn {
	t.Helper()
	conn, err := dialer.DialContext(t.Context(), "tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(hang))
	return conn.(*net.TCPConn)
}

// answer is one answer, read to its end.
type answer struct {
	status int
	header http.Header
	body   string
	closes bool // it announces the connection's end
	err    error
}

// refusal gives the code and the param of an envelope, "" where there is none.
func (a answer) refusal() (code, param string) {
	var envelope struct {
		Error struct {
			Code  string
			Param *string
		}
	}
	if json.Unmarshal([]byte(a.body), &envelope) == nil && envelope.Error.Param != nil {
		param = *envelope.Error.Param
	}
	return envelope.Error.Code, param
}

// receive reads one answer to a request of the given method.
func receive(from *bufio.Reader, method string) answer {
	resp, err := http.ReadResponse(from, &http.Request{Method: method})
	if err != nil {
		return answer{err: err}
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	return answer{status: resp.StatusCode, header: resp.Header, body: string(content), closes: resp.Close, err: err}
}

// works sends a good request on a connection of its own, and holds its answer to be a good one.
func (r *router) works(t *testing.T) {
	t.Helper()
	conn := r.dial(t)
	defer conn.Close()
	before := r.backend.asked()
	_, _ = io.WriteString(conn, good)
	if got := receive(bufio.NewReader(conn), http.MethodPost); got.err != nil || got.status != http.StatusOK || r.backend.asked() <= before {
		t.Fatalf("a good request gets %+v afterwards", got)
	}
}

// closed reports whether the router has closed the connection, or closes it now; not what is left unread.
func closed(from *bufio.Reader) bool {
	_, err := from.ReadByte()
	timeout, ok := errors.AsType[net.Error](err)
	return err != nil && (!ok || !timeout.Timeout())
}

// watch is a log handler that keeps what must never be said.
type watch struct {
	mu    sync.Mutex
	lines []string
}

func (w *watch) Enabled(context.Context, slog.Level) bool { return true }
func (w *watch) WithAttrs([]slog.Attr) slog.Handler       { return w }
func (w *watch) WithGroup(string) slog.Handler            { return w }

func (w *watch) Handle(_ context.Context, record slog.Record) error {
	if record.Level < slog.LevelError && !strings.Contains(record.Message, "panic") {
		return nil
	}
	line := record.Message
	record.Attrs(func(a slog.Attr) bool {
		line += " " + a.String()
		return true
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lines = append(w.lines, line)
	return nil
}

func (w *watch) alarms() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]string(nil), w.lines...)
}

// backend is an engine that serves every request and remembers each.
type backend struct {
	*httptest.Server
	mu   sync.Mutex
	n    int
	last *http.Request
	body string
}

func engine(t *testing.T) *backend {
	t.Helper()
	b := &backend{}
	b.Server = httptest.NewServer(b)
	t.Cleanup(func() {
		b.CloseClientConnections()
		b.Close()
	})
	return b
}

// asked counts the requests for an inference.
func (b *backend) asked() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.n
}

// seen is the last request and its body.
func (b *backend) seen() (*http.Request, string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.last, b.body
}

func (b *backend) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	content, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	if r.Method != http.MethodPost {
		fmt.Fprint(w, `{"object":"list","data":[{"id":"m","object":"model"},{"id":"org/m","object":"model"}]}`)
		return
	}
	b.mu.Lock()
	b.n++
	b.last, b.body = r, string(content)
	b.mu.Unlock()
	var asked struct {
		stream  bool
		choices int
	}
	asked.stream, asked.choices = wants(content)
	if asked.stream && !strings.HasSuffix(r.URL.Path, "/embeddings") {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range asked.choices {
			fmt.Fprintf(w, `data: {"id":"1","object":"chat.completion.chunk","choices":[{"index":%d,"delta":{"content":"hi"},"finish_reason":"stop"}]}`+"\n\n", i)
		}
		fmt.Fprint(w, "data: [DONE]\n\n")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprint(w, answered)
}

const answered = `{"id":"1","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}],` +
	`"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}`

// wants reads of a body what its answer depends on. No one wants many choices here.
func wants(content []byte) (stream bool, choices int) {
	var fields map[string]json.RawMessage
	if json.Unmarshal(content, &fields) != nil {
		return false, 0
	}
	n, prompts := 1.0, 1
	_ = json.Unmarshal(fields["stream"], &stream)
	_ = json.Unmarshal(fields["n"], &n)
	var list []any
	if json.Unmarshal(fields["prompt"], &list) == nil && len(list) > 0 {
		if _, tokens := list[0].(float64); !tokens {
			prompts = len(list)
		}
	}
	choices = int(n) * prompts
	return stream && choices <= 100, choices
}
