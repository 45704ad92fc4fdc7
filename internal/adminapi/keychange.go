package adminapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"reflect"
	"time"
)

// Named is a field of a change. One that is not named stays as it is; null takes away what there is.
type Named[T any] struct {
	// There says that it is named.
	There bool
	// Value is what it is to be; the zero value is nothing.
	Value T
}

// To is a change to this value; the zero value takes away what there is.
func To[T any](value T) Named[T] { return Named[T]{There: true, Value: value} }

// IsZero leaves out of JSON what is not to change.
func (n Named[T]) IsZero() bool { return !n.There }

// MarshalJSON implements json.Marshaler.
func (n Named[T]) MarshalJSON() ([]byte, error) {
	if reflect.ValueOf(&n.Value).Elem().IsZero() {
		return []byte("null"), nil
	}
	return json.Marshal(n.Value)
}

// UnmarshalJSON implements json.Unmarshaler. Only null takes away an end: the zero time is what a program sends that never set one.
func (n *Named[T]) UnmarshalJSON(text []byte) error {
	*n = Named[T]{There: true}
	if err := json.Unmarshal(text, &n.Value); err != nil {
		return err
	}
	if at, ok := any(n.Value).(time.Time); ok && at.IsZero() && !bytes.Equal(text, []byte("null")) {
		return errors.New("the year 1 is no end; null takes away the end that there is")
	}
	return nil
}

// Apply makes the change.
func (n Named[T]) Apply(to *T) {
	if n.There {
		*to = n.Value
	}
}

// KeyChange is what is to change of a key. What is left out stays.
type KeyChange struct {
	Project Named[string] `json:"project,omitzero"`
	Name    Named[string] `json:"name,omitzero"`
	Scopes  ScopesChange  `json:"scopes,omitzero"`
	// ExpiresIn or ExpiresAt say when it ends from now on.
	ExpiresIn Duration         `json:"expires_in,omitzero"`
	ExpiresAt Named[time.Time] `json:"expires_at,omitzero"`
	Reason    string           `json:"reason,omitempty"`
}

// ScopesChange is what is to change of a key's scopes. Lists and tags are replaced, never added to.
type ScopesChange struct {
	Models    Named[[]string]          `json:"models,omitzero"`
	Endpoints Named[[]string]          `json:"endpoints,omitzero"`
	Networks  Named[[]string]          `json:"networks,omitzero"`
	Priority  Named[bool]              `json:"priority,omitzero"`
	MaxTokens Named[int64]             `json:"max_tokens,omitzero"`
	Tags      Named[map[string]string] `json:"tags,omitzero"`
	Signature Named[string]            `json:"signature,omitzero"`
}

// IsZero says that nothing is to change.
func (s ScopesChange) IsZero() bool {
	return !s.Models.There && !s.Endpoints.There && !s.Networks.There && !s.Priority.There && !s.MaxTokens.There && !s.Tags.There && !s.Signature.There
}

// UnmarshalJSON refuses null: what would be left is a key that may do everything.
func (s *ScopesChange) UnmarshalJSON(text []byte) error {
	if bytes.Equal(text, []byte("null")) {
		return errors.New("scopes: name what is to change of them; null takes away a single one, as in {\"models\": null}")
	}
	type plain ScopesChange
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	return decoder.Decode((*plain)(s))
}

// ChangedKey is a key as it stands after a change.
type ChangedKey struct {
	Key `json:"key"`
	// SigningSecret is what its requests are signed with, where the change gave it one. Nobody can ask for it again.
	SigningSecret string `json:"signing_secret,omitempty"`
}

// ChangeKey changes what a key may do, what it is called, or when it ends, if it has this revision; nil: whatever it has. The key itself stays.
func (c *Client) ChangeKey(ctx context.Context, organization, id string, what KeyChange, revision *int64) (ChangedKey, error) {
	return write[ChangedKey](ctx, c, http.MethodPatch, what, If{Revision: revision}, organizations, organization, keys, id)
}

// DeleteKey takes away a key that is revoked or expired.
func (c *Client) DeleteKey(ctx context.Context, organization, id string, when If) (Gone, error) {
	return remove(ctx, c, when, organizations, organization, keys, id)
}
