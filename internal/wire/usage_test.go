package wire

import (
	"math"
	"testing"
)

func TestParseUsage(t *testing.T) {
	for raw, want := range map[string]Usage{
		`{"prompt_tokens":9,"completion_tokens":12,"total_tokens":21}`:                                                                                    {Prompt: 9, Completion: 12},
		`{"prompt_tokens":9,"prompt_tokens_details":{"cached_tokens":4,"x":1},"completion_tokens":12,"completion_tokens_details":{"reasoning_tokens":5}}`: {9, 4, 12, 5, ""},
		`{"prompt_tokens":9,"completion_tokens":12,"reasoning_tokens":5,"prompt_tokens_details":null,"completion_tokens_details":[]}`:                     {Prompt: 9, Completion: 12, Reasoning: 5},
		`{"prompt_tokens":3,"prompt_tokens_details":{"cached_tokens":4},"completion_tokens":1,"completion_tokens_details":{"reasoning_tokens":5}}`:        {3, 3, 1, 1, ""},
		`{"completion_tokens_details":{"reasoning_tokens":5},"completion_tokens":9}`:                                                                      {Completion: 9, Reasoning: 5},
		`{"prompt_tokens":-9,"completion_tokens":1.9}`:                                                                                                    {Completion: 1},
		`{"prompt_tokens":1e3,"completion_tokens":25E-1}`:                                                                                                 {Prompt: 1000, Completion: 2},
		`{"prompt_tokens":1e999,"completion_tokens":-1e999}`:                                                                                              {Prompt: maxCount},
		`{"prompt_tokens":99999999999999999999,"completion_tokens":2e9}`:                                                                                  {Prompt: maxCount, Completion: maxCount},
		`{"prompt_tokens":1000000000,"completion_tokens":1000000001}`:                                                                                     {Prompt: maxCount, Completion: maxCount},
		`{"prompt_tokens":-99999999999999999999,"completion_tokens":-0.1}`:                                                                                {},
		`{"prompt_tokens":"9","completion_tokens":12.000}`:                                                                                                {Completion: 12},
		`{"prompt_tokens":1,"prompt_tokens":2}`:                                                                                                           {Prompt: 2},
	} {
		want.Source = SourceReported
		if got, ok := parseUsage([]byte(raw)); got != want || !ok {
			t.Errorf("%s: %+v %v, want %+v", raw, got, ok, want)
		}
	}
	for _, raw := range []string{``, `null`, `{}`, `[]`, `{"total_tokens":5}`, `{"prompt_tokens":"9"}`, `{"prompt_tokens":null}`, `{"prompt_tokens":9`, `{"prompt_tokens":9,}`} {
		if got, ok := parseUsage([]byte(raw)); ok {
			t.Errorf("%s: %+v", raw, got)
		}
	}
	if total := (Usage{Prompt: maxCount, Completion: maxCount}).Total(); total != 2*maxCount {
		t.Error(total)
	}
}

func TestInteger(t *testing.T) {
	for text, want := range map[string]struct {
		n     int64
		exact bool
	}{
		"0": {0, true}, "-0": {0, true}, "7": {7, true}, "-7": {-7, true}, "7.0": {7, true}, "7.000": {7, true},
		"7.5": {7, false}, "7.05": {7, false}, "7e0": {7, false}, "7.0e1": {7, false},
		"999999999999999999": {999999999999999999, true}, "1000000000000000000": {math.MaxInt64, true}, "-1000000000000000000": {-math.MaxInt64, true},
	} {
		if n, exact := integer([]byte(text)); n != want.n || exact != want.exact {
			t.Errorf("%s: %d %v", text, n, exact)
		}
	}
}
