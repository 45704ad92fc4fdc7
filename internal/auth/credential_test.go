package auth_test

import (
	"net/http"
	"net/textproto"
	"strings"
	"testing"

	"github.com/ai-aas/api-router/internal/auth"
	"github.com/ai-aas/api-router/internal/fault"
)

// header builds a http.Header from name, value pairs, as net/http would from the wire.
func header(pairs ...string) http.Header {
	h := http.Header{}
	for i := 0; i < len(pairs); i += 2 {
		h.Add(pairs[i], pairs[i+1])
	}
	return h
}

func TestCredential(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		header  http.Header
		want    string
		code    fault.Code
		message []string
	}{
		"bearer":                               {header: header("Authorization", "Bearer k1"), want: "k1"},
		"bearer in another case":               {header: header("Authorization", "bEARER k1"), want: "k1"},
		"bearer with more spaces":              {header: header("Authorization", "Bearer   k1 "), want: "k1"},
		"x-api-key":                            {header: header("X-API-Key", "k1"), want: "k1"},
		"api-key":                              {header: header("api-key", "k1"), want: "k1"},
		"x-goog-api-key":                       {header: header("x-goog-api-key", "k1"), want: "k1"},
		"the same key in two headers":          {header: header("Authorization", "Bearer k1", "X-API-Key", "k1"), want: "k1"},
		"the same header twice":                {header: header("X-API-Key", "k1", "X-API-Key", "k1"), code: fault.AmbiguousRequest, message: []string{"X-API-Key", "more than once"}},
		"an empty header beside a key":         {header: header("Authorization", "Bearer ", "X-API-Key", "k1"), want: "k1"},
		"a key of the longest allowed length":  {header: header("X-API-Key", strings.Repeat("k", 8<<10)), want: strings.Repeat("k", 8<<10)},
		"no header":                            {header: header(), code: fault.MissingAPIKey, message: []string{"authentication required", "X-API-Key", "Authorization: Bearer"}},
		"empty bearer":                         {header: header("Authorization", "Bearer"), code: fault.MissingAPIKey, message: []string{"authentication required"}},
		"empty values":                         {header: header("Authorization", "", "X-API-Key", "  "), code: fault.MissingAPIKey},
		"two different keys in two headers":    {header: header("Authorization", "Bearer k1", "x-goog-api-key", "k2"), code: fault.AmbiguousRequest, message: []string{"Authorization", "x-goog-api-key"}},
		"two different keys in api headers":    {header: header("X-API-Key", "k1", "api-key", "k2"), code: fault.AmbiguousRequest, message: []string{"X-API-Key", "api-key"}},
		"two different keys in one header":     {header: header("X-API-Key", "k1", "X-API-Key", "k2"), code: fault.AmbiguousRequest, message: []string{"X-API-Key", "more than once"}},
		"two different bearers":                {header: header("Authorization", "Bearer k1", "Authorization", "Bearer k2"), code: fault.AmbiguousRequest},
		"another scheme":                       {header: header("Authorization", "Basic dXNlcjpwdw=="), code: fault.InvalidAPIKey, message: []string{"Bearer YOUR_KEY"}},
		"another scheme beside a key":          {header: header("Authorization", "Basic dXNlcjpwdw==", "X-API-Key", "k1"), code: fault.InvalidAPIKey},
		"a key without a scheme":               {header: header("Authorization", "k1"), code: fault.InvalidAPIKey},
		"a space within":                       {header: header("X-API-Key", "k1 k2"), code: fault.InvalidAPIKey},
		"two keys in one bearer":               {header: header("Authorization", "Bearer k1, Bearer k2"), code: fault.InvalidAPIKey},
		"a control character":                  {header: header("X-API-Key", "k\x00"), code: fault.InvalidAPIKey},
		"a tab between scheme and key":         {header: header("Authorization", "Bearer\tk1"), code: fault.InvalidAPIKey},
		"a character outside ASCII":            {header: header("X-API-Key", "ké"), code: fault.InvalidAPIKey},
		"a key that is too long":               {header: header("X-API-Key", strings.Repeat("k", 8<<10+1)), code: fault.InvalidAPIKey},
		"other headers are not looked at":      {header: header("X-Auth-Token", "k1", "Cookie", "key=k1"), code: fault.MissingAPIKey},
		"spelling of the header is irrelevant": {header: header("AUTHORIZATION", "Bearer k1", "x-api-KEY", "k1"), want: "k1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := auth.Credential(test.header)
			if code := fault.CodeOf(err); code != test.code || got != test.want {
				t.Fatalf("got %q, %v; want %q and code %q", got, err, test.want, test.code)
			}
			for _, part := range test.message {
				if !strings.Contains(fault.From(err).Message, part) {
					t.Errorf("message %q does not contain %q", fault.From(err).Message, part)
				}
			}
		})
	}
}

func TestRefusalsNeverRepeatTheCredential(t *testing.T) {
	t.Parallel()
	const canary = "sk-canary-value"
	for _, h := range []http.Header{
		header("Authorization", canary),
		header("Authorization", "Basic "+canary),
		header("X-API-Key", canary+" x"),
		header("X-API-Key", canary, "api-key", canary+"2"),
		header("X-API-Key", strings.Repeat(canary, 1000)),
	} {
		_, err := auth.Credential(h)
		if err == nil || strings.Contains(err.Error(), canary) {
			t.Errorf("refusal %v is missing or repeats the credential", err)
		}
	}
	if _, err := (auth.Development{Hint: true}).Validate(t.Context(), canary); err == nil || strings.Contains(err.Error(), canary) {
		t.Errorf("refusal %v is missing or repeats the credential", err)
	}
}

func FuzzCredential(f *testing.F) {
	f.Add("Bearer test-org-1", "", "", "")
	f.Add("bearer\tx", "k", "k", "k")
	f.Add("", "k1", "k2", "")
	f.Add("Basic Zm9v", "\x00", "é", " k ")
	f.Fuzz(func(t *testing.T, bearer, x, api, goog string) {
		h := http.Header{}
		for name, value := range map[string]string{"Authorization": bearer, "X-API-Key": x, "api-key": api, "x-goog-api-key": goog} {
			if value != "" {
				h[textproto.CanonicalMIMEHeaderKey(name)] = []string{value}
			}
		}
		credential, err := auth.Credential(h)
		switch fault.CodeOf(err) {
		case "":
			if credential == "" || strings.ContainsAny(credential, " \t\r\n\x00") || len(credential) > 8<<10 {
				t.Fatalf("accepted %q", credential)
			}
			for _, value := range []string{bearer, x, api, goog} {
				if strings.Trim(value, " \t") != "" && !strings.Contains(value, credential) && !strings.EqualFold(strings.Trim(value, " \t"), "bearer") {
					t.Fatalf("accepted %q although another header says %q", credential, value)
				}
			}
		case fault.MissingAPIKey, fault.InvalidAPIKey, fault.AmbiguousRequest:
			if credential != "" {
				t.Fatalf("a refusal came with the credential %q", credential)
			}
		default:
			t.Fatalf("unexpected error %v", err)
		}
	})
}

func BenchmarkCredential(b *testing.B) {
	h := header("Authorization", "Bearer test-organization-1", "User-Agent", "bench", "Content-Type", "application/json")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := auth.Credential(h); err != nil {
			b.Fatal(err)
		}
	}
}
