package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/ai-aas/api-router/internal/adminapi"
	"github.com/ai-aas/api-router/test/ports"
)

// counter is whoever operates a running router with a state book, command by command.
type counter struct {
	t      *testing.T
	server string
	data   string          // where the router keeps its state book
	said   strings.Builder // whatever commands printed, but where a secret is shown
}

func openCounter(t *testing.T) *counter {
	t.Helper()
	public, admin, data := ports.Free(t), ports.Free(t), t.TempDir()
	s := start(t, binary(t), "dev", "--listen", public, "--admin-listen", admin, "--metrics-listen", "127.0.0.1:0", "--data", data)
	healthy(t, s, "http://"+public+"/healthz")
	healthy(t, s, "http://"+admin+"/admin/v1/organizations")
	return &counter{t: t, server: "http://" + admin, data: data}
}

// do runs a command that succeeds and prints all of this.
func (c *counter) do(args string, want ...string) string {
	c.t.Helper()
	out := c.shows(args, want...)
	c.said.WriteString(out)
	return out
}

// shows is do for a command that prints a secret.
func (c *counter) shows(args string, want ...string) string {
	c.t.Helper()
	code, out, message := command(c.t, append(strings.Fields(args), "--server", c.server)...)
	c.said.WriteString(message)
	if code != 0 {
		c.t.Fatalf("%s: %s", args, message)
	}
	for _, each := range want {
		if !strings.Contains(out, each) {
			c.t.Errorf("%s: %q is not in\n%s", args, each, out)
		}
	}
	return out
}

// fails runs a command that fails and says all of this.
func (c *counter) fails(args string, want ...string) {
	c.t.Helper()
	code, out, message := command(c.t, append(strings.Fields(args), "--server", c.server)...)
	c.said.WriteString(out + message)
	if code != 1 || out != "" {
		c.t.Errorf("%s: %d, %s", args, code, out)
	}
	for _, each := range want {
		if !strings.Contains(message, each) {
			c.t.Errorf("%s: %q is not in %s", args, each, message)
		}
	}
}

// read runs a command with -o json and with -o yaml, which say the same, and gives that.
func read[T any](c *counter, args string) (found T) {
	c.t.Helper()
	var other T
	if err := json.Unmarshal([]byte(c.do(args+" -o json")), &found); err != nil {
		c.t.Fatal(err)
	}
	text, err := yaml.YAMLToJSON([]byte(c.do(args + " -o yaml")))
	if err != nil {
		c.t.Fatal(err)
	}
	if err := json.Unmarshal(text, &other); err != nil || fmt.Sprint(found) != fmt.Sprint(other) {
		c.t.Errorf("%s gives as JSON %+v, as YAML %+v, %v", args, found, other, err)
	}
	return found
}

func TestOrganizationsAndProjectsFromTheirBeginningToTheirEnd(t *testing.T) {
	c := openCounter(t)
	c.do("org list", "There are no such organizations")
	c.do("org create acme --time-zone Europe/Berlin --reason test", "organization acme is created", "api-router key create --org acme")
	c.fails("org create acme", "exists already")
	c.do("org update acme --name Acme", "acme", "Acme", "Europe/Berlin")
	c.do("org update acme --time-zone UTC", "Acme", "UTC")
	c.fails("org update nobody --name x", "there is no organization nobody")
	c.fails("org update acme", "--name, --time-zone or both")
	c.fails("org update", "name one organization")
	c.do("org get acme", "NAME", "enabled")
	if o := read[adminapi.Organization](c, "org get acme"); o.Name != "Acme" || o.TimeZone != "UTC" {
		t.Errorf("%+v", o)
	}

	c.do("project list --org acme", "Organization acme has no such projects")
	c.do("project create shop --org acme", "project shop of organization acme is created", "--project shop")
	c.fails("project create shop --org acme", "exists already")
	c.fails("project create shop --org nobody", "there is no organization nobody")
	c.fails("project create a/b --org acme", "an id is")
	c.fails("project create shop", "--org is missing")
	c.fails("project create --org acme", "name one project: api-router project create")
	c.do("project update shop --org acme --name Shops", "Shops")
	c.fails("project update shop --org acme", "--name is missing")
	c.fails("project update lab --org acme --name x", "there is no project lab of organization acme")
	c.do("project get shop --org acme", "shop", "Shops")
	c.fails("project get lab --org acme", "there is no project lab")
	if p := read[adminapi.Project](c, "project get shop --org acme"); p.Name != "Shops" || p.Organization != "acme" || p.Revision == 0 {
		t.Errorf("%+v", p)
	}

	for _, id := range []string{"a", "b", "z"} {
		c.do("org create " + id)
		c.do("project create " + id + " --org acme")
	}
	if found := read[adminapi.Organizations](c, "org list --limit 2 --after a"); len(found.Items) != 2 || found.Items[0].ID != "acme" || found.Next != "b" {
		t.Errorf("%+v", found)
	}
	if found := read[adminapi.Projects](c, "project list --org acme --after b"); len(found.Items) != 2 || found.Items[0].ID != "shop" || found.Next != "" {
		t.Errorf("%+v", found)
	}
	c.do("org list --limit 2 --after a", "What follows: --after b; --limit 0 lists all.")
	c.do("project list --org acme --limit 1", "What follows: --after a;")
	if all := c.do("org list") + c.do("project list --org acme --limit 4"); strings.Contains(all, "What follows") {
		t.Errorf("a whole list goes on:\n%s", all)
	}
	c.fails("org list --limit -1", "--limit must be above 0")
	c.do("org list --after z", "no such organizations")

	c.fails("org delete acme", "it has projects: delete them first")
	for _, id := range []string{"a", "b", "shop", "z"} {
		c.do("project delete "+id+" --org acme --reason test", "project "+id+" of organization acme is deleted")
	}
	c.fails("project delete shop --org acme", "there is no project shop")
	c.do("org disable acme --reason test")
	c.fails("org delete acme", "enable it first")
	c.do("org enable acme")
	c.do("org delete acme --reason test", "organization acme is deleted")
	c.fails("org get acme", "there is no organization acme")
	c.do("audit list --org acme --kind organization --limit 1", "dev (admin)", "delete", "acme", "What is older: --before")
	c.do("audit list --org acme --kind project --id shop", "delete", "update", "create")
}

func TestAKeyIsChangedFromTheCommandLine(t *testing.T) {
	c := openCounter(t)
	c.do("org create acme")
	c.do("project create shop --org acme")
	c.do("key list --org acme", "Organization acme has no such keys")
	var made, second struct {
		Key    adminapi.Key `json:"key"`
		Secret string       `json:"secret"`
	}
	if err := json.Unmarshal([]byte(c.shows("key create --org acme --name checkout --model gpt-* --endpoint /v1/chat/completions -o json")), &made); err != nil {
		t.Fatal(err)
	}
	id := made.Key.ID
	update := "key update --org acme " + id + " "

	c.do(update+"--project shop --name cashier --model a --model b-* --model c --network 10.0.0.0/8 --tag team=shop --tag unit=x --max-tokens 9 --priority --expires 90d",
		"a, b-*, c", "10.0.0.0/8", "team=shop, unit=x", "shop", "cashier", "yes", "/v1/chat/completions")
	k := read[adminapi.Key](c, "key get --org acme "+id)
	if s := k.Scopes; !slices.Equal(s.Models, []string{"a", "b-*", "c"}) || len(s.Endpoints) != 1 || !s.Priority || s.MaxTokens != 9 || len(s.Tags) != 2 || k.ExpiresAt.Before(time.Now().Add(89*24*time.Hour)) {
		t.Errorf("%+v", k)
	}
	if listed := read[adminapi.Keys](c, "key list --org acme").Items[0]; fmt.Sprint(listed) != fmt.Sprint(k) {
		t.Errorf("the list has %+v, the key is %+v", listed, k)
	}
	other := c.shows("key create --org acme --name other -o json")
	c.do("key list --org acme --limit 1", "What follows: --after ")
	if err := json.Unmarshal([]byte(other), &second); err != nil {
		t.Fatal(err)
	}
	c.do("key revoke --org acme " + second.Key.ID)
	c.do("key delete --org acme " + second.Key.ID)
	c.do("key list --org acme", "STATE", "LAST USED", "active", "and 1 more")
	c.do(update+"--priority=false --clear model --clear tag --clear max-tokens --clear expires", "never", "all")
	if k := read[adminapi.Key](c, "key get --org acme "+id); len(k.Scopes.Models)+len(k.Scopes.Tags) > 0 || k.Scopes.Priority || k.Scopes.MaxTokens > 0 || !k.ExpiresAt.IsZero() ||
		len(k.Scopes.Networks) != 1 || k.Name != "cashier" {
		t.Errorf("%+v", k)
	}
	c.do(update+"--clear network --clear endpoint --clear name --clear project --clear priority --clear signed", "never")

	for args, want := range map[string]string{
		"": "name what is to change", "--clear models": "--clear \"models\" is none of endpoint, expires", "--model a --clear model": "do not go together",
		"--name=": "--clear name takes away", "--expires=": "--clear expires takes away", "--signed=": "--clear signed takes away", "--model=": "scopes.models[0]",
		"--tag x": "NAME=VALUE", "--expires soon": "--expires", "--expires 2001-01-01": "in the future", "--max-tokens -1": "scopes.max_tokens", "--max-tokens x": "is no whole number",
		"--signed perhaps": "optional, required", "--project nowhere": "has no project nowhere", "--endpoint /v1/models": "scopes.endpoints[0]",
		"--network 10.0.0.1/8": "scopes.networks[0]", "--name x -o xml": "table, yaml, json",
	} {
		c.fails(strings.TrimSpace(update+args), want)
	}
	for _, verb := range []string{"get", "update", "delete", "rotate", "revoke"} {
		c.fails("key "+verb+" --org acme", "name one key by its id: api-router key "+verb)
		c.fails("key "+verb+" --org acme "+made.Secret, "name it by its id")
		c.fails("key "+verb+" "+id, "--org is missing")
	}
	c.fails("key get --org nobody "+id, "there is no key "+id+" of organization nobody")
	c.fails("key delete --org acme "+id, "revoke it first")
	c.do("key revoke --org acme "+id, "is revoked")
	c.fails(update+"--name x", "it is revoked")
	c.do("key delete --org acme "+id+" --reason test", "key "+id+" of organization acme is deleted")
	c.fails("key get --org acme "+id, "there is no key")
	c.prints(made.Secret)
}

// prints holds what commands printed, but where they show a secret, to none of these.
func (c *counter) prints(secrets ...string) {
	c.t.Helper()
	for _, secret := range secrets {
		if len(secret) < 40 || strings.Contains(c.said.String(), secret) {
			c.t.Errorf("%q was printed a second time", secret)
		}
	}
}

// after is the word that follows a mark in what a command printed.
func after(t *testing.T, out, mark string) string {
	t.Helper()
	_, rest, ok := strings.Cut(out, mark)
	word := strings.Fields(rest)
	if !ok || len(word) == 0 {
		t.Fatalf("%q is not in\n%s", mark, out)
	}
	return word[0]
}

func TestSecretsArePrintedOnce(t *testing.T) {
	c := openCounter(t)
	c.do("org create acme")
	out := c.shows("key create --org acme", "this is the only time", "Keep it where secrets are kept")
	first := after(t, out, "it is shown:\n\n")
	id := strings.TrimSuffix(first[len("ar_"):], first[len("ar_12345678"):])
	signing := after(t, c.shows("key update --org acme "+id+" --signed optional", "this is the only time", "FIELD"), "it is shown:\n\n")
	c.do("key update --org acme "+id+" --signed required", "required")
	out = c.shows("key rotate --org acme "+id+" --grace 1h", "works on for 1h at most")
	second, another := after(t, out, "it is shown:\n\n"), after(t, out, "too:\n\n")
	var changed struct {
		Key           adminapi.Key `json:"key"`
		SigningSecret string       `json:"signing_secret"`
	}
	plain := c.shows("key create --org acme -o yaml", "secret: ")
	third := after(t, plain, "\nsecret: ")
	if err := json.Unmarshal([]byte(c.shows("key update --org acme "+strings.Trim(third, `"`)[3:11]+" --signed required -o json")), &changed); err != nil || changed.Key.Scopes.Signature != "required" {
		t.Errorf("%+v, %v", changed, err)
	}
	c.fails("key rotate --org acme "+id, "was rotated before")
	c.fails("key update --org acme "+id+" --clear expires", "took its place in a rotation", "can only end earlier")
	c.fails("key rotate --org acme "+id+" --grace 0s", "--grace", "revoke it")

	file := filepath.Join(t.TempDir(), "prints.txt")
	if err := os.WriteFile(file, []byte("# of before\n\n"+strings.Repeat("ab", 32)+" the old one\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.do("key import --org acme -f "+file+" --model m", "imported: 1, there already: 0")
	c.do("key import --org acme -f "+file, "imported: 0, there already: 1")
	c.fails("key import --org acme", "-f FILE")
	wrong := filepath.Join(t.TempDir(), "wrong.txt")
	if err := os.WriteFile(wrong, []byte("# of before\n\n"+strings.Repeat("cd", 32)+"\n"+strings.Repeat("x", 64)+" another\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.fails("key import --org acme -f "+wrong, "after 0 keys", "line 4, sha256: ")
	c.fails("key import --org acme -f "+os.DevNull, "there is no SHA-256")
	for _, k := range read[adminapi.Keys](c, "key list --org acme").Items {
		c.do("key get --org acme " + k.ID)
		if k.Imported {
			c.fails("key update --org acme "+k.ID+" --signed optional", "cannot sign")
			c.do("key get --org acme "+k.ID, "imported", "the old one")
		}
	}
	c.do("key get --org acme "+id, "rotated", "takes its place")
	c.fails("explain --model m --org acme --key "+strings.Trim(third, `"`), "name it by its id")
	c.do("audit list -o json")
	c.do("audit list -o yaml")
	c.prints(first, signing, second, another, strings.Trim(third, `"`), changed.SigningSecret)
}

func TestShellsCompleteWhatFlagsTake(t *testing.T) {
	for args, want := range map[string]string{
		"key update --clear": "expires\nmax-tokens\nmodel", "key update --signed": "optional\nrequired", "key create --endpoint": adminapi.EndpointChat,
		"admin create olga --role": "viewer\noperator\nadmin\nauditor", "admin set olga --role": "auditor", "audit list --kind": "log-level\nbackend\npolicy",
		"org list -o": "table\nyaml\njson", "project": "create\tMake a project", "key u": "update\tChange",
	} {
		words := strings.Fields(args)
		if !strings.HasSuffix(args, " u") {
			words = append(words, "")
		}
		if code, out, _ := command(t, append([]string{"__complete"}, words...)...); code != 0 || !strings.Contains(out, want) {
			t.Errorf("%s: %q lacks %q", args, out, want)
		}
	}
}
