package upstream

import (
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// head sends a request and returns its head, as lines in order, the first one first.
func headOf(t *testing.T, build builder, change func(r *http.Request)) []string {
	t.Helper()
	heads := make(chan []string, 1)
	b := play(t, func(v *visit) {
		var lines []string
		for {
			line, err := v.in.ReadString('\n')
			if err != nil {
				return
			}
			if line == "\r\n" {
				break
			}
			lines = append(lines, strings.TrimSuffix(line, "\r\n"))
		}
		heads <- lines
		v.say(ok)
	})
	r := request(t.Context(), t, http.MethodPost, b.url, "{}")
	change(r)
	if _, _, err := receive(open(t, build, Config{Address: b.address}), r); err != nil {
		t.Fatal(err)
	}
	lines := <-heads
	for i := range lines {
		lines[i] = strings.ReplaceAll(lines[i], b.address, "ADDRESS")
	}
	slices.Sort(lines[1:])
	return lines
}

func TestTheHeadOfARequest(t *testing.T) {
	agent := http.Header{"User-Agent": {"test"}} // net/http adds its own where there is none.
	each(t, func(t *testing.T, build builder) {
		for _, test := range []struct {
			name   string
			change func(r *http.Request)
			want   []string
		}{
			{"post", func(*http.Request) {}, []string{"POST /v1/chat/completions HTTP/1.1", "Content-Length: 2", "Host: ADDRESS", "User-Agent: test"}},
			{"headers", func(r *http.Request) {
				r.Header = http.Header{"User-Agent": {"test"}, "X-A": {"1", "2"}, "x-small": {"a\tb é"}, "Empty": {""}, "None": nil}
			}, []string{"POST /v1/chat/completions HTTP/1.1", "Content-Length: 2", "Empty: ", "Host: ADDRESS", "User-Agent: test", "X-A: 1", "X-A: 2", "x-small: a\tb é"}},
			{
				"get", func(r *http.Request) { r.Method, r.Body, r.ContentLength, r.GetBody = http.MethodGet, nil, 0, nil },
				[]string{"GET /v1/chat/completions HTTP/1.1", "Host: ADDRESS", "User-Agent: test"},
			},
			{
				"post without a body", func(r *http.Request) { r.Body, r.ContentLength, r.GetBody = http.NoBody, 0, nil },
				[]string{"POST /v1/chat/completions HTTP/1.1", "Content-Length: 0", "Host: ADDRESS", "User-Agent: test"},
			},
			{
				"query and escaped path", func(r *http.Request) {
					r.URL.Path, r.URL.RawPath, r.URL.RawQuery = "/v1/models/a/b c", "/v1/models/a%2Fb%20c", "limit=1000&x=%20"
				},
				[]string{"POST /v1/models/a%2Fb%20c?limit=1000&x=%20 HTTP/1.1", "Content-Length: 2", "Host: ADDRESS", "User-Agent: test"},
			},
			{
				"close", func(r *http.Request) { r.Close = true },
				[]string{"POST /v1/chat/completions HTTP/1.1", "Connection: close", "Content-Length: 2", "Host: ADDRESS", "User-Agent: test"},
			},
		} {
			got := headOf(t, build, func(r *http.Request) {
				r.Header = agent
				test.change(r)
			})
			if !slices.Equal(got, test.want) {
				t.Errorf("%s: got\n%q, want\n%q", test.name, got, test.want)
			}
		}
	})
}

func TestTheHostIsTheConfiguredOne(t *testing.T) {
	for address, want := range map[string]string{
		"Backend.example:8000": "Backend.example:8000", "backend.example:80": "backend.example", "10.0.0.1:443": "10.0.0.1:443",
		"[fe80::1%eth0]:8000": "[fe80::1]:8000", "[::1]:80": "[::1]",
	} {
		transport := open(t, Direct, Config{Address: address})
		if got := transport.(*direct).host; got != want {
			t.Errorf("%s: Host is %q, want %q", address, got, want)
		}
	}
}

// A request that could become another one on its way is refused before a connection is made.
func TestRequestsThatCannotBeSentSafely(t *testing.T) {
	b := play(t, always(ok))
	transport := open(t, Direct, Config{Address: b.address})
	for name, change := range map[string]func(r *http.Request){
		"no url":                       func(r *http.Request) { r.URL = nil },
		"host of another":              func(r *http.Request) { r.Host = "other.example" },
		"HEAD":                         func(r *http.Request) { r.Method = http.MethodHead },
		"CONNECT":                      func(r *http.Request) { r.Method = http.MethodConnect },
		"no method":                    func(r *http.Request) { r.Method = "" },
		"method with a space":          func(r *http.Request) { r.Method = "GET /x" },
		"opaque":                       func(r *http.Request) { r.URL.Opaque = "//x/y" },
		"no path":                      func(r *http.Request) { r.URL.Path = "" },
		"relative path":                func(r *http.Request) { r.URL.Path = "v1" },
		"asterisk":                     func(r *http.Request) { r.URL.Path = "*" },
		"dots":                         func(r *http.Request) { r.URL.Path = "/v1/../admin" },
		"dots at the end":              func(r *http.Request) { r.URL.Path = "/v1/.." },
		"dot":                          func(r *http.Request) { r.URL.Path = "/./v1" },
		"escaped dots":                 func(r *http.Request) { r.URL, _ = url.Parse("http://" + b.address + "/v1/%2e%2e/admin") },
		"empty segment":                func(r *http.Request) { r.URL.Path = "/v1//models" },
		"escaped empty segment":        func(r *http.Request) { r.URL, _ = url.Parse("http://" + b.address + "/v1/%2F/models") },
		"line end in the query":        func(r *http.Request) { r.URL.RawQuery = "a\r\nX: y" },
		"space in the query":           func(r *http.Request) { r.URL.RawQuery = "a b" },
		"fragment in the query":        func(r *http.Request) { r.URL.RawQuery = "a#b" },
		"line end in a value":          func(r *http.Request) { r.Header.Set("X", "secret\r\nY: z") },
		"NUL in a value":               func(r *http.Request) { r.Header.Set("X", "secret\x00") },
		"line end in a name":           func(r *http.Request) { r.Header["X\r\nY"] = []string{"z"} },
		"space in a name":              func(r *http.Request) { r.Header["X "] = []string{"z"} },
		"no name":                      func(r *http.Request) { r.Header[""] = []string{"z"} },
		"own Host":                     func(r *http.Request) { r.Header.Set("Host", "x") },
		"own Content-Length":           func(r *http.Request) { r.Header["content-length"] = []string{"1"} },
		"own Transfer-Encoding":        func(r *http.Request) { r.Header.Set("Transfer-Encoding", "chunked") },
		"own Connection":               func(r *http.Request) { r.Header.Set("Connection", "close") },
		"own Keep-Alive":               func(r *http.Request) { r.Header.Set("Keep-Alive", "1") },
		"own Proxy-Connection":         func(r *http.Request) { r.Header.Set("Proxy-Connection", "close") },
		"own Te":                       func(r *http.Request) { r.Header.Set("Te", "trailers") },
		"own Trailer":                  func(r *http.Request) { r.Header.Set("Trailer", "X") },
		"Upgrade":                      func(r *http.Request) { r.Header.Set("Upgrade", "h2c") },
		"Expect":                       func(r *http.Request) { r.Header.Set("Expect", "100-continue") },
		"unknown length":               func(r *http.Request) { r.ContentLength = -1 },
		"no length":                    func(r *http.Request) { r.ContentLength = 0 },
		"length without a body":        func(r *http.Request) { r.Body = nil },
		"length without a body at all": func(r *http.Request) { r.Body = http.NoBody },
	} {
		r := request(t.Context(), t, http.MethodPost, b.url, "{}")
		body := &closing{ReadCloser: r.Body}
		r.Body = body
		change(r)
		expectClosed := r.Body == body
		_, _, err := receive(transport, r)
		if err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", name, err)
		}
		if expectClosed && !body.closed {
			t.Errorf("%s: the body was not closed", name)
		}
	}
	if b.conns.Load() != 0 {
		t.Errorf("%d connections were made", b.conns.Load())
	}
}

// closing remembers whether it was closed.
type closing struct {
	io.ReadCloser

	closed bool
}

func (c *closing) Close() error { c.closed = true; return c.ReadCloser.Close() }

func TestTheBodyIsClosed(t *testing.T) {
	b := play(t, always(ok))
	for name, address := range map[string]string{"served": b.address, "refused": "127.0.0.1:1"} {
		r := request(t.Context(), t, http.MethodPost, "http://"+address+"/", "{}")
		body := &closing{ReadCloser: r.Body}
		r.Body = body
		_, _, err := receive(open(t, Direct, Config{Address: address}), r)
		if _, refused := errors.AsType[*ConnectError](err); refused != (name == "refused") || !body.closed {
			t.Errorf("%s: %v, closed %t", name, err, body.closed)
		}
	}
}
