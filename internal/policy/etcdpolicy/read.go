package etcdpolicy

import (
	"cmp"
	"context"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/ai-aas/api-router/internal/policy"
)

// Read implements policy.Book. It reads what a majority of etcd agrees on. A policy of the earlier service whose key is not its id
// is found by its id all the same; of two documents with one id, the one at the key of that id.
func (b *Book) Read(ctx context.Context, kind policy.Kind, id string) ([]policy.Stored, error) {
	if id != "" {
		found, err := b.find(ctx, kind, id)
		if err != nil {
			return nil, err
		}
		if found.kv == nil {
			return nil, policy.ErrNotFound
		}
		return []policy.Stored{b.stored(found.kv)}, nil
	}
	all := []policy.Stored{}
	if kind.Collection() == "" {
		return all, nil
	}
	_, err := b.scan(ctx, b.directory(kind), 0, func(kv *mvccpb.KeyValue) bool {
		all = append(all, b.stored(kv))
		return len(all) < policy.MaxDocuments
	})
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(all, func(a, b policy.Stored) int { return cmp.Compare(a.ID, b.ID) })
	return all, nil
}

// finding is a document as it is at one revision of the store.
type finding struct {
	key      string           // of its id
	kv       *mvccpb.KeyValue // nil where it is not there; perhaps at another key
	revision int64            // of the store
	trail    []int64          // the numbers in the keys of its history, the oldest first
}

func (b *Book) find(ctx context.Context, kind policy.Kind, id string) (finding, error) {
	f := finding{key: b.directory(kind) + id}
	if kind.Collection() == "" {
		return f, policy.ErrNotFound
	}
	limited, cancel := context.WithTimeout(ctx, b.config.Timeout)
	defer cancel()
	client, err := b.link.open(limited)
	if err != nil {
		return f, err
	}
	answer, err := client.Txn(limited).Then(
		clientv3.OpGet(f.key),
		clientv3.OpGet(b.history(kind, id), clientv3.WithPrefix(), clientv3.WithKeysOnly()),
	).Commit()
	if err != nil {
		return f, err
	}
	f.revision = answer.Header.GetRevision()
	for _, kv := range answer.Responses[1].GetResponseRange().GetKvs() {
		directory, digits := path.Split(string(kv.Key))
		if number, err := strconv.ParseInt(digits, 10, 64); err == nil && numbered(directory, number) == string(kv.Key) { // Others' keys may be there.
			f.trail = append(f.trail, number)
		}
	}
	if at := answer.Responses[0].GetResponseRange().GetKvs(); len(at) > 0 {
		f.kv = at[0]
		return f, nil
	}
	if kind == policy.KindRoutingPolicy {
		f.kv, err = b.findElsewhere(ctx, id, f.revision)
	}
	return f, err
}

// findElsewhere looks for a policy at the keys of the earlier service, PREFIXpolicies/ORGANIZATION/MODEL. It reads only those: their
// names first, which are short.
func (b *Book) findElsewhere(ctx context.Context, id string, revision int64) (*mvccpb.KeyValue, error) {
	directory := b.directory(policy.KindRoutingPolicy)
	organizations := map[string]bool{}
	_, err := b.scan(ctx, directory, revision, func(kv *mvccpb.KeyValue) bool {
		if organization, _, ok := strings.Cut(strings.TrimPrefix(string(kv.Key), directory), "/"); ok {
			organizations[organization] = true
		}
		return true
	}, clientv3.WithKeysOnly())
	if err != nil {
		return nil, err
	}
	for _, organization := range slices.Sorted(maps.Keys(organizations)) {
		var found *mvccpb.KeyValue
		_, err := b.scan(ctx, directory+organization+"/", revision, func(kv *mvccpb.KeyValue) bool {
			if b.stored(kv).ID == id {
				found = kv
			}
			return found == nil
		})
		if err != nil || found != nil {
			return found, err
		}
	}
	return nil, nil
}
