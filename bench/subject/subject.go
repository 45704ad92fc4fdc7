// Package subject starts and stops what is measured: the router, other proxies beside it, and the backend behind all of them. Each
// runs as a process of its own, on loopback, with files in a directory of its own.
package subject

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ai-aas/api-router/bench/load"
)

// The names of the subjects.
const (
	Direct  = "direct"
	Router  = "api-router"
	Nginx   = "nginx"
	HAProxy = "HAProxy"
)

// Key is what clients of the router show; the others do not look at it.
const Key = "test-bench-1"

const (
	startTimeout = 15 * time.Second
	pollPause    = 500 * time.Microsecond
	versionTime  = 10 * time.Second
)

// Site is what a subject is placed in.
type Site struct {
	Backend string   // address
	Models  []string // that the backend serves
	Workers int      // processors that the subject may use: worker processes or threads

	// Collector and Silent are the addresses of collectors of telemetry over HTTP: one answers, the other accepts connections and
	// never says a word.
	Collector, Silent string
}

// Subject is something that can be measured.
type Subject struct {
	Name    string
	Version string
	Size    int64 // of the binary, in bytes

	binary string
	// prepare writes the files that it needs into dir and returns its arguments.
	prepare func(dir, listen string, s Site) (args []string, err error)
	env     []string
	extra   func(s Site) []string // more of env; may be nil
}

// Find looks for a subject's program: a path, or a name to look up in PATH. An error says what to do about it.
func Find(ctx context.Context, name, program string) (*Subject, error) {
	if name == Direct {
		return &Subject{Name: Direct}, nil
	}
	known, ok := programs[name]
	if !ok {
		return nil, fmt.Errorf("there is no subject %q", name)
	}
	s := &Subject{Name: name, prepare: known.prepare, env: known.env}
	binary, err := exec.LookPath(program)
	if err != nil {
		return nil, fmt.Errorf("%s is not here: %s", name, known.hint)
	}
	if s.binary, err = filepath.Abs(binary); err != nil {
		return nil, err
	}
	info, err := os.Stat(s.binary)
	if err != nil {
		return nil, err
	}
	s.Size = info.Size()
	ctx, cancel := context.WithTimeout(ctx, versionTime)
	defer cancel()
	said, err := exec.CommandContext(ctx, s.binary, known.version).CombinedOutput() //nolint:gosec // Whoever runs the benchmark names the programs.
	if err != nil {
		return nil, fmt.Errorf("%s does not tell its version: %w: %s", name, err, said)
	}
	s.Version = version(string(said))
	return s, nil
}

// version takes the word after "version" (or the program's name) from the first line: "nginx version: nginx/1.22.1", "HAProxy
// version 2.6.12-1 2026/10/17 - https://haproxy.org/", "api-router v1.0.0 (…)".
func version(said string) string {
	line, _, _ := strings.Cut(said, "\n")
	words := strings.Fields(line)
	for i, w := range words {
		if i > 0 && !strings.HasPrefix(w, "version") {
			return strings.TrimPrefix(w, "nginx/")
		}
	}
	return ""
}

// Running is a subject at work.
type Running struct {
	Name    string
	Address string
	PID     int
	// FirstAnswer is the time from the start of its process to its first answer: 200 on /healthz, which a proxy has from the backend.
	// 0 for Direct.
	FirstAnswer time.Duration

	process *process
}

// Start starts the subject with its files below dir and waits until it answers probe, a whole request, as it should. back is the backend,
// which is what Direct measures.
func (s *Subject) Start(ctx context.Context, dir string, site Site, back *Running, probe []byte) (*Running, error) {
	if s.Name == Direct {
		return &Running{Name: Direct, Address: back.Address, PID: back.PID}, nil
	}
	home, err := os.MkdirTemp(dir, "subject-")
	if err != nil {
		return nil, err
	}
	listen, err := freeAddress(ctx)
	if err != nil {
		return nil, err
	}
	args, err := s.prepare(home, listen, site)
	if err != nil {
		return nil, err
	}
	env := s.env
	if s.extra != nil {
		env = slices.Concat(env, s.extra(site))
	}
	p, err := start(home, env, s.binary, args...)
	if err != nil {
		return nil, err
	}
	r := &Running{Name: s.Name, Address: listen, PID: p.pid(), process: p}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	health := []byte("GET /healthz HTTP/1.1\r\nHost: bench\r\n\r\n")
	if err := r.await(ctx, health); err != nil {
		r.Stop()
		return nil, fmt.Errorf("%s gives no answer: %w", s.Name, p.explain(err))
	}
	r.FirstAnswer = time.Since(p.began)
	if err := r.await(ctx, probe); err != nil {
		r.Stop()
		return nil, fmt.Errorf("%s does not serve: %w", s.Name, p.explain(err))
	}
	return r, nil
}

// StartBackend starts the backend: a command that serves the given address, its last argument.
func StartBackend(ctx context.Context, dir string, command ...string) (*Running, error) {
	home, err := os.MkdirTemp(dir, "backend-")
	if err != nil {
		return nil, err
	}
	listen, err := freeAddress(ctx)
	if err != nil {
		return nil, err
	}
	p, err := start(home, os.Environ(), command[0], append(command[1:len(command):len(command)], listen)...)
	if err != nil {
		return nil, err
	}
	r := &Running{Name: "backend", Address: listen, PID: p.pid(), process: p}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := r.await(ctx, []byte("GET /health HTTP/1.1\r\nHost: bench\r\n\r\n")); err != nil {
		r.Stop()
		return nil, fmt.Errorf("the backend gives no answer: %w", p.explain(err))
	}
	return r, nil
}

// Stop ends the subject, and waits for that.
func (r *Running) Stop() {
	if r.process != nil {
		r.process.stop()
	}
}

// Explain adds to an error what the subject's process has to say about it.
func (r *Running) Explain(err error) error {
	if err == nil || r.process == nil {
		return err
	}
	return r.process.explain(err)
}

// await sends a request again and again, each on a new connection, until it is answered with 200.
func (r *Running) await(ctx context.Context, request []byte) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		status, err := ask(ctx, r.Address, request)
		if err == nil && status == 200 {
			return nil
		}
		if err == nil {
			err = fmt.Errorf("status %d", status)
		}
		timer.Reset(pollPause)
		select {
		case <-timer.C:
		case <-r.process.done:
			return err
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		}
	}
}

func ask(ctx context.Context, address string, request []byte) (int, error) {
	c, err := load.Dial(ctx, address)
	if err != nil {
		return 0, err
	}
	status, _, err := c.Do(request)
	return status, errors.Join(err, c.Close())
}

// freeAddress is a loopback address that was free a moment ago.
func freeAddress(ctx context.Context) (string, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
