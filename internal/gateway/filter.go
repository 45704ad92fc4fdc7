package gateway

import (
	"net/http"
	"strings"

	"github.com/ai-aas/api-router/internal/fault"
)

// filter refuses what a proxy in front of the router, or a reader behind it, could understand in another way than the router does.
// It stands before the routes and before authentication, looks at nothing but r, and allocates nothing when it finds nothing.
//
// Errors are faults: ambiguous_request for a header that is there twice, method_not_allowed for CONNECT, invalid_request for all
// else; Param names the header. The connection of a refused request is closed: nobody can say where its next request begins.
//
// net/http has refused a good deal before: broken heads and lengths, two Host headers, any transfer coding but one "chunked".
func filter(r *http.Request) error {
	switch {
	case r.Method == http.MethodConnect:
		return fault.New(fault.MethodNotAllowed, "CONNECT is not allowed: this router opens no tunnels; take it out of your proxy settings and send requests to it directly")
	case !strings.HasPrefix(r.RequestURI, "/"):
		return fault.New(fault.InvalidRequest, "the request's target is not a path: this router is no forward proxy; send the path alone, as in POST /v1/chat/completions")
	case r.ProtoMajor == 1 && r.ProtoMinor == 0 && (r.ContentLength != 0 || r.Method != http.MethodGet && r.Method != http.MethodHead):
		// net/http takes a Transfer-Encoding of HTTP/1.0 away unseen, so the method has to tell whether a body follows.
		return fault.New(fault.InvalidRequest, "a request with a body is not accepted over HTTP/1.0; send it over HTTP/1.1 or HTTP/2")
	}
	for name, values := range r.Header {
		if strings.IndexByte(name, '_') >= 0 {
			return fault.New(fault.InvalidRequest, "a header's name contains an underscore, which other servers take for a hyphen; send the header with hyphens, or not at all").
				WithParam(printable(name))
		}
		if len(values) > 1 {
			if spelled := single(name); spelled != "" {
				return twice(spelled)
			}
		}
	}
	if hosts := r.Header["Host"]; len(hosts) > 0 && hosts[0] != r.Host {
		return twice("Host") // HTTP/2 has :authority; HTTP/1's own Host is no longer among the headers here.
	}
	if _, there := r.Header["Upgrade"]; there {
		return fault.New(fault.InvalidRequest, "this router does not upgrade connections; set your client to HTTP/1.1, or to HTTP/2 from the first byte").WithParam("Upgrade")
	}
	return perHop(r.Header["Connection"])
}

// single returns the spelling for messages of a header of which one is meant, "" for all others. name is in net/http's canonical form.
//
// X-Request-Id is not among them: proxies add their own, and it decides nothing.
func single(name string) string {
	switch name {
	case "Authorization", "Content-Encoding", "Content-Length", "Content-Type", "Expect", "Host", "Idempotency-Key":
		return name
	case "X-Api-Key":
		return "X-API-Key"
	case "Api-Key", "X-Goog-Api-Key", "X-Priority", "X-Session-Id":
		return strings.ToLower(name)
	}
	return ""
}

func twice(name string) error {
	return fault.Newf(fault.AmbiguousRequest, "the header %s is there more than once; send it once", name).WithParam(name)
}

// perHop refuses a Connection header that names more than the connection's own: a proxy on the way takes out what is named there,
// and could so be told to take out a credential or a length.
func perHop(values []string) error {
	for _, value := range values {
		for value != "" {
			var token string
			token, value, _ = strings.Cut(value, ",")
			token = strings.Trim(token, " \t")
			if token != "" && !ofConnection(token) {
				return fault.Newf(fault.InvalidRequest, "the Connection header names %q, which is not about the connection; leave it out", printable(token)).
					WithParam("Connection")
			}
		}
	}
	return nil
}

// ofConnection tells the words that a Connection header may hold. "upgrade" without an Upgrade header asks for nothing, and many a
// proxy is set to send it always.
func ofConnection(token string) bool {
	return strings.EqualFold(token, "keep-alive") || strings.EqualFold(token, "close") || strings.EqualFold(token, "te") || strings.EqualFold(token, "upgrade")
}

// unsureEnd reports whether another server could see the end of r elsewhere than net/http does. Then nothing more is read from its connection.
//
// A Content-Length beside "chunked" is what requests are smuggled with, and net/http drops it unseen: so every chunked request is the
// last one on its connection. The same goes for HTTP/1.0, where net/http does not look at Transfer-Encoding.
func unsureEnd(r *http.Request) bool {
	return r.ProtoMajor == 1 && (len(r.TransferEncoding) > 0 || r.ProtoMinor == 0)
}
