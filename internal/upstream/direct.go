package upstream

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// staleWithin is how soon a hang-up has to follow a request to be taken for one that crossed it on the way. One that
// comes later is the failure of a backend at work.
const staleWithin = time.Second

// Direct is a Transport on HTTP/1.1 connections of our own, for a backend without TLS.
//
// The requesting goroutine writes the request and reads the answer itself: no goroutine belongs to a connection, and a
// small request leaves in one system call. Idle connections are kept as cfg says; the one that was used last is taken
// first. Of a request's headers, those that belong to the connection are refused (Host, Content-Length, Connection and
// their kin), and Host is always the configured address. A body needs its ContentLength; HEAD and CONNECT are not
// supported, nor is httptrace.
//
// Answers are read strictly: at most 64 KiB and 256 fields of head, CR LF only, no folded headers, Content-Length or
// chunked but never both, no HTTP/1.0 connection used twice. A breach is a *MalformedError. 1xx answers are skipped,
// trailers are checked and dropped, and headers that concern only the connection are left out. An answer that comes
// before the request was written ends the writing.
//
// A connection is used again only when an answer was read to its end and nothing unexpected came: closing the body
// before its io.EOF closes the connection at once. So does the end of the request's context, which is the only deadline
// after the dial; the error is then its cause.
//
// A request is sent a second time at most once, on a fresh connection, when its first one had been idle before and
// either nothing of the request had been written, or the backend had hung up before the first byte of an answer and
// within a second. A body is sent again only if the request has GetBody. That a connection was closed while it was idle
// is mostly seen before anything is sent.
//
// It fails when the address has no port or when cfg asks for TLS; it dials nothing.
func Direct(cfg Config) (Transport, error) {
	host, port, err := checkAddress(cfg.Address)
	switch {
	case err != nil:
		return nil, err
	case cfg.TLS != nil:
		return nil, errors.New("direct connections do not speak TLS")
	}
	host, _, _ = strings.Cut(host, "%") // A zone means something on this machine only.
	d := newDirect(cfg, net.JoinHostPort(host, port))
	if port == "80" {
		d.host, d.bare = strings.TrimSuffix(d.host, ":80"), strings.TrimSuffix(cfg.Address, ":80")
	}
	return d, nil
}

func newDirect(cfg Config, host string) *direct {
	d := &direct{cfg: cfg, host: host}
	d.dial = guard(cfg, &d.lines)
	d.idle.limit = cmp.Or(cfg.MaxIdle, DefaultMaxIdle)
	d.idle.timeout = cmp.Or(cfg.IdleTimeout, DefaultIdleTimeout)
	return d
}

type direct struct {
	cfg   Config
	bare  string // the address without the port, if that is the default one
	host  string // what the Host header says
	dial  func(ctx context.Context, network, address string) (net.Conn, error)
	idle  stack
	lines lines
}

// Cut closes what is open and returns the Transport that goes on.
func (d *direct) Cut() Transport {
	d.lines.cut()
	d.idle.close()
	successor := newDirect(d.cfg, d.host)
	successor.bare = d.bare
	return successor
}

// CloseIdleConnections closes the connections that nobody uses. Those in use are closed when they come back, unless
// another request starts before.
func (d *direct) CloseIdleConnections() { d.idle.close() }

// RoundTrip sends r and returns the answer as soon as its head is there.
func (d *direct) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		defer func() { _ = r.Body.Close() }() // A RoundTripper closes the body whatever happens.
	}
	if err := d.guard(r); err != nil {
		return nil, err
	}
	ctx := r.Context()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	out, err := d.head(r)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	c := d.idle.take(began)
	if c == nil {
		if c, err = d.connect(ctx); err != nil {
			putBuffer(out)
			return nil, err
		}
	}
	response, err := c.exchange(r, r.Body, out)
	if err != nil && c.isStale(began) && ctx.Err() == nil {
		return d.again(r, c.x.sent > 0, err)
	}
	return response, err
}

// guard refuses a request for anybody but the configured backend.
func (d *direct) guard(r *http.Request) error {
	if r.URL == nil {
		return errors.New("a request without a url")
	}
	host := r.URL.Host
	known := host == d.cfg.Address || strings.EqualFold(host, d.cfg.Address) || d.bare != "" && strings.EqualFold(host, d.bare)
	switch {
	case r.URL.Scheme != "http":
		return &DialRefusedError{Address: d.cfg.Address, Asked: r.URL.Scheme + "://" + host}
	case !known:
		return &DialRefusedError{Address: d.cfg.Address, Asked: host}
	case r.Host != "" && !strings.EqualFold(r.Host, host):
		return &DialRefusedError{Address: d.cfg.Address, Asked: r.Host}
	}
	return nil
}

// head makes the head of the request, in a buffer that a small body fits in, too.
func (d *direct) head(r *http.Request) ([]byte, error) {
	const usual = 1 << 10 // More than the head of a usual request takes.
	buffer := getBuffer(int(min(usual+max(r.ContentLength, 0), medium)))
	out, err := appendHead(buffer[:0], r, d.host)
	if err != nil {
		putBuffer(out)
		return nil, err
	}
	return out, nil
}

func (d *direct) connect(ctx context.Context) (*conn, error) {
	dialed, err := d.dial(ctx, "tcp", d.cfg.Address)
	if err != nil {
		return nil, reason(ctx, err)
	}
	c := newConn(dialed, d)
	if !d.lines.add(c) {
		_ = c.Close()
		return nil, &ConnectError{Address: d.cfg.Address, Err: ErrCut}
	}
	return c, nil
}

// isStale reports, after a failure, whether the connection had been closed while it was idle, so that the backend has
// not begun to work on the request.
func (c *conn) isStale(began time.Time) bool {
	untouched := c.x.broken && c.x.sent == 0
	return c.reused && !c.x.received && (untouched || c.x.hungUp && time.Since(began) < staleWithin)
}

// again sends the request on a fresh connection. failure is what happened to it before; written says that some of it
// had left: a backend that cannot be reached now has then seen it all the same.
func (d *direct) again(r *http.Request, written bool, failure error) (*http.Response, error) {
	body, ok := fresh(r)
	if !ok {
		return nil, failure
	}
	if body != nil {
		defer func() { _ = body.Close() }() // It has been read, or is not wanted any more.
	}
	out, err := d.head(r)
	if err != nil {
		return nil, err
	}
	c, err := d.connect(r.Context())
	if err != nil {
		putBuffer(out)
		if written {
			return nil, reason(r.Context(), failure)
		}
		return nil, err
	}
	return c.exchange(r, body, out)
}

// fresh gives the body from its beginning, if that can be had.
func fresh(r *http.Request) (io.ReadCloser, bool) {
	if r.Body == nil || r.Body == http.NoBody {
		return nil, true
	}
	if r.GetBody == nil {
		return nil, false
	}
	body, err := r.GetBody()
	return body, err == nil
}
