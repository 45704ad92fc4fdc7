package main

import (
	"encoding/json"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/ai-aas/api-router/internal/policy"
)

// What get prints, apply reads.
func TestYAMLReadsBackAsTheSame(t *testing.T) {
	check := func(t rapid.TB, in string) {
		t.Helper()
		text, err := toYAML([]byte(in))
		if err != nil {
			t.Fatalf("%s: %v", in, err)
		}
		if strings.ContainsFunc(text, unprintable) {
			t.Fatalf("%s: a terminal obeys %q", in, text)
		}
		out, err := policy.ToJSON([]byte(text))
		if err != nil {
			t.Fatalf("%s:\n%s\n%v", in, text, err)
		}
		var want, got any
		if json.Unmarshal([]byte(in), &want) != nil || json.Unmarshal(out, &got) != nil || !equal(want, got) {
			t.Fatalf("%s:\n%s\n%s", in, text, out)
		}
	}
	for _, word := range []string{
		"true", "null", "NO", "1", "0x10", "1e3", "0o7", "", " a", "a ", "- a", "a: b", "a:", ":a", "#c", "a #c", "~", "2026-01-01", "a\nb\n", "a\n---\nb",
		"---", "...", "a\tb", "\t", "'q'", `"d"`, `a\b`, "%x", "@x", "`x", "{a}", "[a]", "a,b", "*", "&a", "!t", "|", ">", "? a", "\n\na", "\r\n", ".inf", "NaN",
		"<<", "=", "日本", "\u2028", "\u0085", "\ufeff", "\x1b[31m", "\u009b31m", "\u202ea", "\U000e0001", "🤷🏽", "http://h:1/a?b=c", "env:KEY", "-", "/", "_",
	} {
		quoted, err := json.Marshal(word)
		if err != nil {
			t.Fatal(err)
		}
		name := string(quoted)
		if word == "" { // No document has a field without a name.
			name = `"x"`
		}
		check(t, `{"z":`+string(quoted)+`,"a":[`+string(quoted)+`,[`+string(quoted)+`]],"m":{`+name+`:`+string(quoted)+`}}`)
	}
	for _, value := range []string{"9007199254740993", "1.10", "{}", "[]", "null", "true", "[[],{}]", `[{"a":[{"b":1},2]}]`} {
		check(t, `{"k":`+value+`}`)
	}
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.String()
		in, err := json.Marshal(map[string]any{"text": text.Draw(t, "text"), "list": rapid.SliceOf(text).Draw(t, "list")})
		if err != nil {
			t.Fatal(err)
		}
		check(t, string(in))
	})
}

func equal(a, b any) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && string(x) == string(y)
}

func TestJSONOnATerminalHoldsNoCommands(t *testing.T) {
	in := "{\n  \"a\": \"x\u009b31m\u202e\U000e0001\"\n}"
	want := "{\n  \"a\": \"x\\u009b31m\\u202e\\udb40\\udc01\"\n}"
	if got := escaped(in); got != want {
		t.Errorf("%q", got)
	}
}
