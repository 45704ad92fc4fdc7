// Package upstream holds the connections to backends: one Transport per backend, behind a guard that dials
// nothing but the address that was configured.
package upstream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"
)

// The defaults of a Config.
const (
	DefaultConnect = 2 * time.Second
	DefaultMaxIdle = 256

	// DefaultIdleTimeout stays below the five seconds after which the usual engines hang up on an idle connection:
	// uvicorn, which carries vLLM and SGLang, and cpp-httplib, which carries llama.cpp. A POST that meets such a
	// hang-up on its way cannot be sent again safely, so the connection has to go before the engine drops it. A new
	// connection inside a cluster costs far less than a failed request.
	DefaultIdleTimeout = 4 * time.Second
)

const (
	maxResponseHeader = 64 << 10
	// writeBuffer lets the headers and a usual body leave in one system call.
	writeBuffer = 16 << 10
	// readBuffer is per open connection, streams included: one event of a stream is far smaller.
	readBuffer = 4 << 10
	keepAlive  = 30 * time.Second
	// pingAfter and pingWait find a dead HTTP/2 connection, which many requests share and no idle limit closes.
	pingAfter = 30 * time.Second
	pingWait  = 5 * time.Second
)

// Transport carries requests to one backend. It is safe for concurrent use.
type Transport interface {
	http.RoundTripper
	CloseIdleConnections()
}

// Config describes the way to one backend.
type Config struct {
	// Address is the only host:port that is ever dialed. The port must be there.
	Address string
	// Connect bounds the dial, name lookup included, and after it the TLS handshake. Zero: DefaultConnect.
	Connect time.Duration
	// IdleTimeout closes a connection that was unused for so long. Zero: DefaultIdleTimeout.
	IdleTimeout time.Duration
	// MaxIdle bounds the idle connections that are kept; those in use have no bound. Zero: DefaultMaxIdle.
	MaxIdle int
	// TLS is nil for plain HTTP. Otherwise requests must be https, and HTTP/2 is used where the backend offers it.
	TLS *TLS
	// Dial opens the connection. Nil: the network. It is called with Address and nothing else.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// DialRefusedError says that a request asked for a connection to another address than the backend's own, or for plain
// HTTP where TLS is configured, or the reverse.
// It is a bug of the caller or an attempt to abuse the router; nothing was dialed.
type DialRefusedError struct {
	Address string // the one that is allowed
	Asked   string
}

func (e *DialRefusedError) Error() string {
	return fmt.Sprintf("refused to dial %s: this transport reaches %s only", e.Asked, e.Address)
}

// ConnectError says that no connection to the backend came about: nothing of the request has left.
type ConnectError struct {
	Address string
	Err     error
}

func (e *ConnectError) Error() string { return fmt.Sprintf("connect to %s: %v", e.Address, e.Err) }

// Unwrap returns the network's own error.
func (e *ConnectError) Unwrap() error { return e.Err }

// Standard is a Transport on the standard library's http.Transport.
//
// It takes no proxy from the environment, asks for no compression, follows no redirect (a RoundTripper never does) and
// reads at most 64 KiB of response headers. It sends a request a second time only as net/http does: on a fresh
// connection, when the idle one that it took turned out to be dead, and either nothing had been written, or the method
// or an Idempotency-Key header makes the request safe to repeat. Deadlines after the connection are the caller's, by
// the request's context. It fails when the address has no port or the TLS material cannot be used; it dials nothing.
func Standard(cfg Config) (Transport, error) {
	if _, _, err := checkAddress(cfg.Address); err != nil {
		return nil, err
	}
	connect := cmp.Or(cfg.Connect, DefaultConnect)
	maxIdle := cmp.Or(cfg.MaxIdle, DefaultMaxIdle)
	transport := &http.Transport{
		Proxy:                  nil,
		DialContext:            guard(cfg.Address, connect, cfg.Dial),
		TLSHandshakeTimeout:    connect,
		DisableCompression:     true,
		MaxIdleConns:           maxIdle,
		MaxIdleConnsPerHost:    maxIdle,
		IdleConnTimeout:        cmp.Or(cfg.IdleTimeout, DefaultIdleTimeout),
		MaxResponseHeaderBytes: maxResponseHeader,
		WriteBufferSize:        writeBuffer,
		ReadBufferSize:         readBuffer,
	}
	if cfg.TLS != nil {
		settings, err := cfg.TLS.config()
		if err != nil {
			return nil, err
		}
		transport.TLSClientConfig = settings
		transport.ForceAttemptHTTP2 = true
		transport.HTTP2 = &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingWait}
	}
	return &standard{Transport: transport, encrypted: cfg.TLS != nil, address: cfg.Address}, nil
}

func checkAddress(address string) (host, port string, err error) {
	if host, port, err = net.SplitHostPort(address); err != nil {
		return "", "", fmt.Errorf("address %q: %w", address, err)
	}
	if port == "" {
		return "", "", fmt.Errorf("address %q: the port is missing", address)
	}
	return host, port, nil
}

// standard is an http.Transport that keeps to its own scheme: a backend's key must not travel in plain text because
// a URL said http.
type standard struct {
	*http.Transport

	encrypted bool
	address   string
}

func (s *standard) RoundTrip(r *http.Request) (*http.Response, error) {
	if (r.URL.Scheme == "https") != s.encrypted {
		if r.Body != nil {
			_ = r.Body.Close() // A RoundTripper closes the body whatever happens.
		}
		return nil, &DialRefusedError{Address: s.address, Asked: r.URL.Scheme + "://" + r.URL.Host}
	}
	return s.Transport.RoundTrip(r)
}

// guard returns a dialer that knows one address. net/http asks it for the address that a request's URL names, so this
// is the last place where a URL that somebody else chose can be stopped.
func guard(address string, connect time.Duration, dial func(context.Context, string, string) (net.Conn, error)) func(context.Context, string, string) (net.Conn, error) {
	if dial == nil {
		dialer := &net.Dialer{KeepAlive: keepAlive}
		dial = dialer.DialContext
	}
	return func(ctx context.Context, network, asked string) (net.Conn, error) {
		if !strings.EqualFold(asked, address) {
			return nil, &DialRefusedError{Address: address, Asked: asked}
		}
		ctx, cancel := context.WithTimeout(ctx, connect)
		defer cancel()
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, &ConnectError{Address: address, Err: err}
		}
		return conn, nil
	}
}

// Secret is a value that never prints: a backend's API key, the private key of a certificate.
// Convert it with string(s) at the one place that sends it.
type Secret string

const hidden = "[secret]"

// String returns "[secret]", or "" for an empty secret.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return hidden
}

// GoString is String, for %#v.
func (s Secret) GoString() string { return s.String() }

// Format is String for every verb, so that %x and %q do not print it either.
func (s Secret) Format(state fmt.State, _ rune) { _, _ = state.Write([]byte(s.String())) }

// MarshalText is String, for JSON and every other encoding.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// LogValue is String, for slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// errNoPEM says that there is text where a certificate should be.
var errNoPEM = errors.New("holds no PEM certificate")
