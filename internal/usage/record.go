// Package usage keeps the record of every request: who asked, which backend answered, what it used and how it ended.
package usage

import "time"

// The reasons why a request stopped.
const (
	StopDone         = "done"          // the answer reached the client whole
	StopRefused      = "refused"       // we, or a backend's 4xx about the request, said no
	StopClientGone   = "client_gone"   // the client left before the end
	StopBackendError = "backend_error" // no backend gave a whole answer
	StopTimeout      = "timeout"       // a backend took longer than its limits allow
	StopKilled       = "killed"        // the router shut down before the answer was complete
	StopCrash        = "crash"         // the router's own code failed
)

// Record is the one record that each request leaves. Durations are in milliseconds, token counts in tokens.
type Record struct {
	RequestID       string    `json:"request_id"` // ours, a UUIDv7, never the client's
	ClientRequestID string    `json:"client_request_id,omitempty"`
	TraceID         string    `json:"trace_id,omitempty"` // of the client's trace where it named one
	Start           time.Time `json:"start"`
	Endpoint        string    `json:"endpoint"`

	Organization string `json:"organization,omitempty"`
	KeyID        string `json:"key_id,omitempty"`
	Project      string `json:"project,omitempty"`
	// Tags are the key's, as its operator gave them. They are shared and never changed.
	Tags map[string]string `json:"tags,omitempty"`

	Model          string `json:"model,omitempty"`         // as the client named it
	BackendModel   string `json:"backend_model,omitempty"` // as the backend was asked for it
	Backend        string `json:"backend,omitempty"`
	Policy         string `json:"policy,omitempty"`
	PolicyRevision string `json:"policy_revision,omitempty"`
	Decision       string `json:"decision,omitempty"` // PRIMARY or FAILOVER
	Warning        string `json:"warning,omitempty"`  // as the x-routing-warning header has it
	Attempts       int    `json:"attempts"`
	Stream         bool   `json:"stream"`

	PromptTokens     int64 `json:"prompt_tokens"`
	CachedTokens     int64 `json:"cached_tokens"` // a part of PromptTokens
	CompletionTokens int64 `json:"completion_tokens"`
	ReasoningTokens  int64 `json:"reasoning_tokens"` // a part of CompletionTokens
	// UsageSource says where the token counts come from: reported by the backend at the end, continuous (reported with
	// each event), counted by us from the events, or "" when there are none.
	UsageSource string `json:"usage_source,omitempty"`

	Status     int    `json:"status"`
	Code       string `json:"code,omitempty"` // a code of the error catalogue
	StopReason string `json:"stop_reason"`
	Truncated  bool   `json:"truncated"` // the client had the beginning of an answer, but not its end

	BytesIn  int64 `json:"bytes_in"`
	BytesOut int64 `json:"bytes_out"`

	TTFTMillis    float64 `json:"ttft_ms,omitempty"` // from our receipt of the request to the first byte of the answer
	LatencyMillis float64 `json:"latency_ms"`
	RouterMillis  float64 `json:"router_ms"` // the part of the latency that is not waiting for a backend or the client
}

// Progress is what a running stream has produced so far.
type Progress struct {
	CompletionTokens int64
	UsageSource      string
}
