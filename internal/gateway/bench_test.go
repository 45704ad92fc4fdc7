package gateway_test

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/ai-aas/api-router/internal/auth"
	"github.com/ai-aas/api-router/internal/fleet"
	"github.com/ai-aas/api-router/internal/gateway"
	"github.com/ai-aas/api-router/internal/limit"
	"github.com/ai-aas/api-router/internal/plan"
	"github.com/ai-aas/api-router/internal/policy"
	"github.com/ai-aas/api-router/internal/proxy"
	"github.com/ai-aas/api-router/internal/upstream"
	"github.com/ai-aas/api-router/internal/usage"
)

// canned is the edge of the network: every request gets the same bytes, without a connection and without an allocation, so that what the
// benchmark counts is the router's own.
type canned struct {
	content  []byte
	response http.Response
	reader   bytes.Reader
}

func newCanned(contentType, content string, length int64) *canned {
	c := &canned{content: []byte(content)}
	c.response = http.Response{
		StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, ContentLength: length,
		Header: http.Header{"Content-Type": {contentType}}, Body: c,
	}
	return c
}

func (c *canned) RoundTrip(r *http.Request) (*http.Response, error) {
	_, _ = r.Body.(io.WriterTo).WriteTo(io.Discard)
	_ = r.Body.Close() // As every transport does.
	c.reader.Reset(c.content)
	return &c.response, nil
}

func (c *canned) Read(p []byte) (int, error) { return c.reader.Read(p) }
func (*canned) Close() error                 { return nil }

func (*canned) CloseIdleConnections()     {}
func (c *canned) Cut() upstream.Transport { return c }

// sink is a client that takes everything.
type sink struct {
	header http.Header
	status int
}

func (s *sink) Header() http.Header         { return s.header }
func (s *sink) Write(p []byte) (int, error) { return len(p), nil }
func (s *sink) WriteHeader(status int)      { s.status = status }
func (s *sink) Flush()                      {}

func (s *sink) SetReadDeadline(time.Time) error  { return nil }
func (s *sink) SetWriteDeadline(time.Time) error { return nil }

// upload is a client's body.
type upload struct{ strings.Reader }

func (*upload) Close() error { return nil }

// null is a sink for records that keeps none: what encoding them costs is still counted.
type null struct{ io.Writer }

func (null) Reopen() error { return nil }
func (null) Close() error  { return nil }

// BenchmarkWalk measures a whole request but for the two connections: what the router's own code costs.
func BenchmarkWalk(b *testing.B) {
	large := `{"model":"m","messages":[{"role":"user","content":"` + strings.Repeat("All work and no play. ", 18000) + `"}]}`
	events := opening + strings.Repeat(delta("word "), 300) + finish + used + done
	for name, tc := range map[string]struct {
		request string
		answer  *canned
	}{
		"plain 1KB":         {chat[:len(chat)-4] + strings.Repeat("x", 940) + chat[len(chat)-4:], newCanned("application/json", odd, int64(len(odd)))},
		"plain 400KB":       {large, newCanned("application/json", odd, int64(len(odd)))},
		"stream 300 events": {streamChat, newCanned("text/event-stream", events, -1)},
	} {
		b.Run(name, func(b *testing.B) {
			log := slog.New(slog.DiscardHandler)
			pool := fleet.New(fleet.Options{Logger: log, Transport: func(fleet.Spec) (upstream.Transport, error) { return tc.answer, nil }})
			if err := pool.Apply([]fleet.Spec{{ID: "b0", URL: "http://127.0.0.1:1", Engine: fleet.EngineVLLM, Timeouts: fleet.Timeouts{
				Connect: time.Second, FirstByte: time.Minute, BetweenBytes: time.Minute, Total: time.Minute,
			}}}); err != nil {
				b.Fatal(err)
			}
			table := policy.Compile(policy.Snapshot{Documents: documents(b)}, nil)
			door := gateway.New(gateway.Options{
				Logger: log, Keys: auth.Chain(auth.Development{}), Table: func() *policy.Table { return table },
				Decider: &plan.Decider{Fleet: pool}, Limiter: limit.Unlimited{}, Proxy: proxy.New(proxy.Options{UserAgent: "api-router/test", ExposeBackend: true}),
				Recorder: usage.NewRecorder(log, null{io.Discard}), MaxBody: 1 << 20, BodyMemory: 1 << 30,
			})
			target, err := url.Parse("/v1/chat/completions")
			if err != nil {
				b.Fatal(err)
			}
			header := http.Header{"X-Api-Key": {key}, "Content-Type": {"application/json"}}
			body := &upload{}
			client := &sink{header: http.Header{}}
			r := &http.Request{
				Method: http.MethodPost, URL: target, Header: header, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
				Body: body, ContentLength: int64(len(tc.request)), Host: "localhost", RequestURI: target.Path,
			}
			b.ReportAllocs()
			b.SetBytes(int64(len(tc.request)))
			for b.Loop() {
				body.Reset(tc.request)
				client.status = 0
				clear(client.header)
				if door.ServeHTTP(client, r); client.status != http.StatusOK {
					b.Fatal("status ", client.status)
				}
			}
		})
	}
}

func documents(tb testing.TB) []policy.Document {
	tb.Helper()
	parsed, problems := policy.Parse("bench.yaml", []byte("kind: Backend\nid: b0\nurl: http://127.0.0.1:1\n---\nkind: RoutingPolicy\nid: p\nmodel: m\nbackends: [{ id: b0 }]\n"))
	if len(problems) > 0 {
		tb.Fatal(problems)
	}
	return parsed
}
