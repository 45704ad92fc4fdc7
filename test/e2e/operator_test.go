package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// desk is an operator with a router whose documents are in its state book.
type desk struct {
	*router
	t    *testing.T
	dir  string
	role string
}

func sit(t *testing.T) *desk {
	t.Helper()
	dir := t.TempDir()
	d := &desk{t: t, dir: dir, role: adminToken}
	d.router = serve(t, "policy.source=state", "state.url=sqlite://"+filepath.Join(dir, "state.db"))
	return d
}

// do runs a command that has to succeed and to say all of want.
func (d *desk) do(args string, want ...string) string {
	d.t.Helper()
	out, err := command(d.t, d.as(d.role), words(args)...)
	if err != nil {
		d.t.Fatal(err)
	}
	for _, w := range want {
		if !strings.Contains(out, w) {
			d.t.Errorf("%s does not say %q:\n%s", args, w, out)
		}
	}
	return out
}

// fails runs a command that has to fail and to say all of want.
func (d *desk) fails(args string, want ...string) {
	d.t.Helper()
	_, err := command(d.t, d.as(d.role), words(args)...)
	if err == nil {
		d.t.Fatalf("%s succeeds", args)
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			d.t.Errorf("%s does not say %q:\n%s", args, w, err)
		}
	}
}

var word = regexp.MustCompile(`'[^']*'|\S+`)

// words cuts a command as a shell would.
func words(args string) []string {
	var list []string
	for _, w := range word.FindAllString(args, -1) {
		list = append(list, strings.Trim(w, "'"))
	}
	return list
}

func (d *desk) file(name, content string) string {
	d.t.Helper()
	path := filepath.Join(d.dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		d.t.Fatal(err)
	}
	return path
}

func (d *desk) await(what string, check func() error) {
	d.t.Helper()
	within(d.t, what, eventually(d.t, what, check), prompt)
}

func TestAnOperatorsDay(t *testing.T) {
	d := sit(t)
	north := engine(t)
	south := engine(t)
	d.do("get policies", "There are no policies")

	first := d.file("first.yaml", fmt.Sprintf(`# Two engines, one of them in use.
kind: RoutingPolicy
id: global-%s
model: %s
backends:
  - id: north
---
kind: Backend
id: north
url: %s
---
kind: Backend
id: south
url: %s
`, model, model, north, south))
	d.do("diff -f "+first, "+ Backend north", "3 of 3 documents differ")
	d.do("apply --dry-run -f "+first, "Nothing was written")
	d.do("get backends", "There are no backends")
	d.do("apply -f "+first, "created   Backend north", "created   RoutingPolicy global-"+model)
	d.do("apply -f "+first, "unchanged Backend north", "unchanged RoutingPolicy global-"+model)
	d.await("the first policy", func() error { return d.served("north") })
	d.do("diff --exit-code -f "+first, "0 of 3 documents differ")

	second := d.file("second.yaml", fmt.Sprintf("kind: RoutingPolicy\nid: global-%s\nmodel: %s\nbackends: [{id: south}]\n", model, model))
	d.do("diff -f "+second, "~ RoutingPolicy", "backends[0].id", "north", "south")
	d.do("apply --reason 'the south is cooler' -f "+second, "changed")
	d.await("the second policy", func() error { return d.served("south") })

	broken := d.file("broken.yaml", "kind: RoutingPolicy\nid: other\nmodel: other\nbackends: [{id: soth}]\n---\nkind: Backend\nid: x\nurl: nonsense\nwieght: 3\n")
	d.fails("apply -f "+broken, broken+":8", broken+":9", "wieght", "soth", "did you mean south")
	d.do("get policy global-"+model+" -o yaml", "id: south", "in_force")

	var history struct {
		Items []struct {
			Revision      int64
			Actor, Reason string
		}
	}
	if err := json.Unmarshal([]byte(d.do("history policy global-"+model+" -o json")), &history); err != nil {
		t.Fatal(err)
	}
	if len(history.Items) != 2 || history.Items[0].Reason != "the south is cooler" || history.Items[1].Actor != "ada" {
		t.Fatalf("got %+v", history)
	}
	d.do(fmt.Sprintf("rollback policy global-%s --to %d", model, history.Items[1].Revision), "changed")
	d.await("the rollback", func() error { return d.served("north") })

	d.do("delete policy global-"+model, "deleted")
	d.await("the deletion", func() error { return d.refused(http.StatusNotFound, "model_not_found") })
	d.do(fmt.Sprintf("rollback policy global-%s --to %d", model, history.Items[0].Revision), "created")
	d.await("the deletion undone", func() error { return d.served("south") })

	if err := d.served(""); err != nil {
		t.Error(err)
	}
	d.do("decisions", model, "south", "200", "acme")
	d.do("history", "ada", "the south is cooler", "delete")
	d.fails("get policy nothing", "not_found")
	d.fails("get sheep", "backends, policies, prices, marks")
	d.fails("delete policy nothing", "not_found")
}

func TestMarksAtTheDesk(t *testing.T) {
	d := sit(t)
	north := engine(t)
	south := engine(t)
	d.do("apply -f " + d.file("all.yaml", fmt.Sprintf("kind: Backend\nid: north\nurl: %s\n---\nkind: Backend\nid: south\nurl: %s\n---\n"+
		"kind: RoutingPolicy\nid: global\nmodel: %s\nbackends: [{id: north}, {id: south, tier: 1}]\n", north, south, model)))
	d.await("the policy", func() error { return d.served("north") })

	d.role = operatorToken
	d.fails("delete policy global", "permission_denied")
	d.do("backend drain north --reason 'new driver' --for 1h", "draining")
	d.await("drained", func() error { return d.served("south") })
	d.do("backend list", "north", "draining until")
	d.do("explain --model "+model+" --org acme", "choice:  south", "draining", "policy global")
	d.do("get marks", "backend.north", "new driver", "olga")
	d.do("backend enable north", "enabled")
	d.await("enabled", func() error { return d.served("north") })

	d.do("backend degrade north")
	d.await("degraded", func() error {
		a, err := d.ask()
		if err == nil && (a.backend != "south" || a.warning != "degraded backend avoided") {
			err = fmt.Errorf("got %+v", a)
		}
		return err
	})
	d.do("backend enable north")
	d.fails("model disable "+model, "reason")
	d.do("model disable "+model+" --org acme --reason 'unpaid'", "disabled")
	d.await("disabled", func() error { return d.refused(http.StatusServiceUnavailable, "model_disabled") })
	d.do("explain --model "+model+" --org acme", "model_disabled", "unpaid")
	d.do("explain --model "+model+" --org other", "choice:  north")
	d.do("model enable " + model + " --org acme")
	d.await("enabled for acme", func() error { return d.served("north") })
	d.do("model enable "+model, "there is no mark")
	d.fails("backend drain nrth", "north")
	d.fails("model disable --reason x", "name a model")
	d.fails("backend list --server http://127.0.0.1:1", "127.0.0.1:1")
	d.role = "not-the-token-at-all"
	d.fails("get policies", "invalid_api_key")
	d.role = ""
	d.fails("get policies", "missing_api_key")
}

func TestFilesAreNotWrittenByTheAPI(t *testing.T) {
	url := engine(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "policies.yaml")
	content := fmt.Sprintf("kind: Backend\nid: only\nurl: %s\n---\nkind: RoutingPolicy\nid: global\nmodel: %s\nbackends: [{id: only}]\n", url, model)
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	d := &desk{t: t, dir: dir, role: adminToken, router: serve(t, "policy.source=file", "policy.file.path="+file)}
	d.await("the file routes", func() error { return d.served("only") })
	d.do("get policies", "global", "only", "in_force")
	d.fails("delete policy global", "method_not_allowed", file)
	d.fails("backend drain only --reason x", "method_not_allowed", file)
	mark := content + "---\nkind: Mark\nid: night\nmodel: " + model + "\nstate: disabled\nreason: the night is over\n"
	if err := os.WriteFile(file, []byte(mark), 0o600); err != nil {
		t.Fatal(err)
	}
	d.await("a mark in the file", func() error { return d.refused(http.StatusServiceUnavailable, "model_disabled") })
}
