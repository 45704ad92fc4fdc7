// Package console opens the first page of the admin listener in Chromium, in a module of its own: nothing else needs a browser.
package console

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"github.com/ai-aas/api-router/test/rig"
)

// hang is how long a test waits for what takes a few seconds, on a machine that does much else.
const hang = 60 * time.Second

// binary is the router, built once for all tests.
var binary string

func TestMain(m *testing.M) { os.Exit(rig.Main(m, &binary)) }

// router is a running api-router.
type router struct {
	t             *testing.T
	public, admin string // base URLs
	token         string // "": none is asked for
	log           *rig.Journal
	process       *exec.Cmd
	done          chan struct{}
}

func start(t *testing.T, env []string, args ...string) *router {
	t.Helper()
	r := &router{t: t, log: &rig.Journal{}, process: exec.Command(binary, args...), done: make(chan struct{})}
	r.process.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}, env...)
	r.process.Stdout, r.process.Stderr = r.log, r.log
	r.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := r.process.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = r.process.Wait() // How it ended is in its log.
		close(r.done)
	}()
	t.Cleanup(func() {
		r.stop()
		if t.Failed() {
			t.Logf("the router: %s", r.log)
		}
	})
	return r
}

func (r *router) stop() {
	_ = r.process.Process.Signal(syscall.SIGTERM)
	select {
	case <-r.done:
	case <-time.After(hang):
		_ = r.process.Process.Kill()
		<-r.done
	}
}

// dev starts a router with simulated engines.
func dev(t *testing.T) *router {
	t.Helper()
	r := start(t, nil, "dev", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--data", t.TempDir())
	r.public = r.said(`ready on (http://localhost:\d+) `)
	r.admin = strings.TrimSuffix(r.said(`console +(http://localhost:\d+/)`), "/")
	return r
}

const token = "console-test-viewer-token"

// serve starts a router that asks for a token.
func serve(t *testing.T) *router {
	t.Helper()
	r := start(t, []string{
		"API_ROUTER_ENVIRONMENT=development", "API_ROUTER_LISTEN_PUBLIC=127.0.0.1:0", "API_ROUTER_LISTEN_ADMIN=127.0.0.1:0",
		"API_ROUTER_IDENTITY_ADMIN_TOKENS=vera:viewer:env:VERA", "VERA=" + token, "API_ROUTER_POLICY_LAST_GOOD=",
		"API_ROUTER_LISTEN_METRICS=127.0.0.1:0", "API_ROUTER_POLICY_FILE_PATH=" + t.TempDir(), "API_ROUTER_SERVER_DRAIN_GRACE=0s",
	}, "serve")
	r.token = token
	r.admin = "http://" + r.said(`"admin listener open".*"address":"([^"]+)"`)
	return r
}

// said waits for something in the router's output.
func (r *router) said(pattern string) string {
	r.t.Helper()
	form := regexp.MustCompile(pattern)
	var found []string
	eventually(r.t, "the router says "+pattern, func() bool {
		found = form.FindStringSubmatch(r.log.String())
		return found != nil
	})
	return found[1]
}

// ask sends one request and wants this status.
func (r *router) ask(method, url, body string, want int, headers ...string) string {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), hang)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		r.t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != want {
		r.t.Fatalf("%s %s: %d %v %s", method, url, response.StatusCode, err, text)
	}
	return response.Header.Get("X-Request-Id")
}

// chat sends a request through the router and returns its id.
func (r *router) chat(model string, want int) string {
	r.t.Helper()
	body := fmt.Sprintf(`{"model":%q,"max_tokens":12,"messages":[{"role":"user","content":"Say hello."}]}`, model)
	return r.ask(http.MethodPost, r.public+"/v1/chat/completions", body, want, "X-API-Key", "test-acme-1")
}

func (r *router) put(path, document string) {
	r.t.Helper()
	r.ask(http.MethodPut, r.admin+"/admin/v1"+path, document, http.StatusCreated)
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(hang); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never happened: %s", what)
		}
	}
}

// browser is a tab of a Chromium of its own.
type browser struct {
	t   *testing.T
	ctx context.Context

	mu       sync.Mutex
	mistakes []string // what its console has of errors, broken policies of content among them
}

func open(t *testing.T) *browser {
	t.Helper()
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	if path == "" {
		rig.Lacking(t, "there is no chromium: apt-get install chromium")
	}
	profile, err := os.MkdirTemp("", "api-router-chromium-") //nolint:usetesting // The browser still writes to it for a moment after its end.
	if err != nil {
		t.Fatal(err)
	}
	options := []chromedp.ExecAllocatorOption{
		chromedp.ExecPath(path), chromedp.UserDataDir(profile), chromedp.NoFirstRun, chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-sync", true), chromedp.Flag("disable-default-apps", true), chromedp.Flag("disable-dev-shm-usage", true),
		chromedp.Flag("hide-scrollbars", true), chromedp.Env("HOME=" + profile), chromedp.WSURLReadTimeout(hang),
	}
	allocator, endAllocator := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, endTab := chromedp.NewContext(allocator)
	ctx, endTime := context.WithTimeout(ctx, 2*hang)
	b := &browser{t: t, ctx: ctx}
	t.Cleanup(func() {
		endTime()
		endTab()
		endAllocator()
		eventually(t, "the browser is gone, and its files", func() bool { return os.RemoveAll(profile) == nil })
	})
	chromedp.ListenTarget(ctx, b.heard)
	b.do(log.Enable(), runtime.Enable(), page.Enable())
	return b
}

func (b *browser) heard(event any) {
	note := ""
	switch e := event.(type) {
	case *log.EventEntryAdded:
		if e.Entry.Level == log.LevelError || e.Entry.Level == log.LevelWarning {
			note = fmt.Sprintf("%s %s: %s %s", e.Entry.Source, e.Entry.Level, e.Entry.Text, e.Entry.URL)
		}
	case *runtime.EventExceptionThrown:
		note = e.ExceptionDetails.Error()
	case *runtime.EventConsoleAPICalled:
		if e.Type == runtime.APITypeError || e.Type == runtime.APITypeWarning {
			note = fmt.Sprintf("console.%s with %d values", e.Type, len(e.Args))
		}
	}
	if note != "" {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.mistakes = append(b.mistakes, note)
	}
}

func (b *browser) do(actions ...chromedp.Action) {
	b.t.Helper()
	if err := chromedp.Run(b.ctx, actions...); err != nil {
		b.t.Fatal(err)
	}
}

// clean fails the test for what the browser's console has of errors.
func (b *browser) clean() {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.mistakes) > 0 {
		b.t.Errorf("the browser complains:\n%s", strings.Join(b.mistakes, "\n"))
	}
}

// look sets the size of the window, in CSS pixels, and the colour scheme.
func (b *browser) look(width, height int64, scheme string) {
	b.t.Helper()
	b.do(
		emulation.SetDeviceMetricsOverride(width, height, 1, width < 600),
		emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}),
	)
}

// says is the text of the first element that fits, "" when there is none.
func (b *browser) says(selector string) string {
	b.t.Helper()
	var text string
	b.do(chromedp.Evaluate(fmt.Sprintf(`document.querySelector(%q)?.innerText ?? ""`, selector), &text))
	return text
}

// sees waits until an element says all that is wanted.
func (b *browser) sees(selector string, want ...string) {
	b.t.Helper()
	text := ""
	eventually(b.t, fmt.Sprintf("%s says %q", selector, want), func() bool {
		text = b.says(selector)
		return !slices.ContainsFunc(want, func(w string) bool { return !strings.Contains(text, w) })
	})
}

// number is what an expression gives.
func (b *browser) number(expression string) float64 {
	b.t.Helper()
	var n float64
	b.do(chromedp.Evaluate(expression, &n))
	return n
}

// shoot saves a picture of the whole page where CONSOLE_SHOTS names a directory.
func (b *browser) shoot(name string) {
	b.t.Helper()
	dir := os.Getenv("CONSOLE_SHOTS")
	if dir == "" {
		return
	}
	var picture []byte
	b.do(chromedp.FullScreenshot(&picture, 100))
	if err := os.WriteFile(filepath.Join(dir, name+".png"), picture, 0o644); err != nil {
		b.t.Fatal(err)
	}
}
