package policy

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// The limits of what Parse reads. The parser's time grows with the square of a document's fields and depth, so these are
// bounded for each document; what remains is linear in the file.
const (
	MaxFile      = 16 << 20  // bytes of one file
	MaxDocuments = 20_000    // documents of one file, and of one source
	maxDocument  = 256 << 10 // bytes of one document
	maxFields    = 10_000    // of one document, at all depths
	maxDepth     = 32
	maxProblems  = 50 // of one document
)

// Parse reads the YAML or JSON documents of one file. It returns every valid document and every problem of the others;
// a document with a problem is not returned. name is used for the places in both. A problem without an ID means that
// documents are missing from the result which cannot be named. A policy may also have the form of the earlier service.
func Parse(name string, data []byte) ([]Document, []Problem) {
	var documents []Document
	problems := each(name, data, func(c chunk) []Problem {
		document, _, found := c.read(name, key{})
		if len(found) == 0 {
			documents = append(documents, document)
		}
		return found
	})
	return documents, problems
}

// ParseOne reads the one document, JSON or YAML, that is stored under a key of its own. kind and id are what the key says: the
// document may leave them out and must not contradict them. A kind or an id that is empty is taken from the document.
// The document is good if there are no problems, and says otherwise at most its Legacy; place is used for the places in both.
//
// A policy may have the form of the earlier service. Its id may then also be that service's key for an organization's model,
// "<organization or *>/<model>", where the model may contain slashes: see legacy.go.
func ParseOne(place string, kind Kind, id string, data []byte) (Document, []Problem) {
	about := Problem{Kind: kind, File: place}
	if idForm.MatchString(id) {
		about.ID = id
	}
	var document Document
	count := 0
	problems := each(place, data, func(c chunk) []Problem {
		if count++; count > 1 {
			again := about
			again.Line, again.Message = c.line, "there is a second document: a key holds one"
			return []Problem{again}
		}
		var found []Problem
		document, _, found = c.read(place, key{kind, id})
		return found
	})
	if count == 0 && len(problems) == 0 {
		about.Message = "the document is empty"
		problems = append(problems, about)
	}
	for i := range problems {
		problems[i].Kind = cmp.Or(problems[i].Kind, about.Kind)
		problems[i].ID = cmp.Or(problems[i].ID, about.ID)
	}
	if len(problems) > 0 {
		return Document{Legacy: document.Legacy}, problems
	}
	document.Line = 0 // The key is the whole place.
	return document, nil
}

// Written is a document of a file, and what is to be stored for it.
type Written struct {
	Document
	// Content is the document as it was written, as JSON.
	Content json.RawMessage
}

// ParseWritten is Parse for those who put a file's documents into a book.
func ParseWritten(name string, data []byte) ([]Written, []Problem) {
	var written []Written
	problems := each(name, data, func(c chunk) []Problem {
		document, body, found := c.read(name, key{})
		if len(found) > 0 {
			return found
		}
		content, err := toJSON(body)
		if err != nil { // What cannot be JSON has been refused.
			return []Problem{{Kind: document.Kind(), ID: document.ID(), File: name, Line: c.line, Message: err.Error()}}
		}
		written = append(written, Written{document, content})
		return nil
	})
	return written, problems
}

// each visits the documents of a file and collects their problems.
func each(name string, data []byte, visit func(c chunk) []Problem) []Problem {
	if len(data) > MaxFile {
		return []Problem{{File: name, Message: fmt.Sprintf("the file is larger than %d MiB", MaxFile>>20)}}
	}
	var problems []Problem
	count := 0
	for _, c := range split(bytes.TrimPrefix(data, []byte("\uFEFF"))) {
		if c.blank() {
			continue
		}
		count++
		if count > MaxDocuments {
			return append(problems, Problem{
				File: name, Line: c.line,
				Message: fmt.Sprintf("the file holds more than %d documents: those from here on are not read", MaxDocuments),
			})
		}
		found := visit(c)
		if len(found) > maxProblems {
			found = append(found[:maxProblems], Problem{
				Kind: found[0].Kind, ID: found[0].ID, File: name, Line: c.line,
				Message: fmt.Sprintf("and %d further problems of this document", len(found)-maxProblems),
			})
		}
		problems = append(problems, found...)
	}
	return problems
}

// chunk is the text of one document. Its first line is line of the file and lacks the first indent bytes of that.
type chunk struct {
	text   []byte
	line   int
	indent int
}

// split cuts a file at its document markers: lines that begin with --- or ..., followed by a space or the line's end.
// YAML allows such a line nowhere inside a document, not even in a block scalar or a quoted string, so cutting before
// parsing is safe, and a document that cannot be parsed does not take the others with it.
func split(data []byte) []chunk {
	var chunks []chunk
	current := chunk{line: 1}
	start := 0
	for at, line := 0, 1; at < len(data); line++ {
		end := len(data)
		if i := bytes.IndexByte(data[at:], '\n'); i >= 0 {
			end = at + i + 1
		}
		if isMarker(data[at:end]) {
			current.text = data[start:at]
			chunks = append(chunks, current)
			current, start = chunk{line: line, indent: 3}, at+3
		}
		at = end
	}
	current.text = data[start:]
	return append(chunks, current)
}

func isMarker(line []byte) bool {
	if !bytes.HasPrefix(line, []byte("---")) && !bytes.HasPrefix(line, []byte("...")) {
		return false
	}
	return len(line) == 3 || strings.IndexByte(" \t\r\n", line[3]) >= 0
}

// blank says that there are only comments, directives and white space.
func (c chunk) blank() bool {
	for line := range bytes.Lines(c.text) {
		line = bytes.TrimSpace(line)
		if len(line) > 0 && line[0] != '#' && line[0] != '%' {
			return false
		}
	}
	return true
}

// read reads the document whose key is known as far as at says. body is what it was read from.
func (c chunk) read(file string, at key) (document Document, body ast.Node, problems []Problem) {
	refuse := func(line, column int, message string) (Document, ast.Node, []Problem) {
		return Document{}, nil, []Problem{{File: file, Line: line, Column: column, Message: message}}
	}
	if len(c.text) > maxDocument {
		return refuse(c.line, 0, fmt.Sprintf("the document is larger than %d KiB", maxDocument>>10))
	}
	if !utf8.Valid(c.text) {
		return refuse(c.line, 0, "the document is not UTF-8 text")
	}
	body, err := syntax(string(c.text))
	if err != nil {
		line, column := c.line, 0
		if at, ok := errors.AsType[*syntaxError](err); ok && at.token != nil && at.token.Position != nil {
			line, column = c.position(at.token.Position)
		}
		return refuse(line, column, err.Error())
	}
	d := decoder{chunk: c, file: file, key: at, at: make(map[string]*token.Position)}
	document, problems = d.document(body)
	return document, body, problems
}

// position turns a position in the chunk into one in the file.
func (c chunk) position(p *token.Position) (line, column int) {
	column = p.Column
	if p.Line == 1 {
		column += c.indent
	}
	return c.line + p.Line - 1, column
}

type syntaxError struct {
	message string
	token   *token.Token
}

func (e *syntaxError) Error() string { return e.message }

// syntax parses one document. The error's text never holds the source: a secret may stand in it.
func syntax(text string) (body ast.Node, err error) {
	// The library indexes into token lists in many places; a panic there must cost one document and not the process.
	defer func() {
		if recover() != nil {
			body, err = nil, &syntaxError{message: "the document is not valid YAML"}
		}
	}()
	if strings.Contains(text, "\t") && json.Valid([]byte(text)) {
		text = strings.ReplaceAll(text, "\t", " ") // The library takes some of JSON's tabs for YAML's, and counts none as columns.
	}
	tokens := lexer.Tokenize(text)
	if err := allowed(tokens); err != nil {
		return nil, err
	}
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey()) // The decoder finds all duplicates, not only the first.
	if err != nil {
		if at, ok := errors.AsType[yaml.Error](err); ok {
			return nil, &syntaxError{"not valid YAML: " + at.GetMessage(), at.GetToken()}
		}
		return nil, &syntaxError{message: "the document is not valid YAML"}
	}
	if len(file.Docs) != 1 || file.Docs[0].Body == nil {
		return nil, &syntaxError{message: "separate documents by a line that holds only ---"}
	}
	return file.Docs[0].Body, nil
}

// allowed refuses, before the parser recurses, what no document of ours needs and what makes a small file large or deep.
func allowed(tokens token.Tokens) error {
	fields, depth, dashes, dashLine := 0, 0, 0, 0
	for _, t := range tokens {
		switch t.Type {
		case token.AnchorType, token.AliasType, token.MergeKeyType:
			return &syntaxError{"anchors, aliases and merge keys are not read here: write the value out", t}
		case token.TagType:
			return &syntaxError{"tags are not read here: leave it out, or put the text in quotes", t}
		case token.MappingKeyType:
			return &syntaxError{"keys that begin with ? are not read here", t}
		case token.MappingValueType:
			fields++
		case token.MappingStartType, token.SequenceStartType:
			depth++
		case token.MappingEndType, token.SequenceEndType:
			depth--
		case token.SequenceEntryType: // Dashes on one line nest: "- - - x".
			if t.Position.Line != dashLine {
				dashes, dashLine = 0, t.Position.Line
			}
			dashes++
		default:
		}
		if fields > maxFields {
			return &syntaxError{fmt.Sprintf("the document has more than %d fields", maxFields), t}
		}
		if depth > maxDepth || dashes > maxDepth {
			return &syntaxError{fmt.Sprintf("the document is nested deeper than %d levels", maxDepth), t}
		}
	}
	return nil
}
