package gateway

import (
	"errors"
	"io"
	"mime"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/ai-aas/api-router/internal/fault"
)

// firstRead bounds what is set aside on a client's word alone, in bytes: a declared length is a claim, not yet a body.
const firstRead = 256 << 10

// readBody reads the whole body, up to MaxBody bytes and BodyTimeout.
//
// It is read to its end before anything else happens: only then does net/http notice a client that leaves.
func (g *Gateway) readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if err := plainJSON(r.Header); err != nil {
		return nil, err
	}
	if r.ContentLength > g.MaxBody {
		return nil, g.tooLarge()
	}
	client := http.NewResponseController(w)
	var deadline time.Time
	if g.BodyTimeout > 0 {
		deadline = time.Now().Add(g.BodyTimeout)
	}
	_ = client.SetReadDeadline(deadline) // Not every connection has deadlines; then there is none.
	limited := http.MaxBytesReader(w, r.Body, g.MaxBody)
	size := firstRead
	if r.ContentLength >= 0 && r.ContentLength < firstRead {
		size = int(r.ContentLength) + 1 // One more, so that the read that finds the end needs no growth.
	}
	body := make([]byte, 0, size)
	for {
		if len(body) == cap(body) {
			body = slices.Grow(body, cap(body))
		}
		n, err := limited.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		if errors.Is(err, io.EOF) {
			_ = client.SetReadDeadline(time.Time{}) // The connection outlives this request.
			return body, nil
		}
		if err != nil {
			hasten(w, r, err)
			return body, g.bodyError(r, err)
		}
	}
}

// unreadGrace is how long the rest of a body may take that nobody wants.
const unreadGrace = time.Second

// hasten bounds the wait for a body that was not read to its end, because err stopped it or no handler asked for it. Before net/http
// answers over HTTP/1 it reads what is left, so that the connection can be used again, and without a limit it would wait for ever.
func hasten(w http.ResponseWriter, r *http.Request, err error) {
	if r.ContentLength == 0 || r.ProtoMajor != 1 || errors.Is(err, os.ErrDeadlineExceeded) {
		return // Nothing will be read, or nothing in time.
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(unreadGrace)) // As above.
}

func (g *Gateway) bodyError(r *http.Request, err error) error {
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return g.tooLarge()
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fault.Newf(fault.RequestTimeout, "the body did not arrive within %v; send it faster or make it smaller", g.BodyTimeout).WithCause(err)
	}
	if r.Context().Err() != nil || errors.Is(err, io.ErrUnexpectedEOF) {
		return fault.New(fault.ClientClosed, "the client closed the connection before its body was complete").WithCause(err)
	}
	return fault.New(fault.InvalidRequest, "the body could not be read: its framing is broken").WithCause(err)
}

func (g *Gateway) tooLarge() error {
	return fault.Newf(fault.RequestTooLarge, "the body is larger than the limit of %d bytes; send less, or ask the operator to raise server.max_body", g.MaxBody)
}

// plainJSON refuses bodies that are not plain JSON by their own word. A missing Content-Type is taken for JSON.
func plainJSON(h http.Header) error {
	if encoding := h.Get("Content-Encoding"); encoding != "" && !strings.EqualFold(encoding, "identity") {
		return fault.New(fault.UnsupportedMediaType, "a compressed body is not accepted; send it without Content-Encoding").WithParam("Content-Encoding")
	}
	contentType := h.Get("Content-Type")
	if contentType == "" {
		return nil
	}
	mediaType, _, err := mime.ParseMediaType(contentType)
	if err == nil && (mediaType == "application/json" || strings.HasSuffix(mediaType, "+json")) {
		return nil
	}
	return fault.Newf(fault.UnsupportedMediaType, "the body is declared as %q; send JSON with Content-Type: application/json", printable(contentType)).
		WithParam("Content-Type")
}
