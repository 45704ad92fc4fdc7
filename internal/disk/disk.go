// Package disk keeps a process's files for its next start. Whoever reads one, at any time and after any crash or loss of power, finds what was
// there before or what was written last, whole. Several processes may keep the same file.
package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	// asideEnd ends the names of files that are being written.
	asideEnd = ".new"
	// abandoned is how long nobody has written to a file whose process is gone. One that was just made is not locked yet.
	abandoned = time.Minute
	// tidiedAtOnce bounds how many of them one call takes away: a start does not wait for what others left.
	tidiedAtOnce = 1000
	// lockWithin and lockEvery say how long another process that replaces the file is waited for. It takes milliseconds.
	lockWithin, lockEvery = 2 * time.Second, 10 * time.Millisecond
)

// Open opens the file at path for reading. It fails for all but regular files: others may be waited for without end.
func Open(path string) (*os.File, error) { return open(path, os.O_RDONLY) }

func open(path string, how int) (*os.File, error) {
	file, err := os.OpenFile(path, how|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is no regular file", path)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// Replace puts what write writes in place of the file at path, with mode 0600, and makes that last. agree is asked in the end, while no other
// process Replaces or Changes the file: where it fails the file stays as it is, and its error is returned. It may be nil.
func Replace(path string, write func(*os.File) error, agree func() error) error {
	return replace(path, write, agree, (*os.File).Sync)
}

func replace(path string, write func(*os.File) error, agree func() error, sync func(*os.File) error) (err error) {
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*"+asideEnd)
	if err != nil {
		return err
	}
	defer func() { // Only now: the lock keeps Tidy of other processes away, and what is lost by closing was synced.
		_ = file.Close()
		if err != nil {
			_ = os.Remove(file.Name())
		}
	}()
	_ = lock(file) // Nobody else knows of it yet.
	if err := write(file); err != nil {
		return err
	}
	if err := sync(file); err != nil { // Before it is in its place: else that could outlast its content.
		return err
	}
	dir, err := lockDir(path)
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }() // It was only read.
	if agree != nil {
		if err := agree(); err != nil {
			return err
		}
	}
	if err := os.Rename(file.Name(), path); err != nil {
		return err
	}
	if err := sync(dir); err != nil && !unsupported(err) {
		return err
	}
	return nil
}

// Change lets change work on the file at path while no other process Replaces or Changes it. What change writes need not last.
func Change(path string, change func(*os.File) error) error {
	dir, err := lockDir(path)
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }() // It was only read.
	file, err := open(path, os.O_RDWR)
	if err != nil {
		return err
	}
	return errors.Join(change(file), file.Close())
}

// lockDir keeps other processes from replacing files beside path until what it returns is closed. Where a directory cannot be locked within
// lockWithin, nobody is kept away: some network file systems have no locks, and anybody who may read a directory can keep one. A file that is
// not written any more would be worse than one that two processes write at once.
func lockDir(path string) (*os.File, error) {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	for began := time.Now(); ; <-time.After(lockEvery) {
		if !errors.Is(lock(dir), syscall.EWOULDBLOCK) || time.Since(began) > lockWithin {
			return dir, nil
		}
	}
}

// lock locks a file until it is closed or its process ends. It fails with EWOULDBLOCK where another has it locked.
func lock(file *os.File) error {
	return syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
}

// unsupported reports whether a file system says that it does not sync directories.
func unsupported(err error) bool {
	return errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP)
}

// Tidy takes away what processes left that were killed within Replace of the file at path: it may be as large as that, and there is one more
// each time. What a living process writes stays.
func Tidy(path string) {
	entries, _ := os.ReadDir(filepath.Dir(path)) // Where it cannot be read, nothing can be written either, and that is told.
	for taken, i := 0, 0; i < len(entries) && taken < tidiedAtOnce; i++ {
		if aside(entries[i].Name(), filepath.Base(path)) && takeAway(filepath.Join(filepath.Dir(path), entries[i].Name()), entries[i]) {
			taken++
		}
	}
}

// aside reports whether this is a name of a file that Replace writes, now or in earlier versions: these left the end out.
func aside(name, base string) bool {
	number, ours := strings.CutPrefix(strings.TrimSuffix(name, asideEnd), "."+base+".")
	return ours && number != "" && strings.Trim(number, "0123456789") == ""
}

func takeAway(path string, entry fs.DirEntry) bool {
	info, err := entry.Info()
	if err != nil || !info.Mode().IsRegular() || time.Since(info.ModTime()) < abandoned {
		return false
	}
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return false
	}
	defer func() { _ = file.Close() }() // Nothing was written.
	return lock(file) == nil && os.Remove(path) == nil
}
