package wire

import (
	"fmt"

	"github.com/ai-aas/api-router/internal/fault"
)

// flawText says what is wrong and what to do about it.
var flawText = [...]string{
	sound:        "nothing",
	flawEnd:      "it ends in the middle of a value; send all of it",
	flawValue:    "a value is expected here",
	flawName:     "a member's name in double quotes is expected here",
	flawColon:    "a colon is expected after a member's name",
	flawNext:     "a comma or a closing bracket is expected here",
	flawControl:  "a control character stands bare in a string; write it as an escape, such as \\n",
	flawEscape:   "this escape does not exist in JSON; double the backslash if one is meant",
	flawUTF8:     "these bytes are not UTF-8; encode the body as UTF-8",
	flawNumber:   "a digit is expected here",
	flawLiteral:  "only true, false and null are written without quotes",
	flawDepth:    fmt.Sprintf("it is nested more than %d levels deep; send it flatter", maxDepth),
	flawTrailing: "something follows the object; send one object and nothing else",
}

// invalidJSON turns the lexer's flaw into the client's error.
func (s *scan) invalidJSON() error {
	return fault.Newf(fault.InvalidJSON, "the body is not valid JSON: at byte %d: %s", s.i, flawText[s.flaw])
}

func (s *scan) notObject() error {
	if s.i >= len(s.b) {
		return fault.New(fault.InvalidJSON, "the body is empty; send a JSON object")
	}
	return fault.Newf(fault.InvalidJSON, "the body is not a JSON object: it must begin with {, but byte %d is %q", s.i, s.b[s.i])
}

func (s *scan) twice(prefix string, id name) error {
	return fault.Newf(fault.AmbiguousRequest, "%q stands twice in the body (again before byte %d); send it once", prefix+id.String(), s.i).
		WithParam(prefix + id.String())
}

func (s *scan) otherCase(key []byte, prefix string, id name) error {
	return fault.Newf(fault.AmbiguousRequest, "the member %q before byte %d differs from %q by its case alone, and some backends take one for the other; "+
		"spell it in lower case or leave it out", key, s.i, prefix+id.String()).WithParam(prefix + id.String())
}

// wrongType refuses a value of the wrong kind; s.i is its first byte.
func (s *scan) wrongType(param, want string) error {
	if s.i >= len(s.b) {
		s.fail(flawEnd, s.i)
		return s.invalidJSON()
	}
	found := "a number"
	switch c := s.b[s.i]; c {
	case '{':
		found = "an object"
	case '[':
		found = "an array"
	case '"':
		found = "a string"
	case 't', 'f':
		found = "a boolean"
	case 'n':
		found = "null"
	case '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
	default:
		s.refuse(flawValue)
		return s.invalidJSON()
	}
	return fault.Newf(fault.InvalidRequest, "%q must be %s, but at byte %d stands %s", param, want, s.i, found).WithParam(param)
}

func badValue(param, what string) error {
	return fault.Newf(fault.InvalidRequest, "%q %s", param, what).WithParam(param)
}

func badModel() error {
	return badValue("model", fmt.Sprintf("must be at most %d bytes of letters, digits and . _ : / @ + -; GET /v1/models lists the models of your key", MaxModelName))
}

func missing(param, help string) error {
	return fault.Newf(fault.InvalidRequest, "%q is missing: %s", param, help).WithParam(param)
}

func promptHelp(k Kind) string {
	switch k {
	case Completion:
		return "send the text to complete, or a list of texts"
	case Embedding:
		return "send the text to embed, or a list of texts"
	case Chat:
	}
	return "send an array with at least one message"
}
