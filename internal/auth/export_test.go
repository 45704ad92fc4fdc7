package auth

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
