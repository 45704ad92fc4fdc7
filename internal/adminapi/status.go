package adminapi

import (
	"context"
	"net/http"
	"time"
)

// The states of a router as a whole.
const (
	StateStarting = "starting" // it has no policies yet
	StateReady    = "ready"
	StateDraining = "draining" // it serves on, and is about to end
)

// The components of a router.
const (
	ComponentProcess         = "process"
	ComponentPolicy          = "policy"
	ComponentPolicySource    = "policy_source"
	ComponentBackend         = "backend"
	ComponentMarks           = "marks"
	ComponentStateBook       = "state_book"
	ComponentUsageSink       = "usage_sink"
	ComponentIdentity        = "identity"
	ComponentBodyMemory      = "body_memory"
	ComponentAdminToken      = "admin_token"
	ComponentAdmins          = "admins"
	ComponentCertificate     = "listener_certificate"
	ComponentMetricsListener = "metrics_listener"
	ComponentTelemetry       = "telemetry"
)

// Health is a router, component by component.
type Health struct {
	// State is starting, ready or draining.
	State   string `json:"state"`
	Version string `json:"version"`
	// At is when it was asked, Since when the process started.
	At            time.Time `json:"at"`
	Since         time.Time `json:"since"`
	UptimeSeconds float64   `json:"uptime_seconds"`
	// Attention counts the components that need a person.
	Attention  int         `json:"attention"`
	Components []Component `json:"components"`
}

// Component is one part of a router, or one thing that it depends on.
type Component struct {
	Name string `json:"name"`
	// ID tells components of one name apart: a backend's id, a sink's path.
	ID string `json:"id,omitempty"`
	// State is a word or two, Detail what else there is to know.
	State  string `json:"state"`
	Detail string `json:"detail,omitempty"`
	// OK says that it works as it is meant to. What is not OK and has no Action is expected to mend itself.
	OK bool `json:"ok"`
	// Since is when it came into that state, if that is known.
	Since     time.Time `json:"since,omitzero"`
	LastError string    `json:"last_error,omitempty"`
	// DataAsOf is when what the component knows was last confirmed, AgeSeconds how long ago that was; absent where it knows nothing that ages.
	DataAsOf   time.Time `json:"data_as_of,omitzero"`
	AgeSeconds *float64  `json:"age_seconds,omitempty"`
	// Action says what a person has to do; empty: nothing.
	Action string `json:"action"`
}

// LogLevel is the least severe level that is logged.
type LogLevel struct {
	Level string `json:"level"` // debug, info, warn, error
	// Until is when it goes back to Then by itself; zero: it stays.
	Until time.Time `json:"until,omitzero"`
	Then  string    `json:"then,omitempty"`
	// Actor is who set it; empty: the configuration.
	Actor string `json:"actor,omitempty"`
}

// LogLevelRequest sets the log level.
type LogLevelRequest struct {
	Level string `json:"level"`
	// For is how long; absent: until it is set again or the process ends.
	For Duration `json:"for,omitzero"`
}

// Status returns how the router is, component by component.
func (c *Client) Status(ctx context.Context) (Health, error) {
	return ask[Health](ctx, c, request{method: http.MethodGet, path: []string{"status"}})
}

// LogLevel returns what is logged.
func (c *Client) LogLevel(ctx context.Context) (LogLevel, error) {
	return ask[LogLevel](ctx, c, request{method: http.MethodGet, path: []string{"log-level"}})
}

// SetLogLevel changes what is logged.
func (c *Client) SetLogLevel(ctx context.Context, want LogLevelRequest) (LogLevel, error) {
	return send[LogLevel](ctx, c, http.MethodPut, want, "log-level")
}
