package state

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
	_ "time/tzdata" // An image without a distribution has no time zones.
	"unicode"
	"unicode/utf8"

	"github.com/ai-aas/api-router/internal/auth"
)

// The bounds of what a book takes.
const (
	maxOrganizations = 100_000
	maxProjects      = 10_000 // of one organization
	maxKeys          = 5_000_000
	maxImport        = 1_000 // keys in one call
	maxAdmins        = 1_000

	maxName      = 200 // bytes
	maxReason    = 1000
	maxModels    = 200
	maxEndpoints = 50
	maxNetworks  = 100
	maxTags      = 32
	maxTag       = 64  // bytes of a tag's name
	maxTagValue  = 256 // bytes
	maxPattern   = 256 // bytes of a model or an endpoint
	maxTokens    = 1 << 30
	maxSealed    = 1024 // bytes

	// A list is given in pages.
	defaultPage, maxPage = 100, 1000
)

// latest is the last moment that a key may expire: nanoseconds since 1970 reach little further.
var latest = time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)

var keyForm = regexp.MustCompile(`^[0-9A-Za-z]{8}$`)

func page(limit int) int {
	if limit <= 0 {
		return defaultPage
	}
	return min(limit, maxPage)
}

// oneLine checks text that people read: one line, and not too long.
func oneLine(what, text string, limit int) error {
	if len(text) > limit || !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl) {
		return fmt.Errorf("%s must be one line of text of at most %d bytes", what, limit)
	}
	return nil
}

func checkID(what, id string) error {
	if !idForm.MatchString(id) {
		return fmt.Errorf("the id of %s must be 1 to 128 of the characters A-Z a-z 0-9 . _ -", what)
	}
	return nil
}

func checkBy(by auth.By) error {
	return errors.Join(oneLine("the actor", by.Actor, maxName), oneLine("the role", by.Role, maxName),
		oneLine("the reason", by.Reason, maxReason), oneLine("the request id", by.RequestID, maxName))
}

func checkOrganization(o auth.Organization) error {
	if _, err := time.LoadLocation(o.TimeZone); err != nil || o.TimeZone == "Local" || len(o.TimeZone) > maxName {
		return errors.New("the time zone must be an IANA name such as Europe/Berlin, or empty for UTC")
	}
	return errors.Join(checkID("an organization", o.ID), oneLine("the name", o.Name, maxName))
}

func checkProject(p auth.Project) error {
	return errors.Join(checkID("an organization", p.Organization), checkID("a project", p.ID), oneLine("the name", p.Name, maxName))
}

func checkAdmin(a *auth.Admin) error {
	switch {
	case !keyForm.MatchString(a.ID):
		return errors.New("the id of an admin must be 8 of the characters A-Z a-z 0-9")
	case !idForm.MatchString(a.Name):
		return errors.New("the name of an admin must be 1 to 128 of the characters A-Z a-z 0-9 . _ -")
	case a.Role == "":
		return errors.New("an admin needs a role")
	case a.Digest == auth.Digest{}:
		return errors.New("an admin needs the digest of its token")
	case a.ExpiresAt.After(latest) || !a.ExpiresAt.IsZero() && a.ExpiresAt.Unix() <= 0:
		return errors.New("the admin's end must be before the year 2200")
	}
	return errors.Join(oneLine("the role", a.Role, maxName), oneLine("the creator", a.CreatedBy, maxName))
}

func checkKey(k *auth.Key) error {
	switch {
	case !keyForm.MatchString(k.ID):
		return errors.New("the id of a key must be 8 of the characters A-Z a-z 0-9")
	case k.Digest == auth.Digest{}:
		return errors.New("a key needs its digest")
	case k.Pepper < 0 || k.Pepper > 1_000_000:
		return errors.New("the version of the pepper is out of range")
	case len(k.Sealed) > maxSealed:
		return fmt.Errorf("the sealed secret is longer than %d bytes", maxSealed)
	case k.ExpiresAt.After(latest) || !k.ExpiresAt.IsZero() && k.ExpiresAt.Unix() <= 0:
		return errors.New("the key's end must be before the year 2200")
	}
	if k.Project != "" {
		if err := checkID("a project", k.Project); err != nil {
			return err
		}
	}
	return errors.Join(checkID("an organization", k.Organization), oneLine("the name", k.Name, maxName), oneLine("the creator", k.CreatedBy, maxName), checkScopes(&k.Scopes))
}

func checkScopes(s *auth.Scopes) error {
	switch {
	case len(s.Models) > maxModels:
		return fmt.Errorf("a key may name at most %d models; an ending * stands for many", maxModels)
	case len(s.Endpoints) > maxEndpoints:
		return fmt.Errorf("a key may name at most %d endpoints", maxEndpoints)
	case len(s.Networks) > maxNetworks:
		return fmt.Errorf("a key may name at most %d networks", maxNetworks)
	case len(s.Tags) > maxTags:
		return fmt.Errorf("a key may have at most %d tags", maxTags)
	case s.MaxTokens < 0 || s.MaxTokens > maxTokens:
		return fmt.Errorf("max_tokens must be from 0 to %d", maxTokens)
	case s.Signature != "" && s.Signature != auth.SignatureOptional && s.Signature != auth.SignatureRequired:
		return fmt.Errorf("signature must be %s, %s or empty", auth.SignatureOptional, auth.SignatureRequired)
	}
	for _, model := range s.Models {
		if err := oneLine("a model", model, maxPattern); err != nil || model == "" {
			return errors.Join(err, errors.New("a model must have a name"))
		}
		if star := strings.IndexByte(model, '*'); star >= 0 && star != len(model)-1 {
			return errors.New("a model may have a * at its end alone")
		}
	}
	for _, endpoint := range s.Endpoints {
		if err := oneLine("an endpoint", endpoint, maxPattern); err != nil || !strings.HasPrefix(endpoint, "/") {
			return errors.Join(err, errors.New("an endpoint must be a path such as /v1/embeddings"))
		}
	}
	for _, network := range s.Networks {
		if !network.IsValid() || network != network.Masked() {
			return errors.New("a network must be an address with a prefix length, and no bit set after it, such as 10.0.0.0/8")
		}
	}
	for name, value := range s.Tags {
		if err := errors.Join(oneLine("a tag's name", name, maxTag), oneLine("a tag's value", value, maxTagValue)); err != nil || name == "" {
			return errors.Join(err, errors.New("a tag must have a name"))
		}
	}
	return nil
}

// normal gives scopes as they will be read: nothing is nil, never empty.
func normal(s *auth.Scopes) {
	if len(s.Models) == 0 {
		s.Models = nil
	}
	if len(s.Endpoints) == 0 {
		s.Endpoints = nil
	}
	if len(s.Networks) == 0 {
		s.Networks = nil
	}
	if len(s.Tags) == 0 {
		s.Tags = nil
	}
}
