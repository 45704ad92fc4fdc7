package admin

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/ai-aas/api-router/internal/adminapi"
)

// desk asks a house for what the fuzzer thinks of, and reads back what came of it.
type desk struct {
	*house
	t *testing.T
}

// ask sends one request as an admin. The answer is as described, whatever the request is, and no failure of the router.
func (d desk) ask(method, path, body string) response {
	r := request(method, path, body)
	r.Header.Set("Authorization", "Bearer "+secrets[adminapi.RoleAdmin])
	w := httptest.NewRecorder()
	d.ServeHTTP(w, r)
	got := response{w.Result(), w.Body.Bytes()}
	if got.StatusCode >= 500 {
		d.t.Errorf("%s %s: %d %s", method, path, got.StatusCode, got.body)
	}
	described(d.t, method, adminapi.Prefix+path, got)
	return got
}

// accepted reads what a request asked for, if that was done, and the answer.
func accepted[Asked, Answered any](d desk, got response, body string) (asked Asked, answered Answered, ok bool) {
	if got.StatusCode >= 300 {
		return asked, answered, false
	}
	for text, into := range map[string]any{body: &asked, string(got.body): &answered} {
		if err := json.NewDecoder(strings.NewReader(text)).Decode(into); err != nil {
			d.t.Errorf("%v in %q", err, text)
		}
	}
	return asked, answered, true
}

// sameScopes holds the scopes that are kept to those that were asked for. Networks are kept in one form: one address is a network of it.
func (d desk) sameScopes(asked, kept adminapi.Scopes) {
	for _, s := range []*adminapi.Scopes{&asked, &kept} {
		for i, text := range s.Networks {
			network, ok := readNetwork(text)
			if !ok {
				d.t.Errorf("the network %q was accepted", text)
			}
			s.Networks[i] = network.String()
		}
	}
	if diff := cmp.Diff(asked, kept, cmpopts.EquateEmpty()); diff != "" {
		d.t.Errorf("other scopes are kept than were asked for: %s", diff)
	}
}

// kept reads a key as it is kept.
func (d desk) kept(id string) (k adminapi.Key) {
	if err := json.Unmarshal(d.ask(http.MethodGet, "/organizations/acme/keys/"+id, "").body, &k); err != nil {
		d.t.Error(err)
	}
	return k
}

func (d desk) owners(body string) {
	const organization, project = "/organizations/fuzzed", "/organizations/acme/projects/fuzzed"
	if asked, _, ok := accepted[adminapi.OrganizationRequest, adminapi.Organization](d, d.ask(http.MethodPut, organization, body), body); ok {
		var kept adminapi.Organization
		if err := json.Unmarshal(d.ask(http.MethodGet, organization, "").body, &kept); err != nil || kept.Name != asked.Name || kept.TimeZone != asked.TimeZone {
			d.t.Errorf("asked for %+v, kept %+v, %v", asked, kept, err)
		}
	}
	if asked, _, ok := accepted[adminapi.ProjectRequest, adminapi.Project](d, d.ask(http.MethodPut, project, body), body); ok {
		var kept adminapi.Project
		if err := json.Unmarshal(d.ask(http.MethodGet, project, "").body, &kept); err != nil || kept.Name != asked.Name {
			d.t.Errorf("asked for %+v, kept %+v, %v", asked, kept, err)
		}
	}
	d.ask(http.MethodPost, organization+"/disable", body)
	d.ask(http.MethodPost, organization+"/enable", body)
}

func (d desk) keys(body string) {
	asked, made, ok := accepted[adminapi.KeyRequest, adminapi.NewKey](d, d.ask(http.MethodPost, "/organizations/acme/keys", body), body)
	if ok {
		kept := d.kept(made.ID)
		if kept.Name != asked.Name || kept.Project != asked.Project || kept.ExpiresAt.IsZero() != (asked.ExpiresAt.IsZero() && asked.ExpiresIn <= 0) ||
			!asked.ExpiresAt.IsZero() && !kept.ExpiresAt.Equal(asked.ExpiresAt) || (made.SigningSecret != "") != (asked.Scopes.Signature != "") {
			d.t.Errorf("asked for %+v, kept %+v", asked, kept)
		}
		d.sameScopes(asked.Scopes, kept.Scopes)
	}
	if _, next, ok := accepted[adminapi.Rotation, adminapi.NewKey](d, d.ask(http.MethodPost, "/organizations/acme/keys/"+d.fresh()+"/rotate", body), body); ok {
		if kept := d.kept(next.ID); kept.State != adminapi.KeyActive {
			d.t.Errorf("the key that takes the place of another is %s", kept.State)
		}
	}
	asks, done, ok := accepted[adminapi.Import, adminapi.Imported](d, d.ask(http.MethodPost, "/organizations/acme/fingerprints", body), body)
	if ok && done.Imported+done.Known != len(asks.Keys) {
		d.t.Errorf("%d keys were to be imported: %+v", len(asks.Keys), done)
	}
	if ok {
		if _, again, _ := accepted[adminapi.Import, adminapi.Imported](d, d.ask(http.MethodPost, "/organizations/acme/fingerprints", body), body); again.Imported != 0 {
			d.t.Errorf("what was imported is not there: %+v", again)
		}
	}
}

// fresh makes a key that is restricted in every way but its signature.
func (d desk) fresh() string {
	var made adminapi.NewKey
	got := d.ask(http.MethodPost, "/organizations/acme/keys", `{"name":"k","scopes":{"models":["m"],"networks":["10.0.0.0/8"],"max_tokens":7,"tags":{"a":"b"}}}`)
	if err := json.Unmarshal(got.body, &made); err != nil {
		d.t.Fatal(err)
	}
	return made.ID
}

// change holds a key to what a change names of it, and to what it was otherwise.
func (d desk) change(body string) {
	id := d.fresh()
	want := d.kept(id)
	asked, changed, ok := accepted[adminapi.KeyChange, adminapi.ChangedKey](d, d.ask(http.MethodPatch, "/organizations/acme/keys/"+id, body), body)
	kept := d.kept(id)
	if !ok {
		if diff := cmp.Diff(want, kept); diff != "" {
			d.t.Errorf("a change that is refused changes something: %s", diff)
		}
		return
	}
	asked.Name.Apply(&want.Name)
	asked.Project.Apply(&want.Project)
	s := &asked.Scopes
	s.Models.Apply(&want.Scopes.Models)
	s.Endpoints.Apply(&want.Scopes.Endpoints)
	s.Networks.Apply(&want.Scopes.Networks)
	s.Priority.Apply(&want.Scopes.Priority)
	s.MaxTokens.Apply(&want.Scopes.MaxTokens)
	s.Tags.Apply(&want.Scopes.Tags)
	s.Signature.Apply(&want.Scopes.Signature)
	if kept.Name != want.Name || kept.Project != want.Project || (changed.SigningSecret != "") != (want.Scopes.Signature != "") {
		d.t.Errorf("asked for %+v, kept %+v", want, kept)
	}
	d.sameScopes(want.Scopes, kept.Scopes)
}

func FuzzIdentities(f *testing.F) {
	for _, seed := range append(wildDocuments,
		`{"name":"The acme","time_zone":"Europe/Berlin"}`, `{"name":"checkout","project":"shop","expires_in":"90h","reason":"x"}`,
		`{"scopes":{"models":["a","b-*"],"endpoints":["/v1/embeddings"],"networks":["10.0.0.0/8","::1"],"priority":true,"max_tokens":9,"tags":{"a":"b"}}}`,
		`{"scopes":{"models":null,"networks":[],"tags":{},"max_tokens":0,"signature":"required"},"expires_at":null}`, `{"scopes":{"signature":"optional"}}`,
		`{"scopes":null}`, `{"scopes":{"models":[""]}}`, `{"scopes":{"networks":["::ffff:10.0.0.1","fe80::1%eth0"]}}`, `{"name":null,"project":"nowhere"}`,
		`{"expires_at":"2199-01-01T00:00:00+14:00"}`, `{"expires_at":"0001-01-01T00:00:00Z"}`, `{"grace":"24h","reason":"a"}`, `{"grace":"-1h"}`, `{"reason":"\u0000"}`,
		`{"keys":[{"sha256":"`+strings.Repeat("ab", 32)+`","name":"old","scopes":{"models":["m"]}}]}`, `{"keys":[{"sha256":"n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgg="},{}]}`,
		`{"keys":null}`, `{"name":"a","name":null}`, `{"NAME":"a"}`) {
		f.Add(seed)
	}
	h := newHouse(f)
	h.acme("acme")
	f.Fuzz(func(t *testing.T, body string) {
		d := desk{h, t}
		d.owners(body)
		d.keys(body)
		d.change(body)
	})
}
