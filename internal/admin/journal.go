package admin

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/ai-aas/api-router/internal/adminapi"
	"github.com/ai-aas/api-router/internal/fault"
	"github.com/ai-aas/api-router/internal/policy"
	"github.com/ai-aas/api-router/internal/usage"
)

// history answers the changes of one document, also of one that was deleted.
func (a *Admin) history(c *call) (reply, error) {
	limit, err := c.limit()
	if err != nil {
		return reply{}, err
	}
	changes, err := a.changes(c.Context(), c.kind, c.id, limit)
	if err != nil {
		return reply{}, err
	}
	if len(changes) == 0 { // A document that was written past the router may have none.
		if _, err := a.get(c); err != nil {
			return reply{}, err
		}
	}
	return reply{body: showHistory(changes)}, nil
}

// audit answers the changes of all documents, and of nothing else: entries has everything.
func (a *Admin) audit(c *call) (reply, error) {
	limit, err := c.limit()
	if err != nil {
		return reply{}, err
	}
	changes, err := a.changes(c.Context(), "", "", limit)
	if err != nil {
		return reply{}, err
	}
	return reply{body: showHistory(changes)}, nil
}

func showHistory(changes []policy.Change) adminapi.History {
	h := adminapi.History{Items: make([]adminapi.Change, 0, len(changes))}
	for _, change := range changes {
		h.Items = append(h.Items, showChange(change))
	}
	return h
}

// rollback writes a document as it was at a revision. That is a change like any other: it has a revision of its own.
func (a *Admin) rollback(c *call) (reply, error) {
	when, err := c.condition()
	if err != nil {
		return reply{}, err
	}
	var ask adminapi.Rollback
	if err := c.decode(maxSmallBody, &ask); err != nil {
		return reply{}, err
	}
	if ask.Revision <= 0 {
		return reply{}, fault.New(fault.InvalidRequest, "revision is missing: the history of the document lists those that it had").WithParam("revision")
	}
	if err := checkReason(ask.Reason); err != nil {
		return reply{}, err
	}
	changes, err := a.changes(c.Context(), c.kind, c.id, maxLimit)
	if err != nil {
		return reply{}, err
	}
	at := slices.IndexFunc(changes, func(change policy.Change) bool { return change.Revision == ask.Revision })
	switch {
	case at < 0:
		return reply{}, fault.Newf(fault.NotFound, "the history of %s %s has no revision %d%s", noun(c.kind), printable(c.id), ask.Revision, revisions(changes)).
			WithParam("revision")
	case changes[at].After == nil:
		return reply{}, fault.Newf(fault.InvalidRequest, "at revision %d the document was deleted: to have that again, delete it", ask.Revision).WithParam("revision")
	}
	if ask.Reason == "" {
		ask.Reason = fmt.Sprintf("rollback to revision %d", ask.Revision)
	}
	return a.write(c, policy.Write{Kind: c.kind, ID: c.id, Content: changes[at].After, If: when, Reason: ask.Reason})
}

// revisions names the latest ones that a rollback could go to.
func revisions(changes []policy.Change) string {
	var known []string
	for _, change := range changes {
		if change.After != nil && len(known) < 10 {
			known = append(known, strconv.FormatInt(change.Revision, 10))
		}
	}
	if known == nil {
		return ""
	}
	return "; the latest it has are " + strings.Join(known, ", ")
}

// decisions answers the latest requests.
func (a *Admin) decisions(c *call) (reply, error) {
	limit, err := c.limit()
	if err != nil {
		return reply{}, err
	}
	answer := adminapi.Decisions{Items: []adminapi.Decision{}}
	for _, r := range a.Recent(limit) {
		answer.Items = append(answer.Items, showDecision(r))
	}
	return reply{body: answer}, nil
}

func showDecision(r usage.Record) adminapi.Decision {
	return adminapi.Decision{
		RequestID: r.RequestID, ClientRequestID: r.ClientRequestID, TraceID: r.TraceID, Start: r.Start, Endpoint: r.Endpoint,
		Organization: r.Organization, KeyID: r.KeyID, Model: r.Model, BackendModel: r.BackendModel, Backend: r.Backend,
		Policy: r.Policy, PolicyRevision: r.PolicyRevision, Decision: r.Decision, Warning: r.Warning, Attempts: r.Attempts, Stream: r.Stream,
		PromptTokens: r.PromptTokens, CompletionTokens: r.CompletionTokens, Status: r.Status, Code: r.Code, StopReason: r.StopReason,
		TTFTMillis: r.TTFTMillis, LatencyMillis: r.LatencyMillis, RouterMillis: r.RouterMillis,
	}
}
