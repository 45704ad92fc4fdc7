package etcdpolicy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/ai-aas/api-router/internal/policy"
)

const (
	// gather is how long the first change after a rest waits for those that come with it, rest is the least time between two snapshots.
	gather, rest = 20 * time.Millisecond, 100 * time.Millisecond
	// checkEvery is how often the watch is held to what a majority of etcd says.
	checkEvery = 2 * time.Second
)

var (
	// errAnew ends one reading of the whole for another at once.
	errAnew   = errors.New("the documents have to be read anew")
	errSilent = errors.New("the watch of etcd is silent, although there are changes")
	errBack   = errors.New("etcd is at an older revision than before: it was restored")
	errLost   = errors.New("etcd is at an older revision than before and has no documents: it has lost them; what is in force stays until there is one")
)

// Watch implements policy.Source. A change is published within about a tenth of a second; several that come together are published as one.
//
// It reads all documents at one revision and follows the changes from there. When anything goes wrong it returns, and the next call
// reads everything again: a watch that resumed by itself would wait in silence at a server that came back with other data. That is
// why it does not use clientv3's own watcher, which also keeps without bound what nobody takes.
func (b *Book) Watch(ctx context.Context, publish func(policy.Snapshot)) error {
	for {
		err := b.follow(ctx, publish)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, errNoAnswer), errors.Is(err, errSilent):
			b.link.sever()
			return err
		case !errors.Is(err, errAnew) && !errors.Is(err, rpctypes.ErrCompacted):
			return err
		}
		b.config.Logger.Debug("the documents in etcd are read anew", "reason", err)
		select {
		case <-ctx.Done():
		case <-time.After(between(rest/2, rest)):
		}
	}
}

// between is a random time, so that many routers do not come at once.
func between(least, most time.Duration) time.Duration { return least + rand.N(most-least) }

// follow publishes the whole and then each change, until something is wrong.
func (b *Book) follow(ctx context.Context, publish func(policy.Snapshot)) error {
	l, err := b.load(ctx)
	if err != nil {
		return err
	}
	if before := b.known.Load(); before != nil && before.documents > 0 && len(l.entries) == 0 && l.revision < before.revision {
		return errLost // Nobody has deleted them: an etcd with a new, empty disk must not switch everything off.
	}
	reached := l.revision
	tell := func() {
		b.known.Store(&known{reached, len(l.entries)})
		publish(l.snapshot())
	}
	tell()
	ctx, cancel := context.WithCancel(ctx)
	w := b.subscribe(ctx, l.revision+1)
	defer func() { cancel(); <-w.ended }()

	check := time.NewTimer(between(checkEvery/2, checkEvery))
	defer check.Stop()
	due := time.NewTimer(0) // the next publication
	due.Stop()
	defer due.Stop()
	published := time.Now()
	for armed := false; ; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.ended:
			return w.failure
		case answer := <-w.answers:
			if err := w.take(answer, l); err != nil {
				return err
			}
			reached = max(reached, answer.GetHeader().GetRevision())
			b.link.state.heard(answer.GetHeader().GetRevision())
			if !armed && len(l.pending) > 0 && !answer.GetFragment() { // A fragment is a part of one revision.
				due.Reset(max(gather, rest-time.Since(published)))
				armed = true
			}
		case <-due.C:
			armed = false
			if err := l.apply(); err != nil {
				return err
			}
			published = time.Now()
			tell()
		case <-check.C:
			if err := w.check(ctx); err != nil {
				return err
			}
			check.Reset(between(checkEvery/2, checkEvery))
		}
	}
}

// known is what was published last, and the revision that etcd was at.
type known struct {
	revision  int64
	documents int
}

// ledger is the documents that one Watch knows, by key.
type ledger struct {
	book     *Book
	revision int64
	entries  map[string]held
	pending  map[string]*mvccpb.KeyValue // the newest of each changed key, nil where it was deleted
	over     bool                        // there are more documents than are held
}

// held is what stands at one key.
type held struct {
	document policy.Document
	problems []policy.Problem // where there are any, there is no document
}

// load reads all documents at one revision. Marks come first: where there are too many documents, what is switched off stays so.
func (b *Book) load(ctx context.Context) (*ledger, error) {
	l := &ledger{book: b, entries: map[string]held{}, pending: map[string]*mvccpb.KeyValue{}}
	for _, kind := range []policy.Kind{policy.KindMark, policy.KindBackend, policy.KindRoutingPolicy, policy.KindPrice} {
		revision, err := b.scan(ctx, b.directory(kind), l.revision, l.put)
		if err != nil {
			return nil, err
		}
		l.revision = revision
	}
	return l, nil
}

// put sets what stands at a key. It says no when there is no room.
func (l *ledger) put(kv *mvccpb.KeyValue) bool {
	key := string(kv.Key)
	if _, known := l.entries[key]; !known && len(l.entries) >= policy.MaxDocuments {
		l.over = true
		return false
	}
	document, problems := l.book.parse(kv)
	l.entries[key] = held{document, problems}
	return true
}

// apply takes in what is pending. Beyond the bound, only reading everything tells which documents are the first.
func (l *ledger) apply() error {
	for key, kv := range l.pending {
		_, known := l.entries[key]
		switch {
		case l.over && known != (kv != nil):
			return errAnew
		case kv == nil:
			delete(l.entries, key)
		case !l.put(kv):
			return errAnew
		}
	}
	clear(l.pending)
	return nil
}

func (l *ledger) snapshot() policy.Snapshot {
	s := policy.Snapshot{Origin: "etcd " + l.book.config.Prefix, Documents: make([]policy.Document, 0, len(l.entries))}
	for _, key := range slices.Sorted(maps.Keys(l.entries)) {
		e := l.entries[key]
		s.Problems = append(s.Problems, e.problems...)
		if len(e.problems) > 0 {
			continue
		}
		kind, id := e.document.Kind(), e.document.ID()
		own := l.book.directory(kind) + id
		if first, there := l.entries[own]; there && own != key && len(first.problems) == 0 { // As Read has it.
			s.Problems = append(s.Problems, policy.Problem{
				Kind: kind, ID: id, File: key, Message: fmt.Sprintf("this id is already used by the %s at %s", kind, own),
			})
			continue
		}
		s.Documents = append(s.Documents, e.document)
	}
	if l.over {
		s.Problems = append(s.Problems, policy.Problem{
			File:    l.book.config.Prefix,
			Message: fmt.Sprintf("there are more than %d documents: the others are not read", policy.MaxDocuments),
		})
	}
	return s
}

// subscription is a stream of changes, one watch for each kind on it.
type subscription struct {
	book    *Book
	answers chan *etcdserverpb.WatchResponse
	ended   chan struct{} // closed when the stream is at its end, which failure tells
	failure error

	// The rest belongs to the goroutine that takes the answers.
	stream  etcdserverpb.Watch_WatchClient
	opened  chan etcdserverpb.Watch_WatchClient
	begun   time.Time
	created int
	seen    int64     // the revision up to which the watch has told everything
	asked   time.Time // since when it is known that there is more than that; zero: it is not
}

// subscribe opens a stream of changes from a revision on. It does not wait for it.
func (b *Book) subscribe(ctx context.Context, from int64) *subscription {
	w := &subscription{
		book: b, begun: time.Now(), seen: from - 1,
		answers: make(chan *etcdserverpb.WatchResponse), ended: make(chan struct{}), opened: make(chan etcdserverpb.Watch_WatchClient, 1),
	}
	go func() {
		defer close(w.ended)
		w.failure = b.link.explain(ctx, w.receive(ctx, from))
		b.link.note(ctx, nil, w.failure)
	}()
	return w
}

func (w *subscription) receive(ctx context.Context, from int64) error {
	client, err := w.book.link.open(ctx)
	if err != nil {
		return err
	}
	stream, err := etcdserverpb.NewWatchClient(client.ActiveConnection()).Watch(clientv3.WithRequireLeader(ctx))
	if err != nil {
		return err
	}
	for i, kind := range policy.Kinds() {
		directory := w.book.directory(kind)
		err := stream.Send(&etcdserverpb.WatchRequest{RequestUnion: &etcdserverpb.WatchRequest_CreateRequest{CreateRequest: &etcdserverpb.WatchCreateRequest{
			Key: []byte(directory), RangeEnd: []byte(clientv3.GetPrefixRangeEnd(directory)), StartRevision: from,
			WatchId: int64(i + 1), ProgressNotify: true, Fragment: true,
		}}})
		if err != nil {
			break // Recv tells why.
		}
	}
	w.opened <- stream
	for {
		answer, err := stream.Recv()
		if err != nil {
			return err
		}
		select {
		case w.answers <- answer:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// take notes the changes of one answer.
func (w *subscription) take(answer *etcdserverpb.WatchResponse, l *ledger) error {
	switch {
	case answer.GetCompactRevision() != 0:
		return rpctypes.ErrCompacted
	case answer.GetCanceled():
		return fmt.Errorf("etcd ended the watch: %s", answer.GetCancelReason())
	case answer.GetCreated():
		w.created++
		return nil // Its revision is the store's, not that of what was told.
	}
	for _, event := range answer.GetEvents() {
		kv := event.GetKv()
		if event.GetType() == mvccpb.Event_DELETE {
			l.pending[string(kv.GetKey())] = nil
		} else {
			l.pending[string(kv.GetKey())] = kv
		}
	}
	if len(l.pending) > 2*policy.MaxDocuments {
		return errAnew
	}
	w.seen = max(w.seen, answer.GetHeader().GetRevision())
	return nil
}

// check finds out whether the watch lives: whether it gets to the revision that a majority of etcd is at.
func (w *subscription) check(ctx context.Context) error {
	patience := w.book.config.Timeout
	if w.created < len(policy.Kinds()) {
		if time.Since(w.begun) > patience {
			return errNoAnswer
		}
		return nil
	}
	head, err := w.book.head(ctx)
	if err != nil {
		return err
	}
	switch {
	case head < w.seen: // What a majority agrees on never goes back. The watch waits for revisions that are yet to come.
		return fmt.Errorf("%w (%d after %d)", errBack, head, w.seen)
	case head == w.seen:
		w.asked = time.Time{}
		return nil
	case w.asked.IsZero():
		w.asked = time.Now()
	case time.Since(w.asked) > patience+checkEvery:
		return fmt.Errorf("%w: it told of revision %d, and etcd is at %d", errSilent, w.seen, head)
	}
	// The changes in between may all be other keys'. Asked for its progress, a watch that lives answers with its revision.
	if w.stream == nil {
		w.stream = <-w.opened // It is there: watches have been created on it.
	}
	_ = w.stream.Send(&etcdserverpb.WatchRequest{RequestUnion: &etcdserverpb.WatchRequest_ProgressRequest{ProgressRequest: &etcdserverpb.WatchProgressRequest{}}}) // receive tells of a stream that ended.
	return nil
}
