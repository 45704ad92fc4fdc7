// Package admin is the operators' door: it serves the admin API under /admin/v1, the console, /status and profiles, on a listener of its own.
//
// routes.go is the page to read first: it lists what the API has and who may use it; pages.go lists the rest. api/openapi.yaml describes it for clients.
package admin

import (
	"context"
	"hash/maphash"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ai-aas/api-router/internal/adminapi"
	"github.com/ai-aas/api-router/internal/auth"
	"github.com/ai-aas/api-router/internal/fleet"
	"github.com/ai-aas/api-router/internal/plan"
	"github.com/ai-aas/api-router/internal/policy"
	"github.com/ai-aas/api-router/internal/usage"
)

const (
	bookTimeout  = 5 * time.Second  // for one call to the book
	bodyTimeout  = 30 * time.Second // for a client to send its body
	writeTimeout = time.Minute      // for a client to read its answer
)

// Options are what the admin API shows and changes. Logger, Table, Fleet, Decider, Health, Level and
// Recent are required, and Tokens unless Open is set.
type Options struct {
	Logger *slog.Logger
	// Tokens say who is let in, and as what: those that are valid now.
	Tokens func() []Token
	// Configured are the names of all tokens of the configuration, valid or not.
	Configured []string
	// AdminOf says whose a token of the state book's admins is; nil: there is no such book. Its errors are faults.
	AdminOf func(token string) (auth.Admin, error)
	// Bearer says who shows a signed token, and which roles are theirs, for what is none of Tokens; nil: there are no others. Its errors are faults.
	Bearer func(ctx context.Context, token string) (name string, roles []string, err error)
	// Open lets everybody on this machine in, as the admin "dev", and asks for no token. For development alone.
	Open bool

	// Book is where documents are read and written; nil: there is none, and nothing can be written.
	Book policy.Book
	// Identities are where organizations and their keys are; nil: there are none, and nothing of them is served.
	Identities Identities
	// Audited says that the audit of Identities has the changes of documents, too: they are in the same book. Otherwise it is Book that tells of them.
	Audited bool
	// Mint makes a key anew: its id, its digest and what its requests are signed with. Nil: there is no pepper, and no key can be made.
	Mint func(k *auth.Key) (key, signing auth.Secret, err error)
	// Seal keeps a signing secret for the key with that id. Nil where Mint is.
	Seal func(id string, signing auth.Secret) ([]byte, error)
	// Table is what requests are served by; it gives nil until there is one.
	Table   func() *policy.Table
	Fleet   func() []fleet.Status
	Decider *plan.Decider
	// Health says how the process is, component by component.
	Health func() adminapi.Health
	// Level is what the process logs.
	Level interface {
		Get() adminapi.LogLevel
		// Set holds for a time, or for good when hold is 0. It tells what held before, too. Its error says what is wrong with level.
		Set(level string, hold time.Duration, who string) (before, now adminapi.LogLevel, err error)
	}
	// Name tells this router from others, as the audit does that of a log level: an id. "": it has none.
	Name string
	// Recent returns the latest requests, at most limit, the newest first.
	Recent func(limit int) []usage.Record
	// Description is api/openapi.yaml, which describes this API.
	Description []byte
	// Metrics is where the door's metrics are registered; nil: nowhere.
	Metrics prometheus.Registerer
}

// Admin is the handler of the admin listener.
type Admin struct {
	Options
	routes  []route
	pages   map[string]route // by path
	origins *http.CrossOriginProtection
	guesses guesses
	profile recording
	metrics *metrics
}

// New returns an Admin. It starts nothing.
func New(options Options) *Admin {
	a := &Admin{Options: options, origins: http.NewCrossOriginProtection(), guesses: guesses{seed: maphash.MakeSeed()}, metrics: newMetrics(options.Metrics)}
	a.routes, a.pages = a.table(), a.pageTable()
	return a
}

var _ http.Handler = (*Admin)(nil)
