package auth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/ai-aas/api-router/internal/disk"
)

const (
	// followFirst and followLongest bound the pauses between two attempts to follow the ledger: a revocation must come through within five
	// seconds once it is back.
	followFirst   = 100 * time.Millisecond
	followLongest = 2 * time.Second
	// flushEvery is how often last uses go to the ledger, and the table to its file.
	flushEvery = time.Minute
	// flushWithin bounds one such call.
	flushWithin = 15 * time.Second
	// lastFlush bounds the one at the end of the process.
	lastFlush = 2 * time.Second
	// gather is how long a file that is written in haste waits for more.
	gather = 200 * time.Millisecond
	// restAfterSave is how many times the time that it took to write the file passes before it is written again: a ledger that changes all
	// the time must not keep the disk busy.
	restAfterSave = 10
)

// Run follows the ledger until ctx ends: first what the file has, then the ledger itself, again and again. It returns nil.
func (k *Keys) Run(ctx context.Context) error {
	k.recall()
	var flushing sync.WaitGroup
	flushing.Go(func() { k.flush(ctx) })
	wait := followFirst
	for ctx.Err() == nil {
		began := time.Now()
		whole := false
		err := k.follow(ctx, &whole)
		if ctx.Err() != nil {
			break
		}
		if whole && time.Since(began) > followLongest {
			wait = followFirst
		}
		k.lost(err, whole)
		pause(ctx, wait/2+rand.N(wait/2))
		wait = min(2*wait, followLongest)
	}
	flushing.Wait()
	return nil
}

// follow follows the ledger once.
func (k *Keys) follow(ctx context.Context, whole *bool) error {
	t, began := k.table.Load(), time.Now().UnixMilli()
	begun := false
	begin := func() { // Attempts that come to nothing begin no generation: their number goes round.
		if !begun {
			t.generation++
			begun = true
			k.whole.Store(false)
			k.position.Store(0)
		}
	}
	seen := report{map[string]bool{}, map[string]bool{}}
	k.misfits.Store(0)
	return k.Ledger.Follow(ctx, func(c Change) {
		begin()
		if c.Position > 0 {
			k.position.Store(c.Position)
			return
		}
		k.take(t, &c, &seen)
		k.changes.Add(1)
	}, func() {
		begin()
		if gone := t.sweep(); gone > 0 {
			k.changes.Add(1)
			k.Logger.Info("keys that are not in the ledger any more were forgotten", "keys", gone)
		}
		k.heard.Store(time.Now().UnixMilli())
		k.known.Store(true)
		k.loaded.Store(began)
		k.whole.Store(true)
		k.current.Store(true)
		*whole = true
		k.wholeOnce.Do(func() { close(k.first) })
		if f := k.failure.Swap(nil); f != nil {
			k.Logger.Info("the keys are followed again", "keys", t.count.Load(), "away", time.Since(f.since).Round(time.Millisecond).String())
		} else {
			k.Logger.Info("all keys are loaded", "keys", t.count.Load())
		}
	})
}

// lost notes that the ledger is not followed any more.
func (k *Keys) lost(err error, whole bool) {
	if k.current.Load() {
		k.heard.Store(time.Now().UnixMilli())
		k.current.Store(false)
		k.hurry() // Before a report begins that may come to nothing.
	}
	if err == nil {
		err = errors.New("the ledger has ended its report")
	}
	before := k.failure.Load()
	f := &failure{err.Error(), time.Now()}
	if before != nil && !whole {
		f.since = before.since
	}
	k.failure.Store(f)
	if before == nil || before.text != f.text {
		k.Logger.Error("the keys cannot be followed: known ones go on, others get 503", "error", err)
	}
}

// maxTroubles bounds how many keys that cannot be used are logged in one report.
const maxTroubles = 20

// report is what one report of the ledger had of keys that cannot be used, by their ids.
type report struct {
	logged  map[string]bool
	misfits map[string]bool // that have no place in the table
}

// take takes one change into the table. A key that cannot be used is logged and counted.
func (k *Keys) take(t *table, c *Change, seen *report) {
	if o := c.Organization; o != nil {
		t.organize(o.ID, o.Disabled)
	}
	if id, ok := fixed(c.Gone); ok {
		t.drop(id)
	} else if seen.misfits[c.Gone] {
		delete(seen.misfits, c.Gone)
		k.misfits.Store(int64(len(seen.misfits)))
	}
	if k.whole.Load() && c.takes() {
		defer k.hurry()
	}
	if c.Key == nil {
		return
	}
	trouble := k.put(t, c.Key)
	if trouble == nil {
		return
	}
	if len(c.Key.ID) != idLength {
		seen.misfits[c.Key.ID] = true
		k.misfits.Store(int64(len(seen.misfits)))
	}
	if len(seen.logged) < maxTroubles && !seen.logged[c.Key.ID] {
		seen.logged[c.Key.ID] = true
		k.Logger.Error("a key of the ledger cannot be used", slog.String("key_id", c.Key.ID), slog.String("error", trouble.Error()))
	}
}

// takes reports whether a change may take away what somebody had.
func (c *Change) takes() bool {
	return c.Gone != "" || c.Organization != nil && c.Organization.Disabled ||
		c.Key != nil && (c.Key.Damage != "" || !c.Key.RevokedAt.IsZero() || !c.Key.ExpiresAt.IsZero())
}

// unreadable is the version of the pepper of keys that cannot be compared with anything: none has it.
const unreadable = maxPeppers + 1

// put takes a key into the table and says what is wrong with it. Such a key must not go on as it was
// before, and is no unknown one either: it is there, and cannot be judged.
func (k *Keys) put(t *table, key *Key) error {
	id, ok := fixed(key.ID)
	if !ok {
		return fmt.Errorf("its id has not %d characters", idLength)
	}
	if trouble := k.unreadable(key); trouble != nil {
		t.put(entry{id: id, grant: t.grant("", "", &Scopes{}), pepper: unreadable, unusable: true}, nil)
		return trouble
	}
	e := entry{
		id: id, digest: key.Digest, grant: t.grant(key.Organization, key.Project, &key.Scopes),
		revoked: !key.RevokedAt.IsZero(), pepper: uint8(key.Pepper),
	}
	if !key.ExpiresAt.IsZero() {
		e.expires = max(key.ExpiresAt.UnixMilli(), 1)
	}
	e.unusable = key.Pepper > 0 && k.Peppers.version(key.Pepper) == nil && !e.revoked
	t.put(e, key.Sealed)
	if e.unusable {
		return fmt.Errorf("version %d: %w", key.Pepper, errPepper)
	}
	return nil
}

// unreadable says why a key can be compared with nothing; nil if it can.
func (k *Keys) unreadable(key *Key) error {
	switch pepper := k.Peppers.version(key.Pepper); {
	case key.Damage != "":
		return errors.New(key.Damage)
	case key.Pepper < 0 || key.Pepper > maxPeppers:
		return fmt.Errorf("there is no pepper of version %d", key.Pepper)
	case pepper != nil && key.PepperMark != 0 && key.PepperMark != pepper.mark && key.RevokedAt.IsZero(): // Revoked, it is refused in any case.
		return fmt.Errorf("version %d: %w", key.Pepper, errOtherPepper)
	}
	return nil
}

func fixed(id string) (keyID, bool) {
	if len(id) != idLength {
		return keyID{}, false
	}
	return keyID([]byte(id)), true
}

// flush writes last uses to the ledger and the table to its file, about once a minute, and once more at the end. The first copy of all keys
// does not wait for a minute, nor does one that takes something away: a start without the ledger must not give it back.
func (k *Keys) flush(ctx context.Context) {
	if k.File != "" {
		disk.Tidy(k.File)
	}
	var saved int64
	first := k.first
	next := time.NewTimer(flushEvery/2 + rand.N(flushEvery))
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			k.flushUsed(context.WithoutCancel(ctx), lastFlush)
			k.save(saved)
			return
		case <-first:
			first = nil
		case <-k.hasty:
			pause(ctx, gather)
		case <-next.C:
			k.flushUsed(ctx, flushWithin)
			next.Reset(flushEvery/2 + rand.N(flushEvery))
		}
		began := time.Now()
		saved = k.save(saved)
		pause(ctx, restAfterSave*time.Since(began))
	}
}

// hurry asks for the file to be written soon.
func (k *Keys) hurry() {
	select {
	case k.hasty <- struct{}{}:
	default:
	}
}

// flushUsed tells the ledger when keys were used. What it does not take waits for the next time.
func (k *Keys) flushUsed(ctx context.Context, within time.Duration) {
	if !k.known.Load() {
		return
	}
	t := k.table.Load()
	used := t.takeUsed()
	if len(used) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	err := k.Ledger.Used(ctx, used)
	if err == nil {
		return
	}
	for text, at := range used {
		if id, ok := fixed(text); ok {
			t.use(id, at.UnixMilli())
		}
	}
	k.Logger.Warn("the last uses of keys could not be noted yet", "keys", len(used), "error", err)
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
