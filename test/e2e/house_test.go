package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ai-aas/api-router/internal/simengine"
	"github.com/ai-aas/api-router/test/ports"
	"github.com/ai-aas/api-router/test/postgres"
	"github.com/ai-aas/api-router/test/rig"
)

const (
	model = "gpt-oss-20b"
	// prompt is a second's promise of the router; hang ends every wait here, and is longer than ten times any promise.
	prompt = time.Second
	hang   = 60 * prompt
	key    = "test-acme-1"
)

// binary is the router, built once for all tests.
var binary string

func TestMain(m *testing.M) { os.Exit(run(postgres.Main{Tests: m})) }

func run(m postgres.Main) int {
	for _, s := range []os.Signal{syscall.SIGHUP, syscall.SIGINT} {
		if signal.Ignored(s) { // As under nohup, or in the background: what is started here must not inherit that.
			signal.Notify(make(chan os.Signal, 1), s)
		}
	}
	return rig.Main(m, &binary)
}

// engine is the URL of a simulated inference server that serves the model.
func engine(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(simengine.New(simengine.Config{Models: []simengine.Model{{ID: model}}, Speed: math.Inf(1)}).Handler())
	t.Cleanup(server.Close)
	return server.URL
}

// process is a program that runs until the test ends.
type process struct {
	*exec.Cmd
	begun time.Time
	log   *rig.Journal
	done  chan struct{}
}

func start(t *testing.T, name string, env []string, args ...string) *process {
	t.Helper()
	return startWith(t, "", name, env, args...)
}

// startWith starts a program that sees the file resolvConf at /etc/resolv.conf; "" leaves it the machine's. Otherwise it takes root.
func startWith(t *testing.T, resolvConf, name string, env []string, args ...string) *process {
	t.Helper()
	attributes := &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if resolvConf != "" {
		args = append([]string{"-c", `mount -o bind "$0" /etc/resolv.conf && exec "$@"`, resolvConf, name}, args...)
		name = "/bin/sh"
		attributes.Unshareflags = syscall.CLONE_NEWNS
	}
	return startAs(t, attributes, append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}, env...), name, args...)
}

// startExactly starts a program with this environment and nothing else in it.
func startExactly(t *testing.T, env []string, name string, args ...string) *process {
	t.Helper()
	return startAs(t, &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}, env, name, args...)
}

func startAs(t *testing.T, attributes *syscall.SysProcAttr, env []string, name string, args ...string) *process {
	t.Helper()
	p := &process{Cmd: exec.Command(name, args...), log: &rig.Journal{}, done: make(chan struct{})}
	p.SysProcAttr, p.Env = attributes, env
	p.Stdout, p.Stderr = p.log, p.log
	p.begun = time.Now()
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.Wait() // How it ended is in its log.
		close(p.done)
	}()
	t.Cleanup(func() {
		p.end(syscall.SIGTERM)
		if t.Failed() {
			t.Logf("%s %s:\n%s", filepath.Base(name), strings.Join(args, " "), tail(p.log.String()))
		}
	})
	return p
}

// end sends a signal and waits for the end, which it forces when it does not come.
func (p *process) end(signal syscall.Signal) {
	_ = p.Process.Signal(signal)
	select {
	case <-p.done:
	case <-time.After(hang):
		_ = p.Process.Kill()
		<-p.done
	}
}

func tail(log string) string {
	const most = 12_000
	return log[max(0, len(log)-most):]
}

// router is a running api-router.
type router struct {
	*process
	public, admin, metrics string
	client                 *http.Client
}

const (
	adminToken    = "e2e-admin-token-0123456789"
	operatorToken = "e2e-operator-token-0123456789"
)

// serve starts a router with settings from the environment, as "policy.source=etcd", and waits for /healthz.
func serve(t *testing.T, settings ...string) *router {
	t.Helper()
	r := launch(t, "", settings...)
	r.healthy(t)
	return r
}

func (r *router) healthy(t *testing.T) {
	t.Helper()
	eventually(t, "the router listens", func() error { return r.get("/healthz") })
}

// launch starts a router and does not wait for it. resolvConf is as in startWith.
func launch(t *testing.T, resolvConf string, settings ...string) *router {
	t.Helper()
	return launchBy(t, nil, resolvConf, settings...)
}

// launchBy is launch with a program before the router's: one that puts itself somewhere and becomes what follows.
func launchBy(t *testing.T, before []string, resolvConf string, settings ...string) *router {
	t.Helper()
	r := &router{public: ports.Free(t), admin: ports.Free(t), metrics: ports.Free(t)}
	env := []string{
		"API_ROUTER_ENVIRONMENT=development", "API_ROUTER_IDENTITY_DEVELOPMENT_KEYS=true",
		"API_ROUTER_LISTEN_PUBLIC=" + r.public, "API_ROUTER_LISTEN_ADMIN=" + r.admin, "API_ROUTER_LISTEN_METRICS=" + r.metrics,
		"API_ROUTER_IDENTITY_ADMIN_TOKENS=ada:admin:env:ADA,olga:operator:env:OLGA", "ADA=" + adminToken, "OLGA=" + operatorToken,
		"API_ROUTER_SERVER_DRAIN_GRACE=0s", "API_ROUTER_SERVER_DRAIN_TIMEOUT=5s", "API_ROUTER_SERVER_EXPOSE_BACKEND=true",
		"API_ROUTER_POLICY_LAST_GOOD=",
	}
	for _, s := range settings {
		name, value, _ := strings.Cut(s, "=")
		if name != strings.ToUpper(name) {
			name = "API_ROUTER_" + strings.ToUpper(strings.ReplaceAll(name, ".", "_"))
		}
		env = append(env, name+"="+value)
	}
	line := append(slices.Clone(before), binary, "serve")
	r.process = startWith(t, resolvConf, line[0], env, line[1:]...)
	r.client = &http.Client{Timeout: hang, Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	t.Cleanup(r.client.CloseIdleConnections)
	return r
}

func (r *router) get(path string) error {
	request, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://"+r.public+path, http.NoBody)
	if err != nil {
		return err
	}
	response, err := r.client.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", path, response.Status)
	}
	return nil
}

// answer is what a client sees.
type answer struct {
	status  int
	backend string
	warning string
	body    string
}

// ask sends one chat request.
func (r *router) ask() (answer, error) {
	body := fmt.Sprintf(`{"model":%q,"messages":[{"role":"user","content":"Say hello."}],"max_tokens":8}`, model)
	request, err := http.NewRequestWithContext(context.Background(), http.MethodPost, "http://"+r.public+"/v1/chat/completions", strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	request.Header.Set("Authorization", "Bearer "+key)
	request.Header.Set("Content-Type", "application/json")
	response, err := r.client.Do(request)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	return answer{
		status: response.StatusCode, backend: response.Header.Get("X-Routing-Backend"),
		warning: response.Header.Get("X-Routing-Warning"), body: string(text),
	}, err
}

// served wants an answer of this backend; "" is any.
func (r *router) served(backend string) error {
	a, err := r.ask()
	switch {
	case err != nil:
		return err
	case a.status != http.StatusOK || backend != "" && a.backend != backend:
		return fmt.Errorf("got %d from %q, want 200 from %q: %s", a.status, a.backend, backend, a.body)
	}
	return nil
}

// refused wants an error with this status and code.
func (r *router) refused(status int, code string) error {
	a, err := r.ask()
	switch {
	case err != nil:
		return err
	case a.status != status || !strings.Contains(a.body, `"code":"`+code+`"`):
		return fmt.Errorf("got %d %s, want %d %s", a.status, a.body, status, code)
	}
	return nil
}

// eventually asks until there is no error, and returns how long that took.
func eventually(t *testing.T, what string, check func() error) time.Duration {
	t.Helper()
	return rig.Eventually(t, what, hang, check)
}

// within asserts a promise as a hang detector and prints what was measured.
func within(t *testing.T, what string, took, promised time.Duration) {
	t.Helper()
	t.Logf("%s: %s (promised %s)", what, took.Round(time.Millisecond), promised)
	if took > 10*promised {
		t.Errorf("%s took %s, more than ten times what is promised", what, took)
	}
}

// command runs the binary once, as a person would.
func command(t *testing.T, env []string, args ...string) (out string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), hang)
	defer cancel()
	c := exec.CommandContext(ctx, binary, args...)
	c.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}, env...)
	text, err := c.CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		err = fmt.Errorf("api-router %s: exit %d: %s", strings.Join(args, " "), exit.ExitCode(), text)
	}
	return string(text), err
}

// as is the environment of somebody who operates r with a token.
func (r *router) as(token string) []string {
	return []string{"API_ROUTER_ADMIN_URL=http://" + r.admin, "API_ROUTER_ADMIN_TOKEN=" + token}
}
