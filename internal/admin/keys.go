package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"time"

	"github.com/ai-aas/api-router/internal/adminapi"
	"github.com/ai-aas/api-router/internal/auth"
	"github.com/ai-aas/api-router/internal/fault"
)

// Keys are an organization's keys. A key of another organization is none, whatever its id.
type Keys interface {
	Keys(ctx context.Context, organization, after string, limit int) ([]auth.Key, error)
	Key(ctx context.Context, organization, id string) (auth.Key, error)
	CreateKey(ctx context.Context, k auth.Key, by auth.By) (auth.Key, error)
	ChangeKey(ctx context.Context, organization, id string, change func(*auth.Key) error, action string, by auth.By) (auth.Key, error)
	Rotate(ctx context.Context, organization, id string, next auth.Key, graceUntil time.Time, by auth.By) (auth.Key, error)
	ImportKeys(ctx context.Context, organization string, keys []auth.Key, by auth.By) (n int, err error)
}

const (
	defaultGrace = 24 * time.Hour
	longestGrace = 366 * 24 * time.Hour
	// mints is how often a key is made anew whose id is taken: of 62^8 ids, that is rare.
	mints = 3
)

// keyForm is what the id of a key can be.
var keyForm = regexp.MustCompile(`^[0-9A-Za-z]{8}$`)

// keyPage answers a page of an organization's keys.
func (*Admin) keyPage(ctx context.Context, book Identities, c *call) (reply, error) {
	limit, err := c.limit()
	if err != nil {
		return reply{}, err
	}
	after := c.query.Get("after")
	if after != "" && !keyForm.MatchString(after) {
		return reply{}, fault.New(fault.InvalidRequest, "after is the id of a key: the next of the page before").WithParam("after")
	}
	found, err := book.Keys(ctx, c.organization, after, limit)
	if err != nil {
		return reply{}, identityRefusal(err, "organization "+c.organization, nil)
	}
	answer := adminapi.Keys{Items: make([]adminapi.Key, 0, len(found))}
	now := time.Now()
	for i := range found {
		answer.Items = append(answer.Items, showKey(&found[i], now))
	}
	if len(found) == limit {
		answer.Next = found[limit-1].ID
	}
	return reply{body: answer}, nil
}

func (*Admin) key(ctx context.Context, book Identities, c *call) (reply, error) {
	k, err := book.Key(ctx, c.organization, c.item)
	if err != nil {
		return reply{}, identityRefusal(err, c.theKey(), nil)
	}
	return reply{revision: k.Revision, body: showKey(&k, time.Now())}, nil
}

// theKey names the key of the path.
func (c *call) theKey() string { return "key " + c.item + " of organization " + c.organization }

// showKey is a key as everybody may see it.
func showKey(k *auth.Key, now time.Time) adminapi.Key {
	shown := adminapi.Key{
		ID: k.ID, Organization: k.Organization, Project: k.Project, Name: k.Name, State: adminapi.KeyActive, Imported: k.Pepper == 0,
		ExpiresAt: k.ExpiresAt, RevokedAt: k.RevokedAt, RotatedTo: k.RotatedTo, CreatedAt: k.CreatedAt, CreatedBy: k.CreatedBy,
		LastUsedAt: k.LastUsedAt, Revision: k.Revision,
		Scopes: adminapi.Scopes{
			Models: k.Scopes.Models, Endpoints: k.Scopes.Endpoints, Priority: k.Scopes.Priority, MaxTokens: k.Scopes.MaxTokens,
			Tags: k.Scopes.Tags, Signature: k.Scopes.Signature,
		},
	}
	for _, network := range k.Scopes.Networks {
		shown.Scopes.Networks = append(shown.Scopes.Networks, network.String())
	}
	switch {
	case !k.RevokedAt.IsZero():
		shown.State = adminapi.KeyRevoked
	case !k.ExpiresAt.IsZero() && !k.ExpiresAt.After(now):
		shown.State = adminapi.KeyExpired
	case k.RotatedTo != "":
		shown.State = adminapi.KeyRotated
	}
	return shown
}

// createKey makes a key. Its answer is the only one that holds it.
func (a *Admin) createKey(ctx context.Context, book Identities, c *call) (reply, error) {
	var ask adminapi.KeyRequest
	if err := c.decode(maxSmallBody, &ask); err != nil {
		return reply{}, err
	}
	now := time.Now()
	var p problems
	k := auth.Key{Organization: c.organization, Project: ask.Project, Name: ask.Name, Scopes: p.scopes("scopes.", &ask.Scopes), ExpiresAt: ask.ExpiresAt}
	if !ask.ExpiresAt.IsZero() && ask.ExpiresIn > 0 {
		p.add("expires_in", "there is expires_at, too: send one of them")
	} else if ask.ExpiresIn > 0 {
		k.ExpiresAt = now.Add(time.Duration(ask.ExpiresIn)).Truncate(time.Second)
	}
	p.name("name", ask.Name)
	p.project("project", ask.Project)
	p.end("expires_at", k.ExpiresAt, now)
	p.reason(ask.Reason)
	if err := p.err("the key"); err != nil {
		return reply{}, err
	}
	by := c.by(ask.Reason)
	answer, err := a.mint(&k, func() (auth.Key, error) { return book.CreateKey(ctx, k, by) })
	if err != nil {
		return reply{}, a.ownerless(ctx, book, c, &k, err)
	}
	a.told(c, "a key was created", c.organization, k.ID, by)
	return answer, nil
}

// mint makes k anew and keeps it. What it answers holds the key itself.
func (a *Admin) mint(k *auth.Key, keep func() (auth.Key, error)) (reply, error) {
	if a.Mint == nil {
		return reply{}, fault.New(fault.InvalidRequest, "no key can be made here: there is no pepper to digest it under; make one with "+
			"openssl rand -hex 32, keep it where env:NAME or file:PATH finds it, name that in identity.peppers, and start the router again")
	}
	for try := 1; ; try++ {
		secret, signing, err := a.Mint(k)
		if err != nil {
			return reply{}, err
		}
		kept, err := keep()
		switch {
		case errors.Is(err, auth.ErrExists) && try < mints:
		case err != nil:
			return reply{}, err
		default:
			return reply{status: http.StatusCreated, revision: kept.Revision, body: adminapi.NewKey{
				Key: showKey(&kept, time.Now()), Secret: secret.Reveal(), SigningSecret: signing.Reveal(),
			}}, nil
		}
	}
}

// ownerless says of a key that could not be kept which of its owners is not there.
func (a *Admin) ownerless(ctx context.Context, book Identities, c *call, k *auth.Key, err error) error {
	if fault.CodeOf(err) == fault.InvalidRequest {
		return err
	}
	if errors.Is(err, auth.ErrNotFound) && k.Project != "" {
		if _, missing := book.Organization(ctx, c.organization); missing == nil {
			return fault.Newf(fault.InvalidRequest, "project: organization %s has no project %s; its projects are at %s/organizations/%s/projects",
				c.organization, printable(k.Project), adminapi.Prefix, c.organization).WithParam("project")
		}
	}
	return identityRefusal(err, "organization "+c.organization, nil)
}

// rotateKey makes a key that takes the place of another: same owner, name and scopes.
func (a *Admin) rotateKey(ctx context.Context, book Identities, c *call) (reply, error) {
	var ask adminapi.Rotation
	if err := c.decode(maxSmallBody, &ask); err != nil {
		return reply{}, err
	}
	grace := time.Duration(ask.Grace)
	if grace == 0 {
		grace = defaultGrace
	}
	var p problems
	if grace > longestGrace {
		p.add("grace", "it is at most 366 days, written in hours")
	}
	p.reason(ask.Reason)
	if err := p.err("the rotation"); err != nil {
		return reply{}, err
	}
	old, err := book.Key(ctx, c.organization, c.item)
	if err != nil {
		return reply{}, identityRefusal(err, c.theKey(), nil)
	}
	by := c.by(ask.Reason)
	next := auth.Key{Organization: old.Organization, Project: old.Project, Name: old.Name, Scopes: old.Scopes, ExpiresAt: old.ExpiresAt}
	answer, err := a.mint(&next, func() (auth.Key, error) {
		return book.Rotate(ctx, c.organization, c.item, next, time.Now().Add(grace), by)
	})
	if err != nil {
		if fault.CodeOf(err) == fault.InvalidRequest {
			return reply{}, err
		}
		return reply{}, identityRefusal(err, c.theKey(), nil)
	}
	a.told(c, "a key was rotated", c.organization, c.item, by)
	return answer, nil
}

// errMeanwhile says that a key is not as the condition of a change wants it.
var errMeanwhile = auth.ErrConflict

// revokeKey ends a key. To revoke one that is revoked changes nothing.
func (a *Admin) revokeKey(ctx context.Context, book Identities, c *call) (reply, error) {
	when, err := c.condition()
	if err != nil {
		return reply{}, err
	}
	by, err := c.because()
	if err != nil {
		return reply{}, err
	}
	ended := false
	k, err := book.ChangeKey(ctx, c.organization, c.item, func(k *auth.Key) error {
		if when != nil && *when != k.Revision {
			return errMeanwhile
		}
		if ended = k.RevokedAt.IsZero(); ended {
			k.RevokedAt = time.Now()
		}
		return nil
	}, "revoke", by)
	if err != nil {
		return reply{}, identityRefusal(err, c.theKey(), when)
	}
	if ended {
		a.told(c, "a key was revoked", c.organization, c.item, by)
	}
	return reply{revision: k.Revision, body: showKey(&k, time.Now())}, nil
}

// maxImportBody is the largest import, in bytes.
const maxImportBody = 16 << 20

// importKeys keeps keys of another service by their fingerprints.
func (a *Admin) importKeys(ctx context.Context, book Identities, c *call) (reply, error) {
	var ask adminapi.Import
	if err := c.decode(maxImportBody, &ask); err != nil {
		return reply{}, err
	}
	var p problems
	if len(ask.Keys) == 0 || len(ask.Keys) > adminapi.MaxFingerprints {
		p.add("keys", fmt.Sprintf("there must be from 1 to %d", adminapi.MaxFingerprints))
		ask.Keys = nil
	}
	p.reason(ask.Reason)
	keys, now := make([]auth.Key, 0, len(ask.Keys)), time.Now()
	for i := range ask.Keys {
		keys = append(keys, p.fingerprint(i, &ask.Keys[i], now))
	}
	if err := p.err("the import"); err != nil {
		return reply{}, err
	}
	by := c.by(ask.Reason)
	n, err := book.ImportKeys(ctx, c.organization, keys, by)
	switch {
	case errors.Is(err, auth.ErrNotFound):
		return reply{}, identityRefusal(err, "organization "+c.organization+", or a project that a key names", nil)
	case errors.Is(err, auth.ErrExists):
		return reply{}, fault.New(fault.PreconditionFailed, "nothing was imported: one of these keys is another organization's, and a key has one owner")
	case err != nil:
		return reply{}, identityRefusal(err, "the import", nil)
	}
	if n > 0 {
		a.told(c, "keys were imported", c.organization, count(n, "key", "keys"), by)
	}
	return reply{body: adminapi.Imported{Imported: n, Known: len(keys) - n}}, nil
}
