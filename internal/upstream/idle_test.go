package upstream

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// engine is a backend in memory that counts connections. A request is answered when the test says so.
type engine struct {
	opened, closed atomic.Int32
	answer         chan struct{}
}

func (e *engine) dial() func(context.Context, string, string) (net.Conn, error) {
	return inMemory(func(conn net.Conn, in *bufio.Reader) {
		e.opened.Add(1)
		defer e.closed.Add(1)
		for discardRequest(in) {
			if e.answer != nil {
				<-e.answer
			}
			_, _ = io.WriteString(conn, ok)
		}
	})
}

// ask sends n requests at once and has all of them answered.
func (e *engine) ask(t *testing.T, transport Transport, n int) {
	t.Helper()
	var group sync.WaitGroup
	for range n {
		group.Go(func() {
			if _, body, err := send(t, transport, http.MethodPost, "http://engine.example:80/", "{}"); err != nil || body != "ok" {
				t.Errorf("%q, %v", body, err)
			}
		})
	}
	synctest.Wait()
	for range n {
		e.answer <- struct{}{}
	}
	group.Wait()
	synctest.Wait()
}

func (e *engine) expect(t *testing.T, when string, opened, closed int32) {
	t.Helper()
	if e.opened.Load() != opened || e.closed.Load() != closed {
		t.Errorf("%s: %d connections opened and %d closed, want %d and %d", when, e.opened.Load(), e.closed.Load(), opened, closed)
	}
}

// idling runs a test in virtual time on every implementation.
func idling(t *testing.T, cfg Config, test func(t *testing.T, e *engine, transport Transport)) {
	t.Helper()
	each(t, func(t *testing.T, build builder) {
		synctest.Test(t, func(t *testing.T) {
			e := &engine{answer: make(chan struct{})}
			cfg.Address, cfg.Dial = "engine.example:80", e.dial()
			transport, err := build(cfg)
			if err != nil {
				t.Fatal(err)
			}
			test(t, e, transport)
			transport.CloseIdleConnections()
			synctest.Wait()
			if e.opened.Load() != e.closed.Load() {
				t.Errorf("%d connections are left", e.opened.Load()-e.closed.Load())
			}
		})
	})
}

func TestIdleConnectionsAreBounded(t *testing.T) {
	idling(t, Config{MaxIdle: 3}, func(t *testing.T, e *engine, transport Transport) {
		e.ask(t, transport, 10)
		e.expect(t, "after ten at once", 10, 7)
		e.ask(t, transport, 3)
		e.expect(t, "after three more", 10, 7)
	})
}

// The connection that was used last is used first, so that a small load lets the others go.
func TestUnusedConnectionsGoAlthoughOthersAreUsed(t *testing.T) {
	idling(t, Config{IdleTimeout: 4 * time.Second}, func(t *testing.T, e *engine, transport Transport) {
		e.ask(t, transport, 8)
		for range 8 {
			time.Sleep(time.Second)
			e.ask(t, transport, 1)
		}
		e.expect(t, "after eight seconds of one at a time", 8, 7)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		e.expect(t, "after a pause", 8, 8)
		e.ask(t, transport, 2)
		e.expect(t, "after the next two", 10, 8)
	})
}

func TestConnectionsInUseOutliveClosingTheIdleOnes(t *testing.T) {
	idling(t, Config{}, func(t *testing.T, e *engine, transport Transport) {
		e.ask(t, transport, 2)
		done := make(chan error)
		go func() {
			_, _, err := send(t, transport, http.MethodPost, "http://engine.example:80/", "{}")
			done <- err
		}()
		synctest.Wait()
		transport.CloseIdleConnections()
		synctest.Wait()
		e.expect(t, "while one is in use", 2, 1)
		e.answer <- struct{}{}
		if err := <-done; err != nil {
			t.Error(err)
		}
		synctest.Wait()
		e.expect(t, "when that has come back", 2, 2) // Nobody has asked for a connection since.
		e.ask(t, transport, 1)
		e.ask(t, transport, 1)
		e.expect(t, "in use again", 3, 2)
	})
}

// An old connection is not used even where the timer that closes it is late.
func TestAnOldConnectionIsNotTaken(t *testing.T) {
	client, server := net.Pipe()
	defer server.Close()
	s := &stack{limit: 1, timeout: time.Hour}
	defer s.close()
	s.put(newConn(client, &direct{}))
	if c := s.take(time.Now().Add(time.Hour)); c != nil {
		t.Error("it was taken")
	}
	if _, err := server.Read(make([]byte, 1)); err == nil {
		t.Error("it was not closed")
	}
}
