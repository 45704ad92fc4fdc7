package wire

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

var update = flag.Bool("update", false, "write the golden files anew; read the difference before you keep it")

// tapped runs a whole stream through a tap and gives what the client gets, and a copy of each verdict without its bytes.
func tapped(t testing.TB, tap *Tap, r io.Reader) (out string, verdicts []Verdict) {
	t.Helper()
	var room [1 << 10]byte
	events := NewEvents(r, room[:])
	var sent strings.Builder
	for {
		ev, err := events.Next()
		if err == io.EOF {
			return sent.String(), verdicts
		}
		if err != nil {
			t.Fatal(err)
		}
		v := tap.Event(ev)
		sent.Write(v.Out)
		v.Out = nil
		verdicts = append(verdicts, v)
	}
}

var strips = map[string]Strip{"none": StripNone, "continuous": StripContinuous, "all": StripAll}

// kindOf tells which dialect a recording speaks.
func kindOf(name string) Kind {
	if name == "completions" {
		return Completion
	}
	return Chat
}

// TestTapCutsJustTheUsage sends each recording through each strip, whole, cut in two at every place and byte by byte. The golden files hold
// what must come out; without a strip it is the recording.
func TestTapCutsJustTheUsage(t *testing.T) {
	for name, stream := range recordings(t) {
		for stripName, strip := range strips {
			t.Run(name+"/"+stripName, func(t *testing.T) {
				want := golden(t, name, stripName, strip, stream)
				step := 1
				if strip == StripNone {
					step = 7 // What is not touched is the concern of Events, and its test has every place.
				}
				for cut := 0; cut <= len(stream); cut += step {
					got, _ := tapped(t, NewTap(kindOf(name), 0, strip), io.MultiReader(strings.NewReader(stream[:cut]), strings.NewReader(stream[cut:])))
					if got != want {
						t.Fatalf("cut at %d\ngot  %q\nwant %q", cut, got, want)
					}
				}
				if got, _ := tapped(t, NewTap(kindOf(name), 0, strip), iotest.OneByteReader(strings.NewReader(stream))); got != want {
					t.Fatalf("byte by byte\ngot  %q\nwant %q", got, want)
				}
			})
		}
	}
}

func golden(t *testing.T, name, stripName string, strip Strip, stream string) string {
	t.Helper()
	if strip == StripNone && !strings.HasPrefix(name, "odd") { // What follows [DONE] is dropped from the odd ones.
		return stream
	}
	path := fmt.Sprintf("testdata/%s.%s.golden", name, stripName)
	if *update {
		got, _ := tapped(t, NewTap(kindOf(name), 0, strip), strings.NewReader(stream))
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(want)
}

func TestTapKnowsWhatAStreamWas(t *testing.T) {
	type facts struct {
		complete, done, content bool
		progress                int64
		usage                   Usage
		reasons                 []string
	}
	all := recordings(t)
	for name, want := range map[string]facts{
		"vllm-chat":       {true, true, true, 3, Usage{12, 8, 3, 0, SourceReported}, []string{"stop"}},
		"vllm-continuous": {true, true, true, 15, Usage{12, 0, 15, 8, SourceReported}, []string{"length"}},
		"vllm-tools":      {true, true, true, 20, Usage{40, 0, 20, 0, SourceReported}, []string{"tool_calls"}},
		"openai-two":      {true, true, true, 5, Usage{9, 0, 5, 0, SourceReported}, []string{"stop", "content_filter"}},
		"llamacpp":        {true, true, true, 2, Usage{11, 0, 2, 0, SourceReported}, []string{"stop"}},
		"ollama":          {true, true, true, 4, Usage{26, 0, 4, 0, SourceReported}, []string{"stop"}},
		"sglang":          {true, true, true, 5, Usage{6, 4, 5, 2, SourceReported}, []string{"stop"}},
		"completions":     {true, true, true, 4, Usage{10, 0, 4, 0, SourceReported}, []string{"stop", "length", "stop"}},
		"odd-crlf":        {true, true, true, 2, Usage{5, 0, 2, 0, SourceReported}, []string{"stop"}},
		"odd-cr":          {true, true, true, 2, Usage{5, 0, 2, 0, SourceReported}, []string{"stop"}},
		"odd-mixed":       {true, true, true, 2, Usage{5, 0, 2, 0, SourceReported}, []string{"stop"}},
		"vllm-error":      {false, true, true, 1, Usage{0, 0, 1, 0, SourceCounted}, []string{""}},
		"broken-off":      {false, false, true, 2, Usage{12, 0, 2, 0, SourceContinuous}, []string{""}},
	} {
		t.Run(name, func(t *testing.T) {
			for stripName, strip := range strips {
				tap := NewTap(kindOf(name), len(want.reasons), strip)
				tapped(t, tap, strings.NewReader(all[name]))
				usage, _ := tap.Usage()
				got := facts{tap.Complete(), tap.Done(), tap.Content(), tap.Progress(), usage, tap.FinishReasons()}
				if fmt.Sprint(got) != fmt.Sprint(want) {
					t.Errorf("strip %s: %+v, want %+v", stripName, got, want)
				}
			}
		})
	}
	if len(all) != 13 {
		t.Errorf("%d recordings, but the table speaks of 13", len(all))
	}
}

// say makes an event of a chat.
func say(members string) string { return "data: {" + members + "}\n\n" }

func TestTapSeesContent(t *testing.T) {
	for name, test := range map[string]struct {
		kind    Kind
		event   string
		content bool
	}{
		"a comment":              {Chat, ": ping\n\n", false},
		"empty data":             {Chat, "data:\n\n", false},
		"a role":                 {Chat, say(`"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]`), false},
		"null":                   {Chat, say(`"choices":[{"index":0,"delta":{"content":null,"tool_calls":[],"function_call":null,"audio":{}}}]`), false},
		"no choices":             {Chat, say(`"choices":[],"prompt_filter_results":[1]`), false},
		"choices of null":        {Chat, say(`"choices":null`), false},
		"a delta of null":        {Chat, say(`"choices":[{"delta":null},null]`), false},
		"usage":                  {Chat, say(`"choices":[],"usage":{"prompt_tokens":1}`), false},
		"content":                {Chat, say(`"choices":[{"index":0,"delta":{"content":" "}}]`), true},
		"content in parts":       {Chat, say(`"choices":[{"index":0,"delta":{"content":[{"type":"text"}]}}]`), true},
		"reasoning":              {Chat, say(`"choices":[{"index":0,"delta":{"reasoning":"a"}}]`), true},
		"reasoning_content":      {Chat, say(`"choices":[{"index":0,"delta":{"reasoning_content":"a"}}]`), true},
		"a refusal":              {Chat, say(`"choices":[{"index":0,"delta":{"refusal":"a"}}]`), true},
		"a tool call":            {Chat, say(`"choices":[{"index":0,"delta":{"tool_calls":[{"index":0}]}}]`), true},
		"a function call":        {Chat, say(`"choices":[{"index":0,"delta":{"function_call":{"name":"f"}}}]`), true},
		"audio":                  {Chat, say(`"choices":[{"index":0,"delta":{"audio":{"id":"a"}}}]`), true},
		"an end":                 {Chat, say(`"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]`), true},
		"an empty end":           {Chat, say(`"choices":[{"index":0,"delta":{},"finish_reason":""}]`), false},
		"the second choice":      {Chat, say(`"choices":[{"index":0,"delta":{}},{"index":1,"delta":{"content":"a"}}]`), true},
		"an escaped name":        {Chat, say(`"ch\u006fices":[{"delta":{"c\u006fntent":"a"}}]`), true},
		"a text":                 {Completion, say(`"choices":[{"index":0,"text":"a"}]`), true},
		"an empty text":          {Completion, say(`"choices":[{"index":0,"text":""}]`), false},
		"a text in a chat":       {Chat, say(`"choices":[{"index":0,"text":"a"}]`), false},
		"content of another one": {Chat, say(`"x":{"choices":[{"delta":{"content":"a"}}]}`), false},
	} {
		t.Run(name, func(t *testing.T) {
			tap := NewTap(test.kind, 1, StripNone)
			out, verdicts := tapped(t, tap, strings.NewReader(test.event))
			if len(verdicts) != 1 || verdicts[0].Content != test.content || verdicts[0].Malformed || out != test.event {
				t.Errorf("%+v", verdicts)
			}
		})
	}
}

func TestTapIsCompleteOnlyAtTheProperEnd(t *testing.T) {
	end := func(index int) string {
		return say(fmt.Sprintf(`"choices":[{"index":%d,"finish_reason":"stop"}]`, index))
	}
	begin := func(index int) string {
		return say(fmt.Sprintf(`"choices":[{"index":%d,"delta":{"content":"a"}}]`, index))
	}
	const done = "data: [DONE]\n\n"
	for name, test := range map[string]struct {
		stream  string
		choices int
		want    bool
	}{
		"one":                     {begin(0) + end(0) + done, 1, true},
		"one of an unknown count": {begin(0) + end(0) + done, 0, true},
		"no [DONE]":               {begin(0) + end(0), 1, false},
		"no end":                  {begin(0) + done, 1, false},
		"nothing":                 {"", 0, false},
		"[DONE] alone":            {done, 0, false},
		"an end before [DONE]":    {end(0) + "data:   [DONE]  \n\n", 1, true},
		"[DONE] without a line":   {end(0) + "data: [DONE]", 1, true},
		"[DON":                    {end(0) + "data: [DON", 1, false},
		"two":                     {begin(0) + begin(1) + end(1) + end(0) + done, 2, true},
		"one of two":              {begin(0) + begin(1) + end(1) + done, 2, false},
		"the second never came":   {begin(0) + end(0) + done, 2, false},
		"more than expected":      {begin(0) + end(0) + begin(1) + end(1) + done, 1, true},
		"an end said twice":       {end(0) + end(0) + begin(1) + done, 2, false},
		"a hole":                  {end(0) + end(2) + done, 2, true},
		"an end after [DONE]":     {begin(0) + done + end(0), 1, false},
		"too many to track":       {end(0) + begin(maxChoices) + done, 1, false},
		"an absurd index":         {end(0) + say(`"choices":[{"index":1e300,"delta":{}}]`) + done, 1, false},
		"a negative index":        {say(`"choices":[{"index":-7,"finish_reason":"stop"}]`) + done, 1, true},
		"an error":                {end(0) + say(`"error":"x"`) + done, 1, false},
		"an error of null":        {end(0) + say(`"error":null`) + done, 1, true},
	} {
		t.Run(name, func(t *testing.T) {
			tap := NewTap(Chat, test.choices, StripNone)
			tapped(t, tap, strings.NewReader(test.stream))
			if tap.Complete() != test.want {
				t.Errorf("complete is %v, reasons %q", tap.Complete(), tap.FinishReasons())
			}
		})
	}
}

func TestTapReadsErrors(t *testing.T) {
	for name, test := range map[string]struct {
		event string
		want  StreamError
	}{
		"vLLM":              {say(`"error":{"object":"error","message":"out of memory","type":"InternalServerError","param":null,"code":500}`), StreamError{"out of memory", "InternalServerError", "500"}},
		"OpenAI":            {say(`"error":{"message":"slow down","type":"requests","code":"rate_limit_exceeded"}`), StreamError{"slow down", "requests", "rate_limit_exceeded"}},
		"older vLLM":        {say(`"object":"error","message":"bad","type":"BadRequestError","code":400`), StreamError{"bad", "BadRequestError", "400"}},
		"a text":            {say(`"error":"model \"x\" not found"`), StreamError{Message: `model "x" not found`}},
		"an unknown object": {say(`"error":{"detail":"x"}`), StreamError{Message: `{"detail":"x"}`}},
		"a named event":     {"event: error\ndata: {\"message\":\"gone\"}\n\n", StreamError{Message: "gone"}},
		"plain words":       {"event: error\ndata: upstream died\n\n", StreamError{Message: "upstream died"}},
		"a long text":       {say(`"error":"` + strings.Repeat("é", 1000) + `"`), StreamError{Message: strings.Repeat("é", 512)}},
	} {
		t.Run(name, func(t *testing.T) {
			tap := NewTap(Chat, 1, StripAll)
			out, verdicts := tapped(t, tap, strings.NewReader(test.event))
			if len(verdicts) != 1 || verdicts[0].Err == nil || *verdicts[0].Err != test.want || out != test.event {
				t.Fatalf("%+v", verdicts)
			}
			if !strings.Contains(verdicts[0].Err.Error(), test.want.Message) {
				t.Error(verdicts[0].Err)
			}
		})
	}
}

func TestTapPassesWhatItCannotRead(t *testing.T) {
	for _, data := range []string{"x", "7", `"text"`, "[]", "{", `{"choices":[{"index":0,"finish_reason":"stop"}],}`, `{"usage":null,"usage":{}}`, `{"usage":{"prompt_tokens":1}`, "{}{}", "[DONE"} {
		tap := NewTap(Chat, 0, StripAll)
		event := "data: " + data + "\n\n"
		out, verdicts := tapped(t, tap, strings.NewReader(event+"data: [DONE]\n\n"))
		if len(verdicts) != 2 || !verdicts[0].Malformed || verdicts[0].Content || !strings.HasPrefix(out, event) {
			t.Errorf("%s: %q %+v", data, out, verdicts)
		}
		if _, ok := tap.Usage(); ok || tap.Complete() || len(tap.FinishReasons()) != 0 {
			t.Errorf("%s: something was learned from it", data)
		}
	}
	tap := NewTap(Chat, 0, StripNone)
	if _, v := tapped(t, tap, strings.NewReader(say("\"choices\":[{\"delta\":{\"content\":\"\xff\"}}]"))); v[0].Malformed || !v[0].Content {
		t.Errorf("bytes that are not UTF-8 are none of the tap's business: %+v", v)
	}
}

func TestTapCutsWhereverTheUsageStands(t *testing.T) {
	for data, want := range map[string]string{
		`{"usage":null}`:                             `{}`,
		`{"usage":null,"choices":[0]}`:               `{"choices":[0]}`,
		`{"choices":[0],"usage":{"a":[1,{}]}}`:       `{"choices":[0]}`,
		`{"a":1,"usage":null,"choices":[0]}`:         `{"a":1,"choices":[0]}`,
		`{ "a" : 1 , "usage" : null , "b" : 2 }`:     `{ "a" : 1 , "b" : 2 }`,
		`{ "a" : 1 , "usage" : "x" }`:                `{ "a" : 1  }`,
		`{"\u0075sage":1e9,"x":{"usage":5}}`:         `{"x":{"usage":5}}`,
		`{"choices":[],"usage":null}`:                `{"choices":[]}`,
		`{"usage":{"prompt_tokens":1},"timings":{}}`: `{"timings":{}}`,
		`{"usages":1,"Usage":2,"usag":3}`:            `{"usages":1,"Usage":2,"usag":3}`,
	} {
		tap := NewTap(Chat, 0, StripAll)
		if out, _ := tapped(t, tap, strings.NewReader("data: "+data+"\n\n")); out != "data: "+want+"\n\n" {
			t.Errorf("%s\nbecame %q\nwant   %q", data, out, want)
		}
	}
}

func TestUsageOfAStreamIsTheBestThereIs(t *testing.T) {
	part := func(index, tokens int, end string) string {
		return say(fmt.Sprintf(`"choices":[{"index":%d,"delta":{"content":"a"},"finish_reason":%s}],"usage":{"prompt_tokens":7,"completion_tokens":%d}`, index, end, tokens))
	}
	for name, test := range map[string]struct {
		stream string
		want   Usage
		ok     bool
	}{
		"nothing":                 {say(`"choices":[{"delta":{}}]`), Usage{Source: SourceCounted}, false},
		"counted":                 {say(`"choices":[{"delta":{"content":"a"}},{"index":1,"delta":{"content":"b"}}]`), Usage{Completion: 2, Source: SourceCounted}, true},
		"choices add up":          {part(0, 1, "null") + part(1, 1, "null") + part(0, 2, "null") + part(1, 5, "null"), Usage{Prompt: 7, Completion: 7, Source: SourceContinuous}, true},
		"with the end of all":     {part(0, 3, `"stop"`) + part(1, 4, `"stop"`), Usage{Prompt: 7, Completion: 7, Source: SourceReported}, true},
		"with the end of one":     {part(0, 3, `"stop"`) + part(1, 4, "null"), Usage{Prompt: 7, Completion: 7, Source: SourceContinuous}, true},
		"the final one wins":      {part(0, 3, "null") + say(`"choices":[],"usage":{"prompt_tokens":8,"completion_tokens":9}`) + part(0, 99, "null"), Usage{Prompt: 8, Completion: 9, Source: SourceReported}, true},
		"nonsense is no account":  {part(0, 3, "null") + say(`"choices":[],"usage":{"tokens":8}`), Usage{Prompt: 7, Completion: 3, Source: SourceContinuous}, true},
		"out of all proportion":   {say(`"choices":[],"usage":{"prompt_tokens":1e99,"completion_tokens":-5}`), Usage{Prompt: maxCount, Source: SourceReported}, true},
		"with a choice untracked": {part(1<<20, 3, "null"), Usage{Completion: 1, Source: SourceCounted}, true},
	} {
		t.Run(name, func(t *testing.T) {
			tap := NewTap(Chat, 0, StripNone)
			tapped(t, tap, strings.NewReader(test.stream))
			if got, ok := tap.Usage(); got != test.want || ok != test.ok || tap.Progress() != got.Completion {
				t.Errorf("%+v %v, progress %d; want %+v %v", got, ok, tap.Progress(), test.want, test.ok)
			}
		})
	}
}

func TestTapAllocatesNothing(t *testing.T) {
	for name, strip := range strips {
		ev, err := NewEvents(strings.NewReader(benchEvent), nil).Next()
		if err != nil {
			t.Fatal(err)
		}
		tap := NewTap(Chat, 1, strip)
		if allocs := testing.AllocsPerRun(100, func() { tap.Event(ev) }); allocs != 0 {
			t.Errorf("strip %s: %v allocations an event", name, allocs)
		}
	}
}

func FuzzTap(f *testing.F) {
	for name, stream := range recordings(f) {
		for _, strip := range strips {
			f.Add([]byte(stream), byte(kindOf(name)), byte(strip), uint16(len(stream)/3))
		}
	}
	f.Fuzz(func(t *testing.T, stream []byte, k, s byte, cut uint16) {
		kind, strip := Kind(k%2), Strip(s%3)
		tap := NewTap(kind, 0, strip)
		out, verdicts := tapped(t, tap, bytes.NewReader(stream))
		at := min(int(cut), len(stream))
		other := NewTap(kind, 0, strip)
		again, _ := tapped(t, other, io.MultiReader(bytes.NewReader(stream[:at]), bytes.NewReader(stream[at:])))
		if out != again || tap.Complete() != other.Complete() || !slices.Equal(tap.FinishReasons(), other.FinishReasons()) {
			t.Fatalf("cut at %d\ngot  %q\nwant %q", at, again, out)
		}
		if u, _ := tap.Usage(); u.Prompt < 0 || u.Cached < 0 || u.Cached > u.Prompt || u.Reasoning < 0 || u.Reasoning > u.Completion || tap.Progress() < 0 {
			t.Fatalf("usage %+v", u)
		}
		if strip == StripNone && !tap.Done() && out != string(stream) {
			t.Fatalf("nothing was to be cut from %q, but %q came out", stream, out)
		}
		if strip == StripAll && !slices.ContainsFunc(verdicts, func(v Verdict) bool { return v.Malformed }) {
			noUsage(t, out)
		}
	})
}

// noUsage makes sure that no event of a stripped stream has a usage, and that none was damaged.
func noUsage(t *testing.T, out string) {
	events := NewEvents(strings.NewReader(out), nil)
	for {
		ev, err := events.Next()
		if err != nil {
			return
		}
		data := bytes.TrimSpace(ev.Data)
		if len(data) == 0 || string(data) == "[DONE]" {
			continue
		}
		var object map[string]json.RawMessage
		if err := json.Unmarshal(data, &object); err != nil {
			t.Fatalf("%q is damaged: %v", data, err)
		}
		if usage, ok := object["usage"]; ok {
			t.Fatalf("%s still stands in %q", usage, data)
		}
	}
}
