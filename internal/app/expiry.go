package app

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/ai-aas/api-router/internal/policy"
)

const (
	// expireEvery is how often the marks are looked at. Replicas look at different times, so that mostly one alone has to do something.
	expireEvery = time.Second
	// expireSlowest is the longest pause after failures.
	expireSlowest = 30 * time.Second
	// expireWithin bounds what one mark takes.
	expireWithin = 5 * time.Second
)

// The entry in the history of a mark that has ended by itself.
const (
	expiryActor  = "api-router"
	expiryReason = "expired"
)

// expiry deletes the marks whose time is over from the book, so that the history tells of their end. They hold no more already: a mark
// is checked where it is used.
type expiry struct {
	log   *slog.Logger
	book  policy.Book
	table func() *policy.Table
}

// run deletes until ctx ends. Over several replicas each mark is deleted once: the book takes the first deletion alone.
func (e *expiry) run(ctx context.Context) error {
	wait, failure := expireEvery, ""
	for {
		if pause(ctx, wait/2+rand.N(wait)); ctx.Err() != nil {
			return nil
		}
		err := e.look(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			wait, failure = expireEvery, ""
		default:
			if failure != err.Error() {
				e.log.Warn("a mark that has ended cannot be deleted yet; it has no effect any more", "error", err)
			}
			wait, failure = min(2*wait, expireSlowest), err.Error()
		}
	}
}

// look deletes what has ended by now. It stops at the first that cannot be.
func (e *expiry) look(ctx context.Context) error {
	table := e.table()
	if table == nil {
		return nil
	}
	for _, m := range table.Marks() {
		if !m.Active(time.Now()) {
			if err := e.end(ctx, m.ID); err != nil {
				return err
			}
		}
	}
	return nil
}

// end deletes one mark if it is over in the book, too: the table may be behind, and somebody may have prolonged it.
func (e *expiry) end(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, expireWithin)
	defer cancel()
	found, err := e.book.Read(ctx, policy.KindMark, id)
	if errors.Is(err, policy.ErrNotFound) || err == nil && len(found) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	var m policy.Mark
	if json.Unmarshal(found[0].Content, &m) != nil || m.Active(time.Now()) {
		return nil // What is no mark any more was written by somebody since.
	}
	_, err = e.book.Write(ctx, policy.Write{
		Kind: policy.KindMark, ID: id, If: &found[0].Revision, Actor: expiryActor, Reason: expiryReason,
	})
	switch {
	case err == nil:
		e.log.Info("a mark has ended", "mark", id, "state", m.State, "backend", m.Backend, "model", m.Model, "organization", m.Organization)
		return nil
	case errors.Is(err, policy.ErrConflict), errors.Is(err, policy.ErrNotFound): // Another replica was first, or somebody prolonged it.
		return nil
	default:
		return err
	}
}
