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
	Rotate(ctx context.Context, organization, id string, condition *int64, next auth.Key, graceUntil time.Time, by auth.By) (auth.Key, error)
	DeleteKey(ctx context.Context, organization, id string, condition *int64, by auth.By) error
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
	found, next, err := turn(c, keyForm, func(k *auth.Key) string { return k.ID }, func(after string, limit int) ([]auth.Key, error) {
		return book.Keys(ctx, c.organization, after, limit)
	})
	if err != nil {
		return reply{}, identityRefusal(err, "organization "+c.organization, nil)
	}
	answer := adminapi.Keys{Items: make([]adminapi.Key, 0, len(found)), Next: next}
	now := time.Now()
	for i := range found {
		answer.Items = append(answer.Items, showKey(&found[i], now))
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
		LastUsedAt: k.LastUsedAt, Damage: k.Damage, Revision: k.Revision,
		Scopes: showScopes(&k.Scopes),
	}
	switch {
	case k.Damage != "":
		shown.State = adminapi.KeyDamaged
	case !k.RevokedAt.IsZero():
		shown.State = adminapi.KeyRevoked
	case !k.ExpiresAt.IsZero() && !k.ExpiresAt.After(now):
		shown.State = adminapi.KeyExpired
	case k.RotatedTo != "":
		shown.State = adminapi.KeyRotated
	}
	return shown
}

func showScopes(s *auth.Scopes) adminapi.Scopes {
	shown := adminapi.Scopes{
		Models: s.Models, Endpoints: s.Endpoints, Priority: s.Priority, MaxTokens: s.MaxTokens, Tags: s.Tags, Signature: s.Signature,
	}
	for _, network := range s.Networks {
		shown.Networks = append(shown.Networks, network.String())
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

var errNoPepper = fault.New(fault.InvalidRequest, "no key and no signing secret can be made here: there is no pepper to keep it under; make one with "+
	"openssl rand -hex 32, keep it where env:NAME or file:PATH finds it, name that in identity.peppers, and start the router again")

// mint makes k anew and keeps it. What it answers holds the key itself.
func (a *Admin) mint(k *auth.Key, keep func() (auth.Key, error)) (reply, error) {
	if a.Mint == nil {
		return reply{}, errNoPepper
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
	if errors.Is(err, auth.ErrNotFound) && k.Project != "" {
		if _, missing := book.Organization(ctx, c.organization); missing == nil {
			return c.noProject(k.Project)
		}
	}
	return identityRefusal(err, "organization "+c.organization, nil)
}

// noProject says that a key cannot be for a project that its organization does not have.
func (c *call) noProject(id string) error {
	return fault.Newf(fault.InvalidRequest, "project: organization %s has no project %s; its projects are at %s/organizations/%s/projects",
		c.organization, printable(id), adminapi.Prefix, c.organization).WithParam("project")
}

// rotateKey makes a key that takes the place of another: same owner, name and scopes.
func (a *Admin) rotateKey(ctx context.Context, book Identities, c *call) (reply, error) {
	var ask adminapi.Rotation
	when, err := c.condition()
	if err != nil {
		return reply{}, err
	}
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
	by := c.by(ask.Reason)
	for {
		old, err := book.Key(ctx, c.organization, c.item)
		if err != nil {
			return reply{}, identityRefusal(err, c.theKey(), when)
		}
		condition := when
		if condition == nil { // What was read is what the next key is like: nobody who takes a scope away meanwhile is overruled.
			condition = &old.Revision
		}
		next := auth.Key{Organization: old.Organization, Project: old.Project, Name: old.Name, Scopes: old.Scopes, ExpiresAt: old.ExpiresAt}
		answer, err := a.mint(&next, func() (auth.Key, error) {
			return book.Rotate(ctx, c.organization, c.item, condition, next, time.Now().Add(grace), by)
		})
		switch {
		case raced(err, when) && pause(ctx, retryAfter):
			continue
		case err != nil:
			return reply{}, identityRefusal(err, c.theKey(), when)
		}
		a.told(c, "a key was rotated", c.organization, c.item, by)
		return answer, nil
	}
}

const (
	// maxImportBody is the largest import, in bytes.
	maxImportBody = 16 << 20
	// importTimeout is for the book to take an import, which is the largest change there is.
	importTimeout = 10 * time.Second
)

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
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), importTimeout) // Its body may have been long on its way.
	defer cancel()
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
