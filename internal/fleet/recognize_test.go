package fleet

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/ai-aas/api-router/internal/upstream"
)

// answers is a server that knows these paths and nothing else.
func answers(t *testing.T, paths map[string]string, guard func(http.Header) bool) (string, upstream.Transport) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, ok := paths[r.URL.Path]
		switch {
		case !ok:
			http.NotFound(w, r)
		case guard != nil && !guard(r.Header):
			w.WriteHeader(http.StatusUnauthorized)
		default:
			_, _ = io.WriteString(w, body)
		}
	}))
	t.Cleanup(server.Close)
	transport, err := NewTransport(Spec{ID: "x", URL: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(transport.CloseIdleConnections)
	return server.URL, transport
}

func listOf(owner string) string {
	return `{"object":"list","data":[{"id":"m","object":"model","created":1,"owned_by":"` + owner + `"}]}`
}

func TestEnginesAreRecognized(t *testing.T) {
	bearer := func(h http.Header) bool { return h.Get("Authorization") == "Bearer k" }
	xAPIKey := func(h http.Header) bool { return h.Get("X-Api-Key") == "k" && h.Get("Anthropic-Version") != "" }
	for _, test := range []struct {
		name   string
		paths  map[string]string
		guard  func(http.Header) bool
		engine string
		models int
		fails  string
	}{
		{"vllm", map[string]string{"/v1/models": oneModel, "/version": `{"version":"0.10.0"}`}, nil, EngineVLLM, 1, ""},
		{"sglang", map[string]string{"/v1/models": listOf("sglang")}, nil, EngineSGLang, 1, ""},
		{"llama.cpp", map[string]string{"/v1/models": listOf("llamacpp"), "/props": `{"build_info":"b1"}`}, nil, EngineLlamaCPP, 1, ""},
		{"ollama", map[string]string{"/v1/models": listOf("library"), "/api/version": `{"version":"0.12.0"}`}, nil, EngineOllama, 1, ""},
		{"ollama with foreign models", map[string]string{"/v1/models": listOf("somebody"), "/api/version": `{"version":"0.12.0"}`}, nil, EngineOllama, 1, ""},
		{"ollama without models", map[string]string{"/v1/models": `{"object":"list","data":null}`, "/api/version": `{"version":"0.12.0"}`}, nil, EngineOllama, 0, ""},
		{"tgi", map[string]string{"/v1/models": listOf("org/m"), "/info": `{"model_id":"org/m","version":"3"}`}, nil, EngineTGI, 1, ""},
		{"tgi of before the list", map[string]string{"/info": `{"model_id":"org/m"}`}, nil, EngineTGI, 0, "answers 404"},
		{"openai with a key", map[string]string{"/v1/models": listOf("system")}, bearer, EngineOpenAI, 1, ""},
		{"anthropic", map[string]string{"/v1/models": `{"data":[{"type":"model","id":"m","display_name":"M"}],"has_more":false}`}, xAPIKey, EngineAnthropic, 1, ""},
		{"unknown", map[string]string{"/v1/models": listOf("acme")}, nil, "", 1, ""},
		{"key refused", map[string]string{"/v1/models": oneModel, "/version": `{"version":"0.10.0"}`}, func(h http.Header) bool { return h.Get("Authorization") == "Bearer other" }, "", 0, "another API key"},
		{"vllm that wants another key for its list", map[string]string{"/version": `{"version":"0.10.0"}`}, nil, EngineVLLM, 0, "answers 404"},
		{"a web page", map[string]string{"/v1/models": "<html>", "/info": "<html>", "/version": `"1"`}, nil, "", 0, "not what OpenAI's looks like"},
	} {
		t.Run(test.name, func(t *testing.T) {
			url, transport := answers(t, test.paths, test.guard)
			engine, models, err := Recognize(t.Context(), transport, url, "k")
			if engine != test.engine || len(models) != test.models {
				t.Errorf("got %q with %v, want %q with %d models", engine, models, test.engine, test.models)
			}
			if (err == nil) != (test.fails == "") || err != nil && !strings.Contains(err.Error(), test.fails) {
				t.Errorf("error %v, want %q in it", err, test.fails)
			}
		})
	}
}

func TestRecognizingNothingIsAnError(t *testing.T) {
	url, transport := answers(t, nil, nil)
	if _, _, err := Recognize(t.Context(), transport, "not a url", ""); err == nil {
		t.Error("a bad URL was accepted")
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	begin := time.Now()
	if engine, _, err := Recognize(cancelled, transport, url, ""); err == nil || engine != "" {
		t.Errorf("%q, %v", engine, err)
	}
	if took := time.Since(begin); took > 10*probeTimeout {
		t.Errorf("took %s", took)
	}
}
