// Package etcdpolicy keeps policy documents in etcd: a policy.Source that watches them and a policy.Book that reads and writes them.
//
// A document is the JSON at PREFIX + collection + "/" + id, such as /api-router/policies/global-gpt-oss-20b. Beside it stands its history,
// at PREFIX + "history/" + collection + "/" + id + "/" + revision: see entry. Everything else below the prefix is left alone.
package etcdpolicy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/ai-aas/api-router/internal/policy"
)

const (
	maxValue = 256 << 10 // bytes of one document
	fullPage = 1000      // keys of one answer to begin with
)

// Book is the documents in one etcd. Its methods may be called from any goroutine.
type Book struct {
	config Config
	link   *link
	known  atomic.Pointer[known]
}

var (
	_ policy.Source = (*Book)(nil)
	_ policy.Book   = (*Book)(nil)
)

// New checks the configuration and returns a book that connects with its first call. Close ends it.
func New(config Config) (*Book, error) {
	if err := config.settle(); err != nil {
		return nil, fmt.Errorf("etcd: %w", err)
	}
	return &Book{config: config, link: newLink(config)}, nil
}

// Close ends the connections and every call that is under way.
func (b *Book) Close() error { return b.link.close() }

// Status is what is known of etcd, without asking it.
func (b *Book) Status() Status { return b.link.state.get() }

// Wait returns when etcd has answered, and otherwise at the end of ctx with the last reason why it has not.
func (b *Book) Wait(ctx context.Context) error {
	for {
		_, err := b.head(ctx)
		if err == nil || errors.Is(err, errClosed) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waited for etcd: %w", err)
		case <-time.After(between(100*time.Millisecond, 300*time.Millisecond)):
		}
	}
}

// head asks a majority of etcd for the newest revision of the store.
func (b *Book) head(ctx context.Context) (int64, error) {
	answer, err := b.get(ctx, b.directory(policy.KindBackend), clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil {
		return 0, err
	}
	return answer.Header.GetRevision(), nil
}

func (b *Book) get(ctx context.Context, key string, options ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, b.config.Timeout)
	defer cancel()
	client, err := b.link.open(ctx)
	if err != nil {
		return nil, err
	}
	return client.Get(ctx, key, options...)
}

// directory is what the keys of a kind begin with.
func (b *Book) directory(kind policy.Kind) string { return b.config.Prefix + kind.Collection() + "/" }

// name tells the kind and the id of a key. At a key of the earlier service, PREFIXpolicies/ORGANIZATION/MODEL, what stands for the id has
// a "/": only the content tells the real one.
func (b *Book) name(key string) (kind policy.Kind, id string) {
	collection, id, _ := strings.Cut(strings.TrimPrefix(key, b.config.Prefix), "/")
	kind, _ = policy.KindOf(collection)
	return kind, id
}

// scan calls each with every key below directory, all of one revision, which it returns. At 0 it is the newest. It stops
// when each returns false.
func (b *Book) scan(ctx context.Context, directory string, revision int64, each func(*mvccpb.KeyValue) bool, options ...clientv3.OpOption) (int64, error) {
	key, end := directory, clientv3.GetPrefixRangeEnd(directory)
	for page := int64(fullPage); ; {
		answer, err := b.get(ctx, key, append(options, clientv3.WithRange(end), clientv3.WithLimit(page), clientv3.WithRev(revision))...)
		if errors.Is(err, errLargeAnswer) && page > 1 {
			page /= 4
			continue
		}
		if err != nil {
			return 0, err
		}
		if revision == 0 {
			revision = answer.Header.GetRevision()
		}
		for _, kv := range answer.Kvs {
			if !each(kv) {
				return revision, nil
			}
		}
		if !answer.More || len(answer.Kvs) == 0 {
			return revision, nil
		}
		key = string(answer.Kvs[len(answer.Kvs)-1].Key) + "\x00"
	}
}

// parse reads the document at a key.
func (b *Book) parse(kv *mvccpb.KeyValue) (policy.Document, []policy.Problem) {
	place := string(kv.Key)
	kind, id := b.name(place)
	switch {
	case len(kv.Value) > maxValue:
		return policy.Document{}, []policy.Problem{{Kind: kind, ID: plain(id), File: place, Message: fmt.Sprintf("the document is larger than %d KiB", maxValue>>10)}}
	case id == "":
		return policy.Document{}, []policy.Problem{{Kind: kind, File: place, Message: "the key names no document"}}
	}
	document, problems := policy.ParseOne(place, kind, id, kv.Value)
	if len(problems) == 0 {
		document.File, document.Revision = place, kv.ModRevision
	}
	return document, problems
}

// plain is an id that can be one, or "".
func plain(id string) string {
	if strings.Contains(id, "/") {
		return ""
	}
	return id
}

// stored is the document at a key as a book shows it.
func (b *Book) stored(kv *mvccpb.KeyValue) policy.Stored {
	place := string(kv.Key)
	kind, id := b.name(place)
	s := policy.Stored{Kind: kind, ID: id, Place: place, Revision: kv.ModRevision, Content: content(kv.Value)}
	document, problems := b.parse(kv)
	s.Legacy = document.Legacy
	switch {
	case len(problems) == 0:
		s.ID = document.ID()
	case plain(id) == "" && problems[0].ID != "":
		s.ID = problems[0].ID
	}
	return s
}

// content is a value as JSON: a document in YAML becomes one in JSON, and what is no document the JSON string of it.
func content(value []byte) json.RawMessage {
	if json.Valid(value) {
		return json.RawMessage(value)
	}
	if object, err := policy.ToJSON(value); err == nil && object[0] == '{' {
		return object
	}
	quoted, err := json.Marshal(string(value[:min(len(value), maxValue)]))
	if err != nil { // Every string can be JSON.
		panic("etcdpolicy: " + err.Error())
	}
	return quoted
}
