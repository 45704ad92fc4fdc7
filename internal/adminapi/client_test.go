package adminapi_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ai-aas/api-router/internal/adminapi"
	"github.com/ai-aas/api-router/test/leaks"
)

func TestMain(m *testing.M) { leaks.Main(m) }

const token = "a-token-that-nobody-may-see"

// serve is a server that answers with handler, and a client of it.
func serve(t *testing.T, handler http.HandlerFunc) (*httptest.Server, *adminapi.Client) {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	client, err := adminapi.New(adminapi.Options{Server: server.URL, Token: token})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return server, client
}

func TestEachCallIsTheRequestItShouldBe(t *testing.T) {
	var seen string
	_, c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		seen = fmt.Sprint(r.Method, " ", r.RequestURI, " ", r.Header.Get("If-Match"), r.Header.Get("If-None-Match"), " ", string(body))
		if r.Header.Get("Authorization") != "Bearer "+token {
			t.Errorf("%s came without its token", seen)
		}
		fmt.Fprint(w, "{}")
	})
	ctx := t.Context()
	for want, call := range map[string]func() error{
		"GET /admin/v1/policies  ":              func() error { _, err := c.List(ctx, adminapi.Policies, false); return err },
		"GET /admin/v1/policies?invalid=true  ": func() error { _, err := c.List(ctx, adminapi.Policies, true); return err },
		"GET /admin/v1/backends/a%2Fb%20c  ":    func() error { _, err := c.Get(ctx, adminapi.Backends, "a/b c"); return err },
		`PUT /admin/v1/backends/a?reason=why+so "17" url: x`: func() error {
			_, err := c.Put(ctx, adminapi.Backends, "a", []byte("url: x"), adminapi.If{Revision: new(int64(17)), Reason: "why so"})
			return err
		},
		"PUT /admin/v1/backends/a * url: x": func() error {
			_, err := c.Put(ctx, adminapi.Backends, "a", []byte("url: x"), adminapi.If{Revision: new(int64)})
			return err
		},
		"DELETE /admin/v1/prices/a  ": func() error { _, err := c.Delete(ctx, adminapi.Prices, "a", adminapi.If{}); return err },
		"GET /admin/v1/backends/a/history?before=17&limit=3  ": func() error {
			_, err := c.History(ctx, adminapi.Backends, "a", adminapi.HistoryPage{Before: "17", Limit: 3})
			return err
		},
		"GET /admin/v1/backends/a/history?before=17  ": func() error {
			_, err := c.History(ctx, adminapi.Backends, "a", adminapi.HistoryPage{Before: "17"})
			return err
		},
		`POST /admin/v1/backends/a/rollback  {"revision":3}`: func() error {
			_, err := c.Rollback(ctx, adminapi.Backends, "a", adminapi.Rollback{Revision: 3})
			return err
		},
		"POST /admin/v1/validate  x": func() error { _, err := c.Validate(ctx, []byte("x")); return err },
		"POST /admin/v1/diff  x":     func() error { _, err := c.Diff(ctx, []byte("x")); return err },
		`POST /admin/v1/marks  {"backend":"a","state":"draining","for":"1h0m0s"}`: func() error {
			_, err := c.Mark(ctx, adminapi.MarkRequest{Backend: "a", State: "draining", For: adminapi.Duration(time.Hour)})
			return err
		},
		`POST /admin/v1/explain  {"model":"m"}`: func() error { _, err := c.Explain(ctx, adminapi.ExplainRequest{Model: "m"}); return err },
		"GET /admin/v1/decisions  ":             func() error { _, err := c.Decisions(ctx, 0); return err },
		"GET /admin/v1/audit?limit=1  ":         func() error { _, err := c.Audit(ctx, adminapi.HistoryPage{Limit: 1}); return err },
		"GET /admin/v1/fleet  ":                 func() error { _, err := c.Fleet(ctx); return err },
	} {
		if err := call(); err != nil || seen != want {
			t.Errorf("%q, %v; want %q", seen, err, want)
		}
	}
	seen = ""
	for _, id := range []string{"", ".", ".."} {
		if _, err := c.Get(ctx, adminapi.Backends, id); err == nil || seen != "" {
			t.Errorf("%q: %v, %s", id, err, seen)
		}
	}
}

func TestARefusalIsTheErrorThatTheServerGave(t *testing.T) {
	_, c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Request-Id", "id")
		w.WriteHeader(http.StatusPreconditionFailed)
		fmt.Fprint(w, `{"error":{"message":"read it again","type":"t","param":"If-Match","code":"precondition_failed"}}`)
	})
	_, err := c.Fleet(t.Context())
	e, ok := errors.AsType[*adminapi.Error](err)
	if !ok || *e != (adminapi.Error{Status: 412, Code: "precondition_failed", Message: "read it again", Param: "If-Match", RequestID: "id"}) {
		t.Errorf("%+v", e)
	}
	if err.Error() != "read it again (precondition_failed)" {
		t.Errorf("%s", err)
	}
}

func TestWhoeverIsNoAdminAPIIsToldSo(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"a page":          func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") },
		"a proxy's error": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(502); fmt.Fprint(w, "bad gateway") },
		"another's JSON":  func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(404); fmt.Fprint(w, `{"detail":"x"}`) },
	} {
		server, c := serve(t, handler)
		_, err := c.Fleet(t.Context())
		if e, ok := errors.AsType[*adminapi.Error](err); !ok || e.Code != "" || !strings.Contains(e.Message, server.URL) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTheTokenGoesNowhereElse(t *testing.T) {
	var led atomic.Bool
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { led.Store(true) }))
	defer other.Close()
	t.Setenv("HTTP_PROXY", other.URL)
	t.Setenv("http_proxy", other.URL)
	_, c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
	})
	_, err := c.Fleet(t.Context())
	if e, ok := errors.AsType[*adminapi.Error](err); !ok || e.Status != http.StatusTemporaryRedirect || led.Load() {
		t.Errorf("%v, followed: %v", err, led.Load())
	}
}

func TestNothingPrintsTheToken(t *testing.T) {
	options := adminapi.Options{Server: "http://127.0.0.1:1", Token: token}
	c, err := adminapi.New(options)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, failure := c.Fleet(t.Context())
	text, err := json.Marshal(options)
	if err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
		for _, v := range []any{options, &options, c, *c, failure, text} {
			printed := fmt.Sprintf(verb, v)
			if strings.Contains(printed, token) || strings.Contains(printed, fmt.Sprintf("%x", token)) || strings.Contains(printed, fmt.Sprintf("%X", token)) {
				t.Errorf("%s of %T: %s", verb, v, printed)
			}
		}
	}
}

func TestServersThatCannotBeMeantAreRefused(t *testing.T) {
	for _, server := range []string{"", "127.0.0.1:8082", "ftp://x", "http://", "http://user:secret@x", "http://x/?a=secret", "http://x/#secret", "http://x:secret"} {
		if _, err := adminapi.New(adminapi.Options{Server: server}); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v", server, err)
		}
	}
	for _, token := range []string{"a b", "a\n", "ü"} {
		if _, err := adminapi.New(adminapi.Options{Server: "http://x", Token: token}); err == nil || strings.Contains(err.Error(), token) {
			t.Errorf("%q: %v", token, err)
		}
	}
	for in, want := range map[string]string{"http://x:1/": "http://x:1", "https://x/prefix/": "https://x/prefix"} {
		if c, err := adminapi.New(adminapi.Options{Server: in}); err != nil || c.Server() != want {
			t.Errorf("%s: %v", in, err)
		}
	}
}

func TestASilentServerIsNotWaitedForLongerThanTheContext(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	c, err := adminapi.New(adminapi.Options{Server: "http://" + listener.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := c.Fleet(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("%v", err)
	}
}

func TestAnAnswerWithoutEndIsCutOff(t *testing.T) {
	if testing.Short() {
		t.Skip("sends 256 MiB")
	}
	_, c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		block := make([]byte, 1<<20)
		for r.Context().Err() == nil {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	})
	if _, err := c.Fleet(t.Context()); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("%v", err)
	}
}

func TestProblemsAndFieldsPrintInOneLine(t *testing.T) {
	for want, p := range map[string]fmt.Stringer{
		"request:2:3: Backend a: wrong": adminapi.Problem{Kind: "Backend", ID: "a", Place: "request", Line: 2, Column: 3, Message: "wrong"},
		"key:4: wrong":                  adminapi.Problem{Place: "key", Line: 4, Message: "wrong"},
		"RoutingPolicy p: wrong (a good version keeps serving)": adminapi.Problem{Kind: "RoutingPolicy", ID: "p", Message: "wrong", Serving: true},
		"wrong":       adminapi.Problem{Message: "wrong"},
		"a.b: 1 -> 2": adminapi.Field{Path: "a.b", Before: []byte("1"), After: []byte("2")},
		"a: + 2":      adminapi.Field{Path: "a", After: []byte("2")},
		"a: - 1":      adminapi.Field{Path: "a", Before: []byte("1")},
	} {
		if p.String() != want {
			t.Errorf("%q, want %q", p, want)
		}
	}
}
