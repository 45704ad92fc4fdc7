package telemetry

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/ai-aas/api-router/internal/trace"
)

// TestTheRulesOfEndpoints is the table of docs/telemetry.md. Each entry is what traces are sent by: protocol and URL, or what is wrong.
func TestTheRulesOfEndpoints(t *testing.T) {
	t.Parallel()
	const (
		endpoint, protocol, insecure = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_INSECURE"
		own                          = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
	)
	tests := []struct {
		env  []string
		want string
	}{
		{nil, "off: OTEL_EXPORTER_OTLP_ENDPOINT is empty"},
		{[]string{endpoint, ""}, "off: OTEL_EXPORTER_OTLP_ENDPOINT is empty"},
		// Without a scheme.
		{[]string{endpoint, "otel:4317"}, "grpc http://otel:4317"},
		{[]string{endpoint, " otel:4317 "}, "grpc http://otel:4317"},
		{[]string{endpoint, "otel"}, "grpc http://otel:4317"},
		{[]string{endpoint, "otel:9999"}, "grpc http://otel:9999"},
		{[]string{endpoint, "10.0.0.1:4317"}, "grpc http://10.0.0.1:4317"},
		{[]string{endpoint, "[::1]:4317"}, "grpc http://[::1]:4317"},
		{[]string{endpoint, "localhost:4318"}, "http/protobuf http://localhost:4318/v1/traces"},
		{[]string{endpoint, "localhost:4318", protocol, "grpc"}, "grpc http://localhost:4318"},
		{[]string{endpoint, "otel:4317", protocol, "http/protobuf"}, "http/protobuf http://otel:4317/v1/traces"},
		{[]string{endpoint, "otel", protocol, "http/protobuf"}, "http/protobuf http://otel:4318/v1/traces"},
		{[]string{endpoint, "otel:9999/otlp"}, "http/protobuf http://otel:9999/otlp/v1/traces"},
		// Encryption without a scheme.
		{[]string{endpoint, "otel:443"}, "grpc https://otel:443"},
		{[]string{endpoint, "otel:443", insecure, "true"}, "grpc http://otel:443"},
		{[]string{endpoint, "otel:4317", insecure, "true"}, "grpc http://otel:4317"},
		{[]string{endpoint, "otel:4317", insecure, "False"}, "grpc https://otel:4317"},
		{[]string{endpoint, "otel:4317", "OTEL_EXPORTER_OTLP_CERTIFICATE", "/ca.pem"}, "grpc https://otel:4317"},
		{[]string{endpoint, "otel:4317", insecure, "true", "OTEL_EXPORTER_OTLP_CERTIFICATE", "/ca.pem"}, "grpc http://otel:4317"},
		// With a scheme, which says whether the way is encrypted.
		{[]string{endpoint, "http://otel:4318"}, "http/protobuf http://otel:4318/v1/traces"},
		{[]string{endpoint, "HTTP://otel:4318/"}, "http/protobuf http://otel:4318/v1/traces"},
		{[]string{endpoint, "https://otel.example.org"}, "http/protobuf https://otel.example.org/v1/traces"},
		{[]string{endpoint, "https://otel.example.org/otlp/"}, "http/protobuf https://otel.example.org/otlp/v1/traces"},
		{[]string{endpoint, "http://otel:4317"}, "grpc http://otel:4317"},
		{[]string{endpoint, "http://otel:4317/"}, "grpc http://otel:4317"},
		{[]string{endpoint, "https://otel.example.org", protocol, "grpc"}, "grpc https://otel.example.org:443"},
		{[]string{endpoint, "http://otel", protocol, "grpc"}, "grpc http://otel:4317"},
		{[]string{endpoint, "http://otel:4318", protocol, "grpc"}, "grpc http://otel:4318"},
		{[]string{endpoint, "https://otel:4317", insecure, "true"}, "grpc https://otel:4317; OTEL_EXPORTER_OTLP_INSECURE"},
		{[]string{endpoint, "http://otel:4317", insecure, "false"}, "grpc http://otel:4317; OTEL_EXPORTER_OTLP_INSECURE"},
		// Of one signal.
		{[]string{own, "http://otel:4318"}, "http/protobuf http://otel:4318/"},
		{[]string{own, "http://otel:4318/my/traces"}, "http/protobuf http://otel:4318/my/traces"},
		{[]string{endpoint, "http://all:4318", own, "one:4317"}, "grpc http://one:4317"},
		{[]string{endpoint, "all:4317", own, ""}, "grpc http://all:4317"},
		{[]string{endpoint, "all:4317", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf"}, "http/protobuf http://all:4317/v1/traces"},
		{[]string{endpoint, "all:4317", protocol, "http/json", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc"}, "grpc http://all:4317; OTEL_EXPORTER_OTLP_PROTOCOL"}, // The other signals are off.
		// Off.
		{[]string{endpoint, "otel:4317", "OTEL_SDK_DISABLED", "true"}, "off: OTEL_SDK_DISABLED is true"},
		{[]string{endpoint, "otel:4317", "OTEL_SDK_DISABLED", "maybe"}, "grpc http://otel:4317; OTEL_SDK_DISABLED"},
		{[]string{endpoint, "otel:4317", "OTEL_TRACES_EXPORTER", "none"}, "off: OTEL_TRACES_EXPORTER does not say otlp"},
		{[]string{endpoint, "otel:4317", "OTEL_TRACES_EXPORTER", "otlp"}, "grpc http://otel:4317"},
		// What cannot be used.
		{[]string{endpoint, "otel:4317", "OTEL_TRACES_EXPORTER", "console"}, "off; OTEL_TRACES_EXPORTER"},
		{[]string{endpoint, "unix:///run/otel"}, "off; OTEL_EXPORTER_OTLP_ENDPOINT"},
		{[]string{endpoint, "ftp://otel"}, "off; OTEL_EXPORTER_OTLP_ENDPOINT"},
		{[]string{endpoint, "http://"}, "off; OTEL_EXPORTER_OTLP_ENDPOINT"},
		{[]string{endpoint, ":4317"}, "off; OTEL_EXPORTER_OTLP_ENDPOINT"},
		{[]string{endpoint, "otel:port"}, "off; OTEL_EXPORTER_OTLP_ENDPOINT"},
		{[]string{endpoint, "otel:70000"}, "off; OTEL_EXPORTER_OTLP_ENDPOINT"},
		{[]string{own, "::bad::"}, "off; OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"},
		{[]string{endpoint, "http://otel:4317/v1/traces", protocol, "grpc"}, "off; OTEL_EXPORTER_OTLP_ENDPOINT"},
		{[]string{endpoint, "otel:4317", protocol, "http/json"}, "off; OTEL_EXPORTER_OTLP_PROTOCOL"},
		{[]string{endpoint, "otel:4317", insecure, "yes"}, "off; OTEL_EXPORTER_OTLP_INSECURE"},
		{[]string{endpoint, "otel:4317", "OTEL_EXPORTER_OTLP_HEADERS", "secret"}, "off; OTEL_EXPORTER_OTLP_HEADERS"},
		{[]string{endpoint, "otel:4317", "OTEL_EXPORTER_OTLP_HEADERS", "a=secret%"}, "off; OTEL_EXPORTER_OTLP_HEADERS"},
		{[]string{endpoint, "otel:4317", "OTEL_EXPORTER_OTLP_HEADERS", "a=secret%0a"}, "off; OTEL_EXPORTER_OTLP_HEADERS"},
		{[]string{endpoint, "otel:4317", "OTEL_EXPORTER_OTLP_HEADERS", "content-type=secret"}, "off; OTEL_EXPORTER_OTLP_HEADERS"},
		{[]string{endpoint, "otel:4317", "OTEL_EXPORTER_OTLP_TRACES_HEADERS", "b b=secret"}, "off; OTEL_EXPORTER_OTLP_TRACES_HEADERS"},
		{[]string{endpoint, "otel:4317", "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "/cert.pem"}, "off; OTEL_EXPORTER_OTLP_CLIENT_KEY"},
		// What is only a number or a name: the default stays.
		{[]string{endpoint, "otel:4317", "OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"}, "grpc http://otel:4317; OTEL_EXPORTER_OTLP_COMPRESSION"},
		{[]string{endpoint, "otel:4317", "OTEL_EXPORTER_OTLP_TIMEOUT", "10s"}, "grpc http://otel:4317; OTEL_EXPORTER_OTLP_TIMEOUT"},
		{[]string{endpoint, "otel:4317", "OTEL_BSP_MAX_QUEUE_SIZE", "-1"}, "grpc http://otel:4317; OTEL_BSP_MAX_QUEUE_SIZE"},
		{[]string{endpoint, "otel:4317", "OTEL_RESOURCE_ATTRIBUTES", "oops"}, "grpc http://otel:4317; OTEL_RESOURCE_ATTRIBUTES"},
	}
	for _, test := range tests {
		t.Run(strings.Join(test.env, " "), func(t *testing.T) {
			t.Parallel()
			s := readSettings(variablesOf(test.env), 0.1)
			var got strings.Builder
			switch c := s.traces; {
			case c.off == "":
				fmt.Fprintf(&got, "%s %s", c.protocol, c.display())
			case strings.Contains(c.off, "has no usable value"):
				got.WriteString("off")
			default:
				got.WriteString("off: " + c.off)
			}
			if len(s.notes) > 0 {
				fmt.Fprintf(&got, "; %v", s.notes[0].attrs[1])
			}
			if got.String() != test.want {
				t.Errorf("got  %q\nwant %q", got.String(), test.want)
			}
			if all := fmt.Sprintf("%v %v", s.notes, s.traces.off); strings.Contains(all, "secret") {
				t.Errorf("a value is repeated: %s", all)
			}
		})
	}
}

func variablesOf(list []string) map[string]string {
	env := map[string]string{}
	for i := 0; i < len(list); i += 2 {
		env[list[i]] = list[i+1]
	}
	return env
}

func TestEachSignalHasVariablesOfItsOwn(t *testing.T) {
	t.Parallel()
	s := readSettings(variablesOf([]string{
		"OTEL_EXPORTER_OTLP_ENDPOINT", "https://user:pass%20word@all.example.org/?key=secret", "OTEL_EXPORTER_OTLP_HEADERS", "a=1, A=%202 ,b=x=y",
		"OTEL_EXPORTER_OTLP_TIMEOUT", "7000", "OTEL_EXPORTER_OTLP_COMPRESSION", "gzip", "OTEL_EXPORTER_OTLP_LOGS_TIMEOUT", "1000",
		"OTEL_EXPORTER_OTLP_LOGS_HEADERS", "c=3", "OTEL_EXPORTER_OTLP_LOGS_COMPRESSION", "none", "OTEL_METRICS_EXPORTER", "prometheus",
		"OTEL_METRIC_EXPORT_INTERVAL", "1000", "OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", "3", "OTEL_BSP_SCHEDULE_DELAY", "9",
	}), 0.1)
	if len(s.notes) != 0 {
		t.Errorf("notes: %v", s.notes)
	}
	values := func(c collector) string {
		all := ""
		for _, h := range c.headers {
			all += h.name + ":" + h.value + ";"
		}
		return fmt.Sprint(all, c.timeout, c.gzip)
	}
	if got, want := values(s.traces), "authorization:Basic dXNlcjpwYXNzIHdvcmQ=;a: 2;b:x=y;7s true"; got != want {
		t.Errorf("traces: got %s, want %s", got, want)
	}
	if got, want := values(s.logs), "authorization:Basic dXNlcjpwYXNzIHdvcmQ=;c:3;1s false"; got != want {
		t.Errorf("logs: got %s, want %s", got, want)
	}
	if s.metrics.off == "" || s.interval != time.Second || s.lines.batch != 3 || s.spans.delay != 9*time.Millisecond || s.spans.queue != 2048 {
		t.Errorf("got %+v", s)
	}
	if got := s.traces.display(); got != "https://all.example.org/v1/traces" {
		t.Errorf("the address is shown as %s", got)
	}
	if got := fmt.Sprintf("%v %+v %#v", s.traces.headers, s.traces.headers, s.traces.headers[0]); strings.Contains(got, "x=y") || strings.Contains(got, "dXNl") {
		t.Errorf("headers print as %s", got)
	}
}

func TestTheResourceIsWhatTheEnvironmentSays(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		env  []string
		want []pair
	}{
		{nil, nil},
		{[]string{"OTEL_SERVICE_NAME", "mine"}, []pair{{"service.name", "mine"}}},
		{[]string{"OTEL_RESOURCE_ATTRIBUTES", "service.name=other,k8s.pod.name=a%2Cb"}, []pair{{"service.name", "other"}, {"k8s.pod.name", "a,b"}}},
		{[]string{"OTEL_RESOURCE_ATTRIBUTES", "service.name=other,a=b", "OTEL_SERVICE_NAME", "mine"}, []pair{{"a", "b"}, {"service.name", "mine"}}},
		{[]string{"OTEL_RESOURCE_ATTRIBUTES", "a=b,broken"}, nil},
	} {
		if diff := cmp.Diff(test.want, readSettings(variablesOf(test.env), 0).resource, cmp.AllowUnexported(pair{})); diff != "" {
			t.Errorf("%v: %s", test.env, diff)
		}
	}
}

func TestSamplers(t *testing.T) {
	t.Parallel()
	const share = 0.1
	sampled, not := trace.Context{Trace: trace.NewID(), Sampled: true}, trace.Context{Trace: trace.NewID()}
	low, high := trace.ID{15: 1}, trace.ID{8: 0xff} // sampled by any share above zero; by none below one
	for _, test := range []struct {
		kind, argument          string
		low, high, sampled, not bool // of a trace that begins here, and of callers who decided
		warns                   int
	}{
		{"", "", true, false, true, false, 0},
		{"", "0.5", true, false, true, false, 1},
		{"always_on", "", true, true, true, true, 0},
		{"always_off", "", false, false, false, false, 0},
		{"traceidratio", "0.5", true, false, true, true, 0},
		{"traceidratio", "", true, true, true, true, 0},
		{"parentbased_always_on", "", true, true, true, false, 0},
		{"parentbased_always_off", "", false, false, true, false, 0},
		{"ParentBased_TraceIdRatio", "0.5", true, false, true, false, 0},
		{"parentbased_traceidratio", "0", false, false, true, false, 0},
		{"parentbased_traceidratio", "2", true, false, true, false, 1},
		{"jaeger_remote", "", true, false, true, false, 1},
	} {
		s := readSettings(map[string]string{"OTEL_TRACES_SAMPLER": test.kind, "OTEL_TRACES_SAMPLER_ARG": test.argument}, share)
		got := []bool{s.sampler.sample(low, trace.Context{}), s.sampler.sample(high, trace.Context{}), s.sampler.sample(low, sampled), s.sampler.sample(low, not)}
		if want := []bool{test.low, test.high, test.sampled, test.not}; !cmp.Equal(got, want) || len(s.notes) != test.warns {
			t.Errorf("%s(%s): got %v, want %v; notes %v", test.kind, test.argument, got, want, s.notes)
		}
	}
}

func TestNoEnvironmentBreaksTheSettings(t *testing.T) {
	t.Parallel()
	names := []string{
		"OTEL_SDK_DISABLED", "OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_PROTOCOL",
		"OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TIMEOUT", "OTEL_EXPORTER_OTLP_INSECURE", "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT",
		"OTEL_TRACES_EXPORTER", "OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG", "OTEL_BSP_MAX_QUEUE_SIZE", "OTEL_BLRP_SCHEDULE_DELAY",
	}
	value := rapid.OneOf(rapid.String(), rapid.StringMatching(`(https?://)?[a-z.:@\[\]]{0,12}(:[0-9]{1,6})?(/[a-z%?#]{0,6})?`), rapid.SampledFrom([]string{"grpc", "http/protobuf", "true", "1"}))
	rapid.Check(t, func(t *rapid.T) {
		env := map[string]string{}
		for _, name := range names {
			env[name] = value.Draw(t, name)
		}
		s := readSettings(env, 0.1)
		for _, c := range []collector{s.traces, s.metrics, s.logs} {
			if (c.off == "") != (c.url != nil && c.url.Hostname() != "" && c.protocol != "" && c.timeout > 0) {
				t.Fatalf("neither off nor usable: %+v", c)
			}
			if c.off == "" {
				c.carrier(Traces, "test").close()
			}
		}
		if s.spans.queue < 1 || s.lines.delay <= 0 || s.interval <= 0 || !(s.sampler.share >= 0 && s.sampler.share <= 1) {
			t.Fatalf("out of bounds: %+v", s)
		}
		for _, n := range s.notes {
			if n.level != slog.LevelWarn {
				t.Fatalf("a note of level %s", n.level)
			}
		}
	})
}
