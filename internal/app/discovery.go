package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/url"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ai-aas/api-router/internal/fleet"
	"github.com/ai-aas/api-router/internal/policy"
)

// How discovery is paced: a server that is not there yet is asked again soon, one that answered now and then, because models come and go.
const (
	discoverSoonest = 500 * time.Millisecond
	discoverSlowest = 15 * time.Second
	discoverAgain   = 30 * time.Second
)

// discovery is a source of documents made of what servers say they are: their engine and their models.
type discovery struct {
	log     *slog.Logger
	targets []*target
}

// target is one server to ask. engine and models are guarded by its discovery's Watch.
type target struct {
	id, url string
	key     fleet.Secret

	engine string
	models []string
}

func newDiscovery(log *slog.Logger, urls, keys []string) (*discovery, error) {
	if len(keys) > 1 && len(keys) != len(urls) {
		return nil, fmt.Errorf("--backend-key is given %d times and --backend %d times: give one key for all, or one for each", len(keys), len(urls))
	}
	d := &discovery{log: log}
	taken := map[string]bool{}
	for i, raw := range urls {
		u, err := url.Parse(raw)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return nil, fmt.Errorf("--backend number %d is not a URL such as http://localhost:8000", i+1)
		}
		if u.User != nil || u.RawQuery != "" || u.Fragment != "" { // Not repeated: it may be a secret.
			return nil, fmt.Errorf("--backend number %d holds more than an address; a key belongs into --backend-key", i+1)
		}
		u.Path = strings.TrimSuffix(strings.TrimRight(u.Path, "/"), "/v1") // People paste the base URL of an SDK.
		t := &target{id: unique(taken, identifier(u.Host)), url: u.String()}
		if len(keys) > 0 {
			key, err := literalOrEnv(keys[min(i, len(keys)-1)])
			if err != nil {
				return nil, err
			}
			t.key = fleet.Secret(key)
		}
		d.targets = append(d.targets, t)
	}
	return d, nil
}

// literalOrEnv reads a key as it is given on the command line.
func literalOrEnv(text string) (string, error) {
	name, ok := strings.CutPrefix(text, "env:")
	if !ok {
		return text, nil
	}
	if key := os.Getenv(name); key != "" {
		return key, nil
	}
	return "", fmt.Errorf("--backend-key: the environment variable %s is not set", name)
}

// identifier makes an id for documents of any text.
func identifier(text string) string {
	return strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '_' {
			return c
		}
		return '-'
	}, text[:min(len(text), 100)])
}

func unique(taken map[string]bool, id string) string {
	name := id
	for n := 2; taken[name]; n++ {
		name = fmt.Sprintf("%s-%d", id, n)
	}
	taken[name] = true
	return name
}

func (d *discovery) urls() []string {
	urls := make([]string, 0, len(d.targets))
	for _, t := range d.targets {
		urls = append(urls, t.url)
	}
	return urls
}

// keys are the servers' keys by the ids of their backends.
func (d *discovery) keys() map[string]fleet.Secret {
	keys := map[string]fleet.Secret{}
	for _, t := range d.targets {
		if t.key != "" {
			keys[t.id] = t.key
		}
	}
	return keys
}

// Watch implements policy.Source: it asks every server in a loop of its own, and publishes whenever an answer differs from the one before.
func (d *discovery) Watch(ctx context.Context, publish func(policy.Snapshot)) error {
	var mu sync.Mutex // guards the targets and orders the calls to publish
	publish(d.snapshot())
	var loops sync.WaitGroup
	for _, t := range d.targets {
		loops.Go(func() {
			d.follow(ctx, t, func(engine string, models []string) {
				mu.Lock()
				defer mu.Unlock()
				if t.engine == engine && reflect.DeepEqual(t.models, models) {
					return
				}
				t.engine, t.models = engine, models
				d.log.Info("backend recognized", "backend", t.id, "engine", engine, "models", models)
				publish(d.snapshot())
			})
		})
	}
	loops.Wait()
	return ctx.Err()
}

// follow asks one server until ctx ends.
func (d *discovery) follow(ctx context.Context, t *target, report func(engine string, models []string)) {
	transport, err := fleet.NewTransport(fleet.Spec{ID: t.id, URL: t.url})
	if err != nil {
		d.log.Error("a backend cannot be used", "backend", t.id, "error", err)
		return
	}
	defer transport.CloseIdleConnections()
	wait, last := discoverSoonest, ""
	for ctx.Err() == nil {
		engine, models, err := fleet.Recognize(ctx, transport, t.url, t.key)
		if err == nil && len(models) == 0 {
			err = errors.New("it lists no model yet")
		}
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			report(cmp.Or(engine, fleet.EngineOpenAI), names(models))
			wait, last = discoverAgain, ""
		default:
			if last != err.Error() {
				d.log.Warn("a backend does not say what it serves; asking again until it does", "backend", t.id, "url", t.url, "error", err)
			}
			if last == "" {
				wait = discoverSoonest
			}
			last = err.Error()
			wait = min(wait*2, discoverSlowest)
		}
		pause(ctx, wait)
	}
}

func names(models []fleet.Model) []string {
	names := make([]string, 0, len(models))
	for _, m := range models {
		names = append(names, m.ID)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// publicName is the name by which clients know a model: its own, with "-" for each character that a public name may not have, such as
// the spaces in a model file's path. What no document can hold stays as it is, and shows as a problem.
func publicName(model string) string {
	if strings.ContainsFunc(model, func(c rune) bool { return c < ' ' || c == 0x7f || c == '"' || c == '\\' || c == '\uFFFD' }) {
		return model
	}
	return strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("._:/@+-", c) {
			return c
		}
		return '-'
	}, model)
}

// snapshot makes documents of what is known: a backend for each server that answered, a policy for each model.
func (d *discovery) snapshot() policy.Snapshot {
	s := policy.Snapshot{Origin: "dev --backend"}
	serving := map[string][]string{}
	aliases := map[string]string{} // alias → model
	for _, t := range d.targets {
		if t.engine == "" {
			continue
		}
		b := policy.NewBackend(t.id, t.url)
		b.Engine, b.Models = t.engine, map[string]string{}
		s.Documents = append(s.Documents, policy.Document{Backend: &b, File: s.Origin})
		for _, own := range t.models {
			model := publicName(own)
			if model != own {
				if b.Models[model] != "" {
					continue // Two names of one server that differ in what is replaced alone: the first has it.
				}
				b.Models[model] = own
			}
			serving[model] = append(serving[model], t.id)
			if short, ok := strings.CutSuffix(model, ":latest"); ok && t.engine == fleet.EngineOllama {
				aliases[short] = model // Ollama itself takes the name without its tag, too.
			}
		}
	}
	taken := map[string]bool{}
	for _, model := range slices.Sorted(maps.Keys(serving)) {
		p := policy.NewRoutingPolicy(unique(taken, "dev-"+identifier(model)), model, serving[model]...)
		for _, alias := range slices.Sorted(maps.Keys(aliases)) {
			if aliases[alias] == model && serving[alias] == nil {
				p.Aliases = append(p.Aliases, alias)
			}
		}
		s.Documents = append(s.Documents, policy.Document{Policy: &p, File: s.Origin})
	}
	return s
}
