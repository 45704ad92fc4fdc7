package app

import (
	"encoding/pem"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ai-aas/api-router/test/ports"
)

// told is what doctor says of telemetry.
func told(t *testing.T, env map[string]string) (string, bool) {
	t.Helper()
	var out strings.Builder
	d := doctor{out: &out}
	d.collectors(t.Context(), env)
	return out.String(), d.failed
}

func TestDoctorConnectsToTheCollector(t *testing.T) {
	takes := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/x-protobuf" || r.URL.Path == "/v1/logs" {
			w.WriteHeader(http.StatusNotFound)
		}
	})
	plain, secured := httptest.NewServer(takes), httptest.NewTLSServer(takes)
	defer plain.Close()
	defer secured.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secured.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	silent, err := net.Listen("tcp", "127.0.0.1:0") // It takes the connection, and says nothing.
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for name, tc := range map[string]struct {
		endpoint, ca, protocol string
		verdicts               [3]string // of traces, metrics and logs
		says                   string
	}{
		"nothing there":                     {ports.Dead(t), "", "grpc", [3]string{"fail", "fail", "fail"}, "connection refused"},
		"HTTP, without a pipeline for logs": {plain.URL, "", "http/protobuf", [3]string{"ok", "ok", "fail"}, "logs at " + plain.URL + "/v1/logs (http/protobuf) are not taken"},
		"TLS, known":                        {secured.URL, ca, "http/protobuf", [3]string{"ok", "ok", "fail"}, "traces at " + secured.URL + "/v1/traces (http/protobuf) are taken"},
		"TLS, unknown":                      {secured.URL, "", "http/protobuf", [3]string{"fail", "fail", "fail"}, "certificate"},
		"TLS, no certificate":               {secured.URL, os.DevNull, "http/protobuf", [3]string{"fail", "fail", "fail"}, "holds no certificate"},
		"silent, over gRPC":                 {silent.Addr().String(), "", "grpc", [3]string{"fail", "fail", "fail"}, "correct OTEL_EXPORTER_OTLP_ENDPOINT"},
		"silent, over HTTP":                 {silent.Addr().String(), "", "http/protobuf", [3]string{"fail", "fail", "fail"}, "correct OTEL_EXPORTER_OTLP_ENDPOINT"},
		"a scheme of no avail":              {"ftp://user:hidden@c", "", "grpc", [3]string{"fail", "fail", "fail"}, "no traces are sent: OTEL_EXPORTER_OTLP_ENDPOINT has no usable value"},
	} {
		t.Run(name, func(t *testing.T) {
			begun := time.Now()
			says, failed := told(t, map[string]string{
				"OTEL_EXPORTER_OTLP_ENDPOINT": tc.endpoint, "OTEL_EXPORTER_OTLP_CERTIFICATE": tc.ca, "OTEL_EXPORTER_OTLP_PROTOCOL": tc.protocol,
			})
			lines := strings.Split(strings.TrimSpace(says), "\n")
			if !failed || len(lines) != 3 || !strings.Contains(says, tc.says) || strings.Contains(says, "hidden") {
				t.Fatal(says)
			}
			for i, verdict := range tc.verdicts {
				if !strings.HasPrefix(lines[i], verdict+" ") {
					t.Errorf("%s, want %s", lines[i], verdict)
				}
			}
			if took := time.Since(begun); took > 10*reachWithin {
				t.Errorf("it took %s", took)
			}
		})
	}
	if says, failed := told(t, nil); says != "" || failed {
		t.Errorf("without telemetry: %s", says)
	}
}
