package app

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ai-aas/api-router/internal/auth/oidc"
)

// TokenIssuer is one entry of identity.jwt.
type TokenIssuer struct {
	oidc.Issuer

	Authorities string // the path of a PEM file; Issuer.CA is what is in it
}

// callers reports whether its tokens may be callers'.
func (i TokenIssuer) callers() bool { return i.Organization != "" }

// issuerFields are the fields of an entry, in the order in which they are shown.
var issuerFields = []string{
	"issuer", "audience", "algorithms", "organization_claim", "organizations", "scopes_claim", "models_claim", "roles_claim", "roles", "jwks_url", "ca", "leeway",
}

// defaultLeeway is how much clocks may differ where nothing is said.
const defaultLeeway = 30 * time.Second

// tokenRoles are what an operator may be by a token.
var tokenRoles = append(slices.Clone(adminRoles), "auditor")

// issuers are the issuers of signed tokens, on one line field=value;field=value,field=value.
func issuers(target *[]TokenIssuer) list {
	return entries[TokenIssuer]{
		target: target, noun: "an issuer", form: "{ issuer: URL, audience: NAME, algorithms: RS256, organization_claim: NAME }", fields: issuerFields, empty: true,
		make: makeIssuer,
		split: func(part string) map[string]string {
			fields := map[string]string{}
			for each := range strings.SplitSeq(part, ";") {
				name, value, _ := strings.Cut(each, "=")
				fields[strings.TrimSpace(name)] = strings.TrimSpace(value)
			}
			return fields
		},
		show: func(i TokenIssuer) string { return "issuer=" + i.Issuer.Issuer + ";audience=" + i.Audience },
		fits: func(each TokenIssuer, before []TokenIssuer) error {
			if slices.ContainsFunc(before, func(i TokenIssuer) bool { return i.Issuer.Issuer == each.Issuer.Issuer && i.Audience == each.Audience }) {
				return errors.New("this issuer and audience are given twice")
			}
			return nil
		},
	}
}

func makeIssuer(f map[string]string) (TokenIssuer, error) {
	i := TokenIssuer{Authorities: f["ca"], Issuer: oidc.Issuer{
		Issuer: f["issuer"], Audience: f["audience"], JWKS: f["jwks_url"], Algorithms: strings.Fields(f["algorithms"]),
		Organization: f["organization_claim"], Organizations: strings.Fields(f["organizations"]), Scopes: f["scopes_claim"], Models: f["models_claim"], Roles: f["roles_claim"],
		Role: map[string]string{}, Leeway: defaultLeeway,
	}}
	for name := range f {
		if !slices.Contains(issuerFields, name) {
			return i, fmt.Errorf("there is no %q; an issuer has %s", name, strings.Join(issuerFields, ", "))
		}
	}
	if text := f["leeway"]; text != "" {
		var err error
		if i.Leeway, err = time.ParseDuration(text); err != nil {
			return i, fmt.Errorf("leeway: %q is not a duration such as 30s", text)
		}
	}
	for _, role := range tokenRoles { // Without another word a role is its own.
		i.Role[role] = role
	}
	if f["roles"] != "" {
		clear(i.Role)
		for pair := range strings.FieldsSeq(f["roles"]) {
			word, role, _ := strings.Cut(pair, "=")
			if word == "" || !slices.Contains(tokenRoles, role) {
				return i, fmt.Errorf("roles: %q is not WORD=ROLE, with a role that is one of %s", pair, strings.Join(tokenRoles, ", "))
			}
			i.Role[word] = role
		}
	}
	err := i.Check()
	return i, err
}
