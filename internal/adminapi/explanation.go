package adminapi

import "time"

// Explanation is what would become of a request now, and why.
type Explanation struct {
	Model        string `json:"model"`
	Organization string `json:"organization,omitempty"`
	KeyID        string `json:"key_id,omitempty"`
	Session      string `json:"session,omitempty"`
	// Revision, Origin and Since are the table's: which, where from, and since when it is in force.
	Revision string    `json:"revision,omitempty"`
	Origin   string    `json:"origin,omitempty"`
	Since    time.Time `json:"since,omitzero"`
	// Request is what the router reads of the body; absent without one that it could read.
	Request *Scanned `json:"request,omitempty"`
	// Routes are the policies of the model and its fallback models: those that would be walked, in that order, then the others.
	Routes []Route `json:"routes"`
	// Tries are the backends in the order in which they would be tried, each after a failure of the one before.
	Tries []Try `json:"tries"`
	// Choice is the backend of the first try, Next are those of the others.
	Choice string   `json:"choice,omitempty"`
	Next   []string `json:"next,omitempty"`
	// Draw says that chance has a part in the choice: the next request may get another one.
	Draw bool `json:"draw,omitempty"`
	// Warning is the x-routing-warning that the answer to the first try would carry.
	Warning string `json:"warning,omitempty"`
	// Clamps and Fields are the policy's, and hold whatever model answers. Absent without a policy.
	Clamps *Clamps `json:"clamps,omitempty"`
	Fields *Fields `json:"fields,omitempty"`
	// Error is what the client would get in place of an answer.
	Error *Refusal `json:"error,omitempty"`
	// Key is what the state book says of the key. Absent where none was named, where its id is not that of a key of the book, and without a book.
	Key *ExplainedKey `json:"key,omitempty"`
}

// What a key can be in an explanation beside its states.
const (
	KeyUnknown = "unknown" // its organization has none with this id in the state book
	KeyUnread  = "unread"  // nobody could look
)

// ExplainedKey is what a key does to a request. No part of it needs the secret.
type ExplainedKey struct {
	// State is active, rotated, expired or revoked, by the server's clock, or unknown, or unread.
	State string `json:"state"`
	// Scopes are absent where they are not known; then it is decided as for a key that may do everything.
	Scopes *Scopes `json:"scopes,omitempty"`
	// Notes say what else holds for its requests, a sentence each.
	Notes []string `json:"notes"`
}

// Scanned is what the router reads of a request's body.
type Scanned struct {
	Endpoint string `json:"endpoint"`
	Model    string `json:"model"`
	Stream   bool   `json:"stream"`
	// MaxTokens is the bound that the client states; 0: none.
	MaxTokens int64 `json:"max_tokens"`
	Choices   int   `json:"choices"`
	// Clamps are the fields that the policy and the key change, as in "max_tokens: 100000 -> 4096".
	Clamps []string `json:"clamps,omitempty"`
}

// Clamps are the upper bounds that a policy sets on one request; 0 sets none.
type Clamps struct {
	N         int `json:"n"`
	BestOf    int `json:"best_of"`
	MaxTokens int `json:"max_tokens"`
	Logprobs  int `json:"logprobs"`
	Prompts   int `json:"prompts"`
	Stops     int `json:"stops"`
}

// Fields say, each with allow or refuse, what of a request may reach a backend.
type Fields struct {
	ChatTemplate       string `json:"chat_template"`
	ChatTemplateKwargs string `json:"chat_template_kwargs"`
	RemoteMedia        string `json:"remote_media"`
}

// Route is a policy that could serve the request.
type Route struct {
	Model string `json:"model"`
	// Turn is its place among the routes that would be walked, from 1; 0: it would not be walked.
	Turn int `json:"turn"`
	// Policy is the id of the document; Revision is the document's in its book, 0 where that keeps none; Place is where it stands.
	Policy   string `json:"policy,omitempty"`
	Revision int64  `json:"revision,omitempty"`
	Place    string `json:"place,omitempty"`
	Legacy   bool   `json:"legacy,omitempty"`
	// Organization is the policy's: "*" for everyone.
	Organization string `json:"organization,omitempty"`
	// Alias is the name that led here where that is not the model's own.
	Alias string `json:"alias,omitempty"`
	// Fallback says that it is the route of a fallback model.
	Fallback bool `json:"fallback,omitempty"`
	// Why says why this policy matched, and why it would not be walked where that is so.
	Why        string      `json:"why"`
	Mark       *Mark       `json:"mark,omitempty"`
	Strategy   string      `json:"strategy,omitempty"`
	Attempts   int         `json:"attempts,omitempty"`
	Candidates []Candidate `json:"candidates"`
}

// Candidate is a backend that a policy names, as it stands.
type Candidate struct {
	Backend string `json:"backend"`
	// Order is its place among the tries, from 1; 0: it would not be tried.
	Order int    `json:"order"`
	Why   string `json:"why,omitempty"`
	// Excluded says that the policy keeps it from this caller.
	Excluded bool   `json:"excluded,omitempty"`
	Model    string `json:"model,omitempty"` // the backend's own name
	// Known says that the backend is known to serve the model.
	Known  bool `json:"known"`
	Tier   int  `json:"tier"`
	Weight int  `json:"weight"`
	// SharePercent is its part of the choices where weights decide.
	SharePercent float64 `json:"share_percent,omitempty"`
	State        string  `json:"state"` // as a Backend's, or missing
	Reason       string  `json:"reason,omitempty"`
	Degraded     bool    `json:"degraded,omitempty"` // by the policy or by a mark
	Mark         *Mark   `json:"mark,omitempty"`
	InFlight     int64   `json:"in_flight"`
	// MaxConcurrency is its fixed bound; 0: none.
	MaxConcurrency int `json:"max_concurrency"`
}

// Try is one backend that would be tried.
type Try struct {
	Backend string `json:"backend"`
	Model   string `json:"model"`  // the public name
	Policy  string `json:"policy"` // the one by which it would be chosen
	Asked   string `json:"asked"`  // the backend's own name for the model
	// Why says how the strategy came to it.
	Why string `json:"why"`
	// Draw says that it is one draw among several.
	Draw bool `json:"draw,omitempty"`
	// Forced says that it is ejected, and would be tried because most of the route is out.
	Forced  bool   `json:"forced,omitempty"`
	Warning string `json:"warning,omitempty"`
}

// Refusal is the error that a client would get.
type Refusal struct {
	Status  int    `json:"status"`
	Code    string `json:"code"`
	Message string `json:"message"`
	Param   string `json:"param,omitempty"`
	// RetryAfterMillis is how long the client is told to wait; 0: it is not told.
	RetryAfterMillis int64 `json:"retry_after_ms,omitempty"`
}
