package admin

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ai-aas/api-router/internal/adminapi"
	"github.com/ai-aas/api-router/internal/auth"
	"github.com/ai-aas/api-router/internal/fault"
)

// lookTimeout bounds the look at a key: without it the rest is explained all the same.
const lookTimeout = 2 * time.Second

// holder is who would ask: what the state book says of the key, and what that means for the request.
type holder struct {
	key *adminapi.ExplainedKey // nil: nothing was looked up
	// scopes are the key's; nil: none, or they are not known.
	scopes *auth.Scopes
	// refusal is what the client would get before anything is read of its request.
	refusal error
}

// holder looks up the key that a question names, in the organization that it names: with another, there is no such key. Ids that no key of
// the state book can have are other validators', and nothing is known of them here.
func (a *Admin) holder(ctx context.Context, ask *adminapi.ExplainRequest) holder {
	if a.Identities == nil || !keyForm.MatchString(ask.KeyID) {
		return holder{}
	}
	if ask.Organization == "" {
		return holder{key: &adminapi.ExplainedKey{State: adminapi.KeyUnread, Notes: []string{
			"a key is looked up in its organization, and none was named; decided as for a key that may do everything",
		}}}
	}
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	k, err := a.Identities.Key(ctx, ask.Organization, ask.KeyID)
	switch {
	case errors.Is(err, auth.ErrNotFound):
		return holder{key: &adminapi.ExplainedKey{State: adminapi.KeyUnknown, Notes: []string{
			"the state book has no such key of this organization: it is refused with 401 invalid_api_key, unless another validator knows it; decided as for a key that may do everything",
		}}}
	case err != nil:
		return unread(err)
	}
	o, err := a.Identities.Organization(ctx, ask.Organization)
	if err != nil {
		return unread(err)
	}
	now := time.Now()
	shown := showKey(&k, now)
	b := holder{key: &adminapi.ExplainedKey{State: shown.State, Scopes: &shown.Scopes, Notes: keyNotes(&k, now)}, scopes: &k.Scopes}
	switch { // In the order in which a request is judged.
	case shown.State == adminapi.KeyRevoked:
		b.refusal = fault.New(fault.RevokedAPIKey, "this API key was revoked; use another, or ask the operator for one")
	case shown.State == adminapi.KeyExpired:
		b.refusal = fault.New(fault.ExpiredAPIKey, "this API key has expired; use another, or ask the operator for one")
	case o.Disabled:
		b.refusal = fault.New(fault.OrganizationDisabled, "the organization of this API key is switched off; ask the operator")
	case ask.Endpoint != "" && !k.Scopes.Endpoint(ask.Endpoint):
		b.refusal = fault.Newf(fault.PermissionDenied, "this API key may not use %s; it may use %s", ask.Endpoint, strings.Join(k.Scopes.Endpoints, ", "))
	}
	return b
}

// unread is a key that nobody could look up.
func unread(err error) holder {
	return holder{key: &adminapi.ExplainedKey{State: adminapi.KeyUnread, Notes: []string{
		"the state book could not be asked, so nothing is known of the key: " + printable(err.Error()) + "; decided as for a key that may do everything",
	}}}
}

// keyNotes say what a key does to requests, beside what the explanation itself shows.
func keyNotes(k *auth.Key, now time.Time) []string {
	notes := []string{}
	add := func(format string, args ...any) { notes = append(notes, fmt.Sprintf(format, args...)) }
	ends := k.ExpiresAt.UTC().Format(time.RFC3339)
	switch {
	case !k.RevokedAt.IsZero():
		add("it was revoked at %s", k.RevokedAt.UTC().Format(time.RFC3339))
	case !k.ExpiresAt.IsZero() && !k.ExpiresAt.After(now):
		add("it ended at %s", ends)
	case k.RotatedTo != "":
		add("key %s has taken its place; it works until %s", k.RotatedTo, ends)
	case !k.ExpiresAt.IsZero():
		add("it works until %s", ends)
	}
	scopeNotes(&k.Scopes, add)
	return notes
}

// scopeNotes say what scopes do.
func scopeNotes(s *auth.Scopes, add func(format string, args ...any)) {
	if len(s.Models) > 0 {
		add("models: %s; others do not exist for it, also as fallback models", strings.Join(s.Models, ", "))
	}
	if len(s.Endpoints) > 0 {
		add("endpoints: %s; at others it gets 403 permission_denied", strings.Join(s.Endpoints, ", "))
	}
	if len(s.Networks) > 0 {
		networks := make([]string, len(s.Networks))
		for i, n := range s.Networks {
			networks[i] = n.String()
		}
		add("networks: %s; from elsewhere it gets 403 ip_not_allowed, which is not tried here", strings.Join(networks, ", "))
	}
	if s.MaxTokens > 0 {
		add("max_tokens: %d where a request names none, unless the policy's is lower", s.MaxTokens)
	}
	switch s.Signature {
	case auth.SignatureRequired:
		add("its requests must be signed; one that is not gets 401 invalid_signature, which is not tried here")
	case auth.SignatureOptional:
		add("its requests may be signed, and a wrong signature gets 401 invalid_signature, which is not tried here")
	}
}
