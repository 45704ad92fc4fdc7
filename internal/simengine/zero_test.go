package simengine

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestZeroWorkSendsWellFormedAnswers(t *testing.T) {
	e := New(Config{Models: []Model{{ID: "a"}, {ID: "b"}}, ZeroWork: &ZeroWork{Events: 7}})
	h := e.Handler()
	for _, c := range []struct {
		path, body string
		model      string
		events     int // with text; 0: no stream
		usage      bool
	}{
		{"/v1/chat/completions", `{"messages":[],"model":"b"}`, "b", 0, true},
		{"/v1/chat/completions", `{"messages":[{"content":"\"stream\":true"}]}`, "a", 0, true},
		{"/v1/chat/completions", `{"stream" : true, "model": "b"}`, "b", 7, false},
		{"/v1/chat/completions", `{"x":"stream","stream":true,"stream_options":{"include_usage":true}}`, "a", 7, true},
		{"/v1/completions", `{"model":"a","stream":true}`, "a", 7, false},
		{"/v1/completions", `{"stream":false}`, "a", 0, true},
	} {
		w := post(t, h, c.path, c.body)
		if c.events == 0 {
			var out answerBody
			parse(t, w, &out)
			if out.Model != c.model || out.Choices[0].FinishReason == nil || out.Usage.CompletionTokens != 7 {
				t.Errorf("%s: %+v", c.body, out)
			}
			continue
		}
		events := parseStream(t, w)
		text := 0
		for _, event := range events {
			if len(event.Choices) > 0 && event.Choices[0].Delta.Role == "" {
				text++
			}
		}
		if last := events[len(events)-1]; text != c.events || last.Model != c.model || (last.Usage != nil) != c.usage {
			t.Errorf("%s: %d events, the last is %+v", c.body, text, last)
		}
	}
	if events := parseStream(t, post(t, h, "/v1/chat/completions",
		`{"stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true}}`)); events[0].Usage == nil {
		t.Error("no continuous usage")
	}
	var vectors struct {
		Data []struct{ Embedding []float64 }
	}
	parse(t, post(t, h, "/v1/embeddings", `{"input":"x"}`), &vectors)
	if len(vectors.Data[0].Embedding) != 768 {
		t.Errorf("%d dimensions", len(vectors.Data[0].Embedding))
	}
	if w := post(t, h, "/v1/chat/completions", `{"model":"c"}`); w.Code != http.StatusNotFound || !json.Valid(w.Body.Bytes()) {
		t.Errorf("unknown model: %d %s", w.Code, w.Body)
	}
	if s := e.Stats(); s.Served != 8 || s.Refused != 1 || s.Requests != 9 {
		t.Errorf("%+v", s)
	}
}

func TestZeroWorkPacesItsEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := New(Config{ZeroWork: &ZeroWork{Events: 100, Interval: 10 * time.Millisecond}})
		begin := time.Now()
		post(t, e.Handler(), "/v1/completions", `{"stream":true}`)
		if took := time.Since(begin); took != time.Second { // [DONE] has its pause too
			t.Errorf("took %s", took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		begin = time.Now()
		r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/v1/completions", strings.NewReader(`{"stream":true}`))
		e.Handler().ServeHTTP(httptest.NewRecorder(), r)
		if s := e.Stats(); s.Cancelled != 1 || time.Since(begin) != 300*time.Millisecond {
			t.Errorf("%+v after %s", s, time.Since(begin))
		}
	})
}

func BenchmarkZeroWork(b *testing.B) {
	h := New(Config{ZeroWork: &ZeroWork{Events: 300}}).Handler()
	for name, body := range map[string]string{"whole": `{"messages":[]}`, "stream": `{"messages":[],"stream":true}`} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(b.Context(), http.MethodPost, "/v1/chat/completions", strings.NewReader(body)))
			}
		})
	}
}
