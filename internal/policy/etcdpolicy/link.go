package etcdpolicy

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
)

const (
	maxAnswer = 32 << 20 // bytes of one answer
	// connectTimeout bounds one attempt at TCP alone: what the kernel sends again after a lost SYN comes ever later, so a new
	// attempt finds a server that is back sooner.
	connectTimeout = 1500 * time.Millisecond
	// etcd's servers end connections that send keepalives more often than every 5 s, or that do so without a call; gRPC takes 10 s
	// for less.
	keepaliveTime, keepaliveTimeout = 10 * time.Second, 3 * time.Second
)

// reconnect is how soon a broken connection is tried again: a server that is back is seen within a third of a second.
var reconnect = backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 300 * time.Millisecond}

// link is the one client of a book with its connections, its login and what is known of them. Nothing of it dials before the
// first call.
type link struct {
	config  Config
	end     context.Context // of the client, by Close
	cancel  context.CancelFunc
	begin   sync.Once
	made    chan struct{} // closed when client or failed is set
	client  *clientv3.Client
	failed  error
	login   login
	state   state
	ended   sync.Once
	mu      sync.Mutex
	conns   map[net.Conn]struct{}
	reached map[string]error // by address: how the last attempt to connect ended
}

func newLink(config Config) *link {
	l := &link{
		config: config, made: make(chan struct{}),
		login: newLogin(config.Username, config.Password),
		conns: map[net.Conn]struct{}{}, reached: map[string]error{},
	}
	l.end, l.cancel = context.WithCancel(context.Background())
	return l
}

// open returns the client. It is made in a goroutine of its own, so that no version of it can hold up the caller.
func (l *link) open(ctx context.Context) (*clientv3.Client, error) {
	l.begin.Do(func() {
		go func() {
			defer close(l.made)
			l.client, l.failed = clientv3.New(l.settings())
		}()
	})
	select {
	case <-l.made:
		return l.client, l.failed
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-l.end.Done():
		return nil, errClosed
	}
}

func (l *link) settings() clientv3.Config {
	options := []grpc.DialOption{
		grpc.WithContextDialer(l.dial), // With a dialer of one's own, gRPC also leaves the environment's proxies alone.
		grpc.WithNoProxy(),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: reconnect, MinConnectTimeout: l.config.Timeout}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveTime, Timeout: keepaliveTimeout}),
		grpc.WithChainUnaryInterceptor(l.unary),
		grpc.WithChainStreamInterceptor(l.stream),
	}
	if strings.HasPrefix(l.config.Endpoints[0], "https://") {
		// The last one given counts: clientv3's own would keep the files as they were at the start.
		options = append(options, grpc.WithTransportCredentials(&handshake{TransportCredentials: credentials.NewTLS(nil), link: l}))
	}
	return clientv3.Config{
		Context:            l.end,
		Endpoints:          l.config.Endpoints,
		MaxCallRecvMsgSize: maxAnswer,
		MaxUnaryRetries:    1, // None: whoever calls knows better what may be done twice.
		Logger:             zap.NewNop(),
		DialOptions:        options,
		// No Username: clientv3 would log in before it returns, and only ever with one password. See login.
	}
}

func (l *link) close() error {
	l.ended.Do(func() {
		l.cancel()
		l.begin.Do(func() { l.failed = errClosed; close(l.made) })
		<-l.made // With its context at its end, it is made or fails at once.
		if l.client != nil {
			_ = l.client.Close() // What it returns is that its context ended.
		}
	})
	return nil
}

// dial connects to an endpoint and to nothing else.
func (l *link) dial(ctx context.Context, address string) (net.Conn, error) {
	if !slices.ContainsFunc(l.config.Endpoints, func(e string) bool { return strings.HasSuffix(e, "://"+address) }) {
		return nil, fmt.Errorf("%s is no endpoint of this etcd", address)
	}
	conn, err := connect(ctx, address)
	l.tried(address, err)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	c := &tracked{Conn: conn, link: l}
	l.conns[c] = struct{}{}
	return c, nil
}

func connect(ctx context.Context, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	dialer := net.Dialer{Timeout: connectTimeout}
	for _, ip := range found {
		var conn net.Conn
		if conn, err = dialer.DialContext(ctx, "tcp", net.JoinHostPort(ip.Unmap().String(), port)); err == nil {
			return conn, nil
		}
	}
	return nil, err
}

// tried notes how an attempt to connect to an address ended.
func (l *link) tried(address string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reached[address] = err
}

// sever closes the connections. On one that no longer answers, gRPC would wait for its keepalive.
func (l *link) sever() {
	l.mu.Lock()
	conns := l.conns
	l.conns = map[net.Conn]struct{}{}
	l.mu.Unlock()
	for conn := range conns {
		_ = conn.Close() // It is given up, whatever it says.
	}
}

// tracked is a connection that sever can close.
type tracked struct {
	net.Conn
	link *link
}

func (c *tracked) Close() error {
	c.link.mu.Lock()
	delete(c.link.conns, c)
	c.link.mu.Unlock()
	return c.Conn.Close()
}

// handshake does TLS with the files as they are now.
type handshake struct {
	credentials.TransportCredentials
	link *link
}

func (h *handshake) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	config, err := loadTLS(h.link.config.TLS)
	if err != nil {
		h.link.tried(authority, err)
		return nil, nil, err
	}
	// gRPC takes the name in the certificate from the authority alone, whatever the configuration says.
	secured, info, err := credentials.NewTLS(config).ClientHandshake(ctx, cmp.Or(config.ServerName, authority), conn)
	if err != nil {
		h.link.tried(authority, err)
	}
	return secured, info, err
}

func (h *handshake) Clone() credentials.TransportCredentials {
	return &handshake{TransportCredentials: h.TransportCredentials.Clone(), link: h.link}
}
