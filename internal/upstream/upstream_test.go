package upstream

import (
	"bufio"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ai-aas/api-router/test/ports"
)

func TestOnlyTheConfiguredAddressIsDialed(t *testing.T) {
	each(t, func(t *testing.T, build builder) {
		var visits atomic.Int32
		other := serve(t, func(http.ResponseWriter, *http.Request) { visits.Add(1) })
		own := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "own") })
		transport := open(t, build, Config{Address: address(own)})

		if _, body, err := send(t, transport, http.MethodGet, own.URL+"/", ""); err != nil || body != "own" {
			t.Fatalf("the configured address: %q, %v", body, err)
		}
		_, port, _ := net.SplitHostPort(address(own))
		for _, url := range []string{other.URL, "http://localhost:" + port, "http://127.0.0.1", "https://127.0.0.1:1", "http://[::1]:" + port} {
			_, _, err := send(t, transport, http.MethodGet, url+"/", "")
			refused, ok := errors.AsType[*DialRefusedError](err)
			if !ok {
				t.Errorf("%s: got %v, want a DialRefusedError", url, err)
				continue
			}
			if refused.Address != address(own) {
				t.Errorf("%s: the error names %s as the allowed address", url, refused.Address)
			}
		}
		if n := visits.Load(); n != 0 {
			t.Errorf("the other server was reached %d times", n)
		}
	})
}

func TestHostNamesAreComparedWithoutCase(t *testing.T) {
	each(t, func(t *testing.T, build builder) {
		server := serve(t, func(http.ResponseWriter, *http.Request) {})
		var dialed atomic.Value
		transport := open(t, build, Config{
			Address: "backend.example:8000",
			Dial: func(ctx context.Context, network, asked string) (net.Conn, error) {
				dialed.Store(asked)
				return new(net.Dialer).DialContext(ctx, network, address(server))
			},
		})
		if _, _, err := send(t, transport, http.MethodGet, "http://Backend.Example:8000/", ""); err != nil {
			t.Fatal(err)
		}
		if dialed.Load() != "backend.example:8000" {
			t.Errorf("dialed %v, want the address as it is configured", dialed.Load())
		}
	})
}

func TestARefusedConnectionIsAConnectError(t *testing.T) {
	each(t, func(t *testing.T, build builder) {
		addr := ports.Dead(t)
		_, _, err := send(t, open(t, build, Config{Address: addr}), http.MethodPost, "http://"+addr+"/", "{}")
		if e, ok := errors.AsType[*ConnectError](err); !ok || e.Address != addr {
			t.Fatalf("got %v, want a ConnectError", err)
		}
		if _, ok := errors.AsType[*net.OpError](err); !ok {
			t.Errorf("%v does not unwrap to the network's error", err)
		}
	})
}

func TestConnectHasADeadline(t *testing.T) {
	each(t, func(t *testing.T, build builder) {
		synctest.Test(t, func(t *testing.T) {
			transport, err := build(Config{
				Address: "silent.example:80",
				Connect: 3 * time.Second,
				Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
					<-ctx.Done()
					return nil, ctx.Err()
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			begin := time.Now()
			_, _, err = send(t, transport, http.MethodGet, "http://silent.example:80/", "")
			if _, ok := errors.AsType[*ConnectError](err); !ok || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v, want a ConnectError by deadline", err)
			}
			if took := time.Since(begin); took != 3*time.Second {
				t.Errorf("took %s, want 3s", took)
			}
		})
	})
}

func TestConnectionsAreKeptAndDroppedBeforeTheEngineDropsThem(t *testing.T) {
	each(t, func(t *testing.T, build builder) {
		synctest.Test(t, func(t *testing.T) {
			var dials, closed atomic.Int32
			transport, err := build(Config{
				Address: "engine.example:80",
				Dial: func(context.Context, string, string) (net.Conn, error) {
					dials.Add(1)
					client, server := net.Pipe()
					go func() {
						defer func() { _ = server.Close() }()
						reader := bufio.NewReader(server)
						for {
							r, err := http.ReadRequest(reader)
							if err != nil {
								closed.Add(1)
								return
							}
							_, _ = io.Copy(io.Discard, r.Body)
							_, _ = io.WriteString(server, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
						}
					}()
					return client, nil
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			for _, step := range []struct {
				pause         time.Duration
				dials, closed int32
			}{
				{0, 1, 0},
				{3900 * time.Millisecond, 1, 0}, // reused
				{4100 * time.Millisecond, 2, 1}, // too old: uvicorn would hang up at five seconds
			} {
				time.Sleep(step.pause)
				if _, body, err := send(t, transport, http.MethodPost, "http://engine.example:80/", "{}"); err != nil || body != "ok" {
					t.Fatalf("after %s: %q, %v", step.pause, body, err)
				}
				synctest.Wait()
				if dials.Load() != step.dials || closed.Load() != step.closed {
					t.Errorf("after %s: %d dials, %d closed, want %d and %d", step.pause, dials.Load(), closed.Load(), step.dials, step.closed)
				}
			}
			transport.CloseIdleConnections()
			synctest.Wait()
			if closed.Load() != 2 {
				t.Errorf("%d connections closed at the end, want 2", closed.Load())
			}
		})
	})
}

func TestManyRequestsRunAtOnce(t *testing.T) {
	each(t, func(t *testing.T, build builder) {
		const n = 64
		var together sync.WaitGroup
		together.Add(n)
		server := serve(t, func(http.ResponseWriter, *http.Request) {
			together.Done()
			together.Wait() // Answers only once all have arrived.
		})
		transport := open(t, build, Config{Address: address(server), MaxIdle: 4})
		var group sync.WaitGroup
		for range n {
			group.Go(func() {
				if _, _, err := send(t, transport, http.MethodGet, server.URL+"/", ""); err != nil {
					t.Error(err)
				}
			})
		}
		group.Wait()
	})
}

func TestNothingIsAddedOrFollowed(t *testing.T) {
	each(t, func(t *testing.T, build builder) {
		t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
		t.Setenv("HTTPS_PROXY", "http://127.0.0.1:1")
		server := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if got := r.Header.Get("Accept-Encoding"); got != "" {
				t.Errorf("Accept-Encoding %q was sent", got)
			}
			switch r.URL.Path {
			case "/moved":
				http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
			case "/gzip":
				w.Header().Set("Content-Encoding", "gzip")
				z := gzip.NewWriter(w)
				_, _ = io.WriteString(z, "text")
				_ = z.Close()
			default:
				t.Errorf("%s was asked for", r.URL.Path)
			}
		})
		transport := open(t, build, Config{Address: address(server)})
		response, _, err := send(t, transport, http.MethodPost, server.URL+"/moved", "{}")
		if err != nil || response.StatusCode != http.StatusTemporaryRedirect {
			t.Errorf("redirect: %v, %v", response, err)
		}
		response, body, err := send(t, transport, http.MethodPost, server.URL+"/gzip", "{}")
		if err != nil || response.Header.Get("Content-Encoding") != "gzip" || body == "text" {
			t.Errorf("gzip: %q, %v: want the bytes as they came", body, err)
		}
	})
}

func TestTooManyHeadersAreAnError(t *testing.T) {
	each(t, func(t *testing.T, build builder) {
		server := serve(t, func(w http.ResponseWriter, r *http.Request) {
			size, _ := io.ReadAll(r.Body)
			var n int
			_, _ = fmt.Sscan(string(size), &n)
			w.Header().Set("X-Filler", strings.Repeat("a", n))
		})
		transport := open(t, build, Config{Address: address(server)})
		if _, _, err := send(t, transport, http.MethodPost, server.URL+"/", "32768"); err != nil {
			t.Errorf("32 KiB: %v", err)
		}
		if _, _, err := send(t, transport, http.MethodPost, server.URL+"/", "1048576"); err == nil {
			t.Error("1 MiB of headers was accepted")
		}
	})
}

func TestConfigsThatCannotWorkAreRefused(t *testing.T) {
	for name, cfg := range map[string]Config{
		"no port":     {Address: "host"},
		"empty port":  {Address: "host:"},
		"bad ca":      {Address: "host:1", TLS: &TLS{CA: "not PEM"}},
		"half a pair": {Address: "host:1", TLS: &TLS{Cert: "x"}},
		"bad pair":    {Address: "host:1", TLS: &TLS{Cert: "x", Key: "key-of-the-test"}},
	} {
		for kind, build := range implementations {
			if _, err := build(cfg); err == nil {
				t.Errorf("%s, %s: accepted", name, kind)
			} else if strings.Contains(err.Error(), "key-of-the-test") {
				t.Errorf("%s, %s: the error holds the key: %v", name, kind, err)
			}
		}
	}
}

func TestSecretsNeverPrint(t *testing.T) {
	secret := Secret("hunter2")
	holder := struct {
		Key  Secret
		Keys []Secret
		TLS  TLS
	}{secret, []Secret{secret}, TLS{Key: secret}}
	encoded, err := json.Marshal(holder)
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "key", secret, "holder", holder)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "key", secret, "holder", holder)
	outputs := []string{string(encoded), log.String(), secret.String(), secret.GoString()}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
		outputs = append(outputs, fmt.Sprintf(verb, secret), fmt.Sprintf(verb, holder), fmt.Sprintf(verb, &holder))
	}
	for _, output := range outputs {
		if strings.Contains(output, "hunter2") || strings.Contains(strings.ToLower(output), "68756e74657232") {
			t.Errorf("the secret shows in %s", output)
		}
	}
	if Secret("").String() != "" {
		t.Error("an empty secret should look empty")
	}
}
