package auth

import (
	"errors"
	"strings"
	"time"
)

// Admin is what is kept of somebody who may use the admin API, apart from those whom the configuration names. It does not hold the token.
type Admin struct {
	// ID is the eight characters that the token itself shows after "ara_".
	ID string `json:"id"`
	// Name stands in the audit as the actor. No two have the same, in whatever letter case.
	Name string `json:"name"`
	// Role is one of those of the admin API.
	Role string `json:"role"`
	// Digest is the SHA-256 of the whole token. There is no pepper in it: 190 random bits cannot be guessed from a digest, and so a book of
	// documents has admins without any secret beside it.
	Digest Digest `json:"-"`
	// ExpiresAt ends it; zero: never.
	ExpiresAt time.Time `json:"expires_at,omitzero"`
	// RevokedAt is when it was revoked; zero: it was not.
	RevokedAt time.Time `json:"revoked_at,omitzero"`
	CreatedAt time.Time `json:"created_at"`
	CreatedBy string    `json:"created_by,omitempty"`
	// Damage says why what the book has of it cannot be read; "" if it can. Such a token lets nobody in and can only be deleted.
	Damage string `json:"damage,omitempty"`
	// Revision grows with every change of it.
	Revision int64 `json:"revision"`
}

// ErrNameTaken says that an admin cannot be made, because there is one of this name, revoked and expired ones included.
var ErrNameTaken = errors.New("there is an admin with this name already")

// adminPrefix begins the tokens of admins. What follows is as in a key. No key begins so, nor does any admin token begin as a key does.
const adminPrefix = "ara_"

// Make makes the token of a anew, with its id and digest. What is returned is shown once.
func (a *Admin) Make() Secret {
	token := newSecret(adminPrefix)
	a.ID, a.Digest = token.ID(), Fingerprint(token.text)
	return token
}

// IsAdminToken reports whether text wants to be the token of an Admin, right or wrong. It opens the admin API alone.
func IsAdminToken(text string) bool { return strings.HasPrefix(text, adminPrefix) }

// adminID is the id in a token of the right form with the right checksum; "" in any other text.
func adminID(token string) string {
	if !wellFormed(token, adminPrefix) {
		return ""
	}
	return token[len(adminPrefix) : len(adminPrefix)+idLength]
}
