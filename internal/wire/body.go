package wire

import (
	"encoding/json"
	"io"
	"slices"
)

// Rewrite says what to change in a request before a backend gets it.
type Rewrite struct {
	// Model is the backend's own name for the model; "" leaves the client's.
	Model string
	// IncludeUsage and ContinuousUsage make a streamed request ask for them. They change nothing in a request that is not streamed,
	// and never take back what the client asked for. vLLM heeds continuous usage only together with IncludeUsage.
	IncludeUsage, ContinuousUsage bool
	// MaxCompletionTokens gives that name, and not max_tokens, to the token bound that a policy adds to a chat.
	MaxCompletionTokens bool
	// Endless says that the engine goes on to the end of its context where a completion states no bound, in place of the API's 16 tokens:
	// then a policy adds its bound there too.
	Endless bool
}

const (
	optionUsage      = `"include_usage":true`
	optionContinuous = `"continuous_usage_stats":true`
)

var literalTrue = []byte("true")

// edit puts text in the place of a span.
type edit struct {
	at   Span
	text []byte
}

// Rewrite splices what rw asks for, and what Clamp has lowered, into body, which must be the body that r was scanned from. Every other byte
// stays as it is and where it is: the result refers to body, so that must not be touched while a reader of the result is in use.
func (r *Request) Rewrite(body []byte, rw Rewrite) Body {
	var room [4 + figures + 1]edit
	edits := room[:0]
	if rw.Model != "" && rw.Model != r.Model {
		edits = append(edits, edit{r.model, quoted(rw.Model)})
	}
	if r.Stream {
		edits = r.askUsage(edits, rw.IncludeUsage && !r.IncludeUsage, rw.ContinuousUsage && !r.ContinuousUsage)
	}
	edits = r.clamp(edits, &rw)
	slices.SortStableFunc(edits, func(a, b edit) int { return a.at.Start - b.at.Start })

	out := Body{pieces: make([][]byte, 0, 2*len(edits)+1)}
	from := 0
	for _, e := range edits {
		out.add(body[from:e.at.Start])
		out.add(e.text)
		from = e.at.End
	}
	out.add(body[from:])
	return out
}

// askUsage adds the edits that make a stream report its usage.
func (r *Request) askUsage(edits []edit, usage, continuous bool) []edit {
	if usage && r.usage != (Span{}) { // false or null stands there
		edits = append(edits, edit{r.usage, literalTrue})
		usage = false
	}
	if continuous && r.continuous != (Span{}) {
		edits = append(edits, edit{r.continuous, literalTrue})
		continuous = false
	}
	members := ""
	switch {
	case usage && continuous:
		members = optionUsage + "," + optionContinuous
	case usage:
		members = optionUsage
	case continuous:
		members = optionContinuous
	default:
		return edits
	}
	at := Span{r.options.Start + 1, r.options.Start + 1} // Behind the opening brace.
	switch r.shape {
	case shapeAbsent:
		at = Span{r.model.End, r.model.End}
		members = `,"stream_options":{` + members + "}"
	case shapeNull:
		at = r.options
		members = "{" + members + "}"
	case shapeFilled:
		members += ","
	case shapeEmpty:
	}
	return append(edits, edit{at, []byte(members)})
}

// quoted gives text as a JSON string.
func quoted(text string) []byte {
	if i := hop([]byte(text), 0); i == len(text) {
		return append(append(append(make([]byte, 0, len(text)+2), '"'), text...), '"')
	}
	q, err := json.Marshal(text)
	if err != nil { // Marshal replaces what is not UTF-8, so a string cannot fail.
		panic("wire: " + err.Error())
	}
	return q
}

// Body is a request's body in pieces. It may be read any number of times, so that a request can be sent again.
type Body struct {
	pieces [][]byte
	size   int64
}

func (b *Body) add(piece []byte) {
	if len(piece) > 0 {
		b.pieces = append(b.pieces, piece)
		b.size += int64(len(piece))
	}
}

// Len is the body's length in bytes.
func (b Body) Len() int64 { return b.size }

// Pieces are the parts that make the body when joined. They must not be changed.
func (b Body) Pieces() [][]byte { return b.pieces }

// Reader gives the body from its beginning. It implements io.WriterTo; Close does nothing and may be called at any time.
func (b Body) Reader() io.ReadCloser { return &bodyReader{rest: b.pieces} }

type bodyReader struct {
	rest [][]byte
	at   int // what was read of rest[0]
}

func (r *bodyReader) Read(p []byte) (n int, err error) {
	for n < len(p) && len(r.rest) > 0 {
		c := copy(p[n:], r.rest[0][r.at:])
		n += c
		r.advance(c)
	}
	if n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return n, nil
}

// WriteTo writes each piece with one call.
func (r *bodyReader) WriteTo(w io.Writer) (n int64, err error) {
	for len(r.rest) > 0 {
		c, err := w.Write(r.rest[0][r.at:])
		n += int64(c)
		r.advance(c)
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

func (r *bodyReader) advance(n int) {
	if r.at += n; r.at == len(r.rest[0]) {
		r.rest, r.at = r.rest[1:], 0
	}
}

func (*bodyReader) Close() error { return nil }
