package telemetry_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	logspb "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	metricspb "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	tracespb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	_ "google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/ai-aas/api-router/internal/telemetry"
	"github.com/ai-aas/api-router/internal/trace"
	"github.com/ai-aas/api-router/test/leaks"
)

// hang is how long a test waits for what takes milliseconds.
const hang = time.Minute

func TestMain(m *testing.M) { leaks.Main(m) }

// receiver is what a collector received, over whichever protocol.
type receiver struct {
	mu      sync.Mutex
	traces  []*tracespb.ExportTraceServiceRequest
	metrics []*metricspb.ExportMetricsServiceRequest
	logs    []*logspb.ExportLogsServiceRequest
	headers map[string]http.Header // of the last one, by signal
	asked   map[string]int         // attempts, by signal
}

func (r *receiver) take(signal string, request proto.Message, header http.Header) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch v := request.(type) {
	case *tracespb.ExportTraceServiceRequest:
		r.traces = append(r.traces, v)
	case *metricspb.ExportMetricsServiceRequest:
		r.metrics = append(r.metrics, v)
	case *logspb.ExportLogsServiceRequest:
		r.logs = append(r.logs, v)
	}
	r.headers[signal] = header
}

func (r *receiver) ask(signal string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked[signal]++
	return r.asked[signal]
}

func (r *receiver) attempts(signal string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.asked[signal]
}

// counts is how many requests arrived: traces, metrics, logs.
func (r *receiver) counts() (traces, metrics, logs int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.traces), len(r.metrics), len(r.logs)
}

// answer decides on the nth attempt of a signal. nil: it is taken, and nothing is said.
type answer func(signal string, n int) (proto.Message, error)

func newReceiver() *receiver {
	return &receiver{headers: map[string]http.Header{}, asked: map[string]int{}}
}

var signalOf = map[string]string{"TraceService": telemetry.Traces, "MetricsService": telemetry.Metrics, "LogsService": telemetry.Logs}

// grpcCollector is a collector on a real gRPC server. secure may be nil.
func grpcCollector(t testing.TB, address string, secure *tls.Config, say answer) (*receiver, string) {
	t.Helper()
	r := newReceiver()
	options := []grpc.ServerOption{grpc.UnaryInterceptor(func(ctx context.Context, request any, info *grpc.UnaryServerInfo, _ grpc.UnaryHandler) (any, error) {
		signal := signalOf[strings.TrimPrefix(path.Ext(path.Dir(info.FullMethod)), ".")]
		n := r.ask(signal)
		var reply proto.Message
		if say != nil {
			var err error
			if reply, err = say(signal, n); err != nil {
				return nil, err
			}
		}
		header := http.Header{}
		md, _ := metadata.FromIncomingContext(ctx)
		for name, values := range md {
			header[http.CanonicalHeaderKey(name)] = values
		}
		r.take(signal, request.(proto.Message), header)
		if reply != nil {
			return reply, nil
		}
		return map[string]proto.Message{
			telemetry.Traces: new(tracespb.ExportTraceServiceResponse), telemetry.Metrics: new(metricspb.ExportMetricsServiceResponse),
			telemetry.Logs: new(logspb.ExportLogsServiceResponse),
		}[signal], nil
	})}
	if secure != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(secure)))
	}
	server := grpc.NewServer(options...)
	tracespb.RegisterTraceServiceServer(server, tracespb.UnimplementedTraceServiceServer{})
	metricspb.RegisterMetricsServiceServer(server, metricspb.UnimplementedMetricsServiceServer{})
	logspb.RegisterLogsServiceServer(server, logspb.UnimplementedLogsServiceServer{})
	listener := listen(t, address)
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(listener) }()
	t.Cleanup(func() { server.Stop(); <-done })
	return r, listener.Addr().String()
}

func listen(t testing.TB, address string) net.Listener {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return listener
}

// httpCollector is a collector on a real HTTP server. handle, which may be nil, reports whether it has answered itself.
func httpCollector(t testing.TB, secure bool, handle func(signal string, n int, w http.ResponseWriter) bool) (*receiver, *httptest.Server) {
	t.Helper()
	r := newReceiver()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		signal := path.Base(request.URL.Path)
		n := r.ask(signal)
		body, err := decode(request)
		if err == nil && handle != nil && handle(signal, n, w) {
			return
		}
		message := map[string]proto.Message{
			telemetry.Traces: new(tracespb.ExportTraceServiceRequest), telemetry.Metrics: new(metricspb.ExportMetricsServiceRequest),
			telemetry.Logs: new(logspb.ExportLogsServiceRequest),
		}[signal]
		if err != nil || message == nil || proto.Unmarshal(body, message) != nil || request.Header.Get("Content-Type") != "application/x-protobuf" {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		r.take(signal, message, request.Header.Clone())
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	if secure {
		server.StartTLS()
	} else {
		server.Start()
	}
	t.Cleanup(server.Close)
	return r, server
}

func decode(r *http.Request) ([]byte, error) {
	var body io.Reader = r.Body
	if r.Header.Get("Content-Encoding") == "gzip" {
		var err error
		if body, err = gzip.NewReader(r.Body); err != nil {
			return nil, err
		}
	}
	return io.ReadAll(body)
}

// authority is a certificate of httptest in a file, and the server's side of it.
func authority(t testing.TB) (file string, server *tls.Config) {
	t.Helper()
	s := httptest.NewUnstartedServer(nil)
	s.StartTLS()
	defer s.Close()
	file = filepath.Join(t.TempDir(), "ca.pem")
	encoded := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	if err := os.WriteFile(file, encoded, 0o600); err != nil {
		t.Fatal(err)
	}
	return file, &tls.Config{Certificates: s.TLS.Certificates, NextProtos: []string{"h2"}}
}

// journal is a log that tests read.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

// stand is telemetry under test.
type stand struct {
	*telemetry.Telemetry
	journal  *journal
	registry *prometheus.Registry
}

// quick are settings that make tests short.
func quick(more ...string) map[string]string {
	env := map[string]string{
		"OTEL_BSP_SCHEDULE_DELAY": "5", "OTEL_BLRP_SCHEDULE_DELAY": "5", "OTEL_METRIC_EXPORT_INTERVAL": "20", "OTEL_EXPORTER_OTLP_TIMEOUT": "10000",
	}
	for i := 0; i < len(more); i += 2 {
		env[more[i]] = more[i+1]
	}
	return env
}

func build(t testing.TB, env map[string]string) *stand {
	t.Helper()
	s := &stand{journal: new(journal), registry: prometheus.NewRegistry()}
	s.Telemetry = telemetry.New(telemetry.Options{
		Env: env, Logger: slog.New(slog.NewTextHandler(s.journal, &slog.HandlerOptions{Level: slog.LevelDebug})), Version: "1.2.3", Sample: 1,
		Within: func(ctx context.Context) trace.Context {
			c, _ := ctx.Value(within{}).(trace.Context)
			return c
		},
		Gatherer: s.registry, Metrics: s.registry,
	})
	return s
}

type within struct{}

// run starts it; the test's end stops it.
func (s *stand) run(t testing.TB) *stand {
	t.Helper()
	s.Start()
	t.Cleanup(func() { s.end(t) })
	return s
}

// end stops it and returns how long that took.
func (s *stand) end(t testing.TB) time.Duration {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), hang)
	defer cancel()
	began := time.Now()
	if err := s.Stop(ctx); err != nil {
		t.Errorf("%v; the log says:\n%s", err, s.journal)
	}
	return time.Since(began)
}

func (s *stand) signal(name string) telemetry.Signal {
	for _, each := range s.Status() {
		if each.Name == name {
			return each
		}
	}
	return telemetry.Signal{}
}

// dropped is what the room's own metrics say.
func (s *stand) dropped(t testing.TB, reason, signal string) float64 {
	t.Helper()
	families, err := s.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			got := ""
			for _, l := range m.GetLabel() {
				got += l.GetName() + "=" + l.GetValue() + ","
			}
			if family.GetName() == "api_router_telemetry_dropped_total" && got == "reason="+reason+",signal="+signal+"," {
				return m.GetCounter().GetValue()
			}
		}
	}
	t.Fatalf("there is no series of %s that were dropped for %s", signal, reason)
	return 0
}

func await(t testing.TB, what string, is func() bool) {
	t.Helper()
	deadline := time.Now().Add(hang)
	for !is() {
		if time.Now().After(deadline) {
			t.Fatalf("waited %s in vain for: %s", hang, what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// sample is a trace of two spans.
func sample() *trace.Trace {
	id, root := trace.NewID(), trace.NewSpanID()
	now := time.Now()
	return &trace.Trace{ID: id, State: "vendor=1", Sampled: true, Spans: []trace.Span{
		{
			ID: root, Parent: trace.NewSpanID(), Remote: true, Name: "chat gpt-oss-20b", Kind: trace.Server, Start: now.Add(-time.Second), End: now,
			Attributes: []trace.Attribute{{Key: "gen_ai.request.model", Value: "gpt-oss-20b"}, {Key: "gen_ai.usage.input_tokens", Value: int64(7)}, {Key: "bad", Value: "\xff"}},
		},
		{ID: trace.NewSpanID(), Parent: root, Name: "attempt", Kind: trace.Client, Start: now.Add(-time.Second), End: now, Failure: "timeout"},
	}}
}

func attributes(list []*commonpb.KeyValue) map[string]string {
	all := map[string]string{}
	for _, kv := range list {
		v := kv.GetValue()
		switch v.GetValue().(type) {
		case *commonpb.AnyValue_StringValue:
			all[kv.GetKey()] = v.GetStringValue()
		case *commonpb.AnyValue_IntValue:
			all[kv.GetKey()] = fmt.Sprint(v.GetIntValue())
		case *commonpb.AnyValue_DoubleValue:
			all[kv.GetKey()] = fmt.Sprint(v.GetDoubleValue())
		case *commonpb.AnyValue_BoolValue:
			all[kv.GetKey()] = fmt.Sprint(v.GetBoolValue())
		default:
			all[kv.GetKey()] = v.String()
		}
	}
	return all
}
