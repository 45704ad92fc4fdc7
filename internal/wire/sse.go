package wire

import (
	"bytes"
	"errors"
	"io"
	"iter"
)

const (
	// MaxEvent is the largest event that Events takes, in bytes.
	MaxEvent = 8 << 20
	// firstBuffer is what a stream begins with when the caller brings no buffer.
	firstBuffer = 4 << 10
	// maxIdleReads is how often a reader may return nothing before it is given up.
	maxIdleReads = 100
)

// ErrEventTooLarge says that one event of a stream is larger than MaxEvent.
var ErrEventTooLarge = errors.New("wire: an event of the stream is too large")

// Event is one event of a stream (WHATWG HTML, section 9.2: server-sent events). Its slices are valid until the next call of Events.Next.
type Event struct {
	// Raw is the event exactly as it came, with the blank line that ends it. Comments and blank lines of their own are events too:
	// joined, the Raw of all events are the stream.
	Raw []byte
	// Data is the value of the data lines, joined by line feeds. With one data line it is a part of Raw.
	Data []byte
	// Name is the value of the last event line.
	Name []byte
	// Partial says that the stream ended within this event.
	Partial bool

	dataAt int  // where Data begins in Raw, when there is just one data line
	lines  int  // how many data lines there are
	owed   bool // Raw begins with the line feed of a CR LF whose CR already ended the event before
}

// Events cuts a stream into events. It takes every line end of the standard (LF, CR LF, CR) and lets each event go as
// soon as the blank line is there.
type Events struct {
	src   io.Reader
	home  []byte // the buffer of the beginning, to which the stream returns after a large event
	buf   []byte
	limit int
	err   error  // of src
	join  []byte // Data of an event with several data lines

	start, pos, end int  // the event begins at start, was searched up to pos; bytes are there up to end
	line            int  // where the line begins that pos is in
	ready           bool // the event is complete and ends at pos
	afterCR         bool // the byte before pos is a CR that ended a line: an LF that follows belongs to it
	both            bool // the last line ended in CR LF
	begun           bool // the first line of the stream is over
	found           fields
}

// fields is what was found in the lines of an event. The spans are places in the buffer.
type fields struct {
	data  Span // the first data line's value
	name  Span
	lines int
	owed  bool
}

// NewEvents reads events from r. It uses buf, which may come from a pool and go back there when the stream is over; only for events
// that are larger it takes memory of its own. Without a buffer it makes one of 4 KiB.
func NewEvents(r io.Reader, buf []byte) *Events {
	if cap(buf) == 0 {
		buf = make([]byte, firstBuffer)
	}
	buf = buf[:cap(buf)]
	return &Events{src: r, home: buf, buf: buf, limit: MaxEvent}
}

// Next returns the next event. It reads only when no complete event is buffered, and then no more than it must wait for.
//
// When the stream ends, what is left of it comes as one Partial event, then the reader's error: io.EOF for a proper end. An event beyond
// MaxEvent is ErrEventTooLarge. Errors stay.
func (e *Events) Next() (Event, error) {
	for !e.scan() {
		if e.err != nil {
			return e.last()
		}
		e.fill()
	}
	return e.take(false), nil
}

// Buffered reports whether Next can return an event without a read.
func (e *Events) Buffered() bool { return e.scan() }

// scan searches the buffered bytes for the end of the event and takes note of its fields on the way.
func (e *Events) scan() bool {
	for !e.ready {
		rest := e.buf[e.pos:e.end]
		if len(rest) == 0 {
			return false
		}
		if e.afterCR {
			e.afterCR = false
			if e.both = rest[0] == '\n'; e.both {
				e.found.owed = e.found.owed || e.pos == e.start
				e.pos++
				e.line = e.pos
				continue
			}
		}
		n := lineEnd(rest)
		if n < 0 {
			e.pos = e.end
			return false
		}
		stop := e.pos + n
		if !e.endLine(stop) {
			return false
		}
		e.ready = e.field(e.line, stop)
		e.line = e.pos
	}
	return true
}

// endLine puts pos behind the end of the line that stops at stop.
//
// A CR that is the last byte so far is an end in itself, and what waits for its LF would wait for the next event in a stream of bare CRs.
// But where a blank line follows one that ended in CR LF, its LF is on the way: endLine reports false until it is there, so that
// events of such a stream are whole however they are cut.
func (e *Events) endLine(stop int) bool {
	next := stop + 1
	switch {
	case e.buf[stop] == '\n':
		e.both = false
	case next < e.end:
		if e.both = e.buf[next] == '\n'; e.both {
			next++
		}
	case e.both && stop == e.line && e.err == nil:
		e.pos = stop
		return false
	default:
		e.afterCR, e.both = true, false
	}
	e.pos = next
	return true
}

// lineEnd returns the place of the first LF or CR, or -1.
func lineEnd(b []byte) int {
	if b[0] == '\n' {
		return 0
	}
	n := bytes.IndexByte(b, '\n')
	if n >= 0 {
		b = b[:n]
	}
	if r := bytes.IndexByte(b, '\r'); r >= 0 {
		return r
	}
	return n
}

// field notes the line that stands at [from, to) and reports whether it is the blank one.
func (e *Events) field(from, to int) (blank bool) {
	if !e.begun {
		e.begun = true
		if bytes.HasPrefix(e.buf[from:to], byteOrderMark) {
			from += len(byteOrderMark)
		}
	}
	if from == to {
		return true
	}
	line := e.buf[from:to]
	switch line[0] {
	case 'd':
		if at, ok := fieldValue(line, "data"); ok {
			if e.found.lines == 0 {
				e.found.data = Span{from + at, to}
			}
			e.found.lines++
		}
	case 'e':
		if at, ok := fieldValue(line, "event"); ok {
			e.found.name = Span{from + at, to}
		}
	}
	return false
}

var byteOrderMark = []byte("\ufeff")

// fieldValue returns where the value begins, if line is a field of that name. One space behind the colon does not belong to it.
func fieldValue(line []byte, name string) (at int, ok bool) {
	n := len(name)
	if len(line) < n || string(line[:n]) != name {
		return 0, false
	}
	switch {
	case len(line) == n:
		return n, true
	case line[n] != ':':
		return 0, false
	case len(line) > n+1 && line[n+1] == ' ':
		return n + 2, true
	}
	return n + 1, true
}

// take hands out the event that ends at pos and begins the next.
func (e *Events) take(partial bool) Event {
	f := e.found
	ev := Event{
		Raw:     e.buf[e.start:e.pos:e.pos],
		Data:    e.buf[f.data.Start:f.data.End:f.data.End],
		Name:    e.buf[f.name.Start:f.name.End:f.name.End],
		Partial: partial,
		dataAt:  f.data.Start - e.start,
		lines:   f.lines,
		owed:    f.owed,
	}
	if f.lines > 1 {
		e.join = append(e.join[:0], ev.Data...)
		for line := range ev.further() {
			if at, ok := fieldValue(line.text, "data"); ok {
				e.join = append(append(e.join, '\n'), line.text[at:]...)
			}
		}
		ev.Data = e.join
	}
	e.start, e.line, e.ready, e.found = e.pos, e.pos, false, fields{}
	return ev
}

// line is one line of an event and what ends it.
type line struct{ text, end []byte }

// further gives the lines that follow the first data line.
func (ev Event) further() iter.Seq[line] {
	return func(yield func(line) bool) {
		for _, _, rest := cutLine(ev.Raw[ev.dataAt:]); len(rest) > 0; {
			var l line
			if l.text, l.end, rest = cutLine(rest); !yield(l) {
				return
			}
		}
	}
}

// cutLine parts the first line of raw from its end and from what follows.
func cutLine(raw []byte) (line, end, rest []byte) {
	n := lineEnd(raw)
	if n < 0 {
		return raw, nil, nil
	}
	after := n + 1
	if raw[n] == '\r' && after < len(raw) && raw[after] == '\n' {
		after++
	}
	return raw[:n], raw[n:after], raw[after:]
}

// last hands out what is left after the end of the stream, then the reader's error.
func (e *Events) last() (Event, error) {
	if e.start == e.end {
		return Event{}, e.err
	}
	e.pos = e.end
	if e.line < e.end {
		e.field(e.line, e.end)
	}
	return e.take(true), nil
}

// fill makes room and reads once. No event that was handed out is valid any more.
func (e *Events) fill() {
	e.makeRoom()
	if e.err != nil {
		return
	}
	for range maxIdleReads {
		n, err := e.src.Read(e.buf[e.end:])
		e.end += n
		e.err = err
		if n > 0 || err != nil {
			return
		}
	}
	e.err = io.ErrNoProgress
}

// makeRoom leaves at least a quarter of the buffer free. It moves the unfinished event to the front, to a larger
// buffer where it fills this one, and back to the first buffer as soon as that is enough.
func (e *Events) makeRoom() {
	size, quarter := e.end-e.start, len(e.buf)/4
	to := e.buf
	switch {
	case size == 0, size <= len(e.home)/2 && len(e.buf) > len(e.home):
		to = e.home
	case len(e.buf)-e.end > quarter:
		return
	case e.start > quarter:
	case size >= e.limit:
		e.start, e.pos, e.line, e.end, e.found = 0, 0, 0, 0, fields{}
		e.err = ErrEventTooLarge
		return
	default:
		to = make([]byte, min(2*len(e.buf), e.limit))
	}
	copy(to, e.buf[e.start:e.end])
	e.shift(e.start)
	e.buf = to
}

// shift follows the bytes of the buffer by n places to its front.
func (e *Events) shift(n int) {
	e.start, e.pos, e.line, e.end = e.start-n, e.pos-n, e.line-n, e.end-n
	f := &e.found
	if f.lines > 0 {
		f.data = Span{f.data.Start - n, f.data.End - n}
	}
	if f.name.End > 0 {
		f.name = Span{f.name.Start - n, f.name.End - n}
	}
}
