package app

import (
	"encoding/pem"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestCollectorsAreTakenFromTheStandardVariables(t *testing.T) {
	all := func(address string, secured bool) []collector {
		return []collector{{"traces", address, secured, ""}, {"metrics", address, secured, ""}, {"logs", address, secured, ""}}
	}
	for name, tc := range map[string]struct {
		env  map[string]string
		want []collector
		err  string
	}{
		"nothing":            {map[string]string{}, nil, ""},
		"empty":              {map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": " "}, nil, ""},
		"a host and a port":  {map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4317"}, all("collector:4317", false), ""},
		"a host":             {map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "collector"}, all("collector:4317", false), ""},
		"with TLS":           {map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4317", "OTEL_EXPORTER_OTLP_INSECURE": "false"}, all("collector:4317", true), ""},
		"a URL":              {map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318"}, all("localhost:4318", false), ""},
		"a URL with a path":  {map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "https://otel.example/otlp"}, all("otel.example:443", true), ""},
		"a URL without port": {map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://otel.example"}, all("otel.example:80", false), ""},
		"IPv6":               {map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "[::1]:4317"}, all("[::1]:4317", false), ""},
		"disabled":           {map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4317", "OTEL_SDK_DISABLED": "true"}, nil, ""},
		"one signal":         {map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://t:1", "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE": "ca.pem"}, []collector{{"traces", "t:1", true, "ca.pem"}}, ""},
		"one elsewhere": {
			map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "c:4317", "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://l:4318/v1/logs", "OTEL_METRICS_EXPORTER": "none"},
			[]collector{{"traces", "c:4317", false, ""}, {"logs", "l:4318", false, ""}},
			"",
		},
		"another scheme": {map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "ftp://user:hidden@c"}, nil, "OTEL_EXPORTER_OTLP_ENDPOINT is not of the form"},
		"no host":        {map[string]string{"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://:4318"}, nil, "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT is not of the form"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := collectorsOf(tc.env)
			if !slices.Equal(got, tc.want) || (err != nil) != (tc.err != "") || err != nil && (!strings.Contains(err.Error(), tc.err) || strings.Contains(err.Error(), "hidden")) {
				t.Errorf("%+v %v", got, err)
			}
		})
	}
}

// told is what doctor says of telemetry.
func told(t *testing.T, env map[string]string) (string, bool) {
	t.Helper()
	var out strings.Builder
	d := doctor{out: &out}
	d.collectors(t.Context(), env)
	return out.String(), d.failed
}

func TestDoctorConnectsToTheCollector(t *testing.T) {
	plain, secured := httptest.NewServer(nil), httptest.NewTLSServer(nil)
	defer plain.Close()
	defer secured.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secured.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	silent, err := net.Listen("tcp", "127.0.0.1:0") // It takes the connection, and says nothing to a handshake.
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	for name, tc := range map[string]struct {
		endpoint, ca string
		failed       bool
		says         string
	}{
		"nothing there":       {gone.Addr().String(), "", true, "fail  telemetry      the collector of traces, metrics, logs at " + gone.Addr().String() + " cannot be reached"},
		"there":               {plain.URL, "", false, "ok    telemetry      the collector of traces, metrics, logs at " + plain.Listener.Addr().String()},
		"TLS, known":          {secured.URL, ca, false, "accepts connections"},
		"TLS, unknown":        {secured.URL, "", true, "certificate"},
		"TLS, no certificate": {secured.URL, os.DevNull, true, "no certificate in PEM form"},
		"TLS, silent":         {"https://" + silent.Addr().String(), "", true, "start it, or correct OTEL_EXPORTER_OTLP_ENDPOINT"},
	} {
		t.Run(name, func(t *testing.T) {
			begun := time.Now()
			says, failed := told(t, map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": tc.endpoint, "OTEL_EXPORTER_OTLP_CERTIFICATE": tc.ca})
			if failed != tc.failed || !strings.Contains(says, tc.says) || strings.Count(says, "\n") != 1 {
				t.Errorf("%s", says)
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
