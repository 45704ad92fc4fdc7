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

	state   atomic.Pointer[standing] // what is known without waiting for the disk; nil: nothing yet
	written atomic.Int64             // Unix nanoseconds of the last line
	probing atomic.Bool

	mu     sync.Mutex
	file   *os.File
	tried  time.Time
	cause  error
	closed bool
	torn   bool // the last write ended within a line
	// unopened says that the failure, if there is one, is that the file cannot be opened: it ends when it can.
	unopened bool
}

// standing is whether lines can be written: why not, and since when that is so.
type standing struct {
	failure string
	since   time.Time
}

// LinesStatus is how a file of records is.
type LinesStatus struct {
	Path string
	// Failure is why records cannot be written, empty while they can. Since is when that began to be so, or not to be so.
	Failure string
	Since   time.Time
	// Written is when the last line was; zero: none yet.
	Written time.Time
}

// NewLines returns a sink that appends to the file at path. It touches nothing yet.
func NewLines(path string) *Lines { return &Lines{path: path} }

// Probe opens the file if it is not open, so that a bad path shows at start and not at the first request.
func (l *Lines) Probe() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open(time.Now())
}

// Status tells how the file is. It waits for nothing, a hanging disk included. A file that could not be opened is tried again meanwhile, so
// that what a person has mended shows the next time.
func (l *Lines) Status() LinesStatus {
	s := LinesStatus{Path: l.path}
	if is := l.state.Load(); is != nil {
		s.Failure, s.Since = is.failure, is.since
	}
	if nanos := l.written.Load(); nanos != 0 {
		s.Written = time.Unix(0, nanos)
	}
	if s.Failure != "" && l.probing.CompareAndSwap(false, true) {
		go func() {
			defer l.probing.Store(false)
			_ = l.Probe() // The next one to ask is told.
		}()
	}
	return s
}

// Failing reports whether lines are being lost: the latest one could not be written. It waits for nothing, a hanging disk included.
func (l *Lines) Failing() bool {
	is := l.state.Load()
	return is != nil && is.failure != ""
}

// turn notes whether lines can be written.
func (l *Lines) turn(failure string, now time.Time) {
	is := l.state.Load()
	switch {
	case is != nil && is.failure == failure:
		return
	case is != nil && (is.failure == "") == (failure == ""):
		now = is.since // The reason differs; it fails all the same.
	}
	l.state.Store(&standing{failure, now})
}

// Write appends one line.
func (l *Lines) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if err := l.open(now); err != nil {
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
	l.turn("", now)
	l.written.Store(now.UnixNano())
	return n, nil
}

// Reopen closes the file and opens what is at its path now.
func (l *Lines) Reopen() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file != nil {
		l.drop(nil)
	}
	l.tried = time.Time{}
	now := time.Now()
	if err := l.open(now); err != nil {
		return err
	}
	l.unopened = false
	l.turn("", now)
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
		return l.refused(fmt.Errorf("make the folder of the usage file: %w", err), at)
	}
	f, err := os.OpenFile(l.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o640)
	if err != nil {
		return l.refused(fmt.Errorf("open the usage file: %w", err), at)
	}
	l.file, l.cause = f, nil
	if l.unopened || !l.Failing() {
		l.unopened = false
		l.turn("", at)
	}
	return nil
}

// refused notes that the file cannot be opened.
func (l *Lines) refused(err error, at time.Time) error {
	l.cause, l.unopened = err, l.unopened || !l.Failing()
	l.turn(err.Error(), at)
	return err
}

func (l *Lines) failed(err error) error {
	err = fmt.Errorf("append to the usage file: %w", err)
	l.turn(err.Error(), time.Now())
	l.unopened = false // It stays so until a line could be written: the file may open, and the disk be full.
	l.drop(err)
	return err
}

func (l *Lines) drop(cause error) {
	_ = l.file.Close() // It failed already, or is about to be replaced.
	l.file, l.cause = nil, cause
}
