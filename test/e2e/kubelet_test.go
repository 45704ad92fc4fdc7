package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/ai-aas/api-router/test/rig"
)

// probe is a kubelet's question, with the numbers of the chart.
type probe struct {
	HTTPGet          struct{ Path, Port string } `yaml:"httpGet"`
	PeriodSeconds    int                         `yaml:"periodSeconds"`
	TimeoutSeconds   int                         `yaml:"timeoutSeconds"`
	FailureThreshold int                         `yaml:"failureThreshold"`
}

func (p probe) period() time.Duration { return time.Duration(p.PeriodSeconds) * time.Second }

// kubelet restarts what its probes find dead, and keeps traffic from what they find not ready.
type kubelet struct {
	Startup    probe `yaml:"startupProbe"`
	Liveness   probe `yaml:"livenessProbe"`
	Readiness  probe `yaml:"readinessProbe"`
	endsWithin time.Duration
}

// fromChart reads the probes and the time to end from the Deployment that Helm renders.
func fromChart(t *testing.T) kubelet {
	t.Helper()
	c := exec.CommandContext(t.Context(), rig.Tool(t, "helm"), "template", "r", "../../deploy/helm/api-router", "--kube-version", "1.37.0", "--show-only", "templates/deployment.yaml")
	var complaint bytes.Buffer
	c.Stderr = &complaint
	out, err := c.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, &complaint)
	}
	var deployment struct {
		Spec struct {
			Template struct {
				Spec struct {
					TerminationGracePeriodSeconds int `yaml:"terminationGracePeriodSeconds"`
					Containers                    []kubelet
				}
			}
		}
	}
	if err := yaml.Unmarshal(out, &deployment); err != nil {
		t.Fatal(err)
	}
	pod := deployment.Spec.Template.Spec
	k := pod.Containers[0]
	k.endsWithin = time.Duration(pod.TerminationGracePeriodSeconds) * time.Second
	for name, p := range map[string]probe{"startup": k.Startup, "liveness": k.Liveness, "readiness": k.Readiness} {
		if p.PeriodSeconds == 0 || p.TimeoutSeconds == 0 || p.FailureThreshold == 0 || p.HTTPGet.Port != "http" {
			t.Fatalf("the chart's %s probe is %+v", name, p)
		}
	}
	return k
}

// ward is a container in a kubelet's care, and what has become of it.
type ward struct {
	name     string
	router   *router
	asks     *http.Client
	restarts []string // why
	started  time.Duration
	ready    atomic.Bool
	asked    atomic.Int64 // for readiness
	good     bool         // it has last good policies
	limit    string       // what holds it to the memory
	changes  []string     // of readiness, with their times
}

// ask is one probe, over a connection of its own, as the kubelet has it.
func (w *ward) ask(p probe) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(p.TimeoutSeconds)*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+w.router.public+p.HTTPGet.Path, http.NoBody)
	if err != nil {
		return err
	}
	request.Header.Set("User-Agent", "kube-probe/1.37")
	response, err := w.asks.Do(request)
	if err != nil {
		return err
	}
	_ = response.Body.Close()
	if response.StatusCode < http.StatusOK || response.StatusCode >= http.StatusBadRequest {
		return fmt.Errorf("%s: %s", p.HTTPGet.Path, response.Status)
	}
	return nil
}

// care probes until the time is over, or the container is to be restarted: startup alone at first, then liveness and readiness.
func (k kubelet) care(w *ward, until <-chan struct{}) {
	if !w.bear(k.Startup, "startup", true, until) {
		return
	}
	w.started = time.Since(w.router.begun)
	over := make(chan struct{})
	var readiness sync.WaitGroup
	readiness.Go(func() { k.watch(w, over) })
	w.bear(k.Liveness, "liveness", false, until)
	close(over)
	readiness.Wait()
}

// bear asks again and again, until the time is over, the first success if that is enough, or as many failures in a row as restart the
// container. It reports whether there was a success that was enough.
func (w *ward) bear(p probe, what string, once bool, until <-chan struct{}) bool {
	for failures := 0; ; {
		err := w.ask(p)
		switch {
		case err == nil && once:
			return true
		case err == nil:
			failures = 0
		default:
			failures++
		}
		if failures >= p.FailureThreshold {
			w.restarts = append(w.restarts, fmt.Sprintf("%s failed %d times: %v", what, failures, err))
			return false
		}
		select {
		case <-until:
			return false
		case <-w.router.done:
			w.restarts = append(w.restarts, "it has ended: "+w.router.ProcessState.String())
			return false
		case <-time.After(p.period()):
		}
	}
}

// watch keeps whether the container is ready: no after as many failures as the chart allows, yes after one success.
func (k kubelet) watch(w *ward, stop <-chan struct{}) {
	in := 0
	for {
		err := w.ask(k.Readiness)
		if err == nil {
			in = 0
		} else {
			in++
		}
		if is := err == nil; is != w.ready.Load() && (is || in >= k.Readiness.FailureThreshold) {
			w.ready.Store(is)
			w.changes = append(w.changes, fmt.Sprintf("%v after %s", is, time.Since(w.router.begun).Round(time.Millisecond)))
		}
		w.asked.Add(1)
		select {
		case <-stop:
			return
		case <-time.After(k.Readiness.period()):
		}
	}
}

// imageLimit is the memory that the image promises to live in.
const imageLimit = 64 << 20

// confined is what makes a program part of a memory cgroup of its own, with the limit of the image: the kernel kills what goes beyond it.
// Where no cgroup can be made there is none, and a setting that lets Go keep to the limit stands for it.
func confined(t *testing.T) (before, settings []string) {
	t.Helper()
	for at, limit := range map[string]string{"/sys/fs/cgroup/memory": "memory.limit_in_bytes", "/sys/fs/cgroup": "memory.max"} {
		group, err := os.MkdirTemp(at, "api-router-e2e-") //nolint:usetesting // A cgroup is made where cgroups are.
		if err != nil {
			continue
		}
		t.Cleanup(func() { _ = os.Remove(group) }) // After its process has ended.
		if os.WriteFile(filepath.Join(group, limit), []byte(strconv.Itoa(imageLimit)), 0o600) == nil {
			return []string{"/bin/sh", "-c", `echo $$ >"$0/cgroup.procs" && exec "$@"`, group}, nil
		}
	}
	return nil, []string{"GOMEMLIMIT=" + strconv.Itoa(imageLimit*9/10)}
}

// peak is the most memory that a process ever had resident, in bytes.
func (p *process) peak(t *testing.T) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	kib, err := strconv.ParseInt(strings.Fields(rest + " x")[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kib << 10
}

// admit starts a router under the limits of the image and puts it into a kubelet's care. lastGood is the file that it finds, "" for none.
func admit(t *testing.T, name, resolvConf, lastGood string, settings ...string) *ward {
	t.Helper()
	own := filepath.Join(t.TempDir(), "policy.json")
	if lastGood != "" {
		content, err := os.ReadFile(lastGood)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(own, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	before, limits := confined(t)
	r := launchBy(t, before, resolvConf, append(append(settings, limits...), "policy.last_good="+own)...)
	w := &ward{name: name, router: r, good: lastGood != "", limit: "GOMEMLIMIT", asks: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}}
	if before != nil {
		w.limit = "a cgroup"
	}
	return w
}

// judge holds a ward to what its kubelet has seen.
func (w *ward) judge(t *testing.T) {
	t.Helper()
	if len(w.restarts) > 0 {
		t.Errorf("%s: the kubelet restarts it: %s", w.name, strings.Join(w.restarts, "; "))
		return
	}
	peak := w.router.peak(t)
	t.Logf("%s: started after %s, asked %d times for readiness, %v; at most %d of %d MiB resident, limited by %s",
		w.name, w.started.Round(time.Millisecond), w.asked.Load(), w.changes, peak>>20, imageLimit>>20, w.limit)
	if peak > imageLimit {
		t.Errorf("%s: it needs %d MiB", w.name, peak>>20)
	}
	if w.good {
		if err := w.router.served("north"); err != nil {
			t.Errorf("%s: it is ready, and %v", w.name, err)
		}
	}
}

// remove ends wards as pods that are deleted: each has the chart's time for it.
func (k kubelet) remove(t *testing.T, wards ...*ward) {
	t.Helper()
	over := time.After(k.endsWithin)
	for _, w := range wards {
		_ = w.router.Process.Signal(syscall.SIGTERM) // One that has ended is found below.
	}
	for _, w := range wards {
		select {
		case <-w.router.done:
		case <-over:
			t.Fatalf("%s: the kubelet kills it %s after SIGTERM", w.name, k.endsWithin)
		}
		if code := w.router.ProcessState.ExitCode(); code != 0 {
			t.Errorf("%s: it ended with %d", w.name, code)
		}
	}
}

// patience is how long a kubelet waits before it restarts what does not answer.
func (k kubelet) patience() time.Duration {
	return max(time.Duration(k.Liveness.FailureThreshold)*k.Liveness.period(), time.Duration(k.Startup.FailureThreshold)*k.Startup.period())
}

// possible reports whether a death can be had here: some take root, and one also iptables.
func possible(t *testing.T, way string) bool {
	t.Helper()
	if way == "SYN dropped" {
		_, err := os.Stat("/usr/sbin/iptables")
		return os.Getuid() == 0 && err == nil
	}
	return deaths[way].resolver == nil || os.Getuid() == 0
}

// The crash loop that the earlier service lived in: all that a router depends on is dead, in one of seven ways, and the kubelet asks with the
// chart's own numbers, in real time, and for longer than it takes to restart what is silent. With last good policies the router is ready and
// serves; without, it is not ready, and lives.
func TestAKubeletNeverRestartsARouterWhoseDependenciesAreDead(t *testing.T) {
	k := fromChart(t)
	stocked := stock(t, engine(t))
	var wards []*ward
	for _, way := range ways {
		if !possible(t, way) {
			t.Logf("SKIPPED: %s takes root and iptables", way)
			continue
		}
		for _, good := range []string{stocked.lastGood, ""} {
			settings := append(onEtcd.use(deaths[way].at(t)), onGRPC.use(deaths[way].at(t))...)
			wards = append(wards, admit(t, fmt.Sprintf("%s, last good policies %v", way, good != ""), deaths[way].resolvConf(t), good, settings...))
		}
	}
	long := k.patience() + k.Liveness.period()
	t.Logf("%d routers; the kubelet restarts after %s of silence, and asks for %s", len(wards), k.patience(), long)
	until := make(chan struct{})
	var all sync.WaitGroup
	for _, w := range wards {
		all.Go(func() { k.care(w, until) })
	}
	time.Sleep(long)
	close(until)
	all.Wait()
	for _, w := range wards {
		if w.ready.Load() != w.good || len(w.changes) > 1 {
			t.Errorf("%s: ready is %v, %v", w.name, w.ready.Load(), w.changes)
		}
		w.judge(t)
	}
	k.remove(t, wards...)
}

func TestAKubeletSendsTrafficAsSoonAsThereIsAPolicyAndNotBefore(t *testing.T) {
	k := fromChart(t)
	store := startEtcd(t, anyEtcd(t))
	store.route(t, engine(t))
	store.kill()
	w := admit(t, "etcd comes late", "", "", "policy.source=etcd", "policy.etcd.endpoints="+store.endpoint())
	until := make(chan struct{})
	var care sync.WaitGroup
	care.Go(func() { k.care(w, until) })
	eventually(t, "readiness is asked for", func() error {
		if w.asked.Load() < 2 {
			return fmt.Errorf("%d times", w.asked.Load())
		}
		return nil
	})
	if w.ready.Load() {
		t.Error("it is ready without ever having seen a policy")
	}
	store.start(t)
	took := eventually(t, "it gets traffic", func() error {
		if !w.ready.Load() {
			return errors.New("not yet")
		}
		return nil
	})
	within(t, "from etcd's return to traffic", took, promisedLate+k.Readiness.period())
	if err := w.router.served(""); err != nil {
		t.Error(err)
	}
	close(until)
	care.Wait()
	w.judge(t)
	k.remove(t, w)
}

// promisedLate is how soon a router finds an etcd that was away.
const promisedLate = 5 * time.Second
