package e2e

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/ai-aas/api-router/test/ports"
	"github.com/ai-aas/api-router/test/rig"
)

// smokeKey stands for a key that nobody may read.
const smokeKey = "test-smoke-9f41c2"

// shells are those that scripts/smoke has to run in: the system's, bash, and BusyBox with nothing but its own tools, as in curl's image.
func shells(t *testing.T) map[string][]string {
	t.Helper()
	curl, err := exec.LookPath("curl")
	if err != nil {
		rig.Lacking(t, "there is no curl on PATH")
	}
	path := "PATH=" + os.Getenv("PATH")
	found := map[string][]string{"sh": {path, "sh"}}
	if bash, err := exec.LookPath("bash"); err == nil {
		found["bash"] = []string{path, bash}
	}
	found["busybox"] = nil
	if busybox, err := exec.LookPath("busybox"); err == nil {
		tools := t.TempDir()
		if out, err := exec.CommandContext(t.Context(), busybox, "--install", "-s", tools).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if err := os.Symlink(curl, filepath.Join(tools, "curl")); err != nil {
			t.Fatal(err)
		}
		found["busybox"] = []string{"PATH=" + tools, filepath.Join(tools, "sh")}
	}
	return found
}

// smoke runs scripts/smoke against a URL, and returns what it printed and its exit code.
func smoke(t *testing.T, shell []string, settings ...string) (out string, code int) {
	t.Helper()
	c := exec.CommandContext(t.Context(), shell[1], "../../scripts/smoke")
	c.Env = append([]string{shell[0], "TMPDIR=" + t.TempDir(), "TIMEOUT=10"}, settings...)
	text, err := c.CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return string(text), exit.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	return string(text), 0
}

func TestSmokePassesOnARouterInEveryShell(t *testing.T) {
	r := serve(t, "policy.source=file", "policy.file.path="+documents(t, engine(t)))
	eventually(t, "the router is ready", func() error { return r.get("/readyz") })
	for name, shell := range shells(t) {
		t.Run(name, func(t *testing.T) {
			if shell == nil {
				rig.Lacking(t, `there is no busybox: "scripts/prepare busybox" installs it`)
			}
			out, code := smoke(t, shell, "URL=http://"+r.public+"/", "KEY="+smokeKey)
			if code != 0 || strings.Contains(out, "FAIL") || strings.Count(out, "\nok ") != 19 || !strings.Contains(out, "all 19 checks passed") {
				t.Errorf("exit %d:\n%s", code, out)
			}
			if strings.Contains(out, smokeKey) {
				t.Errorf("the key is in the output:\n%s", out)
			}
			leaves(t)
		})
	}
}

// documents is a file with a backend at a URL, and a policy that sends the model to it.
func documents(t *testing.T, url string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "documents.yaml")
	text := fmt.Sprintf("kind: Backend\nid: north\nurl: %s\n---\nkind: RoutingPolicy\nid: global\nmodel: %s\nbackends: [{ id: north }]\n", url, model)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// leaves wants nothing left in the temporary directories of the test.
func leaves(t *testing.T) {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(filepath.Dir(t.TempDir()), "*", "tmp.*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v (%v)", left, err)
	}
}

// mangling changes an answer on its way to the client. true: it has answered itself.
type mangling func(w http.ResponseWriter, answer *http.Response) bool

// behind is the URL of a proxy in front of a router that breaks its answers.
func (r *router) behind(t *testing.T, mangles mangling) string {
	t.Helper()
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		if request.ContentLength > 1<<30 { // As nginx would.
			w.WriteHeader(http.StatusRequestEntityTooLarge)
			return
		}
		onward, err := http.NewRequestWithContext(request.Context(), request.Method, "http://"+r.public+request.URL.Path, request.Body)
		if err != nil {
			panic(err)
		}
		onward.Header, onward.ContentLength = request.Header.Clone(), request.ContentLength
		answer, err := r.client.Do(onward)
		if err != nil {
			http.Error(w, "the proxy cannot reach it", http.StatusBadGateway)
			return
		}
		defer func() { _ = answer.Body.Close() }()
		if mangles(w, answer) {
			return
		}
		maps.Copy(w.Header(), answer.Header)
		w.WriteHeader(answer.StatusCode)
		_, _ = io.Copy(w, answer.Body) // The client sees what is missing.
	}))
	t.Cleanup(proxy.Close)
	return proxy.URL
}

// without takes a header away.
func without(header string) mangling {
	return func(_ http.ResponseWriter, answer *http.Response) bool {
		answer.Header.Del(header)
		return false
	}
}

// streamed changes the text of streams; one that aborts breaks off after it.
func streamed(change func(text string) string, aborts bool) mangling {
	return func(w http.ResponseWriter, answer *http.Response) bool {
		if !strings.HasPrefix(answer.Header.Get("Content-Type"), "text/event-stream") {
			return false
		}
		text, err := io.ReadAll(answer.Body)
		if err != nil {
			panic(err)
		}
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, change(string(text))) // The client sees what is missing.
		if aborts {
			_ = http.NewResponseController(w).Flush() // As above.
			panic(http.ErrAbortHandler)
		}
		return true
	}
}

func TestSmokeFailsOnWhatIsBroken(t *testing.T) {
	r := serve(t, "policy.source=file", "policy.file.path="+documents(t, engine(t)))
	eventually(t, "the router is ready", func() error { return r.get("/readyz") })
	everything := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintf(w, "yes, %s, all of it\n", r.Header.Get("X-Api-Key")) // The client sees what is missing.
	}))
	t.Cleanup(everything.Close)
	cases := map[string]struct {
		url    string
		failed []string // what the lines that say FAIL begin with
	}{
		"nobody there": {"http://" + ports.Dead(t), []string{"GET /healthz"}},
		"no policies": {
			"http://" + serve(t, "policy.source=file", "policy.file.path="+t.TempDir()+"/none").public,
			[]string{"GET /readyz", "GET /v1/models", "POST /v1/chat/completions", "the same as a stream", "the same with the key as"},
		},
		"a yes to everything": {everything.URL, []string{"GET /healthz", "no key", "a wrong key", "a model that nobody has", "GET where POST belongs"}},
		"no request ids":      {r.behind(t, without("X-Request-Id")), []string{"x-request-id on the answer", "x-request-id on a refusal"}},
		"no trace ids":        {r.behind(t, without("X-Trace-Id")), []string{"x-trace-id on the answer", "x-trace-id on a refusal"}},
		"a stream without its end": {
			r.behind(t, streamed(func(text string) string { return strings.Replace(text, "data: [DONE]", "", 1) }, false)),
			[]string{"the same as a stream"},
		},
		"a stream that goes on after its end": {
			r.behind(t, streamed(func(text string) string { return text + "data: {}\n\n" }, false)), []string{"the same as a stream"},
		},
		"a stream that breaks off": {r.behind(t, streamed(func(text string) string { return text }, true)), []string{"the same as a stream"}},
		"a stream that is none": {
			r.behind(t, func(_ http.ResponseWriter, answer *http.Response) bool {
				answer.Header.Set("Content-Type", "text/plain")
				return false
			}),
			[]string{"the same as a stream"},
		},
	}
	shell := shells(t)["sh"]
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			out, code := smoke(t, shell, "URL="+c.url, "KEY="+smokeKey)
			if code != 1 {
				t.Errorf("exit %d, want 1", code)
			}
			for _, failed := range c.failed {
				if !regexp.MustCompile(`(?m)^FAIL  ` + regexp.QuoteMeta(failed) + `.*\n +expected  .+\n +got +.+$`).MatchString(out) {
					t.Errorf("no line FAIL for %q, with what was expected and what came", failed)
				}
			}
			if strings.Contains(out, smokeKey) {
				t.Error("the key is in the output")
			}
			if t.Failed() {
				t.Log(out)
			}
			leaves(t)
		})
	}
}

func TestSmokeSaysWhatItNeeds(t *testing.T) {
	shell := shells(t)["sh"]
	cases := map[string]struct {
		settings []string
		want     string
	}{
		"no URL":         {[]string{"KEY=k"}, "URL is missing"},
		"no scheme":      {[]string{"URL=localhost:8080", "KEY=k"}, "http://"},
		"a strange URL":  {[]string{`URL=http://localhost" output="/x`, "KEY=k"}, "URL has"},
		"no key":         {[]string{"URL=http://localhost:1"}, "KEY is missing"},
		"a strange key":  {[]string{"URL=http://localhost:1", "KEY=a\"\nurl = \"http://elsewhere"}, "KEY has"},
		"a strange name": {[]string{"URL=http://localhost:1", "KEY=k", `MODEL=a"b`}, "MODEL is not"},
		"no number":      {[]string{"URL=http://localhost:1", "KEY=k", "TIMEOUT=1m"}, "TIMEOUT is not"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			out, code := smoke(t, shell, c.settings...)
			if code != 2 || !strings.Contains(out, c.want) || !strings.Contains(out, "usage: ") || strings.Contains(out, "elsewhere") {
				t.Errorf("exit %d:\n%s", code, out)
			}
		})
	}
}
