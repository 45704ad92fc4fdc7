package auth_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/ai-aas/api-router/internal/auth"
	"github.com/ai-aas/api-router/internal/fault"
)

func TestDevelopmentKeysNameTheirOrganization(t *testing.T) {
	t.Parallel()
	const none = "00000000-0000-0000-0000-000000000001"
	for key, organization := range map[string]string{
		"test-acme-1":   "acme",
		"dev-acme-1":    "acme",
		"test-vllm-key": "vllm",
		"test-1c5b9dde-8a55-4b5c-b0a7-6d2fbb0d6bb1-7": "1c5b9dde-8a55-4b5c-b0a7-6d2fbb0d6bb1",
		"test-key":                             none,
		"dev-x":                                none,
		"test-":                                "",
		"test":                                 "",
		"":                                     "",
		"dev--1":                               "",
		"test-acme-":                           "",
		"Test-acme-1":                          "",
		"sk-acme-1":                            "",
		"test-*-1":                             "",
		"test-a/b-1":                           "",
		"test-ac me-1":                         "",
		"testacme-1":                           "",
		"test-" + strings.Repeat("a", 160):     "",
		"test-" + strings.Repeat("a", 160-5):   none,
		"test-a-" + strings.Repeat("a", 160-7): "a",
	} {
		p, err := auth.Development{}.Validate(t.Context(), key)
		switch {
		case organization == "":
			if fault.CodeOf(err) != fault.InvalidAPIKey || p != (auth.Principal{}) {
				t.Errorf("%q: got %v, %v; want invalid_api_key", key, p, err)
			}
		case err != nil || p.Organization != organization || p.Source != "development":
			t.Errorf("%q: got %v, %v; want organization %q", key, p, err, organization)
		}
	}
}

func TestDevelopmentKeyIDsAreStableAndDistinct(t *testing.T) {
	t.Parallel()
	id := func(key string) string {
		p, err := auth.Development{}.Validate(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		return p.KeyID
	}
	first := id("test-acme-1")
	if first != "dev-edd85d04a70b1733" {
		t.Errorf("the id of test-acme-1 changed to %q: recorded usage would no longer match", first)
	}
	if first == id("test-acme-2") || first == id("dev-acme-1") {
		t.Error("two keys share an id")
	}
}

func TestDevelopmentHintSaysWhichKeysWork(t *testing.T) {
	t.Parallel()
	_, hinted := auth.Development{Hint: true}.Validate(t.Context(), "sk-1")
	if !strings.Contains(hinted.Error(), "test-ORGANIZATION-ID") {
		t.Errorf("no hint in %q", hinted)
	}
	_, plain := auth.Development{}.Validate(t.Context(), "sk-1")
	if strings.Contains(plain.Error(), "test-") {
		t.Errorf("a hint in %q, although hints are off", plain)
	}
}

// only accepts one credential and refuses another with an error of its own.
type only struct {
	name, accepts, refuses string
	with                   error
}

func (o only) Validate(_ context.Context, credential string) (auth.Principal, error) {
	switch credential {
	case o.accepts:
		return auth.Principal{Organization: "org", KeyID: "id", Source: o.name}, nil
	case o.refuses:
		return auth.Principal{}, o.with
	default:
		return auth.Principal{}, fault.New(fault.InvalidAPIKey, o.name+" does not know this key")
	}
}

func TestChain(t *testing.T) {
	t.Parallel()
	down := errors.New("store is down")
	c := auth.Chain(only{name: "a", accepts: "k1", refuses: "k2", with: down}, only{name: "b", accepts: "k2"}, only{name: "c", accepts: "k3"})
	for credential, source := range map[string]string{"k1": "a", "k3": "c"} {
		if p, err := c.Validate(t.Context(), credential); err != nil || p.Source != source {
			t.Errorf("%s: got %v, %v; want %s to accept", credential, p, err, source)
		}
	}
	if _, err := c.Validate(t.Context(), "k2"); !errors.Is(err, down) {
		t.Errorf("got %v; a validator that cannot tell must end the search", err)
	}
	if _, err := c.Validate(t.Context(), "k4"); fault.CodeOf(err) != fault.InvalidAPIKey || !strings.Contains(err.Error(), "c does not know") {
		t.Errorf("got %v; want the last validator's refusal", err)
	}
	if _, err := auth.Chain().Validate(t.Context(), "test-a-1"); fault.CodeOf(err) != fault.InvalidAPIKey {
		t.Errorf("got %v; without validators every key must be invalid", err)
	}
}

func TestContextCarriesThePrincipal(t *testing.T) {
	t.Parallel()
	if p, ok := auth.FromContext(t.Context()); ok {
		t.Errorf("got %v from an empty context", p)
	}
	want := auth.Principal{Organization: "o", KeyID: "k", Source: "s"}
	if got, ok := auth.FromContext(auth.NewContext(t.Context(), want)); !ok || got != want {
		t.Errorf("got %v, %v; want %v", got, ok, want)
	}
}

func BenchmarkDevelopmentValidate(b *testing.B) {
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := (auth.Development{}).Validate(ctx, "test-organization-1"); err != nil {
			b.Fatal(err)
		}
	}
}
