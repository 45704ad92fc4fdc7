package fleet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/ai-aas/api-router/internal/upstream"
)

// How probes are paced. The first failure is confirmed soon, so that a dead backend is known within seconds; after that
// the pauses grow to probeSlowest.
const (
	probeEvery   = 5 * time.Second
	probeCloud   = 30 * time.Second // for public services, which count every call
	probeConfirm = time.Second
	probeSlowest = 15 * time.Second
	probeTimeout = 2 * time.Second
	probeJitter  = 0.1

	// unhealthyAfter failed probes in a row take a backend out; one good probe brings it back.
	unhealthyAfter = 2

	listEvery = 30 * time.Second
	maxList   = 4 << 20
	maxHealth = 64 << 10
)

const (
	pathHealth = "/health"
	pathModels = "/v1/models"
)

type probeState uint32

const (
	probeUnknown probeState = iota
	probeHealthy
	probeUnhealthy
)

var probeNames = [...]string{probeUnknown: "unknown", probeHealthy: "healthy", probeUnhealthy: "unhealthy"}

func (s probeState) String() string { return probeNames[s] }

// probing is what probes keep between two of them. The state itself is Backend.probed, changed under mu.
type probing struct {
	mu       sync.Mutex
	failures int // consecutive
	last     time.Time
	problem  string        // of the latest probe; "" after a good one
	listing  string        // why the list of models could not be had; "" when it could
	flipped  time.Duration // when the backend became unhealthy
	returned time.Duration // when it was well again after that
	listed   time.Duration // when the list was last had or last refused
}

var errProbeTimeout = fmt.Errorf("no answer within %s", probeTimeout)

// probe asks the backend how it is until ctx ends.
func (b *Backend) probe(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for first := true; ; first = false {
		select {
		case <-ctx.Done():
			if b.retired.Load() && b.inFlight.Load() == 0 {
				b.connections().CloseIdleConnections()
			}
			return
		case <-timer.C:
		}
		pause := jitter(b.probeOnce(ctx))
		if first {
			b.meet()
		}
		b.nextProbe.Store(int64(b.now() + pause))
		timer.Reset(pause)
	}
}

// meet says that the first probe has ended. A backend whose probing begins again, as after a stop, has been met already.
func (b *Backend) meet() {
	select {
	case <-b.met:
	default:
		close(b.met)
	}
}

// Meet waits until every new backend has been probed once, well or not, or ctx ends. After it, the names of the models are
// known of all backends that could be asked in that time. It waits for a backend only once, whether that answered or not,
// unless its URL changes: one that is silent holds up one change of policy, and not those that follow. Without Run, it
// waits for ctx.
func (f *Fleet) Meet(ctx context.Context) {
	for _, b := range *f.backends.Load() {
		if b.awaited.Swap(true) {
			continue
		}
		select {
		case <-b.met:
		case <-ctx.Done(): // The others have had the same time.
		}
	}
}

// probeOnce asks once, books the answer and says how long to wait for the next one.
func (b *Backend) probeOnce(ctx context.Context) time.Duration {
	var err error
	if listsOnly(b.identity.engine) {
		err = b.list(ctx)
	} else {
		err = b.askHealth(ctx)
	}
	if ctx.Err() != nil {
		return probeSlowest // Nobody waits for it.
	}
	if errors.Is(err, upstream.ErrCut) {
		return probeConfirm // That was us: it says nothing about the backend.
	}
	if err != nil {
		b.counted.unhealthy.Inc()
		return b.pauseAfter(b.suffer(err.Error()))
	}
	b.counted.healthy.Inc()
	flipped := b.heal("a probe was answered")
	if !listsOnly(b.identity.engine) && (flipped || b.now()-b.listedAt() >= listEvery || len(b.catalog.Load().served) == 0) {
		// The engine has just said that it is well: a list that cannot be had is noted, not held against it.
		if err := b.list(ctx); err != nil && ctx.Err() == nil && !errors.Is(err, upstream.ErrCut) {
			b.noteListing(err.Error())
		}
	}
	return b.pauseAfter(0)
}

// listsOnly reports whether an engine of that kind has no health path, so that its list of models stands for it.
func listsOnly(engine string) bool {
	return !slices.Contains([]string{EngineVLLM, EngineSGLang, EngineTGI, EngineLlamaCPP}, engine)
}

func (b *Backend) pauseAfter(failures int) time.Duration {
	switch {
	case failures == 0 && cloud(b.identity.engine, b.base):
		return probeCloud
	case failures == 0:
		return probeEvery
	case failures < unhealthyAfter:
		return probeConfirm
	}
	pause := probeEvery
	for range min(failures-unhealthyAfter, 8) {
		pause += pause / 2
	}
	return min(pause, probeSlowest)
}

// jitter keeps the probes of many backends and replicas apart.
func jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (1 + probeJitter*(2*rand.Float64()-1)))
}

func (b *Backend) askHealth(ctx context.Context) error {
	status, _, err := get(ctx, b.connections(), b.URL(pathHealth), b.Authorize, maxHealth)
	if err != nil && !errors.Is(err, errTooLong) {
		return err
	}
	return alive(pathHealth, status)
}

// list asks for the models. Without a usable list the backend may still be alive: the error says that it is not.
func (b *Backend) list(ctx context.Context) error {
	u := b.URL(pathModels)
	if b.identity.engine == EngineAnthropic {
		u.RawQuery = "limit=1000"
	}
	status, body, err := get(ctx, b.connections(), u, b.Authorize, maxList)
	switch {
	case errors.Is(err, errTooLong):
		b.noteListing(fmt.Sprintf("GET %s: %v", pathModels, err))
		return nil
	case err != nil:
		return err
	}
	if err := alive(pathModels, status); err != nil {
		return err
	}
	switch {
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		b.noteListing(fmt.Sprintf("GET %s answers %d: the backend refuses the router's API key", pathModels, status))
		return nil
	case status != http.StatusOK:
		b.noteListing(fmt.Sprintf("GET %s answers %d", pathModels, status))
		return nil
	}
	l, err := parseListing(body)
	if err != nil {
		b.noteListing(err.Error())
		return nil
	}
	b.catalog.Store(newCatalog(l.served()))
	b.noteListing("")
	return nil
}

// alive judges a status. An engine that refuses a key or does not know a path is there; one that answers with a server
// error or points elsewhere is not.
func alive(path string, status int) error {
	switch {
	case status >= 500:
		return fmt.Errorf("GET %s answers %d", path, status)
	case status >= 300 && status < 400:
		return fmt.Errorf("GET %s answers %d, a redirect, which is never followed: correct the backend's url", path, status)
	default:
		return nil
	}
}

// suffer books a failed probe and returns how many failed in a row.
func (b *Backend) suffer(problem string) int {
	p := &b.probing
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failures++
	p.last = time.Now()
	p.problem = problem
	if p.failures >= unhealthyAfter && probeState(b.probed.Swap(uint32(probeUnhealthy))) != probeUnhealthy {
		p.flipped = b.now()
		b.log.Warn("backend unhealthy", "reason", problem, "probes", p.failures)
	}
	return p.failures
}

// heal books a sign of life and reports whether it changed the state. A backend that comes back from the dead has most
// likely been restarted: if it was ejected too, it is tried at once.
func (b *Backend) heal(reason string) bool {
	p := &b.probing
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failures = 0
	p.last = time.Now()
	p.problem = ""
	before := probeState(b.probed.Swap(uint32(probeHealthy)))
	if before == probeHealthy {
		return false
	}
	b.log.Info("backend healthy", "reason", reason)
	if before == probeUnhealthy {
		p.returned = b.now()
		b.halfOpen()
	}
	return true
}

// noteListing books whether the list of models could be had; a change is logged.
func (b *Backend) noteListing(problem string) {
	p := &b.probing
	p.mu.Lock()
	defer p.mu.Unlock()
	p.listed = b.now()
	if problem != "" && problem != p.listing {
		b.log.Warn("backend does not list its models", "reason", problem)
	}
	p.listing = problem
}

func (b *Backend) listedAt() time.Duration {
	b.probing.mu.Lock()
	defer b.probing.mu.Unlock()
	return b.probing.listed
}

var errTooLong = errors.New("the answer is longer than it may be")

// get reads one small answer whole. The body is cut at limit with errTooLong; the status is valid then.
func get(ctx context.Context, transport http.RoundTripper, u *url.URL, authorize func(http.Header), limit int64) (int, []byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, probeTimeout, errProbeTimeout)
	defer cancel()
	r := &http.Request{Method: http.MethodGet, URL: u, Header: http.Header{"User-Agent": {"api-router"}, "Accept": {"application/json"}}}
	authorize(r.Header)
	response, err := transport.RoundTrip(r.WithContext(ctx))
	if err != nil {
		return 0, nil, probeError(ctx, u, err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, limit+1))
	if err != nil {
		return 0, nil, probeError(ctx, u, err)
	}
	if int64(len(body)) > limit {
		return response.StatusCode, nil, errTooLong
	}
	return response.StatusCode, body, nil
}

func probeError(ctx context.Context, u *url.URL, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return fmt.Errorf("GET %s: %w", u.Path, err)
}
