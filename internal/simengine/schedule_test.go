package simengine

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func newTestSchedule(batch, seqs, blocks int) *schedule {
	return &schedule{batchTokens: batch, maxSeqs: seqs, blockSize: 16, cache: newCache(blocks)}
}

// newTestSequence has a prompt whose blocks are named by their text and place.
func newTestSequence(j *job, text string, prompt, answer int) *sequence {
	s := &sequence{job: j, prompt: prompt, answer: answer}
	for b := range (prompt + answer) / 16 {
		s.blocks = append(s.blocks, newDigest.add(fmt.Sprint(text, b)).mix())
	}
	return s
}

// run steps until the sequence is finished and returns the size of each step.
func run(s *schedule, q *sequence) []step {
	var steps []step
	for !q.finished() {
		work := s.plan()
		work.left = 0
		steps = append(steps, work)
		s.commit()
	}
	return steps
}

func TestPrefillIsChunkedAndThenDecodesOneTokenAStep(t *testing.T) {
	s := newTestSchedule(100, 8, 1000)
	q := newTestSequence(&job{}, "a", 250, 3)
	s.waiting = []*sequence{q}
	want := []step{{prefill: 100}, {prefill: 100}, {prefill: 50}, {decodes: 1}, {decodes: 1}}
	if diff := cmp.Diff(want, run(s, q), cmp.AllowUnexported(step{})); diff != "" {
		t.Error(diff)
	}
}

func TestPromptsShareTheBudgetInOrderOfArrival(t *testing.T) {
	s := newTestSchedule(100, 8, 1000)
	a, b := newTestSequence(&job{}, "a", 150, 1), newTestSequence(&job{}, "b", 150, 1)
	s.waiting = []*sequence{a, b}
	if n := len(run(s, a)); n != 2 {
		t.Errorf("the first prompt took %d steps, want 2", n)
	}
	if b.computed != 50 {
		t.Errorf("the second prompt got %d tokens meanwhile, want 50", b.computed)
	}
	if n := len(run(s, b)); n != 1 {
		t.Errorf("the second prompt took %d more steps, want 1", n)
	}
}

func TestDecodesGoBeforeNewPrompts(t *testing.T) {
	s := newTestSchedule(100, 8, 1000)
	a, b := newTestSequence(&job{}, "a", 10, 50), newTestSequence(&job{}, "b", 500, 1)
	s.waiting = []*sequence{a}
	s.plan()
	s.commit()
	s.waiting = append(s.waiting, b)
	if work := s.plan(); work.decodes != 1 || work.prefill != 99 {
		t.Errorf("%+v", work)
	}
}

func TestSeatsAndRoomMakeSequencesWait(t *testing.T) {
	for name, s := range map[string]*schedule{
		"one seat":         newTestSchedule(1000, 1, 1000),
		"room for one":     newTestSchedule(1000, 8, 15),
		"budget for a bit": newTestSchedule(100, 8, 1000),
	} {
		a, b := newTestSequence(&job{}, "a", 150, 10), newTestSequence(&job{}, "b", 150, 10)
		s.waiting = []*sequence{a, b}
		s.plan()
		if len(s.running) != 1 || len(s.waiting) != 1 {
			t.Errorf("%s: %d run, %d wait", name, len(s.running), len(s.waiting))
		}
		run(s, a)
		run(s, b)
		if !s.idle() || s.cache.busy() != 0 {
			t.Errorf("%s: not idle after the last", name)
		}
	}
}

func TestPrefixCacheServesWhatWasComputed(t *testing.T) {
	s := newTestSchedule(8192, 8, 100)
	first := newTestSequence(&job{}, "a", 160, 33)
	s.waiting = []*sequence{first}
	run(s, first)
	for _, c := range []struct {
		name   string
		text   string
		prompt int
		cached int
	}{
		{"all but the block of the last token", "a", 160, 144},
		{"a longer prompt has the answer too", "a", 300, 192},
		{"another prompt has nothing", "b", 160, 0},
	} {
		q := newTestSequence(&job{}, c.text, c.prompt, 1)
		s.waiting = []*sequence{q}
		run(s, q)
		if q.cached != c.cached {
			t.Errorf("%s: %d cached tokens, want %d", c.name, q.cached, c.cached)
		}
	}
}

func TestPrefixCacheForgetsTheLeastRecentlyUsed(t *testing.T) {
	s := newTestSchedule(8192, 8, 25) // two prompts of 11 blocks each
	ask := func(text string) int {
		q := newTestSequence(&job{}, text, 161, 1)
		s.waiting = []*sequence{q}
		run(s, q)
		return q.cached
	}
	ask("a")
	ask("b")
	if ask("a") != 160 {
		t.Error("a was forgotten though there is room for two")
	}
	ask("c") // needs the room of b
	if got := ask("a"); got != 160 {
		t.Errorf("a was used after b, and has %d tokens left", got)
	}
	if got := ask("b"); got >= 160 {
		t.Error("b was not forgotten")
	}
}

// TestScheduleInvariants adds, cancels and steps at random.
func TestScheduleInvariants(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const blocks = 40
		s := newTestSchedule(rapid.IntRange(1, 200).Draw(t, "batch"), rapid.IntRange(1, 5).Draw(t, "seats"), blocks)
		var jobs []*job
		check := func() {
			if busy := s.cache.busy(); busy < 0 || busy > blocks || len(s.cache.blocks)+s.cache.private > blocks {
				t.Fatalf("%d blocks busy, %d shared, %d private", busy, len(s.cache.blocks), s.cache.private)
			}
			if len(s.running) > s.maxSeqs {
				t.Fatalf("%d run", len(s.running))
			}
		}
		advance := func() {
			if s.idle() {
				return
			}
			work := s.plan()
			if work.left < 0 || work.prefill+work.decodes == 0 {
				t.Fatalf("step %+v", work)
			}
			check()
			s.commit()
		}
		t.Repeat(map[string]func(*rapid.T){
			"": func(*rapid.T) { check() },
			"add": func(t *rapid.T) {
				j := &job{}
				text := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "text")
				q := newTestSequence(j, text, rapid.IntRange(1, 300).Draw(t, "prompt"), rapid.IntRange(0, 300).Draw(t, "answer"))
				s.waiting = append(s.waiting, q)
				jobs = append(jobs, j)
			},
			"cancel": func(t *rapid.T) {
				if len(jobs) > 0 {
					s.remove(rapid.SampledFrom(jobs).Draw(t, "job"))
				}
			},
			"step": func(*rapid.T) { advance() },
		})
		for !s.idle() {
			advance()
		}
		if s.cache.busy() != 0 {
			t.Fatalf("%d blocks busy in the end", s.cache.busy())
		}
	})
}
