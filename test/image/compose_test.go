package image

import (
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/ai-aas/api-router/test/rig"
)

// service is what this test needs to know of one in compose.yaml; test/compose checks the whole.
type service struct {
	Image       string
	Command     []string
	Environment map[string]string
	Volumes     []string
	ReadOnly    bool     `yaml:"read_only"`
	CapDrop     []string `yaml:"cap_drop"`
	SecurityOpt []string `yaml:"security_opt"`
	MemLimit    string   `yaml:"mem_limit"`
	HealthCheck struct {
		Test    []string
		Disable bool
	} `yaml:"healthcheck"`
}

// project is compose.yaml on a network of its own, where every service has an address.
type project struct {
	*shop
	services  map[string]service
	addresses map[string]string
}

const network = "api-router-compose"

func openProject(t *testing.T) *project {
	t.Helper()
	p := &project{shop: open(t), addresses: map[string]string{}}
	content, err := os.ReadFile(filepath.Join(root, "compose.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Services map[string]service }
	if err := yaml.Unmarshal(content, &file); err != nil {
		t.Fatal(err)
	}
	p.services = file.Services
	for i, name := range slices.Sorted(maps.Keys(p.services)) {
		p.addresses[name] = fmt.Sprintf("10.213.57.%d", 10+i)
	}
	if out, err := p.podman(t, "network", "create", "--subnet=10.213.57.0/24", network); err != nil {
		rig.Lacking(t, "podman can make no network here: "+out)
	}
	t.Cleanup(func() { _, _ = p.podman(t, "network", "rm", "--force", network) })
	return p
}

// up starts one service as compose.yaml has it.
func (p *project) up(t *testing.T, name, image string) *container {
	t.Helper()
	s, ok := p.services[name]
	if !ok {
		t.Fatalf("compose.yaml has no service %s", name)
	}
	args := []string{"--network=" + network + ":ip=" + p.addresses[name]}
	for other, address := range p.addresses {
		args = append(args, "--add-host="+other+":"+address)
	}
	for key, value := range s.Environment {
		args = append(args, "--env="+key+"="+value)
	}
	for _, v := range s.Volumes {
		if strings.HasPrefix(v, ".") {
			abs, err := filepath.Abs(root)
			if err != nil {
				t.Fatal(err)
			}
			v = filepath.Join(abs, v)
		}
		args = append(args, "--volume="+v)
	}
	for _, c := range s.CapDrop {
		args = append(args, "--cap-drop="+c)
	}
	for _, o := range s.SecurityOpt {
		args = append(args, "--security-opt="+strings.TrimSuffix(o, ":true"))
	}
	if s.MemLimit != "" {
		args = append(args, "--memory="+s.MemLimit)
	}
	args = append(args, fmt.Sprintf("--read-only=%v", s.ReadOnly), "--read-only-tmpfs=false")
	return p.launch(t, name, append(append(args, image), s.Command...)...)
}

// healthy asks a service's own health check.
func (p *project) healthy(t *testing.T, c *container) {
	t.Helper()
	test := p.services[c.id].HealthCheck.Test
	if len(test) < 2 || test[0] != "CMD" {
		t.Fatalf("%s: its health check is %v", c.id, test)
	}
	took := eventually(t, c.id+" is healthy", func() error {
		out, err := c.exec(t, test[1:]...)
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	t.Logf("%s is healthy after %s", c.id, took.Round(1e6))
}

// pack makes an image from static programs that are built here, in place of a published one.
func (p *project) pack(t *testing.T, image, directory string, programs ...string) {
	t.Helper()
	dir := t.TempDir()
	file := "FROM scratch\n"
	for _, name := range programs {
		content, err := os.ReadFile(filepath.Join(root, ".tools/bin", name)) // Built here, and static. The machine's own may not be.
		if err != nil {
			rig.Lacking(t, "there is no .tools/bin/"+name+": scripts/prepare "+name+" builds it")
		}
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o755); err != nil {
			t.Fatal(err)
		}
		file += "COPY " + name + " " + directory + "/\n"
	}
	if err := os.WriteFile(filepath.Join(dir, "Containerfile"), []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := p.podman(t, "build", "-t", image, dir); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// TestTheRoutersOfComposeServeAlthoughAllTheyNeedStartsAfterThem runs the services of compose.yaml that can be built here, in the worst order: the
// routers before all that they need. Redis, PostgreSQL, Prometheus, Grafana and the collector are published images, and away: nothing asks for them.
func TestTheRoutersOfComposeServeAlthoughAllTheyNeedStartsAfterThem(t *testing.T) {
	p := openProject(t)
	const etcd = "localhost/etcd:under-test"
	p.pack(t, etcd, "/usr/local/bin", "etcd", "etcdctl")
	for _, volume := range []string{"router-1", "router-2", "etcd"} {
		t.Cleanup(func() { _, _ = p.podman(t, "volume", "rm", "--force", volume) })
	}
	routers := []*container{p.up(t, "router-1", name), p.up(t, "router-2", name)}
	for _, c := range routers {
		eventually(t, c.id+" lives, alone", func() error { return want(http.StatusOK)(get("http://" + p.addresses[c.id] + ":8080/healthz")) })
		if err := want(http.StatusServiceUnavailable)(get("http://" + p.addresses[c.id] + ":8080/readyz")); err != nil {
			t.Errorf("%s, alone: %v", c.id, err)
		}
	}
	p.up(t, "vllm-1", name)
	p.up(t, "vllm-2", name)
	store := p.up(t, "etcd", etcd)
	p.healthy(t, store)
	seed := p.up(t, "seed", name)
	<-seed.done
	if seed.err != nil {
		t.Fatalf("seed: %v", seed.err)
	}
	for _, c := range routers {
		p.healthy(t, c)
		eventually(t, c.id+" answers the curl", func() error { return want(http.StatusOK)(chat(p.addresses[c.id]+":8080", "")) })
		if status, _, err := get("http://" + p.addresses[c.id] + ":9464/metrics"); err != nil || status != http.StatusOK {
			t.Errorf("%s: metrics: %d, %v", c.id, status, err)
		}
	}
	out, err := routers[0].exec(t, "/api-router", "get", "policies", "--token", "env:ADMIN_TOKEN")
	if err != nil || !strings.Contains(out, "global-gpt-oss-20b") {
		t.Errorf("the command of the head of compose.yaml: %v: %s", err, out)
	}
	out, err = routers[0].exec(t, "/api-router", "backend", "drain", "vllm-1", "--reason", "a try", "--token", "env:ADMIN_TOKEN")
	if err != nil {
		t.Errorf("the command of the head of compose.yaml: %v: %s", err, out)
	}
	if out, err := p.podman(t, "rm", "--force", "--time=5", store.id); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, c := range routers {
		if err := want(http.StatusOK)(chat(p.addresses[c.id]+":8080", "")); err != nil {
			t.Errorf("%s, without etcd: %v", c.id, err)
		}
	}
}
