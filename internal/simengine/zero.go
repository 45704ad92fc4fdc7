package simengine

import (
	"bytes"
	"cmp"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"
)

// ZeroWork makes the inference endpoints send prebuilt bytes: for load runs that should measure the router, not the engine.
// A request's body is read and searched for the few names that choose among the prebuilt answers, never parsed. No token
// is counted, scheduled or cached.
type ZeroWork struct {
	Events   int           // events of a stream that carry text; default 64
	Interval time.Duration // pause before each of them; 0 for none
}

type zeroWork struct {
	ZeroWork
	chat, completion, embedding map[string]prebuilt // by model
	buffers                     sync.Pool           // of *bytes.Buffer
}

// prebuilt are the answers of one endpoint for one model.
type prebuilt struct {
	body    []byte
	streams [3][][]byte // events, by usageMode
}

// The usage that a stream reports.
const (
	usageNone = iota
	usageFinal
	usageContinuous
)

// maxPooled is the largest body buffer that is kept for the next request, in bytes.
const maxPooled = 1 << 20

const zeroID = "00000000000000000000000000000000"

func (e *Engine) prebuild(cfg ZeroWork) *zeroWork {
	cfg.Events = max(1, cmp.Or(cfg.Events, 64))
	z := &zeroWork{ZeroWork: cfg, chat: map[string]prebuilt{}, completion: map[string]prebuilt{}, embedding: map[string]prebuilt{}}
	z.buffers.New = func() any { return new(bytes.Buffer) }
	// In reverse, so that the first of two models of one name counts, as elsewhere.
	for _, m := range slices.Backward(e.cfg.Models) {
		text := "<|user|>\nLoad.\n<|assistant|>\n"
		a := newVoice(e.cfg.Seed, m.Root).answer(text, len(text), bounds{most: cfg.Events, ignoreEnd: true})
		g := generation{answers: []answer{a}, prompts: []int{countTokens(text)}, perInput: 1}
		g.reply = reply{Created: e.started.Unix(), Model: m.ID}
		z.chat[m.ID] = g.prebuild(chatDialect{role: "assistant", logprobs: -1})
		z.completion[m.ID] = g.prebuild(completionDialect{logprobs: -1})
		out := embeddingReply{ID: "embd-" + zeroID, Object: "list", Created: e.started.Unix(), Model: m.ID, Usage: newUsage(1, 0)}
		out.Data = []embeddingEntry{{Object: "embedding", Embedding: newVoice(e.cfg.Seed, m.Root).vector("", m.Dimensions, m.Dimensions)}}
		z.embedding[m.ID] = prebuilt{body: encode(out)}
	}
	return z
}

func (g generation) prebuild(d dialect) prebuilt {
	var p prebuilt
	g.dialect = d
	g.ID, g.Object = d.prefix()+zeroID, d.object(false)
	p.body = encode(g.body(0))
	g.Object = d.object(true)
	for mode := range p.streams {
		g.final, g.always = mode >= usageFinal, mode == usageContinuous
		var tape recording
		out := newEvents(&tape)
		g.open(out)
		for t := range g.answers[0].ends {
			g.token(out, 0, t)
		}
		g.end(out, 0)
		p.streams[mode] = tape.writes
	}
	return p
}

// recording keeps what an events writer writes.
type recording struct{ writes [][]byte }

func (r *recording) Header() http.Header { return http.Header{} }

func (r *recording) WriteHeader(int) {}

func (r *recording) Write(p []byte) (int, error) {
	r.writes = append(r.writes, bytes.Clone(p))
	return len(p), nil
}

// replay sends the prebuilt answer that the body asks for.
func (e *Engine) replay(w http.ResponseWriter, r *http.Request, answers map[string]prebuilt) error {
	answer, events, err := e.choose(w, r, answers)
	if err != nil {
		return err
	}
	if events == nil {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", strconv.Itoa(len(answer.body)))
		_, err := w.Write(answer.body)
		return err
	}
	out := newEvents(w)
	for i, event := range events {
		if i > 0 {
			out.flush()
			if e.zero.Interval > 0 && !sleep(r.Context(), e.zero.Interval) {
				return r.Context().Err()
			}
		}
		out.write(event)
		if out.err != nil {
			return out.err
		}
	}
	return nil
}

// choose reads the body and picks the answer to it: a stream's events, or none for the whole body.
func (e *Engine) choose(w http.ResponseWriter, r *http.Request, answers map[string]prebuilt) (p prebuilt, events [][]byte, err error) {
	buf, _ := e.zero.buffers.Get().(*bytes.Buffer)
	defer func() {
		if buf.Cap() <= maxPooled {
			e.zero.buffers.Put(buf)
		}
	}()
	buf.Reset()
	if _, err := buf.ReadFrom(http.MaxBytesReader(w, r.Body, maxBody)); err != nil {
		return p, nil, bodyError(err)
	}
	body := buf.Bytes()
	name, _, _ := bytes.Cut(bytes.TrimPrefix(member(body, "model"), []byte(`"`)), []byte(`"`))
	m, err := e.model(string(name))
	if err != nil {
		return p, nil, err
	}
	p = answers[m.ID]
	switch {
	case !yes(body, "stream"):
	case !yes(body, "include_usage"):
		events = p.streams[usageNone]
	case !yes(body, "continuous_usage_stats"):
		events = p.streams[usageFinal]
	default:
		events = p.streams[usageContinuous]
	}
	return p, events, nil
}

func yes(body []byte, name string) bool { return bytes.HasPrefix(member(body, name), []byte("true")) }

// member finds what follows the first "name": in a JSON text, by a search. Text inside a string cannot match, because a quote
// is escaped there.
func member(body []byte, name string) []byte {
	quoted := []byte(`"` + name + `"`)
	for {
		_, rest, found := bytes.Cut(body, quoted)
		if !found {
			return nil
		}
		value := bytes.TrimLeft(rest, " \t\r\n")
		if bytes.HasPrefix(value, []byte(":")) {
			return bytes.TrimLeft(value[1:], " \t\r\n")
		}
		body = rest
	}
}
