package wire

import (
	"encoding/binary"
	"math/bits"
	"unicode/utf16"
	"unicode/utf8"
)

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
			if i+1 < len(b) && isEscape[b[i+1]] {
				i += 2
				continue
			}
			if i+2 > len(b) || b[i+1] != 'u' {
				return i, escaped, flawEscape
			}
			if _, ok := hex4(b[i+2:]); !ok {
				return i, escaped, flawEscape
			}
			i += 6
		case c < ' ':
			return i, escaped, flawControl
		case lax:
			i = text(b, i)
		default:
			var ok bool
			if i, ok = runes(b, i); !ok {
				return i, escaped, flawUTF8
			}
		}
	}
}

// text returns the end of the run of bytes that are not ASCII.
func text(b []byte, i int) int {
	for i < len(b) && b[i] >= utf8.RuneSelf {
		i++
	}
	return i
}

// isEscape knows the bytes that make an escape of two behind a backslash.
var isEscape = [256]bool{'"': true, '\\': true, '/': true, 'b': true, 'f': true, 'n': true, 'r': true, 't': true}

const (
	ones  = 0x0101010101010101
	highs = 0x80 * ones
)

// The masks of hop are variables because the compiler keeps those in registers; constants it writes out again at each use, and
// the loop takes a quarter more time.
var maskQuote, maskBackslash, maskHigh uint64 = 0x02 * ones, 0x5c * ones, highs

// hop returns the place of the first byte from i on that may not be hopped over in a string, or len(b): a quote, a backslash, a control
// character, anything that is not ASCII.
//
// It looks at two words of eight bytes at once. A byte below k, and no other ASCII byte, sets its high bit when k is subtracted (a
// borrow from the byte below can only set more, so the lowest mark is exact). Exclusive-or with the backslash makes that one zero;
// exclusive-or with 2 brings the quote (0x22) down to 0x20, right above the control characters, so that both need one subtraction.
func hop(b []byte, i int) int {
	mq, mb, mh := maskQuote, maskBackslash, maskHigh
	for ; i <= len(b)-16; i += 16 {
		pair := b[i : i+16]
		v, w := binary.LittleEndian.Uint64(pair), binary.LittleEndian.Uint64(pair[8:])
		low := ((mq ^ v) - 0x21*ones) | ((mb ^ v) - ones) | v
		high := ((mq ^ w) - 0x21*ones) | ((mb ^ w) - ones) | w
		if (low|high)&mh == 0 {
			continue
		}
		if low &= mh; low != 0 {
			return i + bits.TrailingZeros64(low)/8
		}
		return i + 8 + bits.TrailingZeros64(high&mh)/8
	}
	for ; i < len(b); i++ {
		if c := b[i]; c == '"' || c == '\\' || c < ' ' || c >= utf8.RuneSelf {
			return i
		}
	}
	return len(b)
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

// runes returns the end of the run of UTF-8 sequences of two to four bytes that begins at b[i]. It is not ok at one that is not valid
// (RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF).
func runes(b []byte, i int) (end int, ok bool) {
	for i < len(b) && b[i] >= utf8.RuneSelf {
		// Two sequences of three bytes at once: most of the world's scripts, and the densest. The two leads whose second byte has
		// narrower bounds (0xe0, 0xed) are left to the slow way.
		for len(b)-i >= 8 {
			w := binary.LittleEndian.Uint64(b[i:])
			const narrow = 1<<0x0 | 1<<0xd
			if w&0xc0c0f0_c0c0f0 != 0x8080e0_8080e0 || (1<<(w&0xf)|1<<(w>>24&0xf))&narrow != 0 {
				break
			}
			i += 6
		}
		if i == len(b) || b[i] < utf8.RuneSelf {
			break
		}
		r, n := utf8.DecodeRune(b[i:])
		if r == utf8.RuneError && n < 2 {
			return i, false
		}
		i += n
	}
	return i, true
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
