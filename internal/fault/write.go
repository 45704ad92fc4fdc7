package fault

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"
)

type envelope struct {
	Error body `json:"error"`
}

// body has the first four keys always: some SDKs fail on an envelope that lacks one.
type body struct {
	Message string  `json:"message"`
	Type    string  `json:"type"`
	Param   *string `json:"param"`
	Code    Code    `json:"code"`
	TraceID string  `json:"trace_id,omitempty"`
}

// traceHeader names the trace on an answer. An error repeats it: what people paste into a report is the body.
const traceHeader = "X-Trace-Id"

// Write renders err as the answer to a request, in OpenAI's envelope, with the trace that the X-Trace-Id header of the answer names. It
// must be called before anything else was written to w.
func Write(w http.ResponseWriter, err error) {
	e := From(err)
	entry := catalogue[e.Code]
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("X-Should-Retry", strconv.FormatBool(entry.Retry))
	if e.RetryAfter > 0 {
		setRetryAfter(h, e.RetryAfter)
	}
	content := render(e, h.Get(traceHeader))
	h.Set("Content-Length", strconv.Itoa(len(content)))
	w.WriteHeader(e.Status())
	_, _ = w.Write(content) // The client may be gone; there is nobody else to tell.
}

// Event renders err as the last event of a stream that answers with these headers. No [DONE] follows it: the caller aborts the connection next,
// because three of the four most used SDKs take a stream that ends cleanly for a complete answer.
func Event(h http.Header, err error) []byte {
	content := render(From(err), h.Get(traceHeader))
	event := make([]byte, 0, len("data: ")+len(content)+1)
	event = append(event, "data: "...)
	event = append(event, content...)
	return append(event, '\n') // content ends in a line feed itself: this one closes the event.
}

func render(e *Error, traceID string) []byte {
	b := body{Message: e.Message, Type: catalogue[e.Code].Type, Code: e.Code, TraceID: traceID}
	if b.Type == "" {
		b.Type = typeServer
	}
	if e.Param != "" {
		b.Param = &e.Param
	}
	content, err := json.Marshal(envelope{b})
	if err != nil { // Strings and nothing else: Marshal replaces invalid UTF-8 and cannot fail.
		panic("fault: " + err.Error())
	}
	return append(content, '\n')
}

// setRetryAfter writes both forms: whole seconds, rounded up, as RFC 9110 has it, and milliseconds, which OpenAI's SDKs prefer.
func setRetryAfter(h http.Header, d time.Duration) {
	h.Set("Retry-After", strconv.FormatInt(int64((d+time.Second-1)/time.Second), 10))
	h.Set("Retry-After-Ms", strconv.FormatInt(int64((d+time.Millisecond-1)/time.Millisecond), 10))
}
