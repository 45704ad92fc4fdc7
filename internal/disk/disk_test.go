package disk

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// slowly is the variable by which the test's own binary, as another process, replaces the file of this name where it is started, and never ends with it.
const (
	slowly = "DISK_TEST_REPLACES"
	name   = "file"
)

func TestMain(m *testing.M) {
	if os.Getenv(slowly) != "" {
		_ = Replace(name, func(f *os.File) error {
			fmt.Println(f.Name())
			_, err := bufio.NewReader(os.Stdin).ReadByte() // Until it is killed.
			return err
		}, nil)
		return
	}
	os.Exit(m.Run())
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// writes is a content to put into a file.
func writes(content []byte) func(*os.File) error {
	return func(f *os.File) error { _, err := f.Write(content); return err }
}

// names are those of what is in a directory.
func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

func old(t *testing.T, path string) {
	t.Helper()
	must(t, os.Chtimes(path, time.Time{}, time.Now().Add(-time.Hour)))
}

// What is synced, and in which order, is all that a program can do about a loss of power.
func TestAFileIsSyncedBeforeItIsInItsPlaceAndItsDirectoryAfterwards(t *testing.T) {
	path := filepath.Join(t.TempDir(), name)
	must(t, os.WriteFile(path, []byte("old"), 0o600))
	var synced []string
	must(t, replace(path, writes([]byte("new")), nil, func(f *os.File) error {
		info, err := f.Stat()
		must(t, err)
		there, err := os.ReadFile(path)
		must(t, err)
		what := "the file"
		if info.IsDir() {
			what = "the directory"
		}
		synced = append(synced, what+" while there is the "+string(there))
		return f.Sync()
	}))
	if want := []string{"the file while there is the old", "the directory while there is the new"}; !slices.Equal(synced, want) {
		t.Errorf("synced is %q, want %q", synced, want)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Error(info, err)
	}
}

func TestWhatFailsLeavesTheFileAsItWasAndNothingBesideIt(t *testing.T) {
	broken := errors.New("broken")
	fails := func(*os.File) error { return broken }
	for what, test := range map[string]struct {
		write func(*os.File) error
		agree func() error
		sync  func(*os.File) error
		want  string
	}{
		"writing":                     {fails, nil, (*os.File).Sync, "old"},
		"syncing the file":            {writes([]byte("new")), nil, fails, "old"},
		"nobody agrees":               {writes([]byte("new")), func() error { return broken }, (*os.File).Sync, "old"},
		"syncing the directory alone": {writes([]byte("new")), nil, func(f *os.File) error { return onDirectory(f, broken) }, "new"},
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, []byte("old"), 0o600))
		err := replace(path, test.write, test.agree, test.sync)
		there, _ := os.ReadFile(path)
		if !errors.Is(err, broken) || string(there) != test.want || !slices.Equal(names(t, dir), []string{"file"}) {
			t.Errorf("%s: %v, there is %q beside %q", what, err, there, names(t, dir))
		}
	}
	path := filepath.Join(t.TempDir(), name)
	for _, cannot := range []error{syscall.EINVAL, syscall.ENOTSUP} { // As some file systems answer.
		must(t, replace(path, writes(nil), nil, func(f *os.File) error { return onDirectory(f, &os.PathError{Err: cannot}) }))
	}
	if err := Replace(filepath.Join(t.TempDir(), "absent", name), writes(nil), nil); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	if err := Change(filepath.Join(t.TempDir(), "absent"), fails); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

func onDirectory(f *os.File, err error) error {
	if info, failure := f.Stat(); failure != nil || info.IsDir() {
		return errors.Join(failure, err)
	}
	return nil
}

// Whoever reads finds one content whole, and what one agreed to is still so when it is done.
func TestSeveralMayReplaceOneFileAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), name)
	must(t, os.WriteFile(path, bytes.Repeat([]byte{0}, 1000), 0o600))
	first := func() byte {
		content, err := os.ReadFile(path)
		if err != nil || len(content) != 1000 || bytes.Count(content, content[:1]) != 1000 {
			t.Errorf("%d bytes that differ, %v", len(content), err)
			return 0
		}
		return content[0]
	}
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 25 {
				next := byte(0)
				err := Change(path, func(f *os.File) error { // Each is one more than the last, however many do so.
					next = first() + 1
					_, err := f.WriteAt(bytes.Repeat([]byte{next}, 1000), 0)
					return err
				})
				if err == nil {
					err = Replace(path, writes(bytes.Repeat([]byte{255}, 1000)), func() error { return errors.New("no") })
				}
				if next == 0 || err == nil || err.Error() != "no" {
					t.Error(next, err)
				}
			}
		})
	}
	all.Wait()
	if n := first(); n != 100 {
		t.Errorf("%d changes were made, want 100", n)
	}
}

// Whoever may read a directory can lock it, and a process that was stopped keeps what it has locked.
func TestALockThatIsNotGivenUpKeepsNobodyFromWriting(t *testing.T) {
	path := filepath.Join(t.TempDir(), name)
	dir, err := lockDir(path)
	must(t, err)
	defer dir.Close()
	must(t, Replace(path, writes([]byte("old")), nil))
	must(t, Change(path, writes([]byte("new"))))
	if there, err := os.ReadFile(path); string(there) != "new" {
		t.Errorf("%q, %v", there, err)
	}
}

// Where others may write, they can put there what never comes to an end.
func TestWhatIsNoFileIsNotWaitedForAndReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), name)
	must(t, syscall.Mkfifo(path, 0o600))
	for what, open := range map[string]func() error{
		"Open":   func() error { _, err := Open(path); return err },
		"Change": func() error { return Change(path, func(*os.File) error { return nil }) },
	} {
		if err := open(); err == nil || !strings.Contains(err.Error(), "no regular file") {
			t.Errorf("%s: %v", what, err)
		}
	}
	must(t, Replace(path, writes([]byte("new")), nil))
	file, err := Open(path)
	must(t, err)
	defer file.Close()
	if there, err := io.ReadAll(file); string(there) != "new" {
		t.Errorf("%q, %v", there, err)
	}
}

func TestWhatAKilledProcessLeftIsTakenAwayAndNothingElse(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, name)
	stays := []string{".file.12.new.bak", ".file.1a.new", ".file..new", ".file.new", ".other.12.new", "file", "file.12", ".file.99.new"}
	for _, one := range append(stays, ".file.12.new", ".file.345") { // The last as earlier versions called it.
		must(t, os.WriteFile(filepath.Join(dir, one), nil, 0o600))
		if one != ".file.99.new" { // It has just been made.
			old(t, filepath.Join(dir, one))
		}
	}
	Tidy(path)
	slices.Sort(stays)
	if left := names(t, dir); !slices.Equal(left, stays) {
		t.Errorf("left are %q, want %q", left, stays)
	}
}

func TestWhatALivingProcessWritesStays(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, name)
	other := exec.Command(os.Args[0])
	other.Dir, other.Env = dir, append(os.Environ(), slowly+"=1")
	in, err := other.StdinPipe()
	must(t, err)
	defer in.Close()
	out, err := other.StdoutPipe()
	must(t, err)
	must(t, other.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	must(t, err)
	aside := filepath.Join(dir, line[:len(line)-1])
	old(t, aside) // A disk may hang for long.
	Tidy(path)
	if _, err := os.Stat(aside); err != nil {
		t.Error("it was taken away:", err)
	}
	must(t, other.Process.Kill())
	_ = other.Wait()
	Tidy(path)
	if left := names(t, dir); len(left) > 0 {
		t.Errorf("after its end there is %q", left)
	}
}
