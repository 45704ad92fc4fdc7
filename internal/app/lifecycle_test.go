package app_test

import (
	"bufio"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ai-aas/api-router/internal/app"
	"github.com/ai-aas/api-router/internal/simengine"
	"github.com/ai-aas/api-router/test/ports"
)

// endless makes a stream that outlives every test.
const endless = `, "stream": true, "max_tokens": 100000, "ignore_eos": true`

func TestARequestIsServedOverHTTP1AndUnencryptedHTTP2(t *testing.T) {
	p := run(t, options(t, routed(simulated(t, simengine.Config{Speed: 100}))))
	for name, protocols := range map[string]func(*http.Protocols){
		"HTTP/1.1": func(p *http.Protocols) { p.SetHTTP1(true) },
		"HTTP/2.0": func(p *http.Protocols) { p.SetUnencryptedHTTP2(true) },
	} {
		set := new(http.Protocols)
		protocols(set)
		transport := &http.Transport{Protocols: set}
		response := chat(t, &http.Client{Transport: transport}, p.base, "")
		body := read(t, response.Body)
		if response.StatusCode != http.StatusOK || !strings.Contains(body, `"chat.completion"`) || response.Proto != name {
			t.Errorf("%s: got %s %d %s", name, response.Proto, response.StatusCode, body)
		}
		transport.CloseIdleConnections()
	}
	p.end()
	if err := p.wait(t); err != nil {
		t.Errorf("an orderly end gave %v", err)
	}
}

func TestABusyPortNamesEveryWayToMoveTheListener(t *testing.T) {
	o := options(t, routed("http://127.0.0.1:1"))
	o.Config.Listen.Public = taken(t)
	_, err := app.New(o)
	if err == nil {
		t.Fatal("the port was opened twice")
	}
	for _, part := range []string{o.Config.Listen.Public, "listen.public", "API_ROUTER_LISTEN_PUBLIC", "--listen", "another process"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not name %q", err, part)
		}
	}
}

// graceful gives a process a grace that lasts until the test forces its end.
func graceful(o *app.Options) (force func()) {
	forced := make(chan struct{})
	o.Force = forced
	o.Config.Server.DrainGrace = 10 * hang
	return func() { close(forced) }
}

func TestADrainTellsTheLoadBalancerFirst(t *testing.T) {
	o := options(t, routed(simulated(t, simengine.Config{Speed: 100})))
	force := graceful(&o)
	p := run(t, o)
	c := client(t)
	if status, body := get(t, c, p.base+"/readyz"); status != http.StatusOK || body != "ready\n" {
		t.Fatalf("readyz gives %d %q before the drain", status, body)
	}
	p.end()

	// Within the grace: not ready, but serving, and connections are told to go.
	eventually(t, "readiness to end", func() bool {
		status, _ := get(t, c, p.base+"/readyz")
		return status == http.StatusServiceUnavailable
	})
	if _, body := get(t, c, p.base+"/readyz"); body != "draining\n" {
		t.Errorf("readyz says %q while draining", body)
	}
	late := chat(t, c, p.base, `, "max_tokens": 3`)
	if late.StatusCode != http.StatusOK || !late.Close {
		t.Errorf("a request within the grace got %d, close %v", late.StatusCode, late.Close)
	}
	force()
	if err := p.wait(t); err != nil {
		t.Errorf("got %v", err)
	}
}

func TestADrainFinishesWhatRuns(t *testing.T) {
	p := run(t, options(t, routed(simulated(t, simengine.Config{StepBase: 5 * time.Millisecond}))))
	c := client(t)
	stream := chat(t, c, p.base, `, "stream": true, "max_tokens": 150, "ignore_eos": true`)
	p.end()
	if body := read(t, stream.Body); !strings.HasSuffix(body, "data: [DONE]\n\n") {
		t.Errorf("the running stream was cut: %q", body[max(0, len(body)-200):])
	}
	if err := p.wait(t); err != nil {
		t.Errorf("got %v", err)
	}
	if _, err := c.Get(p.base + "/healthz"); err == nil {
		t.Error("it still serves")
	}
}

// tail reads a stream to its end, which may be a cut, and returns its last event.
func tail(r io.Reader) (last string, err error) {
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadString('\n')
		if strings.HasPrefix(line, "data: ") {
			last = strings.TrimSpace(line)
		}
		if err != nil {
			return last, err //nolint:wrapcheck // The test asks what it is.
		}
	}
}

func TestStreamsThatOutliveTheDrainEndInAnErrorEvent(t *testing.T) {
	url := simulated(t, simengine.Config{StepBase: 5 * time.Millisecond})
	for _, http2 := range []bool{false, true} {
		o := options(t, routed(url))
		o.Config.Server.DrainTimeout = 200 * time.Millisecond
		p := run(t, o)
		protocols := new(http.Protocols)
		protocols.SetHTTP1(!http2)
		protocols.SetUnencryptedHTTP2(http2)
		transport := &http.Transport{Protocols: protocols}
		stream := chat(t, &http.Client{Transport: transport}, p.base, endless)
		p.end()
		last, err := tail(stream.Body)
		if !strings.Contains(last, `"code":"draining"`) || err == io.EOF {
			t.Errorf("%s: the stream ended with %q and %v; want an error event and a cut connection", stream.Proto, last, err)
		}
		if err := p.wait(t); err != nil {
			t.Errorf("%s: got %v", stream.Proto, err)
		}
		transport.CloseIdleConnections()
	}
}

func TestServeTakesTheEarlierServicesEnvironment(t *testing.T) {
	url := simulated(t, simengine.Config{Speed: 100})
	address := ports.Free(t)
	_, port, _ := strings.Cut(address, ":")
	log := new(syncBuffer)
	ctx, cancel := contextFor(t)
	done := make(chan error, 1)
	go func() {
		done <- app.Serve(ctx, app.Process{Version: "test", Stdout: io.Discard, Stderr: log}, app.Sources{
			File: write(t, "config.yaml", "server: { drain_grace: 0s }\npolicy: { last_good: '' }\n"),
			Env: map[string]string{
				"HTTP_PORT": port, "ENVIRONMENT": "development", "LOG_LEVEL": "debug", "KAFKA_BROKERS": "kafka:9092",
				"BACKEND_ENDPOINTS": "old:" + url + "/v1/chat/completions",
			},
			Flags: map[string]string{"policy.file.path": write(t, "p.yaml", "kind: RoutingPolicy\nid: p\nmodel: gpt-oss-20b\nbackends: [ { id: old } ]\n")},
		})
	}()
	eventually(t, "readiness", func() bool {
		response, err := client(t).Get("http://" + address + "/readyz")
		if err != nil {
			return false
		}
		defer func() { _ = response.Body.Close() }()
		return response.StatusCode == http.StatusOK
	})
	if response := chat(t, client(t), "http://"+address, ""); response.StatusCode != http.StatusOK || response.Header.Get("X-Routing-Backend") != "old" {
		t.Errorf("got %d from %q", response.StatusCode, response.Header.Get("X-Routing-Backend"))
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	for _, want := range []string{`"level":"DEBUG"`, `"names":["HTTP_PORT","ENVIRONMENT","BACKEND_ENDPOINTS"]`, `"names":["KAFKA_BROKERS"]`} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log does not say %s: %s", want, log)
		}
	}
}

func TestASecondSignalEndsTheDrainAtOnce(t *testing.T) {
	o := options(t, routed(simulated(t, simengine.Config{StepBase: 5 * time.Millisecond})))
	force := graceful(&o)
	o.Config.Server.DrainTimeout = 10 * hang
	p := run(t, o)
	stream := chat(t, client(t), p.base, endless)
	p.end()
	force()
	if last, _ := tail(stream.Body); !strings.Contains(last, `"code":"draining"`) {
		t.Errorf("the stream ended with %q", last)
	}
	if err := p.wait(t); err != nil {
		t.Errorf("got %v", err)
	}
}

func TestItServesBeforeThereAreAnyPolicies(t *testing.T) {
	o := options(t, nil)
	o.Config.Policy.File.Path = t.TempDir() + "/absent"
	a, err := app.New(o)
	if err != nil {
		t.Fatal(err)
	}
	base, done := "http://"+a.Addr().String(), make(chan error, 1)
	ctx, cancel := contextFor(t)
	go func() { done <- a.Run(ctx) }()
	c := client(t)
	if status, body := get(t, c, base+"/healthz"); status != http.StatusOK || body != "ok\n" {
		t.Errorf("healthz gives %d %q", status, body)
	}
	if status, body := get(t, c, base+"/readyz"); status != http.StatusServiceUnavailable || body != "starting\n" {
		t.Errorf("readyz gives %d %q", status, body)
	}
	if response := chat(t, c, base, ""); response.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("a request got %d", response.StatusCode)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

const documentsOf = `kind: Backend
id: one
url: %s
---
kind: RoutingPolicy
id: global
model: %s
backends: [ { id: one } ]
`

func TestAReloadTakesUpNewPolicies(t *testing.T) {
	url := simulated(t, simengine.Config{Speed: 100})
	file := write(t, "policies.yaml", sprintf(documentsOf, url, "first"))
	reload := make(chan struct{}, 1)
	o := options(t, nil)
	o.Config.Policy.File.Path, o.Reload = file, reload
	p := run(t, o)
	models := func() string {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.base+"/v1/models", nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Authorization", "Bearer dev-a-b")
		response, err := client(t).Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = response.Body.Close() }()
		return read(t, response.Body)
	}
	if got := models(); !strings.Contains(got, `"first"`) {
		t.Fatalf("got %s", got)
	}
	overwrite(t, file, sprintf(documentsOf, url, "second"))
	reload <- struct{}{}
	eventually(t, "the reload", func() bool { return strings.Contains(models(), `"second"`) })
}

func TestABackendWhoseSecretIsMissingDoesNotHurtTheOthers(t *testing.T) {
	url := simulated(t, simengine.Config{Speed: 100})
	key := t.TempDir() + "/key"
	o := options(t, nil)
	o.Config.Policy.File.Path = write(t, "policies.yaml", sprintf(`kind: Backend
id: locked
url: %[1]s
api_key: file:%[2]s
---
kind: Backend
id: open
url: %[1]s
---
kind: RoutingPolicy
id: global
model: gpt-oss-20b
backends: [ { id: locked }, { id: open } ]
`, url, key))
	var log syncBuffer
	o.Logger = log.logger()
	p := run(t, o)
	for range 5 {
		if response := chat(t, client(t), p.base, ""); response.StatusCode != http.StatusOK || response.Header.Get("X-Routing-Backend") != "open" {
			t.Errorf("got %d from %q", response.StatusCode, response.Header.Get("X-Routing-Backend"))
		}
	}
	if _, status := get(t, client(t), p.base+"/v1/status/readyz"); !strings.Contains(status, `"state":"1 of 2 available, 1 without a readable secret"`) {
		t.Errorf("the status does not show it: %s", status)
	}
	if got := log.String(); !strings.Contains(got, "a secret of this backend cannot be read") || !strings.Contains(got, "backend=locked") {
		t.Errorf("the log does not say what is wrong: %s", got)
	}
}
