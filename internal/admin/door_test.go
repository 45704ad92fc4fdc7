package admin

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/ai-aas/api-router/internal/adminapi"
	"github.com/ai-aas/api-router/internal/fleet"
	"github.com/ai-aas/api-router/internal/policy"
)

func TestPathsAndMethodsThatAreNotServed(t *testing.T) {
	h := newHouse(t)
	for name, tc := range map[string]struct {
		method, path string
		status       int
		allow        string
	}{
		"posting to the root":   {"POST", "/", 405, "GET, HEAD"},
		"a page that is none":   {"GET", "/console", 404, ""},
		"the files of pages":    {"GET", "/console/page.html", 404, ""},
		"a command line":        {"GET", "/debug/pprof/cmdline", 404, ""},
		"symbols":               {"GET", "/debug/pprof/symbol", 404, ""},
		"an escaped page":       {"GET", "/%73tatus", 404, ""},
		"the public surface":    {"POST", "/v1/chat/completions", 404, ""},
		"the prefix":            {"GET", "/admin/v1", 404, ""},
		"the prefix and slash":  {"GET", "/admin/v1/", 404, ""},
		"an unknown collection": {"GET", "/admin/v1/secrets", 404, ""},
		"a kind in the path":    {"GET", "/admin/v1/Backend", 404, ""},
		"a trailing slash":      {"GET", "/admin/v1/backends/", 404, ""},
		"a doubled slash":       {"GET", "/admin/v1//backends", 404, ""},
		"a dot segment":         {"GET", "/admin/v1/fleet/../backends", 404, ""},
		"too deep":              {"GET", "/admin/v1/backends/a/history/1", 404, ""},
		"an id with a slash":    {"GET", "/admin/v1/policies/acme%2Fm", 400, ""},
		"an id with a blank":    {"PUT", "/admin/v1/policies/a%20b", 400, ""},
		"a long id":             {"GET", "/admin/v1/policies/" + strings.Repeat("a", 129), 400, ""},
		"posting a document":    {"POST", "/admin/v1/backends/a", 405, "DELETE, GET, HEAD, PUT"},
		"posting a collection":  {"POST", "/admin/v1/backends", 405, "GET, HEAD"},
		"deleting all marks":    {"DELETE", "/admin/v1/marks", 405, "GET, HEAD, POST"},
		"reading explain":       {"GET", "/admin/v1/explain", 405, "POST"},
		"another method":        {"TRACE", "/admin/v1/fleet", 405, "GET, HEAD"},
		"asking for options":    {"OPTIONS", "/admin/v1/fleet", 405, "GET, HEAD"},
	} {
		t.Run(name, func(t *testing.T) {
			got := h.send(adminapi.RoleAdmin, tc.method, tc.path, "")
			if got.StatusCode != tc.status || got.Header.Get("Allow") != tc.allow {
				t.Errorf("%d, Allow %q, %s", got.StatusCode, got.Header.Get("Allow"), got.body)
			}
		})
	}
}

func TestBodiesAndParametersAreReadStrictly(t *testing.T) {
	h := newHouse(t)
	for name, tc := range map[string]struct {
		method, path, body string
		headers            []string
		status             int
		says               string
	}{
		"a form":                  {"PUT", "/backends/a", "kind=Backend", []string{"Content-Type", "application/x-www-form-urlencoded"}, 415, "application/yaml or application/json"},
		"text of a page":          {"POST", "/marks", `{}`, []string{"Content-Type", "text/plain"}, 415, "application/json"},
		"YAML for a mark":         {"POST", "/marks", `{}`, []string{"Content-Type", "application/yaml"}, 415, "application/json"},
		"a type that is none":     {"PUT", "/backends/a", backendA, []string{"Content-Type", "/"}, 415, "application/yaml"},
		"a charset":               {"PUT", "/backends/a", backendA, []string{"Content-Type", "application/json; charset=utf-8"}, 201, "created"},
		"a coding":                {"PUT", "/backends/a", backendA, []string{"Content-Encoding", "gzip"}, 415, "Content-Encoding"},
		"nothing":                 {"PUT", "/backends/a", " ", nil, 400, "empty"},
		"too much":                {"PUT", "/backends/a", strings.Repeat("#", maxDocumentBody+1), nil, 413, "1024 KiB"},
		"a large document":        {"PUT", "/backends/a", "labels: {a: " + strings.Repeat("b", 300<<10) + "}", nil, 400, "larger than 256 KiB"},
		"an unknown parameter":    {"GET", "/backends?invalids=true", "", nil, 400, "known are invalid"},
		"a parameter too many":    {"GET", "/fleet?limit=1", "", nil, 400, "takes no parameters"},
		"a parameter twice":       {"GET", "/audit?limit=1&limit=2", "", nil, 400, "more than once"},
		"a flag that is none":     {"GET", "/backends?invalid=yes", "", nil, 400, "true or false"},
		"a limit of nothing":      {"GET", "/audit?limit=0", "", nil, 400, "between 1 and 1000"},
		"a limit of all":          {"GET", "/decisions?limit=1001", "", nil, 400, "between 1 and 1000"},
		"a limit in words":        {"GET", "/backends/a/history?limit=ten", "", nil, 400, "whole number"},
		"a query that is none":    {"GET", "/backends?invalid=%zz", "", nil, 400, "query string"},
		"a reason of two lines":   {"DELETE", "/backends/a?reason=a%0Ab", "", nil, 400, "one line"},
		"a reason without end":    {"DELETE", "/backends/a?reason=" + strings.Repeat("a", 501), "", nil, 400, "500 bytes"},
		"a rollback to nowhere":   {"POST", "/backends/a/rollback", `{}`, nil, 400, "revision is missing"},
		"a rollback to the moon":  {"POST", "/backends/nobody/rollback", `{"revision":999999}`, nil, 404, "has no revision 999999"},
		"a rollback with a slip":  {"POST", "/backends/a/rollback", `{"revison":1}`, nil, 400, "revison"},
		"a list for an object":    {"POST", "/marks", `[]`, nil, 400, "must be a JSON object"},
		"null for an object":      {"POST", "/explain", ` null`, nil, 400, "must be a JSON object"},
		"an id of dots":           {"PUT", "/backends/%2e%2E", backendA, nil, 400, "not . or .. alone"},
		"a reason with commands":  {"DELETE", "/backends/a?reason=%C2%9B31m", "", nil, 400, "printable"},
		"a reason written back":   {"DELETE", "/backends/a?reason=%E2%80%AEa", "", nil, 400, "printable"},
		"history of what is none": {"GET", "/prices/nobody/history", "", nil, 404, "there is no price nobody"},
	} {
		t.Run(name, func(t *testing.T) {
			got := h.send(adminapi.RoleAdmin, tc.method, adminapi.Prefix+tc.path, tc.body, tc.headers...)
			if got.StatusCode != tc.status || !strings.Contains(string(got.body), tc.says) {
				t.Errorf("%d %s", got.StatusCode, got.body)
			}
		})
	}
}

func TestARollbackToADeletionIsRefused(t *testing.T) {
	h := newHouse(t)
	c := h.client(adminapi.RoleAdmin)
	_, err := c.Put(t.Context(), adminapi.Backends, "a", []byte(backendA), adminapi.If{})
	must(t, err)
	_, err = c.Delete(t.Context(), adminapi.Backends, "a", adminapi.If{})
	must(t, err)
	history, err := c.History(t.Context(), adminapi.Backends, "a", adminapi.HistoryPage{Limit: 1})
	must(t, err)
	_, err = c.Rollback(t.Context(), adminapi.Backends, "a", adminapi.Rollback{Revision: history.Items[0].Revision})
	if e := refusal(t, err); e.Code != "invalid_request" || !strings.Contains(e.Message, "delete it") {
		t.Error(e)
	}
}

func TestABodyThatDoesNotComeIsNotWaitedFor(t *testing.T) {
	h := newHouse(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(hurried{w}, r)
	}))
	defer server.Close()
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	must(t, err)
	defer conn.Close()
	must(t, conn.SetDeadline(time.Now().Add(hang)))
	fmt.Fprintf(conn, "PUT /admin/v1/backends/a HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: 100\r\n\r\n{", secrets[adminapi.RoleAdmin])
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	must(t, err)
	if answer.StatusCode != http.StatusRequestTimeout {
		t.Errorf("%d", answer.StatusCode)
	}
}

func TestAStrangersBodyIsNotWaitedFor(t *testing.T) {
	h := newHouse(t)
	conn, err := net.Dial("tcp", strings.TrimPrefix(h.url, "http://"))
	must(t, err)
	defer conn.Close()
	must(t, conn.SetDeadline(time.Now().Add(bodyTimeout/2)))
	fmt.Fprint(conn, "PUT /admin/v1/backends/a HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	must(t, err)
	if answer.StatusCode != http.StatusUnauthorized || !answer.Close {
		t.Errorf("%d, closed: %t", answer.StatusCode, answer.Close)
	}
}

// hurried shortens the time that a client has for its body.
type hurried struct{ http.ResponseWriter }

func (w hurried) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w hurried) SetReadDeadline(time.Time) error {
	return http.NewResponseController(w.ResponseWriter).SetReadDeadline(time.Now().Add(10 * time.Millisecond))
}

func TestAPanicIsOneAnswerAndOneLine(t *testing.T) {
	h := newHouse(t, func(o *Options) { o.Fleet = func() []fleet.Status { panic("the fleet is on fire") } })
	got := h.send(adminapi.RoleViewer, http.MethodGet, adminapi.Prefix+"/fleet", "")
	if got.StatusCode != http.StatusInternalServerError || got.code() != "internal_error" || strings.Contains(string(got.body), "fire") {
		t.Errorf("%d %s", got.StatusCode, got.body)
	}
	eventually(t, "the access line", func() bool { return strings.Contains(h.log.String(), `"admin request"`) })
	if log := h.log.String(); !strings.Contains(log, "the fleet is on fire") || !strings.Contains(log, `"stack"`) || strings.Count(log, `"admin request"`) != 1 {
		t.Errorf("%s", log)
	}
}

func TestEveryAnswerHasItsHeadersAndEveryRequestItsLine(t *testing.T) {
	h := newHouse(t)
	for _, role := range []string{"", adminapi.RoleViewer} {
		got := h.send(role, http.MethodGet, adminapi.Prefix+"/policies?invalid=true", "")
		for name, want := range map[string]string{
			"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
			"Cross-Origin-Resource-Policy": "same-origin", "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
		} {
			if got.Header.Get(name) != want {
				t.Errorf("%s: %q", name, got.Header.Get(name))
			}
		}
		id := got.Header.Get("X-Request-Id")
		line := ""
		eventually(t, "the access line", func() bool {
			for each := range strings.Lines(h.log.String()) {
				if strings.Contains(each, id) {
					line = each
				}
			}
			return line != ""
		})
		want := []string{`"status":200`, `"actor":"the-viewer"`, `"role":"viewer"`, `"route":"GET /{collection}"`, `"path":"/admin/v1/policies"`}
		if role == "" {
			want = []string{`"status":401`, `"code":"missing_api_key"`, `"level":"WARN"`}
		}
		for _, each := range want {
			if !strings.Contains(line, each) {
				t.Errorf("%s lacks %s", line, each)
			}
		}
	}
}

func TestHeadIsAnsweredLikeGetWithoutABody(t *testing.T) {
	h := newHouse(t)
	h.furnish()
	got := h.send(adminapi.RoleViewer, http.MethodHead, adminapi.Prefix+"/policies/p", "")
	if got.StatusCode != http.StatusOK || got.Header.Get("ETag") == "" || len(got.body) > 0 {
		t.Errorf("%d %v %s", got.StatusCode, got.Header, got.body)
	}
}

// wild asks a house for whatever the fuzzer thinks of.
func wild(f *testing.F, seeds []string, ask func(h *house, body string) []*http.Request) {
	for _, seed := range seeds {
		f.Add(seed)
	}
	h := newHouse(f)
	h.furnish()
	f.Fuzz(func(t *testing.T, body string) {
		h.t = t
		for _, r := range ask(h, body) {
			r.Header.Set("Authorization", "Bearer "+secrets[adminapi.RoleAdmin])
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			got := response{w.Result(), w.Body.Bytes()}
			if got.StatusCode >= 500 {
				t.Errorf("%s %s: %d %s", r.Method, r.URL.Path, got.StatusCode, got.body)
			}
			described(t, r.Method, r.URL.Path, got)
		}
	})
}

func request(method, path, body string) *http.Request {
	r := httptest.NewRequest(method, adminapi.Prefix+path, io.NopCloser(strings.NewReader(body)))
	r.RemoteAddr = "127.0.0.1:1"
	return r
}

var wildDocuments = []string{
	"", "{", "[]", "null", "kind: Backend\nid: a\nurl: http://127.0.0.1:1\n", backendA, policyP, backendA + "\n---\n" + policyP,
	`{"PolicyID":"p","Model":"m","Backends":[{"BackendID":"a","Weight":1}]}`, "\x00", "\xff", "- - - - -", "a: &x [*x]", "{}", `{"kind":1,"id":[]}`,
	`{"kind":"Price","id":"p","model":"m","valid_from":"2026-01-01T00:00:00Z","usd_per_million":{"input":0.1,"output":1}}`,
	`{"kind":"Mark","id":"backend.a","backend":"a","state":"draining"}`, "%YAML 1.2\n---\n", "? a\n: b\n", "'", "{\"a\":1e999}", `{"":0,"":1}`,
}

func FuzzDocuments(f *testing.F) {
	wild(f, wildDocuments, func(_ *house, body string) []*http.Request {
		all := []*http.Request{request(http.MethodPost, "/validate", body), request(http.MethodPost, "/diff", body)}
		for _, kind := range policy.Kinds() {
			all = append(all, request(http.MethodPut, "/"+kind.Collection()+"/a", body))
		}
		return append(all, request(http.MethodGet, "/policies", ""), request(http.MethodGet, "/policies/a", ""))
	})
}

func FuzzRequests(f *testing.F) {
	seeds := append(wildDocuments, `{"backend":"a","state":"draining","for":"1h"}`, `{"model":"m","body":{"model":"m"}}`, `{"body":"x"}`, `{"revision":1}`)
	wild(f, seeds, func(_ *house, body string) []*http.Request {
		return []*http.Request{
			request(http.MethodPost, "/marks", body), request(http.MethodPost, "/explain", body), request(http.MethodPost, "/policies/p/rollback", body),
		}
	})
}
