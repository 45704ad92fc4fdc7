package auth

import (
	"hash/maphash"
	"net/netip"
	"sync"
	"time"

	"github.com/ai-aas/api-router/internal/fault"
)

const (
	guessBurst = 100                    // wrong credentials that an address may send at once
	guessEvery = 200 * time.Millisecond // and then one in this time
)

// Guesses tells clients with wrong credentials to slow down, by the address that they come from. A right credential is let in whatever its
// address has sent: many clients share one behind a proxy. What keeps a key from being guessed is its length; this keeps a client with an old
// key from being heard too often.
//
// Addresses share a fixed number of places by a secret hash: it never grows, and nobody can choose whom to share with.
type Guesses struct {
	seed  maphash.Seed
	mu    sync.Mutex
	until [4096]int64 // Unix nanoseconds at which the place has paid for all its wrong credentials
}

// NewGuesses returns Guesses that have seen none.
func NewGuesses() *Guesses { return &Guesses{seed: maphash.MakeSeed()} }

// Wrong takes note of err, which a credential from that address has got. It is err itself, or rate_limit_exceeded in its place where too many
// were wrong before. What is no refusal of the credential (401) counts for nothing.
func (g *Guesses) Wrong(from netip.Addr, err error) error {
	switch fault.CodeOf(err) {
	case fault.InvalidAPIKey, fault.ExpiredAPIKey, fault.RevokedAPIKey, fault.InvalidSignature:
	default:
		return err
	}
	if wait := g.wrong(from, time.Now().UnixNano()); wait > 0 {
		return fault.New(fault.RateLimitExceeded, "this credential was refused, and many such came from this address: correct it before you send it again").
			WithRetryAfter(wait).WithCause(err)
	}
	return err
}

func (g *Guesses) wrong(from netip.Addr, now int64) time.Duration {
	if from = from.Unmap().WithZone(""); from.Is6() {
		if network, err := from.Prefix(64); err == nil { // A host has a whole /64 to change its address in.
			from = network.Addr()
		}
	}
	place := &g.until[maphash.Comparable(g.seed, from)%uint64(len(g.until))]
	g.mu.Lock()
	defer g.mu.Unlock()
	*place = max(*place, now)
	if wait := time.Duration(*place-now) - (guessBurst-1)*guessEvery; wait > 0 {
		return wait
	}
	*place += int64(guessEvery)
	return 0
}
