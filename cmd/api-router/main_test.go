package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ai-aas/api-router/test/ports"
)

// hang is when a test gives up on something that should take milliseconds.
const hang = time.Minute

// command runs the program's own main in this process.
func command(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	code = run(args, &out, &err)
	return code, out.String(), err.String()
}

func TestHelpListsEveryCommandWithAnExample(t *testing.T) {
	code, out, _ := command(t, "--help")
	if code != 0 {
		t.Fatalf("exit code %d", code)
	}
	for _, name := range []string{
		"serve", "dev", "simulate", "check", "doctor", "seed", "get", "apply", "delete", "diff", "history", "rollback", "backend", "model",
		"explain", "decisions", "org", "project", "key", "admin", "version", "completion",
	} {
		if !strings.Contains(out, "\n  "+name+" ") {
			t.Errorf("the help does not list %s:\n%s", name, out)
		}
		if _, page, _ := command(t, name, "--help"); name != "completion" && !strings.Contains(page, "Examples:\n  api-router "+name) {
			t.Errorf("the help of %s has no example:\n%s", name, page)
		}
	}
	if code, out, _ := command(t, "completion", "bash"); code != 0 || !strings.Contains(out, "api-router") {
		t.Errorf("completion gives %d", code)
	}
}

func TestVersion(t *testing.T) {
	if code, out, _ := command(t, "version"); code != 0 || !strings.HasPrefix(out, "api-router ") || strings.Count(out, "\n") != 1 {
		t.Errorf("got %d %q", code, out)
	}
	_, out, _ := command(t, "version", "-o", "json")
	var b build
	if err := json.Unmarshal([]byte(out), &b); err != nil || b.Version == "" || b.Go == "" || !strings.Contains(b.Platform, "/") {
		t.Errorf("got %q, %v", out, err)
	}
	if code, _, message := command(t, "version", "-o", "xml"); code != 1 || !strings.Contains(message, "text, json") {
		t.Errorf("got %d %q", code, message)
	}
}

func TestErrorsAreOneClearLineOnStandardError(t *testing.T) {
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"unknown command":  {[]string{"sevre"}, "serve"},
		"unknown flag":     {[]string{"serve", "--lisen", ":1"}, "--lisen"},
		"argument":         {[]string{"dev", "now"}, "now"},
		"no such file":     {[]string{"check", "--config", "/does/not/exist.yaml"}, "/does/not/exist.yaml"},
		"log format":       {[]string{"dev", "--log-format", "xml"}, "json, text"},
		"log level":        {[]string{"dev", "--log-level", "loud"}, "debug, info, warn, error"},
		"busy port of dev": {[]string{"dev", "--listen", listener.Addr().String(), "--data", t.TempDir()}, "--listen"},
		"busy engine port": {[]string{"simulate", "--listen", listener.Addr().String()}, "--listen"},
		"no kind":          {[]string{"get"}, "KIND is backends"},
		"no id":            {[]string{"delete", "policy"}, "delete KIND ID"},
		"no backend":       {[]string{"backend", "drain"}, "backend drain ID"},
		"no target":        {[]string{"model", "disable"}, "--org"},
		"output":           {[]string{"get", "policies", "-o", "xml"}, "table, yaml, json"},
		"token":            {[]string{"get", "policies", "--token", "the-token-itself"}, "env:NAME"},
		"server":           {[]string{"get", "policies", "--server", "nowhere"}, "http://host:port"},
		"speed":            {[]string{"simulate", "--speed", "0"}, "--speed"},
	} {
		code, out, message := command(t, test.args...)
		lines := strings.Split(strings.TrimSpace(message), "\n")
		last := lines[len(lines)-1]
		if code != 1 || out != "" || !strings.HasPrefix(last, "api-router: ") || !strings.Contains(last, test.want) || strings.Contains(message, "Usage:") {
			t.Errorf("%s: got %d, %q, %q", name, code, out, message)
		}
	}
}

func TestAServiceThatCannotStartSaysWhyInItsLog(t *testing.T) {
	code, out, message := command(t, "serve", "--config", "/does/not/exist.yaml")
	lines := strings.Split(strings.TrimSpace(message), "\n")
	var last struct{ Level, Error string }
	for _, line := range lines {
		if err := json.Unmarshal([]byte(line), &last); err != nil {
			t.Fatalf("%v in %q", err, line)
		}
	}
	if code != 1 || out != "" || len(lines) < 2 || last.Level != "ERROR" || !strings.Contains(last.Error, "/does/not/exist.yaml") {
		t.Errorf("got %d %q %q", code, out, message)
	}
}

func TestCheckSettingsPrintsTheReference(t *testing.T) {
	code, out, _ := command(t, "check", "--settings")
	page, err := os.ReadFile("../../docs/config.md")
	if err != nil || code != 0 || out != string(page) {
		t.Errorf("exit code %d, %v; the output is not docs/config.md", code, err)
	}
}

// binary builds the program once for all tests.
func binary(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "api-router")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", path, ".").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return path
}

// started is a process of the built binary.
type started struct {
	*exec.Cmd
	begun  time.Time
	stderr *bytes.Buffer
	exited chan error
}

func start(t *testing.T, path string, args ...string) *started {
	t.Helper()
	s := &started{Cmd: exec.CommandContext(context.Background(), path, args...), stderr: new(bytes.Buffer), exited: make(chan error, 1)}
	s.Stderr = s.stderr
	s.Env = append(os.Environ(), "XDG_CACHE_HOME="+t.TempDir())
	s.begun = time.Now()
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { s.exited <- s.Wait(); close(s.exited) }()
	t.Cleanup(func() {
		_ = s.Process.Kill() // It may have ended already.
		<-s.exited
	})
	return s
}

// wait returns how the process ended; its standard error may be read afterwards.
func (s *started) wait(t *testing.T) error {
	t.Helper()
	select {
	case err := <-s.exited:
		return err
	case <-time.After(hang):
		t.Fatal("the process did not end")
		return nil
	}
}

// healthy waits until GET url answers 200 and returns how long that took since the process was begun.
func healthy(t *testing.T, s *started, url string) time.Duration {
	t.Helper()
	transport := &http.Transport{DisableKeepAlives: true}
	for time.Since(s.begun) < hang {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		if response, err := transport.RoundTrip(request); err == nil {
			_, _ = io.Copy(io.Discard, response.Body)
			_ = response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return time.Since(s.begun)
			}
		}
		select {
		case err := <-s.exited:
			t.Fatalf("it ended: %v, %s", err, s.stderr)
		case <-time.After(time.Millisecond):
		}
	}
	t.Fatal("it does not serve")
	return 0
}

// The goal is 300 ms from exec to the first healthy answer. The bound is ten times that, because machines differ.
const startBound = 3 * time.Second

func TestTheBuiltBinaryServesAtOnceAndEndsInOrder(t *testing.T) {
	path := binary(t)
	for name, args := range map[string][]string{
		"dev":                    {"dev"},
		"serve without anything": {"serve", "--policies", filepath.Join(t.TempDir(), "absent")},
	} {
		t.Run(name, func(t *testing.T) {
			begin := func() (*started, time.Duration) {
				address := ports.Free(t)
				s := start(t, path, append(args, "--listen", address, "--metrics-listen", "127.0.0.1:0", "--log-format", "json")...)
				took := healthy(t, s, "http://"+address+"/healthz")
				t.Logf("/healthz answered %v after exec", took.Round(time.Millisecond))
				return s, took
			}
			s, took := begin()
			for range 4 { // A machine that was busy with something else says nothing of the program.
				if took <= startBound {
					break
				}
				s, took = begin()
			}
			if took > startBound {
				t.Errorf("it took %v to serve, five times", took)
			}
			if err := s.Process.Signal(syscall.SIGHUP); err != nil {
				t.Fatal(err)
			}
			if err := s.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			if name != "dev" { // Its grace is five seconds: the second signal ends that.
				time.Sleep(100 * time.Millisecond)
				if err := s.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) { // It may have come to the end of its grace.
					t.Fatal(err)
				}
			}
			if err := s.wait(t); err != nil {
				t.Errorf("it ended with %v: %s", err, s.stderr)
			}
			lines := strings.Split(strings.TrimSpace(s.stderr.String()), "\n")
			for i, want := range map[int]string{0: "api-router starting", len(lines) - 1: "api-router ended"} {
				var line map[string]any
				if err := json.Unmarshal([]byte(lines[i]), &line); err != nil || line["msg"] != want {
					t.Errorf("log line %d is %s; want %s", i, lines[i], want)
				}
			}
		})
	}
}

func TestProductionRefusesDevelopmentKeys(t *testing.T) {
	t.Setenv("API_ROUTER_IDENTITY_DEVELOPMENT_KEYS", "true")
	code, _, message := command(t, "serve", "--listen", "127.0.0.1:0")
	lines := strings.Split(strings.TrimSpace(message), "\n")
	if code != 1 || len(lines) != 2 || !strings.Contains(lines[0], "api-router starting") || !strings.Contains(lines[1], "production refuses to start") {
		t.Errorf("got %d %s", code, message)
	}
}

func TestSimulateServesItsModels(t *testing.T) {
	address := ports.Free(t)
	s := start(t, binary(t), "simulate", "--listen", address, "--model", "a,b", "--speed", "100")
	healthy(t, s, "http://"+address+"/v1/models")
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, fmt.Sprintf("http://%s/v1/models", address), nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	if body, err := io.ReadAll(response.Body); err != nil || !bytes.Contains(body, []byte(`"id":"a"`)) || !bytes.Contains(body, []byte(`"id":"b"`)) {
		t.Errorf("got %s, %v", body, err)
	}
	if err := s.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := s.wait(t); err != nil {
		t.Errorf("it ended with %v", err)
	}
}
