package auth

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"strings"
)

// The parts of a key: ar_IIIIIIII_RRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRCCCCCC, with the id, 190 random bits, and the CRC32 (IEEE) of all before it.
const (
	keyPrefix  = "ar_"
	idLength   = 8
	randLength = 32
	sumLength  = 6

	idStart   = len(keyPrefix)
	idEnd     = idStart + idLength
	sumStart  = idEnd + 1 + randLength
	keyLength = sumStart + sumLength
)

// The parts of a secret that requests are signed with: ars_ and 43 characters, 256 random bits.
const (
	signingPrefix = "ars_"
	signingLength = 43
)

// alphabet are the digits of base62, in the order of their values.
const alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// digits gives the value of each digit, and -1 for what is none.
var digits = func() (values [256]int8) {
	for i := range values {
		values[i] = int8(strings.IndexByte(alphabet, byte(i)))
	}
	return values
}()

// Secret is a text that must not be printed: a key, an admin's token, or what requests are signed with. Whatever prints it, by any verb or as JSON, shows a
// mask, which of a key has the id. Reveal alone gives the text.
type Secret struct{ text string }

// Reveal is the secret itself, for the one place where it is shown or used.
func (s Secret) Reveal() string { return s.text }

// ID is the id in a key or in the token of an admin, "" in any other secret.
func (s Secret) ID() string {
	if !WellFormed(s.text) {
		return strings.Clone(adminID(s.text))
	}
	return strings.Clone(s.text[idStart:idEnd])
}

// String is the mask: ar_XXXXXXXX_… of a key, ara_XXXXXXXX_… of an admin's token.
func (s Secret) String() string {
	switch {
	case WellFormed(s.text):
		return s.text[:idEnd+1] + "…"
	case adminID(s.text) != "":
		return s.text[:len(adminPrefix)+idLength+1] + "…"
	}
	return "…"
}

// Format implements fmt.Formatter: no verb prints the secret.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// LogValue implements slog.LogValuer.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText implements encoding.TextMarshaler, with the mask.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// NewKey makes a key from the system's random source.
func NewKey() Secret { return newSecret(keyPrefix) }

// newSecret is one of the form of keys, with this prefix.
func newSecret(prefix string) Secret {
	text := prefix + NewKeyID() + "_" + random(randLength)
	return Secret{text + checksum(text)}
}

// NewKeyID makes the id of a key, for one of which only a fingerprint is known.
func NewKeyID() string { return random(idLength) }

// NewSigningSecret makes a secret that requests are signed with. It is used as it is written: its bytes are the key of the HMAC.
func NewSigningSecret() Secret { return Secret{signingPrefix + random(signingLength)} }

// ErrNotKey says that a text is not a key. It does not repeat the text.
var ErrNotKey = errors.New("it is not a key: a key is ar_, eight characters, _, and 38 more, of which the last six are a checksum")

// ParseKey reads a key. It does no I/O: whether anybody knows the key is another question.
func ParseKey(text string) (Secret, error) {
	if !WellFormed(text) {
		return Secret{}, ErrNotKey
	}
	return Secret{text}, nil
}

// WellFormed reports whether text has the form of a key, with the right checksum. It allocates nothing.
func WellFormed(text string) bool { return wellFormed(text, keyPrefix) }

// wellFormed is WellFormed for what begins with prefix.
func wellFormed(text, prefix string) bool {
	more := len(prefix) - idStart // by which everything stands further than in a key
	if len(text) != keyLength+more || text[:len(prefix)] != prefix || text[idEnd+more] != '_' {
		return false
	}
	crc := ^uint32(0)
	for i := range sumStart + more { // crc32.ChecksumIEEE would have the text in another piece of memory.
		if i >= len(prefix) && i != idEnd+more && digits[text[i]] < 0 {
			return false
		}
		crc = crc32.IEEETable[byte(crc)^text[i]] ^ crc>>8
	}
	var sum uint64
	for i := sumStart + more; i < len(text); i++ {
		value := digits[text[i]]
		if value < 0 {
			return false
		}
		sum = sum*uint64(len(alphabet)) + uint64(value)
	}
	return sum == uint64(^crc)
}

// ours reports whether text wants to be a key of this router. No other credential may begin so.
func ours(text string) bool { return strings.HasPrefix(text, keyPrefix) }

// checksum is the last part of a key that begins with text.
func checksum(text string) string {
	var sum [sumLength]byte
	rest := crc32.ChecksumIEEE([]byte(text))
	for i := sumLength - 1; i >= 0; i-- {
		sum[i] = alphabet[rest%uint32(len(alphabet))]
		rest /= uint32(len(alphabet))
	}
	return string(sum[:])
}

// random is n digits, each as likely as every other.
func random(n int) string {
	const fair = 256 / len(alphabet) * len(alphabet) // A byte from here on would make the first digits likelier.
	text := make([]byte, 0, n)
	var more [64]byte
	for {
		_, _ = rand.Read(more[:]) // It never fails: the process ends where there is no randomness.
		for _, b := range more {
			if int(b) < fair {
				if text = append(text, alphabet[int(b)%len(alphabet)]); len(text) == n {
					return string(text)
				}
			}
		}
	}
}

// ParseFingerprint reads the plain SHA-256 of a credential as another service keeps it: 64 hexadecimal digits, or base64 of either alphabet,
// with or without padding. A prefix "sha256:" is passed over. The error does not repeat the text.
func ParseFingerprint(text string) (Digest, error) {
	text = strings.TrimPrefix(strings.TrimSpace(text), "sha256:")
	var d Digest
	if len(text) == hex.EncodedLen(sha256.Size) {
		if _, err := hex.Decode(d[:], []byte(text)); err == nil {
			return d, nil
		}
	}
	plain := strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(text, "="))
	if content, err := base64.RawStdEncoding.Strict().DecodeString(plain); err == nil && len(content) == sha256.Size {
		return Digest(content), nil
	}
	return Digest{}, errors.New("it is not a SHA-256: write 64 hexadecimal digits, or base64 of 32 bytes")
}

// Fingerprint is what ParseFingerprint reads: the plain SHA-256 of a credential.
func Fingerprint(credential string) Digest { return sha256.Sum256([]byte(credential)) }
