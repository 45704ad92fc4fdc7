package upstream

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

var errLeft = errors.New("the client left")

// moments are those at which a client may leave, each with what the backend has said by then.
var moments = map[string]string{
	"before the answer":       "",
	"in the head":             "HTTP/1.1 200 OK\r\nContent-",
	"after the head":          "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n",
	"in a sized body":         "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhell",
	"in a chunked body":       "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
	"in a chunk":              "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
	"in a body without end":   "HTTP/1.1 200 OK\r\n\r\nhello",
	"after an interim answer": "HTTP/1.1 103 Early Hints\r\n\r\n",
}

// A client that leaves closes the backend's connection at once, whatever the moment, and the error is the context's cause.
func TestCancellationClosesTheConnection(t *testing.T) {
	each(t, func(t *testing.T, build builder) {
		for moment, said := range moments {
			t.Run(moment, func(t *testing.T) {
				spoken, left := make(chan struct{}), make(chan struct{})
				b := play(t, func(v *visit) {
					v.read()
					v.say(said)
					close(spoken)
					v.gone()
					close(left)
				})
				transport := open(t, build, Config{Address: b.address})
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				go func() {
					<-spoken
					cancel(errLeft)
				}()
				_, body, err := receive(transport, request(ctx, t, http.MethodPost, b.url, "{}"))
				if !errors.Is(err, errLeft) {
					t.Errorf("got %q, %v, want the context's cause", body, err)
				}
				<-left
			})
		}
	})
}

func TestADeadlineEndsTheWait(t *testing.T) {
	each(t, func(t *testing.T, build builder) {
		synctest.Test(t, func(t *testing.T) {
			gone := make(chan time.Time, 1)
			transport, err := build(Config{Address: "engine.example:80", Dial: inMemory(func(conn net.Conn, in *bufio.Reader) {
				discardRequest(in)
				_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe")
				_, _ = in.ReadByte()
				gone <- time.Now()
			})})
			if err != nil {
				t.Fatal(err)
			}
			begin := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			_, body, err := receive(transport, request(ctx, t, http.MethodPost, "http://engine.example:80/", "{}"))
			if !errors.Is(err, context.DeadlineExceeded) || body != "he" {
				t.Errorf("got %q, %v", body, err)
			}
			if at := (<-gone).Sub(begin); at != 3*time.Second {
				t.Errorf("the connection was closed after %s", at)
			}
		})
	})
}

func TestClosingABodyEarlyClosesTheConnection(t *testing.T) {
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
			if moment != "after the head" && moment != "in a chunk" { // net/http waits for the rest of a chunk.
				_, _ = response.Body.Read(make([]byte, 100))
			}
			_ = response.Body.Close()
			<-left
			if n, err := response.Body.Read(make([]byte, 1)); n != 0 || err == nil || err == io.EOF {
				t.Errorf("%s: read after close: %d, %v", moment, n, err)
			}
			if err := response.Body.Close(); err != nil {
				t.Errorf("%s: closed twice: %v", moment, err)
			}
		}
	})
}

// Another goroutine may close the body while one reads: the reader wakes up, and its buffer is nobody else's before that.
func TestClosingWhileReading(t *testing.T) {
	each(t, func(t *testing.T, build builder) {
		left := make(chan struct{}, 100)
		b := play(t, func(v *visit) {
			v.read()
			v.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
			v.gone()
			left <- struct{}{}
		})
		transport := open(t, build, Config{Address: b.address})
		for range 50 {
			response, err := transport.RoundTrip(request(t.Context(), t, http.MethodPost, b.url, "{}"))
			if err != nil {
				t.Fatal(err)
			}
			reading := make(chan error)
			go func() {
				_, err := io.ReadAll(response.Body)
				reading <- err
			}()
			go response.Body.Close()
			if err := <-reading; err == nil {
				t.Error("the body ended cleanly")
			}
			<-left
		}
	})
}

func TestACancelledRequestIsNotSent(t *testing.T) {
	each(t, func(t *testing.T, build builder) {
		b := play(t, always(ok))
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(errLeft)
		_, _, err := receive(open(t, build, Config{Address: b.address}), request(ctx, t, http.MethodPost, b.url, "{}"))
		if !errors.Is(err, errLeft) || b.bodies.Load() != 0 {
			t.Errorf("%v, %d requests arrived", err, b.bodies.Load())
		}
	})
}

func TestCancellationEndsTheDial(t *testing.T) {
	each(t, func(t *testing.T, build builder) {
		synctest.Test(t, func(t *testing.T) {
			transport, err := build(Config{Address: "silent.example:80", Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			}})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errLeft)
			defer cancel()
			begin := time.Now()
			_, _, err = receive(transport, request(ctx, t, http.MethodPost, "http://silent.example:80/", "{}"))
			if !errors.Is(err, errLeft) || time.Since(begin) != time.Second {
				t.Errorf("%v after %s", err, time.Since(begin))
			}
			time.Sleep(DefaultConnect) // http.Transport goes on dialing, for whoever comes next.
		})
	})
}

// A request's end must not touch the connection that another request has by then.
func TestAContextThatEndsAfterItsRequestIsHarmless(t *testing.T) {
	each(t, func(t *testing.T, build builder) {
		b := play(t, always(ok))
		transport := open(t, build, Config{Address: b.address})
		for range 200 {
			ctx, cancel := context.WithCancel(t.Context())
			if _, body, err := receive(transport, request(ctx, t, http.MethodPost, b.url, "{}")); err != nil || body != "ok" {
				t.Fatalf("%q, %v", body, err)
			}
			go cancel()
		}
		b.connected(t, 1)
	})
}

// Many clients at once, some of which leave: nobody gets an answer that is not his own.
func TestNobodyGetsAnothersAnswer(t *testing.T) {
	each(t, func(t *testing.T, build builder) {
		b := play(t, func(v *visit) {
			for {
				text, ok := v.read()
				if !ok {
					return
				}
				if len(text)%2 == 0 {
					v.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
					for part := range strings.SplitAfterSeq(strings.TrimSuffix(text, "-"), "-") {
						v.say(hex(len(part)) + "\r\n" + part + "\r\n")
					}
					v.say("0\r\n\r\n")
				} else {
					v.say("HTTP/1.1 200 OK\r\nContent-Length: " + decimal(len(text)) + "\r\n\r\n" + text)
				}
			}
		})
		transport := open(t, build, Config{Address: b.address, MaxIdle: 8})
		var group sync.WaitGroup
		for client := range 32 {
			group.Go(func() {
				for i := range 40 {
					text := strings.Repeat(decimal(client)+"."+decimal(i)+"-", 1+(client*i)%3000)
					ctx, cancel := context.WithCancel(t.Context())
					leaves := (client+i)%5 == 0
					if leaves {
						go cancel()
					}
					_, body, err := receive(transport, request(ctx, t, http.MethodPost, b.url, text))
					cancel()
					if err == nil && body != text && body+"-" != text || err != nil && !leaves {
						t.Errorf("%d.%d: %v, %d bytes of %d", client, i, err, len(body), len(text))
						return
					}
				}
			})
		}
		group.Wait()
	})
}
