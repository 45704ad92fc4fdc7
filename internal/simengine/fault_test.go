package simengine

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

const (
	wholeChat  = `{` + hello + `}`
	streamChat = `{"stream":true,` + hello + `}`
)

// send asks over a real connection.
func send(t *testing.T, server *httptest.Server, body string) (status int, text string, err error) {
	t.Helper()
	res, err := server.Client().Post(server.URL+"/v1/chat/completions", "application/json", strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	all, err := io.ReadAll(res.Body)
	return res.StatusCode, string(all), err
}

func TestAnswersThatAreCutOff(t *testing.T) {
	for _, zero := range []*ZeroWork{nil, {Events: 20}} {
		cfg := fast()
		cfg.ZeroWork = zero
		e := New(cfg)
		server := httptest.NewServer(e.Handler())
		for _, c := range []struct {
			name   string
			fault  Fault
			body   string
			status int // 0: no head came
			events int
			err    error // nil: a well-formed end
		}{
			{"close a stream", Fault{Ending: Close, After: 3}, streamChat, 200, 3, io.ErrUnexpectedEOF},
			{"close a stream after its head", Fault{Ending: Close}, streamChat, 200, 0, io.ErrUnexpectedEOF},
			{"close before the head", Fault{Ending: Close, After: -1}, streamChat, 0, 0, io.EOF},
			{"close a whole answer", Fault{Ending: Close, After: 3}, wholeChat, 0, 0, io.EOF},
			{"truncate a stream", Fault{Ending: Truncate, After: 3}, streamChat, 200, 3, nil},
			{"truncate a whole answer", Fault{Ending: Truncate}, wholeChat, 200, 0, nil},
		} {
			before := e.Stats().Cancelled
			e.SetFault(c.fault)
			status, text, err := send(t, server, c.body)
			if !errors.Is(err, c.err) || status != c.status || strings.Count(text, "data: ") != c.events {
				t.Errorf("%s: status %d, %v, %q", c.name, status, err, text)
			}
			if strings.Contains(text, "[DONE]") || strings.HasSuffix(text, "}") || strings.Contains(text, `"stop"`) {
				t.Errorf("%s: %q looks complete", c.name, text)
			}
			await(t, e, func(s Stats) bool { return s.Cancelled == before+1 && s.Running == 0 })
		}
		server.Close()
	}
}

// TestAHangLastsUntilTheClientLeaves reads what comes, and leaves once the request has arrived and nothing more will come.
func TestAHangLastsUntilTheClientLeaves(t *testing.T) {
	e := New(fast())
	server := httptest.NewServer(e.Handler())
	defer server.Close()
	for i, c := range []struct {
		fault  Fault
		body   string
		head   bool
		events int
	}{
		{Fault{Ending: Hang, After: 3}, streamChat, true, 3},
		{Fault{Ending: Hang}, streamChat, true, 0},
		{Fault{Ending: Hang, After: -1}, streamChat, false, 0},
		{Fault{Ending: Hang}, wholeChat, false, 0},
	} {
		e.SetFault(c.fault)
		ctx, leave := context.WithCancel(t.Context())
		read := make(chan int, 1) // events
		var client sync.WaitGroup
		client.Go(func() {
			r, _ := http.NewRequestWithContext(ctx, http.MethodPost, server.URL+"/v1/chat/completions", strings.NewReader(c.body))
			res, err := server.Client().Do(r)
			if err != nil {
				read <- -1
				return
			}
			defer res.Body.Close()
			lines := bufio.NewScanner(res.Body)
			events := 0
			for events < c.events && lines.Scan() {
				events += strings.Count(lines.Text(), "data: ")
			}
			read <- events
			for lines.Scan() {
				if lines.Text() != "" {
					t.Errorf("%+v: more came: %q", c.fault, lines.Text())
				}
			}
		})
		if c.head {
			if got := <-read; got != c.events {
				t.Errorf("%+v: %d events, want %d", c.fault, got, c.events)
			}
		}
		await(t, e, func(s Stats) bool { return s.Requests == int64(i)+1 })
		if s := e.Stats(); s.Cancelled != int64(i) {
			t.Errorf("%+v: over before the client left", c.fault)
		}
		leave()
		if !c.head && <-read != -1 {
			t.Errorf("%+v: a head came", c.fault)
		}
		client.Wait()
		await(t, e, func(s Stats) bool { return s.Cancelled == int64(i)+1 && s.Running == 0 })
	}
}

func TestRefusal(t *testing.T) {
	e := New(fast())
	e.SetFault(Fault{Status: 503, RetryAfter: 1500 * time.Millisecond, Times: 2})
	for i := range 4 {
		w := post(t, e.Handler(), "/v1/chat/completions", wholeChat)
		if i < 2 {
			if w.Code != 503 || w.Header().Get("Retry-After") != "2" || !strings.Contains(w.Body.String(), `"type":"ServiceUnavailableError"`) {
				t.Errorf("%d: %d %v %s", i, w.Code, w.Header(), w.Body)
			}
		} else if w.Code != 200 {
			t.Errorf("%d: %d after the fault has hit twice", i, w.Code)
		}
	}
	if s := e.Stats(); s.Refused != 2 || s.Served != 2 {
		t.Errorf("%+v", s)
	}
}

func TestDelayEndsWithItsClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := New(Config{Speed: 1e9, Fault: Fault{Delay: time.Minute}})
		begin := time.Now()
		if w := post(t, e.Handler(), "/v1/chat/completions", wholeChat); w.Code != 200 || !near(time.Since(begin), time.Minute) {
			t.Errorf("%d after %s", w.Code, time.Since(begin))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begin = time.Now()
		r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/v1/chat/completions", strings.NewReader(wholeChat))
		e.Handler().ServeHTTP(httptest.NewRecorder(), r)
		if s := e.Stats(); s.Cancelled != 1 || !near(time.Since(begin), time.Second) {
			t.Errorf("%+v after %s", s, time.Since(begin))
		}
	})
}

func TestUnhealthy(t *testing.T) {
	e := New(Config{Speed: 1e9, Fault: Fault{Unhealthy: true}})
	if w := do(t, e.Handler(), http.MethodGet, "/health", ""); w.Code != 503 {
		t.Error(w.Code)
	}
	if w := post(t, e.Handler(), "/v1/chat/completions", wholeChat); w.Code != 200 {
		t.Error(w.Code)
	}
	e.SetFault(Fault{})
	if w := do(t, e.Handler(), http.MethodGet, "/health", ""); w.Code != 200 {
		t.Error(w.Code)
	}
}
