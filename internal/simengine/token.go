package simengine

import (
	"errors"
	"iter"
	"math/bits"
	"unicode/utf8"
)

// maxToken is the length of the longest token in bytes. English comes to about four bytes a token with it.
const maxToken = 6

var errBadToken = errors.New("not a token of this model")

// tokens splits text into word pieces: a space after something else begins a token, a newline ends one, and no token is
// longer than maxToken bytes or splits a rune. So the tokens of a text stay what they are when a new word or a piece at a
// token's end is added.
func tokens(text string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for len(text) > 0 {
			n := tokenLen(text)
			if !yield(text[:n]) {
				return
			}
			text = text[n:]
		}
	}
}

func tokenLen(text string) int {
	n := 0
	for n < len(text) {
		if n > 0 && startsToken(text[n-1], text[n]) {
			break
		}
		size := 1
		if text[n] >= utf8.RuneSelf {
			_, size = utf8.DecodeRuneInString(text[n:])
		}
		if n+size > maxToken {
			break
		}
		n += size
	}
	return n
}

func startsToken(before, at byte) bool {
	return at == ' ' && before != ' ' || before == '\n' && at != '\n'
}

func countTokens(text string) int {
	n := 0
	for range tokens(text) {
		n++
	}
	return n
}

// tokenID numbers a token by its own bytes, behind a leading one bit: every text has ids, and none needs a vocabulary.
func tokenID(token string) uint64 {
	id := uint64(1)
	for i := range len(token) {
		id = id<<8 | uint64(token[i])
	}
	return id
}

// tokenText is the inverse of tokenID.
func tokenText(id uint64) (string, error) {
	width := bits.Len64(id) - 1
	if width < 8 || width%8 != 0 || width > 8*maxToken {
		return "", errBadToken
	}
	text := make([]byte, width/8)
	for i := range text {
		text[i] = byte(id >> (width - 8*(i+1)))
	}
	return string(text), nil
}

// digest is a 64-bit FNV-1a hash that can be read at any point of a text.
type digest uint64

const newDigest digest = 14695981039346656037

func (d digest) add(text string) digest {
	for i := range len(text) {
		d = d.addByte(text[i])
	}
	return d
}

func (d digest) addByte(b byte) digest { return (d ^ digest(b)) * 1099511628211 }

// mix spreads the hash's bits; it is the finalizer of SplitMix64.
func (d digest) mix() uint64 {
	z := uint64(d) + 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// blockDigests returns the number of tokens and a digest for each full block of them. Each digest covers the salt and all
// text before the block's end.
func blockDigests(salt digest, blockSize int, parts ...string) (count int, blocks []uint64) {
	for _, part := range parts {
		for token := range tokens(part) {
			salt = salt.add(token)
			count++
			if count%blockSize == 0 {
				blocks = append(blocks, salt.mix())
			}
		}
	}
	return count, blocks
}
