package admin

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"strings"

	"github.com/ai-aas/api-router/internal/adminapi"
	"github.com/ai-aas/api-router/internal/auth"
	"github.com/ai-aas/api-router/internal/fault"
	"github.com/ai-aas/api-router/internal/policy"
)

// read asks the book for the documents of a kind, or for one. Its error is the book's own.
func (a *Admin) read(ctx context.Context, kind policy.Kind, id string) ([]policy.Stored, error) {
	if a.Book == nil {
		return nil, errNoBook
	}
	ctx, cancel := context.WithTimeout(ctx, bookTimeout)
	defer cancel()
	return a.Book.Read(ctx, kind, id)
}

// readOne is read for one document.
func (a *Admin) readOne(ctx context.Context, kind policy.Kind, id string) (policy.Stored, error) {
	found, err := a.read(ctx, kind, id)
	if err == nil && len(found) == 0 {
		err = policy.ErrNotFound
	}
	if err != nil {
		return policy.Stored{}, err
	}
	return found[0], nil
}

var errNoBook = errors.New("this router has no book of documents")

// changes asks the book for its history below the revision before, or from the newest change on at 0; more says that there is something below. A
// page of large documents is shorter than limit.
func (a *Admin) changes(ctx context.Context, kind policy.Kind, id string, before int64, limit int) (found []policy.Change, more bool, err error) {
	if a.Book == nil {
		return nil, false, fault.New(fault.NotFound, "there is no history: "+errNoBook.Error())
	}
	ctx, cancel := context.WithTimeout(ctx, bookTimeout)
	defer cancel()
	found, err = a.Book.History(ctx, kind, id, before, limit)
	if err == nil && len(found) > 0 {
		var below []policy.Change
		below, err = a.Book.History(ctx, kind, id, found[len(found)-1].Revision, 1)
		more = len(below) > 0
	}
	switch {
	case errors.Is(err, policy.ErrReadOnly):
		return nil, false, fault.New(fault.NotFound, "there is no history: "+err.Error())
	case errors.Is(err, policy.ErrNotFound):
		return nil, false, nil
	case err != nil:
		return nil, false, unavailable(err)
	}
	return found, more, nil
}

// change makes one change and tells what it did. A client that leaves meanwhile does not stop it halfway.
func (a *Admin) change(c *call, w policy.Write) (reply, error) {
	if a.Book == nil {
		return reply{}, c.readOnly(errNoBook)
	}
	w.Actor, w.Role, w.RequestID = c.actor.name, c.actor.role, c.requestID
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.Context()), bookTimeout)
	defer cancel()
	before, err := a.readOne(ctx, w.Kind, w.ID)
	if err != nil && !errors.Is(err, policy.ErrNotFound) {
		return reply{}, unavailable(err)
	}
	existed := err == nil
	stored, err := a.Book.Write(ctx, w)
	if err != nil {
		return reply{}, a.refusal(ctx, c, w, err)
	}
	outcome := adminapi.Changed
	answer := reply{revision: stored.Revision}
	switch {
	case w.Content == nil:
		outcome, answer.revision = adminapi.Deleted, 0
	case !existed:
		outcome, answer.status = adminapi.Created, http.StatusCreated
	case stored.Revision == before.Revision:
		outcome = adminapi.Unchanged
	}
	if outcome != adminapi.Unchanged {
		a.Logger.LogAttrs(ctx, slog.LevelInfo, "a document was "+string(outcome), slog.String("request_id", c.requestID),
			slog.String("actor", w.Actor), slog.String("kind", string(w.Kind)), slog.String("id", w.ID),
			slog.Int64("revision", stored.Revision), slog.String("reason", w.Reason))
	}
	answer.body = adminapi.Written{Outcome: outcome, Document: a.view(a.sight(), stored)}
	return answer, nil
}

// refusal says to the client why the book did not make a change.
func (a *Admin) refusal(ctx context.Context, c *call, w policy.Write, err error) error {
	switch {
	case errors.Is(err, policy.ErrReadOnly):
		return c.readOnly(err)
	case errors.Is(err, policy.ErrNotFound):
		return missing(w.Kind, w.ID)
	case errors.Is(err, policy.ErrConflict):
		return a.conflict(ctx, w)
	}
	if hindrance, ok := errors.AsType[auth.Hindrance](err); ok {
		return fault.Newf(fault.PreconditionFailed, "%s %s cannot be written: %s", noun(w.Kind), w.ID, hindrance)
	}
	return unavailable(err)
}

func (c *call) readOnly(err error) error {
	c.writer.Header().Set("Allow", "GET, HEAD")
	return fault.New(fault.MethodNotAllowed, "documents cannot be written through this router: "+err.Error())
}

// conflict says which condition did not hold, and how the document stands now.
func (a *Admin) conflict(ctx context.Context, w policy.Write) error {
	name, param := noun(w.Kind)+" "+w.ID, "If-Match"
	now, err := a.readOne(ctx, w.Kind, w.ID)
	switch {
	case err != nil && !errors.Is(err, policy.ErrNotFound):
		return fault.Newf(fault.PreconditionFailed, "%s has changed in the meantime: read it again and make the change on that", name).WithParam(param)
	case err != nil:
		return fault.Newf(fault.PreconditionFailed, "%s does not exist any more", name).WithParam(param)
	case w.If != nil && *w.If == 0:
		return fault.Newf(fault.PreconditionFailed, "%s exists already, at revision %d", name, now.Revision).WithParam("If-None-Match")
	case w.If != nil:
		return fault.Newf(fault.PreconditionFailed, "%s is at revision %d now, not %d: read it again and make the change on that", name, now.Revision, *w.If).WithParam(param)
	}
	return fault.Newf(fault.PreconditionFailed, "%s was changed by somebody else at the same time; it is at revision %d now", name, now.Revision).WithParam(param)
}

// unavailable says that the book does not work. Operators see why.
func unavailable(err error) error {
	return fault.Newf(fault.StoreUnavailable, "the store of the documents does not answer: %s; requests are served on by the documents in force, try again in a moment",
		printable(err.Error())).WithCause(err)
}

func missing(kind policy.Kind, id string) error {
	return fault.Newf(fault.NotFound, "there is no %s %s", noun(kind), printable(id))
}

// noun is the kind in words.
func noun(kind policy.Kind) string {
	if kind == policy.KindRoutingPolicy {
		return "policy"
	}
	return strings.ToLower(string(kind))
}

// invalid puts every problem into one message, each on a line of its own.
func invalid(problems []policy.Problem) error {
	lines := make([]string, 0, len(problems))
	for _, p := range problems {
		lines = append(lines, p.String())
	}
	return fault.Newf(fault.InvalidRequest, "the document cannot be used, %s wrong:\n%s", count(len(problems), "thing is", "things are"), strings.Join(lines, "\n"))
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + many
}
