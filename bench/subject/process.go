package subject

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

const (
	// stopTimeout is how long a process may take to end when it is asked to; then it is killed, with all that it has started.
	stopTimeout = 5 * time.Second
	outputKept  = 2 << 10
)

// process is a child in a process group of its own, so that a Ctrl-C at the terminal reaches only the harness, which then stops it.
type process struct {
	cmd    *exec.Cmd
	began  time.Time
	output string // file
	done   chan struct{}
	err    error // of its end, once done is closed
}

// start runs a command in dir. Its output goes to a file there.
func start(dir string, env []string, name string, args ...string) (*process, error) {
	p := &process{output: filepath.Join(dir, "output.txt"), done: make(chan struct{})}
	out, err := os.Create(p.output)
	if err != nil {
		return nil, err
	}
	p.cmd = exec.CommandContext(context.Background(), name, args...) //nolint:gosec // The harness runs what it was told to. stop ends it, in the way that it likes best.
	p.cmd.Dir, p.cmd.Env = dir, env
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.SysProcAttr = attributes()
	started := make(chan error, 1)
	go func() {
		defer close(p.done)
		defer out.Close()
		// Where the child is told of the end of its parent, that is the end of the thread which started it: this one waits here.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		p.began = time.Now()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			p.err = p.cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("%s does not start: %w", filepath.Base(name), err)
	}
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// stop ends the process and everything below it, and waits for that.
func (p *process) stop() {
	// It may have ended already; then there is nobody to tell.
	_ = syscall.Kill(p.pid(), syscall.SIGTERM)
	timer := time.NewTimer(stopTimeout)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
	}
	_ = syscall.Kill(-p.pid(), syscall.SIGKILL) // What it has left behind, as a rule nothing.
	<-p.done
}

// explain adds to an error how the process ended, if it did, and the last that it said.
func (p *process) explain(err error) error {
	select {
	case <-p.done:
		err = errors.Join(err, fmt.Errorf("the process has ended: %w", cause(p.err)))
	default:
	}
	if said := p.said(); said != "" {
		err = fmt.Errorf("%w\nit said:\n%s", err, said)
	}
	return err
}

func cause(err error) error {
	if err == nil {
		return errors.New("exit status 0")
	}
	return err
}

// said is the end of the process's output.
func (p *process) said() string {
	f, err := os.Open(p.output)
	if err != nil {
		return ""
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > outputKept {
		if _, err := f.Seek(-outputKept, io.SeekEnd); err != nil {
			return ""
		}
	}
	said, err := io.ReadAll(io.LimitReader(f, outputKept))
	if err != nil {
		return ""
	}
	return string(said)
}
