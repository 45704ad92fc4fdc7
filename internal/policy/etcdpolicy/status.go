package etcdpolicy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

var (
	errClosed      = errors.New("the client of etcd is closed")
	errNoAnswer    = errors.New("etcd does not answer in time")
	errUnreachable = errors.New("etcd cannot be reached")
	errBroken      = errors.New("the connection to etcd broke")
	errLargeAnswer = errors.New("the answer of etcd is too large")
)

// Status is what is known of etcd. It never holds a password; Failure may hold addresses.
type Status struct {
	// Connected says that the last call was answered, and not by a refusal.
	Connected bool
	// Since is when that began to be so, or not to be so; zero before the first call ended.
	Since time.Time
	// Failure is why the last call failed, empty where it did not.
	Failure string
	// Revision is the newest revision of the store that was heard of.
	Revision int64
	// Watched is when the watch last heard that it lives; zero before it has.
	Watched time.Time
}

type state struct {
	mu sync.Mutex
	Status
}

func (s *state) get() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.Status
}

// note takes in how a call ended. One that its caller gave up tells nothing.
func (l *link) note(ctx context.Context, reply any, err error) {
	if err != nil && errors.Is(context.Cause(ctx), context.Canceled) {
		return
	}
	s := &l.state
	s.mu.Lock()
	defer s.mu.Unlock()
	connected := err == nil || answered(err)
	if connected != s.Connected || s.Since.IsZero() {
		s.Connected, s.Since = connected, time.Now()
	}
	s.Failure = ""
	if !connected {
		s.Failure = err.Error()
	}
	if with, ok := reply.(interface {
		GetHeader() *etcdserverpb.ResponseHeader
	}); ok && err == nil {
		s.Revision = with.GetHeader().GetRevision()
	}
}

// heard notes that the watch lives.
func (s *state) heard(revision int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Watched = time.Now()
	s.Revision = max(s.Revision, revision)
}

// answered says that an error is about what was asked, and etcd works.
func answered(err error) bool {
	return errors.Is(err, rpctypes.ErrCompacted) || errors.Is(err, rpctypes.ErrFutureRev) || errors.Is(err, rpctypes.ErrRequestTooLarge) ||
		errors.Is(err, errLargeAnswer)
}

// explain turns an error of a call into one that tells an operator what is wrong.
func (l *link) explain(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if known, ok := errors.AsType[rpctypes.EtcdError](rpctypes.Error(err)); ok {
		switch {
		case errors.Is(known, rpctypes.ErrUserEmpty) && l.config.Username == "":
			return fmt.Errorf("etcd asks for a username and a password, and none is set (%w)", known)
		case errors.Is(known, rpctypes.ErrAuthFailed):
			return fmt.Errorf("etcd refuses the username or the password (%w)", known)
		case errors.Is(known, rpctypes.ErrPermissionDenied):
			return fmt.Errorf("the user %q may not read and write %s at etcd (%w)", l.config.Username, l.config.Prefix, known)
		}
		return known
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err()
	}
	answer, ok := status.FromError(err)
	switch {
	case errors.Is(err, context.DeadlineExceeded) || ok && answer.Code() == codes.DeadlineExceeded:
		return l.silence()
	case errors.Is(err, io.EOF) || ok && answer.Code() == codes.Unavailable:
		return l.broken(answer)
	case ok && answer.Code() == codes.ResourceExhausted:
		return errLargeAnswer
	case ok:
		return fmt.Errorf("etcd: %s", answer.Message())
	}
	return err
}

// silence is why nothing came before the deadline: because no endpoint can be connected to, or because it says nothing.
func (l *link) silence() error {
	l.mu.Lock()
	failures := map[string]string{}
	for address, err := range l.reached {
		if err != nil {
			failures[address] = err.Error()
		}
	}
	all := len(failures) == len(l.reached) && len(failures) > 0
	l.mu.Unlock()
	lines := slices.Sorted(maps.Values(failures))
	reason := fmt.Errorf("%w (%w)", errNoAnswer, context.DeadlineExceeded)
	switch {
	case all:
		return fmt.Errorf("%w: %s", errUnreachable, strings.Join(lines, "; "))
	case len(lines) > 0:
		return fmt.Errorf("%w; and: %s", reason, strings.Join(lines, "; "))
	}
	return reason
}

// broken is why a call that was on its way has no answer.
func (l *link) broken(answer *status.Status) error {
	message := answer.Message()
	if _, inner, ok := strings.Cut(message, "desc = "); ok {
		message = strings.Trim(inner, `"`)
	}
	if message == "" {
		message = io.ErrUnexpectedEOF.Error()
	}
	return fmt.Errorf("%w: %s", errBroken, message)
}
