package load

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

const (
	dialTimeout = 5 * time.Second
	// replyTimeout is when a reply, or the next piece of one, counts as lost. No load here makes anyone wait that long.
	replyTimeout = 20 * time.Second

	bufferSize = 16 << 10
	maxLine    = 8 << 10
)

// Conn is one kept-alive HTTP/1.1 connection that does as little as a client can: it writes bytes that were made before, and reads
// of a reply its status and where its body ends. It is used by one goroutine at a time, but Send may run beside a waiting Head.
type Conn struct {
	conn net.Conn
	free func() bool // of the watch on the context
	buf  []byte
	r, w int // what was read and not yet used is buf[r:w]

	state  state
	left   int64 // bytes of the body or of the current chunk that are still to come
	closes bool
}

// state is where in a reply the connection stands.
type state uint8

const (
	between    state = iota // no reply has begun
	sized                   // in a body of known length
	unsized                 // in a body that ends with the connection
	chunkSize               // before the size of a chunk
	chunkData               // in a chunk
	chunkEnd                // at the line end after a chunk
	chunkTrail              // in the lines after the last chunk
)

// Dial connects to address, a host and a port. The connection is closed when ctx ends.
func Dial(ctx context.Context, address string) (*Conn, error) {
	d := net.Dialer{Timeout: dialTimeout}
	c, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return &Conn{
		conn: c, buf: make([]byte, bufferSize),
		free: context.AfterFunc(ctx, func() { _ = c.Close() }), // Its user finds out.
	}, nil
}

// Close closes the connection. A goroutine that reads from it gets an error.
func (c *Conn) Close() error {
	c.free()
	return c.conn.Close()
}

// Send writes a whole request, head and body.
func (c *Conn) Send(request []byte) error {
	if err := c.conn.SetWriteDeadline(time.Now().Add(replyTimeout)); err != nil {
		return err
	}
	_, err := c.conn.Write(request)
	return err
}

// Head waits for the head of the next reply and returns its status. Interim replies (1xx) are passed over.
func (c *Conn) Head() (status int, err error) {
	if c.state != between {
		return 0, errors.New("the body of the reply before was not read to its end")
	}
	for {
		line, err := c.line()
		if err != nil {
			return 0, err
		}
		if status, err = statusOf(line); err != nil {
			return 0, err
		}
		c.state, c.closes = unsized, false
		for {
			if line, err = c.line(); err != nil {
				return 0, err
			}
			if len(line) == 0 {
				break
			}
			if err := c.header(line); err != nil {
				return 0, err
			}
		}
		switch {
		case status >= 200:
			if status == 204 || status == 304 {
				c.state, c.left = sized, 0
			}
			return status, nil
		case status == 101:
			return 0, errors.New("the reply switches protocols")
		}
	}
}

func statusOf(line []byte) (int, error) {
	version, rest, _ := bytes.Cut(line, []byte(" "))
	if len(rest) < 3 || !bytes.HasPrefix(version, []byte("HTTP/1.")) {
		return 0, fmt.Errorf("%.60q is not the status line of a reply", line)
	}
	status, err := strconv.Atoi(string(rest[:3]))
	if err != nil || status < 100 {
		return 0, fmt.Errorf("%.60q is not the status line of a reply", line)
	}
	return status, nil
}

// header takes from one header line what says how the body ends.
func (c *Conn) header(line []byte) error {
	name, value, ok := bytes.Cut(line, []byte(":"))
	if !ok {
		return fmt.Errorf("%.60q is not a header", line)
	}
	value = bytes.TrimSpace(value)
	switch {
	case len(name) == len("content-length") && strings.EqualFold(string(name), "content-length"):
		n, err := strconv.ParseInt(string(value), 10, 64)
		if err != nil || n < 0 {
			return fmt.Errorf("%.60q is not a length", line)
		}
		if c.state != chunkSize {
			c.state, c.left = sized, n
		}
	case len(name) == len("transfer-encoding") && strings.EqualFold(string(name), "transfer-encoding"):
		if !strings.EqualFold(string(value), "chunked") {
			return fmt.Errorf("%.60q is not understood here", line)
		}
		c.state = chunkSize
	case len(name) == len("connection") && strings.EqualFold(string(name), "connection"):
		c.closes = strings.EqualFold(string(value), "close")
	}
	return nil
}

// Next returns the next piece of the reply's body as it came, without chunk framing, and io.EOF at its end. The piece is valid
// until the next call. A body that breaks off is io.ErrUnexpectedEOF.
func (c *Conn) Next() ([]byte, error) {
	for {
		switch c.state {
		case between:
			return nil, io.EOF
		case sized, chunkData:
			if c.left > 0 {
				return c.piece()
			}
			if c.state == sized {
				return nil, c.finish()
			}
			c.state = chunkEnd
		case unsized:
			c.closes = true
			if c.r == c.w {
				if err := c.fill(); errors.Is(err, io.EOF) {
					return nil, c.finish()
				} else if err != nil {
					return nil, err
				}
			}
			piece := c.buf[c.r:c.w]
			c.r = c.w
			return piece, nil
		case chunkSize, chunkEnd, chunkTrail:
			line, err := c.line()
			if err != nil {
				return nil, unexpected(err)
			}
			if err := c.framing(line); err != nil {
				return nil, err
			}
			if c.state == between {
				return nil, c.finish()
			}
		}
	}
}

// framing takes one line between the chunks. After the last one the state is between.
func (c *Conn) framing(line []byte) error {
	switch c.state {
	case chunkEnd:
		if len(line) > 0 {
			return fmt.Errorf("%.60q where a chunk should have ended", line)
		}
		c.state = chunkSize
	case chunkTrail:
		if len(line) == 0 {
			c.state = between
		}
	default:
		size, _, _ := bytes.Cut(line, []byte(";"))
		n, err := strconv.ParseUint(string(bytes.TrimSpace(size)), 16, 62)
		if err != nil {
			return fmt.Errorf("%.60q is not the size of a chunk", line)
		}
		c.left, c.state = int64(n), chunkData
		if n == 0 {
			c.state = chunkTrail
		}
	}
	return nil
}

// finish ends a reply.
func (c *Conn) finish() error {
	c.state = between
	return io.EOF
}

// piece hands out what is there of a body, or reads.
func (c *Conn) piece() ([]byte, error) {
	if c.r == c.w {
		if err := c.fill(); err != nil {
			return nil, unexpected(err)
		}
	}
	n := min(int64(c.w-c.r), c.left)
	piece := c.buf[c.r : c.r+int(n)]
	c.r += int(n)
	c.left -= n
	return piece, nil
}

// line returns the next line without its end. It is valid until the next read.
func (c *Conn) line() ([]byte, error) {
	searched := 0
	for {
		if i := bytes.IndexByte(c.buf[c.r+searched:c.w], '\n'); i >= 0 {
			end := c.r + searched + i
			line := c.buf[c.r:end]
			c.r = end + 1
			return bytes.TrimSuffix(line, []byte("\r")), nil
		}
		if searched = c.w - c.r; searched > maxLine {
			return nil, fmt.Errorf("a line of more than %d bytes", maxLine)
		}
		if err := c.fill(); err != nil {
			if searched > 0 {
				err = unexpected(err)
			}
			return nil, err
		}
	}
}

// fill reads once. What is unused moves to the front, so there is always room: at most maxLine bytes stay over a fill.
func (c *Conn) fill() error {
	if c.r > 0 {
		c.w = copy(c.buf, c.buf[c.r:c.w])
		c.r = 0
	}
	if err := c.conn.SetReadDeadline(time.Now().Add(replyTimeout)); err != nil {
		return err
	}
	n, err := c.conn.Read(c.buf[c.w:])
	c.w += n
	if n > 0 {
		return nil
	}
	return err
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Do sends a request and reads its whole reply. It returns the status and the length of the body.
func (c *Conn) Do(request []byte) (status int, length int64, err error) {
	if err := c.Send(request); err != nil {
		return 0, 0, err
	}
	return c.Reply()
}

// Reply reads a whole reply to what was sent before.
func (c *Conn) Reply() (status int, length int64, err error) {
	if status, err = c.Head(); err != nil {
		return 0, 0, unexpected(err)
	}
	for {
		piece, err := c.Next()
		length += int64(len(piece))
		switch {
		case errors.Is(err, io.EOF):
			return status, length, nil
		case err != nil:
			return status, length, err
		}
	}
}

// Closing reports whether the other side said that it closes the connection after the last reply.
func (c *Conn) Closing() bool { return c.closes }
