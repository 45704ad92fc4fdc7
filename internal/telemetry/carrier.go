package telemetry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
	"unicode"

	logspb "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	metricspb "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	tracespb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"
)

// carrier brings one request of OTLP to the collector and its answer back. It connects when it is used, and again when that is needed. It
// is used by one goroutine at a time.
type carrier interface {
	// send does one attempt. Its error is a *failure.
	send(ctx context.Context, request, answer proto.Message) error
	close()
}

// failure is why an attempt failed.
type failure struct {
	reason  string
	again   bool          // the same request may succeed later
	after   time.Duration // that the collector asks to wait; 0: it says nothing
	refused bool          // the collector has no pipeline for this signal
}

func (f *failure) Error() string { return f.reason }

// asFailure takes any other error for one that may pass.
func asFailure(err error) *failure {
	if f, ok := errors.AsType[*failure](err); ok {
		return f
	}
	return &failure{reason: err.Error(), again: true}
}

// newAnswer is an empty answer for the signal.
func newAnswer(signal string) proto.Message {
	switch signal {
	case Traces:
		return new(tracespb.ExportTraceServiceResponse)
	case Metrics:
		return new(metricspb.ExportMetricsServiceResponse)
	default:
		return new(logspb.ExportLogsServiceResponse)
	}
}

// rejected is how many spans, points or lines the collector took out of what it accepted, and its words.
func rejected(answer proto.Message) (count int64, message string) {
	switch a := answer.(type) {
	case *tracespb.ExportTraceServiceResponse:
		count, message = a.GetPartialSuccess().GetRejectedSpans(), a.GetPartialSuccess().GetErrorMessage()
	case *metricspb.ExportMetricsServiceResponse:
		count, message = a.GetPartialSuccess().GetRejectedDataPoints(), a.GetPartialSuccess().GetErrorMessage()
	case *logspb.ExportLogsServiceResponse:
		count, message = a.GetPartialSuccess().GetRejectedLogRecords(), a.GetPartialSuccess().GetErrorMessage()
	}
	return max(count, 0), message
}

// carrier makes what brings the signal to c. It opens nothing.
func (c *collector) carrier(signal, agent string) carrier {
	if c.protocol == GRPC {
		return &grpcCarrier{to: c, method: methods[signal], agent: agent}
	}
	return &httpCarrier{to: c, agent: agent}
}

// methods are OTLP's, as its services define them.
var methods = map[string]string{
	Traces:  "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
	Metrics: "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
	Logs:    "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
}

// tlsConfig reads the files that are named. The client certificate is read again for each handshake.
func (c *collector) tlsConfig() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.authorities != "" {
		data, err := os.ReadFile(c.authorities)
		if err != nil {
			return nil, fmt.Errorf("the file of %sCERTIFICATE cannot be read: %w", otlp, err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(data) {
			return nil, fmt.Errorf("the file of %sCERTIFICATE holds no certificate in PEM: %s", otlp, c.authorities)
		}
	}
	if c.certificate != "" {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(c.certificate, c.key)
			if err != nil {
				return nil, fmt.Errorf("the files of %sCLIENT_CERTIFICATE and its key: %w", otlp, err)
			}
			return &pair, nil
		}
	}
	return config, nil
}

// maxReason is how much of a collector's words is kept, in bytes.
const maxReason = 300

// clean makes words of the collector fit for a log: short, of one line, and without what our headers hold, should it repeat that.
func (c *collector) clean(text string) string {
	for _, h := range c.headers {
		for _, word := range append([]string{h.value}, strings.Fields(h.value)...) {
			if len(word) >= 4 {
				text = strings.ReplaceAll(text, word, "***")
			}
		}
	}
	text = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, strings.ToValidUTF8(text, "?"))
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > maxReason {
		text = strings.ToValidUTF8(text[:maxReason], "") + "…"
	}
	return text
}
