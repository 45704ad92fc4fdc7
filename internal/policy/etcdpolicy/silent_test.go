package etcdpolicy

import (
	"encoding/binary"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2/hpack"
)

// muffler is a proxy that understands HTTP/2 as far as to keep back what the watch is told, and nothing else.
type muffler struct {
	on    atomic.Bool
	wg    sync.WaitGroup
	mu    sync.Mutex
	conns []net.Conn
}

func newMuffler(t *testing.T, target string) (*muffler, string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := new(muffler)
	m.wg.Go(func() {
		for {
			in, err := listener.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", target)
			if err != nil {
				_ = in.Close()
				continue
			}
			m.mu.Lock()
			m.conns = append(m.conns, in, out)
			m.mu.Unlock()
			var watches sync.Map // ids of streams
			m.wg.Go(func() { m.requests(in, out, &watches) })
			m.wg.Go(func() { m.answers(out, in, &watches) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		m.mu.Lock()
		for _, conn := range m.conns {
			_ = conn.Close()
		}
		m.mu.Unlock()
		m.wg.Wait()
	})
	return m, listener.Addr().String()
}

const frameData, frameHeaders = 0, 1

// frame reads one frame: RFC 9113, section 4.1.
func frame(from io.Reader) (header [9]byte, payload []byte, err error) {
	if _, err = io.ReadFull(from, header[:]); err != nil {
		return header, nil, err
	}
	payload = make([]byte, uint32(header[0])<<16|uint32(header[1])<<8|uint32(header[2]))
	_, err = io.ReadFull(from, payload)
	return header, payload, err
}

func (m *muffler) requests(from, to net.Conn, watches *sync.Map) {
	defer func() { _ = from.Close(); _ = to.Close() }()
	if _, err := io.CopyN(to, from, int64(len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))); err != nil {
		return
	}
	decoder := hpack.NewDecoder(4096, nil)
	for {
		header, payload, err := frame(from)
		if err != nil {
			return
		}
		if header[3] == frameHeaders {
			fields, _ := decoder.DecodeFull(payload) // A client of gRPC neither pads nor ranks them.
			for _, f := range fields {
				if f.Name == ":path" && f.Value == "/etcdserverpb.Watch/Watch" {
					watches.Store(binary.BigEndian.Uint32(header[5:]), true)
				}
			}
		}
		if _, err := to.Write(append(header[:], payload...)); err != nil {
			return
		}
	}
}

func (m *muffler) answers(from, to net.Conn, watches *sync.Map) {
	defer func() { _ = from.Close(); _ = to.Close() }()
	for {
		header, payload, err := frame(from)
		if err != nil {
			return
		}
		if _, watch := watches.Load(binary.BigEndian.Uint32(header[5:])); watch && header[3] == frameData && m.on.Load() {
			continue
		}
		if _, err := to.Write(append(header[:], payload...)); err != nil {
			return
		}
	}
}

// A watch may be dead while its connection lives and every other call is answered.
func TestAWatchThatFallsSilentIsNoticed(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		m, address := newMuffler(t, s.address)
		s.put(t, "/api-router/backends/a", backend("a", 1))
		b := open(t, Config{Endpoints: []string{address}, Timeout: time.Second})
		w := watch(t, b)
		w.until(t, "a=1")
		s.put(t, "/api-router/backends/a", backend("a", 2))
		w.until(t, "a=2")
		m.on.Store(true)
		s.put(t, "/api-router/backends/a", backend("a", 3))
		t.Log("noticed after", w.until(t, "a=3"))
		s.put(t, "/api-router/backends/a", backend("a", 4))
		t.Log("without any watch a change is in force after", w.until(t, "a=4"))
		m.on.Store(false)
		s.put(t, "/api-router/backends/a", backend("a", 5))
		w.until(t, "a=5")
		s.put(t, "/api-router/backends/a", backend("a", 6))
		t.Log("with the watch again after", w.until(t, "a=6"))
	})
}
