package auth

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"time"
)

// WithChecksum makes a key of what comes before its checksum.
func WithChecksum(text string) string { return text + checksum(text) }

// LimitNonces bounds how many nonces are remembered, of all keys and of one.
func (k *Keys) LimitNonces(all, one int) { k.nonces.limit, k.nonces.ofKey = all, one }

// Remembered is how many verdicts a cache holds.
func Remembered(v Validator) int {
	c := v.(*cache)
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.known) != c.accepted.Len()+c.refused.Len() {
		return -1 << 30
	}
	return len(c.known)
}

// Earlier is the snapshot of the version that knew neither books nor positions, with the keys of this one.
func (k *Keys) Earlier(content []byte) []byte {
	h, _, err := k.head(bytes.NewReader(content))
	if err != nil {
		panic(err)
	}
	key, body := k.Peppers.version(int(h.pepper)).file, content[headLength:]
	m := hmac.New(sha256.New, key)
	_, _ = m.Write(body)
	h.earlier, h.mac = true, [macLength]byte(m.Sum(nil))
	return append(h.bytes(key), body...)
}

// Stamped is the snapshot as if it had been confirmed then, at this position.
func (k *Keys) Stamped(content []byte, confirmed time.Time, position int64) []byte {
	h, key, err := k.head(bytes.NewReader(content))
	if err != nil {
		panic(err)
	}
	h.confirmed, h.position = confirmed.UnixMilli(), position
	return append(h.bytes(key), content[headLength:]...)
}
