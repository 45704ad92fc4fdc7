package telemetry

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	rpcpb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"
)

const (
	typeProtobuf = "application/x-protobuf"
	// maxAnswer bounds what is read of an answer, in bytes. Honest ones have a few dozen.
	maxAnswer = 64 << 10
)

// httpCarrier speaks OTLP over HTTP with protobuf bodies.
type httpCarrier struct {
	to     *collector
	agent  string
	client *http.Client // nil: not made yet
}

func (c *httpCarrier) connect() error {
	if c.client != nil {
		return nil
	}
	transport := &http.Transport{
		Proxy:                  func(r *http.Request) (*url.URL, error) { return c.to.proxy(r.URL) },
		DialContext:            (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout:    5 * time.Second,
		IdleConnTimeout:        90 * time.Second,
		MaxIdleConns:           1, // One goroutine sends.
		MaxResponseHeaderBytes: maxAnswer,
		DisableCompression:     true,
	}
	if c.to.tls() {
		config, err := c.to.tlsConfig()
		if err != nil {
			return err
		}
		transport.TLSClientConfig = config
	}
	c.client = &http.Client{
		Transport: transport,
		// Headers with credentials go where they were meant to go and nowhere else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return nil
}

func (c *httpCarrier) send(ctx context.Context, request, answer proto.Message) error {
	if err := c.connect(); err != nil {
		return &failure{reason: c.to.clean(err.Error()), again: true}
	}
	r, err := c.request(ctx, request)
	if err != nil {
		return &failure{reason: c.to.clean(err.Error())}
	}
	response, err := c.client.Do(r)
	if err != nil {
		if ctx.Err() != nil {
			return unanswered(ctx)
		}
		if c.to.authorities != "" {
			c.close() // Its certificate may be of an authority that was written to the file since.
		}
		return c.broken(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	switch {
	case err != nil && ctx.Err() != nil:
		return unanswered(ctx)
	case err != nil:
		return c.broken(err)
	case response.StatusCode < 200 || response.StatusCode > 299:
		return c.failure(response, body)
	case contentType(response) == "text/html": // A login or a start page. What a collector says is for programs.
		return &failure{reason: fmt.Sprintf("HTTP %d with a page in place of an answer of OTLP: is this a collector?", response.StatusCode)}
	}
	if isProtobuf(response) && proto.Unmarshal(body, answer) != nil {
		proto.Reset(answer) // It was accepted; what else the collector wanted to say is lost.
	}
	return nil
}

func (c *httpCarrier) request(ctx context.Context, message proto.Message) (*http.Request, error) {
	body, err := proto.Marshal(message)
	if err != nil {
		return nil, err
	}
	if c.to.gzip {
		var packed bytes.Buffer
		w := gzip.NewWriter(&packed)
		if _, err := w.Write(body); err != nil {
			return nil, err
		}
		if err := w.Close(); err != nil {
			return nil, err
		}
		body = packed.Bytes()
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.to.url.String(), bytes.NewReader(body))
	if err != nil {
		return nil, errors.New("the endpoint cannot be asked over HTTP")
	}
	r.Header = c.to.header()
	if r.Header.Get("User-Agent") == "" {
		r.Header.Set("User-Agent", c.agent)
	}
	r.Header.Set("Content-Type", typeProtobuf)
	if c.to.gzip {
		r.Header.Set("Content-Encoding", "gzip")
	}
	return r, nil
}

// broken is the failure of a connection. The URL is left out of the words: it may hold a token.
func (c *httpCarrier) broken(err error) *failure {
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = wrapped.Err
	}
	f := &failure{reason: c.to.clean(err.Error()), again: true}
	if strings.Contains(f.reason, "malformed HTTP") {
		f.reason += " (is this a port for OTLP over gRPC? Then set " + otlp + "PROTOCOL=grpc)"
	}
	return f
}

// failure reads an answer as OTLP has it: https://opentelemetry.io/docs/specs/otlp/#failures-1.
func (c *httpCarrier) failure(response *http.Response, body []byte) *failure {
	f := &failure{reason: fmt.Sprintf("HTTP %d", response.StatusCode)}
	words := string(body)
	if isProtobuf(response) {
		var s rpcpb.Status
		words = ""
		if proto.Unmarshal(body, &s) == nil {
			words = s.GetMessage()
		}
	}
	if words = c.to.clean(words); words != "" {
		f.reason += ": " + words
	}
	switch response.StatusCode {
	case http.StatusNotFound:
		f.refused = true
		if c.to.url.Path == "/" { // An endpoint of one signal, to which nothing is added.
			f.reason += " (the endpoint of one signal is used as it is: its path is mostly /v1/ and the signal's name)"
		}
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		f.again, f.after = true, retryAfter(response.Header.Get("Retry-After"))
	}
	return f
}

func isProtobuf(response *http.Response) bool { return contentType(response) == typeProtobuf }

func contentType(response *http.Response) string {
	kind, _, err := mime.ParseMediaType(response.Header.Get("Content-Type"))
	if err != nil {
		return ""
	}
	return kind
}

// retryAfter reads a number of seconds or a date. What cannot be read says nothing.
func retryAfter(text string) time.Duration {
	if seconds, err := strconv.ParseInt(text, 10, 64); err == nil {
		return time.Duration(min(max(seconds, 0), int64(maxDelay/time.Second))) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(time.Until(at), 0)
	}
	return 0
}

func (c *httpCarrier) close() {
	if c.client != nil {
		c.client.CloseIdleConnections()
		c.client = nil
	}
}
