package proc

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

func needAccounting(t *testing.T) {
	t.Helper()
	if err := Available(); err != nil {
		t.Skip("SKIPPING: " + err.Error())
	}
}

func TestParseStat(t *testing.T) {
	for name, test := range map[string]struct {
		line string
		want stat
		bad  bool
	}{
		"plain":          {"7 (nginx) S 3 7 7 0 -1 4 1 2 0 0 11 22 33 44 20 0", stat{3, 330 * time.Millisecond, 770 * time.Millisecond}, false},
		"spaces":         {"7 (a b c) S 3 7 7 0 -1 4 1 2 0 0 1 0 0 0 20 0", stat{3, 10 * time.Millisecond, 0}, false},
		"a parenthesis":  {"7 (a) R 1 (b) S 3 7 7 0 -1 4 1 2 0 0 1 0 0 0 20 0", stat{3, 10 * time.Millisecond, 0}, false},
		"short":          {"7 (a) S 3 7", stat{}, true},
		"empty":          {"", stat{}, true},
		"not numbers":    {"7 (a) S x 7 7 0 -1 4 1 2 0 0 1 0 0 0 20 0", stat{}, true},
		"no parentheses": {"7 a S 3 7 7 0 -1 4 1 2 0 0 1 0 0 0 20 0", stat{}, true},
	} {
		got, err := parseStat([]byte(test.line))
		if (err != nil) != test.bad || err == nil && got != test.want {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

// process writes the files of one process.
func process(files fstest.MapFS, pid, parent, stat, rss string, threads map[string]string) {
	files[pid+"/stat"] = &fstest.MapFile{Data: []byte(pid + " (p) S " + parent + " 0 0 0 0 0 0 0 0 0 " + stat + " 20 0")}
	files[pid+"/status"] = &fstest.MapFile{Data: []byte("Name:\tp\nVmRSS:\t  " + rss + " kB\nThreads:\t1\n")}
	for tid, ns := range threads {
		files[pid+"/task/"+tid+"/schedstat"] = &fstest.MapFile{Data: []byte(ns + " 5 6\n")}
	}
}

func take(files fstest.MapFS, pid int) (Snapshot, error) {
	tree, err := table{files}.find(pid)
	if err != nil {
		return Snapshot{}, err
	}
	return tree.Read()
}

func TestATreeIsAddedUp(t *testing.T) {
	before, after, later := fstest.MapFS{}, fstest.MapFS{}, fstest.MapFS{}
	process(before, "10", "1", "1 0 0 0", "100", map[string]string{"10": "1000", "11": "500"})
	process(before, "20", "10", "2 0 0 0", "200", map[string]string{"20": "7"})
	process(before, "30", "20", "0 0 0 0", "4", map[string]string{"30": "0"})
	process(before, "40", "1", "9 9 9 9", "900", map[string]string{"40": "9"})
	process(after, "10", "1", "2 1 0 3", "150", map[string]string{"10": "2000", "11": "700", "12": "50"})
	process(after, "20", "10", "2 5 0 0", "200", map[string]string{"20": "9"})
	process(after, "30", "20", "0 0 0 0", "4", map[string]string{"30": "0"})
	process(later, "10", "1", "9 1 0 0", "150", map[string]string{"10": "2000", "12": "900"}) // a thread has ended
	process(later, "20", "10", "2 5 0 0", "200", map[string]string{"20": "9"})
	process(later, "30", "20", "1 0 0 0", "4", map[string]string{"30": "0"})

	trees := make([]Snapshot, 3)
	for i, files := range []fstest.MapFS{before, after, later} {
		var err error
		if trees[i], err = take(files, 10); err != nil {
			t.Fatal(err)
		}
	}
	if trees[0].RSS != 304<<10 {
		t.Errorf("RSS %d", trees[0].RSS)
	}
	if d, err := trees[1].CPUSince(trees[0]); d != 1252 || err != nil {
		t.Errorf("by thread: %d, %v", d, err)
	}
	if d, err := trees[2].CPUSince(trees[1]); d != 8*tick || err != nil {
		t.Errorf("after a thread has ended: %s, %v", d, err)
	}
	if d := trees[1].Total(); d != 13*tick {
		t.Errorf("total %s", d)
	}
	delete(later, "30/stat")
	gone, err := take(later, 10)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := gone.CPUSince(trees[1]); err == nil || !strings.Contains(err.Error(), "30") {
		t.Errorf("a process has ended: %v", err)
	}
	if _, err := take(later, 99); err == nil {
		t.Error("no such process")
	}
}

func TestMachine(t *testing.T) {
	files := fstest.MapFS{"stat": {Data: []byte("cpu  1 2 3 40 5 6 7 8 0 0\ncpu0 1 2 3 40 5 6 7 8 0 0\n")}}
	m, err := (table{files}).machine()
	if want := (Machine{19 * tick, 8 * tick, 72 * tick}); m != want || err != nil {
		t.Errorf("%+v, %v", m, err)
	}
	for _, text := range []string{"", "cpu 1 2", "intr 1 2 3 4 5 6 7 8 9", "cpu a b c d e f g h"} {
		if _, err := (table{fstest.MapFS{"stat": {Data: []byte(text)}}}).machine(); err == nil {
			t.Errorf("%q was accepted", text)
		}
	}
}

func TestTheSystemsAccountingSeesWorkOfAChild(t *testing.T) {
	needAccounting(t)
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestChild$")
	cmd.Env = append(os.Environ(), "PROC_TEST_CHILD=1")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	before, err := Take(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	own, errOwn := Take(os.Getpid())
	child, errChild := Take(cmd.Process.Pid)
	_ = stdin.Close()
	_, _ = io.Copy(io.Discard, stdout)
	if err := cmd.Wait(); err != nil || errOwn != nil || errChild != nil {
		t.Fatal(err, errOwn, errChild)
	}
	if d, err := own.CPUSince(before); err != nil || d < spin*9/10 {
		t.Errorf("the tree used %s, %v", d, err)
	}
	if child.Total() < spin*8/10 || child.RSS < 1<<20 || child.RSS >= own.RSS {
		t.Errorf("the child used %s and %d bytes, the tree %d bytes", child.Total(), child.RSS, own.RSS)
	}
	after, err := Take(os.Getpid())
	if err != nil || after.Total() < spin*8/10 {
		t.Errorf("after its end the tree used %s, %v", after.Total(), err)
	}
	if m, err := ReadMachine(); err != nil || m.Busy <= 0 || m.All < m.Busy {
		t.Errorf("%+v, %v", m, err)
	}
}

// spin is how much processor time the child uses.
const spin = 200 * time.Millisecond

// TestChild is the child: it works, says so, and waits for its input to end.
func TestChild(t *testing.T) {
	if os.Getenv("PROC_TEST_CHILD") == "" {
		t.Skip("runs as a process of its own")
	}
	for {
		own, err := system.stat("self")
		if err != nil {
			t.Fatal(err)
		}
		if own.own >= spin {
			break
		}
	}
	os.Stdout.WriteString("done\n")
	_, _ = io.Copy(io.Discard, os.Stdin)
}
