package wire

import (
	"encoding/json"
	"strings"
	"testing"
)

// answered reads an answer in pieces of n bytes.
func answered(text string, n int) *Answer {
	a := new(Answer)
	for len(text) > 0 {
		n := min(n, len(text))
		_, _ = a.Write([]byte(text[:n]))
		text = text[n:]
	}
	return a
}

func TestAnswerIsReadHoweverItIsCut(t *testing.T) {
	for name, test := range map[string]struct {
		text             string
		usage            Usage
		failed, complete bool
		malformed        bool
	}{
		"a chat":                 {text: `{"id":"x","object":"chat.completion","choices":[{"message":{"content":"\"usage\":{\"prompt_tokens\":99} \u00e9 \\"}}],"usage":{"prompt_tokens":9,"completion_tokens":12,"prompt_tokens_details":{"cached_tokens":4}},"error":null}` + "\n", usage: Usage{9, 4, 12, 0, SourceReported}, complete: true},
		"embeddings":             {text: `{"object":"list","data":[{"embedding":[-0.5, 1e-9,12,0,0.25E+2]},{"embedding":"AAAA"}],"usage":{"prompt_tokens":8,"total_tokens":8}}`, usage: Usage{Prompt: 8, Source: SourceReported}, complete: true},
		"usage of null":          {text: `{"usage":null}`, complete: true},
		"usage as a text":        {text: `{"usage":"{\"prompt_tokens\":9}"}`, complete: true},
		"usage further down":     {text: `{"a":{"usage":{"prompt_tokens":9},"error":1,"object":"error"},"b":[{"error":1}]}`, complete: true},
		"a huge usage":           {text: `{"usage":{"prompt_tokens":9,"x":"` + strings.Repeat("x", maxKept) + `"}}`, complete: true},
		"a huge name":            {text: `{"` + strings.Repeat("x", 2*maxKept) + `":1,"usage":{"prompt_tokens":9}}`, usage: Usage{Prompt: 9, Source: SourceReported}, complete: true},
		"an escaped name":        {text: `{"\u0075sag\u0065":{"prompt_tokens":9}}`, usage: Usage{Prompt: 9, Source: SourceReported}, complete: true},
		"an error":               {text: `{"error":{"message":"no"}}`, failed: true, complete: true},
		"an error as a text":     {text: `{"error":"no"}`, failed: true, complete: true},
		"an error by its object": {text: `{"object":"error","message":"no"}`, failed: true, complete: true},
		"not an error":           {text: `{"object":"errors","error":null,"object ":"error"}`, complete: true},
		"an array":               {text: `[1,{"usage":{"prompt_tokens":9}}]`, complete: true},
		"white space all over":   {text: " { \"usage\" :\n{ \"prompt_tokens\" : 9 }\t, \"a\" : [ ] , \"b\" : { } , \"c\":[ 1 , 2 ] } \r\n", usage: Usage{Prompt: 9, Source: SourceReported}, complete: true},
		"a number":               {text: `-12.5e3`, complete: true},
		"nothing":                {},
		"cut off":                {text: `{"usage":{"prompt_tokens":9},"a":[1,2`, usage: Usage{Prompt: 9, Source: SourceReported}},
		"cut off in a number":    {text: `-12.5e`},
		"HTML":                   {text: `<html>502</html>`, malformed: true},
		"two values":             {text: `{} {}`, malformed: true},
		"a number cut wrong":     {text: `[1.]`, malformed: true},
		"a leading zero":         {text: `[01]`, malformed: true},
		"a bare minus":           {text: `[1,-,2]`, malformed: true},
		"crossed brackets":       {text: `{"a":[}`, malformed: true},
		"an end too many":        {text: `[]]`, malformed: true},
		"a comma at the end":     {text: `{"a":1,}`, malformed: true},
		"a comma first":          {text: `[,1]`, malformed: true},
		"no colon":               {text: `{"a" 1}`, malformed: true},
		"a bare line feed":       {text: "{\"a\":\"0123456789abcdef0123456789abcdef\n\"}", malformed: true},
		"an unknown escape":      {text: `["\x"]`, malformed: true},
		"a short escape":         {text: `["\u12"]`, malformed: true},
		"a wrong literal":        {text: `[trve]`, malformed: true},
		"too deep":               {text: strings.Repeat("[", 65), malformed: true},
	} {
		t.Run(name, func(t *testing.T) {
			for _, n := range []int{1, 2, 3, 7, 16, 64, 1 << 20} {
				a := answered(test.text, n)
				usage, ok := a.Usage()
				if usage != test.usage || ok != (test.usage != Usage{}) {
					t.Errorf("in pieces of %d: usage %+v %v", n, usage, ok)
				}
				if a.Failed() != test.failed || a.Complete() != test.complete || a.Malformed() != test.malformed {
					t.Errorf("in pieces of %d: failed %v, complete %v, malformed %v", n, a.Failed(), a.Complete(), a.Malformed())
				}
			}
		})
	}
}

func TestAnswerDoesNotGrow(t *testing.T) {
	a := new(Answer)
	_, _ = a.Write([]byte(`{"usage":{"x":[`))
	piece := []byte(strings.Repeat(`{"usage":{"a":"b"}},`, 1000))
	_, _ = a.Write(piece)
	if allocs := testing.AllocsPerRun(100, func() { _, _ = a.Write(piece) }); allocs != 0 || cap(a.kept) > 2*maxKept {
		t.Errorf("%v allocations, %d bytes kept", allocs, cap(a.kept))
	}
}

func FuzzAnswer(f *testing.F) {
	for _, text := range []string{
		`{"id":"x","choices":[{"message":{"content":"\u00e9 \\ \""}}],"usage":{"prompt_tokens":9,"completion_tokens":12}}`,
		`{"data":[{"embedding":[-0.5, 1e-9,12,0,0.25E+2,-0]}],"error":null,"object":"error"}`,
		`[true,false,null,"",{},[],{"a":[{}]}]`, `-1.5e-7`, `{"usage":`,
	} {
		f.Add([]byte(text), uint8(3))
	}
	f.Fuzz(func(t *testing.T, text []byte, n uint8) {
		a := answered(string(text), int(n)+1)
		valid := json.Valid(text) && !deep(text)
		if a.Complete() != valid || valid && a.Malformed() {
			t.Fatalf("complete %v, malformed %v, valid %v", a.Complete(), a.Malformed(), valid)
		}
		whole := answered(string(text), len(text)+1)
		u, ok := a.Usage()
		if v, ok2 := whole.Usage(); u != v || ok != ok2 || a.Failed() != whole.Failed() || a.Malformed() != whole.Malformed() {
			t.Fatalf("in pieces of %d: %+v, %+v", n, a, whole)
		}
		var top map[string]json.RawMessage
		if !valid || json.Unmarshal(text, &top) != nil {
			return
		}
		if usage, ok2 := parseUsage(top["usage"]); len(top["usage"]) <= maxKept && (ok != ok2 || ok && u != usage) {
			t.Fatalf("usage %+v, want %+v", u, usage)
		}
	})
}
