// Package relay is a TCP proxy for tests that can do what networks do.
package relay

import (
	"net"
	"sync"
	"testing"
)

// Relay passes bytes to one address and back, until it is told otherwise.
type Relay struct {
	listener net.Listener
	target   string
	wg       sync.WaitGroup
	mu       sync.Mutex
	conns    map[*net.TCPConn]bool
	gate     chan struct{} // closed while bytes pass
	refusing bool
	era      int // connections of an earlier one are stranded
}

// New gives a relay to target that ends with the test.
func New(t testing.TB, target string) *Relay {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &Relay{listener: listener, target: target, conns: map[*net.TCPConn]bool{}, gate: make(chan struct{})}
	close(r.gate)
	r.wg.Go(r.accept)
	t.Cleanup(func() {
		_ = listener.Close()
		r.Pass()
		r.Drop(false)
		r.wg.Wait()
	})
	return r
}

// Address is where it listens.
func (r *Relay) Address() string { return r.listener.Addr().String() }

func (r *Relay) accept() {
	for {
		conn, err := r.listener.Accept()
		if err != nil {
			return
		}
		in := conn.(*net.TCPConn)
		r.mu.Lock()
		target := r.target
		r.mu.Unlock()
		conn, err = net.Dial("tcp", target)
		r.mu.Lock()
		if err != nil || r.refusing {
			_ = in.SetLinger(0)
			_ = in.Close()
			r.mu.Unlock()
			if err == nil {
				_ = conn.Close()
			}
			continue
		}
		out := conn.(*net.TCPConn)
		r.conns[in], r.conns[out] = true, true
		era := r.era
		r.mu.Unlock()
		r.wg.Go(func() { r.copy(in, out, era) })
		r.wg.Go(func() { r.copy(out, in, era) })
	}
}

func (r *Relay) copy(from, to *net.TCPConn, era int) {
	stranded := false
	defer func() {
		if !stranded {
			_ = to.Close()
			_ = from.Close()
		}
	}()
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		r.mu.Lock()
		gate := r.gate
		stranded = r.era != era
		r.mu.Unlock()
		<-gate
		if n > 0 && !stranded {
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// Turn leads new connections to another address.
func (r *Relay) Turn(target string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.target = target
}

// Stall lets nothing through on any connection, old or new; Pass ends that.
func (r *Relay) Stall() {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.gate:
		r.gate = make(chan struct{})
	default: // It is shut, and some wait at it.
	}
}

// Pass ends a stall.
func (r *Relay) Pass() {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.gate:
	default:
		close(r.gate)
	}
}

// Drop ends the connections: with a reset, or in an orderly way.
func (r *Relay) Drop(reset bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for conn := range r.conns {
		if reset {
			_ = conn.SetLinger(0)
		}
		_ = conn.Close()
	}
	clear(r.conns)
}

// Refuse resets whoever comes.
func (r *Relay) Refuse(yes bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refusing = yes
}

// StrandAll leaves the present connections without an end: nothing passes on them any more, as if the other side had lost its
// power. New ones are as good as ever.
func (r *Relay) StrandAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.era++
}
