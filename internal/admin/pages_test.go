package admin

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ai-aas/api-router/internal/adminapi"
	"github.com/ai-aas/api-router/internal/fault"
	"github.com/ai-aas/api-router/internal/usage"
)

func basic(password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte("anybody:"+password))
}

func TestPagesTakeATokenAsAPasswordAndTheAPIDoesNot(t *testing.T) {
	h := newHouse(t)
	for name, tc := range map[string]struct {
		path, authorization string
		want                fault.Code
		challenge           string
	}{
		"the page":                      {"/", basic(secrets[adminapi.RoleViewer]), "", ""},
		"the page, as a program":        {"/", "Bearer " + secrets[adminapi.RoleViewer], "", ""},
		"its parts":                     {"/console/live", basic(secrets[adminapi.RoleViewer]), "", ""},
		"its style":                     {"/console/style.css", basic(secrets[adminapi.RoleViewer]), "", ""},
		"the status":                    {"/status", basic(secrets[adminapi.RoleAdmin]), "", ""},
		"profiles, as an operator":      {"/debug/pprof/goroutine", basic(secrets[adminapi.RoleOperator]), "", ""},
		"profiles, as a viewer":         {"/debug/pprof/goroutine", basic(secrets[adminapi.RoleViewer]), fault.PermissionDenied, ""},
		"a wrong password":              {"/", basic("viewer-token-012345678"), fault.InvalidAPIKey, "Basic"},
		"an empty password":             {"/", basic(""), fault.InvalidAPIKey, "Basic"},
		"nothing":                       {"/", "", fault.MissingAPIKey, "Basic"},
		"another scheme":                {"/", "Digest x", fault.InvalidAPIKey, "Basic"},
		"no base64":                     {"/", "Basic %%%", fault.InvalidAPIKey, "Basic"},
		"the API":                       {adminapi.Prefix + "/fleet", basic(secrets[adminapi.RoleAdmin]), fault.InvalidAPIKey, "Bearer"},
		"the API's status":              {adminapi.Prefix + "/status", basic(secrets[adminapi.RoleAdmin]), fault.InvalidAPIKey, "Bearer"},
		"a path where there is nothing": {"/console/", basic(secrets[adminapi.RoleAdmin]), fault.InvalidAPIKey, "Bearer"},
	} {
		t.Run(name, func(t *testing.T) {
			var headers []string
			if tc.authorization != "" {
				headers = []string{"Authorization", tc.authorization}
			}
			got := h.send("", http.MethodGet, tc.path, "", headers...)
			challenge, _, _ := strings.Cut(got.Header.Get("WWW-Authenticate"), " ")
			if fault.Code(got.code()) != tc.want || challenge != tc.challenge {
				t.Errorf("%d %q %s", got.StatusCode, got.Header.Get("WWW-Authenticate"), got.body)
			}
		})
	}
	slowed(t, func() response { return h.send("", http.MethodGet, "/", "", "Authorization", basic("wrong")) })
}

func TestPagesHaveAPolicyOfContentWithoutAnythingInline(t *testing.T) {
	h := newHouse(t)
	got := h.send(adminapi.RoleViewer, http.MethodGet, "/", "")
	for name, want := range map[string]string{
		"Content-Security-Policy": pagePolicy, "Content-Type": "text/html; charset=utf-8", "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store",
	} {
		if got.Header.Get(name) != want {
			t.Errorf("%s: %q", name, got.Header.Get(name))
		}
	}
	if strings.Contains(pagePolicy, "unsafe") || strings.Contains(pagePolicy, "data:") || !strings.Contains(pagePolicy, "form-action 'none'") {
		t.Error(pagePolicy)
	}
}

func TestThePageShowsWhatIsInForce(t *testing.T) {
	h := newHouse(t)
	h.furnish()
	_, err := h.client(adminapi.RoleOperator).Mark(t.Context(), adminapi.MarkRequest{Backend: "b", State: "draining", Reason: `<b>"new" GPUs</b>`})
	must(t, err)
	h.settle()
	h.record.Close(&usage.Record{
		RequestID: "req-1", TraceID: "4bf92f3577b34da6a3ce929d0e0e4736", Start: time.Now(), Model: "<i>m</i>", Backend: "a", Decision: "PRIMARY", Attempts: 1, Status: 200,
		PromptTokens: 11, CompletionTokens: 22, TTFTMillis: 33, LatencyMillis: 44,
	})
	for _, path := range []string{"/", "/console/live"} {
		page := string(h.send(adminapi.RoleViewer, http.MethodGet, path, "").body)
		for _, want := range []string{
			"http://127.0.0.1:9001", "from-the-environment", "<b>m</b>", "also alias", "tier 1", "backend b", "the-operator",
			"&lt;b&gt;&#34;new&#34; GPUs&lt;/b&gt;", "req-1", "4bf92f3577b34da6a3ce929d0e0e4736", "&lt;i&gt;m&lt;/i&gt;", "11 / 22", "33 ms", "44 ms",
		} {
			if !strings.Contains(page, want) {
				t.Errorf("%s does not have %q", path, want)
			}
		}
		if strings.Contains(page, "<i>m</i>") || strings.Contains(page, "<b>&#34;") || strings.Contains(page, `<b>"new"`) {
			t.Errorf("%s has markup out of a document", path)
		}
	}
}

func TestTheStatusIsTheSameInTheAPIAndBesideIt(t *testing.T) {
	age := 2.5
	health := adminapi.Health{State: "ready", Version: "v1", At: time.Now().UTC(), Since: time.Now().UTC(), Attention: 1, Components: []adminapi.Component{
		{Name: "backend", ID: "a", State: "unhealthy", LastError: "refused", Since: time.Now().UTC(), DataAsOf: time.Now().UTC(), AgeSeconds: &age, Action: "start it"},
	}}
	h := newHouse(t, func(o *Options) { o.Health = func() adminapi.Health { return health } })
	one, two := h.send(adminapi.RoleViewer, http.MethodGet, "/status", ""), h.send(adminapi.RoleViewer, http.MethodGet, adminapi.Prefix+"/status", "")
	if !bytes.Equal(one.body, two.body) || !json.Valid(one.body) || one.Header.Get("Content-Type") != "application/json" {
		t.Errorf("%s\n%s", one.body, two.body)
	}
	got, err := h.client(adminapi.RoleViewer).Status(t.Context())
	must(t, err)
	if got.Attention != 1 || len(got.Components) != 1 || got.Components[0].Action != "start it" || *got.Components[0].AgeSeconds != age {
		t.Errorf("%+v", got)
	}
}

func TestAPageTellsABrowsersUserWhereTheTokenGoes(t *testing.T) {
	h := newHouse(t)
	for name, headers := range map[string][]string{
		"nothing":                     nil,
		"the token as the user name":  {"Authorization", "Basic " + base64.StdEncoding.EncodeToString([]byte(secrets[adminapi.RoleViewer]+":"))},
		"a password that is no token": {"Authorization", basic("wrong")},
	} {
		if got := h.send("", http.MethodGet, "/", "", headers...); !strings.Contains(string(got.body), "as the password") {
			t.Errorf("%s: %s", name, got.body)
		}
		if got := h.send("", http.MethodGet, adminapi.Prefix+"/fleet", "", headers...); strings.Contains(string(got.body), "password") {
			t.Errorf("%s, to the API: %s", name, got.body)
		}
	}
}

func TestTheLogLevelIsReadStrictly(t *testing.T) {
	h := newHouse(t)
	for body, want := range map[string]int{
		`{"level":"debug","for":"10m"}`: 200, `{"level":"WARN"}`: 200, `{"level":"error"}`: 200,
		`{"level":"loud"}`: 400, `{}`: 400, `{"level":"debug","for":"-1s"}`: 400, `{"level":"debug","for":"169h"}`: 400, `{"level":"debug","for":"soon"}`: 400,
		`{"level":"debug","until":"x"}`: 400, `{"level":"debug","for":"0s"}`: 400,
	} {
		if got := h.send(adminapi.RoleOperator, http.MethodPut, adminapi.Prefix+"/log-level", body); got.StatusCode != want {
			t.Errorf("%s: %d %s", body, got.StatusCode, got.body)
		}
	}
	set, err := h.client(adminapi.RoleOperator).SetLogLevel(t.Context(), adminapi.LogLevelRequest{Level: "debug", For: adminapi.Duration(time.Minute)})
	must(t, err)
	if set.Level != "debug" || set.Actor != "the-operator" || set.Until.IsZero() {
		t.Errorf("%+v", set)
	}
}

func TestProfilesAreWhatGoToolsRead(t *testing.T) {
	h := newHouse(t)
	gzip := []byte{0x1f, 0x8b}
	for path, begins := range map[string][]byte{
		"profile?seconds=1": gzip, "block?seconds=1": gzip, "mutex?seconds=1": gzip, "heap": gzip, "heap?gc=1": gzip, "allocs": gzip, "goroutine": gzip, "threadcreate": gzip,
		"trace?seconds=1": []byte("go 1."), "goroutine?debug=2": []byte("goroutine "), "goroutine?debug=1": []byte("goroutine profile"), "": []byte("<!doctype html>"),
	} {
		got := h.send("", http.MethodGet, "/debug/pprof/"+path, "", "Authorization", basic(secrets[adminapi.RoleOperator]))
		if got.StatusCode != http.StatusOK || !bytes.HasPrefix(got.body, begins) {
			t.Errorf("%s: %d %.80q", path, got.StatusCode, got.body)
		}
	}
	for _, path := range []string{"profile?seconds=61", "profile?seconds=0", "profile?seconds=x", "trace?seconds=-1", "heap?debug=3", "heap?seconds=1", "heap?gc=yes", "profile?debug=1"} {
		if got := h.send(adminapi.RoleOperator, http.MethodGet, "/debug/pprof/"+path, ""); got.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: %d %s", path, got.StatusCode, got.body)
		}
	}
	if got := h.send(adminapi.RoleOperator, http.MethodGet, "/debug/pprof/heap", "", "Sec-Fetch-Site", "cross-site"); got.code() != string(fault.PermissionDenied) {
		t.Errorf("for a page of another site: %d %s", got.StatusCode, got.body)
	}
}

func TestOneProfileIsRecordedAtATime(t *testing.T) {
	h := newHouse(t)
	client := &http.Client{}
	defer client.CloseIdleConnections()
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, h.url+"/debug/pprof/profile?seconds=60", http.NoBody)
	must(t, err)
	r.Header.Set("Authorization", basic(secrets[adminapi.RoleOperator]))
	var running sync.WaitGroup
	running.Go(func() { // It lasts until the others have been refused.
		if answer, err := client.Do(r); err == nil {
			_ = answer.Body.Close()
		}
	})
	eventually(t, "the first is being recorded", func() bool { return h.profile.until.Load() != 0 })
	for _, kind := range []string{"profile", "trace", "mutex"} {
		got := h.send(adminapi.RoleOperator, http.MethodGet, "/debug/pprof/"+kind+"?seconds=1", "")
		if got.StatusCode != http.StatusTooManyRequests || got.Header.Get("Retry-After") == "" || !strings.Contains(string(got.body), "one at a time") {
			t.Errorf("the second, %s: %d %s", kind, got.StatusCode, got.body)
		}
	}
	leave()
	running.Wait()
	eventually(t, "the first has ended", func() bool { return h.profile.until.Load() == 0 })
	if got := h.send(adminapi.RoleOperator, http.MethodGet, "/debug/pprof/block?seconds=1", ""); got.StatusCode != http.StatusOK {
		t.Errorf("the next: %d %s", got.StatusCode, got.body)
	}
}

// dated keeps the latest deadlines that a request was given.
type dated struct {
	http.ResponseWriter

	read, write time.Time
}

func (d *dated) SetReadDeadline(at time.Time) error { d.read = at; return nil }

func (d *dated) SetWriteDeadline(at time.Time) error { d.write = at; return nil }

func TestDeadlinesLetTheLongestProfileBeRecorded(t *testing.T) {
	h := newHouse(t)
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/debug/pprof/profile?seconds=1", http.NoBody)
	r.Header.Set("Authorization", basic(secrets[adminapi.RoleOperator]))
	w := &dated{ResponseWriter: httptest.NewRecorder()}
	begun := time.Now()
	h.ServeHTTP(w, r)
	if least := begun.Add(time.Second + profileSlack); w.read.Before(least) || w.write.Before(time.Now().Add(writeTimeout/2)) {
		t.Errorf("after %s, reading ends %s and writing %s after the beginning", time.Since(begun), w.read.Sub(begun), w.write.Sub(begun))
	}
}

func TestAProfileEndsWithItsClient(t *testing.T) {
	h := newHouse(t)
	client := &http.Client{Timeout: 100 * time.Millisecond}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, h.url+"/debug/pprof/profile?seconds=60", http.NoBody)
	must(t, err)
	r.Header.Set("Authorization", basic(secrets[adminapi.RoleOperator]))
	if _, err := client.Do(r); err == nil {
		t.Fatal("it was answered")
	}
	client.CloseIdleConnections()
	eventually(t, "the profile has ended", func() bool { return h.profile.until.Load() == 0 })
}

func TestLookingAtThePageDoesNotFillTheLog(t *testing.T) {
	h := newHouse(t)
	for range 3 {
		_ = h.send(adminapi.RoleViewer, http.MethodGet, "/console/live", "")
	}
	_ = h.send(adminapi.RoleViewer, http.MethodGet, "/", "")
	eventually(t, "the page's line", func() bool { return strings.Contains(h.log.String(), `"route":"GET /"`) })
	if strings.Contains(h.log.String(), "/console/live") {
		t.Errorf("%s", h.log)
	}
}
