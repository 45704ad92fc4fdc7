package simengine

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"net/http"
	"strings"
)

// version is what GET /version says: a release whose habits this engine has, marked as simulated.
const version = "0.11.0+sim"

// serve is the engine's front door. Unknown paths and methods get the answers of vLLM's web framework. An error that is no
// *apiError means that the client is gone.
func (e *Engine) serve(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, "/v1") && !e.authorized(r) {
		_ = writeJSON(w, http.StatusUnauthorized, map[string]string{"error": "Unauthorized"})
		return
	}
	method, handle := e.route(r.URL.Path)
	switch {
	case handle == nil:
		_ = writeJSON(w, http.StatusNotFound, map[string]string{"detail": "Not Found"})
	case r.Method != method && (r.Method != http.MethodHead || method != http.MethodGet):
		w.Header().Set("Allow", method)
		_ = writeJSON(w, http.StatusMethodNotAllowed, map[string]string{"detail": "Method Not Allowed"})
	default:
		if api, ok := errors.AsType[*apiError](handle(w, r)); ok {
			fail(w, api)
		}
	}
}

// endpoint answers a request. An *apiError is then written by the caller; any other error means that the client is gone.
type endpoint func(w http.ResponseWriter, r *http.Request) error

func (e *Engine) route(path string) (method string, handle endpoint) {
	switch path {
	case "/v1/chat/completions":
		return http.MethodPost, e.inference(e.chat, e.zero.chat)
	case "/v1/completions":
		return http.MethodPost, e.inference(e.completion, e.zero.completion)
	case "/v1/embeddings":
		return http.MethodPost, e.inference(e.embedding, e.zero.embedding)
	case "/v1/models":
		return http.MethodGet, e.models
	case "/tokenize":
		return http.MethodPost, e.tokenize
	case "/detokenize":
		return http.MethodPost, e.detokenize
	case "/health", "/ping":
		return http.MethodGet, e.health
	case "/version":
		return http.MethodGet, e.version
	case "/metrics":
		return http.MethodGet, e.metrics
	}
	return "", nil
}

// inference makes an endpoint meet the engine's fault, replaces it by prebuilt answers where there are any, and counts how
// each request ends. The counts are right before the client can see the end of the response.
func (e *Engine) inference(simulate endpoint, prebuilt map[string]prebuilt) endpoint {
	return func(w http.ResponseWriter, r *http.Request) error {
		e.requests.Add(1)
		end := &e.cancelled // also when a fault ends the handler with a panic
		defer func() { end.Add(1) }()
		w, err := e.takeFault().strike(w, r)
		switch {
		case err != nil:
		case prebuilt != nil:
			err = e.replay(w, r, prebuilt)
		default:
			err = simulate(w, r)
		}
		if err == nil {
			end = &e.served
		} else if _, ok := errors.AsType[*apiError](err); ok {
			end = &e.refused
		}
		return err
	}
}

func (e *Engine) authorized(r *http.Request) bool {
	if e.key == nil || r.Method == http.MethodOptions {
		return true
	}
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	got := sha256.Sum256([]byte(token))
	return strings.EqualFold(scheme, "Bearer") && subtle.ConstantTimeCompare(got[:], e.key[:]) == 1
}

func (e *Engine) health(w http.ResponseWriter, _ *http.Request) error {
	if e.fault.Load().Unhealthy {
		w.WriteHeader(http.StatusServiceUnavailable)
		return nil
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

func (e *Engine) version(w http.ResponseWriter, _ *http.Request) error {
	return writeJSON(w, http.StatusOK, map[string]string{"version": version})
}

// modelCard is an entry of GET /v1/models.
type modelCard struct {
	ID          string  `json:"id"`
	Object      string  `json:"object"`
	Created     int64   `json:"created"`
	OwnedBy     string  `json:"owned_by"`
	Root        string  `json:"root"`
	Parent      *string `json:"parent"`
	MaxModelLen int     `json:"max_model_len"`
	Permission  []any   `json:"permission"`
}

func (e *Engine) models(w http.ResponseWriter, _ *http.Request) error {
	cards := make([]modelCard, 0, len(e.cfg.Models))
	for _, m := range e.cfg.Models {
		cards = append(cards, modelCard{
			ID: m.ID, Object: "model", Created: e.started.Unix(), OwnedBy: "vllm", Root: m.Root, MaxModelLen: m.MaxLen, Permission: []any{},
		})
	}
	return writeJSON(w, http.StatusOK, struct {
		Object string      `json:"object"`
		Data   []modelCard `json:"data"`
	}{"list", cards})
}

func (e *Engine) tokenize(w http.ResponseWriter, r *http.Request) error {
	var req struct {
		chatRequest
		Prompt *string `json:"prompt"`
	}
	if err := decode(w, r, &req); err != nil {
		return err
	}
	m, err := e.model(req.Model)
	if err != nil {
		return err
	}
	var text string
	if req.Prompt != nil {
		text = *req.Prompt
	} else if text, _, err = req.render(); err != nil {
		return err
	}
	ids := []uint64{}
	for token := range tokens(text) {
		ids = append(ids, tokenID(token))
	}
	return writeJSON(w, http.StatusOK, struct {
		Count       int      `json:"count"`
		MaxModelLen int      `json:"max_model_len"`
		Tokens      []uint64 `json:"tokens"`
		TokenStrs   []string `json:"token_strs"`
	}{len(ids), m.MaxLen, ids, nil})
}

func (e *Engine) detokenize(w http.ResponseWriter, r *http.Request) error {
	var req struct {
		Model  string   `json:"model"`
		Tokens []uint64 `json:"tokens"`
	}
	if err := decode(w, r, &req); err != nil {
		return err
	}
	if _, err := e.model(req.Model); err != nil {
		return err
	}
	text, err := detokenize(req.Tokens)
	if err != nil {
		return badRequest("tokens", "%v", err)
	}
	return writeJSON(w, http.StatusOK, map[string]string{"prompt": text})
}
