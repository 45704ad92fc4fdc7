package fleet

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

const oneModel = `{"object":"list","data":[{"id":"gpt-oss-20b","object":"model","owned_by":"vllm","root":"unsloth/gpt-oss-20b","max_model_len":131072}]}`

// probed runs a fleet with the one backend "a" against e, in a synctest bubble, and test with it.
func probed(t *testing.T, e *engine, spec Spec, test func(t *testing.T, f *Fleet, a *Backend, log *journal)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		stop := e.start()
		defer stop()
		log := &journal{}
		f := New(Options{Logger: log.logger(), Transport: e.open})
		spec.ID, spec.URL = "a", "http://engine.test"
		if err := f.Apply([]Spec{spec}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() {
			if err := f.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		defer running.Wait()
		defer cancel()
		synctest.Wait()
		test(t, f, backend(t, f, "a"), log)
	})
}

func (b *Backend) probeState() probeState { return probeState(b.probed.Load()) }

func TestABackendThatWasNotProbedMayBeTried(t *testing.T) {
	f := fleetOf(t, 1)
	if a := backend(t, f, "a"); !a.Available() || a.Status().Probe != "unknown" {
		t.Errorf("%+v", a.Status())
	}
}

func TestProbesFollowTheEngine(t *testing.T) {
	for _, test := range []struct {
		engine         string
		health, models int // calls within the first minute
		path           string
	}{
		{EngineVLLM, 12, 2, "/v1/models"},
		{EngineSGLang, 12, 2, "/v1/models"},
		{EngineTGI, 12, 2, "/v1/models"},
		{EngineLlamaCPP, 12, 2, "/v1/models"},
		{EngineOllama, 0, 12, "/v1/models"},
		{"", 0, 12, "/v1/models"},
		{EngineOpenAI, 0, 12, "/v1/models"},
		{EngineAnthropic, 0, 12, "/v1/models?limit=1000"},
	} {
		t.Run(test.engine, func(t *testing.T) {
			e := newEngine(oneModel)
			probed(t, e, Spec{Engine: test.engine, APIKey: "k"}, func(t *testing.T, _ *Fleet, a *Backend, log *journal) {
				if a.probeState() != probeHealthy {
					t.Errorf("%s after the first probe", a.probeState())
				}
				time.Sleep(58 * time.Second)
				health, models := e.asked("/health"), e.asked(test.path)
				near := func(got, want int) bool { return got >= want-2 && got <= want+2 && (got == 0) == (want == 0) }
				if !near(health, test.health) || !near(models, test.models) {
					t.Errorf("%d health and %d models in a minute, want about %d and %d", health, models, test.health, test.models)
				}
				if n := log.count("backend healthy"); n != 1 {
					t.Errorf("health was logged %d times", n)
				}
				key := e.head.Get("Authorization")
				if test.engine == EngineAnthropic {
					key = "Bearer " + e.head.Get("X-Api-Key")
				}
				if key != "Bearer k" || e.head.Get("User-Agent") != "api-router" {
					t.Errorf("headers %v", e.head)
				}
			})
		})
	}
}

func TestTwoFailedProbesTakeABackendOutAndOneBringsItBack(t *testing.T) {
	for name, fault := range map[string]struct{ set, clear func(*engine) }{
		"server errors": {func(e *engine) { e.health.Store(503) }, func(e *engine) { e.health.Store(200) }},
		"silence":       {func(e *engine) { e.silent.Store(true) }, func(e *engine) { e.silent.Store(false) }},
		"refusal":       {func(e *engine) { e.refuses.Store(true) }, func(e *engine) { e.refuses.Store(false) }},
		"redirect":      {func(e *engine) { e.health.Store(302) }, func(e *engine) { e.health.Store(200) }},
	} {
		for _, engine := range []string{EngineVLLM, EngineOllama} {
			t.Run(name+" "+engine, func(t *testing.T) {
				e := newEngine(oneModel)
				probed(t, e, Spec{Engine: engine}, func(t *testing.T, f *Fleet, a *Backend, log *journal) {
					fault.set(e)
					begin := time.Now()
					for a.probeState() != probeUnhealthy {
						if time.Since(begin) > 12*time.Second {
							t.Fatalf("still %s after %s", a.probeState(), time.Since(begin))
						}
						time.Sleep(100 * time.Millisecond)
					}
					_, err := f.Picker(Ask{Candidates: candidates("a")}).Next()
					if e := exhaustedOf(t, err); e.Unhealthy != 1 || e.RetryAfter > 17*time.Second {
						t.Errorf("%+v", *e)
					}
					time.Sleep(5 * time.Minute)
					if s := a.Status(); s.Reason == "" || strings.Contains(s.Reason, "context deadline") {
						t.Errorf("reason %q", s.Reason)
					}
					if n := log.count("backend unhealthy"); n != 1 {
						t.Errorf("the flip was logged %d times", n)
					}
					e.asked("/health")
					e.asked("/v1/models")
					fault.clear(e)
					time.Sleep(20 * time.Second)
					if a.probeState() != probeHealthy || log.count("backend healthy") != 2 {
						t.Errorf("%s, logged %d times", a.probeState(), log.count("backend healthy"))
					}
					if e.asked("/v1/models") == 0 {
						t.Error("the list was not read again after the return")
					}
				})
			})
		}
	}
}

func TestOneFailedProbeChangesNothing(t *testing.T) {
	e := newEngine(oneModel)
	probed(t, e, Spec{Engine: EngineVLLM}, func(t *testing.T, _ *Fleet, a *Backend, log *journal) {
		for range 20 {
			a.suffer("one")
			if !a.Available() {
				t.Fatal("out after one failed probe")
			}
			time.Sleep(7 * time.Second)
		}
		if log.count("backend unhealthy") != 0 {
			t.Error("logged as unhealthy")
		}
	})
}

func TestFailingProbesSlowDown(t *testing.T) {
	const ms = time.Millisecond
	slower := []time.Duration{1000 * ms, 5000 * ms, 7500 * ms, 11250 * ms, 15000 * ms, 15000 * ms}
	for _, test := range []struct {
		engine, url string
		healthy     time.Duration
	}{
		{EngineVLLM, "http://x.test", 5 * time.Second},
		{EngineVLLM, "https://x.test", 5 * time.Second},
		{EngineOpenAI, "http://x.test", 5 * time.Second},
		{EngineOpenAI, "https://x.test", 30 * time.Second}, // a public service, which counts every call
		{EngineAnthropic, "https://x.test", 30 * time.Second},
	} {
		a := backend(t, fleetOf(t, 1, func(s *Spec) { s.Engine, s.URL = test.engine, test.url }), "a")
		for failures, want := range append([]time.Duration{test.healthy}, slower...) {
			if got := a.pauseAfter(failures); got != want {
				t.Errorf("%s at %s after %d failures: %s, want %s", test.engine, test.url, failures, got, want)
			}
		}
		if got := a.pauseAfter(1_000_000); got != probeSlowest {
			t.Errorf("after a million failures: %s", got)
		}
	}
	for range 1000 {
		if got := jitter(probeEvery); got < 4500*time.Millisecond || got > 5500*time.Millisecond {
			t.Fatalf("jitter made %s", got)
		}
	}
}

func TestARestartEndsAnEjectionEarly(t *testing.T) {
	e := newEngine(oneModel)
	probed(t, e, Spec{Engine: EngineVLLM}, func(t *testing.T, _ *Fleet, a *Backend, _ *journal) {
		e.refuses.Store(true)
		for range 3 {
			finish(t, a, 3, Result{Kind: ConnectFailed})
		}
		time.Sleep(10 * time.Second)
		e.refuses.Store(false)
		time.Sleep(12 * time.Second)
		if !a.Available() {
			t.Fatalf("the restarted backend is %+v", a.Status())
		}
		lease, ok := a.acquire(a.now(), 3, false)
		if !ok || !lease.trial {
			t.Fatal("want a trial")
		}
		lease.Done(Result{Kind: Served})
		if a.ejectedUntil.Load() != 0 {
			t.Error("still ejected after the trial")
		}
	})
}

func TestAListThatCannotBeHadIsNotASickness(t *testing.T) {
	for name, test := range map[string]struct {
		engine, body string
		status       int32
		says         string
	}{
		"key refused":           {EngineOpenAI, oneModel, 401, "refuses the router's API key"},
		"forbidden":             {EngineOllama, oneModel, 403, "refuses the router's API key"},
		"no such path":          {"", oneModel, 404, "answers 404"},
		"not JSON":              {EngineVLLM, "<html>", 200, "not what OpenAI's looks like"},
		"longer than it may be": {EngineVLLM, `{"data":[{"id":"` + strings.Repeat("a", maxList) + `"}]}`, 200, "longer than it may be"},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEngine(test.body)
			e.health.Store(test.status)
			probed(t, e, Spec{Engine: test.engine, APIKey: "k"}, func(t *testing.T, _ *Fleet, a *Backend, log *journal) {
				time.Sleep(2 * time.Minute)
				if !a.Available() || a.probeState() != probeHealthy {
					t.Errorf("%+v", a.Status())
				}
				if got := a.Status().Listing; !strings.Contains(got, test.says) {
					t.Errorf("listing %q, want %q in it", got, test.says)
				}
				if n := log.count("does not list its models"); n != 1 {
					t.Errorf("logged %d times", n)
				}
				e.health.Store(http.StatusOK)
				e.models.Store(oneModel)
				time.Sleep(time.Minute)
				if name, known := a.ModelName("gpt-oss-20b"); a.Status().Listing != "" || !known || name != "gpt-oss-20b" {
					t.Errorf("after the cure: %+v", a.Status())
				}
			})
		})
	}
}

func TestTheLastListStaysWhenABackendStopsListing(t *testing.T) {
	e := newEngine(oneModel)
	probed(t, e, Spec{Engine: EngineVLLM}, func(t *testing.T, _ *Fleet, a *Backend, _ *journal) {
		e.models.Store("")
		time.Sleep(2 * time.Minute)
		if len(a.Models()) != 1 || a.Status().Listing == "" {
			t.Errorf("%+v", a.Status())
		}
	})
}

func TestProbesFollowApply(t *testing.T) {
	e := newEngine(oneModel)
	probed(t, e, Spec{Engine: EngineVLLM}, func(t *testing.T, f *Fleet, _ *Backend, _ *journal) {
		apply := func(ids ...string) {
			t.Helper()
			var specs []Spec
			for _, id := range ids {
				specs = append(specs, Spec{ID: id, URL: "http://engine.test/" + id, Engine: EngineVLLM})
			}
			if err := f.Apply(specs); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			e.asked("/b/health")
			e.asked("/c/health")
			time.Sleep(30 * time.Second)
		}
		apply("b", "c")
		if e.asked("/b/health") < 4 || e.asked("/c/health") < 4 {
			t.Error("new backends are not probed")
		}
		b := backend(t, f, "b")
		apply("b")
		if e.asked("/b/health") < 4 || e.asked("/c/health") != 0 || backend(t, f, "b") != b {
			t.Error("want b probed on, and c no more")
		}
		apply()
		if n := e.asked("/b/health"); n != 0 {
			t.Errorf("a removed backend was probed %d times", n)
		}
	})
}

func TestRunEndsWhileAProbeHangs(t *testing.T) {
	e := newEngine(oneModel)
	e.silent.Store(true)
	probed(t, e, Spec{Engine: EngineVLLM}, func(*testing.T, *Fleet, *Backend, *journal) {
		// The cancellation that follows must end the hanging probe: the bubble fails when a goroutine stays.
	})
}
