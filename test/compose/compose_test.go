// Package compose holds compose.yaml to the Compose specification, in a module of its own: the router does not carry its loader. It checks
// also what no schema knows: that what is mounted is there, that each program takes its configuration, and that no port is open to others.
package compose

import (
	"errors"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"

	"github.com/ai-aas/api-router/test/rig"
)

const root = "../.."

// ours are the services that run the router's own image; the other ones run published images.
var ours = []string{"router-1", "router-2", "seed", "vllm-1", "vllm-2"}

// binary is the router, built once for all tests.
var binary string

func TestMain(m *testing.M) { os.Exit(rig.Main(m, &binary)) }

// load reads the project as docker compose does: checked against the schema, interpolated, normalized and consistent. No variable is set.
func load(t *testing.T) *types.Project {
	t.Helper()
	options, err := cli.NewProjectOptions([]string{filepath.Join(root, "compose.yaml")}, cli.WithResolvedPaths(true), cli.WithNormalization(true), cli.WithConsistency(true))
	if err != nil {
		t.Fatal(err)
	}
	p, err := options.LoadProject(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestTheProjectHasItsPartsAndFollowsTheSpecification(t *testing.T) {
	p := load(t)
	if p.Name != "api-router" {
		t.Errorf("the project is called %q", p.Name)
	}
	want := slices.Sorted(slices.Values(append([]string{"etcd", "redis", "postgres", "otel-collector", "prometheus", "grafana"}, ours...)))
	if got := slices.Sorted(maps.Keys(p.Services)); !slices.Equal(got, want) {
		t.Errorf("the services are %v, want %v", got, want)
	}
	if len(p.DisabledServices) > 0 {
		t.Errorf("without a profile these do not start: %v", p.DisabledServices)
	}
}

func TestOursAreBuiltFromThisTreeAndOthersArePinned(t *testing.T) {
	p := load(t)
	pinned := regexp.MustCompile(`^[a-z.]+/[a-z/-]+:v?\d+\.\d+(\.\d+)?(-alpine)?$`)
	for name, s := range p.Services {
		if !slices.Contains(ours, name) {
			if s.Build != nil || !pinned.MatchString(s.Image) {
				t.Errorf("%s: %q is not a released version in a registry that is named", name, s.Image)
			}
			continue
		}
		if s.Build == nil {
			t.Errorf("%s is not built from source", name)
			continue
		}
		file := filepath.Join(s.Build.Context, s.Build.Dockerfile)
		if filepath.IsAbs(s.Build.Dockerfile) {
			file = s.Build.Dockerfile
		}
		if rel, err := filepath.Rel(absolute(t, root), file); err != nil || rel != filepath.Join("deploy", "image", "Containerfile") {
			t.Errorf("%s is built by %s", name, file)
		}
		if _, err := os.Stat(file); err != nil {
			t.Error(err)
		}
		if s.PullPolicy != types.PullPolicyBuild {
			t.Errorf("%s: pull_policy is %q: an image of an older tree would be taken", name, s.PullPolicy)
		}
		if !s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"}) || !slices.Contains(s.SecurityOpt, "no-new-privileges:true") || s.Privileged || s.User != "" {
			t.Errorf("%s has rights that the image does not need", name)
		}
	}
}

func TestNoPortIsOpenToOtherMachinesAndNoneIsTakenTwice(t *testing.T) {
	taken := map[string]string{}
	for name, s := range load(t).Services {
		if s.NetworkMode != "" && s.NetworkMode != "default" {
			t.Errorf("%s has network_mode %s", name, s.NetworkMode)
		}
		for _, port := range s.Ports {
			if ip, err := netip.ParseAddr(port.HostIP); err != nil || !ip.IsLoopback() {
				t.Errorf("%s: port %s is published at %q, not at the loopback address", name, port.Published, port.HostIP)
			}
			if other, ok := taken[port.Published]; ok {
				t.Errorf("port %s is of %s and of %s", port.Published, name, other)
			}
			taken[port.Published] = name
		}
	}
	for _, port := range []string{"8080", "8081", "8082", "8083", "9464", "9465", "9090", "3000"} {
		if taken[port] == "" {
			t.Errorf("nobody has port %s, which the head of the file names", port)
		}
	}
}

func TestNobodyButSeedWaitsAndEveryHealthThatIsWaitedForIsAsked(t *testing.T) {
	p := load(t)
	for name, s := range p.Services {
		if len(s.DependsOn) > 0 && name != "seed" {
			t.Errorf("%s waits for %v: everything but seed starts whatever is dead", name, slices.Sorted(maps.Keys(s.DependsOn)))
		}
		for other, d := range s.DependsOn {
			if check := p.Services[other].HealthCheck; d.Condition == types.ServiceConditionHealthy && (check == nil || check.Disable || len(check.Test) == 0) {
				t.Errorf("%s waits until %s is healthy, and nobody asks", name, other)
			}
		}
		switch restart := s.Restart; {
		case name == "seed" && restart != types.RestartPolicyOnFailure, name != "seed" && restart != types.RestartPolicyUnlessStopped:
			t.Errorf("%s: restart is %q", name, restart)
		}
	}
}

func TestWhatIsMountedIsThereAndReadOnly(t *testing.T) {
	p := load(t)
	used := map[string]bool{}
	for name, s := range p.Services {
		for _, v := range s.Volumes {
			switch v.Type {
			case types.VolumeTypeBind:
				if _, err := os.Stat(v.Source); err != nil {
					t.Errorf("%s mounts what is not there: %v", name, err)
				}
				if !v.ReadOnly {
					t.Errorf("%s could change %s", name, v.Source)
				}
			case types.VolumeTypeVolume:
				if used[v.Source] {
					t.Errorf("%s shares the volume %s", name, v.Source)
				}
				used[v.Source] = true
			default:
				t.Errorf("%s has a mount of type %s", name, v.Type)
			}
		}
	}
	for name := range p.Volumes {
		if !used[name] {
			t.Errorf("nobody uses the volume %s", name)
		}
	}
}

func TestNoSecretIsNeeded(t *testing.T) {
	p := load(t)
	if len(p.Secrets) > 0 {
		t.Errorf("secrets: %v", slices.Sorted(maps.Keys(p.Secrets)))
	}
	text, err := os.ReadFile(filepath.Join(root, "compose.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if found := regexp.MustCompile(`\$\{?\w+`).FindAll(text, -1); len(found) > 0 {
		t.Errorf("it takes %s from the environment", found)
	}
	for name, s := range p.Services {
		for key, value := range s.Environment {
			if value == nil || len(s.EnvFiles) > 0 {
				t.Errorf("%s takes %s from whoever starts it", name, key)
			}
		}
	}
}

// inside lays the files of a service out in a directory as they are in its container, and says where a path of the container is.
func inside(t *testing.T, s types.ServiceConfig) func(path string) string {
	t.Helper()
	dir := t.TempDir()
	at := func(path string) string { return filepath.Join(dir, path) }
	for _, v := range s.Volumes {
		if v.Type != types.VolumeTypeBind {
			continue
		}
		err := filepath.WalkDir(v.Source, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			rel, err := filepath.Rel(v.Source, path)
			if err != nil {
				return err
			}
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			target := at(filepath.Join(v.Target, rel))
			return errors.Join(os.MkdirAll(filepath.Dir(target), 0o755), os.WriteFile(target, content, 0o600))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return at
}

func environment(s types.ServiceConfig) []string {
	env := []string{"PATH=" + os.Getenv("PATH")}
	for key, value := range s.Environment {
		if value != nil {
			env = append(env, key+"="+*value)
		}
	}
	return env
}

func TestTheRouterTakesItsConfigurationAndItsDocuments(t *testing.T) {
	p := load(t)
	for _, name := range []string{"router-1", "router-2", "seed"} {
		s := p.Services[name]
		at := inside(t, s)
		args := []string{"check"}
		for i, a := range s.Command {
			if (a == "--config" || a == "-f") && i+1 < len(s.Command) {
				args = append(args, a, at(s.Command[i+1]))
			}
		}
		if name != "seed" {
			args = append(args, "-f", filepath.Join(root, "deploy/compose/documents.yaml"))
		}
		check := exec.CommandContext(t.Context(), binary, args...)
		check.Env = environment(s)
		out, err := check.CombinedOutput()
		if err != nil || strings.Contains(string(out), "note:") || !strings.Contains(string(out), "2 backends and 1 policy are good, 0 problems") {
			t.Errorf("%s: %v: %s", name, err, out)
		}
	}
	// Where the admin token comes from, the documents' backends and etcd's address are names of this project.
	for file, names := range map[string][]string{
		"deploy/compose/router.yaml":               {"etcd:2379"},
		"deploy/compose/documents.yaml":            {"http://vllm-1:8000", "http://vllm-2:8000"},
		"deploy/compose/prometheus.yaml":           {"router-1:9464", "router-2:9464"},
		"deploy/compose/grafana/datasources.yaml":  {"http://prometheus:9090"},
		"compose.yaml":                             {"http://otel-collector:4317"},
		"deploy/compose/grafana/dashboards.yaml":   nil,
		"deploy/alerts/api-router.rules.yaml":      nil,
		"deploy/grafana/api-router-overview.json":  nil,
		"deploy/grafana/api-router-backends.json":  nil,
		"deploy/grafana/api-router-internals.json": nil,
	} {
		content, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			t.Error(err)
		}
		for _, name := range names {
			service, _, _ := strings.Cut(strings.TrimPrefix(name, "http://"), ":")
			if _, ok := p.Services[service]; !ok || !strings.Contains(string(content), name) {
				t.Errorf("%s does not name %s, or there is no such service", file, name)
			}
		}
	}
}

func TestEveryCommandOfOursIsOne(t *testing.T) {
	for _, name := range ours {
		s := load(t).Services[name]
		lines := [][]string{s.Command}
		if s.HealthCheck != nil && !s.HealthCheck.Disable {
			if !slices.Equal(s.HealthCheck.Test[:2], []string{"CMD", "/api-router"}) {
				t.Errorf("%s: its health check %v is not the image's binary", name, s.HealthCheck.Test)
				continue
			}
			lines = append(lines, s.HealthCheck.Test[2:])
		}
		for _, line := range lines {
			// --help after all flags: cobra parses what stands before it, and runs nothing.
			out, err := exec.CommandContext(t.Context(), binary, append(slices.Clone(line), "--help")...).CombinedOutput()
			if err != nil || !strings.Contains(string(out), "api-router "+line[0]) {
				t.Errorf("%s: %v: %v: %s", name, line, err, out)
			}
		}
	}
}

func TestPrometheusTakesItsConfiguration(t *testing.T) {
	promtool := rig.Tool(t, "promtool")
	s := load(t).Services["prometheus"]
	at := inside(t, s)
	config := flag(t, s, "--config.file=")
	out, err := exec.CommandContext(t.Context(), promtool, "check", "config", at(config)).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "1 rule files found") {
		t.Errorf("%v: %s", err, out)
	}
}

func TestTheCollectorTakesItsConfiguration(t *testing.T) {
	otelcol := rig.Tool(t, "otelcol")
	s := load(t).Services["otel-collector"]
	at := inside(t, s)
	validate := exec.CommandContext(t.Context(), otelcol, "validate", "--config", at(flag(t, s, "--config=")))
	validate.Env = environment(s)
	if out, err := validate.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	out, err := exec.CommandContext(t.Context(), otelcol, "--version").Output()
	if _, tag, _ := strings.Cut(s.Image, ":"); err != nil || !strings.Contains(string(out), tag) {
		t.Errorf("%v: the configuration was proved with %s, and the image is %s", err, out, s.Image)
	}
}

func TestGrafanaFindsItsDataSourceAndItsDashboards(t *testing.T) {
	s := load(t).Services["grafana"]
	at := inside(t, s)
	provider, err := os.ReadFile(at("/etc/grafana/provisioning/dashboards/api-router.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	path := regexp.MustCompile(`path: (\S+)`).FindSubmatch(provider)
	if path == nil {
		t.Fatalf("no path in %s", provider)
	}
	found, err := filepath.Glob(at(filepath.Join(string(path[1]), "*.json")))
	if err != nil || len(found) != 3 {
		t.Errorf("%v: the provider finds %v", err, found)
	}
	if home := s.Environment["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]; home == nil || !slices.Contains(found, at(*home)) {
		t.Errorf("the home dashboard is not among %v", found)
	}
	if _, err := os.Stat(at("/etc/grafana/provisioning/datasources/api-router.yaml")); err != nil {
		t.Error(err)
	}
}

// flag is the value of a flag in a service's command.
func flag(t *testing.T, s types.ServiceConfig, prefix string) string {
	t.Helper()
	for _, a := range s.Command {
		if value, ok := strings.CutPrefix(a, prefix); ok {
			return value
		}
	}
	t.Fatalf("%s has no %s in %v", s.Name, prefix, s.Command)
	return ""
}

func absolute(t *testing.T, path string) string {
	t.Helper()
	abs, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return abs
}
