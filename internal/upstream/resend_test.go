package upstream

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// deaths are the ways in which a backend ends a connection on which a request has been sent.
var deaths = []struct {
	name     string
	die      func(v *visit)
	answered bool // a byte of an answer has been sent
	head     int64
	body     int64 // the request was read whole
}{
	{name: "after a byte of the request", die: func(v *visit) { _, _ = v.in.ReadByte() }},
	{name: "after the request's head", die: func(v *visit) { v.readHead() }, head: 1},
	{name: "after the whole request", die: func(v *visit) { v.read() }, head: 1, body: 1},
	{name: "after a byte of the answer", die: func(v *visit) { v.read(); v.say("H") }, head: 1, body: 1, answered: true},
	{name: "after an interim answer", die: func(v *visit) { v.read(); v.say("HTTP/1.1 100 Continue\r\n\r\n") }, head: 1, body: 1, answered: true},
	{name: "after the answer's head", die: func(v *visit) { v.read(); v.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n") }, head: 1, body: 1, answered: true},
}

// TestNoRequestRunsTwiceUnseen counts what a backend sees of a request that meets each death, on a fresh connection and on
// one that was used before. A connection that hides its socket stands for a hang-up that crosses the request.
//
// Direct sends the request again in one case only, on one fresh connection: the connection had been used before, and it ended before any byte of an
// answer. http.Transport sends no POST again once it has been written, so there the caller sees an error.
func TestNoRequestRunsTwiceUnseen(t *testing.T) {
	for _, death := range deaths {
		for _, reset := range []bool{false, true} {
			for _, reused := range []bool{false, true} {
				for name, build := range implementations {
					t.Run(title(death.name, reset, reused, name), func(t *testing.T) {
						again := reused && !death.answered && name == "direct"
						b := play(t, func(v *visit) {
							if v.number > 1 { // What is sent again is served.
								always(ok)(v)
								return
							}
							if reused {
								v.read()
								v.say(ok)
								v.at.heads.Store(0)
								v.at.bodies.Store(0)
							}
							if death.die(v); reset {
								v.reset()
							}
						})
						transport := open(t, build, Config{Address: b.address, Dial: dialUnseen})
						if reused {
							if _, _, err := send(t, transport, http.MethodPost, b.url, "warm up"); err != nil {
								t.Fatal(err)
							}
						}
						_, body, err := send(t, transport, http.MethodPost, b.url, "{}")
						if (err == nil) != again || err == nil && body != "ok" {
							t.Errorf("got %q, %v; sent again: want %t", body, err, again)
						}
						extra := int64(0)
						if again {
							extra = 1
						}
						if h, w, c := b.heads.Load(), b.bodies.Load(), b.conns.Load(); h != death.head+extra || w != death.body+extra || c != 1+extra {
							t.Errorf("the backend saw %d heads and %d whole requests on %d connections, want %d, %d and %d",
								h, w, c, death.head+extra, death.body+extra, 1+extra)
						}
					})
				}
			}
		}
	}
}

func title(death string, reset, reused bool, implementation string) string {
	how, on := "closed ", "fresh"
	if reset {
		how = "reset "
	}
	if reused {
		on = "reused"
	}
	return strings.Join([]string{implementation, on, how + death}, "/")
}

// sentAgain runs one request on a connection that was used before and that crosses a hang-up.
func sentAgain(t *testing.T, change func(r *http.Request), script func(v *visit)) (b *backend, body string, err error) {
	t.Helper()
	b = play(t, func(v *visit) {
		if v.number == 1 {
			v.read()
			v.say(ok)
		}
		script(v)
	})
	transport := open(t, Direct, Config{Address: b.address, Dial: dialUnseen})
	if _, _, err := send(t, transport, http.MethodPost, b.url, "warm up"); err != nil {
		t.Fatal(err)
	}
	r := request(t.Context(), t, http.MethodPost, b.url, "{}")
	if change != nil {
		change(r)
	}
	_, body, err = receive(transport, r)
	return b, body, err
}

func TestARequestIsSentAgainOnlyOnce(t *testing.T) {
	b, _, err := sentAgain(t, nil, func(v *visit) { v.read() })
	if err == nil || b.conns.Load() != 2 || b.bodies.Load() != 3 {
		t.Errorf("%v after %d connections and %d requests, want an error after 2 and 3", err, b.conns.Load(), b.bodies.Load())
	}
}

func TestABodyThatCannotBeHadAgainIsNotSentAgain(t *testing.T) {
	for name, change := range map[string]func(*http.Request){
		"no GetBody":     func(r *http.Request) { r.GetBody = nil },
		"GetBody failed": func(r *http.Request) { r.GetBody = func() (io.ReadCloser, error) { return nil, io.ErrClosedPipe } },
	} {
		b, _, err := sentAgain(t, change, func(v *visit) { v.read() })
		if !errors.Is(err, io.ErrUnexpectedEOF) || b.conns.Load() != 1 || b.bodies.Load() != 2 {
			t.Errorf("%s: %v after %d connections and %d requests", name, err, b.conns.Load(), b.bodies.Load())
		}
	}
}

func TestARequestWithoutABodyIsSentAgain(t *testing.T) {
	b, body, err := sentAgain(t, func(r *http.Request) { r.Method, r.Body, r.GetBody, r.ContentLength = http.MethodGet, nil, nil, 0 }, func(v *visit) {
		if v.read(); v.number == 2 {
			v.say(ok)
		}
	})
	if err != nil || body != "ok" || b.conns.Load() != 2 {
		t.Errorf("%q, %v after %d connections", body, err, b.conns.Load())
	}
}

// A backend that hangs up on a request after some time has worked on it: that is no idle connection that was closed.
func TestALateHangUpIsNotACrossingOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var requests atomic.Int32
		transport, err := Direct(Config{Address: "engine.example:80", Dial: inMemory(func(conn net.Conn, in *bufio.Reader) {
			for discardRequest(in) {
				if requests.Add(1) > 1 {
					time.Sleep(staleWithin)
					return
				}
				_, _ = io.WriteString(conn, ok)
			}
		})})
		if err != nil {
			t.Fatal(err)
		}
		_, _, first := send(t, transport, http.MethodPost, "http://engine.example:80/", "{}")
		_, _, second := send(t, transport, http.MethodPost, "http://engine.example:80/", "{}")
		if first != nil || second == nil || requests.Load() != 2 {
			t.Errorf("%v, %v after %d requests", first, second, requests.Load())
		}
	})
}

// failingWrite is a connection whose peer has gone without the socket showing it: the second request cannot be written.
type failingWrite struct {
	net.Conn

	writes atomic.Int32
	takes  int // bytes of the second request that the network takes all the same
}

func (f *failingWrite) Write(p []byte) (int, error) {
	if f.writes.Add(1) == 1 {
		return f.Conn.Write(p)
	}
	return min(f.takes, len(p)), syscall.EPIPE
}

func (f *failingWrite) Read(p []byte) (int, error) {
	if f.writes.Load() > 1 {
		return 0, syscall.ETIMEDOUT // Neither a hang-up nor a reset.
	}
	return f.Conn.Read(p)
}

func TestAnUnwrittenRequestIsSentAgain(t *testing.T) {
	for takes, want := range map[int]bool{0: true, 1: false} {
		b := play(t, always(ok))
		var dials atomic.Int32
		transport := open(t, Direct, Config{Address: b.address, Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, network, address)
			if err != nil || dials.Add(1) > 1 {
				return conn, err
			}
			return &failingWrite{Conn: conn, takes: takes}, nil
		}})
		_, _, first := send(t, transport, http.MethodPost, b.url, "{}")
		_, _, second := send(t, transport, http.MethodPost, b.url, "{}")
		if first != nil || (second == nil) != want {
			t.Errorf("%d bytes written: %v, %v", takes, first, second)
		}
	}
}

// When the second connection cannot be made, the error must not say that nothing has left.
func TestNoConnectErrorOnceSomethingWasWritten(t *testing.T) {
	b := play(t, func(v *visit) {
		v.read()
		v.say(ok)
		v.read()
	})
	var dials atomic.Int32
	transport := open(t, Direct, Config{Address: b.address, Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		if dials.Add(1) > 1 {
			return nil, syscall.ECONNREFUSED
		}
		return dialUnseen(ctx, network, address)
	}})
	_, _, first := send(t, transport, http.MethodPost, b.url, "{}")
	_, _, second := send(t, transport, http.MethodPost, b.url, "{}")
	if _, wrong := errors.AsType[*ConnectError](second); first != nil || second == nil || wrong || dials.Load() != 2 {
		t.Errorf("%v, %v (%T) after %d dials", first, second, second, dials.Load())
	}
}

// A connection that the backend closed while it was idle is noticed before anything is sent.
func TestAConnectionThatWasClosedWhileIdleIsNotUsed(t *testing.T) {
	for _, reset := range []bool{false, true} {
		closed := make(chan struct{}, 64)
		b := play(t, func(v *visit) {
			v.read()
			v.say(ok)
			if reset {
				_ = v.SetLinger(0)
			}
			_ = v.Close()
			closed <- struct{}{}
		})
		transport := open(t, Direct, Config{Address: b.address})
		const n = 50
		for range n {
			r := request(t.Context(), t, http.MethodPost, b.url, "{}")
			r.GetBody = nil // It could not be sent again.
			if _, body, err := receive(transport, r); err != nil || body != "ok" {
				t.Fatalf("reset %t: %q, %v", reset, body, err)
			}
			<-closed
		}
		if b.bodies.Load() != n || b.conns.Load() != n {
			t.Errorf("reset %t: %d requests on %d connections, want %d of each", reset, b.bodies.Load(), b.conns.Load(), n)
		}
	}
}

// On both implementations, with time for http.Transport's goroutines to see the hang-up.
func TestAHangUpBetweenRequestsIsHarmless(t *testing.T) {
	each(t, func(t *testing.T, build builder) {
		synctest.Test(t, func(t *testing.T) {
			var requests atomic.Int32
			transport, err := build(Config{Address: "engine.example:80", Dial: inMemory(func(conn net.Conn, in *bufio.Reader) {
				if discardRequest(in) {
					requests.Add(1)
					_, _ = io.WriteString(conn, ok)
				}
			})})
			if err != nil {
				t.Fatal(err)
			}
			for range 10 {
				if _, body, err := send(t, transport, http.MethodPost, "http://engine.example:80/", "{}"); err != nil || body != "ok" {
					t.Fatalf("%q, %v", body, err)
				}
				synctest.Wait()
			}
			if requests.Load() != 10 {
				t.Errorf("%d requests arrived, want 10", requests.Load())
			}
		})
	})
}
