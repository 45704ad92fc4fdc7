package gateway_test

import (
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/ai-aas/api-router/internal/gateway"
)

const chat = `{"model":"m","messages":[{"role":"user","content":"Hello!"}]}`

func TestRefusalsReachNoBackend(t *testing.T) {
	backend := play(t, says(plain(200, "application/json", `{}`)))
	h := build(t, setting{maxBody: 1000}, backend.URL)
	set := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	none := func(*http.Request) {}
	for name, tc := range map[string]struct {
		path, body string
		change     func(*http.Request)
		status     int
		code       string
		param      string
		message    string
	}{
		"no key":                     {"/v1/chat/completions", chat, func(r *http.Request) { r.Header.Del("X-Api-Key") }, 401, "missing_api_key", "", "authentication required"},
		"unknown key":                {"/v1/chat/completions", chat, set("X-Api-Key", "sk-nope"), 401, "invalid_api_key", "", ""},
		"two different credentials":  {"/v1/chat/completions", chat, set("Authorization", "Bearer test-other-1"), 400, "ambiguous_request", "X-API-Key", "Authorization"},
		"not JSON":                   {"/v1/chat/completions", `{"model":`, none, 400, "invalid_json", "", ""},
		"trailing data":              {"/v1/chat/completions", chat + "{}", none, 400, "invalid_json", "", ""},
		"no model":                   {"/v1/chat/completions", `{"messages":[{}]}`, none, 400, "invalid_request", "model", ""},
		"duplicate model":            {"/v1/chat/completions", `{"model":"m","messages":[{}],"model":"m"}`, none, 400, "ambiguous_request", "model", ""},
		"duplicate stream":           {"/v1/chat/completions", `{"model":"m","stream":true,"messages":[{}],"stream":false}`, none, 400, "ambiguous_request", "stream", ""},
		"empty messages":             {"/v1/chat/completions", `{"model":"m","messages":[]}`, none, 400, "invalid_request", "messages", ""},
		"no prompt":                  {"/v1/completions", `{"model":"m"}`, none, 400, "invalid_request", "prompt", ""},
		"no input":                   {"/v1/embeddings", `{"model":"m"}`, none, 400, "invalid_request", "input", ""},
		"unknown model":              {"/v1/chat/completions", `{"model":"x","messages":[{}]}`, none, 404, "model_not_found", "model", "no routing policy configured for model"},
		"unknown path":               {"/v1/images", chat, none, 404, "not_found", "", ""},
		"path with a trailing slash": {"/v1/chat/completions/", chat, none, 404, "not_found", "", ""},
		"path with a dot segment":    {"/v1/../v1/chat/completions", chat, none, 404, "not_found", "", ""},
		"too large":                  {"/v1/chat/completions", strings.Repeat(" ", 1001), none, 413, "request_too_large", "", ""},
		"too large without a length": {"/v1/chat/completions", strings.Repeat(" ", 1001), func(r *http.Request) {
			r.ContentLength = -1
			r.Body = io.NopCloser(strings.NewReader(strings.Repeat(" ", 1001)))
		}, 413, "request_too_large", "", ""},
		"a form":     {"/v1/chat/completions", chat, set("Content-Type", "application/x-www-form-urlencoded"), 415, "unsupported_media_type", "Content-Type", ""},
		"compressed": {"/v1/chat/completions", chat, set("Content-Encoding", "gzip"), 415, "unsupported_media_type", "Content-Encoding", ""},
		"GET":        {"/v1/chat/completions", "", func(r *http.Request) { r.Method = http.MethodGet }, 405, "method_not_allowed", "", "POST"},
	} {
		t.Run(name, func(t *testing.T) {
			req := h.request(tc.path, tc.body)
			tc.change(req)
			resp := h.send(req)
			code, param, message := refusal(t, resp)
			if resp.StatusCode != tc.status || code != tc.code || param != tc.param || !strings.Contains(message, tc.message) {
				t.Errorf("%d %s param %q: %s", resp.StatusCode, code, param, message)
			}
			if resp.Header.Get("X-Request-Id") == "" {
				t.Error("no x-request-id")
			}
			if tc.status == 405 && resp.Header.Get("Allow") != "POST" {
				t.Errorf("Allow: %q", resp.Header.Get("Allow"))
			}
		})
	}
	if got := backend.bodies(); len(got) != 0 {
		t.Errorf("a backend was asked: %q", got)
	}
}

func TestHintsNameWhatWorks(t *testing.T) {
	h := build(t, setting{hints: true}, "http://127.0.0.1:1")
	_, _, message := refusal(t, h.post("/v1/chat/completions", `{"model":"x","messages":[{}]}`))
	if !strings.Contains(message, "models here: m") {
		t.Error(message)
	}
	req := h.request("/v1/chat/completions", chat)
	req.Header.Set("X-Api-Key", "wrong")
	if _, _, message := refusal(t, h.send(req)); !strings.Contains(message, "test-") {
		t.Error(message)
	}
}

func TestModelsAreListedAndFound(t *testing.T) {
	h := build(t, setting{documents: `
kind: RoutingPolicy
id: slash
model: org/name
backends: [ { id: b0 } ]
---
kind: RoutingPolicy
id: own
organization: acme
model: own
backends: [ { id: b0 } ]
---
kind: RoutingPolicy
id: foreign
organization: other
model: foreign
backends: [ { id: b0 } ]
`}, "http://127.0.0.1:1")
	if got := body(t, h.get("/v1/models")); !strings.Contains(got, `"id":"org/name"`) || !strings.Contains(got, `"id":"own"`) || strings.Contains(got, "foreign") {
		t.Error(got)
	}
	for path, status := range map[string]int{
		"/v1/models/own": 200, "/v1/models/org/name": 200, "/v1/models/org%2Fname": 200,
		"/v1/models/foreign": 404, "/v1/models/none": 404, "/v1/models/": 404,
	} {
		if resp := h.get(path); resp.StatusCode != status {
			t.Errorf("%s: %d, want %d", path, resp.StatusCode, status)
		}
	}
	traced := regexp.MustCompile(`"trace_id":"[0-9a-f]{32}"`)
	foreign := traced.ReplaceAllString(body(t, h.get("/v1/models/foreign")), "")
	unknown := traced.ReplaceAllString(body(t, h.get("/v1/models/unknown")), "")
	if strings.ReplaceAll(foreign, "foreign", "unknown") != unknown {
		t.Errorf("a forbidden model can be told from an unknown one:\n%s\n%s", foreign, unknown)
	}
}

func TestHealthPagesNeedNoKeyAndTellTheState(t *testing.T) {
	state := []gateway.Component{{Name: "policy", State: "waiting", Needed: true}, {Name: "backends", State: "0 of 1", Since: time.Unix(0, 0)}}
	draining := false
	h := build(t, setting{
		components: func() []gateway.Component { return state },
		draining:   func() bool { return draining },
	}, "http://127.0.0.1:1")
	check := func(path string, status int, words ...string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, h.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp := h.send(req)
		content := body(t, resp)
		if resp.StatusCode != status {
			t.Errorf("%s: %d", path, resp.StatusCode)
		}
		for _, word := range words {
			if !strings.Contains(content, word) {
				t.Errorf("%s says %s", path, content)
			}
		}
	}
	check("/healthz", 200, "ok")
	check("/readyz", 503, "starting")
	check("/v1/status/readyz", 503, `"starting"`, `"policy"`, `"waiting"`, `"version":"test"`)
	state[0].OK = true
	check("/readyz", 200, "ready")
	check("/v1/status/readyz", 200, `"ready"`)
	draining = true
	check("/readyz", 503, "draining")
	check("/healthz", 200, "ok")
	check("/v1/status/healthz", 200, `"ok"`)
}

func TestWithoutATableNothingIsGuessed(t *testing.T) {
	h := build(t, setting{noTable: true}, "http://127.0.0.1:1")
	resp := h.post("/v1/chat/completions", chat)
	if code, _, _ := refusal(t, resp); resp.StatusCode != 503 || code != "no_backend_available" || resp.Header.Get("Retry-After") == "" {
		t.Errorf("%d %s", resp.StatusCode, code)
	}
}
