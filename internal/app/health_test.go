package app_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ai-aas/api-router/internal/adminapi"
	"github.com/ai-aas/api-router/internal/app"
	"github.com/ai-aas/api-router/internal/simengine"
	"github.com/ai-aas/api-router/internal/telemetry"
	"github.com/ai-aas/api-router/test/ports"
)

// component is the first of that name and id.
func component(h adminapi.Health, name, id string) adminapi.Component {
	at := slices.IndexFunc(h.Components, func(c adminapi.Component) bool { return c.Name == name && c.ID == id })
	if at < 0 {
		return adminapi.Component{}
	}
	return h.Components[at]
}

func TestTheStatusTellsOfEveryComponentAndWhatToDo(t *testing.T) {
	o := administered(t, stateFlags(t), write(t, "token", token+"\n"))
	sink := filepath.Join(t.TempDir(), "folder", "usage.jsonl")
	o.Config.Usage.Sinks = append(o.Config.Usage.Sinks, app.Sink{Type: "jsonl", Path: sink})
	o.Config.Identity.AdminTokens = append(o.Config.Identity.AdminTokens, app.AdminToken{Name: "gone", Role: adminapi.RoleViewer, Token: reference(t, "env:NOT_SET_ANYWHERE")})
	overwrite(t, filepath.Dir(sink), "in the way")
	p := run(t, o)
	api := operator(t, p, token)
	good := simulated(t, simengine.Config{Speed: 100})
	dead := "http://" + ports.Dead(t)
	for path, document := range map[string]string{"good": "url: " + good, "dead": "url: " + dead, "mute": "url: " + good + "\napi_key: env:NOT_SET_ANYWHERE"} {
		if _, err := api.Put(t.Context(), "backends", path, []byte(document), adminapi.If{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := api.Put(t.Context(), "policies", "p", []byte("model: m\nbackends: [ { id: good } ]"), adminapi.If{}); err != nil {
		t.Fatal(err)
	}
	if _, err := api.Mark(t.Context(), adminapi.MarkRequest{Backend: "good", State: "degraded", Reason: "slow fans"}); err != nil {
		t.Fatal(err)
	}
	var h adminapi.Health
	within(t, "the dead backend is known, and the mark", func() bool {
		var err error
		h, err = api.Status(t.Context())
		return err == nil && component(h, "backend", "dead").State == "unhealthy" && component(h, "marks", "").State == "1 in force" &&
			component(h, "metrics_listener", o.Config.Listen.Metrics).OK && component(h, "backend", "good").AgeSeconds != nil
	})
	if h.State != adminapi.StateReady || h.Version != "test" || h.UptimeSeconds <= 0 || h.Since.IsZero() {
		t.Errorf("%+v", h)
	}
	for _, tc := range []struct {
		name, id, state string
		ok, todo        bool
		says            string // in its error, its detail or what to do
	}{
		{"process", "", "ready", true, false, "version test"},
		{"policy", "", "loaded", true, false, "1 policies and 3 backends"},
		{"policy_source", "state", "open", true, false, ""},
		{"backend", "good", "available", true, false, "marked degraded"},
		{"backend", "dead", "unhealthy", false, true, "start it, or correct its url"},
		{"backend", "mute", "no secret", false, true, "NOT_SET_ANYWHERE"},
		{"marks", "", "1 in force", true, false, "backend good is degraded: slow fans"},
		{"usage_sink", sink, "failing", false, true, "make the file writable"},
		{"body_memory", "", "free", true, false, "MiB in use"},
		{"admin_token", "", "read", true, false, "1 of 2 can be read"},
		{"metrics_listener", o.Config.Listen.Metrics, "open", true, false, "/metrics at 127.0.0.1:"},
		{"admin_token", "gone", "unreadable", false, true, "NOT_SET_ANYWHERE"},
	} {
		c := component(h, tc.name, tc.id)
		if c.State != tc.state || c.OK != tc.ok || (c.Action != "") != tc.todo || !strings.Contains(c.LastError+c.Detail+c.Action, tc.says) {
			t.Errorf("%s %s: %+v", tc.name, tc.id, c)
		}
		if !c.OK && c.Since.IsZero() {
			t.Errorf("%s %s does not say since when", tc.name, tc.id)
		}
	}
	todo := 0
	for _, c := range h.Components {
		if c.Action != "" {
			todo++
		}
		if c.OK && c.Action != "" {
			t.Errorf("%s %s is as it should be, and there is something to do: %s", c.Name, c.ID, c.Action)
		}
	}
	if h.Attention != todo || todo != 4 {
		t.Errorf("%d need a person, and %d say what to do", h.Attention, todo)
	}

	if err := os.Remove(filepath.Dir(sink)); err != nil {
		t.Fatal(err)
	}
	within(t, "the sink is mended", func() bool {
		h, err := api.Status(t.Context())
		return err == nil && component(h, "usage_sink", sink).OK
	})
}

func TestThePublicStatusTellsOutsidersNoAddressAndNoName(t *testing.T) {
	o := administered(t, stateFlags(t), write(t, "token", token+"\n"))
	p := run(t, o)
	api := operator(t, p, token)
	if _, err := api.Put(t.Context(), "backends", "secret-project", []byte("url: http://"+ports.Dead(t)), adminapi.If{}); err != nil {
		t.Fatal(err)
	}
	within(t, "the backend is unhealthy", func() bool {
		h, err := api.Status(t.Context())
		return err == nil && component(h, "backend", "secret-project").State == "unhealthy"
	})
	_, body := get(t, client(t), p.base+"/v1/status/readyz")
	var report struct {
		Components []struct{ Name, State string }
	}
	if err := json.Unmarshal([]byte(body), &report); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, c := range report.Components {
		names = append(names, c.Name)
	}
	if !slices.Equal(names, []string{"policy", "backends", "usage", "state"}) || strings.Contains(body, "127.0.0.1") || strings.Contains(body, "secret-project") {
		t.Errorf("%s", body)
	}
	if status, _ := get(t, client(t), p.base+"/status"); status != http.StatusNotFound {
		t.Errorf("the public listener answers /status with %d", status)
	}
}

func TestAReloadDoesNotUndoALogLevel(t *testing.T) {
	o := administered(t, stateFlags(t), write(t, "token", token+"\n"))
	reload, level, log := make(chan struct{}), new(slog.LevelVar), new(syncBuffer)
	o.Reload, o.Level = reload, level
	o.Logger = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: level}))
	p := run(t, o)
	api := operator(t, p, token)
	if got, err := api.LogLevel(t.Context()); err != nil || got.Level != "info" || got.Actor != "" {
		t.Fatalf("%+v %v", got, err)
	}
	if _, err := api.SetLogLevel(t.Context(), adminapi.LogLevelRequest{Level: "debug"}); err != nil {
		t.Fatal(err)
	}
	reload <- struct{}{}
	within(t, "the reload", func() bool { return strings.Contains(log.String(), "reloading") })
	if got, err := api.LogLevel(t.Context()); err != nil || got.Level != "debug" || level.Level() != slog.LevelDebug {
		t.Errorf("%+v %v", got, err)
	}
	if !strings.Contains(log.String(), `msg="the log level was set" actor=olga from=info to=debug`) {
		t.Errorf("%s", log)
	}
}

func TestAMetricsListenerThatIsNotOpenNeedsAPerson(t *testing.T) {
	o := administered(t, stateFlags(t), write(t, "token", token+"\n"))
	o.Config.Listen.Metrics = taken(t)
	p := run(t, o)
	api := operator(t, p, token)
	within(t, "it says so", func() bool {
		h, err := api.Status(t.Context())
		c := component(h, "metrics_listener", o.Config.Listen.Metrics)
		return err == nil && c.State == "failing" && strings.Contains(c.LastError, "another process") && strings.Contains(c.Action, "listen.metrics") && !c.Since.IsZero()
	})
	o.Config.Listen.Metrics = ""
	o.Config.State.URL = stateFlags(t)["state.url"]
	off := run(t, o)
	h, err := operator(t, off, token).Status(t.Context())
	if c := component(h, "metrics_listener", ""); err != nil || c.State != "off" || !c.OK {
		t.Errorf("%+v %v", c, err)
	}
}

func TestASourceThatWasNeverReadHasToldNothing(t *testing.T) {
	o := administered(t, map[string]string{"policy.source": "etcd", "policy.etcd.endpoints": "http://" + ports.Dead(t), "policy.last_good": ""}, write(t, "token", token+"\n"))
	api := operator(t, launch(t, o), token)
	var c adminapi.Component
	within(t, "it says that it fails", func() bool {
		h, err := api.Status(t.Context())
		c = component(h, "policy_source", "etcd")
		return err == nil && c.State == "failing"
	})
	if !c.DataAsOf.IsZero() || c.AgeSeconds != nil {
		t.Errorf("its data is as of %s", c.DataAsOf)
	}
	if strings.Contains(c.Action, "in force") || !strings.HasPrefix(c.Action, "Requests get 503 until it can be read") {
		t.Errorf("%s", c.Action)
	}
}

func TestAStateBookBesideDocumentsElsewhereTellsOfItself(t *testing.T) {
	file := filepath.Join(t.TempDir(), "state.db")
	o := administered(t, map[string]string{
		"policy.source": "file", "policy.file.path": t.TempDir(), "policy.last_good": "", "state.url": "sqlite://" + file, "identity.order": "state",
		"identity.peppers": "file:" + write(t, "pepper", "a pepper of thirty-two bytes or so\n"),
	}, write(t, "token", token+"\n"))
	p := launch(t, o)
	api := operator(t, p, token)
	state := func(want string) {
		t.Helper()
		var c adminapi.Component
		within(t, "the book is "+want, func() bool {
			h, err := api.Status(t.Context())
			c = component(h, "state_book", "state")
			return err == nil && c.State == want
		})
		if c.OK != (want == "open") || (c.Action == "") != c.OK || (c.LastError == "") != c.OK {
			t.Errorf("%+v", c)
		}
	}
	state("open")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	state("failing")
}

func TestTelemetryThatCannotBeSentAsAskedNeedsAPerson(t *testing.T) {
	o := administered(t, stateFlags(t), write(t, "token", token+"\n"))
	o.Telemetry = telemetry.New(telemetry.Options{Logger: slog.New(slog.DiscardHandler), Gatherer: telemetry.NewRegistry("test"), Env: map[string]string{
		"OTEL_EXPORTER_OTLP_ENDPOINT": "http://" + ports.Dead(t), "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "morse", "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "grpc", "OTEL_LOGS_EXPORTER": "none",
	}})
	t.Cleanup(func() { _ = o.Telemetry.Stop(context.Background()) }) // Nothing takes what is left.
	p := run(t, o)
	h, err := operator(t, p, token).Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]adminapi.Component{
		"traces":  {State: "off", LastError: "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL has no usable value: it is neither grpc nor http/protobuf", Action: "correct the variable"},
		"metrics": {State: "idle", OK: true},
		"logs":    {State: "off", OK: true, Detail: "OTEL_LOGS_EXPORTER"},
	} {
		c := component(h, "telemetry", id)
		if c.State != want.State || c.OK != want.OK || c.LastError != want.LastError || (c.Action == "") != (want.Action == "") ||
			!strings.Contains(c.Action, want.Action) || !strings.Contains(c.Detail, want.Detail) {
			t.Errorf("%s: %+v", id, c)
		}
	}
}
