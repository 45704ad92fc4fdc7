package policy

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestWhatMayBeASecretIsHiddenAndNothingElse(t *testing.T) {
	const secret = "sk-0123456789"
	backend := func(rest string) string { return `{"kind":"Backend","id":"x","url":"http://h",` + rest + `}` }
	twice := backend(`"api_key":"` + secret + `","api_key":"env:KEY"`)
	if shown := string(Stored{Kind: KindBackend, ID: "x", Content: json.RawMessage(twice)}.Masked()); strings.Contains(shown, secret) {
		t.Errorf("twice: %s", shown)
	}
	for name, test := range map[string]struct {
		kind    Kind
		content string
		hidden  bool
	}{
		"a reference":                   {KindBackend, backend(`"api_key":"env:KEY"`), false},
		"a reference beside a mistake":  {KindBackend, backend(`"wieght":2,"api_key":"file:/run/key"`), false},
		"no secret, but a mistake":      {KindBackend, backend(`"timeouts":{"max_tokens":2}`), false},
		"a label of that name":          {KindBackend, backend(`"labels":{"token":"blue"},"models":{"secret":"s"}`), false},
		"the secret itself":             {KindBackend, backend(`"api_key":"` + secret + `"`), true},
		"a secret like a reference":     {KindBackend, backend(`"api_key":"env:` + secret + `"`), true},
		"in an object":                  {KindBackend, backend(`"api_key":{"value":["` + secret + `"]}`), true},
		"another spelling":              {KindBackend, backend(`"apiKey":"` + secret + `"`), true},
		"a wrong name":                  {KindBackend, backend(`"headers":{"Authorization":"Bearer ` + secret + `"}`), true},
		"a header's name":               {KindBackend, backend(`"headers":[{"x-api-key":"` + secret + `"}]`), true},
		"in a list":                     {KindBackend, `[{"api_key":"` + secret + `"}]`, true},
		"a number":                      {KindBackend, backend(`"api_key":20123456789`), true},
		"in the URL":                    {KindBackend, `{"kind":"Backend","id":"x","url":"http://me:` + secret + `@h"}`, true},
		"a key in place of its file":    {KindBackend, backend(`"tls":{"key":"-----BEGIN PRIVATE KEY-----\n` + secret + `"}`), true},
		"of the earlier service":        {KindRoutingPolicy, `{"PolicyID":"x","Model":"m","Backends":[{"BackendID":"a","ApiKey":"` + secret + `"}]}`, true},
		"a text in JSON":                {KindBackend, `"kind: Backend\napi_key: ` + secret + `"`, true},
		"no JSON":                       {KindBackend, "kind: Backend\nid: x\nurl: http://h\napi_key: >\n  " + secret, true},
		"no JSON, with a reference":     {KindBackend, "kind: Backend\nid: x\nurl: http://h\napi_key: env:KEY", false},
		"no JSON and not readable":      {KindBackend, `{"api_key": "` + secret + `"`, true},
		"no JSON, a number in its name": {KindBackend, "kind: [\nx_api_key_2: " + secret, true},
	} {
		shown := string(Stored{Kind: test.kind, ID: "x", Content: json.RawMessage(test.content)}.Masked())
		if strings.Contains(shown, "0123456789") || test.hidden != strings.Contains(shown, Hidden) || !test.hidden && shown != test.content {
			t.Errorf("%s: %s", name, shown)
		}
	}
}
