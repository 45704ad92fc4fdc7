package simengine

import "net/http"

type completionRequest struct {
	sampling
	Prompt   inputs `json:"prompt"`
	Echo     bool   `json:"echo"`
	Logprobs *int   `json:"logprobs"`
}

// defaultCompletion is max_tokens of a completion that sets none.
const defaultCompletion = 16

func (e *Engine) completion(w http.ResponseWriter, r *http.Request) error {
	var req completionRequest
	if err := decode(w, r, &req); err != nil {
		return err
	}
	if err := req.Prompt.validate("prompt"); err != nil {
		return err
	}
	if req.MaxTokens == nil {
		most := max(defaultCompletion, req.MinTokens)
		req.MaxTokens = &most
	}
	prompts := make([]prompt, 0, len(req.Prompt))
	for _, text := range req.Prompt {
		prompts = append(prompts, prompt{text: text})
	}
	dialect := completionDialect{logprobs: -1}
	if req.Logprobs != nil {
		dialect.logprobs = *req.Logprobs
	}
	if req.Echo {
		dialect.echo = req.Prompt
	}
	return e.generate(w, r, &req.sampling, prompts, dialect)
}

// completionDialect words answers as /v1/completions does.
type completionDialect struct {
	echo     []string // the prompts, when they are to stand before their answers
	logprobs int      // as in chatDialect
}

func (completionDialect) object(bool) string { return "text_completion" }

func (completionDialect) prefix() string { return "cmpl-" }

type completionChoice struct {
	Index        int     `json:"index"`
	Text         string  `json:"text"`
	Logprobs     any     `json:"logprobs"`
	FinishReason *string `json:"finish_reason"`
	StopReason   *string `json:"stop_reason"`
}

func (completionDialect) opening(int) any { return nil }

func (d completionDialect) delta(index int, a *answer, i int) any {
	choice := completionChoice{Index: index, Text: a.piece(i), Logprobs: d.probabilities(a, i, i+1)}
	if i == 0 {
		choice.Text = d.echoed(a) + choice.Text
	}
	if i == len(a.ends)-1 {
		choice.FinishReason, choice.StopReason = &a.finish, orNull(a.stop)
	}
	return choice
}

func (d completionDialect) choice(index int, a *answer) any {
	return completionChoice{
		Index:        index,
		Text:         d.echoed(a) + a.text,
		Logprobs:     d.probabilities(a, 0, len(a.ends)),
		FinishReason: &a.finish,
		StopReason:   orNull(a.stop),
	}
}

func (d completionDialect) echoed(a *answer) string {
	if d.echo == nil {
		return ""
	}
	return d.echo[a.prompt]
}

func (d completionDialect) probabilities(a *answer, from, to int) any {
	if d.logprobs < 0 {
		return nil
	}
	return completionLogprobs(a, from, to, d.logprobs)
}
