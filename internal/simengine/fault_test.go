package simengine

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

const (
	wholeChat  = `{` + hello + `}`
	streamChat = `{"stream":true,` + hello + `}`
)

// send asks over a real connection, and gives up after a while.
func send(t *testing.T, server *httptest.Server, body string, patience time.Duration) (status int, text string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, server.URL+"/v1/chat/completions", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	res, err := server.Client().Do(r)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	all, err := io.ReadAll(res.Body)
	return res.StatusCode, string(all), err
}

func TestEndings(t *testing.T) {
	const long, short = 20 * time.Second, 50 * time.Millisecond
	for _, zero := range []*ZeroWork{nil, {Events: 20}} {
		cfg := fast()
		cfg.ZeroWork = zero
		e := New(cfg)
		server := httptest.NewServer(e.Handler())
		for _, c := range []struct {
			name     string
			fault    Fault
			body     string
			patience time.Duration
			status   int // 0: no head came
			events   int
			err      error // nil: a well-formed end
		}{
			{"close a stream", Fault{Ending: Close, After: 3}, streamChat, long, 200, 3, io.ErrUnexpectedEOF},
			{"close a stream after its head", Fault{Ending: Close}, streamChat, long, 200, 0, io.ErrUnexpectedEOF},
			{"close before the head", Fault{Ending: Close, After: -1}, streamChat, long, 0, 0, io.EOF},
			{"close a whole answer", Fault{Ending: Close, After: 3}, wholeChat, long, 0, 0, io.EOF},
			{"truncate a stream", Fault{Ending: Truncate, After: 3}, streamChat, long, 200, 3, nil},
			{"truncate a whole answer", Fault{Ending: Truncate}, wholeChat, long, 200, 0, nil},
			{"hang in a stream", Fault{Ending: Hang, After: 3}, streamChat, short, 200, 3, context.DeadlineExceeded},
			{"hang before the head", Fault{Ending: Hang, After: -1}, streamChat, short, 0, 0, context.DeadlineExceeded},
			{"hang before a whole answer", Fault{Ending: Hang}, wholeChat, short, 0, 0, context.DeadlineExceeded},
		} {
			before := e.Stats().Cancelled
			e.SetFault(c.fault)
			status, text, err := send(t, server, c.body, c.patience)
			if !errors.Is(err, c.err) || c.patience == long && status != c.status || strings.Count(text, "data: ") != c.events && c.patience == long {
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
