//go:build unix

package upstream

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// serveBytes is a backend that costs next to nothing: it knows where a request of the benchmark ends and answers with
// the same bytes each time.
func serveBytes(tb testing.TB, requestEnd string, answer []byte) string {
	tb.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				buffer := make([]byte, 0, 1<<20)
				for {
					n, err := conn.Read(buffer[len(buffer):cap(buffer)])
					if err != nil {
						return
					}
					if buffer = buffer[:len(buffer)+n]; !bytes.HasSuffix(buffer, []byte(requestEnd)) {
						continue
					}
					buffer = buffer[:0]
					if _, err := conn.Write(answer); err != nil {
						return
					}
				}
			}()
		}
	}()
	return listener.Addr().String()
}

func processTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// streamAnswer is what a vLLM engine streams, each event in a chunk of its own.
func streamAnswer(events int) []byte {
	b := &bytes.Buffer{}
	b.WriteString("HTTP/1.1 200 OK\r\ndate: Mon, 01 Jan 2029 00:00:00 GMT\r\nserver: uvicorn\r\ncontent-type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n")
	for i := range events {
		event := fmt.Sprintf(`data: {"id":"chatcmpl-0","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"w%d"},"finish_reason":null}],"usage":{"prompt_tokens":30,"completion_tokens":%d,"total_tokens":%d}}`+"\n\n", i, i, 30+i)
		fmt.Fprintf(b, "%x\r\n%s\r\n", len(event), event)
	}
	b.WriteString("0\r\n\r\n")
	return b.Bytes()
}

func plainAnswer(n int) []byte {
	return []byte(fmt.Sprintf("HTTP/1.1 200 OK\r\ndate: Mon, 01 Jan 2029 00:00:00 GMT\r\nserver: uvicorn\r\ncontent-length: %d\r\ncontent-type: application/json\r\n\r\n%s", n, strings.Repeat("a", n)))
}

// newRequest makes a request as the router does: with a context of its own for each.
func newRequest(target *url.URL, body []byte) (*http.Request, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	r := &http.Request{
		Method: http.MethodPost, URL: target, Host: target.Host, Header: benchmarkHeader,
		Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)),
	}
	return r.WithContext(ctx), cancel
}

var benchmarkHeader = http.Header{
	"Content-Type": {"application/json"}, "Accept": {"application/json"}, "Accept-Encoding": {"identity"},
	"User-Agent": {"api-router"}, "X-Request-Id": {"0198c0de-0000-7000-8000-000000000000"}, "Authorization": {"Bearer key"},
}

// TestAllocations counts what a round trip allocates beyond its request and the reading of its answer.
func TestAllocations(t *testing.T) {
	body := []byte(strings.Repeat("b", 1020) + "@end")
	for _, test := range []struct {
		name   string
		answer []byte
	}{{"plain", plainAnswer(1 << 10)}, {"stream", streamAnswer(300)}} {
		for name, build := range implementations {
			address := serveBytes(t, "@end", test.answer)
			transport, err := build(Config{Address: address})
			if err != nil {
				t.Fatal(err)
			}
			defer transport.CloseIdleConnections()
			target := &url.URL{Scheme: "http", Host: address, Path: "/v1/chat/completions"}
			request := testing.AllocsPerRun(100, func() {
				_, cancel := newRequest(target, body)
				cancel()
			})
			buffer := make([]byte, 16<<10)
			whole := testing.AllocsPerRun(500, func() {
				r, cancel := newRequest(target, body)
				defer cancel()
				response, err := transport.RoundTrip(r)
				if err != nil {
					t.Fatal(err)
				}
				for err == nil {
					_, err = response.Body.Read(buffer)
				}
				_ = response.Body.Close()
			})
			t.Logf("%s %s: %.0f allocations", test.name, name, whole-request)
			if name == "direct" && whole-request > 12 {
				t.Errorf("%s: a round trip allocates %.0f times, more than 12", test.name, whole-request)
			}
		}
	}
}

// BenchmarkOpenStreams measures the memory, in this process, of streams of which nothing comes for the moment: what the
// backend's side takes is the same for both implementations.
func BenchmarkOpenStreams(b *testing.B) {
	const streams = 1000
	for _, name := range []string{"direct", "standard"} {
		b.Run(name, func(b *testing.B) {
			backend := play(b, func(v *visit) {
				v.in = nil
				_, _ = v.Read(make([]byte, 4<<10))
				v.say("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n5\r\ndata:\r\n")
				_, _ = v.Read(make([]byte, 1))
			})
			transport := open(b, implementations[name], Config{Address: backend.address})
			target := &url.URL{Scheme: "http", Host: backend.address, Path: "/v1/chat/completions"}
			body := []byte(strings.Repeat("b", 1<<10))
			for range b.N {
				before := memory()
				var ends []func()
				for range streams {
					r, cancel := newRequest(target, body)
					response, err := transport.RoundTrip(r)
					if err != nil {
						b.Fatal(err)
					}
					if _, err := response.Body.Read(make([]byte, 5)); err != nil {
						b.Fatal(err)
					}
					ends = append(ends, cancel, func() { _ = response.Body.Close() })
				}
				b.ReportMetric(float64(memory()-before)/1024/streams, "KB/stream")
				for _, end := range ends {
					end()
				}
			}
		})
	}
}

func memory() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}

func BenchmarkRoundTrip(b *testing.B) {
	for _, load := range []struct {
		name   string
		body   int
		answer []byte
	}{
		{"plain1KB", 1 << 10, plainAnswer(1 << 10)},
		{"stream300", 1 << 10, streamAnswer(300)},
		{"body400KB", 400 << 10, plainAnswer(1 << 10)},
	} {
		for _, name := range []string{"direct", "standard"} {
			b.Run(load.name+"/"+name, func(b *testing.B) {
				body := []byte(strings.Repeat("b", load.body-4) + "@end")
				address := serveBytes(b, "@end", load.answer)
				transport, err := implementations[name](Config{Address: address})
				if err != nil {
					b.Fatal(err)
				}
				defer transport.CloseIdleConnections()
				target := &url.URL{Scheme: "http", Host: address, Path: "/v1/chat/completions"}
				b.ReportAllocs()
				before := processTime()
				b.SetParallelism(16)
				b.RunParallel(func(p *testing.PB) {
					buffer := bufio.NewReaderSize(nil, 16<<10)
					for p.Next() {
						r, cancel := newRequest(target, body)
						response, err := transport.RoundTrip(r)
						if err != nil {
							b.Error(err)
							return
						}
						buffer.Reset(response.Body)
						if _, err := buffer.WriteTo(io.Discard); err != nil {
							b.Error(err)
							return
						}
						_ = response.Body.Close()
						cancel()
					}
				})
				b.ReportMetric(float64(processTime()-before)/1e3/float64(b.N), "cpu-µs/op")
			})
		}
	}
}
