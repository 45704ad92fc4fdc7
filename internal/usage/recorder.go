package usage

import (
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// Sink takes finished lines. Write gets one whole line, with its line feed, and must be safe for concurrent use.
type Sink interface {
	io.Writer
	// Reopen lets a file be rotated under the process.
	Reopen() error
	io.Closer
}

// Recorder writes the records of all requests as JSON lines, to every sink.
//
// A line is written before the call returns: what Open, Checkpoint or Close has returned from survives the death of the
// process. Each line has a type: open when a request is admitted, checkpoint while its stream runs, close at its end. A request
// that was refused before it was admitted has a close alone. A request whose close is missing was cut by a crash: its last
// checkpoint says what it had produced.
//
// The records that were closed last are also kept in memory, for Recent.
type Recorder struct {
	log    *slog.Logger
	sinks  []Sink
	recent *ring

	closed atomic.Int64
	lost   atomic.Int64
	warned atomic.Int64 // Unix seconds of the last warning: one a minute is enough
}

// NewRecorder returns a recorder over sinks. With no sink, records are only counted as lost.
func NewRecorder(log *slog.Logger, sinks ...Sink) *Recorder {
	return &Recorder{log: log, sinks: sinks, recent: newRing(keepRecords)}
}

// Keep sets how many closed records Recent can give, 100 unless it is called; 0 keeps none. It returns r, and must be called
// before the first record.
func (r *Recorder) Keep(records int) *Recorder {
	r.recent = newRing(records)
	return r
}

// Open notes that a request was admitted and is about to reach a backend. Nothing is said of its outcome yet.
func (r *Recorder) Open(rec *Record) {
	r.write("open", func(b []byte) []byte { return appendAsk(b, rec) })
}

// Checkpoint notes how far a running stream has come.
func (r *Recorder) Checkpoint(requestID string, p Progress) {
	r.write("checkpoint", func(b []byte) []byte {
		b = appendText(b, "request_id", requestID)
		b = appendInt(b, "completion_tokens", p.CompletionTokens)
		return appendText(b, "usage_source", p.UsageSource)
	})
}

// Close writes the final record of a request. It is called once a request, however that ended.
func (r *Recorder) Close(rec *Record) {
	r.write("close", func(b []byte) []byte { return appendRecord(b, rec) })
	r.recent.add(rec)
	r.closed.Add(1)
}

// Recent gives the records that were closed last, the newest first, at most limit. It has what no sink could take, too.
func (r *Recorder) Recent(limit int) []Record { return r.recent.latest(limit) }

// Lost is the number of lines that some sink could not take.
func (r *Recorder) Lost() int64 { return r.lost.Load() }

// Reopen reopens every sink, after a rotation of its file.
func (r *Recorder) Reopen() {
	for _, s := range r.sinks {
		if err := s.Reopen(); err != nil {
			r.log.Error("a usage file cannot be reopened", "error", err)
		}
	}
}

// Stop closes the sinks. Nothing may be recorded afterwards.
func (r *Recorder) Stop() error {
	var first error
	for _, s := range r.sinks {
		if err := s.Close(); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// lines are buffers for one line each. A record is bounded by the lengths that its fields may have.
var lines = sync.Pool{New: func() any { b := make([]byte, 0, 1024); return &b }}

func (r *Recorder) write(kind string, members func([]byte) []byte) {
	buf := lines.Get().(*[]byte) //nolint:forcetypeassert // The pool holds nothing else.
	defer lines.Put(buf)
	b := append((*buf)[:0], `{"type":"`...)
	b = append(b, kind...)
	b = append(b, `","time":"`...)
	b = time.Now().UTC().AppendFormat(b, time.RFC3339Nano)
	b = append(b, '"')
	b = append(members(b), '}', '\n')
	*buf = b
	for _, s := range r.sinks {
		if _, err := s.Write(b); err != nil {
			r.loss(err)
		}
	}
}

func (r *Recorder) loss(err error) {
	r.lost.Add(1)
	second := time.Now().Unix()
	if last := r.warned.Load(); second-last >= 60 && r.warned.CompareAndSwap(last, second) {
		r.log.Error("usage records are being lost: make the usage file writable", "lost", r.lost.Load(), "error", err)
	}
}
