package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ai-aas/api-router/internal/simengine"
	"github.com/ai-aas/api-router/test/ports"
	"github.com/ai-aas/api-router/test/rig"
)

// earlierKey is the key in the examples of the earlier service. Its organization is vllm.
const earlierKey = "test-vllm-key"

// firstBody is the body of the first request of the README.
const firstBody = `{"model": "gpt-oss-20b", "messages": [{"role": "user", "content": "Hello!"}]}`

// earlierForms are the policy as the earlier service has put it into etcd: under both forms of keys, with both spellings.
var earlierForms = map[string]struct{ key, document string }{
	"at its id, in CamelCase": {"policies/global-gpt-oss-20b", `{"PolicyID":"global-gpt-oss-20b","OrganizationID":"*","Model":"gpt-oss-20b",
		"Backends":[{"BackendID":"vllm-gpt-oss-20b","Weight":100}],"FailoverThreshold":3,"DegradedBackends":[],"UpdatedAt":"2025-11-03T09:12:44Z","Version":1}`},
	"at its id, in snake_case": {"policies/global-gpt-oss-20b", `{"policy_id":"global-gpt-oss-20b","organization_id":"*","model":"gpt-oss-20b",
		"backends":[{"backend_id":"vllm-gpt-oss-20b","weight":100}],"failover_threshold":3,"degraded_backends":null,"updated_at":"2025-11-03T09:12:44Z","version":1}`},
	"at organization and model, in CamelCase": {"policies/*/gpt-oss-20b", `{"PolicyID":"7b1d1f4e-5a07-4f0a-9f83-0a8d5c2f6e11","OrganizationID":"*","Model":"gpt-oss-20b",
		"Backends":[{"BackendID":"vllm-gpt-oss-20b","Weight":100,"AllowList":null,"DenyList":null}],"FailoverThreshold":3,"UpdatedAt":"2025-11-03T09:12:44Z","Version":4}`},
	"at organization and model, in snake_case": {"policies/*/gpt-oss-20b", `{"policy_id":"7b1d1f4e-5a07-4f0a-9f83-0a8d5c2f6e11","organization_id":"*","model":"gpt-oss-20b",
		"backends":[{"backend_id":"vllm-gpt-oss-20b","weight":100}],"failover_threshold":3,"version":4}`},
	"of one organization": {"policies/vllm/gpt-oss-20b", `{"Model":"gpt-oss-20b","Backends":[{"BackendID":"vllm-gpt-oss-20b","Weight":100}]}`},
}

// earlier is a router with the environment of a deployment of the earlier service, and nothing else.
type earlier struct {
	*router
	engine *httptest.Server
	etcd   *etcd
}

// earlierDeployment starts the router as the earlier service was started. Redis, Kafka and the collector are dead.
func earlierDeployment(t *testing.T, e *etcd) *earlier {
	t.Helper()
	// It knows the model under this name alone, as vLLM with --served-model-name.
	server := httptest.NewServer(simengine.New(simengine.Config{Models: []simengine.Model{{ID: model}}, Speed: 20}).Handler())
	t.Cleanup(server.Close)
	r := &router{public: ports.Free(t)}
	_, port, err := net.SplitHostPort(r.public)
	if err != nil {
		t.Fatal(err)
	}
	r.process = startExactly(t, []string{
		"PATH=" + os.Getenv("PATH"),
		"ENVIRONMENT=development",
		"HTTP_PORT=" + port,
		"LOG_LEVEL=debug",
		"CONFIG_SERVICE_ENDPOINT=" + e.endpoint(),
		"BACKEND_ENDPOINTS=vllm-gpt-oss-20b:" + server.URL + "/v1/chat/completions",
		"OTEL_EXPORTER_OTLP_ENDPOINT=" + ports.Dead(t),
		"OTEL_EXPORTER_OTLP_INSECURE=true",
		"REDIS_ADDR=" + ports.Dead(t),
		"REDIS_PASSWORD=",
		"REDIS_DB=0",
		"KAFKA_BROKERS=" + ports.Dead(t),
		"KAFKA_TOPIC=usage.records.v1",
	}, binary, "serve")
	t.Cleanup(func() { r.end(syscall.SIGKILL) }) // It would go on for its grace, which this environment does not shorten.
	r.client = &http.Client{Timeout: hang}
	t.Cleanup(r.client.CloseIdleConnections)
	return &earlier{r, server, e}
}

// first sends the first request of the README, with curl itself where it is.
func (r *earlier) first(t *testing.T) (status, body string) {
	t.Helper()
	curl, err := exec.LookPath("curl")
	if err != nil {
		rig.Lacking(t, "there is no curl on PATH")
	}
	out, err := exec.CommandContext(t.Context(), curl, "--silent", "--show-error", "--max-time", "10", "--write-out", "\n%{http_code}",
		"-X", "POST", "http://"+r.public+"/v1/chat/completions", "-H", "X-API-Key: "+earlierKey, "-H", "Content-Type: application/json",
		"-d", firstBody).CombinedOutput()
	if err != nil {
		t.Fatalf("curl: %v: %s", err, out)
	}
	text := string(out)
	at := strings.LastIndexByte(text, '\n')
	return text[at+1:], text[:at]
}

// entry is a line of the log that names variables.
type entry struct {
	Level string
	Names []string
}

// entry is the first line of the log with a message.
func (r *earlier) entry(t *testing.T, message string) entry {
	t.Helper()
	r.log.Await(t, fmt.Sprintf(`"msg":%q`, message), hang)
	for text := range strings.Lines(r.log.String()) {
		var line entry
		if strings.Contains(text, fmt.Sprintf(`"msg":%q`, message)) && json.Unmarshal([]byte(text), &line) == nil {
			return line
		}
	}
	return entry{}
}

func TestTheEarlierDeploymentServesItsFirstRequest(t *testing.T) {
	path := anyEtcd(t)
	for name, form := range earlierForms {
		t.Run(name, func(t *testing.T) {
			e := startEtcd(t, path)
			e.put(t, form.key, form.document)
			r := earlierDeployment(t, e)
			r.healthy(t)
			ready := eventually(t, "the router is ready", func() error { return r.get("/readyz") })
			within(t, "ready with Redis, Kafka and the collector dead", ready, prompt)
			for _, path := range []string{"/v1/status/healthz", "/v1/status/readyz"} {
				if err := r.get(path); err != nil {
					t.Error(err)
				}
			}
			if status, body := r.first(t); status != "200" || !strings.Contains(body, `"object":"chat.completion"`) || !strings.Contains(body, `"model":"gpt-oss-20b"`) {
				t.Errorf("%s: %s", status, body)
			}
			if engine := askEngine(t, r.engine.URL, "unsloth/gpt-oss-20b"); engine != http.StatusNotFound {
				t.Errorf("the engine answers %d under another name", engine)
			}
		})
	}
}

// askEngine asks an engine directly for a model, and returns the status.
func askEngine(t *testing.T, url, name string) int {
	t.Helper()
	body := strings.NewReader(`{"model":"` + name + `","messages":[{"role":"user","content":"Hello!"}],"max_tokens":1}`)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/v1/chat/completions", body)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	return response.StatusCode
}

func TestAPolicyUnderBothKeysOfTheEarlierServiceServes(t *testing.T) {
	e := startEtcd(t, anyEtcd(t))
	for _, name := range []string{"at its id, in CamelCase", "at organization and model, in snake_case"} {
		e.put(t, earlierForms[name].key, earlierForms[name].document)
	}
	r := earlierDeployment(t, e)
	r.healthy(t)
	eventually(t, "the router is ready", func() error { return r.get("/readyz") })
	if status, body := r.first(t); status != "200" {
		t.Errorf("%s: %s", status, body)
	}
	r.log.Await(t, "is already routed by policy", hang) // One of them is refused.
}

func TestTheEarlierDeploymentIsToldWhatItsVariablesDo(t *testing.T) {
	e := startEtcd(t, anyEtcd(t))
	form := earlierForms["at its id, in CamelCase"]
	e.put(t, form.key, form.document)
	r := earlierDeployment(t, e)
	r.healthy(t)
	eventually(t, "the router is ready", func() error { return r.get("/readyz") })

	used := r.entry(t, "settings taken from the earlier service's environment variables")
	if want := []string{"HTTP_PORT", "ENVIRONMENT", "BACKEND_ENDPOINTS", "CONFIG_SERVICE_ENDPOINT"}; !slices.Equal(used.Names, want) {
		t.Errorf("used are %v, want %v", used.Names, want)
	}
	idle := r.entry(t, "environment variables of the earlier service that have no effect in this version")
	if want := []string{"REDIS_ADDR", "REDIS_DB", "KAFKA_BROKERS", "KAFKA_TOPIC"}; !slices.Equal(idle.Names, want) || idle.Level != "WARN" {
		t.Errorf("without effect are %v at %s, want %v at WARN", idle.Names, idle.Level, want)
	}
	r.log.Await(t, `"level":"DEBUG"`, hang)
	if strings.Contains(r.log.String(), earlierKey) {
		t.Error("the key is in the log")
	}
	r.log.Await(t, `"component":"telemetry"`, hang) // The collector is away.
	if status, body := r.first(t); status != "200" {
		t.Errorf("with the collector dead: %s: %s", status, body)
	}
	begun := time.Now()
	r.end(syscall.SIGTERM)
	t.Logf("it ended %s after SIGTERM", time.Since(begun).Round(time.Millisecond))
}

func TestPathsAnswerAsThePageOfTheMigrationSays(t *testing.T) {
	page, err := os.ReadFile("../../docs/migration.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := regexp.MustCompile("(?m)^\\| `(GET|POST) (/\\S*)` \\| (\\d{3}) \\|").FindAllStringSubmatch(string(page), -1)
	if len(rows) < 9 {
		t.Fatalf("the table of paths has the rows %v", rows)
	}
	e := startEtcd(t, anyEtcd(t))
	form := earlierForms["at its id, in CamelCase"]
	e.put(t, form.key, form.document)
	r := earlierDeployment(t, e)
	r.healthy(t)
	eventually(t, "the router is ready", func() error { return r.get("/readyz") })
	for _, row := range rows {
		body := io.Reader(http.NoBody)
		if row[1] == http.MethodPost {
			body = strings.NewReader(firstBody)
		}
		request, err := http.NewRequestWithContext(t.Context(), row[1], "http://"+r.public+row[2], body)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("X-API-Key", earlierKey)
		response, err := r.client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if got := strconv.Itoa(response.StatusCode); got != row[3] {
			t.Errorf("%s %s is answered %s, and docs/migration.md says %s", row[1], row[2], got, row[3])
		}
	}
}

// TestTheEarlierServiceAndThisOneShareTheirEtcd is the migration of docs/migration.md: nothing of what the earlier service reads changes until it is asked for.
func TestTheEarlierServiceAndThisOneShareTheirEtcd(t *testing.T) {
	e := startEtcd(t, anyEtcd(t))
	form := earlierForms["at organization and model, in CamelCase"]
	e.put(t, form.key, form.document)
	r := earlierDeployment(t, e)
	r.healthy(t)
	eventually(t, "the router is ready", func() error { return r.get("/readyz") })
	if status, body := r.first(t); status != "200" {
		t.Fatalf("%s: %s", status, body)
	}
	if keys := e.keys(t); !slices.Equal(keys, []string{prefix + form.key}) {
		t.Errorf("a router that serves has put %v", keys)
	}
	if got := e.get(t, form.key); got != form.document {
		t.Errorf("a router that serves has changed the policy: %s", got)
	}
	// A write of the earlier service counts at once, and so does one of its removals.
	e.remove(t, form.key)
	eventually(t, "the policy is gone", func() error {
		if status, body := r.first(t); status != "404" {
			return fmt.Errorf("%s: %s", status, body)
		}
		return nil
	})
	e.put(t, form.key, form.document)
	eventually(t, "the policy is back", func() error {
		if status, body := r.first(t); status != "200" {
			return fmt.Errorf("%s: %s", status, body)
		}
		return nil
	})

	env := []string{"ENVIRONMENT=development", "CONFIG_SERVICE_ENDPOINT=" + e.endpoint(), "BACKEND_ENDPOINTS=vllm-gpt-oss-20b:" + r.engine.URL + "/v1/chat/completions"}
	for _, look := range []string{"check", "doctor"} { // The first step of the page.
		out, err := command(t, env, look)
		if err != nil || !strings.Contains(out, "CONFIG_SERVICE_ENDPOINT") && !strings.Contains(out, "1 backend and 1 policy in etcd") {
			t.Errorf("%s: %v\n%s", look, err, out)
		}
	}
	if out, err := command(t, env, "seed", "--upgrade", "--dry-run"); err != nil || e.get(t, form.key) != form.document {
		t.Errorf("a dry run: %v: %s", err, out)
	}
	out, err := command(t, env, "seed", "--upgrade")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("seed --upgrade:\n%s", out)
	eventually(t, "the upgraded policy serves", func() error {
		if status, body := r.first(t); status != "200" {
			return fmt.Errorf("%s: %s", status, body)
		}
		return nil
	})
	t.Logf("keys: %v", e.keys(t))
}
