package upstream

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
)

// ErrCut is why a request failed whose Transport was cut.
var ErrCut = errors.New("the connection was cut off")

// lines are what one Transport has open: connections, and dials that are to become some. It costs a connection two locks, and a
// request nothing.
type lines struct {
	mu     sync.Mutex
	open   map[io.Closer]struct{}
	closed bool
}

// add notes something that is open. It reports false, and notes nothing, once the lines were cut.
func (l *lines) add(c io.Closer) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	if l.open == nil {
		l.open = map[io.Closer]struct{}{}
	}
	l.open[c] = struct{}{}
	return true
}

// remove forgets what was closed.
func (l *lines) remove(c io.Closer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open, c)
}

// cut closes everything that is open, and lets nothing be added any more.
func (l *lines) cut() {
	l.mu.Lock()
	open := l.open
	l.open, l.closed = nil, true
	l.mu.Unlock()
	for c := range open {
		_ = c.Close()
	}
}

func (l *lines) isCut() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
}

// why names the cut where that is what closed a connection.
func (l *lines) why(err error) error {
	if (errors.Is(err, net.ErrClosed) || errors.Is(err, io.ErrClosedPipe)) && l.isCut() {
		return ErrCut
	}
	return err
}

// dialing is a connection that is being made.
type dialing context.CancelCauseFunc

// Close gives the dial up.
func (d *dialing) Close() error {
	(*d)(ErrCut)
	return nil
}

// line is a connection that somebody else closes.
type line struct {
	net.Conn

	of *lines
}

func (l *line) Read(p []byte) (int, error) {
	n, err := l.Conn.Read(p)
	return n, l.of.why(err)
}

func (l *line) Write(p []byte) (int, error) {
	n, err := l.Conn.Write(p)
	return n, l.of.why(err)
}

func (l *line) Close() error {
	l.of.remove(l)
	return l.Conn.Close()
}
