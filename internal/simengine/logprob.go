package simengine

// The probabilities are invented: they only look right and are the same each time.

type chatLogprob struct {
	Token   string        `json:"token"`
	Logprob float64       `json:"logprob"`
	Bytes   []int         `json:"bytes"`
	Top     []chatLogprob `json:"top_logprobs,omitempty"`
}

func chatLogprobs(a *answer, from, to, top int) any {
	list := make([]chatLogprob, 0, to-from)
	for i := from; i < to; i++ {
		entry := newChatLogprob(a.piece(i), logprob(a, i))
		for _, other := range alternatives(a, i, top) {
			entry.Top = append(entry.Top, newChatLogprob(other.token, other.logprob))
		}
		list = append(list, entry)
	}
	return map[string]any{"content": list}
}

func newChatLogprob(token string, p float64) chatLogprob {
	entry := chatLogprob{Token: token, Logprob: p, Bytes: []int{}}
	for _, b := range []byte(token) {
		entry.Bytes = append(entry.Bytes, int(b))
	}
	return entry
}

func completionLogprobs(a *answer, from, to, top int) any {
	var out struct {
		Offsets []int                `json:"text_offset"`
		Own     []float64            `json:"token_logprobs"`
		Tokens  []string             `json:"tokens"`
		Top     []map[string]float64 `json:"top_logprobs"`
	}
	for i := from; i < to; i++ {
		token := a.piece(i)
		best := map[string]float64{token: logprob(a, i)}
		for _, other := range alternatives(a, i, top) {
			best[other.token] = other.logprob
		}
		out.Offsets = append(out.Offsets, a.ends[i]-len(token))
		out.Own = append(out.Own, logprob(a, i))
		out.Tokens = append(out.Tokens, token)
		out.Top = append(out.Top, best)
	}
	return out
}

// logprob is from -1 to 0.
func logprob(a *answer, i int) float64 {
	return -float64(newDigest.add(a.text[:a.ends[i]]).mix()%1000) / 1000
}

type alternative struct {
	token   string
	logprob float64
}

// alternatives are the token itself and less likely words.
func alternatives(a *answer, i, count int) []alternative {
	var out []alternative
	nouns := blanks["noun"]
	for k := range min(count, len(nouns)) {
		if k == 0 {
			out = append(out, alternative{a.piece(i), logprob(a, i)})
			continue
		}
		out = append(out, alternative{" " + nouns[(i+k)%len(nouns)], logprob(a, i) - float64(k)})
	}
	return out
}
