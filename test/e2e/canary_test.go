package e2e

import (
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/ai-aas/api-router/test/ports"
)

// canaries are what must be in no output, each a string that is nowhere by chance.
type canaries map[string]string

// The secrets and the texts of clients. A client hears its own text again, and may; the rest nobody does.
const (
	callerKey     = "canaryCallerKey5f1c9e0a7d"
	unknownKey    = "canaryUnknownKey83be04c61f"
	promptText    = "canaryPrompt2d7a91f3c8"
	answerText    = "canaryAnswer6be20f84a5"
	backendKey    = "canaryBackendKey91d3f7720c"
	adminSecret   = "canaryAdminToken0c6e5d18b9"
	wrongAdmin    = "canaryWrongAdmin77f20a9c3e"
	etcdPassword  = "canaryEtcdPassword4a8f1d62e7"
	otlpHeader    = "canaryOtlpHeader3c9b70e5d1"
	urlPassword   = "canaryUrlPassword8e15f2c0d6"
	inlineKey     = "canaryInlineKey1f6d8a3b97"
	backendsOwn   = "canaryBackendsOwn65c0e9d7f2" // what a backend says of itself when it fails
	canaryCaller  = "test-acme-" + callerKey
	canaryUnknown = "sk-" + unknownKey
)

// secrets belong into no output at all, not even into the answer to whoever knows them.
var secrets = canaries{
	"the caller's key": callerKey, "an unknown key": unknownKey, "the backend's key": backendKey, "an admin token": adminSecret, "a wrong admin token": wrongAdmin,
	"etcd's password": etcdPassword, "an OTLP header": otlpHeader, "a password in a URL": urlPassword, "a key written into a document": inlineKey,
}

// private is what passes through: it belongs to one client, and into no output but that client's answers.
var private = canaries{"the prompt": promptText, "the answer": answerText, "a failed backend's own words": backendsOwn}

// forms are the ways in which a string can stand in an output.
func forms(text string) []string {
	found := []string{text, hex.EncodeToString([]byte(text)), strings.ToUpper(hex.EncodeToString([]byte(text)))}
	for shift := range 3 { // As a part of something longer, it may begin at any of the three places within a group.
		encoded := base64.RawStdEncoding.EncodeToString(append(make([]byte, shift), text...))
		found = append(found, encoded[4:len(encoded)-4])
	}
	return found
}

// in says which of the canaries sing in an output.
func (c canaries) in(t *testing.T, place, output string) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(c)) {
		for _, form := range forms(c[name]) {
			if at := strings.Index(output, form); at >= 0 {
				t.Errorf("%s is in %s: …%s…", name, place, output[max(0, at-200):min(len(output), at+len(form)+40)])
				break
			}
		}
	}
}

// breaking is the status of a backend whose streams end in an error event.
const breaking = 0

// mocker is a backend that tells everything it knows: it echoes its key and the prompt, whatever its status.
func mocker(t *testing.T, status int) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body) // A request that is cut off has no answer.
		switch {
		case r.URL.Path == "/v1/models":
			fmt.Fprint(w, `{"object":"list","data":[]}`)
		case r.URL.Path != "/v1/chat/completions":
		case status == breaking:
			w.Header().Set("Content-Type", "text/event-stream")
			fmt.Fprintf(w, "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":%q}}]}\n\n", answerText)
			fmt.Fprintf(w, "data: {\"error\":{\"message\":\"%s: key %s is refused for %s\",\"type\":\"server_error\"}}\n\n", backendsOwn, r.Header.Get("Authorization"), promptText)
		case status != http.StatusOK:
			w.Header().Set("X-Echo", r.Header.Get("Authorization"))
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			fmt.Fprintf(w, `{"error":{"message":"%s: key %s is refused for %s","type":"server_error"}}`, backendsOwn, r.Header.Get("Authorization"), promptText)
		case strings.Contains(string(body), `"stream":true`):
			w.Header().Set("Content-Type", "text/event-stream")
			fmt.Fprintf(w, "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":%q},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n", answerText)
		default:
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprintf(w, `{"id":"x","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":%q},"finish_reason":"stop"}],`+
				`"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}`, answerText)
		}
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// chat is the body of a chat request.
func chat(model, prompt string, stream bool) string {
	return fmt.Sprintf(`{"model":%q,"messages":[{"role":"user","content":%q}],"max_tokens":8,"stream":%t}`, model, prompt, stream)
}

// send sends one request to the public listener with pairs of headers; without an Authorization among them, with the usual key.
func (r *router) send(t *testing.T, method, path, body string, headers ...string) (*http.Response, string) {
	t.Helper()
	return r.sendTo(t, r.public, key, method, path, body, headers...)
}

func (r *router) sendTo(t *testing.T, host, bearer, method, path, body string, headers ...string) (*http.Response, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, "http://"+host+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+bearer)
	request.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := r.client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil && !strings.Contains(string(text), `"error"`) { // A stream that fails is cut after its last event.
		t.Fatal(err)
	}
	return response, string(text)
}

// cage is everything that the canaries pass through.
type cage struct {
	dir, records, lastGood string
	telemetry              *receiver
	models                 map[string]string // URLs of backends, by model
}

func newCage(t *testing.T) *cage {
	t.Helper()
	dir := t.TempDir()
	return &cage{
		dir: dir, records: filepath.Join(dir, "usage.jsonl"), lastGood: filepath.Join(dir, "policy.json"), telemetry: receive(t),
		models: map[string]string{
			model: mocker(t, http.StatusOK), "fails": mocker(t, http.StatusInternalServerError), "busy": mocker(t, http.StatusServiceUnavailable),
			"refuses": mocker(t, http.StatusUnauthorized), "complains": mocker(t, http.StatusBadRequest), "breaks": mocker(t, breaking), "gone": "http://" + ports.Dead(t),
		},
	}
}

// settings make a router say as much as it can.
func (c *cage) settings(over dependency) []string {
	at := map[string]string{onGRPC.name: c.telemetry.grpc, onHTTP.name: c.telemetry.http}[over.name]
	return slices.Concat([]string{
		"LOG_LEVEL=debug", "usage.sinks=jsonl:" + c.records, "policy.last_good=" + c.lastGood, "BACKEND_KEY=" + backendKey,
		"identity.admin_tokens=ada:admin:env:ADA,olga:operator:env:OLGA", "ADA=" + adminSecret,
		"OTEL_EXPORTER_OTLP_HEADERS=authorization=" + otlpHeader + ",x-other=" + otlpHeader,
	}, talking, over.use(at))
}

// documents are a backend, with its key, and a policy for each model.
func (c *cage) documents() map[string]string {
	all := map[string]string{}
	for name, url := range c.models {
		all["backends/b-"+name] = fmt.Sprintf(`{"url":%q,"api_key":"env:BACKEND_KEY"}`, url)
		all["policies/p-"+name] = fmt.Sprintf(`{"model":%q,"backends":[{"id":"b-%s"}]}`, name, name)
	}
	return all
}

// drive sends every kind of request and looks at what the clients get.
func (c *cage) drive(t *testing.T, r *router) {
	t.Helper()
	said := map[string]string{}
	keep := func(name string, want int, response *http.Response, body string) {
		t.Helper()
		if response.StatusCode != want {
			t.Errorf("%s: got %s, want %d: %s", name, response.Status, want, body)
		}
		said[name] = fmt.Sprint(response.Header) + body
	}
	ask := func(name string, want int, path, body string, headers ...string) {
		t.Helper()
		response, text := r.sendTo(t, r.public, canaryCaller, http.MethodPost, path, body, headers...)
		keep(name, want, response, text)
	}
	const chats = "/v1/chat/completions"
	for range 3 { // More than one: a backend that fails is ejected in between.
		ask("an answer", http.StatusOK, chats, chat(model, promptText, false))
		ask("a stream", http.StatusOK, chats, chat(model, promptText, true))
		for name := range c.models {
			if name != model {
				response, text := r.sendTo(t, r.public, canaryCaller, http.MethodPost, chats, chat(name, promptText, name == "breaks"))
				keep("backend "+name, response.StatusCode, response, text)
				if !strings.Contains(text, `"error"`) {
					t.Errorf("backend %s: got %s: %s", name, response.Status, text)
				}
			}
		}
	}
	ask("no such model", http.StatusNotFound, chats, chat("nothing", promptText, false))
	ask("no such path", http.StatusNotFound, "/v1/"+"nothing", promptText)
	ask("a query", http.StatusOK, chats+"?api_key="+callerKey+"&q="+promptText, chat(model, promptText, false))
	ask("no JSON", http.StatusBadRequest, chats, `{"model":"`+model+`","messages":[{"role":"user","content":"`+promptText)
	ask("a wrong type", http.StatusBadRequest, chats, `{"model":["`+promptText+`"],"messages":"`+promptText+`"}`)
	ask("an unknown key", http.StatusUnauthorized, chats, chat(model, promptText, false), "Authorization", "Bearer "+canaryUnknown)
	ask("basic credentials", http.StatusUnauthorized, chats, chat(model, promptText, false), "Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte("u:"+unknownKey)))
	ask("two credentials", http.StatusBadRequest, chats, chat(model, promptText, false), "X-Api-Key", canaryUnknown)
	response, text := r.sendTo(t, r.admin, wrongAdmin, http.MethodGet, "/admin/v1/policies", "")
	keep("a wrong admin token", http.StatusUnauthorized, response, text)
	response, text = r.sendTo(t, r.admin, adminSecret, http.MethodPut, "/admin/v1/backends/inline", `{"url":"http://127.0.0.1:9","api_key":"`+inlineKey+`"}`)
	keep("a key in a document", http.StatusBadRequest, response, text)
	response, text = r.sendTo(t, r.admin, adminSecret, http.MethodPut, "/admin/v1/backends/user", `{"url":"http://u:`+urlPassword+`@127.0.0.1:9"}`)
	keep("a password in a URL", http.StatusBadRequest, response, text)
	for name, out := range said {
		secrets.in(t, "the answer to "+name, out)
		// What a backend says of a request, or in a stream, is the client's; what it says of itself is the operator's.
		if strings.HasPrefix(name, "backend ") && name != "backend complains" && name != "backend breaks" {
			canaries{"a failed backend's own words": backendsOwn}.in(t, "the answer to "+name, out)
		}
	}
}

// outputs are all places, but the clients' answers, where a router leaves anything. last is done when all is read that only a running
// router tells.
func (c *cage) outputs(t *testing.T, r *router, last func()) map[string]string {
	t.Helper()
	all := map[string]string{}
	read := func(host, bearer, path string, want int) {
		t.Helper()
		response, text := r.sendTo(t, host, bearer, http.MethodGet, path, "")
		if want != 0 && response.StatusCode != want {
			t.Errorf("GET %s: got %s, want %d: nothing was proved about it", path, response.Status, want)
		}
		all["GET "+path] = fmt.Sprint(response.Header) + unpacked(t, text)
	}
	for _, path := range pages {
		read(r.admin, adminSecret, path, http.StatusOK)
	}
	read(r.admin, adminSecret, "/debug/pprof/cmdline", http.StatusNotFound)
	for _, kind := range []string{"backends", "policies", "prices", "marks"} {
		read(r.admin, adminSecret, "/admin/v1/"+kind, http.StatusOK)
		read(r.admin, adminSecret, "/admin/v1/"+kind+"?invalid=true", http.StatusOK)
	}
	for id, want := range map[string]int{"backends/b-" + model: http.StatusOK, "policies/p-" + model: http.StatusOK, "backends/inline": 0, "backends/user": 0} {
		read(r.admin, adminSecret, "/admin/v1/"+id, want)
		read(r.admin, adminSecret, "/admin/v1/"+id+"/history", want)
	}
	for _, path := range []string{"/healthz", "/readyz", "/v1/status/healthz", "/v1/status/readyz", "/v1/models"} {
		read(r.public, canaryCaller, path, http.StatusOK)
	}
	text, err := r.scrape()
	if err != nil {
		t.Errorf("/metrics: %v", err)
	}
	all["/metrics"] = text
	for _, args := range []string{
		"decisions", "history", "get backends -o yaml", "get policies", "backend list", "explain --model fails --org acme", "status", "status -o json", "log-level",
	} {
		out, err := command(t, r.as(adminSecret), strings.Fields(args)...)
		all["api-router "+args] = out + fmt.Sprint(err)
	}
	last()
	r.ends(t) // What waits for its batch is sent.
	all["the log"] = r.log.String()
	for _, signal := range []string{"traces", "metrics", "logs"} {
		all["OTLP "+signal] = string(c.telemetry.got(signal))
	}
	files, err := filepath.Glob(filepath.Join(c.dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all["the file "+filepath.Base(file)] = string(content)
	}
	return all
}

// pages are what the admin listener shows beside documents: the console with the part of it that renews itself, the status, the log level,
// and profiles as text and as Go's own tools ask for them.
var pages = []string{
	"/", "/console/live", "/status", "/admin/v1/status", "/admin/v1/log-level", "/admin/v1/decisions", "/admin/v1/audit", "/admin/v1/audit/entries", "/admin/v1/fleet",
	"/admin/v1/openapi.yaml",
	"/debug/pprof/", "/debug/pprof/profile?seconds=1", "/debug/pprof/trace?seconds=1", "/debug/pprof/block?seconds=1", "/debug/pprof/mutex?seconds=1",
	"/debug/pprof/heap", "/debug/pprof/heap?debug=1", "/debug/pprof/allocs", "/debug/pprof/goroutine", "/debug/pprof/goroutine?debug=2", "/debug/pprof/threadcreate?debug=1",
}

// unpacked is a text, or what it holds where it is compressed, as profiles are.
func unpacked(t *testing.T, text string) string {
	t.Helper()
	if !strings.HasPrefix(text, "\x1f\x8b") {
		return text
	}
	unzipped, err := gzip.NewReader(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(unzipped)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// search looks for every canary in every output. What each output must have instead shows that it was looked at.
func (c *cage) search(t *testing.T, all map[string]string, files ...string) {
	t.Helper()
	for place, output := range all {
		secrets.in(t, place, output)
		private.in(t, place, output)
	}
	must := map[string]string{"the log": `"acme"`, "the file usage.jsonl": `"acme"`, "GET /admin/v1/decisions": "acme", "api-router decisions": "acme", "the file policy.json": "BACKEND_KEY"}
	for _, signal := range []string{"traces", "metrics", "logs"} {
		must["OTLP "+signal] = model
	}
	maps.Copy(must, map[string]string{
		"/metrics": model, "GET /": "acme", "GET /console/live": "acme", "GET /status": "b-" + model, "GET /admin/v1/status": "b-" + model, "api-router status": "b-" + model,
		"GET /admin/v1/log-level": "debug", "api-router log-level": "debug", "GET /v1/status/readyz": "policy", "GET /debug/pprof/": "goroutine",
		"GET /debug/pprof/goroutine?debug=2": "goroutine", "GET /debug/pprof/goroutine": "ServeHTTP", "GET /debug/pprof/heap": "api-router", "GET /debug/pprof/trace?seconds=1": "go 1.",
	})
	for _, file := range files {
		must["the file "+file] = model
	}
	for place, want := range must {
		if !strings.Contains(all[place], want) {
			t.Errorf("%s does not have %q: nothing was proved about it; it is %d bytes long", place, want, len(all[place]))
		}
	}
}

func TestNoSecretIsInAnyOutputOfARouterWithAStateBook(t *testing.T) {
	c := newCage(t)
	r := serve(t, append(c.settings(onHTTP), "policy.source=state", "state.url=sqlite://"+filepath.Join(c.dir, "state.db"))...)
	documents := c.documents()
	for _, path := range slices.Sorted(maps.Keys(documents)) { // Backends come before the policies that name them.
		document := documents[path]
		if response, text := r.sendTo(t, r.admin, adminSecret, http.MethodPut, "/admin/v1/"+path, document); response.StatusCode >= http.StatusBadRequest {
			t.Fatalf("%s: %s: %s", path, response.Status, text)
		}
	}
	eventually(t, "the policies route", func() error { return r.served("b-" + model) })
	c.drive(t, r)
	c.search(t, c.outputs(t, r, func() {}), "state.db")
}

func TestNoSecretIsInAnyOutputOfARouterWithEtcd(t *testing.T) {
	c := newCage(t)
	e := startEtcd(t, anyEtcd(t))
	for path, document := range c.documents() {
		e.put(t, path, document)
	}
	// Whoever may write to etcd may also write nonsense: the router shows what is wrong with it, and not what it holds.
	e.put(t, "backends/inline", `{"url":"http://127.0.0.1:9","api_key":"`+inlineKey+`"}`)
	e.put(t, "backends/user", `{"url":"http://u:`+urlPassword+`@127.0.0.1:9"}`)
	e.put(t, "policies/broken", `{"model":"broken","api_key":"`+inlineKey+`", "backends":`)
	e.lock(t)
	source := []string{"policy.source=etcd", "policy.etcd.endpoints=" + e.endpoint(), "policy.etcd.username=root", "policy.etcd.password=env:ETCD_PASSWORD"}
	r := serve(t, slices.Concat(c.settings(onGRPC), source, []string{"ETCD_PASSWORD=" + etcdPassword})...)
	eventually(t, "the policies route", func() error { return r.served("b-" + model) })
	c.drive(t, r)
	c.search(t, c.outputs(t, r, func() {
		e.kill()
		eventually(t, "the log says that etcd is gone", func() error {
			if len(r.complaints("etcd cannot be reached")) == 0 {
				return errors.New("it has no such line")
			}
			return nil
		})
	}))
}

// What Go's runtime writes of a process that dies is for whoever looks for the reason, and is kept where logs are.
func TestNoSecretIsInWhatADyingRouterLeaves(t *testing.T) {
	c := newCage(t)
	file := filepath.Join(t.TempDir(), "policies.yaml")
	var text strings.Builder
	for name, url := range c.models {
		fmt.Fprintf(&text, "---\nkind: Backend\nid: b-%[1]s\nurl: %[2]s\napi_key: env:BACKEND_KEY\n---\nkind: RoutingPolicy\nid: p-%[1]s\nmodel: %[1]s\nbackends: [{id: b-%[1]s}]\n", name, url)
	}
	if err := os.WriteFile(file, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	r := serve(t, append(c.settings(onGRPC), "policy.file.path="+file, "GOTRACEBACK=all")...)
	eventually(t, "the policies route", func() error { return r.served("b-" + model) })
	response, body := r.sendTo(t, r.public, canaryCaller, http.MethodPost, "/v1/chat/completions", chat(model, promptText, false))
	if response.StatusCode != http.StatusOK {
		t.Fatalf("got %s: %s", response.Status, body)
	}
	r.end(syscall.SIGQUIT)
	log := r.log.String()
	if !strings.Contains(log, "SIGQUIT: quit") || strings.Count(log, "\ngoroutine ") < 5 {
		t.Fatalf("it has left no dump:\n%s", tail(log))
	}
	secrets.in(t, "the dump", log)
	private.in(t, "the dump", log)
}

// lock gives the server's root etcdPassword, and refuses everybody else from now on.
func (e *etcd) lock(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), hang)
	defer cancel()
	for _, do := range []func() error{
		func() error { _, err := e.client.UserAdd(ctx, "root", etcdPassword); return err },
		func() error { _, err := e.client.UserGrantRole(ctx, "root", "root"); return err },
		func() error { _, err := e.client.AuthEnable(ctx); return err },
	} {
		if err := do(); err != nil {
			t.Fatal(err)
		}
	}
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{e.url}, Username: "root", Password: etcdPassword, Logger: zap.NewNop(), DialTimeout: hang})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	e.client = client
}

// What is wrong with a setting is said without the setting.
func TestNoSecretIsInWhatARouterSaysOfItsSettings(t *testing.T) {
	p := stock(t, engine(t))
	dead := ports.Dead(t)
	for name, settings := range map[string][]string{
		"a collector's URL with a password":   {"OTEL_EXPORTER_OTLP_ENDPOINT=http://u:" + urlPassword + "@" + dead, "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"},
		"a collector that is gone":            {"OTEL_EXPORTER_OTLP_ENDPOINT=http://" + dead, "OTEL_EXPORTER_OTLP_HEADERS=authorization=" + otlpHeader},
		"headers of a collector that are bad": {"OTEL_EXPORTER_OTLP_ENDPOINT=http://" + dead, "OTEL_EXPORTER_OTLP_HEADERS=" + otlpHeader + ",=;" + otlpHeader},
		"etcd's URL with a password":          {"CONFIG_SERVICE_ENDPOINT=http://root:" + urlPassword + "@" + dead},
		"etcd's password in place of its reference": {
			"policy.source=etcd", "policy.etcd.endpoints=" + dead, "policy.etcd.username=root", "policy.etcd.password=" + etcdPassword,
		},
		"etcd with a password that is gone": {
			"policy.source=etcd", "policy.etcd.endpoints=" + dead, "policy.etcd.username=root", "policy.etcd.password=env:ETCD_PASSWORD", "ETCD_PASSWORD=" + etcdPassword,
		},
		"an admin token in place of its reference": {"identity.admin_tokens=ada:admin:" + adminSecret},
		"a backend's URL with a password":          {"BACKEND_ENDPOINTS=north:http://u:" + urlPassword + "@" + dead},
	} {
		t.Run(name, func(t *testing.T) {
			r := launch(t, "", append([]string{"LOG_LEVEL=debug", "policy.file.path=" + p.documents, "policy.last_good=" + p.lastGood}, settings...)...)
			select { // It may refuse to start, or serve and complain.
			case <-r.done:
			case <-time.After(prompt):
				_, _ = r.ask() // Whatever the answer: what counts is the log of it.
				r.ends(t)
			}
			if r.log.String() == "" {
				t.Error("it has said nothing")
			}
			secrets.in(t, "the log", r.log.String())
		})
	}
}
