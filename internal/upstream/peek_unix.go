//go:build linux || darwin

package upstream

import (
	"errors"
	"net"
	"syscall"
)

// peeker looks at a socket without waiting and without taking anything from it.
type peeker struct {
	raw   syscall.RawConn // nil: the connection has no socket to look at
	look  func(fd uintptr)
	quiet bool
}

func newPeeker(c net.Conn) *peeker {
	p := &peeker{}
	if socket, ok := c.(syscall.Conn); ok {
		if raw, err := socket.SyscallConn(); err == nil {
			p.raw = raw
		}
	}
	p.look = func(fd uintptr) {
		var one [1]byte
		_, _, err := syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		p.quiet = errors.Is(err, syscall.EAGAIN)
	}
	return p
}

// isQuiet reports whether the peer has neither hung up nor said anything. Where there is no socket, it is taken to be so.
func (p *peeker) isQuiet() bool {
	if p.raw == nil {
		return true
	}
	p.quiet = false
	return p.raw.Control(p.look) == nil && p.quiet
}
