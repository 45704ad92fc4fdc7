package simengine

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

const hello = `"messages":[{"role":"user","content":"Hello bridges!"}]`

func TestChatAnswer(t *testing.T) {
	var out answerBody
	parse(t, post(t, New(fast()).Handler(), "/v1/chat/completions", `{`+hello+`}`), &out)
	c := out.Choices[0]
	if out.Object != "chat.completion" || out.Model != "gpt-oss-20b" || !strings.HasPrefix(out.ID, "chatcmpl-") || out.Created == 0 {
		t.Errorf("%+v", out)
	}
	if c.Message.Role != "assistant" || c.Message.Content == "" || *c.FinishReason != "stop" || c.StopReason != nil || string(c.Logprobs) != "null" {
		t.Errorf("%+v", c)
	}
	if u := out.Usage; u.PromptTokens == 0 || u.CompletionTokens != countTokens(c.Message.Content)+1 || u.TotalTokens != u.PromptTokens+u.CompletionTokens || u.Details == nil {
		t.Errorf("%+v", u)
	}
}

// TestAStreamSaysWhatTheAnswerSays wants the same text, finish and usage from a stream as from a whole answer.
func TestAStreamSaysWhatTheAnswerSays(t *testing.T) {
	for _, more := range []string{
		``, `,"max_tokens":5`, `,"max_completion_tokens":1`, `,"stop":"bridges"`, `,"stop":["xyz","."]`, `,"seed":5`, `,"n":3`, `,"logprobs":true,"top_logprobs":2`,
	} {
		h := New(fast()).Handler()
		var whole answerBody
		parse(t, post(t, h, "/v1/chat/completions", `{`+hello+more+`}`), &whole)
		events := parseStream(t, post(t, h, "/v1/chat/completions", `{`+hello+more+`,"stream":true,"stream_options":{"include_usage":true}}`))
		text := make([]string, len(whole.Choices))
		opened := make([]bool, len(whole.Choices))
		ends := 0
		last := len(events) - 1
		for _, e := range events[:last] {
			c := e.Choices[0]
			if e.Object != "chat.completion.chunk" || e.ID != events[0].ID || e.Created != events[0].Created || e.Usage != nil {
				t.Errorf("%s: event %+v", more, e)
			}
			if (c.Delta.Role != "") == opened[c.Index] {
				t.Errorf("%s: role %q at the wrong place", more, c.Delta.Role)
			}
			opened[c.Index] = true
			text[c.Index] += *c.Delta.Content
			if c.FinishReason != nil {
				ends++
				if *c.FinishReason != *whole.Choices[c.Index].FinishReason {
					t.Errorf("%s: finish %q", more, *c.FinishReason)
				}
			}
		}
		for i, c := range whole.Choices {
			if text[i] != c.Message.Content {
				t.Errorf("%s: streamed %q, whole %q", more, text[i], c.Message.Content)
			}
		}
		if ends != len(whole.Choices) {
			t.Errorf("%s: %d ends", more, ends)
		}
		if e := events[last]; len(e.Choices) != 0 || e.Usage.CompletionTokens != whole.Usage.CompletionTokens || e.Usage.PromptTokens != whole.Usage.PromptTokens {
			t.Errorf("%s: the last event is %+v", more, e)
		}
	}
}

func TestUsageOfAStream(t *testing.T) {
	for _, c := range []struct {
		options           string
		final, continuous bool
	}{
		{``, false, false},
		{`,"stream_options":null`, false, false},
		{`,"stream_options":{}`, true, false},
		{`,"stream_options":{"include_usage":false,"continuous_usage_stats":true}`, false, false},
		{`,"stream_options":{"include_usage":true}`, true, false},
		{`,"stream_options":{"include_usage":true,"continuous_usage_stats":true}`, true, true},
	} {
		for path, prompt := range map[string]string{"/v1/chat/completions": hello, "/v1/completions": `"prompt":"Hello"`} {
			events := parseStream(t, post(t, New(fast()).Handler(), path, `{"stream":true,`+prompt+c.options+`}`))
			last := len(events) - 1
			if got := len(events[last].Choices) == 0; got != c.final {
				t.Errorf("%s %s: final usage is %t", path, c.options, got)
			}
			if got := events[0].Usage != nil; got != c.continuous {
				t.Errorf("%s %s: continuous usage is %t", path, c.options, got)
			}
			if c.continuous && events[last].Usage.CompletionTokens != events[last-1].Usage.CompletionTokens {
				t.Errorf("%s: usage ends with %+v, then %+v", path, events[last-1].Usage, events[last].Usage)
			}
		}
	}
}

// TestResumeOverHTTP continues a stream that was cut after every token, on another engine, as a router would.
func TestResumeOverHTTP(t *testing.T) {
	first, second := New(fast()).Handler(), New(fast()).Handler()
	stream := func(h http.Handler, path, body string) (pieces []string) {
		for _, e := range parseStream(t, post(t, h, path, body)) {
			c := e.Choices[0]
			if c.Delta.Content != nil {
				c.Text = *c.Delta.Content
			}
			if c.Delta.Role == "" {
				pieces = append(pieces, c.Text)
			}
		}
		return pieces
	}
	for path, bodies := range map[string][2]string{
		"/v1/completions": {
			`{"stream":true,"max_tokens":60,"prompt":"Tell me of rivers"}`,
			`{"stream":true,"max_tokens":%[2]d,"prompt":"Tell me of rivers%[1]s"}`,
		},
		"/v1/chat/completions": {
			`{"stream":true,"max_tokens":60,"messages":[{"role":"user","content":"Rivers?"}]}`,
			`{"stream":true,"max_tokens":%[2]d,"messages":[{"role":"user","content":"Rivers?"},{"role":"assistant","content":"%[1]s"}],"continue_final_message":true,"add_generation_prompt":false}`,
		},
	} {
		whole := stream(first, path, bodies[0])
		for cut := range whole {
			head := strings.Join(whole[:cut], "")
			rest := stream(second, path, fmt.Sprintf(bodies[1], head, 60-cut))
			if got := strings.Join(rest, ""); head+got != strings.Join(whole, "") || cut+len(rest) != len(whole) {
				t.Errorf("%s cut at %d: %q + %q", path, cut, head, got)
			}
		}
	}
}

func TestCompletionForms(t *testing.T) {
	h := New(fast()).Handler()
	ask := func(body string) answerBody {
		var out answerBody
		parse(t, post(t, h, "/v1/completions", body), &out)
		return out
	}
	plain := ask(`{"prompt":"Rivers"}`)
	if plain.Object != "text_completion" || plain.Usage.CompletionTokens != 16 || *plain.Choices[0].FinishReason != "length" {
		t.Errorf("%+v", plain)
	}
	if got := ask(`{"prompt":["Rivers","Lakes"],"n":2}`); len(got.Choices) != 4 || got.Choices[0].Text != plain.Choices[0].Text ||
		got.Choices[3].Index != 3 || got.Usage.CompletionTokens != 64 || got.Usage.PromptTokens != countTokens("Rivers")+countTokens("Lakes") {
		t.Errorf("%+v", got)
	}
	if got := ask(fmt.Sprintf(`{"prompt":[%d]}`, tokenID("Rivers"))); got.Choices[0].Text != plain.Choices[0].Text {
		t.Errorf("as token ids: %q", got.Choices[0].Text)
	}
	if got := ask(fmt.Sprintf(`{"prompt":[[%d],[%d]]}`, tokenID("Lakes"), tokenID("Rivers"))); got.Choices[1].Text != plain.Choices[0].Text {
		t.Errorf("as lists of token ids: %q", got.Choices[1].Text)
	}
	if got := ask(`{"prompt":"Rivers","echo":true}`); got.Choices[0].Text != "Rivers"+plain.Choices[0].Text {
		t.Errorf("echo: %q", got.Choices[0].Text)
	}
	if got := ask(`{"prompt":"Rivers","logprobs":1}`); !strings.Contains(string(got.Choices[0].Logprobs), `"token_logprobs":[-`) {
		t.Errorf("logprobs: %s", got.Choices[0].Logprobs)
	}
	events := parseStream(t, post(t, h, "/v1/completions", `{"prompt":["Rivers","Lakes"],"stream":true,"echo":true}`))
	text := map[int]string{}
	for _, e := range events {
		text[e.Choices[0].Index] += e.Choices[0].Text
	}
	if text[0] != "Rivers"+plain.Choices[0].Text || !strings.HasPrefix(text[1], "Lakes") {
		t.Errorf("%v", text)
	}
}

func TestMessageContentMayBeParts(t *testing.T) {
	h := New(fast()).Handler()
	var plain, parts answerBody
	parse(t, post(t, h, "/v1/chat/completions", `{"messages":[{"role":"user","content":"a\nb"}]}`), &plain)
	parse(t, post(t, h, "/v1/chat/completions", `{"messages":[{"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}]}`), &parts)
	if plain.Choices[0].Message.Content != parts.Choices[0].Message.Content {
		t.Error("parts are read otherwise than the text they make")
	}
	parse(t, post(t, h, "/v1/chat/completions", `{"messages":[{"role":"assistant","content":null,"tool_calls":[{"id":"1"}]},{"role":"tool","content":"3"}],"tools":[{}]}`), &parts)
}

func FuzzGenerate(f *testing.F) {
	f.Add(true, []byte(`{`+hello+`,"n":2,"stream":true,"stop":["."]}`))
	f.Add(true, []byte(`{"messages":[{"role":"assistant","content":"The"}],"continue_final_message":true,"add_generation_prompt":false}`))
	f.Add(false, []byte(`{"prompt":[[357,358]],"max_tokens":3,"echo":true,"logprobs":2}`))
	f.Add(false, []byte(`{"prompt":" T","min_tokens":3,"stream":true,"stream_options":{}}`))
	cfg := fast()
	cfg.Models = []Model{{ID: "m", MaxLen: 300}}
	h := New(cfg).Handler()
	f.Fuzz(func(t *testing.T, chat bool, body []byte) {
		path := "/v1/completions"
		if chat {
			path = "/v1/chat/completions"
		}
		if w := post(t, h, path, string(body)); w.Code != http.StatusOK && (w.Code < 400 || w.Code > 499) {
			t.Errorf("status %d: %s", w.Code, w.Body)
		}
	})
}
