package gateway_test

import (
	"strings"
	"testing"

	"github.com/ai-aas/api-router/internal/fleet"
)

// clamped is a policy with every clamp and the default fields; open has none and allows every field.
const (
	clamped = "kind: RoutingPolicy\nid: p\nmodel: m\nbackends: [{id: b0}]\nclamps: { n: 2, best_of: 3, max_tokens: 100, logprobs: 5, prompts: 2, stops: 2 }\n"
	open    = "kind: RoutingPolicy\nid: p\nmodel: m\nbackends: [{id: b0}]\nfields: { chat_template: allow, chat_template_kwargs: allow, remote_media: allow }\n"
)

func TestTheBackendGetsWhatThePolicyAllows(t *testing.T) {
	const (
		chats, texts, inputs = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
		hello                = `"messages":[{"role":"user","content":"Hi"}]}`
		picture              = `"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://a.test/x.png"}}]}]}`
	)
	for name, tc := range map[string]struct {
		policy, engine, path, sent string
		got                        string // "": nothing reaches the backend
		param, says                string
	}{
		"what is within stays":     {clamped, fleet.EngineVLLM, chats, `{ "n":2,"max_tokens":1e2 ,"model":"m",` + hello, "", "max_tokens", "plain digits"},
		"byte for byte":            {clamped, fleet.EngineVLLM, chats, `{ "n":2,"max_tokens":100.0 ,"model":"m",` + hello, `{ "n":2,"max_tokens":100.0 ,"model":"m",` + hello, "", ""},
		"what is above is lowered": {clamped, fleet.EngineVLLM, chats, `{ "n":3,"best_of": 4,"top_logprobs":20,"max_tokens":101.0 ,"model":"m",` + hello, `{ "n":2,"best_of": 3,"top_logprobs":5,"max_tokens":100 ,"model":"m",` + hello, "", ""},
		"a chat without a bound":   {clamped, fleet.EngineVLLM, chats, `{"model":"m",` + hello, `{"model":"m","max_tokens":100,` + hello, "", ""},
		"the same at OpenAI":       {clamped, fleet.EngineOpenAI, chats, `{"model":"m",` + hello, `{"model":"m","max_completion_tokens":100,` + hello, "", ""},
		"a completion without one": {clamped, fleet.EngineVLLM, texts, `{"model":"m","prompt":"a"}`, `{"model":"m","prompt":"a"}`, "", ""},
		"the same at llama.cpp":    {clamped, fleet.EngineLlamaCPP, texts, `{"model":"m","prompt":"a"}`, `{"model":"m","max_tokens":100,"prompt":"a"}`, "", ""},
		"the same at Ollama":       {clamped, fleet.EngineOllama, texts, `{"model":"m","prompt":"a"}`, `{"model":"m","max_tokens":100,"prompt":"a"}`, "", ""},
		"a stream":                 {clamped, fleet.EngineOllama, chats, `{"model":"m","stream":true,"n":9,` + hello, `{"model":"m","stream_options":{"include_usage":true},"max_tokens":100,"stream":true,"n":2,` + hello, "", ""},
		"an alias":                 {clamped + "aliases: [other]\n", fleet.EngineVLLM, texts, `{"model":"other","max_tokens":200,"prompt":"a"}`, `{"model":"m","max_tokens":100,"prompt":"a"}`, "", ""},
		"too many prompts":         {clamped, fleet.EngineVLLM, texts, `{"model":"m","prompt":["a","b","c"]}`, "", "prompt", "at most 2"},
		"too many inputs":          {clamped, fleet.EngineVLLM, inputs, `{"model":"m","input":[[1],[2],[3]]}`, "", "input", "at most 2"},
		"too many stops":           {clamped, fleet.EngineVLLM, chats, `{"model":"m","stop":["a","b","c"],` + hello, "", "stop", "at most 2"},
		"a chat template":          {clamped, fleet.EngineVLLM, chats, `{"model":"m","chat_template":"{{ 1 }}",` + hello, "", "chat_template", "refused by the policy"},
		"one among the arguments":  {clamped, fleet.EngineVLLM, chats, `{"model":"m","chat_template_kwargs":{"chat_template":"{{ 1 }}"},` + hello, "", "chat_template", "refused by the policy"},
		"arguments alone":          {open, fleet.EngineVLLM, chats, `{"model":"m","chat_template_kwargs":{"enable_thinking":false},` + hello, `{"model":"m","chat_template_kwargs":{"enable_thinking":false},` + hello, "", ""},
		"arguments refused":        {clamped + "fields: { chat_template_kwargs: refuse }\n", fleet.EngineVLLM, chats, `{"model":"m","chat_template_kwargs":{},` + hello, "", "chat_template_kwargs", "refused by the policy"},
		"a remote picture":         {clamped, fleet.EngineVLLM, chats, `{"model":"m","max_tokens":1,` + picture, "", "messages", "data: URL"},
		"a picture as data":        {clamped, fleet.EngineVLLM, chats, `{"model":"m","max_tokens":1,` + strings.Replace(picture, "https://a.test/x.png", "DATA:,", 1), `{"model":"m","max_tokens":1,` + strings.Replace(picture, "https://a.test/x.png", "DATA:,", 1), "", ""},
		"an open policy":           {open, fleet.EngineVLLM, chats, `{"model":"m","n":90,"max_tokens":-1,"chat_template":"x","stop":["a","b","c"],` + picture, `{"model":"m","n":90,"max_tokens":-1,"chat_template":"x","stop":["a","b","c"],` + picture, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			backend := play(t, says(plain(200, "application/json", `{"ok":1}`)))
			h := build(t, setting{documents: tc.policy, specs: func(s *fleet.Spec) { s.Engine = tc.engine }}, backend.URL)
			resp := h.post(tc.path, tc.sent)
			if tc.param == "" {
				if got := body(t, resp); resp.StatusCode != 200 && !strings.Contains(tc.sent, `"stream":true`) {
					t.Errorf("%d %s", resp.StatusCode, got)
				}
				if got := backend.bodies(); len(got) != 1 || got[0] != tc.got {
					t.Errorf("the backend got %q\nwant %q", got, tc.got)
				}
				return
			}
			code, param, message := refusal(t, resp)
			if resp.StatusCode != 400 || code != "invalid_request" || param != tc.param || !strings.Contains(message, tc.says) {
				t.Errorf("%d %s %s %q", resp.StatusCode, code, param, message)
			}
			if got := backend.bodies(); len(got) != 0 {
				t.Errorf("the backend got %q", got)
			}
			if rec := h.closed(1); rec.Status != 400 || rec.Attempts != 0 {
				t.Errorf("%+v", rec)
			}
		})
	}
}

func TestTheClampsOfTheModelThatWasAskedForHoldForItsFallbackToo(t *testing.T) {
	broken, backend := play(t, says(plain(500, "text/plain", "oops"))), play(t, says(plain(200, "application/json", `{"ok":1}`)))
	h := build(t, setting{documents: strings.Replace(clamped, "model: m", "model: m\nfallback_models: [spare]", 1) +
		"---\nkind: RoutingPolicy\nid: q\nmodel: spare\nbackends: [{id: b1}]\nclamps: { max_tokens: 7, stops: 1 }\n"}, broken.URL, backend.URL)
	const rest = `"stop":["a","b"],"messages":[{"role":"user","content":"Hi"}]}`
	if got := body(t, h.post("/v1/chat/completions", `{"model":"m","max_tokens":101,`+rest)); got != `{"ok":1}` {
		t.Error(got)
	}
	if got := backend.bodies(); len(got) != 1 || got[0] != `{"model":"spare","max_tokens":100,`+rest {
		t.Errorf("the fallback got %q", got)
	}
	resp := h.post("/v1/chat/completions", `{"model":"spare",`+rest)
	if code, param, _ := refusal(t, resp); code != "invalid_request" || param != "stop" {
		t.Errorf("%d %s %s", resp.StatusCode, code, param)
	}
}
