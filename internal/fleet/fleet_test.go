package fleet

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ai-aas/api-router/internal/upstream"
)

func TestApplyKeepsTheStateOfWhatStaysTheSame(t *testing.T) {
	base := Spec{ID: "a", URL: "http://a.test", Engine: EngineVLLM, APIKey: "k", Timeouts: Timeouts{Connect: time.Second}}
	for _, test := range []struct {
		name   string
		change func(*Spec)
		keeps  bool
	}{
		{"nothing", func(*Spec) {}, true},
		{"models", func(s *Spec) { s.Models = map[string]string{"x": "y"} }, true},
		{"labels", func(s *Spec) { s.Labels = map[string]string{"region": "eu"} }, true},
		{"cap", func(s *Spec) { s.MaxConcurrency = 5 }, true},
		{"first byte timeout", func(s *Spec) { s.Timeouts.FirstByte = time.Minute }, true},
		{"url", func(s *Spec) { s.URL = "http://b.test" }, false},
		{"engine", func(s *Spec) { s.Engine = EngineTGI }, false},
		{"key", func(s *Spec) { s.APIKey = "l" }, false},
		{"connect timeout", func(s *Spec) { s.Timeouts.Connect = 2 * time.Second }, false},
		{"tls", func(s *Spec) { s.TLS.ServerName = "x" }, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := New(Options{})
			if err := f.Apply([]Spec{base}); err != nil {
				t.Fatal(err)
			}
			before := backend(t, f, "a")
			finish(t, before, 1, Result{Kind: Failed})
			changed := base
			test.change(&changed)
			if err := f.Apply([]Spec{changed}); err != nil {
				t.Fatal(err)
			}
			after := backend(t, f, "a")
			if (after == before) != test.keeps || after.Available() == test.keeps {
				t.Errorf("the same backend: %t, available: %t", after == before, after.Available())
			}
			if got := after.Spec(); fmt.Sprint(got) != fmt.Sprint(changed) {
				t.Errorf("spec %v, want %v", got, changed)
			}
		})
	}
}

// counting tells when a transport's idle connections are closed.
type counting struct {
	upstream.Transport

	closed *atomic.Int32
}

func (c counting) CloseIdleConnections() {
	c.closed.Add(1)
	c.Transport.CloseIdleConnections()
}

func TestARemovedBackendRetiresWithItsLastLease(t *testing.T) {
	var closed atomic.Int32
	f := New(Options{Transport: func(s Spec) (upstream.Transport, error) {
		transport, err := NewTransport(s)
		return counting{transport, &closed}, err
	}})
	if err := f.Apply([]Spec{{ID: "a", URL: "http://a.test"}}); err != nil {
		t.Fatal(err)
	}
	old := backend(t, f, "a")
	p := f.Picker(Ask{Candidates: candidates("a", "a")})
	one, _ := old.acquire(f.now(), 1, false)
	two, _ := old.acquire(f.now(), 1, false)
	if err := f.Apply(nil); err != nil {
		t.Fatal(err)
	}
	if _, ok := f.Backend("a"); ok || len(f.Status()) != 0 {
		t.Error("the removed backend is still listed")
	}
	if _, err := p.Next(); err == nil {
		t.Error("a picker from before gave a lease on a retired backend")
	}
	one.Done(Result{Kind: Served})
	if n := closed.Load(); n != 0 {
		t.Errorf("connections closed %d times while a lease is out", n)
	}
	two.Done(Result{Kind: Served})
	if n := closed.Load(); n != 1 {
		t.Errorf("connections closed %d times after the last lease, want 1", n)
	}
}

func TestABadSpecIsRefusedAlone(t *testing.T) {
	f := New(Options{})
	good := Spec{ID: "a", URL: "http://a.test"}
	if err := f.Apply([]Spec{good}); err != nil {
		t.Fatal(err)
	}
	before := backend(t, f, "a")
	bad := good
	bad.URL = "https://a.test"
	bad.TLS.CA = "not PEM"
	err := f.Apply([]Spec{
		bad,
		{ID: "b", URL: "http://b.test"},
		{ID: "b", URL: "http://c.test"},
		{URL: "http://d.test"},
		{ID: "e", URL: "ftp://e.test"},
		{ID: "f", URL: "http://"},
		{ID: "g", URL: "http://user:secret-of-g@g.test"},
		{ID: "h", URL: "http://h.test?x=1"},
		{ID: "i", URL: "http://i.test/%zz"},
	})
	if err == nil {
		t.Fatal("no error")
	}
	if strings.Contains(err.Error(), "secret-of-g") {
		t.Errorf("the error holds a password: %v", err)
	}
	for _, words := range []string{"backend a: tls.ca", "backend b: given twice", "without an id", "backend e:", "backend f:", "backend g:", "backend h:", "backend i:"} {
		if !strings.Contains(err.Error(), words) {
			t.Errorf("the error lacks %q: %v", words, err)
		}
	}
	if backend(t, f, "a") != before {
		t.Error("the running backend did not stay")
	}
	if got := backend(t, f, "b").Spec().URL; got != "http://b.test" || len(f.Status()) != 2 {
		t.Errorf("%d backends, b at %s", len(f.Status()), got)
	}
}

func TestRequestsReachTheBackendWithItsCredential(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.URL.Path+" "+r.Header.Get("Authorization")+" "+r.Header.Get("X-Api-Key"))
	}))
	defer server.Close()
	for _, test := range []struct{ engine, key, prefix, want string }{
		{EngineVLLM, "k", "", "/v1/models Bearer k "},
		{EngineVLLM, "", "", "/v1/models  "},
		{EngineAnthropic, "k", "", "/v1/models  k"},
		{"", "k", "/base/", "/base/v1/models Bearer k "},
	} {
		f := New(Options{})
		if err := f.Apply([]Spec{{ID: "a", URL: server.URL + test.prefix, Engine: test.engine, APIKey: Secret(test.key)}}); err != nil {
			t.Fatal(err)
		}
		b := backend(t, f, "a")
		r := (&http.Request{Method: http.MethodGet, URL: b.URL("/v1/models"), Header: http.Header{}}).WithContext(t.Context())
		b.Authorize(r.Header)
		response, err := b.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(response.Body)
		_ = response.Body.Close()
		if string(body) != test.want {
			t.Errorf("%+v: the backend saw %q", test, body)
		}
		if err := f.Apply(nil); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTheKeyOfABackendNeverShows(t *testing.T) {
	log := &journal{}
	f := New(Options{Logger: log.logger()})
	spec := Spec{ID: "a", URL: "http://a.test", APIKey: "canary-key", TLS: TLS{Key: "canary-private"}}
	if err := f.Apply([]Spec{spec}); err != nil {
		t.Fatal(err)
	}
	b := backend(t, f, "a")
	finish(t, b, 1, Result{Kind: CredentialsRejected})
	status, err := json.Marshal(f.Status())
	if err != nil {
		t.Fatal(err)
	}
	specJSON, err := json.Marshal(b.Spec())
	if err != nil {
		t.Fatal(err)
	}
	log.logger().Info("spec", "spec", b.Spec(), "identity", b.identity)
	for _, text := range []string{
		string(status), string(specJSON), log.text.String(), fmt.Sprintf("%v %+v %#v", spec, spec, spec),
		fmt.Sprintf("%v %+v %#v", b.identity, b.identity, b.identity), fmt.Sprintf("%v %+v %#v", b, b, b), slog.AnyValue(b.Spec()).String(),
	} {
		if strings.Contains(text, "canary") {
			t.Errorf("a secret shows in %s", text)
		}
	}
}

func TestAddressesOfURLs(t *testing.T) {
	for url, want := range map[string]string{
		"http://host": "host:80", "https://host": "host:443", "http://host:8000/": "host:8000", "http://[::1]:9": "[::1]:9", "https://[::1]/x": "[::1]:443",
	} {
		u, err := parseBase(url)
		if err != nil {
			t.Fatal(err)
		}
		if got := upstream.Address(u); got != want {
			t.Errorf("%s: %s, want %s", url, got, want)
		}
	}
}

func BenchmarkPick(b *testing.B) {
	for _, n := range []int{1, 4, 16} {
		f := fleetOf(b, n)
		var ids []string
		for i := range n {
			ids = append(ids, string(rune('a'+i)))
		}
		list := candidates(ids...)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				choice, err := f.Picker(Ask{Model: "m", Candidates: list}).Next()
				if err != nil {
					b.Fatal(err)
				}
				choice.Lease.Done(Result{Kind: Served})
			}
		})
	}
}
