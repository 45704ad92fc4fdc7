package fleet

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"
)

func TestMeetWaitsForTheFirstProbeOfEveryBackend(t *testing.T) {
	asked, release := make(chan struct{}), make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(asked)
		<-release
		_, _ = io.WriteString(w, `{"object":"list","data":[{"id":"own-name","root":"public"}]}`)
	}))
	defer slow.Close()
	f := New(Options{})
	if err := f.Apply([]Spec{{ID: "slow", URL: slow.URL}, {ID: "dead", URL: "http://127.0.0.1:1"}}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- f.Run(ctx) }()

	b := backend(t, f, "slow")
	go func() {
		<-asked
		if name, known := b.ModelName("public"); known || name != "public" {
			t.Errorf("known before it was asked: %q", name)
		}
		close(release)
	}()
	f.Meet(t.Context())
	if name, known := b.ModelName("public"); !known || name != "own-name" {
		t.Errorf("after the first probe: %q, known %v", name, known)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// A backend that answers nobody holds up one change of policy, not every one while it is there.
func TestMeetWaitsForABackendOnce(t *testing.T) {
	const most = 400 * time.Millisecond
	synctest.Test(t, func(t *testing.T) {
		silent := newEngine(oneModel)
		silent.silent.Store(true)
		stop := silent.start()
		defer stop()
		f := New(Options{Transport: silent.open})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- f.Run(ctx) }()
		defer func() {
			cancel()
			<-ended
		}()
		a, b := Spec{ID: "a", URL: "http://a.test"}, Spec{ID: "b", URL: "http://b.test"}
		meet := func(what string, want time.Duration, specs ...Spec) {
			t.Helper()
			if err := f.Apply(specs); err != nil {
				t.Fatal(err)
			}
			begin := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), most)
			defer cancel()
			f.Meet(ctx)
			if took := time.Since(begin); took != want {
				t.Errorf("%s: waited %s, want %s", what, took, want)
			}
		}
		meet("new", most, a)
		meet("the same", 0, a)
		a.APIKey = "another"
		meet("another key", 0, a)
		meet("one more", most, a, b)
		meet("nothing new", 0, a, b)
		time.Sleep(time.Minute) // The probes have failed by now.
		meet("failed", 0, a, b)
		b.APIKey = "another"
		meet("failed, with another key", 0, a, b)
		b.URL = "http://c.test"
		meet("another url", most, a, b)
		meet("gone", 0, a)
		silent.silent.Store(false)
		meet("back, and answers", 0, a, b)
		if probed := backend(t, f, "b").probeState(); probed != probeHealthy {
			t.Errorf("met while it is %s", probed)
		}
	})
}
