package admin

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/ai-aas/api-router/internal/adminapi"
	"github.com/ai-aas/api-router/internal/policy"
)

func TestWhatMayBeASecretIsHiddenAndNothingElse(t *testing.T) {
	const secret = "sk-0123456789"
	backend := func(rest string) string { return `{"kind":"Backend","id":"x","url":"http://h",` + rest + `}` }
	twice := backend(`"api_key":"` + secret + `","api_key":"env:KEY"`)
	if shown := string(masked(policy.Stored{Kind: policy.KindBackend, ID: "x", Content: json.RawMessage(twice)})); strings.Contains(shown, secret) {
		t.Errorf("twice: %s", shown)
	}
	for name, test := range map[string]struct {
		kind    policy.Kind
		content string
		hidden  bool
	}{
		"a reference":                   {policy.KindBackend, backend(`"api_key":"env:KEY"`), false},
		"a reference beside a mistake":  {policy.KindBackend, backend(`"wieght":2,"api_key":"file:/run/key"`), false},
		"no secret, but a mistake":      {policy.KindBackend, backend(`"timeouts":{"max_tokens":2}`), false},
		"a label of that name":          {policy.KindBackend, backend(`"labels":{"token":"blue"},"models":{"secret":"s"}`), false},
		"the secret itself":             {policy.KindBackend, backend(`"api_key":"` + secret + `"`), true},
		"a secret like a reference":     {policy.KindBackend, backend(`"api_key":"env:` + secret + `"`), true},
		"in an object":                  {policy.KindBackend, backend(`"api_key":{"value":["` + secret + `"]}`), true},
		"another spelling":              {policy.KindBackend, backend(`"apiKey":"` + secret + `"`), true},
		"a wrong name":                  {policy.KindBackend, backend(`"headers":{"Authorization":"Bearer ` + secret + `"}`), true},
		"a header's name":               {policy.KindBackend, backend(`"headers":[{"x-api-key":"` + secret + `"}]`), true},
		"in a list":                     {policy.KindBackend, `[{"api_key":"` + secret + `"}]`, true},
		"a number":                      {policy.KindBackend, backend(`"api_key":20123456789`), true},
		"in the URL":                    {policy.KindBackend, `{"kind":"Backend","id":"x","url":"http://me:` + secret + `@h"}`, true},
		"a key in place of its file":    {policy.KindBackend, backend(`"tls":{"key":"-----BEGIN PRIVATE KEY-----\n` + secret + `"}`), true},
		"of the earlier service":        {policy.KindRoutingPolicy, `{"PolicyID":"x","Model":"m","Backends":[{"BackendID":"a","ApiKey":"` + secret + `"}]}`, true},
		"a text in JSON":                {policy.KindBackend, `"kind: Backend\napi_key: ` + secret + `"`, true},
		"no JSON":                       {policy.KindBackend, "kind: Backend\nid: x\nurl: http://h\napi_key: >\n  " + secret, true},
		"no JSON, with a reference":     {policy.KindBackend, "kind: Backend\nid: x\nurl: http://h\napi_key: env:KEY", false},
		"no JSON and not readable":      {policy.KindBackend, `{"api_key": "` + secret + `"`, true},
		"no JSON, a number in its name": {policy.KindBackend, "kind: [\nx_api_key_2: " + secret, true},
	} {
		shown := string(masked(policy.Stored{Kind: test.kind, ID: "x", Content: json.RawMessage(test.content)}))
		if strings.Contains(shown, "0123456789") || test.hidden != strings.Contains(shown, hidden) || !test.hidden && shown != test.content {
			t.Errorf("%s: %s", name, shown)
		}
	}
}

func TestASecretThatWasWrittenByMistakeIsShownNowhere(t *testing.T) {
	h := newHouse(t)
	const bad = `{"kind":"Backend","id":"x","url":"http://127.0.0.1:9","api_key":"sk-0123456789"}`
	if got := h.send(adminapi.RoleAdmin, http.MethodPut, adminapi.Prefix+"/backends/x", bad); got.StatusCode != http.StatusBadRequest {
		t.Fatalf("%d %s", got.StatusCode, got.body)
	}
	_, err := h.Book.Write(t.Context(), policy.Write{Kind: policy.KindBackend, ID: "x", Content: json.RawMessage(bad), Actor: "past the router"})
	must(t, err)
	h.settle()
	good := strings.Replace(bad, "sk-0123456789", "env:KEY", 1)
	for _, ask := range []struct{ role, method, path, body, shows string }{
		{adminapi.RoleViewer, http.MethodGet, "/backends", "", hidden},
		{adminapi.RoleViewer, http.MethodGet, "/backends?invalid=true", "", hidden},
		{adminapi.RoleViewer, http.MethodGet, "/backends/x", "", hidden},
		{adminapi.RoleViewer, http.MethodGet, "/backends/x/history", "", hidden},
		{adminapi.RoleViewer, http.MethodGet, "/audit", "", hidden},
		{adminapi.RoleViewer, http.MethodPost, "/diff", good, `"api_key"`},
		{adminapi.RoleViewer, http.MethodPost, "/diff", good, hidden},
		{adminapi.RoleViewer, http.MethodPost, "/validate", bad, "never the secret itself"},
		{adminapi.RoleAdmin, http.MethodPut, "/backends/x", good, "env:KEY"},
		{adminapi.RoleViewer, http.MethodGet, "/backends/x/history", "", hidden},
		{adminapi.RoleAdmin, http.MethodPost, "/backends/x/rollback", `{"revision":1}`, "never the secret itself"},
		{adminapi.RoleAdmin, http.MethodDelete, "/backends/x", "", "env:KEY"},
		{adminapi.RoleViewer, http.MethodGet, "/audit", "", hidden},
	} {
		got := h.send(ask.role, ask.method, adminapi.Prefix+ask.path, ask.body)
		if strings.Contains(string(got.body), "sk-0") || !strings.Contains(string(got.body), ask.shows) {
			t.Errorf("%s %s does not show %s: %s", ask.method, ask.path, ask.shows, got.body)
		}
	}
	if strings.Contains(h.log.String(), "sk-0") {
		t.Error(h.log.String())
	}
}
