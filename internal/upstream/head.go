package upstream

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// appendHead writes the head of a request. It refuses whatever could make the backend see another request than the
// caller meant: text that ends a line or a field early, paths that a server may resolve, fields that frame a message.
func appendHead(b []byte, r *http.Request, host string) ([]byte, error) {
	length, err := bodyLength(r)
	if err != nil {
		return b, err
	}
	if b, err = appendRequestLine(b, r); err != nil {
		return b, err
	}
	b = append(b, "Host: "...)
	b = append(b, host...)
	b = append(b, "\r\n"...)
	for name, values := range r.Header {
		if !isToken(name) || isOwnField(name) {
			return b, fmt.Errorf("request header %q: the name is not one that may be sent", name)
		}
		for _, value := range values {
			if !isFieldValue(value) {
				return b, fmt.Errorf("request header %q: the value holds a control character", name) // The value may be a secret.
			}
			b = append(b, name...)
			b = append(b, ": "...)
			b = append(b, value...)
			b = append(b, "\r\n"...)
		}
	}
	if length > 0 || r.Method != http.MethodGet {
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, length, 10)
		b = append(b, "\r\n"...)
	}
	if r.Close {
		b = append(b, "Connection: close\r\n"...)
	}
	return append(b, "\r\n"...), nil
}

var errLength = errors.New("a request's body must have a known length")

// bodyLength is the Content-Length to send. A body whose length nobody knows would need chunks, which not every engine
// reads; no request of the router's has one.
func bodyLength(r *http.Request) (int64, error) {
	if r.Body == nil || r.Body == http.NoBody {
		if r.ContentLength > 0 {
			return 0, errLength
		}
		return 0, nil
	}
	if r.ContentLength <= 0 {
		return 0, errLength
	}
	return r.ContentLength, nil
}

func appendRequestLine(b []byte, r *http.Request) ([]byte, error) {
	if method := r.Method; !isToken(method) || method == http.MethodHead || method == http.MethodConnect {
		return b, fmt.Errorf("method %q is not supported", method)
	}
	path := r.URL.EscapedPath()
	switch {
	case r.URL.Opaque != "" || path == "" || path[0] != '/' || !isVisible(path) || !isClean(r.URL.Path):
		return b, fmt.Errorf("path %q is not a clean one", r.URL.Path)
	case !isVisible(r.URL.RawQuery) || strings.IndexByte(r.URL.RawQuery, '#') >= 0:
		return b, errors.New("the query holds characters that must be escaped") // It may be a secret.
	}
	b = append(b, r.Method...)
	b = append(b, ' ')
	b = append(b, path...)
	if r.URL.RawQuery != "" {
		b = append(b, '?')
		b = append(b, r.URL.RawQuery...)
	}
	return append(b, " HTTP/1.1\r\n"...), nil
}

// isClean reports whether no server resolves a path to another one: it has no empty segment but the last, and no dots.
func isClean(path string) bool {
	if strings.Contains(path, "//") {
		return false
	}
	if !strings.Contains(path, "/.") {
		return true
	}
	for segment := range strings.SplitSeq(path, "/") {
		if segment == "." || segment == ".." {
			return false
		}
	}
	return true
}

// isOwnField reports whether a field belongs to the connection, and so to us.
func isOwnField(name string) bool {
	switch len(name) {
	case len("Te"):
		return strings.EqualFold(name, "Te")
	case len("Host"):
		return strings.EqualFold(name, "Host")
	case len("Expect"):
		return strings.EqualFold(name, "Expect")
	case len("Trailer"): // and Upgrade
		return strings.EqualFold(name, "Trailer") || strings.EqualFold(name, "Upgrade")
	case len("Connection"): // and Keep-Alive
		return strings.EqualFold(name, "Connection") || strings.EqualFold(name, "Keep-Alive")
	case len("Content-Length"):
		return strings.EqualFold(name, "Content-Length")
	case len("Proxy-Connection"):
		return strings.EqualFold(name, "Proxy-Connection")
	case len("Transfer-Encoding"):
		return strings.EqualFold(name, "Transfer-Encoding")
	}
	return false
}

// tokens has the characters of which RFC 9110 makes a token, each with its canonical small letter; 0 for the others.
var tokens = func() (t [256]byte) {
	for c := range t {
		switch b := byte(c); {
		case 'A' <= b && b <= 'Z':
			t[c] = b | 0x20
		case 'a' <= b && b <= 'z', '0' <= b && b <= '9', strings.IndexByte("!#$%&'*+-.^_`|~", b) >= 0:
			t[c] = b
		}
	}
	return t
}()

func isToken(s string) bool {
	for i := range len(s) {
		if tokens[s[i]] == 0 {
			return false
		}
	}
	return s != ""
}

// isControl reports a character that has no place in a field's value. Bytes from 0x80 on have one.
func isControl(c byte) bool { return c < ' ' && c != '\t' || c == 0x7f }

func isFieldValue(s string) bool {
	for i := range len(s) {
		if isControl(s[i]) {
			return false
		}
	}
	return true
}

func isVisible(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return true
}
