// Package adminapi is the admin API as its two ends see it: the types on the wire, and a client.
//
// Package admin serves these types, the command line asks for them with a Client. api/openapi.yaml describes the same in words.
package adminapi

import (
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"time"
)

// Prefix is what the path of every request begins with.
const Prefix = "/admin/v1"

// The collections of documents.
const (
	Backends = "backends"
	Policies = "policies"
	Prices   = "prices"
	Marks    = "marks"
)

// The roles of a token. Of the first three, each may do what the one before it may; the auditor stands beside them.
const (
	RoleViewer   = "viewer"   // sees everything but secrets, and changes nothing
	RoleOperator = "operator" // sets and lifts marks, changes the log level, takes profiles
	RoleAdmin    = "admin"    // writes documents, organizations, projects and keys
	RoleAuditor  = "auditor"  // sees who changed what, and the status, and nothing else
)

// Status says what a stored document does.
type Status string

// The statuses of a document.
const (
	// InForce: it is used as it is written.
	InForce Status = "in_force"
	// LastGood: it cannot be used as it is written; its last version that could be is used.
	LastGood Status = "last_good"
	// Refused: it cannot be used, and there was no version that could.
	Refused Status = "refused"
	// Pending: it was written a moment ago and has not reached this router's table.
	Pending Status = "pending"
	// Expired: it is a mark whose time is over.
	Expired Status = "expired"
)

// Document is a document as its book holds it, and what has become of it.
type Document struct {
	Kind string `json:"kind"`
	ID   string `json:"id"`
	// Place is where it stands: a key, a file.
	Place string `json:"place,omitempty"`
	// Revision is what If-Match takes; 0 where the book keeps none.
	Revision int64 `json:"revision"`
	// Legacy says that it has the form of the earlier service.
	Legacy bool   `json:"legacy,omitempty"`
	Status Status `json:"status"`
	// Content is the document as it was written. A secret in it is a reference: what stands there and is none, is hidden.
	Content json.RawMessage `json:"content"`
	// Problems tell why it is not used as it is written, or what of it has no effect.
	Problems []Problem `json:"problems,omitempty"`
	// Backend is the state of a backend that is in force.
	Backend *Backend `json:"backend,omitempty"`
}

// Problem is one thing that is wrong with a document.
type Problem struct {
	Kind string `json:"kind,omitempty"`
	ID   string `json:"id,omitempty"`
	// Place is a file, a key or "request". Line and Column count from 1; 0 is unknown.
	Place   string `json:"place,omitempty"`
	Line    int    `json:"line,omitempty"`
	Column  int    `json:"column,omitempty"`
	Message string `json:"message"`
	// Serving says that a good version of the document is in force all the same.
	Serving bool `json:"serving"`
}

// String is one line in the form of a compiler's message: place:line:column: Kind id: message.
func (p Problem) String() string {
	var b strings.Builder
	if b.WriteString(p.Place); p.Line > 0 {
		b.WriteString(":" + strconv.Itoa(p.Line))
		if p.Column > 0 {
			b.WriteString(":" + strconv.Itoa(p.Column))
		}
	}
	if b.Len() > 0 {
		b.WriteString(": ")
	}
	if name := strings.TrimSpace(p.Kind + " " + p.ID); name != "" {
		b.WriteString(name + ": ")
	}
	b.WriteString(p.Message)
	if p.Serving {
		b.WriteString(" (a good version keeps serving)")
	}
	return b.String()
}

// List is the answer to a question for the documents of one collection, by id.
type List struct {
	Items []Document `json:"items"`
	// Problems are those that belong to no document of the list: a file that cannot be read, a source that cannot be reached.
	Problems []Problem `json:"problems,omitempty"`
	// Stale says that the book could not be read: the items are those in force. StaleReason says why.
	Stale       bool   `json:"stale,omitempty"`
	StaleReason string `json:"stale_reason,omitempty"`
}

// Outcome says what a change did.
type Outcome string

// The outcomes.
const (
	Created   Outcome = "created"
	Changed   Outcome = "changed"
	Unchanged Outcome = "unchanged" // it already was as it should be: nothing was written, nothing is in the history
	Deleted   Outcome = "deleted"
)

// Written is the answer to a change: the document as it stands now, which for a deletion is the one that went.
type Written struct {
	Outcome  Outcome `json:"outcome"`
	Document `json:"document"`
}

// Change is one entry of the history.
type Change struct {
	// Revision is the document's after the change, and what a rollback takes.
	Revision int64  `json:"revision"`
	Action   string `json:"action"` // create, update, delete
	Kind     string `json:"kind"`
	ID       string `json:"id"`
	// Before and After are the documents; null where there was or is none.
	Before json.RawMessage `json:"before"`
	After  json.RawMessage `json:"after"`
	// Actor is the name of the token; empty for a change that was made past the router.
	Actor     string    `json:"actor"`
	Role      string    `json:"role,omitempty"`
	Reason    string    `json:"reason,omitempty"`
	RequestID string    `json:"request_id,omitempty"`
	At        time.Time `json:"at,omitzero"`
}

// History is a page of changes, the newest first.
type History struct {
	Items []Change `json:"items"`
	// Next is where the next page begins, for HistoryPage.Before; "": this is the last. A page of large documents holds fewer changes than
	// were asked for.
	Next string `json:"next,omitempty"`
}

// HistoryPage says which part of a history is wanted.
type HistoryPage struct {
	// Before is the Next of the page before; "": from the newest change on.
	Before string
	// Limit is how many changes at most; 0 leaves their number to the server.
	Limit int
}

// Rollback asks for a document as it was at one of its revisions.
type Rollback struct {
	Revision int64  `json:"revision"`
	Reason   string `json:"reason,omitempty"`
}

// Validation is what is wrong with documents, alone and beside those in force.
type Validation struct {
	// Valid says that all of them would be used as they are written. There may be problems all the same, each with Serving set.
	Valid     bool      `json:"valid"`
	Documents int       `json:"documents"`
	Problems  []Problem `json:"problems"`
}

// Diff is what writing documents would change.
type Diff struct {
	Items []Difference `json:"items"`
	// Problems are those of documents that could not be written, and so are not in Items.
	Problems []Problem `json:"problems,omitempty"`
}

// Difference is what writing one document would change. Content and Revision are what Put needs to do just that.
type Difference struct {
	Kind string `json:"kind"`
	ID   string `json:"id"`
	// Outcome is created, changed or unchanged.
	Outcome Outcome `json:"outcome"`
	// Revision is that of the stored document; 0: there is none.
	Revision int64 `json:"revision"`
	// Content is the document as it would be stored.
	Content json.RawMessage `json:"content"`
	// Fields are the differences, by path.
	Fields []Field `json:"fields,omitempty"`
}

// Field is one difference between two documents. Before or After is absent where the document lacks the field.
type Field struct {
	Path   string          `json:"path"` // as in backends[0].weight
	Before json.RawMessage `json:"before,omitempty"`
	After  json.RawMessage `json:"after,omitempty"`
}

// String is the difference in one line.
func (f Field) String() string {
	switch {
	case f.Before == nil:
		return f.Path + ": + " + string(f.After)
	case f.After == nil:
		return f.Path + ": - " + string(f.Before)
	}
	return f.Path + ": " + string(f.Before) + " -> " + string(f.After)
}

// Duration is a time.Duration above 0 that is written as in "1h30m". What has none is absent: "0s" could be meant as "not at all", or as "for ever".
type Duration time.Duration

// String is the duration as time.Duration prints it.
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText is String, for JSON.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads what time.ParseDuration reads, above 0.
func (d *Duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	if err != nil || parsed <= 0 {
		return errDuration // time's own repeats the value, which a client may have got wrong in any way
	}
	*d = Duration(parsed)
	return nil
}

var errDuration = errors.New(`a duration is above 0, and written as in 90s, 30m or 1h`)
