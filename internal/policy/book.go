package policy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
)

// Book is a place that holds documents and can be written. A change is in the book together with its entry in the history, or
// not at all. Every method has the deadline of its context.
type Book interface {
	// Read returns the documents of a kind by id, or the one document with this id: it fails with ErrNotFound when that is not there.
	Read(ctx context.Context, kind Kind, id string) ([]Stored, error)
	// Write makes one change and returns the document as it stands then, which for a deletion is the one that went. A change that
	// changes nothing is not made: it gives the document as it is. It fails with ErrConflict, ErrNotFound (a deletion) or ErrReadOnly.
	Write(ctx context.Context, change Write) (Stored, error)
	// History returns the changes of one document, of all of a kind when id is empty, or of all when kind is empty too: the newest first, at
	// most limit, and none after those that come to HistoryBytes. With before above 0 it begins below that revision, which is how it is read
	// page by page: an answer without a change, and that alone, says that there are no more.
	History(ctx context.Context, kind Kind, id string, before int64, limit int) ([]Change, error)
}

// HistoryBytes is how much one answer of a history shows before and after, in bytes, but for the last change in it: a thousand large documents would be
// more than a router has memory for.
const HistoryBytes = 4 << 20

// Why a book refuses. Whatever else it returns means that the book cannot be reached or does not work.
var (
	ErrNotFound = errors.New("there is no such document")
	ErrConflict = errors.New("the document has changed in the meantime")
	ErrReadOnly = errors.New("the policy source cannot be written here")
)

// Stored is a document as its book holds it: perhaps not a valid one.
type Stored struct {
	Kind Kind   `json:"kind"`
	ID   string `json:"id"`
	// Place is where it stands: a key, a file and line.
	Place string `json:"place,omitempty"`
	// Revision grows with every change of the document; 0 where the book keeps none.
	Revision int64 `json:"revision"`
	// Content is the document as it was written, as JSON.
	Content json.RawMessage `json:"content"`
	// Legacy says that it has the form of the earlier service.
	Legacy bool `json:"legacy,omitempty"`
}

// Write is one change to a book.
type Write struct {
	Kind Kind
	ID   string
	// Content is the new document as JSON; nil deletes it.
	Content json.RawMessage
	// If is the revision that the document must have for the change to be made: 0, that there is none. Nil: whatever it has.
	If *int64
	// Actor, Role, Reason and RequestID go into the history: who, in which role, why if they said so, and in which request. The router
	// itself has no role and no request.
	Actor     string
	Role      string
	Reason    string
	RequestID string
}

// Action is what a change did.
type Action string

// The actions.
const (
	ActionCreate Action = "create"
	ActionUpdate Action = "update"
	ActionDelete Action = "delete"
)

// Change is one entry of the history.
type Change struct {
	// Revision is the document's after the change. For a deletion it is that of the deletion.
	Revision int64  `json:"revision"`
	Action   Action `json:"action"`
	Kind     Kind   `json:"kind"`
	ID       string `json:"id"`
	// Before and After are the documents; null where there was or is none.
	Before json.RawMessage `json:"before"`
	After  json.RawMessage `json:"after"`
	// Actor is empty for a change that was made past the router.
	Actor string `json:"actor"`
	// Role and RequestID are empty for a change of the router's own, and for one of a version that did not keep them.
	Role      string    `json:"role,omitempty"`
	Reason    string    `json:"reason,omitempty"`
	RequestID string    `json:"request_id,omitempty"`
	At        time.Time `json:"at,omitzero"`
}

// Size is how much the change shows before and after, in bytes.
func (c *Change) Size() int { return len(c.Before) + len(c.After) }

// Organization is the one that the document names, after the change where there is an after; "" where it names none, as a policy for everyone.
func (c Change) Organization() string {
	content := c.After
	if content == nil {
		content = c.Before
	}
	var named struct {
		Organization string `json:"organization"`
	}
	switch d, problems := ParseOne("", c.Kind, c.ID, content); {
	case len(problems) > 0: // It was written past the router, or before it was refused, and says all the same whose it is.
		_ = json.Unmarshal(content, &named)
	case d.Policy != nil:
		named.Organization = d.Policy.Organization
	case d.Mark != nil:
		named.Organization = d.Mark.Organization
	}
	if named.Organization == "" || outsideID.MatchString(named.Organization) {
		return ""
	}
	return named.Organization
}

// Collection is the name of a kind in keys and paths: "backends", "policies", "prices", "marks"; "" for an unknown kind.
func (k Kind) Collection() string { return collections[k] }

// Kinds are all kinds, in the order in which they are listed.
func Kinds() []Kind { return []Kind{KindBackend, KindRoutingPolicy, KindPrice, KindMark} }

// KindOf finds a kind by any name that people give it: the kind itself, its collection or one of it, in any letter case.
func KindOf(name string) (Kind, error) {
	lower := strings.ToLower(name)
	for kind, collection := range collections {
		if lower == collection || lower == singular[kind] || strings.EqualFold(name, string(kind)) {
			return kind, nil
		}
	}
	return "", fmt.Errorf("there is no kind %s: it is one of backends, policies, prices, marks", quote(name))
}

var (
	collections = map[Kind]string{KindBackend: "backends", KindRoutingPolicy: "policies", KindPrice: "prices", KindMark: "marks"}
	singular    = map[Kind]string{KindBackend: "backend", KindRoutingPolicy: "policy", KindPrice: "price", KindMark: "mark"}
)

// outsideID are the bytes that an id cannot have.
var outsideID = regexp.MustCompile(`[^A-Za-z0-9._-]`)
