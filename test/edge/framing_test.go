package edge

import (
	"strings"
	"testing"
)

func TestFraming(t *testing.T) { play(t, framingVectors()) }

// framingVectors are about where a request begins and ends.
func framingVectors() []vector {
	// smuggled is what an attacker hides behind or inside a request of his own.
	smuggled := strings.Replace(good, key, "test-victim-1", 1)
	bare := strings.ReplaceAll(good, "\r\n", "\n")
	line := func(text string) string { return strings.Replace(good, "POST /v1/chat/completions HTTP/1.1", text, 1) }
	length := func(value string) string {
		return request("POST /v1/chat/completions HTTP/1.1", "Content-Length: "+value) + hello
	}
	return []vector{
		// Chunks. Each chunked request is the last one on its connection.
		{name: "chunks", send: chunks(chunk(hello[:10]) + chunk(hello[10:]) + "0\r\n\r\n"), status: 200, asked: 1, closes: true},
		{name: "a chunk extension", send: chunks("39;a=b\r\n" + hello + "\r\n0\r\n\r\n"), status: 200, asked: 1, closes: true},
		{name: "a chunk size with zeros", send: chunks("000039\r\n" + hello + "\r\n0\r\n\r\n"), status: 200, asked: 1, closes: true},
		{name: "a trailer gives no key", send: strings.Replace(chunks(chunk(hello)+"0\r\nX-API-Key: "+key+"\r\n\r\n", "Trailer: X-API-Key"), "X-API-Key: "+key+"\r\n", "", 1), status: 401, code: "missing_api_key", closes: true},
		{name: "a trailer changes nothing", send: chunks(chunk(hello) + "0\r\nX-API-Key: test-other-1\r\nContent-Length: 1\r\n\r\n"), status: 200, asked: 1, closes: true},
		{name: "a negative chunk size", send: chunks("-1\r\n" + hello), status: 400, code: "invalid_request", closes: true},
		{name: "a chunk size with a sign", send: chunks("+39\r\n" + hello + "\r\n0\r\n\r\n"), status: 400, code: "invalid_request", closes: true},
		{name: "a chunk size with 0x", send: chunks("0x39\r\n" + hello + "\r\n0\r\n\r\n"), status: 400, code: "invalid_request", closes: true},
		{name: "a chunk size that overflows", send: chunks("10000000000000039\r\n" + hello + "\r\n0\r\n\r\n"), status: 400, code: "invalid_request", closes: true},
		{name: "an empty chunk size", send: chunks("\r\n" + hello + "\r\n0\r\n\r\n"), status: 400, code: "invalid_request", closes: true},
		{name: "a chunk size after a space", send: chunks(" 39\r\n" + hello + "\r\n0\r\n\r\n"), status: 400, code: "invalid_request", closes: true},
		{name: "a chunk longer than its size", send: chunks("10\r\n" + hello + "\r\n0\r\n\r\n"), status: 400, code: "invalid_request", closes: true},
		{name: "a chunk line that ends in a bare line feed", send: chunks("39\n" + hello + "\r\n0\r\n\r\n"), status: 400, code: "invalid_request", closes: true},
		{name: "a chunk that ends in a bare line feed", send: chunks("39\r\n" + hello + "\n0\r\n\r\n"), status: 400, code: "invalid_request", closes: true},
		{name: "a line feed in a chunk extension", send: chunks("39;\n\r\n" + hello + "\r\n0\r\n\r\n"), status: 400, code: "invalid_request", closes: true},
		{name: "a chunk line without an end", send: chunks("39;" + strings.Repeat("x", 20<<10)), status: 400, code: "invalid_request", closes: true},
		{name: "one byte a chunk with much beside it", send: chunks(strings.Repeat("1;"+strings.Repeat("x", 2000)+"\r\n \r\n", 20)), status: 400, code: "invalid_request", closes: true},
		{name: "chunks that stop", send: chunks(chunk(hello)), status: 0, end: true},
		{name: "a chunk that stops", send: chunks("39\r\n{"), status: 0, end: true},
		{name: "chunks above the limit", send: chunks(strings.Repeat(chunk(strings.Repeat(" ", 64<<10)), 17)), status: 413, code: "request_too_large", closes: true},

		// Two lengths: what is behind the first end is never served.
		{name: "a length beside chunks hides a request", send: chunks("0\r\n\r\n"+smuggled, "Content-Length: "+number(len("0\r\n\r\n"+smuggled))), status: 400, code: "invalid_json", closes: true},
		{name: "chunks beside a short length hide a request", send: chunks(chunk(hello)+"0\r\n\r\n"+smuggled, "Content-Length: 4"), status: 200, asked: 1, closes: true},
		{name: "chunks and then another request", send: chunks(chunk(hello)+"0\r\n\r\n") + good, status: 200, asked: 1, closes: true},
		{name: "equal lengths are one", send: chat(hello, "Content-Length: "+number(len(hello))), status: 200, asked: 1},
		{name: "two lengths", send: chat(hello, "Content-Length: 1"), status: 400, closes: true},
		{name: "two lengths in one", send: length("57, 57"), status: 400, closes: true},
		{name: "a length with a sign", send: length("+57"), status: 400, closes: true},
		{name: "a negative length", send: length("-1"), status: 400, closes: true},
		{name: "a length in hexadecimal", send: length("0x39"), status: 400, closes: true},
		{name: "a length with an exponent", send: length("5e1"), status: 400, closes: true},
		{name: "an empty length", send: length(""), status: 400, closes: true},
		{name: "a length above 64 bits", send: length("18446744073709551673"), status: 400, closes: true},
		{name: "a length above the limit", send: length("999999999999"), status: 413, code: "request_too_large", closes: true},
		{name: "a length that is too short", send: length("56") + "\r\n\r\n", status: 400, code: "invalid_json", then: []int{400}, closes: true},
		{name: "a length that is too long", send: length("58"), status: 0, end: true},
		{name: "a body with a GET is read away", send: get("/healthz", "Content-Length: "+number(len(smuggled))) + smuggled, status: 200},
		{name: "no length means no body", send: request("POST /v1/chat/completions HTTP/1.1") + hello + "\r\n\r\n", status: 400, code: "invalid_json", then: []int{400}, closes: true},

		// Transfer codings other than the one.
		{name: "a coding in capitals", send: strings.Replace(chunks(chunk(hello)+"0\r\n\r\n"), "chunked", "CHUNKED", 1), status: 200, asked: 1, closes: true},
		{name: "a coding that is not known", send: strings.Replace(chunks(chunk(hello)+"0\r\n\r\n"), "chunked", "xchunked", 1), status: 501, closes: true},
		{name: "two codings in one", send: strings.Replace(chunks(chunk(hello)+"0\r\n\r\n"), "chunked", "chunked, identity", 1), status: 501, closes: true},
		{name: "gzip before chunks", send: strings.Replace(chunks(chunk(hello)+"0\r\n\r\n"), "chunked", "gzip, chunked", 1), status: 501, closes: true},
		{name: "two codings", send: chunks(chunk(hello)+"0\r\n\r\n", "Transfer-Encoding: identity"), status: 501, closes: true},
		{name: "a coding behind a control character", send: strings.Replace(chunks(chunk(hello)+"0\r\n\r\n"), "chunked", "\x0bchunked", 1), status: 400, closes: true},
		{name: "a coding with a space before its colon", send: strings.Replace(chunks(chunk(hello)+"0\r\n\r\n"), "Encoding:", "Encoding :", 1), status: 400, closes: true},
		{name: "a folded coding", send: strings.Replace(chunks(chunk(hello)+"0\r\n\r\n"), ": chunked", ":\r\n chunked", 1), status: 200, asked: 1, closes: true},
		{name: "an underscore in a coding", send: strings.Replace(chunks(chunk(hello)+"0\r\n\r\n"), "Transfer-", "Transfer_", 1), status: 400, code: "invalid_request", param: "Transfer_encoding", closes: true},

		// Lines.
		{name: "bare line feeds", send: bare, status: 200, asked: 1},
		{name: "a bare carriage return in a value", send: chat(hello, "X-A: a\rX-API-Key: b"), status: 400, closes: true},
		{name: "a zero byte in a value", send: chat(hello, "X-A: a\x00"), status: 400, closes: true},
		{name: "a zero byte in a name", send: chat(hello, "X\x00A: a"), status: 400, closes: true},
		{name: "a space before a colon", send: chat(hello, "X-A : a"), status: 400, closes: true},
		{name: "a line without a colon", send: chat(hello, "X-A"), status: 400, closes: true},
		{name: "a name of nothing", send: chat(hello, ": a"), status: 400, closes: true},
		{name: "a name outside ASCII", send: chat(hello, "X-\u00c4: a"), status: 400, closes: true},
		{name: "a first header that is folded", send: line("POST /v1/chat/completions HTTP/1.1\r\n X-A: a"), status: 400, closes: true},
		{name: "a head without a host", send: "GET /healthz HTTP/1.1\r\n\r\n", status: 400, closes: true},
		{name: "a host with a space", send: strings.Replace(good, "Host: router", "Host: a b", 1), status: 400, closes: true},
		{name: "a host with a path", send: strings.Replace(good, "Host: router", "Host: a/b", 1), status: 400, closes: true},
		{name: "a space in the path", send: line("POST /v1/chat/completions x HTTP/1.1"), status: 400, closes: true},
		{name: "two spaces in the request line", send: line("POST  /v1/chat/completions HTTP/1.1"), status: 400, closes: true},
		{name: "a tab in the request line", send: line("POST\t/v1/chat/completions\tHTTP/1.1"), status: 400, closes: true},
		{name: "a method that is no token", send: line("PO@T /v1/chat/completions HTTP/1.1"), status: 400, closes: true},
		{name: "empty lines before the request", send: "\r\n\r\n" + good, status: 400, closes: true},

		// Versions.
		{name: "HTTP/0.9", send: "GET /healthz\r\n", status: 400, closes: true},
		{name: "HTTP/1.0", send: "GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" + good, status: 200, closes: true},
		{name: "HTTP/1.0 with a body", send: line("POST /v1/chat/completions HTTP/1.0"), status: 400, code: "invalid_request", closes: true},
		{name: "HTTP/1.0 with chunks", send: strings.Replace(chunks(chunk(hello)+"0\r\n\r\n"+smuggled), "HTTP/1.1", "HTTP/1.0", 1), status: 400, code: "invalid_request", closes: true},
		{name: "HTTP/1.0 hides chunks behind a GET", send: "GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled, status: 200, closes: true},
		{name: "a later HTTP/1", send: line("POST /v1/chat/completions HTTP/1.2"), status: 200, asked: 1},
		{name: "HTTP/2 without its preface", send: line("POST /v1/chat/completions HTTP/2.0"), status: 505, closes: true},
		{name: "half of HTTP/2's preface", send: "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", status: 400, code: "invalid_request", closes: true},
		{name: "HTTP/3", send: line("POST /v1/chat/completions HTTP/3.0"), status: 505, closes: true},
		{name: "a version in lower case", send: line("POST /v1/chat/completions http/1.1"), status: 400, closes: true},
		{name: "a version of three numbers", send: line("POST /v1/chat/completions HTTP/1.1.1"), status: 400, closes: true},
		{name: "TLS", send: "\x16\x03\x01\x00\xf4\x01\x00\x00\xf0\x03\x03" + strings.Repeat("\x00", 200) + "\r\n\r\n", status: 400, closes: true},
		{name: "noise", send: strings.Repeat("\xff\xfe\x00\n", 50), status: 400, closes: true},

		// Several requests, and parts of one.
		{name: "two at once", send: good + good, status: 200, then: []int{200}, asked: 2},
		{name: "three at once, one of them refused", send: good + get("/v1/nothing") + good, status: 200, then: []int{404, 200}, asked: 2},
		{name: "two at once, the first ambiguous", send: chat(hello, "X-API-Key: b") + good, status: 400, code: "ambiguous_request", param: "X-API-Key", closes: true},
		{name: "nothing", send: "", status: 0, end: true},
		{name: "half a request line", send: "POST /v1/ch", status: 400, closes: true, end: true},
		{name: "half a head", send: good[:60], status: 400, closes: true, end: true},
		{name: "half a body", send: good[:len(good)-10], status: 0, end: true},
	}
}
