package wire

import (
	"bytes"
	"encoding/json"
	"strconv"
	"unicode/utf8"
)

// Strip says which accounts of usage to cut out of a stream, because the client did not ask for them.
type Strip uint8

// What a client did not ask for.
const (
	StripNone       Strip = iota
	StripContinuous       // it asked for the final account only: those in events that carry choices go
	StripAll              // it asked for none: every usage goes, and the event that carries nothing else
)

const (
	// maxChoices bounds the choices whose end is tracked. A stream with a choice beyond is never complete.
	maxChoices = 16384
	// maxReason and maxErrorText bound what is kept of a backend's texts, in bytes.
	maxReason    = 64
	maxErrorText = 1024
	// maxScratch is the largest buffer that a Tap keeps between events, in bytes.
	maxScratch = 64 << 10
)

// Verdict is what a Tap says of one event.
type Verdict struct {
	// Out is what the client gets for the event: nothing when it is empty. It is valid until the next call of Tap.Event or Events.Next.
	Out []byte
	// Content says that the event carries content of an answer, or the end of a choice.
	Content bool
	// Done says that the event is [DONE].
	Done bool
	// Malformed says that the event has data which is not one JSON object. Out is the event unchanged, and nothing was learned from it.
	Malformed bool
	// Err is set for an event that reports an error.
	Err *StreamError
}

// StreamError is an error that a backend reports within a stream. Its texts are the backend's own, cut to a bearable length.
type StreamError struct {
	Message, Type, Code string
}

func (e *StreamError) Error() string {
	return "the backend reports an error in its stream: " + e.Message
}

// Tap reads the events of one stream without decoding them: what has ended, what it cost, and whether the stream may end here. It
// allocates nothing for an ordinary event.
type Tap struct {
	kind     Kind
	strip    Strip
	expected int

	choices []choice // by index
	seen    int      // how many of them were met
	open    int      // how many of those have not finished
	beyond  bool     // there was an index that is not tracked

	final   Usage // the account of the whole answer, when there is one
	running Usage // the accounts that came with choices, added up
	counted int64 // pieces of content

	content bool
	done    bool
	failed  bool
	dropped bool // nothing went out for the last event

	notes   []note
	scratch []byte
	first   struct { // What most streams need, in the same piece of memory.
		choices [1]choice
		notes   [1]note
	}
}

// choice is what is known of one choice of the answer.
type choice struct {
	seen    bool
	closed  bool   // the last account came with the end of the choice
	reason  string // finish_reason; "" while the choice goes on
	account Usage  // the last account that came with it
}

// NewTap returns a tap for one stream. choices is how many the answer must have to be complete, 0 when that is not known.
func NewTap(kind Kind, choices int, strip Strip) *Tap {
	t := &Tap{kind: kind, strip: strip, expected: choices}
	t.choices, t.notes = t.first.choices[:0], t.first.notes[:0]
	return t
}

// Complete reports whether the stream came to its proper end: [DONE] was seen, no error, and every choice has its finish_reason,
// those that were seen and those that were expected.
func (t *Tap) Complete() bool {
	return t.done && !t.failed && !t.beyond && t.seen > 0 && t.open == 0 && t.seen >= t.expected
}

// Done reports whether [DONE] was seen.
func (t *Tap) Done() bool { return t.done }

// Content reports whether any content was seen.
func (t *Tap) Content() bool { return t.content }

// FinishReasons lists each choice's finish_reason by index, "" for one that has not finished.
func (t *Tap) FinishReasons() []string {
	reasons := make([]string, len(t.choices))
	for i := range t.choices {
		reasons[i] = t.choices[i].reason
	}
	return reasons
}

// Progress is how many tokens were produced so far, by the backend's latest account or, where it gives none, by count.
func (t *Tap) Progress() int64 {
	switch {
	case t.final.Source != "":
		return t.final.Completion
	case t.running.Source != "":
		return t.running.Completion
	}
	return t.counted
}

// Usage is the best account of the stream so far. It reports false as long as there is nothing to account for.
func (t *Tap) Usage() (Usage, bool) {
	switch {
	case t.final.Source != "":
		return t.final, true
	case t.running.Source == "":
		return Usage{Completion: t.counted, Source: SourceCounted}, t.counted > 0
	}
	u := t.running
	u.Source = SourceReported
	for i := range t.choices {
		if c := &t.choices[i]; c.seen && !c.closed {
			u.Source = SourceContinuous
		}
	}
	return u, true
}

// Event reads the stream's next event. What follows [DONE] is dropped.
func (t *Tap) Event(ev Event) Verdict {
	if t.done {
		return t.drop(ev, Verdict{})
	}
	v := Verdict{Out: ev.Raw}
	if ev.owed && t.dropped {
		v.Out = v.Out[1:] // The line feed belongs to an event that the client did not get.
	}
	t.dropped = false
	data := bytes.TrimSpace(ev.Data)
	if string(data) == "[DONE]" {
		t.done, v.Done = true, true
		return v
	}
	named := string(ev.Name) == "error"
	if len(data) == 0 && !named { // A comment, a heartbeat, a field that means nothing here.
		return v
	}
	f := frame{lexer: lexer{b: ev.Data, lax: true}}
	var ok bool
	if t.notes, ok = f.read(t.kind, t.notes[:0]); !ok {
		v.Malformed = true
		if named {
			t.failed, v.Err = true, streamError(data)
		}
		return v
	}
	switch {
	case f.fault != (Span{}):
		t.failed, v.Err = true, streamError(f.b[f.fault.Start:f.fault.End])
	case f.object || named:
		t.failed, v.Err = true, streamError(data)
	}
	v.Content = t.learn(&f)
	switch {
	case t.strip == StripNone || f.cut == (Span{}):
	case t.strip == StripAll && f.usage != (Span{}) && f.empty:
		return t.drop(ev, v)
	case t.strip == StripAll || len(t.notes) > 0:
		v.Out = t.cut(ev, v.Out, f.cut)
	}
	return v
}

// learn takes in what an event says of its choices and of usage. It reports whether the event carries content or an end.
func (t *Tap) learn(f *frame) (content bool) {
	var last *choice
	for _, n := range t.notes {
		if n.content {
			t.content = true
			t.counted++
		}
		content = content || n.content || n.reason != Span{}
		if last = t.choice(n.index); last != nil && n.reason != (Span{}) && last.reason == "" {
			last.reason = reason(f.b[n.reason.Start+1 : n.reason.End-1])
			t.open--
		}
	}
	if f.usage == (Span{}) {
		return content
	}
	u, ok := parseUsage(f.b[f.usage.Start:f.usage.End])
	switch {
	case !ok:
	case len(t.notes) == 0:
		t.final = u
	case last != nil:
		// vLLM's continuous account is one of the choice that it comes with: the choices together make the answer.
		t.running.Source = SourceContinuous
		t.running.Prompt = max(t.running.Prompt, u.Prompt)
		t.running.Cached = max(t.running.Cached, u.Cached)
		t.running.Completion += u.Completion - last.account.Completion
		t.running.Reasoning += u.Reasoning - last.account.Reasoning
		last.account, last.closed = u, last.reason != ""
	}
	return content
}

// choice finds the choice of an index, or nil where there are too many to track.
func (t *Tap) choice(index int64) *choice {
	if index >= maxChoices {
		t.beyond = true
		return nil
	}
	for int64(len(t.choices)) <= index {
		t.choices = append(t.choices, choice{})
	}
	c := &t.choices[index]
	if !c.seen {
		c.seen = true
		t.seen++
		t.open++
	}
	return c
}

// drop sends nothing for an event but for the line feed that belongs to the one before.
func (t *Tap) drop(ev Event, v Verdict) Verdict {
	v.Out = nil
	if ev.owed && !t.dropped {
		v.Out = ev.Raw[:1]
	}
	t.dropped = true
	return v
}

// cut gives an event without a span of its data; raw is ev.Raw, or that without the line feed at its beginning. Several data lines
// become one, because the span may reach across them.
func (t *Tap) cut(ev Event, raw []byte, span Span) []byte {
	at := ev.dataAt - (len(ev.Raw) - len(raw))
	out := t.scratch[:0]
	out = append(out, raw[:at]...)
	out = append(out, ev.Data[:span.Start]...)
	out = append(out, ev.Data[span.End:]...)
	if ev.lines == 1 {
		out = append(out, raw[at+len(ev.Data):]...)
	} else {
		for i, c := range out[at:] {
			if c == '\n' { // Within JSON it can only be white space.
				out[at+i] = ' '
			}
		}
		_, end, _ := cutLine(raw[at:])
		out = append(out, end...)
		for l := range ev.further() {
			if _, ok := fieldValue(l.text, "data"); !ok {
				out = append(append(out, l.text...), l.end...)
			}
		}
	}
	if cap(out) <= maxScratch {
		t.scratch = out
	}
	return out
}

// reason keeps a finish_reason; those that every backend uses cost no memory.
func reason(text []byte) string {
	switch string(text) {
	case "stop":
		return "stop"
	case "length":
		return "length"
	case "tool_calls":
		return "tool_calls"
	case "function_call":
		return "function_call"
	case "content_filter":
		return "content_filter"
	}
	return clip(string(text), maxReason)
}

// streamError reads an error as OpenAI, vLLM, llama.cpp and Ollama write it: an object with a message, or just a text.
func streamError(raw []byte) *StreamError {
	var object struct {
		Message string `json:"message"`
		Type    any    `json:"type"`
		Code    any    `json:"code"`
	}
	if json.Unmarshal(raw, &object) != nil || object.Message == "" {
		if json.Unmarshal(raw, &object.Message) != nil {
			object.Message = string(raw)
		}
	}
	return &StreamError{
		Message: clip(object.Message, maxErrorText),
		Type:    clip(word(object.Type), maxReason),
		Code:    clip(word(object.Code), maxReason),
	}
}

// word gives a code or a type, which some backends write as a number.
func word(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case float64:
		return strconv.FormatFloat(v, 'g', -1, 64)
	}
	return ""
}

// clip cuts a text to at most n bytes, between two characters.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
