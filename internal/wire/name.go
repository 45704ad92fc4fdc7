package wire

import "bytes"

// name is a member's name that means something to the router.
type name uint8

// The names that may stand only once in a request. Those that Scan does not read further bound what a request may cost: there too the
// router and the backend must read the same thing.
const (
	nameOther name = iota
	nameModel
	nameMessages
	namePrompt
	nameInput
	nameStream
	nameStreamOptions
	// The figures of a request: see figure.
	nameMaxTokens
	nameMaxCompletionTokens
	nameNPredict // llama.cpp's own, which it heeds before the other two.
	nameN
	nameBestOf
	nameLogprobs
	nameTopLogprobs
	namePromptLogprobs
	// Those that follow are no figures.
	nameStop
	nameChatTemplate
	nameChatTemplateKwargs
	nameMinTokens
	nameEcho
	nameSeed
	nameTools
	nameToolChoice
	nameResponseFormat
	namePriority
	nameIncludeUsage
	nameContinuousUsage
)

var nameText = [...]string{
	nameOther:               "",
	nameModel:               "model",
	nameMessages:            "messages",
	namePrompt:              "prompt",
	nameInput:               "input",
	nameStream:              "stream",
	nameStreamOptions:       "stream_options",
	nameMaxTokens:           "max_tokens",
	nameMaxCompletionTokens: "max_completion_tokens",
	nameNPredict:            "n_predict",
	nameN:                   "n",
	nameBestOf:              "best_of",
	nameLogprobs:            "logprobs",
	nameTopLogprobs:         "top_logprobs",
	namePromptLogprobs:      "prompt_logprobs",
	nameStop:                "stop",
	nameChatTemplate:        "chat_template",
	nameChatTemplateKwargs:  "chat_template_kwargs",
	nameMinTokens:           "min_tokens",
	nameEcho:                "echo",
	nameSeed:                "seed",
	nameTools:               "tools",
	nameToolChoice:          "tool_choice",
	nameResponseFormat:      "response_format",
	namePriority:            "priority",
	nameIncludeUsage:        "include_usage",
	nameContinuousUsage:     "continuous_usage_stats",
}

// String gives the name as it is spelled.
func (n name) String() string { return nameText[n] }

// prompt is the name under which the endpoint takes what the model shall work on.
func (k Kind) prompt() name {
	switch k {
	case Completion:
		return namePrompt
	case Embedding:
		return nameInput
	case Chat:
	}
	return nameMessages
}

// topLevel knows the names of a request's own members.
func topLevel(key []byte) name {
	switch string(key) { // The compiler makes a search by length out of this, without an allocation.
	case "model":
		return nameModel
	case "messages":
		return nameMessages
	case "prompt":
		return namePrompt
	case "input":
		return nameInput
	case "stream":
		return nameStream
	case "stream_options":
		return nameStreamOptions
	case "max_tokens":
		return nameMaxTokens
	case "max_completion_tokens":
		return nameMaxCompletionTokens
	case "n_predict":
		return nameNPredict
	case "n":
		return nameN
	case "best_of":
		return nameBestOf
	case "logprobs":
		return nameLogprobs
	case "top_logprobs":
		return nameTopLogprobs
	case "prompt_logprobs":
		return namePromptLogprobs
	case "stop":
		return nameStop
	case "chat_template":
		return nameChatTemplate
	case "chat_template_kwargs":
		return nameChatTemplateKwargs
	case "min_tokens":
		return nameMinTokens
	case "echo":
		return nameEcho
	case "seed":
		return nameSeed
	case "tools":
		return nameTools
	case "tool_choice":
		return nameToolChoice
	case "response_format":
		return nameResponseFormat
	case "priority":
		return namePriority
	}
	return nameOther
}

// streamLevel knows the names within stream_options.
func streamLevel(key []byte) name {
	switch string(key) {
	case "include_usage":
		return nameIncludeUsage
	case "continuous_usage_stats":
		return nameContinuousUsage
	}
	return nameOther
}

// maxFolded is room for the longest name, with a reserve for what folding may shorten (the long s takes two bytes, the Kelvin sign three).
const maxFolded = 96

// resolve finds the name that key means. It is not exact where only the case differs, by the rule of encoding/json,
// which takes the long s (U+017F) for an s and the Kelvin sign (U+212A) for a k.
func resolve(key []byte, escaped bool, lookup func([]byte) name) (id name, exact bool) {
	if !escaped {
		if id = lookup(key); id != nameOther || isFolded(key) {
			return id, true
		}
	}
	var room [maxFolded]byte
	text, fits := unescape(room[:0], key)
	if !fits {
		return nameOther, true
	}
	if id = lookup(text); id != nameOther {
		return id, true
	}
	return lookup(fold(text)), false
}

// isFolded reports whether folding would leave key as it is.
func isFolded(key []byte) bool {
	for _, c := range key {
		if 'A' <= c && c <= 'Z' || c >= 0x80 {
			return false
		}
	}
	return true
}

// fold brings text to lower case in place and returns what is left of it.
func fold(text []byte) []byte {
	out := text[:0]
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case 'A' <= c && c <= 'Z':
			c |= 0x20
		case bytes.HasPrefix(text[i:], []byte("\u017f")):
			c = 's'
			i++
		case bytes.HasPrefix(text[i:], []byte("\u212a")):
			c = 'k'
			i += 2
		}
		out = append(out, c)
	}
	return out
}
