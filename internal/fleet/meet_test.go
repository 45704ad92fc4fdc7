package fleet_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/ai-aas/api-router/internal/fleet"
)

func TestMeetWaitsForTheFirstProbeOfEveryBackend(t *testing.T) {
	release := make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		<-release
		_, _ = io.WriteString(w, `{"object":"list","data":[{"id":"own-name","root":"public"}]}`)
	}))
	defer slow.Close()
	f := fleet.New(fleet.Options{})
	if err := f.Apply([]fleet.Spec{{ID: "slow", URL: slow.URL}, {ID: "dead", URL: "http://127.0.0.1:1"}}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- f.Run(ctx) }()

	short, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
	f.Meet(short)
	stop()
	b, _ := f.Backend("slow")
	if name, known := b.ModelName("public"); known || name != "public" {
		t.Errorf("known before it was asked: %q", name)
	}
	close(release)
	f.Meet(t.Context())
	if name, known := b.ModelName("public"); !known || name != "own-name" {
		t.Errorf("after the first probe: %q, known %v", name, known)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
