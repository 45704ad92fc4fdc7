// Package userorg is both ends of one question, whose an API key is: the validator that asks a user-org-service, and the same service as this
// router offers it to other routers.
//
// The question is POST {url}/v1/auth/validate-api-key with {"apiKeySecret": "…"}. Only an answer of status 200 says anything about a key.
package userorg

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/ai-aas/api-router/internal/auth"
	"github.com/ai-aas/api-router/internal/fault"
)

// Source is the name of the validator among the others.
const Source = "user_org_service"

// Path is where the question is asked, below the service's own URL.
const Path = "/v1/auth/validate-api-key"

// The statuses of a key in an answer. The service may have others: see verdict.
const (
	statusActive   = "active"
	statusExpired  = "expired"
	statusRevoked  = "revoked"
	statusDisabled = "organization_disabled"
	statusUnknown  = "unknown"
)

const (
	// inference begins every scope that means inference. What other scopes there are grants nothing here.
	inference = "inference:"
	// everyInference is what our own service says of a key without restrictions.
	everyInference = "inference:*"
	// restricted is what it says of one that has any: to whom does not know restrictions, it grants nothing.
	restricted = "router:restricted"
)

// question is what is asked.
type question struct {
	Secret string `json:"apiKeySecret"`
}

// answer is what the service says. All fields are always there.
type answer struct {
	Valid         *bool    `json:"valid"`
	KeyID         string   `json:"apiKeyId"`
	Organization  string   `json:"organizationId"`
	PrincipalID   string   `json:"principalId"`
	PrincipalType string   `json:"principalType"`
	Scopes        []string `json:"scopes"`
	Status        string   `json:"status"`
	ExpiresAt     *string  `json:"expiresAt"`
	Message       string   `json:"message"`
	Project       string   `json:"projectId"`              // of our own service alone
	Restrictions  *terms   `json:"restrictions,omitempty"` // of our own service alone
}

// terms are the scopes of a key on their way. One that is not known here is an error, and not a restriction less.
type terms struct{ auth.Scopes }

// UnmarshalJSON implements json.Unmarshaler.
func (t *terms) UnmarshalJSON(content []byte) error {
	d := json.NewDecoder(strings.NewReader(string(content)))
	d.DisallowUnknownFields()
	return d.Decode(&t.Scopes)
}

var (
	organizationForm = regexp.MustCompile(`^[A-Za-z0-9._-]{1,128}$`)
	keyForm          = regexp.MustCompile(`^[[:graph:]]{1,128}$`)
)

// errAnswer begins the errors of answers that say nothing that can be relied on.
var errAnswer = errors.New("the answer is not one of a user-org-service")

// principal is what an answer means: a principal, a refusal as a fault, or an error that wraps errAnswer.
func (a *answer) principal() (auth.Principal, error) {
	if a.Valid == nil {
		return auth.Principal{}, fmt.Errorf("%w: it does not say whether the key is valid", errAnswer)
	}
	if err := verdict(*a.Valid, a.Status); err != nil {
		return auth.Principal{}, err
	}
	switch {
	case !organizationForm.MatchString(a.Organization):
		return auth.Principal{}, fmt.Errorf("%w: it calls a key valid and names no usable organizationId", errAnswer)
	case !keyForm.MatchString(a.KeyID):
		return auth.Principal{}, fmt.Errorf("%w: it calls a key valid and names no usable apiKeyId", errAnswer)
	case a.Project != "" && !organizationForm.MatchString(a.Project):
		return auth.Principal{}, fmt.Errorf("%w: it names no usable projectId", errAnswer)
	}
	p := auth.Principal{Organization: a.Organization, KeyID: a.KeyID, Source: Source, Project: a.Project}
	if a.ExpiresAt != nil && *a.ExpiresAt != "" {
		at, err := time.Parse(time.RFC3339Nano, *a.ExpiresAt)
		if err != nil {
			return auth.Principal{}, fmt.Errorf("%w: its expiresAt is no time", errAnswer)
		}
		if at.Year() > 1 { // Year 1 is how Go writes no time.
			p.ExpiresAt = at
		}
	}
	narrowed := slices.Contains(a.Scopes, restricted)
	if a.Restrictions != nil {
		p.Scopes = &a.Restrictions.Scopes
	} else if narrowed {
		return auth.Principal{}, fmt.Errorf("%w: it calls a key restricted and does not say how", errAnswer)
	}
	if !narrowed && !slices.ContainsFunc(a.Scopes, func(s string) bool { return len(s) > len(inference) && strings.HasPrefix(s, inference) }) {
		return auth.Principal{}, fault.New(fault.PermissionDenied, "this API key is not for inference: it has no scope that begins with inference:; ask who issued it")
	}
	return p, nil
}

// verdict is nil for a key that may be used. A status that ends a key does so whatever valid says; of any other, valid decides.
func verdict(valid bool, status string) error {
	switch strings.ReplaceAll(strings.ToLower(status), "-", "_") {
	case statusRevoked:
		return fault.New(fault.RevokedAPIKey, "this API key was revoked; use another, or ask who issued it")
	case statusExpired:
		return fault.New(fault.ExpiredAPIKey, "this API key has expired; use another, or ask who issued it")
	case statusDisabled, "organization_suspended", "org_disabled", "org_suspended":
		return fault.New(fault.OrganizationDisabled, "the organization of this API key is switched off; ask the operator")
	case statusUnknown, "invalid", "not_found", "disabled", "inactive", "deleted", "suspended":
		valid = false
	}
	if !valid {
		return fault.New(fault.InvalidAPIKey, "the API key is not known here; check the key, or ask who issued it")
	}
	return nil
}
