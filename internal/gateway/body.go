package gateway

import (
	"errors"
	"io"
	"mime"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/ai-aas/api-router/internal/fault"
	"github.com/ai-aas/api-router/internal/wire"
)

// firstRead bounds what is set aside on a client's word alone, in bytes: a declared length is a claim, not yet a body.
const firstRead = 64 << 10

// body is a request's body in memory on loan.
type body struct {
	*wire.Buffer
	budget *bodyBudget
	taken  int64
	err    error // why it is not whole
	// busy says that a connection to a backend may still read it: then its memory is left to the collector.
	busy bool
}

// release gives the body back.
func (b *body) release() {
	b.budget.used.Add(-b.taken)
	if !b.busy {
		b.Release()
	}
}

// bodyBudget bounds the memory of all bodies together: one key with large requests must not take the process down.
type bodyBudget struct {
	limit int64 // bytes
	used  atomic.Int64
}

// take asks for n bytes more for a body that has had own. A body that is alone always gets them, so that a small budget makes bodies
// wait for each other and not for ever.
func (b *bodyBudget) take(n, own int64) bool {
	if used := b.used.Add(n); used > b.limit && used != n+own {
		b.used.Add(-n)
		return false
	}
	return true
}

// readBody reads the whole body into b, up to MaxBody bytes and BodyTimeout. The caller releases b, also after an error.
//
// It is read to its end before anything else happens: only then does net/http notice a client that leaves.
func (g *Gateway) readBody(w http.ResponseWriter, r *http.Request, b *body) *body {
	b.Buffer, b.budget = wire.Borrow(0), &g.bodies
	if b.err = plainJSON(r.Header); b.err != nil {
		return b
	}
	if r.ContentLength > g.MaxBody {
		b.err = g.tooLarge()
		return b
	}
	client := http.NewResponseController(w)
	var deadline time.Time
	if g.BodyTimeout > 0 {
		deadline = time.Now().Add(g.BodyTimeout)
	}
	_ = client.SetReadDeadline(deadline) // Not every connection has deadlines; then there is none.
	if err := b.fill(r.Body, r.ContentLength, g.MaxBody); err != nil {
		hasten(w, r, err)
		b.err = g.bodyError(r, err)
		return b
	}
	_ = client.SetReadDeadline(time.Time{}) // The connection outlives this request.
	return b
}

var (
	// errBudget says that the bodies of all requests together are as large as they may be.
	errBudget = errors.New("no memory is left for another body")
	// errTooLarge says that a body without a declared length went past the limit.
	errTooLarge = errors.New("the body is too large")
)

// fill reads from until its end. What is set aside grows with what has come, at most fourfold, and never past the declared length
// (-1: none), but for the room that finding the end needs.
func (b *body) fill(from io.Reader, declared, limit int64) error {
	size := int64(readAhead)
	if declared >= 0 {
		size = min(declared+1, firstRead)
	}
	for {
		if more := int64(wire.Room(int(size))) - b.taken; more > 0 {
			if !b.budget.take(more, b.taken) {
				return errBudget
			}
			b.taken += more
		}
		b.Grow(int(size))
		for len(b.B) < cap(b.B) {
			n, err := from.Read(b.B[len(b.B):cap(b.B)])
			b.B = b.B[:len(b.B)+n]
			if int64(len(b.B)) > limit {
				return errTooLarge
			}
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err //nolint:wrapcheck // bodyError judges it.
			}
		}
		size = 4 * int64(cap(b.B))
		if declared >= 0 && size >= declared {
			size = max(declared, int64(cap(b.B))) + 1
		}
	}
}

// readAhead is the room for a body whose length nobody declared, in bytes.
const readAhead = 16 << 10

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
	if errors.Is(err, errTooLarge) {
		return g.tooLarge()
	}
	if errors.Is(err, errBudget) {
		return fault.New(fault.QueueFull, "the router holds as many request bodies as its memory allows (server.body_memory); retry in a moment").
			WithRetryAfter(time.Second)
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
	if contentType == "application/json" { // What nearly every client says needs no parser.
		return nil
	}
	mediaType, _, err := mime.ParseMediaType(contentType)
	if err == nil && (mediaType == "application/json" || strings.HasSuffix(mediaType, "+json")) {
		return nil
	}
	return fault.Newf(fault.UnsupportedMediaType, "the body is declared as %q; send JSON with Content-Type: application/json", printable(contentType)).
		WithParam("Content-Type")
}
