package gateway

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/ai-aas/api-router/internal/auth"
	"github.com/ai-aas/api-router/internal/fault"
	"github.com/ai-aas/api-router/internal/limit"
	"github.com/ai-aas/api-router/internal/plan"
	"github.com/ai-aas/api-router/internal/policy"
	"github.com/ai-aas/api-router/internal/proxy"
	"github.com/ai-aas/api-router/internal/wire"
)

// infer serves one inference endpoint. This is the walk of a request: read it from top to bottom.
//
// Three points of no return: after Reserve, somebody settles or cancels; after Open, somebody closes the record (ServeHTTP does,
// whatever happens here); after the first byte, nothing restarts.
func (g *Gateway) infer(kind wire.Kind) handler {
	return func(w http.ResponseWriter, r *http.Request, x *exchange) error {
		x.recorded, x.Endpoint = true, endpoints[kind] // The same text, but no part of the request: records are kept.

		// 1 auth: who asks?
		ctx, principal, err := g.authenticate(r, x)
		if err != nil {
			return err
		}

		// 2 wire: what is asked? The body is read whole, scanned, and never decoded.
		reading := time.Now()
		body := g.readBody(w, r, &x.body)
		defer body.release()
		x.BytesIn, x.uploading = int64(len(body.B)), time.Since(reading)
		if body.err != nil {
			return body.err
		}
		scanned, err := wire.Scan(body.B, kind)
		if err != nil {
			return err
		}
		x.Model, x.Stream = scanned.Model, scanned.Stream

		// 3 plan: which backends may answer? One table for the whole request.
		table, err := g.current()
		if err != nil {
			return err
		}
		x.deciding = time.Now()
		decided, err := g.Decider.Decide(table, plan.Ask{
			Organization: principal.Organization, KeyID: principal.KeyID,
			Model: scanned.Model, Session: r.Header.Get("X-Session-Id"), At: x.received(),
		})
		x.decided = time.Now()
		if err != nil {
			return g.hint(err, table, principal)
		}
		x.Policy, x.PolicyRevision, x.planned = decided.Policy, decided.Revision, decided.Model
		g.watch(ctx, x, decided)
		if err := scanned.Clamp(clamps(decided.Route)); err != nil { // From here on, scanned is what the policy leaves of it.
			return err
		}

		// 4 limit: may it be spent?
		reservation, err := g.Limiter.Reserve(ctx, limit.Ask{
			Organization: principal.Organization, KeyID: principal.KeyID, Model: decided.Model,
			PromptBytes: x.BytesIn, MaxTokens: scanned.MaxTokens * int64(max(scanned.Choices, 1)),
		})
		if err != nil {
			return err
		}
		defer settle(reservation, x)

		// 5 proxy: one backend after the other until the first byte; then the answer, with a tap on it.
		g.Recorder.Open(&x.Record)
		x.sent, body.busy = true, true // Until the proxy says otherwise: should it panic, nobody knows how far it came.
		x.outgoing = proxy.Request{
			Path: x.Endpoint, Kind: kind, Model: decided.Model, Scanned: scanned, Body: body.B, Header: r.Header, HTTP2: x.shared,
			RequestID: x.RequestID, Trace: g.place(x), Received: x.received(), Backoff: time.Duration(decided.Route.Retry.Backoff), Meter: x,
		}
		out := g.Proxy.Forward(ctx, w, &x.outgoing, decided)

		// 6 settle: what did it really use?
		body.busy = !out.BodyFree
		x.conclude(&out)
		return out.Err
	}
}

// authenticate finds the principal and puts it into the context, for the log lines of the rooms below.
func (g *Gateway) authenticate(r *http.Request, x *exchange) (context.Context, auth.Principal, error) {
	credential, err := auth.Credential(r.Header)
	if err != nil {
		return x, auth.Principal{}, err //nolint:wrapcheck // It is a fault for the client.
	}
	principal, err := g.Keys.Validate(x, credential)
	if err != nil {
		return x, auth.Principal{}, err //nolint:wrapcheck // It is a fault for the client.
	}
	x.Organization, x.KeyID = principal.Organization, principal.KeyID
	g.follow(x)
	ctx := auth.NewContext(x, principal)
	if g.Logger.Enabled(ctx, slog.LevelDebug) {
		g.Logger.LogAttrs(ctx, slog.LevelDebug, "the key was accepted", slog.String("validator", principal.Source))
	}
	return ctx, principal, nil
}

// current is the policy table of this moment.
func (g *Gateway) current() (*policy.Table, error) {
	if table := g.Table(); table != nil {
		return table, nil
	}
	return nil, fault.New(fault.NoBackendAvailable, "no routing policies are loaded yet; retry in a moment").WithRetryAfter(time.Second)
}

// conclude copies the outcome into the record.
func (x *exchange) conclude(out *proxy.Outcome) {
	x.sent = out.Sent
	x.Backend, x.BackendModel = out.Backend, out.BackendModel
	x.Decision, x.Warning, x.Attempts, x.StopReason = out.Decision, out.Warning, out.Attempts, out.Stop
	x.PromptTokens, x.CachedTokens = out.Usage.Prompt, out.Usage.Cached
	x.CompletionTokens, x.ReasoningTokens, x.UsageSource = out.Usage.Completion, out.Usage.Reasoning, out.Usage.Source
	x.BytesOut, x.failures, x.trail = out.BytesOut, out.Failures, out.Trail
	if out.Sent {
		x.Status = out.Status
		x.TTFTMillis = millis(out.FirstByte.Sub(x.Start))
	}
	x.answered = time.Now()
	x.RouterMillis = max(millis(x.answered.Sub(x.Start)-x.uploading-out.Waited), 0)
}

// settle ends a reservation, whatever happened in between.
func settle(r limit.Reservation, x *exchange) {
	if x.PromptTokens == 0 && x.CompletionTokens == 0 {
		r.Cancel()
		return
	}
	r.Settle(limit.Spent{Prompt: x.PromptTokens, Cached: x.CachedTokens, Completion: x.CompletionTokens, Reasoning: x.ReasoningTokens})
}
