package upstream

import (
	"sync"
	"time"
)

// stack keeps the connections that nobody uses. The last one in is the first one out, so that those which a smaller
// load does not need grow old at the bottom and go. One timer for all of them closes those; it runs only while there
// are any.
type stack struct {
	limit   int           // connections
	timeout time.Duration // for each

	mu     sync.Mutex
	conns  []*conn // by age, the oldest first
	shut   bool    // since CloseIdleConnections nobody has asked for a connection
	reaper *time.Timer
	armed  bool
}

// take returns the connection that was used last and that is still fit for use, or nil.
func (s *stack) take(now time.Time) *conn {
	for {
		c := s.pop()
		if c == nil {
			return nil
		}
		if now.Sub(c.since) < s.timeout && c.peeker.isQuiet() {
			c.reused = true
			return c
		}
		c.close()
	}
}

func (s *stack) pop() *conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shut = false
	last := len(s.conns) - 1
	if last < 0 {
		return nil
	}
	c := s.conns[last]
	s.conns[last] = nil
	s.conns = s.conns[:last]
	return c
}

// put keeps a connection, or closes it when there are enough.
func (s *stack) put(c *conn) {
	c.since = time.Now()
	if !s.push(c) {
		c.close()
	}
}

func (s *stack) push(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.shut || len(s.conns) >= s.limit {
		return false
	}
	s.conns = append(s.conns, c)
	if !s.armed {
		s.arm(s.timeout)
	}
	return true
}

func (s *stack) arm(wait time.Duration) {
	s.armed = true
	if s.reaper == nil {
		s.reaper = time.AfterFunc(wait, s.reap)
		return
	}
	s.reaper.Reset(wait)
}

// reap closes the connections whose time is over and comes back for the next one.
func (s *stack) reap() {
	for _, c := range s.expired(time.Now()) {
		c.close()
	}
}

func (s *stack) expired(now time.Time) []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for n < len(s.conns) && now.Sub(s.conns[n].since) >= s.timeout {
		n++
	}
	gone := append([]*conn(nil), s.conns[:n]...)
	rest := copy(s.conns, s.conns[n:])
	clear(s.conns[rest:])
	s.conns = s.conns[:rest]
	s.armed = false
	if rest > 0 {
		s.arm(s.timeout - now.Sub(s.conns[0].since))
	}
	return gone
}

// close empties the stack. Connections in use are closed when they come back, unless somebody asks for one before.
func (s *stack) close() {
	s.mu.Lock()
	gone := s.conns
	s.conns, s.shut, s.armed = nil, true, false
	if s.reaper != nil {
		s.reaper.Stop()
	}
	s.mu.Unlock()
	for _, c := range gone {
		c.close()
	}
}
