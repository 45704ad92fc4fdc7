package etcdpolicy

import (
	"context"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/ai-aas/api-router/internal/policy"
)

// login is the token that etcd gave for the password. It is asked for with the first call, and again when etcd no longer knows it.
type login struct {
	username string
	password policy.SecretRef
	lock     chan struct{} // holds one: who takes it may touch the rest
	token    string
	done     bool // token is good; it is empty where etcd has no authentication
}

func newLogin(username string, password policy.SecretRef) login {
	g := login{username: username, password: password, lock: make(chan struct{}, 1)}
	g.lock <- struct{}{}
	return g
}

// give returns ctx with the token for a call, and the token.
func (g *login) give(ctx context.Context, cc *grpc.ClientConn) (context.Context, string, error) {
	if g.username == "" {
		return ctx, "", nil
	}
	select {
	case <-g.lock:
	case <-ctx.Done():
		return nil, "", ctx.Err()
	}
	defer func() { g.lock <- struct{}{} }()
	if !g.done {
		if err := g.ask(ctx, cc); err != nil {
			return nil, "", err
		}
	}
	if g.token == "" {
		return ctx, "", nil
	}
	return metadata.AppendToOutgoingContext(ctx, rpctypes.TokenFieldNameGRPC, g.token), g.token, nil
}

func (g *login) ask(ctx context.Context, cc *grpc.ClientConn) error {
	password, err := g.password.Resolve()
	if err != nil {
		return fmt.Errorf("the password for etcd: %w", err)
	}
	answer, err := etcdserverpb.NewAuthClient(cc).Authenticate(ctx, &etcdserverpb.AuthenticateRequest{Name: g.username, Password: password}, grpc.WaitForReady(true))
	switch {
	case errors.Is(rpctypes.Error(err), rpctypes.ErrAuthNotEnabled):
		g.token, g.done = "", true
		return nil
	case err != nil:
		return err
	}
	g.token, g.done = answer.GetToken(), true
	return nil
}

// forget drops a token that etcd refused, unless another call has replaced it already.
func (g *login) forget(ctx context.Context, token string) {
	select {
	case <-g.lock:
		if g.token == token {
			g.done = false
		}
		g.lock <- struct{}{}
	case <-ctx.Done():
	}
}

// stale says that a call failed because of its token and may succeed with a new one. It was not carried out.
func (g *login) stale(err error) bool {
	if err == nil || g.username == "" {
		return false
	}
	err = rpctypes.Error(err)
	return errors.Is(err, rpctypes.ErrInvalidAuthToken) || errors.Is(err, rpctypes.ErrUserEmpty) || errors.Is(err, rpctypes.ErrAuthOldRevision)
}

// unary wraps every call: it logs in, notes what the answer tells of etcd, and says in plain words why there is none.
func (l *link) unary(ctx context.Context, method string, request, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
	if method == etcdserverpb.Auth_Authenticate_FullMethodName {
		return invoke(ctx, method, request, reply, cc, options...)
	}
	var err error
	for range 2 {
		var token string
		var with context.Context
		if with, token, err = l.login.give(ctx, cc); err != nil {
			break
		}
		if err = invoke(with, method, request, reply, cc, options...); !l.login.stale(err) {
			break
		}
		l.login.forget(ctx, token)
	}
	err = l.explain(ctx, err)
	l.note(ctx, reply, err)
	return err
}

// stream wraps the opening of a stream.
func (l *link) stream(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, options ...grpc.CallOption) (grpc.ClientStream, error) {
	ctx, _, err := l.login.give(ctx, cc)
	if err != nil {
		return nil, err
	}
	return open(ctx, desc, cc, method, options...)
}
