package oidc

import (
	"context"
	"slices"
	"sync"

	"github.com/go-jose/go-jose/v4"
)

// Trial is what came of fetching the keys of one issuer once.
type Trial struct {
	// Keys is how many of its keys can be used.
	Keys int
	// Idle are those of its algorithms that none of them is for.
	Idle []string
	// Err is why there are none.
	Err error
}

// Try fetches the keys of all issuers once, at the same time and within five seconds. The trials stand in the order of the issuers. Nothing is kept.
func (v *Verifier) Try(ctx context.Context) []Trial {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	trials := make([]Trial, len(v.issuers))
	var all sync.WaitGroup
	for n, each := range v.issuers {
		all.Go(func() { trials[n] = each.try(ctx) })
	}
	all.Wait()
	return trials
}

func (i *issuer) try(ctx context.Context) Trial {
	list, err := i.keys.fetch(ctx)
	t := Trial{Keys: len(list), Err: err}
	for _, algorithm := range i.Algorithms {
		if err == nil && !slices.ContainsFunc(list, func(k jose.JSONWebKey) bool { return usable(&k, algorithm) }) {
			t.Idle = append(t.Idle, algorithm)
		}
	}
	return t
}
