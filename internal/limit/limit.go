// Package limit answers one question: may this principal spend this now?
//
// A request reserves before a backend is reached, and settles what it really used at its end. What is here now is the
// socket and its simplest implementation, which lets everything pass.
package limit

import "context"

// Ask is what one request would spend at most.
type Ask struct {
	Organization string
	KeyID        string
	Model        string
	// PromptBytes is the size of the request's body: an upper bound of its prompt tokens.
	PromptBytes int64
	// MaxTokens is the completion's bound as the client set it, times its number of choices; 0 when the client set none.
	MaxTokens int64
}

// Spent is what a request really used, in tokens. Cached is a part of Prompt, Reasoning a part of Completion.
type Spent struct {
	Prompt, Cached, Completion, Reasoning int64
}

// Reservation holds what was reserved until its request ends. Exactly one of its methods is called, once.
type Reservation interface {
	// Settle replaces the reserved amount by what was spent.
	Settle(Spent)
	// Cancel gives everything back: the request used nothing.
	Cancel()
}

// Unlimited lets every request pass and counts nothing.
type Unlimited struct{}

// Reserve always succeeds.
func (Unlimited) Reserve(context.Context, Ask) (Reservation, error) { return free{}, nil }

type free struct{}

func (free) Settle(Spent) {}
func (free) Cancel()      {}
