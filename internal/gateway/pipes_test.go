package gateway_test

import (
	"context"
	"net"
	"testing"
	"testing/synctest"

	"github.com/ai-aas/api-router/internal/fleet"
	"github.com/ai-aas/api-router/internal/upstream"
)

// pipes is a listener in memory. Whoever waits for its connections waits in the time of a bubble, which passes only when all wait: a timeout
// there is never that of a busy machine.
type pipes struct {
	conns chan net.Conn
	ended context.Context
	end   context.CancelFunc
}

func newPipes() *pipes {
	ended, end := context.WithCancel(context.Background())
	return &pipes{make(chan net.Conn), ended, end}
}

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case p.conns <- server:
		return client, nil
	case <-p.ended.Done():
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case conn := <-p.conns:
		return conn, nil
	case <-p.ended.Done():
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.end(); return nil }
func (p *pipes) Addr() net.Addr { return address{} }

type address struct{}

func (address) Network() string { return "pipe" }
func (address) String() string  { return "memory.test:80" }

// inBubble runs a test with a router in front of one backend, all in memory and in a bubble.
func inBubble(t *testing.T, set setting, answer func(conn net.Conn, body string), test func(t *testing.T, h *house)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		set.listener = newPipes()
		engine := newPipes()
		set.transport = func(spec fleet.Spec) (upstream.Transport, error) {
			return upstream.Direct(upstream.Config{Address: address{}.String(), Connect: spec.Timeouts.Connect, Dial: engine.dial})
		}
		backend := playAt(t, engine, answer)
		h := build(t, set, backend.URL)
		t.Cleanup(func() { _ = h.fleet.Apply(nil) }) // Its idle connections go with the backend.
		test(t, h)
	})
}
