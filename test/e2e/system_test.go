package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ai-aas/api-router/test/rig"
)

// systemEnds is how long the script has for everything, on a machine that does other things, too.
const systemEnds = 3 * time.Minute

// system is a run of scripts/system.
type system struct {
	*process
	temp string // where its temporary directory is, whose path is in the environment of all that it starts
	logs string
}

// systemTools skips the test where something is missing that the script needs.
func systemTools(t *testing.T) {
	t.Helper()
	anyEtcd(t)
	for _, tool := range []string{"prometheus", "curl", "bash"} {
		if _, err := exec.LookPath(tool); err != nil {
			rig.Lacking(t, "there is no "+tool+" on PATH")
		}
	}
	if _, err := os.Stat("../../.tools/bin/otelcol"); err != nil {
		rig.Lacking(t, `there is no OpenTelemetry Collector: "scripts/prepare otelcol" builds it`)
	}
}

// startSystem runs the script on free ports. Whatever it does, nothing that it started may be there at the end of the test.
func startSystem(t *testing.T, as []string, args ...string) *system {
	t.Helper()
	systemTools(t)
	temp := t.TempDir()
	s := &system{temp: temp, logs: filepath.Join(temp, "logs")}
	for _, path := range []string{temp, filepath.Dir(temp), filepath.Dir(binary)} { // Another user needs a way into them.
		if err := os.Chmod(path, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	script, err := filepath.Abs("../../scripts/system")
	if err != nil {
		t.Fatal(err)
	}
	line := slices.Concat(as, []string{"bash", script, "--free-ports", "--logs", s.logs}, args)
	s.process = start(t, line[0], []string{"TMPDIR=" + temp, "BINARY=" + binary}, line[1:]...)
	t.Cleanup(func() {
		for _, pid := range s.left(t) {
			t.Errorf("process %d is left", pid)
			_ = syscall.Kill(pid, syscall.SIGKILL) // It may have ended since.
		}
	})
	return s
}

// left are the processes that the script started and that have not ended.
func (s *system) left(t *testing.T) []int {
	t.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, path := range paths {
		environment, err := os.ReadFile(filepath.Join(path, "environ"))
		arguments, _ := os.ReadFile(filepath.Join(path, "cmdline")) // It is in either.
		if err != nil || !bytes.Contains(environment, []byte(s.temp)) && !bytes.Contains(arguments, []byte(s.temp)) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(path)); err == nil && (s.Process == nil || pid != s.Process.Pid) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// ends waits for the end of the script, wants this exit code, and nothing left: no process and no data.
func (s *system) ends(t *testing.T, code int) {
	t.Helper()
	select {
	case <-s.done:
	case <-time.After(systemEnds):
		t.Fatalf("it has not ended after %s:\n%s", systemEnds, s.log)
	}
	if got := s.ProcessState.ExitCode(); got != code {
		t.Errorf("exit %d, want %d:\n%s", got, code, s.log)
	}
	if left := s.left(t); len(left) > 0 {
		t.Errorf("processes %v are left", left)
	}
	s.tidy(t)
}

func (s *system) tidy(t *testing.T) {
	t.Helper()
	data, err := filepath.Glob(filepath.Join(s.temp, "tmp.*"))
	if err != nil || len(data) > 0 {
		t.Errorf("data is left: %v (%v)", data, err)
	}
}

// said waits for a line, and returns what the expression's groups match in it.
func (s *system) said(t *testing.T, expression string) []string {
	t.Helper()
	pattern, end := regexp.MustCompile("(?m)"+expression), time.Now().Add(systemEnds)
	for {
		if found := pattern.FindStringSubmatch(s.log.String()); found != nil {
			return found[1:]
		}
		select {
		case <-s.done:
			t.Fatalf("it ended without a line %q:\n%s", expression, s.log)
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(end) {
			t.Fatalf("no line %q after %s:\n%s", expression, systemEnds, s.log)
		}
	}
}

func TestTheWholeSystemRunsAndEndsByItself(t *testing.T) {
	users := map[string][]string{"as it is": nil}
	if os.Getuid() == 0 {
		if setpriv, err := exec.LookPath("setpriv"); err == nil && reachable(t) {
			users["as nobody"] = []string{setpriv, "--reuid=65534", "--regid=65534", "--clear-groups"}
		}
	}
	for name, as := range users {
		t.Run(name, func(t *testing.T) {
			begun := time.Now()
			s := startSystem(t, as, "--once")
			s.ends(t, 0)
			t.Logf("all of it took %s", time.Since(begun).Round(time.Millisecond))
			s.answered(t)
			request, trace := s.said(t, `its usage record: (\S+)$`)[0], s.said(t, `has its trace: (\S+)$`)[0]
			told := s.kept(t, "collector")
			if !regexp.MustCompile(`Trace ID +: `+trace+`\n`).MatchString(told) || !strings.Contains(told, request) {
				t.Errorf("the collector does not know the trace %s of the request %s", trace, request)
			}
			for _, router := range []string{"router-1", "router-2"} {
				s.said(t, `^system: Prometheus has api_router_gateway_requests_total of `+router+`$`)
				s.said(t, `^system: `+router+`: smoke: all \d+ checks passed$`)
				if !strings.Contains(s.kept(t, router), `"msg":"drained: every request has finished"`) {
					t.Errorf("%s did not end by itself", router)
				}
			}
			if strings.Contains(s.log.String(), "with force") {
				t.Errorf("something had to be ended with force:\n%s", s.log)
			}
		})
	}
}

// reachable reports whether another user can read the tree that the tests are in.
func reachable(t *testing.T) bool {
	t.Helper()
	path, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	for ; path != "/"; path = filepath.Dir(path) {
		if info, err := os.Stat(path); err != nil || info.Mode()&0o005 != 0o005 {
			t.Logf("SKIPPED: as another user, because %s is closed to it", path)
			return false
		}
	}
	return true
}

// kept is the log of one program.
func (s *system) kept(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(s.logs, name))
	if err != nil {
		t.Error(err)
	}
	return string(text)
}

// answered wants the first request of the README with its answer.
func (s *system) answered(t *testing.T) {
	t.Helper()
	found := s.said(t, `^(curl -X POST http://localhost:\d+/v1/chat/completions .*)$\n\n(\{.*)$`)
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	if line := regexp.MustCompile(`localhost:\d+`).ReplaceAllString(found[0], "localhost:8080"); !strings.Contains(string(readme), "\n"+line+"\n") {
		t.Errorf("the README has another first request than %s", line)
	}
	var a struct {
		Object, Model string
		Choices       []struct{ Message struct{ Content string } }
	}
	if err := json.Unmarshal([]byte(found[1]), &a); err != nil {
		t.Fatalf("%v: %s", err, found[1])
	}
	if a.Object != "chat.completion" || a.Model != model || len(a.Choices) != 1 || a.Choices[0].Message.Content == "" {
		t.Errorf("the answer is %s", found[1])
	}
}

func TestTheWholeSystemStaysUntilItIsInterrupted(t *testing.T) {
	s := startSystem(t, nil)
	metrics := s.said(t, `^  metrics +http://(\S+)/metrics and http://(\S+)/metrics$`)
	prometheus := s.said(t, `^  prometheus +(http://\S+)$`)[0]
	query := prometheus + "/api/v1/query?query=sum+by+(instance,job)+(api_router_gateway_requests_total)"
	question, err := http.NewRequestWithContext(t.Context(), http.MethodGet, query, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(question)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, address := range metrics {
		if !strings.Contains(string(text), fmt.Sprintf(`{"instance":%q,"job":"api-router"}`, address)) {
			t.Errorf("Prometheus has no requests of %s: %s", address, text)
		}
	}
	operator := s.said(t, `API_ROUTER_ADMIN_URL=(\S+) API_ROUTER_ADMIN_TOKEN=\$\(cat (\S+)\)`)
	token, err := os.ReadFile(operator[1])
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(s.log.String(), strings.TrimSpace(string(token))) {
		t.Error("the admin token is printed")
	}
	out, err := command(t, []string{"API_ROUTER_ADMIN_URL=" + operator[0], "API_ROUTER_ADMIN_TOKEN=" + strings.TrimSpace(string(token))}, "get", "policies")
	if err != nil || !strings.Contains(out, "global-"+model) {
		t.Errorf("%v: %s", err, out)
	}
	if len(s.left(t)) < 7 {
		t.Errorf("only the processes %v are there", s.left(t))
	}
	_ = s.Process.Signal(syscall.SIGINT) // Should it have ended, the next line says so.
	s.ends(t, 0)
}

func TestTheWholeSystemIsGoneAfterATooEarlyEnd(t *testing.T) {
	for _, c := range []struct {
		after  string // a line
		signal syscall.Signal
		code   int
	}{
		{`^system: router-1 lives`, syscall.SIGINT, 130},
		{`^system: putting the documents`, syscall.SIGTERM, 143},
		{`^curl -X POST`, syscall.SIGHUP, 129},
	} {
		t.Run(c.signal.String(), func(t *testing.T) {
			s := startSystem(t, nil, "--once")
			s.said(t, c.after)
			_ = s.Process.Signal(c.signal) // As above.
			s.ends(t, c.code)
		})
	}
	t.Run("killed", func(t *testing.T) {
		if _, err := exec.LookPath("setpriv"); err != nil {
			rig.Lacking(t, "there is no setpriv on PATH")
		}
		s := startSystem(t, nil)
		s.said(t, `^  stop +Ctrl-C$`)
		s.end(syscall.SIGKILL)
		eventually(t, "nothing is left", func() error {
			if left := s.left(t); len(left) > 0 {
				return fmt.Errorf("processes %v are", left)
			}
			return nil
		})
	})
	t.Run("one of its programs ends", func(t *testing.T) {
		s := startSystem(t, nil)
		s.said(t, `^  stop +Ctrl-C$`)
		for _, pid := range s.left(t) {
			if arguments, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil && bytes.Contains(arguments, []byte("--name=system")) {
				_ = syscall.Kill(pid, syscall.SIGKILL) // Should it have ended, the more.
			}
		}
		s.ends(t, 1)
		s.said(t, `^system: etcd has ended\. The last lines of its log:$`)
	})
}

func TestTheWholeSystemSaysWhichPortIsTaken(t *testing.T) {
	systemTools(t)
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:4318")
	if err != nil && !errors.Is(err, syscall.EADDRINUSE) {
		t.Fatal(err)
	}
	if err == nil {
		defer func() { _ = l.Close() }()
	}
	s := &system{temp: t.TempDir()}
	s.process = start(t, "bash", []string{"TMPDIR=" + s.temp, "BINARY=" + binary}, "../../scripts/system", "--once")
	<-s.done
	if out := s.log.String(); s.ProcessState.ExitCode() != 1 || !regexp.MustCompile(`4318 \(the collector, HTTP\).*--free-ports\n$`).MatchString(out) {
		t.Errorf("exit %d: %s", s.ProcessState.ExitCode(), out)
	}
	s.tidy(t)
}
