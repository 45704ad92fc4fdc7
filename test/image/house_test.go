package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ai-aas/api-router/internal/simengine"
	"github.com/ai-aas/api-router/test/rig"
)

const (
	root  = "../.."
	name  = "localhost/api-router:under-test"
	model = "gpt-oss-20b"
	key   = "test-vllm-key"
	// hang is the end of every wait for what takes a second or two.
	hang = 30 * time.Second

	memory      = 64 << 20
	largestSize = 20 << 20
)

// strict are the flags of podman run that the image has to live with. Of what podman mounts by itself nothing is left that could be written.
var strict = []string{
	"--read-only", "--read-only-tmpfs=false", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--memory=64m", "--user=65532", "--network=host",
}

// shop is where images are built and run: podman and buildah with storage, settings and state of their own.
type shop struct {
	once sync.Once
	dir  string
	env  []string
	err  error
}

var theShop shop

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "api-router-image-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	theShop.dir = dir
	defer theShop.close()
	return m.Run()
}

// open is the shop with the image in it, built by the first test that asks.
func open(t *testing.T) *shop {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("SKIPPED: only root can build and run the image here")
	}
	for _, program := range []string{"podman", "buildah"} {
		if _, err := exec.LookPath(program); err != nil {
			rig.Lacking(t, "there is no "+program+". On Debian or Ubuntu: sudo apt-get install podman buildah runc netavark")
		}
	}
	theShop.once.Do(func() { theShop.err = theShop.furnish(t) })
	if theShop.err != nil {
		t.Fatal(theShop.err)
	}
	return &theShop
}

// furnish finds settings under which a container runs here with everything that is asked of it. Some machines have runc alone, some crun, and
// crun refuses where both versions of control groups are mounted. Limits on files and processes are below those of whoever tests.
func (s *shop) furnish(t *testing.T) error {
	dir := s.dir
	storage, containers := filepath.Join(dir, "storage.conf"), filepath.Join(dir, "containers.conf")
	s.env = append(os.Environ(), "CONTAINERS_STORAGE_CONF="+storage, "CONTAINERS_CONF="+containers)
	if err := os.WriteFile(storage, fmt.Appendf(nil, "[storage]\ndriver = \"vfs\"\ngraphroot = %q\nrunroot = %q\n",
		filepath.Join(dir, "images"), filepath.Join(dir, "run")), 0o600); err != nil {
		return err
	}
	var failures []error
	for _, runtime := range []string{"crun", "runc"} {
		if _, err := exec.LookPath(runtime); err != nil {
			failures = append(failures, err)
			continue
		}
		if err := os.WriteFile(containers, fmt.Appendf(nil, `[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = %q
tmp_dir = %q
[network]
network_config_dir = %q
`, runtime, filepath.Join(dir, "tmp"), filepath.Join(dir, "networks")), 0o600); err != nil {
			return err
		}
		if len(s.built()) == 0 {
			begun := time.Now()
			if out, err := s.run(t, root+"/scripts/image", name); err != nil {
				return fmt.Errorf("build the image: %w: %s", err, out)
			}
			t.Logf("built in %s", time.Since(begun).Round(time.Millisecond))
		}
		out, err := s.podman(t, append(append([]string{"run", "--rm"}, strict...), name, "version")...)
		if err == nil {
			t.Logf("containers run by %s: %s", runtime, strings.TrimSpace(out))
			return nil
		}
		failures = append(failures, fmt.Errorf("%s: %w: %s", runtime, err, out))
	}
	return fmt.Errorf("no container runs here with %s: %w", strings.Join(strict, " "), errors.Join(failures...))
}

// built is the id of the image under test, "" before it is there.
func (s *shop) built() string {
	c := exec.CommandContext(context.Background(), "podman", "images", "--quiet", "--filter", "reference="+name)
	c.Env = s.env
	out, _ := c.Output() // Nothing there and nothing to ask are the same here.
	return strings.TrimSpace(string(out))
}

// run runs a program to its end and returns what it wrote.
func (s *shop) run(t *testing.T, program string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*hang)
	defer cancel()
	c := exec.CommandContext(ctx, program, args...)
	c.Env = append(s.env, "ENGINE=podman")
	out, err := c.CombinedOutput()
	return string(out), err
}

func (s *shop) podman(t *testing.T, args ...string) (string, error) {
	t.Helper()
	return s.run(t, "podman", args...)
}

func (s *shop) close() {
	if s.env != nil {
		c := exec.CommandContext(context.Background(), "podman", "rm", "--force", "--all")
		c.Env = s.env
		_, _ = c.CombinedOutput() // What is left of a test that failed.
	}
	_ = os.RemoveAll(s.dir)
}

// container is one that runs in the foreground of a podman.
type container struct {
	*shop
	id   string
	pid  int // of the router, on the machine
	log  *rig.Journal
	done chan struct{}
	err  error // of podman run; read after done
}

// start runs the image under the strict flags and those given, up to the first "--", and the command after it.
func (s *shop) start(t *testing.T, id string, args ...string) *container {
	t.Helper()
	flags, command := args, []string(nil)
	for i, a := range args {
		if a == "--" {
			flags, command = args[:i], args[i+1:]
			break
		}
	}
	all := append(append([]string{}, strict...), flags...)
	return s.launch(t, id, append(append(all, name), command...)...)
}

// launch is podman run, in the foreground until the test ends.
func (s *shop) launch(t *testing.T, id string, args ...string) *container {
	t.Helper()
	all := append([]string{"run", "--rm", "--name", id}, args...)
	c := &container{shop: s, id: id, log: &rig.Journal{}, done: make(chan struct{})}
	process := exec.CommandContext(context.Background(), "podman", all...)
	process.Env, process.Stdout, process.Stderr = s.env, c.log, c.log
	process.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		c.err = process.Wait()
		close(c.done)
	}()
	t.Cleanup(func() {
		_, _ = s.podman(t, "rm", "--force", "--time=1", id) // It may be gone already.
		select {
		case <-c.done:
		case <-time.After(hang):
			_ = process.Process.Kill()
			<-c.done
		}
		if t.Failed() {
			text := c.log.String()
			t.Logf("%s:\n%s", id, text[:min(len(text), 8_000)])
		}
	})
	eventually(t, id+" runs", func() error {
		out, err := s.podman(t, "inspect", "--format", "{{.State.Pid}}", id)
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return json.Unmarshal([]byte(out), &c.pid)
	})
	return c
}

// exec runs a command inside.
func (c *container) exec(t *testing.T, command ...string) (string, error) {
	t.Helper()
	return c.podman(t, append([]string{"exec", c.id}, command...)...)
}

// eventually asks until there is no error.
func eventually(t *testing.T, what string, check func() error) time.Duration {
	t.Helper()
	return rig.Eventually(t, what, hang, check)
}

// engine is the URL of a simulated vLLM on the loopback address.
func engine(t *testing.T, speed float64) string {
	t.Helper()
	if speed == 0 {
		speed = math.Inf(1)
	}
	server := httptest.NewServer(simengine.New(simengine.Config{Models: []simengine.Model{{ID: model}}, Speed: speed}).Handler())
	t.Cleanup(server.Close)
	return server.URL
}

// policies is a directory with documents that route the model to an engine. Everybody may read it, as user 65532 has to.
func policies(t *testing.T, url string) string {
	t.Helper()
	dir := t.TempDir()
	content := fmt.Sprintf("kind: Backend\nid: vllm\nurl: %s\n---\nkind: RoutingPolicy\nid: global\nmodel: %s\nbackends: [ { id: vllm } ]\n", url, model)
	if err := os.WriteFile(filepath.Join(dir, "policies.yaml"), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// development are flags that give a router its environment.
func development(public, metrics string) []string {
	return []string{
		"--env=API_ROUTER_ENVIRONMENT=development", "--env=API_ROUTER_IDENTITY_DEVELOPMENT_KEYS=true",
		"--env=API_ROUTER_LISTEN_PUBLIC=" + public, "--env=API_ROUTER_LISTEN_METRICS=" + metrics,
	}
}

func get(url string) (status int, body string, err error) {
	return send(http.MethodGet, url, http.NoBody)
}

// chat sends the first request of every page of the documentation.
func chat(address, fields string) (status int, body string, err error) {
	text := fmt.Sprintf(`{"model":%q,"messages":[{"role":"user","content":"Say hello."}]%s}`, model, fields)
	return send(http.MethodPost, "http://"+address+"/v1/chat/completions", strings.NewReader(text))
}

func send(method, url string, content io.Reader) (status int, body string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), hang)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, url, content)
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

// want is an error unless the answer has this status.
func want(wanted int) func(status int, body string, err error) error {
	return func(status int, body string, err error) error {
		if err == nil && status != wanted {
			err = fmt.Errorf("got %d, want %d: %s", status, wanted, body)
		}
		return err
	}
}
