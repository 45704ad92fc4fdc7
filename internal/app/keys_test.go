package app_test

import (
	"context"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ai-aas/api-router/internal/app"
	"github.com/ai-aas/api-router/internal/auth"
	"github.com/ai-aas/api-router/internal/policy"
	"github.com/ai-aas/api-router/internal/simengine"
	"github.com/ai-aas/api-router/test/rig"
)

// books is a ledger in memory.
type books struct {
	mu      sync.Mutex
	changes []auth.Change
	down    bool
	more    chan struct{}
	used    map[string]time.Time
}

func newBooks() *books {
	b := &books{more: make(chan struct{}), used: map[string]time.Time{}}
	b.put(auth.Change{Organization: &auth.Organization{ID: "acme"}})
	return b
}

func (b *books) put(c auth.Change) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.changes = append(b.changes, c)
	close(b.more)
	b.more = make(chan struct{})
}

func (b *books) state() (changes []auth.Change, more chan struct{}, down bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.changes, b.more, b.down
}

// Follow implements auth.Ledger.
func (b *books) Follow(ctx context.Context, give func(auth.Change), whole func()) error {
	given, told := 0, false
	for {
		changes, more, down := b.state()
		if down {
			return os.ErrDeadlineExceeded
		}
		for _, c := range changes[given:] {
			give(c)
		}
		given = len(changes)
		if !told {
			whole()
			told = true
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-more:
		}
	}
}

// Used implements auth.Ledger.
func (b *books) Used(_ context.Context, at map[string]time.Time) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	maps.Copy(b.used, at)
	return nil
}

// keyed is a router whose keys are in a ledger, and one of them with its signing secret.
func keyed(t *testing.T, b *books, k auth.Key) (o app.Options, key, signing auth.Secret) {
	t.Helper()
	const pepper = "a pepper for the tests of the process"
	peppers, err := auth.NewPeppers(pepper)
	if err != nil {
		t.Fatal(err)
	}
	k.Organization = "acme"
	if key, signing, err = peppers.Make(&k); err != nil {
		t.Fatal(err)
	}
	b.put(auth.Change{Key: &k})
	o = placed(t, map[string]string{"policy.source": "file"})
	o.Config.Policy.File.Path = write(t, "policies.yaml", sprintf(documentsOf, simulated(t, simengine.Config{Speed: 100}), "gpt-oss-20b"))
	o.Config.Identity.DevelopmentKeys, o.Config.Identity.Order = false, []string{app.ValidatorState}
	o.Config.Identity.Peppers = []policy.SecretRef{reference(t, "file:"+write(t, "pepper", pepper+"\n"))}
	o.Config.Identity.Cache.File = filepath.Join(t.TempDir(), "keys.snapshot")
	o.Ledger = b
	return o, key, signing
}

func ask(t *testing.T, base string, key auth.Secret) (status int, content string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+"/v1/models", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-API-Key", key.Reveal())
	resp, err := client(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, read(t, resp.Body)
}

func TestAProcessServesTheKeysOfItsLedgerAndOfItsSnapshot(t *testing.T) {
	b := newBooks()
	o, key, _ := keyed(t, b, auth.Key{})
	p := run(t, o)
	eventually(t, "the key to be known", func() bool { status, _ := ask(t, p.base, key); return status == 200 })
	eventually(t, "an unknown key to be refused, which it is when all are known", func() bool {
		status, content := ask(t, p.base, auth.NewKey())
		return status == 401 && strings.Contains(content, "invalid_api_key")
	})
	eventually(t, "the snapshot", func() bool { _, err := os.Stat(o.Config.Identity.Cache.File); return err == nil })
	p.end()
	if err := p.wait(t); err != nil {
		t.Fatal(err)
	}
	if len(b.used) != 1 {
		t.Errorf("last uses %v", b.used)
	}

	b.mu.Lock()
	b.down = true
	b.mu.Unlock()
	o.Registry = nil
	began := time.Now()
	p = launch(t, o)
	eventually(t, "the key to be known without the ledger", func() bool { status, _ := ask(t, p.base, key); return status == 200 })
	t.Logf("a known key was served %v after a start with a dead ledger", time.Since(began).Round(time.Millisecond))
	if status, content := ask(t, p.base, auth.NewKey()); status != 503 || !strings.Contains(content, "identity_unavailable") {
		t.Errorf("an unknown key while the ledger is away: %d %s", status, content)
	}
}

func TestAProcessDoesNotStartWithoutTheSecretsOfItsKeys(t *testing.T) {
	o, _, _ := keyed(t, newBooks(), auth.Key{})
	for what, change := range map[string]func(*app.Options){
		"a pepper that cannot be read": func(o *app.Options) {
			o.Config.Identity.Peppers = []policy.SecretRef{reference(t, "env:API_ROUTER_TEST_NOT_SET")}
		},
		"a pepper that is too short": func(o *app.Options) {
			o.Config.Identity.Peppers = []policy.SecretRef{reference(t, "file:"+write(t, "short", "too-short"))}
		},
		"no ledger": func(o *app.Options) { o.Ledger = nil },
	} {
		changed := o
		change(&changed)
		changed.Registry = nil
		if _, err := app.New(changed); err == nil || strings.Contains(err.Error(), "too-short") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

var fence = regexp.MustCompile("(?s)```(bash|python)\n(.*?)```")

// TestTheExamplesOfSigningWork runs those of docs/keys.md as they stand there.
func TestTheExamplesOfSigningWork(t *testing.T) {
	page, err := os.ReadFile("../../docs/keys.md")
	if err != nil {
		t.Fatal(err)
	}
	o, key, signing := keyed(t, newBooks(), auth.Key{Scopes: auth.Scopes{Signature: auth.SignatureRequired}})
	p := run(t, o)
	eventually(t, "the keys", func() bool {
		status, content := ask(t, p.base, key)
		return status == 401 && strings.Contains(content, "invalid_signature")
	})
	examples := fence.FindAllStringSubmatch(string(page), -1)
	if len(examples) != 2 {
		t.Fatalf("there are %d examples", len(examples))
	}
	for _, example := range examples {
		language, program := example[1], example[2]
		t.Run(language, func(t *testing.T) {
			command, needs := []string{"bash", "-euo", "pipefail", "-c", program}, []string{"bash", "openssl", "curl"}
			if language == "python" {
				command, needs = []string{"python3", "-c", program}, []string{"python3"}
			}
			for _, name := range needs {
				if _, err := exec.LookPath(name); err != nil {
					rig.Lacking(t, name+" is missing")
				}
			}
			c := exec.CommandContext(t.Context(), command[0], command[1:]...)
			c.Env = append(os.Environ(), "ROUTER="+p.base, "API_KEY="+key.Reveal(), "SIGNING_SECRET="+signing.Reveal(), "no_proxy=127.0.0.1,localhost")
			out, err := c.CombinedOutput()
			if err != nil || !strings.Contains(string(out), `"chat.completion"`) {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}
