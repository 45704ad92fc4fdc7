package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/ai-aas/api-router/internal/fault"
	"github.com/ai-aas/api-router/internal/telemetry"
)

const (
	// stopBudget bounds everything that happens after the last request has ended.
	stopBudget = 10 * time.Second
	// cutBudget is how long requests have to end once they were told to.
	cutBudget = 5 * time.Second
)

// App is a process: every room, wired. New makes one, Run gives it its life.
type App struct {
	rooms
	log      *slog.Logger
	config   Config
	version  string
	began    time.Time
	listener net.Listener
	server   *http.Server
	loops    []loop

	telemetry *telemetry.Telemetry // nil: none
	reload    <-chan struct{}
	force     <-chan struct{}

	// requests is the context that every request descends from; endRequests ends them all, with the reason.
	requests    context.Context //nolint:containedctx // http.Server asks for it by a function.
	endRequests context.CancelCauseFunc

	draining   atomic.Bool
	drainBegan atomic.Int64 // Unix nanoseconds; 0: it has not
	running    atomic.Int64 // requests
	failed     chan error   // what ended the process against its will
	stops      []stop       // in the order of the starts
}

// loop is something that runs until its context ends.
type loop struct {
	name string
	run  func(context.Context) error
}

// stop ends one part of the process.
type stop struct {
	name string
	end  func(context.Context) error
}

// onStop is called right after something was started or opened; stopAll ends it, in reverse order.
func (a *App) onStop(name string, end func(context.Context) error) {
	a.stops = append(a.stops, stop{name, end})
}

// Addr is the address of the public listener, which is open since New.
func (a *App) Addr() net.Addr { return a.listener.Addr() }

// Ready is closed when the first table of policies is published.
func (a *App) Ready() <-chan struct{} { return a.store.Ready() }

// Run serves until ctx ends, then drains and stops. It returns what ended the process against its will, and what failed while stopping;
// nil after an orderly end. It may be called once.
func (a *App) Run(ctx context.Context) error {
	a.start()
	var failure error
	select {
	case <-ctx.Done():
	case failure = <-a.failed:
		a.log.Error("the process has to end", "error", failure)
	}
	return errors.Join(failure, a.stopAll())
}

// start begins everything that runs. Nothing here waits.
func (a *App) start() {
	a.loop("fleet", a.fleet.Run)
	a.loop("policy store", a.store.Run)
	a.loop("backend secrets", a.roster.run)
	if a.place.writable {
		a.loop("expiry of marks", (&expiry{log: a.log.With("component", "marks"), book: a.place.book, table: a.store.Table}).run)
	}
	for _, l := range a.loops {
		a.loop(l.name, l.run)
	}
	a.loop("reload", a.reloads)
	a.loop("metrics listener", a.metrics.run)
	a.serveAdmin()
	a.serve()
	if a.telemetry != nil {
		a.telemetry.Start() // Nothing of it is dialed before the listener serves.
	}
	a.log.Info("listening", "address", a.Addr().String())
}

// loop runs something until the process stops. A loop that ends earlier takes the process with it: half a router is worse than a restart.
func (a *App) loop(name string, run func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := run(ctx); ctx.Err() == nil {
			a.fail(fmt.Errorf("%s: ended early: %w", name, err))
		}
	}()
	a.onStop(name, func(wait context.Context) error {
		cancel()
		select {
		case <-done:
			return nil
		case <-wait.Done():
			return errors.New("did not end in time")
		}
	})
}

// fail ends the process; the first failure counts.
func (a *App) fail(err error) {
	select {
	case a.failed <- err:
	default:
	}
}

func (a *App) serve() {
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := serve(a.server, a.listener); !errors.Is(err, http.ErrServerClosed) {
			a.fail(fmt.Errorf("public listener: %w", err))
		}
	}()
	a.onStop("public listener", func(ctx context.Context) error {
		err := a.drain()
		select {
		case <-done:
		case <-ctx.Done():
		}
		return err
	})
}

// reloads answers SIGHUP: the policies are read anew and files that were rotated away are opened again.
func (a *App) reloads(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.reload:
			a.log.Info("reloading")
			a.store.Reload()
			a.certificates.reload()
			a.recorder.Reopen()
		}
	}
}

// handler stands before the gateway and knows what only the process knows: how many requests run, and that connections should go.
func (a *App) handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.running.Add(1)
		defer a.running.Add(-1)
		if a.draining.Load() {
			// The client moves to another replica with its next request. Over HTTP/2, net/http makes a GOAWAY of it.
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}

// drain ends the public listener: not ready any more, but serving, for the grace; then no new connection, and what runs may finish
// until the timeout; then what is left is told to end, which closes streams with an error event.
func (a *App) drain() error {
	a.drainBegan.Store(time.Now().UnixNano())
	a.draining.Store(true)
	s := &a.config.Server
	a.log.Info("draining", "grace", s.DrainGrace.String(), "timeout", s.DrainTimeout.String(), "running", a.running.Load())
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-a.force:
			a.log.Warn("a second signal: ending at once", "running", a.running.Load())
			cancel()
		case <-ctx.Done():
		}
	}()
	pause(ctx, s.DrainGrace)
	finish, cancelFinish := context.WithTimeout(ctx, s.DrainTimeout)
	defer cancelFinish()
	if a.server.Shutdown(finish) == nil {
		a.log.Info("drained: every request has finished")
		return nil
	}
	budget := cutBudget
	if ctx.Err() != nil {
		budget = cutBudget / 10
	} else {
		a.log.Warn("requests took longer than server.drain_timeout: ending them", "running", a.running.Load())
	}
	a.endRequests(fault.New(fault.Draining, "this router is shutting down and the answer did not finish in time; send the request again"))
	cut, cancelCut := context.WithTimeout(context.Background(), budget)
	defer cancelCut()
	if a.server.Shutdown(cut) == nil {
		return nil
	}
	a.log.Warn("closing connections that did not end", "running", a.running.Load())
	if err := a.server.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// stopAll ends everything in reverse order. A step that fails is logged and does not keep the others from ending.
func (a *App) stopAll() error {
	ctx := context.Background()
	var failures []error
	for len(a.stops) > 0 {
		last := a.stops[len(a.stops)-1]
		a.stops = a.stops[:len(a.stops)-1]
		step, cancel := context.WithTimeout(ctx, stopBudget)
		if err := last.end(step); err != nil {
			a.log.Error("stopping failed", "part", last.name, "error", err)
			failures = append(failures, fmt.Errorf("stop %s: %w", last.name, err))
		}
		cancel()
	}
	a.log.Info("api-router ended")
	return errors.Join(failures...)
}

// pause waits for d or the end of ctx.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
