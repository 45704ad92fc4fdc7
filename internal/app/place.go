package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/ai-aas/api-router/internal/admin"
	"github.com/ai-aas/api-router/internal/adminapi"
	"github.com/ai-aas/api-router/internal/auth"
	"github.com/ai-aas/api-router/internal/gateway"
	"github.com/ai-aas/api-router/internal/policy"
	"github.com/ai-aas/api-router/internal/policy/etcdpolicy"
	"github.com/ai-aas/api-router/internal/state"
)

// place is where documents live: what is watched, and what is read and written.
type place struct {
	source policy.Source
	book   policy.Book
	// ledger is where keys are; nil where there are none.
	ledger auth.Ledger
	// identities are the same for operators, with organizations and the audit; nil where ledger is.
	identities admin.Identities
	// admins are those who may use the admin API, in the same book; nil where ledger is.
	admins auth.AdminLedger
	// kept is the state book among these; nil where there is none, and nothing in it that gets old.
	kept *state.Book
	// audited says that the audit of identities has the changes of documents, too.
	audited bool
	// writable says that the book takes changes.
	writable bool
	// health says how it is; nil where the store knows all that there is to know. public is the same for outsiders.
	health func(*adminapi.Component)
	public func() []gateway.Component
	// beside and besidePublic are the same of a state book that holds identities beside documents that are elsewhere.
	beside       func(*adminapi.Component)
	besidePublic func() []gateway.Component
	close        func() error
}

// openPlace makes the place that policy.source names. It dials nothing: a database or a cluster is reached in the background.
func openPlace(c *Config, log *slog.Logger) (*place, error) {
	switch c.Policy.Source {
	case SourceState:
		return openState(c.State, log)
	case SourceEtcd:
		return openEtcd(&c.Policy.Etcd, log)
	default:
		path := c.Policy.File.Path
		return &place{source: policy.FileSource(path), book: policy.FileBook(path), close: func() error { return nil }}, nil
	}
}

// options are those of the state book.
func (s State) options(log *slog.Logger) state.Options {
	return state.Options{URL: s.URL, Password: s.Password, Manual: s.Migrate == MigrateManual, Logger: log.With("component", "state")}
}

func openState(s State, log *slog.Logger) (*place, error) {
	book, err := state.Open(s.options(log))
	if err != nil {
		return nil, err
	}
	return &place{source: book, book: book, ledger: book, identities: book, audited: true, admins: book, kept: book, writable: true, close: book.Close, health: func(c *adminapi.Component) {
		c.State = "opening"
		switch s := book.Status(); {
		case s.Open:
			c.State, c.OK, c.DataAsOf = "open", true, time.Now()
		case s.Failure != "":
			c.State, c.LastError = "failing", s.Failure
			c.Action = upper(advice(SourceState, s.Failure)) + "."
		}
	}, public: func() []gateway.Component {
		c := gateway.Component{Name: "state", State: "opening"}
		switch s := book.Status(); {
		case s.Open:
			c.State, c.OK = "open", true
		case s.Failure != "":
			c.State = "not usable: see the log" // The reason names a path of this machine.
		}
		return []gateway.Component{c}
	}}, nil
}

func openEtcd(c *Etcd, log *slog.Logger) (*place, error) {
	book, err := etcdpolicy.New(etcdpolicy.Config{
		Endpoints: c.Endpoints, Prefix: c.Prefix, Username: c.Username, Password: c.Password, TLS: c.TLS,
		Logger: log.With("component", "etcd"),
	})
	if err != nil {
		return nil, err
	}
	return &place{source: book, book: book, writable: true, close: book.Close, health: func(c *adminapi.Component) {
		s := book.Status()
		c.State, c.Since, c.DataAsOf, c.Detail = "connecting", s.Since, s.Watched, "revision "+strconv.FormatInt(s.Revision, 10)
		switch {
		case s.Since.IsZero():
		case s.Connected:
			c.State, c.OK = "connected", true
		default:
			c.State, c.LastError = "failing", s.Failure
			c.Action = upper(advice(SourceEtcd, s.Failure)) + "."
		}
	}, public: func() []gateway.Component {
		s := book.Status()
		c := gateway.Component{Name: "etcd", State: "connecting", Since: s.Since}
		switch {
		case s.Since.IsZero():
		case s.Connected:
			c.State, c.OK = "connected", true
		default:
			c.State = "not connected: " + withoutDetails(s.Failure)
		}
		return []gateway.Component{c}
	}}, nil
}

// upper begins a sentence.
func upper(text string) string { return strings.ToUpper(text[:1]) + text[1:] }

// withoutDetails is the part of a reason that says what is wrong and not where: the status page is public, and addresses and names
// are not. What does not look like a plain sentence is left out.
func withoutDetails(reason string) string {
	plain, _, _ := strings.Cut(reason, ":")
	plain, _, _ = strings.Cut(plain, ";")
	plain, _, _ = strings.Cut(plain, " (")
	if plain == "" || strings.ContainsFunc(plain, func(c rune) bool { return (c < 'a' || c > 'z') && c != ' ' && c != '\'' && c != ',' }) {
		return "see the log"
	}
	return plain
}

const (
	// attemptWithin bounds one attempt at a call to a book that is waited for.
	attemptWithin = 5 * time.Second
	// attemptEvery is the longest pause between two.
	attemptEvery = time.Second
)

// wait returns once the book answers. At the end of ctx it returns the last reason why it does not.
func (p *place) wait(ctx context.Context) error {
	var reason error
	for pausing := 50 * time.Millisecond; ; pausing = min(2*pausing, attemptEvery) {
		attempt, cancel := context.WithTimeout(ctx, attemptWithin)
		_, err := p.book.Read(attempt, policy.KindMark, "none")
		cancel()
		if err == nil || errors.Is(err, policy.ErrNotFound) {
			return nil
		}
		if reason == nil || !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
			reason = err
		}
		if pause(ctx, pausing/2+rand.N(pausing/2)); ctx.Err() != nil {
			return fmt.Errorf("the policy source does not answer: %w", reason)
		}
	}
}
