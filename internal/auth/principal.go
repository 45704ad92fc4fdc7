// Package auth turns the credential on a request into a Principal: who asks, and with which key.
package auth

import "context"

// Principal is the caller of a request, as a validator recognized it.
type Principal struct {
	// Organization is whose policies, limits and bill apply.
	Organization string
	// KeyID names the key without revealing it; it is the same each time the key is used and safe to log.
	KeyID string
	// Source names the validator that accepted the key.
	Source string
}

// contextKey is the one key under which a Principal travels. Its type is not exported, so no other package can
// write or read the value but through NewContext and FromContext. The service that this one replaces had two keys:
// one package stored the caller under the first, another looked under the second, and every valid caller was refused.
type contextKey struct{}

// NewContext returns a copy of ctx that carries p.
func NewContext(ctx context.Context, p Principal) context.Context {
	return context.WithValue(ctx, contextKey{}, p)
}

// FromContext returns the Principal that NewContext stored, and false when the request is not authenticated (yet).
func FromContext(ctx context.Context) (Principal, bool) {
	p, ok := ctx.Value(contextKey{}).(Principal)
	return p, ok
}
