package e2e

import (
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ai-aas/api-router/test/ports"
	"github.com/ai-aas/api-router/test/rig"
)

// exits runs api-router once, against the admin listener of r, and gives its exit code.
func (r *router) exits(t *testing.T, args ...string) (string, int) {
	t.Helper()
	c := exec.CommandContext(t.Context(), binary, args...)
	c.Env = []string{"API_ROUTER_ADMIN_URL=http://" + r.admin, "API_ROUTER_ADMIN_TOKEN=" + operatorToken}
	out, _ := c.CombinedOutput() // Its code tells.
	return string(out), c.ProcessState.ExitCode()
}

func TestStatusEndsInOneWhenSomethingNeedsAPerson(t *testing.T) {
	dir := t.TempDir()
	document := func(url string) {
		text := "kind: Backend\nid: one\nurl: " + url + "\n---\nkind: RoutingPolicy\nid: p\nmodel: " + model + "\nbackends: [ { id: one } ]\n"
		if err := os.WriteFile(filepath.Join(dir, "p.yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	document(engine(t))
	r := serve(t, "policy.file.path="+dir)
	eventually(t, "everything is as it should be", func() error { return r.get("/readyz") })
	for _, form := range []string{"table", "yaml", "json"} {
		out, code := r.exits(t, "status", "-o", form)
		if code != 0 || !strings.Contains(out, "policy_source") || strings.Contains(out, "ATTENTION") {
			t.Errorf("%s: exit %d\n%s", form, code, out)
		}
	}
	document("http://" + ports.Dead(t))
	var out string
	for code := 0; code == 0; {
		out, code = r.exits(t, "status")
	}
	for _, want := range []string{"ATTENTION", "unhealthy", "backend one: It gets no request: start it, or correct its url", "connection refused"} {
		if !strings.Contains(out, want) {
			t.Errorf("it does not say %q:\n%s", want, out)
		}
	}
	out, code := r.exits(t, "status", "-o", "json")
	var health struct{ Attention int }
	if err := json.Unmarshal([]byte(out), &health); err != nil || code != 1 || health.Attention != 1 {
		t.Errorf("exit %d, %v\n%s", code, err, out)
	}
}

// Whatever the token is, and whichever host a request names.
func TestWhatIsForOperatorsIsOnTheAdminListenerAlone(t *testing.T) {
	r := serve(t, "policy.file.path="+t.TempDir())
	for _, path := range append([]string{"/console/style.css", "/admin/v1/backends", "/metrics"}, pages...) {
		for _, host := range []string{r.public, r.admin, "localhost"} {
			request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+r.public+path, http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			request.Host = host
			request.Header.Set("Authorization", "Bearer "+adminToken)
			response, err := r.client.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			_ = response.Body.Close()
			if response.StatusCode != http.StatusNotFound {
				t.Errorf("as %s, the public listener answers %s with %s", host, path, response.Status)
			}
		}
	}
}

func TestTheLogLevelIsChangedFromTheCommandLine(t *testing.T) {
	r := serve(t, "policy.file.path="+t.TempDir())
	if out, code := r.exits(t, "log-level"); code != 0 || out != "info\n" {
		t.Errorf("exit %d: %s", code, out)
	}
	if out, code := r.exits(t, "log-level", "debug", "--for", "10m"); code != 0 || !strings.HasPrefix(out, "debug until ") || !strings.HasSuffix(out, ", then info, set by olga\n") {
		t.Errorf("exit %d: %s", code, out)
	}
	r.log.Await(t, `"msg":"the log level was set","actor":"olga"`, hang)
	for _, args := range [][]string{{"log-level", "loud"}, {"log-level", "--for", "1m"}, {"log-level", "debug", "--for", "0s"}, {"log-level", "debug", "--for", "1000h"}} {
		if out, code := r.exits(t, args...); code != 1 || out == "" {
			t.Errorf("%v: exit %d: %s", args, code, out)
		}
	}
}

func TestGoToolsTakeProfilesWithATokenInTheURL(t *testing.T) {
	if _, err := exec.LookPath("go"); err != nil {
		rig.Lacking(t, "there is no go")
	}
	r := serve(t, "policy.file.path="+t.TempDir())
	for _, kind := range []string{"profile?seconds=1", "heap", "goroutine"} {
		c := exec.CommandContext(t.Context(), "go", "tool", "pprof", "-top", "http://x:"+operatorToken+"@"+r.admin+"/debug/pprof/"+kind)
		c.Env = append(os.Environ(), "PPROF_TMPDIR="+t.TempDir())
		if out, err := c.CombinedOutput(); err != nil || !strings.Contains(string(out), "flat%") {
			t.Errorf("%s: %v\n%s", kind, err, out)
		}
	}
	if strings.Contains(r.log.String(), operatorToken) {
		t.Error("the log holds the token")
	}
}
