package app_test

import (
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/ai-aas/api-router/internal/app"
	"github.com/ai-aas/api-router/internal/policy"
	"github.com/ai-aas/api-router/test/ports"
)

// local is what doctor --local says of the process behind an address.
func local(t *testing.T, address string, ready bool) (string, error) {
	t.Helper()
	var out strings.Builder
	err := app.DoctorLocal(t.Context(), &out, app.Sources{Env: map[string]string{"API_ROUTER_LISTEN_PUBLIC": address}}, ready)
	if err != nil && !errors.Is(err, app.ErrFound) {
		t.Errorf("%s: %v", address, err)
	}
	return out.String(), err
}

func TestTheLocalDoctorIsContentWithAProcessThatServes(t *testing.T) {
	p := run(t, options(t, policy.StaticSource("test")))
	_, port, err := net.SplitHostPort(p.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, address := range []string{"127.0.0.1:" + port, ":" + port, "0.0.0.0:" + port, "localhost:" + port} {
		out, err := local(t, address, true)
		if err != nil || !strings.Contains(out, "ok    alive") || !strings.Contains(out, "ok    ready") || strings.Count(out, "\n") != 2 {
			t.Errorf("%s: got %v:\n%s", address, err, out)
		}
	}
}

func TestTheLocalDoctorTellsNotReadyFromNotAlive(t *testing.T) {
	o := options(t, nil)
	o.Config.Policy.File.Path = t.TempDir() + "/absent"
	a, err := app.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := contextFor(t)
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	defer func() { cancel(); <-done }()
	address := a.Addr().String()
	if out, err := local(t, address, false); err != nil || !strings.Contains(out, "ok    alive") || !strings.Contains(out, "warn  ready") ||
		!strings.Contains(out, "says starting") {
		t.Errorf("alive and not ready: got %v:\n%s", err, out)
	}
	if out, err := local(t, address, true); err == nil || !strings.Contains(out, "fail  ready") {
		t.Errorf("alive and not ready, where ready was asked for: got %v:\n%s", err, out)
	}
}

func TestTheLocalDoctorFindsThatNobodyIsThere(t *testing.T) {
	other := httptest.NewServer(http.NotFoundHandler())
	defer other.Close()
	for name, test := range map[string]struct{ address, want string }{
		"nobody":          {ports.Dead(t), "does not answer"},
		"another program": {other.Listener.Addr().String(), "answers 404"},
		"any port":        {"127.0.0.1:0", "names no port"},
		"nobody on IPv6":  {"[::]:1", "http://[::1]:1 does not answer"},
	} {
		out, err := local(t, test.address, false)
		if err == nil || !strings.Contains(out, "fail  alive") || !strings.Contains(out, test.want) || strings.Count(out, "\n") != 1 {
			t.Errorf("%s: got %v:\n%s", name, err, out)
		}
	}
}

func TestTheLocalDoctorDoesNotWaitForAProcessThatHangs(t *testing.T) {
	begun := time.Now()
	out, err := local(t, taken(t), false) // It accepts and says nothing.
	if err == nil || !strings.Contains(out, "does not answer") {
		t.Errorf("got %v:\n%s", err, out)
	}
	if took := time.Since(begun); took > 20*time.Second {
		t.Errorf("it took %s; two seconds are promised", took)
	} else {
		t.Logf("gave up after %s (promised 2s)", took.Round(time.Millisecond))
	}
}

func TestTheLocalDoctorAsksOnThoughTheConfigurationHasBecomeWrong(t *testing.T) {
	p := run(t, options(t, policy.StaticSource("test")))
	config := write(t, "config.yaml", "listen: { public: \""+p.Addr().String()+"\" }\nlog: { level: loud }\n")
	var out strings.Builder
	err := app.DoctorLocal(t.Context(), &out, app.Sources{File: config}, false)
	if err != nil || !strings.Contains(out.String(), "warn  configuration") || !strings.Contains(out.String(), "ok    alive") {
		t.Errorf("got %v:\n%s", err, out.String())
	}
}
