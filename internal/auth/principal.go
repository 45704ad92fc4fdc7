// Package auth turns the credential on a request into a Principal: who asks, and with which key.
package auth

import (
	"context"
	"time"
)

// Principal is the caller of a request, as a validator recognized it.
type Principal struct {
	// Organization is whose policies, limits and bill apply.
	Organization string
	// KeyID names the key without revealing it; it is the same each time the key is used and safe to log.
	KeyID string
	// Source names the validator that accepted the key.
	Source string
	// Project is the project of the organization that the key belongs to; "" for none.
	Project string
	// Scopes are what it may do; nil: everything. They are shared and never changed.
	Scopes *Scopes
	// ExpiresAt is when the credential ends by itself: no cache may serve it longer. Zero: never, as far as is known.
	ExpiresAt time.Time
}

// contextKey is the one key under which a Principal travels. Its type is not exported, so no other package can
// write or read the value but through NewContext and FromContext. The service that this one replaces had two keys:
// one package stored the caller under the first, another looked under the second, and every valid caller was refused.
type contextKey struct{}

// principalContext is a context with a principal, in one piece of memory: it is made for every request.
type principalContext struct {
	context.Context //nolint:containedctx // It is a context itself.

	principal Principal
}

// Value implements context.Context.
func (c *principalContext) Value(key any) any {
	if key == (contextKey{}) {
		return &c.principal
	}
	return c.Context.Value(key)
}

// NewContext returns a copy of ctx that carries p.
func NewContext(ctx context.Context, p Principal) context.Context {
	return &principalContext{ctx, p}
}

// FromContext returns the Principal that NewContext stored, and false when the request is not authenticated (yet).
func FromContext(ctx context.Context) (Principal, bool) {
	if p, ok := ctx.Value(contextKey{}).(*Principal); ok {
		return *p, true
	}
	return Principal{}, false
}
