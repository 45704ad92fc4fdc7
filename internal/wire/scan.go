// Package wire knows the dialects as bytes: it scans requests, splices them, cuts event streams into events and reads answers on the side.
//
// Nothing is decoded and encoded again. What a client or a backend sent is passed on as it is but for the spans that are
// spliced on purpose, so unknown fields, key order and number formats survive.
package wire

import "math"

// Kind is the dialect of one endpoint.
type Kind uint8

// The endpoints that this package reads.
const (
	Chat       Kind = iota // POST /v1/chat/completions
	Completion             // POST /v1/completions
	Embedding              // POST /v1/embeddings
)

// MaxModelName is the longest model name that Scan accepts, in bytes.
const MaxModelName = 256

// Span is a piece of a body, in bytes: Start belongs to it, End does not.
type Span struct{ Start, End int }

// Request is what a client asked for, as far as the router must know it.
//
// It holds places in the body that it was scanned from, so Rewrite must be given that very body.
type Request struct {
	// Model is the name as the client means it: escapes are resolved.
	Model string
	// Stream says that the client wants events. It is never set for embeddings: they have no stream, and the member is left to the backend.
	Stream bool
	// IncludeUsage and ContinuousUsage are the client's own stream_options.
	IncludeUsage, ContinuousUsage bool
	// MaxTokens is the largest of max_tokens, max_completion_tokens and n_predict; 0 when neither of the first two states a bound (absent,
	// null or below one), as no engine but llama.cpp knows the third.
	MaxTokens int64
	// Choices is how many choices the answer will have: n for each prompt. 0 for embeddings.
	Choices int
	// Prompt is where messages, prompt or input stand: the value with its brackets or quotes.
	Prompt Span

	model      Span
	options    Span // the value of stream_options
	usage      Span // the value of include_usage
	continuous Span // the value of continuous_usage_stats
	shape      shape

	kind    Kind
	figures [figures]figure
	bound   int32 // the token bound that a policy sets where the client states none; 0: none
	prompts int
	stops   int
	// Where a chat template and the arguments for one stand; both are never at 0, so that 0 means absent.
	template, templateArgs int
	remote                 int // where a URL stands that a backend would have to fetch; 0: nowhere
}

// shape tells what stands in the place of stream_options.
type shape uint8

const (
	shapeAbsent shape = iota
	shapeNull
	shapeEmpty  // {}
	shapeFilled // {…}
)

// Scan reads a request's body in one pass and checks it. It allocates nothing but the model's name.
//
// The body must be one JSON object by RFC 8259 and nothing else: valid UTF-8, at most 64 levels deep, no control characters in strings. Names
// are compared as they decode, with their case. A name that means something to the router may stand only once, and may not
// stand beside it in another case: decoders that fold case and take the last would read another request than the router does
// and, for instance, serve another model than the one that was paid for.
//
// Errors are of package fault: invalid_json, ambiguous_request or invalid_request, the last two with the field's name in Param
// ("stream_options.include_usage" for a nested one). Members that the router does not read are checked for syntax only.
func Scan(body []byte, kind Kind) (Request, error) {
	s := scan{lexer: lexer{b: body}, kind: kind}
	if err := s.document(); err != nil {
		return Request{}, err
	}
	return s.req, nil
}

// scan is the state of one Scan.
type scan struct {
	lexer
	kind Kind
	seen uint32 // one bit for each name that was met
	req  Request
}

func (s *scan) document() error {
	if s.peek() != '{' {
		return s.notObject()
	}
	for more := s.begin('{'); more; more = s.more('{') {
		key, escaped := s.key()
		if s.peek(); s.flaw != sound {
			break
		}
		if err := s.member(key, escaped); err != nil {
			return err
		}
	}
	s.end()
	if s.flaw != sound {
		return s.invalidJSON()
	}
	return s.conclude()
}

// member takes the value of one member of the top level; s.i is the value's first byte.
func (s *scan) member(key []byte, escaped bool) error {
	id, err := s.meet(key, escaped, topLevel, "")
	if err != nil {
		return err
	}
	switch {
	case id == nameModel:
		return s.model()
	case id == s.kind.prompt():
		return s.prompt(id)
	case id == nameMessages: // vLLM embeds them too.
		s.content(false)
		return nil
	case id == nameChatTemplate:
		s.template()
		return nil
	case id == nameChatTemplateKwargs:
		s.templateArgs()
		return nil
	case s.kind == Embedding:
		s.skip()
		return nil
	case id == nameLogprobs && s.kind == Chat: // A switch there, and not a number.
		s.skip()
		return nil
	case id.isFigure():
		return s.figure(id)
	}
	switch id {
	case nameStream:
		s.req.Stream, err = s.boolean("stream")
	case nameStreamOptions:
		err = s.streamOptions()
	case nameStop:
		err = s.stops()
	default:
		s.skip()
	}
	return err
}

// meet resolves a member's name and refuses one that was met before, in whatever case. prefix leads to the object that it stands in.
func (s *scan) meet(key []byte, escaped bool, lookup func([]byte) name, prefix string) (name, error) {
	id, exact := resolve(key, escaped, lookup)
	if id == nameOther {
		return id, nil
	}
	if !exact {
		return id, s.otherCase(key, prefix, id)
	}
	if s.seen&(1<<id) != 0 {
		return id, s.twice(prefix, id)
	}
	s.seen |= 1 << id
	return id, nil
}

func (s *scan) model() error {
	if s.peek() != '"' {
		return s.wrongType("model", "a string")
	}
	start := s.i
	raw, escaped := s.str()
	if s.flaw != sound {
		return nil
	}
	s.req.model = Span{start, s.i}
	var room [MaxModelName + 8]byte
	text := raw
	if escaped {
		var fits bool
		if text, fits = unescape(room[:0], raw); !fits {
			return badModel()
		}
	}
	if len(text) == 0 {
		return badValue("model", "is empty: name the model to use")
	}
	if len(text) > MaxModelName || !isModelName(text) {
		return badModel()
	}
	s.req.Model = string(text)
	return nil
}

// isModelName reports whether text is made of [A-Za-z0-9._:/@+-] alone.
func isModelName(text []byte) bool {
	for _, c := range text {
		if !('a' <= c|0x20 && c|0x20 <= 'z' || '-' <= c && c <= ':' || c == '_' || c == '@' || c == '+') {
			return false
		}
	}
	return true
}

// prompt takes messages, prompt or input, and counts prompts: a list of numbers is one prompt of tokens, any other list is a list of prompts.
func (s *scan) prompt(id name) error {
	start := s.i
	switch c := s.peek(); {
	case c == 'n' && id != nameMessages:
		s.literal("null")
		return nil // As good as absent.
	case c == '"' && id != nameMessages:
		s.str()
		s.req.prompts = 1
	case c == '[':
		more := s.begin('[')
		if !more && s.flaw == sound {
			return badValue(id.String(), "is empty: it must hold at least one element")
		}
		if c := s.peek(); c == '-' || '0' <= c && c <= '9' {
			s.req.prompts = 1
			s.i = vector(s.b, s.i)
			for ; more; more = s.more('[') {
				s.content(false)
			}
			break
		}
		for ; more; more = s.more('[') {
			s.req.prompts++
			s.content(false)
		}
	default:
		if id == nameMessages {
			return s.wrongType("messages", "an array of messages")
		}
		return s.wrongType(id.String(), "a string or an array")
	}
	s.req.Prompt = Span{start, s.i}
	return nil
}

func (s *scan) streamOptions() error {
	start := s.i
	switch s.peek() {
	case 'n':
		s.literal("null")
		s.req.options, s.req.shape = Span{start, s.i}, shapeNull
		return nil
	case '{':
		s.req.shape = shapeEmpty
	default:
		return s.wrongType("stream_options", "an object or null")
	}
	for more := s.begin('{'); more; more = s.more('{') {
		s.req.shape = shapeFilled
		key, escaped := s.key()
		if s.peek(); s.flaw != sound {
			return nil
		}
		if err := s.streamOption(key, escaped); err != nil {
			return err
		}
	}
	s.req.options = Span{start, s.i}
	return nil
}

func (s *scan) streamOption(key []byte, escaped bool) error {
	const prefix = "stream_options."
	id, err := s.meet(key, escaped, streamLevel, prefix)
	if err != nil {
		return err
	}
	start := s.i
	switch id {
	case nameIncludeUsage:
		s.req.IncludeUsage, err = s.boolean(prefix + "include_usage")
		s.req.usage = Span{start, s.i}
	case nameContinuousUsage:
		s.req.ContinuousUsage, err = s.boolean(prefix + "continuous_usage_stats")
		s.req.continuous = Span{start, s.i}
	default:
		s.skip()
	}
	return err
}

// boolean takes true, false, or null, which counts as false. Anything else is refused: some backends read "true" and 1 as true.
func (s *scan) boolean(param string) (bool, error) {
	switch s.peek() {
	case 't':
		s.literal("true")
		return s.flaw == sound, nil
	case 'f':
		s.literal("false")
	case 'n':
		s.literal("null")
	default:
		return false, s.wrongType(param, "true or false")
	}
	return false, nil
}

// figure takes a whole number within 32 bits, or null, which stands for absent. A fraction of zeros is allowed, because some clients
// write each number as a float.
func (s *scan) figure(id name) error {
	c := s.peek()
	start := s.i
	f := &s.req.figures[id-nameMaxTokens]
	switch {
	case c == 'n':
		s.literal("null")
		f.at = Span{start, s.i}
		return nil
	case (c == 't' || c == 'f') && id == nameLogprobs:
		s.scalar(c) // Lenient engines take the switch of a chat for 0 or 1.
		return nil
	case c != '-' && (c < '0' || c > '9'):
		return s.wrongType(id.String(), "a whole number")
	}
	if s.scalar(c); s.flaw != sound {
		return nil
	}
	n, exact := integer(s.b[start:s.i])
	switch {
	case !exact || n > math.MaxInt32 || n < math.MinInt32:
		return badValue(id.String(), "must be a whole number within 32 bits, written in plain digits")
	case id == nameN && n < 1:
		return badValue("n", "must be at least 1")
	}
	*f = figure{at: Span{start, s.i}, value: int32(n), stated: true}
	return nil
}

// stops takes the text or the list of texts at which an answer shall end, and counts them.
func (s *scan) stops() error {
	switch s.peek() {
	case 'n':
		s.literal("null")
	case '"':
		s.str()
		s.req.stops = 1
	case '[':
		for more := s.begin('['); more; more = s.more('[') {
			s.req.stops++
			s.skip()
		}
	default:
		return s.wrongType("stop", "a string or an array of strings")
	}
	return nil
}

// conclude checks that all that must be there is there.
func (s *scan) conclude() error {
	if s.seen&(1<<nameModel) == 0 {
		return missing("model", "name the model to use")
	}
	if s.req.Prompt == (Span{}) {
		return missing(s.kind.prompt().String(), promptHelp(s.kind))
	}
	s.req.kind = s.kind
	if s.kind == Chat {
		s.req.prompts = 1 // Messages are one prompt together.
	}
	s.req.tally()
	return nil
}
