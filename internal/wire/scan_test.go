package wire

import (
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/ai-aas/api-router/internal/fault"
)

const hello = `"messages":[{"role":"user","content":"Hello!"}]`

func TestScanReadsWhatTheClientAsked(t *testing.T) {
	for name, test := range map[string]struct {
		body string
		kind Kind
		want Request // only the exported fields are compared, Prompt by its text
		text string
	}{
		"the least chat":        {`{"model":"m",` + hello + `}`, Chat, Request{Model: "m", Choices: 1}, hello[len(`"messages":`):]},
		"white space all over":  {" \n{\t\"model\" : \"m\" ,\r\n \"messages\" : [ {} ] } \n", Chat, Request{Model: "m", Choices: 1}, `[ {} ]`},
		"a stream with usage":   {`{"stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true},"model":"m",` + hello + `}`, Chat, Request{Model: "m", Stream: true, IncludeUsage: true, ContinuousUsage: true, Choices: 1}, ""},
		"null is absent":        {`{"model":"m","stream":null,"stream_options":null,"n":null,"max_tokens":null,` + hello + `}`, Chat, Request{Model: "m", Choices: 1}, ""},
		"options of null":       {`{"model":"m","stream":true,"stream_options":{"include_usage":null},` + hello + `}`, Chat, Request{Model: "m", Stream: true, Choices: 1}, ""},
		"options alone":         {`{"model":"m","stream_options":{"include_usage":true},` + hello + `}`, Chat, Request{Model: "m", IncludeUsage: true, Choices: 1}, ""},
		"the larger bound":      {`{"model":"m","max_tokens":5,"max_completion_tokens":7,"n":3,` + hello + `}`, Chat, Request{Model: "m", MaxTokens: 7, Choices: 3}, ""},
		"a bound as a float":    {`{"model":"m","max_tokens":256.0,` + hello + `}`, Chat, Request{Model: "m", MaxTokens: 256, Choices: 1}, ""},
		"llama.cpp's bound":     {`{"model":"m","max_tokens":5,"n_predict":8,` + hello + `}`, Chat, Request{Model: "m", MaxTokens: 8, Choices: 1}, ""},
		"that bound alone":      {`{"model":"m","n_predict":8,` + hello + `}`, Chat, Request{Model: "m", Choices: 1}, ""},
		"no bound":              {`{"model":"m","max_tokens":-1,` + hello + `}`, Chat, Request{Model: "m", Choices: 1}, ""},
		"an escaped slash":      {`{"model":"openai\/gpt-oss-20b",` + hello + `}`, Chat, Request{Model: "openai/gpt-oss-20b", Choices: 1}, ""},
		"an escaped name":       {`{"\u006dodel":"\u006d",` + hello + `}`, Chat, Request{Model: "m", Choices: 1}, ""},
		"every allowed letter":  {`{"model":"aZ09._:/@+-",` + hello + `}`, Chat, Request{Model: "aZ09._:/@+-", Choices: 1}, ""},
		"the longest name":      {`{"model":"` + strings.Repeat("m", 256) + `",` + hello + `}`, Chat, Request{Model: strings.Repeat("m", 256), Choices: 1}, ""},
		"an unknown field":      {`{"model":"m","extra":{"model":1,"Model":2,"model":3,"":[[]]},` + hello + `}`, Chat, Request{Model: "m", Choices: 1}, ""},
		"a nested duplicate":    {`{"model":"m","messages":[{"role":"user","role":"user"}]}`, Chat, Request{Model: "m", Choices: 1}, ""},
		"a text":                {`{"model":"m","prompt":"Once"}`, Completion, Request{Model: "m", Choices: 1}, `"Once"`},
		"an empty text":         {`{"model":"m","prompt":""}`, Completion, Request{Model: "m", Choices: 1}, `""`},
		"texts":                 {`{"model":"m","prompt":["a","b"],"n":2}`, Completion, Request{Model: "m", Choices: 4}, `["a","b"]`},
		"tokens":                {`{"model":"m","prompt":[1,2,3],"n":2}`, Completion, Request{Model: "m", Choices: 2}, `[1,2,3]`},
		"lists of tokens":       {`{"model":"m","prompt":[[1],[2,3],[4]]}`, Completion, Request{Model: "m", Choices: 3}, `[[1],[2,3],[4]]`},
		"an embedding":          {`{"model":"m","input":"x"}`, Embedding, Request{Model: "m"}, `"x"`},
		"an embedding's stream": {`{"model":"m","input":["x"],"stream":"yes","stream_options":7,"n":"?"}`, Embedding, Request{Model: "m"}, `["x"]`},
		"sixty-four levels":     {`{"model":"m","x":` + strings.Repeat("[", 63) + strings.Repeat("]", 63) + `,` + hello + `}`, Chat, Request{Model: "m", Choices: 1}, ""},
		"all that JSON has":     {`{"model":"m","x":[-0,0.5,1e9,1E-2,10.25e+3,true,false,null,"\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00é😀",{},[]],` + hello + `}`, Chat, Request{Model: "m", Choices: 1}, ""},
		"a surrogate alone":     {`{"model":"m","x":"\ud800","\ud800":1,` + hello + `}`, Chat, Request{Model: "m", Choices: 1}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Scan([]byte(test.body), test.kind)
			if err != nil {
				t.Fatal(err)
			}
			if text := test.body[got.Prompt.Start:got.Prompt.End]; test.text != "" && text != test.text {
				t.Errorf("the prompt is %s, want %s", text, test.text)
			}
			seen := Request{
				Model: got.Model, Stream: got.Stream, IncludeUsage: got.IncludeUsage, ContinuousUsage: got.ContinuousUsage,
				MaxTokens: got.MaxTokens, Choices: got.Choices,
			}
			if seen != test.want {
				t.Errorf("read %+v, want %+v", seen, test.want)
			}
		})
	}
}

func TestScanRefuses(t *testing.T) {
	chat := func(members string) string { return `{"model":"m",` + members + `,` + hello + `}` }
	for name, test := range map[string]struct {
		body  string
		kind  Kind
		code  fault.Code
		param string
		says  string
	}{
		"nothing":                {"", Chat, fault.InvalidJSON, "", "empty"},
		"white space":            {" \n", Chat, fault.InvalidJSON, "", "empty"},
		"an array":               {"[]", Chat, fault.InvalidJSON, "", "not a JSON object"},
		"a byte order mark":      {"\ufeff{}", Chat, fault.InvalidJSON, "", "not a JSON object"},
		"an open object":         {`{"model":"m"`, Chat, fault.InvalidJSON, "", "byte 12"},
		"an open string":         {`{"model":"m`, Chat, fault.InvalidJSON, "", "ends in the middle"},
		"an end after a name":    {`{"model"`, Chat, fault.InvalidJSON, "", "ends in the middle"},
		"an end after a colon":   {`{"model":`, Chat, fault.InvalidJSON, "", "ends in the middle"},
		"an end in an option":    {`{"stream_options":{"include_usage":`, Chat, fault.InvalidJSON, "", "ends in the middle"},
		"a comma too many":       {chat(`"x":[1,]`), Chat, fault.InvalidJSON, "", "a value"},
		"a comma at the end":     {`{"model":"m",}`, Chat, fault.InvalidJSON, "", "a member's name"},
		"a comma missing":        {`{"model":"m" "n":1}`, Chat, fault.InvalidJSON, "", "a comma"},
		"a colon missing":        {`{"model" "m"}`, Chat, fault.InvalidJSON, "", "a colon"},
		"brackets crossed":       {chat(`"x":[{]}`), Chat, fault.InvalidJSON, "", "a member's name"},
		"brackets mixed":         {chat(`"x":[1}`), Chat, fault.InvalidJSON, "", "closing bracket"},
		"single quotes":          {`{'model':'m'}`, Chat, fault.InvalidJSON, "", "double quotes"},
		"a comment":              {chat(`"x":1 /* y */`), Chat, fault.InvalidJSON, "", "a comma"},
		"trailing data":          {chat(`"x":1`) + `{}`, Chat, fault.InvalidJSON, "", "something follows"},
		"a trailing zero byte":   {chat(`"x":1`) + "\x00", Chat, fault.InvalidJSON, "", "something follows"},
		"a leading zero":         {chat(`"x":01`), Chat, fault.InvalidJSON, "", "a comma"},
		"a leading plus":         {chat(`"x":+1`), Chat, fault.InvalidJSON, "", "a value"},
		"a bare point":           {chat(`"x":1.`), Chat, fault.InvalidJSON, "", "a digit"},
		"a bare exponent":        {chat(`"x":1e+`), Chat, fault.InvalidJSON, "", "a digit"},
		"a bare minus":           {chat(`"x":-`), Chat, fault.InvalidJSON, "", "a digit"},
		"NaN":                    {chat(`"x":NaN`), Chat, fault.InvalidJSON, "", "a value"},
		"a half literal":         {chat(`"x":tru`), Chat, fault.InvalidJSON, "", "true, false and null"},
		"a bare tab":             {chat("\"x\":\"a\tb\""), Chat, fault.InvalidJSON, "", "control character"},
		"a bare line feed":       {chat("\"x\":\"0123456789abcdef\n\""), Chat, fault.InvalidJSON, "", "control character"},
		"an unknown escape":      {chat(`"x":"\q"`), Chat, fault.InvalidJSON, "", "escape"},
		"a short escape":         {chat(`"x":"\u12g4"`), Chat, fault.InvalidJSON, "", "escape"},
		"Latin-1":                {chat("\"x\":\"caf\xe9\""), Chat, fault.InvalidJSON, "", "UTF-8"},
		"an overlong form":       {chat("\"x\":\"\xc0\xaf\""), Chat, fault.InvalidJSON, "", "UTF-8"},
		"a long overlong form":   {chat("\"x\":\"\xe0\x80\xaf、、、、\""), Chat, fault.InvalidJSON, "", "UTF-8"},
		"an encoded surrogate":   {chat("\"x\":\"、、\xed\xa0\x80、、\""), Chat, fault.InvalidJSON, "", "UTF-8"},
		"beyond Unicode":         {chat("\"x\":\"\xf4\x90\x80\x80\""), Chat, fault.InvalidJSON, "", "UTF-8"},
		"a cut character":        {chat("\"x\":\"\xe3\x80\""), Chat, fault.InvalidJSON, "", "UTF-8"},
		"sixty-five levels":      {chat(`"x":` + strings.Repeat("[", 64) + strings.Repeat("]", 64)), Chat, fault.InvalidJSON, "", "64 levels"},
		"depth without end":      {chat(`"x":` + strings.Repeat(`{"a":`, 100_000)), Chat, fault.InvalidJSON, "", "64 levels"},
		"two models":             {chat(`"model":"m"`), Chat, fault.AmbiguousRequest, "model", "twice"},
		"an escaped second":      {chat(`"mod\u0065l":"dear"`), Chat, fault.AmbiguousRequest, "model", "twice"},
		"another case":           {chat(`"Model":"dear"`), Chat, fault.AmbiguousRequest, "model", "case"},
		"an escaped other case":  {chat(`"\u004dodel":"dear"`), Chat, fault.AmbiguousRequest, "model", "case"},
		"a long s":               {chat(`"ſtream":true`), Chat, fault.AmbiguousRequest, "stream", "case"},
		"a Kelvin sign":          {chat(`"max_to\u212aens":5`), Chat, fault.AmbiguousRequest, "max_tokens", "case"},
		"another case alone":     {`{"MODEL":"m",` + hello + `}`, Chat, fault.AmbiguousRequest, "model", "case"},
		"two streams":            {chat(`"stream":true,"stream":false`), Chat, fault.AmbiguousRequest, "stream", "twice"},
		"two bounds":             {chat(`"best_of":1,"best_of":9`), Chat, fault.AmbiguousRequest, "best_of", "twice"},
		"two prompts":            {`{"model":"m","prompt":null,"prompt":"x"}`, Completion, fault.AmbiguousRequest, "prompt", "twice"},
		"two include_usage":      {chat(`"stream_options":{"include_usage":true,"include_usage":false}`), Chat, fault.AmbiguousRequest, "stream_options.include_usage", "twice"},
		"a nested other case":    {chat(`"stream_options":{"Continuous_Usage_Stats":true}`), Chat, fault.AmbiguousRequest, "stream_options.continuous_usage_stats", "case"},
		"an embedding's stream":  {`{"model":"m","input":"x","stream":1,"stream":2}`, Embedding, fault.AmbiguousRequest, "stream", "twice"},
		"no model":               {`{` + hello + `}`, Chat, fault.InvalidRequest, "model", "missing"},
		"a model of null":        {`{"model":null,` + hello + `}`, Chat, fault.InvalidRequest, "model", "null"},
		"a model as a number":    {`{"model":7,` + hello + `}`, Chat, fault.InvalidRequest, "model", "a number"},
		"an empty model":         {`{"model":"",` + hello + `}`, Chat, fault.InvalidRequest, "model", "empty"},
		"a model with a space":   {`{"model":"a b",` + hello + `}`, Chat, fault.InvalidRequest, "model", "letters"},
		"a model with a break":   {`{"model":"a\nb",` + hello + `}`, Chat, fault.InvalidRequest, "model", "letters"},
		"a model with a star":    {`{"model":"*",` + hello + `}`, Chat, fault.InvalidRequest, "model", "letters"},
		"a long model":           {`{"model":"` + strings.Repeat("m", 257) + `",` + hello + `}`, Chat, fault.InvalidRequest, "model", "256"},
		"a long escaped model":   {`{"model":"` + strings.Repeat(`\u006d`, 257) + `",` + hello + `}`, Chat, fault.InvalidRequest, "model", "256"},
		"no messages":            {`{"model":"m"}`, Chat, fault.InvalidRequest, "messages", "missing"},
		"messages of null":       {`{"model":"m","messages":null}`, Chat, fault.InvalidRequest, "messages", "null"},
		"empty messages":         {`{"model":"m","messages":[ ]}`, Chat, fault.InvalidRequest, "messages", "empty"},
		"messages as a text":     {`{"model":"m","messages":"hi"}`, Chat, fault.InvalidRequest, "messages", "a string"},
		"a prompt for a chat":    {`{"model":"m","prompt":"hi"}`, Chat, fault.InvalidRequest, "messages", "missing"},
		"no prompt":              {`{"model":"m",` + hello + `}`, Completion, fault.InvalidRequest, "prompt", "missing"},
		"a prompt of null":       {`{"model":"m","prompt":null}`, Completion, fault.InvalidRequest, "prompt", "missing"},
		"an empty list":          {`{"model":"m","prompt":[]}`, Completion, fault.InvalidRequest, "prompt", "empty"},
		"a prompt as an object":  {`{"model":"m","prompt":{}}`, Completion, fault.InvalidRequest, "prompt", "an object"},
		"no input":               {`{"model":"m",` + hello + `}`, Embedding, fault.InvalidRequest, "input", "missing"},
		"an input as a number":   {`{"model":"m","input":1}`, Embedding, fault.InvalidRequest, "input", "a number"},
		"stream as a text":       {chat(`"stream":"true"`), Chat, fault.InvalidRequest, "stream", "a string"},
		"stream as a number":     {chat(`"stream":1`), Chat, fault.InvalidRequest, "stream", "a number"},
		"options as a boolean":   {chat(`"stream_options":true`), Chat, fault.InvalidRequest, "stream_options", "a boolean"},
		"include_usage as a 1":   {chat(`"stream_options":{"include_usage":1}`), Chat, fault.InvalidRequest, "stream_options.include_usage", "a number"},
		"n of nought":            {chat(`"n":0`), Chat, fault.InvalidRequest, "n", "at least 1"},
		"n as a fraction":        {chat(`"n":1.5`), Chat, fault.InvalidRequest, "n", "whole number"},
		"n with an exponent":     {chat(`"n":1e0`), Chat, fault.InvalidRequest, "n", "whole number"},
		"n as a text":            {chat(`"n":"2"`), Chat, fault.InvalidRequest, "n", "a string"},
		"best_of as a text":      {chat(`"best_of":"2"`), Chat, fault.InvalidRequest, "best_of", "a string"},
		"top_logprobs as a true": {chat(`"top_logprobs":true`), Chat, fault.InvalidRequest, "top_logprobs", "a boolean"},
		"logprobs as a text":     {`{"model":"m","prompt":"x","logprobs":"5"}`, Completion, fault.InvalidRequest, "logprobs", "a string"},
		"stop as a number":       {chat(`"stop":5`), Chat, fault.InvalidRequest, "stop", "a number"},
		"n_predict as a float":   {chat(`"n_predict":1e9`), Chat, fault.InvalidRequest, "n_predict", "whole number"},
		"two templates":          {chat(`"chat_template":null,"chat_template":"x"`), Chat, fault.AmbiguousRequest, "chat_template", "twice"},
		"a bound beyond 32 bits": {chat(`"max_tokens":2147483648`), Chat, fault.InvalidRequest, "max_tokens", "32 bits"},
		"a bound beyond 64 bits": {chat(`"max_completion_tokens":184467440737095516170`), Chat, fault.InvalidRequest, "max_completion_tokens", "32 bits"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Scan([]byte(test.body), test.kind)
			var f *fault.Error
			if !errors.As(err, &f) {
				t.Fatalf("got %v, want a fault", err)
			}
			if f.Code != test.code || f.Param != test.param || !strings.Contains(f.Message, test.says) {
				t.Errorf("got %s, param %q, %q; want %s, param %q, with %q", f.Code, f.Param, f.Message, test.code, test.param, test.says)
			}
		})
	}
}

func TestEveryNameThatCountsStandsOnce(t *testing.T) {
	for id := nameOther + 1; id < nameIncludeUsage; id++ {
		for _, second := range []string{id.String(), strings.ToUpper(id.String()), "\\u00" + strconv.FormatInt(int64(id.String()[0]), 16) + id.String()[1:]} {
			body := `{"` + id.String() + `":null,"` + second + `":null}`
			if id == nameModel || id == nameMessages {
				body = `{"model":"m",` + hello + `,"` + second + `":null}`
			}
			_, err := Scan([]byte(body), Chat)
			if f := fault.From(err); f.Code != fault.AmbiguousRequest || f.Param != id.String() {
				t.Errorf("%s: %v", body, err)
			}
		}
	}
}

func TestUnescapeMeansWhatEncodingJSONMeans(t *testing.T) {
	for _, quoted := range []string{
		`"plain"`, `"\"\\\/\b\f\n\r\t"`, `"\u0041\u00e9\u20AC"`, `"\ud83d\ude00"`, `"\ud83d"`, `"\ud83dx"`, `"\ud83d\u0041"`, `"\ud83d\ud83d\ude00"`, `"\ude00\ud83d"`, `"é世😀"`,
	} {
		var want string
		if err := json.Unmarshal([]byte(quoted), &want); err != nil {
			t.Fatal(err)
		}
		if got, fits := unescape(make([]byte, 0, 64), []byte(quoted[1:len(quoted)-1])); string(got) != want || !fits {
			t.Errorf("%s: %q, want %q", quoted, got, want)
		}
	}
	if _, fits := unescape(make([]byte, 0, 8), []byte("123456789")); fits {
		t.Error("nine bytes fit in eight")
	}
}

// TestScanLooksAtEveryByte moves one bad byte through a string, so that each lane of the fast path meets it.
func TestScanLooksAtEveryByte(t *testing.T) {
	for _, bad := range []byte{0x00, 0x01, 0x09, 0x1f, 0x80, 0xa1, 0xc3, 0xff} {
		for at := range 70 {
			text := []byte(strings.Repeat("x", 70))
			text[at] = bad
			body := []byte(`{"model":"m","messages":["` + string(text) + `"]}`)
			if _, err := Scan(body, Chat); fault.CodeOf(err) != fault.InvalidJSON {
				t.Fatalf("byte %#x at %d: %v", bad, at, err)
			}
		}
	}
	for good := byte(0x20); good < 0x80; good++ {
		if good == '"' || good == '\\' {
			continue
		}
		body := []byte(`{"model":"m","messages":["` + strings.Repeat(string(good), 70) + `"]}`)
		if _, err := Scan(body, Chat); err != nil {
			t.Fatalf("byte %#x: %v", good, err)
		}
	}
}

func TestScanAllocatesTheModelAlone(t *testing.T) {
	body := chatBody(16<<10, paragraph)
	allocs := testing.AllocsPerRun(100, func() {
		if _, err := Scan(body, Chat); err != nil {
			t.Error(err)
		}
	})
	if allocs > 1 {
		t.Errorf("%v allocations", allocs)
	}
}

func FuzzScan(f *testing.F) {
	for _, body := range []string{
		`{"model":"m",` + hello + `}`,
		`{"model":"m","prompt":["a","b"],"stream":true,"stream_options":{"include_usage":false,"x":1}}`,
		`{"input":[1,2,3],"mod\u0065l":"a\/b","stream_options":null,"max_tokens":5.0,"n":2}`,
		`{"model":"m","messages":[{"content":"\ud83d\ude00 é 😀 \\ \" \n"}],"Stream":1}`,
		`{"model":"m","x":[-0.5e+9,[{"a":{}}],null],"messages":[0]}`,
		`{"model":"m","messages":[{"content":[{"image_url":{"\u0075rl":" \tDat\na:,"}},{"video_url":["http://a",1]}]}],"prompt":"x","input":[[1,2],[3]]}`,
		`{"model":"m","n":5,"best_of":1.0,"max_tokens":null,"max_completion_tokens":-1,"n_predict":0,"prompt":["a"],"messages":[{}],"input":"x"}`,
		`{"model":"m","logprobs":true,"top_logprobs":7,"prompt_logprobs":null,"stop":["a",null],"messages":[{"url":""}],"prompt":[1,[]]}`,
		`{"model":"m","chat_template":null,"chat_template_kwargs":{"chat_template":"x","a":1},"stop":"a","messages":[{}],"input":[{"url":"data:"}]}`,
		`{"model":"m","chat_template":1,"chat_template_kwargs":[],"stop":[],"logprobs":20,"messages":[{}],"prompt":[{"a_url":"x"}]}`,
	} {
		for kind := range byte(3) {
			f.Add([]byte(body), kind)
		}
	}
	f.Fuzz(func(t *testing.T, body []byte, k byte) {
		kind := Kind(k % 3)
		r, err := Scan(body, kind)
		if err != nil {
			if code := fault.CodeOf(err); code == fault.InvalidJSON && json.Valid(body) && utf8.Valid(body) && body[0] == '{' && !deep(body) {
				t.Fatalf("refused as JSON: %v", err)
			}
			return
		}
		if !json.Valid(body) || !utf8.Valid(body) || deep(body) {
			t.Fatal("accepted, though it is not valid")
		}
		agree(t, body, kind, r)
	})
}

// agree checks that encoding/json, which folds case and takes the last of two, reads the same request.
func agree(t *testing.T, body []byte, kind Kind, r Request) {
	t.Helper()
	var request struct {
		Model         string          `json:"model"`
		Stream        json.RawMessage `json:"stream"`
		StreamOptions json.RawMessage `json:"stream_options"`
		Messages      json.RawMessage `json:"messages"`
		Prompt        json.RawMessage `json:"prompt"`
		Input         json.RawMessage `json:"input"`
	}
	if err := json.Unmarshal(body, &request); err != nil {
		t.Fatal(err)
	}
	if request.Model != r.Model || string(body[r.model.Start:r.model.End])[0] != '"' {
		t.Errorf("model %q, want %q", r.Model, request.Model)
	}
	agreeOnClamps(t, body, kind, &r)
	prompt := map[Kind]json.RawMessage{Chat: request.Messages, Completion: request.Prompt, Embedding: request.Input}[kind]
	if string(body[r.Prompt.Start:r.Prompt.End]) != string(prompt) {
		t.Errorf("the prompt is %q, want %q", body[r.Prompt.Start:r.Prompt.End], prompt)
	}
	if kind == Embedding {
		return
	}
	if r.Stream != (string(request.Stream) == "true") {
		t.Errorf("stream %v, want %s", r.Stream, request.Stream)
	}
	var options struct {
		Usage      bool `json:"include_usage"`
		Continuous bool `json:"continuous_usage_stats"`
	}
	if request.StreamOptions != nil {
		if err := json.Unmarshal(request.StreamOptions, &options); err != nil {
			t.Fatal(err)
		}
	}
	if options.Usage != r.IncludeUsage || options.Continuous != r.ContinuousUsage {
		t.Errorf("options %v %v, want %+v", r.IncludeUsage, r.ContinuousUsage, options)
	}
}

// agreeOnClamps checks what policies clamp and refuse.
func agreeOnClamps(t *testing.T, body []byte, kind Kind, r *Request) {
	t.Helper()
	var members map[string]json.RawMessage
	if err := json.Unmarshal(body, &members); err != nil {
		t.Fatal(err)
	}
	if kind != Chat {
		var list []json.RawMessage
		want := 1
		if json.Unmarshal(members[kind.prompt().String()], &list) == nil && !strings.ContainsAny(string(list[0][:1]), "-0123456789") {
			want = len(list)
		}
		if r.prompts != want {
			t.Errorf("%d prompts, want %d", r.prompts, want)
		}
	}
	present := func(value json.RawMessage) bool { return value != nil && string(value) != "null" }
	arguments := members["chat_template_kwargs"]
	if present(arguments) != (r.templateArgs > 0) {
		t.Errorf("chat_template_kwargs at %d", r.templateArgs)
	}
	if present(members["chat_template"]) != (r.template > 0) && !present(arguments) {
		t.Errorf("chat_template at %d", r.template)
	}
	remote := false
	for _, name := range []string{"messages", kind.prompt().String()} {
		remote = remote || members[name] != nil && fetches(t, members[name], false)
	}
	if remote != (r.remote > 0) && !longText.Match(body) {
		t.Errorf("a URL at %d, want %v", r.remote, remote)
	}
	if kind == Embedding {
		return
	}
	stops := 0
	var list []json.RawMessage
	switch {
	case json.Unmarshal(members["stop"], &list) == nil:
		stops = len(list)
	case present(members["stop"]):
		stops = 1
	}
	if r.stops != stops {
		t.Errorf("%d stops, want %d", r.stops, stops)
	}
	for id := nameMaxTokens; id <= namePromptLogprobs; id++ {
		var want float64
		value := members[id.String()]
		stated := present(value) && json.Unmarshal(value, &want) == nil && !(id == nameLogprobs && kind == Chat)
		if f := r.figure(id); f.stated != stated || float64(f.value) != want && stated || stated && string(body[f.at.Start:f.at.End]) != string(value) {
			t.Errorf("%s is %+v, want %s", id, *f, value)
		}
	}
}

// deep reports whether valid JSON is nested beyond what Scan accepts.
func deep(body []byte) bool {
	depth, quoted := 0, false
	for i := 0; i < len(body); i++ {
		switch c := body[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case !quoted && (c == '{' || c == '['):
			if depth++; depth > maxDepth {
				return true
			}
		case !quoted && (c == '}' || c == ']'):
			depth--
		}
	}
	return false
}
