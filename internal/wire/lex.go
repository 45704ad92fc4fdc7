package wire

import (
	"encoding/binary"
	"math/bits"
)

// maxDepth is how many objects and arrays may stand open at once. One machine word of bits remembers which is which.
const maxDepth = 64

// flaw is a reason why bytes are not the JSON that this package accepts.
type flaw uint8

const (
	sound flaw = iota
	flawEnd
	flawValue
	flawName
	flawColon
	flawNext
	flawControl
	flawEscape
	flawUTF8
	flawNumber
	flawLiteral
	flawDepth
	flawTrailing
)

// lexer walks over one JSON document in one pass and decodes nothing.
//
// Errors stick: after the first flaw every method does nothing, and flaw and i tell what is wrong and where.
type lexer struct {
	b     []byte
	i     int  // the next byte
	depth int  // objects and arrays that stand open
	lax   bool // accept bytes that are not UTF-8 inside strings
	flaw  flaw
}

// fail notes the first flaw and its place.
func (l *lexer) fail(f flaw, at int) {
	if l.flaw == sound {
		l.flaw, l.i = f, at
	}
}

// refuse notes that the byte at l.i is not what f asks for, or that the input ends there.
func (l *lexer) refuse(f flaw) {
	if l.i >= len(l.b) {
		f = flawEnd
	}
	l.fail(f, l.i)
}

// peek skips white space and returns the next byte without taking it; 0 at the end of the input.
func (l *lexer) peek() byte {
	for l.i < len(l.b) {
		c := l.b[l.i]
		if c > ' ' || !isSpace(c) {
			return c
		}
		l.i++
	}
	return 0
}

func isSpace(c byte) bool { return c == ' ' || c == '\n' || c == '\r' || c == '\t' }

// begin takes the opening bracket and reports whether a first member or element follows. An empty one is taken whole.
func (l *lexer) begin(open byte) bool {
	if l.flaw != sound {
		return false
	}
	if l.peek() != open {
		l.refuse(flawValue)
		return false
	}
	if l.depth == maxDepth {
		l.fail(flawDepth, l.i)
		return false
	}
	l.depth++
	l.i++
	if l.peek() == closing(open) {
		l.depth--
		l.i++
		return false
	}
	return true
}

// more stands after a member or element: it takes the comma and reports true, or takes the closing bracket and reports false.
func (l *lexer) more(open byte) bool {
	if l.flaw != sound {
		return false
	}
	switch l.peek() {
	case ',':
		l.i++
		return true
	case closing(open):
		l.depth--
		l.i++
	default:
		l.refuse(flawNext)
	}
	return false
}

// closing gives the bracket that ends what open began: in ASCII both pairs stand two apart.
func closing(open byte) byte { return open + 2 }

// key takes a member's name and its colon. It returns the bytes between the quotes, as they are spelled.
func (l *lexer) key() (raw []byte, escaped bool) {
	if l.flaw != sound {
		return nil, false
	}
	if l.peek() != '"' {
		l.refuse(flawName)
		return nil, false
	}
	raw, escaped = l.str()
	if l.flaw != sound {
		return nil, false
	}
	if l.peek() != ':' {
		l.refuse(flawColon)
		return nil, false
	}
	l.i++
	return raw, escaped
}

// str takes the string that begins at l.i and returns the bytes between its quotes.
func (l *lexer) str() (raw []byte, escaped bool) {
	start := l.i + 1
	end, escaped, f := quote(l.b, start, l.lax)
	if f != sound {
		l.fail(f, end)
		return nil, false
	}
	l.i = end + 1
	return l.b[start:end], escaped
}

// value takes one value of any kind and returns where it stands.
func (l *lexer) value() Span {
	l.peek()
	start := l.i
	l.skip()
	return Span{start, l.i}
}

// skip takes one value of any kind, however deep. It keeps no stack: bit k of objects tells whether level k is an object.
func (l *lexer) skip() {
	if l.flaw != sound {
		return
	}
	base := l.depth
	var objects uint64
	for {
		switch c := l.peek(); {
		case c == '"':
			l.str()
		case c == '{' || c == '[':
			if l.begin(c) {
				object := uint64(c>>5) & 1 // '{' is 0x7b, '[' is 0x5b
				objects = objects<<1 | object
				if object != 0 {
					l.key()
				}
				if l.flaw != sound {
					return
				}
				continue
			}
		default:
			if l.depth > base && objects&1 == 0 {
				l.i = vector(l.b, l.i)
				c = l.peek()
			}
			l.scalar(c)
		}
		for { // A value has ended: so may what holds it.
			if l.flaw != sound || l.depth == base {
				return
			}
			if objects&1 != 0 {
				if l.more('{') {
					l.key()
					break
				}
			} else if l.more('[') {
				break
			}
			objects >>= 1
		}
		if l.flaw != sound {
			return
		}
	}
}

// scalar takes a number or one of the three literals; c is its first byte.
func (l *lexer) scalar(c byte) {
	switch c {
	case 't':
		l.literal("true")
	case 'f':
		l.literal("false")
	case 'n':
		l.literal("null")
	case '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
		end, f := number(l.b, l.i)
		if f != sound {
			l.fail(f, end)
			return
		}
		l.i = end
	default:
		l.refuse(flawValue)
	}
}

func (l *lexer) literal(word string) {
	rest := l.b[l.i:]
	if len(rest) >= len(word) && string(rest[:len(word)]) == word {
		l.i += len(word)
		return
	}
	l.fail(flawLiteral, l.i)
}

// end makes sure that nothing but white space is left.
func (l *lexer) end() {
	if l.flaw == sound && (l.peek() != 0 || l.i < len(l.b)) {
		l.fail(flawTrailing, l.i)
	}
}

// number returns the end of the JSON number that begins at b[i], by RFC 8259 section 6. On a flaw it returns the flaw's place.
func number(b []byte, i int) (end int, f flaw) {
	if i < len(b) && b[i] == '-' {
		i++
	}
	switch {
	case i >= len(b):
		return i, flawEnd
	case b[i] == '0':
		i++
	default:
		start := i
		if i = digits(b, i); i == start {
			return i, flawNumber
		}
	}
	if i < len(b) && b[i] == '.' {
		start := i + 1
		if i = digits(b, start); i == start {
			return i, flawNumber
		}
	}
	if i < len(b) && b[i]|0x20 == 'e' {
		i++
		if i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		start := i
		if i = digits(b, start); i == start {
			return i, flawNumber
		}
	}
	return i, sound
}

// vector hops over numbers in an array, each with its comma, up to one that something else follows. Embeddings and
// prompts of tokens are nearly nothing else.
func vector(b []byte, i int) int {
	for {
		end, f := number(b, i)
		if f != sound || end == len(b) || b[end] != ',' {
			return i
		}
		if end++; end < len(b) && b[end] == ' ' {
			end++
		}
		if end == len(b) || b[end] != '-' && (b[end] < '0' || b[end] > '9') {
			return i
		}
		i = end
	}
}

// digits returns the end of the run of decimal digits from i on.
func digits(b []byte, i int) int {
	for len(b)-i >= 8 {
		w := binary.LittleEndian.Uint64(b[i:])
		// A byte below '0' borrows and a byte above '9' carries into its high bit; the lowest mark is exact.
		m := (w - '0'*ones | (w + (0x80-'9'-1)*ones) | w) & highs
		if m != 0 {
			return i + bits.TrailingZeros64(m)/8
		}
		i += 8
	}
	for i < len(b) && '0' <= b[i] && b[i] <= '9' {
		i++
	}
	return i
}
