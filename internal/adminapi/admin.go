package adminapi

import (
	"context"
	"net/http"
	"time"
)

// AdminRequest asks for a new admin.
type AdminRequest struct {
	// Name stands in the audit as the actor.
	Name string `json:"name"`
	// Role is viewer, operator, admin or auditor.
	Role string `json:"role"`
	// ExpiresIn or ExpiresAt say when the token ends; neither: never.
	ExpiresIn Duration  `json:"expires_in,omitzero"`
	ExpiresAt time.Time `json:"expires_at,omitzero"`
	Reason    string    `json:"reason,omitempty"`
}

// AdminChange is what an admin is to be. The name stays as it is, and so does the end where it is not named.
type AdminChange struct {
	Role string `json:"role"`
	// ExpiresIn or ExpiresAt say when the token ends from now on; To(time.Time{}): never.
	ExpiresIn Duration         `json:"expires_in,omitzero"`
	ExpiresAt Named[time.Time] `json:"expires_at,omitzero"`
}

// The states of an admin.
const (
	AdminActive  = "active"
	AdminExpired = "expired"
	AdminRevoked = "revoked"
	AdminDamaged = "damaged" // what the book has of it cannot be read: it lets nobody in, and can only be deleted
)

// Admin is what is kept of somebody who may use the admin API. It does not hold the token.
type Admin struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	Role string `json:"role"`
	// State is active, expired, revoked or damaged, by the server's clock.
	State     string    `json:"state"`
	ExpiresAt time.Time `json:"expires_at,omitzero"`
	RevokedAt time.Time `json:"revoked_at,omitzero"`
	CreatedAt time.Time `json:"created_at"`
	CreatedBy string    `json:"created_by,omitempty"`
	// Damage says of a damaged one what cannot be read.
	Damage string `json:"damage,omitempty"`
	// Revision is what If-Match takes.
	Revision int64 `json:"revision"`
}

// Admins are all of the state book, by name. Those whom the configuration names are not among them.
type Admins struct {
	Items []Admin `json:"items"`
}

// NewAdmin is the one answer that holds the token of an admin. Nobody can ask for it again.
type NewAdmin struct {
	Admin `json:"admin"`
	// Secret is the token itself.
	Secret string `json:"secret"`
}

// GoneAdmin is who was deleted.
type GoneAdmin struct {
	ID string `json:"id"`
}

const admins = "admins"

// Admins returns all of them.
func (c *Client) Admins(ctx context.Context) (Admins, error) {
	return ask[Admins](ctx, c, request{method: http.MethodGet, path: []string{admins}})
}

// Admin returns one.
func (c *Client) Admin(ctx context.Context, id string) (Admin, error) {
	return ask[Admin](ctx, c, request{method: http.MethodGet, path: []string{admins, id}})
}

// CreateAdmin makes one. Its answer alone has the token.
func (c *Client) CreateAdmin(ctx context.Context, what AdminRequest) (NewAdmin, error) {
	return post[NewAdmin](ctx, c, what, admins)
}

// ChangeAdmin changes the role and the end of one.
func (c *Client) ChangeAdmin(ctx context.Context, id string, what AdminChange, when If) (Admin, error) {
	return put[Admin](ctx, c, what, when, admins, id)
}

// RevokeAdmin refuses the token of one for good.
func (c *Client) RevokeAdmin(ctx context.Context, id, reason string) (Admin, error) {
	return post[Admin](ctx, c, Because{reason}, admins, id, "revoke")
}

// DeleteAdmin takes away one that is revoked or expired, so that another can have the name.
func (c *Client) DeleteAdmin(ctx context.Context, id string, when If) (GoneAdmin, error) {
	return ask[GoneAdmin](ctx, c, request{method: http.MethodDelete, path: []string{admins, id}, query: when.query(), header: when.header()})
}
