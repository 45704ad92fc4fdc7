package telemetry

import (
	"context"
	"errors"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// grpcCarrier speaks OTLP over gRPC.
type grpcCarrier struct {
	to     *collector
	method string
	agent  string
	conn   *grpc.ClientConn // nil: none
}

// reconnect is how often a lost connection is tried: a collector that is back is found within seconds.
var reconnect = grpc.ConnectParams{
	Backoff:           backoff.Config{BaseDelay: 500 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 5 * time.Second},
	MinConnectTimeout: 5 * time.Second,
}

func (c *grpcCarrier) connect() error {
	if c.conn != nil {
		return nil
	}
	secure := insecure.NewCredentials()
	if c.to.tls() {
		config, err := c.to.tlsConfig()
		if err != nil {
			return err
		}
		secure = credentials.NewTLS(config)
	}
	// Nothing of the address but the host is looked up, and no proxy of the process's environment stands between.
	conn, err := grpc.NewClient("dns:///"+c.to.url.Host, grpc.WithTransportCredentials(secure), grpc.WithUserAgent(c.agent),
		grpc.WithConnectParams(reconnect), grpc.WithDisableServiceConfig(), grpc.WithDisableRetry(), grpc.WithNoProxy(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)), grpc.WithMaxHeaderListSize(maxAnswer))
	c.conn = conn
	return err
}

func (c *grpcCarrier) send(ctx context.Context, request, answer proto.Message) error {
	if err := c.connect(); err != nil {
		return &failure{reason: c.to.clean(err.Error()), again: true}
	}
	if len(c.to.headers) > 0 {
		pairs := make([]string, 0, 2*len(c.to.headers))
		for _, h := range c.to.headers {
			pairs = append(pairs, h.name, h.value)
		}
		ctx = metadata.AppendToOutgoingContext(ctx, pairs...)
	}
	var options []grpc.CallOption
	if c.to.gzip {
		options = append(options, grpc.UseCompressor(gzip.Name))
	}
	err := c.conn.Invoke(ctx, c.method, request, answer, options...)
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		// Nobody answered. The connection may be one that leads nowhere, and gRPC would keep it for a quarter of an hour.
		c.close()
		return unanswered(ctx)
	}
	s := status.Convert(err)
	if s.Code() == codes.Unavailable && c.to.authorities != "" {
		c.close() // Its certificate may be of an authority that was written to the file since.
	}
	return c.failure(s)
}

// failure reads a status as OTLP has it: https://opentelemetry.io/docs/specs/otlp/#failures.
func (c *grpcCarrier) failure(s *status.Status) *failure {
	f := &failure{reason: s.Code().String() + ": " + c.to.clean(s.Message())}
	asked := false
	for _, detail := range s.Details() {
		if info, ok := detail.(*errdetails.RetryInfo); ok {
			f.after, asked = max(info.GetRetryDelay().AsDuration(), 0), true
		}
	}
	switch s.Code() {
	case codes.Unimplemented:
		f.refused = true
	case codes.Canceled, codes.DeadlineExceeded, codes.Aborted, codes.OutOfRange, codes.Unavailable, codes.DataLoss:
		f.again = true
	case codes.ResourceExhausted:
		f.again = asked
	default:
	}
	if strings.Contains(s.Message(), "frame too large") { // HTTP/1's words, read as a frame of HTTP/2.
		f.reason += " (is this a port for OTLP over HTTP? Then set " + otlp + "PROTOCOL=http/protobuf)"
	}
	return f
}

// close gives the connection up. It waits for nothing: gRPC's own end waits for its resolver, and so for seconds where the name server is dead.
func (c *grpcCarrier) close() {
	if c.conn != nil {
		go func(conn *grpc.ClientConn) { _ = conn.Close() }(c.conn)
		c.conn = nil
	}
}

// unanswered is the failure of an attempt that ran out of time.
func unanswered(ctx context.Context) *failure {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return &failure{reason: "the collector did not answer in time", again: true}
	}
	return &failure{reason: "the process ended before the collector answered"}
}
