package gateway

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/ai-aas/api-router/internal/auth"
	"github.com/ai-aas/api-router/internal/fault"
)

// authenticate finds the principal and puts it into the context, for the log lines of the rooms below. What its key may not do wherever the
// request leads is refused here: addresses, endpoints, and a signature that is missing.
func (g *Gateway) authenticate(r *http.Request, x *exchange) (context.Context, auth.Principal, error) {
	credential, err := auth.Credential(r.Header)
	if err != nil {
		return x, auth.Principal{}, err //nolint:wrapcheck // It is a fault for the client.
	}
	principal, err := g.Keys.Validate(x, credential)
	if err != nil {
		return x, auth.Principal{}, g.guesses.Wrong(g.client(r), err)
	}
	x.Organization, x.KeyID, x.Project = principal.Organization, principal.KeyID, principal.Project
	g.follow(x)
	if err := g.allow(r, x, &principal); err != nil {
		return x, auth.Principal{}, err
	}
	g.follow(x)
	ctx := auth.NewContext(x, principal)
	if g.Logger.Enabled(ctx, slog.LevelDebug) {
		g.Logger.LogAttrs(ctx, slog.LevelDebug, "the key was accepted", slog.String("validator", principal.Source))
	}
	return ctx, principal, nil
}

// allow holds a request to the scopes of its key, as far as its head goes.
func (g *Gateway) allow(r *http.Request, x *exchange, principal *auth.Principal) error {
	if scopes := principal.Scopes; scopes != nil {
		x.Tags = scopes.Tags
		if len(scopes.Networks) > 0 && !scopes.Address(g.client(r)) {
			return fault.New(fault.IPNotAllowed, "this API key may not be used from this address; ask the operator which networks it is for")
		}
		if x.recorded && !scopes.Endpoint(x.Endpoint) {
			return fault.Newf(fault.PermissionDenied, "this API key may not use %s; it may use %s", x.Endpoint, strings.Join(scopes.Endpoints, ", "))
		}
	}
	return g.due(r, x, principal)
}

// due notes the signature of a request, or refuses one that is missing or cannot be checked.
func (g *Gateway) due(r *http.Request, x *exchange, principal *auth.Principal) error {
	signature, err := auth.ParseSignature(r.Header)
	if err == nil {
		err = signature.Due(principal)
	}
	if err != nil {
		return g.guesses.Wrong(g.client(r), err)
	}
	if signature.Signed() {
		signed, signer := signature, *principal // Only a signed request pays for memory of its own.
		x.signature, x.signer = &signed, &signer
	}
	return nil
}

// verify checks the signature of a request whose body is whole.
func (g *Gateway) verify(r *http.Request, x *exchange, body []byte) error {
	if x.signature == nil {
		return nil
	}
	if g.Verifier == nil {
		return fault.New(fault.InvalidSignature, "this router has no keys whose requests can be signed").WithParam("X-HMAC-Signature")
	}
	return g.guesses.Wrong(g.client(r), g.Verifier.Verify(x.signer, x.signature, r.Method, rawPath(r), body))
}

const forwardedFor = "X-Forwarded-For"

// client is the address that a request comes from: of the hops that X-Forwarded-For names, read from its end, the first one that is no trusted
// proxy. Nothing before that counts, because anybody can write it. It is the zero value if it is not known.
func (g *Gateway) client(r *http.Request) netip.Addr {
	at, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	from := at.Addr().Unmap().WithZone("")
	for _, line := range slices.Backward(r.Header[forwardedFor]) {
		for rest := line; rest != ""; {
			if !g.trusts(from) {
				return from
			}
			var hop string
			cut := strings.LastIndexByte(rest, ',')
			rest, hop = rest[:max(cut, 0)], strings.Trim(rest[cut+1:], " \t")
			if from = hopAddress(hop); !from.IsValid() { // A trusted proxy names no address: then nobody knows.
				return netip.Addr{}
			}
		}
	}
	return from
}

func (g *Gateway) trusts(from netip.Addr) bool {
	for _, network := range g.Trusted {
		if network.Contains(from) {
			return true
		}
	}
	return false
}

// hopAddress reads one hop, which some proxies write with a port.
func hopAddress(hop string) netip.Addr {
	if addr, err := netip.ParseAddr(strings.Trim(hop, "[]")); err == nil {
		return addr.Unmap().WithZone("")
	}
	if at, err := netip.ParseAddrPort(hop); err == nil {
		return at.Addr().Unmap().WithZone("")
	}
	return netip.Addr{}
}
