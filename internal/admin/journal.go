package admin

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/ai-aas/api-router/internal/adminapi"
	"github.com/ai-aas/api-router/internal/fault"
	"github.com/ai-aas/api-router/internal/policy"
	"github.com/ai-aas/api-router/internal/usage"
)

// history answers the changes of one document, also of one that was deleted.
func (a *Admin) history(c *call) (reply, error) {
	page, err := a.historyPage(c, c.kind, c.id)
	if err != nil {
		return reply{}, err
	}
	if len(page.Items) == 0 { // A document that was written past the router may have none.
		if _, err := a.get(c); err != nil {
			return reply{}, err
		}
	}
	return reply{body: page}, nil
}

// audit answers the changes of all documents, and of nothing else: entries has everything.
func (a *Admin) audit(c *call) (reply, error) {
	page, err := a.historyPage(c, "", "")
	if err != nil {
		return reply{}, err
	}
	return reply{body: page}, nil
}

// historyPage is the page of a history that a call asks for.
func (a *Admin) historyPage(c *call, kind policy.Kind, id string) (adminapi.History, error) {
	limit, err := c.limit()
	if err != nil {
		return adminapi.History{}, err
	}
	before, err := c.before()
	if err != nil {
		return adminapi.History{}, err
	}
	changes, more, err := a.changes(c.Context(), kind, id, before, limit)
	if err != nil {
		return adminapi.History{}, err
	}
	page := adminapi.History{Items: make([]adminapi.Change, 0, len(changes))}
	for i := range changes {
		page.Items = append(page.Items, showChange(&changes[i]))
	}
	if more {
		page.Next = strconv.FormatInt(changes[len(changes)-1].Revision, 10)
	}
	return page, nil
}

// before reads where a page of a history begins: below this revision; 0: from the newest change on.
func (c *call) before() (int64, error) {
	text := c.query.Get("before")
	if text == "" {
		return 0, nil
	}
	revision, err := strconv.ParseInt(text, 10, 64)
	if err != nil || revision <= 0 || strconv.FormatInt(revision, 10) != text {
		return 0, fault.New(fault.InvalidRequest, "before is the next of the page before, as it was given").WithParam("before")
	}
	return revision, nil
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
	to, err := a.changeAt(c, ask.Revision)
	switch {
	case err != nil:
		return reply{}, err
	case to.After == nil:
		return reply{}, fault.Newf(fault.InvalidRequest, "at revision %d the document was deleted: to have that again, delete it", ask.Revision).WithParam("revision")
	}
	if ask.Reason == "" {
		ask.Reason = fmt.Sprintf("rollback to revision %d", ask.Revision)
	}
	return a.write(c, policy.Write{Kind: c.kind, ID: c.id, Content: to.After, If: when, Reason: ask.Reason})
}

// changeAt finds the change of the call's document that has a revision. It reads that one alone: a whole past may be large.
func (a *Admin) changeAt(c *call, revision int64) (policy.Change, error) {
	found, _, err := a.changes(c.Context(), c.kind, c.id, min(revision, math.MaxInt64-1)+1, 1)
	if err != nil {
		return policy.Change{}, err
	}
	if len(found) > 0 && found[0].Revision == revision {
		return found[0], nil
	}
	latest, _, err := a.changes(c.Context(), c.kind, c.id, 0, defaultLimit)
	if err != nil {
		return policy.Change{}, err
	}
	return policy.Change{}, fault.Newf(fault.NotFound, "the history of %s %s has no revision %d%s", noun(c.kind), printable(c.id), revision, revisions(latest)).
		WithParam("revision")
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
