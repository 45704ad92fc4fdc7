package telemetry_test

import (
	"context"
	"errors"
	"net"
	"testing"
)

// gRPC waits at the end of a connection for its resolver, and that waits for a name server as long as it likes.
func TestTheEndWaitsForNoResolver(t *testing.T) {
	asked, release := make(chan struct{}, 1), make(chan struct{})
	before := net.DefaultResolver
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) { //nolint:reassign // gRPC takes no other.
		select {
		case asked <- struct{}{}:
		default:
		}
		<-release
		return nil, errors.New("the test is over")
	}}
	t.Cleanup(func() {
		close(release)
		net.DefaultResolver = before //nolint:reassign // As above.
	})
	s := build(t, quick("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector.invalid:4317", "OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "OTEL_METRICS_EXPORTER", "none"))
	s.Start()
	s.Emit(sample())
	<-asked
	ctx, cancel := context.WithTimeout(t.Context(), hang)
	defer cancel()
	if err := s.Stop(ctx); err != nil {
		t.Error(err)
	}
}
