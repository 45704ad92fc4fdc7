package upstream

import (
	"bytes"
	"io"
)

const (
	// maxExtensions bounds the chunk extensions of one answer, in bytes. They are never used.
	maxExtensions = 1 << 10
	// maxTrailer bounds what may follow the last chunk, in bytes. It is never used either.
	maxTrailer = 4 << 10
	// maxSizeDigits keeps a chunk's size within 60 bits.
	maxSizeDigits = 15
)

// chunkSize reads a chunk's first line at the beginning of b: the size in hexadecimal, and extensions to skip.
// used is the length of the line, 0 when its end has not come yet.
func chunkSize(b []byte) (size int64, extension, used int, err error) {
	i := 0
	for ; i < len(b); i++ {
		digit := hexDigit(b[i])
		if digit < 0 {
			break
		}
		if i == maxSizeDigits {
			return 0, 0, 0, malformed("a chunk's size has too many digits")
		}
		size = size<<4 | int64(digit)
	}
	if i == len(b) {
		return 0, 0, 0, nil
	}
	digits := i
	if b[i] == ';' {
		for i < len(b) && !isControl(b[i]) {
			i++
		}
	}
	switch {
	case digits == 0:
		return 0, 0, 0, malformed("a chunk without a size")
	case i-digits > maxExtensions:
		return 0, 0, 0, malformed("a chunk's extensions are too long")
	case i == len(b):
		return 0, 0, 0, nil
	case b[i] != '\r' || i+1 < len(b) && b[i+1] != '\n':
		return 0, 0, 0, malformed("a chunk's size")
	case i+1 == len(b):
		return 0, 0, 0, nil
	}
	return size, i - digits, i + 2, nil
}

func hexDigit(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c|0x20 && c|0x20 <= 'f':
		return int(c|0x20-'a') + 10
	}
	return -1
}

// trailerLine checks a line of the trailer at the beginning of b. used is its length, 0 when its end has not come yet.
// The error is io.EOF for the empty line, which is the last one. limit bounds the line's length.
func trailerLine(b []byte, limit int) (used int, err error) {
	end, err := lineEnd(b)
	switch {
	case err != nil:
		return 0, err
	case end > limit || end == 0 && len(b) >= limit:
		return 0, malformed("the trailer is too long")
	case end == 0:
		return 0, nil
	case end == 2:
		return 2, io.EOF
	}
	if _, err := canonize(b[:end]); err != nil {
		return 0, err
	}
	if isFraming(string(b[:bytes.IndexByte(b, ':')])) {
		return 0, malformed("a trailer that would frame the answer")
	}
	return end, nil
}

// lineEnd returns the length of the line at the beginning of b, with its CR LF, or 0.
func lineEnd(b []byte) (int, error) {
	i := bytes.IndexByte(b, '\n')
	switch {
	case i < 0:
		return 0, nil
	case i == 0 || b[i-1] != '\r':
		return 0, malformed("a line of the trailer does not end in CR LF")
	}
	return i + 1, nil
}
