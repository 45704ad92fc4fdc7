package e2e

import (
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ai-aas/api-router/internal/auth"
	"github.com/ai-aas/api-router/test/postgres"
)

// signed are the headers of a request that is signed with a secret.
func signed(secret auth.Secret, nonce, path, body string) []string {
	at := strconv.FormatInt(time.Now().Unix(), 10)
	mac := auth.Sign(secret, at, nonce, http.MethodPost, path, []byte(body))
	return []string{"X-HMAC-Signature", base64.StdEncoding.EncodeToString(mac[:]), "X-HMAC-Timestamp", at, "X-HMAC-Nonce", nonce}
}

// Keys and admins' tokens of the state book, what keys sign with, what they are digested under, and the password of the database that holds their digests.
func TestNoSecretOfTheStateBookIsInAnyOutput(t *testing.T) {
	server := postgres.New(t)
	database := server.Database(t)
	keys := newKeyring(t, server.URL(database, ""))
	plain := keys.make(t, "plain") // Before the router starts: the first snapshot is of the first whole table.
	c := newCage(t)
	r := serve(t, slices.Concat(c.settings(onGRPC), []string{
		"policy.source=state", "state.url=" + server.URL(database, ""), "state.password=env:DB", "DB=" + postgres.Password,
		"identity.order=state,development", "identity.peppers=env:PEPPER", "PEPPER=" + pepper, "identity.cache.file=" + filepath.Join(c.dir, "keys.snapshot"),
	})...)
	eventually(t, "the book is open", func() error {
		response, text := r.sendTo(t, r.admin, adminSecret, http.MethodGet, "/admin/v1/backends", "")
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("%s: %s", response.Status, text)
		}
		return nil
	})
	documents := c.documents()
	for _, path := range slices.Sorted(maps.Keys(documents)) {
		if response, text := r.sendTo(t, r.admin, adminSecret, http.MethodPut, "/admin/v1/"+path, documents[path]); response.StatusCode >= http.StatusBadRequest {
			t.Fatalf("%s: %s: %s", path, response.Status, text)
		}
	}
	eventually(t, "the policies route", func() error { return r.served("b-" + model) })

	revoked, unknown := keys.make(t, "revoked"), auth.NewKey()
	keys.revoke(t, revoked)
	signer := auth.Key{Organization: "acme", Name: "signer", Scopes: auth.Scopes{Signature: auth.SignatureRequired}}
	signing, secret, err := keys.peppers.Make(&signer)
	if err == nil {
		_, err = keys.book.CreateKey(keys.waits(t), signer, operatorOfKeys)
	}
	if err != nil {
		t.Fatal(err)
	}
	known, left, stranger := keys.hire(t, "known"), keys.hire(t, "left"), new(auth.Admin).Make()
	eventually(t, "an admin has left", func() error {
		_, err := keys.book.ChangeAdmin(keys.waits(t), left.ID(), func(a *auth.Admin) error { a.RevokedAt = time.Now(); return nil }, "revoke", operatorOfKeys)
		return err
	})
	mistaken := plain.Reveal()[:len(plain.Reveal())-1] + "~"
	own := canaries{
		"a key": body(plain), "a revoked key": body(revoked), "an unknown key of our form": body(unknown), "a key that signs": body(signing),
		"an admin's token": body(known), "the token of one who left": body(left), "a token of nobody": body(stranger),
		"a signing secret": secret.Reveal(), "the pepper": pepper, "the database's password": postgres.Password,
	}
	const chats = "/v1/chat/completions"
	request := chat(model, promptText, false)
	eventually(t, "the keys and the admins have arrived", func() error {
		for token, want := range map[auth.Secret]int{known: http.StatusOK, left: http.StatusUnauthorized} {
			if response, text := r.sendTo(t, r.admin, token.Reveal(), http.MethodGet, "/admin/v1/admins", ""); response.StatusCode != want {
				return fmt.Errorf("%s: %s", response.Status, text)
			}
		}
		return errors.Join(r.answers(plain, http.StatusOK, ""), r.answers(revoked, http.StatusUnauthorized, "revoked_api_key"), r.answers(signing, http.StatusUnauthorized, "invalid_signature"))
	})
	for name, ask := range map[string]struct {
		key     string
		want    int
		headers []string
	}{
		"a key": {plain.Reveal(), 200, nil}, "a revoked key": {revoked.Reveal(), 401, nil}, "an unknown key": {unknown.Reveal(), 401, nil}, "a mistaken key": {mistaken, 401, nil},
		"a signed request":    {signing.Reveal(), 200, signed(secret, "nonce-0123456789abcdef", chats, request)},
		"an unsigned request": {signing.Reveal(), 401, nil}, "a signature of another body": {signing.Reveal(), 401, signed(secret, "nonce-1123456789abcdef", chats, "{}")},
		"two keys": {plain.Reveal(), 400, []string{"X-API-Key", unknown.Reveal()}},
	} {
		response, text := r.sendTo(t, r.public, ask.key, http.MethodPost, chats, request, ask.headers...)
		if response.StatusCode != ask.want {
			t.Errorf("%s: got %s, want %d: %s", name, response.Status, ask.want, text)
		}
		own.in(t, "the answer to "+name, fmt.Sprint(response.Header)+text)
	}
	own.atTheAdminAPI(t, r, known, left, stranger)
	c.drive(t, r)
	own.in(t, "the database", string(server.Run(t, nil, "pg_dump", database)))
	all := c.outputs(t, r, func() {
		eventually(t, "the snapshot of keys is written", func() error { _, err := os.Stat(filepath.Join(c.dir, "keys.snapshot")); return err })
		server.Kill()
		eventually(t, "an unknown key cannot be judged", func() error { return r.answers(auth.NewKey(), 503, "identity_unavailable") })
	})
	c.search(t, all)
	for place, output := range all {
		own.in(t, place, output)
	}
	if !strings.Contains(all["the log"], signer.ID) {
		t.Error("the log does not know of the key: nothing was proved about it")
	}
	if !strings.Contains(all["the log"], `"actor":"known"`) {
		t.Error("the log does not know of the admin: nothing was proved about it")
	}
	if all["the file keys.snapshot"] == "" {
		t.Error("there is no snapshot of keys: nothing was proved about it")
	}
}

// atTheAdminAPI looks into the answers to those who show admins' tokens: one that is known, one of somebody who left, one of nobody.
func (c canaries) atTheAdminAPI(t *testing.T, r *router, known, left, stranger auth.Secret) {
	t.Helper()
	const admins, models = "/admin/v1/admins", "/v1/models"
	for name, ask := range map[string]struct {
		host, path, token string
		want              int
	}{
		"an admin": {r.admin, admins, known.Reveal(), 200}, "one who left": {r.admin, admins, left.Reveal(), 401}, "nobody's token": {r.admin, admins, stranger.Reveal(), 401},
		"a mistaken token": {r.admin, admins, known.Reveal() + "~", 401}, "an admin as a client": {r.public, models, known.Reveal(), 401},
	} {
		response, text := r.sendTo(t, ask.host, ask.token, http.MethodGet, ask.path, "")
		if response.StatusCode != ask.want {
			t.Errorf("%s: got %s, want %d: %s", name, response.Status, ask.want, text)
		}
		c.in(t, "the answer to "+name, fmt.Sprint(response.Header)+text)
	}
}

// hire makes an admin with the role admin.
func (k *keyring) hire(t *testing.T, name string) auth.Secret {
	t.Helper()
	a := auth.Admin{Name: name, Role: "admin"}
	token := a.Make()
	if _, err := k.book.CreateAdmin(k.waits(t), a, operatorOfKeys); err != nil {
		t.Fatal(err)
	}
	return token
}

// body is what is secret in a key: its id is shown.
func body(key auth.Secret) string {
	return key.Reveal()[strings.LastIndexByte(key.Reveal(), '_')+1:]
}
