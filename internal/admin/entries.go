package admin

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"github.com/ai-aas/api-router/internal/adminapi"
	"github.com/ai-aas/api-router/internal/auth"
)

// kindsOfIdentity are what entries of the audit can be about.
var kindsOfIdentity = []string{"organization", "project", "key", "admin"}

// entries answers a page of the audit of organizations, projects and keys.
func (*Admin) entries(ctx context.Context, book Identities, c *call) (reply, error) {
	limit, err := c.limit()
	if err != nil {
		return reply{}, err
	}
	filter := auth.AuditFilter{Organization: c.query.Get("organization"), Kind: c.query.Get("kind"), ID: c.query.Get("id"), Limit: limit}
	var p problems
	if filter.Kind != "" && !slices.Contains(kindsOfIdentity, filter.Kind) {
		p.add("kind", "it is none of "+strings.Join(kindsOfIdentity, ", "))
	}
	for name, value := range map[string]string{"organization": filter.Organization, "id": filter.ID} {
		if value != "" && !idForm.MatchString(value) {
			p.add(name, "an id is 1 to 128 of the characters A-Z a-z 0-9 . _ -")
		}
	}
	if text := c.query.Get("before"); text != "" {
		if filter.Before, err = strconv.ParseInt(text, 10, 64); err != nil || filter.Before < 1 {
			p.add("before", "it is a sequence: the next of the page before")
		}
	}
	if err := p.err("the question"); err != nil {
		return reply{}, err
	}
	found, err := book.Audit(ctx, filter)
	if err != nil {
		return reply{}, identityRefusal(err, "audit", nil)
	}
	answer := adminapi.Entries{Items: make([]adminapi.Entry, 0, len(found))}
	for _, e := range found {
		answer.Items = append(answer.Items, adminapi.Entry{
			Sequence: e.Sequence, At: e.At, Actor: e.Actor, Role: e.Role, Action: e.Action, Kind: e.Kind, ID: e.ID, Organization: e.Organization,
			Before: e.Before, After: e.After, Reason: e.Reason, RequestID: e.RequestID,
		})
	}
	if len(found) == limit {
		answer.Next = found[limit-1].Sequence
	}
	return reply{body: answer}, nil
}
