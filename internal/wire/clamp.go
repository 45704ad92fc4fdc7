package wire

import (
	"fmt"
	"math"
	"strconv"
)

// Clamps are the upper bounds that a policy sets on one request. 0 sets none.
type Clamps struct {
	// N and BestOf bound n and best_of; MaxTokens bounds max_tokens, max_completion_tokens and n_predict; Logprobs bounds logprobs (of
	// completions), top_logprobs and prompt_logprobs. What is above is lowered.
	N, BestOf, MaxTokens, Logprobs int
	// Prompts bounds how many prompts or inputs one request may hold, Stops how many stop texts. A request with more is refused.
	Prompts, Stops int
}

// Refused are the fields that a policy refuses.
type Refused struct {
	ChatTemplate       bool // chat_template, also within chat_template_kwargs
	ChatTemplateKwargs bool
	RemoteMedia        bool // URLs in messages, other than data: URLs
}

// figure is a number that policies clamp, under one of the names from nameMaxTokens on.
type figure struct {
	at      Span // null or a number; empty where the name is absent
	value   int32
	stated  bool // a number stands there
	changed bool // value is what a policy puts in its place
}

// figures is how many there are.
const figures = namePromptLogprobs - nameMaxTokens + 1

func (n name) isFigure() bool { return n-nameMaxTokens < figures }

func (r *Request) figure(id name) *figure { return &r.figures[id-nameMaxTokens] }

// Clamp holds r to a policy: it lowers what is above c, in the fields of r at once and in the body with the next Rewrite, and refuses
// what cannot be lowered. The error is the fault invalid_request with the field's name in Param.
//
// A number below one bounds no tokens, as some engines have it, and is replaced by the bound. Only a completion's nought stays: it asks for
// the prompt's own logprobs. A chat that states no bound at all, which means the model's maximum, gets one by Rewrite; one that states only
// max_completion_tokens gets the same number as max_tokens.
func (r *Request) Clamp(c Clamps, refused Refused) error {
	if err := r.refuse(c, refused); err != nil {
		return err
	}
	r.lower(nameN, c.N, 1)
	r.lower(nameBestOf, c.BestOf, math.MinInt32)
	for _, id := range [...]name{nameLogprobs, nameTopLogprobs, namePromptLogprobs} {
		r.lower(id, c.Logprobs, 0) // -1 is vLLM's word for the whole vocabulary.
	}
	least := 1
	if r.kind == Completion {
		least = 0
	}
	for _, id := range [...]name{nameMaxTokens, nameMaxCompletionTokens, nameNPredict} {
		r.lower(id, c.MaxTokens, least)
	}
	switch newer := r.figure(nameMaxCompletionTokens); {
	case r.figure(nameMaxTokens).stated:
	case r.kind == Chat && newer.stated && c.MaxTokens > 0:
		r.bound = newer.value // Said under the older name, too: some engines know no other and would heed no bound at all.
	case r.kind == Chat && newer.stated:
	default:
		r.bound = int32(min(c.MaxTokens, math.MaxInt32))
	}
	r.tally()
	return nil
}

// Default bounds the answer of a request that names no bound to n tokens, unless Clamp has set a lower one; 0 changes nothing. A number
// below one names none, but for a completion's nought. It is called after Clamp.
func (r *Request) Default(n int64) {
	if n <= 0 || r.kind == Embedding {
		return
	}
	bound := int32(min(n, math.MaxInt32))
	stated := false
	for _, id := range [...]name{nameMaxTokens, nameMaxCompletionTokens, nameNPredict} {
		f := r.figure(id)
		if f.stated && f.value < 1 && (r.kind != Completion || f.value < 0) {
			f.value, f.changed = bound, true
		}
		stated = stated || f.stated
	}
	if !stated && (r.bound == 0 || bound < r.bound) {
		r.bound = bound
	}
	r.tally()
}

// lower brings a stated number that is above most down to it, and one that is below least as well: that means no bound. A most of 0 changes nothing.
func (r *Request) lower(id name, most, least int) {
	if f := r.figure(id); most > 0 && f.stated && (int(f.value) > most || int(f.value) < least) {
		f.value, f.changed = int32(min(most, math.MaxInt32)), true
	}
}

// tally works out what follows from the figures.
func (r *Request) tally() {
	if r.kind == Embedding {
		return
	}
	n := max(int64(r.figure(nameN).value), 1)
	r.Choices = int(min(n*int64(r.prompts), math.MaxInt32))
	bound := max(r.figure(nameMaxTokens).value, r.figure(nameMaxCompletionTokens).value, 0)
	if r.addsBound(nameMaxTokens) {
		bound = max(bound, r.bound)
	}
	if bound > 0 {
		bound = max(bound, r.figure(nameNPredict).value)
	}
	r.MaxTokens = int64(bound)
}

// addsBound reports whether the policy's bound must go into the body under the name id, whatever the engine. A completion without max_tokens
// has a bound by the API's own rule, but one with null has none: vLLM takes it for the model's maximum.
func (r *Request) addsBound(id name) bool {
	return r.bound > 0 && (r.kind == Chat || r.kind == Completion && r.figure(id).at != Span{})
}

// clamp adds the edits that bring the body down to what Clamp has set.
func (r *Request) clamp(edits []edit, rw *Rewrite) []edit {
	for i := range r.figures {
		if f := &r.figures[i]; f.changed {
			edits = append(edits, edit{f.at, strconv.AppendInt(nil, int64(f.value), 10)})
		}
	}
	id := nameMaxTokens
	if rw.MaxCompletionTokens && r.kind == Chat {
		id = nameMaxCompletionTokens
	}
	if r.figure(id).stated || !r.addsBound(id) && !(rw.Endless && r.kind == Completion && r.bound > 0) {
		return edits
	}
	if at := r.figure(id).at; at != (Span{}) {
		return append(edits, edit{at, strconv.AppendInt(nil, int64(r.bound), 10)})
	}
	text := append(append([]byte(`,"`), id.String()...), `":`...)
	return append(edits, edit{Span{r.model.End, r.model.End}, strconv.AppendInt(text, int64(r.bound), 10)})
}

// refuse says what of r the policy does not admit.
func (r *Request) refuse(c Clamps, refused Refused) error {
	switch {
	case c.Prompts > 0 && r.prompts > c.Prompts:
		return tooMany(r.kind.prompt().String(), r.prompts, c.Prompts)
	case c.Stops > 0 && r.stops > c.Stops:
		return tooMany("stop", r.stops, c.Stops)
	case refused.ChatTemplate && r.template > 0:
		return badValue("chat_template", fmt.Sprintf("at byte %d is refused by the policy of this model: leave it out", r.template))
	case refused.ChatTemplateKwargs && r.templateArgs > 0:
		return badValue("chat_template_kwargs", fmt.Sprintf("at byte %d is refused by the policy of this model: leave it out", r.templateArgs))
	case refused.RemoteMedia && r.remote > 0:
		param := nameMessages
		if r.Prompt.Start < r.remote && r.remote < r.Prompt.End {
			param = r.kind.prompt()
		}
		return badValue(param.String(), fmt.Sprintf("holds a URL at byte %d that a server would have to fetch, which the policy of this model refuses: "+
			"send the content itself, as a data: URL", r.remote))
	}
	return nil
}

func tooMany(param string, n, most int) error {
	return badValue(param, fmt.Sprintf("holds %d elements, but the policy of this model allows at most %d in one request: send fewer", n, most))
}
