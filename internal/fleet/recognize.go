package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// Recognize asks the server at baseURL what it serves and finds out which engine it is, over a transport made for it.
//
// The owner that an engine writes into its list of models tells most of them apart; a path that only one engine has
// tells the others. The engine is "" when the server speaks OpenAI's dialect but cannot be told apart. The error says
// why no list of models could be had; an engine may be known all the same, then. Each of its few calls has a deadline
// of two seconds and a bounded answer.
func Recognize(ctx context.Context, transport http.RoundTripper, baseURL string, apiKey Secret) (engine string, models []Model, err error) {
	base, err := parseBase(baseURL)
	if err != nil {
		return "", nil, err
	}
	r := recognizer{transport: transport, base: base, key: apiKey}
	list, problem := r.list(ctx)
	if r.unreachable {
		return "", nil, problem
	}
	if engine := list.engine(); engine != "" {
		return engine, list.served(), problem
	}
	for _, sign := range signs {
		if body, ok := r.read(ctx, sign.path); ok && sign.found(body) {
			return sign.engine, list.served(), problem
		}
	}
	return "", list.served(), problem
}

type recognizer struct {
	transport   http.RoundTripper
	base        *url.URL
	key         Secret
	unreachable bool
}

func (r *recognizer) get(ctx context.Context, path, engine string) (int, []byte, error) {
	u := *r.base
	u.Path += path
	return get(ctx, r.transport, &u, func(h http.Header) { authorize(h, engine, r.key) }, maxList)
}

// list has the models, asking a second time in Anthropic's way where OpenAI's way of sending the key is refused.
func (r *recognizer) list(ctx context.Context) (listing, error) {
	status, body, err := r.get(ctx, pathModels, "")
	if status == http.StatusUnauthorized && r.key != "" {
		if again, other, problem := r.get(ctx, pathModels, EngineAnthropic); problem == nil && again == http.StatusOK {
			status, body, err = again, other, nil
		}
	}
	switch {
	case err != nil:
		r.unreachable = !errors.Is(err, errTooLong)
		return listing{}, err
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return listing{}, fmt.Errorf("GET %s answers %d: it wants another API key", pathModels, status)
	case status != http.StatusOK:
		return listing{}, fmt.Errorf("GET %s answers %d", pathModels, status)
	}
	return parseListing(body)
}

func (r *recognizer) read(ctx context.Context, path string) ([]byte, bool) {
	status, body, err := r.get(ctx, path, "")
	return body, err == nil && status == http.StatusOK
}

// engine is what the list itself tells.
func (l listing) engine() string {
	for _, m := range l.Data {
		switch owner := strings.ToLower(m.OwnedBy); {
		case owner == "vllm":
			return EngineVLLM
		case owner == "sglang":
			return EngineSGLang
		case owner == "llamacpp":
			return EngineLlamaCPP
		case owner == "library": // Ollama's word for its own registry; a model from elsewhere has its owner's name.
			return EngineOllama
		case owner == "system" || strings.HasPrefix(owner, "openai"):
			return EngineOpenAI
		case owner == "" && m.Type == "model":
			return EngineAnthropic
		}
	}
	return ""
}

// signs are asked in this order when the list does not tell. /version is the least particular and comes last.
var signs = []struct {
	path   string
	engine string
	found  func(body []byte) bool
}{
	{"/api/version", EngineOllama, hasText("version")},
	{"/info", EngineTGI, hasText("model_id")},
	{"/model_info", EngineSGLang, hasText("tokenizer_path")},
	{"/props", EngineLlamaCPP, hasText("build_info")},
	{"/version", EngineVLLM, hasText("version")},
}

// hasText returns a test for a JSON object with a text under that name.
func hasText(name string) func([]byte) bool {
	return func(body []byte) bool {
		var object map[string]json.RawMessage
		if json.Unmarshal(body, &object) != nil {
			return false
		}
		var text string
		return json.Unmarshal(object[name], &text) == nil && text != ""
	}
}
