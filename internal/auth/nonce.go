package auth

import (
	"crypto/sha256"
	"sync"
	"time"

	"github.com/ai-aas/api-router/internal/fault"
)

const (
	// signatureWindow is how far a signature's time may be from ours, either way.
	signatureWindow = 300 * time.Second
	// nonceBucket is the grain in which nonces are forgotten: all that end within it go at once.
	nonceBucket = 60 // seconds
	// maxNonces bounds how many are remembered, and maxKeyNonces how many of one key: none may take the place of all others.
	maxNonces    = 1 << 19
	maxKeyNonces = 1 << 17
)

// nonces are those that were used, of every key, for as long as the signature that they came in could be sent again. It takes about 45 bytes for
// each. When there is no room, requests are refused, and none is forgotten early.
type nonces struct {
	mu      sync.Mutex
	buckets map[int64]map[[16]byte]struct{} // by the end of their time, in units of nonceBucket
	perKey  map[keyID]map[int64]int
	total   int
	latest  int64 // the latest time that was seen, in Unix seconds: a clock that goes back brings no forgotten nonce back
	limit   int
	ofKey   int
}

func (n *nonces) init() {
	n.buckets, n.perKey = map[int64]map[[16]byte]struct{}{}, map[keyID]map[int64]int{}
	n.limit, n.ofKey = maxNonces, maxKeyNonces
}

func (n *nonces) size() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.total
}

// now is the present time in Unix seconds, which never goes back.
func (n *nonces) now() int64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.latest = max(n.latest, time.Now().Unix())
	return n.latest
}

// use notes the nonce of a signature that was right and made at stamp. Its error is the refusal of one that was used before, or where there
// is no room.
func (n *nonces) use(id keyID, nonce string, stamp int64) error {
	sum := sha256.Sum256(append(append(make([]byte, 0, idLength+maxNonce), id[:]...), nonce...))
	short := [16]byte(sum[:])
	n.mu.Lock()
	defer n.mu.Unlock()
	n.latest = max(n.latest, time.Now().Unix())
	n.forget()
	if stamp+int64(signatureWindow/time.Second) < n.latest { // It was in time when it was looked at, and is not any more.
		return late()
	}
	for _, bucket := range n.buckets {
		if _, ok := bucket[short]; ok {
			return invalidSignature("this nonce was used before: make a new one for each request", headerNonce)
		}
	}
	mine := n.perKey[id]
	var own int
	for _, of := range mine {
		own += of
	}
	if own >= n.ofKey {
		return fault.New(fault.RateLimitExceeded, "this key has signed more requests in the last minutes than this router remembers nonces of one key; retry later").
			WithRetryAfter(nonceBucket * time.Second)
	}
	if n.total >= n.limit {
		return fault.New(fault.IdentityUnavailable, "more requests were signed in the last minutes than this router remembers nonces; retry later").
			WithRetryAfter(nonceBucket * time.Second)
	}
	at := (stamp + int64(signatureWindow/time.Second)) / nonceBucket
	if n.buckets[at] == nil {
		n.buckets[at] = map[[16]byte]struct{}{}
	}
	n.buckets[at][short] = struct{}{}
	if mine == nil {
		mine = map[int64]int{}
		n.perKey[id] = mine
	}
	mine[at]++
	n.total++
	return nil
}

// forget drops the buckets whose last signature could not be sent again. There are at most a dozen buckets.
func (n *nonces) forget() {
	for at, bucket := range n.buckets {
		if (at+1)*nonceBucket > n.latest {
			continue
		}
		n.total -= len(bucket)
		delete(n.buckets, at)
		for id, of := range n.perKey {
			if delete(of, at); len(of) == 0 {
				delete(n.perKey, id)
			}
		}
	}
}
