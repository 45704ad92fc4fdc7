package simengine

import (
	"context"
	"net/http"
)

// stream answers as server-sent events: one event a token, in the order of the engine's steps. As with vLLM, the response's
// head goes out at once and the first event only when there is a token. The last flush is the server's, after the handler.
func (e *Engine) stream(ctx context.Context, w http.ResponseWriter, g *generation, j *job) error {
	out := newEvents(w)
	sent := make([]int, len(j.seqs))
	produced := make([]int, len(j.seqs))
	out.flush()
	opened := false
	for out.err == nil {
		cached, done, err := e.await(ctx, j, produced)
		if err != nil {
			return err
		}
		if !opened && started(produced) {
			g.open(out)
			opened = true
		}
		for i := range sent {
			for ; sent[i] < produced[i]; sent[i]++ {
				g.token(out, i, sent[i])
			}
		}
		if done {
			g.end(out, cached)
			break
		}
		out.flush()
	}
	return out.err
}

func started(produced []int) bool {
	for _, n := range produced {
		if n > 0 {
			return true
		}
	}
	return false
}

// open writes the events that come before all tokens.
func (g *generation) open(out *events) {
	for i := range g.answers {
		if choice := g.opening(i); choice != nil {
			g.event(out, i, 0, choice)
		}
	}
}

// token writes the event of token t of choice i.
func (g *generation) token(out *events, i, t int) {
	g.event(out, i, t+1, g.delta(i, &g.answers[i], t))
}

func (g *generation) event(out *events, i, produced int, choice any) {
	chunk := g.reply
	chunk.Choices = []any{choice}
	if g.always {
		chunk.Usage = newUsage(g.prompts[i/g.perInput], produced)
	}
	out.send(encode(chunk))
}

// end writes what follows the last token.
func (g *generation) end(out *events, cached int) {
	if g.final {
		chunk := g.reply
		chunk.Choices = []any{}
		completion := 0
		for i := range g.answers {
			completion += len(g.answers[i].ends)
		}
		chunk.Usage = newUsage(g.promptTokens(), completion).withCached(cached)
		out.send(encode(chunk))
	}
	out.send([]byte("[DONE]"))
}

// events writes server-sent events, each in one Write. After an error it writes nothing more.
type events struct {
	w   http.ResponseWriter
	buf []byte
	err error
}

// newEvents begins a response that is a stream.
func newEvents(w http.ResponseWriter) *events {
	w.Header().Set("Content-Type", streamType+"; charset=utf-8")
	w.WriteHeader(http.StatusOK)
	return &events{w: w}
}

func (ev *events) send(data []byte) {
	ev.buf = append(ev.buf[:0], "data: "...)
	ev.buf = append(ev.buf, data...)
	ev.buf = append(ev.buf, "\n\n"...)
	ev.write(ev.buf)
}

func (ev *events) write(event []byte) {
	if ev.err == nil {
		_, ev.err = ev.w.Write(event)
	}
}

func (ev *events) flush() {
	if ev.err == nil {
		ev.err = http.NewResponseController(ev.w).Flush()
	}
}
