package edge

import (
	"strings"
	"testing"
)

func TestDoor(t *testing.T) { play(t, doorVectors()) }

// doorVectors are about who may ask for what: the front filter, paths, methods and header sizes.
func doorVectors() []vector {
	const post = "POST /v1/chat/completions HTTP/1.1"
	return []vector{
		// Good ones, so that the others prove something.
		{name: "a chat", send: good, status: 200, asked: 1},
		{name: "the same key in two headers", send: chat(hello, "Authorization: Bearer "+key), status: 200, asked: 1},
		{name: "the models", send: get("/v1/models"), status: 200},
		{name: "a query is ignored", send: strings.Replace(good, "completions ", "completions?api-version=1&key=other ", 1), status: 200, asked: 1},
		{name: "an empty query", send: get("/v1/models?"), status: 200},
		{name: "a model with an escaped slash", send: get("/v1/models/org%2Fm"), status: 200},
		{name: "a model with a bare slash", send: get("/v1/models/org/m"), status: 200},
		{name: "a HEAD", send: request("HEAD /healthz HTTP/1.1"), status: 200},
		{name: "Connection: upgrade, as proxies send it", send: chat(hello, "Connection: upgrade"), status: 200, asked: 1},
		{name: "many proxies on the way", send: chat(hello, "Via: 1.1 a", "Via: 1.1 b", "X-Forwarded-For: 1.1.1.1", "X-Forwarded-For: 2.2.2.2"), status: 200, asked: 1},
		{name: "a body that says it is plain", send: chat(hello, "Content-Encoding: identity"), status: 200, asked: 1},

		// The same thing twice.
		{name: "X-API-Key twice", send: chat(hello, "x-api-key: "+key), status: 400, code: "ambiguous_request", param: "X-API-Key", closes: true},
		{name: "Authorization twice", send: chat(hello, "Authorization: Bearer "+key, "AUTHORIZATION: Bearer "+key), status: 400, code: "ambiguous_request", param: "Authorization", closes: true},
		{name: "api-key twice", send: chat(hello, "api-key: "+key, "Api-Key: "+key), status: 400, code: "ambiguous_request", param: "api-key", closes: true},
		{name: "x-goog-api-key twice", send: chat(hello, "x-goog-api-key: "+key, "x-goog-api-key: b"), status: 400, code: "ambiguous_request", param: "x-goog-api-key", closes: true},
		{name: "two different credentials", send: chat(hello, "Authorization: Bearer test-other-1"), status: 400, code: "ambiguous_request", param: "X-API-Key", closes: true},
		{name: "Content-Type twice", send: chat(hello, "Content-Type: application/json"), status: 400, code: "ambiguous_request", param: "Content-Type", closes: true},
		{name: "Expect twice", send: chat(hello, "Expect: 100-continue", "Expect: 100-continue"), status: 400, code: "ambiguous_request", param: "Expect", closes: true},
		{name: "x-session-id twice", send: chat(hello, "x-session-id: a", "x-session-id: b"), status: 400, code: "ambiguous_request", param: "x-session-id", closes: true},
		{name: "two keys in one header", send: strings.Replace(good, key, key+", "+key, 1), status: 401, code: "invalid_api_key"},
		{name: "two bearers in one header", send: chat(hello, "Authorization: Bearer "+key+", Bearer "+key), status: 401, code: "invalid_api_key"},
		{name: "Host twice", send: chat(hello, "Host: other"), status: 400, closes: true},

		// Names that others read as ours, and orders to those on the way.
		{name: "an underscore for a hyphen", send: chat(hello, "X_API_Key: "+key), status: 400, code: "invalid_request", param: "X_api_key", closes: true},
		{name: "an underscore in a length", send: chat(hello, "Content_Length: 3"), status: 400, code: "invalid_request", param: "Content_length", closes: true},
		{name: "Connection names the credential", send: chat(hello, "Connection: close, X-API-Key"), status: 400, code: "invalid_request", param: "Connection", closes: true},
		{name: "Connection names the length", send: chat(hello, "Connection: Content-Length"), status: 400, code: "invalid_request", param: "Connection", closes: true},
		{name: "Connection names a header of ours", send: chat(hello, "Connection: keep-alive", "Connection: x-request-id"), status: 400, code: "invalid_request", param: "Connection", closes: true},
		{name: "Upgrade to a web socket", send: get("/v1/models", "Connection: Upgrade", "Upgrade: websocket"), status: 400, code: "invalid_request", param: "Upgrade", closes: true},
		{name: "Upgrade to HTTP/2", send: chat(hello, "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"), status: 400, code: "invalid_request", param: "Upgrade", closes: true},
		{name: "an expectation that is not known", send: chat(hello, "Expect: 200-ok"), status: 417, closes: true},

		// Targets that are no path, and methods.
		{name: "absolute form", send: strings.Replace(good, "/v1", "http://router/v1", 1), status: 400, code: "invalid_request", closes: true},
		{name: "absolute form of another host", send: strings.Replace(good, "/v1", "https://169.254.169.254/v1", 1), status: 400, code: "invalid_request", closes: true},
		{name: "CONNECT", send: "CONNECT 169.254.169.254:80 HTTP/1.1\r\nHost: 169.254.169.254:80\r\n\r\n", status: 405, code: "method_not_allowed", closes: true},
		{name: "CONNECT to a path", send: "CONNECT /v1/models HTTP/1.1\r\nHost: a\r\n\r\n", status: 405, code: "method_not_allowed", closes: true},
		{name: "OPTIONS of the whole server", send: request("OPTIONS * HTTP/1.1"), status: 400, code: "invalid_request", closes: true},
		{name: "no slash at the beginning", send: get("v1/models"), status: 400, closes: true},
		{name: "a method in lower case", send: strings.Replace(good, "POST", "post", 1), status: 405, code: "method_not_allowed"},
		{name: "a method of our own", send: strings.Replace(good, "POST", "BREW", 1), status: 405, code: "method_not_allowed"},
		{name: "TRACE", send: request("TRACE /v1/chat/completions HTTP/1.1"), status: 405, code: "method_not_allowed"},
		{name: "HEAD where POST is meant", send: request("HEAD /v1/chat/completions HTTP/1.1"), status: 405},

		// Paths match exactly.
		{name: "an escaped letter", send: get("/v1/%6dodels"), status: 404, code: "not_found"},
		{name: "an escaped letter of a model", send: get("/v1/models/%6d"), status: 404, code: "not_found"},
		{name: "an escaped slash outside of a model", send: get("/v1%2Fmodels"), status: 404, code: "not_found"},
		{name: "an escaped percent sign", send: get("/v1/models/org%252Fm"), status: 404, code: "not_found"},
		{name: "a line feed in the path", send: get("/v1/models%0d%0aX-API-Key:%20a"), status: 404, code: "not_found"},
		{name: "a zero byte in the path", send: get("/v1/models/m%00"), status: 404, code: "not_found"},
		{name: "a doubled slash", send: get("//v1/models"), status: 404, code: "not_found"},
		{name: "a doubled slash inside", send: get("/v1//models"), status: 404, code: "not_found"},
		{name: "a doubled slash before a model", send: get("/v1/models//m"), status: 404, code: "not_found"},
		{name: "a slash at the end", send: get("/v1/chat/completions/"), status: 404, code: "not_found"},
		{name: "a dot segment", send: get("/v1/./models"), status: 404, code: "not_found"},
		{name: "two dots", send: get("/v1/chat/../models"), status: 404, code: "not_found"},
		{name: "two dots that leave the models", send: get("/v1/models/../../admin/v1"), status: 404, code: "not_found"},
		{name: "two escaped dots", send: get("/v1/models/%2e%2e/m"), status: 404, code: "not_found"},
		{name: "dots behind an escaped slash", send: get("/v1/models/x%2f..%2fm"), status: 404, code: "not_found"},
		{name: "a backslash", send: get(`/v1\models`), status: 404, code: "not_found"},
		{name: "a path parameter", send: get("/v1/models;x=1"), status: 404, code: "not_found"},
		{name: "a fragment", send: get("/v1/models#a"), status: 404, code: "not_found"},
		{name: "another case", send: get("/V1/Models"), status: 404, code: "not_found"},
		{name: "the metrics", send: get("/metrics"), status: 404, code: "not_found"},
		{name: "profiles", send: get("/debug/pprof/"), status: 404, code: "not_found"},
		{name: "the admin API, by another host", send: "GET /admin/v1/backends HTTP/1.1\r\nHost: 127.0.0.1:8082\r\n\r\n", status: 404, code: "not_found"},

		// Who asks.
		{name: "no key", send: "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}", status: 401, code: "missing_api_key"},
		{name: "a key in the query", send: "GET /v1/models?api_key=" + key + " HTTP/1.1\r\nHost: a\r\n\r\n", status: 401, code: "missing_api_key"},
		{name: "a key in a cookie", send: "GET /v1/models HTTP/1.1\r\nHost: a\r\nCookie: X-API-Key=" + key + "\r\n\r\n", status: 401, code: "missing_api_key"},
		{name: "a folded key", send: "GET /v1/models HTTP/1.1\r\nHost: a\r\nX-API-Key: test-\r\n acme-1\r\n\r\n", status: 401, code: "invalid_api_key"},
		{name: "a key outside ASCII", send: "GET /v1/models HTTP/1.1\r\nHost: a\r\nX-API-Key: test-acm\xe9-1\r\n\r\n", status: 401, code: "invalid_api_key"},
		{name: "a key of 9 KiB", send: "GET /v1/models HTTP/1.1\r\nHost: a\r\nX-API-Key: " + strings.Repeat("k", 9<<10) + "\r\n\r\n", status: 401, code: "invalid_api_key"},

		// Sizes and types.
		{name: "a head of 30 KiB", send: chat(hello, "X-Long: "+strings.Repeat("x", 30<<10)), status: 200, asked: 1},
		{name: "a head of 40 KiB", send: chat(hello, "X-Long: "+strings.Repeat("x", 40<<10)), status: 431, closes: true},
		{name: "a head of many headers", send: request(post, strings.TrimSuffix(strings.Repeat("A: b\r\n", 10<<10), "\r\n")), status: 431, closes: true},
		{name: "a request line of 40 KiB", send: get("/" + strings.Repeat("x", 40<<10)), status: 431, closes: true},
		{name: "gzip", send: chat(hello, "Content-Encoding: gzip"), status: 415, code: "unsupported_media_type", param: "Content-Encoding"},
		{name: "a form", send: strings.Replace(good, "application/json", "application/x-www-form-urlencoded", 1), status: 415, code: "unsupported_media_type", param: "Content-Type"},
		{name: "two media types", send: strings.Replace(good, "application/json", "application/json, text/plain", 1), status: 415, code: "unsupported_media_type", param: "Content-Type"},
	}
}
