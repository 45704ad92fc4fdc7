package upstream

import (
	"context"
	"io"
	"net/http"
	"sync/atomic"
)

// answer is a response together with its body, so that both are one allocation.
type answer struct {
	http.Response

	body body
}

// body reads an answer to its end, and then gives the connection back. Only one goroutine may read; any may close, also
// while another one reads.
type body struct {
	head

	conn *conn
	ctx  context.Context //nolint:containedctx // It is the request's, and names the cause of an error.
	stop func() bool     // ends the watch over ctx
	// state says who has the connection: the body, a reader, or nobody any more.
	state atomic.Uint32
	err   error // how reading ended

	chunk     chunkPart
	extension int // bytes of chunk extensions so far
	trailer   int // bytes of the trailer so far
}

const (
	bodyIdle uint32 = iota
	bodyReading
	bodyOver
)

// chunkPart is what comes next in a chunked body.
type chunkPart uint8

const (
	partSize chunkPart = iota
	partData
	partEnd // the CR LF after a chunk's data
	partTrailer
)

// Read returns what is there as soon as anything is. io.EOF comes with the last bytes, and only after the connection was
// given back; any other end is an error.
func (b *body) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	if !b.state.CompareAndSwap(bodyIdle, bodyReading) {
		return 0, http.ErrBodyReadAfterClose
	}
	n, err := b.read(p)
	if err != nil {
		b.err = b.reason(err)
		if b.state.CompareAndSwap(bodyReading, bodyOver) {
			b.finish(err == io.EOF) //nolint:errorlint // It is our own.
			return n, b.err
		}
	} else if b.state.CompareAndSwap(bodyReading, bodyIdle) {
		return n, nil
	}
	// Close came in between. It has closed the connection and left us the buffer.
	b.conn.release()
	b.err = http.ErrBodyReadAfterClose
	return n, b.err
}

// reason is how reading ended: well, or because of the request's context, a cut or the backend.
func (b *body) reason(err error) error {
	if err == io.EOF { //nolint:errorlint // It is our own.
		return err
	}
	return reason(b.ctx, b.conn.home.lines.why(err))
}

// Close closes the connection, at once, unless the body has been read to its end.
func (b *body) Close() error {
	for {
		switch b.state.Load() {
		case bodyIdle:
			if b.state.CompareAndSwap(bodyIdle, bodyOver) {
				b.finish(false)
				return nil
			}
		case bodyReading:
			if b.state.CompareAndSwap(bodyReading, bodyOver) {
				b.unwatch()
				b.conn.close()
				return nil
			}
		default:
			return nil
		}
	}
}

// finish ends the use of the connection: it is kept for the next request only if everything went as it should.
func (b *body) finish(whole bool) {
	c := b.conn
	clean := b.unwatch() && whole && b.keep && c.r == c.w
	c.release()
	if clean {
		c.home.idle.put(c)
	} else {
		c.close()
	}
}

// unwatch ends the watch over the request's context. It reports false when that has ended: the connection is being
// closed, then.
func (b *body) unwatch() bool { return b.stop == nil || b.stop() }

// read reads as the framing says, with io.EOF for the legal end only.
func (b *body) read(p []byte) (int, error) {
	switch b.framing {
	case bodyChunked:
		return b.readChunked(p)
	case bodySized:
		n, err := b.readData(p, b.length)
		b.length -= int64(n)
		if err == nil && b.length == 0 {
			return n, io.EOF
		}
		return n, unexpected(err)
	default:
		return b.readData(p, int64(len(p)))
	}
}

// readData reads up to limit bytes of data: what is buffered, or else from the network once. Data that fills p or is as
// long as the buffer does not go through the buffer.
func (b *body) readData(p []byte, limit int64) (int, error) {
	p = p[:min(int64(len(p)), limit)]
	c := b.conn
	if c.r == c.w {
		if len(p) >= small {
			return c.read(p)
		}
		if err := c.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, c.in[c.r:c.w])
	c.r += n
	return n, nil
}

// readChunked decodes what is buffered, chunk after chunk, so that many small events take one read. It waits for the
// network only while it has nothing to return.
func (b *body) readChunked(p []byte) (n int, err error) {
	c := b.conn
	for {
		if b.chunk == partData {
			if n == len(p) || n > 0 && c.r == c.w {
				return n, nil
			}
			m, err := b.readData(p[n:], b.length)
			n += m
			if b.length -= int64(m); b.length == 0 {
				b.chunk = partEnd
			}
			if err != nil {
				return n, unexpected(err)
			}
			continue
		}
		used, err := b.between(c.in[c.r:c.w])
		c.r += used
		switch {
		case err != nil:
			return n, err
		case used > 0:
			continue
		case n > 0:
			return n, nil
		}
		if err := c.fill(); err != nil {
			return n, unexpected(err)
		}
	}
}

// between takes one line from what stands between the data of two chunks, or behind the last. It returns the line's
// length, 0 as long as its end has not come, and io.EOF with the body's last line.
func (b *body) between(pending []byte) (used int, err error) {
	switch b.chunk {
	case partSize:
		size, extension, used, err := chunkSize(pending)
		if err != nil || used == 0 {
			return 0, err
		}
		if b.extension += extension; b.extension > maxExtensions {
			return 0, malformed("too many chunk extensions")
		}
		b.length, b.chunk = size, partData
		if size == 0 {
			b.chunk = partTrailer
		}
		return used, nil
	case partEnd:
		if len(pending) < 2 {
			return 0, nil
		}
		if string(pending[:2]) != "\r\n" {
			return 0, malformed("a chunk is longer than its size")
		}
		b.chunk = partSize
		return 2, nil
	default:
		used, err := trailerLine(pending, maxTrailer-b.trailer)
		b.trailer += used
		return used, err
	}
}
