package usage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

// reopenAfter is how long a file that could not be opened is left alone before the next try.
const reopenAfter = time.Second

var errUnopened = errors.New("the usage file is not open")

// Lines is a file of JSON lines, opened at the first write and again after an error.
//
// The file is opened for appending: several processes may share it, and a line is one write.
type Lines struct {
	path string

	failing atomic.Bool // the latest line, or opening the file for it, failed

	mu     sync.Mutex
	file   *os.File
	tried  time.Time
	cause  error
	closed bool
	torn   bool // the last write ended within a line
}

// NewLines returns a sink that appends to the file at path. It touches nothing yet.
func NewLines(path string) *Lines { return &Lines{path: path} }

// Probe opens the file if it is not open, so that a bad path shows at start and not at the first request.
func (l *Lines) Probe() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open(time.Now())
}

// Write appends one line.
func (l *Lines) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.open(time.Now()); err != nil {
		return 0, err
	}
	if l.torn { // A full disk may have cut a line: what follows must not be joined to it.
		if _, err := l.file.WriteString("\n"); err != nil {
			return 0, l.failed(err)
		}
		l.torn = false
	}
	n, err := l.file.Write(line)
	if err != nil {
		l.torn = l.torn || n > 0
		return n, l.failed(err)
	}
	l.failing.Store(false)
	return n, nil
}

// Failing reports whether lines are being lost: the latest one could not be written. It waits for nothing, a hanging disk included.
func (l *Lines) Failing() bool { return l.failing.Load() }

// Reopen closes the file and opens what is at its path now.
func (l *Lines) Reopen() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file != nil {
		l.drop(nil)
	}
	l.tried = time.Time{}
	if err := l.open(time.Now()); err != nil {
		return err
	}
	l.failing.Store(false)
	return nil
}

// Close syncs the file to disk and closes it.
func (l *Lines) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	if l.file == nil {
		return nil
	}
	err := errors.Join(l.file.Sync(), l.file.Close())
	l.file = nil
	return err
}

func (l *Lines) open(at time.Time) error {
	switch {
	case l.file != nil:
		return nil
	case l.closed:
		return os.ErrClosed
	case at.Sub(l.tried) < reopenAfter:
		return l.cause
	}
	l.tried = at
	l.cause = errUnopened
	if err := os.MkdirAll(filepath.Dir(l.path), 0o750); err != nil {
		l.failing.Store(true)
		l.cause = fmt.Errorf("make the folder of the usage file: %w", err)
		return l.cause
	}
	f, err := os.OpenFile(l.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o640)
	if err != nil {
		l.failing.Store(true)
		l.cause = fmt.Errorf("open the usage file: %w", err)
		return l.cause
	}
	l.file, l.cause = f, nil
	return nil
}

func (l *Lines) failed(err error) error {
	l.failing.Store(true)
	err = fmt.Errorf("append to the usage file: %w", err)
	l.drop(err)
	return err
}

func (l *Lines) drop(cause error) {
	_ = l.file.Close() // It failed already, or is about to be replaced.
	l.file, l.cause = nil, cause
}
