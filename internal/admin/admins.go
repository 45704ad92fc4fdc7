package admin

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/ai-aas/api-router/internal/adminapi"
	"github.com/ai-aas/api-router/internal/auth"
	"github.com/ai-aas/api-router/internal/fault"
)

// Admins are who may use the admin API, apart from those whom the configuration names.
type Admins interface {
	Admins(ctx context.Context) ([]auth.Admin, error)
	Admin(ctx context.Context, id string) (auth.Admin, error)
	CreateAdmin(ctx context.Context, a auth.Admin, by auth.By) (auth.Admin, error)
	ChangeAdmin(ctx context.Context, id string, change func(*auth.Admin) error, action string, by auth.By) (auth.Admin, error)
	DeleteAdmin(ctx context.Context, id string, condition *int64, by auth.By) error
}

// reserved are the actors of changes that nobody has a token for: see openDoor, and what the process itself and api-router seed change.
var reserved = []string{"dev", "api-router", "seed"}

// ofIssuers begins the names of those who come with a signed token.
const ofIssuers = "oidc-"

// admins answers all of them.
func (*Admin) admins(ctx context.Context, book Identities, _ *call) (reply, error) {
	found, err := book.Admins(ctx)
	if err != nil {
		return reply{}, identityRefusal(err, "admin", nil)
	}
	answer := adminapi.Admins{Items: make([]adminapi.Admin, 0, len(found))}
	now := time.Now()
	for i := range found {
		answer.Items = append(answer.Items, showAdmin(&found[i], now))
	}
	return reply{body: answer}, nil
}

func (*Admin) admin(ctx context.Context, book Identities, c *call) (reply, error) {
	found, err := book.Admin(ctx, c.item)
	if err != nil {
		return reply{}, identityRefusal(err, "admin "+c.item, nil)
	}
	return reply{revision: found.Revision, body: showAdmin(&found, time.Now())}, nil
}

// showAdmin is an admin as others may see it.
func showAdmin(a *auth.Admin, now time.Time) adminapi.Admin {
	shown := adminapi.Admin{
		ID: a.ID, Name: a.Name, Role: a.Role, State: adminapi.AdminActive, ExpiresAt: a.ExpiresAt, RevokedAt: a.RevokedAt,
		CreatedAt: a.CreatedAt, CreatedBy: a.CreatedBy, Damage: a.Damage, Revision: a.Revision,
	}
	switch {
	case a.Damage != "":
		shown.State = adminapi.AdminDamaged
	case !a.RevokedAt.IsZero():
		shown.State = adminapi.AdminRevoked
	case !a.ExpiresAt.IsZero() && !a.ExpiresAt.After(now):
		shown.State = adminapi.AdminExpired
	}
	return shown
}

// role checks the role of an admin.
func (p *problems) role(role string) {
	if !slices.Contains(roles, role) {
		p.add("role", "it is none of "+strings.Join(roles, ", "))
	}
}

// adminName checks the name of a new admin, which nobody else may go by in the audit.
func (p *problems) adminName(name string, configured []string, there []auth.Admin) {
	same := func(other string) bool { return strings.EqualFold(name, other) }
	switch {
	case !newID.MatchString(name):
		p.add("name", "it is 1 to 64 of the characters A-Z a-z 0-9 . _ -")
	case slices.ContainsFunc(configured, same):
		p.add("name", "a token of identity.admin_tokens has this name")
	case slices.ContainsFunc(reserved, same):
		p.add("name", "the router itself goes by this name")
	case strings.HasPrefix(strings.ToLower(name), ofIssuers):
		p.add("name", "operators of issuers go by names that begin with "+ofIssuers)
	case auth.IsAdminToken(name): // The audit would keep it.
		p.add("name", "this looks like a token, and a name is shown to many")
	case slices.ContainsFunc(there, func(a auth.Admin) bool { return same(a.Name) }):
		p.add("name", nameTaken)
	}
}

const nameTaken = "there is an admin with this name already; one that is revoked or expired can be deleted, and its name is free then"

// createAdmin makes an admin. Its answer is the only one that holds the token.
func (a *Admin) createAdmin(ctx context.Context, book Identities, c *call) (reply, error) {
	var ask adminapi.AdminRequest
	if err := c.decode(maxSmallBody, &ask); err != nil {
		return reply{}, err
	}
	there, err := book.Admins(ctx)
	if err != nil {
		return reply{}, identityRefusal(err, "admin", nil)
	}
	now := time.Now()
	var p problems
	next := auth.Admin{Name: ask.Name, Role: ask.Role, ExpiresAt: ask.ExpiresAt}
	if !ask.ExpiresAt.IsZero() && ask.ExpiresIn > 0 {
		p.add("expires_in", "there is expires_at, too: send one of them")
	} else if ask.ExpiresIn > 0 {
		next.ExpiresAt = now.Add(time.Duration(ask.ExpiresIn)).Truncate(time.Second)
	}
	p.adminName(ask.Name, a.Configured, there)
	p.role(ask.Role)
	p.end("expires_at", next.ExpiresAt, now)
	p.reason(ask.Reason)
	if err := p.err("the admin"); err != nil {
		return reply{}, err
	}
	by := c.by(ask.Reason)
	for try := 1; ; try++ {
		token := next.Make()
		kept, err := book.CreateAdmin(ctx, next, by)
		switch {
		case errors.Is(err, auth.ErrExists) && try < mints:
		case errors.Is(err, auth.ErrNameTaken): // Somebody was faster.
			p.add("name", nameTaken)
			return reply{}, p.err("the admin")
		case err != nil:
			return reply{}, identityRefusal(err, "admin "+next.Name, nil)
		default:
			a.told(c, "an admin was created", "", kept.ID, by)
			return reply{status: http.StatusCreated, revision: kept.Revision, body: adminapi.NewAdmin{Admin: showAdmin(&kept, time.Now()), Secret: token.Reveal()}}, nil
		}
	}
}

// putAdmin changes the role of an admin, and the end where it is named: who leaves that out does not mean a token that lasts for ever.
func (a *Admin) putAdmin(ctx context.Context, book Identities, c *call) (reply, error) {
	var ask adminapi.AdminChange
	when, by, err := c.written(&ask)
	if err != nil {
		return reply{}, err
	}
	before, err := book.Admin(ctx, c.item)
	if err != nil {
		return reply{}, identityRefusal(err, "admin "+c.item, when)
	}
	var p problems
	p.role(ask.Role)
	now := time.Now()
	until := p.until(ask.ExpiresAt, ask.ExpiresIn, now)
	if !until.Value.Equal(before.ExpiresAt) { // An end that stays may have come.
		p.end("expires_at", until.Value, now)
	}
	if err := p.err("the admin"); err != nil {
		return reply{}, err
	}
	return a.changeAdmin(ctx, book, c, when, "update", by, func(to *auth.Admin) {
		to.Role = ask.Role
		until.Apply(&to.ExpiresAt)
	})
}

// revokeAdmin refuses an admin's token for good. To revoke one that is revoked changes nothing.
func (a *Admin) revokeAdmin(ctx context.Context, book Identities, c *call) (reply, error) {
	when, err := c.condition()
	if err != nil {
		return reply{}, err
	}
	by, err := c.because()
	if err != nil {
		return reply{}, err
	}
	return a.changeAdmin(ctx, book, c, when, "revoke", by, func(to *auth.Admin) {
		if to.RevokedAt.IsZero() {
			to.RevokedAt = time.Now()
		}
	})
}

// changeAdmin changes the admin of the path, if it has the revision that is asked for.
func (a *Admin) changeAdmin(ctx context.Context, book Identities, c *call, when *int64, action string, by auth.By, change func(*auth.Admin)) (reply, error) {
	var before int64
	after, err := book.ChangeAdmin(ctx, c.item, func(to *auth.Admin) error {
		if before = to.Revision; when != nil && *when != before {
			return auth.ErrConflict
		}
		change(to)
		return nil
	}, action, by)
	if errors.Is(err, auth.ErrConflict) && when != nil && *when == before { // It is not the revision that is in the way.
		when = nil
	}
	if err != nil {
		return reply{}, identityRefusal(err, "admin "+c.item, when)
	}
	if after.Revision != before {
		a.told(c, "an admin was changed: "+action, "", c.item, by)
	}
	return reply{revision: after.Revision, body: showAdmin(&after, time.Now())}, nil
}

func (a *Admin) deleteAdmin(ctx context.Context, book Identities, c *call) (reply, error) {
	when, err := c.condition()
	if err != nil {
		return reply{}, err
	}
	by := c.by(c.query.Get("reason"))
	if err := checkReason(by.Reason); err != nil {
		return reply{}, err
	}
	if err := book.DeleteAdmin(ctx, c.item, when, by); err != nil {
		return reply{}, identityRefusal(err, "admin "+c.item, when)
	}
	a.told(c, "an admin was deleted", "", c.item, by)
	return reply{body: adminapi.GoneAdmin{ID: c.item}}, nil
}

// known finds out who shows a token that is none of the configuration's: an admin of the state book, or whoever has a signed token. Its error is
// a fault; ways says how a token is sent.
func (a *Admin) known(ctx context.Context, token, ways string) (actor, error) {
	ours := auth.IsAdminToken(token)
	switch {
	case ours && a.AdminOf != nil:
		found, err := a.AdminOf(token)
		if err != nil {
			return actor{}, err
		}
		return actor{found.Name, found.Role}, nil
	case !ours && a.Bearer != nil:
		who, err := a.bearer(ctx, token)
		if fault.CodeOf(err) != fault.InvalidAPIKey { // That one says nothing of other tokens.
			return who, err
		}
	}
	return actor{}, fault.New(fault.InvalidAPIKey, "this admin token is not known here: see identity.admin_tokens of the router that you ask; it is sent "+ways)
}
