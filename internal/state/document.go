package state

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"regexp"
	"time"
	"unicode/utf8"

	"github.com/ai-aas/api-router/internal/policy"
)

// maxContent is more than any document that can be read, in bytes.
const maxContent = 1 << 20

var idForm = regexp.MustCompile(`^[A-Za-z0-9._-]{1,128}$`)

// Read is policy.Book's.
func (b *Book) Read(ctx context.Context, kind policy.Kind, id string) ([]policy.Stored, error) {
	query, args := "SELECT id, revision, content FROM document WHERE kind = $1 ORDER BY id", []any{kind}
	if id != "" {
		query, args = "SELECT id, revision, content FROM document WHERE kind = $1 AND id = $2", []any{kind, id}
	}
	var found []policy.Stored
	err := b.read(ctx, func(ctx context.Context, tx tx) error {
		return tx.each(ctx, func(row row) error {
			stored := policy.Stored{Kind: kind}
			var content []byte
			if err := row.Scan(&stored.ID, &stored.Revision, &content); err != nil {
				return err
			}
			found = append(found, describe(stored, content))
			return nil
		}, query, args...)
	})
	if err != nil {
		return nil, err
	}
	if id != "" && len(found) == 0 {
		return nil, policy.ErrNotFound
	}
	return found, nil
}

// place is where a document stands.
func place(kind policy.Kind, id string) string { return kind.Collection() + "/" + id }

// describe fills in what follows from the content. Somebody may have put text that is no JSON into the table: it is shown as a JSON
// string, so that a list of documents does not break by one of them.
func describe(stored policy.Stored, content []byte) policy.Stored {
	stored.Place, stored.Content = place(stored.Kind, stored.ID), content
	if !json.Valid(content) {
		stored.Content, _ = json.Marshal(string(content)) //nolint:errchkjson // a string is always JSON
		return stored
	}
	if stored.Kind == policy.KindRoutingPolicy {
		document, _ := parse(stored)
		stored.Legacy = document.Legacy
	}
	return stored
}

// Write is policy.Book's. It takes any JSON: whether that is a valid document is for whoever writes and for whoever reads.
func (b *Book) Write(ctx context.Context, change policy.Write) (policy.Stored, error) {
	if err := check(change); err != nil {
		return policy.Stored{}, err
	}
	var stored policy.Stored
	err := b.write(ctx, clockDocuments, func(ctx context.Context, tx tx) error {
		var changed bool
		var err error
		if stored, changed, err = apply(ctx, tx, change); err == nil && !changed {
			return errUnchanged
		}
		return err
	})
	if err != nil {
		return policy.Stored{}, err
	}
	return stored, nil
}

func check(change policy.Write) error {
	switch {
	case change.Kind.Collection() == "":
		return fmt.Errorf("there is no kind %q", change.Kind)
	case !idForm.MatchString(change.ID):
		return errors.New("an id must be 1 to 128 of the characters A-Z a-z 0-9 . _ -")
	case len(change.Content) > maxContent:
		return fmt.Errorf("the document is larger than %d KiB", maxContent>>10)
	case !utf8.Valid(change.Content):
		return errors.New("the document is not UTF-8")
	case change.Content != nil && !json.Valid(change.Content):
		return errors.New("the document is not JSON")
	}
	return nil
}

// apply makes one change within tx, and its entry in the history.
func apply(ctx context.Context, tx tx, change policy.Write) (stored policy.Stored, changed bool, err error) {
	stored = policy.Stored{Kind: change.Kind, ID: change.ID}
	var before []byte
	err = tx.one(ctx, "SELECT revision, content FROM document WHERE kind = $1 AND id = $2", change.Kind, change.ID).Scan(&stored.Revision, &before)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return stored, false, err
	}
	there := err == nil
	switch {
	case change.If != nil && *change.If != stored.Revision:
		return stored, false, refusal{policy.ErrConflict}
	case !there && change.Content == nil:
		return stored, false, refusal{policy.ErrNotFound}
	case there && change.Content != nil && same(before, change.Content):
		return describe(stored, before), false, nil
	case !there:
		if err := roomFor(ctx, tx, change.Kind); err != nil {
			return stored, false, err
		}
	}
	entry := policy.Change{
		Action: policy.ActionUpdate, Kind: change.Kind, ID: change.ID, Before: before, After: change.Content, At: now(),
		Actor: change.Actor, Role: change.Role, Reason: change.Reason, RequestID: change.RequestID,
	}
	switch {
	case !there:
		entry.Action = policy.ActionCreate
	case change.Content == nil:
		entry.Action = policy.ActionDelete
	}
	if entry.Revision, err = record(ctx, tx, &entry); err != nil {
		return stored, false, err
	}
	if err := keepDocument(ctx, tx, &entry); err != nil {
		return stored, false, err
	}
	if err := auditDocument(ctx, tx, &entry); err != nil {
		return stored, false, err
	}
	if change.Content == nil {
		return describe(stored, before), true, nil
	}
	stored.Revision = entry.Revision
	return describe(stored, bytes.Clone(change.Content)), true, nil
}

// keepDocument makes the document what it is after the change.
func keepDocument(ctx context.Context, tx tx, change *policy.Change) error {
	if change.After == nil {
		return tx.exec(ctx, "DELETE FROM document WHERE kind = $1 AND id = $2", change.Kind, change.ID)
	}
	return tx.exec(ctx, `INSERT INTO document (kind, id, revision, content) VALUES ($1, $2, $3, $4)
		ON CONFLICT (kind, id) DO UPDATE SET revision = excluded.revision, content = excluded.content`,
		change.Kind, change.ID, change.Revision, string(change.After))
}

// roomFor says whether one more document can be read by those who watch the book. Marks have a room of their own: in a full book,
// too, a backend can be switched off.
func roomFor(ctx context.Context, tx tx, kind policy.Kind) error {
	return room(ctx, tx, "SELECT count(*) FROM document WHERE (kind = $1) = $2", policy.MaxDocuments, "documents", policy.KindMark, kind == policy.KindMark)
}

// record writes an entry of the history and takes away what is too old.
func record(ctx context.Context, tx tx, entry *policy.Change) (revision int64, err error) {
	revision, err = tick(ctx, tx, clockDocuments, 1)
	if err != nil {
		return 0, err
	}
	err = tx.exec(ctx, `INSERT INTO change (revision, action, kind, id, before_content, after_content, actor, role, reason, request_id, made_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)`, revision, entry.Action, entry.Kind, entry.ID, text(entry.Before), text(entry.After),
		entry.Actor, entry.Role, entry.Reason, entry.RequestID, nanos(entry.At))
	if err != nil {
		return 0, err
	}
	err = tx.exec(ctx, `DELETE FROM change WHERE revision <= $1`, revision-maxHistory)
	if err != nil {
		return 0, err
	}
	err = tx.exec(ctx, `DELETE FROM change WHERE kind = $1 AND id = $2 AND revision <=
		(SELECT revision FROM change WHERE kind = $1 AND id = $2 ORDER BY revision DESC LIMIT 1 OFFSET $3)`,
		entry.Kind, entry.ID, maxDocumentHistory)
	return revision, err
}

// text is JSON as the database keeps it: null where there is none.
func text(content json.RawMessage) any {
	if content == nil {
		return nil
	}
	return string(content)
}

// same says whether two contents are the same value: white space and the order of fields aside.
func same(a, b []byte) bool {
	if bytes.Equal(a, b) {
		return true
	}
	left, leftErr := value(a)
	right, rightErr := value(b)
	return leftErr == nil && rightErr == nil && reflect.DeepEqual(left, right)
}

func value(content []byte) (v any, err error) {
	decoder := json.NewDecoder(bytes.NewReader(content))
	decoder.UseNumber()
	err = decoder.Decode(&v)
	return v, err
}

const (
	changeColumns = "SELECT revision, action, kind, id, before_content, after_content, actor, role, reason, request_id, made_at"
	changesBelow  = " FROM change WHERE revision < $2"
	newestFirst   = " ORDER BY revision DESC LIMIT $1"
)

// fitting counts the rows of a table of changes, chosen and ordered by rest, down to the one by which what they show comes to so many bytes. To
// ask for those alone costs less than to stop in the middle of more: PostgreSQL has sent them by then.
func fitting(ctx context.Context, tx tx, most int, rest string, args ...any) (n int, err error) {
	size := 0
	err = tx.each(ctx, func(row row) error {
		var bytes int
		err := row.Scan(&bytes)
		if size, n = size+bytes, n+1; err == nil && size >= most {
			return errEnough
		}
		return err
	}, "SELECT coalesce(octet_length(before_content), 0) + coalesce(octet_length(after_content), 0)"+rest, args...)
	if errors.Is(err, errEnough) {
		err = nil
	}
	return n, err
}

// errEnough ends the reading of rows before their end.
var errEnough = errors.New("there is enough")

// History is policy.Book's. It gives at most 1,000 entries, and so many for a limit of 0.
func (b *Book) History(ctx context.Context, kind policy.Kind, id string, before int64, limit int) ([]policy.Change, error) {
	if limit <= 0 {
		limit = maxDocumentHistory
	}
	if before <= 0 {
		before = math.MaxInt64
	}
	rest, args := changesBelow, []any{min(limit, maxDocumentHistory), before}
	if kind != "" {
		rest, args = rest+" AND kind = $3", append(args, kind)
		if id != "" {
			rest, args = rest+" AND id = $4", append(args, id)
		}
	}
	rest += newestFirst
	var entries []policy.Change
	err := b.read(ctx, func(ctx context.Context, tx tx) error {
		n, err := fitting(ctx, tx, policy.HistoryBytes, rest, args...)
		if err != nil {
			return err
		}
		args[0] = n
		return tx.each(ctx, func(row row) error {
			var entry policy.Change
			var before, after []byte
			var at int64
			err := row.Scan(&entry.Revision, &entry.Action, &entry.Kind, &entry.ID, &before, &after, &entry.Actor, &entry.Role, &entry.Reason, &entry.RequestID, &at)
			entry.Before, entry.After, entry.At = before, after, time.Unix(0, at).UTC()
			entries = append(entries, entry)
			return err
		}, changeColumns+rest, args...)
	})
	if err != nil {
		return nil, err
	}
	return entries, nil
}

// failed says why a call failed: the reason of a refusal, the end of its time, or the database.
func (b *Book) failed(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if answer, ok := errors.AsType[refusal](err); ok {
		return answer.error
	}
	switch {
	case b.life.Err() != nil:
		return errClosed
	case ctx.Err() != nil:
		return fmt.Errorf("the state book %s did not answer in time: %w", b.engine.place(), ctx.Err())
	}
	return b.engine.explain(err)
}
