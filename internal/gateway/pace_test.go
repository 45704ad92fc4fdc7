package gateway_test

import (
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestAFloodOfRequestsIsNoFloodOfLines(t *testing.T) {
	var log journal
	h := build(t, setting{log: &log, accessLines: 5}, "http://127.0.0.1:1")
	const sent = 520
	for range sent {
		_ = body(t, h.get("/v1/models"))
	}
	lines := with(&log, "msg=request")
	// Whatever seconds the requests fell into: no more than the bound and a hundredth of the rest in each.
	if n := len(lines); n < 5 || n >= sent/2 {
		t.Errorf("%d lines for %d requests", n, sent)
	}
	for deadline := time.Now().Add(hang); !strings.Contains(log.String(), "lines_left_out="); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no line says how many were left out")
		}
		_ = body(t, h.get("/v1/models"))
	}
	before := len(with(&log, "level=ERROR"))
	for range 20 {
		if resp := h.post("/v1/chat/completions", chat); resp.StatusCode != http.StatusBadGateway && resp.StatusCode != http.StatusServiceUnavailable {
			t.Fatal(resp.Status)
		}
	}
	h.Close() // Every line of the log is out.
	if n := len(with(&log, "level=ERROR")) - before; n != 20 {
		t.Errorf("%d lines for 20 failures", n)
	}
}

// with are the lines of a log that hold a text.
func with(log *journal, text string) []string {
	var found []string
	for line := range strings.Lines(log.String()) {
		if strings.Contains(line, text) {
			found = append(found, line)
		}
	}
	return found
}

func TestDebugLinesSayWhoAcceptedTheKeyAndWhyABackendWasChosen(t *testing.T) {
	var log journal
	h := build(t, setting{log: &log, level: slog.LevelDebug}, engineThatKeeps(t, make(chan http.Header, 1)))
	_ = body(t, h.post("/v1/chat/completions", chat))
	h.Close()
	for _, want := range []string{
		"validator=development", `msg="a backend was chosen" backend=b0 model=m backend_model=m reason="the only one that can be chosen now, of tier 0, by policy p"`,
	} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("no %s in\n%s", want, log.String())
		}
	}
	if strings.Contains(log.String(), key) {
		t.Error("the key is in the log")
	}
}
