package etcdpolicy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"reflect"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/ai-aas/api-router/internal/policy"
)

const (
	kept = 20 // entries of the history of one document
	// maxWritten bounds a document, in bytes. It goes to etcd up to three times in one request, which etcd bounds to 1.5 MiB.
	maxWritten = 400 << 10
	tries      = 60 // of a write that others come before
)

var (
	errRaced   = errors.New("another change came first")
	errUnknown = errors.New("it is not known whether the change was made")
)

// entry is one change as the history keeps it, at PREFIX + "history/" + collection + "/" + id + "/" + revision, with 20 digits.
//
// That revision is the store's when the change was decided on: the one that the change itself makes is not known before. It is the
// revision at which etcd creates the entry, for document and entry are written in one transaction, and read from there. The
// transaction fails if the document has got an entry since the revision in the key, so keys are unique and in the order of the changes.
type entry struct {
	Action policy.Action   `json:"action"`
	Kind   policy.Kind     `json:"kind"`
	ID     string          `json:"id"`
	Before json.RawMessage `json:"before"`
	After  json.RawMessage `json:"after"`
	Actor  string          `json:"actor"`
	Reason string          `json:"reason,omitempty"`
	At     time.Time       `json:"at"`
	// Entries of an earlier version lack these.
	Role      string `json:"role,omitempty"`
	RequestID string `json:"request_id,omitempty"`
}

// history is what the keys of a document's history begin with. An id is escaped: that of a document which is in no order may be anything.
func (b *Book) history(kind policy.Kind, id string) string {
	return b.config.Prefix + "history/" + kind.Collection() + "/" + url.PathEscape(id) + "/"
}

// numbered is the key of an entry in a document's history.
func numbered(directory string, number int64) string {
	return fmt.Sprintf("%s%020d", directory, number)
}

// Write implements policy.Book. A policy that stands at a key of the earlier service moves to the key of its id when it is changed.
// An error that is none of policy's may mean that the change was made and only the answer was lost.
func (b *Book) Write(ctx context.Context, change policy.Write) (policy.Stored, error) {
	switch {
	case change.Kind.Collection() == "" || change.ID == "":
		return policy.Stored{}, policy.ErrNotFound
	case change.Content != nil && !json.Valid(change.Content):
		return policy.Stored{}, errors.New("the content is no JSON")
	case len(change.Content) > maxWritten:
		return policy.Stored{}, fmt.Errorf("the document is larger than %d KiB", maxWritten>>10)
	case change.Content != nil && strings.Contains(change.ID, "/"):
		return policy.Stored{}, errors.New(`an id has no "/"`)
	}
	for try := range tries {
		stored, err := b.attempt(ctx, change)
		if !errors.Is(err, errRaced) {
			return stored, err
		}
		select {
		case <-ctx.Done():
			return policy.Stored{}, ctx.Err()
		case <-time.After(between(0, time.Duration(try+1)*2*time.Millisecond)):
		}
	}
	return policy.Stored{}, fmt.Errorf("%w: %w, %d times", policy.ErrConflict, errRaced, tries)
}

// attempt makes the change unless another one comes between its reading and its writing.
func (b *Book) attempt(ctx context.Context, change policy.Write) (policy.Stored, error) {
	f, err := b.find(ctx, change.Kind, change.ID)
	if err != nil {
		return policy.Stored{}, err
	}
	switch {
	case change.If != nil && *change.If != f.kv.GetModRevision():
		return policy.Stored{}, policy.ErrConflict
	case f.kv == nil && change.Content == nil:
		return policy.Stored{}, policy.ErrNotFound
	case f.kv != nil && change.Content != nil && same(f.kv.GetValue(), change.Content):
		return b.stored(f.kv), nil
	}
	note, err := f.entry(change)
	if err != nil {
		return policy.Stored{}, err
	}
	directory := b.history(change.Kind, change.ID)
	conditions := []clientv3.Cmp{
		clientv3.Compare(clientv3.ModRevision(directory), "<", f.revision+1).WithPrefix(), // That of none is 0.
	}
	number := f.revision
	n := len(f.trail)
	if n > 0 { // In an etcd that the documents were copied into, its revisions may be below those in the keys.
		number = max(number, f.trail[n-1]+1)
	}
	operations := []clientv3.Op{clientv3.OpPut(numbered(directory, number), string(note))}
	if n >= kept {
		operations = append(operations, clientv3.OpDelete(directory, clientv3.WithRange(numbered(directory, f.trail[n-kept+1]))))
	}
	if place := string(f.kv.GetKey()); f.kv != nil {
		conditions = append(conditions, clientv3.Compare(clientv3.ModRevision(place), "=", f.kv.GetModRevision()))
		if place != f.key || change.Content == nil {
			operations = append(operations, clientv3.OpDelete(place))
		}
	}
	if change.Content != nil {
		if string(f.kv.GetKey()) != f.key {
			conditions = append(conditions, clientv3.Compare(clientv3.CreateRevision(f.key), "=", 0))
		}
		operations = append(operations, clientv3.OpPut(f.key, string(change.Content)))
	}
	revision, err := b.commit(ctx, conditions, operations)
	if err != nil {
		return policy.Stored{}, err
	}
	if change.Content == nil {
		return b.stored(f.kv), nil
	}
	return b.stored(&mvccpb.KeyValue{Key: []byte(f.key), Value: change.Content, ModRevision: revision}), nil
}

// entry is the change for the history.
func (f finding) entry(change policy.Write) ([]byte, error) {
	e := entry{
		Action: policy.ActionUpdate, Kind: change.Kind, ID: change.ID, After: change.Content,
		Actor: change.Actor, Role: change.Role, Reason: change.Reason, RequestID: change.RequestID, At: time.Now().UTC(),
	}
	switch {
	case f.kv == nil:
		e.Action = policy.ActionCreate
	case change.Content == nil:
		e.Action = policy.ActionDelete
		fallthrough
	default:
		e.Before = content(f.kv.GetValue())
		if len(e.Before) > maxWritten { // It was put past the router, and it must not keep anybody from mending it.
			e.Before = fmt.Appendf(nil, `"%d bytes, too large for the history"`, len(e.Before))
		}
	}
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false) // It would make some documents six times as large, and etcd has a limit.
	err := encoder.Encode(e)
	return text.Bytes(), err
}

// commit returns the revision of the transaction.
func (b *Book) commit(ctx context.Context, conditions []clientv3.Cmp, operations []clientv3.Op) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, b.config.Timeout)
	defer cancel()
	client, err := b.link.open(ctx)
	if err != nil {
		return 0, err
	}
	answer, err := client.Txn(ctx).If(conditions...).Then(operations...).Commit()
	switch {
	case errors.Is(err, errNoAnswer), errors.Is(err, errBroken):
		return 0, fmt.Errorf("%w: %w", errUnknown, err)
	case err != nil:
		return 0, err
	case !answer.Succeeded:
		return 0, errRaced
	}
	return answer.Header.GetRevision(), nil
}

// same says that two texts are the same JSON value: white space and the order of fields aside. Numbers are compared as they are written.
func same(a, b []byte) bool {
	if bytes.Equal(a, b) {
		return true
	}
	left, leftErr := decode(a)
	right, rightErr := decode(b)
	return leftErr == nil && rightErr == nil && reflect.DeepEqual(left, right)
}

func decode(text []byte) (any, error) {
	if !json.Valid(text) { // A decoder stops after the first value.
		return nil, errors.New("no JSON")
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var value any
	err := decoder.Decode(&value)
	return value, err
}
