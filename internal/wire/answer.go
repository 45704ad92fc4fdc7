package wire

import "bytes"

// maxKept is the longest usage object, and the longest name, that an Answer keeps to look at, in bytes. A longer one is as good as absent.
const maxKept = 4 << 10

// Answer reads an answer that is not streamed while it passes by: what it cost, whether it is an error, whether all of it came.
//
// It takes pieces cut anywhere and keeps nothing of them but one name or one usage object at a time. Its memory does not grow with
// the answer. The zero Answer is ready for use.
type Answer struct {
	state   state
	naming  bool   // the string that is being read is a member's name
	hex     uint8  // how many digits a \u escape still wants
	rest    string // of a literal
	depth   int
	objects uint64 // bit k tells whether level k, counted from the innermost one, is an object

	member  member // which top-level member's value is being read
	keeping bool
	kept    []byte

	usage  Usage
	told   bool // usage was there
	failed bool
}

// member is a top-level name that an Answer knows.
type member uint8

const (
	memberOther member = iota
	memberUsage
	memberObject
	memberError
)

// state is the place in JSON's grammar where the next byte stands.
type state uint8

const (
	stateValue   state = iota // A value must come.
	stateElement              // A value or the end of an empty array.
	stateName
	stateFirstName // A name or the end of an empty object.
	stateColon
	stateNext // A comma or the end of what is open.
	stateString
	stateEscape
	stateHex
	stateLiteral
	stateMinus
	stateZero
	stateInteger
	statePoint
	stateFraction
	stateExponent
	stateSign
	statePower
	stateEnd // Nothing more but white space.
	stateBroken
)

// Write reads the next piece. It takes all of it and never fails.
func (a *Answer) Write(p []byte) (int, error) {
	w := pass{Answer: a, p: p}
	for w.i < len(p) && a.state != stateBroken {
		switch {
		case a.state == stateString:
			w.inString()
		case a.state >= stateMinus && a.state <= statePower:
			w.inNumber()
		case a.state >= stateEscape && a.state <= stateLiteral:
			w.inWord(p[w.i])
		case isSpace(p[w.i]):
			w.i++
		default:
			w.structure(p[w.i])
		}
	}
	w.keepTo(len(p))
	return len(p), nil
}

// Usage is what the answer cost, as far as it came. It reports false where the backend gave no account.
func (a *Answer) Usage() (Usage, bool) { return a.usage, a.told }

// Failed reports whether the answer is an error in spite of its status: it has a top-level "error" that is not null, or "object" is "error".
func (a *Answer) Failed() bool { return a.failed }

// Malformed reports whether what came cannot be JSON, whatever may follow. The encoding of text is not looked at.
func (a *Answer) Malformed() bool { return a.state == stateBroken }

// Complete reports whether one whole JSON value came, and nothing but white space after it.
func (a *Answer) Complete() bool {
	return a.state == stateEnd || a.depth == 0 && endsNumber(a.state)
}

// pass is one Write.
type pass struct {
	*Answer
	p    []byte
	i    int // the next byte of p
	from int // where in p that begins which is kept
}

// structure takes a byte that is neither white space nor within a string, a number or a literal.
func (w *pass) structure(c byte) {
	switch {
	case w.state == stateNext && c == ',' && w.depth > 0:
		w.state = stateValue
		if w.objects&1 != 0 {
			w.state = stateName
		}
	case w.state == stateColon && c == ':':
		w.state = stateValue
	case (w.state == stateNext || w.state == stateFirstName) && c == '}' && w.objects&1 != 0,
		(w.state == stateNext || w.state == stateElement) && c == ']' && w.objects&1 == 0 && w.depth > 0:
		w.depth--
		w.objects >>= 1
		w.i++
		w.endValue()
		return
	case (w.state == stateName || w.state == stateFirstName) && c == '"':
		w.state, w.naming = stateString, true
		if w.depth == 1 {
			w.keepFrom(true, w.i+1)
		}
	case w.state == stateValue || w.state == stateElement:
		w.value(c)
		return
	default:
		w.state = stateBroken
	}
	w.i++
}

// value takes the first byte of a value; of a number that is all there, all of it.
func (w *pass) value(c byte) {
	if w.depth == 1 {
		w.failed = w.failed || w.member == memberError && c != 'n'
		w.keepFrom(w.member == memberUsage && c == '{' || w.member == memberObject && c == '"', w.i)
	}
	switch {
	case c == '"':
		w.state, w.naming = stateString, false
	case c == '{':
		w.open(stateFirstName, 1)
	case c == '[':
		w.open(stateElement, 0)
	case c == 't':
		w.state, w.rest = stateLiteral, "rue"
	case c == 'f':
		w.state, w.rest = stateLiteral, "alse"
	case c == 'n':
		w.state, w.rest = stateLiteral, "ull"
	case c == '-' || '0' <= c && c <= '9':
		if w.depth > 0 && w.objects&1 == 0 {
			w.i = vector(w.p, w.i)
		}
		if end, f := number(w.p, w.i); f == sound && end < len(w.p) {
			w.i = end
			w.endValue()
			return
		}
		w.state = step(stateValue, w.p[w.i])
	default:
		w.state = stateBroken
	}
	w.i++
}

func (w *pass) open(next state, object uint64) {
	if w.depth == maxDepth {
		w.state = stateBroken
		return
	}
	w.depth++
	w.objects = w.objects<<1 | object
	w.state = next
}

// endValue stands behind a value.
func (w *pass) endValue() {
	w.state = stateNext
	switch w.depth {
	case 0:
		w.state = stateEnd
	case 1:
		if w.keepTo(w.i) {
			w.conclude()
		}
		w.member = memberOther
	}
}

// conclude looks at a top-level value that was kept.
func (a *Answer) conclude() {
	a.keeping = false
	if a.member == memberUsage {
		a.usage, a.told = parseUsage(a.kept)
		return
	}
	a.failed = a.failed || string(a.kept) == `"error"`
}

// endName stands behind a member's name and its quote.
func (w *pass) endName() {
	w.state = stateColon
	if w.depth > 1 || !w.keepTo(w.i-1) {
		return
	}
	w.keeping = false
	name := w.kept
	var room [maxFolded]byte
	if bytes.IndexByte(name, '\\') >= 0 {
		name, _ = unescape(room[:0], name)
	}
	switch string(name) {
	case "usage":
		w.member = memberUsage
	case "object":
		w.member = memberObject
	case "error":
		w.member = memberError
	}
}

// inString goes on to the end of a string, or to an escape.
func (w *pass) inString() {
	w.i = hop(w.p, w.i)
	if w.i == len(w.p) {
		return
	}
	c := w.p[w.i]
	w.i++
	switch {
	case c == '"' && w.naming:
		w.endName()
	case c == '"':
		w.endValue()
	case c == '\\':
		w.state = stateEscape
	case c < ' ':
		w.state = stateBroken
	}
}

// inWord takes one byte of an escape or of a literal.
func (w *pass) inWord(c byte) {
	w.i++
	switch w.state {
	case stateLiteral:
		if c != w.rest[0] {
			w.state = stateBroken
		} else if w.rest = w.rest[1:]; w.rest == "" {
			w.endValue()
		}
	case stateEscape:
		switch c {
		case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			w.state = stateString
		case 'u':
			w.state, w.hex = stateHex, 4
		default:
			w.state = stateBroken
		}
	default:
		isHex := '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'f'
		if w.hex--; !isHex {
			w.state = stateBroken
		} else if w.hex == 0 {
			w.state = stateString
		}
	}
}

// inNumber takes one byte of a number that was cut, or stands behind it.
func (w *pass) inNumber() {
	next := step(w.state, w.p[w.i])
	if next == stateNext {
		w.endValue()
		return
	}
	w.state = next
	w.i++
}

// step is the grammar of numbers, byte by byte. It gives stateNext when c does not belong to a number that may end here.
func step(s state, c byte) state {
	digit := '0' <= c && c <= '9'
	switch s {
	case stateValue:
		if c == '-' {
			return stateMinus
		}
		fallthrough
	case stateMinus:
		if c == '0' {
			return stateZero
		}
		if digit {
			return stateInteger
		}
	case stateInteger:
		if digit {
			return stateInteger
		}
		fallthrough
	case stateZero:
		if c == '.' {
			return statePoint
		}
		if c|0x20 == 'e' {
			return stateExponent
		}
	case statePoint, stateFraction:
		if digit {
			return stateFraction
		}
		if s == stateFraction && c|0x20 == 'e' {
			return stateExponent
		}
	case stateExponent:
		if c == '+' || c == '-' {
			return stateSign
		}
		fallthrough
	case stateSign, statePower:
		if digit {
			return statePower
		}
	default:
	}
	if endsNumber(s) {
		return stateNext
	}
	return stateBroken
}

// endsNumber reports whether a number may end in this state.
func endsNumber(s state) bool {
	return s == stateZero || s == stateInteger || s == stateFraction || s == statePower
}

// keepFrom begins to keep what passes from p[i] on, if wanted.
func (w *pass) keepFrom(wanted bool, i int) {
	w.keeping, w.from = wanted, i
	w.kept = w.kept[:0]
}

// keepTo keeps what passed up to p[i] and reports whether all of it is kept.
func (w *pass) keepTo(i int) bool {
	if !w.keeping {
		return false
	}
	if len(w.kept)+i-w.from > maxKept {
		w.keeping = false
		return false
	}
	w.kept = append(w.kept, w.p[w.from:i]...)
	w.from = i
	return true
}
