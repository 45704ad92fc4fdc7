package simengine

import (
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

var sampleLine = regexp.MustCompile(`^([a-z0-9:_]+)(?:\{((?:[a-z_]+="[^"]*",?)*)\})? (\S+)$`)

// scrape reads a page of metrics, each sample under its name and labels, and wants a HELP and a TYPE before each family.
func scrape(t *testing.T, h http.Handler) map[string]float64 {
	t.Helper()
	samples := map[string]float64{}
	family := ""
	for line := range strings.Lines(do(t, h, http.MethodGet, "/metrics", "").Body.String()) {
		line = strings.TrimSuffix(line, "\n")
		if kind, ok := strings.CutPrefix(line, "# TYPE "); ok {
			family = strings.Fields(kind)[0]
		}
		if strings.HasPrefix(line, "#") {
			continue
		}
		m := sampleLine.FindStringSubmatch(line)
		if m == nil {
			t.Fatalf("bad line %q", line)
		}
		value, err := strconv.ParseFloat(m[3], 64)
		if err != nil || !strings.HasPrefix(m[1], family) {
			t.Fatalf("line %q in family %q: %v", line, family, err)
		}
		samples[m[1]+"{"+m[2]+"}"] = value
	}
	return samples
}

func TestMetricsCountTheWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := New(Config{MaxSeqs: 1})
		h := e.Handler()
		for range 2 {
			post(t, h, "/v1/completions", completionBody(longPrompt("a", 100), 10, ""))
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			post(t, h, "/v1/completions", completionBody("b", 100, `,"n":2`))
		}()
		time.Sleep(500 * time.Millisecond)
		got := scrape(t, h)
		<-done
		const labels = `engine="0",model_name="gpt-oss-20b"`
		for name, want := range map[string]float64{
			`vllm:num_requests_running{` + labels + `}`:                                                                  1,
			`vllm:num_requests_waiting{` + labels + `}`:                                                                  1,
			`vllm:kv_cache_usage_perc{` + labels + `}`:                                                                   7.0 / 32768,
			`vllm:prefix_cache_queries_total{` + labels + `}`:                                                            201,
			`vllm:prefix_cache_hits_total{` + labels + `}`:                                                               96,
			`vllm:num_preemptions_total{` + labels + `}`:                                                                 0,
			`vllm:prompt_tokens_total{` + labels + `}`:                                                                   201,
			`vllm:generation_tokens_total{` + labels + `}`:                                                               20 + 41,
			`vllm:request_success_total{` + labels + `,finished_reason="length"}`:                                        2,
			`vllm:time_to_first_token_seconds_count{` + labels + `}`:                                                     3,
			`vllm:time_to_first_token_seconds_bucket{` + labels + `,le="+Inf"}`:                                          3,
			`vllm:time_to_first_token_seconds_bucket{` + labels + `,le="0.005"}`:                                         0,
			`vllm:inter_token_latency_seconds_count{` + labels + `}`:                                                     9 + 9 + 40,
			`vllm:request_generation_tokens_sum{` + labels + `}`:                                                         20,
			`vllm:cache_config_info{` + labels + `,block_size="16",enable_prefix_caching="True",num_gpu_blocks="32768"}`: 1,
			`process_start_time_seconds{}`:                                                                               float64(e.started.Unix()),
		} {
			if value, ok := got[name]; !ok || value != want {
				t.Errorf("%s = %v, %t; want %v", name, value, ok, want)
			}
		}
	})
}
