package gateway_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ai-aas/api-router/internal/fault"
	"github.com/ai-aas/api-router/internal/fleet"
)

const (
	streamChat  = `{"model":"m","stream":true,"messages":[{"role":"user","content":"Hello!"}]}`
	streamAsked = `{"model":"m","stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true},"messages":[{"role":"user","content":"Hello!"}]}`
)

func delta(content string) string {
	return fmt.Sprintf("data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":%q},\"finish_reason\":null}]}\n\n", content)
}

const (
	opening = "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}]}\n\n"
	finish  = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n"
	used    = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}\n\n"
	done    = "data: [DONE]\n\n"
)

func TestRecordedStreamsCutAnywherePassUnchanged(t *testing.T) {
	files, err := filepath.Glob("../wire/testdata/*.sse")
	if err != nil || len(files) == 0 {
		t.Fatal("no recorded streams: ", err)
	}
	for _, file := range files {
		recorded, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		sent := string(recorded)
		if !strings.Contains(sent, "[DONE]") || strings.Contains(sent, `"error"`) {
			continue // Such a stream does not end well: TestAStreamThatEndsEarlyNeverEndsCleanly has its like.
		}
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			want := sent
			// Where a recording goes on after [DONE], the golden file is what a client may see of it.
			if golden, err := os.ReadFile(strings.TrimSuffix(file, ".sse") + ".none.golden"); err == nil {
				want = string(golden)
			}
			var cut atomic.Int64
			backend := play(t, func(conn net.Conn, _ string) {
				at := int(cut.Load())
				_, _ = io.WriteString(conn, streamed(sent[:at]))
				time.Sleep(200 * time.Microsecond) // So that the cut is one between reads, most of the time.
				_, _ = io.WriteString(conn, fmt.Sprintf("%x\r\n%s\r\n%s", len(sent)-at, sent[at:], lastChunk))
			})
			h := build(t, setting{specs: func(s *fleet.Spec) { s.Engine = "" }}, backend.URL)
			step := 1
			if testing.Short() {
				step = 37
			}
			for at := 1; at < len(sent); at += step {
				cut.Store(int64(at))
				path, request := "/v1/chat/completions", streamAsked
				if strings.Contains(want, "text_completion") {
					path, request = "/v1/completions", strings.Replace(strings.Replace(streamAsked, "messages", "prompt", 1), `[{"role":"user","content":"Hello!"}]`, `"a"`, 1)
				}
				resp := h.post(path, request)
				if got := body(t, resp); got != want {
					t.Fatalf("cut at %d:\n%q\nwant\n%q", at, got, want)
				}
			}
		})
	}
}

func TestUsageThatOnlyWeAskedForIsSplicedOut(t *testing.T) {
	withUsage := strings.Replace(delta("a"), `]}`, `],"usage":{"prompt_tokens":3,"completion_tokens":1}}`, 1)
	backend := play(t, says(streamed(opening, withUsage, finish, used, done)+lastChunk))
	h := build(t, setting{}, backend.URL)

	if got, want := body(t, h.post("/v1/chat/completions", streamChat)), opening+delta("a")+finish+done; got != want {
		t.Errorf("not asked:\n%s\nwant\n%s", got, want)
	}
	asked := strings.Replace(streamChat, `"stream":true`, `"stream":true,"stream_options":{"include_usage":true}`, 1)
	if got, want := body(t, h.post("/v1/chat/completions", asked)), opening+delta("a")+finish+used+done; got != want {
		t.Errorf("asked for the total:\n%s\nwant\n%s", got, want)
	}
	if got, want := body(t, h.post("/v1/chat/completions", streamAsked)), opening+withUsage+finish+used+done; got != want {
		t.Errorf("asked for all:\n%s\nwant\n%s", got, want)
	}
	for _, sent := range backend.bodies() {
		if !strings.Contains(sent, `"include_usage":true`) || !strings.Contains(sent, `"continuous_usage_stats":true`) {
			t.Errorf("the backend was asked %s", sent)
		}
	}
	for n := range 3 {
		if rec := h.closed(n + 1); rec.PromptTokens != 3 || rec.CompletionTokens != 2 || !rec.Stream || rec.StopReason != "done" {
			t.Errorf("%+v", rec)
		}
	}
}

func TestAStreamThatEndsEarlyNeverEndsCleanly(t *testing.T) { onBoth(t, earlyEnd) }

func earlyEnd(t *testing.T, way setting) {
	const silence = "silence"
	for name, tc := range map[string]struct {
		play      func(net.Conn, string)
		code      string
		truncated bool
	}{
		"the connection closes":        {hangUp(streamed(opening, delta("a"))), "backend_error", true},
		"a clean end, no [DONE]":       {says(streamed(opening, delta("a"), finish) + lastChunk), "backend_error", true},
		"[DONE], but no finish":        {says(streamed(opening, delta("a"), done) + lastChunk), "backend_error", true},
		"cut within an event":          {hangUp(streamed(opening, delta("a"), delta("bcd")[:20])), "backend_error", true},
		silence:                        {says(streamed(opening, delta("a"))), "backend_timeout", true},
		"an error event in the middle": {says(streamed(opening, delta("a"), "data: {\"error\":{\"message\":\"CUDA\",\"code\":500}}\n\n", done) + lastChunk), "CUDA", true},
	} {
		t.Run(name, func(t *testing.T) {
			way := way
			if name == silence { // The others may take their time.
				way = way.with(func(s *fleet.Spec) { s.Timeouts.BetweenBytes = time.Second })
			}
			h := build(t, way, play(t, tc.play).URL)
			resp := h.post("/v1/chat/completions", streamChat)
			content, err := io.ReadAll(resp.Body)
			if err == nil {
				t.Errorf("the connection ends cleanly after %q", content)
			}
			rest, ok := strings.CutPrefix(string(content), opening+delta("a"))
			if !ok {
				t.Fatalf("what had arrived is lost: %q", content)
			}
			rest = strings.TrimPrefix(rest, finish)
			if !strings.HasPrefix(rest, `data: {"error":{`) || !strings.HasSuffix(rest, "\n\n") || strings.Count(rest, "data:") != 1 || !strings.Contains(rest, tc.code) {
				t.Errorf("after the content comes %q", rest)
			}
			if rec := h.closed(1); rec.Truncated != tc.truncated || rec.StopReason == "done" || rec.Status != 200 || rec.Code == "" {
				t.Errorf("%+v", rec)
			}
		})
	}
}

func TestAStreamWithoutContentFailsOver(t *testing.T) { onBoth(t, noContent) }

func noContent(t *testing.T, way setting) {
	for name, first := range map[string]func(net.Conn, string){
		"nothing but the role": hangUp(streamed(opening)),
		"an error at once":     says(streamed("data: {\"error\":{\"message\":\"no memory\"}}\n\n", done) + lastChunk),
		"an empty stream":      says(streamed() + lastChunk),
		"[DONE] alone":         says(streamed(done) + lastChunk),
		"garbage":              says(streamed("data: <html>\n\n") + lastChunk),
		"comments and silence": says(streamed(": wait\n\n", ": wait\n\n")),
	} {
		t.Run(name, func(t *testing.T) {
			good := play(t, says(streamed(opening, delta("b"), finish, done)+lastChunk))
			impatient := func(s *fleet.Spec) {
				if s.ID == "b0" {
					s.Timeouts.BetweenBytes = time.Second
				}
			}
			h := build(t, way.with(impatient), play(t, first).URL, good.URL)
			resp := h.post("/v1/chat/completions", streamChat)
			if got := body(t, resp); got != opening+delta("b")+finish+done || resp.Header.Get("X-Routing-Decision") != "FAILOVER" {
				t.Errorf("%q %v", got, resp.Header)
			}
		})
	}
}

func TestEventsAreFlushedAsTheyCome(t *testing.T) { onBoth(t, flushing) }

func flushing(t *testing.T, way setting) {
	next := make(chan string)
	backend := play(t, func(conn net.Conn, _ string) {
		_, _ = io.WriteString(conn, streamed())
		for event := range next {
			_, _ = io.WriteString(conn, fmt.Sprintf("%x\r\n%s\r\n", len(event), event))
		}
		_, _ = io.WriteString(conn, lastChunk)
	})
	h := build(t, way, backend.URL)
	answered := make(chan *http.Response)
	go func() { answered <- h.post("/v1/chat/completions", streamChat) }()
	next <- delta("0")
	resp := <-answered
	if resp.Header.Get("X-Accel-Buffering") != "no" {
		t.Errorf("%v", resp.Header)
	}
	buf := make([]byte, 4096)
	for n := range 20 {
		if got, err := resp.Body.Read(buf); err != nil || string(buf[:got]) != delta(fmt.Sprint(n)) {
			t.Fatalf("event %d: %q %v", n, buf[:got], err)
		}
		next <- delta(fmt.Sprint(n + 1)) // Only after the one before was read.
	}
	next <- finish
	next <- done
	close(next)
	if rest := body(t, resp); !strings.HasSuffix(rest, finish+done) {
		t.Errorf("%q", rest)
	}
}

func TestAnotherDialectIsPassedWhenTheBackendDoesNotStream(t *testing.T) {
	h := build(t, setting{}, play(t, says(plain(200, "application/json", odd))).URL)
	if got := body(t, h.post("/v1/chat/completions", streamChat)); got != odd {
		t.Errorf("%q", got)
	}
}

func TestShutdownEndsARunningStreamInAnErrorEvent(t *testing.T) {
	h := build(t, setting{}, play(t, says(streamed(opening, delta("a")))).URL)
	resp := h.post("/v1/chat/completions", streamChat)
	buf := make([]byte, len(opening+delta("a")))
	if _, err := io.ReadFull(resp.Body, buf); err != nil {
		t.Fatal(err)
	}
	h.stop(fault.New(fault.Draining, "the router is shutting down"))
	rest, err := io.ReadAll(resp.Body)
	if err == nil || !strings.Contains(string(rest), `"code":"draining"`) {
		t.Errorf("%q %v", rest, err)
	}
	if rec := h.closed(1); rec.StopReason != "killed" || !rec.Truncated {
		t.Errorf("%+v", rec)
	}
}

func TestAClientThatLeavesClosesTheBackendsConnection(t *testing.T) { onBoth(t, leaving) }

func leaving(t *testing.T, way setting) {
	for _, version := range []string{"HTTP/1.1", "HTTP/2"} {
		for _, streaming := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/stream=%v", version, streaming), func(t *testing.T) {
				started, gone := make(chan struct{}), make(chan struct{})
				backend := play(t, func(conn net.Conn, _ string) {
					if streaming {
						_, _ = io.WriteString(conn, streamed(opening, delta("a")))
					}
					close(started)
					_, _ = io.Copy(io.Discard, conn) // Returns when the router closes the connection.
					close(gone)
				})
				h := build(t, way, backend.URL)
				client := &http.Client{Transport: &http.Transport{Protocols: new(http.Protocols)}}
				defer client.CloseIdleConnections()
				protocols := client.Transport.(*http.Transport).Protocols
				protocols.SetHTTP1(version == "HTTP/1.1")
				protocols.SetUnencryptedHTTP2(version == "HTTP/2")

				ctx, leave := context.WithCancel(t.Context())
				defer leave()
				request := chat
				if streaming {
					request = streamChat
				}
				ended, reading := make(chan struct{}), make(chan struct{})
				go func() {
					defer close(ended)
					resp, err := client.Do(h.request("/v1/chat/completions", request).WithContext(ctx))
					if err != nil {
						return
					}
					defer resp.Body.Close()
					if resp.Proto[:6] != version[:6] {
						t.Errorf("spoke %s", resp.Proto)
					}
					if _, err := io.ReadFull(resp.Body, make([]byte, 1)); err == nil {
						close(reading)
					}
					_, _ = io.Copy(io.Discard, resp.Body)
				}()
				<-started
				if streaming { // It leaves in the middle of an answer.
					select {
					case <-reading:
					case <-time.After(hang):
						t.Fatal("the first event does not reach the client")
					}
				}
				left := time.Now()
				leave()
				select {
				case <-gone:
					t.Logf("the backend's connection was closed %v after the client left", time.Since(left))
				case <-time.After(hang):
					t.Fatal("the backend is still working for nobody")
				}
				<-ended
				rec := h.closed(1)
				if rec.StopReason != "client_gone" {
					t.Errorf("%+v", rec)
				}
				if want := map[bool]int{true: 200, false: 499}[streaming]; rec.Status != want {
					t.Errorf("status %d, want %d", rec.Status, want)
				}
			})
		}
	}
}

// llama.cpp and Ollama give one choice whatever n says. That is their answer, and no broken stream.
func TestAnEngineMayTakeNoHeedOfN(t *testing.T) {
	backend := play(t, says(streamed(opening, delta("Hel"), finish, done)+lastChunk))
	for engine, whole := range map[string]bool{fleet.EngineOllama: true, fleet.EngineLlamaCPP: true, "": true, fleet.EngineVLLM: false} {
		h := build(t, setting{specs: func(s *fleet.Spec) { s.Engine = engine }}, backend.URL)
		resp := h.post("/v1/chat/completions", strings.Replace(streamChat, `"stream":true`, `"stream":true,"n":2`, 1))
		content, err := io.ReadAll(resp.Body)
		if (err == nil) != whole || strings.HasSuffix(string(content), done) != whole {
			t.Errorf("engine %q: %v after %q", engine, err, content)
		}
	}
}
