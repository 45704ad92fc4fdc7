package wire

import (
	"encoding/binary"
	"math/bits"
	"unicode/utf16"
	"unicode/utf8"
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

// quote finds the closing quote of a string whose first byte is b[i], and checks all that stands before it.
// On a flaw it returns the flaw's place.
func quote(b []byte, i int, lax bool) (end int, escaped bool, f flaw) {
	for {
		i = hop(b, i)
		if i >= len(b) {
			return len(b), escaped, flawEnd
		}
		switch c := b[i]; {
		case c == '"':
			return i, escaped, sound
		case c == '\\':
			escaped = true
			n := escapeLen(b[i:])
			if n == 0 {
				return i, escaped, flawEscape
			}
			i += n
		case c < ' ':
			return i, escaped, flawControl
		case lax:
			i++
		default:
			for i < len(b) && b[i] >= utf8.RuneSelf {
				n := runeLen(b[i:])
				if n == 0 {
					return i, escaped, flawUTF8
				}
				i += n
			}
		}
	}
}

const (
	ones  = 0x0101010101010101
	highs = 0x80 * ones
)

// special marks, with the high bit of its byte, each byte of the eight in w that may not be hopped over in a string: a quote,
// a backslash, a control character, anything not ASCII. Marks above the lowest may be false; the lowest is exact.
//
// Exchanging the second bit brings the quote (0x22) right above the control characters, so that one subtraction finds both.
func special(w uint64) uint64 {
	return ((w ^ 0x02*ones) - 0x21*ones) | ((w ^ 0x5c*ones) - ones) | w
}

// hop returns the place of the first byte from i on that is special in a string, or len(b).
func hop(b []byte, i int) int {
	rest := b[i:]
	for len(rest) >= 8 {
		if m := special(binary.LittleEndian.Uint64(rest)) & highs; m != 0 {
			return len(b) - len(rest) + bits.TrailingZeros64(m)/8
		}
		rest = rest[8:]
		for len(rest) >= 32 {
			m := special(binary.LittleEndian.Uint64(rest)) |
				special(binary.LittleEndian.Uint64(rest[8:])) |
				special(binary.LittleEndian.Uint64(rest[16:])) |
				special(binary.LittleEndian.Uint64(rest[24:]))
			if m&highs != 0 {
				break
			}
			rest = rest[32:]
		}
	}
	for k, c := range rest {
		if c == '"' || c == '\\' || c < ' ' || c >= utf8.RuneSelf {
			return len(b) - len(rest) + k
		}
	}
	return len(b)
}

// escapeLen returns the length of the escape that b begins with; 0 when there is no such escape.
func escapeLen(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	switch b[1] {
	case 'n', '"', '\\', 't', '/', 'r', 'b', 'f':
		return 2
	case 'u':
		if _, ok := hex4(b[2:]); ok {
			return 6
		}
	}
	return 0
}

// hex4 reads the four hexadecimal digits that b begins with.
func hex4(b []byte) (r rune, ok bool) {
	if len(b) < 4 {
		return 0, false
	}
	for _, c := range b[:4] {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c|0x20 && c|0x20 <= 'f':
			c = c | 0x20 - 'a' + 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// runeLen returns the length of the UTF-8 sequence of two to four bytes that b begins with; 0 when it is not valid
// (RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF).
func runeLen(b []byte) int {
	if len(b) >= 3 && b[0]&0xf0 == 0xe0 { // Most of the world's scripts.
		c, d := b[1], b[2]
		if c&0xc0 == 0x80 && d&0xc0 == 0x80 && (b[0] != 0xe0 || c >= 0xa0) && (b[0] != 0xed || c < 0xa0) {
			return 3
		}
		return 0
	}
	if r, n := utf8.DecodeRune(b); r != utf8.RuneError || n > 1 {
		return n
	}
	return 0
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

// unescape appends the meaning of a checked string's raw bytes to dst, as long as dst has room. A surrogate that stands alone becomes
// U+FFFD, as in encoding/json.
func unescape(dst, raw []byte) (text []byte, fits bool) {
	for i := 0; i < len(raw); {
		if len(dst)+utf8.UTFMax > cap(dst) {
			return dst, false
		}
		c := raw[i]
		if c != '\\' {
			dst = append(dst, c)
			i++
			continue
		}
		switch c = raw[i+1]; c {
		case 'u':
			r, _ := hex4(raw[i+2:])
			i += 6
			if utf16.IsSurrogate(r) {
				low, ok := rune(0), false
				if len(raw)-i >= 6 && raw[i] == '\\' && raw[i+1] == 'u' {
					low, ok = hex4(raw[i+2:])
				}
				if r = utf16.DecodeRune(r, low); ok && r != utf8.RuneError {
					i += 6
				}
			}
			dst = utf8.AppendRune(dst, r)
			continue
		case 'n':
			c = '\n'
		case 't':
			c = '\t'
		case 'r':
			c = '\r'
		case 'b':
			c = '\b'
		case 'f':
			c = '\f'
		}
		dst = append(dst, c)
		i += 2
	}
	return dst, true
}
