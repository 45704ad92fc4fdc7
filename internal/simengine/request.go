package simengine

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
)

const (
	maxBody    = 128 << 20 // bytes of a request; above what the router takes, which may add to a body
	maxChoices = 128       // n
	maxInputs  = 2048      // prompts in one request
)

// sampling are the fields that chat and completion requests share. Fields that it lacks are accepted and have no effect.
type sampling struct {
	Model         string         `json:"model"`
	N             *int           `json:"n"`
	Seed          *int64         `json:"seed"`
	Stream        bool           `json:"stream"`
	StreamOptions *streamOptions `json:"stream_options"`
	MaxTokens     *int           `json:"max_tokens"`
	MinTokens     int            `json:"min_tokens"`
	IgnoreEOS     bool           `json:"ignore_eos"`
	Stop          texts          `json:"stop"`
	KeepStop      bool           `json:"include_stop_str_in_output"`
	CacheSalt     string         `json:"cache_salt"`
}

type streamOptions struct {
	IncludeUsage *bool `json:"include_usage"` // default true
	Continuous   bool  `json:"continuous_usage_stats"`
}

// usage tells whether a stream reports usage at its end and on every chunk.
func (s *sampling) usage() (final, continuous bool) {
	if s.StreamOptions == nil {
		return false, false
	}
	final = s.StreamOptions.IncludeUsage == nil || *s.StreamOptions.IncludeUsage
	return final, final && s.StreamOptions.Continuous
}

func (s *sampling) choices() int {
	if s.N == nil {
		return 1
	}
	return *s.N
}

func (s *sampling) validate() error {
	switch {
	case s.choices() < 1 || s.choices() > maxChoices:
		return badRequest("n", "n must be from 1 to %d, got %d.", maxChoices, s.choices())
	case s.MaxTokens != nil && *s.MaxTokens < 1:
		return badRequest("max_tokens", "max_tokens must be at least 1, got %d.", *s.MaxTokens)
	case s.MinTokens < 0:
		return badRequest("min_tokens", "min_tokens must not be negative, got %d.", s.MinTokens)
	case s.MaxTokens != nil && s.MinTokens > *s.MaxTokens:
		return badRequest("min_tokens", "min_tokens must not be above max_tokens=%d, got %d.", *s.MaxTokens, s.MinTokens)
	case s.StreamOptions != nil && !s.Stream:
		return badRequest("stream_options", "stream_options need `stream=True`.")
	case slices.Contains(s.Stop, ""):
		return badRequest("stop", "stop must not hold an empty string.")
	}
	return nil
}

// texts is a JSON string or a list of them.
type texts []string

// UnmarshalJSON implements json.Unmarshaler.
func (t *texts) UnmarshalJSON(data []byte) error {
	if bytes.HasPrefix(data, []byte(`"`)) {
		*t = make(texts, 1)
		return json.Unmarshal(data, &(*t)[0])
	}
	return json.Unmarshal(data, (*[]string)(t))
}

// inputs is what completions and embeddings take: a text, token ids, or a list of either. Token ids become text.
type inputs []string

// UnmarshalJSON implements json.Unmarshaler.
func (in *inputs) UnmarshalJSON(data []byte) error {
	var list texts
	if json.Unmarshal(data, &list) == nil {
		*in = inputs(list)
		return nil
	}
	var ids []uint64
	if json.Unmarshal(data, &ids) == nil {
		text, err := detokenize(ids)
		*in = inputs{text}
		return err
	}
	var batches [][]uint64
	if err := json.Unmarshal(data, &batches); err != nil {
		return errors.New("want a string, a list of token ids, or a list of either")
	}
	for _, ids := range batches {
		text, err := detokenize(ids)
		if err != nil {
			return err
		}
		*in = append(*in, text)
	}
	return nil
}

func (in inputs) validate(param string) error {
	if len(in) == 0 || len(in) > maxInputs {
		return badRequest(param, "%s must hold from 1 to %d entries, got %d.", param, maxInputs, len(in))
	}
	if slices.Contains(in, "") {
		return badRequest(param, "%s must not be empty.", param)
	}
	return nil
}

func detokenize(ids []uint64) (string, error) {
	var out strings.Builder
	for _, id := range ids {
		text, err := tokenText(id)
		if err != nil {
			return "", fmt.Errorf("token id %d: %w", id, err)
		}
		out.WriteString(text)
	}
	return out.String(), nil
}

// decode reads a JSON body into v. The body is read to its end first: only then does net/http notice a client that leaves.
func decode(w http.ResponseWriter, r *http.Request, v any) error {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return bodyError(err)
	}
	if err := json.Unmarshal(body, v); err != nil {
		param := ""
		if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			param = wrong.Field
		}
		return badRequest(param, "The body does not parse: %v.", err)
	}
	return nil
}

func bodyError(err error) error {
	if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return &apiError{status: http.StatusRequestEntityTooLarge, kind: "RequestEntityTooLargeError", message: tooLarge.Error()}
	}
	return badRequest("", "The body cannot be read: %v.", err)
}

// model finds a served model; no name means the first.
func (e *Engine) model(name string) (*Model, error) {
	for i := range e.cfg.Models {
		if m := &e.cfg.Models[i]; name == "" || name == m.ID {
			return m, nil
		}
	}
	return nil, &apiError{status: http.StatusNotFound, kind: "NotFoundError", param: "model", message: fmt.Sprintf("The model `%s` does not exist.", name)}
}

// apiError is an error in vLLM's shape.
type apiError struct {
	status  int
	kind    string
	param   string
	message string
}

// Error implements error.
func (a *apiError) Error() string { return a.message }

func badRequest(param, format string, args ...any) error {
	return &apiError{status: http.StatusBadRequest, kind: "BadRequestError", param: param, message: fmt.Sprintf(format, args...)}
}

// fail answers with an error.
func fail(w http.ResponseWriter, api *apiError) {
	var param any
	if api.param != "" {
		param = api.param
	}
	type body struct {
		Message string `json:"message"`
		Type    string `json:"type"`
		Param   any    `json:"param"`
		Code    int    `json:"code"`
	}
	_ = writeJSON(w, api.status, map[string]body{"error": {api.message, api.kind, param, api.status}}) // a client that left needs no answer
}

func writeJSON(w http.ResponseWriter, status int, v any) error {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, err := w.Write(encode(v))
	return err
}

// encode renders v without HTML escapes. The values of this package always encode.
func encode(v any) []byte {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic(fmt.Sprintf("simengine: encode %T: %v", v, err))
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n"))
}
