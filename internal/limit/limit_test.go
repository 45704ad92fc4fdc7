package limit_test

import (
	"math"
	"testing"

	"github.com/ai-aas/api-router/internal/limit"
)

func TestUnlimitedLetsTheLargestRequestPassAgainAndAgain(t *testing.T) {
	for n := range 1000 {
		r, err := limit.Unlimited{}.Reserve(t.Context(), limit.Ask{
			Organization: "acme", KeyID: "k", Model: "m", PromptBytes: math.MaxInt64, MaxTokens: math.MaxInt64,
		})
		if err != nil {
			t.Fatalf("request %d: %v", n, err)
		}
		if n%2 == 0 {
			r.Settle(limit.Spent{Prompt: math.MaxInt64, Completion: math.MaxInt64})
		} else {
			r.Cancel()
		}
	}
}
