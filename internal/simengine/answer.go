package simengine

import (
	"bytes"
	"strings"
	"unicode"
	"unicode/utf8"
)

// voice decides what a model says. Equal voices answer equally.
type voice digest

func newVoice(seed uint64, root string) voice {
	d := newDigest
	for range 8 {
		d = d.addByte(byte(seed))
		seed >>= 8
	}
	return voice(d.add(root))
}

// vary returns the voice for a request's own seed and one of its choices.
func (v voice) vary(seed *int64, choice int) voice {
	d := digest(v)
	if seed != nil {
		d = (d ^ digest(*seed)).addByte('s')
	}
	if choice > 0 {
		d = (d ^ digest(choice)).addByte('n')
	}
	return voice(d)
}

// answer is a finished generation. The scheduler then releases it token by token.
type answer struct {
	text   string
	ends   []int  // for each token, how much of text is visible with it; an end-of-text token adds nothing
	finish string // stop or length
	stop   string // the stop string that was hit
	prompt int    // which of the request's prompts it answers
}

// piece is what token i adds to the visible text.
func (a *answer) piece(i int) string {
	if i == 0 {
		return a.text[:a.ends[0]]
	}
	return a.text[a.ends[i-1]:a.ends[i]]
}

// bounds are the limits of a generation.
type bounds struct {
	most, least int // tokens
	ignoreEnd   bool
	stops       []string
	keepStop    bool // show the stop string itself
}

// answer continues text. Where text already ends in what this voice has said, from position from at the earliest, the answer
// is exactly the rest of it.
func (v voice) answer(text string, from int, b bounds) answer {
	said, s := v.resume(text, from)
	w := writer{bounds: b, skip: len(said)}
	for i := 0; !w.done; i++ {
		for token := range tokens(s.sentence(i)) {
			if w.add(token); w.done {
				break
			}
		}
		w.endSentence(i+1 >= s.length)
	}
	return answer{text: string(w.text), ends: w.ends, finish: w.finish, stop: w.stop}
}

// writer collects the tokens of an answer up to its bounds.
type writer struct {
	bounds
	skip         int // bytes of the script that were said before
	text         []byte
	ends         []int
	finish, stop string
	done         bool
}

func (w *writer) add(token string) {
	if w.skip >= len(token) {
		w.skip -= len(token)
		return
	}
	token = token[w.skip:]
	w.skip = 0
	before := len(w.text)
	w.text = append(w.text, token...)
	w.ends = append(w.ends, len(w.text))
	for _, stop := range w.stops {
		start := max(0, before-len(stop)+1)
		at := bytes.Index(w.text[start:], []byte(stop))
		if at < 0 {
			continue
		}
		end := start + at
		if w.keepStop {
			end += len(stop)
		}
		w.cut(end)
		w.finish, w.stop, w.done = "stop", stop, true
		return
	}
	if len(w.ends) >= w.most {
		w.finish, w.done = "length", true
	}
}

// cut hides the text from end on. The tokens that wrote it still count.
func (w *writer) cut(end int) {
	w.text = w.text[:end]
	for i := range w.ends {
		w.ends[i] = min(w.ends[i], end)
	}
}

func (w *writer) endSentence(last bool) {
	if w.done || !last || w.skip > 0 || w.ignoreEnd || len(w.ends) < w.least {
		return
	}
	w.ends = append(w.ends, len(w.text))
	w.finish, w.done = "stop", true
}

// script is an endless text for one point of one prompt. The natural answer is its first length sentences.
type script struct {
	seed    digest
	prompt  string
	opening string // the pattern of the first sentence
	length  int
}

// resume splits text into a prompt and what was said after it: it looks for the earliest point, from position from on, whose
// script begins with the rest of text. Without one, the prompt is all of text. The earliest is the right one: a point that
// matches a longer text matched the shorter one too, so the run that wrote the text had the same choice and took the same.
func (v voice) resume(text string, from int) (said string, s script) {
	d := digest(v).add(text[:from])
	for at := from; at < len(text); at++ {
		if opens(text, at) {
			if s := newScript(d, text[:at]); s.begins(text[at:]) {
				return text[at:], s
			}
		}
		d = d.addByte(text[at])
	}
	return "", newScript(d, text)
}

// opens tells whether a script might begin at a position: with a space, but not on a fresh line, and then a capital. It only
// saves the closer look at most positions.
func opens(text string, at int) bool {
	if !freshLine(text[:at]) {
		if text[at] != ' ' {
			return false
		}
		at++
	}
	return at == len(text) || 'A' <= text[at] && text[at] <= 'Z'
}

func freshLine(prompt string) bool { return prompt == "" || strings.HasSuffix(prompt, "\n") }

func newScript(d digest, prompt string) script {
	opening := openings[d.mix()%uint64(len(openings))]
	if freshLine(prompt) {
		opening = opening[1:]
	}
	return script{seed: d, prompt: prompt, opening: opening, length: 2 + int(d.addByte('#').mix()%5)}
}

// begins tells whether said is the beginning of the script.
func (s script) begins(said string) bool {
	fixed, _, _ := strings.Cut(s.opening, "$")
	if n := min(len(fixed), len(said)); fixed[:n] != said[:n] {
		return false
	}
	for i := 0; ; i++ {
		next := s.sentence(i)
		if len(said) <= len(next) {
			return strings.HasPrefix(next, said)
		}
		if !strings.HasPrefix(said, next) {
			return false
		}
		said = said[len(next):]
	}
}

// stride has no factor in common with the number of patterns, so that none comes back before all were used.
const stride = 3

// sentence fills the blanks of a pattern.
func (s script) sentence(i int) string {
	pattern := s.opening
	if i > 0 {
		pattern = patterns[(s.seed.mix()+uint64(i)*stride)%uint64(len(patterns))]
	}
	d := (s.seed ^ digest(i)).addByte('.')
	draw := func(from []string) string {
		d = d.addByte('+')
		return from[d.mix()%uint64(len(from))]
	}
	topics := topics(s.prompt)
	var out strings.Builder
	for part := range strings.SplitSeq(pattern, "$") {
		switch {
		case part == "t" && len(topics) > 0:
			out.WriteString(draw(topics))
		case blanks[part] != nil:
			out.WriteString(draw(blanks[part]))
		default:
			out.WriteString(part)
		}
	}
	return out.String()
}

// topicReach is how far back in a prompt the topics are looked for, in bytes.
const topicReach = 400

// topics are the last few words of a prompt that carry some meaning, in lower case.
func topics(prompt string) []string {
	tail := prompt[max(0, len(prompt)-topicReach):]
	words := strings.FieldsFunc(tail, func(r rune) bool { return !unicode.IsLetter(r) })
	var found []string
	for i := len(words) - 1; i >= 0 && len(found) < 4; i-- {
		word := strings.ToLower(words[i])
		if n := utf8.RuneCountInString(word); n >= 4 && n <= 16 && !dull[word] && utf8.ValidString(word) {
			found = append(found, word)
		}
	}
	return found
}
