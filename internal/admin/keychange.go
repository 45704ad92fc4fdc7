package admin

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/ai-aas/api-router/internal/adminapi"
	"github.com/ai-aas/api-router/internal/auth"
	"github.com/ai-aas/api-router/internal/fault"
)

// changeKey changes what is named of a key, and leaves the rest. Where it makes the key one that signs, its answer is the only one that holds the
// signing secret.
func (a *Admin) changeKey(ctx context.Context, book Identities, c *call) (reply, error) {
	when, err := c.condition()
	if err != nil {
		return reply{}, err
	}
	var ask adminapi.KeyChange
	if err := c.decode(maxSmallBody, &ask); err != nil {
		return reply{}, err
	}
	named, until, err := checkChange(&ask, time.Now())
	if err != nil {
		return reply{}, err
	}
	by, signing, before := c.by(ask.Reason), auth.Secret{}, int64(0)
	k, err := book.ChangeKey(ctx, c.organization, c.item, func(k *auth.Key) error {
		before = k.Revision
		switch {
		case !holds(when, k):
			return auth.ErrConflict
		case !k.RevokedAt.IsZero():
			return auth.Hindrance("it is revoked, and stays as it is; create another")
		}
		until.Apply(&k.ExpiresAt)
		ask.Project.Apply(&k.Project)
		ask.Name.Apply(&k.Name)
		rescope(&k.Scopes, &ask.Scopes, named.Networks)
		var err error
		signing, err = a.signs(k)
		return err
	}, "update", by)
	if errors.Is(err, auth.ErrNotFound) && ask.Project.Value != "" {
		if _, missing := book.Key(ctx, c.organization, c.item); missing == nil {
			return reply{}, c.noProject(ask.Project.Value)
		}
	}
	if err != nil {
		return reply{}, identityRefusal(err, c.theKey(), when)
	}
	if k.Revision != before {
		a.told(c, "a key was changed", c.organization, c.item, by)
	}
	return reply{revision: k.Revision, body: adminapi.ChangedKey{Key: showKey(&k, time.Now()), SigningSecret: signing.Reveal()}}, nil
}

// checkChange says everything that is wrong with a change whatever the key is. It reads the scopes that are named, and when the key is to end.
func checkChange(ask *adminapi.KeyChange, now time.Time) (named auth.Scopes, until adminapi.Named[time.Time], err error) {
	var p problems
	until = p.until(ask.ExpiresAt, ask.ExpiresIn, now)
	named = p.scopes("scopes.", &adminapi.Scopes{
		Models: ask.Scopes.Models.Value, Endpoints: ask.Scopes.Endpoints.Value, Networks: ask.Scopes.Networks.Value, Priority: ask.Scopes.Priority.Value,
		MaxTokens: ask.Scopes.MaxTokens.Value, Tags: ask.Scopes.Tags.Value, Signature: ask.Scopes.Signature.Value,
	})
	p.nothing("scopes.models", ask.Scopes.Models)
	p.nothing("scopes.endpoints", ask.Scopes.Endpoints)
	p.nothing("scopes.networks", ask.Scopes.Networks)
	p.name("name", ask.Name.Value)
	p.project("project", ask.Project.Value)
	p.end("expires_at", until.Value, now)
	p.reason(ask.Reason)
	return named, until, p.err("the change")
}

// nothing refuses a list that a program made of nothing: without an entry, it would allow everything.
func (p *problems) nothing(field string, list adminapi.Named[[]string]) {
	if list.There && list.Value != nil && len(list.Value) == 0 {
		p.add(field, "an empty list would allow everything: send null if that is meant")
	}
}

// rescope takes over the scopes that are named, and leaves the others exactly as they are kept.
func rescope(s *auth.Scopes, ask *adminapi.ScopesChange, networks []netip.Prefix) {
	if ask.Networks.There {
		s.Networks = networks
	}
	ask.Models.Apply(&s.Models)
	ask.Endpoints.Apply(&s.Endpoints)
	ask.Priority.Apply(&s.Priority)
	ask.MaxTokens.Apply(&s.MaxTokens)
	ask.Tags.Apply(&s.Tags)
	ask.Signature.Apply(&s.Signature)
}

// signs gives a key that begins to sign its secret, and takes that from one that signs no more.
func (a *Admin) signs(k *auth.Key) (signing auth.Secret, err error) {
	switch {
	case k.Scopes.Signature == "":
		k.Sealed = nil
		return signing, nil
	case k.Sealed != nil:
		return signing, nil
	case k.Pepper == 0:
		return signing, fault.New(fault.InvalidRequest, "scopes.signature: a key of which only the SHA-256 is known cannot sign; "+
			"rotate it, and change the key that takes its place").WithParam("scopes.signature")
	case a.Seal == nil:
		return signing, errNoPepper
	}
	signing = auth.NewSigningSecret()
	k.Sealed, err = a.Seal(k.ID, signing)
	return signing, err
}

// holds says whether a key is as the condition of a change wants it.
func holds(when *int64, k *auth.Key) bool { return when == nil || *when == k.Revision }

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
		if !holds(when, k) {
			return auth.ErrConflict
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

func (a *Admin) deleteKey(ctx context.Context, book Identities, c *call) (reply, error) {
	return a.gone(c, c.theKey(), "a key was deleted", c.item, func(when *int64, by auth.By) error {
		return book.DeleteKey(ctx, c.organization, c.item, when, by)
	})
}
