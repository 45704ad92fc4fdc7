package userorg_test

import (
	"bytes"
	"cmp"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ai-aas/api-router/internal/auth"
	"github.com/ai-aas/api-router/internal/auth/userorg"
	"github.com/ai-aas/api-router/internal/fault"
	"github.com/ai-aas/api-router/test/leaks"
	"github.com/ai-aas/api-router/test/ports"
)

func TestMain(m *testing.M) { leaks.Main(m) }

// secret is a key whose characters no other text here has.
const secret = "uos-canary-key-4711"

const good = `{"valid":true,"apiKeyId":"k-1","organizationId":"acme","principalId":"p","principalType":"user","scopes":["inference:read"],"status":"active","expiresAt":null,"message":""}`

// service is a user-org-service that answers with handler; asked counts its questions.
func service(t *testing.T, handler http.HandlerFunc) (url string, asked *atomic.Int64) {
	t.Helper()
	asked = new(atomic.Int64)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		content, _ := io.ReadAll(r.Body) // Only then does net/http notice that a client leaves.
		r.Body = io.NopCloser(bytes.NewReader(content))
		handler(w, r)
	}))
	t.Cleanup(server.Close)
	return server.URL, asked
}

func says(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func client(t *testing.T, opts userorg.Options) *userorg.Service {
	t.Helper()
	opts.Timeout = cmp.Or(opts.Timeout, 30*time.Second) // A busy machine is not what a test is about.
	s, err := userorg.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func TestTheQuestionIsThatOfTheEarlierService(t *testing.T) {
	var method, path, kind, bearer, body string
	url, _ := service(t, func(w http.ResponseWriter, r *http.Request) {
		content, _ := io.ReadAll(r.Body)
		method, path, kind, bearer, body = r.Method, r.URL.Path, r.Header.Get("Content-Type"), r.Header.Get("Authorization"), string(content)
		says(http.StatusOK, good)(w, r)
	})
	s := client(t, userorg.Options{URL: url + "/below/", Token: func() (string, error) { return "service-token", nil }})
	p, err := s.Validate(t.Context(), secret)
	if err != nil || p.Organization != "acme" || p.KeyID != "k-1" || p.Source != userorg.Source || p.Scopes != nil || !p.ExpiresAt.IsZero() {
		t.Fatalf("%+v, %v", p, err)
	}
	got := strings.Join([]string{method, path, kind, bearer, body}, " ")
	if want := `POST /below/v1/auth/validate-api-key application/json Bearer service-token {"apiKeySecret":"` + secret + `"}`; got != want {
		t.Errorf("asked %s\nwant  %s", got, want)
	}
}

func TestAnAnswerMeansWhatItSays(t *testing.T) {
	later := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	cases := []struct {
		name   string
		status int
		body   string
		want   fault.Code // "": accepted
	}{
		{"valid", 200, good, ""},
		{"valid and for everything", 200, strings.Replace(good, "inference:read", "inference:*", 1), ""},
		{"one scope of several", 200, strings.Replace(good, `"inference:read"`, `"billing:read","inference:chat"`, 1), ""},
		{"an end later", 200, strings.Replace(good, `"expiresAt":null`, `"expiresAt":"`+later+`"`, 1), ""},
		{"the end that Go writes for none", 200, strings.Replace(good, `"expiresAt":null`, `"expiresAt":"0001-01-01T00:00:00Z"`, 1), ""},
		{"scopes that are not known", 200, strings.Replace(good, "inference:read", "billing:*", 1), fault.PermissionDenied},
		{"a scope that only begins like it", 200, strings.Replace(good, "inference:read", "inference", 1), fault.PermissionDenied},
		{"no scopes", 200, strings.Replace(good, `"inference:read"`, ``, 1), fault.PermissionDenied},
		{"invalid", 200, `{"valid":false,"status":"invalid","message":"no"}`, fault.InvalidAPIKey},
		{"invalid, without a status", 200, `{"valid":false}`, fault.InvalidAPIKey},
		{"invalid, with a status that nobody knows", 200, `{"valid":false,"status":"sleeping"}`, fault.InvalidAPIKey},
		{"revoked", 200, `{"valid":false,"status":"revoked"}`, fault.RevokedAPIKey},
		{"revoked, whatever valid says", 200, strings.Replace(good, `"active"`, `"REVOKED"`, 1), fault.RevokedAPIKey},
		{"expired", 200, `{"valid":false,"status":"expired"}`, fault.ExpiredAPIKey},
		{"an organization that is off", 200, `{"valid":false,"status":"organization_disabled"}`, fault.OrganizationDisabled},
		{"an organization that is off, with dashes", 200, `{"valid":false,"status":"organization-suspended"}`, fault.OrganizationDisabled},
		{"suspended, whatever valid says", 200, strings.Replace(good, `"active"`, `"suspended"`, 1), fault.InvalidAPIKey},
		{"404", 404, `{"valid":false}`, fault.IdentityUnavailable},
		{"401 to us", 401, `{"valid":false,"status":"revoked"}`, fault.IdentityUnavailable},
		{"403 to us", 403, `{"valid":false}`, fault.IdentityUnavailable},
		{"429", 429, `{"valid":false}`, fault.IdentityUnavailable},
		{"500", 500, `{"valid":false}`, fault.IdentityUnavailable},
		{"503", 503, good, fault.IdentityUnavailable},
		{"204", 204, ``, fault.IdentityUnavailable},
		{"nothing", 200, ``, fault.IdentityUnavailable},
		{"a page", 200, `<html>sign in</html>`, fault.IdentityUnavailable},
		{"another document", 200, `{"status":"ok"}`, fault.IdentityUnavailable},
		{"another type", 200, `{"valid":"yes"}`, fault.IdentityUnavailable},
		{"two documents", 200, good + good, fault.IdentityUnavailable},
		{"valid for nobody", 200, strings.Replace(good, "acme", "", 1), fault.IdentityUnavailable},
		{"valid for everybody", 200, strings.Replace(good, "acme", "*", 1), fault.IdentityUnavailable},
		{"valid without an id", 200, strings.Replace(good, "k-1", "", 1), fault.IdentityUnavailable},
		{"an end that is no time", 200, strings.Replace(good, `"expiresAt":null`, `"expiresAt":"soon"`, 1), fault.IdentityUnavailable},
		{"restricted, nobody knows how", 200, strings.Replace(good, "inference:read", "router:restricted", 1), fault.IdentityUnavailable},
		{
			"a restriction that is not known here", 200,
			strings.Replace(good, `"scopes":["inference:read"]`, `"scopes":["inference:*"],"restrictions":{"weekdays":["monday"]}`, 1), fault.IdentityUnavailable,
		},
	}
	for _, c := range cases {
		t.Run(strings.ReplaceAll(c.name, " ", "-"), func(t *testing.T) {
			url, _ := service(t, says(c.status, c.body))
			p, err := client(t, userorg.Options{URL: url}).Validate(t.Context(), secret)
			if fault.CodeOf(err) != c.want {
				t.Fatalf("%+v, %v, want %q", p, err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), secret) {
				t.Errorf("the error holds the key: %v", err)
			}
		})
	}
}

func TestRestrictionsCutWhatAKeyMayDo(t *testing.T) {
	url, _ := service(t, says(200, strings.Replace(good, `"scopes":["inference:read"]`,
		`"scopes":["router:restricted"],"projectId":"lab","restrictions":{"models":["gpt-*"],"networks":["10.0.0.0/8"]}`, 1)))
	p, err := client(t, userorg.Options{URL: url}).Validate(t.Context(), secret)
	if err != nil || p.Project != "lab" || !p.Scopes.Model("gpt-1") || p.Scopes.Model("llama") || len(p.Scopes.Networks) != 1 {
		t.Fatalf("%+v, %v", p, err)
	}
}

func TestAServiceThatDoesNotAnswerIsNoRefusal(t *testing.T) {
	release := make(chan struct{})
	elsewhere, visits := service(t, says(200, good))
	cases := []struct {
		name    string
		handler http.HandlerFunc
	}{
		{"slow", func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-release:
			case <-r.Context().Done():
			}
		}},
		{"a body that does not end in time", func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, `{"valid":`)
			_ = http.NewResponseController(w).Flush()
			select {
			case <-release:
			case <-r.Context().Done():
			}
		}},
		{"an endless answer", func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := io.WriteString(w, strings.Repeat(" ", 1<<12)); err != nil {
					return
				}
			}
		}},
		{"a large head", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Large", strings.Repeat("x", 1<<20))
			w.WriteHeader(http.StatusOK)
		}},
		{"a redirect", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere+userorg.Path, http.StatusTemporaryRedirect)
		}},
		{"garbage", func(w http.ResponseWriter, _ *http.Request) {
			conn, _, _ := http.NewResponseController(w).Hijack()
			_, _ = io.WriteString(conn, "SSH-2.0-hello\r\n\r\n")
			_ = conn.Close()
		}},
		{"a connection that is cut", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }},
	}
	for _, c := range cases {
		t.Run(strings.ReplaceAll(c.name, " ", "-"), func(t *testing.T) {
			url, _ := service(t, c.handler)
			s := client(t, userorg.Options{URL: url, Timeout: 200 * time.Millisecond})
			start := time.Now()
			_, err := s.Validate(t.Context(), secret)
			if fault.CodeOf(err) != fault.IdentityUnavailable || fault.From(err).RetryAfter == 0 {
				t.Errorf("%v, want identity_unavailable with the time to come back", err)
			}
			if strings.Contains(err.Error(), secret) {
				t.Errorf("the error holds the key: %v", err)
			}
			if took := time.Since(start); took > 20*time.Second {
				t.Errorf("it took %s", took)
			}
			if s.Status().Failure == "" {
				t.Error("the status tells of no failure")
			}
		})
	}
	close(release)
	if n := visits.Load(); n != 0 {
		t.Errorf("a redirect was followed %d times", n)
	}
}

// restartable is a service whose address stays when it goes.
type restartable struct {
	address string
	server  *http.Server
	done    chan struct{}
}

func (r *restartable) start(t *testing.T, handler http.Handler) {
	t.Helper()
	var l net.Listener
	for deadline := time.Now().Add(time.Minute); ; {
		var err error
		if l, err = new(net.ListenConfig).Listen(t.Context(), "tcp", r.address); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	r.address, r.server, r.done = l.Addr().String(), &http.Server{Handler: handler, ReadHeaderTimeout: time.Second}, make(chan struct{})
	go func() {
		defer close(r.done)
		_ = r.server.Serve(l)
	}()
}

func (r *restartable) stop() {
	_ = r.server.Close()
	<-r.done
}

func TestAServiceThatDiesAndComesBackIsAskedLessAndThenAgain(t *testing.T) {
	registry := prometheus.NewRegistry()
	var asked atomic.Int64
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		says(200, good)(w, r)
	})
	r := &restartable{address: ports.Free(t)}
	r.start(t, handler)
	s := client(t, userorg.Options{URL: "http://" + r.address, Metrics: registry})
	if _, err := s.Validate(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	r.stop()
	for i := range 20 {
		if _, err := s.Validate(t.Context(), secret); fault.CodeOf(err) != fault.IdentityUnavailable {
			t.Fatalf("question %d at a dead service: %v", i, err)
		}
	}
	if status := s.Status(); !status.Open || status.Since.IsZero() {
		t.Errorf("after 20 failures the breaker is closed: %+v", status)
	}
	r.start(t, handler)
	defer r.stop()
	start := time.Now()
	for s.Status().Open {
		if time.Since(start) > time.Minute {
			t.Fatal("it was not asked again")
		}
		_, _ = s.Validate(t.Context(), secret)
		time.Sleep(10 * time.Millisecond)
	}
	t.Logf("back after %s", time.Since(start).Round(time.Millisecond))
	if _, err := s.Validate(t.Context(), secret); err != nil || s.Status().Failure != "" {
		t.Errorf("%v, %+v", err, s.Status())
	}
}

func TestBehindTheCacheKnownKeysGoOnWhileTheServiceIsAway(t *testing.T) {
	var down atomic.Bool
	var revoked atomic.Bool
	url, asked := service(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case down.Load():
			says(500, "")(w, r)
		case revoked.Load():
			says(200, `{"valid":false,"status":"revoked"}`)(w, r)
		default:
			says(200, good)(w, r)
		}
	})
	v := auth.Cached(client(t, userorg.Options{URL: url}), auth.CacheOptions{TTL: time.Millisecond, NegativeTTL: time.Hour, StaleIfError: time.Hour})
	if _, err := v.Validate(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	down.Store(true)
	for range 20 {
		time.Sleep(2 * time.Millisecond)
		if _, err := v.Validate(t.Context(), secret); err != nil {
			t.Fatalf("a known key was refused while the service is away: %v", err)
		}
	}
	if _, err := v.Validate(t.Context(), "another"); fault.CodeOf(err) != fault.IdentityUnavailable {
		t.Errorf("an unknown key: %v, want identity_unavailable", err)
	}
	down.Store(false)
	revoked.Store(true)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if _, err := v.Validate(t.Context(), secret); fault.CodeOf(err) == fault.RevokedAPIKey {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the revocation was never noticed")
		}
	}
	before := asked.Load()
	for range 10 {
		if _, err := v.Validate(t.Context(), secret); fault.CodeOf(err) != fault.RevokedAPIKey {
			t.Errorf("%v, want revoked_api_key", err)
		}
	}
	if n := asked.Load() - before; n != 0 {
		t.Errorf("a refused key was asked about %d times again", n)
	}
}

func TestWhoLeavesDoesNotCountAgainstTheService(t *testing.T) {
	url, _ := service(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	s := client(t, userorg.Options{URL: url, Timeout: 10 * time.Second})
	for range 10 {
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Hour, nil)
		time.AfterFunc(5*time.Millisecond, cancel)
		if _, err := s.Validate(ctx, secret); fault.CodeOf(err) != fault.IdentityUnavailable {
			t.Fatal(err)
		}
	}
	if status := s.Status(); status.Open || status.Failure != "" {
		t.Errorf("%+v", status)
	}
}

func TestWhatIsNotItsOwnIsNotSentThere(t *testing.T) {
	url, asked := service(t, says(200, good))
	s := client(t, userorg.Options{URL: url, Skip: func(c string) bool { return strings.HasPrefix(c, "eyJ") }})
	if _, err := s.Validate(t.Context(), "eyJhbGciOi"); fault.CodeOf(err) != fault.InvalidAPIKey || asked.Load() != 0 {
		t.Errorf("%v, asked %d times", err, asked.Load())
	}
}

func TestAURLThatIsNoneIsRefusedAndNotRepeated(t *testing.T) {
	for _, text := range []string{"", "user-org:8080", "ftp://h", "http://", "http://u:hunter2@h", "://", "http://h:port"} {
		if _, err := userorg.New(userorg.Options{URL: text}); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestCredentialsThatTheServiceDoesNotTakeKeepItFromNobodyElse(t *testing.T) {
	url, _ := service(t, func(w http.ResponseWriter, r *http.Request) {
		content, _ := io.ReadAll(r.Body)
		switch {
		case strings.Contains(string(content), "revoked"):
			says(http.StatusOK, `{"valid":false,"status":"revoked"}`)(w, r)
		default:
			says(http.StatusUnprocessableEntity, `{"error":"malformed"}`)(w, r)
		}
	})
	s := client(t, userorg.Options{URL: url})
	for range 20 {
		if _, err := s.Validate(t.Context(), "%malformed%"); fault.CodeOf(err) != fault.IdentityUnavailable {
			t.Fatalf("a credential that the service does not take: %v", err)
		}
	}
	if _, err := s.Validate(t.Context(), "revoked"); fault.CodeOf(err) != fault.RevokedAPIKey {
		t.Errorf("a revoked key after them: %v, want %s", err, fault.RevokedAPIKey)
	}
	if status := s.Status(); status.Open {
		t.Errorf("the breaker is open: %+v", status)
	}
}
