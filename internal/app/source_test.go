package app_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ai-aas/api-router/internal/app"
	"github.com/ai-aas/api-router/internal/policy"
	"github.com/ai-aas/api-router/internal/simengine"
	"github.com/ai-aas/api-router/test/ports"
)

// placed are options of a process whose documents are where flags say, as those of seed are.
func placed(t *testing.T, flags map[string]string) app.Options {
	t.Helper()
	o := options(t, nil)
	o.Config.Policy.Source, o.Config.State.URL = flags["policy.source"], flags["state.url"]
	if endpoint := flags["policy.etcd.endpoints"]; endpoint != "" {
		o.Config.Policy.Etcd.Endpoints = []string{endpoint}
	}
	return o
}

// put writes a document as an operator does.
func put(t *testing.T, b policy.Book, kind policy.Kind, id, content string) policy.Stored {
	t.Helper()
	stored, err := b.Write(t.Context(), policy.Write{Kind: kind, ID: id, Content: []byte(content), Actor: "olga"})
	if err != nil {
		t.Fatal(err)
	}
	return stored
}

// routes sends a request and reports which backend answered it; the status where none did.
func routes(t *testing.T, base string) string {
	t.Helper()
	response := chat(t, client(t), base, `, "max_tokens": 1`)
	body := read(t, response.Body)
	switch {
	case response.StatusCode == http.StatusOK:
		return response.Header.Get("X-Routing-Backend")
	case strings.Contains(body, "model_disabled"):
		return "model_disabled"
	default:
		return response.Status
	}
}

func TestAChangeInTheStateBookIsRoutedBySoon(t *testing.T) {
	flags := stateFlags(t)
	b := book(t, flags)
	north, south := simulated(t, simengine.Config{Speed: 100}), simulated(t, simengine.Config{Speed: 100})
	p := run(t, placed(t, flags))
	if got := routes(t, p.base); got != "404 Not Found" {
		t.Errorf("an empty book gives %s", got)
	}
	put(t, b, policy.KindBackend, "north", `{"url": "`+north+`"}`)
	put(t, b, policy.KindBackend, "south", `{"url": "`+south+`"}`)
	put(t, b, policy.KindRoutingPolicy, "global", `{"model": "gpt-oss-20b", "backends": [{"id": "north"}]}`)
	within(t, "the first policy", func() bool { return routes(t, p.base) == "north" })
	put(t, b, policy.KindRoutingPolicy, "global", `{"model": "gpt-oss-20b", "backends": [{"id": "south"}]}`)
	within(t, "a change", func() bool { return routes(t, p.base) == "south" })
	put(t, b, policy.KindRoutingPolicy, "global", `{"model": "gpt-oss-20b"}`)
	put(t, b, policy.KindMark, policy.MarkID("", "gpt-oss-20b", ""), `{"model": "gpt-oss-20b", "state": "disabled", "reason": "a test"}`)
	within(t, "a kill switch, beside a document that is bad", func() bool { return routes(t, p.base) == "model_disabled" })
	if _, status := get(t, client(t), p.base+"/v1/status/readyz"); !strings.Contains(status, `"name":"state","state":"open","ok":true`) || strings.Contains(status, filepath.Dir(flags["state.url"])) {
		t.Errorf("the status is %s", status)
	}
}

func TestAChangeInEtcdIsRoutedBySoonAndItsLossIsSeen(t *testing.T) {
	e := startEtcd(t)
	url := simulated(t, simengine.Config{Speed: 100})
	e.put(t, "backends/one", `{"url": "`+url+`"}`)
	o := placed(t, map[string]string{"policy.source": "etcd", "policy.etcd.endpoints": e.address})
	o.Config.Policy.LastGood = filepath.Join(t.TempDir(), "policy.json")
	log := new(syncBuffer)
	o.Logger = log.logger()
	p := run(t, o)
	e.put(t, "policies/global-gpt-oss-20b", `{"model": "gpt-oss-20b", "backends": [{"id": "one"}]}`)
	within(t, "a put of our form", func() bool { return routes(t, p.base) == "one" })
	e.put(t, "backends/two", `{"url": "`+url+`"}`)
	e.put(t, "policies/global-gpt-oss-20b", `{"Model": "gpt-oss-20b", "Backends": [{"BackendID": "two", "Weight": 100}]}`)
	within(t, "a put of the earlier service's form", func() bool { return routes(t, p.base) == "two" })
	e.put(t, "marks/kill", `{"backend": "two", "state": "disabled"}`)
	within(t, "a mark on a backend", func() bool { return routes(t, p.base) == "model_disabled" })
	e.put(t, "marks/kill", `{"backend": "two", "state": "degraded"}`)
	within(t, "a milder mark", func() bool { return routes(t, p.base) == "two" })

	status := func() string {
		_, text := get(t, client(t), p.base+"/v1/status/healthz")
		return text
	}
	if text := status(); !strings.Contains(text, `"name":"etcd","state":"connected",`) {
		t.Errorf("the status is %s", text)
	}
	eventually(t, "the copy", func() bool {
		content, err := os.ReadFile(o.Config.Policy.LastGood)
		return err == nil && strings.Contains(string(content), `"degraded"`)
	})
	e.kill()
	eventually(t, "the loss to be seen", func() bool {
		text := status()
		return strings.Contains(text, `"name":"etcd","state":"not connected: `) && strings.Contains(text, "and the policy source cannot be read")
	})
	if text := status(); strings.Contains(text, e.address) {
		t.Errorf("the status is %s", text)
	}
	if routes(t, p.base) != "two" {
		t.Error("the policies did not stay")
	}

	// A process that starts now has the copy alone, and says so.
	cold := new(syncBuffer)
	o.Logger = cold.logger()
	second := run(t, o)
	if got := routes(t, second.base); got != "two" {
		t.Errorf("after a cold start %s answers", got)
	}
	for _, line := range []string{"the last good ones serve", "last good of "} { // It is ready before all is said.
		eventually(t, "the line of a cold start with "+line, func() bool { return strings.Contains(cold.String(), line) })
	}
	e.start(t)
	eventually(t, "the end of the loss", func() bool { return strings.Contains(cold.String(), "policies can be read again") })
	eventually(t, "etcd's state", func() bool { return strings.Contains(status(), `"name":"etcd","state":"connected",`) })
}

func TestTheListenerDoesNotWaitForThePolicySource(t *testing.T) {
	for name, flags := range map[string]map[string]string{
		"etcd":  {"policy.source": "etcd", "policy.etcd.endpoints": ports.Dead(t)},
		"state": {"policy.source": "state", "state.url": "sqlite://" + write(t, "file", "") + "/state.db"},
	} {
		o := placed(t, flags)
		log := new(syncBuffer)
		o.Logger = log.logger()
		a, err := app.New(o)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := contextFor(t)
		done := make(chan error, 1)
		go func() { done <- a.Run(ctx) }()
		base := "http://" + a.Addr().String()
		if status, _ := get(t, client(t), base+"/healthz"); status != http.StatusOK {
			t.Errorf("%s: healthz gives %d", name, status)
		}
		eventually(t, "the reason in the log", func() bool { return strings.Contains(log.String(), "no request can be served until they can") })
		if status, body := get(t, client(t), base+"/readyz"); status != http.StatusServiceUnavailable || body != "starting\n" {
			t.Errorf("%s: readyz gives %d %q", name, status, body)
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAMarkThatEndsLeavesTheBookOnceOverSeveralReplicas(t *testing.T) {
	for name, flags := range sources(t) {
		var b policy.Book
		if name == "state" {
			b = book(t, flags)
		} else {
			b = etcdBook(t, flags)
		}
		put(t, b, policy.KindBackend, "one", `{"url": "`+simulated(t, simengine.Config{Speed: 100})+`"}`)
		put(t, b, policy.KindRoutingPolicy, "global", `{"model": "gpt-oss-20b", "backends": [{"id": "one"}]}`)
		left, right := run(t, placed(t, flags)), run(t, placed(t, flags))
		both := func(want string) func() bool {
			return func() bool { return routes(t, left.base) == want && routes(t, right.base) == want }
		}
		within(t, name+": both serve", both("one"))
		kill := func(until time.Time) {
			t.Helper()
			put(t, b, policy.KindMark, "kill", `{"model": "gpt-oss-20b", "state": "disabled", "reason": "a test", "until": "`+until.UTC().Format(time.RFC3339Nano)+`"}`)
		}
		kill(time.Now().Add(time.Hour)) // It ends after both have seen it, however long that takes.
		put(t, b, policy.KindMark, "stays", `{"backend": "one", "state": "degraded"}`)
		within(t, name+": both refuse", both("model_disabled"))
		kill(time.Now().Add(time.Second))
		within(t, name+": both serve again", both("one"))
		var changes []policy.Change
		eventually(t, name+": the end in the history", func() bool {
			var err error
			if changes, err = b.History(t.Context(), policy.KindMark, "kill", 0, 10); err != nil {
				t.Fatal(err)
			}
			return len(changes) > 2
		})
		time.Sleep(2 * time.Second) // Long enough for the other replica to try, too.
		changes, err := b.History(t.Context(), policy.KindMark, "kill", 0, 10)
		if err != nil || len(changes) != 3 || changes[0].Action != policy.ActionDelete || changes[0].Actor != "api-router" || changes[0].Reason != "expired" {
			t.Errorf("%s: the history is %+v, %v", name, changes, err)
		}
		if found, err := b.Read(t.Context(), policy.KindMark, ""); err != nil || len(found) != 1 || found[0].ID != "stays" {
			t.Errorf("%s: the marks are %+v, %v", name, found, err)
		}
	}
}
