package gateway_test

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ai-aas/api-router/internal/policy"
)

// pair routes m to b0 and then b1, with n at b2 as its fallback model.
const pair = `
kind: RoutingPolicy
id: internal-policy
model: m
aliases: [alias]
fallback_models: [n]
retry: { attempts: 5, backoff: 1ms }
backends: [{ id: b0 }, { id: b1, tier: 1 }]
---
kind: RoutingPolicy
id: internal-other
model: n
backends: [{ id: b2 }]
`

// named answers with the backend's name.
func named(t *testing.T, name string) *script {
	return play(t, func(conn net.Conn, request string) {
		if strings.Contains(request, `"stream":true`) {
			_, _ = io.WriteString(conn, streamed(opening, delta(name), finish, done)+lastChunk)
			return
		}
		_, _ = io.WriteString(conn, plain(200, "application/json", `{"from":"`+name+`"}`))
	})
}

// three starts a router in front of three backends that say who they are.
func three(t *testing.T, set setting) *house {
	t.Helper()
	set.documents = pair
	return build(t, set, named(t, "b0").URL, named(t, "b1").URL, named(t, "b2").URL)
}

// held is a backend whose streams begin at once and end when they are let go. What it gets first it answers, the rest too.
func held(t *testing.T, begin string) (backend *script, letGo func()) {
	t.Helper()
	release := make(chan struct{})
	backend = play(t, func(conn net.Conn, _ string) {
		_, _ = io.WriteString(conn, begin)
		<-release
		for _, event := range []string{delta("b"), finish, done} {
			_, _ = io.WriteString(conn, chunk(event))
		}
		_, _ = io.WriteString(conn, lastChunk)
	})
	letGo = sync.OnceFunc(func() { close(release) })
	t.Cleanup(letGo) // Before the backend waits for its connections.
	return backend, letGo
}

func chunk(event string) string {
	return strings.TrimPrefix(streamed(event), streamed())
}

// begun sends a request for a stream and reads its first events.
func begun(t *testing.T, h *house) *http.Response {
	t.Helper()
	resp := h.post("/v1/chat/completions", streamChat)
	got := make([]byte, len(opening+delta("a")))
	if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != opening+delta("a") {
		t.Fatalf("%v after %q", err, got)
	}
	return resp
}

// refused fails the test unless resp is a model_disabled that holds no internal name, and returns its message.
func refused(t *testing.T, resp *http.Response) string {
	t.Helper()
	code, param, message := refusal(t, resp)
	if resp.StatusCode != 503 || code != "model_disabled" || param != "model" || resp.Header.Get("X-Should-Retry") != "false" {
		t.Errorf("%d %s %s %q %v", resp.StatusCode, code, param, message, resp.Header)
	}
	for _, name := range []string{"internal", "b0", "b1", "b2", "127.0.0.1"} {
		if strings.Contains(message, name) {
			t.Errorf("the message holds %s: %s", name, message)
		}
	}
	return message
}

func TestAKillSwitchRefusesWhatIsNewAndLetsWhatRunsFinish(t *testing.T) {
	backend, letGo := held(t, streamed(opening, delta("a")))
	h := build(t, setting{}, backend.URL)
	running := begun(t, h)
	h.mark(policy.Mark{Model: "m", State: policy.Disabled, Reason: "it leaks"})
	for _, request := range []string{chat, streamChat, strings.Replace(chat, `"m"`, `"alias"`, 1)} {
		resp := h.post("/v1/chat/completions", request)
		want := `model "m" is switched off (reason: it leaks); use another model`
		if strings.Contains(request, "alias") {
			want = strings.Replace(want, `"m"`, `"alias"`, 1)
		}
		if got := refused(t, resp); got != want {
			t.Errorf("got %s", got)
		}
	}
	letGo()
	if rest := body(t, running); rest != delta("b")+finish+done {
		t.Errorf("the running stream goes on with %q", rest)
	}
	if n := len(backend.bodies()); n != 1 {
		t.Errorf("the backend got %d requests", n)
	}
	for n, rec := range []string{h.closed(1).Code, h.closed(2).Code, h.closed(3).Code} {
		if rec != "model_disabled" {
			t.Errorf("record %d has code %q", n+1, rec)
		}
	}
	if rec := h.closed(4); rec.StopReason != "done" || rec.Status != 200 {
		t.Errorf("%+v", rec)
	}
}

func TestABackendThatIsSwitchedOffIsCut(t *testing.T) {
	t.Run("in the middle of a stream", func(t *testing.T) { onBoth(t, cutStream) })
	t.Run("before the first byte", func(t *testing.T) { onBoth(t, cutBefore) })
	t.Run("in the middle of a refusal", func(t *testing.T) { onBoth(t, cutRefusal) })
	t.Run("where there is no other", func(t *testing.T) { onBoth(t, cutAlone) })
}

func cutRefusal(t *testing.T, way setting) {
	arrived := make(chan struct{}, 1)
	first := play(t, func(conn net.Conn, _ string) {
		_, _ = io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
		arrived <- struct{}{}
		_, _ = io.Copy(io.Discard, conn)
	})
	h := build(t, way, first.URL, named(t, "b1").URL)
	answered := make(chan *http.Response, 1)
	go func() {
		resp, err := h.Client().Do(h.request("/v1/chat/completions", chat))
		if err != nil {
			t.Error(err)
		}
		answered <- resp
	}()
	<-arrived
	h.mark(policy.Mark{Backend: "b0", State: policy.Disabled})
	resp := <-answered
	defer resp.Body.Close()
	if resp.StatusCode != 200 || resp.Header.Get("X-Routing-Backend") != "b1" {
		t.Errorf("%d %v", resp.StatusCode, resp.Header)
	}
}

func cutStream(t *testing.T, way setting) {
	first, letGo := held(t, streamed(opening, delta("a")))
	h := build(t, way, first.URL, named(t, "b1").URL)
	running := begun(t, h)
	h.mark(policy.Mark{Backend: "b0", State: policy.Disabled, Reason: "internal"})
	rest, err := io.ReadAll(running.Body)
	if err == nil || !strings.Contains(string(rest), `"code":"backend_error"`) || !strings.Contains(string(rest), "switched off") ||
		strings.Contains(string(rest), "[DONE]") || strings.Contains(string(rest), "internal") {
		t.Errorf("%v after %q", err, rest)
	}
	letGo()
	if rec := h.closed(1); !rec.Truncated || rec.StopReason != "backend_error" {
		t.Errorf("%+v", rec)
	}
	if resp := h.post("/v1/chat/completions", chat); resp.Header.Get("X-Routing-Backend") != "b1" {
		t.Errorf("%d %v", resp.StatusCode, resp.Header)
	}
	h.mark()
	resp := h.post("/v1/chat/completions", streamChat) // It was not held against the backend.
	if resp.Header.Get("X-Routing-Backend") != "b0" || !strings.HasSuffix(body(t, resp), done) {
		t.Errorf("%d %v", resp.StatusCode, resp.Header)
	}
}

func cutBefore(t *testing.T, way setting) {
	arrived := make(chan struct{}, 1)
	first := play(t, func(conn net.Conn, _ string) {
		arrived <- struct{}{}
		_, _ = io.Copy(io.Discard, conn) // Silent until the connection is closed.
	})
	h := build(t, way, first.URL, named(t, "b1").URL)
	answered := make(chan *http.Response, 1)
	go func() {
		resp, err := h.Client().Do(h.request("/v1/chat/completions", chat))
		if err != nil {
			t.Error(err)
		}
		answered <- resp
	}()
	<-arrived
	h.mark(policy.Mark{Backend: "b0", State: policy.Disabled})
	resp := <-answered
	defer resp.Body.Close()
	if resp.StatusCode != 200 || resp.Header.Get("X-Routing-Backend") != "b1" || resp.Header.Get("X-Routing-Decision") != "FAILOVER" {
		t.Errorf("%d %v", resp.StatusCode, resp.Header)
	}
}

func cutAlone(t *testing.T, way setting) {
	arrived := make(chan struct{}, 1)
	h := build(t, way, play(t, func(conn net.Conn, _ string) {
		arrived <- struct{}{}
		_, _ = io.Copy(io.Discard, conn)
	}).URL)
	answered := make(chan *http.Response, 1)
	go func() {
		resp, err := h.Client().Do(h.request("/v1/chat/completions", chat))
		if err != nil {
			t.Error(err)
		}
		answered <- resp
	}()
	<-arrived
	h.mark(policy.Mark{Backend: "b0", State: policy.Disabled, Reason: "internal"})
	resp := <-answered
	defer resp.Body.Close()
	if got := refused(t, resp); got != `every backend of model "m" is switched off or being drained; use another model` {
		t.Errorf("got %s", got)
	}
	refused(t, h.post("/v1/chat/completions", chat)) // What is new does not even try.
	if rec := h.closed(2); rec.Attempts != 0 {
		t.Errorf("%+v", rec)
	}
}

func TestADrainedBackendFinishesWhatRuns(t *testing.T) {
	first, letGo := held(t, streamed(opening, delta("a")))
	h := build(t, setting{}, first.URL, named(t, "b1").URL)
	running := begun(t, h)
	h.mark(policy.Mark{Backend: "b0", State: policy.Draining})
	resp := h.post("/v1/chat/completions", chat)
	if resp.Header.Get("X-Routing-Backend") != "b1" || resp.Header.Get("X-Routing-Decision") != "PRIMARY" || resp.Header.Get("X-Routing-Warning") != "" {
		t.Errorf("%d %v", resp.StatusCode, resp.Header)
	}
	letGo()
	if rest := body(t, running); rest != delta("b")+finish+done {
		t.Errorf("the running stream goes on with %q", rest)
	}
}

func TestMarksDecideWhoAnswers(t *testing.T) {
	const off, drain, degraded = policy.Disabled, policy.Draining, policy.Degraded
	for name, test := range map[string]struct {
		marks    []policy.Mark
		backend  string // "": refused with message
		decision string
		warning  string
		message  string
	}{
		"none":                    {nil, "b0", "PRIMARY", "", ""},
		"a degraded backend":      {[]policy.Mark{{Backend: "b0", State: degraded}}, "b1", "PRIMARY", "degraded backend avoided", ""},
		"degraded backends alone": {[]policy.Mark{{Backend: "b0", State: degraded}, {Backend: "b1", State: degraded}}, "b0", "PRIMARY", "degraded backend used", ""},
		"a degraded model":        {[]policy.Mark{{Model: "m", State: degraded}}, "b2", "FAILOVER", "degraded model avoided", ""},
		"a degraded model and a degraded fallback model": {
			[]policy.Mark{{Model: "m", State: degraded}, {Model: "n", State: degraded}}, "b0", "PRIMARY", "degraded model used", "",
		},
		"a degraded model without a working fallback model": {
			[]policy.Mark{{Model: "m", State: degraded}, {Backend: "b2", State: off}, {Backend: "b0", State: degraded}},
			"b1", "PRIMARY", "degraded model used, degraded backend avoided", "",
		},
		"a drained model": {[]policy.Mark{{Model: "m", State: drain}}, "b2", "FAILOVER", "", ""},
		"a drained model without a fallback model": {
			[]policy.Mark{{Model: "m", State: drain, Reason: "moving"}, {Model: "n", State: off}},
			"", "", "",
			`model "m" is being drained (reason: moving); use another model`,
		},
		"a disabled model, whatever its fallback models": {
			[]policy.Mark{{Model: "m", State: off}}, "", "", "", `model "m" is switched off; use another model`,
		},
		"all backends of a model": {[]policy.Mark{{Backend: "b0", State: off}, {Backend: "b1", State: drain}}, "b2", "FAILOVER", "", ""},
		"all backends": {
			[]policy.Mark{{Backend: "b0", State: off}, {Backend: "b1", State: drain}, {Backend: "b2", State: off}},
			"", "", "",
			`every backend of model "m" or its fallback models is switched off or being drained; use another model`,
		},
		"another organization": {[]policy.Mark{{Organization: "other", State: off}}, "b0", "PRIMARY", "", ""},
		"the organization": {
			[]policy.Mark{{Organization: "acme", State: off, Reason: "unpaid"}},
			"", "", "",
			`your organization's use of this router is switched off (reason: unpaid); ask the operator of this router`,
		},
		"the organization's use of the model": {
			[]policy.Mark{{Organization: "acme", Model: "m", State: off}},
			"", "", "",
			`your organization's use of model "m" is switched off; use another model`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			var journal journal
			h := three(t, setting{log: &journal})
			h.mark(test.marks...)
			for n, request := range []string{chat, streamChat} {
				resp := h.post("/v1/chat/completions", request)
				if test.backend == "" {
					if got := refused(t, resp); got != test.message {
						t.Errorf("got %s", got)
					}
					continue
				}
				content, header := body(t, resp), resp.Header
				if resp.StatusCode != 200 || !strings.Contains(content, test.backend) || header.Get("X-Routing-Backend") != test.backend ||
					header.Get("X-Routing-Decision") != test.decision || header.Get("X-Routing-Warning") != test.warning {
					t.Errorf("%d %v %q", resp.StatusCode, header, content)
				}
				if rec := h.closed(n + 1); rec.Warning != test.warning || rec.Backend != test.backend {
					t.Errorf("%+v", rec)
				}
			}
			h.Close() // Every line of the log is out.
			if says := strings.Contains(journal.String(), "warning="); says != (test.warning != "") || !strings.Contains(journal.String(), test.warning) {
				t.Errorf("the log says %s", journal.String())
			}
		})
	}
}

// journal keeps log lines.
type journal struct {
	mu    sync.Mutex
	lines bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.lines.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.lines.String()
}

func TestAMarkEndsByItself(t *testing.T) {
	for name, mark := range map[string]policy.Mark{
		"a model's":                        {Model: "m", State: policy.Disabled},
		"a backend's":                      {Backend: "b0", State: policy.Disabled},
		"an organization's":                {Organization: "acme", State: policy.Disabled},
		"an organization's use's, drained": {Organization: "acme", Model: "m", State: policy.Draining},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := build(t, setting{}, named(t, "b0").URL)
			mark.Until = time.Now().Add(700 * time.Millisecond)
			h.mark(mark)
			for {
				asked := time.Now()
				resp := h.post("/v1/chat/completions", chat)
				answered := time.Now()
				if resp.StatusCode == 200 {
					if answered.Before(mark.Until) {
						t.Error("it served before the mark had ended")
					}
					return
				}
				refused(t, resp)
				if resp.Header.Get("Retry-After") != "1" {
					t.Errorf("%v", resp.Header)
				}
				if asked.After(mark.Until.Add(time.Second)) {
					t.Fatal("the mark has not ended")
				}
				time.Sleep(20 * time.Millisecond)
			}
		})
	}
}

func TestAModelThatIsSwitchedOffStaysListed(t *testing.T) {
	h := three(t, setting{})
	want := body(t, h.get("/v1/models"))
	h.mark(policy.Mark{Model: "m", State: policy.Disabled}, policy.Mark{Organization: "acme", State: policy.Disabled})
	if got := body(t, h.get("/v1/models")); got != want || !strings.Contains(got, `"id":"m"`) {
		t.Errorf("got %s\nwant %s", got, want)
	}
	if resp := h.get("/v1/models/m"); resp.StatusCode != 200 {
		t.Errorf("%d %s", resp.StatusCode, body(t, resp))
	}
}

func TestAModelWithoutABackendForTheCallerIsNotThere(t *testing.T) {
	h := build(t, setting{documents: `
kind: RoutingPolicy
id: p
model: m
backends: [{ id: b0, callers: { allow: [other] } }]
---
kind: RoutingPolicy
id: q
model: n
backends: [{ id: b0 }]
`}, named(t, "b0").URL)
	if got := body(t, h.get("/v1/models")); strings.Contains(got, `"id":"m"`) || !strings.Contains(got, `"id":"n"`) {
		t.Error(got)
	}
	for _, resp := range []*http.Response{h.get("/v1/models/m"), h.post("/v1/chat/completions", chat)} {
		if code, _, message := refusal(t, resp); resp.StatusCode != 404 || code != "model_not_found" || message != `no routing policy configured for model "m"` {
			t.Errorf("%d %s %s", resp.StatusCode, code, message)
		}
	}
	other := h.request("/v1/chat/completions", chat)
	other.Header.Set("X-API-Key", "test-other-1")
	if resp := h.send(other); resp.StatusCode != 200 {
		t.Errorf("the other organization: %d", resp.StatusCode)
	}
}
