package backend

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ai-aas/api-router/test/leaks"
)

func TestMain(m *testing.M) { leaks.Main(m) }

// start serves shapes on a free port and returns the base URL.
func start(t *testing.T, shapes ...Shape) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- New(shapes...).Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return "http://" + l.Addr().String()
}

// post asks with net/http's client, which is strict about framing.
func post(t *testing.T, url, body string) (int, []byte) {
	t.Helper()
	client := http.Client{Transport: new(http.Transport), Timeout: 20 * time.Second}
	defer client.CloseIdleConnections()
	resp, err := client.Post(url, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, got
}

func TestWholeAnswersAreJSONOfTheStatedLength(t *testing.T) {
	url := start(t, Shape{})
	for _, padding := range []int{0, 100, bufferSize, 400 << 10} {
		status, body := post(t, url+"/v1/chat/completions", `{"model":"whole","messages":[{"role":"user","content":"`+strings.Repeat("a", padding)+`"}]}`)
		if status != 200 || !json.Valid(body) || int64(len(body)) != (Shape{}).Length() {
			t.Errorf("padding %d: %d %s", padding, status, body)
		}
	}
	if status, _ := post(t, url+"/v1/chat/completions", `{"model":"other"}`); status != 404 {
		t.Errorf("an unknown model got %d", status)
	}
	if status, _ := post(t, url+"/anything", ``); status != 200 {
		t.Errorf("another path got %d", status)
	}
}

func TestModelsAreListed(t *testing.T) {
	shapes := []Shape{{}, {300, 10 * time.Millisecond}}
	url := start(t, shapes...)
	_, body := post(t, url+"/v1/models", "")
	var list struct{ Data []struct{ ID string } }
	if err := json.Unmarshal(body, &list); err != nil || len(list.Data) != 2 || list.Data[1].ID != shapes[1].Model() {
		t.Errorf("%s %v", body, err)
	}
}

func TestStreamsHaveTheirEvents(t *testing.T) {
	shape := Shape{Events: 5}
	url := start(t, shape)
	for name, test := range map[string]struct {
		options       string
		events, usage int // usage: how many report it
	}{
		"no usage":         {``, shape.Sent(), 0},
		"final usage":      {`,"stream_options":{"include_usage":true}`, shape.Sent() + 1, 1},
		"continuous usage": {`,"stream_options":{"include_usage":true,"continuous_usage_stats":true}`, shape.Sent() + 1, 8},
	} {
		_, body := post(t, url+"/v1/chat/completions", `{"model":"`+shape.Model()+`","stream":true`+test.options+`}`)
		events := bytes.Split(bytes.TrimSuffix(body, []byte("\n\n")), []byte("\n\n"))
		usage := bytes.Count(body, []byte(`"usage":{`))
		if len(events) != test.events || usage != test.usage || string(events[len(events)-1]) != "data: [DONE]" {
			t.Errorf("%s: %d events, %d with usage:\n%s", name, len(events), usage, body)
		}
		for _, e := range events[:len(events)-1] {
			if !json.Valid(bytes.TrimPrefix(e, []byte("data: "))) {
				t.Errorf("%s: %s", name, e)
			}
		}
	}
}

func TestPacedStreamsTakeTheirTime(t *testing.T) {
	shape := Shape{10, 20 * time.Millisecond}
	url := start(t, shape)
	began := time.Now()
	post(t, url+"/v1/chat/completions", `{"model":"`+shape.Model()+`"}`)
	if took := time.Since(began); took < 180*time.Millisecond || took > 10*time.Second {
		t.Errorf("10 events every 20 ms took %s", took)
	}
}

func TestModelNamesTellTheShape(t *testing.T) {
	for _, s := range []Shape{{}, {1, 0}, {300, 10 * time.Millisecond}, {40, 100 * time.Microsecond}} {
		if got, err := ParseModel(s.Model()); err != nil || got != s {
			t.Errorf("%v became %q became %v, %v", s, s.Model(), got, err)
		}
	}
	for _, name := range []string{"", "stream", "stream-1", "stream-0-1s", "stream-x-1s", "stream-1--1s", "whole-1-1s"} {
		if s, err := ParseModel(name); err == nil {
			t.Errorf("%q is %v", name, s)
		}
	}
}
