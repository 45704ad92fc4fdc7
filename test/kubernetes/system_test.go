package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ai-aas/api-router/test/rig"
)

// The development values are the whole system: every pod of them is a process here, with the manifest's own words, and the first request works.
func TestTheDevelopmentValuesBringUpASystemThatAnswers(t *testing.T) {
	etcd, collector := rig.Tool(t, "etcd"), rig.Tool(t, "otelcol")
	if !apart(t) {
		return
	}
	n := node{t: t, all: render(t, installation("development"))}

	// The worst order: nothing that the router depends on is there.
	router := n.start("router", binary)
	eventually(t, "the router lives without anybody else", func() error { return get200("/healthz") })
	if err := get200("/readyz"); err == nil {
		t.Error("it is ready without having seen a policy source")
	}

	// "helm install --wait" waits for readiness before it runs the seed job: an etcd without documents has to be enough.
	n.start("policy-source", etcd)
	eventually(t, "the router is ready with an empty etcd", func() error { return get200("/readyz") })
	telemetry := n.start("collector", collector)
	n.start("engine", binary)

	for _, c := range []struct{ run, want string }{{"install", "2 created"}, {"upgrade", "2 unchanged"}} {
		job := n.start("seed", binary)
		if code := job.ends(t, hang); code != 0 || !strings.Contains(job.log.String(), c.want) {
			t.Fatalf("the seed job after %s: exit %d: %s", c.run, code, job.log)
		}
	}
	eventually(t, "the first request works", func() error {
		status, body, err := chat("test-vllm-key")
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("%d %s", status, body)
		}
		return err
	})
	if status, body, err := chat("nonsense"); err != nil || status != http.StatusUnauthorized {
		t.Errorf("a wrong key: %d %s %v", status, body, err)
	}

	t.Run("helm test", func(t *testing.T) { n.smoke(t) })
	eventually(t, "the collector has traces and logs", func() error {
		for _, signal := range []string{"Traces", "Logs"} {
			if !strings.Contains(telemetry.log.String(), signal) {
				return errors.New("no " + signal)
			}
		}
		return nil
	})

	begun := time.Now()
	if err := router.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	grace := time.Duration(*n.pod("router").spec.TerminationGracePeriodSeconds) * time.Second
	if code := router.ends(t, grace); code != 0 {
		t.Errorf("the router ended with %d", code)
	}
	t.Logf("from SIGTERM to the end: %s of %s", time.Since(begun).Round(time.Millisecond), grace)
}

// smoke runs the test pod's script with the machine's shell and curl, which are what its image has.
func (n node) smoke(t *testing.T) {
	t.Helper()
	curl, err := exec.LookPath("curl")
	if err != nil {
		rig.Lacking(t, "there is no curl. On Debian or Ubuntu: sudo apt-get install curl")
	}
	p := n.pod("test")
	spec := p.spec.Containers[0]
	image := t.TempDir()
	for _, m := range spec.VolumeMounts {
		n.mount(p, m, image+m.MountPath)
	}
	n.write(image+"/hosts", n.hosts(p.GetNamespace()))
	if strings.Join(spec.Command, " ") != "sh /smoke/smoke" {
		t.Fatalf("its command is %v", spec.Command)
	}
	// The names of Services are known to whoever has this /etc/hosts.
	c := &container{Cmd: exec.Command("/bin/sh", "-c", `mount -o bind "$0/hosts" /etc/hosts && exec sh "$0/smoke/smoke"`, image), log: &rig.Journal{}, done: make(chan struct{})}
	c.Env = append(n.environment(p), "PATH=/usr/bin:/bin:/usr/sbin:/sbin:"+curl[:strings.LastIndex(curl, "/")], "TMPDIR="+image+"/tmp")
	c.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	node{t: t, all: n.all}.run("test", c)
	if code := c.ends(t, hang); code != 0 {
		t.Errorf("exit %d", code)
	}
	t.Logf("%s", c.log)
}

// A token is a Secret's, and nothing waits for it: the pod starts without, says so, and takes the token when it appears. kubectl port-forward
// dials the loopback address of the pod's network, as this test does.
func TestTheAdminListenerOfAPodTakesATokenFromASecretThatComesLater(t *testing.T) {
	if !apart(t) {
		return
	}
	const token = "0123456789abcdef0123456789abcdef"
	n := node{t: t, all: render(t, installation("staging"))}
	router := n.start("router", binary)
	eventually(t, "the router lives without its Secret", func() error { return get200("/healthz") })
	if err := operate(token); err == nil || !strings.Contains(err.Error(), "401") {
		t.Errorf("without the Secret: %v", err)
	}
	router.log.Await(t, "an admin token does not work", hang)
	n.write(router.image+"/run/secrets/api-router/ada", token+"\n") // What the kubelet does once there is a Secret.
	eventually(t, "the token works", func() error { return operate(token) })
	if strings.Contains(router.log.String(), token) {
		t.Error("the token is in the log")
	}
}

// operate asks the admin API for something that takes a token.
func operate(token string) error { return ask("http://127.0.0.1:8082/admin/v1/fleet", token) }

func get200(path string) error { return ask("http://127.0.0.1:8080"+path, "") }

func ask(path, token string) error {
	request, err := http.NewRequestWithContext(context.Background(), http.MethodGet, path, http.NoBody)
	if err != nil {
		return err
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", path, response.Status)
	}
	return nil
}

// chat sends the request of the documentation.
func chat(key string) (status int, body string, err error) {
	const question = `{"model": "gpt-oss-20b", "messages": [{"role": "user", "content": "Hello!"}]}`
	request, err := http.NewRequestWithContext(context.Background(), http.MethodPost, "http://127.0.0.1:8080/v1/chat/completions", strings.NewReader(question))
	if err != nil {
		return 0, "", err
	}
	request.Header.Set("Authorization", "Bearer "+key)
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	return response.StatusCode, string(text), err
}

// eventually asks until there is no error.
func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	t.Logf("%s: after %s", what, rig.Eventually(t, what, hang, check).Round(time.Millisecond))
}
