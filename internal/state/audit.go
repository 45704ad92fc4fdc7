package state

import (
	"context"
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"github.com/ai-aas/api-router/internal/auth"
	"github.com/ai-aas/api-router/internal/policy"
)

// What changes and their things are called in the audit.
const (
	actionCreate = "create"
	actionUpdate = "update"
	actionDelete = "delete"
	actionRotate = "rotate"
	actionImport = "import"

	kindOrganization = "organization"
	kindProject      = "project"
	kindKey          = "key"
	kindAdmin        = "admin"
)

// nanos is a time as the book keeps it; 0 is none.
func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func moment(nanos int64) time.Time {
	if nanos == 0 {
		return time.Time{}
	}
	return time.Unix(0, nanos).UTC()
}

// now is the present as the book can keep it.
func now() time.Time { return moment(time.Now().UnixNano()) }

// asJSON is a thing as the audit shows it; nil where there is none.
func asJSON[T any](thing *T) ([]byte, error) {
	if thing == nil {
		return nil, nil
	}
	return json.Marshal(thing)
}

// note is one entry that is to be written, without its sequence.
func note[T any](by auth.By, action, kind, id, organization string, before, after *T) (entry auth.Entry, err error) {
	entry = auth.Entry{
		At: now(), Actor: by.Actor, Role: by.Role, Action: action, Kind: kind, ID: id, Organization: organization,
		Reason: by.Reason, RequestID: by.RequestID,
	}
	if entry.Before, err = asJSON(before); err != nil {
		return entry, err
	}
	entry.After, err = asJSON(after)
	return entry, err
}

// audit puts one entry into the audit. It comes after everything else that its transaction changes of that thing.
func audit[T any](ctx context.Context, tx tx, by auth.By, action, kind, id, organization string, before, after *T) error {
	entry, err := note(by, action, kind, id, organization, before, after)
	if err != nil {
		return err
	}
	return addEntries(ctx, tx, entry)
}

// tickAudit is tick for the clock of the audit. It goes on above what is there: a replica of an older version, which has the book open while
// the others are brought up to date, numbers its entries by the clock of identities.
const tickAudit = `UPDATE counter SET value = $2 + CASE WHEN value < (SELECT coalesce(max(sequence), 0) FROM audit)
	THEN (SELECT max(sequence) FROM audit) ELSE value END WHERE name = $1 RETURNING value`

// addEntries gives entries their sequences, in this order, and puts them into the audit.
func addEntries(ctx context.Context, tx tx, entries ...auth.Entry) error {
	var last int64
	if err := tx.one(ctx, tickAudit, clockAudit, len(entries)).Scan(&last); err != nil {
		return err
	}
	rows := make([][]any, len(entries))
	for i, e := range entries {
		e.Sequence = last - int64(len(entries)-1-i)
		rows[i] = entryValues(e)
	}
	return insert(ctx, tx, auditColumns, rows...)
}

// Note puts into the audit what was changed outside of the book. The book sets Sequence and At; Before and After hold no secret.
func (b *Book) Note(ctx context.Context, entry auth.Entry) error {
	by := auth.By{Actor: entry.Actor, Role: entry.Role, Reason: entry.Reason, RequestID: entry.RequestID}
	if err := checkBy(by); err != nil {
		return err
	}
	entry.At = now()
	return b.write(ctx, "", func(ctx context.Context, tx tx) error { return addEntries(ctx, tx, entry) })
}

// auditDocument puts the change of a document into the audit. A document has references to secrets, but what was written past the router, or
// before it was refused, may hold anything, and the audit keeps it for good.
func auditDocument(ctx context.Context, tx tx, change *policy.Change) error {
	shown := func(content []byte) []byte {
		return policy.Stored{Kind: change.Kind, ID: change.ID, Content: content}.Masked()
	}
	return addEntries(ctx, tx, auth.Entry{
		At: change.At, Actor: change.Actor, Role: change.Role, Action: string(change.Action), Kind: string(change.Kind), ID: change.ID,
		Organization: change.Organization(), Before: shown(change.Before), After: shown(change.After), Reason: change.Reason, RequestID: change.RequestID,
	})
}

const auditColumns = "audit (sequence, made_at, actor, role, action, kind, id, organization, before_content, after_content, reason, request_id)"

func entryValues(e auth.Entry) []any {
	return []any{e.Sequence, nanos(e.At), e.Actor, e.Role, e.Action, e.Kind, e.ID, e.Organization, text(e.Before), text(e.After), e.Reason, e.RequestID}
}

// insertAtOnce is how many rows one statement inserts: a round trip to a server is dear, and in SQLite what a parameter costs grows with their number.
const insertAtOnce = 20

// insert puts rows of equal length into a table.
func insert(ctx context.Context, tx tx, into string, rows ...[]any) error {
	for len(rows) > 0 {
		some := rows[:min(len(rows), insertAtOnce)]
		rows = rows[len(some):]
		statement, args := "INSERT INTO "+into+" VALUES ", make([]any, 0, len(some)*len(some[0]))
		var places strings.Builder
		for i, row := range some {
			for j, value := range row {
				places.WriteString(separator(i, j))
				args = append(args, value)
				places.WriteString(strconv.Itoa(len(args)))
			}
		}
		if err := tx.exec(ctx, statement+places.String()+")", args...); err != nil {
			return err
		}
	}
	return nil
}

// separator stands before the j-th parameter of the i-th row.
func separator(i, j int) string {
	switch {
	case j > 0:
		return ", $"
	case i > 0:
		return "), ($"
	}
	return "($"
}

// Audit gives entries, the newest first.
func (b *Book) Audit(ctx context.Context, filter auth.AuditFilter) ([]auth.Entry, error) {
	const columns = "SELECT sequence, made_at, actor, role, action, kind, id, organization, before_content, after_content, reason, request_id"
	rest := " FROM audit"
	args, word := []any{}, " WHERE "
	where := func(condition string, value any) {
		args = append(args, value)
		rest += word + condition + "$" + strconv.Itoa(len(args))
		word = " AND "
	}
	for _, equal := range []struct{ column, value string }{
		{"organization", filter.Organization}, {"kind", filter.Kind}, {"id", filter.ID}, {"actor", filter.Actor},
	} {
		if equal.value != "" {
			where(equal.column+" = ", equal.value)
		}
	}
	since := filter.Since
	if since.After(latest) { // Nanoseconds since 1970 begin anew beyond.
		since = latest
	}
	if since.After(time.Unix(0, 0)) {
		where("made_at >= ", nanos(since))
		// Clocks of replicas differ, so entries are in no order of time: this says where the first of them is, by an index that has both, for
		// which the sum makes SQLite give up its own way.
		where("sequence >= (SELECT min(sequence + 0) FROM audit WHERE made_at >= ", nanos(since))
		rest += ")"
	}
	if filter.Before != 0 {
		where("sequence < ", filter.Before)
	}
	args = append(args, page(filter.Limit))
	rest += " ORDER BY sequence DESC LIMIT $" + strconv.Itoa(len(args))
	var entries []auth.Entry
	err := b.read(ctx, func(ctx context.Context, tx tx) error {
		if filter.Bytes > 0 {
			n, err := fitting(ctx, tx, filter.Bytes, rest, args...)
			if err != nil {
				return err
			}
			args[len(args)-1] = n
		}
		return tx.each(ctx, func(row row) error {
			var e auth.Entry
			var at int64
			err := row.Scan(&e.Sequence, &at, &e.Actor, &e.Role, &e.Action, &e.Kind, &e.ID, &e.Organization, &e.Before, &e.After, &e.Reason, &e.RequestID)
			e.At = moment(at)
			entries = append(entries, e)
			return err
		}, columns+rest, args...)
	})
	if err != nil {
		return nil, err
	}
	return entries, nil
}
