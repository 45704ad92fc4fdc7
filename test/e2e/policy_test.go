package e2e

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// ctl is etcd's own client: a person at a terminal. Where it is not installed, the puts go through the library.
func (e *etcd) ctl(t *testing.T, args ...string) {
	t.Helper()
	path := filepath.Join(filepath.Dir(e.path), "etcdctl")
	if _, err := os.Stat(path); err != nil {
		if path, err = exec.LookPath("etcdctl"); err != nil {
			t.Log("etcdctl is not here: the library does the same")
			switch args[0] {
			case "put":
				e.put(t, strings.TrimPrefix(args[1], prefix), args[2])
			case "del":
				e.remove(t, strings.TrimPrefix(args[1], prefix))
			}
			return
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), hang)
	defer cancel()
	c := exec.CommandContext(ctx, path, append([]string{"--endpoints=" + e.url}, args...)...)
	c.Env = append(os.Environ(), "ETCDCTL_API=3")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("etcdctl %v: %v: %s", args, err, out)
	}
}

func TestAPolicyPutIntoEtcdRoutesWithinASecond(t *testing.T) {
	onEach(t, func(t *testing.T, path string) {
		e := startEtcd(t, path)
		north := engine(t)
		south := engine(t)
		r := serve(t, "policy.source=etcd", "policy.etcd.endpoints="+e.endpoint(), "BACKEND_ENDPOINTS=legacy:"+north+"/v1/chat/completions")
		e.put(t, "backends/north", `{"url":"`+north+`"}`)
		e.put(t, "backends/south", `{"url":"`+south+`"}`)
		const key = prefix + "policies/global-" + model
		steps := []struct{ name, put, value, del, want string }{
			{"ours", key, `{"model":"gpt-oss-20b","backends":[{"id":"north"}]}`, "", "north"},
			{"ours, changed", key, `{"kind":"RoutingPolicy","id":"global-gpt-oss-20b","model":"gpt-oss-20b","backends":[{"id":"south"}]}`, "", "south"},
			{"the earlier service's in CamelCase", key, `{"PolicyID":"global-gpt-oss-20b","OrganizationID":"*","Model":"gpt-oss-20b","Backends":[{"BackendID":"north","Weight":100,"AllowList":[],"DenyList":[]}],"FailoverThreshold":3,"DegradedBackends":[],"UpdatedAt":"2025-01-01T00:00:00Z","Version":7}`, "", "north"},
			{"the earlier service's in snake_case", key, `{"policy_id":"global-gpt-oss-20b","organization_id":"*","model":"gpt-oss-20b","backends":[{"backend_id":"south","weight":100}],"failover_threshold":3}`, "", "south"},
			{"the earlier service's other key, for one organization", prefix + "policies/acme/" + model, `{"PolicyID":"acme-gpt","OrganizationID":"acme","Model":"gpt-oss-20b","Backends":[{"BackendID":"north","Weight":1}]}`, "", "north"},
			{"that one deleted", "", "", prefix + "policies/acme/" + model, "south"},
			{"the earlier service's other key, for everybody", prefix + "policies/*/" + model, `{"policy_id":"all-gpt","organization_id":"*","model":"gpt-oss-20b","backends":[{"backend_id":"north","weight":1}]}`, key, "north"},
		}
		for _, s := range steps {
			if s.put != "" {
				e.ctl(t, "put", s.put, s.value)
			}
			if s.del != "" {
				e.ctl(t, "del", s.del)
			}
			within(t, s.name, eventually(t, s.name, func() error { return r.served(s.want) }), prompt)
		}
		out, err := command(t, r.as(adminToken), "get", "policies")
		if err != nil || !strings.Contains(out, "legacy") {
			t.Errorf("get does not mark the legacy policy: %v\n%s", err, out)
		}
		if _, err := command(t, []string{"API_ROUTER_POLICY_SOURCE=etcd", "API_ROUTER_POLICY_ETCD_ENDPOINTS=" + e.endpoint()}, "seed", "--upgrade"); err != nil {
			t.Error(err)
		}
		if out, err = command(t, r.as(adminToken), "get", "policies"); err != nil || strings.Contains(out, "legacy") || !strings.Contains(out, "all-gpt") {
			t.Errorf("after the upgrade: %v\n%s", err, out)
		}
		if err := r.served("north"); err != nil {
			t.Error(err)
		}
	})
}

func TestSeedingTwiceChangesNothingTheSecondTime(t *testing.T) {
	onEach(t, func(t *testing.T, path string) {
		url := engine(t)
		file := filepath.Join(t.TempDir(), "documents.yaml")
		documents := fmt.Sprintf("kind: Backend\nid: only\nurl: %s\n---\nkind: RoutingPolicy\nid: global-%s\nmodel: %s\nbackends: [{id: only}]\n", url, model, model)
		if err := os.WriteFile(file, []byte(documents), 0o600); err != nil {
			t.Fatal(err)
		}
		e := startEtcd(t, path)
		e.kill() // The job runs before etcd does.
		env := []string{"CONFIG_SERVICE_ENDPOINT=" + e.endpoint()}
		var out string
		var err error
		done := make(chan struct{})
		go func() {
			defer close(done)
			out, err = command(t, env, "seed", "-f", file)
		}()
		time.Sleep(500 * time.Millisecond)
		e.start(t)
		<-done
		if err != nil || strings.Count(out, "created ") != 2 {
			t.Fatalf("%v\n%s", err, out)
		}
		before := e.put(t, "ignored", "")
		out, err = command(t, env, "seed", "-f", file)
		if err != nil || strings.Count(out, "unchanged ") < 2 || strings.Contains(out, "created ") {
			t.Errorf("%v\n%s", err, out)
		}
		if after := e.put(t, "ignored", ""); after != before+1 {
			t.Errorf("the second time wrote %d times", after-before-1)
		}
		r := serve(t, env...)
		eventually(t, "the seeded policy routes", func() error { return r.served("only") })
	})
}

func TestABrokenDocumentAmongAHundred(t *testing.T) {
	e := startEtcd(t, anyEtcd(t))
	north := engine(t)
	south := engine(t)
	e.put(t, "backends/north", `{"url":"`+north+`","models":{}}`)
	e.put(t, "backends/south", `{"url":"`+south+`","models":{}}`)
	name := func(i int) string { return fmt.Sprintf("m-%02d", i) }
	put := func(i int, backend string) {
		e.put(t, "policies/"+name(i), fmt.Sprintf(`{"model":%q,"backends":[{"id":%q}]}`, name(i), backend))
	}
	for i := range 100 {
		put(i, "north")
	}
	r := serve(t, "policy.source=etcd", "policy.etcd.endpoints="+e.endpoint())
	chosen := func(i int, backend string) error {
		out, err := command(t, r.as(operatorToken), "explain", "--model", name(i), "--org", "acme", "-o", "json")
		if err == nil && !strings.Contains(out, `"`+backend+`"`) {
			err = fmt.Errorf("%s does not go to %s: %s", name(i), backend, out)
		}
		return err
	}
	eventually(t, "the hundred are there", func() error { return chosen(99, "north") })
	e.put(t, "policies/"+name(50), "{\n  \"model\": \"m-50\",\n  \"backends\": [{\"id\": \"south\", \"wieght\": 1}]\n}")
	for i := range 100 {
		if i != 50 {
			put(i, "south")
		}
	}
	eventually(t, "the last of the others is updated", func() error { return chosen(99, "south") })
	for _, i := range []int{0, 49, 51, 98} {
		if err := chosen(i, "south"); err != nil {
			t.Error(err)
		}
	}
	if err := chosen(50, "north"); err != nil {
		t.Errorf("the last good version does not serve: %v", err)
	}
	out, err := command(t, r.as(operatorToken), "get", "policies", "--invalid")
	for _, want := range []string{prefix + "policies/m-50", ":3:", "wieght", "did you mean weight"} {
		if err != nil || !strings.Contains(out, want) {
			t.Errorf("get policies --invalid does not say %q: %v\n%s", want, err, out)
		}
	}
	if strings.Contains(out, "m-51") {
		t.Errorf("get policies --invalid shows valid ones:\n%s", out)
	}
}

func TestTheAdminListenerIsNotOnThePublicOne(t *testing.T) {
	r := serve(t, "policy.source=state", "state.url=sqlite://"+filepath.Join(t.TempDir(), "state.db"))
	for _, host := range []string{r.admin, "localhost:8082", "127.0.0.1:8082"} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+r.public+"/admin/v1/policies", http.NoBody)
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
			t.Errorf("host %s: got %s", host, response.Status)
		}
	}
}
