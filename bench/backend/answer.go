package backend

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
)

// Shape is the form of one model's answers. The zero value is a whole answer of about a kilobyte.
type Shape struct {
	// Events is how many events of a stream carry text; 0 for a whole answer.
	Events int
	// Interval is the time between two of them, on a schedule that does not drift; 0 for as fast as they can be written. Each
	// event is a write of its own, as with the engines.
	Interval time.Duration
}

// Model is the name of the model with this shape: whole, or stream-EVENTS-INTERVAL.
func (s Shape) Model() string {
	if s.Events == 0 {
		return "whole"
	}
	return fmt.Sprintf("stream-%d-%s", s.Events, s.Interval)
}

// ParseModel is the reverse of Model.
func ParseModel(name string) (Shape, error) {
	if name == (Shape{}).Model() {
		return Shape{}, nil
	}
	rest, isStream := strings.CutPrefix(name, "stream-")
	count, interval, _ := strings.Cut(rest, "-")
	events, errEvents := strconv.Atoi(count)
	pause, errPause := time.ParseDuration(interval)
	if !isStream || errEvents != nil || errPause != nil || events < 1 || pause < 0 {
		return Shape{}, fmt.Errorf("%q is not the model of a shape", name)
	}
	return Shape{events, pause}, nil
}

// Length is the length of a whole answer's body, in bytes.
func (s Shape) Length() int64 {
	if s.Events > 0 {
		return 0
	}
	return int64(len(s.body()))
}

// Sent is how many events a client sees of a stream whose usage it did not ask for: one with the role, those with text, one with the
// reason of the end, and [DONE].
func (s Shape) Sent() int { return s.Events + 3 }

// usage is what a stream tells of usage.
type usage int

const (
	usageNone usage = iota
	usageFinal
	usageAlways
	usageKinds
)

// answer is an answer, ready to be written.
type answer struct {
	whole    []byte
	interval time.Duration
	texts    int    // events with text
	head     []byte // of a stream
	events   [usageKinds][][]byte
}

const streamHead = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nCache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n"

var (
	healthy     = reply(`{"status":"ok"}`)
	noSuchModel = []byte("HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
)

func reply(body string) []byte {
	return fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

const promptTokens = 214

func (s Shape) body() string {
	text := strings.Repeat("The meeting starts at nine and ends before noon, so there is time for questions. ", 8)
	return `{"id":"chatcmpl-5f0c1e7a9b3d4826","object":"chat.completion","created":1767225600,"model":"` + s.Model() +
		`","choices":[{"index":0,"message":{"role":"assistant","content":"` + text +
		`","refusal":null,"tool_calls":[]},"logprobs":null,"finish_reason":"stop","stop_reason":null}],` +
		fmt.Sprintf(`"usage":{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":136,"prompt_tokens_details":null}}`, promptTokens, promptTokens+136)
}

func (s Shape) build() *answer {
	if s.Events == 0 {
		return &answer{whole: reply(s.body())}
	}
	a := &answer{interval: s.Interval, texts: s.Events, head: []byte(streamHead)}
	for kind := range usageKinds {
		a.events[kind] = s.stream(kind)
	}
	return a
}

// stream makes the chunks of a stream, one for each event.
func (s Shape) stream(kind usage) [][]byte {
	head := `{"id":"chatcmpl-5f0c1e7a9b3d4826","object":"chat.completion.chunk","created":1767225600,"model":"` + s.Model() + `","choices":[`
	count := func(tokens int) string {
		return fmt.Sprintf(`{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d}`, promptTokens, promptTokens+tokens, tokens)
	}
	event := func(delta, finish string, tokens int) []byte {
		end := "}"
		if kind == usageAlways {
			end = `,"usage":` + count(tokens) + "}"
		} else if kind == usageFinal {
			end = `,"usage":null}`
		}
		return chunk(head + `{"index":0,"delta":` + delta + `,"logprobs":null,"finish_reason":` + finish + `}]` + end)
	}
	events := make([][]byte, 0, s.Events+4)
	events = append(events, event(`{"role":"assistant","content":""}`, "null", 0))
	for i := range s.Events {
		events = append(events, event(`{"content":" words"}`, "null", i+1))
	}
	events = append(events, event(`{}`, `"stop"`, s.Events))
	if kind != usageNone {
		events = append(events, chunk(head+`],"usage":`+count(s.Events)+"}"))
	}
	return append(events, append(chunk("[DONE]"), "0\r\n\r\n"...))
}

// chunk frames one event as one chunk.
func chunk(data string) []byte {
	event := "data: " + data + "\n\n"
	return fmt.Appendf(nil, "%x\r\n%s\r\n", len(event), event)
}

// stream writes the head with the first event, and then event by event, with pauses between the texts. As with the engines, the first
// text follows the role at once, and what ends a stream its last text: whoever holds the role back until there is text loses no time.
func (a *answer) stream(ctx context.Context, conn net.Conn, kind usage) error {
	events := a.events[kind]
	first := append(append(make([]byte, 0, len(a.head)+len(events[0])), a.head...), events[0]...)
	if _, err := conn.Write(first); err != nil {
		return err
	}
	var timer *time.Timer
	if a.interval > 0 {
		timer = time.NewTimer(a.interval)
		defer timer.Stop()
	}
	start := time.Now()
	for i, event := range events[1:] {
		if timer != nil && i > 0 && i < a.texts {
			timer.Reset(time.Until(start.Add(a.interval * time.Duration(i))))
			select {
			case <-timer.C:
			case <-ctx.Done():
				return ctx.Err()
			}
			if err := conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
				return err
			}
		}
		if _, err := conn.Write(event); err != nil {
			return err
		}
	}
	return nil
}
