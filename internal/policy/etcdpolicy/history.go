package etcdpolicy

import (
	"context"
	"encoding/json"
	"errors"
	"slices"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/ai-aas/api-router/internal/policy"
)

const (
	maxHistory = 1000 // changes of one answer
	maxPast    = 100  // of them, those made past the router: each costs a call
)

// History implements policy.Book. The last 20 changes of a document that were made through a book are kept as they were made. Changes
// made past the router are found in what etcd still has of the document, which is what was not compacted: they have neither actor nor
// time, and are told of one document only. A limit of 0 or less is the largest, 1,000.
func (b *Book) History(ctx context.Context, kind policy.Kind, id string, before int64, limit int) ([]policy.Change, error) {
	if limit <= 0 {
		limit = maxHistory
	}
	limit = min(limit, maxHistory)
	if id == "" {
		return b.journal(ctx, kind, before, limit)
	}
	f, err := b.find(ctx, kind, id)
	if err != nil {
		return nil, err
	}
	t := trace{book: b, kind: kind, id: id, key: f.key, limit: limit}
	if f.kv != nil {
		t.key = string(f.kv.GetKey())
	}
	_, err = b.scan(ctx, b.history(kind, id), f.revision, func(kv *mvccpb.KeyValue) bool {
		if c, ok := changeOf(kv); ok {
			t.entries = append(t.entries, c)
		}
		return true
	})
	if err != nil {
		return nil, err
	}
	slices.Reverse(t.entries)
	at := f.revision
	if before > 0 {
		at = min(at, before-1)
	}
	err = t.walk(ctx, at)
	return t.found, err
}

// journal is the newest entries below the revision before, or of all where that is 0, of all documents or of all of a kind.
func (b *Book) journal(ctx context.Context, kind policy.Kind, before int64, limit int) ([]policy.Change, error) {
	directory := b.config.Prefix + "history/"
	if collection := kind.Collection(); collection != "" {
		directory += collection + "/"
	}
	changes := []policy.Change{}
	if before == 1 { // The store begins at 1, and 0 would mean no bound.
		return changes, nil
	}
	size := 0
	for page := min(limit, 100); len(changes) < limit && size < policy.HistoryBytes; {
		options := []clientv3.OpOption{
			clientv3.WithPrefix(), clientv3.WithLimit(int64(min(page, limit-len(changes)))),
			clientv3.WithSort(clientv3.SortByCreateRevision, clientv3.SortDescend),
		}
		if before > 0 { // The revision below which to go on.
			options = append(options, clientv3.WithMaxCreateRev(before-1))
		}
		answer, err := b.get(ctx, directory, options...)
		if errors.Is(err, errLargeAnswer) && page > 1 {
			page /= 4
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, kv := range answer.Kvs {
			before = kv.GetCreateRevision()
			if c, ok := changeOf(kv); ok {
				changes = append(changes, c)
				size += c.Size()
			}
			if size >= policy.HistoryBytes {
				break
			}
		}
		if len(answer.Kvs) == 0 || before <= 1 {
			break
		}
	}
	return changes, nil
}

// changeOf reads an entry. It says no to what is none.
func changeOf(kv *mvccpb.KeyValue) (policy.Change, bool) {
	var e entry
	if json.Unmarshal(kv.GetValue(), &e) != nil || e.Action == "" {
		return policy.Change{}, false
	}
	return policy.Change{
		Revision: kv.GetCreateRevision(), Action: e.Action, Kind: e.Kind, ID: e.ID,
		Before: e.Before, After: e.After, Actor: e.Actor, Role: e.Role, Reason: e.Reason, RequestID: e.RequestID, At: e.At.UTC(),
	}, true
}

// trace goes back through the versions of one document that etcd still has and puts them together with its entries.
type trace struct {
	book    *Book
	kind    policy.Kind
	id, key string
	limit   int
	entries []policy.Change // the newest first
	found   []policy.Change
	size    int // of found, in bytes
	past    int // of found, those without an entry
}

// full says that there is enough for one answer.
func (t *trace) full() bool {
	return len(t.found) >= t.limit || t.past >= maxPast || t.size >= policy.HistoryBytes
}

func (t *trace) add(c policy.Change) {
	t.found = append(t.found, c)
	t.size += c.Size()
}

// walk finds the changes at and below a revision, the newest first.
func (t *trace) walk(ctx context.Context, at int64) error {
	after := -1 // the index in found of a change whose Before is not known yet
	for at > 0 && (after >= 0 || !t.full()) {
		kv, err := t.version(ctx, at)
		if errors.Is(err, rpctypes.ErrCompacted) {
			t.rest(at)
			return nil
		}
		if err != nil {
			return err
		}
		if after >= 0 && kv != nil {
			t.found[after].Before = content(kv.GetValue())
			t.size += len(t.found[after].Before)
		}
		if after = -1; t.full() {
			return nil
		}
		newest, known := t.newest(at)
		switch {
		case kv != nil && known && newest.Revision == kv.GetModRevision(), kv == nil && known && newest.Action == policy.ActionDelete:
			t.add(newest)
		case kv != nil:
			c := policy.Change{Revision: kv.GetModRevision(), Action: policy.ActionCreate, Kind: t.kind, ID: t.id, After: content(kv.GetValue())}
			if kv.GetCreateRevision() != kv.GetModRevision() {
				c.Action, after = policy.ActionUpdate, len(t.found)
			}
			t.add(c)
			t.past++
		case known: // It was there, and is gone without an entry.
			c, err := t.deletion(ctx, newest, at)
			if err != nil {
				return err
			}
			t.add(c)
			t.past++
		default:
			return nil
		}
		at = t.found[len(t.found)-1].Revision - 1
	}
	return nil
}

// rest takes the entries at and below a revision that etcd knows nothing more of.
func (t *trace) rest(at int64) {
	for _, c := range t.entries {
		if c.Revision <= at && !t.full() {
			t.add(c)
		}
	}
}

// newest is the newest entry at or below a revision.
func (t *trace) newest(at int64) (policy.Change, bool) {
	i := slices.IndexFunc(t.entries, func(c policy.Change) bool { return c.Revision <= at })
	if i < 0 {
		return policy.Change{}, false
	}
	return t.entries[i], true
}

// version is the document as it was at a revision, nil where it was not there.
func (t *trace) version(ctx context.Context, at int64) (*mvccpb.KeyValue, error) {
	answer, err := t.book.get(ctx, t.key, clientv3.WithRev(at))
	if err != nil || len(answer.Kvs) == 0 {
		return nil, err
	}
	return answer.Kvs[0], nil
}

// deletion finds when a document went that was there after the change last and is not there at the revision gone. Where that was
// compacted, it gives the oldest revision that is left.
func (t *trace) deletion(ctx context.Context, last policy.Change, gone int64) (policy.Change, error) {
	c := policy.Change{Action: policy.ActionDelete, Kind: t.kind, ID: t.id, Before: last.After}
	there := last.Revision
	for gone-there > 1 {
		middle := there + (gone-there)/2
		kv, err := t.version(ctx, middle)
		switch {
		case errors.Is(err, rpctypes.ErrCompacted):
			there = middle
		case err != nil:
			return c, err
		case kv == nil:
			gone = middle
		default:
			there, c.Before = middle, content(kv.GetValue())
		}
	}
	c.Revision = gone
	return c, nil
}
