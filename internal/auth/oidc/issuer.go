package oidc

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/ai-aas/api-router/internal/upstream"
)

// Algorithms are those that an issuer may be pinned to. All of them have a public key: with a shared one, whoever can check a token can make one.
var Algorithms = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}

// Issuer is who makes tokens, and what is read from them.
type Issuer struct {
	// Issuer and Audience are compared with iss and aud exactly.
	Issuer, Audience string
	// JWKS is where its keys are; "": where its discovery document says, below Issuer.
	JWKS string
	// CA are authorities in PEM that the certificate of that place is checked against; "": the system's.
	CA string
	// Algorithms are those that it signs with.
	Algorithms []string
	// Organization, Scopes, Models and Roles are the claims that these are read from; "": they are not. A name with dots may be a path. Without
	// Organization its tokens are no callers', without Roles no operators'.
	Organization, Scopes, Models, Roles string
	// Organizations are those that it may speak for; empty: all.
	Organizations []string
	// Role is which word of the claim Roles means which role.
	Role map[string]string
	// Leeway is how much clocks may differ, at most MaxLeeway.
	Leeway time.Duration
}

type issuer struct {
	Issuer

	algorithms []jose.SignatureAlgorithm
	keys       *keys
}

var organizationForm = regexp.MustCompile(`^[A-Za-z0-9._-]{1,128}$`)

// Check says everything that is wrong with the settings.
func (i *Issuer) Check() error {
	var problems []error
	add := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	if err := checkPlace(i.Issuer); err != nil {
		add("issuer: %w", err)
	}
	if i.Audience == "" {
		add("audience is missing: without one, tokens that were made for other services would be accepted")
	}
	if i.JWKS != "" {
		if err := checkPlace(i.JWKS); err != nil {
			add("jwks_url: %w", err)
		}
	}
	if len(i.Algorithms) == 0 {
		add("algorithms are missing: name those that the issuer signs with, such as RS256")
	}
	for _, a := range i.Algorithms {
		if !slices.Contains(Algorithms, a) {
			add("algorithms: %q is none of %s", a, strings.Join(Algorithms, ", "))
		}
	}
	if i.Organization == "" && i.Roles == "" {
		add("organization_claim and roles_claim are both missing: its tokens would be nobody's")
	}
	if i.Organization == "" && (i.Scopes != "" || i.Models != "") {
		add("scopes_claim and models_claim are of callers, and without organization_claim there are none")
	}
	if i.Organization == "" && len(i.Organizations) > 0 {
		add("organizations are of callers, and without organization_claim there are none")
	}
	for _, o := range i.Organizations {
		if !organizationForm.MatchString(o) {
			add("organizations: %q is not 1 to 128 of the characters A-Z a-z 0-9 . _ -", o)
		}
	}
	if i.Leeway < 0 || i.Leeway > MaxLeeway {
		add("leeway: %s is not between 0 and %s", i.Leeway, MaxLeeway)
	}
	return errors.Join(problems...)
}

// checkPlace wants TLS, but on this machine: who can change keys on their way can make tokens.
func checkPlace(text string) error {
	_, u, err := upstream.For(text, "")
	switch {
	case err != nil:
		return err
	case u.Scheme == "http" && !loopback(u):
		return errors.New("it must begin with https://, except on this machine: who changes keys on their way can make tokens")
	}
	return nil
}

func loopback(u *url.URL) bool {
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
}

func newIssuer(setting Issuer, opts *Options, metrics *metrics) (*issuer, error) {
	if err := setting.Check(); err != nil {
		return nil, err
	}
	made := &issuer{Issuer: setting}
	for _, a := range setting.Algorithms {
		made.algorithms = append(made.algorithms, jose.SignatureAlgorithm(a))
	}
	var err error
	made.keys, err = newKeys(&made.Issuer, opts, metrics)
	return made, err
}
