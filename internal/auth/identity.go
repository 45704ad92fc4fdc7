package auth

import (
	"context"
	"crypto/sha256"
	"errors"
	"net/netip"
	"time"
)

// Digest stands for a credential: what is kept of it, compared and looked up. The credential cannot be had back from it.
type Digest [sha256.Size]byte

// Organization is whom keys belong to, and whose rules apply.
type Organization struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	// TimeZone is the IANA name of the zone in which its days and months begin; "" is UTC.
	TimeZone string `json:"time_zone,omitempty"`
	// Disabled refuses every key of it with 403.
	Disabled  bool      `json:"disabled,omitempty"`
	CreatedAt time.Time `json:"created_at"`
	// Revision grows with every change of it.
	Revision int64 `json:"revision"`
}

// Project groups keys within an organization.
type Project struct {
	ID           string    `json:"id"` // unique within its organization
	Organization string    `json:"organization"`
	Name         string    `json:"name"`
	CreatedAt    time.Time `json:"created_at"`
	Revision     int64     `json:"revision"`
}

// Scopes are what a key may do. The zero value allows every model and endpoint from everywhere.
type Scopes struct {
	// Models are public names, or prefixes that end in "*". Empty: all that its organization may use.
	Models []string `json:"models,omitempty"`
	// Endpoints are paths such as /v1/embeddings. Empty: all.
	Endpoints []string `json:"endpoints,omitempty"`
	// Networks are where it may be used from. Empty: everywhere.
	Networks []netip.Prefix `json:"networks,omitempty"`
	// Priority lets it set x-priority.
	Priority bool `json:"priority,omitempty"`
	// MaxTokens is used where a request names no bound on its answer; 0: the backend's own.
	MaxTokens int64 `json:"max_tokens,omitempty"`
	// Tags go into usage records. They are the operator's, never the client's.
	Tags map[string]string `json:"tags,omitempty"`
	// Signature says whether requests must be signed: "" they cannot be, SignatureOptional or SignatureRequired.
	Signature string `json:"signature,omitempty"`
}

// What Scopes.Signature may be.
const (
	SignatureOptional = "optional"
	SignatureRequired = "required"
)

// Key is what is kept of an API key. It does not hold the key.
type Key struct {
	// ID is the eight characters that the key itself shows after "ar_"; of an imported key one that was made for it.
	ID           string `json:"id"`
	Organization string `json:"organization"`
	Project      string `json:"project,omitempty"`
	Name         string `json:"name,omitempty"`
	Scopes       Scopes `json:"scopes"`
	// Digest is HMAC-SHA256 of the whole key under the pepper of this version; version 0 is SHA-256 without one, of an imported fingerprint.
	Digest Digest `json:"-"`
	Pepper int    `json:"pepper"`
	// PepperMark tells the pepper that it was made under from another one of that version; 0: it is not known.
	PepperMark uint32 `json:"-"`
	// Sealed is the secret that its requests are signed with, sealed under the pepper; nil: it has none.
	Sealed []byte `json:"-"`
	// ExpiresAt ends it; zero: never. Rotation sets it to the end of the grace.
	ExpiresAt time.Time `json:"expires_at,omitzero"`
	// RevokedAt is when it was revoked; zero: it was not.
	RevokedAt time.Time `json:"revoked_at,omitzero"`
	// RotatedTo is the id of the key that took its place; "" for none.
	RotatedTo string    `json:"rotated_to,omitempty"`
	CreatedAt time.Time `json:"created_at"`
	CreatedBy string    `json:"created_by,omitempty"`
	// LastUsedAt is accurate to a minute or so; zero: not used yet, as far as is known.
	LastUsedAt time.Time `json:"last_used_at,omitzero"`
	// Damage says why what the book has of it cannot be read; "" if it can. Such a key lets nobody in and can only be deleted.
	Damage   string `json:"damage,omitempty"`
	Revision int64  `json:"revision"`
}

// Change is one step of a Ledger: the organization or the key as it stands now. Of a key that was deleted, Gone is its id; of an organization that was,
// Organization has its id alone, and no revision.
type Change struct {
	Organization *Organization
	Key          *Key
	Gone         string
	// Position stands alone, and is above 0: every change up to this value of the ledger's clock has been given.
	Position int64
}

// Ledger is where keys and organizations are kept, as the hot path needs them. It holds everything, and is followed, never asked in a
// request's way.
type Ledger interface {
	// Follow gives everything there is, then whole (once, when all of that was given), then every change within five seconds of its
	// making, and before whole and after changes its position. It returns when ctx ends or when the ledger cannot be reached; Follow is then called again, after a pause, and begins anew.
	// give and whole are not called at once.
	Follow(ctx context.Context, give func(Change), whole func()) error
	// Used notes when keys were used last, by their ids. It may be called with many at once, and seldom.
	Used(ctx context.Context, at map[string]time.Time) error
}

// Why a book of identities refuses. Whatever else it returns means that it cannot be reached or does not work.
var (
	ErrNotFound = errors.New("there is no such organization, project or key")
	ErrExists   = errors.New("there is one with this id already")
	ErrConflict = errors.New("it has changed in the meantime")
)

// Hindrance is an ErrConflict that nobody else's change is to blame for: what stands in the way of a change, and what to do about it, in one sentence.
type Hindrance string

func (h Hindrance) Error() string { return string(h) }

// Is makes every Hindrance an ErrConflict.
func (Hindrance) Is(target error) bool { return target == ErrConflict }

// Entry is one line of the audit: who changed what, with what there was before and after, as JSON without any secret.
type Entry struct {
	Sequence int64
	At       time.Time
	Actor    string
	Role     string
	Action   string // create, update, rotate, revoke, delete, import
	Kind     string // organization, project, key, admin, log-level, or that of a document
	ID       string
	// Organization is whose the thing is; "" where it is nobody's.
	Organization  string
	Before, After []byte // nil: there was nothing, or is nothing any more
	Reason        string
	RequestID     string
}

// By says who makes a change, and why. It goes into the audit together with the change, or neither does.
type By struct {
	Actor, Role, Reason, RequestID string
}

// AuditFilter chooses entries of the audit; what is empty chooses all.
type AuditFilter struct {
	Organization, Kind, ID, Actor string
	// Since gives only entries of that moment and later ones.
	Since time.Time
	// Before gives only entries with a lower sequence: the next page. 0 is none; a sequence may be below 0.
	Before int64
	// Limit is at most 1,000; 0 is 100.
	Limit int
	// Bytes ends the page with the entry by which what is shown before and after comes to as many; 0: never.
	Bytes int
}

// Size is how much the entry shows before and after, in bytes.
func (e *Entry) Size() int { return len(e.Before) + len(e.After) }
