package auth

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"strconv"
	"strings"

	"github.com/ai-aas/api-router/internal/fault"
)

// The headers of a signed request, as messages name them.
const (
	headerSignature = "X-HMAC-Signature"
	headerTimestamp = "X-HMAC-Timestamp"
	headerNonce     = "X-HMAC-Nonce"
)

// The same in net/http's canonical spelling.
const (
	canonicalSignature = "X-Hmac-Signature"
	canonicalTimestamp = "X-Hmac-Timestamp"
	canonicalNonce     = "X-Hmac-Nonce"
)

// How long a nonce may be, in characters.
const (
	minNonce = 16
	maxNonce = 64
)

// Signature is what a signed request says of itself. The zero value is that of one that is not signed.
type Signature struct {
	mac              [sha256.Size]byte
	timestamp, nonce string
	stamp            int64 // Unix seconds
}

// Signed reports whether there is one.
func (s *Signature) Signed() bool { return s.nonce != "" }

// ParseSignature reads the headers X-HMAC-Signature (HMAC-SHA256, in hexadecimal digits or base64), X-HMAC-Timestamp (Unix seconds) and
// X-HMAC-Nonce (16 to 64 of A-Z a-z 0-9 . _ ~ + / = -). All three belong together; none of them is an unsigned request. An error is the
// fault invalid_signature, or ambiguous_request for a header that is there twice.
func ParseSignature(h http.Header) (Signature, error) {
	var texts [3]string
	present := 0
	for i, header := range [...]struct{ key, name string }{
		{canonicalSignature, headerSignature}, {canonicalTimestamp, headerTimestamp}, {canonicalNonce, headerNonce},
	} {
		values := h[header.key]
		if len(values) > 1 {
			return Signature{}, fault.Newf(fault.AmbiguousRequest, "the header %s is there more than once; send one signature", header.name).WithParam(header.name)
		}
		if len(values) == 1 {
			texts[i] = values[0]
			present++
		}
	}
	switch present {
	case 0:
		return Signature{}, nil
	case len(texts):
	default:
		return Signature{}, invalidSignature("a signed request has all of X-HMAC-Signature, X-HMAC-Timestamp and X-HMAC-Nonce", headerSignature)
	}
	s := Signature{timestamp: texts[1], nonce: texts[2]}
	var ok bool
	if s.mac, ok = parseMAC(texts[0]); !ok {
		return Signature{}, invalidSignature("the signature is not an HMAC-SHA256 in hexadecimal digits or base64", headerSignature)
	}
	var err error
	if s.stamp, err = strconv.ParseInt(s.timestamp, 10, 64); err != nil || s.stamp < 0 || s.timestamp != strconv.FormatInt(s.stamp, 10) {
		return Signature{}, invalidSignature("the timestamp is not a whole number of seconds since 1970", headerTimestamp)
	}
	if !goodNonce(s.nonce) {
		return Signature{}, invalidSignature("a nonce has 16 to 64 letters, digits or characters of . _ ~ + / = -", headerNonce)
	}
	return s, nil
}

func parseMAC(text string) (mac [sha256.Size]byte, ok bool) {
	if len(text) == hex.EncodedLen(len(mac)) {
		_, err := hex.Decode(mac[:], []byte(text))
		return mac, err == nil
	}
	content, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || len(content) != len(mac) {
		return mac, false
	}
	return [sha256.Size]byte(content), true
}

func goodNonce(nonce string) bool {
	if len(nonce) < minNonce || len(nonce) > maxNonce {
		return false
	}
	for i := range len(nonce) {
		if digits[nonce[i]] < 0 && !strings.ContainsRune("._~+/=-", rune(nonce[i])) {
			return false
		}
	}
	return true
}

func invalidSignature(message, param string) error {
	return fault.New(fault.InvalidSignature, message+"; see docs/keys.md for what is signed").WithParam(param)
}

func late() error {
	return invalidSignature("the timestamp is more than 300 seconds away from this router's clock: sign each request when it is sent", headerTimestamp)
}

// Sign is the signature of a request: HMAC-SHA256, under the bytes of the secret as it is written, over the timestamp, the nonce, the method,
// the path as it is sent without what follows a "?", and the SHA-256 of the body in lower-case hexadecimal digits, with a line feed between
// each two of them.
func Sign(secret Secret, timestamp, nonce, method, path string, body []byte) [sha256.Size]byte {
	digest := sha256.Sum256(body)
	var sum [sha256.Size * 2]byte
	hex.Encode(sum[:], digest[:])
	text := make([]byte, 0, len(timestamp)+len(nonce)+len(method)+len(path)+len(sum)+4)
	for _, part := range [...]string{timestamp, nonce, method, path} {
		text = append(append(text, part...), '\n')
	}
	text = append(text, sum[:]...)
	mac := hmac.New(sha256.New, []byte(secret.text))
	_, _ = mac.Write(text)
	return [sha256.Size]byte(mac.Sum(nil))
}

// Due says, before a body is read, whether a request of p comes with what its key asks for. Its error is invalid_signature.
func (s *Signature) Due(p *Principal) error {
	switch wanted := p.Held().Signature; {
	case !s.Signed() && wanted == SignatureRequired:
		return invalidSignature("requests with this key must be signed, and this one is not", headerSignature)
	case s.Signed() && wanted == "":
		return invalidSignature("this key has no secret to sign requests with, and this one is signed: whether it is whole cannot be told", headerSignature)
	}
	return nil
}

// Verify checks the signature of a request of p, whose body is whole. An unsigned one passes: Due has said whether it may. The error is
// invalid_signature for a signature that is wrong, too old, too new, or used before in this process; rate_limit_exceeded or
// identity_unavailable where no nonce can be remembered any more, or where the secret cannot be had.
func (k *Keys) Verify(p *Principal, s *Signature, method, path string, body []byte) error {
	if !s.Signed() {
		return nil
	}
	id, ok := fixed(p.KeyID)
	if !ok || p.Source != SourceState {
		return invalidSignature("this key has no secret to sign requests with", headerSignature)
	}
	if off := s.stamp - k.nonces.now(); off > int64(signatureWindow.Seconds()) || off < -int64(signatureWindow.Seconds()) {
		return late()
	}
	sealed := k.table.Load().secret(id)
	if sealed == nil {
		return invalidSignature("this key has no secret to sign requests with", headerSignature)
	}
	secret, err := k.Peppers.Unseal(p.KeyID, sealed)
	if err != nil {
		return unavailable("the signature cannot be checked, because this router cannot read the key's signing secret; ask the operator").WithCause(err)
	}
	if want := Sign(secret, s.timestamp, s.nonce, method, path, body); !hmac.Equal(want[:], s.mac[:]) {
		return invalidSignature("the signature is wrong: what was signed is not what came, or the secret is another", headerSignature)
	}
	return k.nonces.use(id, s.nonce, s.stamp)
}
