package simengine

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

func TestErrorsHaveVLLMsShape(t *testing.T) {
	cfg := fast()
	cfg.Models = []Model{{ID: "m", MaxLen: 100}}
	h := New(cfg).Handler()
	const chat, completion, embedding = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
	long := longPrompt("x", 100)
	for _, c := range []struct {
		path, body  string
		status      int
		kind, param string
		message     string // a part of it
	}{
		{chat, `{`, 400, "BadRequestError", "", "parse"},
		{chat, `{"messages":"x"}`, 400, "BadRequestError", "messages", "parse"},
		{chat, `{"messages":[]}`, 400, "BadRequestError", "messages", ""},
		{chat, `{"messages":[{"content":"x"}]}`, 400, "BadRequestError", "messages", "role"},
		{chat, `{` + hello + `,"model":"other"}`, 404, "NotFoundError", "model", "The model `other` does not exist."},
		{chat, `{` + hello + `,"n":0}`, 400, "BadRequestError", "n", ""},
		{chat, `{` + hello + `,"max_tokens":0}`, 400, "BadRequestError", "max_tokens", ""},
		{chat, `{` + hello + `,"min_tokens":9,"max_tokens":8}`, 400, "BadRequestError", "min_tokens", ""},
		{chat, `{` + hello + `,"stop":[""]}`, 400, "BadRequestError", "stop", ""},
		{chat, `{` + hello + `,"stream_options":{}}`, 400, "BadRequestError", "stream_options", ""},
		{chat, `{` + hello + `,"continue_final_message":true}`, 400, "BadRequestError", "continue_final_message", ""},
		{completion, `{}`, 400, "BadRequestError", "prompt", ""},
		{completion, `{"prompt":""}`, 400, "BadRequestError", "prompt", ""},
		{completion, `{"prompt":[5]}`, 400, "BadRequestError", "", "token id 5"},
		{completion, `{"prompt":{}}`, 400, "BadRequestError", "", "list of token ids"},
		{completion, `{"prompt":"` + long + `"}`, 400, "BadRequestError", "", "maximum context length of this model is 100 tokens"},
		{completion, `{"prompt":"x","max_tokens":100}`, 400, "BadRequestError", "", "101 were asked for"},
		{embedding, `{}`, 400, "BadRequestError", "input", ""},
		{embedding, `{"input":"x","encoding_format":"hex"}`, 400, "BadRequestError", "encoding_format", ""},
		{embedding, `{"input":"x","dimensions":0}`, 400, "BadRequestError", "dimensions", ""},
		{embedding, `{"input":"` + long + ` x"}`, 400, "BadRequestError", "", "maximum context length"},
		{"/tokenize", `{}`, 400, "BadRequestError", "messages", ""},
		{"/detokenize", `{"tokens":[1]}`, 400, "BadRequestError", "tokens", ""},
	} {
		w := post(t, h, c.path, c.body)
		var got map[string]map[string]any
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
			t.Fatalf("%s %s: %v in %s", c.path, c.body, err, w.Body)
		}
		message, _ := got["error"]["message"].(string)
		want := map[string]map[string]any{"error": {"message": message, "type": c.kind, "param": nil, "code": float64(c.status)}}
		if c.param != "" {
			want["error"]["param"] = c.param
		}
		if diff := cmp.Diff(want, got); diff != "" || w.Code != c.status || !strings.Contains(message, c.message) || message == "" {
			t.Errorf("%s %s: status %d, %s\n%s", c.path, c.body, w.Code, message, diff)
		}
	}
}

func TestModelsListTheirRoots(t *testing.T) {
	cfg := fast()
	cfg.Models = []Model{{ID: "a", Root: "org/a", MaxLen: 4096}, {ID: "b"}}
	h := New(cfg).Handler()
	var list struct {
		Object string
		Data   []struct {
			ID, Object, Root string
			OwnedBy          string `json:"owned_by"`
			MaxModelLen      int    `json:"max_model_len"`
		}
	}
	parse(t, do(t, h, http.MethodGet, "/v1/models", ""), &list)
	if got := fmt.Sprint(list); got != "{list [{a model org/a vllm 4096} {b model b vllm 131072}]}" {
		t.Error(got)
	}
	for _, model := range []string{"a", "b"} {
		var out answerBody
		parse(t, post(t, h, "/v1/chat/completions", `{`+hello+`,"model":"`+model+`"}`), &out)
		if out.Model != model {
			t.Errorf("asked for %s, got %s", model, out.Model)
		}
	}
}

func TestAModelIsNoLongerThanTheCache(t *testing.T) {
	e := New(Config{CacheBlocks: 10})
	if got := e.cfg.Models[0].MaxLen; got != 160 {
		t.Error(got)
	}
}

func TestSmallRoutes(t *testing.T) {
	h := New(fast()).Handler()
	for _, c := range []struct {
		method, path string
		status       int
		body         string
	}{
		{http.MethodGet, "/health", 200, ""},
		{http.MethodHead, "/health", 200, ""},
		{http.MethodGet, "/version", 200, `{"version":"0.11.0+sim"}`},
		{http.MethodGet, "/nothing", 404, `{"detail":"Not Found"}`},
		{http.MethodGet, "/v1/chat/completions", 405, `{"detail":"Method Not Allowed"}`},
		{http.MethodPost, "/health", 405, `{"detail":"Method Not Allowed"}`},
	} {
		if w := do(t, h, c.method, c.path, ""); w.Code != c.status || w.Body.String() != c.body {
			t.Errorf("%s %s: %d %q", c.method, c.path, w.Code, w.Body)
		}
	}
}

func TestAPIKeyGuardsTheV1Paths(t *testing.T) {
	cfg := fast()
	cfg.APIKey = "sesame"
	e := New(cfg)
	for _, c := range []struct {
		path, authorization string
		status              int
	}{
		{"/v1/models", "", 401},
		{"/v1/models", "Bearer wrong", 401},
		{"/v1/models", "sesame", 401},
		{"/v1/models", "Bearer sesame", 200},
		{"/v1/nothing", "", 401},
		{"/health", "", 200},
		{"/metrics", "", 200},
	} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, c.path, nil)
		r.Header.Set("Authorization", c.authorization)
		w := httptest.NewRecorder()
		e.Handler().ServeHTTP(w, r)
		if w.Code != c.status || w.Code == 401 && w.Body.String() != `{"error":"Unauthorized"}` {
			t.Errorf("%s %q: %d %s", c.path, c.authorization, w.Code, w.Body)
		}
	}
	if dump := fmt.Sprintf("%+v", e.cfg); strings.Contains(dump, "sesame") {
		t.Error("the engine keeps the key itself")
	}
}

func TestTokenizeAndBack(t *testing.T) {
	h := New(fast()).Handler()
	var out struct {
		Count       int
		MaxModelLen int `json:"max_model_len"`
		Tokens      []uint64
	}
	parse(t, post(t, h, "/tokenize", `{"prompt":"Hello, wörld"}`), &out)
	if out.Count != 3 || len(out.Tokens) != 3 || out.MaxModelLen != 131072 {
		t.Fatalf("%+v", out)
	}
	body, _ := json.Marshal(map[string]any{"tokens": out.Tokens})
	if w := post(t, h, "/detokenize", string(body)); w.Body.String() != `{"prompt":"Hello, wörld"}` {
		t.Error(w.Body)
	}
	var chat answerBody
	parse(t, post(t, h, "/v1/chat/completions", `{`+hello+`}`), &chat)
	parse(t, post(t, h, "/tokenize", `{`+hello+`}`), &out)
	if out.Count != chat.Usage.PromptTokens {
		t.Errorf("%d tokens, and %d in the usage", out.Count, chat.Usage.PromptTokens)
	}
}

func TestEmbeddings(t *testing.T) {
	h := New(fast()).Handler()
	embed := func(body string) (vectors [][]float64, used int) {
		var out struct {
			Object string
			Data   []struct {
				Index     int
				Embedding []float64
			}
			Usage struct {
				PromptTokens int `json:"prompt_tokens"`
				TotalTokens  int `json:"total_tokens"`
			}
		}
		parse(t, post(t, h, "/v1/embeddings", body), &out)
		for i, d := range out.Data {
			if d.Index != i {
				t.Errorf("index %d at %d", d.Index, i)
			}
			vectors = append(vectors, d.Embedding)
		}
		return vectors, out.Usage.TotalTokens
	}
	dot := func(a, b []float64) (sum float64) {
		for i := range a {
			sum += a[i] * b[i]
		}
		return sum
	}
	v, used := embed(`{"input":["the old stone bridge","the old iron bridge","quarterly tax returns"]}`)
	again, _ := embed(`{"input":"the old stone bridge","encoding_format":"float"}`)
	if diff := cmp.Diff(v[0], again[0]); diff != "" || len(v[0]) != 768 {
		t.Errorf("%d dimensions; %s", len(v[0]), diff)
	}
	if dot(v[0], v[1]) <= dot(v[0], v[2]) {
		t.Error("texts that share words are not closer")
	}
	if used != countTokens("the old stone bridge")+countTokens("the old iron bridge")+countTokens("quarterly tax returns") {
		t.Errorf("%d tokens", used)
	}
	short, _ := embed(`{"input":"the old stone bridge","dimensions":10}`)
	for _, v := range [][]float64{v[0], short[0]} {
		if math.Abs(dot(v, v)-1) > 1e-5 {
			t.Errorf("length %f of %d dimensions", dot(v, v), len(v))
		}
	}
	var packed struct{ Data []struct{ Embedding []byte } }
	w := post(t, h, "/v1/embeddings", `{"input":"the old stone bridge","encoding_format":"base64"}`)
	parse(t, w, &packed)
	raw := packed.Data[0].Embedding
	if got := math.Float32frombits(binary.LittleEndian.Uint32(raw)); len(raw) != 4*768 || got != float32(v[0][0]) {
		t.Errorf("%d bytes, first %f, want %f; %s", len(raw), got, v[0][0], base64.StdEncoding.EncodeToString(raw[:8]))
	}
}

func TestAnAnswerBearsTheRequestsID(t *testing.T) {
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/v1/completions", strings.NewReader(`{"prompt":"x"}`))
	r.Header.Set("X-Request-Id", "abc")
	w := httptest.NewRecorder()
	New(fast()).Handler().ServeHTTP(w, r)
	var out answerBody
	if parse(t, w, &out); out.ID != "cmpl-abc" {
		t.Error(out.ID)
	}
}

func TestABodyThatCannotBeReadIsRefused(t *testing.T) {
	for _, cfg := range []Config{fast(), {ZeroWork: &ZeroWork{}}} {
		for body, status := range map[io.Reader]int{
			iotest.ErrReader(io.ErrUnexpectedEOF):                 http.StatusBadRequest,
			iotest.ErrReader(&http.MaxBytesError{Limit: maxBody}): http.StatusRequestEntityTooLarge,
		} {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/v1/completions", body)
			w := httptest.NewRecorder()
			if New(cfg).Handler().ServeHTTP(w, r); w.Code != status {
				t.Errorf("%d %s, want %d", w.Code, w.Body, status)
			}
		}
	}
}
