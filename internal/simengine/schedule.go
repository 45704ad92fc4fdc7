package simengine

import (
	"slices"
	"time"
)

// sequence is one prompt and the tokens that will be generated from it. The scheduler sees only their numbers.
type sequence struct {
	job    *job
	choice int // which of the request's n choices
	prompt int // tokens
	answer int // tokens to generate, at least 1, or 0 for an embedding
	finish string
	blocks []uint64 // digests of the full blocks of prompt and answer, each covering all text before it

	cached   int // prompt tokens that the cache had
	computed int // tokens whose keys and values are there
	produced int // answer tokens
	planned  int // tokens in the step under way

	hold holding
	last time.Time // when the latest token was produced
}

func (s *sequence) finished() bool { return s.computed >= s.prompt && s.produced == s.answer }

// schedule is the batch: which sequences run, which wait, and what the next step computes. It knows no time and no locks.
type schedule struct {
	batchTokens, maxSeqs, blockSize int

	cache   cache
	running []*sequence // in order of arrival
	waiting []*sequence
	touched []*sequence // reused by commit

	queries, hits int64 // prompt tokens that were looked for in the cache, and found
}

// step is the size of one step's work.
type step struct {
	prefill int // prompt tokens
	decodes int // sequences that add one token
	left    int // tokens of the budget that nobody wanted
}

func (s *schedule) idle() bool { return len(s.running) == 0 && len(s.waiting) == 0 }

// plan hands the step's token budget out in order of arrival: running sequences first, one token to each that decodes and
// as large a chunk as is left to each that still reads its prompt; then waiting ones, as long as there is budget, a seat and
// room in the cache. A sequence reserves all its blocks when it enters, so none is ever preempted.
func (s *schedule) plan() step {
	work := step{left: s.batchTokens}
	for _, q := range s.running {
		work.assign(q)
	}
	for work.left > 0 && len(s.running) < s.maxSeqs && len(s.waiting) > 0 && s.enter(s.waiting[0]) {
		q := s.waiting[0]
		s.waiting[0] = nil
		s.waiting = s.waiting[1:]
		s.running = append(s.running, q)
		work.assign(q)
	}
	return work
}

// assign gives the sequence its part of the step.
func (w *step) assign(q *sequence) {
	if unread := q.prompt - q.computed; unread > 0 {
		q.planned = min(unread, w.left)
		w.prefill += q.planned
	} else {
		q.planned = min(1, w.left)
		w.decodes += q.planned
	}
	w.left -= q.planned
}

// enter reserves the sequence's blocks and takes over what the cache has of its prompt, but for the last token: something
// must be computed for the first answer token to come from.
func (s *schedule) enter(q *sequence) bool {
	usable := min(len(q.blocks), (q.prompt-1)/s.blockSize)
	total := (q.prompt + q.answer + s.blockSize - 1) / s.blockSize
	hold, ok := s.cache.hold(q.blocks[:usable], total)
	if !ok {
		return false
	}
	q.hold = hold
	q.cached = len(hold.shared) * s.blockSize
	q.computed = q.cached
	s.queries += int64(q.prompt)
	s.hits += int64(q.cached)
	return true
}

// commit books what the step computed and returns the sequences that moved on. Finished ones leave the batch. The result is
// valid until the next call.
func (s *schedule) commit() []*sequence {
	s.touched = s.touched[:0]
	for _, q := range s.running {
		if q.planned == 0 {
			continue
		}
		before := q.computed / s.blockSize
		q.computed += q.planned
		q.planned = 0
		for b := before; b < min(q.computed/s.blockSize, len(q.blocks)); b++ {
			s.cache.publish(&q.hold, q.blocks[b])
		}
		if q.computed >= q.prompt && q.produced < q.answer {
			q.produced++
		}
		if q.finished() {
			s.cache.release(&q.hold)
		}
		s.touched = append(s.touched, q)
	}
	s.running = slices.DeleteFunc(s.running, (*sequence).finished)
	return s.touched
}

// remove takes all sequences of a job out, whatever they are doing, and returns how many there were.
func (s *schedule) remove(j *job) int {
	before := len(s.running) + len(s.waiting)
	ours := func(q *sequence) bool { return q.job == j }
	for _, q := range s.running {
		if ours(q) {
			s.cache.release(&q.hold)
		}
	}
	s.running = slices.DeleteFunc(s.running, ours)
	s.waiting = slices.DeleteFunc(s.waiting, ours)
	return before - len(s.running) - len(s.waiting)
}
