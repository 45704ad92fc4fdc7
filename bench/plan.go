package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ai-aas/api-router/bench/backend"
	"github.com/ai-aas/api-router/bench/subject"
)

// plan is how much of everything is done.
type plan struct {
	rounds int
	// warmup comes before each window in which something is measured.
	warmup, window time.Duration
	// settle is how long a subject may rest before its recovered memory is read.
	settle time.Duration

	connections []int // of closed loops
	bodies      []int // of closed loops over bodyConnections, in KB
	rates       []int // of open loops over openConnections, in requests a second
	openWindow  time.Duration

	paced, burst, held streamPlan

	telemetryWindow time.Duration // of the closed and the open loop that telemetry is judged by

	microTime time.Duration // of each micro-benchmark
}

// streamPlan is a load of streams.
type streamPlan struct {
	streams int
	shape   backend.Shape
	ramp    time.Duration
	warmup  time.Duration // from the start of the ramp to the window
	window  time.Duration
}

const (
	bodyConnections = 16
	openConnections = 64
	// cpuConnections is the closed loop by which processor time per request is judged.
	cpuConnections = 64
	// loadedConnections is the one after which memory is read.
	loadedConnections = 256
	judgedRate        = 1000
	smallBody         = 1 << 10
)

// fullPlan takes about nine minutes with four subjects.
var fullPlan = plan{
	warmup: 300 * time.Millisecond, window: 2 * time.Second, settle: 5 * time.Second,
	connections: []int{1, 16, cpuConnections, loadedConnections},
	bodies:      []int{16, 128, 400},
	rates:       []int{500, judgedRate}, openWindow: 3 * time.Second,
	// The windows of paced and held lie where all streams are open: heads and ends are outside of them.
	paced: streamPlan{200, backend.Shape{Events: 300, Interval: 10 * time.Millisecond}, 300 * time.Millisecond, 500 * time.Millisecond, 2300 * time.Millisecond},
	burst: streamPlan{200, backend.Shape{Events: 300}, 0, 300 * time.Millisecond, 2 * time.Second},
	held:  streamPlan{2000, backend.Shape{Events: 45, Interval: 100 * time.Millisecond}, 1500 * time.Millisecond, 1800 * time.Millisecond, 2400 * time.Millisecond},

	telemetryWindow: 4 * time.Second,

	microTime: 300 * time.Millisecond,
}

// quickPlan shows that everything works; its figures mean little.
var quickPlan = plan{
	rounds: 1,
	warmup: 50 * time.Millisecond, window: 200 * time.Millisecond, settle: 200 * time.Millisecond,
	connections: []int{1, cpuConnections, loadedConnections},
	bodies:      []int{400},
	rates:       []int{judgedRate}, openWindow: 300 * time.Millisecond,
	paced: streamPlan{50, backend.Shape{Events: 40, Interval: 10 * time.Millisecond}, 50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond},
	burst: streamPlan{20, backend.Shape{Events: 50}, 0, 50 * time.Millisecond, 200 * time.Millisecond},
	held:  streamPlan{200, backend.Shape{Events: 5, Interval: 100 * time.Millisecond}, 100 * time.Millisecond, 150 * time.Millisecond, 200 * time.Millisecond},

	telemetryWindow: 300 * time.Millisecond,

	microTime: 10 * time.Millisecond,
}

// models are the models that the plan asks for.
func (p *plan) models() []string {
	var models []string
	for _, s := range []backend.Shape{{}, p.paced.shape, p.burst.shape, p.held.shape} {
		if m := s.Model(); !slices.Contains(models, m) {
			models = append(models, m)
		}
	}
	return models
}

// request makes a whole request for a model with a body of a size in bytes, headers and all as the official clients send them.
func request(model string, stream bool, size int) []byte {
	head := fmt.Sprintf(`{"model":%q,"stream":%t,"max_tokens":256,"temperature":0.7,"messages":[`+
		`{"role":"system","content":"You are a helpful assistant."},{"role":"user","content":"`, model, stream)
	const tail = `"}]}`
	const text = "When does the meeting start, and who has to be there from the beginning? "
	room := max(size-len(head)-len(tail), 1)
	body := head + strings.Repeat(text, room/len(text)+1)[:room] + tail
	return fmt.Appendf(nil, "POST /v1/chat/completions HTTP/1.1\r\nHost: bench.example\r\nAccept: application/json\r\n"+
		"Accept-Encoding: gzip, deflate\r\nConnection: keep-alive\r\nContent-Type: application/json\r\nUser-Agent: OpenAI/Python 2.1.0\r\n"+
		"X-Stainless-Lang: python\r\nX-Stainless-Os: Linux\r\nX-Stainless-Arch: x64\r\nX-Stainless-Runtime: CPython\r\n"+
		"X-Stainless-Retry-Count: 0\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s", subject.Key, len(body), body)
}
