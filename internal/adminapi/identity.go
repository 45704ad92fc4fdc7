package adminapi

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Endpoints are the paths that a key can be held to.
func Endpoints() []string { return []string{EndpointChat, EndpointCompletion, EndpointEmbedding} }

// OrganizationRequest is what an organization is to be. Whether it is disabled stays as it is.
type OrganizationRequest struct {
	Name string `json:"name"`
	// TimeZone is the IANA name of the zone in which its days and months begin; "" is UTC.
	TimeZone string `json:"time_zone,omitempty"`
}

// Organization is whom keys belong to.
type Organization struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	TimeZone  string    `json:"time_zone,omitempty"`
	Disabled  bool      `json:"disabled"`
	CreatedAt time.Time `json:"created_at"`
	// Revision is what If-Match takes.
	Revision int64 `json:"revision"`
}

// Organizations are a page of them, by id.
type Organizations struct {
	Items []Organization `json:"items"`
	// Next is the id after which the next page begins; "": this is the last.
	Next string `json:"next,omitempty"`
}

// ProjectRequest is what a project is to be.
type ProjectRequest struct {
	Name string `json:"name"`
}

// Project groups keys within an organization.
type Project struct {
	ID           string    `json:"id"`
	Organization string    `json:"organization"`
	Name         string    `json:"name"`
	CreatedAt    time.Time `json:"created_at"`
	Revision     int64     `json:"revision"`
}

// Projects are a page of an organization's projects, by id.
type Projects struct {
	Items []Project `json:"items"`
	// Next is the id after which the next page begins; "": this is the last.
	Next string `json:"next,omitempty"`
}

// Gone is what was deleted.
type Gone struct {
	ID           string `json:"id"`
	Organization string `json:"organization"`
}

// Scopes are what a key may do. What is left out is not restricted.
type Scopes struct {
	// Models are public names, or prefixes that end in "*".
	Models []string `json:"models,omitempty"`
	// Endpoints are among those that Endpoints lists.
	Endpoints []string `json:"endpoints,omitempty"`
	// Networks are where it may be used from, as 10.0.0.0/8 or one address.
	Networks []string `json:"networks,omitempty"`
	// Priority lets it set x-priority.
	Priority bool `json:"priority,omitempty"`
	// MaxTokens is used where a request names no bound on its answer.
	MaxTokens int64 `json:"max_tokens,omitempty"`
	// Tags go into usage records.
	Tags map[string]string `json:"tags,omitempty"`
	// Signature is "optional" or "required" for a key whose requests are signed.
	Signature string `json:"signature,omitempty"`
}

// KeyRequest asks for a new key.
type KeyRequest struct {
	Project string `json:"project,omitempty"`
	Name    string `json:"name,omitempty"`
	Scopes  Scopes `json:"scopes,omitzero"`
	// ExpiresIn or ExpiresAt say when it ends; neither: never.
	ExpiresIn Duration  `json:"expires_in,omitzero"`
	ExpiresAt time.Time `json:"expires_at,omitzero"`
	Reason    string    `json:"reason,omitempty"`
}

// The states of a key.
const (
	KeyActive  = "active"
	KeyRotated = "rotated" // another took its place; it works until its end
	KeyExpired = "expired"
	KeyRevoked = "revoked"
	KeyDamaged = "damaged" // what the book has of it cannot be read: it lets nobody in, and can only be deleted
)

// Key is what is kept of a key. It does not hold the key.
type Key struct {
	ID           string `json:"id"`
	Organization string `json:"organization"`
	Project      string `json:"project,omitempty"`
	Name         string `json:"name,omitempty"`
	// State is active, rotated, expired, revoked or damaged, by the server's clock.
	State  string `json:"state"`
	Scopes Scopes `json:"scopes"`
	// Imported says that only its SHA-256 is known.
	Imported   bool      `json:"imported,omitempty"`
	ExpiresAt  time.Time `json:"expires_at,omitzero"`
	RevokedAt  time.Time `json:"revoked_at,omitzero"`
	RotatedTo  string    `json:"rotated_to,omitempty"`
	CreatedAt  time.Time `json:"created_at"`
	CreatedBy  string    `json:"created_by,omitempty"`
	LastUsedAt time.Time `json:"last_used_at,omitzero"`
	// Damage says of a damaged key what cannot be read.
	Damage   string `json:"damage,omitempty"`
	Revision int64  `json:"revision"`
}

// Keys are a page of an organization's keys, by id.
type Keys struct {
	Items []Key `json:"items"`
	// Next is the id after which the next page begins; "": this is the last.
	Next string `json:"next,omitempty"`
}

// NewKey is the one answer that holds a key. Nobody can ask for it again.
type NewKey struct {
	Key `json:"key"`
	// Secret is the key itself.
	Secret string `json:"secret"`
	// SigningSecret is what its requests are signed with, of a key that signs.
	SigningSecret string `json:"signing_secret,omitempty"`
}

// Rotation asks for a key that takes the place of another.
type Rotation struct {
	// Grace is how long the other works on; nothing: 24 hours.
	Grace  Duration `json:"grace,omitzero"`
	Reason string   `json:"reason,omitempty"`
}

// Because is the body of a change that takes a reason alone.
type Because struct {
	Reason string `json:"reason,omitempty"`
}

// Fingerprint is a key of another service, of which the SHA-256 is known.
type Fingerprint struct {
	// SHA256 is in hexadecimal digits or in base64.
	SHA256    string    `json:"sha256"`
	Project   string    `json:"project,omitempty"`
	Name      string    `json:"name,omitempty"`
	Scopes    Scopes    `json:"scopes,omitzero"`
	ExpiresAt time.Time `json:"expires_at,omitzero"`
}

// MaxFingerprints is how many can be imported at once. A state book takes no more in one transaction, in which nobody else can change a key.
const MaxFingerprints = 1_000

// Import asks for fingerprints to be kept: all of them or, where one is wrong, none.
type Import struct {
	Keys   []Fingerprint `json:"keys"`
	Reason string        `json:"reason,omitempty"`
}

// Imported says what came of it.
type Imported struct {
	// Imported counts the new ones, Known those that were there already.
	Imported int `json:"imported"`
	Known    int `json:"known"`
}

// Entry is one line of the audit.
type Entry struct {
	// Sequence grows from entry to entry. Documents that are not in the state book have one of their own: the revision of the change.
	Sequence int64 `json:"sequence"`
	// At is zero, and Actor empty, for a change of a document that was made past the router.
	At    time.Time `json:"at,omitzero"`
	Actor string    `json:"actor"`
	// Role is what the actor was let in as; empty for a change of the router's own, and for one of a version that did not keep it.
	Role   string `json:"role,omitempty"`
	Action string `json:"action"` // create, update, rotate, revoke, delete, import
	Kind   string `json:"kind"`   // organization, project, key, admin, log-level, or the kind of a document
	ID     string `json:"id"`
	// Organization is whose the thing is; empty for what is nobody's.
	Organization string `json:"organization,omitempty"`
	// Before and After are the thing as it was and is; null where there was or is none.
	Before    json.RawMessage `json:"before"`
	After     json.RawMessage `json:"after"`
	Reason    string          `json:"reason,omitempty"`
	RequestID string          `json:"request_id,omitempty"`
}

// Entries are a page of the audit, the newest first.
type Entries struct {
	Items []Entry `json:"items"`
	// Next is where the next page begins, for EntryFilter.Before; "": this is the last. A page may hold fewer entries than were asked for, or
	// none, and have a next.
	Next string `json:"next,omitempty"`
	// Since is before when entries of the state book were taken out because they were old (state.audit_retention); zero: none ever was.
	Since time.Time `json:"since,omitzero"`
}

// EntryFilter chooses entries of the audit; what is empty chooses all.
type EntryFilter struct {
	// Kind is organization, project, key, admin, log-level, or a collection of documents.
	Organization, Kind, ID, Actor string
	// Since leaves out what is older.
	Since time.Time
	// Before is the Next of the page before.
	Before string
	Limit  int
}

const (
	organizations = "organizations"
	projects      = "projects"
	keys          = "keys"
)

// Organizations returns a page of them: those after an id, at most limit; 0 leaves their number to the server.
func (c *Client) Organizations(ctx context.Context, after string, limit int) (Organizations, error) {
	return ask[Organizations](ctx, c, request{method: http.MethodGet, path: []string{organizations}, query: page(after, limit)})
}

// Organization returns one.
func (c *Client) Organization(ctx context.Context, id string) (Organization, error) {
	return ask[Organization](ctx, c, request{method: http.MethodGet, path: []string{organizations, id}})
}

// PutOrganization makes or changes one.
func (c *Client) PutOrganization(ctx context.Context, id string, what OrganizationRequest, when If) (Organization, error) {
	return put[Organization](ctx, c, what, when, organizations, id)
}

// DeleteOrganization deletes one that is enabled and has neither keys nor projects.
func (c *Client) DeleteOrganization(ctx context.Context, id string, when If) (Gone, error) {
	return remove(ctx, c, when, organizations, id)
}

// SwitchOrganization disables an organization, so that every key of it is refused, or enables it.
func (c *Client) SwitchOrganization(ctx context.Context, id string, disabled bool, reason string) (Organization, error) {
	verb := "enable"
	if disabled {
		verb = "disable"
	}
	return post[Organization](ctx, c, Because{reason}, organizations, id, verb)
}

// Projects returns a page of an organization's projects: those after an id, at most limit; 0 leaves their number to the server.
func (c *Client) Projects(ctx context.Context, organization, after string, limit int) (Projects, error) {
	return ask[Projects](ctx, c, request{method: http.MethodGet, path: []string{organizations, organization, projects}, query: page(after, limit)})
}

// Project returns one of an organization's projects.
func (c *Client) Project(ctx context.Context, organization, id string) (Project, error) {
	return ask[Project](ctx, c, request{method: http.MethodGet, path: []string{organizations, organization, projects, id}})
}

// DeleteProject deletes one in which no key is that could be used.
func (c *Client) DeleteProject(ctx context.Context, organization, id string, when If) (Gone, error) {
	return remove(ctx, c, when, organizations, organization, projects, id)
}

// PutProject makes or changes one.
func (c *Client) PutProject(ctx context.Context, organization, id string, what ProjectRequest, when If) (Project, error) {
	return put[Project](ctx, c, what, when, organizations, organization, projects, id)
}

// Keys returns a page of an organization's keys: those after an id, at most limit; 0 leaves their number to the server.
func (c *Client) Keys(ctx context.Context, organization, after string, limit int) (Keys, error) {
	return ask[Keys](ctx, c, request{method: http.MethodGet, path: []string{organizations, organization, keys}, query: page(after, limit)})
}

// Key returns one of an organization's keys.
func (c *Client) Key(ctx context.Context, organization, id string) (Key, error) {
	return ask[Key](ctx, c, request{method: http.MethodGet, path: []string{organizations, organization, keys, id}})
}

// CreateKey makes a key. Its answer alone has the key itself.
func (c *Client) CreateKey(ctx context.Context, organization string, what KeyRequest) (NewKey, error) {
	return post[NewKey](ctx, c, what, organizations, organization, keys)
}

// RotateKey makes a key that takes the place of another. Its answer alone has the key itself. The other must have this revision;
// nil: whatever it has.
func (c *Client) RotateKey(ctx context.Context, organization, id string, what Rotation, revision *int64) (NewKey, error) {
	return write[NewKey](ctx, c, http.MethodPost, what, If{Revision: revision}, organizations, organization, keys, id, "rotate")
}

// RevokeKey ends a key for good.
func (c *Client) RevokeKey(ctx context.Context, organization, id string, when If) (Key, error) {
	return write[Key](ctx, c, http.MethodPost, Because{when.Reason}, If{Revision: when.Revision}, organizations, organization, keys, id, "revoke")
}

// ImportKeys keeps fingerprints of keys of another service.
func (c *Client) ImportKeys(ctx context.Context, organization string, what Import) (Imported, error) {
	return post[Imported](ctx, c, what, organizations, organization, "fingerprints")
}

// Entries returns a page of the audit.
func (c *Client) Entries(ctx context.Context, filter EntryFilter) (Entries, error) {
	query := url.Values{}
	for name, value := range map[string]string{"organization": filter.Organization, "kind": filter.Kind, "id": filter.ID, "actor": filter.Actor, "before": filter.Before} {
		if value != "" {
			query.Set(name, value)
		}
	}
	if !filter.Since.IsZero() {
		query.Set("since", filter.Since.Format(time.RFC3339Nano))
	}
	if filter.Limit > 0 {
		query.Set("limit", strconv.Itoa(filter.Limit))
	}
	return ask[Entries](ctx, c, request{method: http.MethodGet, path: []string{"audit", "entries"}, query: query})
}

func put[T any](ctx context.Context, c *Client, body any, when If, path ...string) (T, error) {
	return write[T](ctx, c, http.MethodPut, body, when, path...)
}

func write[T any](ctx context.Context, c *Client, method string, body any, when If, path ...string) (T, error) {
	content, err := json.Marshal(body)
	if err != nil {
		var none T
		return none, err
	}
	return ask[T](ctx, c, request{method: method, path: path, query: when.query(), header: when.header(), kind: jsonType, body: content})
}

func remove(ctx context.Context, c *Client, when If, path ...string) (Gone, error) {
	return ask[Gone](ctx, c, request{method: http.MethodDelete, path: path, query: when.query(), header: when.header()})
}

// page asks for what comes after an id.
func page(after string, limit int) url.Values {
	query := limited(limit)
	if after != "" {
		if query == nil {
			query = url.Values{}
		}
		query.Set("after", after)
	}
	return query
}
