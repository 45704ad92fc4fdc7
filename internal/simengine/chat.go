package simengine

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
)

type chatRequest struct {
	sampling
	Messages            []message       `json:"messages"`
	Tools               json.RawMessage `json:"tools"`
	MaxCompletionTokens *int            `json:"max_completion_tokens"`
	AddGenerationPrompt *bool           `json:"add_generation_prompt"` // default true
	ContinueFinal       bool            `json:"continue_final_message"`
	Logprobs            bool            `json:"logprobs"`
	TopLogprobs         int             `json:"top_logprobs"`
}

type message struct {
	Role      string          `json:"role"`
	Content   content         `json:"content"`
	ToolCalls json.RawMessage `json:"tool_calls"`
}

// content is a message's text: a string, null, or a list of parts of which the text ones count.
type content string

// UnmarshalJSON implements json.Unmarshaler.
func (c *content) UnmarshalJSON(data []byte) error {
	if !bytes.HasPrefix(data, []byte("[")) {
		return json.Unmarshal(data, (*string)(c))
	}
	var parts []struct {
		Text string `json:"text"`
	}
	if err := json.Unmarshal(data, &parts); err != nil {
		return fmt.Errorf("parts of a message: %w", err)
	}
	for i, p := range parts {
		if i > 0 {
			*c += "\n"
		}
		*c += content(p.Text)
	}
	return nil
}

// render writes the conversation as the one text that the model reads. From is where the assistant's words begin: at the end
// of the text, or before what is already there of a message to continue.
func (c *chatRequest) render() (text string, from int, err error) {
	generate := c.AddGenerationPrompt == nil || *c.AddGenerationPrompt
	switch {
	case len(c.Messages) == 0:
		return "", 0, badRequest("messages", "messages must hold at least one message.")
	case c.ContinueFinal && generate:
		return "", 0, badRequest("continue_final_message", "continue_final_message and add_generation_prompt cannot both be true.")
	}
	var out strings.Builder
	if len(c.Tools) > 0 {
		out.WriteString("<|tools|>\n" + string(c.Tools) + "\n")
	}
	for i, m := range c.Messages {
		if m.Role == "" {
			return "", 0, badRequest("messages", "each message needs a role.")
		}
		out.WriteString("<|" + m.Role + "|>\n")
		from = out.Len()
		out.WriteString(string(m.Content))
		if c.ContinueFinal && i == len(c.Messages)-1 {
			return out.String(), from, nil
		}
		out.Write(m.ToolCalls)
		out.WriteByte('\n')
	}
	if generate {
		out.WriteString("<|assistant|>\n")
	}
	return out.String(), out.Len(), nil
}

func (e *Engine) chat(w http.ResponseWriter, r *http.Request) error {
	var req chatRequest
	if err := decode(w, r, &req); err != nil {
		return err
	}
	if req.MaxCompletionTokens != nil {
		req.MaxTokens = req.MaxCompletionTokens
	}
	text, from, err := req.render()
	if err != nil {
		return err
	}
	role := "assistant"
	if req.ContinueFinal {
		role = req.Messages[len(req.Messages)-1].Role
	}
	logprobs := -1
	if req.Logprobs {
		logprobs = req.TopLogprobs
	}
	return e.generate(w, r, &req.sampling, []prompt{{text, from}}, chatDialect{role: role, logprobs: logprobs})
}

// chatDialect words answers as /v1/chat/completions does.
type chatDialect struct {
	role     string
	logprobs int // alternatives to each token, -1: none, nor the token's own
}

func (chatDialect) object(stream bool) string {
	if stream {
		return "chat.completion.chunk"
	}
	return "chat.completion"
}

func (chatDialect) prefix() string { return "chatcmpl-" }

type chatDelta struct {
	Role    string  `json:"role,omitempty"`
	Content *string `json:"content,omitempty"`
}

type chatChunk struct {
	Index        int       `json:"index"`
	Delta        chatDelta `json:"delta"`
	Logprobs     any       `json:"logprobs"`
	FinishReason *string   `json:"finish_reason"`
}

// lastChatChunk has a stop_reason, which the others lack.
type lastChatChunk struct {
	chatChunk
	StopReason *string `json:"stop_reason"`
}

func (d chatDialect) opening(index int) any {
	empty := ""
	return chatChunk{Index: index, Delta: chatDelta{Role: d.role, Content: &empty}}
}

func (d chatDialect) delta(index int, a *answer, i int) any {
	text := a.piece(i)
	chunk := chatChunk{Index: index, Delta: chatDelta{Content: &text}, Logprobs: d.probabilities(a, i, i+1)}
	if i < len(a.ends)-1 {
		return chunk
	}
	chunk.FinishReason = &a.finish
	return lastChatChunk{chunk, orNull(a.stop)}
}

type chatMessage struct {
	Role         string  `json:"role"`
	Content      string  `json:"content"`
	Refusal      *string `json:"refusal"`
	Annotations  []any   `json:"annotations"`
	Audio        any     `json:"audio"`
	FunctionCall any     `json:"function_call"`
	ToolCalls    []any   `json:"tool_calls"`
	Reasoning    *string `json:"reasoning_content"`
}

type chatChoice struct {
	Index        int         `json:"index"`
	Message      chatMessage `json:"message"`
	Logprobs     any         `json:"logprobs"`
	FinishReason string      `json:"finish_reason"`
	StopReason   *string     `json:"stop_reason"`
}

func (d chatDialect) choice(index int, a *answer) any {
	return chatChoice{
		Index:        index,
		Message:      chatMessage{Role: d.role, Content: a.text, ToolCalls: []any{}},
		Logprobs:     d.probabilities(a, 0, len(a.ends)),
		FinishReason: a.finish,
		StopReason:   orNull(a.stop),
	}
}

func (d chatDialect) probabilities(a *answer, from, to int) any {
	if d.logprobs < 0 {
		return nil
	}
	return chatLogprobs(a, from, to, d.logprobs)
}

func orNull(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}
