package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/ai-aas/api-router/internal/state"
)

// Migrate brings the tables of the state book up to date, and prints what it did. Where the database does not answer it is tried again
// for as long as wait. Several may do it at once.
func Migrate(ctx context.Context, p Process, sources Sources, wait time.Duration) error {
	config, _, err := Load(sources)
	if err != nil {
		return err
	}
	if !config.hasBook() { // Else a command that somebody gave without the configuration would make a book that nobody reads.
		return errors.New("this configuration has no state book: name its file with --config, or the book with state.url (API_ROUTER_STATE_URL, --state)")
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	for pausing := 50 * time.Millisecond; ; pausing = min(2*pausing, attemptEvery) {
		place, steps, err := state.Migrate(ctx, config.State.options(slog.New(slog.DiscardHandler)))
		for _, s := range steps {
			fmt.Fprintf(p.Stdout, "%s: version %d (%s) in %s\n", place, s.Version, s.Name, s.Took.Round(time.Millisecond))
		}
		switch {
		case err == nil && len(steps) == 0:
			fmt.Fprintf(p.Stdout, "%s: nothing to do\n", place)
			return nil
		case err == nil, state.IsFinal(err):
			return err
		}
		if pause(ctx, pausing/2+rand.N(pausing/2)); ctx.Err() != nil {
			return err
		}
	}
}
