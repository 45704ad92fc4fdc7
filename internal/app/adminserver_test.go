package app_test

import (
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ai-aas/api-router/internal/adminapi"
	"github.com/ai-aas/api-router/internal/app"
	"github.com/ai-aas/api-router/internal/simengine"
)

const token = "0123456789abcdef0123456789abcdef"

// administered are options with an admin listener for the bearer of the token in file.
func administered(t *testing.T, flags map[string]string, file string) app.Options {
	t.Helper()
	o := placed(t, flags)
	o.Config.Listen.Admin = "127.0.0.1:0"
	o.Config.Identity.AdminTokens = []app.AdminToken{{Name: "olga", Role: adminapi.RoleAdmin, Token: reference(t, "file:"+file)}}
	return o
}

func operator(t *testing.T, p *process, token string) *adminapi.Client {
	t.Helper()
	c, err := adminapi.New(adminapi.Options{Server: "http://" + p.AdminAddr().String(), Token: token})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// refused is the code of an answer of the admin API.
func refused(err error) string {
	if answer, ok := errors.AsType[*adminapi.Error](err); ok {
		return answer.Code
	}
	return "no answer"
}

func TestAnOperatorRoutesAndSwitchesOffThroughTheAdminListener(t *testing.T) {
	o := administered(t, stateFlags(t), write(t, "token", token+"\n"))
	log := new(syncBuffer)
	o.Logger = log.logger()
	p := run(t, o)
	api := operator(t, p, token)
	url := simulated(t, simengine.Config{Speed: 100})
	for _, document := range [][2]string{{"backends", "url: " + url}, {"policies", "model: gpt-oss-20b\nbackends: [ { id: one } ]"}} {
		if _, err := api.Put(t.Context(), document[0], "one", []byte(document[1]), adminapi.If{}); err != nil {
			t.Fatal(err)
		}
	}
	within(t, "the policy", func() bool { return routes(t, p.base) == "one" })
	if _, err := api.Mark(t.Context(), adminapi.MarkRequest{Model: "gpt-oss-20b", State: "disabled", Reason: "a test"}); err != nil {
		t.Fatal(err)
	}
	within(t, "the kill switch", func() bool { return routes(t, p.base) == "model_disabled" })
	decisions, err := api.Decisions(t.Context(), 1)
	if err != nil || len(decisions.Items) != 1 || decisions.Items[0].Code != "model_disabled" {
		t.Errorf("the last decision is %+v, %v", decisions.Items, err)
	}
	if fleet, err := api.Fleet(t.Context()); err != nil || len(fleet.Backends) != 1 {
		t.Errorf("the fleet is %+v, %v", fleet, err)
	}
	if _, err := operator(t, p, token[1:]).Fleet(t.Context()); refused(err) != "invalid_api_key" {
		t.Errorf("another token gives %v", err)
	}
	if status, _ := get(t, client(t), p.base+"/admin/v1/fleet"); status != http.StatusNotFound {
		t.Errorf("the public listener answers the admin API's path with %d", status)
	}
	if strings.Contains(log.String(), token) {
		t.Error("the log holds the token")
	}
	p.end()
	if err := p.wait(t); err != nil {
		t.Error(err)
	}
	if _, err := api.Fleet(t.Context()); err == nil {
		t.Error("the admin listener outlived the process")
	}
}

func TestAnAdminTokenThatCannotBeReadDoesNotWork(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	o := administered(t, stateFlags(t), file)
	log := new(syncBuffer)
	o.Logger = log.logger()
	p := run(t, o)
	api := operator(t, p, token)
	if _, err := api.Fleet(t.Context()); refused(err) != "invalid_api_key" {
		t.Errorf("got %v", err)
	}
	if got := log.String(); !strings.Contains(got, "an admin token does not work") || !strings.Contains(got, "name=olga") {
		t.Errorf("the log says %s", got)
	}
}

func TestAClosedAdminListener(t *testing.T) {
	o := placed(t, stateFlags(t))
	o.Config.Listen.Admin = taken(t) // Nobody wants it.
	if p := run(t, o); p.AdminAddr() != nil {
		t.Errorf("without a token it is open at %s", p.AdminAddr())
	}
	o = administered(t, stateFlags(t), write(t, "token", token))
	o.Config.Listen.Admin = taken(t)
	_, err := app.New(o)
	if err == nil {
		t.Fatal("the port was opened twice")
	}
	for _, part := range []string{o.Config.Listen.Admin, "listen.admin", "API_ROUTER_LISTEN_ADMIN", "--admin-listen", "another process"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not name %q", err, part)
		}
	}
}

func TestTheAdminListenerCanBeUsedWhileThePublicOneDrains(t *testing.T) {
	o := administered(t, stateFlags(t), write(t, "token", token))
	force := graceful(&o)
	p := run(t, o)
	p.end()
	eventually(t, "the drain", func() bool {
		status, _ := get(t, client(t), p.base+"/readyz")
		return status == http.StatusServiceUnavailable
	})
	if _, err := operator(t, p, token).Fleet(t.Context()); err != nil {
		t.Errorf("while draining: %v", err)
	}
	force()
}

func TestAFileSourceIsReadOnlyForOperators(t *testing.T) {
	o := administered(t, map[string]string{"policy.source": "file"}, write(t, "token", token))
	o.Config.Policy.File.Path = write(t, "policies.yaml", sprintf(documentsOf, "http://localhost:1", "m"))
	api := operator(t, run(t, o), token)
	if list, err := api.List(t.Context(), "policies", false); err != nil || len(list.Items) != 1 {
		t.Errorf("got %+v, %v", list, err)
	}
	_, err := api.Delete(t.Context(), "policies", "global", adminapi.If{})
	if answer, ok := errors.AsType[*adminapi.Error](err); !ok || answer.Status != http.StatusMethodNotAllowed || !strings.Contains(answer.Message, "policies.yaml") {
		t.Errorf("got %v", err)
	}
}

func TestDevOpensItsAdminListenerWithoutATokenAndWhereThereIsRoom(t *testing.T) {
	data := t.TempDir()
	busy := taken(t)
	stdout, stderr, _ := devUntil(t, app.DevOptions{Data: data, AdminListen: busy})
	lastLine(t, stdout)
	_, rest, _ := strings.Cut(stdout.String(), "--server http://localhost")
	_, port, err := net.SplitHostPort(strings.Fields(rest)[0])
	if err != nil || !strings.Contains(stderr.String(), "it takes a free one") {
		t.Fatalf("the banner is %s, and the log %s", stdout, stderr)
	}
	api, err := adminapi.New(adminapi.Options{Server: "http://127.0.0.1:" + port})
	if err != nil {
		t.Fatal(err)
	}
	list, err := api.List(t.Context(), "backends", false)
	if err != nil || len(list.Items) != 3 {
		t.Errorf("got %+v, %v", list, err)
	}
	if _, err := os.Stat(filepath.Join(data, "state.db")); err != nil {
		t.Error(err)
	}
}
