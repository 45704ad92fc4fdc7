package simengine

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// longPrompt has the given number of tokens, none of them shared with another name's.
func longPrompt(name string, tokens int) string {
	return name + strings.Repeat(" word", tokens-countTokens(name))
}

func completionBody(prompt string, maxTokens int, more string) string {
	return fmt.Sprintf(`{"prompt":%q,"max_tokens":%d,"ignore_eos":true%s}`, prompt, maxTokens, more)
}

func near(got, want time.Duration) bool { return (got - want).Abs() < time.Millisecond }

func TestAStepTakesTheTimeOfItsWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(Config{}).Handler()
		begin := time.Now()
		post(t, h, "/v1/completions", completionBody(longPrompt("a", 16_000), 101, ""))
		// Two steps read the prompt, of which the second gives the first token; a hundred more decode.
		want := time.Second + 102*12*time.Millisecond + 100*80*time.Microsecond
		if took := time.Since(begin); !near(took, want) {
			t.Errorf("took %s, want %s", took, want)
		}
	})
}

func TestLongPromptsSlowEachOtherDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := New(Config{})
		begin := time.Now()
		var took [2]time.Duration
		var wg sync.WaitGroup
		for i := range took {
			wg.Go(func() {
				post(t, e.Handler(), "/v1/completions", completionBody(longPrompt(fmt.Sprint(i), 16_000), 1, ""))
				took[i] = time.Since(begin)
			})
		}
		wg.Wait()
		slices.Sort(took[:])
		// 32,000 tokens in four steps; the first prompt is read after two of them, which have time for a bit of the second.
		if alone, both := 1048*time.Millisecond, 2048*time.Millisecond; !near(took[0], alone) || !near(took[1], both) {
			t.Errorf("took %v, want %s and %s", took, alone, both)
		}
	})
}

func TestSpeedDividesTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		post(t, New(Config{Speed: 10}).Handler(), "/v1/completions", completionBody(longPrompt("a", 16_000), 1, ""))
		if took := time.Since(begin); !near(took, 102400*time.Microsecond) {
			t.Errorf("took %s", took)
		}
	})
}

func TestACachedPromptIsReadAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(Config{}).Handler()
		ask := func(want int) time.Duration {
			begin := time.Now()
			var out answerBody
			parse(t, post(t, h, "/v1/completions", completionBody(longPrompt("a", 8000), 1, "")), &out)
			if out.Usage.PromptTokens != 8000 || out.Usage.Details.CachedTokens != want {
				t.Errorf("usage %+v, want %d cached of 8000", out.Usage, want)
			}
			return time.Since(begin)
		}
		if took := ask(0); !near(took, 512*time.Millisecond) {
			t.Errorf("the first time took %s", took)
		}
		if took := ask(7984); !near(took, 13*time.Millisecond) {
			t.Errorf("the second time took %s", took)
		}
	})
}

func TestTheNextTurnOfAConversationFindsThePreviousOne(t *testing.T) {
	h := New(fast()).Handler()
	question := longPrompt("Please explain bridges.", 100)
	var first, second answerBody
	parse(t, post(t, h, "/v1/chat/completions", fmt.Sprintf(`{"messages":[{"role":"user","content":%q}]}`, question)), &first)
	parse(t, post(t, h, "/v1/chat/completions", fmt.Sprintf(`{"messages":[{"role":"user","content":%q},{"role":"assistant","content":%q},{"role":"user","content":"Go on."}]}`,
		question, first.Choices[0].Message.Content)), &second)
	if had := first.Usage.TotalTokens; second.Usage.Details.CachedTokens < had-32 {
		t.Errorf("%d tokens cached after a turn of %d", second.Usage.Details.CachedTokens, had)
	}
	var salted answerBody
	parse(t, post(t, h, "/v1/chat/completions", fmt.Sprintf(`{"messages":[{"role":"user","content":%q}],"cache_salt":"x"}`, question)), &salted)
	if salted.Usage.Details.CachedTokens != 0 {
		t.Errorf("another salt found %d tokens", salted.Usage.Details.CachedTokens)
	}
}

// TestCancelLeavesTheBatchAtOnce cancels in the middle of a step, in virtual time: the sequence must be gone at that instant.
func TestCancelLeavesTheBatchAtOnce(t *testing.T) {
	for _, mode := range []string{"", `,"stream":true`} {
		synctest.Test(t, func(t *testing.T) {
			e := New(Config{MaxSeqs: 2})
			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			for i := range 3 {
				wg.Go(func() {
					body := completionBody(fmt.Sprint(i), 10_000, mode+`,"n":1`)
					r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/v1/completions", strings.NewReader(body))
					e.Handler().ServeHTTP(httptest.NewRecorder(), r)
				})
			}
			time.Sleep(time.Second + 5*time.Millisecond)
			if s := e.Stats(); s.Running != 2 || s.Waiting != 1 || s.GeneratedTokens == 0 {
				t.Errorf("before: %+v", s)
			}
			before := time.Now()
			cancel()
			wg.Wait()
			s := e.Stats()
			if s.Running != 0 || s.Waiting != 0 || s.Cancelled != 3 || s.Served != 0 || s.Requests != 3 {
				t.Errorf("after: %+v", s)
			}
			if !time.Now().Equal(before) || e.sched.cache.busy() != 0 || e.meter.finished["abort"] != 3 {
				t.Errorf("after %s, %d blocks are busy", time.Since(before), e.sched.cache.busy())
			}
		})
	}
}

// TestAClientThatHangsUpIsNoticed is the same over real connections.
func TestAClientThatHangsUpIsNoticed(t *testing.T) {
	for _, mode := range []string{"", `,"stream":true`} {
		e := New(Config{})
		server := httptest.NewServer(e.Handler())
		ctx, cancel := context.WithCancel(t.Context())
		left := make(chan struct{})
		go func() {
			defer close(left)
			r, _ := http.NewRequestWithContext(ctx, http.MethodPost, server.URL+"/v1/completions", strings.NewReader(completionBody("a", 100_000, mode)))
			if res, err := server.Client().Do(r); err == nil {
				_, _ = io.Copy(io.Discard, res.Body)
				_ = res.Body.Close()
			}
		}()
		await(t, e, func(s Stats) bool { return s.Running == 1 })
		cancel()
		<-left
		await(t, e, func(s Stats) bool { return s.Running == 0 && s.Cancelled == 1 })
		server.Close()
	}
}

// await polls the counts until they are as wanted. Its deadline only ends a run that hangs.
func await(t *testing.T, e *Engine, wanted func(Stats) bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !wanted(e.Stats()); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("still %+v", e.Stats())
		}
	}
}

func TestServedIsCountedWhenTheClientSeesTheEnd(t *testing.T) {
	e := New(fast())
	server := httptest.NewServer(e.Handler())
	defer server.Close()
	for i := range int64(40) {
		mode := []string{`"stream":true`, `"stream":false`}[i%2]
		res, err := server.Client().Post(server.URL+"/v1/chat/completions", "application/json",
			strings.NewReader(`{"messages":[{"role":"user","content":"Hi"}],`+mode+`}`))
		if err != nil {
			t.Fatal(err)
		}
		for lines := bufio.NewScanner(res.Body); lines.Scan() && lines.Text() != "data: [DONE]"; {
		}
		if s := e.Stats(); s.Served != i+1 {
			t.Errorf("%d served, want %d", s.Served, i+1)
		}
		_ = res.Body.Close()
	}
}

// answerBody is what these tests look at in an answer or an event.
type answerBody struct {
	ID, Object, Model string
	Created           int64
	Choices           []struct {
		Index   int
		Text    string
		Message struct{ Role, Content string }
		Delta   struct {
			Role    string
			Content *string
		}
		FinishReason *string         `json:"finish_reason"`
		StopReason   *string         `json:"stop_reason"`
		Logprobs     json.RawMessage `json:"logprobs"`
	}
	Usage *struct {
		PromptTokens     int `json:"prompt_tokens"`
		CompletionTokens int `json:"completion_tokens"`
		TotalTokens      int `json:"total_tokens"`
		Details          *struct {
			CachedTokens int `json:"cached_tokens"`
		} `json:"prompt_tokens_details"`
	}
}

func parse(t *testing.T, w *httptest.ResponseRecorder, v any) {
	t.Helper()
	if w.Code != http.StatusOK {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	if err := json.Unmarshal(w.Body.Bytes(), v); err != nil {
		t.Fatalf("%v in %s", err, w.Body)
	}
}

// parseStream wants well-formed events with [DONE] at the end, and returns the others.
func parseStream(t *testing.T, w *httptest.ResponseRecorder) []answerBody {
	t.Helper()
	if got := w.Header().Get("Content-Type"); w.Code != http.StatusOK || got != "text/event-stream; charset=utf-8" {
		t.Fatalf("status %d, type %q: %s", w.Code, got, w.Body)
	}
	events := strings.Split(strings.TrimSuffix(w.Body.String(), "\n\n"), "\n\n")
	if events[len(events)-1] != "data: [DONE]" {
		t.Fatalf("the last event is %q", events[len(events)-1])
	}
	var out []answerBody
	for _, event := range events[:len(events)-1] {
		data, ok := strings.CutPrefix(event, "data: ")
		var body answerBody
		if err := json.Unmarshal([]byte(data), &body); err != nil || !ok {
			t.Fatalf("event %q: %v", event, err)
		}
		out = append(out, body)
	}
	return out
}

// TestNothingIsLeftAfterAStorm lets many clients come, and some of them leave at random.
func TestNothingIsLeftAfterAStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := New(Config{MaxSeqs: 8, CacheBlocks: 400})
		dice := rand.New(rand.NewPCG(1, 2))
		var wg sync.WaitGroup
		const clients = 300
		for i := range clients {
			wait, patience := time.Duration(dice.IntN(20_000))*time.Millisecond, time.Duration(1+dice.IntN(5000))*time.Millisecond
			body := completionBody(longPrompt(fmt.Sprint(i%7), 1+dice.IntN(500)+1), 1+dice.IntN(200), []string{"", `,"stream":true`, `,"n":3`}[i%3])
			wg.Go(func() {
				time.Sleep(wait)
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				e.Handler().ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(ctx, http.MethodPost, "/v1/completions", strings.NewReader(body)))
			})
		}
		wg.Wait()
		s := e.Stats()
		if s.Requests != clients || s.Served+s.Cancelled != clients || s.Served == 0 || s.Cancelled == 0 || s.CachedTokens == 0 {
			t.Errorf("%+v", s)
		}
		if s.Running != 0 || s.Waiting != 0 || e.sched.cache.busy() != 0 || e.halt != nil {
			t.Errorf("left: %+v, %d blocks", s, e.sched.cache.busy())
		}
	})
}
