package simengine

import (
	"encoding/base64"
	"encoding/binary"
	"math"
	"net/http"
	"strings"
	"time"
)

type embeddingRequest struct {
	Model      string `json:"model"`
	Input      inputs `json:"input"`
	Format     string `json:"encoding_format"` // float (default) or base64
	Dimensions *int   `json:"dimensions"`
}

func (q *embeddingRequest) validate(m *Model) error {
	switch {
	case q.Format != "" && q.Format != "float" && q.Format != "base64":
		return badRequest("encoding_format", "encoding_format must be float or base64, got %q.", q.Format)
	case q.Dimensions != nil && (*q.Dimensions < 1 || *q.Dimensions > m.Dimensions):
		return badRequest("dimensions", "dimensions must be from 1 to %d, got %d.", m.Dimensions, *q.Dimensions)
	}
	return q.Input.validate("input")
}

type embeddingEntry struct {
	Index     int    `json:"index"`
	Object    string `json:"object"`
	Embedding any    `json:"embedding"`
}

type embeddingReply struct {
	ID      string           `json:"id"`
	Object  string           `json:"object"`
	Created int64            `json:"created"`
	Model   string           `json:"model"`
	Data    []embeddingEntry `json:"data"`
	Usage   *usage           `json:"usage"`
}

func (e *Engine) embedding(w http.ResponseWriter, r *http.Request) error {
	var req embeddingRequest
	if err := decode(w, r, &req); err != nil {
		return err
	}
	m, err := e.model(req.Model)
	if err != nil {
		return err
	}
	if err := req.validate(m); err != nil {
		return err
	}
	out, seqs, err := e.embed(m, &req)
	if err != nil {
		return err
	}
	out.ID, out.Created = requestID(r, "embd-"), time.Now().Unix()
	j := e.submit(seqs)
	defer e.drop(j)
	unused := make([]int, len(seqs))
	for {
		_, done, err := e.await(r.Context(), j, unused)
		if err != nil {
			return err
		}
		if done {
			return writeJSON(w, http.StatusOK, out)
		}
	}
}

// embed decides the vectors. The scheduler then takes the time to read the inputs.
func (e *Engine) embed(m *Model, req *embeddingRequest) (*embeddingReply, []*sequence, error) {
	out := &embeddingReply{Object: "list", Model: m.ID, Usage: newUsage(0, 0)}
	var seqs []*sequence
	for i, text := range req.Input {
		size, blocks := blockDigests(digest(newVoice(0, m.Root)), e.cfg.BlockSize, text)
		if size > m.MaxLen {
			return nil, nil, badRequest("", "The maximum context length of this model is %d tokens, but input %d has %d.", m.MaxLen, i, size)
		}
		width := m.Dimensions
		if req.Dimensions != nil {
			width = *req.Dimensions
		}
		v := newVoice(e.cfg.Seed, m.Root).vector(text, m.Dimensions, width)
		entry := embeddingEntry{Index: i, Object: "embedding", Embedding: v}
		if req.Format == "base64" {
			entry.Embedding = packed(v)
		}
		out.Data = append(out.Data, entry)
		out.Usage.Prompt += size
		out.Usage.Total += size
		seqs = append(seqs, &sequence{prompt: size, finish: "stop", blocks: blocks})
	}
	return out, seqs, nil
}

// vector maps a text to a unit vector by feature hashing: each word moves a few coordinates, so texts that share words lie
// closer together. A shorter width is the beginning of the full vector, at unit length again.
func (v voice) vector(text string, full, width int) []float32 {
	const strength = 8 // coordinates that a word moves
	sums := make([]float64, full)
	words := append(strings.Fields(strings.ToLower(text)), "")
	for _, word := range words {
		d := digest(v).add(word)
		for range strength {
			d = d.addByte('v')
			bits := d.mix()
			sums[bits%uint64(full)] += float64(bits>>40)/(1<<23) - 1
		}
	}
	sums[0] += 1e-3 // so that no beginning of the vector is all zero
	square := 0.0
	for _, x := range sums[:width] {
		square += x * x
	}
	out := make([]float32, width)
	for i := range out {
		out[i] = float32(sums[i] / math.Sqrt(square))
	}
	return out
}

// packed is the base64 form: little-endian 32-bit floats.
func packed(v []float32) string {
	raw := make([]byte, 0, 4*len(v))
	for _, x := range v {
		raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(x))
	}
	return base64.StdEncoding.EncodeToString(raw)
}
