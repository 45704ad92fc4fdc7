// Package rig is what the tests of the whole program have in common: the router's binary, what a process writes, waits, and what
// to do where a program is absent.
package rig

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// Root is the repository's directory.
var Root = func() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Dir(filepath.Dir(filepath.Dir(file)))
}()

// Main builds the router, as it is released, into a directory that is gone afterwards, and runs the tests of a package with the path in binary.
// It returns what the process exits with.
func Main(tests interface{ Run() int }, binary *string) int {
	dir, err := os.MkdirTemp("", "api-router-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	*binary = filepath.Join(dir, "api-router")
	build := exec.CommandContext(context.Background(), "go", "build", "-C", Root, "-trimpath", "-o", *binary, "./cmd/api-router")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%v: %s\n", err, out)
		return 1
	}
	return tests.Run()
}

// Lacking ends a test for want of something that the machine does not have: it is skipped, or fails where CONFORMANCE=required.
func Lacking(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CONFORMANCE") == "required" {
		t.Fatal(what)
	}
	t.Skip("SKIPPED: " + what)
}

// Tool is the path of a program, the one that scripts/prepare has built if it is there, else the machine's own. Without either the test ends
// as Lacking has it.
func Tool(t testing.TB, name string) string {
	t.Helper()
	if built := filepath.Join(Root, ".tools", "bin", name); exists(built) {
		return built
	}
	path, err := exec.LookPath(name)
	if err != nil {
		Lacking(t, fmt.Sprintf("there is no %s: scripts/prepare %s brings it", name, name))
	}
	return path
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// Eventually asks until there is no error, and returns how long that took. It fails the test after the time in hang.
func Eventually(t testing.TB, what string, hang time.Duration, check func() error) time.Duration {
	t.Helper()
	for begun := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		err := check()
		took := time.Since(begun)
		if err == nil {
			return took
		}
		if took > hang {
			t.Fatalf("%s: not after %s: %v", what, took.Round(time.Millisecond), err)
		}
	}
}

// Journal keeps what a process writes. It may be written and read at once.
type Journal struct {
	mu    sync.Mutex
	text  bytes.Buffer
	begun time.Time
}

// Write keeps p. It never fails.
func (j *Journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.begun.IsZero() {
		j.begun = time.Now()
	}
	return j.text.Write(p)
}

// Begun is when the first line came; zero while there is none.
func (j *Journal) Begun() time.Time {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.begun
}

// Await waits until the text is in what was written: that comes through a pipe, and so after what a process does. It fails the test after the
// time in hang.
func (j *Journal) Await(t testing.TB, text string, hang time.Duration) {
	t.Helper()
	Eventually(t, fmt.Sprintf("%q is in the log", text), hang, func() error {
		if log := j.String(); !strings.Contains(log, text) {
			return fmt.Errorf("it has:\n%s", log[max(0, len(log)-12_000):])
		}
		return nil
	})
}

// String is all that was written so far.
func (j *Journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}
