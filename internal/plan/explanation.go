package plan

import (
	"time"

	"github.com/ai-aas/api-router/internal/policy"
)

// Explanation is what would become of a request now, and why. It is for operators: it names backends. It holds values alone, and
// nothing in it changes with the fleet.
type Explanation struct {
	Model        string `json:"model"` // as it was asked for
	Organization string `json:"organization,omitempty"`
	KeyID        string `json:"key_id,omitempty"`
	Session      string `json:"session,omitempty"`

	// Revision, Origin and Since are the table's: which, where from, and since when it is in force.
	Revision string    `json:"revision,omitempty"`
	Origin   string    `json:"origin,omitempty"`
	Since    time.Time `json:"since,omitzero"`

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

	// Clamps and Fields hold for the request, whatever model answers it. Absent without a policy.
	Clamps *policy.Clamps `json:"clamps,omitempty"`
	Fields *policy.Fields `json:"fields,omitempty"`

	// Error is what the client would get in place of an answer. Absent when there is a choice.
	Error *Refusal `json:"error,omitempty"`
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
	// Legacy says that it has the form of the earlier service.
	Legacy bool `json:"legacy,omitempty"`
	// Organization is the policy's: "*" for everyone.
	Organization string `json:"organization,omitempty"`
	// Alias is the name that led here where that is not the model's own.
	Alias string `json:"alias,omitempty"`
	// Fallback says that it is the route of a fallback model.
	Fallback bool `json:"fallback,omitempty"`
	// Why says why this policy matched, and why it would not be walked where that is so.
	Why string `json:"why"`
	// Mark is the operator's that holds for the model and the organization.
	Mark       *policy.Mark `json:"mark,omitempty"`
	Strategy   string       `json:"strategy,omitempty"`
	Attempts   int          `json:"attempts,omitempty"`
	Candidates []Candidate  `json:"candidates"`
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
	// SharePercent is its part of the choices among the backends that stand where the first choice of the route falls, where weights
	// decide; 0 elsewhere.
	SharePercent float64 `json:"share_percent,omitempty"`
	// State is available, unhealthy, ejected, resting, full, disabled, draining or missing; Reason says what went wrong there last.
	State    string `json:"state"`
	Reason   string `json:"reason,omitempty"`
	Degraded bool   `json:"degraded,omitempty"` // by the policy or by a mark
	// Mark is the operator's on the backend.
	Mark           *policy.Mark `json:"mark,omitempty"`
	InFlight       int64        `json:"in_flight"`
	MaxConcurrency int          `json:"max_concurrency"` // its fixed bound; 0: none
}

// Try is one backend that would be tried.
type Try struct {
	Backend string `json:"backend"`
	Model   string `json:"model"`  // the public name
	Policy  string `json:"policy"` // the one by which it would be chosen
	// Asked is the backend's own name for the model.
	Asked string `json:"asked"`
	// Why says how the strategy came to it.
	Why string `json:"why"`
	// Draw says that it is one draw among several.
	Draw bool `json:"draw,omitempty"`
	// Forced says that it is ejected, and would be tried because most of the route is out.
	Forced  bool   `json:"forced,omitempty"`
	Warning string `json:"warning,omitempty"`
}

// Refusal is the error that the client would get.
type Refusal struct {
	Status  int    `json:"status"`
	Code    string `json:"code"`
	Message string `json:"message"`
	Param   string `json:"param,omitempty"`
	// RetryAfterMillis is how long the client is told to wait; 0: it is not told.
	RetryAfterMillis int64 `json:"retry_after_ms,omitempty"`
}
