package gateway

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/ai-aas/api-router/internal/fault"
)

// read parses a request's head as net/http's server does, which takes Host out of the headers.
func read(head string) (*http.Request, error) {
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(head)))
	if err != nil {
		return nil, err
	}
	delete(r.Header, "Host")
	return r, nil
}

// head makes the head of a request for a chat out of further header lines.
func head(lines ...string) string {
	return "POST /v1/chat/completions HTTP/1.1\r\nHost: router\r\nX-API-Key: test-acme-1\r\nContent-Type: application/json\r\nContent-Length: 2\r\n" +
		strings.Join(append(lines, "\r\n"), "\r\n")
}

func TestFilter(t *testing.T) {
	for name, tc := range map[string]struct {
		head  string
		code  fault.Code
		param string
	}{
		"a plain request":                {head(), "", ""},
		"a proxied request":              {head("X-Forwarded-For: 10.0.0.1, 10.0.0.2", "X-Forwarded-For: 10.0.0.3", "Via: 1.1 a", "Via: 1.1 b"), "", ""},
		"two request ids, as proxies do": {head("X-Request-Id: a", "X-Request-Id: b"), "", ""},
		"Connection: close":              {head("Connection: close"), "", ""},
		"Connection: keep-alive, TE":     {head("Connection: Keep-Alive, ,TE", "TE: trailers"), "", ""},
		"a query":                        {"GET /v1/models?api-version=1&key=x HTTP/1.1\r\nHost: a\r\n\r\n", "", ""},
		"HTTP/1.0 without a body":        {"GET /healthz HTTP/1.0\r\n\r\n", "", ""},
		"HTTP/1.0 with a body":           {"POST /v1/embeddings HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}", fault.InvalidRequest, ""},
		"HTTP/1.0, a GET with a body":    {"GET /v1/models HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}", fault.InvalidRequest, ""},
		"HTTP/1.0, a body in chunks":     {"POST /v1/embeddings HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", fault.InvalidRequest, ""},
		"CONNECT to a host":              {"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", fault.MethodNotAllowed, ""},
		"CONNECT to a path":              {"CONNECT /v1/models HTTP/1.1\r\nHost: a\r\n\r\n", fault.MethodNotAllowed, ""},
		"absolute form":                  {"GET http://a/v1/models HTTP/1.1\r\nHost: a\r\n\r\n", fault.InvalidRequest, ""},
		"asterisk form":                  {"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", fault.InvalidRequest, ""},
		"two X-API-Key":                  {head("x-api-key: test-acme-1"), fault.AmbiguousRequest, "X-API-Key"},
		"two Authorization":              {head("Authorization: Bearer a", "authorization: Bearer a"), fault.AmbiguousRequest, "Authorization"},
		"two api-key":                    {head("api-key: a", "Api-Key: a"), fault.AmbiguousRequest, "api-key"},
		"two x-goog-api-key":             {head("x-goog-api-key: a", "X-Goog-Api-Key: a"), fault.AmbiguousRequest, "x-goog-api-key"},
		"two Content-Type":               {head("Content-Type: text/plain"), fault.AmbiguousRequest, "Content-Type"},
		"two Content-Encoding":           {head("Content-Encoding: identity", "Content-Encoding: gzip"), fault.AmbiguousRequest, "Content-Encoding"},
		"two Expect":                     {head("Expect: 100-continue", "Expect: 100-continue"), fault.AmbiguousRequest, "Expect"},
		"two Idempotency-Key":            {head("Idempotency-Key: a", "Idempotency-Key: b"), fault.AmbiguousRequest, "Idempotency-Key"},
		"two x-session-id":               {head("X-Session-Id: a", "X-Session-Id: b"), fault.AmbiguousRequest, "x-session-id"},
		"an underscore":                  {head("X_API_Key: test-acme-1"), fault.InvalidRequest, "X_api_key"},
		"Upgrade to h2c":                 {head("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"), fault.InvalidRequest, "Upgrade"},
		"Upgrade to a web socket":        {head("Connection: keep-alive", "Upgrade: websocket"), fault.InvalidRequest, "Upgrade"},
		"Connection: upgrade alone":      {head("Connection: upgrade"), "", ""},
		"Connection names a credential":  {head("Connection: close, X-API-Key"), fault.InvalidRequest, "Connection"},
		"Connection names our id":        {head("Connection: x-request-id"), fault.InvalidRequest, "Connection"},
		"Connection names a length":      {head("Connection: keep-alive", "Connection: Content-Length"), fault.InvalidRequest, "Connection"},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := read(tc.head)
			if err != nil {
				t.Fatal(err)
			}
			err = filter(r)
			if fault.CodeOf(err) != tc.code {
				t.Fatalf("got %v, want code %q", err, tc.code)
			}
			if err != nil && fault.From(err).Param != tc.param {
				t.Errorf("param %q, want %q", fault.From(err).Param, tc.param)
			}
		})
	}
}

func TestFilterComparesHostWithTheAuthority(t *testing.T) {
	for host, code := range map[string]fault.Code{"router": "", "other": fault.AmbiguousRequest} {
		r := &http.Request{Method: http.MethodGet, RequestURI: "/healthz", ProtoMajor: 2, Host: "router", Header: http.Header{"Host": {host}}}
		if err := filter(r); fault.CodeOf(err) != code {
			t.Errorf("%s beside the authority router: %v", host, err)
		}
	}
}

func TestModelName(t *testing.T) {
	for path, want := range map[string]string{
		"/v1/models/m":                    "m",
		"/v1/models/org/name":             "org/name",
		"/v1/models/org%2Fname":           "org/name",
		"/v1/models/org%2fname:8b@v+1":    "org/name:8b@v+1",
		"/v1/models/...":                  "...",
		"/v1/models/":                     "",
		"/v1/models//m":                   "",
		"/v1/models/m/":                   "",
		"/v1/models/m%2F":                 "",
		"/v1/models/a%2F%2Fb":             "",
		"/v1/models/.":                    "",
		"/v1/models/../chat/completions":  "",
		"/v1/models/a/./b":                "",
		"/v1/models/a%2F..%2Fb":           "",
		"/v1/models/%6d":                  "",
		"/v1/models/a%252Fb":              "",
		"/v1/models/%2e%2e/x":             "",
		"/v1/models/a%":                   "",
		"/v1/chat/completions":            "",
		"/v1/chat/../models/m":            "",
		"//v1/models/m":                   "",
		"/v1/models":                      "",
		"/v1/models%2Fm":                  "",
		"/v1/models/a%2F.../b%2f..c/..d.": "a/.../b/..c/..d.",
	} {
		if got, ok := modelName(path); got != want || ok != (want != "") {
			t.Errorf("%s: %q, %v; want %q", path, got, ok, want)
		}
	}
}

func TestFilterAllocatesNothingForAGoodRequest(t *testing.T) {
	r, err := read(typical)
	if err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() {
		if filter(r) != nil || unsureEnd(r) {
			t.Error("refused")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// typical is the head that OpenAI's Python client sends.
var typical = head("Accept: application/json", "Accept-Encoding: gzip, deflate", "Connection: keep-alive", "User-Agent: OpenAI/Python 2.0.0",
	"X-Stainless-Lang: python", "X-Stainless-Package-Version: 2.0.0", "X-Stainless-OS: Linux", "X-Stainless-Arch: x64", "X-Stainless-Runtime: CPython",
	"X-Stainless-Runtime-Version: 3.12.0", "X-Stainless-Async: false", "x-stainless-retry-count: 0", "x-stainless-read-timeout: 600",
	"Authorization: Bearer test-acme-1") + "{}"

func BenchmarkFilter(b *testing.B) {
	r, err := read(typical)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := filter(r); err != nil {
			b.Fatal(err)
		}
	}
}

// FuzzRequest reads raw bytes as net/http does and holds what the filter lets pass to what it promises.
func FuzzRequest(f *testing.F) {
	for _, seed := range []string{
		typical, head("X_Y: 1"), head("Connection: close, x-api-key"), head("X-API-Key: b"), head("Upgrade: h2c"),
		"GET /v1/models/org%2Fname?x HTTP/1.1\r\nHost: a\r\n\r\n", "GET http://a/ HTTP/1.1\r\n\r\n", "CONNECT a:1 HTTP/1.1\r\n\r\n", "OPTIONS * HTTP/1.0\r\n\r\n",
		"POST /v1/embeddings HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n2\r\n{}\r\n0\r\nX-API-Key: a\r\n\r\n",
		"GET /v1/models/..%2fx HTTP/1.1\nHost: a\nA:\n b\n\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
	} {
		f.Add([]byte(seed))
	}
	g := New(Options{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(raw)))
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, r.Body)
		answer := http.Header{}
		found, err := g.admit(answer, r)
		if code := fault.CodeOf(err); code == fault.InternalError {
			t.Fatal(err)
		}
		if err != nil {
			return
		}
		path := rawPath(r)
		if _, ok := modelName(path); !ok && strings.ContainsAny(path, "%.") || strings.Contains(path, "//") || found.handle == nil {
			t.Errorf("the path %q leads somewhere", path)
		}
		if r.ProtoMajor == 1 && r.ProtoMinor == 0 && r.ContentLength != 0 || strings.Contains(r.RequestURI, "://") && !strings.Contains(r.RequestURI, "?") {
			t.Errorf("let pass: %q", raw)
		}
		if len(r.TransferEncoding) > 0 && answer.Get("Connection") != "close" {
			t.Error("a chunked request does not end its connection")
		}
		for name, values := range r.Header {
			if strings.Contains(name, "_") || len(values) > 1 && single(name) != "" || name == "Upgrade" {
				t.Errorf("let pass: %q %q", name, values)
			}
		}
	})
}
