package simengine

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"net/http"
	"time"
)

const streamType = "text/event-stream"

// prompt is a text for the model, and where in it the model's own words may begin.
type prompt struct {
	text string
	from int
}

// dialect words answers for one endpoint.
type dialect interface {
	prefix() string                        // of the id
	object(stream bool) string             // the name of the response's shape
	opening(index int) any                 // the choice of the event before all tokens, nil for none
	delta(index int, a *answer, i int) any // the choice of the event for token i
	choice(index int, a *answer) any       // the choice of a whole answer
}

// reply is the envelope of an answer and of each event of a stream.
type reply struct {
	ID      string `json:"id"`
	Object  string `json:"object"`
	Created int64  `json:"created"`
	Model   string `json:"model"`
	Choices []any  `json:"choices"`
	Usage   *usage `json:"usage,omitempty"`
}

type usage struct {
	Prompt     int            `json:"prompt_tokens"`
	Total      int            `json:"total_tokens"`
	Completion int            `json:"completion_tokens"`
	Details    *promptDetails `json:"prompt_tokens_details,omitempty"`
}

type promptDetails struct {
	Cached int `json:"cached_tokens"`
}

func newUsage(prompt, completion int) *usage {
	return &usage{Prompt: prompt, Total: prompt + completion, Completion: completion}
}

func (u *usage) withCached(cached int) *usage {
	u.Details = &promptDetails{cached}
	return u
}

// generation is one chat or completion request on its way.
type generation struct {
	reply
	dialect
	answers  []answer // by choice
	prompts  []int    // tokens of each prompt
	perInput int      // choices of each prompt
	final    bool     // whether a stream ends with usage
	always   bool     // whether each event has usage
}

// generate serves a chat or completion request: it decides all answers, lets the scheduler release their tokens, and writes
// them as they come.
func (e *Engine) generate(w http.ResponseWriter, r *http.Request, s *sampling, prompts []prompt, d dialect) error {
	if err := s.validate(); err != nil {
		return err
	}
	m, err := e.model(s.Model)
	if err != nil {
		return err
	}
	g, seqs, err := e.prepare(m, s, prompts)
	if err != nil {
		return err
	}
	g.dialect = d
	g.reply = reply{ID: requestID(r, d.prefix()), Object: d.object(s.Stream), Created: time.Now().Unix(), Model: m.ID}
	g.final, g.always = s.usage()
	j := e.submit(seqs)
	defer e.drop(j)
	if s.Stream {
		return e.stream(r.Context(), w, g, j)
	}
	return e.whole(r.Context(), w, g, j)
}

// prepare decides the answers to all prompts.
func (e *Engine) prepare(m *Model, s *sampling, prompts []prompt) (*generation, []*sequence, error) {
	g := &generation{perInput: s.choices()}
	var seqs []*sequence
	v := newVoice(e.cfg.Seed, m.Root)
	for i, p := range prompts {
		size := countTokens(p.text)
		most, err := m.room(size, s.MaxTokens)
		if err != nil {
			return nil, nil, err
		}
		g.prompts = append(g.prompts, size)
		for c := range g.perInput {
			a := v.vary(s.Seed, c).answer(p.text, p.from, bounds{
				most: most, least: min(s.MinTokens, most), ignoreEnd: s.IgnoreEOS, stops: s.Stop, keepStop: s.KeepStop,
			})
			a.prompt = i
			_, blocks := blockDigests(digest(newVoice(0, m.Root)).add(s.CacheSalt), e.cfg.BlockSize, p.text, a.text)
			g.answers = append(g.answers, a)
			seqs = append(seqs, &sequence{choice: c, prompt: size, answer: len(a.ends), finish: a.finish, blocks: blocks})
		}
	}
	return g, seqs, nil
}

// room is how many tokens may follow a prompt.
func (m *Model) room(size int, want *int) (int, error) {
	switch {
	case size == 0:
		return 0, badRequest("prompt", "The prompt must not be empty.")
	case size >= m.MaxLen:
		return 0, badRequest("", "The maximum context length of this model is %d tokens, but the prompt alone has %d. Please shorten it.", m.MaxLen, size)
	case want == nil:
		return m.MaxLen - size, nil
	case size+*want > m.MaxLen:
		return 0, badRequest("", "The maximum context length of this model is %d tokens, but %d were asked for: %d in the prompt and %d to generate. "+
			"Please shorten the prompt or lower max_tokens.", m.MaxLen, size+*want, size, *want)
	}
	return *want, nil
}

// requestID takes the client's own id where there is one, as vLLM does.
func requestID(r *http.Request, prefix string) string {
	if id := r.Header.Get("X-Request-Id"); id != "" {
		return prefix + id
	}
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	return prefix + hex.EncodeToString(id[:])
}

// whole answers in one body.
func (e *Engine) whole(ctx context.Context, w http.ResponseWriter, g *generation, j *job) error {
	produced := make([]int, len(j.seqs))
	for {
		cached, done, err := e.await(ctx, j, produced)
		if err != nil {
			return err
		}
		if done {
			return writeJSON(w, http.StatusOK, g.body(cached))
		}
	}
}

// body is the whole answer.
func (g *generation) body(cached int) any {
	out := struct {
		reply
		ServiceTier       *string `json:"service_tier"`
		SystemFingerprint *string `json:"system_fingerprint"`
		PromptLogprobs    []any   `json:"prompt_logprobs"`
	}{reply: g.reply}
	completion := 0
	for i := range g.answers {
		out.Choices = append(out.Choices, g.choice(i, &g.answers[i]))
		completion += len(g.answers[i].ends)
	}
	out.Usage = newUsage(g.promptTokens(), completion).withCached(cached)
	return out
}

func (g *generation) promptTokens() int {
	total := 0
	for _, n := range g.prompts {
		total += n
	}
	return total
}
