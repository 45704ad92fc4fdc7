package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ai-aas/api-router/bench/subject"
)

// collectors are where the router's telemetry goes: to one that takes it, or to one that accepts connections and says nothing.
type collectors struct {
	answering, silent *collector
	server            *http.Server
}

// collector is a listener that counts what comes: requests where it answers, connections where it does not.
type collector struct {
	net.Listener

	came atomic.Int64
}

func (c *collector) address() string { return c.Addr().String() }

func startCollectors(ctx context.Context) (*collectors, error) {
	var listen net.ListenConfig
	answering, err := listen.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	silent, err := listen.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		_ = answering.Close() // The other error is the one to tell.
		return nil, err
	}
	c := &collectors{answering: &collector{Listener: answering}, silent: &collector{Listener: silent}}
	c.server = &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(c.answering.take)}
	go func() { _ = c.server.Serve(answering) }() // It ends with stop.
	go c.silent.hold()
	return c, nil
}

func (c *collectors) stop() {
	_ = c.server.Close() // Whoever still sends has no reader any more.
	_ = c.silent.Close()
}

// take answers as a collector does that has accepted everything: with an empty message.
func (c *collector) take(w http.ResponseWriter, r *http.Request) {
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return // The sender is gone.
	}
	c.came.Add(1)
	w.Header().Set("Content-Type", "application/x-protobuf")
}

// hold accepts connections and keeps them open until the listener is closed.
func (c *collector) hold() {
	var open sync.WaitGroup
	ended := make(chan struct{})
	for {
		conn, err := c.Accept()
		if err != nil {
			break
		}
		c.came.Add(1)
		open.Go(func() {
			<-ended
			_ = conn.Close() // Nothing was read, and nothing is lost.
		})
	}
	close(ended)
	open.Wait()
}

// checkCollectors says so where the variants sent nothing: then their figures are those of a router without telemetry, and judge none.
func (b *run) checkCollectors() {
	if _, measured := b.results.Median(subject.Off, metric(telemetryName(openName(judgedRate)), figP50)); !measured {
		return
	}
	b.heard = true
	for _, c := range []struct {
		*collector

		what string
	}{{b.collectors.answering, "that answers"}, {b.collectors.silent, "that is silent"}} {
		if c.came.Load() == 0 {
			b.heard = false
			b.skip("what telemetry costs: nothing came to the collector %s", c.what)
		}
	}
}
