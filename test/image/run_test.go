package image

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ai-aas/api-router/test/ports"
)

// unlimited are words for no limit in the files of control groups.
const unlimited = "max"

// group reads a file of the container's control group: the name in version 2, or in version 1.
func (c *container) group(t *testing.T, v2, v1 string) string {
	t.Helper()
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", c.pid))
	if err != nil {
		t.Fatal(err)
	}
	path := ""
	for line := range strings.Lines(string(content)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		switch {
		case len(parts) != 3:
		case parts[1] == "memory":
			path = filepath.Join("/sys/fs/cgroup/memory", parts[2], v1)
		case parts[0] == "0" && path == "":
			path = filepath.Join("/sys/fs/cgroup", parts[2], v2)
		}
	}
	value, err := os.ReadFile(path)
	if err != nil {
		return unlimited
	}
	return strings.TrimSpace(string(value))
}

// status is a field of the router's /proc/PID/status.
func (c *container) status(t *testing.T, field string) string {
	t.Helper()
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(content)) {
		if value, ok := strings.CutPrefix(line, field+":"); ok {
			return strings.Join(strings.Fields(value), " ")
		}
	}
	return ""
}

// writable are the mounts inside that could be written, but for those of the kernel, which every runtime makes.
func (c *container) writable(t *testing.T) []string {
	t.Helper()
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", c.pid))
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for line := range strings.Lines(string(content)) {
		fields := strings.Fields(line)
		point, options := fields[4], strings.Split(fields[5], ",")
		kernel := slices.Contains([]string{"dev", "proc", "sys"}, strings.Split(point, "/")[1])
		if options[0] != "ro" && !kernel {
			all = append(all, point)
		}
	}
	return all
}

func TestTheImageServesReadOnlyWithoutRightsInSmallMemory(t *testing.T) {
	s := open(t)
	public, metrics := ports.Free(t), ports.Free(t)
	flags := append(development(public, metrics), "--env=API_ROUTER_POLICY_FILE_PATH=/etc/api-router", "--env=TZ=Asia/Kolkata", "--env=API_ROUTER_LOG_LEVEL=debug",
		"--volume="+policies(t, engine(t, 0))+":/etc/api-router:ro")
	c := s.start(t, "strict", flags...)
	eventually(t, "the curl of the documentation", func() error { return want(http.StatusOK)(chat(public, "")) })

	for field, wanted := range map[string]string{
		"Uid": "65532 65532 65532 65532", "CapEff": "0000000000000000", "CapBnd": "0000000000000000", "NoNewPrivs": "1",
	} {
		if got := c.status(t, field); got != wanted {
			t.Errorf("%s is %q, want %q", field, got, wanted)
		}
	}
	if limit := c.group(t, "memory.max", "memory.limit_in_bytes"); limit != strconv.Itoa(memory) {
		t.Errorf("the memory limit is %s, want %d", limit, memory)
	}
	if writable := c.writable(t); len(writable) > 0 {
		t.Errorf("these can be written: %v", writable)
	}
	for _, shell := range []string{"sh", "/bin/sh", "bash", "/busybox/sh"} {
		if out, err := c.exec(t, shell, "-c", "true"); err == nil {
			t.Errorf("there is a shell %s: %s", shell, out)
		}
	}
	out, err := c.exec(t, "/api-router", "doctor", "--local", "--ready")
	if err != nil || !strings.Contains(out, "ok    alive") || !strings.Contains(out, "ok    ready") {
		t.Errorf("doctor --local: %v: %s", err, out)
	}
	if out, err := s.podman(t, "healthcheck", "run", c.id); err != nil {
		t.Errorf("the image's health check: %v: %s", err, out)
	}
	if status, body, err := get("http://" + metrics + "/metrics"); err != nil || status != http.StatusOK || !strings.Contains(body, "api_router_") {
		t.Errorf("metrics: %d, %v", status, err)
	}
	eventually(t, "the log says that no last good copy is kept, and what to do", func() error {
		return c.says("the last good policies cannot be saved", "read-only file system", "make their directory writable, or set policy.last_good to nothing")
	})
	if err := c.says("+05:30", "memory limit for the garbage collector"); err != nil {
		t.Errorf("the time zone and the memory limit: %v", err)
	}
	t.Logf("idle: RSS %s, of which its own memory %s; the group %s bytes", c.status(t, "VmRSS"), c.status(t, "RssAnon"), c.group(t, "memory.current", "memory.usage_in_bytes"))
	c.load(t, public)
	t.Logf("after load: RSS %s, of which its own memory %s; the group at most %s of %d bytes",
		c.status(t, "VmRSS"), c.status(t, "RssAnon"), c.group(t, "memory.peak", "memory.max_usage_in_bytes"), memory)
	select {
	case <-c.done:
		t.Fatalf("the container ended: %v", c.err)
	default:
	}
}

// says is an error unless all words are in the log.
func (c *container) says(words ...string) error {
	text := c.log.String()
	for _, w := range words {
		if !strings.Contains(text, w) {
			return fmt.Errorf("the log does not say %q", w)
		}
	}
	return nil
}

// load sends requests from many clients at once, some of them large. Beyond its memory the router may say 429, and nothing else.
func (c *container) load(t *testing.T, public string) {
	t.Helper()
	const clients, each, large = 32, 20, 2 << 20
	var wait sync.WaitGroup
	failures := make(chan error, clients)
	begun := time.Now()
	for i := range clients {
		wait.Go(func() {
			for j := range each {
				fields := `,"stream":` + strconv.FormatBool(j%2 == 0)
				if i < 4 && j%8 == 0 {
					fields += `,"user":"` + strings.Repeat("x", large) + `"`
				}
				status, body, err := chat(public, fields)
				if err == nil && (status == http.StatusOK || status == http.StatusTooManyRequests && strings.Contains(body, "queue_full")) {
					continue
				}
				failures <- fmt.Errorf("got %d, %w: %.300s", status, err, body)
				return
			}
		})
	}
	wait.Wait()
	close(failures)
	for err := range failures {
		t.Error(err)
	}
	t.Logf("%d requests from %d clients in %s", clients*each, clients, time.Since(begun).Round(time.Millisecond))
}

func TestTheContainerFinishesItsStreamsAndEndsOnSIGTERM(t *testing.T) {
	s := open(t)
	public := ports.Free(t)
	flags := append(development(public, ""), "--env=API_ROUTER_SERVER_DRAIN_GRACE=1s", "--env=API_ROUTER_POLICY_FILE_PATH=/etc/api-router",
		"--volume="+policies(t, engine(t, 1))+":/etc/api-router:ro")
	c := s.start(t, "drained", flags...)
	eventually(t, "it is ready", func() error { return want(http.StatusOK)(get("http://" + public + "/readyz")) })

	type result struct {
		status int
		body   string
		err    error
	}
	streamed := make(chan result, 1)
	go func() {
		var r result
		r.status, r.body, r.err = chat(public, `,"stream":true,"max_tokens":200`)
		streamed <- r
	}()
	time.Sleep(300 * time.Millisecond) // The stream runs, or comes within the grace: either way it has to end well.
	begun := time.Now()
	if out, err := s.podman(t, "kill", "--signal=TERM", c.id); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	eventually(t, "it says that it drains", func() error {
		err := want(http.StatusServiceUnavailable)(get("http://" + public + "/readyz"))
		if err != nil && c.says("drain") == nil {
			return nil // It was quicker.
		}
		return err
	})
	select {
	case <-c.done:
		t.Logf("ended after %s", time.Since(begun).Round(time.Millisecond))
	case <-time.After(hang):
		t.Fatal("it does not end on SIGTERM")
	}
	if c.err != nil {
		t.Errorf("it ended with %v", c.err)
	}
	if r := <-streamed; r.err != nil || r.status != http.StatusOK || !strings.Contains(r.body, "data: [DONE]") {
		t.Errorf("the stream that ran: %d, %v: %.500s", r.status, r.err, r.body)
	}
}

func TestAVolumeCarriesTheLastGoodPoliciesToAStartWithoutTheirSource(t *testing.T) {
	s := open(t)
	public := ports.Free(t)
	const volume = "api-router-state"
	if out, err := s.podman(t, "volume", "create", volume); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Cleanup(func() { _, _ = s.podman(t, "volume", "rm", "--force", volume) })
	flags := append(development(public, ""), "--volume="+volume+":/var/lib/api-router", "--env=API_ROUTER_SERVER_DRAIN_GRACE=0s")
	first := s.start(t, "first", append(flags, "--env=API_ROUTER_POLICY_FILE_PATH=/etc/api-router", "--volume="+policies(t, engine(t, 0))+":/etc/api-router:ro")...)
	eventually(t, "it serves from its files", func() error { return want(http.StatusOK)(chat(public, "")) })
	if out, err := s.podman(t, "stop", "--time=20", first.id); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	<-first.done

	second := s.start(t, "second", append(flags, "--env=API_ROUTER_POLICY_SOURCE=etcd", "--env=API_ROUTER_POLICY_ETCD_ENDPOINTS="+ports.Free(t))...)
	took := eventually(t, "it serves with a dead etcd", func() error { return want(http.StatusOK)(chat(public, "")) })
	t.Logf("served %s after the container ran, with a dead etcd", took.Round(time.Millisecond))
	if writable := second.writable(t); len(writable) != 1 || writable[0] != "/var/lib/api-router" {
		t.Errorf("these can be written: %v", writable)
	}
}

func TestTheHealthCheckTellsAliveFromReady(t *testing.T) {
	s := open(t)
	public := ports.Free(t)
	c := s.start(t, "waiting", append(development(public, ""), "--env=API_ROUTER_POLICY_SOURCE=etcd", "--env=API_ROUTER_POLICY_ETCD_ENDPOINTS="+ports.Free(t))...)
	eventually(t, "it lives", func() error {
		out, err := s.podman(t, "healthcheck", "run", c.id)
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	if out, err := c.exec(t, "/api-router", "doctor", "--local", "--ready"); err == nil || !strings.Contains(out, "says starting") {
		t.Errorf("without policies it is ready: %v: %s", err, out)
	}
}
