package app

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/ai-aas/api-router/internal/policy"
)

// devActor is what the history calls dev where it wrote a document by itself: not what it calls a user without a token.
const devActor = "api-router"

// keepWithin bounds one pass of a keeper over its book.
const keepWithin = 15 * time.Second

// keeper writes dev's own documents into its book. What the user wrote there stays: of the documents that somebody else changed last,
// dev writes only backends, whose addresses are new at each start. Documents of its own that it has no more go.
type keeper struct {
	log  *slog.Logger
	book policy.Book
}

// keep makes the book hold wanted.
func (k *keeper) keep(ctx context.Context, wanted []policy.Document) error {
	ctx, cancel := context.WithTimeout(ctx, keepWithin)
	defer cancel()
	named := map[policy.Kind]map[string]bool{policy.KindBackend: {}, policy.KindRoutingPolicy: {}}
	for _, d := range wanted {
		named[d.Kind()][d.ID()] = true
		if err := k.put(ctx, d); err != nil {
			return err
		}
	}
	for kind, ids := range named {
		all, err := k.book.Read(ctx, kind, "")
		if err != nil {
			return err
		}
		for _, s := range all {
			if ids[s.ID] {
				continue
			}
			if mine, err := k.mine(ctx, kind, s.ID); err != nil || !mine {
				if err != nil {
					return err
				}
				continue
			}
			_, err := k.book.Write(ctx, policy.Write{Kind: kind, ID: s.ID, If: &s.Revision, Actor: devActor, Reason: "it belonged to an earlier start"})
			if err != nil && !errors.Is(err, policy.ErrConflict) && !errors.Is(err, policy.ErrNotFound) {
				return err
			}
		}
	}
	return nil
}

// put writes one document unless it stands there already, or is the user's.
func (k *keeper) put(ctx context.Context, d policy.Document) error {
	content, err := policy.JSON(d)
	if err != nil {
		return err
	}
	w := policy.Write{Kind: d.Kind(), ID: d.ID(), Content: content, If: new(int64), Actor: devActor}
	found, err := k.book.Read(ctx, w.Kind, w.ID)
	switch {
	case errors.Is(err, policy.ErrNotFound):
	case err != nil:
		return err
	default:
		w.If = &found[0].Revision
		if w.Kind == policy.KindBackend {
			break
		}
		if mine, err := k.mine(ctx, w.Kind, w.ID); err != nil || !mine {
			return err
		}
	}
	if _, err = k.book.Write(ctx, w); errors.Is(err, policy.ErrConflict) { // The user was faster.
		return nil
	}
	return err
}

// mine reports whether dev was the last to change a document.
func (k *keeper) mine(ctx context.Context, kind policy.Kind, id string) (bool, error) {
	changes, err := k.book.History(ctx, kind, id, 0, 1)
	if err != nil {
		return false, err
	}
	return len(changes) > 0 && changes[0].Actor == devActor, nil
}

// follow keeps what a source publishes, the newest state alone, until ctx ends.
func (k *keeper) follow(source policy.Source) func(context.Context) error {
	return func(ctx context.Context) error {
		snapshots := make(chan policy.Snapshot, 1)
		watched := make(chan struct{})
		go func() {
			defer close(watched)
			_ = source.Watch(ctx, func(s policy.Snapshot) {
				select {
				case <-snapshots:
				default:
				}
				snapshots <- s // There is room: only this goroutine sends.
			})
		}()
		defer func() { <-watched }()
		for {
			select {
			case <-ctx.Done():
				return nil
			case s := <-snapshots:
				k.persist(ctx, s, snapshots)
			}
		}
	}
}

// persist keeps one state, again and again until that succeeds or there is a newer one.
func (k *keeper) persist(ctx context.Context, s policy.Snapshot, newer <-chan policy.Snapshot) {
	for wait := 100 * time.Millisecond; ctx.Err() == nil && len(newer) == 0; wait = min(2*wait, 5*time.Second) {
		err := k.keep(ctx, s.Documents)
		if err == nil || ctx.Err() != nil {
			return
		}
		k.log.Warn("what the backends say cannot be written into the state book yet", "error", err)
		pause(ctx, wait/2+rand.N(wait/2))
	}
}
