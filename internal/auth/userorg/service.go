package userorg

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ai-aas/api-router/internal/auth"
	"github.com/ai-aas/api-router/internal/fault"
	"github.com/ai-aas/api-router/internal/upstream"
)

const (
	defaultTimeout = 2 * time.Second
	maxAnswer      = 64 << 10
	// maxAsking is how many questions are on their way at once; more wait, as long as they may.
	maxAsking = 64
	// retry is when a client should come back whose key could not be judged.
	retry = time.Second
)

// Options are what a Service needs.
type Options struct {
	Logger *slog.Logger
	// URL is the service's; Path is put behind its own path.
	URL string
	// CA are authorities in PEM that its certificate is checked against; "": the system's.
	CA string
	// Timeout bounds one question, from the connection to the end of the answer. 0: two seconds.
	Timeout time.Duration
	// Token gives the token that the service wants to see as Authorization: Bearer; nil: none is sent. It is asked each time.
	Token func() (string, error)
	// Skip keeps a credential from being sent there: it is answered invalid_api_key, so that the next validator is asked. Nil: none is.
	Skip func(credential string) bool
	// Metrics is where the metrics are registered; nil: nowhere.
	Metrics prometheus.Registerer
}

// Service is the Validator that asks a user-org-service, once for each call: put it behind auth.Cached.
//
// It dials the host of its URL and nothing else, follows no redirect and reads at most 64 KiB of an answer. Whatever is not an answer of status
// 200 that makes sense is identity_unavailable: a key is never refused because nobody could be asked. A service that fails is asked less.
type Service struct {
	Options
	transport upstream.Transport
	url       *url.URL
	asking    chan struct{}
	breaker   breaker
	metrics   *metrics
}

// New returns a Service. It dials nothing. The error says what is wrong with the URL or the authorities, and repeats neither.
func New(opts Options) (*Service, error) {
	opts.Timeout = cmp.Or(opts.Timeout, defaultTimeout)
	opts.Logger = cmp.Or(opts.Logger, slog.New(slog.DiscardHandler))
	transport, base, err := upstream.For(opts.URL, opts.CA)
	if err != nil {
		return nil, err
	}
	base.RawQuery = ""
	s := &Service{Options: opts, transport: transport, url: base.JoinPath(Path), asking: make(chan struct{}, maxAsking)}
	s.metrics = s.measure(opts.Metrics)
	return s, nil
}

// Close closes the connections that are not in use.
func (s *Service) Close() { s.transport.CloseIdleConnections() }

// Validate implements auth.Validator.
func (s *Service) Validate(ctx context.Context, credential string) (auth.Principal, error) {
	if s.Skip != nil && s.Skip(credential) {
		return auth.Principal{}, fault.New(fault.InvalidAPIKey, "the credential is not one of a user-org-service")
	}
	ctx, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	select {
	case s.asking <- struct{}{}:
		defer func() { <-s.asking }()
	case <-ctx.Done():
		s.metrics.count(outcomeHeld)
		return auth.Principal{}, unavailable(errors.New("too many questions are on their way to the user-org-service"))
	}
	if !s.breaker.enter(time.Now()) {
		failure, _, _ := s.breaker.state()
		s.metrics.count(outcomeHeld)
		return auth.Principal{}, unavailable(fmt.Errorf("the user-org-service is not asked for a moment, because it fails: %s", failure))
	}
	start := time.Now()
	p, err := s.ask(ctx, credential)
	s.learn(ctx, start, err)
	if err == nil {
		return p, nil
	}
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return auth.Principal{}, err
	}
	return auth.Principal{}, unavailable(err)
}

func unavailable(cause error) error {
	return fault.New(fault.IdentityUnavailable, "whose key this is cannot be told now, because the service that knows it does not answer; retry in a moment").
		WithRetryAfter(retry).WithCause(cause)
}

// errBusy is the service's word that it was asked too often: it lives, and did not answer.
var errBusy = errors.New("the user-org-service answered 429: it was asked too often, mostly with keys that it does not know")

// errQuestion is the service's word that it does not understand this question. Whoever sends a credential can make it say so: it tells nothing
// of the key, and nothing of how the service fares with others.
var errQuestion = errors.New("the user-org-service does not take this credential as a question")

// learn takes note of how the service fared. A refusal is an answer.
func (s *Service) learn(ctx context.Context, start time.Time, err error) {
	now := time.Now()
	s.metrics.seconds.Observe(now.Sub(start).Seconds())
	_, refused := errors.AsType[*fault.Error](err)
	r, failure, outcome := answered, "", outcomeAccepted
	switch {
	case refused:
		outcome = outcomeRefused
	case errors.Is(err, errBusy):
		outcome = outcomeFailed
	case errors.Is(err, errQuestion): // Bad credentials must not open the breaker: while it is open, no revocation comes through.
		r, outcome = abandoned, outcomeFailed
	case errors.Is(ctx.Err(), context.Canceled):
		r, outcome = abandoned, outcomeAbandoned
	case err != nil:
		r, failure, outcome = failed, err.Error(), outcomeFailed
	}
	s.metrics.count(outcome)
	switch opened, closed := s.breaker.leave(now, r, failure); {
	case opened:
		s.Logger.Warn("the user-org-service fails and is asked less until it answers: known keys go on, others get 503", "error", failure)
	case closed:
		s.Logger.Info("the user-org-service answers again")
	}
}

// ask asks once. Its error is a fault for a key that was refused, and anything else where there was no answer.
func (s *Service) ask(ctx context.Context, credential string) (auth.Principal, error) {
	body, err := json.Marshal(question{credential}) //nolint:gosec // The key is what the question is about.
	if err != nil {
		return auth.Principal{}, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url.String(), bytes.NewReader(body)) //nolint:gosec // The configuration names the place, and the transport dials no other.
	if err != nil {
		return auth.Principal{}, err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", "application/json")
	r.Header["Idempotency-Key"] = nil // It may be asked again on a fresh connection, where an idle one turns out to be dead. Nothing is sent.
	if s.Token != nil {
		token, err := s.Token()
		if err != nil {
			return auth.Principal{}, fmt.Errorf("identity.user_org_service.token: %w", err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := s.transport.RoundTrip(r)
	if err != nil {
		return auth.Principal{}, s.late(ctx, err)
	}
	defer func() { _ = response.Body.Close() }()
	switch status := response.StatusCode; {
	case status == http.StatusTooManyRequests:
		return auth.Principal{}, errBusy
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return auth.Principal{}, fmt.Errorf("the user-org-service answered %d: it does not let this router ask; see identity.user_org_service.token", status)
	case status == http.StatusNotFound:
		return auth.Principal{}, fmt.Errorf("the user-org-service answered 404: nothing is there at %s; see identity.user_org_service.url", Path)
	case status == http.StatusBadRequest || status == http.StatusRequestEntityTooLarge || status == http.StatusUnprocessableEntity:
		return auth.Principal{}, fmt.Errorf("the user-org-service answered %d: %w", status, errQuestion)
	case status != http.StatusOK:
		return auth.Principal{}, fmt.Errorf("the user-org-service answered %d", status)
	}
	return s.read(ctx, response.Body)
}

// read reads an answer.
func (s *Service) read(ctx context.Context, body io.Reader) (auth.Principal, error) {
	content, err := io.ReadAll(io.LimitReader(body, maxAnswer+1))
	switch {
	case err != nil:
		return auth.Principal{}, s.late(ctx, err)
	case len(content) > maxAnswer:
		return auth.Principal{}, fmt.Errorf("%w: it is larger than %d bytes", errAnswer, maxAnswer)
	}
	var a answer
	if err := json.Unmarshal(content, &a); err != nil { // The error may show what it found, and an answer may repeat the key.
		return auth.Principal{}, fmt.Errorf("%w: it is not the JSON that was expected", errAnswer)
	}
	return a.principal()
}

// late says of an error that the time was over, where that is the reason.
func (s *Service) late(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("no answer within %s: %w", s.Timeout, err)
	}
	return err
}

// Status is how the service fares.
type Status struct {
	// Failure is why the latest question got no answer, and Since when that began; "" after an answer, and before the first question.
	Failure string
	Since   time.Time
	// Open says that it is not asked for a moment.
	Open bool
	// Asked says that it was asked at all.
	Asked bool
	// Host is where it is asked.
	Host string
}

// Status says how the service fares.
func (s *Service) Status() Status {
	failure, since, open := s.breaker.state()
	return Status{Failure: failure, Since: since, Open: open, Asked: s.metrics.asked.Load(), Host: strings.ToLower(s.url.Host)}
}
