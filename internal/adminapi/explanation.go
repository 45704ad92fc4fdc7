package adminapi

import "time"

// Explanation is what would become of a request now.
type Explanation struct {
	Model        string `json:"model"`
	Organization string `json:"organization,omitempty"`
	KeyID        string `json:"key_id,omitempty"`
	Session      string `json:"session,omitempty"`
	// Revision is the table's.
	Revision string `json:"revision,omitempty"`
	// Request is what the router reads of the body; absent without a body.
	Request *Scanned `json:"request,omitempty"`
	// Routes are walked in this order: the model's own, then those of the fallback models.
	Routes []Route `json:"routes"`
	// Choice is the backend that would be asked first; empty: none.
	Choice string `json:"choice,omitempty"`
	// Next are the backends that would be tried after it, in order.
	Next []string `json:"next,omitempty"`
	// Warning is the x-routing-warning that the answer would carry.
	Warning string `json:"warning,omitempty"`
	// Error is what the client would get in place of an answer.
	Error *Refusal `json:"error,omitempty"`
}

// Scanned is what the router reads of a request's body.
type Scanned struct {
	Endpoint string `json:"endpoint"`
	Model    string `json:"model"`
	Stream   bool   `json:"stream"`
	// MaxTokens is the bound that the client states; 0: none.
	MaxTokens int64 `json:"max_tokens"`
	Choices   int   `json:"choices"`
	// Clamps are the figures that the policy lowers.
	Clamps []string `json:"clamps,omitempty"`
}

// Route is a policy that would be walked.
type Route struct {
	Model    string `json:"model"`
	Policy   string `json:"policy"`
	Revision int64  `json:"revision,omitempty"`
	// Organization is the policy's: "*" for everyone.
	Organization string `json:"organization"`
	Legacy       bool   `json:"legacy,omitempty"`
	// Why says in words why this policy matched.
	Why        string      `json:"why"`
	Strategy   string      `json:"strategy"`
	Attempts   int         `json:"attempts"`
	Mark       *Mark       `json:"mark,omitempty"`
	Candidates []Candidate `json:"candidates"`
}

// Candidate is a backend that a policy names, as it stands.
type Candidate struct {
	Backend string `json:"backend"`
	// Order is its place among those that would be tried, from 1; 0: it would not be tried.
	Order    int    `json:"order"`
	Why      string `json:"why,omitempty"`
	Model    string `json:"model,omitempty"` // the backend's own name
	Tier     int    `json:"tier"`
	Weight   int    `json:"weight"`
	State    string `json:"state"`
	Reason   string `json:"reason,omitempty"`
	Degraded bool   `json:"degraded,omitempty"`
	Mark     *Mark  `json:"mark,omitempty"`
	InFlight int64  `json:"in_flight"`
	// MaxConcurrency is its fixed bound; 0: none.
	MaxConcurrency int       `json:"max_concurrency"`
	Back           time.Time `json:"back,omitzero"` // when it may be tried again
}
