package etcdpolicy

import (
	"net"
	"sync"
	"testing"
)

// relay is a TCP proxy in front of etcd that can do what networks do.
type relay struct {
	listener net.Listener
	target   string
	wg       sync.WaitGroup
	mu       sync.Mutex
	conns    map[*net.TCPConn]bool
	gate     chan struct{} // closed while bytes pass
	accepted int
	refusing bool
	era      int // connections of an earlier one are stranded
}

func newRelay(t testing.TB, target string) *relay {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{listener: listener, target: target, conns: map[*net.TCPConn]bool{}, gate: make(chan struct{})}
	close(r.gate)
	r.wg.Go(r.accept)
	t.Cleanup(func() {
		_ = listener.Close()
		r.pass()
		r.drop(false)
		r.wg.Wait()
	})
	return r
}

func (r *relay) address() string { return r.listener.Addr().String() }

func (r *relay) accept() {
	for {
		conn, err := r.listener.Accept()
		if err != nil {
			return
		}
		in := conn.(*net.TCPConn)
		conn, err = net.Dial("tcp", r.target)
		r.mu.Lock()
		r.accepted++
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

func (r *relay) copy(from, to *net.TCPConn, era int) {
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

// stall lets nothing through on any connection, old or new; pass ends that.
func (r *relay) stall() {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.gate:
		r.gate = make(chan struct{})
	default: // It is shut, and some wait at it.
	}
}

func (r *relay) pass() {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.gate:
	default:
		close(r.gate)
	}
}

// drop ends the connections: with a reset, or in an orderly way.
func (r *relay) drop(reset bool) {
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

// refuse resets whoever comes.
func (r *relay) refuse(yes bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refusing = yes
}

// strandAll leaves the present connections without an end: nothing passes on them any more, as if the other side had lost its
// power. New ones are as good as ever.
func (r *relay) strandAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.era++
}
