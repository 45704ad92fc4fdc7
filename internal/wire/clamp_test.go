package wire

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/ai-aas/api-router/internal/fault"
)

// all clamps everything that can be clamped.
var all = Clamps{N: 4, BestOf: 4, MaxTokens: 100, Logprobs: 5, Prompts: 3, Stops: 2}

func TestClampLowersInTheBody(t *testing.T) {
	chat := func(members string) string { return `{"model":"m",` + members + hello + `}` }
	text := func(members string) string { return `{"model":"m",` + members + `"prompt":"x"}` }
	for name, test := range map[string]struct {
		kind       Kind
		clamps     Clamps
		rewrite    Rewrite
		body, want string
		tokens     int64
		choices    int
	}{
		"within the bounds":             {Chat, all, Rewrite{}, chat(`"n":4,"best_of":4,"max_tokens":100,"top_logprobs":5,`), chat(`"n":4,"best_of":4,"max_tokens":100,"top_logprobs":5,`), 100, 4},
		"above them":                    {Chat, all, Rewrite{}, chat(`"n":5,"best_of":50,"max_tokens":101,"top_logprobs":6,"prompt_logprobs":7,`), chat(`"n":4,"best_of":4,"max_tokens":100,"top_logprobs":5,"prompt_logprobs":5,`), 100, 4},
		"white space stays":             {Chat, all, Rewrite{}, chat("\"n\" :\t5 ,\n \"max_tokens\" : 101.0 , "), chat("\"n\" :\t4 ,\n \"max_tokens\" : 100 , "), 100, 4},
		"an escaped name":               {Chat, all, Rewrite{}, chat(`"\u006e":5,"max_\u0074okens":101,`), chat(`"\u006e":4,"max_\u0074okens":100,`), 100, 4},
		"no clamps":                     {Chat, Clamps{}, Rewrite{Endless: true}, chat(`"n":5,"best_of":5,"max_tokens":-1,"top_logprobs":-1,`), chat(`"n":5,"best_of":5,"max_tokens":-1,"top_logprobs":-1,`), 0, 5},
		"one clamp":                     {Chat, Clamps{N: 1}, Rewrite{}, chat(`"n":5,"max_tokens":1000,`), chat(`"n":1,"max_tokens":1000,`), 1000, 1},
		"a chat without a bound":        {Chat, all, Rewrite{}, chat(``), `{"model":"m","max_tokens":100,` + hello + `}`, 100, 1},
		"a chat at OpenAI":              {Chat, all, Rewrite{MaxCompletionTokens: true}, chat(``), `{"model":"m","max_completion_tokens":100,` + hello + `}`, 100, 1},
		"the model stands last":         {Chat, all, Rewrite{Model: "b"}, `{` + hello + `,"model":"m" }`, `{` + hello + `,"model":"b","max_tokens":100 }`, 100, 1},
		"options are added too":         {Chat, all, Rewrite{Model: "b", IncludeUsage: true}, chat(`"stream":true,`), `{"model":"b","stream_options":{"include_usage":true},"max_tokens":100,"stream":true,` + hello + `}`, 100, 1},
		"a bound of null":               {Chat, all, Rewrite{}, chat(`"max_tokens": null ,`), chat(`"max_tokens": 100 ,`), 100, 1},
		"null and the other name":       {Chat, all, Rewrite{MaxCompletionTokens: true}, chat(`"max_tokens":null,`), `{"model":"m","max_completion_tokens":100,"max_tokens":null,` + hello + `}`, 100, 1},
		"two of null":                   {Chat, all, Rewrite{MaxCompletionTokens: true}, chat(`"max_tokens":null,"max_completion_tokens":null,`), chat(`"max_tokens":null,"max_completion_tokens":100,`), 100, 1},
		"null beside a bound":           {Chat, all, Rewrite{MaxCompletionTokens: true}, chat(`"max_tokens":7,"max_completion_tokens":null,`), chat(`"max_tokens":7,"max_completion_tokens":null,`), 7, 1},
		"both names":                    {Chat, all, Rewrite{}, chat(`"max_tokens":7,"max_completion_tokens":700,`), chat(`"max_tokens":7,"max_completion_tokens":100,`), 100, 1},
		"the newer name alone":          {Chat, all, Rewrite{}, chat(`"max_completion_tokens":9,`), `{"model":"m","max_tokens":9,"max_completion_tokens":9,` + hello + `}`, 9, 1},
		"the newer name at OpenAI":      {Chat, all, Rewrite{MaxCompletionTokens: true}, chat(`"max_completion_tokens":900,`), chat(`"max_completion_tokens":100,`), 100, 1},
		"the newer name beside null":    {Chat, all, Rewrite{}, chat(`"max_tokens":null,"max_completion_tokens":900,`), chat(`"max_tokens":100,"max_completion_tokens":100,`), 100, 1},
		"below one is no bound":         {Chat, all, Rewrite{}, chat(`"max_tokens":-1,"max_completion_tokens":0,`), chat(`"max_tokens":100,"max_completion_tokens":100,`), 100, 1},
		"llama.cpp's own name":          {Chat, all, Rewrite{}, chat(`"max_tokens":5,"n_predict":-2,`), chat(`"max_tokens":5,"n_predict":100,`), 100, 1},
		"llama.cpp's own name alone":    {Chat, all, Rewrite{}, chat(`"n_predict":9,`), `{"model":"m","max_tokens":100,"n_predict":9,` + hello + `}`, 100, 1},
		"the whole vocabulary":          {Chat, all, Rewrite{}, chat(`"max_tokens":1,"top_logprobs":-1,"prompt_logprobs":-1,`), chat(`"max_tokens":1,"top_logprobs":5,"prompt_logprobs":5,`), 1, 1},
		"a chat's logprobs":             {Chat, all, Rewrite{}, chat(`"max_tokens":1,"logprobs":true,`), chat(`"max_tokens":1,"logprobs":true,`), 1, 1},
		"a completion":                  {Completion, all, Rewrite{}, text(`"max_tokens":200,"logprobs":6,"n":9,`), text(`"max_tokens":100,"logprobs":5,"n":4,`), 100, 4},
		"prompts and choices":           {Completion, all, Rewrite{}, `{"n":9,"model":"m","prompt":["a","b","c"]}`, `{"n":4,"model":"m","prompt":["a","b","c"]}`, 0, 12},
		"a completion without a bound":  {Completion, all, Rewrite{MaxCompletionTokens: true}, text(``), text(``), 0, 1},
		"an engine that would not end":  {Completion, all, Rewrite{Endless: true}, text(``), `{"model":"m","max_tokens":100,"prompt":"x"}`, 0, 1},
		"such an engine with a bound":   {Completion, all, Rewrite{Endless: true}, text(`"max_tokens":9,`), text(`"max_tokens":9,`), 9, 1},
		"a completion's null":           {Completion, all, Rewrite{}, text(`"max_tokens":null,`), text(`"max_tokens":100,`), 100, 1},
		"a name that completions lack":  {Completion, all, Rewrite{}, text(`"max_tokens":null,"max_completion_tokens":9,`), text(`"max_tokens":100,"max_completion_tokens":9,`), 100, 1},
		"a completion's nought":         {Completion, all, Rewrite{}, text(`"max_tokens":0,"echo":true,`), text(`"max_tokens":0,"echo":true,`), 0, 1},
		"a completion that never ends":  {Completion, all, Rewrite{}, text(`"max_tokens":-1,`), text(`"max_tokens":100,`), 100, 1},
		"a completion's switch":         {Completion, all, Rewrite{}, text(`"logprobs":true,`), text(`"logprobs":true,`), 0, 1},
		"embeddings have no figures":    {Embedding, all, Rewrite{Endless: true, MaxCompletionTokens: true}, `{"model":"m","input":"x","max_tokens":900,"n":9}`, `{"model":"m","input":"x","max_tokens":900,"n":9}`, 0, 0},
		"bounds beyond what can be":     {Chat, Clamps{MaxTokens: math.MaxInt, N: math.MaxInt}, Rewrite{}, chat(`"n":2147483647,`), `{"model":"m","max_tokens":2147483647,"n":2147483647,` + hello + `}`, math.MaxInt32, math.MaxInt32},
		"nested names mean nothing":     {Chat, all, Rewrite{}, chat(`"max_tokens":1,"x":{"n":9,"max_tokens":900},`), chat(`"max_tokens":1,"x":{"n":9,"max_tokens":900},`), 1, 1},
		"as many stops as are allowed":  {Chat, all, Rewrite{}, chat(`"max_tokens":1,"stop":["a","b"],`), chat(`"max_tokens":1,"stop":["a","b"],`), 1, 1},
		"as many inputs as are allowed": {Embedding, all, Rewrite{}, `{"model":"m","input":[[1,2,3,4],[5],[6]]}`, `{"model":"m","input":[[1,2,3,4],[5],[6]]}`, 0, 0},
		"one list of tokens":            {Embedding, all, Rewrite{}, `{"model":"m","input":[1,2,3,4,5,6]}`, `{"model":"m","input":[1,2,3,4,5,6]}`, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			body := []byte(test.body)
			r, err := Scan(body, test.kind)
			if err != nil {
				t.Fatal(err)
			}
			if err := r.Clamp(test.clamps, Refused{true, true, true}); err != nil {
				t.Fatal(err)
			}
			if got := string(join(t, r.Rewrite(body, test.rewrite))); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
			if string(body) != test.body {
				t.Error("the body itself was changed")
			}
			if r.MaxTokens != test.tokens || r.Choices != test.choices {
				t.Errorf("%d tokens, %d choices; want %d, %d", r.MaxTokens, r.Choices, test.tokens, test.choices)
			}
		})
	}
}

func TestClampRefuses(t *testing.T) {
	chat := func(members string) string { return `{"model":"m",` + members + hello + `}` }
	for name, test := range map[string]struct {
		kind        Kind
		body        string
		param, says string // no param: nothing is refused
	}{
		"too many prompts":              {Completion, `{"model":"m","prompt":["a","b","c","d"]}`, "prompt", "holds 4 elements, but the policy of this model allows at most 3"},
		"too many lists of tokens":      {Completion, `{"model":"m","prompt":[[1],[2],[3],[4]]}`, "prompt", "at most 3"},
		"too many inputs":               {Embedding, `{"model":"m","input":["a","b","c","d"]}`, "input", "at most 3"},
		"too many stops":                {Chat, chat(`"stop":["a","b","c"],`), "stop", "holds 3 elements, but the policy of this model allows at most 2"},
		"one stop":                      {Chat, chat(`"stop":"a",`), "", ""},
		"no stop":                       {Chat, chat(`"stop":null,`), "", ""},
		"a template":                    {Chat, chat(`"chat_template":"{{ x }}",`), "chat_template", "byte 29"},
		"a template that is no text":    {Chat, chat(`"chat_template":{},`), "chat_template", "leave it out"},
		"an escaped template":           {Chat, chat(`"chat\u005ftemplate":"x",`), "chat_template", "leave it out"},
		"a template of null":            {Chat, chat(`"chat_template":null,`), "", ""},
		"a template to embed by":        {Embedding, `{"model":"m","input":"x","chat_template":"x"}`, "chat_template", "leave it out"},
		"arguments":                     {Chat, chat(`"chat_template_kwargs":{"enable_thinking":false},`), "chat_template_kwargs", "leave it out"},
		"no arguments":                  {Chat, chat(`"chat_template_kwargs":null,`), "", ""},
		"a template among them":         {Chat, chat(`"chat_template_kwargs":{"a":{},"chat\u005ftemplate":null,"chat_template":"x","chat_template":null},`), "chat_template", "leave it out"},
		"a template of null among them": {Chat, chat(`"chat_template_kwargs":{"chat_template":null},`), "chat_template_kwargs", "leave it out"},
		"a remote picture":              {Chat, `{"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://a.test/x.png"}}]}]}`, "messages", "byte 90"},
		"messages to embed":             {Embedding, `{"model":"m","input":"x","messages":[{"content":[{"image_url":"http://a.test"}]}]}`, "messages", "data: URL"},
		"a remote input":                {Embedding, `{"model":"m","input":[{"image_url":"http://a.test"}]}`, "input", "data: URL"},
		"a template elsewhere":          {Chat, chat(`"x":{"chat_template":"x"},`), "", ""},
		"a URL elsewhere":               {Chat, chat(`"x":{"url":"http://a.test"},`), "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := Scan([]byte(test.body), test.kind)
			if err != nil {
				t.Fatal(err)
			}
			err = r.Clamp(all, Refused{true, true, true})
			if test.param == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if f := fault.From(err); f.Code != fault.InvalidRequest || f.Param != test.param || !strings.Contains(f.Message, test.says) {
				t.Errorf("%v, want %s with %q", err, test.param, test.says)
			}
			if err := r.Clamp(Clamps{}, Refused{}); err != nil {
				t.Errorf("without clamps: %v", err)
			}
		})
	}
}

func TestEachFieldIsRefusedByItsOwnRule(t *testing.T) {
	body := []byte(`{"model":"m","chat_template":"x","chat_template_kwargs":{"a":1},"messages":[{"content":[{"video_url":"rtsp://a"}]}]}`)
	r, err := Scan(body, Chat)
	if err != nil {
		t.Fatal(err)
	}
	for refused, param := range map[Refused]string{
		{}:                         "",
		{ChatTemplate: true}:       "chat_template",
		{ChatTemplateKwargs: true}: "chat_template_kwargs",
		{RemoteMedia: true}:        "messages",
	} {
		if err := r.Clamp(Clamps{}, refused); param == "" && err != nil || param != "" && fault.From(err).Param != param {
			t.Errorf("%+v: %v", refused, err)
		}
	}
}

// TestClampMeansWhatItSays clamps requests of every shape: what comes out decodes to the request with just the figures lowered, every other
// byte is the body's own, and clamping it again changes nothing.
func TestClampMeansWhatItSays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		kind := rapid.SampledFrom([]Kind{Chat, Completion}).Draw(t, "kind")
		number := rapid.OneOf(rapid.Just("null"), rapid.Custom(func(t *rapid.T) string {
			return fmt.Sprint(rapid.IntRange(-2, 12).Draw(t, "value")) + rapid.SampledFrom([]string{"", "", ".0", ".00"}).Draw(t, "zeros")
		}))
		members := []string{`"model":"m"`, hello, `"x":{"n":99}`}
		if kind == Completion {
			members[1] = `"prompt":["a","b"]`
		}
		for id := nameMaxTokens; id <= namePromptLogprobs; id++ {
			if (id != nameLogprobs || kind == Completion) && rapid.Bool().Draw(t, id.String()) {
				value := number.Draw(t, "number")
				if id == nameN && (value[0] == '-' || value[0] == '0') {
					value = "1"
				}
				members = append(members, `"`+id.String()+`": `+value)
			}
		}
		body := []byte("{" + strings.Join(rapid.Permutation(members).Draw(t, "order"), " ,") + "}")
		most := rapid.IntRange(0, 9)
		clamps := Clamps{N: most.Draw(t, "n"), BestOf: most.Draw(t, "best_of"), MaxTokens: most.Draw(t, "max_tokens"), Logprobs: most.Draw(t, "logprobs")}
		rewrite := Rewrite{MaxCompletionTokens: rapid.Bool().Draw(t, "openai"), Endless: rapid.Bool().Draw(t, "endless")}

		r, err := Scan(body, kind)
		if err != nil {
			t.Fatalf("%s: %v", body, err)
		}
		if err := r.Clamp(clamps, Refused{}); err != nil {
			t.Fatalf("%s: %v", body, err)
		}
		spliced := r.Rewrite(body, rewrite)
		out := join(t, spliced)
		checkPieces(t, body, spliced)
		if want := lowered(decode(t, body), kind, clamps, rewrite); !reflect.DeepEqual(plain(decode(t, out)), want) {
			t.Fatalf("%s under %+v %+v\nbecame %s,\nwant %v", body, clamps, rewrite, out, want)
		}
		again, err := Scan(out, kind)
		if err != nil {
			t.Fatalf("%s: %v", out, err)
		}
		if err := again.Clamp(clamps, Refused{}); err != nil || string(join(t, again.Rewrite(out, rewrite))) != string(out) {
			t.Fatalf("%s is clamped again: %v", out, err)
		}
		if again.Choices != r.Choices || again.MaxTokens != r.MaxTokens && !rewrite.Endless {
			t.Fatalf("%s: %d choices and %d tokens, then %d and %d", body, r.Choices, r.MaxTokens, again.Choices, again.MaxTokens)
		}
	})
}

// lowered is the rule in other words: what a decoded request must be after Clamp and Rewrite.
func lowered(request map[string]any, kind Kind, c Clamps, rw Rewrite) map[string]any {
	request = plain(request)
	chat := kind == Chat
	for name, rule := range map[string]struct {
		most int
		off  func(float64) bool // means no bound
	}{
		"n":                     {c.N, func(float64) bool { return false }},
		"best_of":               {c.BestOf, func(float64) bool { return false }},
		"max_tokens":            {c.MaxTokens, func(v float64) bool { return v < 0 || v == 0 && chat }},
		"max_completion_tokens": {c.MaxTokens, func(v float64) bool { return v < 0 || v == 0 && chat }},
		"n_predict":             {c.MaxTokens, func(v float64) bool { return v < 0 || v == 0 && chat }},
		"logprobs":              {c.Logprobs, func(v float64) bool { return v < 0 }},
		"top_logprobs":          {c.Logprobs, func(v float64) bool { return v < 0 }},
		"prompt_logprobs":       {c.Logprobs, func(v float64) bool { return v < 0 }},
	} {
		if v, is := request[name].(float64); is && rule.most > 0 && (v > float64(rule.most) || rule.off(v)) {
			request[name] = float64(rule.most)
		}
	}
	if newer, is := request["max_completion_tokens"].(float64); is && chat && c.MaxTokens > 0 && request["max_tokens"] == nil && !rw.MaxCompletionTokens {
		request["max_tokens"] = newer
	}
	name := "max_tokens"
	if chat && rw.MaxCompletionTokens {
		name = "max_completion_tokens"
	}
	_, there := request[name]
	open := request["max_tokens"] == nil && (request["max_completion_tokens"] == nil || !chat)
	if c.MaxTokens > 0 && open && (chat || there || rw.Endless) {
		request[name] = float64(c.MaxTokens)
	}
	return request
}

// plain turns the numbers of the top level into float64.
func plain(request map[string]any) map[string]any {
	for name, value := range request {
		if n, is := value.(json.Number); is {
			request[name], _ = n.Float64()
		}
	}
	return request
}

func TestADefaultBoundsOnlyWhatNamesNoBound(t *testing.T) {
	for _, tc := range []struct {
		kind    Kind
		body    string
		clamp   int
		bound   int64
		want    int64
		rewrite string // "": the body as it is
	}{
		{Chat, `{"model":"m","messages":[{"role":"user","content":"x"}]}`, 0, 7, 7, `{"model":"m","max_tokens":7,"messages":[{"role":"user","content":"x"}]}`},
		{Chat, `{"model":"m","messages":[{"role":"user","content":"x"}]}`, 5, 7, 5, `{"model":"m","max_tokens":5,"messages":[{"role":"user","content":"x"}]}`},
		{Chat, `{"model":"m","messages":[{"role":"user","content":"x"}]}`, 9, 7, 7, `{"model":"m","max_tokens":7,"messages":[{"role":"user","content":"x"}]}`},
		{Chat, `{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"x"}]}`, 0, 7, 9, ""},
		{Chat, `{"model":"m","max_completion_tokens":9,"messages":[{"role":"user","content":"x"}]}`, 0, 7, 9, ""},
		{Chat, `{"model":"m","max_tokens":null,"messages":[{"role":"user","content":"x"}]}`, 0, 7, 7, `{"model":"m","max_tokens":7,"messages":[{"role":"user","content":"x"}]}`},
		{Chat, `{"model":"m","max_tokens":-1,"messages":[{"role":"user","content":"x"}]}`, 0, 7, 7, `{"model":"m","max_tokens":7,"messages":[{"role":"user","content":"x"}]}`},
		{Completion, `{"model":"m","max_tokens":0,"prompt":"x"}`, 0, 7, 0, ""},
		{Chat, `{"model":"m","messages":[{"role":"user","content":"x"}]}`, 0, 0, 0, ""},
		{Embedding, `{"model":"m","input":"x"}`, 0, 7, 0, ""},
	} {
		r, err := Scan([]byte(tc.body), tc.kind)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Clamp(Clamps{MaxTokens: tc.clamp}, Refused{}); err != nil {
			t.Fatal(err)
		}
		r.Default(tc.bound)
		got := string(join(t, r.Rewrite([]byte(tc.body), Rewrite{})))
		if tc.rewrite == "" {
			tc.rewrite = tc.body
		}
		if r.MaxTokens != tc.want || got != tc.rewrite {
			t.Errorf("%s with a default of %d under %d: %d tokens, %s", tc.body, tc.bound, tc.clamp, r.MaxTokens, got)
		}
	}
}
