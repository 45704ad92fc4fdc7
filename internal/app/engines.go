package app

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/ai-aas/api-router/internal/policy"
	"github.com/ai-aas/api-router/internal/simengine"
)

// engine is a simulated engine to start.
type engine struct {
	id     string
	listen string
	config simengine.Config
}

// devEngines are the engines of dev: two that share a model, so that failover can be seen, and one with another model.
func devEngines() []engine {
	const loopback = "127.0.0.1:0"
	shared := simengine.Config{Models: []simengine.Model{{ID: "gpt-oss-20b", Root: "openai/gpt-oss-20b"}}}
	other := simengine.Config{Models: []simengine.Model{{ID: "qwen3-8b", Root: "Qwen/Qwen3-8B", MaxLen: 40_960}}}
	return []engine{{"sim-a", loopback, shared}, {"sim-b", loopback, shared}, {"sim-c", loopback, other}}
}

// engines are simulated engines that listen.
type engines struct {
	started []*startedEngine
}

type startedEngine struct {
	engine
	url    string
	server *http.Server
	done   chan struct{}
	err    error // why it serves no more; read after done
}

// startEngines opens a listener for each engine and serves it.
func startEngines(list []engine) (*engines, error) {
	e := &engines{}
	for _, each := range list {
		listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", each.listen)
		if err != nil {
			e.stop()
			return nil, fmt.Errorf("a simulated engine cannot listen on %s: %w; choose another address with --listen", each.listen, err)
		}
		started := &startedEngine{
			engine: each, url: "http://" + listener.Addr().String(), done: make(chan struct{}),
			server: &http.Server{Handler: simengine.New(each.config).Handler(), ReadHeaderTimeout: 10 * time.Second},
		}
		e.started = append(e.started, started)
		go func() {
			defer close(started.done)
			started.err = started.server.Serve(listener)
		}()
	}
	return e, nil
}

// stop closes every engine, running generations included.
func (e *engines) stop() {
	for _, s := range e.started {
		_ = s.server.Close() // Nothing is lost: what they serve is simulated.
		<-s.done
	}
}

// documents are the backends, and one policy for each model.
func (e *engines) documents() []policy.Document {
	var documents []policy.Document
	byModel := map[string][]string{}
	var models []string
	for _, s := range e.started {
		backend := policy.NewBackend(s.id, s.url)
		documents = append(documents, policy.Document{Backend: &backend, File: "dev"})
		for _, m := range s.config.Models {
			if !slices.Contains(models, m.ID) {
				models = append(models, m.ID)
			}
			byModel[m.ID] = append(byModel[m.ID], s.id)
		}
	}
	for _, model := range models {
		p := policy.NewRoutingPolicy("dev-"+model, model, byModel[model]...)
		documents = append(documents, policy.Document{Policy: &p, File: "dev"})
	}
	return documents
}

// SimulateOptions are the flags of simulate.
type SimulateOptions struct {
	Listen   string
	Models   []string
	APIKey   string
	Speed    float64 // divides every simulated duration
	ZeroWork bool    // prebuilt bytes in place of a simulation, for load runs
	Seed     uint64
}

// Simulate runs one simulated engine alone until ctx ends.
func Simulate(ctx context.Context, p Process, o SimulateOptions) error {
	if !(o.Speed > 0) {
		return fmt.Errorf("--speed: %v is not above 0", o.Speed)
	}
	config := simengine.Config{APIKey: o.APIKey, Speed: o.Speed, Seed: o.Seed}
	for _, id := range o.Models {
		config.Models = append(config.Models, simengine.Model{ID: id})
	}
	if o.ZeroWork {
		config.ZeroWork = &simengine.ZeroWork{}
	}
	running, err := startEngines([]engine{{"simulate", o.Listen, config}})
	if err != nil {
		return err
	}
	s := running.started[0]
	fmt.Fprintf(p.Stdout, "simulated vLLM listens on %s\n", s.url)
	select {
	case <-ctx.Done():
		running.stop()
		return nil
	case <-s.done:
		return fmt.Errorf("simulated engine: %w", s.err)
	}
}
