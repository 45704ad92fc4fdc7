package app_test

import (
	"database/sql"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/ai-aas/api-router/internal/adminapi"
	"github.com/ai-aas/api-router/internal/app"
)

var serverForm = regexp.MustCompile(`http://localhost:(\d+)/admin/v1`)

// devAPI is the admin API of the dev that printed this.
func devAPI(t *testing.T, stdout *syncBuffer) *adminapi.Client {
	t.Helper()
	found := serverForm.FindStringSubmatch(stdout.String())
	if found == nil {
		t.Fatalf("the banner names no admin API: %s", stdout)
	}
	api, err := adminapi.New(adminapi.Options{Server: "http://" + net.JoinHostPort("127.0.0.1", found[1])})
	if err != nil {
		t.Fatal(err)
	}
	return api
}

func TestDevKeepsWhatWasAppliedOverARestart(t *testing.T) {
	o := app.DevOptions{Data: t.TempDir(), AdminListen: "127.0.0.1:0"}
	stdout, _, end := devUntil(t, o)
	lastLine(t, stdout)
	api := devAPI(t, stdout)
	first, err := api.Get(t.Context(), "backends", "sim-a")
	if err != nil {
		t.Fatal(err)
	}
	for id, document := range map[string]string{
		"mine":            "kind: RoutingPolicy\nid: mine\nmodel: my-model\nbackends: [ { id: sim-a } ]\n",
		"dev-gpt-oss-20b": "kind: RoutingPolicy\nid: dev-gpt-oss-20b\nmodel: gpt-oss-20b\nbackends: [ { id: sim-b } ]\n",
	} {
		if _, err := api.Put(t.Context(), "policies", id, []byte(document), adminapi.If{Reason: "a test"}); err != nil {
			t.Fatal(err)
		}
	}
	end()

	stdout, stderr, _ := devUntil(t, o)
	base := callForm.FindStringSubmatch(lastLine(t, stdout))[1]
	api = devAPI(t, stdout)
	second, err := api.Get(t.Context(), "backends", "sim-a")
	if err != nil || string(first.Content) == string(second.Content) {
		t.Errorf("the backend has the address of an engine that is gone: %s, %v", second.Content, err)
	}
	for range 5 {
		if got := routes(t, base); got != "sim-b" {
			t.Errorf("the policy that was applied does not route: got %s", got)
		}
	}
	if list, err := api.List(t.Context(), "policies", false); err != nil || len(list.Items) != 3 {
		t.Errorf("the policies are %+v, %v", list.Items, err)
	}
	if history, err := api.History(t.Context(), "policies", "dev-qwen3-8b", adminapi.HistoryPage{Limit: 10}); err != nil || len(history.Items) != 1 || history.Items[0].Actor != "api-router" {
		t.Errorf("a policy that nobody touched has the history %+v, %v", history.Items, err)
	}
	if got := stderr.String(); strings.Contains(got, "problem with a policy document") {
		t.Errorf("the log says %s", got)
	}
}

func TestTwoDevsDoNotShareABook(t *testing.T) {
	o := app.DevOptions{Data: t.TempDir(), AdminListen: "127.0.0.1:0"}
	first, _, _ := devUntil(t, o)
	lastLine(t, first)
	second, stderr, end := devUntil(t, o)
	base := callForm.FindStringSubmatch(lastLine(t, second))[1]
	if got := routes(t, base); !strings.HasPrefix(got, "sim-") {
		t.Errorf("the second one gives %s", got)
	}
	if !strings.Contains(second.String(), "until this ends") || !strings.Contains(stderr.String(), "those of this one end with it") {
		t.Errorf("the second one does not say what it does: %s %s", second, stderr)
	}
	end()
	if got := routes(t, callForm.FindStringSubmatch(lastLine(t, first))[1]); !strings.HasPrefix(got, "sim-") {
		t.Errorf("the first one gives %s after that", got)
	}
}

func TestDevWaitsForABookThatIsSlowToOpen(t *testing.T) {
	dir := t.TempDir()
	db, err := sql.Open("sqlite", filepath.Join(dir, "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	holder, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer holder.Close()
	if _, err := holder.ExecContext(t.Context(), "BEGIN EXCLUSIVE"); err != nil {
		t.Fatal(err)
	}
	stdout, _, _ := devUntil(t, app.DevOptions{Data: dir, AdminListen: "127.0.0.1:0"})
	time.Sleep(4 * time.Second) // Longer than it waits for one that is known to be wrong.
	if _, err := holder.ExecContext(t.Context(), "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	lastLine(t, stdout)
}

func TestDevSaysThatItsBookCannotBeUsed(t *testing.T) {
	dir := t.TempDir()
	overwrite(t, filepath.Join(dir, "state.db"), strings.Repeat("this is no database ", 1000))
	err := app.Dev(t.Context(), app.Process{Version: "test", Stdout: new(syncBuffer), Stderr: new(syncBuffer)}, app.DevOptions{Listen: "127.0.0.1:0", Data: dir, LogFormat: "text", LogLevel: "info"})
	if err == nil || !strings.Contains(err.Error(), filepath.Join(dir, "state.db")) || !strings.Contains(err.Error(), "--data") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "usage.jsonl")); err == nil {
		t.Error("it went on")
	}
}

func TestDevForgetsBackendsThatItNoLongerStandsBefore(t *testing.T) {
	o := app.DevOptions{Data: t.TempDir(), AdminListen: "127.0.0.1:0"}
	stdout, _, end := devUntil(t, o)
	lastLine(t, stdout)
	end()
	url := simulatedModel(t, "my-model")
	o.Backends = []string{url}
	stdout, _, _ = devUntil(t, o)
	if form := callForm.FindStringSubmatch(lastLine(t, stdout)); form == nil || form[3] != "my-model" {
		t.Errorf("the banner is %s", stdout)
	}
	list, err := devAPI(t, stdout).List(t.Context(), "backends", false)
	if err != nil || len(list.Items) != 1 || !strings.Contains(string(list.Items[0].Content), url) {
		t.Errorf("the backends are %+v, %v", list.Items, err)
	}
}
