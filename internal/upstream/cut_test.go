package upstream

import (
	"context"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// goesOn checks that what has come of a cut Transport is over, and that its successor is not.
func goesOn(t *testing.T, over, successor Transport, url string) {
	t.Helper()
	t.Cleanup(successor.CloseIdleConnections)
	_, _, err := send(t, over, http.MethodPost, url, "{}")
	if _, connecting := errors.AsType[*ConnectError](err); !connecting || !errors.Is(err, ErrCut) {
		t.Errorf("a request after the cut: %v", err)
	}
	if _, body, err := send(t, successor, http.MethodPost, url, "{}"); err != nil || body != "ok" {
		t.Errorf("the successor: %q, %v", body, err)
	}
}

// A cut ends a request at once, whatever the moment, and never as if its answer were complete.
func TestACutEndsWhatRuns(t *testing.T) {
	each(t, func(t *testing.T, build builder) {
		for moment, said := range moments {
			t.Run(moment, func(t *testing.T) {
				spoken, left := make(chan struct{}), make(chan struct{})
				b := play(t, func(v *visit) {
					v.read()
					if v.number > 1 {
						v.say(ok)
						return
					}
					v.say(said)
					close(spoken)
					v.gone()
					close(left)
				})
				transport := open(t, build, Config{Address: b.address})
				successor := make(chan Transport, 1)
				go func() {
					<-spoken
					successor <- transport.Cut()
				}()
				_, body, err := receive(transport, request(t.Context(), t, http.MethodPost, b.url, "{}"))
				if !errors.Is(err, ErrCut) {
					t.Errorf("got %q, %v, want the cut", body, err)
				}
				<-left
				if b.conns.Load() != 1 {
					t.Errorf("the request was sent on %d connections", b.conns.Load())
				}
				goesOn(t, transport, <-successor, b.url)
			})
		}
	})
}

// The rest of an answer that nobody is reading at the moment is gone as well.
func TestACutEndsAnAnswerThatNobodyReads(t *testing.T) {
	each(t, func(t *testing.T, build builder) {
		for _, moment := range []string{"after the head", "in a sized body", "in a chunked body", "in a chunk", "in a body without end"} {
			left := make(chan struct{})
			b := play(t, func(v *visit) {
				v.read()
				v.say(moments[moment])
				v.gone()
				close(left)
			})
			transport := open(t, build, Config{Address: b.address})
			response, err := transport.RoundTrip(request(t.Context(), t, http.MethodPost, b.url, "{}"))
			if err != nil {
				t.Fatal(err)
			}
			transport.Cut()
			<-left
			if content, err := io.ReadAll(response.Body); !errors.Is(err, ErrCut) {
				t.Errorf("%s: read %q, %v", moment, content, err)
			}
			_ = response.Body.Close()
		}
	})
}

// While a request is being written to a backend that does not read it, nothing but the cut can end the wait.
func TestACutEndsTheSendingOfARequest(t *testing.T) {
	each(t, func(t *testing.T, build builder) {
		stuck, left := make(chan struct{}), make(chan struct{})
		b := play(t, func(v *visit) {
			if v.number > 1 {
				v.read()
				v.say(ok)
				return
			}
			v.readHead()
			close(stuck)
			<-left
		})
		transport := open(t, build, Config{Address: b.address})
		successor := make(chan Transport, 1)
		go func() {
			<-stuck
			successor <- transport.Cut()
		}()
		_, _, err := send(t, transport, http.MethodPost, b.url, strings.Repeat("b", 64<<20))
		close(left)
		if !errors.Is(err, ErrCut) {
			t.Errorf("got %v, want the cut", err)
		}
		goesOn(t, transport, <-successor, b.url)
	})
}

func TestACutClosesIdleConnections(t *testing.T) {
	each(t, func(t *testing.T, build builder) {
		left := make(chan struct{})
		b := play(t, func(v *visit) {
			always(ok)(v)
			if v.number == 1 {
				close(left)
			}
		})
		transport := open(t, build, Config{Address: b.address, IdleTimeout: time.Hour})
		if _, body, err := send(t, transport, http.MethodPost, b.url, "{}"); err != nil || body != "ok" {
			t.Fatalf("%q, %v", body, err)
		}
		successor := transport.Cut()
		<-left
		goesOn(t, transport, successor, b.url)
	})
}

// A connection that is being made does not come about, be it that its dial can be given up or not.
func TestACutEndsTheDial(t *testing.T) {
	for _, stubborn := range []bool{false, true} {
		each(t, func(t *testing.T, build builder) {
			b := play(t, always(ok))
			dialing, release, closed := make(chan struct{}), make(chan struct{}), make(chan struct{})
			var once sync.Once
			transport := open(t, build, Config{Address: b.address, Connect: time.Hour, Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
				first := false
				once.Do(func() { first = true })
				if !first {
					return new(net.Dialer).DialContext(ctx, network, address)
				}
				close(dialing)
				if !stubborn {
					<-ctx.Done()
					close(closed)
					return nil, ctx.Err()
				}
				<-release
				conn, err := net.Dial(network, address) // Nothing stops it.
				return &farewell{conn, closed}, err
			}})
			successor := make(chan Transport, 1)
			go func() {
				<-dialing
				successor <- transport.Cut()
				close(release)
			}()
			_, _, err := send(t, transport, http.MethodPost, b.url, "{}")
			if _, connecting := errors.AsType[*ConnectError](err); !connecting || !errors.Is(err, ErrCut) {
				t.Errorf("got %v, want that no connection was made because of the cut", err)
			}
			<-closed
			if b.bodies.Load() != 0 {
				t.Error("the request was sent")
			}
			goesOn(t, transport, <-successor, b.url)
		})
	}
}

// farewell tells when it is closed.
type farewell struct {
	net.Conn

	closed chan struct{}
}

func (c *farewell) Close() error {
	close(c.closed)
	return c.Conn.Close()
}

// Over TLS the connection under the encryption is cut, and over HTTP/2 with it all requests that share it.
func TestACutEndsEncryptedStreams(t *testing.T) {
	for _, protocol := range []string{"HTTP/1.1", "HTTP/2.0"} {
		t.Run(protocol, func(t *testing.T) {
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if _, err := io.Copy(io.Discard, r.Body); err != nil || r.Proto != protocol {
					t.Errorf("%s, %v", r.Proto, err)
				}
				_, _ = io.WriteString(w, "ok")
				if r.URL.Path == "/stream" {
					_ = http.NewResponseController(w).Flush()
					<-r.Context().Done()
				}
			}))
			server.EnableHTTP2 = protocol == "HTTP/2.0"
			server.StartTLS()
			defer server.Close()
			ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
			transport := open(t, Standard, Config{Address: address(server), TLS: &TLS{CA: ca}})
			var streams []*http.Response
			for range 3 {
				response, err := transport.RoundTrip(request(t.Context(), t, http.MethodPost, server.URL+"/stream", "{}"))
				if err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(response.Body, make([]byte, 2)); err != nil {
					t.Fatal(err)
				}
				streams = append(streams, response)
			}
			successor := transport.Cut()
			for _, response := range streams {
				if rest, err := io.ReadAll(response.Body); !errors.Is(err, ErrCut) {
					t.Errorf("the stream ended with %q, %v", rest, err)
				}
				_ = response.Body.Close()
			}
			goesOn(t, transport, successor, server.URL)
		})
	}
}

// Cuts at random among many requests: each is answered in full or fails with the cut, and no connection is left behind.
func TestCutsAmongManyRequests(t *testing.T) {
	each(t, func(t *testing.T, build builder) {
		b := play(t, always(ok))
		var mu sync.Mutex
		current := open(t, build, Config{Address: b.address})
		get := func() Transport { mu.Lock(); defer mu.Unlock(); return current }
		var old []Transport
		stop := make(chan struct{})
		var cutting, group sync.WaitGroup
		cutting.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(time.Millisecond):
				}
				mu.Lock()
				old = append(old, current)
				current = current.Cut()
				mu.Unlock()
			}
		})
		for range 8 {
			group.Go(func() {
				for range 300 {
					if _, body, err := send(t, get(), http.MethodPost, b.url, "{}"); err == nil && body != "ok" || err != nil && !errors.Is(err, ErrCut) {
						t.Errorf("%q, %v", body, err)
					}
				}
			})
		}
		group.Wait()
		close(stop)
		cutting.Wait()
		t.Cleanup(current.CloseIdleConnections)
		for _, transport := range old {
			if open := opened(transport); open != 0 {
				t.Errorf("%d connections are open on a transport that was cut", open)
			}
		}
	})
}

func opened(transport Transport) int {
	l := new(lines)
	switch own := transport.(type) {
	case *direct:
		l = &own.lines
	case *standard:
		l = &own.lines
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.open)
}

// What is closed is forgotten, however it was closed.
func TestLinesForgetWhatIsClosed(t *testing.T) {
	each(t, func(t *testing.T, build builder) {
		answers := []string{ok, "HTTP/1.1 200 OK\r\n\r\nuntil the end", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nbroken", "nonsense", ""}
		b := play(t, func(v *visit) {
			v.read()
			v.say(answers[int(v.number)%len(answers)])
		})
		transport := open(t, build, Config{Address: b.address})
		for range 5 * len(answers) {
			_, _, _ = send(t, transport, http.MethodPost, b.url, "{}")
			ctx, cancel := context.WithCancel(t.Context())
			if response, err := transport.RoundTrip(request(ctx, t, http.MethodPost, b.url, "{}")); err == nil {
				cancel()
				_ = response.Body.Close()
			}
			cancel()
		}
		transport.CloseIdleConnections()
		for deadline := time.Now().Add(time.Minute); opened(transport) != 0; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%d connections are remembered after all were closed", opened(transport))
			}
		}
	})
}
