package admin

import (
	"bytes"
	"cmp"
	"encoding/json"
	"slices"

	"github.com/ai-aas/api-router/internal/adminapi"
	"github.com/ai-aas/api-router/internal/auth"
	"github.com/ai-aas/api-router/internal/fault"
	"github.com/ai-aas/api-router/internal/plan"
	"github.com/ai-aas/api-router/internal/policy"
	"github.com/ai-aas/api-router/internal/wire"
)

// endpoints are those whose bodies can be explained.
var endpoints = map[string]wire.Kind{
	adminapi.EndpointChat:       wire.Chat,
	adminapi.EndpointCompletion: wire.Completion,
	adminapi.EndpointEmbedding:  wire.Embedding,
}

// explain answers what would become of a request: read, decided and clamped as a real one is, and refused where that would be.
func (a *Admin) explain(c *call) (reply, error) {
	var ask adminapi.ExplainRequest
	if err := c.decode(maxRequestBody, &ask); err != nil {
		return reply{}, err
	}
	if auth.WellFormed(ask.KeyID) {
		return reply{}, fault.New(fault.InvalidRequest, "this is a key, which has no business here: name it by its id, the eight characters after ar_").WithParam("key_id")
	}
	if ask.Body == nil {
		if ask.Endpoint != "" {
			return reply{}, fault.New(fault.InvalidRequest, "endpoint says how to read a body, and there is none").WithParam("endpoint")
		}
		who := a.holder(c.Context(), &ask)
		e, err := a.decide(&ask, &who)
		return reply{body: e}, err
	}
	if ask.Endpoint == "" {
		ask.Endpoint = adminapi.EndpointChat
	}
	kind, known := endpoints[ask.Endpoint]
	if !known {
		return reply{}, fault.Newf(fault.InvalidRequest, "endpoint must be one of %s, %s, %s",
			adminapi.EndpointChat, adminapi.EndpointCompletion, adminapi.EndpointEmbedding).WithParam("endpoint")
	}
	body := []byte(ask.Body)
	if body[0] == '"' { // The body as text, so that it can be anything.
		var text string
		if err := json.Unmarshal(body, &text); err != nil {
			return reply{}, fault.New(fault.InvalidJSON, "body is not valid JSON").WithParam("body").WithCause(err)
		}
		body = []byte(text)
	}
	who := a.holder(c.Context(), &ask)
	e, err := a.rehearse(&ask, &who, kind, body)
	return reply{body: e}, err
}

// rehearse walks a whole request up to the point where it would be sent.
func (a *Admin) rehearse(ask *adminapi.ExplainRequest, who *holder, kind wire.Kind, body []byte) (*adminapi.Explanation, error) {
	scanned, err := wire.Scan(body, kind)
	if err != nil {
		return &adminapi.Explanation{
			Model: ask.Model, Organization: ask.Organization, KeyID: ask.KeyID, Session: ask.Session, Key: who.key,
			Routes: []adminapi.Route{}, Tries: []adminapi.Try{}, Error: refused(cmp.Or(who.refusal, err)),
		}, nil
	}
	if ask.Model != "" && ask.Model != scanned.Model {
		return nil, fault.New(fault.InvalidRequest, "model and the body's model differ: leave model out").WithParam("model")
	}
	ask.Model = scanned.Model
	e, err := a.decide(ask, who)
	if err != nil {
		return nil, err
	}
	e.Request = &adminapi.Scanned{
		Endpoint: ask.Endpoint, Model: scanned.Model, Stream: scanned.Stream, MaxTokens: scanned.MaxTokens, Choices: scanned.Choices,
	}
	if e.Clamps == nil || who.refusal != nil {
		return e, nil
	}
	err = scanned.Clamp(wire.Clamps(*e.Clamps), wire.Refused{
		ChatTemplate:       e.Fields.ChatTemplate != policy.Allow,
		ChatTemplateKwargs: e.Fields.ChatTemplateKwargs != policy.Allow,
		RemoteMedia:        e.Fields.RemoteMedia != policy.Allow,
	})
	if err != nil {
		// Of two reasons the client gets the first: whether a backend is left is asked only after this.
		if walked := func(r adminapi.Route) bool { return r.Turn > 0 }; e.Error == nil || slices.ContainsFunc(e.Routes, walked) {
			refuse(e, err)
		}
		return e, nil
	}
	if who.scopes != nil {
		scanned.Default(who.scopes.MaxTokens)
	}
	e.Request.Clamps, err = clamped(&scanned, body)
	return e, err
}

// clamped lists what the policy and the key change in a body.
func clamped(scanned *wire.Request, body []byte) ([]string, error) {
	left := scanned.Rewrite(body, wire.Rewrite{})
	fields, err := differences(body, bytes.Join(left.Pieces(), nil))
	lines := make([]string, 0, len(fields))
	for _, field := range fields {
		lines = append(lines, field.String())
	}
	return lines, err
}

// refuse makes e the explanation of a request that goes nowhere.
func refuse(e *adminapi.Explanation, err error) {
	e.Error = refused(err)
	e.Tries, e.Choice, e.Next, e.Draw, e.Warning = []adminapi.Try{}, "", nil, false, ""
	for _, r := range e.Routes {
		for i := range r.Candidates {
			r.Candidates[i].Order = 0
		}
	}
}

func refused(err error) *adminapi.Refusal {
	f := fault.From(err)
	return &adminapi.Refusal{
		Status: f.Status(), Code: string(f.Code), Message: f.Message, Param: f.Param, RetryAfterMillis: f.RetryAfter.Milliseconds(),
	}
}

// decide asks the room that decides for requests. Of a key that is refused, the routes show where its requests would go.
func (a *Admin) decide(ask *adminapi.ExplainRequest, who *holder) (*adminapi.Explanation, error) {
	e, err := a.Decider.Explain(a.Table(), plan.Ask{
		Organization: ask.Organization, KeyID: ask.KeyID, Model: ask.Model, Session: ask.Session, Scopes: who.scopes,
	})
	if err != nil {
		return nil, err
	}
	shown := showExplanation(e)
	if shown.Key = who.key; who.refusal != nil {
		refuse(shown, who.refusal)
	}
	return shown, nil
}

func showExplanation(e *plan.Explanation) *adminapi.Explanation {
	shown := &adminapi.Explanation{
		Model: e.Model, Organization: e.Organization, KeyID: e.KeyID, Session: e.Session,
		Revision: e.Revision, Origin: e.Origin, Since: e.Since,
		Routes: make([]adminapi.Route, 0, len(e.Routes)), Tries: make([]adminapi.Try, 0, len(e.Tries)),
		Choice: e.Choice, Next: e.Next, Draw: e.Draw, Warning: e.Warning,
		Clamps: (*adminapi.Clamps)(e.Clamps), Fields: (*adminapi.Fields)(e.Fields), Error: (*adminapi.Refusal)(e.Error),
	}
	for _, r := range e.Routes {
		shown.Routes = append(shown.Routes, showRoute(&r))
	}
	for _, t := range e.Tries {
		shown.Tries = append(shown.Tries, adminapi.Try(t))
	}
	return shown
}

func showRoute(r *plan.Route) adminapi.Route {
	shown := adminapi.Route{
		Model: r.Model, Turn: r.Turn, Policy: r.Policy, Revision: r.Revision, Place: r.Place, Legacy: r.Legacy,
		Organization: r.Organization, Alias: r.Alias, Fallback: r.Fallback, Why: r.Why, Mark: (*adminapi.Mark)(r.Mark),
		Strategy: r.Strategy, Attempts: r.Attempts, Candidates: make([]adminapi.Candidate, 0, len(r.Candidates)),
	}
	for _, c := range r.Candidates {
		shown.Candidates = append(shown.Candidates, adminapi.Candidate{
			Backend: c.Backend, Order: c.Order, Why: c.Why, Excluded: c.Excluded, Model: c.Model, Known: c.Known,
			Tier: c.Tier, Weight: c.Weight, SharePercent: c.SharePercent, State: c.State, Reason: c.Reason, Degraded: c.Degraded,
			Mark: (*adminapi.Mark)(c.Mark), InFlight: c.InFlight, MaxConcurrency: c.MaxConcurrency,
		})
	}
	return shown
}
