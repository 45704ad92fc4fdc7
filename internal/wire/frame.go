package wire

// frame is one event's data, read in one pass.
type frame struct {
	lexer
	usage  Span // the usage object
	cut    Span // what to take out to be rid of the usage member, null or not
	fault  Span // the error, when it is not null
	object bool // "object" says that all of it is an error
	empty  bool // choices is an array without elements
	room   [maxFolded]byte
}

// note is what one event says of one choice.
type note struct {
	index   int64
	reason  Span // finish_reason with its quotes, when it is a string that is not empty
	content bool
}

// read takes the whole object and appends what it says of choices to notes. It reports whether the data is one valid object.
func (f *frame) read(kind Kind, notes []note) ([]note, bool) {
	for more := f.begin('{'); more; more = f.more('{') {
		before := f.i - 1
		f.peek()
		start := f.i
		switch key := f.name(); string(key) {
		case "choices":
			notes = f.choices(kind, notes)
		case "usage":
			if f.cut != (Span{}) {
				return notes, false // Which one is meant? What is cut once would still be there.
			}
			at := f.value()
			if f.is(at, '{') {
				f.usage = at
			}
			f.cut = f.member(before, start, at.End)
		case "error":
			if at := f.value(); !f.is(at, 'n') {
				f.fault = at
			}
		case "object":
			at := f.value()
			f.object = string(f.b[at.Start:at.End]) == `"error"`
		default:
			f.skip()
		}
	}
	f.end()
	return notes, f.flaw == sound
}

// name takes a member's name and its colon and returns what the name means.
func (f *frame) name() []byte {
	key, escaped := f.key()
	if escaped {
		key, _ = unescape(f.room[:0], key) // One that does not fit is none of ours, and neither is its beginning.
	}
	return key
}

// is reports whether a value begins with c.
func (l *lexer) is(at Span, c byte) bool { return at.Start < at.End && l.b[at.Start] == c }

// member returns the span of the member that begins at start and ends at end, with the comma and the space that separate it.
func (f *frame) member(before, start, end int) Span {
	if f.peek() == ',' {
		for end = f.i + 1; end < len(f.b) && isSpace(f.b[end]); {
			end++
		}
	} else if f.b[before] == ',' {
		start = before
	}
	return Span{start, end}
}

func (f *frame) choices(kind Kind, notes []note) []note {
	if f.peek() != '[' {
		f.skip()
		return notes
	}
	more := f.begin('[')
	f.empty = !more
	for ; more; more = f.more('[') {
		if f.peek() != '{' {
			f.skip()
			continue
		}
		notes = append(notes, f.choice(kind))
	}
	return notes
}

func (f *frame) choice(kind Kind) (n note) {
	for more := f.begin('{'); more; more = f.more('{') {
		switch key := f.name(); string(key) {
		case "index":
			f.tokens(&n.index)
		case "finish_reason":
			if at := f.value(); f.is(at, '"') && at.End-at.Start > 2 {
				n.reason = at
			}
		case "text":
			n.content = f.filled() && kind == Completion || n.content
		case "delta":
			n.content = f.delta() || n.content
		default:
			f.skip()
		}
	}
	return n
}

// delta takes a chat's delta and reports whether it carries anything of the answer.
func (f *frame) delta() (content bool) {
	if f.peek() != '{' {
		f.skip()
		return false
	}
	for more := f.begin('{'); more; more = f.more('{') {
		switch key := f.name(); string(key) {
		case "content", "reasoning_content", "reasoning", "refusal", "tool_calls", "function_call", "audio":
			content = f.filled() || content
		default:
			f.skip()
		}
	}
	return content
}

// filled takes a value and reports whether it is a string, an array or an object that is not empty.
func (f *frame) filled() bool {
	at := f.value()
	return at.End-at.Start > 2 && (f.is(at, '"') || f.is(at, '[') || f.is(at, '{'))
}
