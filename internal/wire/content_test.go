package wire

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strings"
	"testing"
)

func TestScanFindsWhatABackendWouldFetch(t *testing.T) {
	for name, test := range map[string]struct {
		content string // of a message
		remote  bool
	}{
		"text":                          {`"see https://a.test"`, false},
		"a part with text":              {`[{"type":"text","text":"https://a.test"}]`, false},
		"a picture":                     {`[{"type":"image_url","image_url":{"url":"https://a.test/x.png"}}]`, true},
		"a picture as data":             {`[{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}}]`, false},
		"the second of two":             {`[{"image_url":{"url":"data:,"}},{"image_url":{"url":"http://a.test"}}]`, true},
		"the first of two":              {`[{"image_url":{"url":"http://a.test"}},{"image_url":{"url":"data:,"}}]`, true},
		"a duplicate that is data":      {`[{"image_url":{"url":"http://a.test","url":"data:,"}}]`, true},
		"a duplicate that is not":       {`[{"image_url":{"url":"data:,","url":"http://a.test"}}]`, true},
		"a duplicate around it":         {`[{"image_url":{"url":"http://a.test"},"image_url":null}]`, true},
		"short forms":                   {`[{"image_url":"http://a.test"}]`, true},
		"sound":                         {`[{"audio_url":{"url":"ftp://a.test"}}]`, true},
		"film":                          {`[{"video_url":{"url":"file:///etc/passwd"}}]`, true},
		"a file":                        {`[{"file_url":"http://a.test"}]`, true},
		"sound as base64":               {`[{"input_audio":{"data":"AAAA","format":"wav"}}]`, false},
		"a list of links":               {`[{"image_url":["data:,","http://a.test"]}]`, true},
		"a list within a list":          {`[{"image_url":[[],{},["http://a.test"]]}]`, true},
		"a list of data":                {`[{"image_url":["data:,",7,null]}]`, false},
		"a list under another name":     {`[{"image_url":{"detail":["http://a.test"]}}]`, false},
		"deep":                          {strings.Repeat(`[{"x":`, 28) + `{"url":"x"}` + strings.Repeat(`}]`, 28), true},
		"another case":                  {`[{"Image_URL":"http://a.test"}]`, true},
		"an escaped name":               {`[{"image_url":{"\u0075\u0072\u006c":"http://a.test"}}]`, true},
		"an escaped short form":         {`[{"image\u005furl":"http://a.test"}]`, true},
		"a name beyond all names":       {`[{"\u0061` + strings.Repeat("a", 200) + `_url":"http://a.test"}]`, false},
		"a word that ends so":           {`[{"curl":"http://a.test"}]`, false},
		"a name that begins so":         {`[{"url_x":"http://a.test"}]`, false},
		"no text":                       {`[{"url":7},{"url":null},{"url":true},{"url":{}}]`, false},
		"nothing":                       {`[{"url":""}]`, true},
		"a bare name":                   {`[{"url":"x.png"}]`, true},
		"a scheme in capitals":          {`[{"url":"DaTa:,"}]`, false},
		"an escaped scheme":             {`[{"url":"\u0064at\u0061\u003a,"}]`, false},
		"an escape that is not data":    {`[{"url":"\u0068ttp://a.test"}]`, true},
		"space before it":               {`[{"url":" \u0000\u001f\n data:,"}]`, false},
		"breaks within it":              {`[{"url":"\tda\r\n\u0009ta\n:,"}]`, false},
		"space within it":               {`[{"url":"da ta:,"}]`, true},
		"a control within it":           {`[{"url":"da\u0000ta:,"}]`, true},
		"no colon":                      {`[{"url":"data"}]`, true},
		"what folds into a colon":       {`[{"url":"data\u001a,"}]`, true},
		"another scheme":                {`[{"url":"dataa:,"}]`, true},
		"a space of another kind":       {`[{"url":"\u00a0data:,"}]`, true},
		"space before another":          {`[{"url":" \nhttp://a.test"}]`, true},
		"more space than anybody needs": {`[{"url":"` + strings.Repeat(" ", 100) + `data:,"}]`, true},
	} {
		t.Run(name, func(t *testing.T) {
			body := []byte(`{"model":"m","messages":[{"role":"user","content":` + test.content + `}]}`)
			r, err := Scan(body, Chat)
			if err != nil {
				t.Fatal(err)
			}
			if (r.remote > 0) != test.remote {
				t.Errorf("remote at %d", r.remote)
			}
			content := body[r.Prompt.Start:r.Prompt.End]
			if want := fetches(t, content, false); want != test.remote && !longText.Match(content) {
				t.Errorf("the reference has %v", want)
			}
		})
	}
}

// longText finds texts beyond what the scanner looks at when it looks for URLs.
var longText = regexp.MustCompile(`"[^"]{50,}"`)

// fetches is content in other words: it reads value with encoding/json, member by member, as a map would lose duplicates.
func fetches(t *testing.T, value []byte, link bool) bool {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(value))
	token, err := d.Token()
	if err != nil {
		t.Fatal(err)
	}
	found := false
	switch token := token.(type) {
	case string:
		url := strings.NewReplacer("\t", "", "\n", "", "\r", "").Replace(token)
		url = strings.TrimLeftFunc(url, func(r rune) bool { return r <= ' ' })
		return link && (len(url) < 5 || !strings.EqualFold(url[:5], "data:"))
	case json.Delim:
		for d.More() {
			inner := link
			if token == '{' {
				key, err := d.Token()
				if err != nil {
					t.Fatal(err)
				}
				name := strings.ToLower(key.(string))
				inner = name == "url" || strings.HasSuffix(name, "_url")
			}
			var element json.RawMessage
			if err := d.Decode(&element); err != nil {
				t.Fatal(err)
			}
			found = fetches(t, element, inner) || found
		}
	}
	return found
}
