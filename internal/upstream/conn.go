package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"
)

const (
	// maxInterim bounds the 1xx answers before the one that counts.
	maxInterim = 8
	// writePatience is how long a write may wait for the backend before we look whether it has answered already.
	writePatience = 25 * time.Millisecond
	// listenFor is how long such a look may take.
	listenFor = time.Millisecond
	// lastWords bounds the wait for the answer of a backend that has stopped reading.
	lastWords = time.Second
	// surelyTaken is what an empty socket takes without waiting: a write up to this long needs no deadline.
	surelyTaken = medium
)

// conn is a connection to the backend. One request at a time has it; the requesting goroutine does all its work.
type conn struct {
	net    net.Conn
	home   *direct
	peeker *peeker
	hangUp func() // closes net; one value for all requests

	since  time.Time // in the stack: when it came there
	reused bool

	in   []byte // pooled; held from the first read of an answer to its end
	r, w int    // in[r:w] was read and not used yet

	out  []byte // pooled; what the next write begins with
	vec  net.Buffers
	vecs [2][]byte // vec's room

	x exchange
}

// exchange is what a connection keeps of one request and its answer.
type exchange struct {
	answer *answer
	sent   int64 // bytes of the request that the network took
	left   int64 // bytes of the body still to come
	status int
	head   head

	interim  int
	received bool // any byte of an answer
	broken   bool // a write failed
	hungUp   bool // instead of the first byte of an answer came the end of the connection
	early    bool // the answer came before the request was written
}

func newConn(c net.Conn, home *direct) *conn {
	return &conn{net: c, home: home, peeker: newPeeker(c), hangUp: func() { _ = c.Close() }}
}

// Close ends the connection, also under somebody who uses it.
func (c *conn) Close() error {
	c.home.lines.remove(c)
	return c.net.Close()
}

func (c *conn) close() { _ = c.Close() }

// exchange sends a request, whose head stands in out, and reads the answer's head. It takes out over. After an error the
// connection is closed.
func (c *conn) exchange(r *http.Request, body io.Reader, out []byte) (*http.Response, error) {
	a := &answer{}
	a.Request = r
	a.body.conn, a.body.ctx = c, r.Context()
	c.x = exchange{answer: a}
	if a.body.ctx.Done() != nil {
		a.body.stop = context.AfterFunc(a.body.ctx, c.hangUp)
	}
	err := c.send(body, r.ContentLength, out)
	if err == nil && !c.x.early {
		err = c.final()
	}
	if err != nil {
		a.body.finish(false)
		return nil, reason(a.body.ctx, fmt.Errorf("no answer: %w", unexpected(c.home.lines.why(err))))
	}
	a.body.head = c.x.head
	a.body.keep = c.x.head.keep && !c.x.early && !r.Close
	c.x.answer = nil
	if a.body.framing == bodyNone {
		a.body.finish(true)
	} else {
		a.Body = &a.body
	}
	return &a.Response, nil
}

// reason names the end of the request's context where that is what ended the connection.
func reason(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

var (
	errAnswered  = errors.New("the backend answered before it had read the request")
	errBodyShort = errors.New("the request's body is shorter than its length")
	errBodyLong  = errors.New("the request's body is longer than its length")
)

// send writes the request: its head and a small body at once, a large body without copying it. It is done without an
// error, too, when the backend answers before it has taken everything.
func (c *conn) send(body io.Reader, length int64, out []byte) error {
	c.out = out
	err := c.sendBody(body, length)
	if err == nil {
		err = c.flush(nil)
	}
	putBuffer(c.out)
	c.out = nil
	clear(c.vecs[:])
	switch {
	case err == nil || c.x.early:
		return nil
	case !c.x.broken:
		return err
	}
	// A backend that refuses a request and closes makes our writes fail, and has said why.
	_ = c.net.SetReadDeadline(time.Now().Add(lastWords)) // Without a deadline the context bounds the wait.
	if c.final() != nil {
		return err
	}
	_ = c.net.SetReadDeadline(time.Time{})
	c.x.early = true
	return nil
}

func (c *conn) sendBody(body io.Reader, length int64) error {
	if body == nil || body == http.NoBody {
		return nil
	}
	c.x.left = length
	var err error
	if source, ok := body.(io.WriterTo); ok {
		_, err = source.WriteTo((*bodyWriter)(c))
	} else {
		err = c.copyBody(body)
	}
	if err == nil && c.x.left > 0 {
		return errBodyShort
	}
	return err
}

// copyBody reads into what is left of the buffer, and one byte more than there may be.
func (c *conn) copyBody(body io.Reader) error {
	for {
		if len(c.out) == cap(c.out) {
			if err := c.flush(nil); err != nil {
				return err
			}
		}
		room := c.out[len(c.out):cap(c.out)]
		room = room[:min(int64(len(room)), c.x.left+1)]
		n, err := body.Read(room)
		if c.x.left -= int64(n); c.x.left < 0 {
			return errBodyLong
		}
		c.out = c.out[:len(c.out)+n]
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// bodyWriter is a conn as the pieces of a request's body see it.
type bodyWriter conn

// Write gathers small pieces, and sends a large one together with what was gathered. It keeps no reference to p.
func (b *bodyWriter) Write(p []byte) (int, error) {
	c := (*conn)(b)
	if int64(len(p)) > c.x.left {
		return 0, errBodyLong
	}
	c.x.left -= int64(len(p))
	if len(p) <= cap(c.out)-len(c.out) {
		c.out = append(c.out, p...)
		return len(p), nil
	}
	if err := c.flush(p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// flush writes what was gathered, and p, with one system call if the network takes it.
func (c *conn) flush(p []byte) error {
	c.vec = c.vecs[:0]
	for _, part := range [...][]byte{c.out, p} {
		if len(part) > 0 {
			c.vec = append(c.vec, part)
		}
	}
	patient := len(c.out)+len(p) > surelyTaken
	for {
		if patient {
			_ = c.net.SetWriteDeadline(time.Now().Add(writePatience)) // Without a deadline the context bounds the wait.
		}
		n, err := c.vec.WriteTo(c.net)
		c.x.sent += n
		if err == nil {
			break
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			c.x.broken = true
			return err
		}
		if err := c.listen(); err != nil {
			return err
		}
	}
	if patient {
		_ = c.net.SetWriteDeadline(time.Time{})
	}
	c.out = c.out[:0]
	return nil
}

// listen looks whether the backend says something while it takes no more of the request.
func (c *conn) listen() error {
	_ = c.net.SetReadDeadline(time.Now().Add(listenFor)) // Without a deadline the context bounds the wait.
	err := c.more()
	_ = c.net.SetReadDeadline(time.Time{})
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	for err == nil && c.r < c.w {
		var whole bool
		whole, err = c.takeHead(0)
		switch {
		case whole && c.x.status >= http.StatusOK:
			c.x.early = true
			return errAnswered
		case err == nil && !whole:
			return nil // The rest may come only when the backend has more of the request.
		}
	}
	return unexpected(err)
}

// final reads heads up to the one that is the answer.
func (c *conn) final() error {
	for {
		if err := c.readHead(); err != nil {
			return err
		}
		if c.x.status >= http.StatusOK {
			return nil
		}
	}
}

// readHead reads one head, of an answer or of an interim one.
func (c *conn) readHead() error {
	for seen := 0; ; {
		if whole, err := c.takeHead(seen); err != nil || whole {
			return err
		}
		seen = c.w - c.r
		if err := c.more(); err != nil {
			return err
		}
	}
}

// takeHead takes a head out of the buffer if it is there to its end. The first seen bytes were looked at before.
func (c *conn) takeHead(seen int) (whole bool, err error) {
	pending := c.in[c.r:c.w]
	if err := headStart(pending); err != nil {
		return false, err
	}
	n, err := headEnd(pending, seen)
	if err != nil || n == 0 {
		return false, err
	}
	c.r += n
	return true, c.parse(pending[:n])
}

func (c *conn) parse(head []byte) (err error) {
	response := &c.x.answer.Response
	if c.x.head, err = parseHead(head, response); err != nil {
		return err
	}
	c.x.status = response.StatusCode
	if c.x.status >= http.StatusOK {
		return nil
	}
	if c.x.interim++; c.x.interim > maxInterim {
		return malformed("too many interim answers")
	}
	if c.x.status == http.StatusSwitchingProtocols {
		return malformed("it switches the protocol, which nobody asked for")
	}
	return nil
}

// more reads once, for a head that is not in the buffer to its end.
func (c *conn) more() error {
	if c.r == 0 && c.w == len(c.in) && c.w > 0 {
		if err := c.grow(); err != nil {
			return err
		}
	}
	return c.fill()
}

// fill reads once into the buffer, which has room or something in it that was used already.
func (c *conn) fill() error {
	switch {
	case c.r == c.w:
		c.r, c.w = 0, 0
		if len(c.in) != small {
			c.release()
			c.in = getBuffer(small)
		}
	case c.w == len(c.in):
		c.w = copy(c.in, c.in[c.r:c.w])
		c.r = 0
	}
	n, err := c.read(c.in[c.w:])
	c.w += n
	return err
}

// read reads once. It returns an error only without data.
func (c *conn) read(p []byte) (int, error) {
	n, err := c.net.Read(p)
	if n > 0 {
		c.x.received = true
		return n, nil
	}
	if err == nil {
		return 0, io.ErrNoProgress
	}
	if !c.x.received && (err == io.EOF || errors.Is(err, syscall.ECONNRESET)) { //nolint:errorlint // As above.
		c.x.hungUp = true
	}
	return 0, err
}

// grow makes a full buffer larger, for a head that does not fit.
func (c *conn) grow() error {
	if len(c.in) >= large {
		return malformed("the head is too long")
	}
	bigger := getBuffer(len(c.in) + 1)
	copy(bigger, c.in)
	putBuffer(c.in)
	c.in = bigger
	return nil
}

// release gives the read buffer back.
func (c *conn) release() {
	if c.in != nil {
		putBuffer(c.in)
	}
	c.in, c.r, c.w = nil, 0, 0
}
