package admin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/ai-aas/api-router/internal/fault"
)

const (
	maxDocumentBody = 1 << 20 // bytes of a PUT; the parser has its own bound on one document
	maxSmallBody    = 64 << 10
	maxRequestBody  = 16 << 20 // of a request to explain
	maxReason       = 500      // bytes
	defaultLimit    = 50
	maxLimit        = 1000
)

// call is one request to the admin API.
type call struct {
	*http.Request
	spot

	writer    http.ResponseWriter
	start     time.Time
	requestID string
	actor     actor
	route     string

	// query is what follows the "?", with known names alone, each once.
	query url.Values

	status int
	sent   bool
	err    error
}

// parameters reads what follows the "?". A name that means nothing here is refused: it could be a slip of one that does.
func (c *call) parameters(known []string) error {
	query, err := url.ParseQuery(c.URL.RawQuery)
	if err != nil {
		return fault.New(fault.InvalidRequest, "the query string cannot be read").WithCause(err)
	}
	for name, values := range query {
		switch {
		case !slices.Contains(known, name) && len(known) == 0:
			return fault.Newf(fault.InvalidRequest, "this path takes no parameters, and got %s", strconv.Quote(printable(name))).WithParam("query")
		case !slices.Contains(known, name):
			return fault.Newf(fault.InvalidRequest, "the parameter %s is unknown here; known are %s", strconv.Quote(printable(name)), strings.Join(known, ", ")).WithParam("query")
		case len(values) > 1:
			return fault.Newf(fault.AmbiguousRequest, "the parameter %s is there more than once", name).WithParam(name)
		}
	}
	c.query = query
	return nil
}

// flag reads a parameter that is true or false.
func (c *call) flag(name string) (bool, error) {
	switch c.query.Get(name) {
	case "", "false":
		return false, nil
	case "true":
		return true, nil
	}
	return false, fault.Newf(fault.InvalidRequest, "%s must be true or false", name).WithParam(name)
}

// limit reads how many entries are asked for.
func (c *call) limit() (int, error) {
	text := c.query.Get("limit")
	if text == "" {
		return defaultLimit, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > maxLimit {
		return 0, fault.Newf(fault.InvalidRequest, "limit must be a whole number between 1 and %d", maxLimit).WithParam("limit")
	}
	return n, nil
}

// checkReason bounds what goes into the history.
func checkReason(reason string) error {
	if len(reason) > maxReason || !utf8.ValidString(reason) || strings.ContainsFunc(reason, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return fault.Newf(fault.InvalidRequest, "reason must be one line of printable text, of at most %d bytes", maxReason).WithParam("reason")
	}
	return nil
}

// condition reads If-Match and If-None-Match: the revision that the document must have, 0 for none, nil for any.
func (c *call) condition() (*int64, error) {
	match, none := c.Header.Values("If-Match"), c.Header.Values("If-None-Match")
	switch {
	case len(match)+len(none) > 1:
		return nil, fault.New(fault.AmbiguousRequest, "send one condition: If-Match or If-None-Match, once").WithParam("If-Match")
	case len(none) == 1 && none[0] != "*":
		return nil, fault.New(fault.InvalidRequest, `If-None-Match takes * alone: "only if there is no such document"`).WithParam("If-None-Match")
	case len(none) == 1:
		return new(int64), nil
	case len(match) == 0:
		return nil, nil
	}
	revision, err := strconv.ParseInt(strings.Trim(match[0], `"`), 10, 64)
	if err != nil || revision <= 0 || etag(revision) != match[0] {
		return nil, fault.New(fault.InvalidRequest, `If-Match takes one revision in quotes, as in If-Match: "17": the ETag of the document`).WithParam("If-Match")
	}
	return &revision, nil
}

func etag(revision int64) string { return strconv.Quote(strconv.FormatInt(revision, 10)) }

// The media types of bodies. A body without one is taken as the first.
var (
	documentTypes = []string{"application/yaml", "application/json", "application/x-yaml", "text/yaml", "text/x-yaml"}
	jsonTypes     = []string{"application/json"}
)

// read reads the whole body.
func (c *call) read(limit int64, types []string) ([]byte, error) {
	if kind := c.Header.Get("Content-Type"); kind != "" {
		media, _, err := mime.ParseMediaType(kind)
		if err != nil || !slices.Contains(types, media) {
			return nil, fault.Newf(fault.UnsupportedMediaType, "the body must be sent as %s", strings.Join(types[:min(2, len(types))], " or ")).WithParam("Content-Type")
		}
	}
	if coding := c.Header.Get("Content-Encoding"); coding != "" && !strings.EqualFold(coding, "identity") {
		return nil, fault.New(fault.UnsupportedMediaType, "the body must be sent without a Content-Encoding").WithParam("Content-Encoding")
	}
	body, err := io.ReadAll(http.MaxBytesReader(c.writer, c.Body, limit))
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		return nil, fault.Newf(fault.RequestTooLarge, "the body is larger than %d KiB", limit>>10)
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, fault.Newf(fault.RequestTimeout, "the body did not arrive within %s", bodyTimeout).WithCause(err)
	case err != nil:
		return nil, fault.New(fault.ClientClosed, "the body ended before its end").WithCause(err)
	case len(bytes.TrimSpace(body)) == 0:
		return nil, fault.New(fault.InvalidRequest, "the body is empty")
	}
	return body, nil
}

// decode reads a body of one JSON object into v. A name that v does not have is refused.
func (c *call) decode(limit int64, v any) error {
	body, err := c.read(limit, jsonTypes)
	if err != nil {
		return err
	}
	if first := bytes.TrimSpace(body)[0]; first != '{' && json.Valid(body) {
		return fault.New(fault.InvalidRequest, "the body must be a JSON object")
	}
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.DisallowUnknownFields()
	err = decoder.Decode(v)
	if err == nil && decoder.More() {
		return fault.New(fault.InvalidJSON, "the body holds more than one JSON object")
	}
	if mistake, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return fault.Newf(fault.InvalidRequest, "%s has a value of the wrong type (%s)", mistake.Field, mistake.Value).WithParam(mistake.Field)
	}
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		return fault.Newf(fault.InvalidJSON, "the body is not valid JSON: %s at byte %d", syntax, syntax.Offset)
	}
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fault.New(fault.InvalidJSON, "the body is not valid JSON: it ends too early")
	case err != nil: // An unknown name, or a text that is no duration or time.
		return fault.New(fault.InvalidRequest, printable(fmt.Sprintf("the body cannot be read: %s", strings.TrimPrefix(err.Error(), "json: "))))
	}
	return nil
}
