// Package simengine is a simulated inference engine that looks like vLLM from the outside.
//
// It speaks vLLM's HTTP API and keeps vLLM's habits that a router can notice: continuous batching in steps, a prefill budget
// that all requests share, a prefix cache of blocks, a sequence that leaves the batch when its client hangs up, and metrics
// under vLLM's names. Answers are readable and deterministic: the same weights, prompt and seed give the same tokens, also
// when a generation is continued from any prefix of itself.
//
// Time is the time of package time. Inside a testing/synctest bubble it is therefore virtual; elsewhere Config.Speed shortens
// it. An engine that computes nothing has no goroutine, so there is nothing to close.
package simengine

import (
	"cmp"
	"context"
	"crypto/sha256"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// Config describes an engine. The zero value is a usable engine that serves gpt-oss-20b.
type Config struct {
	Models []Model // the first one answers requests that name none; empty: gpt-oss-20b
	Seed   uint64  // engines with equal seeds and equal model roots give equal answers
	APIKey string  // when set, /v1 paths want it as a bearer token, as with vLLM's --api-key

	Speed       float64       // divides every simulated duration; 0 means 1, +Inf means no waiting
	StepBase    time.Duration // fixed part of a step; default 12ms
	StepPerSeq  time.Duration // what each decoding sequence adds to a step; default 80µs
	PrefillRate float64       // prompt tokens computed per second; default 16,000
	BatchTokens int           // tokens that one step computes, shared by all requests; default 8,192
	MaxSeqs     int           // sequences in the batch; the rest waits; default 256
	CacheBlocks int           // blocks of the key-value cache; default 32,768
	BlockSize   int           // tokens in a block; default 16

	ZeroWork *ZeroWork // when set, inference endpoints send prebuilt bytes instead of simulating
	Fault    Fault     // misbehaviour from the start; see SetFault
}

// Model is one model that an engine serves.
type Model struct {
	ID         string // the served name
	Root       string // the weights' own name, which also decides the answers; default ID
	MaxLen     int    // context length in tokens; default 131,072, and never above what the cache can hold
	Dimensions int    // length of an embedding; default 768
}

func (c Config) withDefaults() Config {
	c.Speed = cmp.Or(c.Speed, 1)
	c.StepBase = cmp.Or(c.StepBase, 12*time.Millisecond)
	c.StepPerSeq = cmp.Or(c.StepPerSeq, 80*time.Microsecond)
	c.PrefillRate = cmp.Or(c.PrefillRate, 16_000)
	c.BatchTokens = cmp.Or(c.BatchTokens, 8192)
	c.MaxSeqs = cmp.Or(c.MaxSeqs, 256)
	c.CacheBlocks = cmp.Or(c.CacheBlocks, 32_768)
	c.BlockSize = cmp.Or(c.BlockSize, 16)
	models := []Model{{ID: "gpt-oss-20b", Root: "openai/gpt-oss-20b"}}
	if len(c.Models) > 0 {
		models = append([]Model(nil), c.Models...)
	}
	for i := range models {
		m := &models[i]
		m.Root = cmp.Or(m.Root, m.ID)
		m.MaxLen = min(cmp.Or(m.MaxLen, 131_072), c.CacheBlocks*c.BlockSize)
		m.Dimensions = cmp.Or(m.Dimensions, 768)
	}
	c.Models = models
	return c
}

// Engine is one simulated vLLM process. Its methods may be called from many goroutines.
type Engine struct {
	cfg     Config
	key     *[sha256.Size]byte // digest of the API key, nil when none is wanted
	started time.Time
	zero    *zeroWork // its maps are nil when inference is simulated
	fault   atomic.Pointer[activeFault]

	requests, served, cancelled, refused atomic.Int64

	mu    sync.Mutex
	sched schedule
	meter meter
	halt  chan struct{} // not nil while the loop runs; closed when the last sequence is cancelled
}

// New returns an engine that is ready to serve. It starts nothing.
func New(cfg Config) *Engine {
	cfg = cfg.withDefaults()
	e := &Engine{
		cfg:     cfg,
		started: time.Now(),
		zero:    &zeroWork{},
		sched: schedule{
			batchTokens: cfg.BatchTokens,
			maxSeqs:     cfg.MaxSeqs,
			blockSize:   cfg.BlockSize,
			cache:       newCache(cfg.CacheBlocks),
		},
		meter: newMeter(),
	}
	if cfg.APIKey != "" {
		digest := sha256.Sum256([]byte(cfg.APIKey))
		e.key = &digest
		e.cfg.APIKey = ""
	}
	if cfg.ZeroWork != nil {
		e.zero = e.prebuild(*cfg.ZeroWork)
	}
	e.SetFault(cfg.Fault)
	return e
}

// Handler returns the engine's HTTP API.
func (e *Engine) Handler() http.Handler { return http.HandlerFunc(e.serve) }

// Stats is what an engine has done and is doing. Running and Waiting count sequences, of which a request has one per
// choice; the other counts are of inference requests.
type Stats struct {
	Running, Waiting int

	Requests  int64 // arrived
	Served    int64 // answered to the end
	Cancelled int64 // given up because the client left, or cut off by a fault
	Refused   int64 // answered with an error

	PromptTokens, CachedTokens, GeneratedTokens int64
}

// Stats returns the engine's counts at this moment.
func (e *Engine) Stats() Stats {
	e.mu.Lock()
	defer e.mu.Unlock()
	return Stats{
		Running:         len(e.sched.running),
		Waiting:         len(e.sched.waiting),
		Requests:        e.requests.Load(),
		Served:          e.served.Load(),
		Cancelled:       e.cancelled.Load(),
		Refused:         e.refused.Load(),
		PromptTokens:    e.meter.promptTokens,
		CachedTokens:    e.sched.hits,
		GeneratedTokens: e.meter.generatedTokens,
	}
}

// job is one request inside the engine: a sequence for each choice of each prompt.
type job struct {
	seqs    []*sequence
	pending int           // sequences not finished; guarded by Engine.mu
	wake    chan struct{} // holds one signal when a sequence has moved on
	arrived time.Time
}

// submit queues the job's sequences and makes sure that the loop runs. The caller must drop the job in the end.
func (e *Engine) submit(seqs []*sequence) *job {
	j := &job{seqs: seqs, pending: len(seqs), wake: make(chan struct{}, 1), arrived: time.Now()}
	for _, s := range seqs {
		s.job = j
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.sched.waiting = append(e.sched.waiting, seqs...)
	if e.halt == nil {
		e.halt = make(chan struct{})
		go e.loop(e.halt)
	}
	return j
}

// drop takes what is left of the job out of the engine, at once. On a finished job it does nothing.
func (e *Engine) drop(j *job) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if j.pending == 0 {
		return
	}
	j.pending = 0
	e.meter.finished["abort"] += int64(e.sched.remove(j))
	if e.sched.idle() && e.halt != nil {
		close(e.halt)
		e.halt = nil
	}
}

// await waits until the job has moved on. It tells how many tokens each sequence has produced, how many of the prompts'
// tokens came from the cache, and whether everything is computed.
func (e *Engine) await(ctx context.Context, j *job, produced []int) (cached int, done bool, err error) {
	select {
	case <-ctx.Done():
		return 0, false, ctx.Err()
	case <-j.wake:
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for i, s := range j.seqs {
		produced[i] = s.produced
		if s.choice == 0 {
			cached += s.cached
		}
	}
	return cached, j.pending == 0, nil
}

// loop computes step after step until nothing is left. A loop whose halt is not the engine's any more is not in charge.
func (e *Engine) loop(halt chan struct{}) {
	for {
		work, ok := e.begin(halt)
		if !ok || !e.pause(work, halt) || !e.finish(halt) {
			return
		}
	}
}

// begin plans the next step; it reports whether there is one.
func (e *Engine) begin(halt chan struct{}) (step, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.halt != halt {
		return step{}, false
	}
	if e.sched.idle() {
		e.halt = nil
		return step{}, false
	}
	return e.sched.plan(), true
}

// pause lets the step's time pass; it reports false when the loop was halted meanwhile.
func (e *Engine) pause(work step, halt chan struct{}) bool {
	seconds := float64(work.prefill) / e.cfg.PrefillRate
	took := e.cfg.StepBase + time.Duration(work.decodes)*e.cfg.StepPerSeq + time.Duration(seconds*float64(time.Second))
	took = time.Duration(float64(took) / e.cfg.Speed)
	if took <= 0 {
		runtime.Gosched()
		return true
	}
	select {
	case <-time.After(took):
		return true
	case <-halt:
		return false
	}
}

// finish books the planned step's tokens and tells the requests.
func (e *Engine) finish(halt chan struct{}) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.halt != halt {
		return false
	}
	now := time.Now()
	for _, s := range e.sched.commit() {
		e.meter.observe(s, now)
		if s.finished() {
			s.job.pending--
		}
		select {
		case s.job.wake <- struct{}{}:
		default:
		}
	}
	return true
}
