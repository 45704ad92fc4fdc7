package policy

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strings"
)

// Hidden stands where a secret may be. It is no reference: a document that holds it cannot be written.
const Hidden = "(Hidden: no secret reference)"

// Masked is the content of a document as everybody may see it; nil where there is none.
//
// Documents hold references to secrets, never secrets. One that was refused may hold anything, such as a key that was put where its
// reference belongs: it stays visible with its error, but without what may be a secret. So does one of the earlier service, whose
// unknown fields are passed over.
func (s Stored) Masked() json.RawMessage {
	if s.Content == nil {
		return nil
	}
	var shown json.RawMessage
	if v, err := decodeAny(s.Content); err == nil && json.Valid(s.Content) {
		clean, found := mask(v)
		if !found && !doubled(s.Content) {
			return s.Content
		}
		if shown, err = json.Marshal(clean); err != nil { // It was JSON a moment ago.
			panic("policy: " + err.Error())
		}
	} else {
		clean, found := maskText(string(s.Content))
		if !found {
			return s.Content
		}
		shown = json.RawMessage(clean)
	}
	if d, problems := ParseOne(s.Place, s.Kind, s.ID, s.Content); len(problems) == 0 && !d.Legacy {
		return s.Content // A good one has references in their place, and its labels and models have any names.
	}
	return shown
}

func decodeAny(text []byte) (v any, err error) {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	err = decoder.Decode(&v)
	return v, err
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
		if _, err := ParseSecretRef(text); err == nil || text == "" {
			return v, false
		}
	}
	return Hidden, true
}

var (
	userInfo   = regexp.MustCompile(`://[^/?#\s]*@`)
	secretText = regexp.MustCompile(`(?i)(?:api[_ -]?key|token|secret|password|authorization)\w*["']?\s*[:=]|-----BEGIN`)
)

// maskText hides the rest of a text from where a secret may begin: nobody can say where it ends.
func maskText(text string) (clean string, found bool) {
	if !strings.ContainsAny(text, ":=") && !strings.Contains(text, "-----BEGIN") { // Nothing below can match, and it reads slowly.
		return text, false
	}
	clean = userInfo.ReplaceAllLiteralString(text, "://"+Hidden+"@")
	if at := secretText.FindStringIndex(clean); at != nil {
		clean = strings.TrimSpace(clean[:at[1]]) + " " + Hidden
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
