// Package proc reads the operating system's accounting of a process and all its descendants: processor time and resident memory.
// It needs Linux.
package proc

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// ErrUnavailable says that this system has no accounting that could be read.
var ErrUnavailable = errors.New("CPU and memory are read from /proc, which only Linux has")

// tick is the unit of /proc/PID/stat, which is the same on every architecture that Go runs on.
const tick = 10 * time.Millisecond

// table is where accounting is read from.
type table struct{ fs.FS }

var system = table{os.DirFS("/proc")}

// Available is nil where accounting can be read.
func Available() error {
	if runtime.GOOS != "linux" {
		return ErrUnavailable
	}
	_, err := system.stat("self")
	return err
}

// Snapshot is the state of a process tree at one moment.
type Snapshot struct {
	// RSS is the resident memory of all processes together, in bytes. Pages that they share count once for each.
	RSS int64

	threads map[string]time.Duration // processor time by PID/TID, to the nanosecond; nil where the kernel does not tell
	times   map[int]time.Duration    // processor time by PID, to the tick, ended threads included
	reaped  time.Duration            // of descendants that have ended and were waited for
}

// Tree is a process and the descendants that it had when it was looked for.
type Tree struct {
	pids []int
	from table
}

// Find looks for the descendants of a process. That takes milliseconds where many processes run; Read takes a small part of one.
func Find(pid int) (Tree, error) { return system.find(pid) }

// Take is Find and Read.
func Take(pid int) (Snapshot, error) {
	t, err := Find(pid)
	if err != nil {
		return Snapshot{}, err
	}
	return t.Read()
}

// Read reads the accounting of the tree.
func (t Tree) Read() (Snapshot, error) {
	s := Snapshot{threads: map[string]time.Duration{}, times: map[int]time.Duration{}}
	for i, pid := range t.pids {
		dir := strconv.Itoa(pid)
		stat, err := t.from.stat(dir)
		if errors.Is(err, fs.ErrNotExist) && i > 0 {
			continue // It ended a moment ago. CPUSince says so if that matters.
		}
		if err != nil {
			return s, err
		}
		s.times[pid] = stat.own
		s.reaped += stat.children
		rss, err := t.from.rss(dir)
		if err != nil {
			return s, err
		}
		s.RSS += rss
		if s.threads != nil && t.from.readThreads(dir, s.threads) != nil {
			s.threads = nil
		}
	}
	return s, nil
}

// CPUSince is the processor time, user and system, that the tree used since before, a snapshot of the same process. It is exact while
// no thread ends in between; otherwise it is good to a tick for each process.
func (s Snapshot) CPUSince(before Snapshot) (time.Duration, error) {
	var sum time.Duration
	for pid := range before.times {
		if _, still := s.times[pid]; !still {
			return 0, fmt.Errorf("process %d ended during the measurement", pid)
		}
	}
	if s.threads != nil && before.threads != nil && covers(s.threads, before.threads) {
		for id, d := range s.threads {
			sum += d - before.threads[id]
		}
		return sum, nil
	}
	for pid, d := range s.times {
		sum += d - before.times[pid]
	}
	return sum, nil
}

// Total is all processor time of the tree so far, ended descendants included.
func (s Snapshot) Total() time.Duration {
	sum := s.reaped
	for _, d := range s.times {
		sum += d
	}
	return sum
}

func covers(all, some map[string]time.Duration) bool {
	for id := range some {
		if _, ok := all[id]; !ok {
			return false
		}
	}
	return true
}

// find lists a process and those below it.
func (t table) find(root int) (Tree, error) {
	entries, err := fs.ReadDir(t, ".")
	if err != nil {
		return Tree{}, err
	}
	children := map[int][]int{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if stat, err := t.stat(e.Name()); err == nil {
			children[stat.parent] = append(children[stat.parent], pid)
		}
	}
	found := []int{root}
	for i := 0; i < len(found); i++ {
		found = append(found, children[found[i]]...)
	}
	return Tree{found, t}, nil
}

// stat is what is used of /proc/PID/stat.
type stat struct {
	parent        int
	own, children time.Duration
}

func (t table) stat(dir string) (stat, error) {
	content, err := fs.ReadFile(t, path.Join(dir, "stat"))
	if err != nil {
		return stat{}, err
	}
	s, err := parseStat(content)
	if err != nil {
		return stat{}, fmt.Errorf("/proc/%s/stat: %w", dir, err)
	}
	return s, nil
}

// parseStat reads the line of proc_pid_stat(5). The second field is the command in parentheses, which may itself hold spaces and
// parentheses.
func parseStat(line []byte) (stat, error) {
	end := bytes.LastIndexByte(line, ')')
	fields := strings.Fields(string(line[end+1:]))
	const parent, utime, stime, cutime, cstime = 4 - 3, 14 - 3, 15 - 3, 16 - 3, 17 - 3 // the manual counts from 1, and two are gone
	if end < 0 || len(fields) <= cstime {
		return stat{}, errors.New("too few fields")
	}
	var n [5]int64
	for i, field := range []int{parent, utime, stime, cutime, cstime} {
		var err error
		if n[i], err = strconv.ParseInt(fields[field], 10, 64); err != nil {
			return stat{}, err
		}
	}
	return stat{parent: int(n[0]), own: time.Duration(n[1]+n[2]) * tick, children: time.Duration(n[3]+n[4]) * tick}, nil
}

// rss reads VmRSS. A process that has ended and was not yet waited for has none.
func (t table) rss(dir string) (int64, error) {
	content, err := fs.ReadFile(t, path.Join(dir, "status"))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(content)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			return kb << 10, err
		}
	}
	return 0, nil
}

// readThreads reads the scheduler's own count for each thread.
func (t table) readThreads(dir string, into map[string]time.Duration) error {
	tasks, err := fs.ReadDir(t, path.Join(dir, "task"))
	if err != nil {
		return err
	}
	for _, task := range tasks {
		content, err := fs.ReadFile(t, path.Join(dir, "task", task.Name(), "schedstat"))
		if err != nil {
			return err
		}
		first, _, _ := strings.Cut(string(content), " ")
		ns, err := strconv.ParseInt(first, 10, 64)
		if err != nil {
			return err
		}
		into[dir+"/"+task.Name()] = time.Duration(ns)
	}
	return nil
}

// Machine is the processor time of the whole machine since it started.
type Machine struct{ Busy, Stolen, All time.Duration }

// ReadMachine reads it.
func ReadMachine() (Machine, error) { return system.machine() }

func (t table) machine() (Machine, error) {
	content, err := fs.ReadFile(t, "stat")
	if err != nil {
		return Machine{}, err
	}
	line, _, _ := strings.Cut(string(content), "\n")
	fields := strings.Fields(line)
	// cpu user nice system idle iowait irq softirq steal guest guest_nice; guest time is in user time already.
	if len(fields) < 9 || fields[0] != "cpu" {
		return Machine{}, errors.New("/proc/stat: not the line of the processors")
	}
	var m Machine
	for i, field := range fields[1:9] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return m, fmt.Errorf("/proc/stat: %w", err)
		}
		d := time.Duration(n) * tick
		m.All += d
		switch i {
		case 3, 4:
		case 7:
			m.Stolen += d
		default:
			m.Busy += d
		}
	}
	return m, nil
}
