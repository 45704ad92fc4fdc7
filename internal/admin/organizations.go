package admin

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"regexp"
	"time"

	"github.com/ai-aas/api-router/internal/adminapi"
	"github.com/ai-aas/api-router/internal/auth"
	"github.com/ai-aas/api-router/internal/fault"
)

// Organizations are whom keys belong to. What the methods of this and the next interfaces fail with is an error of package auth, or says that
// the book does not work. A change and its entry in the audit are one.
type Organizations interface {
	Organizations(ctx context.Context, after string, limit int) ([]auth.Organization, error)
	Organization(ctx context.Context, id string) (auth.Organization, error)
	PutOrganization(ctx context.Context, o auth.Organization, condition *int64, by auth.By) (auth.Organization, error)
	DeleteOrganization(ctx context.Context, id string, condition *int64, by auth.By) error
}

// Identities is the book of organizations, projects, keys and admins, and of who changed them.
type Identities interface {
	Organizations
	Projects
	Keys
	Admins
	Entries
}

// identified hands a handler the book of identities, with a context that has a deadline. A client that leaves does not stop a change halfway.
func (a *Admin) identified(handle func(ctx context.Context, book Identities, c *call) (reply, error)) handler {
	return func(c *call) (reply, error) {
		if a.Identities == nil {
			return reply{}, fault.New(fault.NotFound, "this router has no state book, where organizations and keys are kept: "+
				"set state.url, as in sqlite:///var/lib/api-router/state.db or postgres://router@db.internal/router, and start it again")
		}
		ctx := c.Context()
		if c.Method != http.MethodGet && c.Method != http.MethodHead {
			ctx = context.WithoutCancel(ctx)
		}
		ctx, cancel := context.WithTimeout(ctx, bookTimeout)
		defer cancel()
		return handle(ctx, a.Identities, c)
	}
}

// by says who makes the change of a call.
func (c *call) by(reason string) auth.By {
	return auth.By{Actor: c.actor.name, Role: c.actor.role, Reason: reason, RequestID: c.requestID}
}

// because reads a body that holds a reason alone.
func (c *call) because() (auth.By, error) {
	var ask adminapi.Because
	if err := c.decode(maxSmallBody, &ask); err != nil {
		return auth.By{}, err
	}
	return c.by(ask.Reason), checkReason(ask.Reason)
}

// told writes a change into the log. What belongs to no organization has "".
func (a *Admin) told(c *call, what, organization, id string, by auth.By) {
	attrs := []slog.Attr{slog.String("request_id", c.requestID), slog.String("actor", by.Actor), slog.String("id", id), slog.String("reason", by.Reason)}
	if organization != "" {
		attrs = append(attrs, slog.String("organization", organization))
	}
	a.Logger.LogAttrs(c.Context(), slog.LevelInfo, what, attrs...)
}

// identityRefusal says to the client why the book of identities did not do what it was asked. what names the thing, as in "key 1a2b3c4d".
func identityRefusal(err error, what string, when *int64) error {
	if hindrance, ok := errors.AsType[auth.Hindrance](err); ok {
		return fault.Newf(fault.PreconditionFailed, "%s cannot be changed so: %s", what, printable(hindrance.Error()))
	}
	switch {
	case fault.CodeOf(err) != fault.InternalError: // It is said already.
		return err
	case errors.Is(err, auth.ErrNotFound) && when != nil:
		return fault.Newf(fault.PreconditionFailed, "%s does not exist, and If-Match says that it does", what).WithParam("If-Match")
	case errors.Is(err, auth.ErrNotFound):
		return fault.Newf(fault.NotFound, "there is no %s", what)
	case errors.Is(err, auth.ErrExists), errors.Is(err, auth.ErrConflict) && when != nil && *when == 0:
		return fault.Newf(fault.PreconditionFailed, "%s exists already", what).WithParam("If-None-Match")
	case errors.Is(err, auth.ErrConflict) && when != nil:
		return fault.Newf(fault.PreconditionFailed, "%s is not at revision %d any more: read it again and make the change on that", what, *when).WithParam("If-Match")
	case errors.Is(err, auth.ErrConflict):
		return fault.Newf(fault.PreconditionFailed, "%s was changed by somebody else at the same time: try again", what)
	}
	return fault.Newf(fault.StoreUnavailable, "the state book does not do this: %s; keys that are known are served on, try again in a moment", printable(err.Error())).
		WithCause(err)
}

// turn reads the page of a list that is asked for: what comes after an id of this form, and how much of it. next is where the list goes on, and ""
// where nothing follows.
func turn[T any](c *call, form *regexp.Regexp, id func(*T) string, list func(after string, limit int) ([]T, error)) (found []T, next string, err error) {
	limit, err := c.limit()
	if err != nil {
		return nil, "", err
	}
	after := c.query.Get("after")
	if after != "" && !form.MatchString(after) {
		return nil, "", fault.New(fault.InvalidRequest, "after is an id: the next of the page before").WithParam("after")
	}
	if found, err = list(after, limit); err != nil || len(found) < limit {
		return found, "", err
	}
	next = id(&found[limit-1])
	rest, err := list(next, 1)
	if len(rest) == 0 {
		next = ""
	}
	return found, next, err
}

func (*Admin) organizations(ctx context.Context, book Identities, c *call) (reply, error) {
	found, next, err := turn(c, idForm, func(o *auth.Organization) string { return o.ID }, func(after string, limit int) ([]auth.Organization, error) {
		return book.Organizations(ctx, after, limit)
	})
	if err != nil {
		return reply{}, identityRefusal(err, "organization", nil)
	}
	answer := adminapi.Organizations{Items: make([]adminapi.Organization, 0, len(found)), Next: next}
	for _, o := range found {
		answer.Items = append(answer.Items, adminapi.Organization(o))
	}
	return reply{body: answer}, nil
}

func (*Admin) organization(ctx context.Context, book Identities, c *call) (reply, error) {
	o, err := book.Organization(ctx, c.organization)
	if err != nil {
		return reply{}, identityRefusal(err, "organization "+c.organization, nil)
	}
	return showOrganization(o), nil
}

func showOrganization(o auth.Organization) reply {
	return reply{revision: o.Revision, body: adminapi.Organization(o)}
}

// putOrganization makes or changes an organization. Whether it is disabled is changed by disable and enable alone.
func (a *Admin) putOrganization(ctx context.Context, book Identities, c *call) (reply, error) {
	var ask adminapi.OrganizationRequest
	when, by, err := c.written(&ask)
	if err != nil {
		return reply{}, err
	}
	var p problems
	p.id("id", c.organization)
	p.name("name", ask.Name)
	p.zone(ask.TimeZone)
	if err := p.err("the organization"); err != nil {
		return reply{}, err
	}
	what := "organization " + c.organization
	before, err := book.Organization(ctx, c.organization)
	if err != nil && !errors.Is(err, auth.ErrNotFound) {
		return reply{}, identityRefusal(err, what, when)
	}
	condition := when
	if condition == nil { // What was read is what is changed: nobody who disables it meanwhile is overruled.
		condition = &before.Revision
	}
	o, err := book.PutOrganization(ctx, auth.Organization{ID: c.organization, Name: ask.Name, TimeZone: ask.TimeZone, Disabled: before.Disabled}, condition, by)
	if err != nil {
		return reply{}, identityRefusal(err, what, when)
	}
	answer := showOrganization(o)
	answer.status = a.putStatus(c, "an organization", c.organization, c.organization, before.Revision, o.Revision, by)
	return answer, nil
}

func (a *Admin) deleteOrganization(ctx context.Context, book Identities, c *call) (reply, error) {
	return a.gone(c, "organization "+c.organization, "an organization was deleted", c.organization, func(when *int64, by auth.By) error {
		return book.DeleteOrganization(ctx, c.organization, when, by)
	})
}

// gone deletes what is called what, under the condition and for the reason of the call, and puts told into the log.
func (a *Admin) gone(c *call, what, told, id string, take func(when *int64, by auth.By) error) (reply, error) {
	when, err := c.condition()
	if err != nil {
		return reply{}, err
	}
	by := c.by(c.query.Get("reason"))
	if err := checkReason(by.Reason); err != nil {
		return reply{}, err
	}
	if err := take(when, by); err != nil {
		return reply{}, identityRefusal(err, what, when)
	}
	a.told(c, told, c.organization, id, by)
	return reply{body: adminapi.Gone{ID: id, Organization: c.organization}}, nil
}

// putStatus is the status of the answer to a put, which it logs.
func (a *Admin) putStatus(c *call, noun, organization, id string, before, after int64, by auth.By) int {
	switch before {
	case 0:
		a.told(c, noun+" was created", organization, id, by)
		return http.StatusCreated
	case after:
	default:
		a.told(c, noun+" was changed", organization, id, by)
	}
	return http.StatusOK
}

// written reads the parts of a put: its condition, its body, and who asks.
func (c *call) written(body any) (when *int64, by auth.By, err error) {
	if when, err = c.condition(); err != nil {
		return nil, by, err
	}
	by = c.by(c.query.Get("reason"))
	if err = checkReason(by.Reason); err != nil {
		return nil, by, err
	}
	return when, by, c.decode(maxSmallBody, body)
}

// switchOrganization disables or enables an organization.
func (a *Admin) switchOrganization(disabled bool) func(context.Context, Identities, *call) (reply, error) {
	word := "enabled"
	if disabled {
		word = "disabled"
	}
	return func(ctx context.Context, book Identities, c *call) (reply, error) {
		when, err := c.condition()
		if err != nil {
			return reply{}, err
		}
		by, err := c.because()
		if err != nil {
			return reply{}, err
		}
		if disabled && by.Reason == "" {
			return reply{}, fault.New(fault.InvalidRequest, "reason is missing: say why every key of the organization is to be refused").WithParam("reason")
		}
		what := "organization " + c.organization
		for {
			o, err := book.Organization(ctx, c.organization)
			if err != nil {
				return reply{}, identityRefusal(err, what, when)
			}
			condition, before := when, o.Revision
			if condition == nil {
				condition = &before
			}
			o.Disabled = disabled
			o, err = book.PutOrganization(ctx, o, condition, by)
			switch {
			case raced(err, when) && pause(ctx, retryAfter): // Its name was changed at the same time: that does not matter here.
				continue
			case err != nil:
				return reply{}, identityRefusal(err, what, when)
			case o.Revision != before:
				a.told(c, "an organization was "+word, c.organization, c.organization, by)
			}
			return showOrganization(o), nil
		}
	}
}

// raced says that somebody else's change came before one without a condition, which can be made anew on what is there now.
func raced(err error, when *int64) bool {
	_, hindered := errors.AsType[auth.Hindrance](err)
	return when == nil && !hindered && errors.Is(err, auth.ErrConflict)
}

// retryAfter is the pause before a change is tried again that somebody else's came before.
const retryAfter = 20 * time.Millisecond

// pause reports whether ctx goes on after it.
func pause(ctx context.Context, length time.Duration) bool {
	timer := time.NewTimer(length)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
