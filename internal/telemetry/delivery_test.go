package telemetry_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	logspb "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	metricspb "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	tracespb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	rpcpb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/ai-aas/api-router/internal/telemetry"
	"github.com/ai-aas/api-router/internal/trace"
	"github.com/ai-aas/api-router/test/ports"
)

func TestEverySignalArrivesOverEveryProtocol(t *testing.T) {
	t.Parallel()
	file, secure := authority(t)
	tests := map[string]struct {
		start func(t *testing.T) (*receiver, string)
		env   []string
	}{
		"grpc": {
			func(t *testing.T) (*receiver, string) { return grpcCollector(t, "127.0.0.1:0", nil, nil) },
			nil,
		},
		"grpc with gzip": {
			func(t *testing.T) (*receiver, string) { return grpcCollector(t, "127.0.0.1:0", nil, nil) },
			[]string{"OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"},
		},
		"grpc with TLS": {
			func(t *testing.T) (*receiver, string) { return grpcCollector(t, "127.0.0.1:0", secure, nil) },
			[]string{"OTEL_EXPORTER_OTLP_CERTIFICATE", file},
		},
		"http": {
			func(t *testing.T) (*receiver, string) {
				r, s := httpCollector(t, false, nil)
				return r, s.URL
			},
			nil,
		},
		"http with gzip": {
			func(t *testing.T) (*receiver, string) {
				r, s := httpCollector(t, false, nil)
				return r, s.URL + "/base/"
			},
			[]string{"OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"},
		},
		"https": {
			func(t *testing.T) (*receiver, string) {
				r, s := httpCollector(t, true, nil)
				return r, s.URL
			},
			[]string{"OTEL_EXPORTER_OTLP_CERTIFICATE", file},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, endpoint := test.start(t)
			s := build(t, quick(append(test.env, "OTEL_EXPORTER_OTLP_ENDPOINT", endpoint, "OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20sesame,x-scope=one",
				"OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test")...)).run(t)
			requests := promauto.With(s.registry).NewHistogram(prometheus.HistogramOpts{Name: "seconds", Help: "h", Buckets: []float64{1, 2}})
			each := sample()
			requests.(prometheus.ExemplarObserver).ObserveWithExemplar(1.5, prometheus.Labels{"trace_id": each.ID.String()})
			ctx := context.WithValue(t.Context(), within{}, trace.Context{Trace: each.ID, Span: each.Spans[0].ID, Sampled: true})
			s.Logger(io.Discard, telemetry.FormatJSON, slog.LevelInfo, nil).InfoContext(ctx, "request", "model", "gpt-oss-20b")
			s.Emit(each)
			await(t, "all signals up", func() bool {
				for _, signal := range s.Status() {
					if signal.State != telemetry.Up {
						return false
					}
				}
				return true
			})
			s.end(t)
			r.mu.Lock()
			defer r.mu.Unlock()
			spans := r.traces[0].GetResourceSpans()[0].GetScopeSpans()[0].GetSpans()
			if len(spans) != 2 || string(spans[0].GetTraceId()) != string(each.ID[:]) || spans[1].GetStatus().GetMessage() != "timeout" || spans[0].GetFlags() != 0x301 {
				t.Errorf("got spans %v", spans)
			}
			if got := attributes(spans[0].GetAttributes()); got["gen_ai.request.model"] != "gpt-oss-20b" || got["gen_ai.usage.input_tokens"] != "7" || got["bad"] != "\uFFFD" {
				t.Errorf("got attributes %v", got)
			}
			who := attributes(r.traces[0].GetResourceSpans()[0].GetResource().GetAttributes())
			if who["service.name"] != "api-router" || who["service.version"] != "1.2.3" || who["deployment.environment"] != "test" || who["service.instance.id"] == "" {
				t.Errorf("got resource %v", who)
			}
			line := r.logs[0].GetResourceLogs()[0].GetScopeLogs()[0].GetLogRecords()[0]
			if line.GetBody().GetStringValue() != "request" || string(line.GetTraceId()) != string(each.ID[:]) || line.GetSeverityText() != "INFO" {
				t.Errorf("got line %v", line)
			}
			found := false
			for _, request := range r.metrics {
				for _, m := range request.GetResourceMetrics()[0].GetScopeMetrics()[0].GetMetrics() {
					for _, point := range m.GetHistogram().GetDataPoints() {
						for _, e := range point.GetExemplars() {
							found = found || m.GetName() == "seconds" && string(e.GetTraceId()) == string(each.ID[:]) && point.GetBucketCounts()[1] == 1
						}
					}
				}
			}
			if !found {
				t.Error("no exemplar with the trace id arrived")
			}
			for _, signal := range []string{telemetry.Traces, telemetry.Metrics, telemetry.Logs} {
				h := r.headers[signal]
				if h.Get("Authorization") != "Bearer sesame" || h.Get("X-Scope") != "one" || !strings.HasPrefix(h.Get("User-Agent"), "api-router/1.2.3") {
					t.Errorf("%s came with headers %v", signal, h)
				}
			}
			if strings.Contains(s.journal.String(), "sesame") {
				t.Errorf("the log holds a header's value:\n%s", s.journal)
			}
		})
	}
}

// socket accepts connections and does with them what is asked.
func socket(t testing.TB, with func(net.Conn)) string {
	t.Helper()
	listener := listen(t, "127.0.0.1:0")
	done := make(chan struct{})
	go func() {
		defer close(done)
		var open []net.Conn
		for {
			conn, err := listener.Accept()
			if err != nil {
				for _, c := range open {
					_ = c.Close()
				}
				return
			}
			open = append(open, conn)
			with(conn)
		}
	}()
	t.Cleanup(func() { _ = listener.Close(); <-done })
	return listener.Addr().String()
}

// collectors that never take anything.
var broken = map[string]func(testing.TB) string{
	"refused": ports.Dead,
	"silent":  func(t testing.TB) string { return socket(t, func(net.Conn) {}) },
	"resetting": func(t testing.TB) string {
		return socket(t, func(c net.Conn) {
			_ = c.(*net.TCPConn).SetLinger(0)
			_ = c.Close()
		})
	},
	"of another protocol": func(t testing.TB) string {
		return socket(t, func(c net.Conn) {
			_, _ = io.WriteString(c, "220 mail.example.org ESMTP\r\n")
			_ = c.Close()
		})
	},
}

func TestABrokenCollectorCostsNothingAndIsSaidOnce(t *testing.T) {
	t.Parallel()
	for name, start := range broken {
		for protocol, form := range map[string]string{telemetry.GRPC: "", telemetry.HTTP: "http://"} {
			t.Run(name+" over "+protocol, func(t *testing.T) {
				t.Parallel()
				s := build(t, quick("OTEL_EXPORTER_OTLP_ENDPOINT", form+start(t), "OTEL_EXPORTER_OTLP_PROTOCOL", protocol,
					"OTEL_EXPORTER_OTLP_TIMEOUT", "100", "OTEL_BSP_EXPORT_TIMEOUT", "1500", "OTEL_BLRP_EXPORT_TIMEOUT", "1500",
					"OTEL_BSP_MAX_QUEUE_SIZE", "50", "OTEL_METRICS_EXPORTER", "none")).run(t)
				const n = 3000
				var out journal
				logger := s.Logger(&out, telemetry.FormatText, slog.LevelInfo, nil)
				began := time.Now()
				for range n {
					s.Emit(sample())
					logger.Info("line")
				}
				took := time.Since(began)
				if took > hang {
					t.Errorf("%d traces and lines took %s", n, took)
				}
				if got := strings.Count(out.String(), "msg=line"); got != n {
					t.Errorf("%d of %d lines were written", got, n)
				}
				await(t, "the state failing", func() bool {
					return s.signal(telemetry.Traces).State == telemetry.Failing && s.signal(telemetry.Logs).State == telemetry.Failing
				})
				await(t, "a batch that failed", func() bool {
					return s.dropped(t, "failed", "traces") > 0
				})
				stopping := s.end(t)
				t.Logf("%d traces and lines in %s, stopped in %s, last error: %s", n, took, stopping, s.signal(telemetry.Traces).LastError)
				for _, signal := range []string{telemetry.Traces, telemetry.Logs} {
					if got := s.signal(signal); got.Exported != 0 || got.Dropped != n || got.Queue != 0 {
						t.Errorf("%+v; want each of %d dropped", got, n)
					}
				}
				said, last := strings.Count(s.journal.String(), "telemetry is not delivered"), strings.Count(s.journal.String(), "the last telemetry")
				if all := strings.Count(s.journal.String(), "level=WARN"); said != 2 || last > 2 || all != said+last {
					t.Errorf("%d warnings for two signals, %d at the end:\n%s", said, last, s.journal)
				}
			})
		}
	}
}

func TestNothingDialsBeforeStart(t *testing.T) {
	t.Parallel()
	var dialed atomic.Int64
	address := socket(t, func(net.Conn) { dialed.Add(1) })
	s := build(t, quick("OTEL_EXPORTER_OTLP_ENDPOINT", address))
	s.Emit(sample())
	s.Logger(io.Discard, telemetry.FormatText, slog.LevelInfo, nil).Info("line")
	if err := s.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	s.Start() // Too late: it stays as it is.
	if got := dialed.Load(); got != 0 {
		t.Errorf("%d connections", got)
	}
}

func TestACollectorWithoutAPipelineSwitchesThatSignalOff(t *testing.T) {
	t.Parallel()
	_, address := grpcCollector(t, "127.0.0.1:0", nil, func(signal string, _ int) (proto.Message, error) {
		if signal == telemetry.Logs {
			return nil, status.Error(codes.Unimplemented, "unknown service opentelemetry.proto.collector.logs.v1.LogsService")
		}
		return nil, nil
	})
	_, server := httpCollector(t, false, func(signal string, _ int, w http.ResponseWriter) bool {
		if signal == telemetry.Logs {
			w.WriteHeader(http.StatusNotFound)
		}
		return signal == telemetry.Logs
	})
	for name, endpoint := range map[string]string{"UNIMPLEMENTED": address, "404": server.URL} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := build(t, quick("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)).run(t)
			logger := s.Logger(io.Discard, telemetry.FormatText, slog.LevelInfo, nil)
			logger.Info("line")
			await(t, "the refusal", func() bool { return s.signal(telemetry.Logs).State == telemetry.Refused })
			for range 9 {
				logger.Info("line")
			}
			s.Emit(sample())
			await(t, "a trace", func() bool { return s.signal(telemetry.Traces).Exported == 1 })
			s.end(t)
			if got := s.dropped(t, "off", "logs"); got != 10 {
				t.Errorf("%v lines are counted as off", got)
			}
			if got := strings.Count(s.journal.String(), "level=WARN"); got != 1 {
				t.Errorf("%d warnings:\n%s", got, s.journal)
			}
			if got := s.signal(telemetry.Logs); !strings.Contains(strings.ToUpper(got.LastError), name) {
				t.Errorf("the status says %q", got.LastError)
			}
		})
	}
}

func TestWhatMaySucceedLaterIsSentAgain(t *testing.T) {
	t.Parallel()
	r, server := httpCollector(t, false, func(_ string, n int, w http.ResponseWriter) bool {
		if n == 1 {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		return n == 1
	})
	g, address := grpcCollector(t, "127.0.0.1:0", nil, func(_ string, n int) (proto.Message, error) {
		if n == 1 {
			return nil, status.Error(codes.Unavailable, "busy")
		}
		return nil, nil
	})
	for name, test := range map[string]struct {
		endpoint string
		receiver *receiver
	}{"503 with Retry-After": {server.URL, r}, "UNAVAILABLE": {address, g}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := build(t, quick("OTEL_EXPORTER_OTLP_ENDPOINT", test.endpoint)).run(t)
			s.Emit(sample())
			await(t, "the second attempt", func() bool { return s.signal(telemetry.Traces).Exported == 1 })
			if got := test.receiver.attempts(telemetry.Traces); got != 2 {
				t.Errorf("%d attempts", got)
			}
			if got := s.signal(telemetry.Traces).Dropped; got != 0 {
				t.Errorf("%d dropped", got)
			}
			if strings.Contains(s.journal.String(), "level=WARN") {
				t.Errorf("one hiccup is not worth a line:\n%s", s.journal)
			}
		})
	}
}

func TestWhatCannotSucceedIsNotSentAgain(t *testing.T) {
	t.Parallel()
	const secret = "open-sesame-42"
	detail, _ := proto.Marshal(&rpcpb.Status{Message: "bad token " + secret})
	r, server := httpCollector(t, false, func(_ string, _ int, w http.ResponseWriter) bool {
		w.Header().Set("Content-Type", "application/x-protobuf")
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = w.Write(detail)
		return true
	})
	g, address := grpcCollector(t, "127.0.0.1:0", nil, func(string, int) (proto.Message, error) {
		return nil, status.Error(codes.Unauthenticated, "bad token Bearer "+secret)
	})
	for name, test := range map[string]struct {
		endpoint string
		receiver *receiver
	}{"401": {server.URL, r}, "UNAUTHENTICATED": {address, g}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := build(t, quick("OTEL_EXPORTER_OTLP_ENDPOINT", test.endpoint, "OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20"+secret)).run(t)
			s.Emit(sample())
			await(t, "the failure", func() bool { return s.signal(telemetry.Traces).State == telemetry.Failing })
			s.end(t)
			if got := test.receiver.attempts(telemetry.Traces); got != 1 {
				t.Errorf("%d attempts", got)
			}
			for _, each := range s.Status() {
				if strings.Contains(each.LastError+each.Endpoint, secret) {
					t.Errorf("the status holds the secret: %+v", each)
				}
			}
			if text := s.journal.String(); strings.Contains(text, secret) || !strings.Contains(text, "bad token ***") {
				t.Errorf("the log holds the secret, or not the reason:\n%s", text)
			}
		})
	}
}

func TestPartialSuccessCountsWhatWasRejected(t *testing.T) {
	t.Parallel()
	reply := func(signal string) proto.Message {
		switch signal {
		case telemetry.Traces:
			return &tracespb.ExportTraceServiceResponse{PartialSuccess: &tracespb.ExportTracePartialSuccess{RejectedSpans: 1, ErrorMessage: "too old"}}
		case telemetry.Metrics:
			return &metricspb.ExportMetricsServiceResponse{PartialSuccess: &metricspb.ExportMetricsPartialSuccess{RejectedDataPoints: 1, ErrorMessage: "too old"}}
		default:
			return &logspb.ExportLogsServiceResponse{PartialSuccess: &logspb.ExportLogsPartialSuccess{RejectedLogRecords: 1, ErrorMessage: "too old"}}
		}
	}
	_, address := grpcCollector(t, "127.0.0.1:0", nil, func(signal string, _ int) (proto.Message, error) { return reply(signal), nil })
	_, server := httpCollector(t, false, func(signal string, _ int, w http.ResponseWriter) bool {
		data, _ := proto.Marshal(reply(signal))
		w.Header().Set("Content-Type", "application/x-protobuf")
		_, _ = w.Write(data)
		return true
	})
	for name, endpoint := range map[string]string{"grpc": address, "http": server.URL} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := build(t, map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}).run(t)
			for range 10 {
				s.Emit(sample())
			}
			s.end(t)
			if got := s.signal(telemetry.Traces); got.Exported != 9 || got.Dropped != 1 || got.State != telemetry.Up || !strings.Contains(got.LastError, "too old") {
				t.Errorf("got %+v", got)
			}
			if got := s.signal(telemetry.Metrics); got.Exported == 0 || got.Dropped != 1 {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func TestACollectorThatComesBackIsSaidWithWhatWasLost(t *testing.T) {
	t.Parallel()
	address := ports.Free(t)
	s := build(t, quick("OTEL_EXPORTER_OTLP_ENDPOINT", address, "OTEL_BSP_MAX_QUEUE_SIZE", "5", "OTEL_BSP_EXPORT_TIMEOUT", "1500", "OTEL_METRICS_EXPORTER", "none")).run(t)
	for range 20 {
		s.Emit(sample())
	}
	await(t, "the state failing", func() bool { return s.signal(telemetry.Traces).State == telemetry.Failing })
	await(t, "a batch that failed", func() bool {
		return s.dropped(t, "failed", "traces") > 0
	})
	grpcCollector(t, address, nil, nil)
	await(t, "delivery", func() bool {
		s.Emit(sample())
		return s.signal(telemetry.Traces).State == telemetry.Up
	})
	text := ""
	await(t, "its line, which comes after the state", func() bool { text = s.journal.String(); return strings.Contains(text, "telemetry is delivered again") })
	if strings.Count(text, "telemetry is not delivered") != 1 || strings.Count(text, "telemetry is delivered again") != 1 || strings.Contains(text, "dropped=0") {
		t.Errorf("the log says:\n%s", text)
	}
}

func TestASlowCollectorIsWaitedForInTheBackground(t *testing.T) {
	t.Parallel()
	_, server := httpCollector(t, false, func(string, int, http.ResponseWriter) bool {
		time.Sleep(300 * time.Millisecond)
		return false
	})
	s := build(t, quick("OTEL_EXPORTER_OTLP_ENDPOINT", server.URL, "OTEL_METRICS_EXPORTER", "none")).run(t)
	for range 100 {
		s.Emit(sample())
	}
	await(t, "all traces", func() bool { return s.signal(telemetry.Traces).Exported == 100 })
}

func TestAMistakeInTheEndpointIsSaidAndNoOther(t *testing.T) {
	t.Parallel()
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		_, _ = io.WriteString(w, "<html>Please log in</html>")
	}))
	t.Cleanup(web.Close)
	for name, test := range map[string]struct {
		env       []string
		says, not string
	}{
		"gRPC to a port for HTTP":               {[]string{"OTEL_EXPORTER_OTLP_ENDPOINT", web.URL, "OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"}, "PROTOCOL=http/protobuf", ""},
		"gRPC to one that says nothing":         {[]string{"OTEL_EXPORTER_OTLP_ENDPOINT", broken["silent"](t), "OTEL_EXPORTER_OTLP_TIMEOUT", "200"}, "in time", "PROTOCOL"},
		"gRPC to one that closes":               {[]string{"OTEL_EXPORTER_OTLP_ENDPOINT", broken["resetting"](t)}, "Unavailable", "PROTOCOL"},
		"HTTP to a page for people":             {[]string{"OTEL_EXPORTER_OTLP_ENDPOINT", web.URL}, "is this a collector?", ""},
		"the endpoint of a signal without path": {[]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", web.URL}, "used as it is", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := build(t, quick(append(test.env, "OTEL_LOGS_EXPORTER", "none", "OTEL_METRICS_EXPORTER", "none")...)).run(t)
			s.Emit(sample())
			await(t, "the reason", func() bool { return strings.Contains(s.signal(telemetry.Traces).LastError, test.says) })
			if got := s.signal(telemetry.Traces); got.Exported > 0 || test.not != "" && strings.Contains(got.LastError, test.not) {
				t.Errorf("got %+v", got)
			}
		})
	}
}
