// Package trace is one request's trace as values: its ids, its place in the trace of whoever called, and its spans. It does no I/O and
// keeps nothing: what becomes of a Trace is its taker's business.
//
// Contexts travel as W3C Trace Context (https://www.w3.org/TR/trace-context/). Baggage does not travel at all.
package trace

import (
	"encoding/binary"
	"encoding/hex"
	"math"
	"math/rand/v2"
	"time"
)

// ID names a trace. The zero ID is none.
type ID [16]byte

// SpanID names a span within its trace. The zero SpanID is none.
type SpanID [8]byte

// NewID makes the id of a new trace. It is a name, not a secret. Its low seven bytes are random, as samplers of other services rely on.
func NewID() ID {
	var id ID
	for id == (ID{}) {
		binary.BigEndian.PutUint64(id[:8], rand.Uint64())
		binary.BigEndian.PutUint64(id[8:], rand.Uint64())
	}
	return id
}

// NewSpanID makes the id of a new span.
func NewSpanID() SpanID {
	var id SpanID
	for id == (SpanID{}) {
		binary.BigEndian.PutUint64(id[:], rand.Uint64())
	}
	return id
}

// String is the id as 32 lower-case hexadecimal digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// String is the id as 16 lower-case hexadecimal digits.
func (id SpanID) String() string { return hex.EncodeToString(id[:]) }

// Within reports whether a trace of this id is among the share of all traces that is sampled, from 0 to 1. Every process that asks with
// the same share gets the same answer: the rule is that of OpenTelemetry's TraceIdRatioBased sampler.
func (id ID) Within(share float64) bool {
	switch {
	case share >= 1:
		return true
	case !(share > 0): // Also what is not a number.
		return false
	}
	return binary.BigEndian.Uint64(id[8:])>>1 < uint64(share*math.MaxInt64)
}

// Context is a place in a trace: what a caller tells the one it calls.
type Context struct {
	Trace   ID
	Span    SpanID
	Sampled bool
	// State is the tracestate header, passed on as it came.
	State string
}

// IsZero reports whether there is no context.
func (c Context) IsZero() bool { return c.Trace == ID{} }

// The form of a traceparent: version, trace, span and flags, in lower-case hexadecimal digits with dashes between them.
const (
	parentLength = 55
	maxState     = 512 // bytes of a tracestate that is passed on: what the specification asks for at least
	flagSampled  = 1
)

// Parse reads a traceparent header and the tracestate beside it. What cannot be read is no context: a new trace begins then.
func Parse(parent, state string) (Context, bool) {
	if len(parent) < parentLength || parent[2] != '-' || parent[35] != '-' || parent[52] != '-' {
		return Context{}, false
	}
	var version, flags [1]byte
	var c Context
	if !digits(version[:], parent[:2]) || !digits(c.Trace[:], parent[3:35]) || !digits(c.Span[:], parent[36:52]) || !digits(flags[:], parent[53:55]) {
		return Context{}, false
	}
	switch {
	case version[0] == 0xff, c.Trace == ID{}, c.Span == SpanID{}:
		return Context{}, false
	case len(parent) > parentLength && (version[0] == 0 || parent[parentLength] != '-'): // Only a later version may say more.
		return Context{}, false
	}
	c.Sampled = flags[0]&flagSampled != 0
	if len(state) <= maxState {
		c.State = state
	}
	return c, true
}

// digits reads lower-case hexadecimal digits, and no others.
func digits(to []byte, text string) bool {
	for i := range to {
		high, low := digit(text[2*i]), digit(text[2*i+1])
		if high > 15 || low > 15 {
			return false
		}
		to[i] = high<<4 | low
	}
	return true
}

func digit(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10
	}
	return 0xff
}

// Parent is the traceparent header of this place.
func (c Context) Parent() string {
	b := make([]byte, 0, parentLength)
	b = append(b, "00-"...)
	b = hex.AppendEncode(b, c.Trace[:])
	b = append(b, '-')
	b = hex.AppendEncode(b, c.Span[:])
	if c.Sampled {
		return string(append(b, "-01"...))
	}
	return string(append(b, "-00"...))
}

// Kind says which side of a call a span is.
type Kind byte

// The kinds of spans.
const (
	Internal Kind = iota
	Server
	Client
)

// Attribute is one fact about a span.
type Attribute struct {
	Key string
	// Value is a string, an int64, a float64, a bool or a []string.
	Value any
}

// Span is one piece of work, ended.
type Span struct {
	ID         SpanID
	Parent     SpanID // zero: none
	Remote     bool   // the parent is another process's
	Name       string
	Kind       Kind
	Start, End time.Time
	Attributes []Attribute
	// Failure is why it failed; "" when it did not.
	Failure string
}

// Trace is what one request leaves of itself: its spans, the request's own first.
type Trace struct {
	ID    ID
	State string // the tracestate of the caller
	// Sampled says that whoever called, or is called, was told so. A trace that is kept for how it ended is not.
	Sampled bool
	Spans   []Span
}
