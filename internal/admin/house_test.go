package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ai-aas/api-router/api"
	"github.com/ai-aas/api-router/internal/adminapi"
	"github.com/ai-aas/api-router/internal/auth"
	"github.com/ai-aas/api-router/internal/fleet"
	"github.com/ai-aas/api-router/internal/plan"
	"github.com/ai-aas/api-router/internal/policy"
	"github.com/ai-aas/api-router/internal/state"
	"github.com/ai-aas/api-router/internal/usage"
	"github.com/ai-aas/api-router/test/leaks"
)

func TestMain(m *testing.M) { leaks.Main(m) }

// hang is how long a test waits for what takes a moment.
const hang = time.Minute

// The tokens of the tests, by role.
var secrets = map[string]string{
	adminapi.RoleViewer:   "viewer-token-0123456789",
	adminapi.RoleOperator: "operator-token-0123456789",
	adminapi.RoleAdmin:    "admin-token-0123456789",
	adminapi.RoleAuditor:  "auditor-token-0123456789",
}

// house is an admin API over a real book, whose documents a real store compiles and a real fleet follows.
type house struct {
	*Admin

	t      testing.TB
	url    string
	store  *policy.Store
	pool   *fleet.Fleet
	record *usage.Recorder
	log    *lines
}

// level is a log level that nobody logs by.
type level struct{ is slog.LevelVar }

func (l *level) Get() adminapi.LogLevel {
	return adminapi.LogLevel{Level: strings.ToLower(l.is.Level().String())}
}

func (l *level) Set(name string, hold time.Duration, who string) (before, now adminapi.LogLevel, err error) {
	before = l.Get()
	if err := l.is.UnmarshalText([]byte(name)); err != nil {
		return before, now, err
	}
	now = l.Get()
	now.Actor = who
	if hold > 0 {
		now.Until, now.Then = time.Now().Add(hold), before.Level
	}
	return before, now, nil
}

// lines keeps a log.
type lines struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.String()
}

// newHouse is a house over a new SQLite book. change may change the options before the door opens.
func newHouse(t testing.TB, change ...func(*Options)) *house {
	t.Helper()
	book, err := state.Open(state.Options{URL: "sqlite:" + filepath.Join(t.TempDir(), "state.db"), Logger: slog.New(slog.DiscardHandler)})
	must(t, err)
	t.Cleanup(func() { must(t, book.Close()) })
	peppers, err := auth.NewPeppers("the pepper of these tests")
	must(t, err)
	admins := auth.NewAdmins(auth.AdminsOptions{Ledger: book, Stale: time.Hour})
	runs(t, func(ctx context.Context) { _ = admins.Run(ctx) })
	identities := func(o *Options) {
		o.Identities, o.Audited, o.Mint, o.Seal, o.AdminOf = book, true, peppers.Make, peppers.Seal, admins.Find
	}
	return openHouse(t, book, book, append([]func(*Options){identities}, change...)...)
}

// openHouse is a house over the documents of source and book, which can be the same.
func openHouse(t testing.TB, source policy.Source, book policy.Book, change ...func(*Options)) *house {
	t.Helper()
	h := &house{t: t, log: &lines{}, pool: fleet.New(fleet.Options{}), record: usage.NewRecorder(slog.New(slog.DiscardHandler))}
	h.store = policy.NewStore(policy.Options{
		Logger: slog.New(slog.DiscardHandler), Source: source,
		Extra:         []policy.Document{{Backend: new(policy.NewBackend("from-the-environment", "http://127.0.0.1:9"))}},
		BeforePublish: h.follow,
	})
	runs(t, func(ctx context.Context) { _ = h.store.Run(ctx) })
	select {
	case <-h.store.Ready():
	case <-time.After(hang):
		t.Fatal("the store has no table")
	}
	options := Options{
		Logger: slog.New(slog.NewJSONHandler(h.log, nil)), Tokens: tokens(t), Book: book, Table: h.store.Table,
		Fleet: h.pool.Status, Decider: &plan.Decider{Fleet: h.pool}, Recent: h.record.Recent,
		Health: func() adminapi.Health {
			return adminapi.Health{State: adminapi.StateReady, Version: "test", At: time.Now(), Since: time.Now(), Components: []adminapi.Component{}}
		},
		Level: new(level), Description: api.OpenAPI,
	}
	for _, f := range change {
		f(&options)
	}
	h.Admin = New(options)
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	h.url = server.URL
	return h
}

// runs runs a loop until the test ends.
func runs(t testing.TB, loop func(context.Context)) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { loop(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })
}

// follow does for the fleet what app does.
func (h *house) follow(_ context.Context, table *policy.Table) {
	var specs []fleet.Spec
	for _, b := range table.Backends() {
		specs = append(specs, fleet.Spec{ID: b.ID, URL: b.URL, Engine: b.Engine, Models: b.Models, MaxConcurrency: b.MaxConcurrency})
	}
	if err := h.pool.Apply(specs); err != nil {
		panic(err) // This is the store's goroutine: a fuzzing test may not be told from here.
	}
	marks := map[string]fleet.Mark{}
	for _, m := range table.Marks() {
		if m.Backend != "" {
			marks[m.Backend] = fleet.Mark{State: m.State, Until: m.Until, Reason: m.Reason}
		}
	}
	h.pool.SetMarks(marks)
}

func tokens(t testing.TB) func() []Token {
	t.Helper()
	var all []Token
	for role, secret := range secrets {
		token, err := NewToken("the-"+role, role, secret)
		must(t, err)
		all = append(all, token)
	}
	return func() []Token { return all }
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// client asks as somebody with that role.
func (h *house) client(role string) *adminapi.Client {
	h.t.Helper()
	c, err := adminapi.New(adminapi.Options{Server: h.url, Token: secrets[role]})
	must(h.t, err)
	return c
}

// response is an answer, read whole.
type response struct {
	*http.Response
	body []byte
}

// code is the code of an error.
func (r response) code() string {
	var envelope struct {
		Error struct{ Code, Message string }
	}
	_ = json.Unmarshal(r.body, &envelope)
	return envelope.Error.Code
}

// send sends a request as somebody with that role ("": nobody) and checks the answer by the description. Headers are given as name, value.
func (h *house) send(role, method, path, body string, headers ...string) response {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), hang)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, h.url+path, strings.NewReader(body))
	must(h.t, err)
	if secret, ok := secrets[role]; ok {
		r.Header.Set("Authorization", "Bearer "+secret)
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			r.Host = headers[i+1]
		}
		r.Header.Add(headers[i], headers[i+1])
	}
	answer, err := http.DefaultTransport.RoundTrip(r)
	must(h.t, err)
	defer answer.Body.Close()
	defer http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	content, err := io.ReadAll(answer.Body)
	must(h.t, err)
	got := response{answer, content}
	if _, page := h.pages[r.URL.EscapedPath()]; !page || got.StatusCode >= 400 {
		described(h.t, method, path, got)
	}
	return got
}

// eventually asks until the answer is as wanted.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(hang); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never happened: %s", what)
		}
	}
}

// The documents of the tests.
const (
	backendA = `{"kind":"Backend","id":"a","url":"http://127.0.0.1:9001"}`
	backendB = `{"kind":"Backend","id":"b","url":"http://127.0.0.1:9002"}`
	policyP  = `{"kind":"RoutingPolicy","id":"p","model":"m","aliases":["alias"],"backends":[{"id":"a"},{"id":"b","tier":1}],"clamps":{"max_tokens":100}}`
)

// furnish writes two backends and a policy, and waits until they are in force.
func (h *house) furnish() {
	h.t.Helper()
	c := h.client(adminapi.RoleAdmin)
	for path, document := range map[string]string{"a": backendA, "b": backendB} {
		_, err := c.Put(context.Background(), adminapi.Backends, path, []byte(document), adminapi.If{})
		must(h.t, err)
	}
	_, err := c.Put(context.Background(), adminapi.Policies, "p", []byte(policyP), adminapi.If{})
	must(h.t, err)
	h.settle()
}

// settle waits until what is written is in force.
func (h *house) settle() {
	h.t.Helper()
	c := h.client(adminapi.RoleViewer)
	eventually(h.t, "nothing is pending", func() bool {
		for _, collection := range []string{adminapi.Backends, adminapi.Policies, adminapi.Prices, adminapi.Marks} {
			list, err := c.List(context.Background(), collection, false)
			must(h.t, err)
			for _, d := range list.Items {
				if d.Status == adminapi.Pending {
					return false
				}
			}
		}
		return true
	})
}
