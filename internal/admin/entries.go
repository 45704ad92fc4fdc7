package admin

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/ai-aas/api-router/internal/adminapi"
	"github.com/ai-aas/api-router/internal/auth"
	"github.com/ai-aas/api-router/internal/fault"
	"github.com/ai-aas/api-router/internal/policy"
)

// Entries are the audit of the state book.
type Entries interface {
	Audit(ctx context.Context, filter auth.AuditFilter) ([]auth.Entry, error)
	// AuditSince is before when entries were taken out because they were old; zero: none ever was.
	AuditSince(ctx context.Context) (time.Time, error)
	// Note puts in what was changed outside of the book.
	Note(ctx context.Context, entry auth.Entry) error
}

// kindLogLevel is what the audit calls the log level, by the name of the router that logs.
const kindLogLevel = "log-level"

const kindAdmin = "admin"

// kindsBesideDocuments are what entries of the audit can be about, with the kinds of documents.
var kindsBesideDocuments = []string{"organization", "project", "key", kindAdmin, kindLogLevel}

// question is what is asked of the audit.
type question struct {
	auth.AuditFilter
	document policy.Kind // of the filter's kind; "" where that is empty, or none of documents
	from     positions   // nil: from the newest on
	admins   bool        // who asks may read who the admins are
}

// asked reads the question of a call.
func (c *call) asked() (q question, err error) {
	limit, err := c.limit()
	if err != nil {
		return q, err
	}
	q.admins = c.actor.may(overseer)
	q.AuditFilter = auth.AuditFilter{
		Organization: c.query.Get("organization"), Kind: c.query.Get("kind"), ID: c.query.Get("id"), Actor: c.query.Get("actor"), Limit: limit,
		Bytes: mostShown,
	}
	var p problems
	if q.Kind != "" && !slices.Contains(kindsBesideDocuments, q.Kind) {
		if q.document, err = policy.KindOf(q.Kind); err != nil {
			p.add("kind", "it is none of "+strings.Join(kindsBesideDocuments, ", ")+", backend, policy, price, mark")
		}
		q.Kind = string(q.document)
	}
	for name, value := range map[string]string{"organization": q.Organization, "id": q.ID} {
		if value != "" && !idForm.MatchString(value) {
			p.add(name, "an id is 1 to 128 of the characters A-Z a-z 0-9 . _ -")
		}
	}
	p.name("actor", q.Actor)
	if text := c.query.Get("since"); text != "" {
		if q.Since, err = time.Parse(time.RFC3339, text); err != nil {
			p.add("since", "it is a moment as in 2026-05-04T10:00:00Z")
		}
	}
	if text := c.query.Get("before"); text != "" {
		if q.from, err = readPositions(text); err != nil {
			p.add("before", "it is the next of the page before, as it was given")
		}
	}
	return q, p.err("the question")
}

// entries answers a page of the audit. Where documents are not in the state book, it is told by two places; while one of them cannot be read there is
// no answer: an audit with a gap looks like one in which nothing happened.
func (a *Admin) entries(c *call) (reply, error) {
	q, err := c.asked()
	if err != nil {
		return reply{}, err
	}
	strands := a.strands(&q)
	if len(strands) == 0 {
		return reply{}, fault.New(fault.NotFound, "there is no audit of that here: this router has no state book; set state.url, "+
			"as in sqlite:///var/lib/api-router/state.db or postgres://router@db.internal/router, and start it again")
	}
	ctx, cancel := context.WithTimeout(c.Context(), bookTimeout)
	defer cancel()
	answer, err := weave(ctx, strands, &q, c.start)
	if err != nil {
		return reply{}, err
	}
	if a.Identities != nil { // Afterwards, so that it is true of what was read.
		if answer.Since, err = a.Identities.AuditSince(ctx); err != nil {
			return reply{}, unreadable(strands[0], err)
		}
	}
	return reply{body: answer}, nil
}

// strands are the places that may know what is asked for.
func (a *Admin) strands(q *question) []strand {
	var all []strand
	if a.Identities != nil { // Documents that are elsewhere now may have been in it.
		all = append(all, strand{bookStrand, a.bookEntries, "the audit of the state book", "ask for the history of documents, which is another place"})
	}
	if a.Book != nil && !(a.Audited && a.Identities != nil) && (q.Kind == "" || q.document != "") {
		all = append(all, strand{documentStrand, a.documentEntries, "the history of the documents", "ask for one of the other kinds: " + strings.Join(kindsBesideDocuments, ", ")})
	}
	return all
}

// mostShown ends a page of the audit, in bytes of what it shows before and after: a thousand large documents would be more than a router has memory for.
const mostShown = 4 << 20

// bookEntries reads the audit of the state book.
func (a *Admin) bookEntries(ctx context.Context, q *question, below int64) (stretch, error) {
	filter := q.AuditFilter
	filter.Before = below
	found, err := a.Identities.Audit(ctx, filter)
	if err != nil {
		return stretch{}, err
	}
	s, size := stretch{entries: make([]adminapi.Entry, 0, len(found))}, 0
	for i := range found {
		size += found[i].Size()
		shown := showEntry(&found[i])
		if shown.Kind == kindAdmin && !q.admins { // That there was a change is no secret; who may do what is.
			shown.Before, shown.After = json.RawMessage("null"), json.RawMessage("null")
		}
		s.add(shown)
	}
	s.more = len(found) == q.Limit || size >= q.Bytes
	return s, nil
}

const (
	// atOnce is how many changes are read from the history of documents at a time, and mostRead how many for one page: those that are not asked
	// for are passed over.
	atOnce   = 100
	mostRead = 10 * atOnce
	// skew is how far the clocks of those who write the history may be apart: a change that is older than what is asked for ends the reading only
	// where none that comes before it could be younger.
	skew = 10 * time.Minute
)

// documentEntries reads the history of documents that are not in the state book.
func (a *Admin) documentEntries(ctx context.Context, q *question, below int64) (s stretch, err error) {
	id := q.ID
	if q.document == "" { // A history is of one document, or of all of them.
		id = ""
	}
	size := 0
	for read := 0; read < mostRead; {
		changes, err := a.Book.History(ctx, q.document, id, below, atOnce)
		if err != nil {
			return s, err
		}
		for i := range changes {
			change := &changes[i]
			older := !change.At.IsZero() && change.At.Before(q.Since)
			if older && change.At.Before(q.Since.Add(-skew)) {
				s.more = false
				return s, nil
			}
			below, s.more = change.Revision, true
			s.last = below
			organization := change.Organization()
			if !older && (q.ID == "" || q.ID == change.ID) && (q.Actor == "" || q.Actor == change.Actor) && (q.Organization == "" || q.Organization == organization) {
				s.add(documentEntry(change, organization))
				size += change.Size()
			} else if !change.At.IsZero() {
				s.until = change.At
			}
			if len(s.entries) == q.Limit || size >= q.Bytes {
				return s, nil
			}
		}
		if read += len(changes); len(changes) == 0 {
			s.more = false
			break
		}
	}
	return s, nil
}

// documentEntry is a change of the history as an entry of the audit.
func documentEntry(change *policy.Change, organization string) adminapi.Entry {
	shown := showChange(change)
	return adminapi.Entry{
		Sequence: shown.Revision, At: shown.At, Actor: shown.Actor, Role: shown.Role, Action: shown.Action, Kind: shown.Kind, ID: shown.ID,
		Organization: organization, Before: shown.Before, After: shown.After, Reason: shown.Reason, RequestID: shown.RequestID,
	}
}

// showEntry is an entry of the state book's audit. Documents in it that an earlier version has kept are as they were.
func showEntry(e *auth.Entry) adminapi.Entry {
	shown := func(content []byte) json.RawMessage {
		switch kind := policy.Kind(e.Kind); {
		case content == nil:
			return json.RawMessage("null")
		case kind.Collection() != "":
			return showable(policy.Stored{Kind: kind, ID: e.ID, Content: content}.Masked())
		}
		return showable(content)
	}
	return adminapi.Entry{
		Sequence: e.Sequence, At: e.At, Actor: e.Actor, Role: e.Role, Action: e.Action, Kind: e.Kind, ID: e.ID, Organization: e.Organization,
		Before: shown(e.Before), After: shown(e.After), Reason: e.Reason, RequestID: e.RequestID,
	}
}

// noteWithin is how long a change that stands already may wait for its entry in the audit.
const noteWithin = 2 * time.Second

// note puts a change that no book has made into the audit. It stands whatever becomes of its entry: the log has it in any case.
func (a *Admin) note(c *call, action, kind, id string, before, after any) {
	if a.Identities == nil {
		return
	}
	by := c.by("")
	entry := auth.Entry{Actor: by.Actor, Role: by.Role, RequestID: by.RequestID, Action: action, Kind: kind, ID: id}
	var wrong [2]error
	entry.Before, wrong[0] = json.Marshal(before)
	entry.After, wrong[1] = json.Marshal(after)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.Context()), noteWithin)
	defer cancel()
	if err := errors.Join(wrong[0], wrong[1], a.Identities.Note(ctx, entry)); err != nil {
		a.Logger.LogAttrs(ctx, slog.LevelError, "a change was made and is not in the audit: the state book does not take its entry; this line stands for it",
			slog.String("request_id", by.RequestID), slog.String("actor", by.Actor), slog.String("role", by.Role), slog.String("action", action),
			slog.String("kind", kind), slog.String("id", id), slog.String("before", string(entry.Before)), slog.String("after", string(entry.After)),
			slog.String("error", err.Error()))
	}
}
