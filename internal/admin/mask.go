package admin

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strings"

	"github.com/ai-aas/api-router/internal/policy"
)

// hidden stands where a secret may be. It is no reference: a document that holds it cannot be written.
const hidden = "(hidden: no secret reference)"

// Documents hold references to secrets, never secrets. One that was refused may hold anything, such as a key that was put where its
// reference belongs: it stays visible with its error, but without what may be a secret. So does one of the earlier service, whose
// unknown fields are passed over.
//
// masked is the content of a document as everybody may see it.
func masked(s policy.Stored) json.RawMessage {
	var shown json.RawMessage
	if v, err := decodeAny(s.Content); err == nil && json.Valid(s.Content) {
		clean, found := mask(v)
		if !found && !doubled(s.Content) {
			return s.Content
		}
		if shown, err = json.Marshal(clean); err != nil { // It was JSON a moment ago.
			panic("admin: " + err.Error())
		}
	} else {
		clean, found := maskText(string(s.Content))
		if !found {
			return s.Content
		}
		shown = json.RawMessage(clean)
	}
	if d, problems := parseOne(s); len(problems) == 0 && !d.Legacy {
		return s.Content // A good one has references in their place, and its labels and models have any names.
	}
	return shown
}

// mask hides in v what may be a secret, and says whether there was any.
func mask(v any) (clean any, found bool) {
	switch v := v.(type) {
	case map[string]any:
		for name, value := range v {
			var here bool
			if secretName(name) {
				v[name], here = maskValue(value)
			} else {
				v[name], here = mask(value)
			}
			found = found || here
		}
	case []any:
		for i, element := range v {
			var here bool
			v[i], here = mask(element)
			found = found || here
		}
	case string:
		return maskText(v)
	}
	return v, found
}

// maskValue hides what stands where a reference belongs, unless it is one.
func maskValue(v any) (clean any, found bool) {
	if v == nil {
		return nil, false
	}
	if text, ok := v.(string); ok {
		if _, err := policy.ParseSecretRef(text); err == nil || text == "" {
			return v, false
		}
	}
	return hidden, true
}

var (
	userInfo   = regexp.MustCompile(`://[^/?#\s]*@`)
	secretText = regexp.MustCompile(`(?i)(?:api[_ -]?key|token|secret|password|authorization)\w*["']?\s*[:=]|-----BEGIN`)
)

// maskText hides the rest of a text from where a secret may begin: nobody can say where it ends.
func maskText(text string) (clean string, found bool) {
	clean = userInfo.ReplaceAllLiteralString(text, "://"+hidden+"@")
	if at := secretText.FindStringIndex(clean); at != nil {
		clean = strings.TrimSpace(clean[:at[1]]) + " " + hidden
	}
	return clean, clean != text
}

// secretName says that a field of this name could hold a secret, however it is spelled.
func secretName(name string) bool {
	name = strings.ToLower(strings.Map(func(r rune) rune {
		if strings.ContainsRune("_- .", r) {
			return -1
		}
		return r
	}, name))
	switch name {
	case "token", "secret", "password", "authorization", "bearer":
		return true
	}
	return strings.Contains(name, "apikey") || strings.Contains(name, "apitoken")
}

// doubled says that a JSON document may have a field twice, of which decoding keeps one.
func doubled(content json.RawMessage) bool {
	return bytes.Count(bytes.ToLower(content), []byte("api_key")) > 1
}
