package simengine

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// meter counts what the engine has computed. Engine.mu guards it.
type meter struct {
	promptTokens, generatedTokens int64
	finished                      map[string]int64 // by finish reason

	firstToken, interToken, endToEnd histogram // seconds
	promptSize, answerSize           histogram // tokens
}

func newMeter() meter {
	seconds := []float64{0.001, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.25, 2.5, 5, 10, 30, 60, 120}
	sizes := []float64{1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000}
	return meter{
		finished:   map[string]int64{"stop": 0, "length": 0, "abort": 0},
		firstToken: newHistogram(seconds),
		interToken: newHistogram(seconds),
		endToEnd:   newHistogram(seconds),
		promptSize: newHistogram(sizes),
		answerSize: newHistogram(sizes),
	}
}

// observe books a sequence that a step has moved on.
func (m *meter) observe(s *sequence, now time.Time) {
	switch {
	case s.computed < s.prompt:
		return
	case s.produced <= 1:
		m.promptTokens += int64(s.prompt)
		m.firstToken.observe(now.Sub(s.job.arrived).Seconds())
		m.promptSize.observe(float64(s.prompt))
	default:
		m.interToken.observe(now.Sub(s.last).Seconds())
	}
	s.last = now
	if s.produced > 0 {
		m.generatedTokens++
	}
	if s.finished() {
		m.finished[s.finish]++
		m.endToEnd.observe(now.Sub(s.job.arrived).Seconds())
		m.answerSize.observe(float64(s.produced))
	}
}

type histogram struct {
	bounds []float64
	counts []int64 // not cumulative; one more than bounds
	sum    float64
}

func newHistogram(bounds []float64) histogram {
	return histogram{bounds: bounds, counts: make([]int64, len(bounds)+1)}
}

func (h *histogram) observe(v float64) {
	i, _ := slices.BinarySearch(h.bounds, v)
	h.counts[i]++
	h.sum += v
}

// metrics writes vLLM's families in Prometheus' text format. As in vLLM, the model label is the first served name.
func (e *Engine) metrics(w http.ResponseWriter, _ *http.Request) error {
	page := exposition{labels: fmt.Sprintf("engine=\"0\",model_name=%q", e.cfg.Models[0].ID)}
	e.mu.Lock()
	page.family("gauge", "vllm:num_requests_running", "Sequences in the batch.", float64(len(e.sched.running)))
	page.family("gauge", "vllm:num_requests_waiting", "Sequences that wait for a place in the batch.", float64(len(e.sched.waiting)))
	page.family("gauge", "vllm:kv_cache_usage_perc", "Share of the cache's blocks in use, from 0 to 1.", e.sched.cache.usage())
	page.family("counter", "vllm:prefix_cache_queries_total", "Prompt tokens looked for in the prefix cache.", float64(e.sched.queries))
	page.family("counter", "vllm:prefix_cache_hits_total", "Prompt tokens found in the prefix cache.", float64(e.sched.hits))
	page.family("counter", "vllm:num_preemptions_total", "Sequences thrown out of the batch; this engine reserves ahead and has none.", 0)
	page.family("counter", "vllm:prompt_tokens_total", "Prompt tokens of started answers.", float64(e.meter.promptTokens))
	page.family("counter", "vllm:generation_tokens_total", "Tokens generated.", float64(e.meter.generatedTokens))
	page.head("counter", "vllm:request_success_total", "Sequences computed to the end, by reason.")
	for _, reason := range []string{"stop", "length", "abort"} {
		page.sample("vllm:request_success_total", fmt.Sprintf("finished_reason=%q", reason), float64(e.meter.finished[reason]))
	}
	page.histogram("vllm:time_to_first_token_seconds", "From arrival to the first token.", e.meter.firstToken)
	page.histogram("vllm:inter_token_latency_seconds", "Between two tokens of a sequence.", e.meter.interToken)
	page.histogram("vllm:e2e_request_latency_seconds", "From arrival to the last token.", e.meter.endToEnd)
	page.histogram("vllm:request_prompt_tokens", "Prompt tokens of a sequence.", e.meter.promptSize)
	page.histogram("vllm:request_generation_tokens", "Tokens generated for a sequence.", e.meter.answerSize)
	page.head("gauge", "vllm:cache_config_info", "Shape of the cache.")
	page.sample("vllm:cache_config_info", fmt.Sprintf("block_size=\"%d\",enable_prefix_caching=\"True\",num_gpu_blocks=\"%d\"",
		e.cfg.BlockSize, e.cfg.CacheBlocks), 1)
	e.mu.Unlock()
	page.head("gauge", "process_start_time_seconds", "Start of the process since the epoch.")
	fmt.Fprintf(&page.out, "process_start_time_seconds %.3f\n", float64(e.started.UnixMilli())/1000)
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	_, err := w.Write(page.out.Bytes())
	return err
}

// exposition is a page of metrics. The labels go on every sample.
type exposition struct {
	out    bytes.Buffer
	labels string
}

func (x *exposition) head(kind, name, help string) {
	fmt.Fprintf(&x.out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
}

func (x *exposition) sample(name, more string, value float64) {
	labels := x.labels
	if more != "" {
		labels += "," + more
	}
	fmt.Fprintf(&x.out, "%s{%s} %s\n", name, labels, number(value))
}

func (x *exposition) family(kind, name, help string, value float64) {
	x.head(kind, name, help)
	x.sample(name, "", value)
}

func (x *exposition) histogram(name, help string, h histogram) {
	x.head("histogram", name, help)
	total := int64(0)
	for i, bound := range h.bounds {
		total += h.counts[i]
		x.sample(name+"_bucket", fmt.Sprintf("le=%q", number(bound)), float64(total))
	}
	total += h.counts[len(h.bounds)]
	x.sample(name+"_bucket", `le="+Inf"`, float64(total))
	x.sample(name+"_count", "", float64(total))
	x.sample(name+"_sum", "", h.sum)
}

// number writes a value as Python does, so that a whole number ends in .0.
func number(v float64) string {
	text := strconv.FormatFloat(v, 'g', -1, 64)
	if v == float64(int64(v)) && v < 1e15 {
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return text
}
