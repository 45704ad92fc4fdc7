package subject

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ai-aas/api-router/test/leaks"
)

func TestMain(m *testing.M) { leaks.Main(m) }

func TestVersion(t *testing.T) {
	for said, want := range map[string]string{
		"nginx version: nginx/1.22.1\n": "1.22.1",
		"HAProxy version 2.6.12-1+deb12u4 2026/10/17 - https://haproxy.org/\nStatus: x\n": "2.6.12-1+deb12u4",
		"api-router v1.2.3 (go1.26, linux/amd64)\n":                                       "v1.2.3",
		"": "",
	} {
		if got := version(said); got != want {
			t.Errorf("%q: %q, want %q", said, got, want)
		}
	}
}

func TestFindSaysWhatToDo(t *testing.T) {
	for _, name := range []string{Router, Nginx, HAProxy} {
		if _, err := Find(t.Context(), name, filepath.Join(t.TempDir(), "none")); err == nil || !strings.Contains(err.Error(), programs[name].hint) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Find(t.Context(), "Caddy", "caddy"); err == nil {
		t.Error("an unknown subject was found")
	}
	if s, err := Find(t.Context(), Direct, ""); err != nil || s.Name != Direct {
		t.Error(s, err)
	}
}

// shell starts a script as a child.
func shell(t *testing.T, script string) *process {
	t.Helper()
	p, err := start(t.TempDir(), os.Environ(), "/bin/sh", "-c", script)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.stop)
	return p
}

// gone waits until no process of the id is left, zombies aside.
func gone(pid int) bool {
	for range 200 {
		if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) || isZombie(pid) {
			return true
		}
		time.Sleep(20 * time.Millisecond)
	}
	return false
}

func isZombie(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err == nil && strings.Contains(string(stat), ") Z ")
}

func TestStopEndsWhatTheProcessHasStarted(t *testing.T) {
	p := shell(t, "sleep 300 & echo $!; wait")
	var child int
	for range 500 {
		var err error
		if child, err = strconv.Atoi(strings.TrimSpace(p.said())); err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if child == 0 {
		t.Fatal("the process started nothing")
	}
	p.stop()
	if !gone(p.pid()) || !gone(child) {
		t.Error("something is left")
	}
	p.stop() // Once more does no harm.
}

func TestAProcessThatWillNotEndIsKilled(t *testing.T) {
	p := shell(t, "trap '' TERM; echo up; while :; do sleep 1; done")
	for range 500 {
		if p.said() != "" {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	p.stop()
	if !gone(p.pid()) {
		t.Error("it is still there")
	}
}

func TestExplainTellsTheEndAndTheLastWords(t *testing.T) {
	p := shell(t, "echo the port is taken; exit 3")
	<-p.done
	err := p.explain(errors.New("no answer"))
	for _, want := range []string{"no answer", "exit status 3", "the port is taken"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
	long := shell(t, "yes words | head -c 100000")
	<-long.done
	if n := len(long.said()); n != outputKept {
		t.Errorf("kept %d bytes", n)
	}
	if _, err := start(t.TempDir(), nil, filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a program that is not there started")
	}
}

func TestASubjectThatEndsAtOnceIsAnError(t *testing.T) {
	s := &Subject{Name: "fake", binary: "/bin/sh", prepare: func(string, string, Site) ([]string, error) {
		return []string{"-c", "echo bad configuration; exit 1"}, nil
	}}
	_, err := s.Start(t.Context(), t.TempDir(), Site{}, nil, nil)
	if err == nil || !strings.Contains(err.Error(), "bad configuration") {
		t.Error(err)
	}
}

// TestConfigurations lets each installed program judge the configuration that is made for it.
func TestConfigurations(t *testing.T) {
	site := Site{Backend: "127.0.0.1:9", Models: []string{"whole", "stream-3-0s"}, Workers: 2}
	for name, test := range map[string]struct {
		program string
		check   []string
	}{Nginx: {"nginx", []string{"-t"}}, HAProxy: {"haproxy", []string{"-c"}}} {
		s, err := Find(t.Context(), name, test.program)
		if err != nil {
			t.Logf("SKIPPING: %v", err)
			continue
		}
		args, err := s.prepare(t.TempDir(), "127.0.0.1:18080", site)
		if err != nil {
			t.Fatal(err)
		}
		if out, err := exec.CommandContext(t.Context(), s.binary, append(args, test.check...)...).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}
