package edge

import (
	"strconv"
	"strings"
	"testing"
)

func number(n int) string { return strconv.Itoa(n) }

func TestJSON(t *testing.T) { play(t, jsonVectors()) }

// jsonVectors are about what a body says.
func jsonVectors() []vector {
	with := func(members string) string {
		return chat(`{"model":"m","messages":[{"role":"user","content":"Hi"}]` + members + `}`)
	}
	content := func(text string) string {
		return chat(`{"model":"m","messages":[{"role":"user","content":"` + text + `"}]}`)
	}
	deep := func(levels int) string { // The object and messages are two of them.
		return chat(`{"model":"m","messages":[` + strings.Repeat("[", levels-2) + strings.Repeat("]", levels-2) + `]}`)
	}
	model := func(value string) string { return chat(`{"model":` + value + `,"messages":[{}]}`) }
	return []vector{
		// What is none of our business passes.
		{name: "members that are not known", send: with(`,"x":{"x":1,"x":2},"Y":[],"temperature":1e999`), status: 200, asked: 1},
		{name: "a lone surrogate", send: content(`\ud800`), status: 200, asked: 1},
		{name: "white space around", send: chat(" \r\n\t" + hello + "\n "), status: 200, asked: 1},
		{name: "64 levels", send: deep(64), status: 200, asked: 1},
		{name: "a name in escapes", send: chat(`{"\u006dodel":"m","messages":[{}]}`), status: 200, asked: 1},
		{name: "a model in escapes", send: model(`"\u006d"`), status: 200, asked: 1},
		{name: "the largest max_tokens", send: with(`,"max_tokens":2147483647`), status: 200, asked: 1},
		{name: "a count written as a float", send: with(`,"max_tokens":16.0`), status: 200, asked: 1},
		{name: "null for absent", send: with(`,"max_tokens":null,"stream":null,"stream_options":null,"n":null`), status: 200, asked: 1},

		// Two things in one place.
		{name: "model twice", send: with(`,"model":"m"`), status: 400, code: "ambiguous_request", param: "model", closes: true},
		{name: "model twice, once in escapes", send: with(`,"mod\u0065l":"org/m"`), status: 400, code: "ambiguous_request", param: "model", closes: true},
		{name: "stream twice", send: with(`,"stream":true,"stream":false`), status: 400, code: "ambiguous_request", param: "stream", closes: true},
		{name: "messages twice", send: with(`,"messages":[{}]`), status: 400, code: "ambiguous_request", param: "messages", closes: true},
		{name: "max_tokens twice", send: with(`,"max_tokens":1,"max_tokens":100000`), status: 400, code: "ambiguous_request", param: "max_tokens", closes: true},
		{name: "include_usage twice", send: with(`,"stream":true,"stream_options":{"include_usage":true,"include_usage":false}`), status: 400, code: "ambiguous_request", param: "stream_options.include_usage", closes: true},
		{name: "model in two cases", send: with(`,"Model":"org/m"`), status: 400, code: "ambiguous_request", param: "model", closes: true},
		{name: "model in capitals alone", send: chat(`{"MODEL":"m","messages":[{}]}`), status: 400, code: "ambiguous_request", param: "model", closes: true},
		{name: "messages with a long s", send: with(`,"me\u017fsages":[]`), status: 400, code: "ambiguous_request", param: "messages", closes: true},
		{name: "max_tokens with a Kelvin sign", send: with(",\"max_to\u212aens\":1"), status: 400, code: "ambiguous_request", param: "max_tokens", closes: true},
		{name: "n in two cases", send: with(`,"N":9`), status: 400, code: "ambiguous_request", param: "n", closes: true},

		// No JSON.
		{name: "no body", send: chat(""), status: 400, code: "invalid_json"},
		{name: "white space alone", send: chat(" \n"), status: 400, code: "invalid_json"},
		{name: "an array", send: chat("[" + hello + "]"), status: 400, code: "invalid_json"},
		{name: "a string", send: chat(`"m"`), status: 400, code: "invalid_json"},
		{name: "two objects", send: chat(hello + hello), status: 400, code: "invalid_json"},
		{name: "data behind the object", send: chat(hello + "x"), status: 400, code: "invalid_json"},
		{name: "a zero byte behind the object", send: chat(hello + "\x00"), status: 400, code: "invalid_json"},
		{name: "a byte order mark", send: chat("\xef\xbb\xbf" + hello), status: 400, code: "invalid_json"},
		{name: "UTF-16", send: chat("\xff\xfe{\x00}\x00"), status: 400, code: "invalid_json"},
		{name: "another kind of space", send: chat("\u00a0" + hello), status: 400, code: "invalid_json"},
		{name: "65 levels", send: deep(65), status: 400, code: "invalid_json"},
		{name: "100,000 levels", send: deep(100_000), status: 400, code: "invalid_json"},
		{name: "half an object", send: chat(hello[:30]), status: 400, code: "invalid_json"},
		{name: "a comma too many", send: with(","), status: 400, code: "invalid_json"},
		{name: "a comma too few", send: with(` "n":1`), status: 400, code: "invalid_json"},
		{name: "a comment", send: with(`/* n */`), status: 400, code: "invalid_json"},
		{name: "single quotes", send: chat(`{'model':'m'}`), status: 400, code: "invalid_json"},
		{name: "a name without quotes", send: chat(`{model:"m"}`), status: 400, code: "invalid_json"},
		{name: "brackets that cross", send: with(`,"x":[{]}`), status: 400, code: "invalid_json"},
		{name: "a bare line feed in a string", send: content("\n"), status: 400, code: "invalid_json"},
		{name: "a zero byte in a string", send: content("\x00"), status: 400, code: "invalid_json"},
		{name: "a byte that is not UTF-8", send: content("\xff"), status: 400, code: "invalid_json"},
		{name: "half a character", send: content("\xe2\x82"), status: 400, code: "invalid_json"},
		{name: "a slash in two bytes", send: content("\xc0\xaf"), status: 400, code: "invalid_json"},
		{name: "a surrogate in UTF-8", send: content("\xed\xa0\x80"), status: 400, code: "invalid_json"},
		{name: "an escape that does not exist", send: content(`\x41`), status: 400, code: "invalid_json"},
		{name: "half an escape", send: content(`\u12`), status: 400, code: "invalid_json"},
		{name: "not a number", send: with(`,"temperature":NaN`), status: 400, code: "invalid_json"},
		{name: "no end of numbers", send: with(`,"temperature":-Infinity`), status: 400, code: "invalid_json"},
		{name: "a zero in front", send: with(`,"top_p":01`), status: 400, code: "invalid_json"},
		{name: "a plus in front", send: with(`,"n":+1`), status: 400, code: "invalid_json"},
		{name: "a dot without a digit", send: with(`,"top_p":1.`), status: 400, code: "invalid_json"},
		{name: "a hexadecimal number", send: with(`,"top_p":0x1`), status: 400, code: "invalid_json"},
		{name: "True", send: with(`,"echo":True`), status: 400, code: "invalid_json"},

		// Values that cannot work.
		{name: "no model", send: chat(`{"messages":[{}]}`), status: 400, code: "invalid_request", param: "model"},
		{name: "an empty model", send: model(`""`), status: 400, code: "invalid_request", param: "model"},
		{name: "a model that is a number", send: model(`1`), status: 400, code: "invalid_request", param: "model"},
		{name: "a model that is a list", send: model(`["m"]`), status: 400, code: "invalid_request", param: "model"},
		{name: "a model of 257 bytes", send: model(`"` + strings.Repeat("m", 257) + `"`), status: 400, code: "invalid_request", param: "model"},
		{name: "a model with a line feed", send: model(`"m\n"`), status: 400, code: "invalid_request", param: "model"},
		{name: "a model with a zero byte", send: model(`"m\u0000"`), status: 400, code: "invalid_request", param: "model"},
		{name: "a model with a space", send: model(`"m "`), status: 400, code: "invalid_request", param: "model"},
		{name: "a model in another case", send: model(`"M"`), status: 404, code: "model_not_found", param: "model"},
		{name: "a model with dots", send: model(`"../m"`), status: 404, code: "model_not_found", param: "model"},
		{name: "a model that is a URL", send: model(`"http://127.0.0.1/m"`), status: 404, code: "model_not_found", param: "model"},
		{name: "messages that are a text", send: chat(`{"model":"m","messages":"Hi"}`), status: 400, code: "invalid_request", param: "messages"},
		{name: "stream as a text", send: with(`,"stream":"true"`), status: 400, code: "invalid_request", param: "stream"},
		{name: "stream as a number", send: with(`,"stream":1`), status: 400, code: "invalid_request", param: "stream"},
		{name: "a negative n", send: with(`,"n":-1`), status: 400, code: "invalid_request", param: "n"},
		{name: "n of nothing", send: with(`,"n":0`), status: 400, code: "invalid_request", param: "n"},
		{name: "half a choice", send: with(`,"n":1.5`), status: 400, code: "invalid_request", param: "n"},
		{name: "n above 32 bits", send: with(`,"n":4294967297`), status: 400, code: "invalid_request", param: "n"},
		{name: "n above 64 bits", send: with(`,"n":18446744073709551617`), status: 400, code: "invalid_request", param: "n"},
		{name: "max_tokens above 32 bits", send: with(`,"max_tokens":2147483648`), status: 400, code: "invalid_request", param: "max_tokens"},
		{name: "max_tokens beyond all", send: with(`,"max_tokens":1e999`), status: 400, code: "invalid_request", param: "max_tokens"},
		{name: "max_tokens as a text", send: with(`,"max_tokens":"1"`), status: 400, code: "invalid_request", param: "max_tokens"},
		{name: "max_tokens of a thousand digits", send: with(`,"max_tokens":` + strings.Repeat("9", 1000)), status: 400, code: "invalid_request", param: "max_tokens"},
		{name: "stream_options as a list", send: with(`,"stream_options":[]`), status: 400, code: "invalid_request", param: "stream_options"},
	}
}
