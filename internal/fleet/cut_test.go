package fleet

import (
	"context"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ai-aas/api-router/internal/upstream"
)

// slowly answers /stream with a beginning and /wait not at all, until the client has gone; anything else with "ok".
func slowly(arrived chan<- string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		switch r.URL.Path {
		case "/stream":
			_, _ = io.WriteString(w, "begun")
			_ = http.NewResponseController(w).Flush()
			fallthrough
		case "/wait":
			arrived <- r.URL.Path
			<-r.Context().Done()
			arrived <- "gone"
		default:
			_, _ = io.WriteString(w, "ok")
		}
	}
}

// overBoth runs a test with the backend "a" over our own connections, and over net/http's with TLS.
func overBoth(t *testing.T, test func(t *testing.T, f *Fleet, spec Spec, arrived chan string)) {
	for _, scheme := range []string{"http", "https"} {
		t.Run(scheme, func(t *testing.T) {
			arrived := make(chan string, 10)
			server := httptest.NewUnstartedServer(slowly(arrived))
			spec := Spec{ID: "a"}
			if scheme == "http" {
				server.Start()
			} else {
				server.EnableHTTP2 = true
				server.StartTLS()
				spec.TLS.CA = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
			}
			defer server.Close()
			spec.URL = server.URL
			f := New(Options{})
			if err := f.Apply([]Spec{spec}); err != nil {
				t.Fatal(err)
			}
			defer func() { backend(t, f, "a").connections().CloseIdleConnections() }()
			test(t, f, spec, arrived)
		})
	}
}

func lease(t *testing.T, f *Fleet) *Lease {
	t.Helper()
	choice, err := f.Picker(Ask{Candidates: candidates("a"), EjectAfter: 1}).Next()
	if err != nil {
		t.Fatal(err)
	}
	return choice.Lease
}

// ask sends a request to path and reads the answer.
func ask(l *Lease, path string) (string, error) {
	response, err := l.Backend().RoundTrip(&http.Request{
		Method: http.MethodPost, URL: l.Backend().URL(path), Header: http.Header{}, Body: io.NopCloser(strings.NewReader("{}")), ContentLength: 2,
	})
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	return string(content), err
}

// What runs at a backend that is switched off ends at once, does not speak against the backend, and does not come back.
func TestDisablingCutsWhatRuns(t *testing.T) {
	overBoth(t, func(t *testing.T, f *Fleet, _ Spec, arrived chan string) {
		for path, begun := range map[string]string{"/stream": "begun", "/wait": ""} {
			running, early := lease(t, f), lease(t, f)
			go func() {
				<-arrived
				f.SetMarks(marked("a-"))
			}()
			if content, err := ask(running, path); !errors.Is(err, upstream.ErrCut) || !strings.HasPrefix(begun, content) {
				t.Errorf("%s: %q, %v, want the cut", path, content, err)
			}
			if <-arrived != "gone" {
				t.Errorf("%s: arrived twice", path)
			}
			// Another one got its lease before, and sends only now.
			_, err := ask(early, path)
			if _, connecting := errors.AsType[*upstream.ConnectError](err); !connecting || !errors.Is(err, upstream.ErrCut) {
				t.Errorf("%s: sent after the cut: %v", path, err)
			}
			if _, err := f.Picker(Ask{Candidates: candidates("a")}).Next(); exhaustedOf(t, err).Disabled != 1 {
				t.Errorf("%s: %v", path, err)
			}
			running.Done(Result{Kind: Failed})
			f.SetMarks(nil)
			early.Done(Result{Kind: ConnectFailed}) // Also when the mark has gone meanwhile.
			if s := backend(t, f, "a").Status(); s.State != "available" || s.Failures != 0 || s.InFlight != 0 {
				t.Errorf("%s: after the cut: %+v", path, s)
			}
			again := lease(t, f)
			if content, err := ask(again, "/"); err != nil || content != "ok" {
				t.Errorf("%s: switched on again: %q, %v", path, content, err)
			}
			again.Done(Result{Kind: Failed})
			if s := backend(t, f, "a").Status(); s.State != "ejected" {
				t.Errorf("%s: a failure after the cut counts: %s", path, s.State)
			}
			backend(t, f, "a").readmit("the test goes on")
		}
	})
}

func TestDrainingAndDegradingLetWhatRunsFinish(t *testing.T) {
	finish := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "begun ")
		_ = http.NewResponseController(w).Flush()
		<-finish
		_, _ = io.WriteString(w, "and ended")
	}))
	defer server.Close()
	f := New(Options{})
	if err := f.Apply([]Spec{{ID: "a", URL: server.URL}}); err != nil {
		t.Fatal(err)
	}
	defer backend(t, f, "a").connections().CloseIdleConnections()
	inFlight := func(want int64) {
		t.Helper()
		if s := f.Status()[0]; s.InFlight != want {
			t.Errorf("%s: %d in flight, want %d", s.State, s.InFlight, want)
		}
	}
	one, two := lease(t, f), lease(t, f)
	var running sync.WaitGroup
	running.Go(func() {
		if content, err := ask(one, "/"); err != nil || content != "begun and ended" {
			t.Errorf("%q, %v", content, err)
		}
		one.Done(Result{Kind: Served})
	})
	f.SetMarks(marked("a?"))
	f.SetMarks(marked("a~"))
	inFlight(2)
	// A lease that was given may be used.
	close(finish)
	running.Wait()
	inFlight(1)
	if content, err := ask(two, "/"); err != nil || content != "begun and ended" {
		t.Errorf("%q, %v", content, err)
	}
	two.Done(Result{Kind: Served})
	inFlight(0)
}

// Requests may still run on what Apply has replaced or removed: they belong to the id all the same.
func TestDisablingCutsWhatAnEarlierConfigurationRuns(t *testing.T) {
	overBoth(t, func(t *testing.T, f *Fleet, spec Spec, arrived chan string) {
		cut := make(chan error, 2)
		stream := func() {
			l := lease(t, f)
			go func() {
				_, err := ask(l, "/stream")
				l.Done(Result{Kind: Failed})
				cut <- err
			}()
			<-arrived
		}
		apply := func(specs ...Spec) {
			t.Helper()
			if err := f.Apply(specs); err != nil {
				t.Fatal(err)
			}
		}
		stream()
		spec.APIKey = "another"
		apply(spec)
		stream()
		if s := f.Status()[0]; s.InFlight != 2 {
			t.Errorf("%d in flight, want 2", s.InFlight)
		}
		apply()
		apply(spec)
		if s := f.Status()[0]; s.InFlight != 2 {
			t.Errorf("gone and back: %d in flight, want 2", s.InFlight)
		}
		f.SetMarks(marked("a-"))
		for range 2 {
			if err := <-cut; !errors.Is(err, upstream.ErrCut) {
				t.Errorf("got %v, want the cut", err)
			}
		}
		apply(spec)
		if s := f.Status()[0]; s.InFlight != 0 || s.Failures != 0 || len(*f.leaving.Load()) != 0 {
			t.Errorf("%d in flight, %d failures, %d remembered", s.InFlight, s.Failures, len(*f.leaving.Load()))
		}
	})
}

func TestOnlyBecomingDisabledCuts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fleetOf(t, 1)
		a := backend(t, f, "a")
		for _, test := range []struct {
			mark Mark
			cuts uint32
		}{
			{Mark{State: MarkDegraded}, 0},
			{Mark{State: MarkDraining}, 0},
			{Mark{State: MarkDisabled}, 1},
			{Mark{State: MarkDisabled}, 1},
			{Mark{State: MarkDisabled, Reason: "another", Until: time.Now().Add(time.Minute)}, 1},
			{Mark{}, 1},
			{Mark{State: MarkDisabled, Until: time.Now().Add(-time.Second)}, 1},
			{Mark{State: MarkDisabled, Until: time.Now().Add(time.Minute)}, 2},
		} {
			f.SetMarks(map[string]Mark{"a": test.mark})
			if got := a.cuts.Load(); got != test.cuts {
				t.Errorf("%+v: %d cuts, want %d", test.mark, got, test.cuts)
			}
		}
		ended := f.marks["a"].Mark
		time.Sleep(time.Minute)
		f.SetMarks(map[string]Mark{"a": ended}) // Nobody has deleted it yet.
		if got := a.cuts.Load(); got != 2 {
			t.Errorf("a mark that has ended, told again: %d cuts, want 2", got)
		}
		f.SetMarks(map[string]Mark{"a": {State: MarkDisabled, Reason: "again"}})
		if got := a.cuts.Load(); got != 3 {
			t.Errorf("requests ran since the mark ended: %d cuts, want 3", got)
		}
	})
}

func TestProbesGoOnAtAMarkedBackend(t *testing.T) {
	for _, mark := range []string{"a-", "a~", "a?"} {
		for _, kind := range []string{EngineVLLM, EngineOllama} {
			e := newEngine(oneModel)
			probed(t, e, Spec{Engine: kind}, func(t *testing.T, f *Fleet, a *Backend, _ *journal) {
				f.SetMarks(marked(mark))
				time.Sleep(time.Minute)
				if n := e.asked("/health") + e.asked("/v1/models"); n < 10 {
					t.Errorf("%s: %d probes in a minute", mark, n)
				}
				if s := a.Status(); s.Probe != "healthy" || s.LastError != "" {
					t.Errorf("%s: %s because %q", mark, s.Probe, s.LastError)
				}
				e.health.Store(500)
				time.Sleep(time.Minute)
				if s := a.Status(); s.Probe != "unhealthy" || s.LastError == "" {
					t.Errorf("%s: %s although it fails", mark, s.Probe)
				}
			})
		}
	}
}

// A probe that the cut ends says nothing about the backend.
func TestACutProbeIsNoFailedProbe(t *testing.T) {
	e := newEngine(oneModel)
	probed(t, e, Spec{Engine: EngineVLLM}, func(t *testing.T, f *Fleet, a *Backend, log *journal) {
		for range 20 {
			e.silent.Store(true)
			time.Sleep(time.Duration(a.nextProbe.Load()) - f.now() + time.Millisecond) // A probe waits for its answer.
			f.SetMarks(marked("a-"))
			e.silent.Store(false)
			f.SetMarks(nil)
			synctest.Wait()
			a.probing.mu.Lock()
			if a.probing.failures != 0 {
				t.Fatalf("%d failed probes: %q", a.probing.failures, a.probing.problem)
			}
			a.probing.mu.Unlock()
			time.Sleep(2 * probeEvery)
		}
		if n := log.count("backend unhealthy"); n != 0 {
			t.Errorf("unhealthy %d times", n)
		}
	})
}

// While marks come and go, whoever asks after a backend was switched off, and before it is switched on, gets no answer from it.
func TestNothingGetsPastTheSwitch(t *testing.T) {
	server := httptest.NewServer(slowly(nil))
	defer server.Close()
	f := New(Options{})
	if err := f.Apply([]Spec{{ID: "a", URL: server.URL}}); err != nil {
		t.Fatal(err)
	}
	defer func() { backend(t, f, "a").connections().CloseIdleConnections() }()
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	var switched sync.RWMutex
	off := false
	for range 4 {
		group.Go(func() { // These know how the switch stands while they ask.
			for ctx.Err() == nil {
				choice, err := f.Picker(Ask{Candidates: candidates("a"), EjectAfter: 1}).Next()
				if err != nil {
					time.Sleep(100 * time.Microsecond)
					continue
				}
				switched.RLock()
				content, err := ask(choice.Lease, "/")
				if off == (err == nil) || off != errors.Is(err, upstream.ErrCut) {
					t.Errorf("off %t: %q, %v", off, content, err)
				}
				switched.RUnlock()
				choice.Lease.Done(Result{Kind: Served})
			}
		})
		group.Go(func() { // These are cut at any moment.
			for ctx.Err() == nil {
				choice, err := f.Picker(Ask{Candidates: candidates("a"), EjectAfter: 1}).Next()
				if err != nil {
					time.Sleep(100 * time.Microsecond)
					continue
				}
				_, err = ask(choice.Lease, "/")
				switch {
				case err == nil:
					choice.Lease.Done(Result{Kind: Served})
				case errors.Is(err, upstream.ErrCut):
					choice.Lease.Done(Result{Kind: Failed})
				default:
					t.Error(err)
				}
			}
		})
	}
	for i := range 200 {
		switched.Lock()
		off = i%2 == 0
		if off {
			f.SetMarks(marked("a-"))
		} else {
			f.SetMarks(nil)
		}
		switched.Unlock()
		time.Sleep(time.Millisecond)
	}
	cancel()
	group.Wait()
	if s := backend(t, f, "a").Status(); s.Failures != 0 || s.State != "available" {
		t.Errorf("the cuts were held against the backend: %s, %d failures", s.State, s.Failures)
	}
}
