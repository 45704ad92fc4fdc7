// Package etcd holds what needs etcd as a library, in a module of its own: the router does not carry a database. The module also pins
// etcd and etcdctl, which scripts/prepare builds from it for the tests with real servers.
package etcd

import (
	"context"
	"fmt"
	"net/url"
	"testing"
	"time"

	"go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"github.com/ai-aas/api-router/internal/policy"
	"github.com/ai-aas/api-router/internal/policy/etcdpolicy"
	"github.com/ai-aas/api-router/internal/policy/sourcetest"
	"github.com/ai-aas/api-router/test/leaks"
	"github.com/ai-aas/api-router/test/ports"
)

// hang is how long a test waits for what takes a second at most.
const hang = time.Minute

func TestMain(m *testing.M) { leaks.Main(m) }

// server is an etcd in this process.
type server struct {
	config *embed.Config
	etcd   *embed.Etcd
	raw    *clientv3.Client // past the router, as etcdctl
}

func newServer(t *testing.T) *server {
	t.Helper()
	config := embed.NewConfig()
	config.Name, config.Dir, config.UnsafeNoFsync = "t", t.TempDir(), true
	config.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	client, peer := freeURL(t), freeURL(t)
	config.ListenClientUrls, config.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	config.ListenPeerUrls, config.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	s := &server{config: config}
	s.start(t)
	t.Cleanup(func() { s.stop(t) })
	raw, err := clientv3.New(clientv3.Config{Endpoints: []string{client.Host}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = raw.Close() })
	s.raw = raw
	return s
}

func freeURL(t *testing.T) url.URL {
	t.Helper()
	return url.URL{Scheme: "http", Host: ports.Free(t)}
}

func (s *server) start(t testing.TB) {
	t.Helper()
	etcd, err := embed.StartEtcd(s.config)
	if err != nil {
		t.Fatal(err)
	}
	s.etcd = etcd
	select {
	case <-etcd.Server.ReadyNotify():
	case <-time.After(hang):
		t.Fatal("etcd does not become ready")
	}
}

func (s *server) stop(testing.TB) {
	s.etcd.Close()
}

func (s *server) put(t testing.TB, key string, content []byte) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), hang)
	defer cancel()
	var err error
	if content == nil {
		_, err = s.raw.Delete(ctx, key)
	} else {
		_, err = s.raw.Put(ctx, key, string(content))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestEmbeddedEtcdIsASourceAndABook runs the suite that every place of documents passes. All its tests share a server: each has a prefix.
func TestEmbeddedEtcdIsASourceAndABook(t *testing.T) {
	s := newServer(t)
	count := 0
	sourcetest.Run(t, func(t *testing.T) sourcetest.Place {
		t.Helper()
		count++
		config := etcdpolicy.Config{Endpoints: []string{s.config.ListenClientUrls[0].Host}, Prefix: fmt.Sprintf("/suite-%d/", count)}
		open := func(t testing.TB) *etcdpolicy.Book {
			t.Helper()
			book, err := etcdpolicy.New(config)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = book.Close() })
			return book
		}
		book := open(t)
		return sourcetest.Place{
			Source: book, Book: book,
			Put: func(t testing.TB, kind policy.Kind, id string, content []byte) {
				t.Helper()
				s.put(t, config.Prefix+kind.Collection()+"/"+id, content)
			},
			Second: func(t testing.TB) (policy.Source, policy.Book) {
				t.Helper()
				second := open(t)
				return second, second
			},
			Stop: s.stop, Start: s.start,
		}
	})
}
