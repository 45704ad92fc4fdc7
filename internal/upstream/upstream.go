// Package upstream holds the connections to backends: one Transport per backend, behind a guard that dials
// nothing but the address that was configured.
package upstream

import (
	"cmp"
	"context"
	"crypto/tls"
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
	// Cut closes every connection at once, whatever runs there, and gives up those that are being made. Requests that run
	// fail with ErrCut, and so does every later one: the Transport is over. Its successor, which has the same Config, takes its place.
	Cut() (successor Transport)
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
	if cfg.TLS == nil {
		return newStandard(cfg, nil), nil
	}
	settings, err := cfg.TLS.config()
	if err != nil {
		return nil, err
	}
	return newStandard(cfg, settings), nil
}

// newStandard builds what Standard returns. settings are nil for plain HTTP.
func newStandard(cfg Config, settings *tls.Config) *standard {
	maxIdle := cmp.Or(cfg.MaxIdle, DefaultMaxIdle)
	s := &standard{cfg: cfg, settings: settings}
	dial := guard(cfg, &s.lines)
	s.Transport = &http.Transport{
		Proxy: nil,
		DialContext: func(ctx context.Context, network, asked string) (net.Conn, error) {
			conn, err := dial(ctx, network, asked)
			if err != nil {
				return nil, err
			}
			l := &line{Conn: conn, of: &s.lines}
			if !s.lines.add(l) {
				_ = conn.Close()
				return nil, &ConnectError{Address: cfg.Address, Err: ErrCut}
			}
			return l, nil
		},
		TLSHandshakeTimeout:    cmp.Or(cfg.Connect, DefaultConnect),
		DisableCompression:     true,
		MaxIdleConns:           maxIdle,
		MaxIdleConnsPerHost:    maxIdle,
		IdleConnTimeout:        cmp.Or(cfg.IdleTimeout, DefaultIdleTimeout),
		MaxResponseHeaderBytes: maxResponseHeader,
		WriteBufferSize:        writeBuffer,
		ReadBufferSize:         readBuffer,
	}
	if settings != nil {
		s.TLSClientConfig = settings.Clone() // net/http writes the protocols into it.
		s.ForceAttemptHTTP2 = true
		s.HTTP2 = &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingWait}
	}
	return s
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

	cfg      Config
	settings *tls.Config // nil: plain HTTP
	lines    lines
}

// Cut closes what is open and returns the Transport that goes on.
func (s *standard) Cut() Transport {
	s.lines.cut()
	s.CloseIdleConnections()
	return newStandard(s.cfg, s.settings)
}

func (s *standard) RoundTrip(r *http.Request) (*http.Response, error) {
	if (r.URL.Scheme == "https") != (s.settings != nil) {
		if r.Body != nil {
			_ = r.Body.Close() // A RoundTripper closes the body whatever happens.
		}
		return nil, &DialRefusedError{Address: s.cfg.Address, Asked: r.URL.Scheme + "://" + r.URL.Host}
	}
	response, err := s.Transport.RoundTrip(r)
	if err != nil && r.Context().Err() == nil && !errors.Is(err, ErrCut) && s.lines.isCut() {
		err = fmt.Errorf("%w: %w", ErrCut, err) // Of a head that is cut in two, net/http says that it is malformed.
	}
	return response, err
}

// guard returns a dialer that knows one address and gives up when open is cut. net/http asks it for the address that a
// request's URL names, so this is the last place where a URL that somebody else chose can be stopped.
func guard(cfg Config, open *lines) func(context.Context, string, string) (net.Conn, error) {
	address, connect, dial := cfg.Address, cmp.Or(cfg.Connect, DefaultConnect), cfg.Dial
	if dial == nil {
		dialer := &net.Dialer{KeepAlive: keepAlive}
		dial = dialer.DialContext
	}
	return func(ctx context.Context, network, asked string) (net.Conn, error) {
		if !strings.EqualFold(asked, address) {
			return nil, &DialRefusedError{Address: address, Asked: asked}
		}
		ctx, giveUp := context.WithCancelCause(ctx)
		defer giveUp(nil)
		attempt := new(dialing(giveUp))
		if !open.add(attempt) {
			return nil, &ConnectError{Address: address, Err: ErrCut}
		}
		defer open.remove(attempt)
		ctx, cancel := context.WithTimeout(ctx, connect)
		defer cancel()
		conn, err := dial(ctx, network, address)
		if err != nil {
			if errors.Is(context.Cause(ctx), ErrCut) {
				err = ErrCut
			}
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
