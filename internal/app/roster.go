package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/ai-aas/api-router/internal/fleet"
	"github.com/ai-aas/api-router/internal/policy"
)

// secretsEvery is how soon a rotated key or certificate of a backend is noticed.
const secretsEvery = 15 * time.Second

// maxPEM bounds a certificate's file, in bytes.
const maxPEM = 1 << 20

// roster keeps the fleet equal to the backends of the newest table, with their keys and certificates read.
//
// A secret that cannot be read keeps its last good value. A backend that never had one is left out of the fleet and named
// as a problem; the other backends are served all the same.
type roster struct {
	log   *slog.Logger
	fleet *fleet.Fleet
	keys  map[string]fleet.Secret // by backend: keys that no document refers to

	mu       sync.Mutex // also orders the calls to fleet.Apply and fleet.SetMarks
	marks    []policy.Mark
	backends []policy.Backend
	applied  map[string]fleet.Spec
	problems map[string]trouble // by backend
}

func newRoster(log *slog.Logger, f *fleet.Fleet, keys map[string]fleet.Secret) *roster {
	return &roster{log: log, fleet: f, keys: keys, applied: map[string]fleet.Spec{}}
}

// meetFor bounds the wait for the first answers of new backends. A change of policy has a second to be in force.
const meetFor = 400 * time.Millisecond

// before readies the backends of a table that is about to be published: their marks hold already, and no request goes to one before it was
// asked for the names of its models, if it can be asked before ctx ends. The backends and the marks of the table in force stay until
// after: requests still go by it, perhaps to a backend that the new one has neither a mark on nor a use for.
func (r *roster) before(ctx context.Context, table *policy.Table) {
	r.join(table)
	ctx, cancel := context.WithTimeout(ctx, meetFor)
	defer cancel()
	r.fleet.Meet(ctx)
}

// onBackends are those of marks that are on backends and have not ended, by backend, in the fleet's words. A backend can have several:
// their ids are whatever was written. Then the strictest holds.
func onBackends(marks []policy.Mark) map[string]fleet.Mark {
	now := time.Now()
	holds := map[string]*policy.Mark{}
	for i := range marks {
		m := &marks[i]
		if known := holds[m.Backend]; m.Backend != "" && m.Active(now) && (known == nil || m.Hides(known)) {
			holds[m.Backend] = m
		}
	}
	told := make(map[string]fleet.Mark, len(holds))
	for id, m := range holds {
		told[id] = fleet.Mark{State: m.State, Reason: m.Reason, Until: m.Until}
	}
	return told
}

func (r *roster) join(table *policy.Table) {
	r.mu.Lock()
	defer r.mu.Unlock()
	next := table.Backends()
	for _, old := range r.backends {
		if !slices.ContainsFunc(next, func(b policy.Backend) bool { return b.ID == old.ID }) {
			next = append(next, old)
		}
	}
	r.backends, r.marks = next, slices.Concat(table.Marks(), r.marks)
	r.apply()
}

// after lets the backends and the marks go that the published table has no more.
func (r *roster) after(table *policy.Table) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.backends, r.marks = table.Backends(), table.Marks()
	r.apply()
}

// run rereads the secrets from time to time: their files change without a change of any document. So do the marks: where one ends, a
// weaker one that it hid comes to hold.
func (r *roster) run(ctx context.Context) error {
	for {
		if pause(ctx, secretsEvery); ctx.Err() != nil {
			return nil
		}
		r.mu.Lock()
		r.apply()
		r.mu.Unlock()
	}
}

// broken counts the backends that the fleet does not have because a secret of theirs was never readable.
func (r *roster) broken() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.backends) - len(r.applied)
}

// unread are the backends a secret of which cannot be read now, with the reason: those that the fleet has with an older one, too.
func (r *roster) unread() map[string]trouble {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.problems)
}

// apply resolves every backend and hands the result to the fleet if it differs. Each problem is logged when it appears and when it has gone.
func (r *roster) apply() {
	r.fleet.SetMarks(onBackends(r.marks)) // First: a backend that is new and switched off gets no request at all.
	specs := make([]fleet.Spec, 0, len(r.backends))
	applied := make(map[string]fleet.Spec, len(r.backends))
	problems := map[string]string{}
	for i := range r.backends {
		spec, err := resolve(&r.backends[i])
		if key, ok := r.keys[spec.ID]; ok {
			spec.APIKey = key
		}
		if err != nil {
			problems[spec.ID] = err.Error()
			last, ok := r.applied[spec.ID]
			if !ok || last.URL != spec.URL {
				continue // A key is never sent to an address that it was not meant for.
			}
			spec.APIKey, spec.TLS = last.APIKey, last.TLS
		}
		specs = append(specs, spec)
		applied[spec.ID] = spec
	}
	for id, problem := range problems {
		if r.problems[id].text != problem {
			r.log.Error("a secret of this backend cannot be read", "backend", id, "error", problem)
		}
	}
	for id := range r.problems {
		if problems[id] == "" {
			r.log.Info("the secrets of this backend can be read again", "backend", id)
		}
	}
	r.problems = troubles(problems, r.problems)
	if reflect.DeepEqual(applied, r.applied) {
		return
	}
	r.applied = applied
	if err := r.fleet.Apply(specs); err != nil {
		r.log.Error("a backend cannot be used", "error", err)
	}
}

// resolve is the fleet's form of a backend. The error says which of its secrets cannot be read; the spec lacks them, then.
func resolve(b *policy.Backend) (fleet.Spec, error) {
	spec := fleet.Spec{
		ID: b.ID, URL: b.URL, Engine: b.Engine, Models: b.Models, MaxConcurrency: b.MaxConcurrency, Labels: b.Labels,
		Timeouts: fleet.Timeouts{
			Connect: time.Duration(b.Timeouts.Connect), FirstByte: time.Duration(b.Timeouts.FirstByte),
			BetweenBytes: time.Duration(b.Timeouts.BetweenBytes), Total: time.Duration(b.Timeouts.Total),
		},
		TLS: fleet.TLS{ServerName: b.TLS.ServerName},
	}
	key, err := b.APIKey.Resolve()
	if err != nil {
		return spec, fmt.Errorf("api_key: %w", err)
	}
	ca, caErr := readPEM("tls.ca", b.TLS.CA)
	cert, certErr := readPEM("tls.cert", b.TLS.Cert)
	private, keyErr := readPEM("tls.key", b.TLS.Key)
	if err := errors.Join(caErr, certErr, keyErr); err != nil {
		return spec, err
	}
	spec.APIKey = fleet.Secret(key)
	spec.TLS.CA, spec.TLS.Cert, spec.TLS.Key = ca, cert, fleet.Secret(private)
	return spec, nil
}

func readPEM(field, path string) (string, error) {
	if path == "" {
		return "", nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("%s: %w", field, err)
	}
	if !info.Mode().IsRegular() || info.Size() > maxPEM {
		return "", fmt.Errorf("%s: %s is not a regular file of at most %d bytes", field, path, maxPEM)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("%s: %w", field, err)
	}
	return string(content), nil
}
