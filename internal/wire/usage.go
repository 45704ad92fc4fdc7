package wire

import (
	"math"
	"strconv"
)

// Where a Usage comes from, best first.
const (
	// SourceReported is a backend's own account of the whole answer.
	SourceReported = "reported"
	// SourceContinuous is a backend's account in the middle of an answer that did not end.
	SourceContinuous = "continuous"
	// SourceCounted is our own count of the pieces of content, where a backend gave no account. It knows nothing of the prompt.
	SourceCounted = "counted"
)

// maxCount is the most that any one number of a Usage can be: an account beyond it is nonsense, and sums of such numbers cannot wrap.
const maxCount = 1_000_000_000

// Usage is what an answer cost, in tokens. Cached is the part of Prompt that came from the backend's prefix cache, Reasoning the part
// of Completion that is thought and not said. No number is negative or above a thousand million, whatever the backend claims.
type Usage struct {
	Prompt, Cached, Completion, Reasoning int64
	// Source is "reported", "continuous" or "counted"; "" in the zero Usage.
	Source string
}

// Total is Prompt and Completion together.
func (u Usage) Total() int64 { return u.Prompt + u.Completion }

// parseUsage reads a usage object as OpenAI, vLLM and SGLang write it. It reports false for anything that says neither
// prompt_tokens nor completion_tokens.
func parseUsage(raw []byte) (u Usage, ok bool) {
	l := lexer{b: raw, lax: true}
	for more := l.begin('{'); more; more = l.more('{') {
		key, _ := l.key()
		switch string(key) {
		case "prompt_tokens":
			ok = l.tokens(&u.Prompt) || ok
		case "completion_tokens":
			ok = l.tokens(&u.Completion) || ok
		case "prompt_tokens_details":
			l.detail("cached_tokens", &u.Cached)
		case "completion_tokens_details":
			l.detail("reasoning_tokens", &u.Reasoning)
		case "reasoning_tokens": // SGLang has it here.
			l.tokens(&u.Reasoning)
		default:
			l.skip()
		}
	}
	u.Cached = min(u.Cached, u.Prompt)
	u.Reasoning = min(u.Reasoning, u.Completion)
	u.Source = SourceReported
	return u, ok && l.flaw == sound
}

// detail takes a value and, where it is an object, reads the number under want.
func (l *lexer) detail(want string, into *int64) {
	if l.peek() != '{' {
		l.skip()
		return
	}
	for more := l.begin('{'); more; more = l.more('{') {
		if key, _ := l.key(); string(key) == want {
			l.tokens(into)
		} else {
			l.skip()
		}
	}
}

// tokens takes a value and, where it is a number, stores it as a count of tokens.
func (l *lexer) tokens(into *int64) bool {
	at := l.value()
	if l.flaw != sound {
		return false
	}
	text := l.b[at.Start:at.End]
	if c := text[0]; c != '-' && (c < '0' || c > '9') {
		return false
	}
	*into = count(text)
	return true
}

// count reads a checked JSON number as a count of tokens: fractions are cut off, and what is out of range goes to the nearer end of it.
func count(text []byte) int64 {
	n, exact := integer(text)
	if !exact {
		f, err := strconv.ParseFloat(string(text), 64) // Out of range it gives an infinity, which is clamped like any other number.
		if f != f || err != nil && f == 0 {
			return 0
		}
		n = int64(min(max(f, 0), maxCount))
	}
	return min(max(n, 0), maxCount)
}

// integer reads a checked JSON number. It is exact for plain digits, with a fraction of zeros at most. Numbers of more than 18 digits
// become the largest or the smallest one.
func integer(text []byte) (n int64, exact bool) {
	i, negative := 0, text[0] == '-'
	if negative {
		i++
	}
	first := i
	for ; i < len(text) && '0' <= text[i] && text[i] <= '9'; i++ {
		if i-first < 18 {
			n = n*10 + int64(text[i]-'0')
		}
	}
	if i-first > 18 {
		n = math.MaxInt64
	}
	if negative {
		n = -n
	}
	if i < len(text) && text[i] == '.' {
		for i++; i < len(text) && text[i] == '0'; i++ { //nolint:revive // The loop only skips.
		}
	}
	return n, i == len(text)
}
