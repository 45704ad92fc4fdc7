package adminapi

import (
	"encoding/json"
	"time"
)

// MarkRequest sets a mark. Exactly one of Backend, Model and Organization is set, or Model and Organization together.
type MarkRequest struct {
	Backend      string `json:"backend,omitempty"`
	Model        string `json:"model,omitempty"`
	Organization string `json:"organization,omitempty"`
	// State is disabled, draining or degraded.
	State string `json:"state"`
	// Reason is needed to disable. Of a disabled model or organization it is shown to clients.
	Reason string `json:"reason,omitempty"`
	// For or Until say when the mark ends by itself; neither: when it is lifted.
	For   Duration  `json:"for,omitzero"`
	Until time.Time `json:"until,omitzero"`
}

// Mark is an operator's hand on a backend, a model or an organization, as it holds now.
type Mark struct {
	ID           string    `json:"id,omitempty"`
	Backend      string    `json:"backend,omitempty"`
	Model        string    `json:"model,omitempty"`
	Organization string    `json:"organization,omitempty"`
	State        string    `json:"state"`
	Reason       string    `json:"reason,omitempty"`
	Actor        string    `json:"actor,omitempty"`
	Since        time.Time `json:"since,omitzero"`
	Until        time.Time `json:"until,omitzero"`
}

// Backend is what this router knows of a backend now.
type Backend struct {
	ID     string `json:"id"`
	URL    string `json:"url"`
	Engine string `json:"engine,omitempty"`
	State  string `json:"state"` // available, full, resting, ejected, unhealthy, draining, disabled
	// Since is when it came into that state.
	Since  time.Time `json:"since,omitzero"`
	Reason string    `json:"reason,omitempty"` // why it is not available
	// LastError is what the latest probe found, or what it was ejected for.
	LastError    string    `json:"last_error,omitempty"`
	EjectedUntil time.Time `json:"ejected_until,omitzero"`
	Mark         *Mark     `json:"mark,omitempty"`
	Probe        string    `json:"probe"` // unknown, healthy, unhealthy
	// Probed is the latest sign of life or death.
	Probed   time.Time `json:"probed,omitzero"`
	InFlight int64     `json:"in_flight"`
	// MaxConcurrency is its fixed bound; 0: none.
	MaxConcurrency      int `json:"max_concurrency"`
	ConsecutiveFailures int `json:"consecutive_failures"`
}

// Fleet is what this router serves by: its table of documents, and its backends.
type Fleet struct {
	// Revision, Origin and Since are the table's: which, where from, and since when it is in force.
	Revision string    `json:"revision"`
	Origin   string    `json:"origin"`
	Since    time.Time `json:"since,omitzero"`
	// Policies counts the routing policies in force, Problems what is wrong with documents.
	Policies int       `json:"policies"`
	Problems int       `json:"problems"`
	Backends []Backend `json:"backends"`
}

// The endpoints that ExplainRequest names.
const (
	EndpointChat       = "/v1/chat/completions"
	EndpointCompletion = "/v1/completions"
	EndpointEmbedding  = "/v1/embeddings"
)

// ExplainRequest asks which backend a request would get, and why. Nothing is sent to a backend.
type ExplainRequest struct {
	// Model is needed without a body. With a body, its model counts.
	Model        string `json:"model,omitempty"`
	Organization string `json:"organization,omitempty"`
	// KeyID is looked up among the keys of Organization, where it can be one of the state book's.
	KeyID   string `json:"key_id,omitempty"`
	Session string `json:"session,omitempty"`
	// Endpoint says how to read the body; empty: EndpointChat.
	Endpoint string `json:"endpoint,omitempty"`
	// Body is the request's body: the object itself, or its text in a JSON string, which can also be no JSON at all.
	Body json.RawMessage `json:"body,omitempty"`
}

// Text sets the body to a request's bytes, whatever they are.
func (r *ExplainRequest) Text(body []byte) error {
	text, err := json.Marshal(string(body))
	r.Body = text
	return err
}

// Decision is one recent request: who asked for what, which policy and backend it got, and how it ended. Times are in milliseconds.
type Decision struct {
	RequestID       string    `json:"request_id"`
	ClientRequestID string    `json:"client_request_id,omitempty"`
	TraceID         string    `json:"trace_id,omitempty"`
	Start           time.Time `json:"start"`
	Endpoint        string    `json:"endpoint"`
	Organization    string    `json:"organization,omitempty"`
	KeyID           string    `json:"key_id,omitempty"`
	Model           string    `json:"model,omitempty"`
	BackendModel    string    `json:"backend_model,omitempty"`
	Backend         string    `json:"backend,omitempty"`
	Policy          string    `json:"policy,omitempty"`
	PolicyRevision  string    `json:"policy_revision,omitempty"`
	// Decision is PRIMARY or FAILOVER; empty for a request that was refused before there was one.
	Decision string `json:"decision,omitempty"`
	// Warning is the x-routing-warning of the answer.
	Warning  string `json:"warning,omitempty"`
	Attempts int    `json:"attempts"`
	Stream   bool   `json:"stream"`
	// PromptTokens and CompletionTokens are as far as they are known.
	PromptTokens     int64   `json:"prompt_tokens"`
	CompletionTokens int64   `json:"completion_tokens"`
	Status           int     `json:"status"`
	Code             string  `json:"code,omitempty"`
	StopReason       string  `json:"stop_reason"`
	TTFTMillis       float64 `json:"ttft_ms,omitempty"`
	LatencyMillis    float64 `json:"latency_ms"`
	RouterMillis     float64 `json:"router_ms"`
}

// Decisions are recent requests of this router, the newest first.
type Decisions struct {
	Items []Decision `json:"items"`
}
