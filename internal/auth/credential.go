package auth

import (
	"net/http"
	"strings"

	"github.com/ai-aas/api-router/internal/fault"
)

// maxCredential is the longest credential that is looked at, in bytes. Signed tokens stay below it.
const maxCredential = 8 << 10

// howToSend ends the messages of requests without a usable key.
const howToSend = "send your key in the X-API-Key header or as Authorization: Bearer YOUR_KEY"

const authorization = "Authorization"

// sources are the headers that may carry a key, in net/http's canonical spelling and with the spelling for messages.
var sources = [...]struct{ key, name string }{
	{authorization, authorization},
	{"X-Api-Key", "X-API-Key"},
	{"Api-Key", "api-key"},
	{"X-Goog-Api-Key", "x-goog-api-key"},
}

// Credential finds the caller's key in the headers of a request.
//
// The key may come as Authorization: Bearer, X-API-Key, api-key or x-goog-api-key. The same key in two of them is fine;
// an empty header counts as absent. The errors are faults: missing_api_key without any key, ambiguous_request for two
// different ones or for a header that is there twice (this router and something in front of it might each believe another),
// invalid_api_key for a value that cannot be a key. The returned string shares the header's memory and nothing is allocated for it.
func Credential(h http.Header) (string, error) {
	var found, foundIn string
	for _, source := range sources {
		values := h[source.key]
		if len(values) == 0 {
			continue
		}
		if len(values) > 1 {
			return "", fault.Newf(fault.AmbiguousRequest, "the header %s is there more than once; send one key", source.name).WithParam(source.name)
		}
		credential, err := parse(source.key, values[0])
		if err != nil {
			return "", err
		}
		switch {
		case credential == "":
		case found == "":
			found, foundIn = credential, source.name
		case credential != found:
			return "", fault.Newf(fault.AmbiguousRequest, "the headers %s and %s carry different keys; send one key", foundIn, source.name).
				WithParam(source.name)
		}
	}
	if found == "" {
		return "", fault.New(fault.MissingAPIKey, "authentication required: "+howToSend)
	}
	return found, nil
}

func parse(key, value string) (string, error) {
	value = strings.Trim(value, " \t")
	if key == authorization && value != "" {
		scheme, rest, _ := strings.Cut(value, " ")
		if !strings.EqualFold(scheme, "bearer") {
			return "", fault.New(fault.InvalidAPIKey, "the Authorization header is not of the form \"Bearer YOUR_KEY\"; "+
				"other schemes are not accepted: "+howToSend).WithParam(authorization)
		}
		value = strings.TrimLeft(rest, " \t")
	}
	if len(value) > maxCredential {
		return "", fault.Newf(fault.InvalidAPIKey, "the API key is longer than %d bytes, which no key is; check what was sent", maxCredential)
	}
	if IsAdminToken(value) { // It goes to no validator: one of them may be another machine.
		return "", fault.New(fault.InvalidAPIKey, "this is a token of the admin API and no API key, and it has now been where it should not be: "+
			"have it revoked, and "+howToSend)
	}
	for i := range len(value) {
		// A key is one word of printable ASCII. Anything else is a paste that went wrong or an attempt to smuggle.
		if c := value[i]; c <= ' ' || c >= 0x7f {
			return "", fault.New(fault.InvalidAPIKey, "the API key contains a space, a control character or a character outside ASCII; "+
				"check for a paste that went wrong")
		}
	}
	return value, nil
}
