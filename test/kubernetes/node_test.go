package kubernetes

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/ai-aas/api-router/test/rig"
)

// node runs pods as processes: each in a root directory that holds what its image and its volumes would hold and nothing else, as the user
// of its security context, with the arguments and variables of the rendered manifest, word for word. Names of Services lead to loopback.
//
// All of it is in a network of its own, so that ports are those of the manifest, too. What it does not have: limits of memory, seccomp,
// network policies, and several pods at one port.
type node struct {
	t       *testing.T
	all     objects
	secrets map[string]string // "name/key": those that are there
}

// hang is the end of every wait here.
const hang = time.Minute

// apart runs the rest of a test in a network of its own, which takes root. It reports whether this is the process that is inside.
func apart(t *testing.T) bool {
	t.Helper()
	const inside = "API_ROUTER_TEST_INSIDE"
	if os.Getenv(inside) == t.Name() {
		up(t)
		return true
	}
	if os.Getuid() != 0 {
		rig.Lacking(t, "only root can run processes as pods: in a network and a root directory of their own")
	}
	c := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.count=1")
	c.Env = append(os.Environ(), inside+"="+t.Name())
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	out, err := c.CombinedOutput()
	switch {
	case err != nil && len(out) == 0:
		rig.Lacking(t, fmt.Sprintf("no process can have a network of its own here: %v", err))
	case err != nil:
		t.Errorf("%v:\n%s", err, out)
	default:
		t.Logf("%s", out)
	}
	return false
}

// up switches the loopback device on.
func up(t *testing.T) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	request, err := unix.NewIfreq("lo")
	if err != nil {
		t.Fatal(err)
	}
	request.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request); err != nil {
		t.Fatal(err)
	}
}

// container is a running one.
type container struct {
	*exec.Cmd
	image string // its root directory
	log   *rig.Journal
	done  chan struct{}
}

// pod is the one of a component.
func (n node) pod(component string) pod {
	n.t.Helper()
	for _, p := range pods(n.all) {
		if p.labels["app.kubernetes.io/component"] == component {
			return p
		}
	}
	n.t.Fatalf("there is no %s", component)
	return pod{}
}

// start runs a component's pod, whose image is one static program.
func (n node) start(component, program string) *container {
	n.t.Helper()
	p := n.pod(component)
	spec := p.spec.Containers[0]
	image := n.t.TempDir()
	if err := os.Chmod(image, 0o755); err != nil {
		n.t.Fatal(err)
	}
	entry := "/" + filepath.Base(program)
	n.copy(program, filepath.Join(image, entry))
	n.write(filepath.Join(image, "etc/hosts"), n.hosts(p.GetNamespace()))
	for _, m := range spec.VolumeMounts {
		n.mount(p, m, filepath.Join(image, m.MountPath))
	}
	if len(spec.Command) > 0 && "/"+spec.Command[0] != entry {
		n.t.Fatalf("%s: its command is %v, not %s", p, spec.Command, entry)
	}
	c := &container{Cmd: exec.Command(entry, spec.Args...), image: image, log: &rig.Journal{}, done: make(chan struct{})}
	user := uint32(*p.spec.SecurityContext.RunAsUser)
	c.Dir, c.Env = "/", n.environment(p)
	c.SysProcAttr = &syscall.SysProcAttr{Chroot: image, Credential: &syscall.Credential{Uid: user, Gid: user}, Pdeathsig: syscall.SIGKILL}
	n.run(component, c)
	return c
}

func (n node) run(name string, c *container) {
	n.t.Helper()
	c.Stdout, c.Stderr = c.log, c.log
	if err := c.Start(); err != nil {
		n.t.Fatalf("%s: %v", name, err)
	}
	go func() {
		_ = c.Wait() // How it ended is asked for where it matters.
		close(c.done)
	}()
	n.t.Cleanup(func() {
		_ = c.Process.Kill()
		<-c.done
		if n.t.Failed() {
			log := c.log.String()
			n.t.Logf("%s:\n%s", name, log[max(0, len(log)-6000):])
		}
	})
}

// ends waits for the end and returns the exit code.
func (c *container) ends(t *testing.T, within time.Duration) int {
	t.Helper()
	select {
	case <-c.done:
	case <-time.After(within):
		t.Fatalf("it has not ended after %s", within)
	}
	return c.ProcessState.ExitCode()
}

// hosts is what the cluster's DNS says to a namespace.
func (n node) hosts(namespace string) string {
	var text strings.Builder
	text.WriteString("127.0.0.1 localhost\n")
	for _, s := range each[*corev1.Service](n.all) {
		names := fmt.Sprintf("%[1]s.%[2]s %[1]s.%[2]s.svc %[1]s.%[2]s.svc.cluster.local", s.Name, s.Namespace)
		if s.Namespace == namespace {
			names += " " + s.Name
		}
		fmt.Fprintf(&text, "127.0.0.1 %s\n", names)
	}
	return text.String()
}

// environment is that of the pod's container and nothing else.
func (n node) environment(p pod) []string {
	n.t.Helper()
	fields := map[string]string{"metadata.name": "pod-0", "metadata.namespace": p.GetNamespace(), "spec.nodeName": "node-0"}
	var env, pairs []string
	for _, e := range p.spec.Containers[0].Env {
		value := e.Value
		if e.ValueFrom != nil {
			value = fields[e.ValueFrom.FieldRef.FieldPath]
		}
		value = strings.NewReplacer(pairs...).Replace(value)
		pairs = append(pairs, "$("+e.Name+")", value)
		env = append(env, e.Name+"="+value)
	}
	return env
}

// mount lays a volume out as the kubelet does.
func (n node) mount(p pod, m corev1.VolumeMount, at string) {
	n.t.Helper()
	for _, v := range p.spec.Volumes {
		switch {
		case v.Name != m.Name:
		case v.ConfigMap != nil:
			for name, content := range get[*corev1.ConfigMap](n.t, n.all, v.ConfigMap.Name).Data {
				n.write(filepath.Join(at, "..2026_01_01", name), content)
				if err := os.Symlink(filepath.Join("..data", name), filepath.Join(at, name)); err != nil {
					n.t.Fatal(err)
				}
			}
			if err := os.Symlink("..2026_01_01", filepath.Join(at, "..data")); err != nil {
				n.t.Fatal(err)
			}
		case v.Projected != nil:
			if err := os.MkdirAll(at, 0o755); err != nil {
				n.t.Fatal(err)
			}
			for _, source := range v.Projected.Sources {
				for _, item := range source.Secret.Items {
					if value, ok := n.secrets[source.Secret.Name+"/"+item.Key]; ok {
						n.write(filepath.Join(at, item.Path), value)
					}
				}
			}
		case v.EmptyDir != nil:
			if err := os.MkdirAll(at, 0o755); err != nil {
				n.t.Fatal(err)
			}
			if err := os.Chown(at, int(*p.spec.SecurityContext.RunAsUser), int(*p.spec.SecurityContext.FSGroup)); err != nil {
				n.t.Fatal(err)
			}
		default:
			n.t.Fatalf("%s: the volume %s is of a kind that this node does not have", p, v.Name)
		}
	}
}

func (n node) write(path, content string) {
	n.t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		n.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		n.t.Fatal(err)
	}
}

func (n node) copy(from, to string) {
	n.t.Helper()
	content, err := os.ReadFile(from)
	if err != nil {
		n.t.Fatal(err)
	}
	if err := os.WriteFile(to, content, 0o755); err != nil {
		n.t.Fatal(err)
	}
}
