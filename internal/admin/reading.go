package admin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"

	"github.com/ai-aas/api-router/internal/adminapi"
	"github.com/ai-aas/api-router/internal/policy"
)

// requestPlace stands for the body of a request in the places of problems.
const requestPlace = "request"

// idForm is what an id can be.
var idForm = regexp.MustCompile(`^[A-Za-z0-9._-]{1,128}$`)

// parseOne reads a stored document.
func parseOne(s policy.Stored) (policy.Document, []policy.Problem) {
	return policy.ParseOne(s.Place, s.Kind, s.ID, s.Content)
}

// parseBody reads the document that a request brings for a kind and an id, and what is to be stored for it.
func parseBody(kind policy.Kind, id string, body []byte) (json.RawMessage, []policy.Problem) {
	d, problems := policy.ParseOne(requestPlace, kind, id, body)
	if len(problems) > 0 {
		return nil, problems
	}
	content, err := policy.ToJSON(body)
	if err != nil {
		return nil, []policy.Problem{{Kind: kind, ID: id, File: requestPlace, Message: err.Error()}}
	}
	if d.Legacy {
		return content, nil
	}
	return named(content, kind, id), nil
}

// named adds kind and id to a document that leaves them to its key: with them it can be applied elsewhere as it is.
func named(content json.RawMessage, kind policy.Kind, id string) json.RawMessage {
	var has struct {
		Kind *string `json:"kind"`
		ID   *string `json:"id"`
	}
	if err := json.Unmarshal(content, &has); err != nil { // It has been read as a document.
		return content
	}
	var lead bytes.Buffer
	if has.Kind == nil {
		fmt.Fprintf(&lead, `"kind":%q,`, kind)
	}
	if has.ID == nil {
		fmt.Fprintf(&lead, `"id":%q,`, id)
	}
	if lead.Len() == 0 {
		return content
	}
	rest := content[1:]
	if bytes.Equal(rest, []byte("}")) {
		lead.Truncate(lead.Len() - 1)
	}
	return append(append([]byte("{"), lead.Bytes()...), rest...)
}

// storedOf is a document in force in the form of a stored one.
func storedOf(d policy.Document) policy.Stored {
	content, err := policy.JSON(d)
	if err != nil { // A table holds whole documents alone.
		panic("admin: " + err.Error())
	}
	return policy.Stored{Kind: d.Kind(), ID: d.ID(), Place: d.File, Revision: d.Revision, Content: content, Legacy: d.Legacy}
}

// same says whether two documents mean the same.
func same(a, b policy.Document) bool { return bytes.Equal(storedOf(a).Content, storedOf(b).Content) }

// compare says what writing w would change.
func compare(w policy.Written, before policy.Stored, there bool) (adminapi.Difference, error) {
	d := adminapi.Difference{Kind: string(w.Kind()), ID: w.ID(), Outcome: adminapi.Created, Content: w.Content}
	if !there {
		return d, nil
	}
	d.Revision, d.Outcome = before.Revision, adminapi.Changed
	shown := before.Masked()
	if !json.Valid(before.Content) { // What cannot be compared is replaced whole.
		d.Fields = []adminapi.Field{{Before: showable(shown), After: w.Content}}
		return d, nil
	}
	fields, err := differences(before.Content, w.Content)
	switch {
	case err != nil:
		return d, err
	case len(fields) == 0:
		d.Outcome = adminapi.Unchanged
		return d, nil
	}
	d.Fields, err = differences(shown, policy.Stored{Kind: w.Kind(), ID: w.ID(), Content: w.Content}.Masked())
	return d, err
}
