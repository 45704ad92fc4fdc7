package userorg

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/ai-aas/api-router/internal/auth"
	"github.com/ai-aas/api-router/internal/fault"
)

const (
	maxQuestion   = 32 << 10 // a credential has at most 8 KiB, and JSON may write each byte as six
	maxCredential = 8 << 10
	readTimeout   = 5 * time.Second
	writeTimeout  = 10 * time.Second
)

// Asker is who may ask the Door. It holds a digest: the token itself is not kept.
type Asker struct {
	name   string
	digest auth.Digest
}

// NewAsker gives the bearer of token a name, which stands in the log.
func NewAsker(name, token string) Asker { return Asker{name, sha256.Sum256([]byte(token))} }

// DoorOptions are what a Door needs.
type DoorOptions struct {
	Logger *slog.Logger
	// Keys is asked about each key. It must know keys by itself: a door that asks another door would let two routers ask each other without end.
	Keys auth.Validator
	// Askers are those that may ask now.
	Askers func() []Asker
	// Metrics is where the metrics are registered; nil: nowhere.
	Metrics prometheus.Registerer
}

// Door is the service itself, as this router offers it to others: an http.Handler for Path.
//
// A question without a right token is answered 401 and says nothing about the key. Every judgment of a key is status 200 with all the fields
// that there are; what cannot be told is an error, 503. Who sends many wrong tokens is answered 429 on those. A judgment is never withheld: who
// asked would go on with what it knew, and a flood of wrong keys would keep a revoked one alive.
type Door struct {
	DoorOptions
	tokens *auth.Guesses
	judged *prometheus.CounterVec
}

// What came of a question.
const (
	resultValid       = "valid"
	resultRefused     = "refused"
	resultUnavailable = "unavailable"
	resultRejected    = "rejected"
)

// NewDoor returns a Door.
func NewDoor(opts DoorOptions) *Door {
	d := &Door{DoorOptions: opts, tokens: auth.NewGuesses(), judged: promauto.With(opts.Metrics).NewCounterVec(prometheus.CounterOpts{
		Name: "api_router_auth_validations_total",
		Help: "Questions of other routers that this one has answered: valid, refused (status 200, not valid), unavailable (it cannot tell), rejected (a bad question or token).",
	}, []string{"result"})}
	for _, result := range []string{resultValid, resultRefused, resultUnavailable, resultRejected} {
		d.judged.WithLabelValues(result) // It is there from the beginning, at 0.
	}
	return d
}

// ServeHTTP implements http.Handler.
func (d *Door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	_ = http.NewResponseController(w).SetReadDeadline(start.Add(readTimeout)) // Not every writer has deadlines; then there is none.
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	asker, a, err := d.serve(r)
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout))
	status, level, result := http.StatusOK, slog.LevelDebug, resultRefused
	if err != nil {
		status, level, result = fault.From(err).Status(), slog.LevelWarn, resultRejected
		switch status {
		case http.StatusUnauthorized:
			h.Set("WWW-Authenticate", `Bearer realm="api-router key validation"`)
		case http.StatusMethodNotAllowed:
			h.Set("Allow", http.MethodPost)
		}
		if status >= http.StatusInternalServerError {
			result = resultUnavailable
		}
		h.Set("Connection", "close") // What is left of the body is not waited for.
		fault.Write(w, err)
	} else {
		if *a.Valid {
			result = resultValid
		}
		content, _ := json.Marshal(a) //nolint:errchkjson // Nothing in it can fail.
		h.Set("Content-Type", "application/json")
		h.Set("Content-Length", strconv.Itoa(len(content)))
		_, _ = w.Write(content) // Who asked may be gone; there is nobody else to tell.
	}
	d.judged.WithLabelValues(result).Inc()
	attrs := []slog.Attr{
		slog.String("asker", asker), slog.Int("status", status), slog.String("result", result), slog.String("client", r.RemoteAddr),
		slog.Float64("latency_ms", float64(time.Since(start).Round(time.Microsecond))/float64(time.Millisecond)),
	}
	if a.KeyID != "" {
		attrs = append(attrs, slog.String("organization", a.Organization), slog.String("key_id", a.KeyID))
	}
	if err != nil {
		attrs = append(attrs, slog.String("code", string(fault.CodeOf(err))), slog.String("error", err.Error()))
	}
	d.Logger.LogAttrs(r.Context(), level, "key validation", attrs...)
}

// serve answers one question. The error is for who asked.
func (d *Door) serve(r *http.Request) (asker string, a answer, err error) {
	var from netip.Addr
	if at, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		from = at.Addr()
	}
	if asker, err = d.login(r); err != nil {
		return "", a, d.tokens.Wrong(from, err)
	}
	if r.Method != http.MethodPost {
		return asker, a, fault.New(fault.MethodNotAllowed, "this method is not allowed here; use POST")
	}
	credential, err := d.read(r)
	if err != nil {
		return asker, a, err
	}
	p, err := d.Keys.Validate(r.Context(), credential)
	if err == nil {
		return asker, accepted(&p), nil
	}
	status := ""
	switch code := fault.CodeOf(err); code {
	case fault.InvalidAPIKey:
		status = statusUnknown
	case fault.RevokedAPIKey:
		status = statusRevoked
	case fault.ExpiredAPIKey:
		status = statusExpired
	case fault.OrganizationDisabled:
		status = statusDisabled
	default:
		return asker, a, err
	}
	return asker, answer{Valid: new(false), Scopes: []string{}, Status: status, Message: fault.From(err).Message, Restrictions: &terms{}}, nil
}

// login finds out who asks.
func (d *Door) login(r *http.Request) (string, error) {
	values := r.Header.Values("Authorization")
	if len(values) == 0 {
		return "", fault.New(fault.MissingAPIKey, "authentication required: send a token of identity.validation_tokens as Authorization: Bearer TOKEN")
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	if len(values) > 1 || !strings.EqualFold(scheme, "Bearer") {
		return "", fault.New(fault.InvalidAPIKey, "send one token of identity.validation_tokens as Authorization: Bearer TOKEN")
	}
	digest, found := sha256.Sum256([]byte(strings.TrimSpace(token))), ""
	for _, asker := range d.Askers() { // All of them, whichever fits: the time tells nothing.
		if subtle.ConstantTimeCompare(digest[:], asker.digest[:]) == 1 {
			found = asker.name
		}
	}
	if found == "" {
		return "", fault.New(fault.InvalidAPIKey, "this token is not known here: see identity.validation_tokens of the router that you ask")
	}
	return found, nil
}

// read takes the key out of a question. Its errors hold nothing of it.
func (d *Door) read(r *http.Request) (string, error) {
	content, err := io.ReadAll(io.LimitReader(r.Body, maxQuestion+1))
	switch {
	case err != nil:
		return "", fault.New(fault.RequestTimeout, "the question did not come whole in time").WithCause(errors.New("reading the body failed"))
	case len(content) > maxQuestion:
		return "", fault.Newf(fault.RequestTooLarge, "a question has at most %d bytes", maxQuestion)
	}
	var q question
	if err := json.Unmarshal(content, &q); err != nil {
		return "", fault.New(fault.InvalidJSON, `the question is not JSON of the form {"apiKeySecret": "…"}`)
	}
	if q.Secret == "" || len(q.Secret) > maxCredential {
		return "", fault.Newf(fault.InvalidRequest, "apiKeySecret has 1 to %d bytes", maxCredential).WithParam("apiKeySecret")
	}
	return q.Secret, nil
}

// accepted is the answer for a key that may be used.
func accepted(p *auth.Principal) answer {
	held := *p.Held()
	a := answer{
		Valid: new(true), KeyID: p.KeyID, Organization: p.Organization, PrincipalID: p.KeyID, PrincipalType: "api_key", Scopes: []string{everyInference},
		Status: statusActive, Project: p.Project, Restrictions: &terms{held},
	}
	if len(held.Models)+len(held.Endpoints)+len(held.Networks) > 0 || held.Signature == auth.SignatureRequired {
		a.Scopes[0] = restricted
	}
	if !p.ExpiresAt.IsZero() {
		a.ExpiresAt = new(p.ExpiresAt.UTC().Format(time.RFC3339Nano))
	}
	return a
}
